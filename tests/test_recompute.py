"""build(recompute=True): gates are computed again; same bits forwards, same gradients, less memory.

The reference for gradients and updates is the PyTorch oracle, as for programs that keep gates.
"""

import numpy as np
import pytest
from cases import (
    REFERENCE_CELLS,
    STACKS,
    TOLERANCE,
    assert_bits_equal,
    assert_close,
    assert_gradients_equal,
    assert_trainers_equal,
    fptt_network,
    fptt_trainer,
    pair,
    random_data,
    random_parameters,
    runs_on_the_engine,
    with_head,
)

import fptt
from fptt.program.ir import Loop
from fptt.storage.snapshot import read, rebuild, restore

CELLS = ["LSTM", "GRU", "RNN"]
OBJECTIVES = [
    ("last", "cross_entropy"),
    ("every_step", "cross_entropy"),
    ("every_step", "mse"),
    ("auxiliary", "cross_entropy"),
]
NO_STEP = ("sgd", dict(lr=0.0))
AGAIN = dict(recompute=True)
#: the two back ends, each in the most exact type that it runs
ENDS = [("reference", "float64"), ("native", "float32")]
EVERY_CELL = [*CELLS, *REFERENCE_CELLS]
CELLS_ON_ENDS = [(cell, *end) for end in ENDS for cell in (EVERY_CELL if end == ENDS[0] else CELLS)]
STACKS_ON_ENDS = [
    (name, *end)
    for end in ENDS
    for name, layers in STACKS.items()
    if end == ENDS[0] or runs_on_the_engine(layers)
]


@pytest.mark.parametrize(("cell", "backend", "dtype"), CELLS_ON_ENDS)
@pytest.mark.parametrize(("loss", "criterion"), OBJECTIVES)
@pytest.mark.parametrize("parts", [1, 3, 4])
def test_cell_gradients(cell, parts, loss, criterion, backend, dtype):
    """B = 5, T = 11, I = 3, H = 7, C = 4: nothing divides anything."""
    layers = with_head(cell, 3, 7, 4)
    rule = dict(kind="tbptt", parts=parts)
    options = dict(loss=loss, criterion=criterion, dtype=dtype, backend=backend, build=AGAIN)
    trainer, oracle = pair(layers, rule, NO_STEP, 11, 5, **options)
    x, y = random_data(layers, 5, 11, loss, criterion, seed=2)
    assert_gradients_equal(
        trainer.part_gradients(x, y), oracle.part_gradients(x, y), TOLERANCE[dtype]
    )


@pytest.mark.parametrize(("stack", "backend", "dtype"), STACKS_ON_ENDS)
@pytest.mark.parametrize(("loss", "criterion"), [OBJECTIVES[0], OBJECTIVES[2]])
def test_stack_gradients(stack, loss, criterion, backend, dtype):
    """Two recurrent layers, layers between them, an embedding or dropout below."""
    layers, rule = STACKS[stack], dict(kind="tbptt", parts=2)
    options = dict(loss=loss, criterion=criterion, dtype=dtype, backend=backend, build=AGAIN)
    trainer, oracle = pair(layers, rule, NO_STEP, 7, 3, **options)
    x, y = random_data(layers, 3, 7, loss, criterion, seed=3)
    assert_gradients_equal(
        trainer.part_gradients(x, y), oracle.part_gradients(x, y), TOLERANCE[dtype]
    )


@pytest.mark.parametrize(("cell", "backend", "dtype"), CELLS_ON_ENDS)
@pytest.mark.parametrize("lengths", [[11, 1, 4, 8, 3], [2, 1, 3, 2, 1], [7, 7, 7, 7, 7]], ids=str)
@pytest.mark.parametrize(("loss", "criterion"), [OBJECTIVES[0], OBJECTIVES[1]])
def test_unequal_length_gradients(cell, loss, criterion, lengths, backend, dtype):
    """Every step adds the rows that run at it, and no others."""
    layers = with_head(cell, 3, 7, 4)
    rule = dict(kind="tbptt", parts=3)
    options = dict(loss=loss, criterion=criterion, dtype=dtype, backend=backend, build=AGAIN)
    trainer, oracle = pair(layers, rule, NO_STEP, 11, 5, **options)
    x, y = random_data(layers, 5, 11, loss, criterion, seed=4)
    assert_gradients_equal(
        trainer.part_gradients(x, y, lengths),
        oracle.part_gradients(x, y, lengths),
        TOLERANCE[dtype],
    )


