"""bfloat16 rounded up or down at random: what it promises, alone and in training."""

import re

import numpy as np
import pytest

import fptt
from fptt.program.bfloat16 import from_bits, round_at_random, to_bits

MANY = 40_000
#: distance of the numbers from 1 to 2
STEP = 2.0**-7


def rounded(values, seed=1, update=1, tensor=0, which=0, first_row=0):
    return round_at_random(values, (seed, update, tensor), which, first_row)


# --- numbers ----------


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_mean_of_many_is_the_value(share, sign):
    value = np.float32(sign * (1 + share * STEP))
    found = rounded(np.full(MANY, value))
    assert set(np.abs(found).tolist()) == {1.0, 1 + STEP}
    deviation = (share * (1 - share) / MANY) ** 0.5
    assert (np.abs(found) > 1).mean() == pytest.approx(share, abs=4 * deviation)


def test_every_number_becomes_the_next_below_or_above():
    rng = np.random.default_rng(1)
    patterns = rng.integers(0, 2**32, 100_000, np.uint32)
    values = patterns.view(np.float32)
    values = values[np.isfinite(values)]
    low = to_bits_cut(values)
    found = to_bits(rounded(values)).astype(np.uint32)
    assert (found - low <= 1).all() and (found - low == 1).mean() == pytest.approx(0.5, abs=0.01)


def to_bits_cut(values):
    """The upper half of the bits: the next number towards zero."""
    return values.view(np.uint32) >> 16


def test_numbers_that_bfloat16_holds_and_those_that_are_none_stay():
    every = from_bits(np.arange(2**16, dtype=np.uint16))
    others = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], np.uint32).view(np.float32)
    every = np.concatenate([every, np.repeat(others, 100)])  # NaN with bits that are cut off
    for update in range(3):
        found = rounded(every, update=update)
        kept = ~np.isnan(every)
        assert found[kept].tobytes() == every[kept].tobytes()
        assert np.array_equal(np.isnan(found), ~kept)


def test_what_tells_random_numbers_apart():
    """Seed, update, tensor, value, row and column; half of the numbers come out differently."""
    values = np.full((200, 200), 1 + STEP / 2, np.float32)
    one = rounded(values)
    for other in (
        rounded(values, seed=2),
        rounded(values, update=2),
        rounded(values, tensor=1),
        rounded(values, which=1),
        rounded(values, first_row=1),
    ):
        assert (one != other).mean() == pytest.approx(0.5, abs=0.02)
    up = (one > 1).astype(float) - 0.5
    for a, b in ((up[1:], up[:-1]), (up[:, 1:], up[:, :-1]), (up, up.T)):
        assert abs((a * b).mean()) < 0.01
    assert np.array_equal(rounded(values[50:], first_row=50), one[50:])
    assert np.array_equal(rounded(values[:, :30]), one[:, :30])


# --- training ----------


def program_(cell=fptt.LSTM, lr=0.1, rule=None, rounding="stochastic", **options):
    net = fptt.Network([cell(5, 24), fptt.Linear(24, 7)])
    options = {"dtype": "bfloat16", "rounding": rounding} | options
    rule = rule or fptt.FPTT(parts=2)
    return fptt.build(net, rule, fptt.SGD(lr), steps=6, batch=8, **options)


def batch(seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(8, 6, 5)).astype(np.float32), rng.integers(0, 7, 8)


def everything(trainer):
    return {
        name: value.tobytes() for name, value in (trainer.parameters() | trainer.state()).items()
    }


def moved(program, start, times):
    """How far the same batch moves each weight of 0.weight_hh."""
    trainer = fptt.Trainer(program, seed=3)
    trainer.load_parameters(start)
    before = trainer.parameters()["0.weight_hh"].astype(float)
    for _ in range(times):
        trainer.train_batch(*batch())
    return trainer.parameters()["0.weight_hh"].astype(float) - before


