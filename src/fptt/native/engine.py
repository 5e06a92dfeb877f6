"""The C engine as a back end: a program's memory, and the means to run its routines."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fptt.errors import FpttError, InputError
from fptt.native._engine import ffi, lib
from fptt.native.compile import INSTRUCTION_SETS, ROUTINES, Tables, addresses
from fptt.program.arena import STORAGE, Arena
from fptt.program.plan import LEARNED

if TYPE_CHECKING:
    from fptt.program.frame import Frame
    from fptt.program.program import Program

#: the engine looks up from its work after a part, but not more often than this, so that Ctrl-C acts
_SECONDS = 0.01


class Batch(Protocol):
    """A batch sorted by length, the longest first."""

    @property
    def x(self) -> NDArray[Any]:
        """[rows, steps, features] or tokens [rows, steps]."""

    @property
    def y(self) -> NDArray[Any] | None:
        """Targets."""

    @property
    def lengths(self) -> NDArray[Any]:
        """Steps of every row."""

    @property
    def unequal(self) -> bool:
        """Whether any sequence is shorter than the program's T."""


def instruction_set() -> str:
    """The best set of vector instructions that this machine has, or FPTT_ISA if that is set.

    Raises:
        InputError: FPTT_ISA names a set that is unknown or that this machine lacks.
    """
    here = [name for name, number in INSTRUCTION_SETS.items() if lib.fptt_isa_runs_here(number)]
    wanted = os.environ.get("FPTT_ISA", "").lower() or here[-1]
    if wanted not in here:
        raise InputError(f"FPTT_ISA is {wanted!r}; this machine runs {', '.join(here)}")
    return wanted


class Engine(Arena):
    """One program with its memory, run by the C engine in float32 and bfloat16.

    Args:
        program: a verified program.
        arena: memory to use, see `Arena`.
        threads: how many may share the work where it is large enough; the results are the same.

    Raises:
        InputError: a program in float64, or one with operations that the engine lacks.
    """

    name = "native"

    def __init__(
        self, program: Program, arena: NDArray[np.uint8] | None = None, threads: int = 1
    ) -> None:
        for dtype in (program.dtype, program.activation_dtype):
            if dtype == "float64":
                raise InputError(
                    "the engine runs float32 and bfloat16; "
                    'for a float64 program use backend="reference"'
                )
        if program.part_steps * program.batch >= 2**31:
            raise InputError(
                "the engine takes fewer than 2^31 rows in a part, not "
                f"{program.part_steps} steps of "
                f'{program.batch}; use more parts, a smaller batch, or backend="reference"'
            )
        super().__init__(program, arena)
        self._tables = Tables(program, addresses(program, self._views))
        room = max(program.part_steps, program.batch)
        self._segments = ffi.new("fptt_segment[]", room)
        self._spans = ffi.new("fptt_span[]", room)
        types = (program.activation_dtype == "bfloat16") + 2 * (program.dtype == "bfloat16")
        self._engine = ffi.new("fptt_engine *")
        self.isa, self.threads = instruction_set(), 1
        self._engine.kernels = lib.fptt_isa_kernels(INSTRUCTION_SETS[self.isa], types)
        self._engine.ops, self._engine.blocks = self._tables.ops, self._tables.blocks
        self._engine.segments, self._engine.spans = self._segments, self._spans
        self._engine.batch = program.batch
        self._rows = ffi.new("int32_t[]", program.part_steps)
        self._lock = threading.Lock()
        self._handed: _Handed | None = None
        self._engine.rows = self._rows
        for name, (first, count) in self._tables.routines.items():
            routine = self._engine.routine[ROUTINES[name]]
            routine.first, routine.count = first, count
        self._engine.op_count = self._tables.op_count
        self._engine.block_count = self._tables.block_count
        self._engine.part_steps = program.part_steps
        memory = ffi.new(
            "fptt_memory[]",
            [(ffi.cast("uint8_t *", start), size) for start, size in self._memory()],
        )
        check(lib.fptt_check(self._engine, memory, len(memory)))
        if "update" in program.routines:
            self._prepare_driver()
        if threads > 1:
            self._pool = ffi.new("char[]", lib.fptt_pool_bytes())
            self._engine.pool = ffi.cast("fptt_pool *", self._pool)
            self.threads = lib.fptt_pool_start(self._engine.pool, threads)
            # the memory stays until the threads have gone
            weakref.finalize(self, _stop, self._pool)

    def _memory(self) -> list[tuple[int, int]]:
        """Address and bytes of every piece of memory that the program may use."""
        plan = self.program.plan
        return [
            (self.arena.ctypes.data, plan.arena_bytes),
            (self._const.ctypes.data, plan.const_bytes),
        ]

    def _prepare_driver(self) -> None:
        program, driver, write = self.program, self._engine.driver, self._tables.write_operand
        write(driver.input, program.buffers["input"].at(0))
        target = program.buffers["target"]
        write(driver.target, target.at(0))
        if "fraction" in program.buffers:
            write(driver.fraction, program.buffers["fraction"].whole)
        driver.target_is_label = target.dtype == "int32"
        driver.every_step = target.steps > 0
        driver.loss = ffi.cast("float *", self._views["loss"].ctypes.data)
        driver.lr = ffi.cast("float *", self._views["lr"].ctypes.data)
        self._carried = ffi.new("fptt_operand[]", max(len(program.carried), 1))
        for place, buffer in enumerate(program.carried):
            write(self._carried[place], buffer.initial())
        driver.carried, driver.carried_count = self._carried, len(program.carried)
        learned = [
            b for b in program.buffers.values() if b.role in LEARNED and b.dtype == program.dtype
        ]
        self._learned = ffi.new("fptt_operand[]", len(learned))
        for place, buffer in enumerate(learned):
            write(self._learned[place], buffer.whole)
        driver.learned, driver.learned_count = self._learned, len(learned)
        moved = program.moved_by_loss
        assert len(moved) <= 1, "the engine keeps one buffer that the loss moves"
        if moved:
            # one Q for every part: a part moves its own
            shares = program.rule.parts if getattr(program.schedule, "per_part", False) else 1
            share = moved[0].bytes // shares
            self._moved = ffi.new("uint8_t[]", share)
            driver.moved = ffi.cast("uint8_t *", self._views[moved[0].name].ctypes.data)
            driver.moved_copy, driver.moved_bytes = self._moved, share
            driver.moved_distance = share if shares > 1 else 0
        driver.cautious = self._tables.cautious

    def _frame(self, frame: Frame) -> Any:
        rows = self._rows
        rows[0 : frame.steps] = frame.rows
        return ffi.new("fptt_frame *", (frame.part, frame.begin, frame.steps, rows))

    def describe(self) -> str:
        """The back end in a few words."""
        return f"engine, {self.isa}, {self.threads} thread{'s' * (self.threads > 1)}"

    def run(self, routine: str, frame: Frame, step: int | None = None) -> None:
        """Runs a routine on a part, its loops for all steps or only for the given one."""
        with self._alone():
            c_frame = self._frame(frame)
            status = lib.fptt_run(
                self._engine, ROUTINES[routine], c_frame, -1 if step is None else step
            )
        check(status)

    def update_is_safe(self, frame: Frame) -> bool:
        """Whether `update` cannot overflow, so that no copy of what is learnt is needed."""
        with self._alone():
            lib.fptt_measure_learned(self._engine)
            return bool(lib.fptt_update_is_safe(self._engine, self._frame(frame)))

    def train(self, batch: Batch, losses: NDArray[np.float64], part: int) -> tuple[str, int]:
        """Trains on a sorted batch from one of its parts on, for a short while.

        Args:
            batch: the batch.
            losses: one number a part, written where a part counts anything.
            part: the part to go on with, from 0.

        Returns:
            The status (see `fptt.h`) and the part that it concerns, or to go on with.
        """
        c_part = ffi.new("int32_t *", part)
        # a second thread must not replace the arrays at which C is looking
        with self._alone():
            if self._handed is None or self._handed.batch is not batch:
                self._handed = _Handed(self.program, batch, losses)
            status = lib.fptt_train(self._engine, self._handed.c_batch, c_part, _SECONDS)
            if status == lib.FPTT_OK:
                self._handed = None
        return ffi.string(lib.fptt_status_name(status)).decode(), c_part[0]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """The engine's memory is for one thread of Python at a time."""
        if not self._lock.acquire(blocking=False):
            raise FpttError(
                "this trainer is at work in another thread; give every thread a trainer of its own"
            )
        try:
            yield
        finally:
            self._lock.release()

    def before_loss(self, part: int) -> dict[str, NDArray[Any]]:
        """What the loss of this part, the last that ran, has moved, as it was before."""
        before = {}
        for buffer in self.program.moved_by_loss:
            values = self.read(buffer.name)
            kept = np.frombuffer(ffi.buffer(self._moved), STORAGE[buffer.dtype])
            kept = self._decoded(buffer, kept).reshape(-1, *buffer.inner[1:])
            first = len(kept) * part if self._engine.driver.moved_distance else 0
            values[first : first + len(kept)] = kept
            before[buffer.name] = values
        return before


