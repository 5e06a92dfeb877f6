"""How much work a program does: a work list by operation, and its sums by function class.

Counts come from the op table and the shapes of the operands, never from a formula kept beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fptt.program.frame import Frame, frames
from fptt.program.ir import ITEM_BYTES, PART, SEQUENCE_START, Loop, Op, Ref
from fptt.program.ops import FUNCTION_CLASSES, SERIAL_CLASSES, Operand, Work, bind, spec

if TYPE_CHECKING:
    from fptt.program.program import Program


@dataclass(frozen=True)
class WorkItem:
    """Equal executions of one operation: the same sizes and the same operands present.

    Attributes:
        routine: the routine that it belongs to.
        kind: the operation.
        function: the function class.
        shape: its sizes by letter.
        repetitions: how often it runs.
        parallel: whether the published system spreads it over its cores.
        work: of all repetitions together.
    """

    routine: str
    kind: str
    function: str
    shape: tuple[tuple[str, int], ...]
    repetitions: int
    parallel: bool
    work: Work


@dataclass(frozen=True)
class _Key:
    """What makes two executions equal."""

    routine: str
    kind: str
    function: str
    shape: tuple[tuple[str, int], ...]
    given: frozenset[str]


@dataclass(frozen=True)
class WorkTable:
    """A work list and its sums."""

    items: tuple[WorkItem, ...]

    def by_function(self, *routines: str) -> dict[str, Work]:
        """Sums by function class, of the given routines or of all."""
        sums = dict.fromkeys(FUNCTION_CLASSES, Work())
        for item in self.items:
            if not routines or item.routine in routines:
                sums[item.function] += item.work
        return sums

    def total(self, *routines: str) -> Work:
        """The sum of everything, of the given routines or of all."""
        return sum(self.by_function(*routines).values(), Work())


def work_table(program: Program, lengths: Sequence[int] | None = None) -> WorkTable:
    """Work of one pass over a batch, an update after every part."""
    counted: dict[_Key, tuple[int, Work]] = {}

    def count(routine: str, frame: Frame, parts: int = 1) -> None:
        for op, rows, steps in executions(program, routine, frame):
            sizes, given, classes = op_work(op, rows, frame.ended)
            for function, work in classes.items():
                key = _Key(routine, op.kind, function, tuple(sorted(sizes.items())), given)
                times, before = counted.get(key, (0, Work()))
                counted[key] = times + parts * steps, before + work * (parts * steps)

    if "update" not in program.routines:
        raise ValueError("only programs that train have a work table")
    rows = sorted(lengths or [program.steps] * program.batch, reverse=True)
    parts = list(frames(program, rows))
    for routine in SEQUENCE_START:
        count(routine, parts[0])
    # parts with the same rows do the same work, whatever their number
    for (running, after), times in Counter((p.rows, p.rows_after) for p in parts).items():
        for routine in PART:
            count(routine, Frame(0, 0, running, after), times)
    return WorkTable(
        tuple(
            WorkItem(
                key.routine,
                key.kind,
                key.function,
                key.shape,
                times,
                key.function not in SERIAL_CLASSES,
                work,
            )
            for key, (times, work) in counted.items()
        )
    )


def executions(program: Program, routine: str, frame: Frame) -> Iterator[tuple[Op, int, int]]:
    """Every operation of a part with its number of rows, and how often it runs with these."""
    for item in program.routines[routine].body:
        if isinstance(item, Loop):
            for op in item.body:
                if op.first_only:
                    yield op, frame.rows[0], 1
                    continue
                for rows, steps in Counter(frame.rows[op.after_first :]).items():
                    yield op, rows, steps
        else:
            all_steps = any(ref.index == "all" for ref in item.refs)
            yield item, sum(frame.rows) if all_steps else frame.rows[0], 1


def op_work(
    op: Op, rows: int, ended: int
) -> tuple[dict[str, int], frozenset[str], dict[str, Work]]:
    """Sizes of one execution, the operands present, and its work by function class.

    Bytes go to the main class.
    """
    entry = spec(op.kind)
    sizes = {"n": rows}
    moved = 0
    given = set()
    for operand, ref in (
        *zip(entry.inputs, op.inputs, strict=True),
        *zip(entry.outputs, op.outputs, strict=True),
    ):
        if ref is None:
            continue
        given.add(operand.name)
        if operand.dims is None:
            sizes["size"] = _items(ref, rows)
        else:
            bind(operand.dims[1:] if ref.has_rows else operand.dims, ref.inner, sizes)
        moved += (
            _moved_items(entry.touched.get(operand.name), ref, rows, sizes)
            * ITEM_BYTES[ref.buffer.dtype]
        )
    classes = entry.work({**sizes, "ended": ended}, op.attrs, frozenset(given))
    classes[entry.main_class] = classes.get(entry.main_class, Work()) + Work(bytes=moved)
    return sizes, frozenset(given), classes


def _items(ref: Ref, rows: int) -> int:
    items = rows if ref.has_rows else 1
    for extent in ref.inner:
        items *= extent
    return items


def _moved_items(touched: Operand | None, ref: Ref, rows: int, sizes: dict[str, int]) -> int:
    if touched is None or touched.dims is None:
        return _items(ref, rows)
    items = 1
    for coefficient, letter in touched.dims:
        items *= coefficient * sizes[letter]
    return items