@pytest.mark.usefixtures("each_backend")
def test_small_updates_do_not_vanish():
    """A thousandth of the distance between neighbours each: to nearest, nothing ever moves."""
    start = {
        name: from_bits(to_bits(0.5 + 0.2 * np.sign(value)))
        for name, value in program_().net.initial(1).items()
    }
    rule = fptt.BPTT()
    exact = moved(program_(lr=3e-4, rule=rule, dtype="float32", rounding="nearest"), start, 60)
    nearest = moved(program_(lr=3e-4, rule=rule, rounding="nearest"), start, 60)
    at_random = moved(program_(lr=3e-4, rule=rule), start, 60)
    assert 0 < np.abs(exact).max() / 60 < 0.25 * STEP / 4  # per update; numbers are from 1/4 to 1
    assert not nearest.any()
    assert (at_random != 0).any()
    # in the mean they are what float32 learns
    noise = 4 * np.abs(exact).sum() ** 0.5 * (STEP / 2) ** 0.5
    assert abs(at_random.sum() - exact.sum()) < noise


@pytest.mark.parametrize("cell", [fptt.LSTM, fptt.GRU, fptt.RNN])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_reference_and_engine_draw_the_same_bits(cell, clip):
    """After one update. Sums differ in their last bits, which shows in a number now and then."""
    program = program_(cell, rule=fptt.FPTT(parts=1), activation_dtype="float32", clip=clip)
    results = []
    for backend in ("native", "reference"):
        trainer = fptt.Trainer(program, backend, seed=9)
        trainer.train_batch(*batch())
        results.append(trainer.parameters() | trainer.state())
    native, reference = results
    assert np.array_equal(native["rounding"], reference["rounding"])
    for name, value in reference.items():
        other = (native[name] != value).sum()
        assert other <= 1 + 0.01 * value.size, name


@pytest.mark.usefixtures("each_backend")
def test_every_update_has_its_number():
    trainer = fptt.Trainer(program_(), seed=2**32 - 1)
    for count in range(3):
        assert trainer.state()["rounding"].tolist() == [2**32 - 1, 2 * count]
        trainer.train_batch(*batch())
    trainer.load_parameters(trainer.parameters())
    assert trainer.state()["rounding"].tolist() == [2**32 - 1, 0]


@pytest.mark.parametrize("cell", [fptt.LSTM, fptt.GRU])
@pytest.mark.parametrize("rule", [fptt.BPTT(), fptt.FPTT(parts=2)], ids=["BPTT", "FPTT"])
def test_every_number_of_a_program_has_random_bits_of_its_own(cell, rule):
    """No two pieces have the same tensor and rows; a piece counts its rows in the parameter."""
    program = program_(cell, rule=rule)
    names = {}
    for op, _ in program.routines["update"].ops():
        if "tensor" not in op.attrs:
            continue
        theta = op.outputs[0]
        assert op.attrs["first_row"] == (theta.row_range or (0,))[0]
        assert names.setdefault(op.attrs["tensor"], theta.buffer.name) == theta.buffer.name
        assert program.buffers["rounding"].whole in op.inputs
    assert sorted(names.values()) == sorted(program.trained)


@pytest.mark.usefixtures("each_backend")
def test_a_snapshot_goes_on_with_the_same_bits(tmp_path):
    path = tmp_path / "state.fptt"
    trainer = fptt.Trainer(program_(), seed=5)
    for number in range(3):
        trainer.train_batch(*batch(number))
    trainer.save(path)
    again = fptt.load(path)
    assert again.program.rounding == "stochastic"
    assert everything(again) == everything(trainer)
    for number in range(3, 6):
        assert again.train_batch(*batch(number)) == trainer.train_batch(*batch(number))
    assert everything(again) == everything(trainer)


@pytest.mark.usefixtures("each_backend")
def test_the_seed_decides():
    start, results = program_().net.initial(1), []
    for seed in (1, 1, 2):
        trainer = fptt.Trainer(program_(), seed=seed)
        trainer.load_parameters(start)
        trainer.train_batch(*batch())
        results.append(trainer.parameters()["0.weight_hh"])
    one, same, other = results
    assert one.tobytes() == same.tobytes()
    assert 0.02 < (one != other).mean() < 0.98


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_other_types_are_not_rounded_at_random(dtype):
    message = (
        f'build: rounding="stochastic" is for dtype="bfloat16", and dtype is "{dtype}"; '
        "leave it out, or choose bfloat16"
    )
    with pytest.raises(fptt.InputError, match=f"^{re.escape(message)}$"):
        program_(dtype=dtype, activation_dtype=dtype)
    assert "rounding" not in program_(rounding="nearest").buffers
