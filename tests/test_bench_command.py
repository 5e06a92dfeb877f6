"""`fptt bench`: its cases, its rows and tables, its messages. No time is ever asserted."""

import json
import math
import re
import sys

import numpy as np
import pytest
from test_cli import documented

import fptt
from fptt import cli
from fptt.bench import sides as bench_sides
from fptt.bench import speed
from fptt.bench.cases import Case, cases
from fptt.bench.floor import Cost, costs, step_bytes
from fptt.bench.memory import measure_memory
from fptt.bench.sides import sides, train_alike
from fptt.bench.speed import Effort, measure
from fptt.published import SEEDS_TIME

TINY = ["--steps", "6", "--hidden", "4", "--batch", "2", "--rounds", "1"]
BRIEF = Effort(rounds=1, seconds=1, min_s=0)


@pytest.fixture
def bench(capsys):
    """Runs the command in this process; returns its standard output, and checks the exit code."""

    def run(*arguments, code=0):
        capsys.readouterr()
        found = cli.main(["bench", *arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        assert found == code, err
        return out if code == 0 else err

    return run


# --- cases ----------


def test_standard_cases():
    found = cases()
    assert [(case.batch, case.parts) for case in found] == [
        (batch, parts) for batch in (1, 4, 128) for parts in (1, 28, 784)
    ]
    for case in found:
        assert (case.cell, case.layers, case.hidden) == ("lstm", 1, 128)
        assert (case.steps, case.threads, case.rule) == (784, 1, "fptt")
    program = found[1].program()
    assert (program.optimizer.momentum, program.dtype, program.part_steps) == (0.9, "float32", 28)


def test_other_sizes():
    assert [(c.cell, c.layers, c.hidden, c.batch, c.parts) for c in cases(sizes=True)] == [
        ("lstm", 1, 32, 4, 28),
        ("lstm", 1, 512, 4, 28),
        ("gru", 1, 128, 4, 28),
        ("lstm", 2, 128, 4, 28),
    ]


def test_every_combination():
    found = cases(["lstm", "rnn"], [1, 2], [3], [5], [1, 2], steps=4)
    assert len(found) == 8
    assert (found[0].cell, found[0].layers, found[0].parts) == ("lstm", 1, 1)
    assert (found[-1].cell, found[-1].layers, found[-1].parts) == ("rnn", 2, 2)


@pytest.mark.parametrize(
    ("options", "parts"),
    [({"steps": 12}, [1, 12]), ({"quick": True}, [1, 28]), ({"rule": "bptt"}, [1])],
)
def test_parts_that_fit(options, parts):
    assert [case.parts for case in cases(batches=[1], **options)] == parts


# --- work and floor ----------


def test_least_work_of_lstm():
    """By hand: T steps of [n, 1 + H] x [1 + H, 4 H], back, and the weight gradients. The gradient
    of the state before is not wanted at the first step of each of the K parts."""
    steps, parts, hidden, batch, outputs = 6, 3, 5, 2, 10
    program = Case("lstm", 1, hidden, batch, parts, steps).program()
    found = costs(program)
    gates, head = 4 * hidden, 2 * outputs * hidden * batch * parts
    recurrent = 2 * gates * hidden * batch * steps
    back = 2 * gates * hidden * batch * (steps - parts)
    inputs = 2 * gates * batch * steps
    assert found["forward"].flop == recurrent + inputs + head
    assert found["backward"].flop == back + head
    assert found["FPTT logic"].flop == recurrent + inputs + head
    weights = 4 * (gates * hidden + gates + gates)
    readout = 4 * outputs * hidden
    assert step_bytes(program) == weights
    assert found["forward"].read == steps * weights + parts * (readout + 4 * outputs)
    assert found["backward"].read == (steps - parts) * 4 * gates * hidden + parts * readout
    assert found["FPTT logic"].read == 0
    learnt = 4 * (weights + readout + 4 * outputs)  # theta, lambda, mean, momentum
    assert found["FPTT logic"].rewritten == parts * (2 * learnt + 4)  # and the rate, once
    assert (found["forward"].rewritten, found["backward"].rewritten) == (0, 0)


def test_gradients_with_memory_belong_to_backward():
    program = Case(steps=6, parts=3, hidden=4).program()
    one, twin = costs(program), costs(program.keeping_gradients())
    assert twin["FPTT logic"].flop == 0
    assert twin["backward"].flop == one["backward"].flop + one["FPTT logic"].flop
    assert twin["forward"] == one["forward"]


def test_computing_and_moving_at_the_same_time():
    assert Cost(flop=20, read=6, rewritten=8).seconds(10, 3, 2) == 6
    assert Cost(flop=90, read=6, rewritten=8).seconds(10, 3, 2) == 9


# --- the machine ----------


def isas():
    from fptt.native._engine import lib
    from fptt.native.compile import INSTRUCTION_SETS

    return [name for name, n in INSTRUCTION_SETS.items() if lib.fptt_isa_runs_here(n)]


@pytest.mark.parametrize("isa", isas())
def test_loops_of_every_instruction_set(isa):
    from fptt.native._engine import ffi
    from fptt.native.measure import Limits, Memory

    limits, memory = Limits(isa), Memory(5000)
    assert (memory.items, memory.bytes) == (1024, 4096)
    assert int(ffi.cast("intptr_t", memory.address)) % 64 == 0
    assert limits.multiply_adds(7) == 7 * limits.multiply_adds(1) > 0
    numbers = np.frombuffer(ffi.buffer(memory.address, memory.bytes), np.float32)
    for rounds, expected in ((1, 1), (2, 1), (3, 2)):
        limits.rewrite(memory, rounds)
        assert (numbers == expected).all()
    limits.read(memory, 3)
    assert (numbers == 2).all()
    assert Memory(1).items == 256


# --- rows ----------


def test_sides_begin_alike_and_stay_so():
    case = Case("gru", 2, 5, 3, 2, 7)
    found = sides(case, ["torch"])
    assert set(found) == {"fptt", "torch", "torch_steps"}
    start = found["fptt"].parameters()
    for side in found.values():
        for name, value in side.parameters().items():
            np.testing.assert_array_equal(value, start[name])
    assert train_alike(case, found) < 1e-5
    for name, value in found["fptt"].parameters().items():
        assert not np.array_equal(value, start[name]), name
    assert found["torch"].form == "sequence"
    assert found["torch_steps"].form == "steps"


def test_another_training_is_not_measured():
    case = Case(steps=6, parts=3, hidden=4)
    found = sides(case, ["torch"])
    found["torch"].lr *= 50
    with pytest.raises(fptt.FpttError, match=r"parameters of torch are .* they do not train alike"):
        train_alike(case, found)


def test_a_row():
    case = Case(steps=6, parts=3, hidden=4, batch=2)
    row = measure(case, ["torch"], BRIEF)
    for name in ("cell", "layers", "hidden", "batch", "parts", "steps", "threads", "rule"):
        assert row[name] == getattr(case, name)
    assert row["ratio"] == row["torch_s"] / row["fptt_s"]
    assert row["torch_best_s"] <= row["torch_s"]
    assert row["torch_form"] in ("sequence", "steps")
    assert row["jax_s"] is row["jax_ratio"] is None
    total = sum(cost.flop for cost in costs(case.program()).values())
    assert row["part_flop"] == total // 3
    assert math.isclose(row["peak_share"], total / row["fptt_s"] / row["peak_gflops"] / 1e9)
    assert math.isclose(row["floor_share"], row["floor_s"] / row["fptt_s"])
    assert math.isclose(row["logic_share"] + row["forward_share"] + row["backward_share"], 1)
    for routine in ("forward", "backward", "update"):
        assert row[f"{routine}_s"] > 0 < row[f"{routine}_floor_s"]


def test_two_threads_and_adam_alone():
    row = measure(Case(steps=6, parts=3, hidden=4, threads=2, optimizer="adam"), [], BRIEF)
    assert row["threads"] == 2
    assert row["torch_s"] is row["torch_form"] is row["ratio"] is None
    assert row["distance"] == 0


def test_pytorch_keeps_its_threads():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        measure_all = speed.measure_all([Case(steps=4, parts=2, hidden=3)], ["torch"], BRIEF)
        assert len(measure_all) == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_memory_is_the_arena_and_a_little():
    """One part of 200 steps: the arena is so large that it cannot hide in what is over."""
    (row,) = measure_memory([Case(hidden=64, batch=64, parts=1, steps=1000)])
    assert row["arena_bytes"] > 90e6
    assert row["peak_bytes"] > row["import_bytes"] + 0.9 * row["arena_bytes"]
    assert -0.1 * row["arena_bytes"] < row["over_bytes"] <= 30e6


# --- the command ----------


def test_json_has_the_documented_keys(bench):
    keys = [set(found) for found in documented(cli.bench)]
    rows = json.loads(bench(*TINY, "--parts", "1,3", "--json"))
    assert [set(row) for row in rows] == [keys[0]] * 2
    assert [row["parts"] for row in rows] == [1, 3]
    rows = json.loads(bench(*TINY[:-2], "--parts", "2", "--memory", "--json"))
    assert [set(row) for row in rows] == [keys[1]]


def test_tables(bench):
    out = bench(*TINY, "--parts", "1,3")
    assert out.count("lstm 1-4-10") == 6
    for text in ("nn module", "best PyTorch", "Time by block", "Floor"):
        assert text in out
    assert "JAX" not in out
    assert [float(word) for word in re.search("the seeds(.*)", out)[1].split()] == [
        *SEEDS_TIME.values()
    ]
    out = bench(*TINY, "--rule", "tbptt", "--parts", "3", "--against", "none")
    assert "the seeds" not in out
    assert "PyTorch" not in out
    out = bench(*TINY[:-2], "--memory", "--parts", "3")
    assert re.search(r"lstm 1-4-10 +2 +3 ", out)


def test_quick_and_sizes(bench, monkeypatch, capsys):
    asked = []

    def measure_all(chosen, against, effort, advance):
        asked.append((len(chosen), against, effort))
        return [{"cpu_share": share} for share in (1.0, 0.43)]

    monkeypatch.setattr(speed, "measure_all", measure_all)
    bench("--json")
    bench("--quick", "--json")
    words = ["--sizes", "--rounds", "4", "--seconds", "2.5", "--against", "none", "--json"]
    assert cli.main(["bench", *words]) == 0
    assert asked == [
        (9, ["torch"], Effort()),
        (4, ["torch"], Effort(3, 5.0, 0.01)),
        (4, [], Effort(4, 2.5)),
    ]
    assert "this machine was busy: the measurement had 43 % of a core" in capsys.readouterr().err


WRONG = {
    "peer": (["--against", "tensorflow"], "--against is 'tensorflow'; choose torch, jax or none"),
    "none and another": (
        ["--against", "none,torch"],
        "--against is 'none,torch'; give none alone",
    ),
    "adam": (
        ["--optimizer", "adam"],
        "PyTorch trains with sgd here; measure adam with --against none",
    ),
    "list": (["--hidden", "4,x"], "--hidden is '4,x'; give whole numbers from 1"),
    "batch": (["--batch", "0"], "--batch is '0'; give whole numbers from 1"),
    "cell": (["--cell", "lstm,elman"], "cell is 'elman'; choose one of "),
    "rule": (["--rule", "rtrl"], "rule is 'rtrl'; choose one of fptt, tbptt, bptt"),
    "parts of bptt": (["--rule", "bptt", "--parts", "2"], "rule bptt has one part, not 2"),
    "parts": (["--parts", "800"], "build: 800 parts of a sequence of 784 steps"),
    "rounds": (["--rounds", "0"], "rounds is 0; give at least 1"),
    "seconds": (["--seconds", "nan"], "seconds is nan; give a number above 0"),
    "threads": (["--threads", "0"], "threads is 0; give at least 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use(bench, name):
    arguments, message = WRONG[name]
    assert bench(*arguments, code=2).splitlines()[-1].startswith(f"fptt: {message}")


@pytest.mark.parametrize(("name", "title"), [("torch", "PyTorch"), ("jax", "JAX")])
def test_a_peer_that_is_not_installed(bench, monkeypatch, name, title):
    monkeypatch.setitem(sys.modules, name, None)
    assert bench("--against", name, code=2).splitlines()[-1] == (
        f"fptt: --against {name} needs {title}, which is not installed: pip install {name}; "
        "or measure fptt alone with --against none"
    )


def test_fptt_alone_needs_no_peer(bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (row,) = json.loads(bench(*TINY, "--parts", "2", "--against", "none", "--json"))
    assert row["torch_s"] is None
    assert row["fptt_s"] > 0


def test_jax_too(bench, monkeypatch):
    pytest.importorskip("jax")
    monkeypatch.setattr(bench_sides, "trains_in_jax", lambda case: case.parts < 4)
    out = bench(*TINY, "--parts", "3,4", "--against", "jax", "--json")
    with_jax, without = json.loads(out)
    assert with_jax["jax_ratio"] == with_jax["jax_s"] / with_jax["fptt_s"]
    assert with_jax["torch_s"] is None
    assert without["jax_s"] is None


@pytest.mark.parametrize(
    ("case", "possible"),
    [
        (Case(steps=8, parts=4), True),
        (Case("gru", steps=8, parts=4), True),
        (Case(steps=8, parts=3), False),
        (Case("rnn", steps=8, parts=4), False),
        (Case(layers=2, steps=8, parts=4), False),
    ],
)
def test_what_jax_can_train(case, possible):
    assert bench_sides.trains_in_jax(case) is possible
