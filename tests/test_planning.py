"""Plans before anything runs: sweeps, the seeds' configuration."""

import json

import numpy as np
import pytest

import fptt
from fptt import planning, published
from fptt.planning import plan_row, sweep
from fptt.program.ops import Work

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
    """K updates and K losses instead of one; the steps' own work does not depend on K, nor do the
    products over the steps that the updates apply."""
    tables_, program = {}, None
    for parts in (1, 4, 28):
        program = fptt.build(NETWORKS["LSTM"], fptt.FPTT(parts=parts), steps=112, batch=1)
        tables_[parts] = program.work()
    recurrent, head, gates = 4 * 32 * (1 + 32), 10 * 32, 4 * 32
    for parts, table in tables_.items():
        update = table.by_function("update")
        products = 112 * recurrent + parts * head
        assert (update["MatMul-3"].mul, update["MatMul-3"].add) == (products, products)
        # of a bias: every row but the first of a part is one addition; the head sees one row
        assert update["Mat2Vec"].add == (112 - parts) * gates
        logic, size = update["EWO-SGD"], program.net.size
        assert (logic.mul, logic.add) == (parts * 6 * size, parts * 8 * size)
        # theta, lambda and mean are read and written, and lr for each of five operations
        own = 4 * (6 * size + 5)
        # da for three products; x; h of the step before; the head's dy, twice, and its input
        seen = 4 * (112 * (3 * gates + 1 + 32) + parts * (2 * 10 + 32))
        assert logic.bytes == parts * own + seen
        assert {f for f, w in update.items() if w != Work()} == {"MatMul-3", "Mat2Vec", "EWO-SGD"}
    for routine in ("loss",):
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
        *("rule", "source", "parts", "part_steps", "recompute"),
        *("memory_bytes", "arena_bytes", "total_bytes", "work"),
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
    for name in ("parameters", "lambda", "running mean"):
        assert rows[name].ours_bytes == 67_850 * 4
        assert rows[name].formula_bytes - rows[name].ours_bytes == 4 * 4
        assert "4 numbers" in rows[name].why
    assert rows["gradients"].ours_bytes == 0
    assert "applied piece by piece" in rows["gradients"].why
    assert rows["input"].ours_bytes == rows["input"].formula_bytes == 11_200
    assert "11,200" in rows["input"].why
    assert rows["label"].formula_bytes - rows["label"].ours_bytes == 10 * 4
    states = rows["network states"]
    assert states.formula_bytes - states.ours_bytes == 28 * 20 * 400 - 10 * 400
    assert rows["backward scratch"].ours_bytes == 2 * 128 * 400 + 4 + 128 * 64 * 4
    assert "dh, dc [100, 128], the loss, and [128, 64] sums" in rows["backward scratch"].why
    assert rows["carried state"].ours_bytes == 2 * 128 * 400
    assert rows["learning rate"].ours_bytes == 4
    assert rows["shared places"].ours_bytes == -seeds.memory().shared_bytes
    assert rows["alignment"].ours_bytes == seeds.memory().alignment_bytes


def test_the_work_rows_are_the_program_s(seeds):
    """For 600 batches of 100 images, in units of 1e9; as of a program that keeps its gradients,
    where the products of the backward pass stand in the routine `backward`."""
    table, keeping = seeds.work(), seeds.keeping_gradients().work()
    routines = {
        "FPTT logic": ["update"],
        "forward": ["begin_sequence", "forward", "loss", "carry"],
        "backward": ["backward"],
    }
    rows = planning.seeds_work(seeds)
    assert [row.block for row in rows] == list(routines)
    for row in rows:
        work = keeping.total(*routines[row.block])
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
    # dh at all steps but each part's first; the gradients of W_hh and W_ih; both of the head
    dh, weights = 60_000 * (784 - 28) * 512 * 128, steps * 512 * (128 + 1)
    head = 2 * 60_000 * 28 * 10 * 128
    assert f"products of {(dh + weights + head) / 1e9:.1f} G; " in rows["backward"].why
    assert rows["backward"].ours[2] == pytest.approx(steps * 128 / 1e9, rel=1e-9)
    # 6 multiplications and 8 additions per parameter and update
    logic = rows["FPTT logic"]
    per_number = 67_850 * 28 * 600 / 1e9
    assert logic.ours[0] / per_number == pytest.approx(6, abs=0.01)
    assert logic.ours[1] / per_number == pytest.approx(8, abs=0.01)
    assert "6 and 8 against their 5 and 8" in logic.why
    assert logic.seeds[0] / per_number == pytest.approx(5, abs=0.05)
    assert logic.seeds[1] / per_number == pytest.approx(8, abs=0.05)
