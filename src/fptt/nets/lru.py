"""Linear recurrent unit (Orvieto et al., 2023) in real arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fptt.checks import is_number
from fptt.errors import InputError
from fptt.nets.layer import Array, Layout, Parameter, Part, Recurrent, View, check_fit, take_sizes

if TYPE_CHECKING:
    from fptt.program.ir import Buffer, Ref

#: so that no modulus is drawn as exactly 1 and no phase as exactly 0, whose logarithms are infinite
_TINY = 1e-12


@dataclass(frozen=True)
class Ring:
    """nu = log(-log(|Lambda|)), with Lambda uniform, by area, between two circles."""

    r_min: float
    r_max: float

    def __call__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Draws nu."""
        square = rng.uniform(self.r_min**2, self.r_max**2, shape)
        return np.asarray(np.log(-0.5 * np.log(np.clip(square, _TINY, 1 - _TINY))))


@dataclass(frozen=True)
class Phase:
    """theta such that Lambda's phase is uniform in [0, largest): theta = log(phase)."""

    largest: float

    def __call__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Draws theta."""
        return np.asarray(np.log(self.largest * np.maximum(rng.uniform(0, 1, shape), _TINY)))


@dataclass(frozen=True)
class Normal:
    """A normal distribution around zero."""

    deviation: float

    def __call__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Draws numbers."""
        return self.deviation * rng.standard_normal(shape)