@pytest.mark.parametrize("cell", EVERY_CELL)
def test_gradient_is_the_central_difference_of_the_loss(cell):
    layers = with_head(cell, 2, 3, 2)
    theta = random_parameters(layers, 9)
    trainer = fptt_trainer(
        layers, dict(kind="bptt"), NO_STEP, 5, 3, loss="every_step", parameters=theta, build=AGAIN
    )
    x, y = random_data(layers, 3, 5, "every_step", "cross_entropy", seed=10)
    (found,) = trainer.part_gradients(x, y, [5, 1, 3])
    rng = np.random.default_rng(11)
    for name, value in theta.items():
        for flat in rng.choice(value.size, min(3, value.size), replace=False):
            losses = []
            for sign in (1, -1):
                moved = {k: v.copy() for k, v in theta.items()}
                moved[name].flat[flat] += sign * 1e-5
                trainer.load_parameters(moved)
                losses.append(trainer.train_batch(x, y, [5, 1, 3]))
            numeric = (losses[0] - losses[1]) / 2e-5
            assert found[name].flat[flat] == pytest.approx(numeric, rel=1e-6, abs=1e-9), name


@pytest.mark.parametrize("clip", [None, 0.3], ids=["unclipped", "clipped"])
@pytest.mark.parametrize(("cell", "backend", "dtype"), CELLS_ON_ENDS)
@pytest.mark.parametrize(
    "optimizer", [("sgd", dict(lr=0.1, momentum=0.9)), ("adam", dict(lr=0.02))]
)
@pytest.mark.parametrize("mode", ["code", "paper", "tbptt"])
def test_trajectories(cell, mode, optimizer, backend, dtype, clip):
    """Three batches of unequal lengths, T = 11 in parts of 3, 4, 4."""
    layers = with_head(cell, 3, 7, 4)
    rule = dict(kind="tbptt", parts=3) if mode == "tbptt" else dict(parts=3, alpha=0.4, mode=mode)
    options = dict(loss="every_step", dtype=dtype, backend=backend, build=AGAIN, clip=clip)
    trainer, oracle = pair(layers, rule, optimizer, 11, 5, **options)
    kind = f"{dtype} adam" if optimizer[0] == "adam" and dtype == "float32" else dtype
    for number, lengths in enumerate([None, [11, 1, 4, 8, 3], [2, 11, 5, 4, 4]]):
        x, y = random_data(layers, 5, 11, "every_step", "cross_entropy", seed=100 + number)
        found = trainer.train_batch(x, y, lengths)
        wanted = oracle.train_batch(x, y, lengths)
        assert found == pytest.approx(wanted, rel=10 * TOLERANCE[kind])
    assert_trainers_equal(trainer, oracle, TOLERANCE[kind])


def both(layers, *, backend, dtype, train=("*",), **options):
    """A trainer that keeps gates and one that does not."""
    return [
        fptt.Trainer(
            fptt.build(
                fptt_network(layers),
                fptt.FPTT(parts=3),
                fptt.SGD(lr=0.1),
                steps=11,
                batch=5,
                dtype=dtype,
                train=train,
                recompute=recompute,
                **options,
            ),
            backend=backend,
            seed=4,
        )
        for recompute in (False, True)
    ]


@pytest.mark.parametrize(
    ("cell", "backend", "dtype"),
    [
        *((cell, "reference", "float32") for cell in EVERY_CELL),
        *((cell, "native", dtype) for dtype in ("float32", "bfloat16") for cell in CELLS),
    ],
)
def test_states_have_the_same_bits_when_they_are_computed_again(cell, backend, dtype):
    """The backward pass writes h and c once more. Nothing may move, or the carry would be another.

    With lr = 0 and two batches that carry their state, every difference would stay.
    """
    layers = with_head(cell, 3, 7, 4)
    x, y = random_data(layers, 5, 11, "last", "cross_entropy", seed=5)
    kept, again = (
        fptt_trainer(
            layers,
            dict(parts=3, state="carry", regularise=False),
            NO_STEP,
            11,
            5,
            dtype=dtype,
            backend=backend,
            build=dict(recompute=recompute),
        )
        for recompute in (False, True)
    )
    for _ in range(2):
        assert kept.train_batch(x, y) == again.train_batch(x, y)
    states = [
        {b.name: trainer.backend.read(b.name) for b in trainer.program.carried}
        for trainer in (kept, again)
    ]
    assert_bits_equal(*states, "state")


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_in_bfloat16(cell):
    """Every step's addition is rounded to 8 bits; the two back ends round the same sums."""
    layers = with_head(cell, 3, 7, 4)
    x, y = random_data(layers, 5, 11, "last", "cross_entropy", seed=6)
    found = {}
    for backend in ("reference", "native"):
        kept, again = both(layers, backend=backend, dtype="bfloat16")
        found[backend] = again.part_gradients(x, y, [11, 1, 4, 8, 3])
        wanted = kept.part_gradients(x, y, [11, 1, 4, 8, 3])
        assert_gradients_equal(found[backend], wanted, 0.02)
    assert_gradients_equal(found["native"], found["reference"], 0.01)


