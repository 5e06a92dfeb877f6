"""Gradients without memory of their own, matrices that lie by columns, and updates that need no
copy of what was learnt before: the results are those of the plain way."""

import numpy as np
import pytest
from cases import TOLERANCE, assert_bits_equal, assert_close
from programs import random_batch

import fptt
from fptt.native import Engine
from fptt.program.frame import Frame
from fptt.reference import Interpreter

CELLS = {"LSTM": fptt.LSTM, "GRU": fptt.GRU, "RNN": fptt.RNN}
RULES = {
    "TBPTT": fptt.TBPTT(parts=2),
    "code": fptt.FPTT(parts=2, alpha=0.4),
    "paper": fptt.FPTT(parts=2, alpha=0.4, beta=0.25, mode="paper"),
}
OPTIMIZERS = {"SGD": fptt.SGD(0.1), "momentum": fptt.SGD(0.1, 0.9), "Adam": fptt.Adam(0.01)}


def program_(cell="LSTM", rule="code", optimizer="SGD", *, steps=6, batch=3, **options):
    layers = [fptt.Linear(3, 4), CELLS[cell](4, 5), CELLS[cell](5, 7), fptt.Linear(7, 4)]
    return fptt.build(
        fptt.Network(layers),
        RULES[rule],
        OPTIMIZERS[optimizer],
        steps=steps,
        batch=batch,
        **options,
    )


def trained(program, backend, lengths=None):
    trainer = fptt.Trainer(program, backend, seed=3)
    for seed in range(3):
        trainer.train_batch(*random_batch(program, program.batch, program.steps, seed), lengths)
    return trainer


