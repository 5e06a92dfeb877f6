"""Gradient sources side by side: how far each is from full BPTT, and what it costs.

All in one unit: the gradient of the summed losses at the ends of the K parts, at fixed weights.
BPTT of the whole sequence gives it exactly, in float64; truncated BPTT and forward-mode sources
are measured against that.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fptt.errors import InputError
from fptt.nets import Dropout, LeakyIntegrator, Network
from fptt.nets.layer import Recurrent
from fptt.program import Program, build
from fptt.program.ir import Role
from fptt.rules import BPTT, FPTT, SGD, TBPTT, Rule
from fptt.tasks import SequenceData, Task
from fptt.trainer import Trainer

Array = NDArray[Any]
Gradient = Mapping[str, Array]

#: what a pass over the data needs besides inputs, what is learnt, and its gradient
PASS_ROLES = (Role.ACTIVATION, Role.CARRY, Role.SCRATCH, Role.RULE_STATE)
#: routines that make the gradient
GRADIENT_ROUTINES = ("begin_sequence", "next_sequence", "forward", "loss", "backward", "carry")
#: factors by which T and the width grow where exponents are measured
DOUBLINGS = (1, 2, 4, 8)
#: time is the median of so many batches
REPEATS = 5


@dataclass(frozen=True)
class Alignment:
    """How one gradient lies to another.

    Attributes:
        cosine: of the angle between them; NaN where one is zero.
        norm_ratio: ||gradient|| / ||exact||.
    """

    cosine: float
    norm_ratio: float


@dataclass(frozen=True)
class Growth:
    """Exponents e of cost ~ size^e, least squares in log-log over three doublings.

    Attributes:
        memory_steps, work_steps: in T, at this K.
        memory_parts, work_parts: in K, at this T; None where there are no several K.
        memory_width, work_width: in H, the width of the recurrent layers; None where a network
            has no single one.
    """

    memory_steps: float
    work_steps: float
    memory_parts: float | None
    work_parts: float | None
    memory_width: float | None
    work_width: float | None


@dataclass(frozen=True)
class Comparison:
    """One gradient source with one K.

    Attributes:
        source, parts: which.
        whole: alignment of the gradient of all tensors together.
        tensors: of each tensor.
        arena_bytes: to train with plain SGD.
        fptt_arena_bytes: the same in the FPTT wrapper.
        pass_bytes: activations, traces, carried state and scratch alone.
        operations: multiplications, additions and functions for the gradient of one batch.
        updates: per sequence.
        seconds: per batch, median, with the update; None if it was not measured.
        backend: what was timed.
        growth: exponents, or None if they were not measured.
    """

    source: str
    parts: int
    whole: Alignment
    tensors: Mapping[str, Alignment]
    arena_bytes: int
    fptt_arena_bytes: int
    pass_bytes: int
    operations: int
    updates: int
    seconds: float | None
    backend: str
    growth: Growth | None

    def as_json(self) -> dict[str, Any]:
        """Plain data: the attributes by their names."""
        return asdict(self)


def compare(
    task: Task,
    net: Network,
    sources: Sequence[tuple[str, int]],
    *,
    batch: int = 4,
    seed: int = 0,
    scale: float = 1.0,
    grow: bool = True,
    timed: bool = True,
    on_progress: Callable[[str], None] | None = None,
) -> list[Comparison]:
    """Measures every source on the first batch of a task, at one set of weights.

    Args:
        task: gives the sequences; its class loss at the end of every part counts.
        net: its own weights, if it has any, otherwise those of `seed`. Its dropout is off: two
            sources would be compared under different masks.
        sources: names of `fptt.rules.sources.SOURCES`, each with its K.
        batch: rows.
        seed: of the weights.
        scale: multiplies the weights: at initial ones gradients fade within a few steps, and all
            sources look alike.
        grow: whether to measure exponents.
        timed: whether to measure time.
        on_progress: called with what is being measured.

    Raises:
        InputError: a source that the network does not serve, or a task with a target at every
            step.

    Example:
        >>> import fptt
        >>> from fptt.tasks import load
        >>> net = fptt.Network([fptt.LSTM(2, 4), fptt.Linear(4, 1)])
        >>> task = load("add", steps=12, n_train=4, n_test=1)
        >>> full, cut = compare(task, net, [("bptt", 1), ("bptt", 3)], timed=False, grow=False)
        >>> round(full.whole.cosine, 9), cut.whole.cosine < 1
        (1.0, True)
    """
    if task.loss != "last":
        raise InputError(
            f"task {task.name} has a target at every step; compare takes one with a target for a "
            "sequence"
        )
    rows = np.arange(min(batch, len(task.train)))
    data = task.train.subset(rows)
    weights = {name: scale * array for name, array in net.initial(seed).items()}
    layers = [replace(one, p=0.0) if isinstance(one, Dropout) else one for one in net.layers]
    net = Network(layers, weights)
    exact: dict[int, Gradient] = {}
    found = []
    for source, parts in sources:
        if on_progress:
            on_progress(f"{source}, K={parts}")
        if parts not in exact:
            exact[parts] = exact_gradient(task, net, data, parts)
        gradient = source_gradient(task, net, data, source, parts)
        names = list(gradient)
        flat = [np.concatenate([g[n].ravel() for n in names]) for g in (gradient, exact[parts])]
        program = _program(task, net, _rule(source, parts), len(rows), "float32")
        wrapped = _program(task, net, _rule(source, parts, wrapped=True), len(rows), "float32")
        seconds, backend = _time(program, data) if timed else (None, "")
        found.append(
            Comparison(
                source=source,
                parts=parts,
                whole=align(*flat),
                tensors={name: align(gradient[name], exact[parts][name]) for name in names},
                arena_bytes=program.memory().arena_bytes,
                fptt_arena_bytes=wrapped.memory().arena_bytes,
                pass_bytes=_pass_bytes(program),
                operations=_operations(program),
                updates=parts,
                seconds=seconds,
                backend=backend,
                growth=_growth(task, net, source, parts, len(rows)) if grow else None,
            )
        )
    return found


def check_served(task: Task, net: Network, source: str) -> None:
    """Raises InputError, with the reason, if the network has no such gradient source."""
    _program(task, net, _rule(source, 1), 1, "float64")


def align(gradient: Array, exact: Array) -> Alignment:
    """Cosine and ratio of norms.

    Example:
        >>> align(np.array([2.0, 0.0]), np.array([1.0, 0.0]))
        Alignment(cosine=1.0, norm_ratio=2.0)
    """
    norms = float(np.linalg.norm(gradient)), float(np.linalg.norm(exact))
    if not all(norms):
        return Alignment(math.nan, math.nan if not norms[1] else 0.0)
    cosine = float(np.vdot(gradient / norms[0], exact / norms[1]))
    return Alignment(cosine, norms[0] / norms[1])


def exact_gradient(task: Task, net: Network, data: SequenceData, parts: int) -> Gradient:
    """The gradient of the summed part losses by full BPTT in float64.

    The loss at the end of part p is the loss of the sequence that ends there, so it is a sum of
    BPTT over the K beginnings of the sequence; where sequences have unequal lengths, only rows
    that still run in part p have a loss in it.
    """
    lengths = np.full(len(data), data.steps) if data.lengths is None else data.lengths
    bounds = TBPTT(parts=parts).bounds(task.steps)
    total: dict[str, Array] = {}
    program = _program(task, net, BPTT(), len(data), "float64")
    for begin, end in bounds:
        running = np.flatnonzero(lengths > begin)
        if not running.size or end == begin:
            continue
        part = data.subset(running)
        upto = np.minimum(lengths[running], end)
        trainer = Trainer(program, backend="reference")
        # BPTT counts one loss a sequence, at its last step
        gradient = trainer.part_gradients(part.x[:, : upto.max()], part.y, upto)[0]
        assert gradient is not None
        for name, array in gradient.items():
            total[name] = total.get(name, 0) + array
    return total


def source_gradient(
    task: Task, net: Network, data: SequenceData, source: str, parts: int
) -> Gradient:
    """The sum over the parts of a source's gradients at fixed weights, float64."""
    program = _program(task, net, _rule(source, parts), len(data), "float64")
    trainer = Trainer(program, backend="reference")
    total: dict[str, Array] = {}
    for gradient in trainer.part_gradients(data.x, data.y, data.lengths):
        for name, array in (gradient or {}).items():
            total[name] = total.get(name, 0) + array
    return total


