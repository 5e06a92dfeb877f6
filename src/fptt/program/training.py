"""Writes the routines of training: loss, backward pass, update, carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fptt.nets.layer import FeedForward, Recurrent
from fptt.nets.network import Network
from fptt.program.builder import Builder
from fptt.program.ir import ITEM_BYTES, Buffer, Ref, Role
from fptt.program.plan import TILE_COLUMNS, TILE_ROWS
from fptt.rules.losses import Criterion, LossSchedule
from fptt.rules.optimizers import Optimizer
from fptt.rules.rule import Rule
from fptt.rules.sources import Source


@dataclass(frozen=True)
class Product:
    """A product that is (some rows of) a gradient.

    Attributes:
        kind: "weight" or "bias".
        operands: dy and x, or dy.
        rows: which rows of the parameter it is for, or None for all.
    """

    kind: str
    operands: tuple[Ref | None, ...]
    rows: tuple[int, int] | None

    @property
    def attrs(self) -> dict[str, Any]:
        """What the update must know of these rows."""
        return {"first_row": self.rows[0]} if self.rows else {}

    def of(self, ref: Ref | None, theta: Buffer) -> Ref | None:
        """These rows of what is shaped like the parameter; anything else as it is."""
        if ref is None or self.rows is None or ref.buffer.inner != theta.inner:
            return ref
        return ref.rows(*self.rows)


class TrainingBuilder(Builder):
    """A builder that can go backwards; `fptt.rules.emitter.SourceEmitter` describes its use.

    Backwards it is the forward pass in reverse: the head at once, then one loop over the steps
    through the body, then the recurrent layers' parameter gradients as products over all steps;
    where gates are computed again, these add up inside the loop. Below the lowest layer that trains
    nothing is computed.
    """

    learns = True

    def __init__(
        self,
        net: Network,
        source: Source,
        *,
        loss_in_place: bool,
        keep_gradients: bool,
        stochastic: bool,
        recompute: bool,
        **options: Any,
    ) -> None:
        self._source = source
        self._loss_in_place = loss_in_place
        self._keep_gradients = keep_gradients
        self._stochastic = stochastic
        self._recompute = recompute
        #: gradients that are applied as they are finished: name -> the products that make them up
        self._applied: dict[str, list[Product]] = {}
        super().__init__(net, **options)

    def keeps_steps(self, index: int) -> bool:
        if index >= self.body_end:
            return True  # the head runs on all steps at once, where it runs on more than one
        layers = self.net.layers
        end = index + 1
        while end < self.body_end and layers[end].in_place and not layers[index].recurrent:
            end += 1  # layers that work in this one's memory
        goes_backwards = self._source.keeps_steps and end > self.lowest
        # the input of the lowest layer that trains, for the gradient of its weights
        feeds_gradient = self._source.keeps_steps and end == self.lowest < self.body_end
        return goes_backwards or feeds_gradient or (self.all_steps and end == self.body_end)

    def recomputes(self, index: int) -> bool:
        # with one step there is nothing to save, and its gradients need no memory of their own
        return self._recompute and self.net.layers[index].recurrent and self.part_steps > 1

    def adds_in_loop(self, name: str) -> bool:
        index, _, own = name.partition(".")
        if not self.net.layers[int(index)].recurrent:
            return self.net.layers[int(index)].adds_gradients or int(index) < self.body_end
        if not self.recomputes(int(index)) or not own.endswith(".down"):
            return self.recomputes(int(index))
        # dz at all steps, or its product in one step: whichever is smaller
        rank, inputs = self.net.parameters[name].shape
        history = self.batch * self.part_steps * rank * ITEM_BYTES[self.activation_dtype]
        return history > rank * inputs * ITEM_BYTES[self.dtype]

    # -- gradients that are never in memory as a whole ---------------------------------------

    def gradient_of(self, theta: Buffer) -> Buffer:
        # a product over all rows after the reverse loop can wait for the update; a gradient that is
        # none, that adds up inside the loop, or that others must see first, cannot
        late = not self.adds_in_loop(theta.name) and self._source.keeps_steps
        index, _, own = theta.name.partition(".")
        product = own not in self.net.layers[int(index)].diagonal
        if self._keep_gradients or not late or not product:
            return super().gradient_of(theta)
        self._applied[f"grad/{theta.name}"] = []
        return Buffer(
            f"grad/{theta.name}",
            theta.inner,
            self.dtype,
            Role.GRADIENT,
            transposed=theta.transposed,
        )

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
        """Appends an operation; where a gradient has no memory, its products become part of the
        update."""
        out = outputs[0] if outputs else None
        if out is not None and out.buffer.name in self._applied:
            product, operands = kind.removesuffix("_gradient"), tuple(inputs[:-1])
            self._applied[out.buffer.name].append(Product(product, operands, out.row_range))
            return
        gradient = next((ref for ref in inputs if ref and ref.buffer.name in self._applied), None)
        if gradient is None:
            super().emit(
                kind, inputs, outputs, after_first=after_first, first_only=first_only, **attrs
            )
            return
        theta, rest = inputs[0], [ref for ref in inputs[1:] if ref is not gradient]
        assert theta is not None, "an update without a parameter"
        for piece in self._applied[gradient.buffer.name]:
            tile = [self._tile(piece)] if piece.kind == "weight" else []
            super().emit(
                kind.replace("update", f"{piece.kind}_update"),
                [
                    piece.of(theta, theta.buffer),
                    *piece.operands,
                    *(piece.of(ref, theta.buffer) for ref in rest),
                ],
                [*(piece.of(ref, theta.buffer) for ref in outputs), *tile],
                after_first=after_first,
                **{**attrs, **piece.attrs},
            )

    @property
    def noise(self) -> Ref | None:
        """Seed and number of the update, where bfloat16 is rounded at random."""
        if not self._stochastic:
            return None
        return self.buffer("rounding", (2,), Role.RULE_STATE, dtype="uint32").whole

    def _tile(self, product: Product) -> Ref | None:
        """Room for the unfinished columns of a gradient, where it is a sum over so many rows that
        they are taken in batches."""
        all_steps = any(ref is not None and ref.index == "all" for ref in product.operands)
        if self.batch * (self.part_steps if all_steps else 1) <= TILE_ROWS:
            return None
        lines = max(
            theta.inner[1] if theta.transposed else theta.inner[0]
            for _, theta, gradient in self.trained
            if len(theta.inner) == 2 and gradient.name in self._applied
        )
        return self.buffer(
            "tile", (lines, TILE_COLUMNS), Role.SCRATCH, dtype=self.control_dtype
        ).whole

    def forward_layers(self) -> None:
        """One step of the body, histories kept."""
        self.forward_body(before=-1, training=True)

    # -- gradients of values -----------------------------------------------------------------

    def _group(self, index: int) -> list[int]:
        """The layers that share a value's memory."""
        return [i for i, value in enumerate(self.values) if value is self.values[index]]

    def _head_gradient(self, index: int, *, in_loop: bool = False) -> Ref:
        """The gradient of a head value; the top one replaces the value where it may."""
        top = len(self.net.layers) - 1
        group, value = self._group(index), self.values[index]
        if index < self.body_end and not self.all_steps:
            # the network ends with a recurrent layer: the loss is the first to write its dh
            return self._state_gradient(index)
        # a rectifier's backward pass looks at the value, a recurrent layer's at h
        free = (
            index >= self.body_end
            and self._loss_in_place
            and not any(self.net.layers[i].reads_output for i in group)
        )
        if top in group and free:
            buffer = value
        else:
            buffer = self.buffer(
                f"{group[0]}.dy",
                value.inner,
                Role.SCRATCH,
                batch=True,
                steps=self.part_steps if self.all_steps else 0,
            )
        if not self.all_steps:
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
            self._zero_own_gradients(index)

    def _zero_own_gradients(self, index: int) -> None:
        for name, gradient in self.gradients.items():
            if name.startswith(f"{index}.") and self.adds_in_loop(name):
                self.emit("fill", [], [gradient.whole], value=0.0)

    def backward_head(self, *, add: bool = False) -> None:
        """Back through the head, all rows at once, down to the lowest layer that trains.

        With `add`, parameter gradients are added to what is there.
        """
        for index in range(len(self.net.layers) - 1, max(self.body_end, self.lowest) - 1, -1):
            layer, e = self.net.layers[index], self.layouts[index]
            assert isinstance(layer, FeedForward)
            if layer.adds_gradients:
                self._zero_own_gradients(index)
            dy = self._head_gradient(index)
            layer.parameter_gradients(e, self.value(index - 1, in_loop=False), dy, accumulate=add)
            if index > max(self.body_end, self.lowest):
                layer.input_gradient(
                    e, self.value(index, in_loop=False), dy, self._head_gradient(index - 1), None
                )
            elif index == self.body_end and self.lowest < index and not self.all_steps:
                layer.input_gradient(
                    e, self.value(index, in_loop=False), dy, self._state_gradient(index - 1), None
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
                    self.value(self.body_end, in_loop=True),
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
                x = self.value(index - 1, in_loop=True)
                if e.recomputes:
                    layer.recompute_step(e, x)
                layer.backward_step(e, dx, start)
                if e.recomputes:
                    layer.step_gradients(e, x)
                continue
            assert isinstance(layer, FeedForward)
            dy = self._step_gradient(index).whole
            layer.parameter_gradients(e, self.value(index - 1, in_loop=True), dy, accumulate=True)
            if dx is not None:
                layer.input_gradient(e, self.value(index, in_loop=True), dy, dx, start)

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
        """The parameter gradients of recurrent layers that did not add up in the loop."""
        for index in range(self.lowest, self.body_end):
            layer = self.net.layers[index]
            if isinstance(layer, Recurrent):
                below = self.values[index - 1] if index else self.input
                layer.parameter_gradients(self.layouts[index], below.all())

    def write_training(
        self,
        rule: Rule,
        optimizer: Optimizer,
        schedule: LossSchedule,
        criterion: Criterion,
        clip: float | None,
    ) -> None:
        """All routines of training."""
        with self.routine("start"):
            rule.emit_start(self, optimizer)
            schedule.emit_start(self, self.net.outputs, rule.parts)
        with self.routine("reset"):
            for buffer in self.carried():
                self.emit("fill", [], [buffer.initial()], value=0.0)
        with self.routine("begin_sequence"):
            if rule.state == "reset":
                for buffer in self.carried():
                    self.emit("fill", [], [buffer.initial()], value=0.0)
        with self.routine("next_sequence"):
            if any(layer.random for layer in self.net.layers):
                state = self.layouts[0].random_state.whole
                self.emit("next_sequence", [state], [state])
        with self.routine("forward"), self.loop():
            self._source.in_step(self)
        with self.routine("loss"):
            self.write_loss(schedule, criterion, rule.parts)
        with self.routine("backward"):
            self.write_backward()
        with self.routine("update"):
            rule.emit_update(self, optimizer, clip)
        with self.routine("carry"):
            for buffer in self.carried():
                if buffer.lead:
                    self.emit("copy", [buffer.last()], [buffer.initial()])
        with self.routine("end_epoch"):
            rule.emit_end_epoch(self)

    def write_loss(self, schedule: LossSchedule, criterion: Criterion, parts: int) -> None:
        """The head and the loss of a part."""
        self.forward_head(training=True, in_loop=False)
        target, loss = self.target(criterion), self.loss
        schedule.emit(
            self,
            criterion,
            self.value(len(self.net.layers) - 1, in_loop=False),
            target.all() if self.all_steps else target.whole,
            self.output_gradient(),
            loss.whole,
            parts,
        )

    def write_backward(self) -> None:
        """From the gradient of the outputs to those of all parameters."""
        self.backward_head()
        self._source.after_part(self)

    def target(self, criterion: Criterion) -> Buffer:
        """The labels or numbers that the outputs should be."""
        labels = criterion == "cross_entropy"
        return self.buffer(
            "target",
            () if labels else (self.net.outputs,),
            Role.TARGET,
            dtype="int32" if labels else self.control_dtype,
            batch=True,
            steps=self.held_steps if self.every_step else 0,
        )

    @property
    def loss(self) -> Buffer:
        """The loss of the part."""
        return self.buffer("loss", (1,), Role.SCRATCH, dtype=self.control_dtype)
