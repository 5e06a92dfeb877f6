"""bfloat16: the conversions against ml_dtypes, and rounding when an operation writes, only then."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import cases, examples, random_batch, trainer_on

import fptt
from fptt.program.bfloat16 import from_bits, to_bits
from fptt.program.ops import spec
from fptt.reference.interpreter import Interpreter, _place

ALL_PATTERNS = np.arange(2**16, dtype=np.uint16)


def reference_bits(values):
    """What ml_dtypes makes of float32 numbers."""
    with np.errstate(invalid="ignore"):  # casting a NaN warns
        return np.asarray(values, np.float32).astype(ml_dtypes.bfloat16).view(np.uint16)


def assert_rounded(values):
    values = np.asarray(values, np.float32)
    found, wanted = to_bits(values), reference_bits(values)
    nan = np.isnan(values)
    assert np.array_equal(found[~nan], wanted[~nan])
    assert np.isnan(from_bits(found[nan])).all()
    assert (found[nan] & 0x0040 == 0x0040).all(), "a NaN must be quiet"
    assert ((found[nan] >> 15) == (values[nan].view(np.uint32) >> 31)).all(), "sign of NaN"


def test_every_pattern_is_read_exactly():
    found = from_bits(ALL_PATTERNS)
    wanted = ALL_PATTERNS.view(ml_dtypes.bfloat16).astype(np.float32)
    assert found.dtype == np.float32
    nan = np.isnan(wanted)
    assert np.array_equal(np.isnan(found), nan) and nan.sum() == 2 * 127
    # bits, not values: zeros have signs
    assert np.array_equal(found.view(np.uint32)[~nan], wanted.view(np.uint32)[~nan])


def test_every_pattern_survives_the_round_trip():
    found = to_bits(from_bits(ALL_PATTERNS))
    nan = np.isnan(from_bits(ALL_PATTERNS))
    assert np.array_equal(found[~nan], ALL_PATTERNS[~nan])
    assert np.array_equal(found[nan], ALL_PATTERNS[nan] | 0x0040)


@pytest.mark.parametrize("low_half", [0x0001, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
def test_rounding_around_every_pattern(low_half):
    """Just above, just below the half, the tie, just above it, and just below the next number."""
    patterns = (ALL_PATTERNS.astype(np.uint32) << 16) | np.uint32(low_half)
    assert_rounded(patterns.view(np.float32))


def test_rounding_of_random_patterns():
    rng = np.random.default_rng(1)
    assert_rounded(rng.integers(0, 2**32, 300_000, np.uint32).view(np.float32))
    assert_rounded(rng.normal(size=100_000))


@pytest.mark.parametrize(
    ("number", "bits"),
    [
        (0.0, 0x0000),
        (-0.0, 0x8000),
        (1.0, 0x3F80),
        (-2.5, 0xC020),
        (1 + 2**-8, 0x3F80),  # tie: to the even one below
        (1 + 3 * 2**-8, 0x3F82),  # tie: to the even one above
        (float.fromhex("0x1.fefffep+127"), 0x7F7F),  # rounds to the largest finite number
        (float.fromhex("0x1.ff0000p+127"), 0x7F80),  # the tie above it is infinity
        (float.fromhex("-0x1.fffffep+127"), 0xFF80),
        (np.inf, 0x7F80),
        (-np.inf, 0xFF80),
        (2.0**-133, 0x0001),  # the smallest subnormal
        (2.0**-134, 0x0000),  # half of it: tie to even
        (3 * 2.0**-135, 0x0001),
        (2.0**-126, 0x0080),
    ],
    ids=str,
)
def test_rounding_of_chosen_numbers(number, bits):
    assert int(to_bits(np.array([number]))[0]) == bits
    assert int(reference_bits([number])[0]) == bits


@pytest.mark.parametrize("pattern", [0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFC00000])
def test_nan_stays_nan(pattern):
    """Also where rounding the bits of a NaN would give infinity or zero."""
    assert_rounded(np.array([pattern], np.uint32).view(np.float32))


@given(st.lists(st.floats(width=32), min_size=1, max_size=20))
def test_rounding_of_drawn_numbers(values):
    assert_rounded(np.array(values, np.float32))


def test_float64_is_rounded_through_float32():
    """Formulas compute in float32; a float64 that comes from outside is made float32 first."""
    values = np.random.default_rng(2).normal(size=1000)
    assert np.array_equal(to_bits(values), reference_bits(values.astype(np.float32)))


def test_strided_and_shaped_arrays():
    values = np.random.default_rng(3).normal(size=(6, 8)).astype(np.float32)[::2, ::-1].T
    assert to_bits(values).shape == (8, 3)
    assert np.array_equal(to_bits(values), reference_bits(values))


class CheckedInterpreter(Interpreter):
    """Runs every formula a second time by itself and compares what the operation wrote."""

    def __init__(self, program):
        super().__init__(program)
        self.rounded = 0
        self.inexact = 0

    def _execute(self, op, frame, t):
        entry, attrs = spec(op.kind), dict(op.attrs)
        if entry.placed:
            attrs["place"] = _place(op, frame, t)
        if entry.shaped:
            attrs["shape"] = self._select(op.outputs[0], frame, t).shape
        operands = [None if r is None else self._seen(r, frame, t) for r in op.inputs]
        if op.kind == "embedding_gradient":  # works in its third operand
            operands[2] = operands[2].copy()
        results = entry.formula(*operands, **attrs)
        results = results if isinstance(results, tuple) else (results,)
        # results may be views of operands that the operation is about to overwrite
        results = [None if r is None else np.array(r) for r in results]
        super()._execute(op, frame, t)
        for ref, result in zip(op.outputs, results, strict=True):
            if ref is None:
                continue
            stored = self._select(ref, frame, t)
            if ref.buffer.dtype != "bfloat16":
                assert np.array_equal(stored, result.astype(stored.dtype), equal_nan=True)
                continue
            assert (
                result.dtype == np.float32
                or op.kind in ("fill", "copy")
                or any(o is not None and o.dtype == np.float64 for o in operands)
            )
            assert np.array_equal(stored, reference_bits(result)), op.kind
            self.rounded += result.size
            self.inexact += int((from_bits(stored) != result).sum())

    def _seen(self, ref, frame, t):
        """An operand, bfloat16 decoded by ml_dtypes; otherwise where it lies, because the order
        of summation in a product depends on the strides."""
        stored = self._select(ref, frame, t)
        if ref.buffer.dtype == "bfloat16":
            return stored.view(ml_dtypes.bfloat16).astype(np.float32)
        return stored


@settings(max_examples=examples(40))
@given(cases(dtypes=("bfloat16", "float32")))
def test_every_written_number_is_the_rounded_result_of_the_formula(case):
    memory = CheckedInterpreter(case.program)
    case.train(case.trainer(memory))
    # a batch without any label may train nothing, so not every case rounds; see the next test
    if "bfloat16" not in (case.program.dtype, case.program.activation_dtype):
        assert memory.rounded == 0


@pytest.mark.parametrize("cell", [fptt.LSTM, fptt.GRU, fptt.RNN])
@pytest.mark.parametrize(
    "dtypes", [("bfloat16", None), ("float32", "bfloat16"), ("bfloat16", "float32")], ids=str
)
def test_training_lowers_the_loss(cell, dtypes):
    dtype, activation_dtype = dtypes
    net = fptt.Network([cell(2, 6), fptt.Linear(6, 3)])
    program = fptt.build(
        net,
        fptt.FPTT(parts=2),
        fptt.SGD(lr=0.2, momentum=0.5),
        steps=6,
        batch=6,
        dtype=dtype,
        activation_dtype=activation_dtype,
        clip=1.0,
    )
    memory = CheckedInterpreter(program)
    trainer = trainer_on(program, memory)
    x, _ = random_batch(program, 6, 6, 1)
    y = np.array([0, 1, 2, 0, 1, 2])
    x += y[:, None, None] - 1
    losses = [trainer.train_batch(x, y) for _ in range(40)]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    assert memory.inexact > 0.1 * memory.rounded, "nothing was rounded, so nothing was tested"


def test_which_buffers_are_bfloat16():
    """dtype: parameters, states, gradients. activation_dtype: input, activations, carried state.

    Scalars that steer the update stay float32.
    """
    net = fptt.Network([fptt.LSTM(2, 3), fptt.Linear(3, 2)])

    def types(**options):
        program = fptt.build(
            net,
            fptt.FPTT(parts=2),
            fptt.Adam(),
            steps=4,
            batch=2,
            clip=1.0,
            loss="auxiliary",
            **options,
        )
        return {name: b.dtype for name, b in program.buffers.items()}

    scalars = {"lr", "correction", "clip", "loss", "fraction"}
    activations = {"input", "0.gates", "0.h", "0.c", "0.dh", "0.dc", "1.y", "1.dy"}
    found = types(dtype="bfloat16")
    assert {n for n, d in found.items() if d == "float32"} == scalars
    assert found["target"] == "int32"
    assert {d for n, d in found.items() if n not in scalars | {"target"}} == {"bfloat16"}
    found = types(dtype="float32", activation_dtype="bfloat16")
    assert {n for n, d in found.items() if d == "bfloat16"} == activations
    found = types(dtype="bfloat16", activation_dtype="float32")
    assert {n for n, d in found.items() if d == "float32"} == scalars | activations


def test_bfloat16_halves_the_memory():
    net = fptt.Network([fptt.LSTM(8, 32), fptt.Linear(32, 8)])
    whole, half = (
        fptt.build(
            net, fptt.FPTT(parts=2), steps=16, batch=8, dtype=dtype, keep_gradients=True
        ).memory()
        for dtype in ("float32", "bfloat16")
    )
    for role in ("parameter", "gradient", "rule_state", "activation", "carry", "input"):
        assert whole.categories[role] == 2 * half.categories[role] > 0


def test_updates_below_half_a_step_of_the_format_are_lost():
    """Rounding is to nearest, not stochastic: 1 - 2^-10 rounds back to 1."""
    net = fptt.Network([fptt.Linear(1, 1)], {"0.weight": np.ones((1, 1)), "0.bias": np.zeros(1)})
    for lr, moves in ((2.0**-11, False), (2.0**-8, True)):
        program = fptt.build(
            net, fptt.BPTT(), fptt.SGD(lr=lr), steps=1, criterion="mse", dtype="bfloat16"
        )
        trainer = fptt.Trainer(program)
        # d loss / d weight = 2 (1 - 0) 1
        trainer.train_batch(np.ones((1, 1, 1)), np.zeros((1, 1)))
        assert (trainer.parameters()["0.weight"][0, 0] != 1) == moves
