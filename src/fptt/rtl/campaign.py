"""Compares the compiled operators with their definition, on as many cases as you like.

    python -m fptt.rtl.campaign                           # 1,000,000 pairs, half a minute at most
    python -m fptt.rtl.campaign --pairs 10000000 --dtype bfloat16 --seed 7

Each pair of operands goes through the adder (adding or subtracting, at random), the multiplier and
the halver, with subnormals flushed and kept; back-pressure holds the pipelines at random. A block
of 100,000 pairs holds every pair of exponents, and all `fptt.rtl.operands.corners` with each other.
For bfloat16 all 16,384 pairs of fractions come besides. It ends with code 1 at the first block
that differs, and prints the operands.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fptt.rtl import arithmetic
from fptt.rtl.adder import FloatAdder
from fptt.rtl.formats import FORMATS, FloatFormat, Subnormals, by_name
from fptt.rtl.halver import FloatHalver
from fptt.rtl.hdl import Cat, Component, In, Module, Out, Signal, data, stream
from fptt.rtl.multiplier import FloatMultiplier
from fptt.rtl.operands import pairs
from fptt.rtl.simulation import Simulator

BLOCK = 100_000
#: bits of a field of the input; every format fits
FIELD = 32
OPERANDS = data.StructLayout({"a": FIELD, "b": FIELD, "subtract": 1})


class Battery(Component):
    """Operators of one format side by side: a stream of operands in, all results out together.

    While a result is offered and not taken, `enable` is low, and the operators' inputs are made
    wrong, so that a register that does not hold is found out.

    Latency: that of the slowest operator; the others wait for it. Throughput: one pair a cycle.

    Args:
        operators: name -> `FloatAdder`, `FloatMultiplier` or `FloatHalver`.

    Attributes:
        i: In(stream of `OPERANDS`); o: Out(stream of one word an operator, in their order).
    """

    def __init__(self, operators: Mapping[str, Any]) -> None:
        self.operators = dict(operators)
        self.width = next(iter(self.operators.values())).format.width
        results = data.ArrayLayout(self.width, len(self.operators))
        super().__init__({"i": In(stream.Signature(OPERANDS)), "o": Out(stream.Signature(results))})

    def elaborate(self, platform: Any) -> Any:
        """Hardware."""
        del platform
        m = Module()
        latency = max(operator.latency for operator in self.operators.values())
        valid = Signal(latency)
        enable = Signal()
        m.d.comb += [
            enable.eq(~self.o.valid | self.o.ready),
            self.o.valid.eq(valid[-1]),
            self.i.ready.eq(enable),
        ]
        with m.If(enable):
            m.d.sync += valid.eq(Cat(self.i.valid, valid[:-1]))
        given = self.i.payload
        wrong = (~enable).replicate(self.width)
        for number, (name, operator) in enumerate(self.operators.items()):
            m.submodules[name] = operator
            m.d.comb += [
                operator.enable.eq(enable),
                operator.a.eq(given.a[: self.width] ^ wrong),
            ]
            if hasattr(operator, "b"):
                m.d.comb += operator.b.eq(given.b[: self.width] ^ wrong)
            if hasattr(operator, "subtract"):
                m.d.comb += operator.subtract.eq(given.subtract ^ ~enable)
            value = operator.result
            for _ in range(latency - operator.latency):
                later = Signal(self.width, reset_less=True)
                with m.If(enable):
                    m.d.sync += later.eq(value)
                value = later
            m.d.comb += self.o.payload[number].eq(value)
        return m


def operators(format: FloatFormat) -> dict[str, Any]:
    """All operators with their default pipelines, flushing and keeping subnormals.

    Example:
        >>> from fptt.rtl.formats import BFLOAT16
        >>> list(operators(BFLOAT16))[:3]
        ['add_flush', 'multiply_flush', 'halve_flush']
    """
    choices: tuple[Subnormals, ...] = ("flush", "keep")
    made: dict[str, Any] = {}
    for subnormals in choices:
        made[f"add_{subnormals}"] = FloatAdder(format, subnormals=subnormals)
        made[f"multiply_{subnormals}"] = FloatMultiplier(format, subnormals=subnormals)
        made[f"halve_{subnormals}"] = FloatHalver(format, subnormals)
    return made


def expected(
    operator: Any, a: NDArray[Any], b: NDArray[Any], subtract: NDArray[Any]
) -> NDArray[np.unsignedinteger]:
    """What the definition gives."""
    format, subnormals = operator.format, operator.subnormals
    if isinstance(operator, FloatHalver):
        return arithmetic.halve(a, format, subnormals)
    if isinstance(operator, FloatMultiplier):
        return arithmetic.multiply(a, b, format, subnormals)
    sums = arithmetic.add(a, b, format, subnormals)
    return np.where(subtract > 0, arithmetic.subtract(a, b, format, subnormals), sums)


def differences(
    battery: Battery,
    simulator: Simulator,
    a: NDArray[Any],
    b: NDArray[Any],
    rng: np.random.Generator,
    share: float = 0.9,
) -> list[str]:
    """Runs pairs through a battery; a line for each result that is not the expected one.

    Args:
        battery: what is simulated.
        simulator: of it.
        a, b: bits of the operands, [n].
        rng: random numbers: which are subtracted, and when streams pause.
        share: of the cycles in which operands are offered and results taken, each.
    """
    subtract = rng.integers(0, 2, len(a), np.uint32)
    rows = np.stack([a.astype(np.uint32), b.astype(np.uint32), subtract], 1)
    seed = int(rng.integers(1 << 32))
    done = simulator.stream({"i": rows}, {"o": len(a)}, seed=seed, share=share)
    out = np.ascontiguousarray(done.outputs["o"])
    if out.ndim == 1:
        out = out[:, None]
    word = np.dtype(f"<u{battery.width // 8}")
    results = out.view(word)
    lines = []
    for number, (name, operator) in enumerate(battery.operators.items()):
        wanted = expected(operator, a, b, subtract)
        for k in np.flatnonzero(results[:, number] != wanted):
            lines.append(
                f"{operator.format.name} {name}: a={a[k]:#x} b={b[k]:#x} subtract={subtract[k]}: "
                f"hardware {results[k, number]:#x}, definition {wanted[k]:#x}"
            )
    return lines


def all_fractions(
    format: FloatFormat, rng: np.random.Generator
) -> tuple[NDArray[np.unsignedinteger], NDArray[np.unsignedinteger]]:
    """Every pair of fractions once, with random signs and exponents around a product near 1.

    Example:
        >>> from fptt.rtl.formats import BFLOAT16
        >>> len(all_fractions(BFLOAT16, np.random.default_rng(0))[0])
        16384
    """
    every = np.arange(1 << format.fraction_bits, dtype=np.int64)
    words = []
    for fraction in np.meshgrid(every, every):
        n = fraction.size
        exponent = format.bias + rng.integers(-3, 4, n)
        sign = rng.integers(0, 2, n)
        words.append(sign << format.width - 1 | exponent << format.fraction_bits | fraction.ravel())
    return words[0].astype(format.bits_dtype), words[1].astype(format.bits_dtype)


def run(format: FloatFormat, count: int, seed: int) -> list[str]:
    """At least `count` pairs in blocks; the first lines of the first block that differs."""
    battery = Battery(operators(format))
    simulator = Simulator(battery)
    rng = np.random.default_rng(seed)
    began, done = time.monotonic(), 0
    while done < count:
        a, b = pairs(format, rng, BLOCK)
        if done == 0 and format.fraction_bits <= 8:
            more = all_fractions(format, rng)
            a, b = np.concatenate([a, more[0]]), np.concatenate([b, more[1]])
        found = differences(battery, simulator, a, b, rng)
        if found:
            return found[:20]
        done += len(a)
    seconds = time.monotonic() - began
    print(
        f"{format.name}: {done:,} pairs through {', '.join(battery.operators)}: all equal "
        f"({seconds:.0f} s)",
        flush=True,
    )
    return []


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m fptt.rtl.campaign",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pairs", type=int, default=1_000_000, help="of operands, a number type")
    parser.add_argument("--dtype", choices=list(FORMATS), help="only this one")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    for name in [given.dtype] if given.dtype else FORMATS:
        found = run(by_name(name), given.pairs, given.seed)
        if found:
            print("\n".join(found), file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
