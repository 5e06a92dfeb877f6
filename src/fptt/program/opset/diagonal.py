"""Recurrences that act on each unit by itself: the element-wise LSTM and the linear recurrent unit.

No back end but the reference runs these operations: they have no C symbol.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fptt.program.opspec import Array, Work, WorkRule, op


def _per_row(main_class: str, row: tuple[int, int], once: tuple[int, int, int]) -> WorkRule:
    """Work of h units: (mul, add) for every row, and (mul, add, trans) once; `start` adds h."""

    def work(
        d: Mapping[str, int], attrs: Mapping[str, Any], given: frozenset[str]
    ) -> dict[str, Work]:
        of_rows = Work(*row) * (d["n"] * d["h"])
        of_parameters = Work(*once) * d["h"]
        onto = Work(add=d["h"] if "start" in given else 0)
        return {main_class: of_rows + of_parameters + onto}

    return work


# -- a diagonal in the place of a recurrent matrix with four gates ------------------------------


@op(
    "a:n,4h w:4h h_before:n,h -> sums:n,4h",
    main_class="EWO-basic",
    in_place="a=sums",
    work=_per_row("EWO-basic", (4, 4), (0, 0, 0)),
)
def diagonal_sum(a: Array, w: Array, h_before: Array) -> Array:
    """sums = a + w h_before, element by element, with the same h_before for each of four gates."""
    return np.asarray(a + w * np.tile(h_before, 4))


@op(
    "da:n,4h w:4h -> dh:n,h",
    main_class="EWO-combo",
    work=_per_row("EWO-combo", (4, 3), (0, 0, 0)),
)
def diagonal_product(da: Array, w: Array) -> Array:
    """dh = the sum of w da over the four gates: the gradient through `diagonal_sum`."""
    i, f, g, o = np.split(w * da, 4, axis=1)
    return np.asarray(i + f + g + o)


def _diagonal_gradient_work(
    d: Mapping[str, int], attrs: Mapping[str, Any], given: frozenset[str]
) -> dict[str, Work]:
    products = d["n"] * 4 * d["h"]
    return {"EWO-combo": Work(mul=products, add=products - (0 if "start" in given else 4 * d["h"]))}


@op(
    "da:n,4h h_before:n,h start?:4h -> dw:4h",
    main_class="EWO-combo",
    in_place="start=dw",
    work=_diagonal_gradient_work,
)
def diagonal_gradient(da: Array, h_before: Array, start: Array | None) -> Array:
    """dw = start + the sum over the rows of da h_before, with the same h_before for each gate."""
    total: Array = (da * np.tile(h_before, 4)).sum(axis=0)
    return total if start is None else total + start


# -- the linear recurrent unit; of its complex numbers all real parts come first ----------------


def _eigenvalue(nu: Array, theta: Array) -> tuple[Array, Array]:
    """Real and imaginary part of Lambda = exp(-exp(nu) + i exp(theta))."""
    modulus, phase = np.exp(-np.exp(nu)), np.exp(theta)
    return modulus * np.cos(phase), modulus * np.sin(phase)


def _scale(nu: Array) -> Array:
    """gamma = sqrt(1 - |Lambda|^2), without the cancellation where |Lambda| is near 1."""
    return np.asarray(np.sqrt(-np.expm1(-2 * np.exp(nu))))


@op(
    "u:n,2h nu:h theta:h state_before:n,2h -> state:n,2h",
    main_class="EWO-basic",
    in_place="state_before=state",
    work=_per_row("EWO-basic", (6, 4), (3, 0, 8)),
)
def lru_forward(u: Array, nu: Array, theta: Array, state_before: Array) -> Array:
    """state = Lambda state_before + gamma u, complex; Lambda = exp(-exp(nu) + i exp(theta)) and
    gamma = sqrt(1 - |Lambda|^2)."""
    (real, imaginary), gamma = _eigenvalue(nu, theta), _scale(nu)
    (x, y), (u_x, u_y) = np.split(state_before, 2, axis=1), np.split(u, 2, axis=1)
    return np.concatenate(
        (real * x - imaginary * y + gamma * u_x, real * y + imaginary * x + gamma * u_y), axis=1
    )


@op(
    "dstate:n,2h nu:h theta:h -> du:n,2h dstate_before:n,2h",
    main_class="EWO-combo",
    in_place="dstate=dstate_before",
    work=_per_row("EWO-combo", (6, 2), (3, 0, 8)),
)
def lru_backward(dstate: Array, nu: Array, theta: Array) -> tuple[Array, Array]:
    """du = gamma dstate and dstate_before = conj(Lambda) dstate: the gradient of `lru_forward`."""
    (real, imaginary), gamma = _eigenvalue(nu, theta), _scale(nu)
    dx, dy = np.split(dstate, 2, axis=1)
    before = (real * dx + imaginary * dy, real * dy - imaginary * dx)
    return np.concatenate((gamma * dx, gamma * dy), axis=1), np.concatenate(before, axis=1)


def _aligned(du: Array, state_before: Array) -> Array:
    """The real part of conj(du) state_before, summed over the rows."""
    x, y = np.split((du * state_before).sum(axis=0), 2)
    return np.asarray(x + y)


def _turned(du: Array, state_before: Array) -> Array:
    """The imaginary part of conj(state_before) du, summed over the rows."""
    (dx, dy), (x, y) = np.split(du, 2, axis=1), np.split(state_before, 2, axis=1)
    return np.asarray((dy * x - dx * y).sum(axis=0))


@op(
    "u:n,2h du:n,2h state_before:n,2h nu:h theta:h start?:h -> dnu:h",
    main_class="EWO-combo",
    in_place="start=dnu",
    work=_per_row("EWO-combo", (6, 6), (11, 0, 9)),
)
def lru_decay_gradient(
    u: Array, du: Array, state_before: Array, nu: Array, theta: Array, start: Array | None
) -> Array:
    """dnu = start + the sum over the rows of what reaches nu through |Lambda| and through gamma.

    With dstate = du / gamma: d|Lambda| = -exp(nu) |Lambda| and dgamma = exp(nu) |Lambda|^2 / gamma.
    """
    (real, imaginary), gamma, rate = _eigenvalue(nu, theta), _scale(nu), np.exp(nu)
    by_modulus = real * _aligned(du, state_before) + imaginary * _turned(du, state_before)
    by_gamma = (real * real + imaginary * imaginary) / gamma * _aligned(du, u)
    total = rate / gamma * (by_gamma - by_modulus)
    return np.asarray(total if start is None else total + start)


@op(
    "du:n,2h state_before:n,2h nu:h theta:h start?:h -> dtheta:h",
    main_class="EWO-combo",
    in_place="start=dtheta",
    work=_per_row("EWO-combo", (4, 4), (7, -1, 9)),
)
def lru_phase_gradient(
    du: Array, state_before: Array, nu: Array, theta: Array, start: Array | None
) -> Array:
    """dtheta = start + the sum over the rows of what reaches theta through Lambda's phase."""
    (real, imaginary), gamma = _eigenvalue(nu, theta), _scale(nu)
    by_phase = real * _turned(du, state_before) - imaginary * _aligned(du, state_before)
    total = np.exp(theta) / gamma * by_phase
    return np.asarray(total if start is None else total + start)
