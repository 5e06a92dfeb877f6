"""The operations of a program as a device runs them: their numbers in the generated code, how often
each runs in one sequence, and the function class that its instructions count for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fptt.program.count import executions as executions_of
from fptt.program.frame import Frame, frames
from fptt.program.ir import Op
from fptt.program.ops import FUNCTION_CLASSES, spec

if TYPE_CHECKING:
    from fptt.program.program import Program

#: routines as the learner knows them, in the order of the generated code; `load` writes the factory
#: weights, `accept` is what the loss learns by itself
ROUTINES = (
    "load",
    "start",
    "begin_sequence",
    "next_sequence",
    "forward",
    "readout",
    "loss",
    "accept",
    "backward",
    "carry",
    "reset",
    "end_epoch",
)
#: what runs once in a sequence, and what runs once in each of its parts
_ONCE = ("begin_sequence", "next_sequence")
_EACH = ("forward", "readout", "loss", "backward", "update", "carry")
#: what belongs to no operation: the learner itself, and what watches over its numbers
OTHER = "other"


@dataclass(frozen=True)
class Operation:
    """An operation of the generated code.

    Attributes:
        number: that of its FPTT_OP; 0 is what belongs to none.
        routine: the function that it stands in.
        op: the operation.
        looped: whether it stands in a loop over the steps.
    """

    number: int
    routine: str
    op: Op
    looped: bool


def operations(program: Program) -> list[Operation]:
    """Every operation in the order of the generated code, numbered from 1."""
    found: list[Operation] = []
    for routine in (*ROUTINES, "update"):
        if routine in program.routines:
            for op, loop in program.routines[routine].ops():
                found.append(Operation(len(found) + 1, routine, op, loop is not None))
    return found


def highest_number(program: Program) -> int:
    """The largest number of an FPTT_OP: after the operations come `accept` and the watch."""
    return len(operations(program)) + 2


@dataclass(frozen=True)
class Execution:
    """Equal executions of an operation in one batch of whole sequences: its rows, how often."""

    operation: Operation
    rows: int
    times: int


def executions(program: Program) -> Iterator[Execution]:
    """All that runs while a device learns from one batch of whole sequences, with targets.

    Example:
        >>> import fptt
        >>> net = fptt.Network([fptt.LSTM(1, 8), fptt.Linear(8, 3)])
        >>> program = fptt.build(net, fptt.FPTT(parts=4), steps=16)
        >>> {e.operation.op.kind: e.times for e in executions(program)}["lstm_forward"]
        16
    """
    numbered: dict[str, list[Operation]] = {}
    for operation in operations(program):
        numbered.setdefault(operation.routine, []).append(operation)
    parts = list(frames(program, [program.steps] * program.batch))
    counted: Counter[tuple[int, int]] = Counter()
    by_number = {o.number: o for group in numbered.values() for o in group}

    def count(routine: str, frame: Frame, times: int) -> None:
        remaining = list(numbered.get(routine, ()))
        for op, rows, repeats in executions_of(program, routine, frame):
            # in order; a loop yields an operation once for every number of rows
            while remaining[0].op is not op:
                remaining.pop(0)
            counted[remaining[0].number, rows] += repeats * times

    for routine in _ONCE:
        count(routine, parts[0], 1)
    for (running, after), times in Counter((p.rows, p.rows_after) for p in parts).items():
        for routine in _EACH:
            # the outputs are those of the last step alone
            seen = running[-1:] if routine == "readout" else running
            count(routine, Frame(0, 0, seen, after), times)
    for (number, rows), times in counted.items():
        yield Execution(by_number[number], rows, times)


def function_class(op: Op) -> str:
    """The class under which an operation's instructions are counted.

    A gradient that is applied at once counts as the product; the update inside it is told apart
    where it is called.
    """
    if op.kind.endswith("weight_update"):
        return "MatMul-3"
    if op.kind.endswith("bias_update"):
        return "Mat2Vec"
    return spec(op.kind).main_class


def by_class(program: Program, counted: dict[int, tuple[int, int]]) -> dict[str, int]:
    """Instructions by function class.

    Args:
        program: what ran.
        counted: operation -> its instructions, and those of the updates inside it.
    """
    classes = dict.fromkeys((OTHER, *FUNCTION_CLASSES), 0)
    named = {o.number: function_class(o.op) for o in operations(program)}
    for number, (instructions, applied) in counted.items():
        classes[named.get(number, OTHER)] += instructions
        classes["EWO-SGD"] += applied
    return classes
