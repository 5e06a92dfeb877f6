"""The unit's arithmetic: its definition against NumPy, ml_dtypes and exact fractions; the hardware
against its definition, compiled (CXXRTL) and in Amaranth's own simulator."""

import os
import re
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import fptt
from fptt.errors import InputError
from fptt.rtl import arithmetic
from fptt.rtl.formats import BFLOAT16, FLOAT32, FORMATS, FloatFormat, by_name, checked
from fptt.rtl.operands import corners, pairs

pytest.importorskip("amaranth")
from amaranth.sim import Simulator as AmaranthSimulator

from fptt.rtl import campaign
from fptt.rtl.adder import CUTS as ADDER_CUTS
from fptt.rtl.adder import FloatAdder
from fptt.rtl.multiplier import CUTS as MULTIPLIER_CUTS
from fptt.rtl.multiplier import FloatMultiplier
from fptt.rtl.simulation import Simulator

#: 4 exponent bits and 3 fraction bits, with Inf: small enough for all pairs of operands
FLOAT8 = FloatFormat("float8_e4m3", 4, 3)
NUMPY = {
    "float32": np.float32,
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3": ml_dtypes.float8_e4m3,
}
OPERATIONS = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply}
BOTH = ("flush", "keep")
needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler"
)


def all_pairs(format):
    every = np.arange(1 << format.width, dtype=format.bits_dtype)
    a, b = np.meshgrid(every, every)
    return a.ravel(), b.ravel()


def storage(format):
    return np.dtype(f"u{format.width // 8}")


def numbers(bits, format):
    return bits.astype(storage(format)).view(NUMPY[format.name])


def canonical(values, format):
    bits = values.view(storage(format)).astype(np.int64)
    return np.where(np.isnan(values), format.nan, bits)


# -- the definition -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("format", [FLOAT32, BFLOAT16, FLOAT8], ids=lambda f: f.name)
def test_definition_against_numpy(format, name):
    """Subnormals kept, as NumPy does. ml_dtypes rounds to float32 first: where that is exact or at
    least normal, the second rounding does no harm."""
    rng = np.random.default_rng(11)
    a, b = all_pairs(format) if format is FLOAT8 else pairs(format, rng, 200_000)
    x, y = numbers(a, format), numbers(b, format)
    with np.errstate(all="ignore"):
        wanted = OPERATIONS[name](x, y)
        wide = OPERATIONS[name](x.astype(np.float64), y.astype(np.float64))
        single = np.float32(wide)
    assert wanted.dtype == NUMPY[format.name]
    compared = np.ones(len(a), bool)
    if format is BFLOAT16:
        compared = ~((single != wide) & (np.abs(wide) < 2.0**-126))
        assert compared.mean() > 0.7
    got = getattr(arithmetic, name)(a, b, format, "keep")
    assert got.dtype == format.bits_dtype
    wrong = compared & (got != canonical(wanted, format))
    k = np.flatnonzero(wrong)
    assert not len(k), [(hex(a[i]), hex(b[i]), hex(got[i]), wanted[i]) for i in k[:5]]


def fraction_of(bits, format):
    """The exact number, from the fields; None for Inf and NaN."""
    exponent = bits >> format.fraction_bits & format.exponent_max
    fraction = bits & ((1 << format.fraction_bits) - 1)
    if exponent == format.exponent_max:
        return None
    significand = fraction + (1 << format.fraction_bits if exponent else 0)
    scale = Fraction(2) ** (max(exponent, 1) - format.bias - format.fraction_bits)
    return (-1 if bits & format.sign else 1) * significand * scale


