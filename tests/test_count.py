"""The work table is what really happens, operation by operation and number by number."""

import numpy as np
import pytest
from cases import assert_close
from counting import BY_TOKEN, HAPPENED, Counted, CountingInterpreter
from hypothesis import given, settings
from programs import cases, examples, random_batch, trainer_on

import fptt
from fptt.program.ops import FUNCTION_CLASSES, Work, table


def from_table(work_table):
    """(routine, kind, function class) -> Work, and (routine, kind) -> executions."""
    counts, runs = {}, {}
    for item in work_table.items:
        key = (item.routine, item.kind, item.function)
        counts[key] = counts.get(key, Work()) + item.work
        main = table()[item.kind].main_class
        if item.function == main:
            runs[key[:2]] = runs.get(key[:2], 0) + item.repetitions
    return {key: work for key, work in counts.items() if work != Work()}, runs


def check_counts(program, x, y, lengths):
    """Trains one batch with counting numbers and compares everything with `program.work`."""
    plain, memory = trainer_on(program), CountingInterpreter(program)
    trainer = trainer_on(program, memory)
    memory.counts.clear(), memory.runs.clear()
    found_loss = trainer.train_batch(x, y, lengths)
    seen = {key: Work(**counter) for key, counter in memory.counts.items()}
    run_lengths = lengths or [x.shape[1]] * x.shape[0]
    work = program.work(run_lengths)
    stated, runs = from_table(work)
    assert stated == seen
    assert runs == dict(memory.runs)
    for routine in (None, "begin_sequence", "forward", "loss", "backward", "update", "carry"):
        chosen = () if routine is None else (routine,)
        totals = dict.fromkeys(FUNCTION_CLASSES, Work())
        for (of, _, function), one in seen.items():
            if routine in (None, of):
                totals[function] += one
        assert work.by_function(*chosen) == totals
        assert work.total(*chosen) == sum(totals.values(), Work())
    # the counting numbers took the way that plain numbers take
    tolerance = {"float64": 1e-9, "float32": 1e-3, "bfloat16": 0.5}
    coarsest = max(tolerance[program.dtype], tolerance[program.activation_dtype])
    assert found_loss == pytest.approx(plain.train_batch(x, y, lengths), rel=coarsest, abs=1e-3)
    return {kind for _, kind in memory.runs}


@settings(max_examples=examples(60))
@given(cases(labelled=True, sources=True))
def test_counts_of_drawn_programs(case):
    check_counts(case.program, case.x, case.y, case.lengths)


