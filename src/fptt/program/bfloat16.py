"""bfloat16 in NumPy: the upper half of a float32, kept as uint16.

Rounding is to nearest, ties to even; NaN stays NaN (quiet), overflow becomes infinity.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


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
