"""Traces of recurrences that act on each unit by itself: the derivative of a unit's state by its
own parameters, one or two numbers per parameter and row. That is all of the exact derivative.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fptt.program.opset.diagonal import _eigenvalue, _per_row, _scale
from fptt.program.opspec import Array, Work, op

# -- the linear recurrent unit; of its complex numbers all real parts come first ----------------


def _times_eigenvalue(nu: Array, theta: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Lambda (x + iy); x and y are [n, h] or [n, h, i]."""
    over = (slice(None),) + (None,) * (x.ndim - 2)
    real, imaginary = (part[over] for part in _eigenvalue(nu, theta))
    return real * x - imaginary * y, real * y + imaginary * x


@op(
    "e:n,2h u:n,2h state_before:n,2h nu:h theta:h -> e_out:n,2h",
    main_class="EWO-combo",
    in_place="e=e_out",
    work=_per_row("EWO-combo", (8, 6), (7, 1, 9)),
)
def lru_decay_trace(e: Array, u: Array, state_before: Array, nu: Array, theta: Array) -> Array:
    """e' = Lambda e + dLambda/dnu state_before + dgamma/dnu u: the derivative of `lru_forward`.

    dLambda/dnu = -exp(nu) Lambda and dgamma/dnu = exp(nu) |Lambda|^2 / gamma.
    """
    (real, imaginary), rate = _eigenvalue(nu, theta), np.exp(nu)
    by_gamma = rate * (real * real + imaginary * imaginary) / _scale(nu)
    moved = e - np.concatenate((rate, rate)) * state_before
    x, y = np.split(moved, 2, axis=1)
    turned = real * x - imaginary * y, real * y + imaginary * x
    return np.asarray(np.concatenate(turned, axis=1) + np.concatenate((by_gamma, by_gamma)) * u)


@op(
    "e:n,2h state_before:n,2h nu:h theta:h -> e_out:n,2h",
    main_class="EWO-combo",
    in_place="e=e_out",
    work=_per_row("EWO-combo", (6, 4), (2, 0, 6)),
)
def lru_phase_trace(e: Array, state_before: Array, nu: Array, theta: Array) -> Array:
    """e' = Lambda e + dLambda/dtheta state_before, where dLambda/dtheta = i exp(theta) Lambda."""
    phase = np.exp(theta)
    (e_x, e_y), (x, y) = np.split(e, 2, axis=1), np.split(state_before, 2, axis=1)
    moved = _times_eigenvalue(nu, theta, e_x - phase * y, e_y + phase * x)
    return np.concatenate(moved, axis=1)


def _input_trace_work(
    d: Mapping[str, int], attrs: Mapping[str, Any], given: frozenset[str]
) -> dict[str, Work]:
    return {"EWO-combo": Work(5, 3) * (d["n"] * d["h"] * d["i"]) + Work(3, 0, 8) * d["h"]}


@op(
    "e:n,2h,i x:n,i nu:h theta:h -> e_out:n,2h,i",
    main_class="EWO-combo",
    in_place="e=e_out",
    work=_input_trace_work,
)
def lru_input_trace(e: Array, x: Array, nu: Array, theta: Array) -> Array:
    """e' = Lambda e + gamma x, the derivative of the state by the real rows of B.

    That by the imaginary rows is i e, and needs no place.
    """
    real, imaginary = _times_eigenvalue(nu, theta, *np.split(e, 2, axis=1))
    return np.concatenate((real + _scale(nu)[:, None] * x[:, None, :], imaginary), axis=1)


@op(
    "d:n,2h e:n,2h start?:h -> g:h",
    main_class="EWO-combo",
    in_place="start=g",
    work=lambda d, attrs, given: {
        "EWO-combo": Work(2, 2) * (d["n"] * d["h"])
        + Work(add=0 if "start" in given else -1) * d["h"]
    },
)
def lru_unit_gradient(d: Array, e: Array, start: Array | None) -> Array:
    """g = start + the sum over the rows of the real part of conj(d) e."""
    real, imaginary = np.split((d * e).sum(axis=0), 2)
    total = np.asarray(real + imaginary)
    return total if start is None else np.asarray(total + start)


