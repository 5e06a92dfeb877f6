"""Leaky integrator: what reads spikes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

from fptt.nets.layer import Layer, Layout, Parameter, Part, Recurrent, check_fit, take_sizes
from fptt.nets.linear import Linear
from fptt.nets.spiking import Spiking, decay_of, leaky_trace, take_positive

if TYPE_CHECKING:
    from fptt.program.ir import Buffer, Ref


@dataclass(frozen=True)
class LeakyIntegrator(Recurrent):
    """Neurons that integrate and never spike: the output layer of a spiking network.

        y_t = decay y_{t-1} + x_t W_ih^T + b,     decay = exp(-1 / tau)

    The output is the potential y_t itself, in which the evidence of about tau steps has gathered:
    the spikes of the last step alone say little. Kept per step and sample: y, and the gradient of
    the sum (2 O numbers); with `recompute` only y. Runs in the reference back end.

    Gradients forwards in time are exact inside the layer, and the same by every source that it
    serves: dL/dW_ih = sum_t (dL/dy_t)^T eps_t with eps_t = decay eps_{t-1} + x_t, one number per
    input and row.

    Args:
        inputs: I, features per step, such as the spikes of the layer below.
        outputs: O.
        tau: time constant, in steps.

    Parameters: weight_ih [O, I] and bias [O], uniform within 1/sqrt(I).

    Raises:
        InputError: a size below 1, or tau not above 0.

    Example:
        >>> LeakyIntegrator(128, 10).width(128)
        10

    Reference: Bellec et al., "A solution to the learning dilemma for recurrent networks of spiking
    neurons", Nature Communications 2020 (there with kappa for decay).
    """

    inputs: int
    outputs: int
    _: KW_ONLY
    tau: float = 20.0
    sources = frozenset({"diagonal", "eprop", "ostl"})
    adaptable = ("weight_ih",)

    def __post_init__(self) -> None:
        take_sizes(self, "inputs", "outputs")
        take_positive(self, "tau")

    @property
    def decay(self) -> float:
        """What is left of the potential after one step."""
        return decay_of(self.tau)

    def parameters(self) -> Mapping[str, Parameter]:
        bound = self.inputs**-0.5
        return {
            "weight_ih": Parameter((self.outputs, self.inputs), bound, by_columns=True),
            "bias": Parameter((self.outputs,), bound),
        }

    def width(self, inputs: int | None) -> int:
        check_fit(f"LeakyIntegrator({self.inputs}, {self.outputs})", self.inputs, inputs)
        return self.outputs

    def gates(self, e: Layout) -> Buffer:
        return e.gates("current", self.outputs)

    def state(self, e: Layout) -> tuple[Buffer, ...]:
        return (e.history("y", self.outputs, carried=True),)

    def recompute_step(self, e: Layout, x: Ref) -> None:
        """Only z of the adapter: the backward step needs nothing of the forward step."""
        if adapter := e.adapter("weight_ih"):
            adapter.forward(e, x, adapter.z(e).at(0), ())

    def forward_step(self, e: Layout, x: Ref, *, before: int) -> None:
        current = self.gates(e).at(0)
        (y,) = self.state(e)
        weight, bias = e.parameter("weight_ih").whole, e.parameter("bias").whole
        e.emit("affine", [x, weight, bias, None], [current])
        self.forward_adapters(e, x, y.at(before))
        e.emit("leaky_forward", [current, y.at(before)], [y.at(0)], decay=self.decay)

    def gradient_state(self, e: Layout) -> tuple[Buffer, ...]:
        return (e.rows("dh", self.outputs),)

    def backward_step(self, e: Layout, dx: Ref | None, start: Ref | None) -> None:
        dcurrent = self.sum_gradients(e).at(0)
        dy = self.gradient_state(e)[0].whole
        e.emit("leaky_backward", [dy], [dcurrent, dy], decay=self.decay)
        if dx is not None:
            e.emit("product", [dcurrent, e.parameter("weight_ih").whole, start], [dx])
        self.backward_adapters(e, dx)

    # -- forwards in time: a filter of the input --------------------------------------------------

    def traces(self, e: Layout, source: str) -> None:
        for name in self.trained(e):
            leaky_trace(e, "y", name)

    def keep_state(self, e: Layout) -> None:
        """Nothing: the trace needs no state."""

    def trace_step(self, e: Layout, source: str, x: Ref) -> None:
        for name in self.trained(e):
            eps = leaky_trace(e, "y", name)
            e.emit(
                "leaky_trace", [eps, x if name == "weight_ih" else None], [eps], decay=self.decay
            )

    def trace_gradients(self, e: Layout, source: str, x: Ref, dy: Ref, *, add: bool) -> None:
        for name in self.trained(e):
            gradient = e.gradient(name)
            assert gradient is not None
            g = gradient.whole
            operands = [dy, leaky_trace(e, "y", name), g if add else None]
            e.emit("leaky_trace_gradient", operands, [g])

    def spatial_gradient(self, e: Layout, y: Ref, dy: Ref, dx: Ref) -> None:
        e.emit("product", [dy, e.parameter("weight_ih").whole, None], [dx])

    def sums(self, da: Ref) -> Mapping[str, Sequence[Part]]:
        return {name: [(None, da)] for name in ("weight_ih", "bias")}


def top_layer(cells: Layer, inputs: int, outputs: int) -> Layer:
    """What usually reads out above a layer of cells: `Linear`, or for spikes a `LeakyIntegrator`.

    Example:
        >>> from fptt.nets import LIF
        >>> top_layer(LIF(1, 64), 64, 10)
        LeakyIntegrator(inputs=64, outputs=10, tau=20.0)
    """
    return (LeakyIntegrator if isinstance(cells, Spiking) else Linear)(inputs, outputs)
