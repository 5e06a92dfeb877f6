"""Gradients forwards in time: how the derivatives of a state by parameters move on by one step.

A *tangent* is the derivative of a row's values by every number of one parameter theta,
[n, values, p] with p the numbers of theta in the order of its rows. That of a recurrent state goes
on from step to step; each operation here writes the new one from the one before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fptt.program.opspec import Array, Place, Work, WorkRule, multiply_add, op
from fptt.program.philox import uniform


def _seeded(sums: Array, seed: Array | None) -> Array:
    """sums [n, s, p] plus the derivative of the sums by their own weights, or by their bias.

    The weight of sum k and input j is number k w + j of its parameter, and what it was multiplied
    with, seed[:, j], is the derivative of sum k by it. Without a seed theta is the bias.
    """
    width = 1 if seed is None else seed.shape[1]
    rows = np.arange(sums.shape[2] // width)
    blocks = sums.reshape(*sums.shape[:2], len(rows), width)
    blocks[:, rows, rows] += 1 if seed is None else seed[:, None, :]
    return blocks.reshape(sums.shape)


def _sums(v: Array, j: Array, seed: Array | None, w: Array | None, jx: Array | None) -> Array:
    """The tangent of x w^T + h v^T + b from those of h (j) and, below theta's own layer, of x."""
    if w is None or jx is None:
        return _seeded(multiply_add(v, j), seed)
    return multiply_add(v, j, multiply_add(w, jx))


def _per_tangent(
    gates: int,
    *,
    cell: Work,
    number: Work,
    by_input: Work | None = None,
    tanh: int = 0,
) -> WorkRule:
    """Work of a cell: its products, and so much per cell and per cell and number of theta.

    Args:
        gates: sums per cell that the state has a part in.
        cell, number: element-wise work.
        by_input: what is added per number where the input changes with theta, too.
        tanh: how many per cell.
    """

    def work(
        d: Mapping[str, int], attrs: Mapping[str, Any], given: frozenset[str]
    ) -> dict[str, Work]:
        cells, sums = d["n"] * d["h"], d["n"] * gates * d["h"]
        below, input_side = "jx" in given, not attrs.get("recurrent", True)
        macs = sums * d["p"] * (d["h"] + (d["i"] if below else 0))
        seeds = 0 if below or input_side else sums * (d["k"] if "seed" in given else 1)
        each = number
        if by_input and (below or input_side):
            each = each + by_input
        return {
            "MatMul-2": Work(mul=macs, add=macs + seeds) + cell * cells + each * (cells * d["p"]),
            "tanh": Work(trans=tanh * cells),
        }

    return work


@op(
    "h:n,h v:h,h j:n,h,p seed?:n,k w?:h,i jx?:n,i,p -> j_out:n,h,p",
    main_class="MatMul-2",
    in_place="j=j_out",
    work=_per_tangent(1, cell=Work(mul=1, add=1), number=Work(mul=1)),
)
def rnn_tangent(
    h: Array, v: Array, j: Array, seed: Array | None, w: Array | None, jx: Array | None
) -> Array:
    """j' = (1 - h^2) (v j + d (the sums) / d theta), where h = tanh(the sums).

    theta is the layer's own: seed is what its weights were multiplied with (x, or h of the step
    before), or nothing for the bias. Or it lies below: then w jx takes that place.
    """
    return (1 - h * h)[:, :, None] * _sums(v, j, seed, w, jx)


@op(
    "gates:n,4h c_before:n,h c:n,h v:4h,h jh:n,h,p jc:n,h,p seed?:n,k w?:4h,i jx?:n,i,p -> "
    "jh_out:n,h,p jc_out:n,h,p",
    main_class="MatMul-2",
    in_place="jh=jh_out jc=jc_out",
    work=_per_tangent(4, cell=Work(mul=10, add=5), number=Work(mul=6, add=4), tanh=1),
)
def lstm_tangent(
    gates: Array,
    c_before: Array,
    c: Array,
    v: Array,
    jh: Array,
    jc: Array,
    seed: Array | None,
    w: Array | None,
    jx: Array | None,
) -> tuple[Array, Array]:
    """The exact derivative of `lstm_forward` along those of its sums s = v jh + seed (or w jx).

        jc' = f jc + g i' s_i + c_before f' s_f + i g' s_g
        jh' = tanh(c) o' s_o + o (1 - tanh(c)^2) jc'

    i' = i (1 - i) and so on, g' = 1 - g^2; seed, w and jx as in `rnn_tangent`.
    """
    i, f, g, o = np.split(gates, 4, axis=1)
    tanh_c = np.tanh(c)
    by_sum = (
        g * (i * (1 - i)),
        c_before * (f * (1 - f)),
        i * (1 - g * g),
        tanh_c * (o * (1 - o)),
    )
    d_i, d_f, d_g, d_o = (
        factor[:, :, None] * s
        for factor, s in zip(by_sum, np.split(_sums(v, jh, seed, w, jx), 4, axis=1), strict=True)
    )
    jc = f[:, :, None] * jc + d_i + d_f + d_g
    return d_o + (o * (1 - tanh_c * tanh_c))[:, :, None] * jc, jc