@op(
    "d:n,2h e:n,2h,i start?:2h,i -> g:2h,i",
    main_class="MatMul-3",
    in_place="start=g",
    work=lambda d, attrs, given: {
        "MatMul-3": Work(4, 4) * (d["n"] * d["h"] * d["i"])
        + Work(add=0 if "start" in given else -2) * (d["h"] * d["i"])
    },
)
def lru_input_gradient(d: Array, e: Array, start: Array | None) -> Array:
    """g = start + the sum over the rows of the real parts of conj(d) e, then of conj(d) i e."""
    (d_x, d_y), (x, y) = np.split(d[:, :, None], 2, axis=1), np.split(e, 2, axis=1)
    total = np.concatenate(((d_x * x + d_y * y).sum(axis=0), (d_y * x - d_x * y).sum(axis=0)))
    return total if start is None else np.asarray(total + start)


# -- the element-wise LSTM -----------------------------------------------------------------------


def _four(values: Array) -> Array:
    """The same [n, h] for each of four gates, and for all columns of a trace."""
    return np.concatenate((values,) * 4, axis=1)[:, :, None]


def _lstm_trace_work(
    d: Mapping[str, int], attrs: Mapping[str, Any], given: frozenset[str]
) -> dict[str, Work]:
    cells = d["n"] * d["h"]
    number = Work(mul=5 if given & {"x", "h_before"} else 4, add=3)
    return {
        "EWO-combo": Work(mul=14, add=7) * cells + number * (4 * cells * d["i"]),
        "tanh": Work(trans=cells),
    }


@op(
    "gates:n,4h c_before:n,h c:n,h v:4h eh:n,4h,i ec:n,4h,i x?:n,i h_before?:n,h -> "
    "eh_out:n,4h,i ec_out:n,4h,i",
    main_class="EWO-combo",
    in_place="eh=eh_out ec=ec_out",
    work=_lstm_trace_work,
)
def elementwise_lstm_trace(
    gates: Array,
    c_before: Array,
    c: Array,
    v: Array,
    eh: Array,
    ec: Array,
    x: Array | None,
    h_before: Array | None,
) -> tuple[Array, Array]:
    """The exact derivatives of a unit's h and c by the weights of its four sums.

        s_k = v_k eh, and in the gate that the weight is of, + m
        ec' = f ec + g i' s_i + c_before f' s_f + i g' s_g
        eh' = tanh(c) o' s_o + o (1 - tanh(c)^2) ec'

    v are the recurrent weights; m is what the weight was multiplied with: x, the unit's h_before,
    or for a bias neither and 1.
    """
    i, f, g, o = np.split(gates, 4, axis=1)
    tanh_c = np.tanh(c)
    by_i, by_f, by_g = g * (i * (1 - i)), c_before * (f * (1 - f)), i * (1 - g * g)
    by_o = tanh_c * (o * (1 - o))
    v_i, v_f, v_g, v_o = np.split(v, 4)
    c_by_h = v_i * by_i + v_f * by_f + v_g * by_g
    own = np.concatenate((by_i, by_f, by_g, by_o), axis=1)[:, :, None]
    if x is not None:
        own = own * x[:, None, :]
    elif h_before is not None:
        own = own * _four(h_before)
    through_c, through_o = np.split(own, [3 * c.shape[1]], axis=1)
    ec = _four(f) * ec + _four(c_by_h) * eh
    kept, rest = np.split(ec, [3 * c.shape[1]], axis=1)
    ec = np.concatenate((kept + through_c, rest), axis=1)
    eh = _four(o * (1 - tanh_c * tanh_c)) * ec + _four(v_o * by_o) * eh
    kept, rest = np.split(eh, [3 * c.shape[1]], axis=1)
    return np.concatenate((kept, rest + through_o), axis=1), ec


@op(
    "d:n,h e:n,4h,i start?:* -> g:*",
    main_class="MatMul-3",
    in_place="start=g",
    shaped=True,
    work=lambda d, attrs, given: {
        "MatMul-3": Work(1, 1) * (4 * d["n"] * d["h"] * d["i"])
        + Work(add=0 if "start" in given else -4) * (d["h"] * d["i"])
    },
)
def elementwise_lstm_gradient(
    d: Array, e: Array, start: Array | None, *, shape: tuple[int, ...]
) -> Array:
    """g = start + the sum over the rows of d e, with the same d for each of four gates."""
    total: Array = (_four(d) * e).sum(axis=0).reshape(shape)
    return total if start is None else np.asarray(total + start)
