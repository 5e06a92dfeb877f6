"""The element-wise halves of the spiking cells and of the leaky integrator.

A neuron spikes, z = 1, when its membrane potential v lies above its threshold A, and z = 0
otherwise. That step has no useful derivative, so the gradient takes a surrogate psi(v - A) in place
of dz/dv, and of -dz/dA. All else is the exact gradient.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fptt.program.opspec import Array, Work, WorkRule, op, sigmoid

#: height of a side lobe of the multi-Gaussian relative to the middle, and how much wider it is
SIDE_HEIGHT, SIDE_SCALE = 0.15, 6.0
#: (mul, add, trans) of one psi(u)
_SURROGATE_WORK = {"multi_gaussian": (8, 4, 3), "triangle": (1, 2, 0)}
_SURROGATE = "surrogate gamma width"


def pseudo_derivative(u: Array, surrogate: str, gamma: float, width: float) -> Array:
    """psi(u), the surrogate of the derivative of a spike by u = v - A; w is the width.

    multi_gaussian: gamma ((1 + h) N(u; 0, w) - h N(u; w, s w) - h N(u; -w, s w)), with N(u; m, d)
        the normal density of mean m and deviation d, h = 0.15 and s = 6 (Yin et al., 2021).
    triangle: (gamma / w) max(0, 1 - |u| / w) (Bellec et al., 2020, there with w = v_th).
    """
    if surrogate == "triangle":
        return np.maximum(np.minimum(width + u, width - u) * (gamma / width**2), 0)
    side = SIDE_SCALE * width
    peak = gamma * (1 + SIDE_HEIGHT) / (width * math.sqrt(2 * math.pi))
    side_peak = gamma * SIDE_HEIGHT / (side * math.sqrt(2 * math.pi))
    right, left = u - width, u + width
    narrow, wide = -0.5 / width**2, -0.5 / side**2
    lobes = np.exp(right * right * wide) + np.exp(left * left * wide)
    return np.asarray(np.exp(u * u * narrow) * peak - lobes * side_peak)


def _spikes(u: Array) -> Array:
    """1 where u > 0, else 0, in the type of u."""
    return np.asarray(np.asarray(u > 0).astype(u.dtype))


def _per_neuron(**classes: tuple[int, int, int]) -> WorkRule:
    """Work in proportion to rows x neurons: class -> (mul, add, trans); the surrogate is added."""

    def work(
        d: Mapping[str, int], attrs: Mapping[str, Any], given: frozenset[str]
    ) -> dict[str, Work]:
        neurons = d["n"] * d["h"]
        found = {name.replace("_", "-"): Work(*one) * neurons for name, one in classes.items()}
        if "surrogate" in attrs:
            found["EWO-combo"] += Work(*_SURROGATE_WORK[attrs["surrogate"]]) * neurons
        return found

    return work


@op(
    "current:n,h v_before:n,h z_before:n,h -> v:n,h z:n,h",
    main_class="EWO-basic",
    in_place="v_before=v z_before=z",
    attrs="decay threshold",
    work=_per_neuron(EWO_basic=(2, 3, 0)),
)
def lif_forward(
    current: Array, v_before: Array, z_before: Array, *, decay: float, threshold: float
) -> tuple[Array, Array]:
    """v = decay v_before + current - threshold z_before; z = 1 where v > threshold."""
    v = v_before * decay + current - z_before * threshold
    return v, _spikes(v - threshold)


@op(
    "v:n,h dz:n,h dv:n,h -> dcurrent:n,h dv_before:n,h",
    main_class="EWO-combo",
    in_place="dv=dv_before",
    attrs=f"decay threshold {_SURROGATE}",
    work=_per_neuron(EWO_combo=(2, 2, 0)),
)
def lif_backward(
    v: Array,
    dz: Array,
    dv: Array,
    *,
    decay: float,
    threshold: float,
    surrogate: str,
    gamma: float,
    width: float,
) -> tuple[Array, Array]:
    """dcurrent = dv + psi(v - threshold) dz; dv_before = decay dcurrent; none through the reset."""
    dcurrent = dv + pseudo_derivative(v - threshold, surrogate, gamma, width) * dz
    return dcurrent, dcurrent * decay


@op(
    "current:n,h v_before:n,h a_before:n,h z_before:n,h -> v:n,h a:n,h z:n,h",
    main_class="EWO-basic",
    in_place="v_before=v a_before=a z_before=z",
    attrs="decay rho threshold beta",
    work=_per_neuron(EWO_basic=(4, 5, 0)),
)
def alif_forward(
    current: Array,
    v_before: Array,
    a_before: Array,
    z_before: Array,
    *,
    decay: float,
    rho: float,
    threshold: float,
    beta: float,
) -> tuple[Array, Array, Array]:
    """v as in lif_forward; a = rho a_before + z_before; z = 1 where v > threshold + beta a."""
    v = v_before * decay + current - z_before * threshold
    a = a_before * rho + z_before
    return v, a, _spikes(v - (a * beta + threshold))


@op(
    "v:n,h a:n,h dz:n,h dv:n,h da:n,h -> dcurrent:n,h dz_before:n,h dv_before:n,h da_before:n,h",
    main_class="EWO-combo",
    in_place="dz=dz_before dv=dv_before da=da_before",
    attrs=f"decay rho threshold beta {_SURROGATE}",
    work=_per_neuron(EWO_combo=(5, 4, 0)),
)
def alif_backward(
    v: Array,
    a: Array,
    dz: Array,
    dv: Array,
    da: Array,
    *,
    decay: float,
    rho: float,
    threshold: float,
    beta: float,
    surrogate: str,
    gamma: float,
    width: float,
) -> tuple[Array, Array, Array, Array]:
    """s = psi(v - A) dz, A = threshold + beta a; dcurrent = dv + s; da gets -beta s.

    dz_before is the path through a alone, da_before = rho da, dv_before = decay dcurrent.
    """
    s = pseudo_derivative(v - (a * beta + threshold), surrogate, gamma, width) * dz
    dcurrent = dv + s
    da = da - s * beta
    return dcurrent, da, dcurrent * decay, da * rho


@op(
    "sums:n,2h current:n,h v_before:n,h a_before:n,h z_before:n,h "
    "-> gates:n,2h u:n,h v:n,h a:n,h z:n,h",
    main_class="EWO-basic",
    in_place="sums=gates v_before=v a_before=a z_before=z",
    attrs="threshold beta",
    work=_per_neuron(Sigmoid=(0, 0, 2), EWO_basic=(4, 6, 0)),
)
def ltc_forward(
    sums: Array,
    current: Array,
    v_before: Array,
    a_before: Array,
    z_before: Array,
    *,
    threshold: float,
    beta: float,
) -> tuple[Array, Array, Array, Array, Array]:
    """m, r = sigmoid(sums); u = v_before + m (current - v_before); v = u where z = 0, else 0.

    a = r a_before + (1 - r) z_before; z = 1 where u > threshold + beta a.
    """
    gates = sigmoid(sums)
    m, r = np.split(gates, 2, axis=1)
    u = v_before + m * (current - v_before)
    a = r * a_before + (1 - r) * z_before
    z = _spikes(u - (a * beta + threshold))
    return gates, u, np.where(z > 0, np.zeros_like(u), u), a, z


@op(
    "gates:n,2h u:n,h current:n,h v_before:n,h a_before:n,h z_before:n,h a:n,h z:n,h "
    "dz:n,h dv:n,h da:n,h "
    "-> dsums:n,2h dcurrent:n,h dz_before:n,h dv_before:n,h da_before:n,h",
    main_class="EWO-combo",
    in_place="gates=dsums u=dcurrent dz=dz_before dv=dv_before da=da_before",
    attrs=f"threshold beta {_SURROGATE}",
    work=_per_neuron(EWO_combo=(12, 11, 0)),
)
def ltc_backward(
    gates: Array,
    u: Array,
    current: Array,
    v_before: Array,
    a_before: Array,
    z_before: Array,
    a: Array,
    z: Array,
    dz: Array,
    dv: Array,
    da: Array,
    *,
    threshold: float,
    beta: float,
    surrogate: str,
    gamma: float,
    width: float,
) -> tuple[Array, Array, Array, Array, Array]:
    """The gradient of `ltc_forward`, also through the reset; s = psi(u - A) (dz - u dv).

    dcurrent and the three that leave lack what flows through the sums.
    """
    m, r = np.split(gates, 2, axis=1)
    s = pseudo_derivative(u - (a * beta + threshold), surrogate, gamma, width) * (dz - u * dv)
    du = s + np.where(z > 0, np.zeros_like(dv), dv)
    da = da - s * beta
    dm = du * (current - v_before) * (m * (1 - m))
    dr = da * (a_before - z_before) * (r * (1 - r))
    dcurrent, da_before = m * du, r * da
    return np.concatenate((dm, dr), axis=1), dcurrent, da - da_before, du - dcurrent, da_before


@op(
    "current:n,h y_before:n,h -> y:n,h",
    main_class="EWO-basic",
    in_place="current=y y_before=y",
    attrs="decay",
    work=_per_neuron(EWO_basic=(1, 1, 0)),
)
def leaky_forward(current: Array, y_before: Array, *, decay: float) -> Array:
    """y = decay y_before + current."""
    return np.asarray(y_before * decay + current)


@op(
    "dy:n,h -> dcurrent:n,h dy_before:n,h",
    main_class="EWO-combo",
    in_place="dy=dy_before",
    attrs="decay",
    work=_per_neuron(EWO_combo=(1, 0, 0)),
)
def leaky_backward(dy: Array, *, decay: float) -> tuple[Array, Array]:
    """dcurrent = dy; dy_before = decay dy."""
    return dy, dy * decay
