"""The fully connected layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fptt.nets.layer import FeedForward, Layout, Parameter, check_fit, emit_gradients, take_sizes

if TYPE_CHECKING:
    from fptt.program.ir import Buffer, Ref


@dataclass(frozen=True)
class Linear(FeedForward):
    """y = x W^T + b.

    Args:
        inputs: I, width of x.
        outputs: C, width of y.

    Parameters: weight [C, I], bias [C], drawn uniformly within 1/sqrt(I), as PyTorch does.

    Raises:
        InputError: a size below 1.

    Example:
        >>> Linear(128, 10).parameters()["weight"].shape
        (10, 128)
    """

    inputs: int
    outputs: int
    adaptable = ("weight",)

    def __post_init__(self) -> None:
        take_sizes(self, "inputs", "outputs")

    def parameters(self) -> Mapping[str, Parameter]:
        bound = self.inputs**-0.5
        return {
            "weight": Parameter((self.outputs, self.inputs), bound),
            "bias": Parameter((self.outputs,), bound),
        }

    def width(self, inputs: int | None) -> int:
        check_fit(f"Linear({self.inputs}, {self.outputs})", self.inputs, inputs)
        return self.outputs

    def forward(self, e: Layout, x: Ref, y: Ref, *, training: bool) -> None:
        e.emit("affine", [x, e.parameter("weight").whole, e.parameter("bias").whole, None], [y])
        if adapter := e.adapter("weight"):
            adapter.forward(e, x, e.like("weight.z", adapter.rank, y), [(None, y)])

    def parameter_gradients(self, e: Layout, x: Ref, dy: Ref, *, accumulate: bool) -> None:
        emit_gradients(e, "weight", [(None, dy)], x, add=accumulate)
        emit_gradients(e, "bias", [(None, dy)], None, add=accumulate)
        if adapter := e.adapter("weight"):
            z = e.output_like("weight.z", adapter.rank, in_loop=accumulate)
            dz = e.like("weight.dz", adapter.rank, dy)
            adapter.between(e, [(None, dy)], dz)
            emit_gradients(e, "weight.up", [(None, dy)], z, add=accumulate)
            emit_gradients(e, "weight.down", [(None, dz)], x, add=accumulate)

    def input_gradient(self, e: Layout, y: Ref, dy: Ref, dx: Ref, start: Ref | None) -> None:
        e.emit("product", [dy, e.parameter("weight").whole, start], [dx])
        if adapter := e.adapter("weight"):
            adapter.below(e, e.like("weight.dz", adapter.rank, dy), dx)

    def tangent_step(
        self, e: Layout, x: Ref, y: Ref, theta: Buffer, own: str | None, below: Ref | None
    ) -> Ref:
        j = e.tangent(theta, self.outputs).whole
        if own:
            e.emit("weight_tangent", [x if own == "weight" else None], [j])
        else:
            e.emit("affine_tangent", [e.parameter("weight").whole, below], [j])
        return j
