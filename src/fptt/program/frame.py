"""The run-time numbers of one part: which rows run at which step.

A batch is sorted by length, the longest first, and every step runs on a prefix of its rows, so no
operation needs a mask.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fptt.program.program import Program


@dataclass(frozen=True)
class Frame:
    """One part of one batch.

    Attributes:
        part: number of the part, from 0.
        begin: absolute number of its first step.
        rows: rows that run at each of its steps, never growing and never 0.
        rows_after: rows that still run after it.
    """

    part: int
    begin: int
    rows: tuple[int, ...]
    rows_after: int

    @property
    def steps(self) -> int:
        """Steps of this part that have rows."""
        return len(self.rows)

    @property
    def ended(self) -> int:
        """Rows whose sequence ends in this part."""
        return self.rows[0] - self.rows_after

    @property
    def ragged(self) -> bool:
        """Whether some rows end before the part does."""
        return self.rows[-1] != self.rows[0]

    @cached_property
    def last_steps(self) -> tuple[int, ...]:
        """Of every row, the last step (counted in the part) that it takes."""
        ends = [
            (n, t) for t, n in enumerate(self.rows) if t + 1 == self.steps or self.rows[t + 1] < n
        ]
        return tuple(next(t for n, t in reversed(ends) if n > row) for row in range(self.rows[0]))


def frames(program: Program, lengths: Sequence[int]) -> Iterator[Frame]:
    """The parts of a batch with these lengths (the longest first) that have any rows."""
    ascending = sorted(lengths)
    for part, (low, high) in enumerate(program.bounds):
        counts = [
            len(ascending) - bisect.bisect_right(ascending, step) for step in range(low, high + 1)
        ]
        rows = tuple(n for n in counts[:-1] if n)
        if rows:
            yield Frame(part, low, rows, counts[-1])
