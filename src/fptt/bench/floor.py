"""The least that training must do: multiply-adds, and bytes through the caches.

Multiply-adds come from `Program.work()`. Bytes are counted from the program: in a loop every step
reads every matrix and vector of parameters once, however many rows share it; an update reads and
writes once what it changes. Activations are left out, so this is less than what must move.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fptt.planning import BLOCKS
from fptt.program import Program
from fptt.program.ir import ITEM_BYTES, Loop, Op, Ref, Role
from fptt.program.plan import LEARNED

_PRODUCTS = ("MatMul-1", "MatMul-2", "MatMul-3")
_WEIGHTS = (Role.PARAMETER, Role.FROZEN)


@dataclass(frozen=True)
class Cost:
    """What must be done at least.

    Attributes:
        flop: additions and multiplications of the matrix products.
        read: bytes of parameters that are read by the forward and the backward pass.
        rewritten: bytes of the state of learning that are read, and those that are written.
    """

    flop: int = 0
    read: int = 0
    rewritten: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.flop + other.flop, self.read + other.read, self.rewritten + other.rewritten
        )

    def seconds(self, flops: float, reads: float, rewrites: float) -> float:
        """At so many FLOP and bytes per second; computing and moving at the same time."""
        return max(self.flop / flops, self.read / reads + self.rewritten / rewrites)


def costs(program: Program) -> dict[str, Cost]:
    """Of one pass over a full batch, by the block of `fptt.planning.BLOCKS`.

    Example:
        >>> from fptt.bench.cases import Case
        >>> costs(Case(parts=784).program())["forward"].read // 784  # W_hh, W_ih, b, and the head
        271400
    """
    table = program.work()
    found = {}
    for block, routines in BLOCKS.items():
        works = table.by_function(*routines)
        flop = sum(works[name].mul + works[name].add for name in _PRODUCTS)
        moved = [_moved(program, routine) for routine in routines if routine != "update"]
        rewritten = program.rule.parts * _update_bytes(program) if "update" in routines else 0
        found[block] = Cost(flop, sum(moved), rewritten)
    return found


def step_bytes(program: Program) -> int:
    """Bytes of parameters that a step of the forward loop reads."""
    return sum(_bytes(item.body) for item in _loops(program, "forward"))


def _loops(program: Program, routine: str) -> list[Loop]:
    return [item for item in program.routines[routine].body if isinstance(item, Loop)]


def _moved(program: Program, routine: str) -> int:
    """Bytes of parameters that a routine reads in one pass: in loops once a step, where a part's
    first step leaves some operations out."""
    body, parts = program.routines[routine].body, program.rule.parts
    loops = [item.body for item in body if isinstance(item, Loop)]
    later = sum(map(_bytes, loops))
    first = sum(_bytes(op for op in ops if not op.after_first) for ops in loops)
    at_ends = _bytes(item for item in body if isinstance(item, Op))
    return (program.steps - parts) * later + parts * (first + at_ends)


def _bytes(ops: Iterable[Op]) -> int:
    return _sum(
        ref for op in ops for ref in op.inputs if ref is not None and ref.buffer.role in _WEIGHTS
    )


def _update_bytes(program: Program) -> int:
    """Bytes of one update, read and written."""
    ops = [op for op, _ in program.routines["update"].ops()]
    return sum(
        _sum(ref for refs in sets for ref in refs if ref is not None and ref.buffer.role in LEARNED)
        for sets in ([op.inputs for op in ops], [op.outputs for op in ops])
    )


def _sum(refs: Iterable[Ref]) -> int:
    """Bytes of these, each once."""
    total = 0
    for ref in {str(ref): ref for ref in refs}.values():
        items = 1
        for extent in ref.inner:
            items *= extent
        total += items * ITEM_BYTES[ref.buffer.dtype]
    return total
