"""What the layers of spiking neurons have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from fptt.checks import is_number
from fptt.errors import InputError
from fptt.nets.layer import Layout, Parameter, Part, Recurrent, check_fit, take_sizes

if TYPE_CHECKING:
    from fptt.program.ir import Buffer, Ref

SURROGATES = ("multi_gaussian", "triangle")


def decay_of(tau: float) -> float:
    """What is left after one step of what decays with a time constant of tau steps.

    Example:
        >>> round(decay_of(20.0), 4)
        0.9512
    """
    return math.exp(-1 / tau)


def take_positive(layer: object, *names: str, zero: bool = False) -> None:
    """Checks constants of a layer, and makes them Python's numbers."""
    for name in names:
        value = getattr(layer, name)
        if not is_number(value) or not (0 < value < math.inf or (zero and value == 0)):
            least = "of at least 0" if zero else "above 0"
            raise InputError(
                f"{type(layer).__name__}: {name} is {value!r}; give a finite number {least}"
            )
        object.__setattr__(layer, name, float(value))


def leaky_trace(e: Layout, state: str, name: str) -> Ref:
    """The trace of a leaky potential by a parameter: one number per input of its, 1 for a bias."""
    theta = e.parameter(name)
    return e.trace(f"{state}/{theta.name}", theta.inner[1:] or (1,)).whole


class Spiking(Recurrent):
    """A layer whose output z is 1 where a neuron spikes and 0 elsewhere.

    Subclasses are dataclasses with these fields and their own constants. Within a step the sum
    over inputs and spikes is the neuron's input current; its place takes the current's gradient.
    """

    spiking: ClassVar[bool] = True
    inputs: int
    surrogate: str
    gamma: float
    surrogate_width: float

    def __post_init__(self) -> None:
        take_sizes(self, "inputs", "hidden")
        take_positive(self, "gamma", "surrogate_width")
        if self.surrogate not in SURROGATES:
            raise InputError(
                f"{type(self).__name__}: surrogate is {self.surrogate!r}; choose one of "
                f"{', '.join(map(repr, SURROGATES))}"
            )

    def parameters(self) -> Mapping[str, Parameter]:
        h = self.hidden
        return {
            "weight_ih": Parameter((h, self.inputs), self.inputs**-0.5, by_columns=True),
            "weight_hh": Parameter((h, h), h**-0.5, by_columns=True),
            "bias": Parameter((h,), h**-0.5),
        }

    def width(self, inputs: int | None) -> int:
        check_fit(f"{type(self).__name__}({self.inputs}, {self.hidden})", self.inputs, inputs)
        return self.hidden

    @property
    def pseudo_derivative(self) -> dict[str, Any]:
        """The surrogate as attributes of an operation."""
        return {
            "surrogate": self.surrogate,
            "gamma": self.gamma,
            "width": self.surrogate_width,
        }

    def gates(self, e: Layout) -> Buffer:
        return e.gates("current", self.hidden)

    def recompute_step(self, e: Layout, x: Ref) -> None:
        """Only z of adapters: the backward step needs the state, which is kept, and no current."""
        for name, source in (("weight_ih", x), ("weight_hh", self.state(e)[0].at(-1))):
            if adapter := e.adapter(name):
                adapter.forward(e, source, adapter.z(e).at(0), ())

    def emit_current(self, e: Layout, x: Ref, z_before: Ref) -> Ref:
        """Writes the input current of one step."""
        current = self.gates(e).at(0)
        weight_ih, weight_hh, bias = map(e.parameter, ("weight_ih", "weight_hh", "bias"))
        e.emit(
            "affine_sum",
            [x, weight_ih.whole, z_before, weight_hh.whole, bias.whole, None],
            [current],
        )
        self.forward_adapters(e, x, z_before)
        return current

    def emit_below(self, e: Layout, dx: Ref | None, start: Ref | None, dz: Ref | None) -> None:
        """From the gradient of the current: that of the input, and of the spikes before.

        Args:
            e, dx, start: as in `backward_step`.
            dz: what the gradient of the spikes before is added to, or None.
        """
        dcurrent = self.sum_gradients(e).at(0)
        if dx is not None:
            e.emit("product", [dcurrent, e.parameter("weight_ih").whole, start], [dx])
        before = self.gradient_state(e)[0].whole
        weight_hh = e.parameter("weight_hh").whole
        e.emit("product", [dcurrent, weight_hh, dz], [before], after_first=True)
        self.backward_adapters(e, dx)

    def spatial_gradient(self, e: Layout, y: Ref, dy: Ref, dx: Ref) -> None:
        du = self.emit_spike_gradient(e, dy)
        e.emit("product", [du, e.parameter("weight_ih").whole, None], [dx])

    def emit_spike_gradient(self, e: Layout, dz: Ref) -> Ref:
        """Writes the gradient of the current through the spike of the present step alone."""
        raise NotImplementedError

    def sums(self, da: Ref) -> Mapping[str, Sequence[Part]]:
        return {name: [(None, da)] for name in ("weight_ih", "weight_hh", "bias")}