@pytest.mark.parametrize("loss", ["last", "every_step", "auxiliary"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("cell", CELLS)
def test_applied_gradients_teach_what_kept_ones_teach(cell, rule, optimizer, loss):
    """The same formulas, so the same bits in the reference."""
    program = program_(cell, rule, optimizer, loss=loss)
    kept = program.keeping_gradients()
    assert (program.keep_gradients, kept.keep_gradients) == (False, True)
    for lengths in (None, [6, 2, 3]):
        one, other = (trained(p, "reference", lengths) for p in (program, kept))
        assert_bits_equal(one.parameters(), other.parameters(), "parameters")
        assert_bits_equal(one.state(), other.state(), "state")


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_part_of_so_many_rows_that_a_gradient_is_summed_in_batches(cell, backend):
    """With room for what is not finished; 20 steps of 16 rows are more than the 256 of a batch."""
    program = program_(cell, steps=40, batch=16, loss="every_step")
    tile = program.buffers["tile"]
    assert (tile.inner, tile.dtype) == ((7, 64), "float32")  # the inputs of 2.weight_hh
    one = trained(program, backend)
    other = trained(program.keeping_gradients(), "reference")
    start = fptt.Trainer(program).parameters()
    for name, value in other.parameters().items():
        assert_close(one.parameters()[name], value, TOLERANCE["float32"], name)
        assert np.abs(value - start[name]).max() > 1e-3, name


def test_there_is_room_for_batches_only_where_a_product_needs_it():
    assert "tile" not in program_(steps=40, batch=12).buffers  # 20 steps of 12 rows: 240
    assert "tile" in program_(steps=40, batch=13).buffers
    # the head alone sees one row of every sequence
    assert "tile" not in program_(steps=40, batch=256, train=("3.*",)).buffers
    assert "tile" in program_(steps=40, batch=257, train=("3.*",)).buffers
    assert "tile" not in program_(steps=40, batch=257, clip=1.0).buffers


def gradients(program):
    return {name.removeprefix("grad/") for name in program.buffers if name.startswith("grad/")}


def test_which_gradients_have_memory():
    """Those that add up inside the loop or in a table, and where something needs all of them."""
    every = {f"{i}.{n}" for i in (1, 2) for n in ("weight_ih", "weight_hh", "bias")}
    every |= {f"{i}.{n}" for i in (0, 3) for n in ("weight", "bias")}
    assert gradients(program_()) == {"0.weight", "0.bias"}
    assert gradients(program_(train=("3.*", "1.*"))) == set()
    assert gradients(program_(keep_gradients=True)) == every
    assert gradients(program_(clip=1.0)) == every
    net = fptt.Network([fptt.Embedding(9, 3), fptt.Linear(3, 2)])
    assert gradients(fptt.build(net, fptt.BPTT(), steps=1)) == {"0.weight"}
    kept = program_(keep_gradients=True)
    assert kept.keeping_gradients() is kept
    some = program_(train=("3.*", "1.*"), loss="every_step").keeping_gradients()
    assert gradients(some) == {name for name in every if name[0] in "13"}


@pytest.mark.parametrize("kind", [Engine, Interpreter])
def test_tall_matrices_lie_by_columns(kind):
    """With all that is shaped like them; tables, wide matrices and biases lie by rows."""
    net = fptt.Network([fptt.Embedding(9, 3), fptt.GRU(3, 4), fptt.Linear(4, 4), fptt.Linear(4, 3)])
    program = fptt.build(net, fptt.FPTT(), fptt.Adam(), steps=3, keep_gradients=True)
    memory = kind(program)
    assert memory.name == {Engine: "native", Interpreter: "reference"}[kind]
    columns = {"1.weight_ih", "1.weight_hh", "2.weight"}  # [12, 3], [12, 4], [4, 4]
    rows = {"0.weight", "3.weight"}  # [9, 3], a table; [3, 4]
    for name in columns | rows:
        for prefix in ("", "grad/", "lambda/", "mean/", "adam_m/", "adam_v/"):
            buffer = program.buffers[prefix + name]
            values = np.arange(buffer.items, dtype=np.float32).reshape(buffer.shape)
            memory.write(buffer.name, values)
            assert np.array_equal(memory.read(buffer.name), values)
            low = program.plan.offsets[buffer.name]
            found = memory.arena[low : low + buffer.bytes].view(np.float32)
            wanted = values.T if name in columns else values
            assert np.array_equal(found, wanted.reshape(-1)), buffer.name


FRAME = Frame(0, 0, (3, 3, 3), 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize(
    "name", ["lr", "0.bias", "1.weight_hh", "lambda/2.weight_ih", "mean/3.weight", "2.gates", "2.h"]
)
def test_no_update_is_called_safe_that_may_overflow(name, value):
    """What is learnt and what the update reads, wherever it stands."""
    engine = Engine(program_(cell="LSTM"))
    gates = engine.read("2.gates")
    engine.write("2.gates", np.ones_like(gates))  # a gradient for the input to be multiplied with
    assert engine.update_is_safe(FRAME)
    values = engine.read(name)
    values.flat[values.size // 2] = value
    engine.write(name, values)
    assert not engine.update_is_safe(FRAME)


def test_the_reference_calls_no_update_safe():
    assert not Interpreter(program_()).update_is_safe(FRAME)


def test_predictions_and_gradients_come_from_the_trainer_s_back_end():
    """A stack whose sums the two back ends round differently."""
    program = program_(steps=12)
    x, y = random_batch(program, 3, 12, 7)
    found = {}
    for name in ("native", "reference"):
        trainer = fptt.Trainer(program, name, seed=3)
        assert trainer.inference().backend.name == name
        assert trainer.backend.name == name
        kept = fptt.Trainer(program.keeping_gradients(), name, seed=3)
        found[name] = trainer.part_gradients(x, y)
        for one, other in zip(found[name], kept.part_gradients(x, y), strict=True):
            assert_bits_equal(one, other, "gradients")
    assert any(
        not np.array_equal(one[name], other[name])
        for one, other in zip(found["native"], found["reference"], strict=True)
        for name in one
    )
