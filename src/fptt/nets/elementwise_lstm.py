"""An LSTM whose gates see no unit's state but their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fptt.nets.layer import Layout, Parameter, Part, Recurrent, View, check_fit, take_sizes

if TYPE_CHECKING:
    from fptt.program.ir import Buffer, Ref


@dataclass(frozen=True)
class ElementwiseLSTM(Recurrent):
    """A layer of LSTM cells with element-wise recurrence.

        a_t = x_t W_ih^T + w_hh [h_{t-1} h_{t-1} h_{t-1} h_{t-1}] + b,    a = [a_i a_f a_g a_o]
        i, f, o = sigmoid(a_i, a_f, a_o),   g = tanh(a_g)
        c_t = f c_{t-1} + i g,   h_t = o tanh(c_t)

    It is `LSTM` with the diagonals of the four recurrent matrices in the place of the matrices, so
    a unit's state depends on its own past and the input alone. Therefore the traces that real-time
    recurrent learning needs (source="diagonal") are two numbers per parameter and row, the
    derivatives of its unit's h and c. The cell called eLSTM in the
    reference is a relative: it has the tied gates f and 1 - f, sees c_{t-1} in the place of
    h_{t-1}, and its output gate mixes units.

    Kept per step and sample: the four gates, c and h (6 H numbers), or c and h (2 H) with
    `recompute`. Only the reference back end runs it.

    Args:
        inputs: I, features per step.
        hidden: H, cells.

    Parameters: weight_ih [4H, I], weight_hh [4H] (the diagonals, gates i, f, g, o), bias [4H],
    drawn uniformly within 1/sqrt(H); the bias is the sum of two draws, as that of `LSTM` is.

    Raises:
        InputError: a size below 1.

    Example:
        >>> ElementwiseLSTM(28, 128).parameters()["weight_hh"].shape
        (512,)

    Reference:
        Irie, Gopalakrishnan & Schmidhuber, "Exploring the Promise and Limits of Real-Time Recurrent
        Learning", ICLR 2024 (arXiv 2305.19044).
    """

    inputs: int
    hidden: int
    sources = frozenset({"diagonal", "ostl"})
    adaptable = ()
    diagonal = ("weight_hh",)

    def __post_init__(self) -> None:
        take_sizes(self, "inputs", "hidden")

    def parameters(self) -> Mapping[str, Parameter]:
        h, bound = self.hidden, self.hidden**-0.5
        return {
            "weight_ih": Parameter((4 * h, self.inputs), bound, by_columns=True),
            "weight_hh": Parameter((4 * h,), bound),
            "bias": Parameter((4 * h,), bound, draws=2),
        }

    def width(self, inputs: int | None) -> int:
        check_fit(f"ElementwiseLSTM({self.inputs}, {self.hidden})", self.inputs, inputs)
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
        weight_ih, weight_hh, bias = (
            e.parameter(name).whole for name in ("weight_ih", "weight_hh", "bias")
        )
        e.emit("affine", [x, weight_ih, bias, None], [gates])
        e.emit("diagonal_sum", [gates, weight_hh, h.at(before)], [gates])
        e.emit("lstm_forward", [gates, c.at(before)], [gates, c.at(0), h.at(0)])

    def gradient_state(self, e: Layout) -> tuple[Buffer, ...]:
        return e.rows("dh", self.hidden), e.rows("dc", self.hidden)

    def backward_step(self, e: Layout, dx: Ref | None, start: Ref | None) -> None:
        gates = self.gates(e).at(0)
        _, c = self.state(e)
        dh, dc = (buffer.whole for buffer in self.gradient_state(e))
        e.emit("lstm_backward", [gates, c.at(-1), c.at(0), dh, dc], [gates, dc])
        if dx is not None:
            e.emit("product", [gates, e.parameter("weight_ih").whole, start], [dx])
        weight_hh = e.parameter("weight_hh").whole
        e.emit("diagonal_product", [gates, weight_hh], [dh], after_first=True)

    def sums(self, da: Ref) -> Mapping[str, Sequence[Part]]:
        return {name: [(None, da)] for name in ("weight_ih", "bias")}

    def diagonal_gradients(self, e: Layout, at: View, *, add: bool) -> None:
        gradient = e.gradient("weight_hh")
        if gradient is not None:
            start = gradient.whole if add else None
            operands = [at(self.gates(e), 0), at(self.state(e)[0], -1), start]
            e.emit("diagonal_gradient", operands, [gradient.whole])

    # -- diagonal RTRL; inside a layer OSTL is the same -------------------------------------------

    def _traces(self, e: Layout, name: str) -> tuple[Ref, Ref]:
        """d h / d theta and d c / d theta."""
        theta = e.parameter(name)
        inner = (4 * self.hidden, *(theta.inner[1:] or (1,)))
        of_h, of_c = (e.trace(f"{state}/{theta.name}", inner).whole for state in "hc")
        return of_h, of_c

    def traces(self, e: Layout, source: str) -> None:
        for name in self.trained(e):
            self._traces(e, name)

    def trace_step(self, e: Layout, source: str, x: Ref) -> None:
        h_before, c_before = self.before(e)
        of_step = [self.gates(e).at(0), c_before, self.state(e)[1].at(0)]
        v = e.parameter("weight_hh").whole
        factors = {"weight_ih": (x, None), "weight_hh": (None, h_before), "bias": (None, None)}
        for name in self.trained(e):
            traces = self._traces(e, name)
            operands = [*of_step, v, *traces, *factors[name]]
            e.emit("elementwise_lstm_trace", operands, list(traces))

    def trace_gradients(self, e: Layout, source: str, x: Ref, dy: Ref, *, add: bool) -> None:
        for name in self.trained(e):
            gradient = e.gradient(name)
            assert gradient is not None
            (of_h, _), g = self._traces(e, name), gradient.whole
            e.emit("elementwise_lstm_gradient", [dy, of_h, g if add else None], [g])

    def spatial_gradient(self, e: Layout, y: Ref, dy: Ref, dx: Ref) -> None:
        gates = self.gates(e).at(0)
        c_before, c = self.before(e)[1], self.state(e)[1].at(0)
        dc = self.gradient_state(e)[1].whole
        e.emit("fill", [], [dc], value=0.0)
        e.emit("lstm_backward", [gates, c_before, c, dy, dc], [gates, dc])
        e.emit("product", [gates, e.parameter("weight_ih").whole, None], [dx])
