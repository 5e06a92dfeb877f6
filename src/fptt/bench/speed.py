"""Measures training: seconds beside those of the peers, the share of the peak, time by block."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

from fptt.bench.cases import Case
from fptt.bench.floor import costs, step_bytes
from fptt.bench.sides import require, sides, train_alike
from fptt.bench.timing import Timing, interleaved, until_idle
from fptt.errors import InputError
from fptt.native.measure import Limits, Memory, routine_seconds
from fptt.planning import BLOCKS
from fptt.program import Program
from fptt.program.frame import frames
from fptt.trainer import Trainer

Row = dict[str, Any]

#: share of a core below which something else ran meanwhile, and the times say little
QUIET = 0.9
#: turns of the loop in registers: some 2 ms
_TURNS = 200_000
#: bytes that one call of the streaming loops moves, at least
_STREAM = 1 << 26


@dataclass(frozen=True)
class Effort:
    """How long to measure one case.

    Attributes:
        rounds: in each round every side trains once, or for `min_s` if that is longer.
        seconds: after so many no further round begins, if there were three.
        min_s: see `rounds`.
    """

    rounds: int = 15
    seconds: float = 30.0
    min_s: float = 0.05


def effort(rounds: int | None, seconds: float | None, *, quick: bool) -> Effort:
    """The standard effort, or the quick one, with what was chosen.

    Raises:
        InputError: values out of range.
    """
    found = Effort(3, 5.0, 0.01) if quick else Effort()
    found = replace(
        found,
        rounds=found.rounds if rounds is None else rounds,
        seconds=found.seconds if seconds is None else seconds,
    )
    if found.rounds < 1:
        raise InputError(f"rounds is {rounds}; give at least 1")
    if not found.seconds > 0:
        raise InputError(f"seconds is {seconds}; give a number above 0")
    return found


def measure_all(
    cases: Sequence[Case],
    against: Sequence[str],
    effort: Effort,
    on_case: Callable[[str], None] = lambda name: None,
) -> list[Row]:
    """One row per case; see `measure`.

    Args:
        cases: what to measure.
        against: "torch", "jax", both or none.
        effort: how long.
        on_case: called before each case with its name.

    Raises:
        InputError: a peer that is unknown, not installed, or cannot train with this optimizer.
    """
    for case in cases:
        require(against, case.optimizer)
    rows = []
    with _torch_threads_as_they_were(against):
        for case in cases:
            on_case(case.name)
            rows.append(measure(case, against, effort))
    return rows


def measure(case: Case, against: Sequence[str], effort: Effort) -> Row:
    """Measures one case; everything in turns in one loop, so that a slow moment hits all.

    Raises:
        FpttError: sides that do not compute the same training.
    """
    trainers = sides(case, against)
    distance = train_alike(case, trainers)
    program, (x, y) = case.program(), case.data()
    own, split = _Stopwatch(program, case), _Stopwatch(program.keeping_gradients(), case)
    with _Machine(program, case.threads) as machine:
        functions: dict[str, Callable[[], object]] = {
            **{name: _trains(side, x, y) for name, side in trainers.items()},
            "peak": machine.multiply_adds,
            "reads": machine.read,
            "rewrites": machine.rewrite,
            "own": own,
            "split": split,
        }
        pauses = _Pauses(needed="jax" in trainers)
        wall, cpu = time.perf_counter(), time.process_time()
        times = interleaved(functions, effort.rounds, effort.min_s, effort.seconds, settle=pauses)
        cpu = time.process_time() - cpu - pauses.cpu_s
        cpu_share = cpu / (time.perf_counter() - wall - pauses.wall_s)
        flops, reads, rewrites = machine.speeds(times)
        isa = machine.isa
    own_s, split_s = own.by_block(), split.by_block()
    fptt_s = times["fptt"].median
    cost = costs(program)
    total = sum(cost.values(), type(cost["forward"])())
    floors = {block: one.seconds(flops, reads, rewrites) for block, one in cost.items()}
    in_all = sum(split_s.values())
    parts = case.parts
    return {
        **_configuration(case),
        "isa": isa,
        "rounds": times["fptt"].rounds,
        "cpu_share": cpu_share,
        **_quartiles("fptt", times["fptt"]),
        **_peer_columns(times, fptt_s),
        "distance": distance,
        "gflops": total.flop / fptt_s / 1e9,
        "peak_gflops": flops / 1e9,
        "peak_share": total.flop / fptt_s / flops,
        "read_gbs": reads / 1e9,
        "rewrite_gbs": rewrites / 1e9,
        "part_flop": total.flop // parts,
        "part_read_bytes": total.read // parts,
        "part_rewritten_bytes": total.rewritten // parts,
        "floor_s": sum(floors.values()),
        "floor_share": sum(floors.values()) / fptt_s,
        **{f"{_KEYS[block]}_s": own_s[block] for block in BLOCKS},
        **{f"{_KEYS[block]}_floor_s": floors[block] for block in BLOCKS},
        **{f"{_SHARES[block]}_share": split_s[block] / in_all for block in BLOCKS},
    }


#: names of the blocks: as routines of the program itself, and as the seeds divide them
_KEYS = {"FPTT logic": "update", "forward": "forward", "backward": "backward"}
_SHARES = {"FPTT logic": "logic", "forward": "forward", "backward": "backward"}


def _configuration(case: Case) -> Row:
    found = asdict(case)
    del found["lr"]
    return found


class _Pauses:
    """Called before each turn: where that is needed, waits until this process is idle."""

    def __init__(self, *, needed: bool) -> None:
        self._needed = needed
        self.wall_s = self.cpu_s = 0.0

    def __call__(self) -> None:
        if self._needed:
            wall, cpu = time.perf_counter(), time.process_time()
            until_idle()
            self.wall_s += time.perf_counter() - wall
            self.cpu_s += time.process_time() - cpu


def _trains(side: Any, x: Any, y: Any) -> Callable[[], object]:
    return lambda: side.train_batch(x, y)


def _quartiles(name: str, timing: Timing) -> Row:
    return {
        f"{name}_s": timing.median,
        f"{name}_low_s": timing.low,
        f"{name}_high_s": timing.high,
    }


_PEER_COLUMNS = (
    "torch_s",
    "torch_low_s",
    "torch_high_s",
    "ratio",
    "torch_form",
    "torch_best_s",
    "best_ratio",
    "jax_s",
    "jax_low_s",
    "jax_high_s",
    "jax_ratio",
)


def _peer_columns(times: dict[str, Timing], fptt_s: float) -> Row:
    """Times of the peers and how many times fptt's they are; None where one did not train."""
    found: Row = dict.fromkeys(_PEER_COLUMNS)
    if "torch" in times:
        forms = {"sequence": times["torch"].median, "steps": times["torch_steps"].median}
        form = min(forms, key=forms.__getitem__)
        found |= _quartiles("torch", times["torch"])
        found |= {"ratio": times["torch"].median / fptt_s, "torch_form": form}
        found |= {"torch_best_s": forms[form], "best_ratio": forms[form] / fptt_s}
    if "jax" in times:
        found |= _quartiles("jax", times["jax"])
        found["jax_ratio"] = times["jax"].median / fptt_s
    return found


