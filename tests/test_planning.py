"""Plans before anything runs: sweeps, the seeds' configuration, and what the demo claims."""

import json
import re

import numpy as np
import pytest

import fptt
from fptt import planning, published
from fptt.planning import plan_row, sweep
from fptt.report import tables
from fptt.studies import demo
from fptt.studies.demo import DemoRow, DemoSettings, run_demo, trade

DIVISORS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 48)


def rules(parts=DIVISORS):
    return [fptt.FPTT(parts=k) for k in parts]


NETWORKS = {
    "LSTM": fptt.Network([fptt.LSTM(1, 32), fptt.Linear(32, 10)]),
    "GRU": fptt.Network([fptt.GRU(3, 17), fptt.Linear(17, 5)]),
    "stack": fptt.Network(
        [fptt.Embedding(50, 7), fptt.LSTM(7, 9), fptt.RNN(9, 11), fptt.Linear(11, 50)]
    ),
}


@pytest.mark.parametrize("options", [{}, {"train": ("1.*",)}, {"clip": 1.0}], ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_rows_add_up(name, options):
    """All categories, with what is shared and the gaps, are the bytes to provide."""
    for batch, loss, dtype in [(1, "last", "float32"), (3, "every_step", "bfloat16")]:
        for optimizer in (fptt.SGD(0.1), fptt.Adam()):
            given = dict(steps=48, batch=batch, loss=loss, dtype=dtype, **options)
            for row in sweep(NETWORKS[name], rules((1, 6, 48)), optimizer, **given):
                assert sum(row.memory_bytes.values()) == row.total_bytes
                assert row.total_bytes >= row.arena_bytes > 0
                assert (row.total_bytes > row.arena_bytes) == ("train" in options)
                assert row.memory_bytes["shared"] <= 0 <= row.memory_bytes["alignment"]
                assert row.part_steps == 48 // row.parts


def test_rows_are_those_of_the_program():
    net = NETWORKS["LSTM"]
    (row,) = sweep(net, rules((7,)), fptt.SGD(0.1, 0.9), steps=29, batch=4)
    program = fptt.build(net, fptt.FPTT(parts=7), fptt.SGD(0.1, 0.9), steps=29, batch=4)
    memory = program.memory()
    assert (row.arena_bytes, row.total_bytes) == (memory.arena_bytes, memory.total_bytes)
    assert dict(row.memory_bytes) == {
        **memory.categories,
        "shared": -memory.shared_bytes,
        "alignment": memory.alignment_bytes,
    }
    assert row.work == program.work().by_function()
    assert (row.parts, row.part_steps) == (7, 5)
    # the trainer provides exactly that
    assert fptt.Trainer(program).backend.arena.nbytes == row.arena_bytes


@pytest.mark.parametrize("name", NETWORKS)
def test_memory_falls_with_every_k(name):
    rows = sweep(NETWORKS[name], rules(), steps=48, batch=4)
    arenas = [row.arena_bytes for row in rows]
    activations = [row.memory_bytes["activation"] for row in rows]
    assert all(np.diff(arenas) < 0)
    assert all(np.diff(activations) < 0)
    assert {row.memory_bytes["parameter"] for row in rows} == {NETWORKS[name].size * 4}


def test_activations_are_proportional_to_the_part():
    """6 H numbers per step and sample of an LSTM, and the carried h and c beside them."""
    rows = sweep(NETWORKS["LSTM"], rules(), steps=48, batch=4)
    for row in rows:
        history = 6 * 32 * row.part_steps * 4 * 4
        logits = 10 * 4 * 4
        assert row.memory_bytes["activation"] == history + logits
        assert row.memory_bytes["carry"] == 2 * 32 * 4 * 4


def test_work_of_a_sweep():
    """K updates and K losses instead of one; the steps' own work does not depend on K."""
    tables_ = {}
    for parts in (1, 4, 28):
        program = fptt.build(NETWORKS["LSTM"], fptt.FPTT(parts=parts), steps=112, batch=4)
        tables_[parts] = program.work()
    for routine in ("update", "loss"):
        one = tables_[1].total(routine)
        for parts, table in tables_.items():
            many = table.total(routine)
            assert (many.mul, many.add, many.bytes) == (
                parts * one.mul,
                parts * one.add,
                parts * one.bytes,
            )
    assert tables_[28].total("forward").mul == tables_[1].total("forward").mul > 0


def test_plan_rows_are_plain_data():
    row = plan_row(fptt.build(NETWORKS["GRU"], fptt.FPTT(parts=4), steps=8))
    plain = row.as_json()
    assert json.loads(json.dumps(plain)) == plain
    assert set(plain) == {
        *("rule", "parts", "part_steps", "memory_bytes", "arena_bytes", "total_bytes", "work")
    }


# --- the seeds' configuration ----------


@pytest.fixture(scope="module")
def seeds():
    return planning.seeds_program()


def printed_bytes(text):
    value, unit = text.split()
    return float(value) * {"B": 1, "KB": 1000}[unit]


def test_the_seeds_configuration(seeds):
    assert str(seeds.net) == "LSTM(1, 128) - Linear(128, 10)"
    assert (seeds.steps, seeds.rule.parts, seeds.batch, seeds.part_steps) == (784, 28, 100, 28)
    assert (seeds.dtype, seeds.optimizer) == ("float32", fptt.SGD(lr=0.01))


def test_the_printed_figures_are_what_the_formulas_give():
    """Within the rounding of the printed figure; the input's 400 B is the slip that is named."""
    figures = {row.name: row.printed for row in published.SEEDS_MEMORY}
    assert figures == {
        "parameters": "265 KB",
        "lambda": "265 KB",
        "running mean": "265 KB",
        "gradients": "265 KB",
        "input": "400 B",
        "label": "440 B",
        "network states": "8600 KB",
        "forward scratch": "200 KB",
        "backward scratch": "500 KB",
    }
    for row in published.SEEDS_MEMORY:
        if row.name == "input":
            assert row.formula_bytes == 11_200
            continue
        # 265 KB is 271,416 B in units of 1024; the others are round numbers of 1000 B
        error = min(
            abs(row.formula_bytes / printed_bytes(row.printed) - 1),
            abs(row.formula_bytes / 1.024 / printed_bytes(row.printed) - 1),
        )
        assert error < 0.03, (row.name, row.formula_bytes)
    total = sum(row.formula_bytes for row in published.SEEDS_MEMORY)
    assert total == 4 * 271_416 + 11_200 + 440 + 8_825_600 + 204_800 + 516_000
    assert 10.2e6 <= total <= 10.2 * 2**20  # printed as 10.2 MB


def test_the_comparison_adds_up_to_the_arena(seeds):
    rows = planning.seeds_memory(seeds)
    assert sum(row.ours_bytes for row in rows) == seeds.memory().arena_bytes
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.why for row in rows)