def rounded(number, format, subnormals):
    """Bits of an exact number that is not 0, with integers only."""
    sign, number = (format.sign, -number) if number < 0 else (0, number)
    exponent = 0
    while number >= Fraction(2) ** (exponent + 1):
        exponent += 1
    while number < Fraction(2) ** exponent:
        exponent -= 1
    least = 1 - format.bias
    if subnormals == "keep":
        exponent = max(exponent, least)
    unit = Fraction(2) ** (exponent - format.fraction_bits)
    whole, rest = divmod(number, unit)
    whole += rest * 2 > unit or (rest * 2 == unit and whole % 2 == 1)
    value = whole * unit
    if value >= Fraction(2) ** (format.exponent_max - format.bias):
        return sign | format.infinity
    if value < Fraction(2) ** least:
        in_units = value / Fraction(2) ** (least - format.fraction_bits)
        return sign | (int(in_units) if subnormals == "keep" else 0)
    if whole == 2 << format.fraction_bits:
        whole, exponent = whole // 2, exponent + 1
    return (
        sign | exponent + format.bias << format.fraction_bits | whole - (1 << format.fraction_bits)
    )


def flushed(bits, format):
    exponent = bits >> format.fraction_bits & format.exponent_max
    return bits if exponent else bits & format.sign


def exact(name, a, b, format, subnormals):
    """The result from the rules in words."""
    if subnormals == "flush":
        a, b = flushed(a, format), flushed(b, format)
    if name == "subtract":
        b ^= format.sign
    size_a, size_b = a & ~format.sign, b & ~format.sign
    if size_a > format.infinity or size_b > format.infinity:
        return format.nan
    infinite = format.infinity in (size_a, size_b)
    if name == "multiply":
        sign = (a ^ b) & format.sign
        if infinite:
            return format.nan if 0 in (size_a, size_b) else sign | format.infinity
        number = fraction_of(a, format) * fraction_of(b, format)
        return rounded(number, format, subnormals) if number else sign
    if infinite:
        if size_a == size_b:
            return a if a == b else format.nan
        return a if size_a == format.infinity else b
    number = fraction_of(a, format) + fraction_of(b, format)
    return rounded(number, format, subnormals) if number else a & b & format.sign


