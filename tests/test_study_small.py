"""Small training on the demo's changed user: what the study trains, counts and prints."""

import json
from dataclasses import replace
from math import prod

import numpy as np
import pytest

import fptt
from fptt import cli
from fptt.errors import InputError
from fptt.report import tables
from fptt.studies import small as study
from fptt.studies.demo import DemoSettings, demo_digits, demo_model
from fptt.studies.formats import FORMATS
from fptt.studies.small import QUICK, WAYS, SmallRow, small
from fptt.tasks import load
from fptt.training.parts import PartRunner

READOUT = {"1.weight", "1.bias"}
FACTORS = {"0.weight_hh.down", "0.weight_hh.up"}

#: trains, K, batch, recompute -> what trains
EXPECTED = {
    ("everything", 28, 4, False): {"0.weight_ih", "0.weight_hh", "0.bias", *READOUT},
    ("everything", 28, 4, True): {"0.weight_ih", "0.weight_hh", "0.bias", *READOUT},
    ("everything", 28, 1, False): {"0.weight_ih", "0.weight_hh", "0.bias", *READOUT},
    ("everything", 784, 1, False): {"0.weight_ih", "0.weight_hh", "0.bias", *READOUT},
    ("recurrent weights", 28, 1, False): {"0.weight_hh"},
    ("biases", 28, 1, False): {"0.bias", "1.bias"},
    ("adapters, readout", 28, 1, True): {*FACTORS, *READOUT},
    ("adapters, readout", 784, 1, True): {*FACTORS, *READOUT},
    ("readout", 28, 1, False): READOUT,
    ("readout", 784, 1, False): READOUT,
}


@pytest.fixture(scope="module")
def digits():
    return demo_digits(load("s-mnist", subset=True).test, QUICK)


@pytest.fixture(scope="module")
def rows():
    return small(settings=QUICK, epochs=1)


def program_of(row):
    """Built from the row's words alone."""
    kwargs = {
        "everything": {},
        "recurrent weights": dict(train="0.weight_hh"),
        "biases": dict(train="*.bias*"),
        "adapters, readout": dict(train="1.*", adapters={"0.weight_hh": 4}),
        "readout": dict(train="1.*"),
    }[row.trains]
    return fptt.build(
        demo_model().net,
        fptt.FPTT(parts=row.parts),
        fptt.SGD(row.lr),
        steps=784,
        batch=row.batch,
        loss="last" if row.parts == 28 else "every_step",
        recompute=row.recompute,
        **FORMATS[row.format],
        **kwargs,
    )


def test_the_ways_are_those_of_the_table(rows):
    found = [(row.trains, row.parts, row.batch, row.recompute) for row in rows]
    assert found == [way for way in EXPECTED for _ in range(2)]
    assert [row.format for row in rows] == ["float32", "bfloat16 stochastic"] * len(EXPECTED)
    for way in WAYS:
        assert way.run.rule == "FPTT" and way.run.clip is None and way.run.label_every == 28


def test_the_study_states_true_numbers(rows):
    for row in rows:
        program = program_of(row)
        assert set(program.trained) == EXPECTED[row.trains, row.parts, row.batch, row.recompute]
        memory = program.memory()
        assert (row.arena_bytes, row.const_bytes) == (memory.arena_bytes, memory.const_bytes)
        shapes = [program.net.parameters[name].shape for name in program.trained]
        assert row.trained == sum(map(prod, shapes))
        assert row.seconds > 0
    # what trains and what does not: every weight lies in the arena or in the constants
    of_all = rows[0].trained
    for row in rows:
        if row.trains != "adapters, readout":
            size = 4 if row.format == "float32" else 2
            assert row.const_bytes == pytest.approx(size * (of_all - row.trained), abs=256)


def test_the_updates_are_counted(rows, monkeypatch):
    """A part that learns returns a loss."""
    losses = []
    train = PartRunner.train
    monkeypatch.setattr(
        PartRunner, "train", lambda *a, **k: losses.append(train(*a, **k)) or losses[-1]
    )
    for way in (WAYS[0], WAYS[3]):
        losses.clear()
        (row, _) = small([way], settings=QUICK, epochs=2)
        assert 2 * row.updates == sum(map(len, losses))  # two formats
    assert [row.updates for row in rows[::2]] == [28 * 3] * 2 + [28 * 10] * 8


