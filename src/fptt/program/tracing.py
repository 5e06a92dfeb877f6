"""Writes training by a gradient source that goes forwards in time and keeps no steps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from fptt.errors import InputError
from fptt.nets.layer import Recurrent
from fptt.nets.network import Network
from fptt.program.ir import Buffer, Ref, Role
from fptt.program.training import TrainingBuilder
from fptt.rules.emitter import TracedLayer
from fptt.rules.losses import Criterion, LossSchedule
from fptt.rules.optimizers import Optimizer
from fptt.rules.rule import Rule
from fptt.rules.sources import Source


class TracingBuilder(TrainingBuilder):
    """A builder for forward-mode sources; `fptt.rules.emitter.TraceEmitter` describes its use.

    Everything has the place of one step: input, target, states, activations. What outlives a step
    are the state and the traces. Where every step has a loss, the head and the loss run inside the
    loop, gradients, loss and the number of what counts add up from the part's first step on, and
    the loss and the backward pass only divide.
    """

    def __init__(self, net: Network, source: Source, **options: Any) -> None:
        super().__init__(net, source, **options)
        self._objective: tuple[LossSchedule, Criterion] | None = None

    def check(self, name: str) -> None:
        """Raises InputError where a layer does not serve the source of this name."""
        if not self.body_end:
            raise InputError(
                f'build: source="{name}" is for recurrent networks, and {self.net} has no '
                'recurrent layer; leave source out, or give "bptt"'
            )
        for index, layer in enumerate(self.net.layers[: self.body_end]):
            if index >= self.lowest and layer.recurrent and name not in layer.sources:
                served = ", ".join(f'"{one}"' for one in ("bptt", *sorted(layer.sources)))
                raise InputError(
                    f"build: layer {index} is a {type(layer).__name__}, which has no "
                    f"{self._source.title}; choose a source that it serves ({served}), or train "
                    "only layers above it"
                )

    @property
    def held_steps(self) -> int:
        return 0

    @property
    def all_steps(self) -> bool:
        return False

    @property
    def loss_in_loop(self) -> bool:
        """Whether every step has a loss, which is then computed inside the loop."""
        return self.every_step

    def adds_in_loop(self, name: str) -> bool:
        return self.loss_in_loop or self.net.layers[int(name.partition(".")[0])].adds_gradients

    # -- what a source sees ------------------------------------------------------------------

    @cached_property
    def layers(self) -> Sequence[TracedLayer]:
        """The body from the lowest layer that trains upwards."""
        return [
            TracedLayer(
                index,
                self.net.layers[index],
                self.layouts[index],
                self.value(index - 1, in_loop=True),
                self.value(index, in_loop=True),
                self._output_gradient_of(index),
                self._output_gradient_of(index - 1) if index > self.lowest else None,
            )
            for index in range(self.lowest, self.body_end)
        ]

    def _output_gradient_of(self, index: int) -> Ref:
        recurrent = isinstance(self.net.layers[index], Recurrent)
        return self._state_gradient(index) if recurrent else self._step_gradient(index).whole

    def begin_step(self) -> None:
        """Copies of what the step overwrites; at a part's first step, zero where sums begin."""
        if self.loss_in_loop:
            for buffer in (self.loss, self._count, *self.gradients.values()):
                self.emit("fill", [], [buffer.whole], first_only=True, value=0.0)
        for one in self.layers:
            one.layer.keep_state(one.layout)

    def step_loss(self) -> None:
        """The head and its loss at this step, back to the gradient of the body's output."""
        assert self._objective is not None, "a loss inside the loop before it is known"
        schedule, criterion = self._objective
        self.forward_head(training=True, in_loop=True)
        schedule.emit_step(
            self,
            criterion,
            self.value(len(self.net.layers) - 1, in_loop=True),
            self.target(criterion).whole,
            self.output_gradient(),
            self.loss.whole,
            self._count.whole,
        )
        self.backward_head(add=True)

    def start_sums(self) -> None:
        """After the part: zero in those gradients that can only be added to."""
        for index in range(self.lowest, self.body_end):
            self._zero_own_gradients(index)

    def average_gradients(self) -> None:
        """Divides the gradients that added up by the number of what counted."""
        for gradient in self.gradients.values():
            self.emit("average", [gradient.whole, self._count.whole], [gradient.whole])

    @property
    def _count(self) -> Buffer:
        """Numbers that the loss of the part is the mean of."""
        return self.buffer("count", (1,), Role.SCRATCH, dtype="int32")

    # -- routines ----------------------------------------------------------------------------

    def write_training(
        self,
        rule: Rule,
        optimizer: Optimizer,
        schedule: LossSchedule,
        criterion: Criterion,
        clip: float | None,
    ) -> None:
        self._objective = schedule, criterion
        self._source.traces(self)
        super().write_training(rule, optimizer, schedule, criterion, clip)
        # layers offer places for whole backward passes; what no source needed takes no memory
        used = {
            ref.buffer.name
            for routine in self.routines.values()
            for op, _ in routine.ops()
            for ref in op.refs
        }
        self.buffers = {name: buffer for name, buffer in self.buffers.items() if name in used}

    def write_loss(self, schedule: LossSchedule, criterion: Criterion, parts: int) -> None:
        if not self.loss_in_loop:
            super().write_loss(schedule, criterion, parts)
            return
        self.emit("average", [self.loss.whole, self._count.whole], [self.loss.whole])

    def write_backward(self) -> None:
        if not self.loss_in_loop:
            self.backward_head()
        self._source.after_part(self)
