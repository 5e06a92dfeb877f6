"""bfloat16 in NumPy: the upper half of a float32, kept as uint16.

Rounding is to nearest, ties to even; NaN stays NaN (quiet), overflow becomes infinity.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fptt.program.philox import philox

#: the number of an element in stochastic rounding is its row times this, plus its column; as in
#: fptt/native/engine.h, and the engine compares them
ROW_DISTANCE = 65537


def to_bits(values: NDArray[Any]) -> NDArray[np.uint16]:
    """Rounds numbers to bfloat16 and returns their bits.

    Example:
        >>> int(to_bits(np.array([1.0]))[0])
        16256
    """
    single = np.ascontiguousarray(values, np.float32)
    bits = single.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    quiet = (bits >> np.uint32(16)) | np.uint32(0x0040)
    return np.where(np.isnan(single), quiet, rounded).astype(np.uint16)


def from_bits(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The numbers, exactly, as float32.

    Example:
        >>> float(from_bits(np.array([16256], np.uint16))[0])
        1.0
    """
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def round_at_random(
    values: NDArray[Any], key: tuple[int, int, int], which: int, first_row: int
) -> NDArray[np.float32]:
    """Numbers that bfloat16 holds, each the next one below or above, at random.

    The nearer one is the more likely, so that the mean of many is the value itself: small updates
    do not vanish, as they do in rounding to nearest. NaN and Inf stay.

    Args:
        values: [rows] or [rows, columns] of a parameter.
        key: seed, number of the update, number of the tensor.
        which: 0 theta, 1 lambda, 2 m.
        first_row: number of the first row in the parameter.

    Example:
        >>> third = np.full(30000, 1 + 2**-7 / 3)  # a third of the way to the next number
        >>> round(float(round_at_random(third, (0, 1, 0), 0, 0).mean()), 4)
        1.0026
    """
    seed, update, tensor = key
    counter = np.array([which, tensor, update, 0], np.uint64)
    word = np.uint32(philox(counter, (seed, 0))[0])
    element = np.arange(first_row, first_row + len(values), dtype=np.uint32)
    if values.ndim == 2:
        columns = np.arange(values.shape[1], dtype=np.uint32)
        element = element[:, None] * np.uint32(ROW_DISTANCE) + columns
    noise = element * np.uint32(0x9E3779B9) ^ word
    noise = (noise ^ (noise >> np.uint32(16))) * np.uint32(0x7FEB352D)
    noise = (noise ^ (noise >> np.uint32(15))) * np.uint32(0x846CA68B)
    noise ^= noise >> np.uint32(16)
    single = np.array(values, np.float32)
    rounded = (single.view(np.uint32) + (noise & np.uint32(0xFFFF))) & np.uint32(0xFFFF0000)
    return np.where(np.isfinite(single), rounded.view(np.float32), single)
