"""The demo: its model, its digits, what it reports, and that it repeats itself."""

from dataclasses import replace

import numpy as np
import pytest

import fptt
from fptt.errors import InputError
from fptt.report import tables
from fptt.runs import evaluate
from fptt.storage.modelfile import save_model
from fptt.studies import demo
from fptt.studies.demo import DemoRow, DemoSettings, Run, demo_digits, run_demo, summary
from fptt.studies.turn import turned
from fptt.tasks import SequenceData, load
from fptt.training.parts import PartRunner

RUNS = (
    Run("FPTT", 1, 0.03, 1, 784, clip=1.0),
    Run("FPTT", 28, 0.01, 2, 28),
    Run("FPTT", 784, 0.01, 1, 28),
    Run("TBPTT", 28, 0.01, 1, 28),
)
SMALL = DemoSettings(runs=RUNS, learn=1, judge=2, old=3)


@pytest.fixture(scope="module")
def test_images():
    return load("s-mnist", subset=True).test


# --- the model ----------


def test_the_bundled_model_is_what_its_notes_say(test_images):
    model = demo.demo_model()
    assert str(model.net) == "LSTM(1, 128) - Linear(128, 10)"
    notes = model.notes
    assert notes["task"] == "s-mnist" and notes["normalisation"] == {"divide_by": 255.0}
    assert notes["command"].startswith("fptt train --task s-mnist --hidden 128 ")
    found = evaluate("bundled", model, load("s-mnist", subset=True))["accuracy"]
    assert found >= 0.96
    # another processor rounds differently
    assert found == pytest.approx(notes["subset_test_accuracy"], abs=0.003)
    assert notes["test_accuracy"] >= 0.96


def test_the_bundled_model_is_of_a_finished_training():
    assert "provisional" not in demo.demo_model().notes


def test_another_model_is_refused(tmp_path):
    with pytest.raises(InputError) as error:
        run_demo(replace(SMALL, model=tmp_path / "none.safetensors"))
    assert str(tmp_path / "none.safetensors") in str(error.value)
    path, net = tmp_path / "rows.safetensors", fptt.Network([fptt.LSTM(28, 4), fptt.Linear(4, 10)])
    save_model(path, net, net.initial(0), "last", "cross_entropy", {"task": "mnist-rows"})
    with pytest.raises(InputError) as error:
        run_demo(replace(SMALL, model=path))
    assert str(error.value) == (
        f"{path} is LSTM(28, 4) - Linear(4, 10), trained on task mnist-rows; the demo needs a "
        "model of s-mnist"
    )


# --- the digits ----------


def test_turned_by_right_angles_and_back():
    images = np.random.default_rng(0).random((3, 6, 6))
    assert np.allclose(turned(images, 0), images, atol=1e-6)
    assert np.allclose(turned(images, 90), np.rot90(images, -1, axes=(1, 2)), atol=1e-6)
    assert np.allclose(turned(images, -90), np.rot90(images, 1, axes=(1, 2)), atol=1e-6)
    assert turned(images, 30).dtype == np.float32


def test_turned_turns_clockwise_and_leaves_the_edges_dark(test_images):
    bar = np.zeros((1, 29, 29))
    bar[0, 4:25, 14] = 1
    found = turned(bar, 30)[0]
    rows, columns = np.nonzero(found > 0.3)
    slope = np.polyfit(14 - rows, columns - 14, 1)[0]  # to the right for each row up
    assert slope == pytest.approx(np.tan(np.deg2rad(30)), abs=0.05)
    assert found.sum() == pytest.approx(21, rel=0.02)
    digits = test_images.x.reshape(-1, 28, 28)
    assert turned(np.ones((1, 28, 28)), 30)[0, 0, 0] == 0
    assert turned(digits, 30).sum() == pytest.approx(digits.sum(), rel=0.01)


def test_the_three_sets_are_different_test_images(test_images):
    numbered = SequenceData(test_images.x.copy(), test_images.y)
    numbered.x[:, 0, 0] = np.arange(len(numbered))  # a corner pixel as the image's number
    sets = demo_digits(numbered, replace(SMALL, turn=0.0))
    numbers = [data.x[:, 0, 0].round().astype(int).tolist() for data in vars(sets).values()]
    assert [len(found) for found in numbers] == [10, 20, 30]
    assert len(set().union(*numbers)) == 60
    for data, each in zip(vars(sets).values(), (1, 2, 3), strict=True):
        assert np.bincount(data.y).tolist() == [each] * 10
    straight = demo_digits(test_images, replace(SMALL, turn=0.0))
    crooked = demo_digits(test_images, SMALL)
    assert np.array_equal(straight.old.x, crooked.old.x)
    for name in ("learn", "judge"):
        images = getattr(straight, name).x.reshape(-1, 28, 28)
        expected = turned(images, SMALL.turn).reshape(-1, 784, 1)
        assert np.array_equal(getattr(crooked, name).x, expected)


def test_too_few_images_are_refused():
    with pytest.raises(InputError) as error:
        run_demo(replace(SMALL, old=98))
    assert str(error.value) == (
        "the demo needs 101 images of each digit; there are 100 of the digit 0"
    )