class _Handed:
    """A batch as C takes it, with the arrays that it points into."""

    def __init__(self, program: Program, batch: Batch, losses: NDArray[np.float64]) -> None:
        assert batch.y is not None
        self.batch = batch
        x = np.ascontiguousarray(batch.x, np.int32 if batch.x.dtype == np.int32 else np.float32)
        y = np.ascontiguousarray(batch.y, np.int32 if batch.y.dtype == np.int32 else np.float32)
        lengths = np.ascontiguousarray(batch.lengths, np.int32)
        self._arrays = x, y, lengths, losses
        self.c_batch = c = ffi.new("fptt_batch *")
        c.rows, c.steps, c.parts = len(x), program.steps, program.rule.parts
        c.lengths = ffi.cast("int32_t *", lengths.ctypes.data)
        c.unequal = batch.unequal
        c.x = ffi.cast("uint8_t *", x.ctypes.data)
        c.targets = ffi.cast("uint8_t *", y.ctypes.data)
        c.x_row_bytes, c.x_step_bytes = x.strides[:2]
        c.target_row_bytes = y.strides[0]
        c.target_step_bytes = y.strides[1] if y.ndim > 1 else 0
        c.losses = ffi.cast("double *", losses.ctypes.data)


def _stop(pool: Any) -> None:
    lib.fptt_pool_stop(ffi.cast("fptt_pool *", pool))


def check(status: int) -> None:
    """Raises FpttError unless all went well."""
    if status != lib.FPTT_OK:
        raise FpttError(
            f"the engine stopped: {ffi.string(lib.fptt_status_text(status)).decode()} "
            f"({ffi.string(lib.fptt_status_name(status)).decode()})"
        )