@pytest.mark.parametrize("number", [6, 7, 12, 13, 14])
def test_a_row_is_a_plain_training(number, rows, digits):
    """And its accuracies are those of the trained network, whatever of it trained."""
    row = rows[number]
    labels = digits.learn.y
    if row.parts == 784:
        labels = np.full((len(labels), 784), -1, np.int32)
        labels[:, 27::28] = digits.learn.y[:, None]
    trainer = fptt.Trainer(program_of(row))
    trainer.fit((digits.learn.x, labels), 1)
    net = demo_model().net
    plain = fptt.Trainer(fptt.build(net, fptt.BPTT(), steps=784, batch=4))
    before = [plain.evaluate(data)["accuracy"] for data in (digits.judge, digits.old)]
    assert [row.new_before, row.old_before] == before
    plain.load_parameters(trainer.merged_parameters())
    after = [plain.evaluate(data)["accuracy"] for data in (digits.judge, digits.old)]
    assert [row.new_after, row.old_after] == after


def test_gates_computed_again_learn_the_same_but_for_rounding(rows):
    """Of 30 digits: gradients add up in another order, and in bfloat16 with other rounding."""
    kept, again = rows[:2], rows[2:4]
    for one, other in zip(kept, again, strict=True):
        assert (one.recompute, other.recompute) == (False, True)
        assert one.new_after == pytest.approx(other.new_after, abs=0.11)
        assert one.old_after == pytest.approx(other.old_after, abs=0.11)
        assert one.arena_bytes != other.arena_bytes


def test_a_readout_learns_the_same_whatever_k(rows):
    """A part without a label makes no update, and no gradient passes below the readout."""
    for one, other in zip(rows[16:18], rows[18:20], strict=True):
        assert (one.trains, one.parts, other.trains, other.parts) == ("readout", 28, "readout", 784)
        assert (one.new_after, one.old_after) == (other.new_after, other.old_after)


def test_the_study_learns_and_the_seed_matters(monkeypatch):
    """Readout only, in float32, one epoch of the demo's digits."""
    monkeypatch.setattr(study, "USED_FORMATS", ("float32",))
    (way,) = (way for way in WAYS if way.trains == "readout" and way.run.parts == 28)
    way = replace(way, run=replace(way.run, lr=0.003))
    settings = DemoSettings(learn=10, judge=20, old=20)
    (row,) = small([way], settings=settings, epochs=1)
    assert row.new_after > row.new_before + 0.02
    found = {row.new_after, row.old_after}
    for seed in (1, 2):
        (other,) = small([way], settings=replace(settings, seed=seed), epochs=1)
        found |= {other.new_after, other.old_after}
    assert len(found) > 2


def test_progress_is_told_before_every_row():
    calls = []
    small(WAYS[-1:], settings=QUICK, epochs=1, on_progress=lambda *a: calls.append(a))
    assert calls == [
        ("readout, K=784, batch 1, float32", 0.0),
        ("readout, K=784, batch 1, bfloat16 stochastic", 0.5),
    ]


def test_too_few_images_are_refused():
    with pytest.raises(InputError, match="there are 100 of the digit 0"):
        small(settings=replace(QUICK, old=98))


def a_row(name, new, arena, constant):
    return SmallRow(
        *("readout", 28, 1, True, 0.003, name, 1290, 56_000, arena, constant),
        *(0.5825, new, 0.975, 0.96, 4.25),
    )


def test_the_table():
    two = [
        a_row("float32", 0.7, 18_752, 266_240),
        a_row("bfloat16 stochastic", 0.6875, 9_472, 133_120),
    ]
    table = tables.small(two)
    assert [str(column.header) for column in table.columns][7:] == [
        *("arena\nfloat32", "arena\nbfloat16", "constant\nfloat32", "constant\nbfloat16"),
        *("new\nfloat32", "new\nbfloat16", "old\nfloat32", "old\nbfloat16", "time"),
    ]
    lines = list(zip(*(column.cells for column in table.columns), strict=True))
    assert lines == [
        ("before", *[""] * 10, "58.2 %", "58.2 %", "97.5 %", "97.5 %", ""),
        (
            *("readout", "again", "28", "1", "1,290", "0.003", "56,000"),
            *("18,752", "9,472", "266,240", "133,120", "70.0 %", "68.8 %", "96.0 %", "96.0 %"),
            "8.5 s",
        ),
    ]


def test_the_command(capsys, rows):
    assert cli.main(["reproduce", "small", "--quick", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = [row.as_json() for row in rows]
    for row in [*found, *expected]:
        assert row.pop("seconds") > 0
    assert found == expected


def test_the_command_prints_the_table(capsys, monkeypatch):
    row = a_row("float32", 0.7, 18_752, 266_240)
    given = {}
    monkeypatch.setattr(study, "small", lambda **options: given.update(options) or [row])
    assert cli.main(["reproduce", "small", "--seed", "3"]) == 0
    assert "18,752" in capsys.readouterr().out
    assert given["settings"] == DemoSettings(seed=3) and given["epochs"] is None
    assert cli.main(["reproduce", "smaller"]) == 2
    assert "fsdd, sweep, formats, small" in capsys.readouterr().err
