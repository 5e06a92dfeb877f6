"""The table that turns tokens into vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fptt.errors import InputError
from fptt.nets.layer import FeedForward, Layout, Parameter, take_sizes

if TYPE_CHECKING:
    from fptt.program.ir import Buffer, Ref


@dataclass(frozen=True)
class Embedding(FeedForward):
    """y = W[token]; only as the first layer, with whole numbers as the network's input.

    Args:
        tokens: V, size of the vocabulary.
        outputs: E, width of a token's vector.

    Parameters: weight [V, E], drawn from the standard normal distribution, as PyTorch does.

    Raises:
        InputError: a size below 1, or a layer below.

    Example:
        >>> Embedding(65, 16).parameters()["weight"].shape
        (65, 16)
    """

    tokens: int
    outputs: int
    adds_gradients = True

    def __post_init__(self) -> None:
        take_sizes(self, "tokens", "outputs")

    def parameters(self) -> Mapping[str, Parameter]:
        return {"weight": Parameter((self.tokens, self.outputs), None, by_columns=False)}

    def width(self, inputs: int | None) -> int:
        if inputs is not None:
            raise InputError("Embedding takes the tokens themselves; make it the first layer")
        return self.outputs

    def forward(self, e: Layout, x: Ref, y: Ref, *, training: bool) -> None:
        e.emit("embedding", [e.parameter("weight").whole, x], [y])

    def parameter_gradients(self, e: Layout, x: Ref, dy: Ref, *, accumulate: bool) -> None:
        if gradient := e.gradient("weight"):
            e.emit("embedding_gradient", [x, dy, gradient.whole], [gradient.whole])

    def tangent_step(
        self, e: Layout, x: Ref, y: Ref, theta: Buffer, own: str | None, below: Ref | None
    ) -> Ref:
        j = e.tangent(theta, self.outputs).whole
        e.emit("embedding_tangent", [x], [j])
        return j
