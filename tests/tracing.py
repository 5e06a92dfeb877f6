"""An interpreter that watches itself: which bytes every operation reads, writes and changes.

What a reference names is worked out here again, from the documentation of `fptt.program.ir.Buffer`
and not with the interpreter's code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fptt.program.ir import ITEM_BYTES, Buffer, Op, Ref, Role
from fptt.reference.interpreter import Interpreter


def places(buffer: Buffer) -> np.ndarray:
    """Of every element of a buffer, shaped as it is, the place among its elements in memory."""
    if buffer.transposed:
        rows, columns = buffer.inner
        return np.arange(rows)[:, None] + rows * np.arange(columns)
    return np.arange(buffer.items).reshape(buffer.shape)


def named_elements(ref: Ref, frame, t: int | None) -> np.ndarray:
    """Places in the buffer of the elements that a reference names, [rows, ...]."""
    buffer = ref.buffer
    numbers = places(buffer)
    rows = frame.rows[0 if t is None else t]
    if not buffer.batch:
        chosen = numbers
    elif not buffer.steps:
        chosen = numbers[:rows]
    else:
        slots: list[tuple[int, int]] = []
        if ref.index == "step":
            slots = [(t, row) for row in range(rows)]
        elif ref.index == "all":
            slots = [(s, row) for s, n in enumerate(frame.rows) for row in range(n)]
        elif ref.index == "initial":
            slots = [(-1, row) for row in range(rows)]
        elif ref.index == "last":
            slots = [(sum(n > row for n in frame.rows) - 1, row) for row in range(rows)]
        chosen = np.stack([numbers[buffer.lead + ref.offset + s, row] for s, row in slots])
    if ref.row_range:
        chosen = chosen[ref.row_range[0] : ref.row_range[1]]
    if ref.col_range:
        chosen = chosen[..., ref.col_range[0] : ref.col_range[1]]
    return chosen


@dataclass(frozen=True)
class Access:
    """Elements of one buffer."""

    buffer: Buffer
    elements: np.ndarray


@dataclass(frozen=True)
class Event:
    """One executed operation; op is None where the driver of the program wrote a buffer."""

    routine: str
    op: Op | None
    reads: tuple[Access, ...]
    writes: tuple[Access, ...]


class TracingInterpreter(Interpreter):
    """Checks every operation while it runs, and keeps a log of events.

    - An operation reads a byte only if the byte was last written through the same buffer: nothing
      that shares its place has come between, and nothing is read before it is written.
    - An operation changes no byte outside the elements that its outputs name.
    """

    def __init__(self, program, arena=None):
        super().__init__(program, arena=arena)
        self.log: list[Event] = []
        self.writer = np.full(self.arena.nbytes, "", dtype=object)
        self.routine = ""

    def bytes_of(self, access: Access) -> np.ndarray:
        """Where elements lie in the arena, byte by byte; none for constant data."""
        if access.buffer.role == Role.FROZEN:
            return np.empty(0, int)
        size = ITEM_BYTES[access.buffer.dtype]
        start = self.program.plan.offsets[access.buffer.name] + access.elements.reshape(-1) * size
        return (start[:, None] + np.arange(size)).reshape(-1)

    def run(self, routine, frame, step=None):
        self.routine = routine
        super().run(routine, frame, step)

    def write(self, name, values, step=None):
        super().write(name, values, step)
        buffer = self.program.buffers[name]
        numbers = places(buffer)
        if step is not None:
            numbers = numbers[buffer.lead + step]
        corner = numbers[tuple(slice(0, extent) for extent in np.shape(values))]
        self._note("driver", None, (), (Access(buffer, corner),))

    def _note(self, routine, op, reads, writes):
        for access in writes:
            self.writer[self.bytes_of(access)] = access.buffer.name
        self.log.append(Event(routine, op, reads, writes))

    def _execute(self, op, frame, t):
        reads, writes = (
            tuple(Access(r.buffer, named_elements(r, frame, t)) for r in refs if r is not None)
            for refs in (op.inputs, op.outputs)
        )
        for access in reads:
            last = set(self.writer[self.bytes_of(access)])
            assert last <= {access.buffer.name}, (
                f"{self.routine}: {op.kind} reads {access.buffer.name}, last written as {last}"
            )
        before = self.arena.copy()
        super()._execute(op, frame, t)
        allowed = np.zeros(self.arena.nbytes, bool)
        for access in writes:
            allowed[self.bytes_of(access)] = True
        strayed = np.flatnonzero((self.arena != before) & ~allowed)
        assert not strayed.size, f"{self.routine}: {op.kind} changed bytes {strayed} besides"
        self._note(self.routine, op, reads, writes)


def largest_live_set(log: list[Event], kept: set[str]) -> int:
    """Bytes needed at once, found backwards: an element lives from a write to its last read.

    Args:
        log: what was executed.
        kept: names of buffers that are wanted after the end.
    """
    buffers = {a.buffer.name: a.buffer for event in log for a in (*event.reads, *event.writes)}
    live = {
        name: np.full(b.items, name in kept) for name, b in buffers.items() if b.role != Role.FROZEN
    }
    sizes = {name: int(mask.sum()) * ITEM_BYTES[buffers[name].dtype] for name, mask in live.items()}
    largest = sum(sizes.values())
    for event in reversed(log):
        for accesses, alive in ((event.writes, False), (event.reads, True)):
            for access in accesses:
                name = access.buffer.name
                if name in live:
                    live[name][access.elements.reshape(-1)] = alive
                    sizes[name] = int(live[name].sum()) * ITEM_BYTES[access.buffer.dtype]
        largest = max(largest, sum(sizes.values()))
    return largest
