"""Declares a network's buffers and writes its forward pass.

The network falls into two halves. The *body* is everything up to the last recurrent layer; it runs
inside the loop over the steps. The *head* is the feed-forward rest; it runs after the loop, on the
last step of every row, or on all steps at once where every step has a target.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import ClassVar

from fptt.errors import InputError
from fptt.nets.adapters import Adapter
from fptt.nets.layer import FeedForward, Recurrent
from fptt.nets.network import Network
from fptt.program.ir import Buffer, Loop, Op, Ref, Role, Routine
from fptt.program.layout import LayerLayout


class Builder:
    """Collects buffers and routines; by itself it writes programs that only infer."""

    #: whether the program will train, so that activations must be kept
    learns: ClassVar[bool] = False

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
    ) -> None:
        self.net = net
        self.part_steps = steps
        self.batch = batch
        self.dtype = dtype
        self.activation_dtype = activation_dtype
        self.control_dtype = "float64" if dtype == "float64" else "float32"
        self.every_step = every_step
        #: what is traced along with the states: batch buffers that start with them at zero
        self.traces: list[Buffer] = []
        self.buffers: dict[str, Buffer] = {}
        self.routines: dict[str, Routine] = {}
        self._body: list[Op | Loop] | None = None
        self._loop: list[Op] | None = None

        recurrent = [i for i, layer in enumerate(net.layers) if layer.recurrent]
        #: layers below this one run inside the loop over the steps
        self.body_end = recurrent[-1] + 1 if recurrent else 0
        self.layouts = [LayerLayout(self, i) for i in range(len(net.layers))]
        self.input = (
            self.buffer("input", (), Role.INPUT, dtype="int32", batch=True, steps=self.held_steps)
            if net.tokens
            else self.buffer(
                "input",
                (net.inputs,),
                Role.INPUT,
                dtype=activation_dtype,
                batch=True,
                steps=self.held_steps,
            )
        )
        self.gradients: dict[str, Buffer] = {}
        self.trained = self._declare_parameters(train)
        trained_layers = [int(name.split(".")[0]) for name in self.gradients]
        #: no gradient is needed below this layer
        self.lowest = min(trained_layers, default=len(net.layers))
        self.values: list[Buffer] = []
        self._declare_values()

    @property
    def held_steps(self) -> int:
        """Steps of a part whose input and targets are held; 0 where each comes when it is used."""
        return self.part_steps

    @property
    def all_steps(self) -> bool:
        """Whether the head runs on all steps of a part at once."""
        return self.every_step

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
        transposed: bool = False,
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
            transposed,
        )
        known = self.buffers.setdefault(name, buffer)
        assert known == buffer, f"two different buffers named {name}"
        return known

    def _declare_parameters(self, train: Sequence[str]) -> list[tuple[str, Buffer, Buffer]]:
        names = self.net.parameters
        changed = self.net.adapters
        factors = {f"{name}.{factor}" for name in changed for factor in ("down", "up")}
        for pattern in train:
            matching = {name for name in names if fnmatchcase(name, pattern)}
            if not matching:
                raise InputError(
                    f"build: train names {pattern!r}, but no parameter is called so; "
                    f"there are {', '.join(names)}"
                )
            if matching <= changed.keys():
                raise InputError(
                    f"build: train names {pattern!r}, which has an adapter, and what has one does "
                    "not train itself; leave out one of the two"
                )
        trained = []
        for name, parameter in names.items():
            named = any(fnmatchcase(name, pattern) for pattern in train)
            trains = self.learns and (name in factors or (named and name not in changed))
            role = Role.PARAMETER if trains or not self.learns else Role.FROZEN
            theta = self.buffer(name, parameter.shape, role, transposed=parameter.transposed)
            if trains:
                self.gradients[name] = self.gradient_of(theta)
                trained.append((name, theta, self.gradients[name]))
        return trained

    def companion(self, prefix: str, theta: Buffer, role: str) -> Buffer:
        """A buffer of a parameter's shape and layout, named "prefix/parameter"."""
        return self.buffer(f"{prefix}/{theta.name}", theta.inner, role, transposed=theta.transposed)

    def gradient_of(self, theta: Buffer) -> Buffer:
        """Where the gradient of a parameter goes."""
        return self.companion("grad", theta, Role.GRADIENT)

    def keeps_steps(self, index: int) -> bool:
        """Whether the values of layer `index` at all steps of a part will be needed."""
        return False

    def recomputes(self, index: int) -> bool:
        """Whether layer `index` keeps no gates, because the backward loop computes them again."""
        return False

    def adds_in_loop(self, name: str) -> bool:
        """Whether the gradient of a parameter adds up step by step in the backward loop."""
        return False

    def adapter(self, index: int, name: str) -> Adapter | None:
        """The low-rank change of a matrix of layer `index`, or None if it has none."""
        full = f"{index}.{name}"
        if full not in self.net.adapters:
            return None
        down, up = (self.buffers[f"{full}.{factor}"] for factor in ("down", "up"))
        return Adapter(name, down, up, late=not self.adds_in_loop(down.name))

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
            if index < self.body_end or self.all_steps:
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
        *,
        after_first: bool = False,
        first_only: bool = False,
        **attrs: object,
    ) -> None:
        """Appends one operation."""
        target = self._body if self._loop is None else self._loop
        assert target is not None, "emit outside a routine"
        target.append(Op(kind, tuple(inputs), tuple(outputs), attrs, after_first, first_only))

    # -- values ------------------------------------------------------------------------------

    def value(self, index: int, *, in_loop: bool) -> Ref:
        """What layer `index` puts out (-1: the input), as seen from the loop or from the head."""
        buffer = self.values[index] if index >= 0 else self.input
        if in_loop:
            return buffer.at(0)
        return buffer.all() if self.all_steps else buffer.last()

    # -- forward -----------------------------------------------------------------------------

    def forward_body(self, *, before: int, training: bool) -> None:
        """One step of the layers up to the last recurrent one."""
        for index in range(self.body_end):
            layer, e = self.net.layers[index], self.layouts[index]
            x = self.value(index - 1, in_loop=True)
            if isinstance(layer, Recurrent):
                layer.forward_step(e, x, before=before)
            elif isinstance(layer, FeedForward):
                layer.forward(e, x, self.value(index, in_loop=True), training=training)

    def forward_head(self, *, training: bool, in_loop: bool) -> None:
        """The head; in training on the whole part, in `readout` on the present step."""
        for index in range(self.body_end, len(self.net.layers)):
            layer = self.net.layers[index]
            assert isinstance(layer, FeedForward)
            layer.forward(
                self.layouts[index],
                self.value(index - 1, in_loop=in_loop),
                self.value(index, in_loop=in_loop),
                training=training,
            )

    # -- routines ----------------------------------------------------------------------------

    def carried(self) -> Iterator[Buffer]:
        """The states that go on from part to part, and what is traced along with them."""
        yield from self.states()
        yield from self.traces

    def states(self) -> Iterator[Buffer]:
        """The states that go on from part to part."""
        for index in range(self.body_end):
            layer = self.net.layers[index]
            if isinstance(layer, Recurrent):
                yield from layer.state(self.layouts[index])

    def write_inference(self) -> None:
        """`begin_inference`, `infer` (one step, state in place) and `readout` (its outputs)."""
        with self.routine("readout"), self.loop():
            self.forward_head(training=False, in_loop=True)
        with self.routine("begin_inference"), self.loop():
            for buffer in self.states():
                self.emit("fill", [], [buffer.at(0)], value=0.0)
        with self.routine("infer"), self.loop():
            self.forward_body(before=0, training=False)
