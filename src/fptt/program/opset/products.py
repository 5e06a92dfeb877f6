"""Matrix products and sums over rows. Weights lie as PyTorch stores them: [outputs, inputs]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fptt.program.opspec import Array, Work, multiply_add, op


def _affine_work(
    d: Mapping[str, int], attrs: Mapping[str, Any], given: frozenset[str]
) -> dict[str, Work]:
    macs = d["n"] * d["i"] * d["o"]
    second_start = d["n"] * d["o"] if {"bias", "start"} <= given else 0
    return {"MatMul-2": Work(mul=macs, add=macs + second_start)}


@op(
    "x:n,i w:o,i bias?:o start?:n,o -> y:n,o",
    work=_affine_work,
    main_class="MatMul-2",
    in_place="start=y",
    c_symbol="affine",
)
def affine(x: Array, w: Array, bias: Array | None, start: Array | None) -> Array:
    """y = x w^T + bias + start."""
    return multiply_add(x, w.T, bias, start)


@op(
    "x:n,i w:o,i h:n,k v:o,k bias?:o start?:n,o -> y:n,o",
    work=lambda d, attrs, given: _affine_work({**d, "i": d["i"] + d["k"]}, attrs, given),
    main_class="MatMul-2",
    in_place="start=y",
    c_symbol="affine_sum",
)
def affine_sum(
    x: Array, w: Array, h: Array, v: Array, bias: Array | None, start: Array | None
) -> Array:
    """y = x w^T + h v^T + bias + start: what input and state say to a recurrent layer."""
    return multiply_add(h, v.T, multiply_add(x, w.T, bias, start))


@op(
    "dy:n,o w:o,i start?:n,i -> dx:n,i",
    main_class="MatMul-1",
    in_place="start=dx",
    work=lambda d, attrs, given: {
        "MatMul-1": Work(mul=d["n"] * d["i"] * d["o"], add=d["n"] * d["i"] * d["o"])
    },
    c_symbol="product",
)
def product(dy: Array, w: Array, start: Array | None) -> Array:
    """dx = dy w + start: a gradient through an affine operation."""
    return multiply_add(dy, w, start)


@op(
    "dy:n,o x:n,i start?:o,i -> dw:o,i",
    main_class="MatMul-3",
    in_place="start=dw",
    work=lambda d, attrs, given: {
        "MatMul-3": Work(mul=d["n"] * d["i"] * d["o"], add=d["n"] * d["i"] * d["o"])
    },
    c_symbol="weight_gradient",
)
def weight_gradient(dy: Array, x: Array, start: Array | None) -> Array:
    """dw = dy^T x + start."""
    return multiply_add(dy.T, x, start)


@op(
    "dy:n,o start?:o -> db:o",
    main_class="Mat2Vec",
    in_place="start=db",
    work=lambda d, attrs, given: {
        "Mat2Vec": Work(add=d["n"] * d["o"] - (0 if "start" in given else d["o"]))
    },
    c_symbol="bias_gradient",
)
def bias_gradient(dy: Array, start: Array | None) -> Array:
    """db = the sum of dy's rows + start."""
    total: Array = dy.sum(axis=0)
    return total if start is None else total + start
