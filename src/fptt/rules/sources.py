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
    """The two emission points."""

    def in_step(self, e: SourceEmitter) -> None:
        """Inside the forward loop."""

    def after_part(self, e: SourceEmitter) -> None:
        """After the loss; leaves the gradient of every trained parameter."""


class BackpropagationThroughTime:
    """The exact gradient of the part's loss; nothing flows into the part before.

    Memory grows with the steps of a part. K = 1 is full BPTT.
    """

    def in_step(self, e: SourceEmitter) -> None:
        e.forward_layers()

    def after_part(self, e: SourceEmitter) -> None:
        e.start_gradients()
        with e.loop(reverse=True):
            e.backward_layers()
        e.recurrent_gradients()


SOURCES: Mapping[str, Source] = {"bptt": BackpropagationThroughTime()}
