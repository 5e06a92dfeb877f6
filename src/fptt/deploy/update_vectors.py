"""One update of a real training run, with all that goes in and out: what hardware is tested on.

The run is that of the published workload: an LSTM 1-128-10 that reads MNIST digits pixel by pixel
in batches of 4, T = 784, with 67,850 parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fptt.errors import InputError
from fptt.nets import LSTM, Linear, Network
from fptt.program import Program, build
from fptt.program.bfloat16 import to_bits
from fptt.program.frame import frames
from fptt.rules import FPTT, SGD
from fptt.tasks import load
from fptt.trainer import Trainer
from fptt.training.batches import make_batch

Array = NDArray[Any]
#: of the unit -> buffer of the program
BUFFERS = {"grad": "grad/{}", "param": "{}", "lam": "lambda/{}", "rmean": "mean/{}"}


@dataclass(frozen=True)
class RecordedUpdate:
    """An update of all parameters, tensor after tensor in the order of the network.

    Attributes:
        program: the training program.
        number: of the update in its run, from 0.
        lr, alpha: of the rule; beta is 1/2, the mode "code".
        before: grad, param, lam, rmean -> [parameters], float32; bfloat16 values too.
        after: param, lam, rmean, as the back end left them.
        backend: that computed it.
    """

    program: Program
    number: int
    lr: float
    alpha: float
    before: dict[str, Array]
    after: dict[str, Array]
    backend: str

    @property
    def count(self) -> int:
        """Parameters."""
        return len(self.before["param"])

    def bits(self, values: Array) -> Array:
        """Numbers as the program stores them: unsigned integers of 32 or 16 bits."""
        if self.program.dtype == "bfloat16":
            return to_bits(values)
        return np.ascontiguousarray(values, np.float32).view(np.uint32)


def published_program(dtype: str = "float32", parts: int = 28, lr: float = 0.05) -> Program:
    """The published workload as a training program: LSTM 1-128-10, T = 784, batch 4, plain SGD.

    Example:
        >>> program = published_program()
        >>> sum(int(np.prod(program.buffers[name].shape)) for name in program.trained)
        67850
    """
    net = Network([LSTM(1, 128), Linear(128, 10)])
    return build(
        net,
        FPTT(parts=parts),
        SGD(lr=lr),
        steps=784,
        batch=4,
        dtype=dtype,
    )


def record_update(
    program: Program | None = None,
    number: int = 5,
    *,
    backend: str = "native",
    seed: int = 0,
    data: tuple[Array, Array] | None = None,
) -> RecordedUpdate:
    """Trains up to one update and records it.

    The gradients need memory of their own, which a program does not always keep: the run is that
    of `program.keeping_gradients()`. In float32 it computes the same bits; in bfloat16 gradients
    are rounded when they are stored, and a program that does not store them rounds less.

    Args:
        program: with rule FPTT in mode "code", beta = 1/2, and plain SGD without clipping. By
            default `published_program()`.
        number: which update, from 0; at the first one lambda is zero and theta is the mean.
        backend: "native" or "reference".
        seed: of the weights.
        data: inputs [rows, steps, features] and targets. By default digits of the bundled MNIST
            images, which need 784 steps of one input.

    Returns:
        What went in and came out.

    Raises:
        InputError: a program whose update is another, or no such update in a pass over the batch.
    """
    program = (published_program() if program is None else program).keeping_gradients()
    alpha = _require_plain(program)
    if not 0 <= number < program.rule.parts:
        raise InputError(
            f"update {number} is not among the {program.rule.parts} of a sequence, from 0"
        )
    trainer = Trainer(program, backend=backend, seed=seed)
    x, y = _digits(program) if data is None else data
    batch = make_batch(program, x, y, None, bounded=True)
    assert batch.y is not None
    memory = trainer.backend
    for frame in frames(program, batch.lengths.tolist()):
        if frame.part == 0:
            memory.run("begin_sequence", frame)
            memory.run("next_sequence", frame)
        low, high = frame.begin, frame.begin + frame.steps
        memory.write("input", batch.x[: frame.rows[0], low:high].swapaxes(0, 1))
        memory.write("target", batch.y[: frame.rows[0]])
        for routine in ("forward", "loss", "backward"):
            memory.run(routine, frame)
        before = {name: _all(trainer, pattern) for name, pattern in BUFFERS.items()}
        memory.run("update", frame)
        memory.run("carry", frame)
        if frame.part == number:
            break
    after = {name: _all(trainer, BUFFERS[name]) for name in ("param", "lam", "rmean")}
    return RecordedUpdate(program, number, trainer.lr, alpha, before, after, backend)


def _all(trainer: Trainer, pattern: str) -> Array:
    tensors = [
        trainer.backend.read(pattern.format(name)).ravel() for name in trainer.program.trained
    ]
    return np.concatenate(tensors).astype(np.float32)


def _require_plain(program: Program) -> float:
    """Alpha of the rule, if the FPTT unit computes this program's update."""
    rule, optimizer = program.rule, program.optimizer
    if not isinstance(rule, FPTT) or not rule.regularise:
        raise InputError(f"the rule is {rule}; the FPTT unit's update needs FPTT with R(t)")
    if rule.beta != 0.5 or rule.mode != "code":
        raise InputError(
            f"beta is {rule.beta} and the mode {rule.mode!r}; the FPTT unit has beta=0.5 and "
            "mode='code'"
        )
    if type(optimizer) is not SGD or optimizer.momentum or program.clip is not None:
        raise InputError(
            f"the optimizer is {optimizer}, clip {program.clip}; the FPTT unit has SGD without "
            "momentum and no clipping"
        )
    if program.schedule.every_step or program.schedule.fractional:
        raise InputError(f"the loss is {program.schedule.name!r}; vectors are recorded with 'last'")
    return float(rule.alpha)


def _digits(program: Program) -> tuple[Array, Array]:
    """The first digits of the bundled images."""
    data = load("s-mnist", subset=True)
    if (data.steps, data.inputs) != (program.steps, program.net.inputs):
        raise InputError(
            f"the bundled digits have {data.steps} steps of {data.inputs} input; the program has "
            f"{program.steps} of {program.net.inputs}: give data"
        )
    return data.train.x[: program.batch], data.train.y[: program.batch]
