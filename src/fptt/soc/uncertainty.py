"""How far a prediction may be off: one standard deviation of the total, a share of it."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, log

import numpy as np

from fptt.soc.chip import Chip
from fptt.soc.constants import NAMES, Constants, load_constants
from fptt.soc.cycles import cycles, loop_cycles, memory_cycles
from fptt.soc.units import is_update, unit_element, unit_loop
from fptt.soc.workload import ELEMENTS, Task, Workload

#: of what is interpolated: an error of this share for every factor e
_BETWEEN = 0.25
#: of what rests on an assumption instead of a measurement
_ASSUMED = 0.3
#: of the loops, where first-level caches are not those that were measured
_CACHES = 0.05
#: step of derivatives
_STEP = 1e-4
_ARRAY = ("MatMul-1", "MatMul-2", "MatMul-3")


def uncertainty(chip: Chip, workload: Workload, constants: Constants | None = None) -> float:
    """Standard deviation of the total, a share of it: the root of the sum of the squares of

    - each class's share of the total, times its error where calibration had not seen the
      measurement (`Constants.spreads`), and no less than the error of the totals;
    - what the constants leave open (`Constants.covariance`): much, where they were not measured;
    - what sharing lines costs, times 25 % for every factor e between the number of cores and the
      nearest measured one: other laws through the same measurements differ by that much;
    - what the array takes, times 25 % for every factor e to the nearest measured mesh;
    - operations and accesses of loops that were never measured, times the error of their price
      (`Prices.spread`);
    - 30 % of what rests on an assumption: units, scalars in hardware (`data/units.toml`), an array
      of another number type, dataflow, bus or scratchpad; all of what DRAM takes, with another
      clock, cache or line; 5 % of the loops with other first-level caches.

    Example:
        >>> from fptt.soc import load_chip, published
        >>> measured, between = load_chip("8x8-1"), load_chip("8x8-2")
        >>> 0 < uncertainty(measured, published(28)) < uncertainty(between, published(28)) < 0.1
        True
    """
    known = constants or load_constants()
    by_function = cycles(chip, workload, known)
    total = by_function["total"]
    spreads = dict(known.spreads)
    whole = total * spreads.pop("total", 0.0)
    classes = float(np.hypot.reduce([by_function[n] * spread for n, spread in spreads.items()]))
    parts = [
        # classes may be wrong together
        max(classes, whole),
        total * _of_constants(chip, workload, known, total),
        *_of_the_law(chip, workload, known, by_function),
        *_of_assumptions(chip, workload, known, by_function),
    ]
    return float(np.hypot.reduce(parts)) / total


def _of_constants(chip: Chip, workload: Workload, known: Constants, total: float) -> float:
    """Of the total's logarithm, from the constants' covariance."""
    if not known.covariance:
        return 0.0
    slopes = np.array(
        [
            log(cycles(chip, workload, _moved(known, name))["total"] / total) / _STEP
            for name in NAMES
        ]
    )
    return float(np.sqrt(max(slopes @ np.array(known.covariance) @ slopes, 0.0)))


def _moved(known: Constants, name: str) -> Constants:
    return replace(known, **{name: getattr(known, name) * (1 + _STEP)})


def _of_the_law(
    chip: Chip, workload: Workload, known: Constants, by_function: dict[str, float]
) -> list[float]:
    """Between the measured numbers of cores and meshes, and in loops that were not measured."""
    lone = replace(known, barrier=0.0, take=0.0, retake=0.0, retake_update=0.0)
    shared = by_function["total"] - cycles(chip, workload, lone)["total"]
    array = sum(by_function[name] for name in _ARRAY)
    prices = known.prices
    priced = sum(
        task.calls
        * ceil(task.elements / (chip.cores if task.parallel else 1))
        * (task.operations * prices.operation + task.accesses * prices.access)
        for task in workload.tasks
        if task.product is None
        and task.kind not in ELEMENTS
        and not is_update(task)
        and not _is_assumed(chip, task, known)
    )
    measured = known.measured
    return [
        shared * _BETWEEN * _distance(chip.cores, measured.cores),
        array * _BETWEEN * (_distance(chip.mesh, measured.meshes) if chip.mesh else 1.0),
        priced * prices.spread,
    ]


def _of_assumptions(
    chip: Chip, workload: Workload, known: Constants, by_function: dict[str, float]
) -> list[float]:
    """Where the chip is not the one that was measured."""
    other = {key for key, value in known.measured.others.items() if getattr(chip, key) != value}
    array = sum(by_function[name] for name in _ARRAY)
    loops = by_function["total"] - array
    assumed = sum(
        task.calls * loop_cycles(chip, workload, task, known)
        for task in workload.tasks
        if task.product is None and _is_assumed(chip, task, known)
    )
    of_array = other & {"data_type", "emulated_bf16", "dataflow", "bus_bits", "scratchpad_kib"}
    if chip.mesh and of_array == {"emulated_bf16"}:
        of_array = set()
    of_memory = other & {"l2_kib", "clock_hz", "line_bytes"}
    return [
        assumed * _ASSUMED,
        array * _ASSUMED if of_array else 0.0,
        memory_cycles(chip, workload, known) if of_memory else 0.0,
        loops * _CACHES if other & {"dcache_kib", "line_bytes"} else 0.0,
    ]


def _is_assumed(chip: Chip, task: Task, known: Constants) -> bool:
    """Whether a loop's cost comes from `data/units.toml`."""
    on_unit, in_core = unit_loop(chip, task, known.call), unit_element(chip, task, known)
    return on_unit is not None or in_core is not None


def _distance(value: int, measured: tuple[int, ...]) -> float:
    """Logarithm of the ratio to the nearest measured value."""
    return min(abs(log(value / near)) for near in measured)