class _Stopwatch:
    """Called, trains a batch in the engine with a clock between the routines.

    Copying the input into the arena is left out: every part finds the same numbers there.
    """

    def __init__(self, program: Program, case: Case) -> None:
        trainer = Trainer(program, "native", threads=case.threads)
        trainer.train_batch(*case.data())  # leaves an input and labels in the arena
        self._engine: Any = trainer.backend
        self._frames = list(frames(program, [program.steps] * program.batch))
        self._samples: list[dict[str, float]] = []

    def __call__(self) -> None:
        self._samples.append(routine_seconds(self._engine, self._frames))

    def by_block(self) -> dict[str, float]:
        """Medians of the seconds of each block."""
        return {
            block: median(sum(sample[name] for name in routines) for sample in self._samples)
            for block, routines in BLOCKS.items()
        }


class _Machine:
    """The machine at its best, on so many threads: multiply-adds, reading weights, rewriting state.

    Every thread streams an array of its own, of the size of its share.
    """

    def __init__(self, program: Program, threads: int) -> None:
        limits = Limits()
        self.isa, self._multiply = limits.isa, limits.multiply_adds
        self._limits, self._threads = limits, threads
        self._weights, self._state = (
            [Memory(size // threads) for _ in range(threads)]
            for size in (step_bytes(program), program.plan.learned_bytes)
        )
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def __enter__(self) -> _Machine:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool:
            self._pool.shutdown()

    def _on_all(self, work: Callable[[int], object]) -> None:
        if self._pool is None:
            work(0)
        else:
            list(self._pool.map(work, range(self._threads)))

    def multiply_adds(self) -> None:
        """In registers."""
        self._on_all(lambda thread: self._multiply(_TURNS))

    def read(self) -> None:
        """As many bytes as the weights have, again and again."""
        self._on_all(lambda n: self._limits.read(self._weights[n], _times(self._weights[n])))

    def rewrite(self) -> None:
        """As many bytes as what is learnt has, again and again."""
        self._on_all(lambda n: self._limits.rewrite(self._state[n], _times(self._state[n])))

    def speeds(self, times: dict[str, Timing]) -> tuple[float, float, float]:
        """FLOP, bytes read, and bytes read or written in a rewrite, per second."""
        flop = 2 * self._multiply(1) * _TURNS
        read = _times(self._weights[0]) * self._weights[0].bytes
        rewritten = 2 * _times(self._state[0]) * self._state[0].bytes
        work = {"peak": flop, "reads": read, "rewrites": rewritten}
        flops, reads, rewrites = (
            self._threads * amount / times[name].median for name, amount in work.items()
        )
        return flops, reads, rewrites


def _times(memory: Memory) -> int:
    return max(1, _STREAM // memory.bytes)


@contextmanager
def _torch_threads_as_they_were(against: Sequence[str]) -> Iterator[None]:
    """The number of threads is PyTorch's own, of the whole process."""
    if "torch" not in against:
        yield
        return
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
