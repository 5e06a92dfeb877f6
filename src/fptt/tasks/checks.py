"""Checks of single options, each with one clear error."""

from __future__ import annotations

from fptt.checks import is_number, is_whole
from fptt.errors import InputError


def whole_number(name: str, value: object, *, minimum: int) -> int:
    """`value` as an int of at least `minimum`, or an InputError that names the option."""
    if not is_whole(value) or value < minimum:
        raise InputError(f"{name} is {value!r}; it must be a whole number of at least {minimum}")
    return int(value)


def fraction(name: str, value: object) -> float:
    """`value` as a float strictly between 0 and 1, or an InputError that names the option."""
    if not is_number(value) or not 0 < value < 1:
        raise InputError(f"{name} is {value!r}; it must lie between 0 and 1, both excluded")
    return float(value)
