"""When each operation of the update starts: modulo the initiation interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from fptt.rtl.operations import CONSTANTS, RESULTS, Operation, Operator

#: schedule -> operators of one lane; None: one for each operation
OPERATORS: Mapping[str, Mapping[Operator, int] | None] = {
    "baseline": {"adder": 2, "multiplier": 2, "halver": 1},
    "pipelined": None,
    "compact": {"adder": 1, "multiplier": 1, "halver": 1},
}


@dataclass(frozen=True)
class Schedule:
    """When and where the operations of one parameter run; the next one follows `interval` later.

    Cycle 0 is the one in which the lane takes the parameter in.

    Args:
        operations: what is computed.
        start: operation's result -> cycle in which its operands are chosen.
        place: operation's result -> operator and its number.
        delay: operator -> cycles from that choice until the result can be read.
        interval: initiation interval, cycles.
        latency: cycles until the results are offered at the lane's output.
        registered: operators with a register in front of their operands.
    """

    operations: tuple[Operation, ...]
    start: Mapping[str, int]
    place: Mapping[str, tuple[Operator, int]]
    delay: Mapping[Operator, int]
    interval: int
    latency: int
    registered: frozenset[Operator]

    @cached_property
    def available(self) -> Mapping[str, int]:
        """Value -> the first cycle in which it can be read; what is not listed: 0."""
        return {o.result: self.start[o.result] + self.delay[o.operator] for o in self.operations}

    def cycles(self, parameters: int) -> int:
        """Cycles of a lane from the first parameter's entry to the last one's exit, both included.

        (parameters - 1) interval + latency + 1, with no waiting at either side; 0 for none.
        """
        return 0 if parameters == 0 else (parameters - 1) * self.interval + self.latency + 1

    def places(self, value: str) -> list[int]:
        """How many intervals after it appears a value is read: ascending, each once.

        Place 0 is where it appears; place k is where it is from then on, after its chain of
        registers has moved k times.
        """
        reads = [self.start[o.result] for o in self.operations if value in o.operands]
        if value in RESULTS.values():
            reads.append(self.latency)
        appears = self.available.get(value, 0)
        return sorted({-(-(cycle - appears) // self.interval) for cycle in reads})

    @property
    def words(self) -> int:
        """Words that chains hold, inputs and results of all parameters in flight."""
        values = {name for o in self.operations for name in (o.result, *o.operands)}
        return sum(max(self.places(value), default=0) for value in values - set(CONSTANTS))

    @property
    def table(self) -> str:
        """The schedule as text, one operation a line.

        Example:
            >>> from fptt.rtl.parameters import UnitParameters
            >>> print(UnitParameters(regularise=False).lane_schedule.table)
            start ready operator      operation
                0     4 multiplier 0  step = lr * grad
                4     9 adder 0       param_out = param - step
        """
        lines = [f"{'start':>5} {'ready':>5} {'operator':<13} operation"]
        for operation in sorted(self.operations, key=lambda o: self.start[o.result]):
            kind, number = self.place[operation.result]
            lines.append(
                f"{self.start[operation.result]:>5} {self.available[operation.result]:>5} "
                f"{kind + ' ' + str(number):<13} {operation.text}"
            )
        return "\n".join(lines)


def make_schedule(
    operations: tuple[Operation, ...],
    operators: Mapping[Operator, int] | None,
    latency: Mapping[Operator, int],
    *,
    overlap: bool = True,
) -> Schedule:
    """Orders operations on operators that take new operands in every cycle.

    Parameters do not depend on one another, so the interval is the least that there can be: the
    operations of the busiest operator, divided by how many there are of it. Among the schedules
    with this interval in which no operation waits a whole interval, the one with the least latency
    is found by trying (branch and bound), and of those the one with the fewest words in flight.

    Args:
        operations: in an order in which results precede their use.
        operators: how many there are of each; None: one for each operation.
        latency: operator -> cycles from operands to result.
        overlap: False: a parameter starts when the one before it is through.

    Example:
        >>> from fptt.rtl.operations import operations
        >>> latency = {"adder": 4, "multiplier": 3, "halver": 1}
        >>> compact = make_schedule(operations(True), OPERATORS["compact"], latency)
        >>> compact.interval, compact.latency
        (8, 42)
    """
    needed = Counter(operation.operator for operation in operations)
    count = needed if operators is None else operators
    interval = max(-(-needed[kind] // count[kind]) for kind in needed)
    # what multiplexers choose; and the way to the multipliers, whose blocks lie far from all else
    registered = frozenset(
        kind for kind in needed if needed[kind] > count[kind] or kind == "multiplier"
    )
    delay = {kind: cycles + (kind in registered) for kind, cycles in latency.items()}
    way = _longest_ways(operations, delay)
    order = sorted(operations, key=lambda o: -way[o.result])
    outputs = [name for name in RESULTS.values() if name in way]

    start: dict[str, int] = {}
    place: dict[str, tuple[Operator, int]] = {}
    taken: Counter[tuple[Operator, int]] = Counter()
    best: list[Schedule] = []

    def ready(name: str) -> int:
        """When a value can be read."""
        return start[name] + delay[place[name][0]] if name in way else 0

    def complete() -> None:
        finish = max(map(ready, outputs))
        chosen = interval if overlap else finish
        found = Schedule(operations, dict(start), dict(place), delay, chosen, finish, registered)
        if not best or (found.latency, found.words) < (best[0].latency, best[0].words):
            best[:] = [found]

    def choose(number: int) -> None:
        if number == len(order):
            complete()
            return
        operation = order[number]
        name, kind = operation.result, operation.operator
        earliest = max(map(ready, operation.operands))
        for cycle in range(earliest, earliest + interval):
            slot = kind, cycle % interval if overlap else cycle
            if best and cycle + way[name] > best[0].latency:
                break
            if taken[slot] < count[kind]:
                start[name], place[name] = cycle, (kind, taken[slot])
                taken[slot] += 1
                choose(number + 1)
                taken[slot] -= 1

    choose(0)
    return best[0]


def _longest_ways(
    operations: tuple[Operation, ...], delay: Mapping[Operator, int]
) -> dict[str, int]:
    """Result -> cycles from the start of its operation to the end of the last that needs it."""
    way: dict[str, int] = {}
    for operation in reversed(operations):
        after = [way[o.result] for o in operations if operation.result in o.operands]
        way[operation.result] = delay[operation.operator] + max(after, default=0)
    return way