def test_the_demo_uses_all_bundled_test_images():
    settings = DemoSettings()
    assert settings.learn + settings.judge + settings.old == 100


# --- what it reports ----------


@pytest.fixture(scope="module")
def small_rows():
    return run_demo(SMALL)


def test_the_demo_states_true_numbers(small_rows, test_images):
    net, sets = demo.demo_model().net, demo_digits(test_images, SMALL)
    rules = [fptt.FPTT(parts=1), fptt.FPTT(parts=28), fptt.FPTT(parts=784), fptt.TBPTT(parts=28)]
    for row, run, rule in zip(small_rows, RUNS, rules, strict=True):
        loss = "every_step" if run.parts == 784 else "last"
        program = fptt.build(
            net, rule, fptt.SGD(run.lr), steps=784, batch=4, clip=run.clip, loss=loss
        )
        assert row.arena_bytes == program.memory().arena_bytes
        assert dict(row.memory_bytes) == dict(program.memory().categories)
        assert (row.rule, row.parts, row.lr, row.epochs, row.label_every) == (
            *(run.rule, run.parts, run.lr, run.epochs, run.label_every),
        )
        assert row.seconds > 0
        assert row.seconds_per_sequence == pytest.approx(row.seconds / (10 * run.epochs))
    plain = fptt.Trainer(fptt.build(net, fptt.BPTT(), fptt.SGD(0.1), steps=784, batch=4))
    for name, data in (("new_before", sets.judge), ("old_before", sets.old)):
        assert {getattr(row, name) for row in small_rows} == {plain.evaluate(data)["accuracy"]}


def test_k_1_is_a_plain_training_on_the_turned_digits(small_rows, test_images):
    sets = demo_digits(test_images, SMALL)
    program = fptt.build(
        demo.demo_model().net, fptt.FPTT(parts=1), fptt.SGD(0.03), steps=784, batch=4, clip=1.0
    )
    trainer = fptt.Trainer(program)
    trainer.fit(sets.learn, 1)
    assert trainer.evaluate(sets.judge)["accuracy"] == small_rows[0].new_after
    assert trainer.evaluate(sets.old)["accuracy"] == small_rows[0].old_after


def test_the_updates_are_counted(small_rows, monkeypatch):
    """A part that learns returns a loss."""
    losses = []
    train = PartRunner.train
    monkeypatch.setattr(
        PartRunner, "train", lambda *a, **k: losses.append(train(*a, **k)) or losses[-1]
    )
    for row, run in zip(small_rows, RUNS, strict=True):
        losses.clear()
        run_demo(replace(SMALL, runs=(run,)))
        assert row.updates == sum(map(len, losses))
    assert [row.updates for row in small_rows] == [3, 168, 84, 84]


def test_the_demo_repeats_itself_apart_from_the_time(test_images):
    sets, net, run = demo_digits(test_images, SMALL), demo.demo_model().net, RUNS[2]
    one, two, other = (
        demo.adapt(net, run, sets.learn, replace(SMALL, seed=seed)).parameters()
        for seed in (0, 0, 1)
    )
    for name in one:
        assert np.array_equal(one[name], two[name])
    assert not np.array_equal(one["1.weight"], other["1.weight"])


def test_progress_is_told_after_every_epoch():
    calls = []
    run_demo(replace(SMALL, runs=RUNS[:2]), on_progress=lambda *a: calls.append(a))
    assert calls == [("FPTT K=1", 1, 1), ("FPTT K=28", 1, 2), ("FPTT K=28", 2, 2)]


def a_row(rule, parts, new, old, arena):
    memory = {"activation": arena // 2}
    return DemoRow(
        *(rule, parts, 0.01, 10, 0.5, new, 0.97, old, 28, 1400, memory, arena, 2.5, 0.0125)
    )


def test_the_demo_s_sentences():
    rows = [
        a_row("FPTT", 1, 0.75, 0.96, 10_000_000),
        a_row("FPTT", 28, 0.625, 0.98, 2_500_000),
        a_row("TBPTT", 28, 0.61, 0.95, 2_000_000),
    ]
    assert summary(rows) == (
        "The model reads 97.0 % of everybody's digits and 50.0 % of the new user's. After "
        "learning from the new user by FPTT in 1 part, in 10,000,000 bytes: 75.0 % of the new "
        "user's, 96.0 % of everybody's; in 28 parts, in 2,500,000 bytes (75 % less): 62.5 % and "
        "98.0 % (61.0 % and 95.0 % without lambda and the running mean, in 2,000,000 bytes). One "
        "seed and few images: differences of a few points are chance."
    )


def test_the_demo_s_table():
    table = tables.demo([a_row("FPTT", 28, 0.625, 0.96, 2_500_000)])
    lines = list(zip(*(column.cells for column in table.columns), strict=True))
    assert lines == [
        ("before", "", "50.0 %", "97.0 %", "", "", "", "", "", ""),
        (
            *("FPTT", "28", "62.5 %", "96.0 %", "0.01", "1,400"),
            *("1,250,000", "2,500,000", "12.5 ms", "2.5 s"),
        ),
    ]
