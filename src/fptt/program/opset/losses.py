"""Losses with their gradients. The mean runs over the rows that have a target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fptt.program.opspec import Array, Place, Work, op


def _softmax(logits: Array) -> tuple[Array, Array]:
    """P [n, c] and -log P [n, c], both from logits shifted by their row's maximum."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    total = exponentials.sum(axis=1, keepdims=True)
    return exponentials / total, np.log(total) - shifted


def _cross_entropy_work(
    d: Mapping[str, int], attrs: Mapping[str, Any], given: frozenset[str]
) -> dict[str, Work]:
    n, c = d["n"], d["c"]
    return {
        "softmax": Work(
            mul=2 * n * c + 1, add=n * c + n * (c - 1) + n * c + n - 1 + n, trans=n * c + n
        )
    }


@op(
    "logits:n,c target#int:n -> d:n,c loss:1",
    main_class="softmax",
    in_place="logits=d",
    work=_cross_entropy_work,
    c_symbol="cross_entropy",
)
def cross_entropy(logits: Array, target: Array) -> tuple[Array, Array]:
    """loss = mean of -log P(target) over the rows with target >= 0; d is its gradient."""
    rows = np.flatnonzero(target >= 0)
    label, share = target[rows], 1 / max(len(rows), 1)
    probability, surprise = _softmax(logits)
    d = probability * share
    d[rows, label] -= share
    d[target < 0] = 0
    return d, surprise[rows, label].sum(keepdims=True) * share


def _auxiliary_work(
    d: Mapping[str, int], attrs: Mapping[str, Any], given: frozenset[str]
) -> dict[str, Work]:
    n, c = d["n"], d["c"]
    updates = (n if attrs["per_part"] else d["ended"]) * c
    return {
        "softmax": Work(
            mul=n * c + n * c + n * c + n * c + n * c + 1 + 2 * updates,
            add=n * c + n * (c - 1) + n * c + n + n + n * c - 1 + n * (c - 1) + n * c + updates,
            trans=n * c + n,
        )
    }


@op(
    "logits:n,c target#int:n fraction:n q:r,c -> d:n,c loss:1 q_out:r,c",
    main_class="softmax",
    in_place="q=q_out",
    attrs="rate per_part",
    placed=True,
    work=_auxiliary_work,
    c_symbol="auxiliary_cross_entropy",
)
def auxiliary_cross_entropy(
    logits: Array,
    target: Array,
    fraction: Array,
    q: Array,
    *,
    rate: float,
    per_part: bool,
    place: Place,
) -> tuple[Array, Array, Array]:
    """The auxiliary loss for terminal prediction (Kag & Saligrama, 2021).

        loss = mean of b CE(label, P) + (1 - b) Div,   Div = -sum_y Q[label, y] log P(y)

    that is, the cross-entropy with the soft target b onehot(label) + (1 - b) Q[label]. b is the
    fraction of its sequence that a row has seen. Afterwards, row by row, Q[label] becomes
    (1 - rate) Q[label] + rate P for every row whose sequence has ended (b = 1); with `per_part`
    there is one Q for every part, one below the other, and it learns from every row at the end of
    that part.
    """
    rows = np.flatnonzero(target >= 0)
    label, share = target[rows], 1 / max(len(rows), 1)
    row_of_q = label + (place.part * logits.shape[1] if per_part else 0)
    probability, surprise = _softmax(logits)
    b = fraction[rows]
    soft = (1 - b)[:, None] * q[row_of_q]
    soft[np.arange(len(rows)), label] += b
    loss = (soft * surprise[rows]).sum(keepdims=True)[0] * share
    d = np.zeros_like(logits)
    d[rows] = (probability[rows] * soft.sum(axis=1, keepdims=True) - soft) * share
    q_out = q.copy()
    for row, of in zip(rows, row_of_q, strict=True):
        if per_part or fraction[row] == 1:
            q_out[of] = (1 - rate) * q_out[of] + rate * probability[row]
    return d, loss, q_out


@op(
    "y:n,c target:n,c -> d:n,c loss:1",
    main_class="EWO-basic",
    in_place="y=d",
    work=lambda d, attrs, given: {
        "EWO-basic": Work(mul=2 * d["n"] * d["c"] + 1, add=2 * d["n"] * d["c"] - 1)
    },
    c_symbol="squared_error",
)
def squared_error(y: Array, target: Array) -> tuple[Array, Array]:
    """loss = mean of (y - target)^2 over outputs and rows with a target; a NaN marks none."""
    rows = np.flatnonzero(target[:, 0] == target[:, 0])
    share = 1 / max(len(rows) * y.shape[1], 1)
    difference = y[rows] - target[rows]
    d = np.zeros_like(y)
    d[rows] = difference * (2 * share)
    return d, (difference * difference).sum(keepdims=True)[0] * share


# -- a loss that adds up step by step, for gradients that are computed forwards in time ------


def _cross_entropy_sum_work(
    d: Mapping[str, int], attrs: Mapping[str, Any], given: frozenset[str]
) -> dict[str, Work]:
    n, c = d["n"], d["c"]
    return {"softmax": Work(mul=n * c, add=n * c + n * (c - 1) + n * c + 2 * n, trans=n * c + n)}


@op(
    "logits:n,c target#int:n total:1 count#int:1 -> d:n,c total_out:1 count_out#int:1",
    main_class="softmax",
    in_place="logits=d total=total_out count=count_out",
    work=_cross_entropy_sum_work,
)
def cross_entropy_sum(
    logits: Array, target: Array, total: Array, count: Array
) -> tuple[Array, Array, Array]:
    """total' = total + the sum of -log P(target) over the rows with target >= 0.

    count' = count + the number of these rows, and d is the gradient of total'. How many pairs a
    part will have is not known before its end, so `average` divides then.
    """
    rows = np.flatnonzero(target >= 0)
    label = target[rows]
    d, surprise = _softmax(logits)
    d[rows, label] -= 1
    d[target < 0] = 0
    return d, total + surprise[rows, label].sum(), count + len(rows)


@op(
    "y:n,c target:n,c total:1 count#int:1 -> d:n,c total_out:1 count_out#int:1",
    main_class="EWO-basic",
    in_place="y=d total=total_out count=count_out",
    work=lambda d, attrs, given: {"EWO-basic": Work(2, 2) * (d["n"] * d["c"])},
)
def squared_error_sum(
    y: Array, target: Array, total: Array, count: Array
) -> tuple[Array, Array, Array]:
    """total' = total + the sum of (y - target)^2 over rows with a target (a NaN marks none), whose
    numbers count' counts; d is the gradient of that sum."""
    rows = np.flatnonzero(target[:, 0] == target[:, 0])
    difference = y[rows] - target[rows]
    d = np.zeros_like(y)
    d[rows] = difference * 2
    return d, total + (difference * difference).sum(), count + difference.size


@op(
    "total:* count#int:1 -> mean:*",
    main_class="EWO-basic",
    in_place="total=mean",
    work=lambda d, attrs, given: {"EWO-basic": Work(mul=d["size"])},
)
def average(total: Array, count: Array) -> Array:
    """mean = total / max(count, 1)."""
    return np.asarray(total / max(int(count[0]), 1))
