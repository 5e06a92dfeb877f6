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

from fptt.program.arena import Arena
from fptt.program.ir import Loop, Op, Ref
from fptt.program.ops import Place, spec

if TYPE_CHECKING:
    from fptt.program.frame import Frame

Array = NDArray[Any]


class Interpreter(Arena):
    """One program with its memory; the arguments are those of `Arena`."""

    name = "reference"

    # -- execution ---------------------------------------------------------------------------

    def describe(self) -> str:
        """The back end in a few words."""
        lacking = self.program.without_kernel
        why = f" (no C kernel for {', '.join(lacking)})" if lacking else ""
        return f"NumPy reference{why}"

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
                        if op.first_only and t > 0:
                            continue
                        if t > 0 or not op.after_first:
                            self._execute(op, frame, t)

    def update_is_safe(self, frame: Frame) -> bool:
        """Nothing is known beforehand."""
        return False

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
            if ref is not None and result is not None:
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