FROZEN = {
    "readout": ("2.*",),
    "biases": ("*.bias*",),
    "recurrent weights": ("1.weight_hh",),
    "lower layer": ("0.*",),
}


@pytest.mark.parametrize("train", FROZEN.values(), ids=FROZEN)
@pytest.mark.parametrize("loss", ["last", "every_step"])
@pytest.mark.parametrize("cell", EVERY_CELL)
def test_what_trains_alone(cell, loss, train):
    if cell == "LRU" and train == FROZEN["recurrent weights"]:
        train = ("1.theta",)
    layers = [("LSTM", 3, 5), *with_head(cell, 5, 7, 4)]
    rule = dict(kind="tbptt", parts=3)
    trainer, oracle = pair(
        layers, rule, NO_STEP, 11, 5, loss=loss, build=dict(recompute=True, train=train)
    )
    x, y = random_data(layers, 5, 11, loss, "cross_entropy", seed=7)
    names = set(trainer.program.trained)
    wanted = [{n: g for n, g in part.items() if n in names} for part in oracle.part_gradients(x, y)]
    assert_gradients_equal(trainer.part_gradients(x, y), wanted, 1e-10)
    gradients = {n for n in trainer.program.buffers if n.startswith("grad/")}
    assert gradients <= {f"grad/{name}" for name in names}


def test_dropout_below_a_layer_that_recomputes():
    """The layer reads its input, which dropout wrote and nothing overwrites."""
    layers = [("Linear", 3, 6), ("Dropout", 0.4), ("LSTM", 6, 7), ("Dropout", 0.3), ("GRU", 7, 5)]
    for backend, dtype in ENDS:
        kept, again = both(layers, backend=backend, dtype=dtype)
        x, y = random_data(layers, 5, 11, "last", "cross_entropy", seed=8)
        assert_gradients_equal(
            again.part_gradients(x, y), kept.part_gradients(x, y), TOLERANCE[dtype]
        )


@pytest.mark.parametrize(("backend", "dtype"), ENDS)
def test_streams_have_the_bits_of_batches(backend, dtype):
    """Forward step by step, one step of gates at a time; backward at the end of each part."""
    layers = [("LSTM", 3, 7), ("GRU", 7, 5), ("Linear", 5, 4)]
    _, batch = both(layers, backend=backend, dtype=dtype)
    _, stream = both(layers, backend=backend, dtype=dtype)
    x, y = random_data(layers, 5, 11, "last", "cross_entropy", seed=9)
    for _ in range(2):
        batch.train_batch(x, y)
        stream.begin_sequence()
        for t in range(11):
            stream.step(x[:, t], y)
    assert_bits_equal(stream.parameters(), batch.parameters(), "parameters")


def test_a_snapshot_in_the_middle_of_a_part_goes_on_with_the_same_bits(tmp_path):
    layers = [("LSTM", 3, 7), ("Linear", 7, 4)]
    _, trainer = both(layers, backend="reference", dtype="float64")
    x, y = random_data(layers, 5, 11, "last", "cross_entropy", seed=10)
    for t in range(5):
        trainer.step(x[:, t], y)
    trainer.save(tmp_path / "state")
    other = fptt.load(tmp_path / "state")
    assert other.program.recompute
    for t in range(5, 11):
        for one in (trainer, other):
            one.step(x[:, t], y)
    assert_bits_equal(trainer.parameters(), other.parameters(), "parameters")


