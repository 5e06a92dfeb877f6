"""What a gradient source is, and what those that go forwards in time have in common.

A source writes operations at two points of a program: inside the loop over the steps, and after
the part. Backpropagation through time keeps activations in the first and loops backwards in the
second. A forward-mode source moves traces on in the first; where the loss is at the end of a part,
its gradient meets the traces in the second, and where every step has one, at once: then head and
loss run inside the loop, too, nothing of a step outlives it, and memory does not depend on T.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from fptt.rules.emitter import TraceEmitter


class Source(Protocol):
    """The emission points; `e` is a SourceEmitter, or a TraceEmitter where no steps are kept.

    Attributes:
        title: what people call it.
        keeps_steps: whether the second point needs the activations of all steps of a part.
    """

    title: ClassVar[str]
    keeps_steps: ClassVar[bool]

    def traces(self, e: Any) -> None:
        """Declares what goes on from part to part along with the state, and starts at zero."""

    def in_step(self, e: Any) -> None:
        """Inside the forward loop."""

    def after_part(self, e: Any) -> None:
        """After the loss; leaves the gradient of every trained parameter."""


class ForwardSource:
    """Base of the sources that go forwards in time only.

    Traces outlive a part, so the gradient reaches back beyond it, to the start of the sequence.
    They are not exact where the weights changed on the way: every step's share was computed with
    the weights of that step.
    """

    title: ClassVar[str]
    keeps_steps: ClassVar[bool] = False

    def traces(self, e: TraceEmitter) -> None:
        """Declares the traces."""
        raise NotImplementedError

    def move_traces(self, e: TraceEmitter) -> None:
        """After the step of all layers: the traces move on by the same step."""
        raise NotImplementedError

    def gradients(self, e: TraceEmitter, *, add: bool) -> None:
        """From the gradient of the body's output at this step to those of the body's parameters."""
        raise NotImplementedError

    def in_step(self, e: TraceEmitter) -> None:
        """A step of the network and of the traces, and the gradient of its loss, if it has one."""
        e.begin_step()
        e.forward_layers()
        self.move_traces(e)
        if e.loss_in_loop:
            e.step_loss()
            self.gradients(e, add=True)

    def after_part(self, e: TraceEmitter) -> None:
        """The gradient of a loss at the end, or the mean of those that added up."""
        if e.loss_in_loop:
            e.average_gradients()
        else:
            self.gradients(e, add=False)
