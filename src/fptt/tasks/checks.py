"""Checks of single options, each with one clear error."""

from __future__ import annotations

from numbers import Integral, Real

from fptt.errors import InputError


def whole_number(name: str, value: object, *, minimum: int) -> int:
    """`value` as an int of at least `minimum`, or an InputError that names the option."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < minimum:
        raise InputError(f"{name} is {value!r}; it must be a whole number of at least {minimum}")
    return int(value)


def fraction(name: str, value: object) -> float:
    """`value` as a float strictly between 0 and 1, or an InputError that names the option."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < 1:
        raise InputError(f"{name} is {value!r}; it must lie between 0 and 1, both excluded")
    return float(value)
