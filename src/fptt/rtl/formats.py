"""Binary floating-point formats: sign, exponent, fraction, as in IEEE 754."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fptt.errors import InputError

#: what happens to numbers below the least normal one; see `fptt.rtl.arithmetic`
Subnormals = Literal["flush", "keep"]


@dataclass(frozen=True)
class FloatFormat:
    """A binary format: 1 sign bit, then the exponent, then the fraction.

    A number with exponent field e and fraction field f is (1 + f / 2^fraction_bits) 2^(e - bias)
    for 0 < e < 2^exponent_bits - 1; e = 0 holds zero and subnormals, the largest e Inf and NaN.

    Args:
        name: what NumPy (and ml_dtypes) call it.
        exponent_bits: width of the exponent field, 2 to 8.
        fraction_bits: width of the fraction field, 2 to 23. With these limits float64 holds every
            product exactly.

    Raises:
        InputError: for other widths.

    Example:
        >>> BFLOAT16.width, BFLOAT16.bias, hex(BFLOAT16.infinity), hex(BFLOAT16.nan)
        (16, 127, '0x7f80', '0x7fc0')
        >>> FLOAT32 == FloatFormat("float32", 8, 23)
        True

    Source: IEEE 754-2019, section 3.4.
    """

    name: str
    exponent_bits: int
    fraction_bits: int

    def __post_init__(self) -> None:
        if not (2 <= self.exponent_bits <= 8 and 2 <= self.fraction_bits <= 23):
            raise InputError(
                f"float format {self.name!r} has {self.exponent_bits} exponent bits and "
                f"{self.fraction_bits} fraction bits; give 2 to 8 and 2 to 23"
            )

    @property
    def width(self) -> int:
        """Bits of a number."""
        return 1 + self.exponent_bits + self.fraction_bits

    @property
    def precision(self) -> int:
        """Bits of a significand, the hidden one included."""
        return self.fraction_bits + 1

    @property
    def bias(self) -> int:
        """The exponent field of 1.0."""
        return (1 << (self.exponent_bits - 1)) - 1

    @property
    def exponent_max(self) -> int:
        """The exponent field of Inf and NaN."""
        return (1 << self.exponent_bits) - 1

    @property
    def sign(self) -> int:
        """Bits of -0."""
        return 1 << (self.width - 1)

    @property
    def infinity(self) -> int:
        """Bits of +Inf."""
        return self.exponent_max << self.fraction_bits

    @property
    def nan(self) -> int:
        """Bits of the one NaN that results: quiet, positive, no payload."""
        return self.infinity | 1 << (self.fraction_bits - 1)

    @property
    def one(self) -> int:
        """Bits of 1.0."""
        return self.bias << self.fraction_bits

    @property
    def bits_dtype(self) -> np.dtype[np.unsignedinteger]:
        """The unsigned integer of NumPy that holds a number's bits."""
        return np.dtype(np.uint16 if self.width <= 16 else np.uint32)

    def decode(self, bits: NDArray[np.unsignedinteger]) -> NDArray[np.float64]:
        """The numbers that these bits stand for, exactly.

        Example:
            >>> BFLOAT16.decode(np.array([0x3FC0, 0x8001, 0xFF80], np.uint16)).tolist()
            [1.5, -9.183549615799121e-41, -inf]
        """
        word = np.asarray(bits).astype(np.int64)
        exponent = word >> self.fraction_bits & self.exponent_max
        fraction = word & (1 << self.fraction_bits) - 1
        hidden = (exponent > 0).astype(np.int64) << self.fraction_bits
        scale = np.maximum(exponent, 1) - self.bias - self.fraction_bits
        finite = np.ldexp((hidden + fraction).astype(np.float64), scale)
        special = np.where(fraction > 0, np.nan, np.inf)
        magnitude = np.where(exponent == self.exponent_max, special, finite)
        return np.where(word >> self.width - 1 & 1, -magnitude, magnitude)

    def encode(
        self, values: NDArray[np.float64], subnormals: Subnormals = "keep"
    ) -> NDArray[np.unsignedinteger]:
        """Rounds to nearest, ties to even, and returns the bits.

        With `subnormals="flush"` a value is rounded as if exponents had no lower bound; what is
        then below the least normal number becomes zero of its sign.

        Example:
            >>> [hex(v) for v in BFLOAT16.encode(np.array([1.0, -1e39, np.nan, 1e-40]))]
            ['0x3f80', '0xff80', '0x7fc0', '0x1']
            >>> [hex(v) for v in BFLOAT16.encode(np.array([1e-40, -1e-40]), "flush")]
            ['0x0', '0x8000']
        """
        values = np.asarray(values, np.float64)
        finite = np.isfinite(values)
        magnitude = np.abs(np.where(finite, values, 0.0))
        exponent = np.frexp(magnitude)[1].astype(np.int64) - 1
        least = 1 - self.bias
        if subnormals == "keep":
            exponent = np.maximum(exponent, least)
        # the one rounding: scaling by a power of two is exact
        unit = exponent - self.fraction_bits
        significand = np.rint(np.ldexp(magnitude, -unit)).astype(np.int64)
        hidden = 1 << self.fraction_bits
        # a carry out of the significand, or its missing hidden bit, runs into the exponent field
        bits = (exponent + self.bias << self.fraction_bits) + significand - hidden
        bits = np.minimum(bits, self.infinity)
        if subnormals == "flush":
            bits = np.where(bits < hidden, 0, bits)
        bits = np.where(magnitude == 0, 0, bits)
        signs = np.where(np.signbit(values), self.sign, 0)
        bits = np.where(np.isinf(values), self.infinity, bits) + signs
        return np.where(np.isnan(values), self.nan, bits).astype(self.bits_dtype)


FLOAT32 = FloatFormat("float32", 8, 23)
BFLOAT16 = FloatFormat("bfloat16", 8, 7)
FORMATS = {format.name: format for format in (FLOAT32, BFLOAT16)}


def by_name(name: str) -> FloatFormat:
    """The format of a number type.

    Raises:
        InputError: for a name that is not in `FORMATS`.

    Example:
        >>> by_name("bfloat16").fraction_bits
        7
    """
    if name not in FORMATS:
        raise InputError(
            f"number type {name!r} is not known; the FPTT unit has {', '.join(FORMATS)}"
        )
    return FORMATS[name]


def checked(subnormals: str) -> Subnormals:
    """The option, if it is one.

    Raises:
        InputError: for anything but "flush" and "keep".

    Example:
        >>> checked("flush")
        'flush'
    """
    if subnormals == "flush":
        return "flush"
    if subnormals == "keep":
        return "keep"
    raise InputError(f"subnormals={subnormals!r}: give 'flush' or 'keep'")
