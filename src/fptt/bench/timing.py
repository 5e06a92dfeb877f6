"""Times several callables fairly: round robin, in one process, without garbage collection."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import quantiles

#: rounds below which a median says little
FEWEST = 3
#: seconds for which a process is watched to see whether it is idle
_GLANCE = 0.01


@dataclass(frozen=True)
class Timing:
    """Seconds of one call.

    Attributes:
        median, low, high: the median over the rounds, the lower and the upper quartile.
        rounds: how many rounds were timed.
        calls: calls in each round; a round counts their mean.
    """

    median: float
    low: float
    high: float
    rounds: int
    calls: int


def interleaved(
    functions: Mapping[str, Callable[[], object]],
    rounds: int = 9,
    min_s: float = 0.0,
    most_s: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
    settle: Callable[[], object] = lambda: None,
) -> dict[str, Timing]:
    """Times every function once in each round, so that a slow minute of the machine hits all.

    First every function is called once untimed, and then until it has run `min_s`, which also tells
    how many calls a round needs. The order of a round is that of `functions`. The garbage collector
    is off meanwhile, and back afterwards as it was.

    Args:
        functions: what to time, by name.
        rounds: how many, at least 1.
        min_s: seconds that one function's share of a round takes at least, about.
        most_s: after so many seconds no further round begins, if there were FEWEST.
        clock: returns seconds.
        settle: called, untimed, before each function's turn.

    Raises:
        ValueError: no function, or fewer than one round.

    Example:
        >>> times = interleaved({"sum": lambda: sum(range(100))}, rounds=3)
        >>> times["sum"].low <= times["sum"].median <= times["sum"].high
        True
    """
    if not functions or rounds < 1:
        raise ValueError(f"interleaved: {len(functions)} functions, {rounds} rounds; give some")
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        calls = {name: _warm_up(function, min_s, clock) for name, function in functions.items()}
        seconds: dict[str, list[float]] = {name: [] for name in functions}
        first = clock()
        for done in range(rounds):
            if done >= FEWEST and clock() - first >= most_s:
                break
            for name, function in functions.items():
                settle()
                begin = clock()
                for _ in range(calls[name]):
                    function()
                seconds[name].append((clock() - begin) / calls[name])
    finally:
        if collecting:
            gc.enable()
    return {name: _summary(found, calls[name]) for name, found in seconds.items()}


def until_idle(most_s: float = 0.5) -> None:
    """Waits until no other thread of this process works, for so many seconds at most.

    XLA goes on freeing memory for a while after it has given a result.
    """
    end = time.perf_counter() + most_s
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(_GLANCE)
        if time.process_time() - before < _GLANCE / 4:
            return


def _warm_up(function: Callable[[], object], min_s: float, clock: Callable[[], float]) -> int:
    """Calls a function until it is warm; how many calls take `min_s`."""
    function()  # compiles, allocates: says nothing about the calls to come
    calls, begin = 0, clock()
    while True:
        function()
        calls += 1
        if clock() - begin >= min_s:
            return calls


def _summary(seconds: list[float], calls: int) -> Timing:
    if len(seconds) == 1:
        low = median = high = seconds[0]
    else:
        low, median, high = quantiles(seconds, n=4, method="inclusive")
    return Timing(median, low, high, len(seconds), calls)
