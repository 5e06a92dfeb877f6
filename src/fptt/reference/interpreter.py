"""Runs a program with NumPy: obvious before fast. It defines what a program means.

Every buffer is a view of one arena at its planned offset. An operation reads its operands, runs
the formula of the op table, and writes the results; nothing else is remembered. In bfloat16
buffers numbers are rounded when an operation writes them, and nowhere else: formulas see float32.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from fptt.errors import FpttError
from fptt.program.ir import Buffer, Loop, Op, Ref, Role
from fptt.program.ops import Place, spec
from fptt.reference.bfloat16 import from_bits, to_bits

if TYPE_CHECKING:
    from fptt.program.frame import Frame
    from fptt.program.program import Program

Array = NDArray[Any]
_STORAGE = {
    "float64": np.float64,
    "float32": np.float32,
    "bfloat16": np.uint16,
    "int32": np.int32,
    "uint32": np.uint32,
}


class Interpreter:
    """One program with its memory.

    Args:
        program: a verified program.
        arena: memory to use, uint8 of at least `program.plan.arena_bytes`; allocated by default.
    """

    def __init__(self, program: Program, arena: NDArray[np.uint8] | None = None) -> None:
        self.program = program
        planned = program.plan
        try:
            self.arena = np.zeros(planned.arena_bytes, np.uint8) if arena is None else arena
        except (MemoryError, ValueError):
            raise FpttError(
                f"the program needs {planned.arena_bytes:,} bytes, more than this computer has; "
                "use a smaller network or batch, or more parts"
            ) from None
        if self.arena.nbytes < planned.arena_bytes:
            raise ValueError(
                f"the arena has {self.arena.nbytes} bytes; the program needs {planned.arena_bytes}"
            )
        self._const = np.zeros(planned.const_bytes, np.uint8)
        self._views = {buffer.name: self._view(buffer) for buffer in program.buffers.values()}

    def _view(self, buffer: Buffer) -> Array:
        block = self._const if buffer.role == Role.FROZEN else self.arena
        offset = self.program.plan.offsets[buffer.name]
        return (
            block[offset : offset + buffer.bytes].view(_STORAGE[buffer.dtype]).reshape(buffer.shape)
        )

    # -- access from outside -----------------------------------------------------------------

    def read(self, name: str, step: int | None = None) -> Array:
        """A copy of a buffer, or of its slot of one step; bfloat16 as float32."""
        buffer = self.program.buffers[name]
        return np.array(self._decoded(buffer, self._slot(buffer, step)))

    def write(self, name: str, values: Array, step: int | None = None) -> None:
        """Writes the first entries along every axis of a buffer, or of its slot of one step."""
        buffer = self.program.buffers[name]
        corner = tuple(slice(0, extent) for extent in values.shape)
        self._store(buffer, self._slot(buffer, step)[corner], values)

    def _slot(self, buffer: Buffer, step: int | None) -> Array:
        view = self._views[buffer.name]
        return view if step is None else view[buffer.lead + step]

    @property
    def learned(self) -> NDArray[np.uint8]:
        """Parameters, rule and optimizer state as one block of bytes, a view."""
        return self.arena[: self.program.plan.learned_bytes]

    # -- execution ---------------------------------------------------------------------------

    def run(self, routine: str, frame: Frame, step: int | None = None) -> None:
        """Runs a routine on a part, its loops for all steps or only for the given one."""
        with _blas().limit(limits=1, user_api="blas"), np.errstate(all="ignore"):
            for item in self.program.routines[routine].body:
                if not isinstance(item, Loop):
                    self._execute(item, frame, None)
                    continue
                steps = range(frame.steps) if step is None else (step,)
                for t in reversed(steps) if item.reverse else steps:
                    for op in item.body:
                        self._execute(op, frame, t)

    def _execute(self, op: Op, frame: Frame, t: int | None) -> None:
        entry = spec(op.kind)
        extra: dict[str, Any] = dict(op.attrs)
        if entry.placed:
            extra["place"] = _place(op, frame, t)
        if entry.shaped:
            assert op.outputs[0] is not None
            extra["shape"] = self._select(op.outputs[0], frame, t).shape
        operands = [None if ref is None else self._load(ref, frame, t) for ref in op.inputs]
        results = entry.formula(*operands, **extra)
        if not isinstance(results, tuple):
            results = (results,)
        for ref, result in zip(op.outputs, results, strict=True):
            if ref is not None:
                self._write(ref, frame, t, result)

    def _load(self, ref: Ref, frame: Frame, t: int | None) -> Array:
        return self._decoded(ref.buffer, self._select(ref, frame, t))

    def _write(self, ref: Ref, frame: Frame, t: int | None, result: Array) -> None:
        if ref.index != "all":
            self._store(ref.buffer, self._select(ref, frame, t), result)
            return
        view, low = self._views[ref.buffer.name], ref.buffer.lead + ref.offset
        done = 0
        for step, rows in enumerate(frame.rows):
            self._store(
                ref.buffer, _ranged(view[low + step, :rows], ref), result[done : done + rows]
            )
            done += rows

    def _select(self, ref: Ref, frame: Frame, t: int | None) -> Array:
        """The rows that a reference names; a view except for ragged [:] and [last]."""
        view, buffer = self._views[ref.buffer.name], ref.buffer
        first = buffer.lead + ref.offset
        rows = frame.rows[0 if t is None else t]
        if ref.index == "whole":
            chosen = view[:rows] if buffer.batch else view
        elif ref.index == "step":
            assert t is not None
            chosen = view[first + t, :rows]
        elif ref.index == "initial":
            chosen = view[first - 1, :rows]
        elif ref.index == "last" and not frame.ragged:
            chosen = view[first + frame.steps - 1, :rows]
        elif ref.index == "last":
            chosen = view[[first + step for step in frame.last_steps], range(rows)]
        elif not frame.ragged:
            chosen = view[first : first + frame.steps, :rows].reshape(-1, *buffer.inner)
        else:
            chosen = np.concatenate([view[first + s, :n] for s, n in enumerate(frame.rows)])
        return _ranged(chosen, ref)

    @staticmethod
    def _decoded(buffer: Buffer, stored: Array) -> Array:
        return from_bits(stored) if buffer.dtype == "bfloat16" else stored

    @staticmethod
    def _store(buffer: Buffer, place: Array, values: Array) -> None:
        place[...] = to_bits(values) if buffer.dtype == "bfloat16" else values


@cache
def _blas() -> ThreadpoolController:
    """NumPy's matrix library. It gets one thread: its sums depend on how many there are, and left
    to itself it starts a thread per core for products far too small for that.
    """
    return ThreadpoolController()


def _ranged(rows: Array, ref: Ref) -> Array:
    if ref.row_range:
        rows = rows[ref.row_range[0] : ref.row_range[1]]
    if ref.col_range:
        rows = rows[..., ref.col_range[0] : ref.col_range[1]]
    return rows


def _place(op: Op, frame: Frame, t: int | None) -> Place:
    """Row and absolute step of every row of an operation."""
    if t is not None:
        rows = np.arange(frame.rows[t])
        steps = np.full(len(rows), frame.begin + t)
    elif any(ref.index == "all" for ref in op.refs):
        rows = np.concatenate([np.arange(n) for n in frame.rows])
        steps = np.repeat(np.arange(frame.steps) + frame.begin, frame.rows)
    else:
        rows = np.arange(frame.rows[0])
        steps = np.array(frame.last_steps) + frame.begin
    return Place(frame.part, steps, rows)
