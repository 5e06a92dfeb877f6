"""Definition of the FPTT unit's arithmetic, bit for bit, in NumPy; the hardware is tested with it.

IEEE 754 rounding to nearest, ties to even, with these choices:

- **Subnormals.** `"flush"` (the default): an operand below the least normal number is read as zero
  of its sign; a result is rounded as if exponents had no lower bound, and what is then below the
  least normal number becomes zero of its sign. So a product that rounds up to the least normal
  number stays. `"keep"`: gradual underflow as IEEE 754 has it. It costs the adder nothing, but the
  float32 multiplier 868 instead of 326 LUTs on ECP5 and 6 cycles instead of 3
  (tools/rtl_operators.py); hence the default.
- **NaN.** Every NaN that results is the same: quiet, positive, without payload (0x7FC00000,
  0x7FC0). It comes from a NaN operand, Inf - Inf and 0 * Inf (a flushed operand is a 0).
- **Inf.** Overflow gives Inf of the result's sign; Inf plus anything finite is that Inf.
- **Signed zeros.** x - x is +0; -0 + -0 is -0; the sign of a product is the exclusive or of the
  operands' signs.
- There are no flags and no traps.

The model computes in float64 and rounds once more. That second rounding changes nothing, for at
most 24 bits of precision (p):

- A product has 2p <= 48 bits, and float64 holds it exactly.
- A sum of numbers whose exponents differ by at most 28 has at most 24 + 28 + 1 = 53 bits, and is
  exact too. If they differ by 29 or more, the smaller operand is below 2^-5 units in the last place
  of the larger one, a: the sum rounds to a, however often it is rounded, as the next half-way point
  is at least 2^-2 units away (below a power of two; elsewhere 2^-1), and rounding to float64 cannot
  move a number past that point.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fptt.rtl.formats import FloatFormat, Subnormals, checked

Bits = NDArray[np.unsignedinteger]


def add(a: Bits, b: Bits, format: FloatFormat, subnormals: Subnormals = "flush") -> Bits:
    """a + b, rounded once.

    Args:
        a, b: bits of the operands, unsigned integers of any one shape.
        format: of operands and result.
        subnormals: "flush" or "keep"; see the module.

    Returns:
        The result's bits, `format.bits_dtype`.

    Raises:
        InputError: `subnormals` is neither.

    Example:
        >>> from fptt.rtl.formats import BFLOAT16
        >>> one, third = np.array([0x3F80], np.uint16), np.array([0x3EAB], np.uint16)
        >>> hex(add(one, third, BFLOAT16)[0])  # 170.75 / 128 becomes 171 / 128
        '0x3fab'
    """
    with np.errstate(invalid="ignore"):
        sums = _read(a, format, subnormals) + _read(b, format, subnormals)
    return format.encode(sums, subnormals)


def subtract(a: Bits, b: Bits, format: FloatFormat, subnormals: Subnormals = "flush") -> Bits:
    """a - b, rounded once: `add` with the other sign of b.

    Example:
        >>> from fptt.rtl.formats import FLOAT32
        >>> one = np.array([0x3F800000], np.uint32)
        >>> hex(subtract(one, one, FLOAT32)[0])
        '0x0'
    """
    return add(a, np.asarray(b) ^ format.bits_dtype.type(format.sign), format, subnormals)


def multiply(a: Bits, b: Bits, format: FloatFormat, subnormals: Subnormals = "flush") -> Bits:
    """a * b, rounded once; arguments as in `add`.

    Example:
        >>> from fptt.rtl.formats import FLOAT32
        >>> least = np.array([0x00800000], np.uint32)
        >>> half = np.array([0xBF000000], np.uint32)
        >>> [hex(multiply(least, half, FLOAT32, s)[0]) for s in ("flush", "keep")]
        ['0x80000000', '0x80400000']
    """
    with np.errstate(invalid="ignore"):
        products = _read(a, format, subnormals) * _read(b, format, subnormals)
    return format.encode(products, subnormals)


def halve(a: Bits, format: FloatFormat, subnormals: Subnormals = "flush") -> Bits:
    """a / 2, which is exact unless it falls below the least normal number; arguments as in `add`.

    Example:
        >>> from fptt.rtl.formats import BFLOAT16
        >>> hex(halve(np.array([0x3F80], np.uint16), BFLOAT16)[0])
        '0x3f00'
    """
    return format.encode(_read(a, format, subnormals) * 0.5, subnormals)


def _read(bits: Bits, format: FloatFormat, subnormals: Subnormals) -> NDArray[np.float64]:
    values = format.decode(bits)
    if checked(subnormals) == "flush":
        return np.where(np.abs(values) < 2.0 ** (1 - format.bias), np.copysign(0.0, values), values)
    return values
