"""Gated recurrent unit (Cho et al., 2014), in the variant that PyTorch and cuDNN compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fptt.nets.layer import Layout, Parameter, Part, Recurrent, check_fit, take_sizes

if TYPE_CHECKING:
    from fptt.program.ir import Buffer, Ref


@dataclass(frozen=True)
class GRU(Recurrent):
    """A layer of GRU cells.

        r, z = sigmoid(x W_ir^T + b_ir + h W_hr^T + b_hr),   the same with z
        q    = h_{t-1} W_hn^T + b_hn
        n    = tanh(x W_in^T + b_in + r q)
        h_t  = (1 - z) n + z h_{t-1}

    Because r multiplies the recurrent half of n, the two biases of n are not interchangeable, and
    both are kept. Kept per step and sample: r, z, n, q and h (5 H numbers), or h alone where the
    gates are computed again; in the backward pass the places of r, z, n, q take the gradients of
    the four sums.

    Args:
        inputs: I, features per step.
        hidden: H, cells.

    Parameters: weight_ih [3H, I], weight_hh [3H, H], bias_ih [3H], bias_hh [3H] (gates r, z, n),
    drawn uniformly within 1/sqrt(H).

    Raises:
        InputError: a size below 1.

    Example:
        >>> sorted(GRU(3, 5).parameters())
        ['bias_hh', 'bias_ih', 'weight_hh', 'weight_ih']
    """

    inputs: int
    hidden: int
    sources = frozenset({"rtrl", "ostl"})

    def __post_init__(self) -> None:
        take_sizes(self, "inputs", "hidden")

    def parameters(self) -> Mapping[str, Parameter]:
        h, bound = self.hidden, self.hidden**-0.5
        return {
            "weight_ih": Parameter((3 * h, self.inputs), bound, by_columns=True),
            "weight_hh": Parameter((3 * h, h), bound, by_columns=True),
            "bias_ih": Parameter((3 * h,), bound),
            "bias_hh": Parameter((3 * h,), bound),
        }

    def width(self, inputs: int | None) -> int:
        check_fit(f"GRU({self.inputs}, {self.hidden})", self.inputs, inputs)
        return self.hidden

    def gates(self, e: Layout) -> Buffer:
        return e.gates("gates", 4 * self.hidden)

    def state(self, e: Layout) -> tuple[Buffer, ...]:
        return (e.history("h", self.hidden, carried=True),)

    def _halves(self, e: Layout, name: str) -> tuple[Ref, Ref]:
        """A recurrent parameter's rows for (r, z) and for n: their sums lie in different places."""
        whole = e.parameter(name).whole
        return whole.rows(0, 2 * self.hidden), whole.rows(2 * self.hidden, 3 * self.hidden)

    def forward_step(self, e: Layout, x: Ref, *, before: int) -> None:
        h_size = self.hidden
        gates = self.gates(e).at(0)
        rzn, rz, q = (
            gates.cols(0, 3 * h_size),
            gates.cols(0, 2 * h_size),
            gates.cols(3 * h_size, 4 * h_size),
        )
        (h,) = self.state(e)
        weight_rz, weight_n = self._halves(e, "weight_hh")
        bias_rz, bias_n = self._halves(e, "bias_hh")
        e.emit(
            "affine", [x, e.parameter("weight_ih").whole, e.parameter("bias_ih").whole, None], [rzn]
        )
        e.emit("affine", [h.at(before), weight_rz, bias_rz, rz], [rz])
        e.emit("affine", [h.at(before), weight_n, bias_n, None], [q])
        self.forward_adapters(e, x, h.at(before))
        e.emit("gru_forward", [gates, h.at(before)], [gates, h.at(0)])

    def gradient_state(self, e: Layout) -> tuple[Buffer, ...]:
        return (e.rows("dh", self.hidden),)

    def backward_step(self, e: Layout, dx: Ref | None, start: Ref | None) -> None:
        h_size = self.hidden
        gates = self.gates(e).at(0)
        (h,) = self.state(e)
        dh = self.gradient_state(e)[0].whole
        weight_rz, weight_n = self._halves(e, "weight_hh")
        e.emit("gru_backward", [gates, h.at(-1), dh], [gates, dh])
        if dx is not None:
            e.emit(
                "product", [gates.cols(0, 3 * h_size), e.parameter("weight_ih").whole, start], [dx]
            )
        d_rz, d_q = gates.cols(0, 2 * h_size), gates.cols(3 * h_size, 4 * h_size)
        e.emit("product", [d_rz, weight_rz, dh], [dh], after_first=True)
        e.emit("product", [d_q, weight_n, dh], [dh], after_first=True)
        self.backward_adapters(e, dx)

    def tangent_step(
        self, e: Layout, x: Ref, y: Ref, theta: Buffer, own: str | None, below: Ref | None
    ) -> Ref:
        (j,) = (tangent.whole for tangent in self.tangents(e, theta))
        (h_before,) = self.before(e)
        operands = self.tangent_operands(e, x, own, below)
        e.emit(
            "gru_tangent",
            [self.gates(e).at(0), h_before, e.parameter("weight_hh").whole, j, *operands],
            [j],
            recurrent=own in ("weight_hh", "bias_hh"),
        )
        return j

    def spatial_gradient(self, e: Layout, y: Ref, dy: Ref, dx: Ref) -> None:
        gates, (h_before,) = self.gates(e).at(0), self.before(e)
        e.emit("gru_backward", [gates, h_before, dy], [gates, dy])
        by_input = gates.cols(0, 3 * self.hidden)
        e.emit("product", [by_input, e.parameter("weight_ih").whole, None], [dx])

    def sums(self, da: Ref) -> Mapping[str, Sequence[Part]]:
        h_size = self.hidden
        rz, rzn = da.cols(0, 2 * h_size), da.cols(0, 3 * h_size)
        q = da.cols(3 * h_size, 4 * h_size)
        recurrent: Sequence[Part] = [((0, 2 * h_size), rz), ((2 * h_size, 3 * h_size), q)]
        return {
            "weight_ih": [(None, rzn)],
            "weight_hh": recurrent,
            "bias_ih": [(None, rzn)],
            "bias_hh": recurrent,
        }
