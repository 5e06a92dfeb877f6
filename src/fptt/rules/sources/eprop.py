"""Eligibility propagation."""

from __future__ import annotations

from typing import ClassVar

from fptt.rules.sources.local import LayerLocal


class EProp(LayerLocal):
    """Eligibility traces of a cell's own memory, times the learning signal (Bellec et al., 2020).

    For LSTM, with x_t what theta was multiplied with:

        eps_t = f_t eps_{t-1} + (g_t i'_t, c_{t-1} f'_t, i_t g'_t) x_t    for the gates i, f, g
        e_t   = o_t (1 - tanh(c_t)^2) eps_t,      and tanh(c_t) o'_t x_t for the gate o
        g     = sum over steps with a loss of L_t e_t

    That is the gradient without the paths from h_{t-1} through the gates. Memory per row: one
    number per parameter of the gates i, f and g; work in proportion to it.
    """

    title: ClassVar[str] = "e-prop"
    name: ClassVar[str] = "eprop"
