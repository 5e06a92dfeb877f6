"""Backpropagation through time."""

from __future__ import annotations

from typing import ClassVar

from fptt.rules.emitter import SourceEmitter


class BackpropagationThroughTime:
    """The exact gradient of the part's loss; nothing flows into the part before.

    Memory grows with the steps of a part. K = 1 is full BPTT.
    """

    title: ClassVar[str] = "BPTT"
    keeps_steps: ClassVar[bool] = True

    def traces(self, e: SourceEmitter) -> None:
        """Nothing is remembered from step to step but the state."""

    def in_step(self, e: SourceEmitter) -> None:
        e.forward_layers()

    def after_part(self, e: SourceEmitter) -> None:
        e.start_gradients()
        with e.loop(reverse=True):
            e.backward_layers()
        e.recurrent_gradients()