def test_the_comparison_says_true_numbers(seeds):
    """What the column 'why they differ' claims."""
    rows = {row.name: row for row in planning.seeds_memory(seeds)}
    for name in ("parameters", "lambda", "running mean", "gradients"):
        assert rows[name].ours_bytes == 67_850 * 4
        assert rows[name].formula_bytes - rows[name].ours_bytes == 4 * 4
        assert "4 numbers" in rows[name].why
    assert rows["input"].ours_bytes == rows["input"].formula_bytes == 11_200
    assert "11,200" in rows["input"].why
    assert rows["label"].formula_bytes - rows["label"].ours_bytes == 10 * 4
    states = rows["network states"]
    assert states.formula_bytes - states.ours_bytes == 28 * 20 * 400 - 10 * 400
    assert rows["backward scratch"].ours_bytes == 2 * 128 * 400 + 4
    assert rows["carried state"].ours_bytes == 2 * 128 * 400
    assert rows["learning rate"].ours_bytes == 4
    assert rows["shared places"].ours_bytes == -seeds.memory().shared_bytes
    assert rows["alignment"].ours_bytes == seeds.memory().alignment_bytes


def test_the_work_rows_are_the_program_s(seeds):
    """For 600 batches of 100 images, in units of 1e9."""
    table = seeds.work()
    routines = {
        "FPTT logic": ["update"],
        "forward": ["begin_sequence", "forward", "loss", "carry"],
        "backward": ["backward"],
    }
    rows = planning.seeds_work(seeds)
    assert [row.block for row in rows] == list(routines)
    for row in rows:
        work = table.total(*routines[row.block])
        wanted = [n * 600 / 1e9 for n in (work.mul, work.add, work.trans)]
        assert row.ours == pytest.approx(wanted, rel=1e-15)
    seen = {item.routine for item in table.items}
    assert seen <= set(sum(routines.values(), []))  # noqa: RUF017
    total = table.total()
    assert sum(row.ours[0] for row in rows) == pytest.approx(total.mul * 600 / 1e9, rel=1e-12)
    assert sum(row.ours[1] for row in rows) == pytest.approx(total.add * 600 / 1e9, rel=1e-12)
    assert sum(row.ours[2] for row in rows) == pytest.approx(total.trans * 600 / 1e9, rel=1e-12)