LSTM, GRU, RNN, Linear = fptt.LSTM, fptt.GRU, fptt.RNN, fptt.Linear
FPTT, SGD, Adam = fptt.FPTT, fptt.SGD, fptt.Adam
CHOSEN = {
    "LSTM-Linear, FPTT, SGD": ([LSTM(3, 5), Linear(5, 4)], FPTT(parts=3), SGD(lr=0.1), {}),
    "GRU-LSTM-Dropout, every step, paper, Adam, clip": (
        [GRU(2, 3), LSTM(3, 4), fptt.Dropout(0.5)],
        FPTT(parts=2, mode="paper"),
        Adam(),
        dict(loss="every_step", clip=0.5),
    ),
    "RNN, every step, mse, momentum, clip": (
        [RNN(3, 2)],
        fptt.TBPTT(parts=3),
        SGD(lr=0.1, momentum=0.9),
        dict(loss="every_step", criterion="mse", clip=1.0),
    ),
    "Embedding-ReLU-LSTM-Linear, auxiliary": (
        [fptt.Embedding(6, 3), fptt.ReLU(), LSTM(3, 4), Linear(4, 3)],
        FPTT(parts=3),
        Adam(),
        dict(loss="auxiliary"),
    ),
    "Linear-GRU-ReLU-Linear, auxiliary per part, clip": (
        [Linear(2, 3), GRU(3, 4), fptt.ReLU(), Linear(4, 3)],
        FPTT(parts=4),
        SGD(lr=0.1),
        dict(loss=fptt.Auxiliary(per_part=True), clip=1.0),
    ),
    "Embedding-LSTM-LSTM, carry, Adam": (
        [fptt.Embedding(5, 2), LSTM(2, 3), LSTM(3, 2)],
        fptt.TBPTT(parts=2, state="carry"),
        Adam(),
        dict(dtype="bfloat16"),
    ),
    "Linear-LRU-ReLU-ElementwiseLSTM-Linear, every step, clip": (
        [Linear(2, 3), fptt.LRU(3, 4), fptt.ReLU(), fptt.ElementwiseLSTM(8, 3), Linear(3, 4)],
        FPTT(parts=3),
        SGD(lr=0.1),
        dict(loss="every_step", clip=0.5),
    ),
    "LRU-ElementwiseLSTM-Linear, gates computed again": (
        [fptt.LRU(3, 2), fptt.ElementwiseLSTM(4, 3), Linear(3, 4)],
        fptt.TBPTT(parts=2),
        SGD(lr=0.1),
        dict(recompute=True),
    ),
    "LIF-ALIF-LeakyIntegrator": (
        [fptt.LIF(3, 5), fptt.ALIF(5, 4), fptt.LeakyIntegrator(4, 3)],
        FPTT(parts=3),
        SGD(lr=0.1),
        {},
    ),
    "LTC-LIF, triangle, gates computed again": (
        [fptt.LTC(3, 4, surrogate="triangle"), fptt.LIF(4, 3, surrogate="triangle")],
        fptt.TBPTT(parts=2),
        SGD(lr=0.1),
        dict(recompute=True, loss="every_step"),
    ),
    "LSTM-Linear-LSTM, RTRL": (
        [LSTM(2, 3), Linear(3, 2), LSTM(2, 2), Linear(2, 3)],
        FPTT(parts=3, source="rtrl"),
        SGD(lr=0.1),
        {},
    ),
    "Embedding-Dropout-GRU-ReLU-RNN, RTRL, every step": (
        [fptt.Embedding(4, 2), fptt.Dropout(0.5), GRU(2, 3), fptt.ReLU(), RNN(3, 2)],
        fptt.TBPTT(parts=2, source="rtrl"),
        Adam(),
        dict(loss="every_step"),
    ),
    "GRU-RNN, OSTL, every step, mse": (
        [GRU(2, 3), RNN(3, 2)],
        fptt.TBPTT(parts=2, source="ostl", state="carry"),
        SGD(lr=0.1),
        dict(loss="every_step", criterion="mse"),
    ),
    "LSTM-LSTM-Linear, e-prop": (
        [LSTM(2, 3), LSTM(3, 2), Linear(2, 3)],
        FPTT(parts=3, source="eprop"),
        SGD(lr=0.1),
        dict(clip=1.0),
    ),
    "LSTM-Linear, e-prop, every step": (
        [LSTM(2, 3), Linear(3, 4)],
        FPTT(parts=2, source="eprop"),
        SGD(lr=0.1),
        dict(loss="every_step"),
    ),
    "LRU-ElementwiseLSTM-LeakyIntegrator, diagonal RTRL": (
        [fptt.LRU(2, 3), fptt.ElementwiseLSTM(6, 4), fptt.LeakyIntegrator(4, 3)],
        FPTT(parts=3, source="diagonal"),
        SGD(lr=0.1),
        {},
    ),
    "LRU-ElementwiseLSTM-Linear, diagonal RTRL, every step": (
        [fptt.LRU(2, 3), fptt.ElementwiseLSTM(6, 4), Linear(4, 3)],
        fptt.TBPTT(parts=2, source="diagonal"),
        SGD(lr=0.1),
        dict(loss="every_step"),
    ),
    "ALIF-LIF-LeakyIntegrator, e-prop": (
        [fptt.ALIF(3, 5), fptt.LIF(5, 4), fptt.LeakyIntegrator(4, 3)],
        FPTT(parts=3, source="eprop"),
        SGD(lr=0.1),
        {},
    ),
    "LIF-ALIF, triangle, e-prop, every step": (
        [fptt.LIF(3, 4, surrogate="triangle"), fptt.ALIF(4, 3, surrogate="triangle")],
        fptt.TBPTT(parts=2, source="eprop"),
        Adam(),
        dict(loss="every_step"),
    ),
    "frozen body": ([LSTM(3, 5), Linear(5, 4)], FPTT(parts=3), SGD(), dict(train=["1.*"])),
}


