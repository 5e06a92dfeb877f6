"""Half of a floating-point number: a multiplication by 0.5 that needs no multiplier."""

from __future__ import annotations

from typing import Any

from fptt.rtl.formats import FloatFormat, Subnormals, checked
from fptt.rtl.hdl import Cat, Component, Const, In, Module, Mux, Out, Signal


class FloatHalver(Component):
    """result = a / 2, as `fptt.rtl.arithmetic.halve` defines it, bit for bit.

    The exponent becomes one less. From the least normal numbers down, "keep" shifts the fraction
    right and rounds to even, "flush" gives zero.

    Latency: `latency` = 1 enabled clock edge. Throughput: one operation an enabled cycle.

    Args:
        format: of operand and result.
        subnormals: "flush" or "keep".

    Attributes:
        a: In(format.width); enable: In(1), while low the register holds; result:
            Out(format.width).

    Example:
        >>> FloatHalver.latency
        1
    """

    latency = 1

    def __init__(self, format: FloatFormat, subnormals: Subnormals = "flush") -> None:
        self.format = format
        self.subnormals = checked(subnormals)
        super().__init__(
            {"a": In(format.width), "enable": In(1, init=1), "result": Out(format.width)}
        )

    def elaborate(self, platform: Any) -> Any:
        """Hardware."""
        del platform
        m = Module()
        f = self.format
        fraction, exponent = self.a[: f.fraction_bits], self.a[f.fraction_bits : -1]
        low = ~exponent[1:].any()  # fields 0 and 1: the half is below the least normal number
        magnitude = Signal(f.width - 1)
        if self.subnormals == "keep":
            # the number in units of the last place; a carry gives the least normal number
            whole = Cat(fraction, exponent[0])
            small = whole[1:] + (whole[0] & whole[1])
        else:
            small = Const(0, f.width - 1)
        m.d.comb += magnitude.eq(Mux(low, small, Cat(fraction, (exponent - 1)[: f.exponent_bits])))
        result = Signal(f.width, reset_less=True)
        with m.If(self.enable):
            m.d.sync += result.eq(Cat(magnitude, self.a[-1]))
            with m.If(exponent.all()):
                m.d.sync += result.eq(Mux(fraction.any(), f.nan, self.a))
        m.d.comb += self.result.eq(result)
        return m
