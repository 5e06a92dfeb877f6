"""Floating-point adder and subtractor."""

from __future__ import annotations

from typing import Any

from fptt.rtl.formats import FloatFormat, Subnormals, checked
from fptt.rtl.hdl import Cat, Component, Const, In, Module, Mux, Out
from fptt.rtl.pipeline import Values, chain, chosen_cuts, wire

#: bits below the last place of a significand: guard, round, sticky
EXTRA = 3
#: stages -> the steps (in `FloatAdder.elaborate`) that have registers behind them
CUTS = {
    1: (8,),
    2: (4, 8),
    3: (3, 5, 8),
    4: (2, 4, 6, 8),
    5: (2, 3, 5, 6, 8),
    6: (2, 3, 4, 6, 7, 8),
    7: (1, 2, 4, 5, 6, 7, 8),
    8: (1, 2, 3, 4, 5, 6, 7, 8),
}


class FloatAdder(Component):
    """result = a + b or a - b, as `fptt.rtl.arithmetic.add` and `subtract` define it, bit for bit.

    One path: order the operands by magnitude, shift the smaller one right (guard, round and sticky
    bit), add or subtract, count leading zeros, shift left, round. A subtraction that cancels more
    than one bit has exponents that differ by at most one, so that all its bits are kept, and needs
    no rounding; one sticky bit is enough.

    Latency: `latency` = `stages` enabled clock edges from operands to result.
    Throughput: one operation an enabled cycle.

    Args:
        format: of operands and result.
        stages: ranks of registers, 1 to 8, the last one at the output; inputs are not registered.
            Default 5 for more than 16 bits, else 3.
        subnormals: "flush" or "keep"; see `fptt.rtl.arithmetic`.

    Attributes:
        a, b: In(format.width); subtract: In(1), high for a - b; enable: In(1), while low every
            register holds; result: Out(format.width).
        latency: enabled clock edges.

    Raises:
        InputError: no such number of stages, or `subnormals` is neither.

    Example:
        >>> from fptt.rtl.formats import FLOAT32
        >>> FloatAdder(FLOAT32).latency, FloatAdder(FLOAT32, stages=2).latency
        (5, 2)
    """

    def __init__(
        self, format: FloatFormat, stages: int | None = None, subnormals: Subnormals = "flush"
    ) -> None:
        self.format = format
        self.subnormals = checked(subnormals)
        default = 5 if format.width > 16 else 3
        self.cuts = chosen_cuts("the adder", CUTS, stages, default)
        self.latency = len(self.cuts)
        super().__init__(
            {
                "a": In(format.width),
                "b": In(format.width),
                "subtract": In(1),
                "enable": In(1, init=1),
                "result": Out(format.width),
            }
        )

    def elaborate(self, platform: Any) -> Any:
        """Hardware."""
        del platform
        m = Module()
        values = {"a": self.a, "b": self.b, "subtract": self.subtract}
        steps = [
            self.compare,
            self.order,
            self.align,
            self.add,
            self.count,
            self.normalise,
            self.round,
            self.pack,
        ]
        last = chain(m, steps, self.cuts, values, self.enable)
        m.d.comb += self.result.eq(last["result"])
        return m

    def compare(self, m: Any, v: Values) -> Values:
        """Which magnitude is larger; the distance of the exponents both ways; special operands."""
        f = self.format
        a, b = v["a"], v["b"][:-1]
        sign_b = v["b"][-1] ^ v["subtract"]
        exponent_a, exponent_b = a[f.fraction_bits : -1], b[f.fraction_bits :]

        def below(one: Any, other: Any) -> Any:
            return (self.effective(one) - self.effective(other))[: f.exponent_bits]

        a_special, b_special = exponent_a.all(), exponent_b.all()
        a_fraction, b_fraction = a[: f.fraction_bits].any(), b[: f.fraction_bits].any()
        nan = (
            (a_special & a_fraction)
            | (b_special & b_fraction)
            | (a_special & b_special & (a[-1] ^ sign_b))
        )
        return {
            "a": a,
            "b": Cat(b, sign_b),
            "swap": wire(m, a[:-1] < b, "swap"),
            "a_less_b": wire(m, below(exponent_a, exponent_b), "a_less_b"),
            "b_less_a": wire(m, below(exponent_b, exponent_a), "b_less_a"),
            "nan": wire(m, nan, "nan"),
            "infinite": wire(m, a_special | b_special, "infinite"),
        }

    def effective(self, exponent: Any) -> Any:
        """Subnormals have the exponent of the least normal numbers; flushed ones are zeros."""
        if self.subnormals == "flush":
            return exponent
        return Cat(exponent[0] | ~exponent.any(), exponent[1:])

    def significand(self, bits: Any) -> Any:
        """With its hidden bit."""
        f = self.format
        exponent, fraction = bits[f.fraction_bits : -1], bits[: f.fraction_bits]
        normal = exponent.any()
        if self.subnormals == "flush":
            fraction = fraction & normal.replicate(f.fraction_bits)
        return Cat(fraction, normal)

    def order(self, m: Any, v: Values) -> Values:
        """The larger magnitude first."""
        f = self.format
        a, b, swap = v["a"], v["b"], v["swap"]
        significand_a, significand_b = self.significand(a), self.significand(b)
        exponent_a, exponent_b = (self.effective(x[f.fraction_bits : -1]) for x in (a, b))
        return {
            "sign": Mux(swap, b[-1], a[-1]),
            "exponent": wire(m, Mux(swap, exponent_b, exponent_a), "exponent"),
            "large": wire(m, Mux(swap, significand_b, significand_a), "large"),
            "small": wire(m, Mux(swap, significand_a, significand_b), "small"),
            "distance": wire(m, Mux(swap, v["b_less_a"], v["a_less_b"]), "distance"),
            "opposite": a[-1] ^ b[-1],
            "nan": v["nan"],
            "infinite": v["infinite"],
        }

    def align(self, m: Any, v: Values) -> Values:
        """The smaller one shifted right, what falls off collected in the sticky bit."""
        value = Cat(Const(0, EXTRA), v["small"])
        for position, bit in enumerate(v["distance"]):
            amount = 1 << position
            if amount >= len(value):
                far = v["distance"][position:].any()
                value = wire(m, Mux(far, value.any(), value), "aligned_far")
                break
            lost = value[: amount + 1].any()
            shifted = Cat(lost, value[amount + 1 :])
            value = wire(m, Mux(bit, shifted, value)[: len(value)], f"aligned_{amount}")
        others = ("sign", "exponent", "large", "opposite", "nan", "infinite")
        return {**{name: v[name] for name in others}, "small": value}

    def add(self, m: Any, v: Values) -> Values:
        """Sum or difference of the significands, never negative."""
        large = Cat(Const(0, EXTRA), v["large"])
        opposite = v["opposite"]
        # large - small = large + ~small + 1
        size = len(large) + 1
        small = Cat(v["small"] ^ opposite.replicate(len(large)), opposite)
        total = wire(
            m, (Cat(opposite, large, Const(0, 1)) + Cat(opposite, small))[1 : size + 1], "total"
        )
        result = {
            **{name: v[name] for name in ("sign", "exponent", "nan", "infinite")},
            "total": total,
            # the sign of an exact zero: minus only if both operands are
            "zero_sign": v["sign"] & ~opposite,
        }
        if self.subnormals == "keep":
            # a 1 where shifting must end, as the exponent is then that of the least normal numbers
            stop = Cat(v["exponent"] == size - 1 - place for place in range(size))
            result["stop"] = wire(m, stop, "stop")
        return result

    def count(self, m: Any, v: Values) -> Values:
        """How far to shift left, so that the leading 1 stands first."""
        seen = wire(m, v["total"] | v["stop"], "seen") if "stop" in v else v["total"]
        return {
            **{name: v[name] for name in ("sign", "total", "zero_sign", "nan", "infinite")},
            "shift": wire(m, leading_zeros(m, seen), "shift"),
            # the sum has one more bit in front than the significands
            "exponent": wire(m, v["exponent"] + 1, "exponent_total"),
        }

    def normalise(self, m: Any, v: Values) -> Values:
        """Leading 1 first; the exponent that goes with it."""
        value = v["total"]
        for position in reversed(range(len(v["shift"]))):
            amount = 1 << position
            shifted = Cat(Const(0, amount), value[:-amount])
            value = wire(m, Mux(v["shift"][position], shifted, value), f"normal_{amount}")
        return {
            "value": value,
            "exponent": wire(m, v["exponent"] - v["shift"], "exponent_normal"),
            **{name: v[name] for name in ("sign", "zero_sign", "nan", "infinite")},
        }

    def round(self, m: Any, v: Values) -> Values:
        """To nearest, ties to even; a carry runs into the exponent."""
        f = self.format
        value = v["value"]
        kept, guard, sticky = value[EXTRA + 1 :], value[EXTRA], value[:EXTRA].any()
        up = guard & (sticky | kept[0])
        exponent = v["exponent"]
        normal = value[-1]
        low = exponent[: f.exponent_bits]
        field = Mux(normal, low, 0)
        rounded = wire(m, (Cat(kept[:-1], field) + up)[: f.width - 1], "rounded")
        # flushed: what lies below the least normal number is exact, so it cannot be rounded up
        tiny = exponent[-1] | ~low.any() if self.subnormals == "flush" else Const(0, 1)
        some = value.any()
        return {
            "rounded": rounded,
            "zero": ~some | tiny,
            "sign": Mux(some, v["sign"], v["zero_sign"]),
            # the exponent is at most that of Inf
            "overflow": normal & ~exponent[-1] & low.all(),
            "nan": v["nan"],
            "infinite": v["infinite"],
        }

    def pack(self, m: Any, v: Values) -> Values:
        """Zero, Inf and NaN take precedence."""
        del m
        f = self.format
        fraction, exponent = v["rounded"][: f.fraction_bits], v["rounded"][f.fraction_bits :]
        infinite = v["infinite"] | v["overflow"]
        fraction = Mux(v["nan"], 1 << (f.fraction_bits - 1), Mux(infinite | v["zero"], 0, fraction))
        exponent = Mux(infinite, f.exponent_max, Mux(v["zero"], 0, exponent))
        return {
            "result": Cat(
                fraction[: f.fraction_bits], exponent[: f.exponent_bits], v["sign"] & ~v["nan"]
            )
        }


def leading_zeros(m: Any, value: Any) -> Any:
    """Number of zeros above the highest 1, as a tree of halves; of no use if the value is 0.

    Example:
        >>> from fptt.rtl.hdl import Signal
        >>> len(leading_zeros(Module(), Signal(28)))
        5
    """
    width = 1 << (len(value) - 1).bit_length()
    # ones below end the count
    padded = Cat(Const(-1, width - len(value)), value) if width > len(value) else value
    return _tree(m, padded)[1]


def _tree(m: Any, value: Any) -> tuple[Any, Any]:
    """Whether there is a 1, and the zeros above it."""
    half = len(value) // 2
    if half == 0:
        return value[0], Const(0, 0)
    low_some, low = _tree(m, value[:half])
    high_some, high = _tree(m, value[half:])
    some = wire(m, low_some | high_some, f"some_{len(value)}")
    return some, wire(m, Cat(Mux(high_some, high, low), ~high_some), f"zeros_{len(value)}")
