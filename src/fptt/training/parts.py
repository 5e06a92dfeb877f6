"""Runs the parts of a batch: forward, loss, backward, update, carry, and the watch for NaN."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fptt.backends import Backend, PartsBackend
from fptt.errors import NumericalError
from fptt.program.frame import Frame, frames
from fptt.program.plan import LEARNED
from fptt.training.batches import Batch
from fptt.training.carry import read_carry, rows_in_order

if TYPE_CHECKING:
    from fptt.program import Program

Array = NDArray[Any]


class PartRunner:
    """Drives a program part by part.

    Args:
        program: the program.
        backend: its memory.
    """

    def __init__(self, program: Program, backend: Backend) -> None:
        self.program = program
        self.backend = backend

    @property
    def all_rows(self) -> Frame:
        """For routines that concern every row, whatever runs."""
        return Frame(0, 0, (self.program.batch,), 0)

    def reset(self) -> None:
        """Sets the carried state of every row to zero."""
        self.backend.run("reset", self.all_rows)

    def begin_sequence(self, frame: Frame) -> None:
        """The state as the rule starts a sequence, and new random numbers for dropout."""
        self.backend.run("begin_sequence", frame)
        self.backend.run("next_sequence", frame)

    def train(self, batch: Batch) -> list[float]:
        """Trains on a batch; the data loss of every part that counts anything."""
        with self._in_order(batch):
            if hasattr(self.backend, "train"):
                return self._train_at_once(cast(PartsBackend, self.backend), batch)
            return [loss for _, loss in self._run_sorted(batch, update=True) if loss is not None]

    def gradients(self, batch: Batch) -> Iterator[tuple[Frame, float | None]]:
        """Runs the parts of a batch without updates; yields each when its gradient is there."""
        with self._in_order(batch):
            yield from self._run_sorted(batch, update=False)

    def _in_order(self, batch: Batch) -> AbstractContextManager[None]:
        carry = self.program.rule.state == "carry"
        return rows_in_order(self.backend, batch.order) if carry else nullcontext()

    def _train_at_once(self, backend: PartsBackend, batch: Batch) -> list[float]:
        """The same as `_run_sorted`, by a back end that goes from part to part itself."""
        losses = np.full(self.program.rule.parts, np.nan)
        all_frames = {frame.part: frame for frame in frames(self.program, batch.lengths.tolist())}
        part, status = 0, ""
        while status != "FPTT_OK":
            status, part = backend.train(batch, losses, part)
            if status in ("FPTT_OK", "FPTT_PAUSED"):
                continue
            frame = all_frames[part]
            if status == "FPTT_LOSS_NOT_FINITE":
                self._require_finite("the loss", losses[part], frame)
            if status == "FPTT_UPDATE_NOT_SAFE":
                self._update(frame, backend.before_loss(part))
                self._carry(frame)
            if status == "FPTT_STATE_NOT_FINITE":
                self._require_finite_carry(frame)
            part += 1
        return [float(loss) for loss in losses[~np.isnan(losses)]]

    def _run_sorted(self, batch: Batch, *, update: bool) -> Iterator[tuple[Frame, float | None]]:
        assert batch.y is not None
        for number, frame in enumerate(frames(self.program, batch.lengths.tolist())):
            if number == 0:
                self.begin_sequence(frame)
            rows, low, high = frame.rows[0], frame.begin, frame.begin + frame.steps
            x = batch.x[:rows, low:high].swapaxes(0, 1)
            targets = (
                batch.y[:rows, low:high].swapaxes(0, 1)
                if self.program.schedule.every_step
                else batch.y[:rows]
            )
            self._forward(frame, x, targets)
            yield frame, self.learn(frame, targets, self._fractions(batch, frame), update=update)

    def _forward(self, frame: Frame, x: Array, targets: Array) -> None:
        """The forward pass of a part: at once, or step by step where input has one place."""
        if self.program.buffers["input"].steps:
            self.backend.write("input", x)
            self.backend.run("forward", frame)
            return
        for t, rows in enumerate(frame.rows):
            self.write_step(t, x[t, :rows], targets[t, :rows] if self.loss_in_loop else None)
            self.backend.run("forward", frame, t)

    def write_step(self, t: int, x: Array, targets: Array | None) -> None:
        """Writes the input of step t of a part, and the targets if its loss is computed there."""
        steps = self.program.buffers["input"].steps
        self.backend.write("input", x, step=t if steps else None)
        if self.loss_in_loop:
            assert targets is not None
            self.backend.write("target", targets)

    @property
    def loss_in_loop(self) -> bool:
        """Whether every step has a loss that is computed in the forward pass."""
        return self.program.schedule.every_step and not self.program.buffers["target"].steps

    def _fractions(self, batch: Batch, frame: Frame) -> Array:
        """b of the auxiliary loss, for every row of the part."""
        rows = frame.rows[0]
        if not batch.unequal:
            return np.full(rows, (frame.part + 1) / self.program.rule.parts)
        seen = frame.begin + np.array(frame.last_steps) + 1
        return np.asarray(seen / batch.lengths[:rows])

    def learn(
        self, frame: Frame, targets: Array, fractions: Array, *, update: bool = True
    ) -> float | None:
        """Loss, backward and update of a part whose forward pass is done; then the carry.

        Args:
            frame: the part.
            targets: of the running rows, shaped like the target buffer; -1 or NaN where none.
            fractions: b of the auxiliary loss for every row.
            update: False leaves the gradients and changes nothing that is learnt.

        Returns:
            The data loss, or None if nothing had a target: then nothing is learnt.
        """
        loss = None
        if self._counts(targets, frame):
            if not self.loss_in_loop:
                self.backend.write("target", targets)
            if self.program.schedule.fractional:
                self.backend.write("fraction", fractions)
            moved = {b.name: self.backend.read(b.name) for b in self.program.moved_by_loss}
            self.backend.run("loss", frame)
            loss = float(self.backend.read("loss")[0])
            if not (update and np.isfinite(loss)):
                self._write(moved)
            self._require_finite("the loss", loss, frame)
            self.backend.run("backward", frame)
            if update:
                self._update(frame, moved)
        self._carry(frame)
        return loss

    def _update(self, frame: Frame, before_loss: Mapping[str, Array]) -> None:
        """The update; should it overflow, what was learnt before the part comes back."""
        if self.backend.update_is_safe(frame):
            self.backend.run("update", frame)
            return
        good = self.backend.learned.copy()
        try:
            self.backend.run("update", frame)
            self._require_finite_state(frame)
        except BaseException as error:  # Ctrl-C too must not leave half of an update
            self.backend.learned[...] = good
            self._write(before_loss)
            if isinstance(error, NumericalError):
                self.reset()  # traces are among what came back, and the state is zero now
            raise

    def _write(self, values: Mapping[str, Array]) -> None:
        for name, array in values.items():
            self.backend.write(name, array)

    def _carry(self, frame: Frame) -> None:
        self.backend.run("carry", frame)
        self._require_finite_carry(frame)

    def _require_finite_carry(self, frame: Frame) -> None:
        for name, state in read_carry(self.backend).items():
            self._require_finite(f"the state {name}", state[: frame.rows[0]], frame)

    def _counts(self, targets: Array, frame: Frame) -> bool:
        """Whether any running (row, step) of the part has a target."""
        labelled = targets >= 0 if targets.dtype == np.int32 else targets[..., 0] == targets[..., 0]
        if not self.program.schedule.every_step:
            return bool(labelled.any())
        return any(labelled[t, :rows].any() for t, rows in enumerate(frame.rows))

    def _require_finite_state(self, frame: Frame) -> None:
        dtype = self.program.dtype
        # nearly always one look at the whole block is enough
        if dtype != "bfloat16" and np.isfinite(self.backend.learned.view(dtype)).all():
            return
        for buffer in self.program.buffers.values():
            if buffer.role in LEARNED and buffer.dtype != "uint32":
                self._require_finite(buffer.name, self.backend.read(buffer.name), frame)

    def _require_finite(self, what: str, values: ArrayLike, frame: Frame) -> None:
        if np.isfinite(values).all():
            return
        self.reset()
        raise NumericalError(
            f"{what} became NaN or Inf in part {frame.part + 1} of {self.program.rule.parts} "
            f"(steps {frame.begin} to {frame.begin + frame.steps - 1}); training stopped, and the "
            "state of learning is that of the last good update: use a smaller learning rate, or "
            "clip the norm of the update"
        )
