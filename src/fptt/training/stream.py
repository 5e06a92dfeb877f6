"""Learning from a stream, one time step at a time, with the bits of a batch call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fptt.errors import InputError
from fptt.program.frame import Frame
from fptt.training.batches import check_input, check_target

if TYPE_CHECKING:
    from fptt.training.parts import PartRunner

Array = NDArray[Any]


class Stream:
    """Where a stream stands. `Trainer.step` and its neighbours explain the behaviour.

    Attributes:
        rows: rows of the stream, None before its first step.
        position: steps of the sequence taken so far, modulo T.
        frame: the part in flight, or None between parts.
    """

    def __init__(self, parts: PartRunner) -> None:
        self._parts = parts
        self.begin()

    def begin(self) -> None:
        """Forgets the part in flight."""
        self.rows: int | None = None
        self.position = 0
        self.frame: Frame | None = None
        self._targets: list[Array] = []

    def step(self, x_t: ArrayLike, target: ArrayLike | None) -> Array:
        """See `Trainer.step`."""
        program, backend = self._parts.program, self._parts.backend
        x = check_input(program, x_t, axes="[batch, features]")
        targets = self._checked(target, len(x))
        if self.rows is None:
            if not 0 < len(x) <= program.batch:
                raise InputError(
                    f"x_t has {len(x)} rows; the program was built for 1 to {program.batch}"
                )
            self.rows = len(x)
            self._parts.begin_sequence(Frame(0, 0, (self.rows,), 0))
        elif len(x) != self.rows:
            raise InputError(
                f"x_t has {len(x)} rows, but this sequence began with {self.rows}; "
                "call begin_sequence() before changing the number of rows"
            )
        elif self.position == 0:
            # an endless stream counts its steps from 0 again; dropout must not repeat its masks
            backend.run("next_sequence", self._parts.all_rows)
        part, (low, high) = next(
            (p, cut) for p, cut in enumerate(program.bounds) if self.position < cut[1]
        )
        t = self.position - low
        after = 0 if high == program.steps else self.rows
        self.frame = Frame(part, low, (self.rows,) * (t + 1), after)
        self._targets.append(targets)
        self._parts.write_step(t, x, targets)
        backend.run("forward", self.frame, t)
        backend.run("readout", self.frame, t)
        outputs = self._outputs(t)
        self.position = (self.position + 1) % program.steps
        if t + 1 == high - low:
            self._finish((part + 1) / program.rule.parts)
        return outputs

    def end(self) -> None:
        """See `Trainer.end_sequence`."""
        if self.frame is not None:
            self._finish(1.0)
        self.begin()

    def _checked(self, target: ArrayLike | None, rows: int) -> Array:
        program = self._parts.program
        if target is not None:
            return check_target(program, target, (rows,), optional=True)
        if program.criterion == "cross_entropy":
            return np.full(rows, -1, np.int32)
        return np.full((rows, program.net.outputs), np.nan)

    def _outputs(self, t: int) -> Array:
        output = self._parts.program.output
        values = self._parts.backend.read(output.name, step=t if output.steps else None)
        return values[: self.rows]

    def _finish(self, fraction: float) -> None:
        """Learns from the part in flight."""
        frame, targets = self.frame, self._targets
        assert frame is not None
        self.frame, self._targets = None, []
        every_step = self._parts.program.schedule.every_step
        self._parts.learn(
            frame,
            np.stack(targets) if every_step else targets[-1],
            np.full(frame.rows[0], fraction),
        )

    def as_plain(self) -> dict[str, Any]:
        """Plain data for snapshots."""
        frame = self.frame
        return {
            "rows": self.rows,
            "position": self.position,
            "frame": None
            if frame is None
            else [frame.part, frame.begin, frame.steps, frame.rows_after],
            # no target is -1 among labels; among numbers it is NaN, which JSON does not have
            "targets": [
                [None if value != value else value for value in seen.ravel().tolist()]
                for seen in self._targets
            ],
        }

    def from_plain(self, value: Mapping[str, Any]) -> None:
        """Takes up what `as_plain` wrote."""
        self.rows, self.position = value["rows"], value["position"]
        self.frame = None
        if value["frame"] is not None:
            part, begin, steps, after = value["frame"]
            self.frame = Frame(part, begin, (value["rows"],) * steps, after)
        shape = (
            (-1,)
            if self._parts.program.criterion == "cross_entropy"
            else (-1, self._parts.program.net.outputs)
        )
        kind = np.int32 if len(shape) == 1 else np.float64
        self._targets = [np.array(seen, kind).reshape(shape) for seen in value["targets"]]
