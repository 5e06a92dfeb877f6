"""The fully connected layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fptt.nets.layer import FeedForward, Layout, Parameter, check_fit, take_sizes

if TYPE_CHECKING:
    from fptt.program.ir import Ref


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

    def parameter_gradients(self, e: Layout, x: Ref, dy: Ref, *, accumulate: bool) -> None:
        if gradient := e.gradient("weight"):
            e.emit(
                "weight_gradient", [dy, x, gradient.whole if accumulate else None], [gradient.whole]
            )
        if gradient := e.gradient("bias"):
            e.emit("bias_gradient", [dy, gradient.whole if accumulate else None], [gradient.whole])

    def input_gradient(self, e: Layout, y: Ref, dy: Ref, dx: Ref, start: Ref | None) -> None:
        e.emit("product", [dy, e.parameter("weight").whole, start], [dx])
