"""The rectifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fptt.errors import InputError
from fptt.nets.layer import FeedForward, Layout

if TYPE_CHECKING:
    from fptt.program.ir import Buffer, Ref


@dataclass(frozen=True)
class ReLU(FeedForward):
    """y = max(x, 0); its gradient at 0 is 0.

    Example:
        >>> ReLU().width(7)
        7
    """

    in_place = True
    reads_output = True

    def width(self, inputs: int | None) -> int:
        if inputs is None:
            raise InputError("ReLU cannot take tokens; put Embedding below")
        return inputs

    def forward(self, e: Layout, x: Ref, y: Ref, *, training: bool) -> None:
        e.emit("relu", [x], [y])

    def input_gradient(self, e: Layout, y: Ref, dy: Ref, dx: Ref, start: Ref | None) -> None:
        # y stands in for x: max(x, 0) > 0 exactly where x > 0
        e.emit("relu_gradient", [y, dy, start], [dx])

    def tangent_step(
        self, e: Layout, x: Ref, y: Ref, theta: Buffer, own: str | None, below: Ref | None
    ) -> Ref:
        assert below is not None, "a rectifier has no parameters of its own"
        j = self.tangent_place(e, theta, below, y.inner[-1])
        e.emit("relu_tangent", [y, below], [j])
        return j
