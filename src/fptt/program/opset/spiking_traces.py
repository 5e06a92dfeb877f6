"""Eligibility traces of spiking cells and of the leaky integrator (Bellec et al., 2020).

What a synapse sends is filtered in the same way for all neurons behind it, so that trace is one
number per input; the adaptation's is one per synapse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fptt.program.opset.spiking import _SURROGATE, _SURROGATE_WORK, pseudo_derivative
from fptt.program.opspec import Array, Work, multiply_add, op


@op(
    "eps:n,i x?:n,i -> eps_out:n,i",
    main_class="EWO-basic",
    in_place="eps=eps_out",
    attrs="decay",
    work=lambda d, attrs, given: {"EWO-basic": Work(1, 1) * (d["n"] * d["i"])},
)
def leaky_trace(eps: Array, x: Array | None, *, decay: float) -> Array:
    """eps' = decay eps + x: the derivative of a leaky potential by its weights, or, without x and
    so with 1 in its place, by its bias."""
    return np.asarray(eps * decay + (1 if x is None else x))


@op(
    "d:n,h eps:n,i start?:* -> g:*",
    main_class="MatMul-3",
    in_place="start=g",
    shaped=True,
    work=lambda d, attrs, given: {"MatMul-3": Work(1, 1) * (d["n"] * d["h"] * d["i"])},
)
def leaky_trace_gradient(
    d: Array, eps: Array, start: Array | None, *, shape: tuple[int, ...]
) -> Array:
    """g = start + d^T eps, where d is the gradient of the potential."""
    before = None if start is None else start.reshape(d.shape[1], -1)
    return multiply_add(d.T, eps, before).reshape(shape)


def _psi_work(attrs: Mapping[str, Any], *, adaptive: bool) -> Work:
    """Work of one psi(v - A)."""
    own = Work(mul=1, add=2) if adaptive else Work(add=1)
    return own + Work(*_SURROGATE_WORK[attrs["surrogate"]])


def _adaptation_work(
    d: Mapping[str, int], attrs: Mapping[str, Any], given: frozenset[str]
) -> dict[str, Work]:
    neurons = d["n"] * d["h"]
    of_neurons = _psi_work(attrs, adaptive=True) * neurons
    return {"EWO-combo": of_neurons + Work(mul=3, add=2) * (neurons * d["i"])}


@op(
    "v_before:n,h a_before:n,h eps_v:n,i eps_a:n,h,i -> eps_a_out:n,h,i",
    main_class="EWO-combo",
    in_place="eps_a=eps_a_out",
    attrs=f"rho threshold beta {_SURROGATE}",
    work=_adaptation_work,
)
def adaptation_trace(
    v_before: Array,
    a_before: Array,
    eps_v: Array,
    eps_a: Array,
    *,
    rho: float,
    threshold: float,
    beta: float,
    surrogate: str,
    gamma: float,
    width: float,
) -> Array:
    """eps_a' = rho eps_a + psi (eps_v - beta eps_a): the derivative of `a` by a neuron's weights.

    psi is that of the step before, and so are eps_v and eps_a: its spike acts on `a` a step later.
    """
    u = v_before - (a_before * beta + threshold)
    psi = pseudo_derivative(u, surrogate, gamma, width)
    spike = psi[:, :, None] * (eps_v[:, None, :] - eps_a * beta)
    return np.asarray(eps_a * rho + spike)


@op(
    "v:n,h a?:n,h dz:n,h -> du:n,h",
    main_class="EWO-combo",
    in_place="dz=du",
    attrs=f"threshold beta {_SURROGATE}",
    work=lambda d, attrs, given: {
        "EWO-combo": (_psi_work(attrs, adaptive="a" in given) + Work(mul=1)) * (d["n"] * d["h"])
    },
)
def spike_gradient(
    v: Array,
    a: Array | None,
    dz: Array,
    *,
    threshold: float,
    beta: float,
    surrogate: str,
    gamma: float,
    width: float,
) -> Array:
    """du = psi(v - threshold - beta a) dz: through the spike of this step alone."""
    u = v - (threshold if a is None else a * beta + threshold)
    return np.asarray(pseudo_derivative(u, surrogate, gamma, width) * dz)


@op(
    "du:n,h eps_v:n,i eps_a:n,h,i start?:* -> g:*",
    main_class="MatMul-3",
    in_place="start=g",
    attrs="beta",
    shaped=True,
    work=lambda d, attrs, given: {
        "MatMul-3": Work(2, 2) * (d["n"] * d["h"] * d["i"])
        + Work(add=0 if "start" in given else -1) * (d["h"] * d["i"])
    },
)
def alif_eprop_gradient(
    du: Array,
    eps_v: Array,
    eps_a: Array,
    start: Array | None,
    *,
    beta: float,
    shape: tuple[int, ...],
) -> Array:
    """g = start + the sum over the rows of du (eps_v - beta eps_a), du from `spike_gradient`."""
    total: Array = (du[:, :, None] * (eps_v[:, None, :] - eps_a * beta)).sum(axis=0).reshape(shape)
    return total if start is None else np.asarray(total + start)
