"""Runs a training program: batches, streams, parts, evaluation."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fptt.backends import Backend
from fptt.backends import backend as make_backend
from fptt.checks import is_number, is_whole
from fptt.errors import InputError
from fptt.nets.layer import check_size
from fptt.program import Program
from fptt.program.ir import Buffer, Role
from fptt.program.plan import LEARNED
from fptt.training.batches import make_batch
from fptt.training.carry import read_carry, write_carry
from fptt.training.inference import Inference
from fptt.training.parts import PartRunner
from fptt.training.stream import Stream

if TYPE_CHECKING:
    from fptt.training.fitting import History

Array = NDArray[Any]


#: numbers above this become Inf
_LARGEST = {
    "float64": np.finfo(np.float64).max,
    "float32": float(np.finfo(np.float32).max),
    "bfloat16": float(np.uint32(0x7F7FFFFF).view(np.float32)) * (1 - 2**-9),
}


class Trainer:
    """A program with its memory: trains, streams, predicts, saves.

    Args:
        program: what `fptt.build` returned.
        backend: "native" (the C engine), "reference" (NumPy, which defines what is right), or a
            back end with memory of its own for this program. By default "native", and "reference"
            for what only it runs: float64, cells that have no C kernels, and gradient sources other
            than "bptt".
        seed: draws the initial weights, the order of the data and dropout.
        threads: threads that the engine may use, where the work is large enough to share: from
            batches of 8 on, for a start; never more than there are processors. Results do not
            depend on it, bit for bit. The reference always uses one.

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

    def __init__(
        self,
        program: Program,
        backend: str | Backend | None = None,
        seed: int = 0,
        threads: int = 1,
    ) -> None:
        if not isinstance(program, Program):
            raise InputError(f"Trainer: program is {program!r}; give what fptt.build returned")
        check_size("Trainer", "threads", threads)
        if not is_whole(seed) or not 0 <= seed < 2**32:
            raise InputError(f"Trainer: seed is {seed!r}; give a whole number from 0 to 2^32 - 1")
        self.program = program
        self.backend = make_backend(backend, program, threads)
        self.seed, self.threads = int(seed), threads
        self.epoch = 0
        self._parts = PartRunner(program, self.backend)
        self.stream = Stream(self._parts)
        self._inference: Inference | None = None
        self._inference_lock = threading.Lock()
        self.load_parameters(program.net.initial(self.seed))
        self.lr = program.optimizer.lr

    # -- state -------------------------------------------------------------------------------

    def parameters(self) -> dict[str, Array]:
        """Copies of all parameters by name, in PyTorch's shapes."""
        return {name: self.backend.read(name) for name in self.program.net.parameters}

    def merged_parameters(self) -> dict[str, Array]:
        """Copies of the parameters of the network without adapters that computes the same.

        Of a matrix with an adapter it is W + up down, under the name of W, computed in double
        precision and rounded once; the others are as in `parameters`.
        """
        return self.program.net.merged(self.parameters())

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
        largest = _LARGEST[self.program.dtype]
        for name, array in arrays.items():
            if np.abs(array.astype(np.float64)).max(initial=0) > largest:
                raise InputError(
                    f"the weights of {name} are larger than {self.program.dtype} holds"
                )
        for name, array in arrays.items():
            self.backend.write(name, array)
        self.backend.run("start", self._parts.all_rows)
        for counter in ("random", "rounding"):  # of dropout, of stochastic rounding
            if counter in self.program.buffers:
                self.backend.write(counter, np.array([self.seed, 0], np.uint32))
        self.reset_state()

    def _buffers(self, *roles: Role) -> list[Buffer]:
        return [b for b in self.program.buffers.values() if b.role in roles]

    def state(self) -> dict[str, Array]:
        """Copies of what the rule and the optimizer remember.

        Names: "lambda/0.weight_ih", "mean/0.weight_ih", "momentum/..", "adam_m/..", "adam_v/..",
        "trace/..", "correction", "lr", "auxiliary.Q" ([classes, classes], with one Q per part
        [parts, classes, classes]), "random", "rounding".
        """
        state = {
            b.name: self.backend.read(b.name)
            for b in self._buffers(Role.RULE_STATE, Role.OPTIMIZER_STATE)
        }
        if getattr(self.program.schedule, "per_part", False):
            q = state["auxiliary.Q"]
            state["auxiliary.Q"] = q.reshape(-1, q.shape[1], q.shape[1])
        return state

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return float(self.backend.read("lr")[0])

    @lr.setter
    def lr(self, value: float) -> None:
        kind = np.float64 if self.program.dtype == "float64" else np.float32
        largest = float(np.finfo(kind).max)  # NumPy's own cannot be compared with any whole number
        if not is_number(value) or not 0 <= value <= largest:
            raise InputError(f"Trainer: lr is {value!r}; give a number with 0 <= lr < inf")
        self.backend.write("lr", np.array([value]))

    def reset_state(self) -> None:
        """Sets the carried state to zero, as at the start of an epoch of language modelling."""
        self._parts.reset()
        self.stream.begin()

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
            NumericalError: NaN or Inf in the loss, the state of learning or the carried state.
                What is learnt is that of the last good update; the carried state is zero.
        """
        batch = make_batch(self.program, x, y, lengths, bounded=True)
        self.stream.begin()
        losses = self._parts.train(batch)
        return float(np.mean(losses)) if losses else float("nan")

    def part_gradients(
        self, x: ArrayLike, y: ArrayLike, lengths: ArrayLike | None = None
    ) -> list[dict[str, Array] | None]:
        """The gradient of every part's data loss at the present weights; nothing is changed.

        Returns:
            One dict name -> gradient for each of the K parts, None where nothing counts.
        """
        if self.stream.frame is not None:
            raise InputError(
                "part_gradients: a part of a stream is in flight, and its activations would be "
                "lost; call it between parts, or end_sequence() first"
            )
        batch = make_batch(self.program, x, y, lengths, bounded=True)
        parts = self._gradient_parts()
        gradients: list[dict[str, Array] | None] = [None] * self.program.rule.parts
        learned, carry = self.backend.learned.copy(), read_carry(self.backend)
        for frame, loss in parts.gradients(batch):
            if loss is not None:
                gradients[frame.part] = {
                    name: parts.backend.read(f"grad/{name}") for name in self.program.trained
                }
        self.backend.learned[...] = learned
        write_carry(self.backend, carry)
        return gradients

    def _gradient_parts(self) -> PartRunner:
        """Runs parts in a program that keeps its gradients: this one, or a copy made for it."""
        program = self.program.keeping_gradients()
        if program is self.program:
            return self._parts
        copy = Trainer(program, self.backend.name, self.seed)
        for buffer in program.buffers.values():
            if buffer.role in (*LEARNED, Role.FROZEN):
                copy.backend.write(buffer.name, self.backend.read(buffer.name))
        write_carry(copy.backend, read_carry(self.backend))
        return copy._parts

    # -- streams -----------------------------------------------------------------------------

    def begin_sequence(self) -> None:
        """Starts a new sequence; a part that is not complete is dropped without learning."""
        self.stream.begin()

    def step(self, x_t: ArrayLike, target: ArrayLike | None = None) -> Array:
        """Takes one time step; at the end of a part, learns.

        A part trains if a target was given at its last step (loss "every_step": at any step);
        otherwise it only carries the state, and targets given before do not count. After T steps
        the parts start again and the state goes on, so that a stream may be endless.

        Args:
            x_t: [rows, features], or tokens [rows]; the same rows until `begin_sequence`.
            target: labels [rows], where -1 means none for a row, or outputs [rows, outputs].

        Returns:
            Outputs of this step [rows, outputs], computed before any update.

        Raises:
            InputError: data that do not fit.
            NumericalError: as in `train_batch`; the position in the sequence stays.
        """
        return self.stream.step(x_t, target)

    def end_sequence(self) -> None:
        """Ends the sequence here: a part that is not complete learns from the steps it has."""
        self.stream.end()

    def end_epoch(self) -> None:
        """The rule's end of an epoch: theta becomes m and lambda 0, where so chosen."""
        self.backend.run("end_epoch", self._parts.all_rows)
        self.epoch += 1

    # -- inference ---------------------------------------------------------------------------

    def inference(self) -> Inference:
        """The network with the present parameters, ready to predict."""
        if self._inference is None:
            self._inference = Inference.of(self.program, self.backend.name)
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
        with self._inference_lock:
            return self.inference().predict(x, lengths)

    def evaluate(self, data: Any) -> dict[str, float]:
        """Loss and, for classes, accuracy and (every_step) perplexity on data; see `fit`."""
        with self._inference_lock:
            return self.inference().evaluate(data)

    # -- training and files ------------------------------------------------------------------

    def fit(self, data: Any, epochs: int, **options: Any) -> History:
        """Trains for a number of epochs; see `fptt.training.fitting.fit` for the options.

        Example:
            trainer.fit((x, y), epochs=10, test=(x_test, y_test), checkpoint="run.ckpt")
        """
        from fptt.training.fitting import fit

        return fit(self, data, epochs, **options)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles and copies go through the bytes of a snapshot; a copy has memory of its own."""
        from fptt.storage.snapshot import from_bytes, to_bytes

        return from_bytes, (to_bytes(self), self.backend.name, self.threads)

    def __repr__(self) -> str:
        return f"Trainer({self.program.net}, {self.program.rule}, {self.backend.describe()})"

    def save(self, path: str | Path) -> None:
        """Writes the whole training state to a file, atomically; `fptt.load` reads it."""
        from fptt.storage.snapshot import save

        save(self, path)

    def save_parameters(self, path: str | Path) -> None:
        """Writes the parameters, with the network's description, to a safetensors file."""
        from fptt.storage.modelfile import save_model

        save_model(
            path,
            self.program.net,
            self.parameters(),
            self.program.schedule.name,
            self.program.criterion,
        )
