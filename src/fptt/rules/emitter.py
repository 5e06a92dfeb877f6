"""What a learning rule may ask of the program that it is being written into."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fptt.nets.layer import Layout
    from fptt.nets.tracing import Tracing
    from fptt.program.ir import Buffer, Ref


class Emitter(Protocol):
    """The part of the builder that rules, losses and optimizers see."""

    @property
    def trained(self) -> Sequence[tuple[str, Buffer, Buffer]]:
        """Name, parameter and gradient of everything that trains."""

    #: dtype of scalars that steer the update; never below float32
    control_dtype: str

    @property
    def noise(self) -> Ref | None:
        """Seed and number of the update, where bfloat16 is rounded at random; otherwise None."""

    def buffer(
        self,
        name: str,
        inner: tuple[int, ...],
        role: str,
        *,
        dtype: str | None = None,
        batch: bool = False,
    ) -> Buffer:
        """Declares a buffer, or finds the one of this name."""

    def companion(self, prefix: str, theta: Buffer, role: str) -> Buffer:
        """A buffer of a parameter's shape and layout, named "prefix/parameter"."""

    def emit(
        self,
        kind: str,
        inputs: Sequence[Ref | None],
        outputs: Sequence[Ref | None],
        *,
        after_first: bool = False,
        first_only: bool = False,
        **attrs: object,
    ) -> None:
        """Appends one operation to the routine that is being written.

        In a loop, one with `after_first` runs only at the steps after the first one of a part, one
        with `first_only` only at that.
        """


class SourceEmitter(Emitter, Protocol):
    """What a gradient source sees besides: the network's steps, forwards and backwards."""

    def loop(self, *, reverse: bool = False) -> AbstractContextManager[None]:
        """Operations emitted inside are repeated for the steps of the part."""

    def forward_layers(self) -> None:
        """One step of all layers up to the last recurrent one, histories kept."""

    def start_gradients(self) -> None:
        """Zero where gradients add up."""

    def backward_layers(self) -> None:
        """One step back through the same layers."""

    def recurrent_gradients(self) -> None:
        """The parameter gradients of recurrent layers, as products over all steps."""


@dataclass(frozen=True)
class TracedLayer:
    """A layer of the body as a forward-mode source sees it, with the places of the present step.

    Attributes:
        index: its number in the network.
        layer, layout: the layer, and its view of the program.
        x, y: its input and its output.
        dy: where the gradient of its output lies.
        dx: where that of its input goes, None where nothing below trains.
    """

    index: int
    layer: Tracing
    layout: Layout
    x: Ref
    y: Ref
    dy: Ref
    dx: Ref | None


class TraceEmitter(Emitter, Protocol):
    """What a forward-mode gradient source sees besides: the present step of the network."""

    @property
    def layers(self) -> Sequence[TracedLayer]:
        """The body from the lowest layer that trains upwards."""

    @property
    def loss_in_loop(self) -> bool:
        """Whether every step has a loss, which is then computed inside the loop."""

    def begin_step(self) -> None:
        """Copies of what the step overwrites; at a part's first step, zero where sums begin."""

    def forward_layers(self) -> None:
        """One step of all layers up to the last recurrent one."""

    def step_loss(self) -> None:
        """The head and its loss at this step, back to the gradient of the body's output."""

    def start_sums(self) -> None:
        """After the part: zero in those gradients that can only be added to."""

    def average_gradients(self) -> None:
        """Divides the gradients that added up by the number of what counted."""
