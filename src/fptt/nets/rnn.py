"""The plain recurrent layer with tanh (Elman, 1990)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fptt.nets.layer import Layout, Parameter, Part, Recurrent, check_fit, take_sizes

if TYPE_CHECKING:
    from fptt.program.ir import Buffer, Ref


@dataclass(frozen=True)
class RNN(Recurrent):
    """A layer of tanh units.

        a_t = x_t W_ih^T + h_{t-1} W_hh^T + b,    h_t = tanh(a_t)

    Kept per step and sample: h, and the place of a, which later takes its gradient (2 H numbers);
    with `recompute` only h, for the backward step is written in h and needs no a.

    Args:
        inputs: I, features per step.
        hidden: H, units.

    Parameters: weight_ih [H, I], weight_hh [H, H], bias [H], drawn uniformly within 1/sqrt(H);
    the bias is the sum of two draws, as PyTorch's two biases are.

    Raises:
        InputError: a size below 1.

    Example:
        >>> RNN(3, 5).width(3)
        5
    """

    inputs: int
    hidden: int
    sources = frozenset({"rtrl", "ostl"})

    def __post_init__(self) -> None:
        take_sizes(self, "inputs", "hidden")

    def parameters(self) -> Mapping[str, Parameter]:
        h, bound = self.hidden, self.hidden**-0.5
        return {
            "weight_ih": Parameter((h, self.inputs), bound, by_columns=True),
            "weight_hh": Parameter((h, h), bound, by_columns=True),
            "bias": Parameter((h,), bound, draws=2),
        }

    def width(self, inputs: int | None) -> int:
        check_fit(f"RNN({self.inputs}, {self.hidden})", self.inputs, inputs)
        return self.hidden

    def gates(self, e: Layout) -> Buffer:
        return e.gates("a", self.hidden)

    def state(self, e: Layout) -> tuple[Buffer, ...]:
        return (e.history("h", self.hidden, carried=True),)

    def recompute_step(self, e: Layout, x: Ref) -> None:
        """Only z of adapters: the backward step needs h and not a."""
        for name, source in (("weight_ih", x), ("weight_hh", self.state(e)[0].at(-1))):
            if adapter := e.adapter(name):
                adapter.forward(e, source, adapter.z(e).at(0), ())

    def forward_step(self, e: Layout, x: Ref, *, before: int) -> None:
        a = self.gates(e).at(0)
        (h,) = self.state(e)
        weight_ih, weight_hh, bias = map(e.parameter, ("weight_ih", "weight_hh", "bias"))
        e.emit(
            "affine_sum", [x, weight_ih.whole, h.at(before), weight_hh.whole, bias.whole, None], [a]
        )
        self.forward_adapters(e, x, h.at(before))
        e.emit("rnn_forward", [a], [h.at(0)])

    def gradient_state(self, e: Layout) -> tuple[Buffer, ...]:
        return (e.rows("dh", self.hidden),)

    def backward_step(self, e: Layout, dx: Ref | None, start: Ref | None) -> None:
        a = self.gates(e).at(0)
        (h,) = self.state(e)
        dh = self.gradient_state(e)[0].whole
        e.emit("rnn_backward", [h.at(0), dh], [a])
        if dx is not None:
            e.emit("product", [a, e.parameter("weight_ih").whole, start], [dx])
        weight_hh = e.parameter("weight_hh").whole
        e.emit("product", [a, weight_hh, None], [dh], after_first=True)
        self.backward_adapters(e, dx)

    def tangent_step(
        self, e: Layout, x: Ref, y: Ref, theta: Buffer, own: str | None, below: Ref | None
    ) -> Ref:
        (j,) = (tangent.whole for tangent in self.tangents(e, theta))
        weight_hh = e.parameter("weight_hh").whole
        e.emit("rnn_tangent", [y, weight_hh, j, *self.tangent_operands(e, x, own, below)], [j])
        return j

    def spatial_gradient(self, e: Layout, y: Ref, dy: Ref, dx: Ref) -> None:
        a = self.gates(e).at(0)
        e.emit("rnn_backward", [y, dy], [a])
        e.emit("product", [a, e.parameter("weight_ih").whole, None], [dx])

    def sums(self, da: Ref) -> Mapping[str, Sequence[Part]]:
        return {name: [(None, da)] for name in ("weight_ih", "weight_hh", "bias")}
