"""What counts as a number in an option: Python's numbers and NumPy's, but no booleans."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TypeGuard

import numpy as np


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number."""
    return isinstance(value, Integral) and not isinstance(value, (bool, np.bool_))


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a real number; NaN and Inf are."""
    return isinstance(value, Real) and not isinstance(value, (bool, np.bool_))


def plain(value: object) -> object:
    """NumPy's numbers as Python's, for files."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written to a file")
