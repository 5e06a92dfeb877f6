"""Rectifier, dropout, embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fptt.program.opspec import Array, Place, Work, op
from fptt.program.philox import uniform


def _masked_work(
    d: Mapping[str, int], attrs: Mapping[str, Any], given: frozenset[str]
) -> dict[str, Work]:
    items = d["n"] * d["w"]
    return {
        "EWO-basic": Work(mul=items if "p" in attrs else 0, add=items if "start" in given else 0)
    }


@op(
    "x:n,w -> y:n,w",
    main_class="EWO-basic",
    in_place="x=y",
    work=lambda d, attrs, given: {},
    c_symbol="relu",
)
def relu(x: Array) -> Array:
    """y = max(x, 0)."""
    return np.maximum(x, 0)


@op(
    "y:n,w dy:n,w start?:n,w -> dx:n,w",
    main_class="EWO-basic",
    in_place="dy=dx start=dx",
    work=_masked_work,
    c_symbol="relu_gradient",
)
def relu_gradient(y: Array, dy: Array, start: Array | None) -> Array:
    """dx = start + (dy where y > 0, else 0)."""
    dx = np.where(y > 0, dy, np.zeros_like(dy))
    return dx if start is None else dx + start


@op(
    "x:n,w random#int:2 start?:n,w -> y:n,w",
    main_class="EWO-basic",
    in_place="x=y start=y",
    attrs="p layer",
    placed=True,
    work=_masked_work,
    c_symbol="dropout",
)
def dropout(
    x: Array, random: Array, start: Array | None, *, p: float, layer: int, place: Place
) -> Array:
    """y = start + x mask / (1 - p); the mask depends on seed, layer, sequence, step, row, column.

    Applied to a gradient at the same place it is its own backward pass.
    """
    seed, sequence = (int(word) for word in random)
    keep = uniform(x.shape[1], place.row, place.step, sequence, key=(seed, layer)) >= p
    y = np.where(keep, x * (1 / (1 - p)), np.zeros_like(x))
    return y if start is None else y + start


@op(
    "table:v,e token#int:n -> y:n,e",
    main_class="dataMovement",
    touched="table:n,e",
    work=lambda d, attrs, given: {},
    c_symbol="embedding",
)
def embedding(table: Array, token: Array) -> Array:
    """y = the rows of the table that the tokens name."""
    return table[token]


@op(
    "token#int:n dy:n,e start:v,e -> dw:v,e",
    main_class="EWO-basic",
    in_place="start=dw",
    touched="start:n,e dw:n,e",
    work=lambda d, attrs, given: {"EWO-basic": Work(add=d["n"] * d["e"])},
    c_symbol="embedding_gradient",
)
def embedding_gradient(token: Array, dy: Array, start: Array) -> Array:
    """dw = start, with every row of dy added to the row that its token names."""
    # start is the gradient itself: a table of a large vocabulary is not copied for a few rows
    np.add.at(start, token, dy)
    return start
