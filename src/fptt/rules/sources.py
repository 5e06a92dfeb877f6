"""Gradient sources: where the gradient of a part comes from.

A source writes operations at two points of a program: inside the loop over the steps, and after
the part. Backpropagation through time keeps activations in the first and loops backwards in the
second; forward-mode sources would update traces in the first and do nothing in the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from fptt.rules.emitter import SourceEmitter


class Source(Protocol):
    """The emission points.

    Attributes:
        keeps_steps: whether the second point needs the activations of all steps of a part.
    """

    keeps_steps: bool

    def begin_sequence(self, e: SourceEmitter) -> None:
        """Before a sequence: traces that start anew."""

    def in_step(self, e: SourceEmitter) -> None:
        """Inside the forward loop."""

    def after_part(self, e: SourceEmitter) -> None:
        """After the loss; leaves the gradient of every trained parameter."""


class BackpropagationThroughTime:
    """The exact gradient of the part's loss; nothing flows into the part before.

    Memory grows with the steps of a part. K = 1 is full BPTT.
    """

    keeps_steps = True

    def begin_sequence(self, e: SourceEmitter) -> None:
        """Nothing is remembered from sequence to sequence."""

    def in_step(self, e: SourceEmitter) -> None:
        e.forward_layers()

    def after_part(self, e: SourceEmitter) -> None:
        e.start_gradients()
        with e.loop(reverse=True):
            e.backward_layers()
        e.recurrent_gradients()


SOURCES: Mapping[str, Source] = {"bptt": BackpropagationThroughTime()}
