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

    For ALIF (LIF: without eps_a), psi being the surrogate of the spike's derivative:

        eps_v(t+1) = decay eps_v(t) + x(t+1)
        eps_a(t+1) = psi(t) eps_v(t) + (rho - psi(t) beta) eps_a(t)
        e(t)       = psi(t) (eps_v(t) - beta eps_a(t))

    without the paths through W_hh. Memory per row: one number per synapse for eps_a, and one per
    input for eps_v, which all neurons share. LeakyIntegrator has the trace eps_v alone, and it is
    exact.
    """

    title: ClassVar[str] = "e-prop"
    name: ClassVar[str] = "eprop"