def test_a_snapshot_knows_whether_gates_are_kept(tmp_path):
    """Before this was a choice they were."""
    kept, again = both([("LSTM", 3, 7), ("Linear", 7, 4)], backend="reference", dtype="float64")
    again.save(tmp_path / "again")
    with pytest.raises(fptt.InputError, match="its recompute is True, here it is False"):
        restore(kept, *read(tmp_path / "again"))
    kept.save(tmp_path / "kept")
    header, arrays = read(tmp_path / "kept")
    del header["program"]["recompute"]
    restore(kept, header, arrays)
    assert not rebuild(header["program"]).recompute
    with pytest.raises(fptt.InputError, match="its recompute is False, here it is True"):
        restore(again, header, arrays)


# -- what it costs -------------------------------------------------------------------------------


def mnist_program(parts, batch, recompute=True, **options):
    net = fptt.Network([fptt.LSTM(1, 128), fptt.Linear(128, 10)])
    return fptt.build(
        net,
        fptt.FPTT(parts=parts),
        fptt.SGD(lr=0.1),
        steps=784,
        batch=batch,
        recompute=recompute,
        **options,
    )


def test_memory():
    """Less where the gates of a part are more than the parameters, more where they are not."""
    assert mnist_program(1, 4, False).memory().arena_bytes == 10_497_696
    assert mnist_program(1, 4).memory().arena_bytes == 4_320_928
    assert mnist_program(28, 4, False).memory().arena_bytes == 1_167_200
    assert mnist_program(28, 4).memory().arena_bytes == 1_212_256
    assert mnist_program(28, 100, False).memory().arena_bytes > 2 * (
        mnist_program(28, 100).memory().arena_bytes
    )


@pytest.mark.parametrize("cell", EVERY_CELL)
def test_no_history_of_gates(cell):
    program = fptt.build(
        fptt_network(with_head(cell, 3, 7, 4)),
        fptt.FPTT(parts=3),
        steps=11,
        batch=5,
        recompute=True,
    )
    kept = {b.name for b in program.buffers.values() if b.steps}
    assert kept == {"input", "0.h"} | ({"0.c"} if "LSTM" in cell else set())


def test_parts_of_one_step_stay_as_they_are():
    plain, again = mnist_program(784, 4, False), mnist_program(784, 4)
    assert str(plain) == str(again)


def test_keeping_gradients_recomputes_too():
    program = mnist_program(28, 4, train=("0.weight_hh", "1.*"))
    twin = program.keeping_gradients()
    assert twin is not program and twin.recompute and "grad/1.weight" in twin.buffers
    assert [op.kind for op, _ in twin.routines["forward"].ops()] == [
        op.kind for op, _ in program.routines["forward"].ops()
    ]


def test_the_work_counts_what_is_computed_again():
    """One more forward pass of the layer, tanh(c) included; the products are as many as before."""
    plain, again = (mnist_program(28, 4, recompute).work() for recompute in (False, True))
    forward = plain.by_function("forward")
    more = again.by_function("backward")
    before = plain.by_function("backward", "update")
    assert more["MatMul-2"] == forward["MatMul-2"]
    assert more["Sigmoid"] == forward["Sigmoid"]
    assert more["tanh"].trans == before["tanh"].trans + forward["tanh"].trans
    assert again.by_function("backward", "update")["MatMul-3"].mul == before["MatMul-3"].mul


def test_the_loop_back_computes_a_step_and_uses_it_at_once():
    program = mnist_program(28, 4)
    (loop,) = [i for i in program.routines["backward"].body if isinstance(i, Loop)]
    assert [op.kind for op in loop.body] == [
        *["affine_sum", "lstm_forward", "lstm_backward", "product"],
        *["weight_gradient", "weight_gradient", "bias_gradient"],
    ]


@pytest.mark.parametrize("wrong", [1, "yes", None])
def test_an_answer_that_is_neither_yes_nor_no_is_refused(wrong):
    with pytest.raises(fptt.InputError, match=r"recompute is .*; give True or False"):
        mnist_program(28, 4, wrong)


def test_gradients_add_up_over_a_long_part():
    """784 steps in one part in float32, against float64."""
    layers = [("LSTM", 1, 12), ("Linear", 12, 10)]
    found = {}
    for backend, dtype in ENDS:
        trainer = fptt_trainer(
            layers,
            dict(kind="bptt"),
            NO_STEP,
            784,
            2,
            dtype=dtype,
            backend=backend,
            build=AGAIN,
            parameters=random_parameters(layers, 3),
        )
        x, y = random_data(layers, 2, 784, "last", "cross_entropy", seed=11)
        (found[dtype],) = trainer.part_gradients(x, y)
    for name, wanted in found["float64"].items():
        assert_close(found["float32"][name], wanted, 1e-5, name)
