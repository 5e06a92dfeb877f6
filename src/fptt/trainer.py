"""Runs a training program: batches, streams, parts, evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fptt.backends import backend as make_backend
from fptt.batches import Batch, check_input, check_target, make_batch
from fptt.errors import InputError, NumericalError
from fptt.inference import Inference
from fptt.nets.layer import check_size
from fptt.program.frame import Frame, frames
from fptt.program.ir import Buffer, Role
from fptt.program.plan import LEARNED

if TYPE_CHECKING:
    from fptt.fitting import History
    from fptt.program import Program
    from fptt.rules.schedules import Schedule

Array = NDArray[Any]


class Trainer:
    """A program with its memory: trains, streams, predicts, saves.

    Args:
        program: what `fptt.build` returned.
        backend: "reference" (NumPy).
        seed: draws the initial weights, the order of the data and dropout.
        threads: threads of the matrix products; results do not depend on it.

    Raises:
        InputError: an unknown back end, or a seed or number of threads out of range.

    Example:
        >>> import fptt, numpy as np
        >>> net = fptt.Network([fptt.LSTM(2, 8), fptt.Linear(8, 3)])
        >>> program = fptt.build(net, fptt.FPTT(parts=5), fptt.SGD(lr=0.1), steps=10, batch=4)
        >>> trainer = fptt.Trainer(program)
        >>> x, y = np.ones((4, 10, 2), np.float32), np.array([0, 1, 2, 0])
        >>> losses = [trainer.train_batch(x, y) for _ in range(20)]
        >>> losses[-1] < losses[0]
        True
    """

    def __init__(self, program: Program, backend: str = "reference", seed: int = 0,
                 threads: int = 1) -> None:
        check_size("Trainer", "threads", threads)
        if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
            raise InputError(f"Trainer: seed is {seed!r}; give a whole number from 0 to 2^32 - 1")
        self.program = program
        self.backend = make_backend(backend, program, threads)
        self.seed, self.threads = int(seed), threads
        self.epoch = 0
        self._inference: Inference | None = None
        self.load_parameters(program.net.initial(self.seed))
        self.lr = program.optimizer.lr

    # -- state -------------------------------------------------------------------------------

    def parameters(self) -> dict[str, Array]:
        """Copies of all parameters by name, in PyTorch's shapes."""
        return {name: self.backend.read(name) for name in self.program.net.parameters}

    def load_parameters(self, values: Mapping[str, ArrayLike]) -> None:
        """Sets all parameters and starts learning anew.

        The running mean becomes theta; lambda, the optimizer's moments, the auxiliary Q and the
        carried state start from the beginning; the learning rate stays.

        Args:
            values: every parameter of the network, by name.

        Raises:
            InputError: names, shapes or values that are not this network's.
        """
        arrays = {name: np.asarray(array) for name, array in values.items()}
        self.program.net.check_weights(arrays)
        for buffer in self._buffers(*LEARNED, Role.FROZEN):
            self.backend.write(buffer.name, self._fresh(buffer, arrays))
        self._new_sequence(reset=True)

    def _fresh(self, buffer: Buffer, parameters: Mapping[str, Array]) -> Array:
        """What a buffer of the state of learning holds before the first update."""
        name = buffer.name
        if name in parameters:
            return parameters[name]
        if name.startswith("mean/"):
            return parameters[name.removeprefix("mean/")]
        if name == "auxiliary.Q":
            return np.full(buffer.shape, 1 / self.program.net.outputs)
        if name == "random":
            return np.array([self.seed, 0], np.uint32)
        if name == "lr":
            return self.backend.read("lr")
        return np.zeros(buffer.shape)

    def _buffers(self, *roles: Role) -> list[Buffer]:
        return [b for b in self.program.buffers.values() if b.role in roles]

    def state(self) -> dict[str, Array]:
        """Copies of what the rule and the optimizer remember.

        Names: "lambda/0.weight_ih", "mean/0.weight_ih", "momentum/..", "adam_m/..", "adam_v/..",
        "correction", "lr", "auxiliary.Q" ([classes, classes], with one Q per part
        [parts, classes, classes]), "random".
        """
        state = {b.name: self.backend.read(b.name)
                 for b in self._buffers(Role.RULE_STATE, Role.OPTIMIZER_STATE)}
        if getattr(self.program.schedule, "per_part", False):
            q = state["auxiliary.Q"]
            state["auxiliary.Q"] = q.reshape(-1, q.shape[1], q.shape[1])
        return state

    @property
    def _all_rows(self) -> Frame:
        return Frame(0, 0, (self.program.batch,), 0)

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return float(self.backend.read("lr")[0])

    @lr.setter
    def lr(self, value: float) -> None:
        self.backend.write("lr", np.array([value]))

    # -- batches -----------------------------------------------------------------------------

    def train_batch(self, x: ArrayLike, y: ArrayLike, lengths: ArrayLike | None = None) -> float:
        """Trains on one batch, an update after every part.

        Args:
            x: [rows, steps, features], or tokens [rows, steps]; rows <= program.batch and
                steps <= program.steps.
            y: targets: labels [rows] or [rows, steps]; for mse [rows, outputs] or
                [rows, steps, outputs].
            lengths: steps of every sequence, where they differ.

        Returns:
            The mean over the parts of the data loss, NaN if no part counted anything.

        Raises:
            InputError: data that do not fit.
            NumericalError: NaN or Inf; parameters are those of the last good update.
        """
        losses = [loss for _, loss in self._train_parts(self._batch(x, y, lengths))
                  if loss is not None]
        return float(np.mean(losses)) if losses else float("nan")

    def part_gradients(self, x: ArrayLike, y: ArrayLike, lengths: ArrayLike | None = None
                       ) -> list[dict[str, Array] | None]:
        """The gradient of every part's data loss at the present weights; nothing is updated.

        Returns:
            One dict name -> gradient for each of the K parts, None where nothing counts.
        """
        gradients: list[dict[str, Array] | None] = [None] * self.program.rule.parts
        learned = self.backend.learned.copy()
        for frame, loss in self._train_parts(self._batch(x, y, lengths), update=False):
            if loss is not None:
                gradients[frame.part] = {name: self.backend.read(f"grad/{name}")
                                         for name in self.program.trained}
        self.backend.learned[...] = learned
        return gradients

    def _batch(self, x: ArrayLike, y: ArrayLike | None, lengths: ArrayLike | None) -> Batch:
        batch = make_batch(self.program, x, y, lengths)
        rows, steps = batch.x.shape[:2]
        if rows > self.program.batch or steps > self.program.steps:
            raise InputError(
                f"x has {rows} sequences of {steps} steps; the program was built for at most "
                f"{self.program.batch} of {self.program.steps}: build with batch={rows}, "
                f"steps={steps}, or give smaller batches")
        return batch

    def _train_parts(self, batch: Batch, *, update: bool = True
                     ) -> Iterable[tuple[Frame, float | None]]:
        self._arrange_carry(batch.order)
        first = True
        for frame in frames(self.program, batch.lengths.tolist()):
            if first:
                self.backend.run("begin_sequence", frame)
                first = False
            rows = frame.rows[0]
            low, high = frame.begin, frame.begin + frame.steps
            self.backend.write("input", batch.x[:rows, low:high].swapaxes(0, 1))
            for step in range(frame.steps):
                self.backend.run("forward", frame, step)
            assert batch.y is not None
            yield frame, self._learn(frame, self._targets(batch.y, frame),
                                     self._fractions(batch, frame), update=update)
        self._arrange_carry(np.argsort(batch.order))
        self._new_sequence(reset=False)

    def _targets(self, y: Array, frame: Frame) -> Array:
        """The targets of a part, shaped like the target buffer; -1 or NaN where there is none."""
        if not self.program.schedule.every_step:
            return y[:frame.rows[0]]
        low = frame.begin
        return y[:frame.rows[0], low:low + frame.steps].swapaxes(0, 1)

    def _fractions(self, batch: Batch, frame: Frame) -> Array:
        """b of the auxiliary loss, for every row of the part."""
        rows = frame.rows[0]
        if not batch.unequal:
            return np.full(rows, (frame.part + 1) / self.program.rule.parts)
        seen = frame.begin + np.array(frame.last_steps) + 1
        return seen / batch.lengths[:rows]

    def _learn(self, frame: Frame, targets: Array, fractions: Array, *, update: bool = True
               ) -> float | None:
        """Loss, backward and update of a part whose forward pass is done; then the carry."""
        loss = None
        if self._counts(targets, frame):
            self.backend.write("target", targets)
            if self.program.schedule.fractional:
                self.backend.write("fraction", fractions)
            good = self.backend.learned.copy()
            self.backend.run("loss", frame)
            loss = float(self.backend.read("loss")[0])
            self._require_finite("the loss", loss, frame, good)
            self.backend.run("backward", frame)
            if update:
                self.backend.run("update", frame)
                self._require_finite_state(frame, good)
            else:
                self.backend.learned[...] = good  # the loss may have moved the auxiliary Q
        self.backend.run("carry", frame)
        return loss

    def _counts(self, targets: Array, frame: Frame) -> bool:
        """Whether any running (row, step) of the part has a target."""
        labelled = targets >= 0 if targets.dtype == np.int32 else targets[..., 0] == targets[..., 0]
        if not self.program.schedule.every_step:
            return bool(labelled.any())
        return any(labelled[t, :rows].any() for t, rows in enumerate(frame.rows))

    def _require_finite_state(self, frame: Frame, good: Array) -> None:
        dtype = self.program.dtype
        if dtype != "bfloat16":
            # nearly always one look at the whole block is enough
            if np.isfinite(self.backend.learned.view(dtype)).all():
                return
        for buffer in self._buffers(*LEARNED):
            if buffer.dtype != "uint32":
                self._require_finite(buffer.name, self.backend.read(buffer.name), frame, good)

    def _require_finite(self, what: str, values: ArrayLike, frame: Frame, good: Array) -> None:
        if np.isfinite(values).all():
            return
        self.backend.learned[...] = good
        self._new_sequence(reset=True)
        raise NumericalError(
            f"{what} became NaN or Inf in part {frame.part + 1} of {self.program.rule.parts} "
            f"(steps {frame.begin} to {frame.begin + frame.steps - 1}); training stopped, and the "
            "state of learning is that of the last good update: use a smaller learning rate or "
            "clip=1.0")

    def _carried(self) -> list[Buffer]:
        return [b for b in self.program.buffers.values() if b.lead]

    def _arrange_carry(self, order: Array) -> None:
        """Sorts the carried rows, so that each row of a batch goes on from its own state."""
        if self.program.rule.state == "carry" and (order != np.arange(len(order))).any():
            for buffer in self._carried():
                state = self.backend.read(buffer.name)[:1]
                state[:, :len(order)] = state[:, order]
                self.backend.write(buffer.name, state)

    def reset_state(self) -> None:
        """Sets the carried state to zero, as at the start of an epoch of language modelling."""
        self._new_sequence(reset=True)

    def _new_sequence(self, *, reset: bool) -> None:
        #: rows of the stream, None before its first step
        self._rows: int | None = None
        #: the part in flight
        self._stream: Frame | None = None
        #: steps of the sequence taken so far
        self._position = 0
        self._targets_seen: list[Array] = []
        if reset:
            self.backend.run("reset", self._all_rows)

    # -- streams -----------------------------------------------------------------------------

    def begin_sequence(self) -> None:
        """Starts a new sequence; a part that is not complete is dropped without learning."""
        self._new_sequence(reset=False)

    def step(self, x_t: ArrayLike, target: ArrayLike | None = None) -> Array:
        """Takes one time step; at the end of a part, learns.

        A part trains if a target was given at its last step (loss "every_step": at any step);
        otherwise it only carries the state. The last target of a part counts. After T steps the
        parts start again and the state goes on, so that a stream may be endless.

        Args:
            x_t: [rows, features], or tokens [rows]; the same rows until `begin_sequence`.
            target: labels [rows] or outputs [rows, outputs]; -1 means no label for a row.

        Returns:
            Outputs of this step [rows, outputs], computed before any update.
        """
        x = check_input(self.program, x_t, axes="[batch, features]")
        rows = len(x)
        if self._rows is None:
            if not 0 < rows <= self.program.batch:
                raise InputError(f"x_t has {rows} rows; the program was built for 1 to "
                                 f"{self.program.batch}")
            self._rows = rows
            self.backend.run("begin_sequence", Frame(0, 0, (rows,), 0))
        elif rows != self._rows:
            raise InputError(f"x_t has {rows} rows, but this sequence began with {self._rows}; "
                             "call begin_sequence() before changing the number of rows")
        part, (low, high) = next((p, cut) for p, cut in enumerate(self.program.bounds)
                                 if self._position < cut[1])
        t = self._position - low
        frame = Frame(part, low, (rows,) * (t + 1), 0 if high == self.program.steps else rows)
        targets = self._step_target(target, rows)
        self._input_step(x, t)
        self.backend.run("forward", frame, t)
        self.backend.run("readout", frame, t)
        outputs = self._outputs(t, rows)
        self._targets_seen.append(targets)
        self._stream = frame
        self._position += 1
        if self._position == high:
            self._finish_part((part + 1) / self.program.rule.parts)
            self._position %= self.program.steps
        return outputs

    def end_sequence(self) -> None:
        """Ends the sequence here: a part that is not complete learns from the steps it has."""
        if self._stream is not None:
            self._finish_part(1.0)
        self._new_sequence(reset=False)

    def _input_step(self, x: Array, t: int) -> None:
        buffered = self.backend.read("input")
        buffered[t, :len(x)] = x
        self.backend.write("input", buffered)

    def _step_target(self, target: ArrayLike | None, rows: int) -> Array:
        integer = self.program.criterion == "cross_entropy"
        if target is None:
            return np.full(rows, -1, np.int32) if integer else np.full(
                (rows, self.program.net.outputs), np.nan)
        return check_target(self.program, target, (rows,))

    def _outputs(self, t: int, rows: int) -> Array:
        output = self.program.output
        values = self.backend.read(output.name)
        return values[output.lead + t, :rows] if output.steps else values[:rows]

    def _finish_part(self, fraction: float) -> None:
        assert self._stream is not None
        every = self.program.schedule.every_step
        targets = np.stack(self._targets_seen) if every else self._targets_seen[-1]
        frame, self._stream, self._targets_seen = self._stream, None, []
        self._learn(frame, targets, np.full(frame.rows[0], fraction))

    @property
    def stream(self) -> dict[str, Any]:
        """Where a stream stands, as plain data for snapshots."""
        frame = self._stream
        return {
            "rows": self._rows, "position": self._position,
            "frame": None if frame is None else [frame.part, frame.begin, frame.steps,
                                                 frame.rows_after],
            # -1 and null mean that a step had no target
            "targets": [np.where(seen == seen, seen.astype(object), None).tolist()
                        for seen in self._targets_seen],
        }

    @stream.setter
    def stream(self, value: Mapping[str, Any]) -> None:
        self._rows, self._position = value["rows"], value["position"]
        kind = np.int32 if self.program.criterion == "cross_entropy" else np.float64
        self._targets_seen = [np.array(seen, kind) for seen in value["targets"]]
        self._stream = None
        if value["frame"] is not None:
            part, begin, steps, after = value["frame"]
            self._stream = Frame(part, begin, (value["rows"],) * steps, after)

    def end_epoch(self) -> None:
        """The rule's end of an epoch: theta becomes m and lambda 0, where so chosen."""
        self.backend.run("end_epoch", self._all_rows)
        self.epoch += 1

    # -- inference ---------------------------------------------------------------------------

    def inference(self) -> Inference:
        """The network with the present parameters, ready to predict."""
        if self._inference is None:
            self._inference = Inference.of(self.program)
        self._inference.load(self.parameters())
        return self._inference

    def predict(self, x: ArrayLike, lengths: ArrayLike | None = None) -> Array:
        """Outputs (logits) with the present theta; nothing changes.

        Args:
            x: [n, steps, features], or tokens [n, steps]; any n and any number of steps.
            lengths: steps of every sequence.

        Returns:
            [n, outputs] at every sequence's last step, or [n, steps, outputs] where every step
            has a target (zero behind a sequence's end).
        """
        return self.inference().predict(x, lengths)

    def evaluate(self, data: Any) -> dict[str, float]:
        """Loss and, for classes, accuracy and (every_step) perplexity on data; see `fit`."""
        return self.inference().evaluate(data)

    # -- training and files ------------------------------------------------------------------

    def fit(self, data: Any, epochs: int, **options: Any) -> History:
        """Trains for a number of epochs; see `fptt.fitting.fit` for the options.

        Example:
            trainer.fit((x, y), epochs=10, test=(x_test, y_test), checkpoint="run.ckpt")
        """
        from fptt.fitting import fit

        return fit(self, data, epochs, **options)

    def save(self, path: str | Path) -> None:
        """Writes the whole training state to a file, atomically; `fptt.load` reads it."""
        from fptt.snapshot import save

        save(self, path)

    def save_parameters(self, path: str | Path) -> None:
        """Writes the parameters, with the network's description, to a safetensors file."""
        from fptt.modelfile import save_model

        save_model(path, self.program.net, self.parameters(), self.program.schedule.name,
                   self.program.criterion)
