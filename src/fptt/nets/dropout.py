"""Dropout with a mask that is computed, not stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fptt.checks import is_number
from fptt.errors import InputError
from fptt.nets.layer import FeedForward, Layout

if TYPE_CHECKING:
    from fptt.program.ir import Buffer, Ref


@dataclass(frozen=True)
class Dropout(FeedForward):
    """y = x mask / (1 - p) in training, y = x in inference.

    The mask comes from a counter-based generator (Philox4x32-10, Salmon et al., 2011) whose
    counter is (element, row, step, sequence) and whose key is (seed, layer), so the backward pass
    computes it again and no memory holds it.

    Args:
        p: probability that an element is set to zero, 0 <= p < 1.

    Raises:
        InputError: p outside [0, 1).

    Example:
        >>> Dropout(0.5)
        Dropout(p=0.5)
    """

    p: float = 0.5
    in_place = True
    random = True

    def __post_init__(self) -> None:
        if not is_number(self.p) or not 0 <= self.p < 1:
            raise InputError(f"Dropout: p is {self.p!r}; give a probability with 0 <= p < 1")

    def width(self, inputs: int | None) -> int:
        if inputs is None:
            raise InputError("Dropout cannot take tokens; put Embedding below")
        return inputs

    def forward(self, e: Layout, x: Ref, y: Ref, *, training: bool) -> None:
        if training:
            self._masked(e, x, y, None)
        elif x != y:
            e.emit("copy", [x], [y])

    def input_gradient(self, e: Layout, y: Ref, dy: Ref, dx: Ref, start: Ref | None) -> None:
        self._masked(e, dy, dx, start)

    def tangent_step(
        self, e: Layout, x: Ref, y: Ref, theta: Buffer, own: str | None, below: Ref | None
    ) -> Ref:
        assert below is not None, "dropout has no parameters of its own"
        j, random = self.tangent_place(e, theta, below, y.inner[-1]), e.random_state.whole
        e.emit("dropout_tangent", [below, random], [j], p=float(self.p), layer=e.index)
        return j

    def _masked(self, e: Layout, x: Ref, y: Ref, start: Ref | None) -> None:
        e.emit("dropout", [x, e.random_state.whole, start], [y], p=float(self.p), layer=e.index)