@op(
    "gates:n,4h h_before:n,h v:3h,h j:n,h,p seed?:n,k w?:3h,i jx?:n,i,p -> j_out:n,h,p",
    main_class="MatMul-2",
    in_place="j=j_out",
    attrs="recurrent",
    work=_per_tangent(3, cell=Work(mul=6, add=5), number=Work(mul=5, add=3), by_input=Work(add=3)),
)
def gru_tangent(
    gates: Array,
    h_before: Array,
    v: Array,
    j: Array,
    seed: Array | None,
    w: Array | None,
    jx: Array | None,
    *,
    recurrent: bool,
) -> Array:
    """The exact derivative of `gru_forward` along those of its sums s_r, s_z, s_n (input), s_q.

        n_ = (1 - n^2) (s_n + r s_q + q r' s_r)
        j' = (1 - z) n_ + (h_before - n) z' s_z + z j

    s_r, s_z and s_q come from v j; s_r, s_z and s_n from the input. `recurrent` says on which of
    the two sides theta stands if it is the layer's own; seed, w and jx as in `rnn_tangent`.
    """
    r, z, n, q = np.split(gates, 4, axis=1)
    hidden = r.shape[1]
    from_state, from_input = multiply_add(v, j), None
    if w is not None and jx is not None:
        from_input = multiply_add(w, jx)
    elif recurrent:
        from_state = _seeded(from_state, seed)
    else:
        from_input = weight_tangent(seed, shape=from_state.shape).astype(j.dtype)
    s_rz, s_q = from_state[:, : 2 * hidden], from_state[:, 2 * hidden :]
    if from_input is not None:
        s_rz = s_rz + from_input[:, : 2 * hidden]
    s_r, s_z = np.split(s_rz, 2, axis=1)
    inside = r[:, :, None] * s_q + (q * (r * (1 - r)))[:, :, None] * s_r
    if from_input is not None:
        inside = inside + from_input[:, 2 * hidden :]
    return np.asarray(
        ((1 - z) * (1 - n * n))[:, :, None] * inside
        + ((h_before - n) * (z * (1 - z)))[:, :, None] * s_z
        + z[:, :, None] * j
    )


# -- layers without a state ------------------------------------------------------------------


@op(
    "w:o,i jx:n,i,p -> jy:n,o,p",
    main_class="MatMul-2",
    work=lambda d, attrs, given: {
        "MatMul-2": Work(1, 1) * (d["n"] * d["o"] * d["i"] * d["p"]),
    },
)
def affine_tangent(w: Array, jx: Array) -> Array:
    """jy = w jx: the tangent of y = x w^T + b by a parameter below."""
    return multiply_add(w, jx)


@op(
    "x?:n,k -> jy:n,o,p",
    main_class="dataMovement",
    shaped=True,
    work=lambda d, attrs, given: {},
)
def weight_tangent(x: Array | None, *, shape: tuple[int, ...]) -> Array:
    """jy = the derivative of y = x w^T + b by w, x in the rows of each sum; without x by b."""
    rows, outputs, size = shape
    jy = np.zeros((rows, outputs, outputs, size // outputs), np.float32 if x is None else x.dtype)
    own = np.arange(outputs)
    jy[:, own, own] = 1 if x is None else x[:, None, :]
    return jy.reshape(shape)


@op(
    "token#int:n -> jy:n,e,p",
    main_class="dataMovement",
    shaped=True,
    work=lambda d, attrs, given: {},
)
def embedding_tangent(token: Array, *, shape: tuple[int, ...]) -> Array:
    """jy = the derivative of `embedding` by its table: 1 in the row that the token names."""
    rows, width, size = shape
    jy = np.zeros((rows, width, size // width, width), np.float32)
    own = np.arange(width)
    jy[np.arange(rows)[:, None], own, token[:, None], own] = 1
    return jy.reshape(shape)


@op(
    "y:n,w j:n,w,p -> j_out:n,w,p",
    main_class="EWO-basic",
    in_place="j=j_out",
    work=lambda d, attrs, given: {},
)
def relu_tangent(y: Array, j: Array) -> Array:
    """j' = j where y > 0, else 0."""
    return np.where((y > 0)[:, :, None], j, np.zeros_like(j))


@op(
    "j:n,w,p random#int:2 -> j_out:n,w,p",
    main_class="EWO-basic",
    in_place="j=j_out",
    attrs="p layer",
    placed=True,
    work=lambda d, attrs, given: {"EWO-basic": Work(mul=d["n"] * d["w"] * d["p"])},
)
def dropout_tangent(j: Array, random: Array, *, p: float, layer: int, place: Place) -> Array:
    """j' = j mask / (1 - p), with the mask of `dropout` at the same place."""
    seed, sequence = (int(word) for word in random)
    keep = uniform(j.shape[1], place.row, place.step, sequence, key=(seed, layer)) >= p
    return np.where(keep[:, :, None], j * (1 / (1 - p)), np.zeros_like(j))


# -- from traces to gradients ----------------------------------------------------------------


@op(
    "d:n,h j:n,h,p start?:* -> g:*",
    main_class="MatMul-3",
    in_place="start=g",
    shaped=True,
    work=lambda d, attrs, given: {"MatMul-3": Work(1, 1) * (d["n"] * d["h"] * d["p"])},
)
def tangent_gradient(d: Array, j: Array, start: Array | None, *, shape: tuple[int, ...]) -> Array:
    """g = start + the sum over rows and values of d j: the chain rule at one step."""
    before = None if start is None else start.reshape(-1)
    return multiply_add(d.reshape(-1), j.reshape(-1, j.shape[2]), before).reshape(shape)
