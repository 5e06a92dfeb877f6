"""Diagonal real-time recurrent learning."""

from __future__ import annotations

from typing import ClassVar

from fptt.rules.sources.local import LayerLocal


class DiagonalRTRL(LayerLocal):
    """Exact traces of layers whose units see no other unit's state, times the spatial signal.

    With D_t diagonal (or one small block per unit), J_t = D_t J_{t-1} + I_t stays as sparse as I_t:
    a parameter moves the state of its own unit and of no other (Elelimy et al., 2024; Irie et al.,
    2024). For LRU with s_t = Lambda s_{t-1} + gamma B x_t:

        e_B      <- Lambda e_B + gamma x_t^T
        e_Lambda <- Lambda e_Lambda + s_{t-1},    and from there to nu and theta

    ElementwiseLSTM has two numbers per parameter, for h and c. LeakyIntegrator serves it, too.

    Exact where the body is one recurrent layer: at fixed weights the gradients of the parts add up
    to full BPTT of the sum of their losses. With several layers the paths from a lower one through
    the memory of a higher one are left out, as in OSTL. Memory per row and work per step: in
    proportion to the parameters.
    """

    title: ClassVar[str] = "diagonal RTRL"
    name: ClassVar[str] = "diagonal"
