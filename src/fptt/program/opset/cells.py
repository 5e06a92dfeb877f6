"""The element-wise halves of the recurrent cells, forward and backward, each fused into one op."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fptt.program.opspec import Array, Work, WorkRule, op, sigmoid


def _per_cell(**classes: tuple[int, int, int]) -> WorkRule:
    """Work in proportion to rows x hidden size: class -> (mul, add, trans) of one cell."""

    def work(
        d: Mapping[str, int], attrs: Mapping[str, Any], given: frozenset[str]
    ) -> dict[str, Work]:
        cells = d["n"] * d["h"]
        return {name.replace("_", "-"): Work(*one) * cells for name, one in classes.items()}

    return work


@op(
    "a:n,4h c_before:n,h -> gates:n,4h c:n,h h:n,h",
    main_class="EWO-basic",
    in_place="a=gates c_before=c",
    work=_per_cell(Sigmoid=(0, 0, 3), tanh=(0, 0, 2), EWO_basic=(3, 1, 0)),
    c_symbol="lstm_forward",
)
def lstm_forward(a: Array, c_before: Array) -> tuple[Array, Array, Array]:
    """i, f, o = sigmoid(a), g = tanh(a); c = f c_before + i g; h = o tanh(c)."""
    a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)
    i, f, g, o = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)
    c = f * c_before + i * g
    return np.concatenate((i, f, g, o), axis=1), c, o * np.tanh(c)


@op(
    "gates:n,4h c_before:n,h c:n,h dh:n,h dc:n,h -> da:n,4h dc_before:n,h",
    main_class="EWO-combo",
    in_place="gates=da dc=dc_before",
    work=_per_cell(tanh=(0, 0, 1), EWO_combo=(16, 6, 0)),
    c_symbol="lstm_backward",
)
def lstm_backward(
    gates: Array, c_before: Array, c: Array, dh: Array, dc: Array
) -> tuple[Array, Array]:
    """The exact gradient of `lstm_forward`; dc arrives from the step after, dc_before leaves."""
    i, f, g, o = np.split(gates, 4, axis=1)
    tanh_c = np.tanh(c)
    dc = dc + dh * o * (1 - tanh_c * tanh_c)
    da = (
        dc * g * (i * (1 - i)),
        dc * c_before * (f * (1 - f)),
        dc * i * (1 - g * g),
        dh * tanh_c * (o * (1 - o)),
    )
    return np.concatenate(da, axis=1), dc * f


@op(
    "gates:n,4h h_before:n,h -> gates_out:n,4h h:n,h",
    main_class="EWO-basic",
    in_place="gates=gates_out h_before=h",
    work=_per_cell(Sigmoid=(0, 0, 2), tanh=(0, 0, 1), EWO_basic=(3, 3, 0)),
    c_symbol="gru_forward",
)
def gru_forward(gates: Array, h_before: Array) -> tuple[Array, Array]:
    """r, z = sigmoid; n = tanh(a_n + r q); h = (1 - z) n + z h_before; q stays as it is."""
    a_r, a_z, a_n, q = np.split(gates, 4, axis=1)
    r, z = sigmoid(a_r), sigmoid(a_z)
    n = np.tanh(a_n + r * q)
    return np.concatenate((r, z, n, q), axis=1), (1 - z) * n + z * h_before


@op(
    "gates:n,4h h_before:n,h dh:n,h -> da:n,4h dh_before:n,h",
    main_class="EWO-combo",
    in_place="gates=da dh=dh_before",
    work=_per_cell(EWO_combo=(11, 5, 0)),
    c_symbol="gru_backward",
)
def gru_backward(gates: Array, h_before: Array, dh: Array) -> tuple[Array, Array]:
    """The exact gradient of `gru_forward` by a_r, a_z, a_n, q; dh_before is the path through z."""
    r, z, n, q = np.split(gates, 4, axis=1)
    da_n = dh * (1 - z) * (1 - n * n)
    da_z = dh * (h_before - n) * (z * (1 - z))
    da_r = da_n * q * (r * (1 - r))
    return np.concatenate((da_r, da_z, da_n, da_n * r), axis=1), dh * z


@op(
    "a:n,h -> h:n,h",
    main_class="tanh",
    in_place="a=h",
    work=_per_cell(tanh=(0, 0, 1)),
    c_symbol="rnn_forward",
)
def rnn_forward(a: Array) -> Array:
    """h = tanh(a)."""
    return np.asarray(np.tanh(a))


@op(
    "y:n,h dh:n,h -> da:n,h",
    main_class="EWO-combo",
    in_place="dh=da",
    work=_per_cell(EWO_combo=(2, 1, 0)),
    c_symbol="rnn_backward",
)
def rnn_backward(y: Array, dh: Array) -> Array:
    """da = dh (1 - y^2), where y = tanh(a)."""
    return np.asarray(dh * (1 - y * y))
