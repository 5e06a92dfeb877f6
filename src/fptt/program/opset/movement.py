"""Filling and copying."""

from __future__ import annotations

import numpy as np

from fptt.program.opspec import Array, Work, op


@op(
    "-> y:*",
    main_class="dataMovement",
    attrs="value",
    shaped=True,
    work=lambda d, attrs, given: {},
    c_symbol="fill",
)
def fill(*, value: float, shape: tuple[int, ...]) -> Array:
    """y = the same value everywhere."""
    return np.full(shape, value)


@op("x:* -> y:*", main_class="dataMovement", work=lambda d, attrs, given: {}, c_symbol="copy")
def copy(x: Array) -> Array:
    """y = x."""
    return x


@op(
    "x:n,w start:n,w -> y:n,w",
    main_class="EWO-basic",
    in_place="start=y",
    work=lambda d, attrs, given: {"EWO-basic": Work(add=d["n"] * d["w"])},
    c_symbol="add",
)
def add(x: Array, start: Array) -> Array:
    """y = start + x."""
    return x + start


@op(
    "random#int:2 -> next#int:2",
    main_class="dataMovement",
    in_place="random=next",
    work=lambda d, attrs, given: {},
    c_symbol="next_sequence",
)
def next_sequence(random: Array) -> Array:
    """Counts the sequences, so that every one gets other random numbers; the seed stays."""
    return np.array([random[0], (int(random[1]) + 1) & 0xFFFFFFFF], random.dtype)
