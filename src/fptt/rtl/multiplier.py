"""Floating-point multiplier."""

from __future__ import annotations

from typing import Any

from fptt.rtl.adder import leading_zeros
from fptt.rtl.formats import FloatFormat, Subnormals, checked
from fptt.rtl.hdl import Cat, Component, Const, In, Module, Mux, Out
from fptt.rtl.pipeline import Values, chain, chosen_cuts, wire

#: widest unsigned operand of one multiplier block on the chip: 18 bits on ECP5, 17 of the 18 signed
#: ones on UltraScale+
BLOCK = 17
#: subnormals -> stages -> the steps (see `FloatMultiplier.elaborate`) with registers behind them
CUTS = {
    "flush": {1: (4,), 2: (2, 4), 3: (1, 2, 4), 4: (1, 2, 3, 4)},
    "keep": {
        1: (8,),
        2: (4, 8),
        3: (3, 5, 8),
        4: (3, 4, 6, 8),
        5: (3, 4, 5, 6, 8),
        6: (2, 3, 4, 5, 6, 8),
        7: (1, 2, 3, 4, 5, 6, 8),
        8: (1, 2, 3, 4, 5, 6, 7, 8),
    },
}


class FloatMultiplier(Component):
    """result = a * b, as `fptt.rtl.arithmetic.multiply` defines it, bit for bit.

    The significands are multiplied in blocks of DSP: a significand of more than 17 bits by the low
    17 and the high rest of the other, added in the next step. Then shift by at most one and round.
    Subnormals that are kept cost four more steps: before the product order the operands, count and
    shift (only one operand that is subnormal; if both are, the result is zero), behind it shift
    right.

    Latency: `latency` = `stages` enabled clock edges from operands to result.
    Throughput: one operation an enabled cycle.

    Args:
        format: of operands and result.
        stages: ranks of registers, 1 to 4 (keep: 1 to 8), the last one at the output; inputs are
            not registered. Default 3 for more than 16 bits, else 2; keep: 6 and 4.
        subnormals: "flush" or "keep"; see `fptt.rtl.arithmetic`.

    Attributes:
        a, b: In(format.width); enable: In(1), while low every register holds;
        result: Out(format.width).
        latency: enabled clock edges.

    Raises:
        InputError: no such number of stages, or `subnormals` is neither.

    Example:
        >>> from fptt.rtl.formats import BFLOAT16, FLOAT32
        >>> FloatMultiplier(FLOAT32).latency, FloatMultiplier(BFLOAT16).latency
        (3, 2)
    """

    def __init__(
        self, format: FloatFormat, stages: int | None = None, subnormals: Subnormals = "flush"
    ) -> None:
        self.format = format
        self.subnormals = checked(subnormals)
        wide = format.width > 16
        default = (6 if wide else 4) if subnormals == "keep" else 3 if wide else 2
        self.cuts = chosen_cuts("the multiplier", CUTS[subnormals], stages, default)
        self.latency = len(self.cuts)
        super().__init__(
            {
                "a": In(format.width),
                "b": In(format.width),
                "enable": In(1, init=1),
                "result": Out(format.width),
            }
        )

    def elaborate(self, platform: Any) -> Any:
        """Hardware."""
        del platform
        m = Module()
        f = self.format
        a, b = self.a, self.b
        exponent_a, exponent_b = a[f.fraction_bits : -1], b[f.fraction_bits : -1]
        fraction_a, fraction_b = a[: f.fraction_bits], b[: f.fraction_bits]
        special_a, special_b = exponent_a.all(), exponent_b.all()
        zero_a, zero_b = ~exponent_a.any(), ~exponent_b.any()
        if self.subnormals == "keep":
            zero_a, zero_b = zero_a & ~fraction_a.any(), zero_b & ~fraction_b.any()
        nan = (special_a & (fraction_a.any() | zero_b)) | (special_b & (fraction_b.any() | zero_a))
        values: Values = {
            "x": Cat(fraction_a, Const(1, 1)),
            "y": Cat(fraction_b, Const(1, 1)),
            "exponent_x": exponent_a,
            "exponent_y": exponent_b,
            "sign": (a[-1] ^ b[-1]) & ~nan,
            "nan": nan,
            "infinite": special_a | special_b,
            "zero": zero_a | zero_b,
        }
        steps = [self.products, self.sum, self.round, self.pack]
        if self.subnormals == "keep":
            before, behind = [self.order, self.count, self.normalise], [self.denormalise]
            steps = [*before, self.products, self.sum, *behind, self.round, self.pack]
        last = chain(m, steps, self.cuts, values, self.enable)
        m.d.comb += self.result.eq(last["result"])
        return m

    def order(self, m: Any, v: Values) -> Values:
        """x becomes the operand that may be subnormal."""
        normal_x, normal_y = v["exponent_x"].any(), v["exponent_y"].any()
        x = Cat(v["x"][:-1], normal_x)
        y = Cat(v["y"][:-1], normal_y)
        # an exponent field of 0 means 1
        exponent = (v["exponent_x"] | ~normal_x) + (v["exponent_y"] | ~normal_y)
        return {
            **{name: v[name] for name in ("sign", "nan", "infinite", "zero")},
            "x": wire(m, Mux(normal_y, x, y), "subnormal"),
            "y": wire(m, Mux(normal_y, y, x), "other"),
            "exponent": wire(m, exponent, "exponent_raw"),
        }

    def count(self, m: Any, v: Values) -> Values:
        """How many zeros the significand of x leads with."""
        return {**v, "zeros": wire(m, leading_zeros(m, v["x"]), "zeros")}

    def normalise(self, m: Any, v: Values) -> Values:
        """x with its leading 1 first."""
        value = v["x"]
        for position in reversed(range(len(v["zeros"]))):
            amount = 1 << position
            shifted = Cat(Const(0, amount), value[:-amount])
            value = wire(m, Mux(v["zeros"][position], shifted, value), f"normal_{amount}")
        exponent = wire(m, v["exponent"] - v["zeros"], "exponent_normal")
        names = ("y", "sign", "nan", "infinite", "zero")
        return {**{name: v[name] for name in names}, "x": value, "exponent": exponent}

    def products(self, m: Any, v: Values) -> Values:
        """Partial products, and the exponent of the product."""
        f = self.format
        exponent = v["exponent"] if "exponent" in v else v["exponent_x"] + v["exponent_y"]
        x, y = v["x"], v["y"]
        # widths that synthesis maps to one block each on UltraScale+, two on ECP5
        parts = {"low": wire(m, x * y[:BLOCK], "low")}
        if len(y) > BLOCK:
            parts["high"] = wire(m, x * y[BLOCK:], "high")
        return {
            **parts,
            "exponent": wire(m, exponent - f.bias, "exponent_unbiased"),
            **{name: v[name] for name in ("sign", "nan", "infinite", "zero")},
        }

    def sum(self, m: Any, v: Values) -> Values:
        """The whole product of the significands, 2 precision bits wide."""
        product = v["low"]
        if "high" in v:
            product = Cat(product[:BLOCK], (product[BLOCK:] + v["high"])[: len(v["high"])])
        # bits that only decide whether the rest is zero need no places
        f = self.format
        product = Cat(product[: f.fraction_bits - 1].any(), product[f.fraction_bits - 1 :])
        result = {
            **{name: v[name] for name in ("sign", "nan", "infinite", "zero")},
            "product": wire(m, product, "product"),
        }
        exponent = v["exponent"]
        if self.subnormals == "keep":
            tiny = wire(m, exponent[-1] | ~exponent.any(), "tiny")
            distance = wire(m, -exponent, "distance")[:-1]
            size = len(product).bit_length()
            result["tiny"] = tiny
            result["distance"] = wire(m, Mux(tiny, distance[:size], 0), "shift")
            result["far"] = tiny & distance[size:].any()
            exponent = Mux(tiny, 0, exponent)
        # both exponents that rounding may start from
        result["exponent"] = wire(m, exponent, "exponent_1")
        result["exponent_2"] = wire(m, exponent + 1, "exponent_2")
        return result

    def denormalise(self, m: Any, v: Values) -> Values:
        """A product whose exponent is too low shifted right, until it is that of the field 0."""
        value = v["product"]
        far = v["far"]
        for position, bit in enumerate(v["distance"]):
            amount = 1 << position
            shifted = Cat(value[: amount + 1].any(), value[amount + 1 :])
            value = wire(m, Mux(bit, shifted, value)[: len(value)], f"denormal_{amount}")
        value = wire(m, Mux(far, value.any(), value), "denormal")
        names = ("sign", "nan", "infinite", "zero", "tiny", "exponent", "exponent_2")
        return {**{name: v[name] for name in names}, "product": value}

    def round(self, m: Any, v: Values) -> Values:
        """To nearest, ties to even; a carry runs into the exponent."""
        f = self.format
        product = v["product"]
        carry = product[-1]
        # a product from 1 to below 2 is read one place lower; not so a subnormal one
        high = carry | v["tiny"] if self.subnormals == "keep" else carry
        kept = Mux(high, product[-f.precision : -1], product[-f.precision - 1 : -2])
        guard = Mux(high, product[2], product[1])
        sticky = product[0] | (high & product[1])
        up = guard & (sticky | kept[0])
        exponent = Mux(carry, v["exponent_2"], v["exponent"]).as_signed()
        total = wire(m, (Cat(kept, exponent) + up)[: f.fraction_bits + len(exponent)], "rounded")
        exponent = total[f.fraction_bits :]
        negative, over = exponent[-1], exponent[f.exponent_bits : -1].any()
        field = exponent[: f.exponent_bits]
        # flushed: below the least normal number even with an exponent that has no lower bound
        tiny = negative | ~exponent.any() if self.subnormals == "flush" else Const(0, 1)
        return {
            "rounded": total[: f.width - 1],
            "zero": v["zero"] | tiny,
            "infinite": v["infinite"] | (~negative & (over | field.all())),
            "sign": v["sign"],
            "nan": v["nan"],
        }

    def pack(self, m: Any, v: Values) -> Values:
        """Zero, Inf and NaN take precedence, in this order from the weakest."""
        del m
        f = self.format
        fraction, exponent = v["rounded"][: f.fraction_bits], v["rounded"][f.fraction_bits :]
        empty = v["infinite"] | v["zero"]
        fraction = Mux(v["nan"], 1 << (f.fraction_bits - 1), Mux(empty, 0, fraction))
        exponent = Mux(v["infinite"], f.exponent_max, Mux(v["zero"], 0, exponent))
        return {"result": Cat(fraction[: f.fraction_bits], exponent[: f.exponent_bits], v["sign"])}
