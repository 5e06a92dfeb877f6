"""Long short-term memory (Hochreiter & Schmidhuber, 1997), with PyTorch's gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fptt.nets.layer import Layout, Parameter, Part, Recurrent, check_fit, take_sizes

if TYPE_CHECKING:
    from fptt.program.ir import Buffer, Ref


@dataclass(frozen=True)
class LSTM(Recurrent):
    """A layer of LSTM cells.

        a_t = x_t W_ih^T + h_{t-1} W_hh^T + b,    a = [a_i a_f a_g a_o]
        i, f, o = sigmoid(a_i, a_f, a_o),   g = tanh(a_g)
        c_t = f c_{t-1} + i g,   h_t = o tanh(c_t)

    Kept for the backward pass, per step and sample: the four gates, c and h (6 H numbers); c and h
    (2 H) where the gates are computed again. tanh(c) always is, and the gates' memory then takes
    the gradient of a.

    Args:
        inputs: I, features per step.
        hidden: H, cells.

    Parameters: weight_ih [4H, I], weight_hh [4H, H], bias [4H], drawn uniformly within
    1/sqrt(H); the bias is the sum of two draws because PyTorch adds two biases.

    Raises:
        InputError: a size below 1.

    Example:
        >>> LSTM(28, 128).parameters()["weight_hh"].shape
        (512, 128)
    """

    inputs: int
    hidden: int
    sources = frozenset({"rtrl", "ostl", "eprop"})

    def __post_init__(self) -> None:
        take_sizes(self, "inputs", "hidden")

    def parameters(self) -> Mapping[str, Parameter]:
        h, bound = self.hidden, self.hidden**-0.5
        return {
            "weight_ih": Parameter((4 * h, self.inputs), bound, by_columns=True),
            "weight_hh": Parameter((4 * h, h), bound, by_columns=True),
            "bias": Parameter((4 * h,), bound, draws=2),
        }

    def width(self, inputs: int | None) -> int:
        check_fit(f"LSTM({self.inputs}, {self.hidden})", self.inputs, inputs)
        return self.hidden

    def gates(self, e: Layout) -> Buffer:
        return e.gates("gates", 4 * self.hidden)

    def state(self, e: Layout) -> tuple[Buffer, ...]:
        return (
            e.history("h", self.hidden, carried=True),
            e.history("c", self.hidden, carried=True),
        )

    def forward_step(self, e: Layout, x: Ref, *, before: int) -> None:
        gates = self.gates(e).at(0)
        h, c = self.state(e)
        weight_ih, weight_hh, bias = map(e.parameter, ("weight_ih", "weight_hh", "bias"))
        e.emit(
            "affine_sum",
            [x, weight_ih.whole, h.at(before), weight_hh.whole, bias.whole, None],
            [gates],
        )
        self.forward_adapters(e, x, h.at(before))
        e.emit("lstm_forward", [gates, c.at(before)], [gates, c.at(0), h.at(0)])

    def gradient_state(self, e: Layout) -> tuple[Buffer, ...]:
        return e.rows("dh", self.hidden), e.rows("dc", self.hidden)

    def backward_step(self, e: Layout, dx: Ref | None, start: Ref | None) -> None:
        gates = self.gates(e).at(0)
        c = e.history("c", self.hidden, carried=True)
        dh, dc = (buffer.whole for buffer in self.gradient_state(e))
        e.emit("lstm_backward", [gates, c.at(-1), c.at(0), dh, dc], [gates, dc])
        if dx is not None:
            e.emit("product", [gates, e.parameter("weight_ih").whole, start], [dx])
        weight_hh = e.parameter("weight_hh").whole
        e.emit("product", [gates, weight_hh, None], [dh], after_first=True)
        self.backward_adapters(e, dx)

    def tangent_step(
        self, e: Layout, x: Ref, y: Ref, theta: Buffer, own: str | None, below: Ref | None
    ) -> Ref:
        jh, jc = (tangent.whole for tangent in self.tangents(e, theta))
        c_before, c = self.before(e)[1], self.state(e)[1].at(0)
        operands = self.tangent_operands(e, x, own, below)
        e.emit(
            "lstm_tangent",
            [
                self.gates(e).at(0),
                c_before,
                c,
                e.parameter("weight_hh").whole,
                jh,
                jc,
                *operands,
            ],
            [jh, jc],
        )
        return jh

    def spatial_gradient(self, e: Layout, y: Ref, dy: Ref, dx: Ref) -> None:
        gates = self.gates(e).at(0)
        c_before, c = self.before(e)[1], self.state(e)[1].at(0)
        dc = self.gradient_state(e)[1].whole
        e.emit("fill", [], [dc], value=0.0)
        e.emit("lstm_backward", [gates, c_before, c, dy, dc], [gates, dc])
        e.emit("product", [gates, e.parameter("weight_ih").whole, None], [dx])

    # -- e-prop: the traces of c alone, one number per weight of the gates i, f, g ---------------

    def _eprop_trace(self, e: Layout, name: str) -> Ref:
        columns = e.parameter(name).inner[1:] or (1,)
        return e.trace(f"c/{e.parameter(name).name}", (3 * self.hidden, *columns)).whole

    def traces(self, e: Layout, source: str) -> None:
        if source != "eprop":
            super().traces(e, source)
            return
        for name in self.trained(e):
            self._eprop_trace(e, name)

    def trace_step(self, e: Layout, source: str, x: Ref) -> None:
        if source != "eprop":
            super().trace_step(e, source, x)
            return
        gates, c_before = self.gates(e).at(0), self.before(e)[1]
        for name in self.trained(e):
            eps, operand = self._eprop_trace(e, name), self.multiplied(e, x).get(name)
            e.emit("lstm_eprop_trace", [gates, c_before, operand, eps], [eps])

    def trace_gradients(self, e: Layout, source: str, x: Ref, dy: Ref, *, add: bool) -> None:
        if source != "eprop":
            super().trace_gradients(e, source, x, dy, add=add)
            return
        gates, c = self.gates(e).at(0), self.state(e)[1].at(0)
        for name in self.trained(e):
            gradient = e.gradient(name)
            assert gradient is not None
            eps, operand = self._eprop_trace(e, name), self.multiplied(e, x).get(name)
            g = gradient.whole
            e.emit("lstm_eprop_gradient", [gates, c, dy, operand, eps, g if add else None], [g])

    def sums(self, da: Ref) -> Mapping[str, Sequence[Part]]:
        return {name: [(None, da)] for name in ("weight_ih", "weight_hh", "bias")}