def _rule(source: str, parts: int, *, wrapped: bool = False) -> Rule:
    if wrapped:
        return FPTT(parts=parts, source=source)
    return TBPTT(parts=parts, source=source)


def _program(
    task: Task, net: Network, rule: Rule, batch: int, dtype: str, steps: int | None = None
) -> Program:
    return build(
        net,
        rule,
        SGD(lr=0.01),
        steps=steps or task.steps,
        batch=batch,
        criterion=task.criterion,
        dtype=dtype,
    )


def _pass_bytes(program: Program) -> int:
    return sum(program.memory().categories[role] for role in PASS_ROLES)


def _operations(program: Program) -> int:
    """Scalar operations for the gradient of one batch, update aside.

    Products that gradients are may run in the update, where they are applied piece by piece; they
    count, the update's own arithmetic (EWO-SGD) does not.
    """
    table = program.work()
    work = table.by_function()
    del work["EWO-SGD"]
    return sum(one.mul + one.add + one.trans for one in work.values())


def _time(program: Program, data: SequenceData) -> tuple[float, str]:
    trainer = Trainer(program)
    trainer.train_batch(data.x, data.y, data.lengths)
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        trainer.train_batch(data.x, data.y, data.lengths)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), trainer.backend.describe()


def _growth(task: Task, net: Network, source: str, parts: int, batch: int) -> Growth:
    """Exponents from the programs' own tables, which are exact at every size."""

    def costs(program: Program) -> tuple[int, int]:
        return _pass_bytes(program), _operations(program)

    def exponents(sizes: Sequence[float], programs: Sequence[Program]) -> tuple[float, float]:
        memory, work = zip(*map(costs, programs), strict=True)
        return slope(sizes, memory), slope(sizes, work)

    bare = Network(net.layers)
    steps = [task.steps * factor for factor in DOUBLINGS]
    by_steps = [_program(task, bare, _rule(source, parts), batch, "float32", t) for t in steps]
    several = [parts // factor for factor in reversed(DOUBLINGS) if parts % factor == 0]
    by_parts: tuple[float | None, float | None] = (None, None)
    if len(several) > 1:
        programs = [_program(task, bare, _rule(source, k), batch, "float32") for k in several]
        by_parts = exponents(several, programs)
    by_width: tuple[float | None, float | None] = (None, None)
    widened = [_widened(bare, factor) for factor in DOUBLINGS]
    if all(widened):
        programs = [
            _program(task, wide, _rule(source, parts), batch, "float32") for wide in widened if wide
        ]
        by_width = exponents(DOUBLINGS, programs)
    return Growth(*exponents(steps, by_steps), *by_parts, *by_width)


def _grows(layer: Recurrent) -> bool:
    return not isinstance(layer, LeakyIntegrator)


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The exponent e of cost ~ size^e.

    Example:
        >>> round(slope([1, 2, 4], [3, 12, 48]), 9)
        2.0
    """
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def _widened(net: Network, factor: int) -> Network | None:
    """The same stack with recurrent layers `factor` times as wide, if there is only one width.

    A leaky integrator is a readout, as wide as the targets say.
    """
    hidden = [layer for layer in net.layers if isinstance(layer, Recurrent) and _grows(layer)]
    if len({layer.hidden for layer in hidden}) != 1:
        return None
    layers: list[Any] = []
    grown = 1
    for layer in net.layers:
        changes: dict[str, int] = {}
        if hasattr(layer, "inputs") and grown > 1:
            changes["inputs"] = layer.inputs * grown
        if isinstance(layer, Recurrent) and _grows(layer):
            changes["hidden"] = layer.hidden * factor
            grown = factor
        elif layer.parameters():
            grown = 1
        layers.append(replace(layer, **changes) if changes else layer)
    return Network(layers)
