"""Numbers and comments as C source text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


def float_literal(value: float) -> str:
    """A float constant with the exact bits of the nearest float32.

    Example:
        >>> float_literal(0.1)
        '0x1.99999ap-4f'
        >>> float_literal(-0.0)
        '-0x0p+0f'
    """
    single = np.float32(value)
    if not np.isfinite(single):
        raise ValueError(f"{value} is not a finite float32")
    if single == 0:
        return "-0x0p+0f" if np.signbit(single) else "0x0p+0f"
    mantissa, exponent = float(single).hex().split("p")
    head, _, digits = mantissa.partition(".")
    digits = digits.rstrip("0")
    return f"{head}{'.' if digits else ''}{digits}p{exponent}f"


def array_lines(values: NDArray[Any], width: int = 100, missing: str = "") -> Iterator[str]:
    """The numbers of an array, in the order of memory, as lines of an initialiser.

    Args:
        values: float32, or uint16 for the bits of bfloat16.
        width: of a line.
        missing: C expression for NaN, where there may be any.
    """
    if values.dtype == np.uint16:
        items: Iterable[str] = (f"0x{int(bits):04x}" for bits in values.ravel())
    else:
        items = (
            missing if missing and value != value else float_literal(value)
            for value in values.ravel().tolist()
        )
    line = ""
    for item in items:
        if line and len(line) + len(item) + 2 > width - 2:
            yield f"  {line}"
            line = ""
        line += f"{' ' if line else ''}{item},"
    if line:
        yield f"  {line}"


def comment(text: str) -> str:
    """A C comment; what would end it early is taken apart."""
    return f"/* {text.replace('*/', '* /').replace('/*', '/ *')} */"