def test_the_work_comparison_says_true_numbers(seeds):
    rows = {row.block: row for row in planning.seeds_work(seeds)}
    assert [row.seeds for row in rows.values()] == [
        (5.7, 9.1, 0.0),
        (3185.2, 3167.4, 3.0),
        (5609.4, 5470.9, 12.0),
    ]
    steps = 60_000 * 784
    assert f"({steps * 1280 / 1e9:.1f} G)" in rows["forward"].why
    assert f"are {steps * 5 * 128 / 1e9:.1f} G" in rows["forward"].why
    # five functions per cell and step, and the logits' softmax once per part
    softmax = 60_000 * 28 * 11 / 1e9
    assert rows["forward"].ours[2] == pytest.approx(steps * 5 * 128 / 1e9 + softmax, rel=1e-9)
    assert f"of {steps * 512 * 257 / 1e9:.1f} G together" in rows["backward"].why
    assert rows["backward"].ours[2] == pytest.approx(steps * 128 / 1e9, rel=1e-9)
    # 6 multiplications and 8 additions per parameter and update
    logic = rows["FPTT logic"]
    per_number = 67_850 * 28 * 600 / 1e9
    assert logic.ours[0] / per_number == pytest.approx(6, abs=0.01)
    assert logic.ours[1] / per_number == pytest.approx(8, abs=0.01)
    assert "6 and 8 against their 5 and 8" in logic.why
    assert logic.seeds[0] / per_number == pytest.approx(5, abs=0.05)
    assert logic.seeds[1] / per_number == pytest.approx(8, abs=0.05)


# --- the demo ----------


@pytest.fixture
def few_images(monkeypatch):
    """The demo's data cut down to 200 and 100 images."""
    whole = demo.load
    monkeypatch.setattr(demo, "load", lambda *a, **k: whole(*a, **k, limit=200))


def demo_row(rule, parts, accuracy, arena, seconds):
    return DemoRow(rule, parts, accuracy, {"activation": arena}, arena, seconds)


COMPARED = (
    "The parts save activations; lambda and the running mean are the price of R(t). Every rule saw "
    "every image equally often, from the same weights; with K parts there are K updates a batch. "
    "One seed: differences below a point or so are chance."
)


def test_the_demo_s_sentence_with_two_clauses():
    rows = [
        demo_row("BPTT", 1, 0.90, 1_000_000, 10.0),
        demo_row("FPTT", 2, 0.95, 600_000, 12.0),
        demo_row("FPTT", 4, 0.87, 350_000, 15.0),
        demo_row("FPTT", 28, 0.85, 1_200_000, 5.0),
        demo_row("TBPTT", 4, 0.89, 300_000, 9.0),
    ]
    assert trade(rows) == (
        "FPTT in 2 parts trains in 600,000 bytes where BPTT needs 1,000,000 (40 % less), for +5.0 "
        "points of accuracy and 1.2 times the time; FPTT in 4 parts trains in 350,000 bytes where "
        "BPTT needs 1,000,000 (65 % less), for -3.0 points of accuracy and 1.5 times the time "
        "(without lambda and the running mean: 300,000 bytes, -1.0 points). " + COMPARED
    )


