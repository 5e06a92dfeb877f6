"""Prediction and evaluation with a network's parameters, on batches of any size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fptt.backends import backend as make_backend
from fptt.errors import InputError
from fptt.nets.network import Network
from fptt.program import build_inference
from fptt.program.frame import Frame
from fptt.program.ops import spec
from fptt.rules.losses import CRITERION_OPS
from fptt.training.batches import (
    Batch,
    as_array,
    check_input,
    check_lengths,
    check_target,
    make_batch,
)
from fptt.training.carry import rows_in_order

if TYPE_CHECKING:
    from fptt.program import Program
    from fptt.rules.losses import Criterion

Array = NDArray[Any]
#: rows that are evaluated together
ROWS = 128


class Inference:
    """A program that only infers, and its memory.

    Args:
        net: the network.
        every_step: outputs at every step, or at every sequence's last one.
        criterion: "cross_entropy" or "mse", for `evaluate`.
        carry: whether rows go on from batch to batch (language modelling).
        batch: rows that are run together.
        dtype, activation_dtype: as in `fptt.build`.
        backend: as in `Trainer`.
    """

    def __init__(
        self,
        net: Network,
        *,
        every_step: bool,
        criterion: Criterion,
        carry: bool = False,
        batch: int = ROWS,
        dtype: str = "float32",
        activation_dtype: str | None = None,
        backend: str | None = None,
    ) -> None:
        self.program = build_inference(
            net,
            batch=batch,
            every_step=every_step,
            dtype=dtype,
            activation_dtype=activation_dtype,
            criterion=criterion,
        )
        self.backend = make_backend(backend, self.program)
        self.carry = carry

    @classmethod
    def of(cls, program: Program, backend: str | None = None) -> Inference:
        """For the network of a training program, judged as that program judges it."""
        carry = program.rule.state == "carry"
        return cls(
            program.net,
            every_step=program.schedule.every_step,
            criterion=program.criterion,
            carry=carry,
            batch=program.batch if carry else max(program.batch, ROWS),
            dtype=program.dtype,
            activation_dtype=program.activation_dtype,
            backend=backend,
        )

    def load(self, parameters: Mapping[str, Array]) -> None:
        """Takes these parameters."""
        for name, array in parameters.items():
            self.backend.write(name, array)

    def predict(self, x: ArrayLike, lengths: ArrayLike | None = None) -> Array:
        """See `Trainer.predict`."""
        whole = make_batch(self.program, x, None, lengths)
        n, steps = whole.x.shape[:2]
        every_step = self.program.schedule.every_step
        outputs: Array = np.zeros(
            (n, steps, self.program.net.outputs) if every_step else (n, self.program.net.outputs),
            self._dtype(),
        )
        for low in range(0, n, self.program.batch):
            rows = slice(low, low + self.program.batch)
            self.reset()
            outputs[whole.order[rows]] = self._run(
                Batch(whole.x[rows], None, whole.lengths[rows], whole.order[rows], False)
            )
        return outputs

    def reset(self) -> None:
        """The state before any sequence."""
        self.backend.run("begin_inference", Frame(0, 0, (self.program.batch,), 0))

    def _dtype(self) -> type:
        return np.float64 if self.program.dtype == "float64" else np.float32

    def _run(self, batch: Batch) -> Array:
        """Outputs of one sorted batch, from the state that is there."""
        every_step = self.program.schedule.every_step
        steps, lengths = batch.x.shape[1], batch.lengths
        shape = (steps,) if every_step else ()
        values = np.zeros((len(batch.x), *shape, self.program.net.outputs), self._dtype())
        for t in range(int(lengths[0])):
            rows = int((lengths > t).sum())
            ending = int((lengths > t + 1).sum())
            frame = Frame(0, t, (rows,), 0)
            self.backend.write("input", batch.x[:rows, t], step=0)
            self.backend.run("infer", frame)
            if every_step or ending < rows:
                self.backend.run("readout", frame)
                output = self.backend.read(self.program.output.name)
                if every_step:
                    values[:rows, t] = output[:rows]
                else:
                    values[ending:rows] = output[ending:rows]
        return values

    def evaluate(self, data: Any) -> dict[str, float]:
        """Loss, and for classes accuracy and (every_step) perplexity.

        Args:
            data: (x, y) or (x, y, lengths), or an object with these attributes. With `carry`,
                consecutive groups of `batch` rows continue each other.
        """
        x, y, lengths = as_arrays(data)
        if len(x) == 0:
            raise InputError("there is nothing to evaluate: the data hold no sequences")
        loss_sum = correct = counted = 0.0
        for outputs, targets in self._judged(x, y, lengths):
            keep = targets >= 0 if targets.ndim == 1 else np.ones(len(targets), bool)
            _, loss = spec(CRITERION_OPS[self.program.criterion]).formula(
                outputs[keep].astype(np.float64), targets[keep]
            )
            loss_sum += float(loss[0]) * int(keep.sum())
            counted += int(keep.sum())
            if targets.ndim == 1:
                correct += float((outputs[keep].argmax(axis=1) == targets[keep]).sum())
        if not counted:
            raise InputError("there is nothing to evaluate: no step has a target")
        result = {"loss": loss_sum / counted}
        if self.program.criterion == "cross_entropy":
            result["accuracy"] = correct / counted
            if self.program.schedule.every_step:
                with np.errstate(over="ignore"):
                    result["perplexity"] = float(np.exp(result["loss"]))
        return result

    def _judged(
        self, x: ArrayLike, y: ArrayLike, lengths: ArrayLike | None
    ) -> Iterator[tuple[Array, Array]]:
        """Outputs [m, outputs] and targets [m] or [m, outputs], step by step or row by row."""
        x = check_input(self.program, x)
        targets = check_target(self.program, y, x.shape[:2])
        all_lengths = check_lengths(lengths, *x.shape[:2])
        for low in range(0, len(x), self.program.batch):
            rows = slice(low, low + self.program.batch)
            batch = make_batch(self.program, x[rows], None, all_lengths[rows])
            if not self.carry or low == 0:
                self.reset()
            with rows_in_order(self.backend, batch.order) if self.carry else nullcontext():
                outputs = self._run(batch)
            wanted = targets[rows][batch.order]
            if self.program.schedule.every_step:
                running = np.arange(x.shape[1]) < batch.lengths[:, None]
                yield outputs[running], wanted[running]
            else:
                yield outputs, wanted


def as_arrays(data: Any) -> tuple[Array, Array, Array | None]:
    """x, y and lengths of a tuple or of an object with such attributes."""
    if isinstance(data, tuple) and len(data) in (2, 3):
        x, y, lengths = (*data, None)[:3]
        given = None if lengths is None else as_array("lengths", lengths)
        return as_array("x", x), as_array("y", y), given
    try:
        return data.x, data.y, data.lengths
    except AttributeError:
        raise InputError(
            f"data is {type(data).__name__}; give (x, y), (x, y, lengths), or a "
            "SequenceData of fptt.tasks"
        ) from None
