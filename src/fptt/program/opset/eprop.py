"""Eligibility traces: the derivative of a cell's own memory, one number per weight and row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fptt.program.opspec import Array, Work, op


def _eprop_work(
    d: Mapping[str, int], attrs: Mapping[str, Any], given: frozenset[str]
) -> dict[str, Work]:
    cells = d["n"] * d["h"]
    number = Work(mul=2 if "x" in given else 1, add=1)
    return {"EWO-combo": Work(mul=6, add=3) * cells + number * (3 * cells * d["i"])}


@op(
    "gates:n,4h c_before:n,h x?:n,i eps:n,3h,i -> eps_out:n,3h,i",
    main_class="EWO-combo",
    in_place="eps=eps_out",
    work=_eprop_work,
)
def lstm_eprop_trace(gates: Array, c_before: Array, x: Array | None, eps: Array) -> Array:
    """eps' = f eps + dc/d theta at this step, for the gates i, f, g, one number per weight and row.

    d c / d theta = (g i', c_before f', i g') x, where x is what theta was multiplied with and is
    missing for the bias: the cell's own memory, without the way through h (Bellec et al., 2020).
    """
    i, f, g, _ = np.split(gates, 4, axis=1)
    by_sum = np.concatenate((g * (i * (1 - i)), c_before * (f * (1 - f)), i * (1 - g * g)), axis=1)
    now = by_sum[:, :, None] if x is None else by_sum[:, :, None] * x[:, None, :]
    return np.asarray(np.concatenate((f, f, f), axis=1)[:, :, None] * eps + now)


def _eprop_gradient_work(
    d: Mapping[str, int], attrs: Mapping[str, Any], given: frozenset[str]
) -> dict[str, Work]:
    cells, columns = d["n"] * d["h"], 4 if "x" in given else 3
    sums = 4 * d["h"] * d["i"]
    return {
        "MatMul-3": Work(mul=columns * cells * d["i"], add=sums * (d["n"] - ("start" not in given)))
        + Work(mul=6, add=2) * cells,
        "tanh": Work(trans=cells),
    }


@op(
    "gates:n,4h c:n,h d:n,h x?:n,i eps:n,3h,i start?:* -> g:*",
    main_class="MatMul-3",
    in_place="start=g",
    shaped=True,
    work=_eprop_gradient_work,
)
def lstm_eprop_gradient(
    gates: Array,
    c: Array,
    d: Array,
    x: Array | None,
    eps: Array,
    start: Array | None,
    *,
    shape: tuple[int, ...],
) -> Array:
    """g = start + the sum over rows of d e, where e = o (1 - tanh(c)^2) eps for the gates i, f, g
    and tanh(c) o' x, with no memory, for o; d is the learning signal of h at this step.
    """
    o = np.split(gates, 4, axis=1)[3]
    tanh_c = np.tanh(c)
    through_c = d * (o * (1 - tanh_c * tanh_c))
    through_o = d * (tanh_c * (o * (1 - o)))
    kept = (np.concatenate((through_c,) * 3, axis=1)[:, :, None] * eps).sum(axis=0)
    now = through_o.sum(axis=0)[:, None] if x is None else through_o.T @ x
    g = np.concatenate((kept, now)).reshape(shape)
    return g if start is None else g + start