def test_the_demo_s_sentence_where_the_best_is_the_smallest():
    rows = [demo_row("BPTT", 1, 0.9, 1000, 10.0), demo_row("FPTT", 2, 0.8, 1100, 5.0)]
    assert trade(rows) == (
        "FPTT in 2 parts trains in 1,100 bytes where BPTT needs 1,000 (10 % more), for -10.0 "
        "points of accuracy and 0.5 times the time. " + COMPARED
    )


def test_the_demo_states_true_numbers(few_images):
    calls = []
    settings = DemoSettings(runs=(("BPTT", 1), ("FPTT", 7), ("FPTT", 28)), epochs=1, batch=50)
    rows = run_demo(settings, on_progress=lambda *a: calls.append(a))
    assert calls == [("BPTT K=1", 1, 1), ("FPTT K=7", 1, 1), ("FPTT K=28", 1, 1)]
    net = fptt.Network([fptt.LSTM(28, 128), fptt.Linear(128, 10)])
    for row, rule in zip(rows, [fptt.BPTT(), fptt.FPTT(parts=7), fptt.FPTT(parts=28)], strict=True):
        program = fptt.build(net, rule, fptt.SGD(0.5, 0.9), steps=28, batch=50, clip=1.0)
        memory = program.memory()
        assert row.arena_bytes == memory.arena_bytes
        assert dict(row.memory_bytes) == dict(memory.categories)
        assert 0 <= row.accuracy <= 1 and row.seconds > 0
    sentence = trade(rows)
    bptt, by_parts = rows[0], {row.parts: row for row in rows}
    clauses = re.findall(
        r"FPTT in (\d+) parts trains in ([\d,]+) bytes where BPTT needs ([\d,]+) \((\d+) % less\), "
        r"for ([+-][\d.]+) points of accuracy and ([\d.]+) times the time",
        sentence,
    )
    assert clauses
    assert sentence.endswith(COMPARED)
    for parts, ours, theirs, percent, points, times in clauses:
        row = by_parts[int(parts)]
        assert int(ours.replace(",", "")) == row.arena_bytes
        assert int(theirs.replace(",", "")) == bptt.arena_bytes
        assert int(percent) == round(100 * (1 - row.arena_bytes / bptt.arena_bytes))
        assert float(points) == pytest.approx(100 * (row.accuracy - bptt.accuracy), abs=0.051)
        assert float(times) == pytest.approx(row.seconds / bptt.seconds, abs=0.051)
    named = {int(clause[0]) for clause in clauses}
    as_good = [row for row in rows[1:] if row.accuracy >= bptt.accuracy - 0.01]
    kept = (
        min(as_good, key=lambda row: row.arena_bytes)
        if as_good
        else max(rows[1:], key=lambda row: row.accuracy)
    )
    assert named == {kept.parts, 28}


def test_the_demo_repeats_itself_apart_from_the_time(few_images):
    settings = DemoSettings(runs=(("BPTT", 1), ("FPTT", 28)), epochs=2, batch=20)
    one, two = run_demo(settings), run_demo(settings)
    assert [row.accuracy for row in one] == [row.accuracy for row in two]
    other = run_demo(DemoSettings(runs=(("BPTT", 1), ("FPTT", 28)), epochs=2, batch=20, seed=1))
    assert [row.accuracy for row in one] != [row.accuracy for row in other]


def test_the_demo_s_table_leaves_nothing_out():
    """The groups of a row add up to all categories."""
    program = fptt.build(
        NETWORKS["LSTM"], fptt.FPTT(parts=4), fptt.SGD(0.1, 0.9), steps=28, batch=2, clip=1.0
    )
    memory = program.memory()
    row = DemoRow("FPTT", 4, 0.5, memory.categories, memory.arena_bytes, 1.0)
    table = tables.demo([row])
    cells = [list(column.cells)[0] for column in table.columns]  # noqa: RUF015
    numbers = [int(cell.replace(",", "")) for cell in cells[3:-2]]
    assert sum(numbers) == sum(memory.categories.values())
    assert cells[:3] == ["FPTT", "4", "50.0 %"]
    assert cells[-2:] == [f"{memory.arena_bytes:,}", "1.0 s"]
