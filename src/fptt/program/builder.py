"""Writes a network and a rule into buffers and routines.

The network falls into two halves. The *body* is everything up to the last recurrent layer; it runs
inside the loop over the steps. The *head* is the feed-forward rest; it runs after the loop, on the
last step of every row, or on all steps at once where every step has a target. Backwards it is the
same in reverse: the head at once, then one loop over the steps through the body, then the
recurrent layers' parameter gradients as products over all steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

from fptt.errors import InputError
from fptt.nets.layer import FeedForward, Recurrent
from fptt.nets.network import Network
from fptt.program.ir import Buffer, Loop, Op, Ref, Role, Routine
from fptt.program.layout import LayerLayout
from fptt.rules.losses import Criterion, LossSchedule
from fptt.rules.optimizers import Optimizer
from fptt.rules.rule import Rule
from fptt.rules.sources import SOURCES


class Builder:
    """Collects buffers and routines; `fptt.rules.emitter.SourceEmitter` describes its use."""

    def __init__(
        self,
        net: Network,
        *,
        steps: int,
        batch: int,
        dtype: str,
        activation_dtype: str,
        every_step: bool,
        train: Sequence[str] = (),
        inference_only: bool = False,
    ) -> None:
        self.net = net
        self.part_steps = steps
        self.batch = batch
        self.dtype = dtype
        self.activation_dtype = activation_dtype
        self.control_dtype = "float64" if dtype == "float64" else "float32"
        self.every_step = every_step
        self.inference_only = inference_only
        self.buffers: dict[str, Buffer] = {}
        self.routines: dict[str, Routine] = {}
        self._body: list[Op | Loop] | None = None
        self._loop: list[Op] | None = None

        recurrent = [i for i, layer in enumerate(net.layers) if layer.recurrent]
        #: layers below this one run inside the loop over the steps
        self.body_end = recurrent[-1] + 1 if recurrent else 0
        self.layouts = [LayerLayout(self, i) for i in range(len(net.layers))]
        self.input = (
            self.buffer("input", (), Role.INPUT, dtype="int32", batch=True, steps=steps)
            if net.tokens
            else self.buffer(
                "input", (net.inputs,), Role.INPUT, dtype=activation_dtype, batch=True, steps=steps
            )
        )
        self.gradients: dict[str, Buffer] = {}
        self.trained = self._declare_parameters(train)
        trained_layers = [int(name.split(".")[0]) for name in self.gradients]
        #: no gradient is needed below this layer
        self.lowest = min(trained_layers, default=len(net.layers))
        self.values: list[Buffer] = []
        self._declare_values()

    # -- declarations ------------------------------------------------------------------------

    def buffer(
        self,
        name: str,
        inner: tuple[int, ...],
        role: str,
        *,
        dtype: str | None = None,
        batch: bool = False,
        steps: int = 0,
        lead: int = 0,
    ) -> Buffer:
        """Declares a buffer, or finds the one of this name."""
        activation = role in (Role.ACTIVATION, Role.CARRY, Role.SCRATCH)
        buffer = Buffer(
            name,
            inner,
            dtype or (self.activation_dtype if activation else self.dtype),
            Role(role),
            self.batch if batch else 0,
            steps,
            lead,
        )
        known = self.buffers.setdefault(name, buffer)
        assert known == buffer, f"two different buffers named {name}"
        return known

    def _declare_parameters(self, train: Sequence[str]) -> list[tuple[str, Buffer, Buffer]]:
        names = self.net.parameters
        for pattern in train:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise InputError(
                    f"build: train names {pattern!r}, but no parameter is called so; "
                    f"there are {', '.join(names)}"
                )
        trained = []
        for name, parameter in names.items():
            trains = any(fnmatchcase(name, pattern) for pattern in train)
            role = Role.PARAMETER if trains or self.inference_only else Role.FROZEN
            theta = self.buffer(name, parameter.shape, role)
            if trains:
                self.gradients[name] = self.buffer(f"grad/{name}", parameter.shape, Role.GRADIENT)
                trained.append((name, theta, self.gradients[name]))
        return trained

    def _declare_values(self) -> None:
        """The buffer of every layer's output; ReLU and Dropout work in place where they may."""
        for index, layer in enumerate(self.net.layers):
            e = self.layouts[index]
            if isinstance(layer, Recurrent):
                layer.allocate(e)
                self.values.append(layer.state(e)[0])
                continue
            below = self.net.layers[index - 1] if index else None
            if layer.in_place and isinstance(below, FeedForward):
                self.values.append(self.values[-1])
                continue
            width = self.net.widths[index]
            if index < self.body_end or self.every_step:
                self.values.append(e.history("y", width))
            else:
                self.values.append(self.buffer(f"{index}.y", (width,), Role.ACTIVATION, batch=True))

    @contextmanager
    def routine(self, name: str) -> Iterator[None]:
        """Operations emitted inside form the routine `name`."""
        self._body = []
        yield
        self.routines[name] = Routine(name, tuple(self._body))
        self._body = None

    @contextmanager
    def loop(self, *, reverse: bool = False) -> Iterator[None]:
        """Operations emitted inside are repeated for the steps of the part."""
        assert self._body is not None, "a loop outside a routine"
        assert self._loop is None, "a loop in a loop"
        self._loop = []
        yield
        if self._loop:
            self._body.append(Loop(tuple(self._loop), reverse))
        self._loop = None

    def emit(
        self,
        kind: str,
        inputs: Sequence[Ref | None],
        outputs: Sequence[Ref | None],
        **attrs: object,
    ) -> None:
        """Appends one operation."""
        target = self._body if self._loop is None else self._loop
        assert target is not None, "emit outside a routine"
        target.append(Op(kind, tuple(inputs), tuple(outputs), attrs))

    # -- values ------------------------------------------------------------------------------

    def _value(self, index: int, *, in_loop: bool) -> Ref:
        """What layer `index` puts out (-1: the input), as seen from the loop or from the head."""
        buffer = self.values[index] if index >= 0 else self.input
        if in_loop:
            return buffer.at(0) if buffer.steps else buffer.whole
        if self.every_step:
            return buffer.all()
        return buffer.last() if buffer.steps else buffer.whole

    def _body_layers(self) -> Iterator[int]:
        return iter(range(self.body_end))

    # -- forward -----------------------------------------------------------------------------

    def forward_layers(self) -> None:
        """One step of the body, histories kept."""
        self._forward_body(before=-1, training=True)

    def _forward_body(self, *, before: int, training: bool) -> None:
        for index in self._body_layers():
            layer, e = self.net.layers[index], self.layouts[index]
            x = self._value(index - 1, in_loop=True)
            if isinstance(layer, Recurrent):
                layer.forward_step(e, x, before=before)
            elif isinstance(layer, FeedForward):
                layer.forward(e, x, self._value(index, in_loop=True), training=training)

    def forward_head(self, *, training: bool, in_loop: bool) -> None:
        """The head; in training on the whole part, in `readout` on the present step."""
        for index in range(self.body_end, len(self.net.layers)):
            layer = self.net.layers[index]
            assert isinstance(layer, FeedForward)
            layer.forward(
                self.layouts[index],
                self._value(index - 1, in_loop=in_loop),
                self._value(index, in_loop=in_loop),
                training=training,
            )

    # -- gradients of values -----------------------------------------------------------------

    def _group(self, index: int) -> list[int]:
        """The layers that share a value's memory."""
        return [i for i, value in enumerate(self.values) if value is self.values[index]]

    def _head_gradient(self, index: int, *, in_loop: bool = False) -> Ref:
        """The gradient of a head value; the top one replaces the value where it may."""
        top = len(self.net.layers) - 1
        group, value = self._group(index), self.values[index]
        if index < self.body_end and not self.every_step:
            # the network ends with a recurrent layer: the loss is the first to write its dh
            return self._state_gradient(index)
        # a rectifier's backward pass looks at the value, a recurrent layer's at h
        free = index >= self.body_end and not any(
            type(self.net.layers[i]).__name__ == "ReLU" for i in group
        )
        if top in group and free:
            buffer = value
        else:
            buffer = self.buffer(
                f"{group[0]}.dy",
                value.inner,
                Role.SCRATCH,
                batch=True,
                steps=self.part_steps if self.every_step else 0,
            )
        if not self.every_step:
            return buffer.whole
        return buffer.at(0) if in_loop else buffer.all()

    def _state_gradient(self, index: int) -> Ref:
        layer = self.net.layers[index]
        assert isinstance(layer, Recurrent)
        return layer.gradient_state(self.layouts[index])[0].whole

    def output_gradient(self) -> Ref:
        """Where the loss writes its gradient."""
        return self._head_gradient(len(self.net.layers) - 1)

    # -- backward ----------------------------------------------------------------------------

    def start_gradients(self) -> None:
        """Zero where gradients add up: those of states, and of layers inside the loop."""
        for index in range(self.lowest, self.body_end):
            layer, e = self.net.layers[index], self.layouts[index]
            if isinstance(layer, Recurrent):
                # the head (or the loss) has written the gradient of the top layer's last h
                written = index == self.body_end - 1 and not self.every_step
                for buffer in layer.gradient_state(e)[1 if written else 0 :]:
                    self.emit("fill", [], [buffer.whole], value=0.0)
            else:
                self._zero_own_gradients(index)

    def _zero_own_gradients(self, index: int) -> None:
        for name in self.net.layers[index].parameters():
            if gradient := self.layouts[index].gradient(name):
                self.emit("fill", [], [gradient.whole], value=0.0)

    def backward_head(self) -> None:
        """Back through the head, all rows at once, down to the lowest layer that trains."""
        for index in range(len(self.net.layers) - 1, max(self.body_end, self.lowest) - 1, -1):
            layer, e = self.net.layers[index], self.layouts[index]
            assert isinstance(layer, FeedForward)
            if type(layer).__name__ == "Embedding":
                self._zero_own_gradients(index)
            dy = self._head_gradient(index)
            layer.parameter_gradients(
                e, self._value(index - 1, in_loop=False), dy, accumulate=False
            )
            if index > max(self.body_end, self.lowest):
                layer.input_gradient(
                    e, self._value(index, in_loop=False), dy, self._head_gradient(index - 1), None
                )
            elif index == self.body_end and self.lowest < index and not self.every_step:
                layer.input_gradient(
                    e, self._value(index, in_loop=False), dy, self._state_gradient(index - 1), None
                )

    def backward_layers(self) -> None:
        """One step back through the body."""
        if self.lowest >= self.body_end:
            return
        top = self.body_end - 1
        if self.every_step:
            dh = self._state_gradient(top)
            if self.body_end < len(self.net.layers):
                layer = self.net.layers[self.body_end]
                assert isinstance(layer, FeedForward)
                layer.input_gradient(
                    self.layouts[self.body_end],
                    self._value(self.body_end, in_loop=True),
                    self._head_gradient(self.body_end, in_loop=True),
                    dh,
                    dh,
                )
            else:
                self.emit("add", [self._head_gradient(top, in_loop=True), dh], [dh])
        for index in range(top, self.lowest - 1, -1):
            layer, e = self.net.layers[index], self.layouts[index]
            dx, start = self._below(index)
            if isinstance(layer, Recurrent):
                layer.backward_step(e, dx, start)
                continue
            assert isinstance(layer, FeedForward)
            dy = self._step_gradient(index).whole
            layer.parameter_gradients(e, self._value(index - 1, in_loop=True), dy, accumulate=True)
            if dx is not None:
                layer.input_gradient(e, self._value(index, in_loop=True), dy, dx, start)

    def _step_gradient(self, index: int) -> Buffer:
        """The gradient of a feed-forward body layer's value at one step."""
        value = self.values[index]
        return self.buffer(f"{self._group(index)[0]}.dy", value.inner, Role.SCRATCH, batch=True)

    def _below(self, index: int) -> tuple[Ref | None, Ref | None]:
        """Where the gradient of layer `index`'s input goes, and what it is added to."""
        if index <= self.lowest:
            return None, None
        if self.net.layers[index - 1].recurrent:
            dh = self._state_gradient(index - 1)
            return dh, dh
        return self._step_gradient(index - 1).whole, None

    def recurrent_gradients(self) -> None:
        """The parameter gradients of recurrent layers, as products over all steps."""
        for index in range(self.lowest, self.body_end):
            layer = self.net.layers[index]
            if isinstance(layer, Recurrent):
                below = self.values[index - 1] if index else self.input
                layer.parameter_gradients(self.layouts[index], below.all())

    # -- routines ----------------------------------------------------------------------------

    def _carried(self) -> Iterator[Buffer]:
        for index in self._body_layers():
            layer = self.net.layers[index]
            if isinstance(layer, Recurrent):
                yield from layer.state(self.layouts[index])

    def write_inference(self) -> None:
        """`begin_inference`, `infer` (one step, state in place) and `readout` (its outputs)."""
        with self.routine("readout"), self.loop():
            self.forward_head(training=False, in_loop=True)
        with self.routine("begin_inference"), self.loop():
            for buffer in self._carried():
                self.emit("fill", [], [buffer.at(0)], value=0.0)
        with self.routine("infer"), self.loop():
            self._forward_body(before=0, training=False)

    def write_training(
        self,
        rule: Rule,
        optimizer: Optimizer,
        schedule: LossSchedule,
        criterion: Criterion,
        clip: float | None,
    ) -> None:
        """All routines of training."""
        source = SOURCES[rule.source]
        random = any(type(layer).__name__ == "Dropout" for layer in self.net.layers)
        with self.routine("reset"):
            for buffer in self._carried():
                self.emit("fill", [], [buffer.initial()], value=0.0)
        with self.routine("begin_sequence"):
            if rule.state == "reset":
                for buffer in self._carried():
                    self.emit("fill", [], [buffer.initial()], value=0.0)
            if random:
                state = self.layouts[0].random_state.whole
                self.emit("next_sequence", [state], [state])
        with self.routine("forward"), self.loop():
            source.in_step(self)
        with self.routine("loss"):
            self.forward_head(training=True, in_loop=False)
            self._write_loss(schedule, criterion, rule.parts)
        with self.routine("backward"):
            self.backward_head()
            source.after_part(self)
        with self.routine("update"):
            rule.emit_update(self, optimizer, clip)
        with self.routine("carry"):
            for buffer in self._carried():
                self.emit("copy", [buffer.last()], [buffer.initial()])
        with self.routine("end_epoch"):
            rule.emit_end_epoch(self)

    def _write_loss(self, schedule: LossSchedule, criterion: Criterion, parts: int) -> None:
        steps = self.part_steps if self.every_step else 0
        target = (
            self.buffer("target", (), Role.TARGET, dtype="int32", batch=True, steps=steps)
            if criterion == "cross_entropy"
            else self.buffer(
                "target",
                (self.net.outputs,),
                Role.TARGET,
                dtype=self.control_dtype,
                batch=True,
                steps=steps,
            )
        )
        loss = self.buffer("loss", (1,), Role.SCRATCH, dtype=self.control_dtype)
        y = self._value(len(self.net.layers) - 1, in_loop=False)
        schedule.emit(
            self,
            criterion,
            y,
            target.all() if self.every_step else target.whole,
            self.output_gradient(),
            loss.whole,
            parts,
        )