@pytest.mark.parametrize("subnormals", BOTH)
@pytest.mark.parametrize("format", [FLOAT32, BFLOAT16, FLOAT8], ids=lambda f: f.name)
def test_definition_against_exact_fractions(format, subnormals):
    rng = np.random.default_rng(12)
    a, b = all_pairs(format) if format is FLOAT8 else pairs(format, rng, 200_000)
    # the directed cases stand behind the pairs of exponents
    chosen = rng.choice(np.arange(len(a) - len(a) * 3 // 5, len(a)), 1500, replace=False)
    a, b = a[chosen], b[chosen]
    for name in OPERATIONS:
        got = getattr(arithmetic, name)(a, b, format, subnormals)
        for i in range(len(a)):
            wanted = exact(name, int(a[i]), int(b[i]), format, subnormals)
            assert int(got[i]) == wanted, (name, hex(a[i]), hex(b[i]), hex(got[i]), hex(wanted))


def test_flushing_at_the_least_normal_number():
    """Flushed after rounding: a product that rounds up to the least normal number stays."""
    # (2 - 2^-6) 2^-127 * (1 + 2^-7) = (1 - 2^-14) 2^-126, and 7 fraction bits round that to 2^-126
    a = np.array([0x007F, 0x00FE, 0x00FE, 0x0080], np.uint16)
    b = np.array([0x3F80, 0x3F01, 0x3F00, 0xBF7F], np.uint16)
    got = arithmetic.multiply(a, b, BFLOAT16)
    assert [hex(v) for v in got] == ["0x0", "0x80", "0x0", "0x8000"]
    kept = arithmetic.multiply(a, b, BFLOAT16, "keep")
    assert [hex(v) for v in kept] == ["0x7f", "0x80", "0x7f", "0x8080"]


@pytest.mark.parametrize("subnormals", BOTH)
@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_halving_is_multiplication_by_a_half(format, subnormals):
    every = np.arange(1 << 16, dtype=np.uint64)
    if format is FLOAT32:
        low = np.random.default_rng(13).integers(0, 1 << 16, len(every), np.uint64)
        every = np.concatenate([every << np.uint64(16) | low, corners(format).astype(np.uint64)])
    a = every.astype(format.bits_dtype)
    half = np.full(len(a), format.one - (1 << format.fraction_bits), a.dtype)
    wanted = arithmetic.multiply(a, half, format, subnormals)
    assert np.array_equal(arithmetic.halve(a, format, subnormals), wanted)


def test_decode_is_exact():
    every = np.arange(1 << 16, dtype=np.uint16)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        wanted = every.view(ml_dtypes.bfloat16).astype(np.float64)
    assert np.array_equal(BFLOAT16.decode(every), wanted, equal_nan=True)
    assert np.array_equal(np.signbit(BFLOAT16.decode(every)[:1]), [False])
    assert np.signbit(BFLOAT16.decode(every[0x8000:0x8001]))[0]


def test_pairs_hold_what_they_promise():
    a, b = pairs(BFLOAT16, np.random.default_rng(14), 100_000)
    exponents = {(int(x), int(y)) for x, y in zip(a >> 7 & 255, b >> 7 & 255, strict=True)}
    assert len(exponents) == 65536
    with np.errstate(all="ignore"):
        sums = BFLOAT16.decode(a) + BFLOAT16.decode(b)
        products = BFLOAT16.decode(a) * BFLOAT16.decode(b)
        ratio = np.abs(sums) / np.maximum(np.abs(BFLOAT16.decode(a)), np.abs(BFLOAT16.decode(b)))
        lost = np.floor(-np.log2(ratio))
    # differences with 1 to 7 leading bits gone, and to nothing
    assert all(np.count_nonzero(lost == bits) > 50 for bits in range(1, 8))
    assert np.count_nonzero((sums == 0) & (a & 0x7FFF > 0)) > 50
    # half-way results of both operations
    for values in (sums, products):
        finite = values[np.isfinite(values) & (np.abs(values) > 1e-37)]
        significand = np.frexp(finite)[0] * 2**9
        assert (
            np.count_nonzero((significand == np.rint(significand)) & (significand % 2 != 0)) > 500
        )


# -- the hardware ---------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_hardware_equals_definition(format):
    """More than 100,000 pairs through all operators of a format, with back-pressure."""
    battery = campaign.Battery(campaign.operators(format))
    rng = np.random.default_rng(21)
    a, b = pairs(format, rng, 100_000)
    if format is BFLOAT16:
        more = campaign.all_fractions(format, rng)
        a, b = np.concatenate([a, more[0]]), np.concatenate([b, more[1]])
    found = campaign.differences(battery, Simulator(battery), a, b, rng)
    assert not found, "\n".join(found[:5])


@needs_compiler
@pytest.mark.parametrize("subnormals", BOTH)
def test_every_pipeline_on_all_pairs_of_a_small_format(subnormals):
    """All 65,536 pairs of 8-bit numbers, through every number of stages; with subnormals kept,
    through some."""
    operators = {}
    for kind, cuts in (FloatAdder, ADDER_CUTS), (FloatMultiplier, MULTIPLIER_CUTS[subnormals]):
        stages = list(cuts) if subnormals == "flush" else [1, 3, 6, len(cuts)]
        for number in stages:
            operators[f"{kind.__name__}_{number}"] = kind(FLOAT8, number, subnormals)
    battery = campaign.Battery(operators)
    a, b = all_pairs(FLOAT8)
    rng = np.random.default_rng(22)
    found = campaign.differences(battery, Simulator(battery), a, b, rng)
    assert not found, "\n".join(found[:5])


@pytest.mark.parametrize("kind", [FloatAdder, FloatMultiplier])
def test_latency_and_enable(kind):
    """In Amaranth's own simulator: a result a cycle after `latency` enabled edges, held between."""
    operator = kind(BFLOAT16)
    a, b = (x[2000:2150] for x in pairs(BFLOAT16, np.random.default_rng(23), 0))
    a[:2], b[:2] = (0x7F80, 0x0000), (0xFF80, 0xFF80)  # Inf - Inf, 0 * Inf
    wanted = campaign.expected(operator, a, b, np.zeros(len(a)))
    enables = np.random.default_rng(24).integers(0, 3, 400) > 0
    seen = []

    async def drive(ctx):
        edges = 0
        for enable in enables:
            if enable and edges < len(a):
                ctx.set(operator.a, int(a[edges]))
                ctx.set(operator.b, int(b[edges]))
            else:
                ctx.set(operator.a, 0x7FC1)
                ctx.set(operator.b, 0x1234)
            ctx.set(operator.enable, int(enable))
            await ctx.tick()
            edges += enable
            done = edges - operator.latency
            if 0 <= done < len(a):
                seen.append(done)
                assert ctx.get(operator.result) == wanted[done], done

    simulator = AmaranthSimulator(operator)
    simulator.add_clock(1e-8)
    simulator.add_testbench(drive)
    simulator.run()
    assert set(seen) == set(range(len(a)))


def test_subtract_bit():
    adder = FloatAdder(FLOAT32, 1)
    results = []

    async def drive(ctx):
        ctx.set(adder.a, 0x40400000)
        ctx.set(adder.b, 0x3F800000)
        for subtract in (0, 1):
            ctx.set(adder.subtract, subtract)
            await ctx.tick()
            results.append(ctx.get(adder.result))

    simulator = AmaranthSimulator(adder)
    simulator.add_clock(1e-8)
    simulator.add_testbench(drive)
    simulator.run()
    assert results == [0x40800000, 0x40000000]


@needs_compiler
def test_campaign_command(capsys, monkeypatch):
    """It ends with 0, says what it did, and with 1 where an operator is wrong."""
    assert campaign.main(["--dtype", "bfloat16", "--pairs", "1"]) == 0
    said = re.fullmatch(
        r"bfloat16: 116,384 pairs through add_flush, multiply_flush, halve_flush, add_keep, "
        r"multiply_keep, halve_keep: all equal \(\d+ s\)\n",
        capsys.readouterr().out,
    )
    assert said
    right = arithmetic.halve
    monkeypatch.setattr(arithmetic, "halve", lambda *given: right(*given) ^ 1)
    assert campaign.main(["--dtype", "bfloat16", "--pairs", "1"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 20
    assert re.fullmatch(
        r"bfloat16 halve_flush: a=0x[0-9a-f]+ b=0x[0-9a-f]+ subtract=[01]: "
        r"hardware 0x[0-9a-f]+, definition 0x[0-9a-f]+",
        lines[0],
    )


# -- messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: by_name("float64"),
            "number type 'float64' is not known; the FPTT unit has float32, bfloat16",
        ),
        (
            lambda: FloatFormat("float64", 11, 52),
            "float format 'float64' has 11 exponent bits and 52 fraction bits; give 2 to 8 and 2 "
            "to 23",
        ),
        (lambda: checked("ignore"), "subnormals='ignore': give 'flush' or 'keep'"),
        (
            lambda: FloatAdder(FLOAT32, 9),
            "the adder has no 9 stages; give one of [1, 2, 3, 4, 5, 6, 7, 8]",
        ),
        (
            lambda: FloatMultiplier(FLOAT32, 0),
            "the multiplier has no 0 stages; give one of [1, 2, 3, 4]",
        ),
        (
            lambda: FloatMultiplier(FLOAT32, subnormals="no"),
            "subnormals='no': give 'flush' or 'keep'",
        ),
    ],
)
def test_messages(call, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        call()


def test_without_amaranth():
    """The definition works, and what describes hardware says what to install."""
    code = """
import sys
sys.modules["amaranth"] = None
import numpy as np
import fptt
from fptt.errors import InputError
from fptt.rtl import arithmetic, formats
one = np.array([0x3F80], np.uint16)
print(hex(arithmetic.add(one, one, formats.BFLOAT16)[0]))
try:
    import fptt.rtl.adder
except InputError as error:
    print(error)
"""
    source = str(Path(fptt.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert re.fullmatch(
        r"0x4000\nthis needs Amaranth \(.*amaranth.*\)\. "
        r"Install it with: pip install 'fptt\[hardware\]'\n",
        done.stdout,
    )