@pytest.mark.parametrize("lengths", [None, [7, 2, 5], [1, 1, 1]], ids=str)
@pytest.mark.parametrize("name", CHOSEN)
def test_counts_of_chosen_programs(name, lengths):
    layers, rule, optimizer, options = CHOSEN[name]
    program = fptt.build(fptt.Network(layers), rule, optimizer, steps=7, batch=4, **options)
    check_counts(program, *random_batch(program, 3, 7, 1), lengths)


def test_the_chosen_programs_exercise_every_kind_of_operation():
    exercised = set()
    for layers, rule, optimizer, options in CHOSEN.values():
        program = fptt.build(fptt.Network(layers), rule, optimizer, steps=7, batch=4, **options)
        exercised |= check_counts(program, *random_batch(program, 3, 7, 1), None)
    assert exercised == set(table())


def test_work_by_default_is_that_of_a_full_batch():
    net = fptt.Network([LSTM(3, 5), Linear(5, 4)])
    program = fptt.build(net, FPTT(parts=3), SGD(), steps=7, batch=4)
    assert program.work().items == program.work([7] * 4).items
    assert program.work([2, 7, 5]).items == program.work([7, 5, 2]).items
    assert program.work([7] * 3).total() != program.work().total()


def test_only_the_rows_that_tokens_name_move():
    """The operands that BY_TOKEN treats apart are those that the op table marks as touched."""
    marked = {}
    for kind, entry in table().items():
        names = [operand.name for operand in (*entry.inputs, *entry.outputs)]
        if entry.touched:
            marked[kind] = {number for number, name in enumerate(names) if name in entry.touched}
    assert marked == {kind: numbers for kind, (numbers, _) in BY_TOKEN.items()}
    for vocabulary in (7, 700):
        net = fptt.Network([fptt.Embedding(vocabulary, 3), LSTM(3, 4)])
        program = fptt.build(net, fptt.BPTT(), steps=5, batch=2)
        moved = {item.kind: item.work.bytes for item in program.work().items}
        assert moved["embedding"] == 10 * (2 * 3 * 4 + 4), vocabulary
        assert moved["embedding_gradient"] == 10 * (3 * 3 * 4 + 4), vocabulary


def test_the_counting_number():
    """A counter that misses an operation would make every comparison above worthless."""
    a, b = Counted(3.0), Counted(0.5)
    cases_ = {
        "add": [
            (lambda: a + b, 3.5),
            (lambda: a - b, 2.5),
            (lambda: 1 + b, 1.5),
            (lambda: 1 - b, 0.5),
            (lambda: np.float64(1) - b, 0.5),
        ],
        "mul": [
            (lambda: a * b, 1.5),
            (lambda: a / b, 6.0),
            (lambda: 2 * b, 1.0),
            (lambda: 2 / b, 4.0),
            (lambda: np.float32(2) / b, 4.0),
        ],
        "tanh": [(b.tanh, np.tanh(0.5))],
        "exp": [(b.exp, np.exp(0.5))],
        "expm1": [(b.expm1, np.expm1(0.5))],
        "cos": [(b.cos, np.cos(0.5))],
        "sin": [(b.sin, np.sin(0.5))],
        "log": [(b.log, np.log(0.5))],
        "sqrt": [(b.sqrt, np.sqrt(0.5))],
        "sigmoid": [(b.sigmoid, 1 / (1 + np.exp(-0.5)))],
    }
    for kind, expressions in cases_.items():
        for expression, value in expressions:
            HAPPENED.clear()
            result = expression()
            assert dict(HAPPENED) == {kind: 1}
            assert_close([float(result)], [value], 1e-15, kind)
    HAPPENED.clear()
    assert a > b and a >= b and b < a and b <= a and a != b and a == 3 and not a < 1
    assert Counted(float("nan")) != Counted(float("nan"))
    assert np.maximum(np.array([a, b], object), 1)[1] == 1
    assert not HAPPENED
    HAPPENED.clear()
    matrix = np.array([[a, b], [b, a]], object)
    matrix @ matrix
    assert dict(HAPPENED) == {"mul": 8, "add": 4}