@dataclass(frozen=True)
class LRU(Recurrent):
    """A layer of linear recurrent units: a complex state with a diagonal recurrence.

        s_t = Lambda s_{t-1} + gamma (B x_t),    h_t = [Re s_t, Im s_t]
        Lambda = exp(-exp(nu) + i exp(theta)),   gamma = sqrt(1 - |Lambda|^2)

    The modulus of Lambda is below 1 whatever nu is, so the recurrence is stable. gamma keeps the
    state as large as the input; it is a function of nu, as in the recurrent trace units of Elelimy
    et al., and nu's gradient goes through it too. (Orvieto et al. start it there and train it by
    itself.)

    The outputs are the 2H real and imaginary parts. `Linear` above computes Re(C s_t), which is
    the published layer without its D x_t; `ReLU` and then `Linear` make the linear recurrent trace
    units of Elelimy et al. Between two layers there should be such a nonlinearity: of itself the
    layer is linear.

    The state of a unit depends on its own past and the input alone, so the traces that real-time
    recurrent learning needs are no larger than the parameters: source="diagonal" keeps

        e_B <- Lambda e_B + gamma x^T,    e_theta <- Lambda (e_theta + i exp(theta) s_{t-1})
        e_nu <- Lambda (e_nu - exp(nu) s_{t-1}) + gamma' B x_t,  gamma' = exp(nu) |Lambda|^2 / gamma

    Kept per step and sample: B x_t, its gradient and s (6 H numbers), or s alone (2 H) with
    `recompute`. Only the reference back end runs it.

    Args:
        inputs: I, features per step.
        hidden: H, complex units; the layer has 2H outputs.
        r_min, r_max: Lambda starts uniformly in the ring between these radii. For long sequences
            the paper draws near the circle: r_min=0.9, r_max=0.999, with max_phase=pi/10.
        max_phase: and with a phase uniform between 0 and this, in radians.

    Parameters: nu [H], theta [H], drawn so; weight_ih [2H, I] (the real rows of B, then the
    imaginary ones), normal with deviation 1/sqrt(2 I).

    Raises:
        InputError: a size below 1, or radii and phases out of range.

    Example:
        >>> LRU(28, 64).width(28)
        128

    References:
        Orvieto et al., "Resurrecting Recurrent Neural Networks for Long Sequences", ICML 2023.
        Elelimy, White, Bowling & White, "Real-Time Recurrent Learning using Trace Units in
        Reinforcement Learning", NeurIPS 2024.
    """

    inputs: int
    hidden: int
    r_min: float = field(default=0.0, kw_only=True)
    r_max: float = field(default=1.0, kw_only=True)
    max_phase: float = field(default=2 * math.pi, kw_only=True)
    sources = frozenset({"diagonal", "ostl"})
    adaptable = ()
    diagonal = ("nu", "theta")

    def __post_init__(self) -> None:
        take_sizes(self, "inputs", "hidden")
        radii = (self.r_min, self.r_max)
        if not all(is_number(r) for r in radii) or not 0 <= self.r_min < self.r_max <= 1:
            raise InputError(
                f"LRU: r_min is {self.r_min!r} and r_max {self.r_max!r}; "
                "give radii with 0 <= r_min < r_max <= 1"
            )
        if not is_number(self.max_phase) or not 0 < self.max_phase <= 2 * math.pi:
            raise InputError(
                f"LRU: max_phase is {self.max_phase!r}; give an angle above 0, at most 2 pi"
            )

    def parameters(self) -> Mapping[str, Parameter]:
        h, deviation = self.hidden, (2 * self.inputs) ** -0.5
        return {
            "nu": Parameter((h,), distribution=Ring(self.r_min, self.r_max)),
            "theta": Parameter((h,), distribution=Phase(self.max_phase)),
            "weight_ih": Parameter(
                (2 * h, self.inputs), distribution=Normal(deviation), by_columns=True
            ),
        }

    def width(self, inputs: int | None) -> int:
        check_fit(f"LRU({self.inputs}, {self.hidden})", self.inputs, inputs)
        return 2 * self.hidden

    def gates(self, e: Layout) -> Buffer:
        return e.gates("u", 2 * self.hidden)

    def sum_gradients(self, e: Layout) -> Buffer:
        return e.gates("du", 2 * self.hidden)  # apart from u, which the gradient of gamma needs

    def state(self, e: Layout) -> tuple[Buffer, ...]:
        return (e.history("h", 2 * self.hidden, carried=True),)

    def recompute_step(self, e: Layout, x: Ref) -> None:
        """Only B x: the state was kept."""
        e.emit("affine", [x, e.parameter("weight_ih").whole, None, None], [self.gates(e).at(0)])

    def forward_step(self, e: Layout, x: Ref, *, before: int) -> None:
        (h,) = self.state(e)
        u, weight_ih = self.gates(e).at(0), e.parameter("weight_ih").whole
        e.emit("affine", [x, weight_ih, None, None], [u])
        e.emit("lru_forward", [u, *self._eigenvalues(e), h.at(before)], [h.at(0)])

    def gradient_state(self, e: Layout) -> tuple[Buffer, ...]:
        return (e.rows("dh", 2 * self.hidden),)

    def backward_step(self, e: Layout, dx: Ref | None, start: Ref | None) -> None:
        du, dh = self.sum_gradients(e).at(0), self.gradient_state(e)[0].whole
        e.emit("lru_backward", [dh, *self._eigenvalues(e)], [du, dh])
        if dx is not None:
            e.emit("product", [du, e.parameter("weight_ih").whole, start], [dx])

    def sums(self, da: Ref) -> Mapping[str, Sequence[Part]]:
        return {"weight_ih": [(None, da)]}

    def diagonal_gradients(self, e: Layout, at: View, *, add: bool) -> None:
        u, du, before = at(self.gates(e), 0), at(self.sum_gradients(e), 0), at(self.state(e)[0], -1)
        for name, kind, rows in (
            ("nu", "lru_decay_gradient", [u, du, before]),
            ("theta", "lru_phase_gradient", [du, before]),
        ):
            gradient = e.gradient(name)
            if gradient is not None:
                start = gradient.whole if add else None
                e.emit(kind, [*rows, *self._eigenvalues(e), start], [gradient.whole])

    # -- diagonal RTRL; inside a layer OSTL is the same -------------------------------------------

    def _trace(self, e: Layout, name: str) -> Ref:
        """d s / d theta, complex; of weight_ih only by the real rows of B."""
        theta = e.parameter(name)
        return e.trace(f"h/{theta.name}", (2 * self.hidden, *theta.inner[1:])).whole

    def traces(self, e: Layout, source: str) -> None:
        for name in self.trained(e):
            self._trace(e, name)

    def trace_step(self, e: Layout, source: str, x: Ref) -> None:
        u, (before,) = self.gates(e).at(0), self.before(e)
        steps = {
            "nu": ("lru_decay_trace", [u, before]),
            "theta": ("lru_phase_trace", [before]),
            "weight_ih": ("lru_input_trace", [x]),
        }
        for name in self.trained(e):
            (kind, operands), trace = steps[name], self._trace(e, name)
            e.emit(kind, [trace, *operands, *self._eigenvalues(e)], [trace])

    def trace_gradients(self, e: Layout, source: str, x: Ref, dy: Ref, *, add: bool) -> None:
        for name in self.trained(e):
            gradient = e.gradient(name)
            assert gradient is not None
            kind = "lru_input_gradient" if name == "weight_ih" else "lru_unit_gradient"
            g = gradient.whole
            e.emit(kind, [dy, self._trace(e, name), g if add else None], [g])

    def spatial_gradient(self, e: Layout, y: Ref, dy: Ref, dx: Ref) -> None:
        du = self.sum_gradients(e).at(0)
        e.emit("lru_backward", [dy, *self._eigenvalues(e)], [du, dy])
        e.emit("product", [du, e.parameter("weight_ih").whole, None], [dx])

    def _eigenvalues(self, e: Layout) -> tuple[Ref, Ref]:
        return e.parameter("nu").whole, e.parameter("theta").whole
