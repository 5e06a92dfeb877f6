"""Fitting the cycle model's constants to measurements of the published program."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fptt.errors import InputError
from fptt.program.opspec import FUNCTION_CLASSES
from fptt.soc.chip import Chip, load_chip
from fptt.soc.constants import FITTED, Constants, with_values
from fptt.soc.cycles import cycles
from fptt.soc.measurements import Measured
from fptt.soc.workload import published

Vector = NDArray[np.float64]

#: relative error of a class that is as large as the whole; a class that is a hundredth of the total
#: may be ten times as wrong
_ERROR = 0.01
#: of the search: rounds at most, step of the differences, damping at which no way leads down, and
#: the relative gain below which it ends
_ROUNDS, _STEP, _STUCK, _GAIN = 60, 1e-5, 1e8, 1e-7


def calibrate(
    measured: Sequence[Measured], chip: Chip | None = None, source: str = "measurements"
) -> Constants:
    """The constants with which the model comes nearest to measurements of the published program.

    Minimises, over the logarithms of the constants (Levenberg-Marquardt; derivatives by
    differences), the sum over all cells of share * (log predicted / measured)^2 / 0.01^2, where
    share is the class's share of the cell's total, plus that of (log constant / guess)^2 /
    (log spread)^2, which decides where measurements tell nothing.

    Args:
        measured: from `read_measurements`.
        chip: what they were taken on, but for mesh and cores; the published system, if None.
        source: of the measurements, in words.

    Raises:
        InputError: there are none.
    """
    if not measured:
        raise InputError("no measurements; expected at least one design point with one K")
    base = chip or load_chip("published")
    cells = [
        (base.with_(mesh=m.mesh, cores=m.cores), published(m.parts), m.cycles) for m in measured
    ]
    guess = np.log([f.metadata["guess"] for f in FITTED])
    spread = np.log([f.metadata["spread"] for f in FITTED])

    def residuals(logs: Vector) -> Vector:
        known = with_values(np.exp(logs).tolist())
        found = []
        for point, work, given in cells:
            predicted = cycles(point, work, known)
            for name in FUNCTION_CLASSES:
                weight = (given[name] / given["total"]) ** 0.5 / _ERROR
                found.append(weight * np.log(predicted[name] / given[name]))
        return np.array([*found, *((logs - guess) / spread)])

    return with_values(np.exp(_minimise(residuals, guess)).tolist(), source=source)


def _minimise(f: Callable[[Vector], Vector], start: Vector) -> Vector:
    """Where the sum of squares of f is least: Levenberg-Marquardt, derivatives by differences."""
    at, value, damping = start, f(start), 1e-2
    for _ in range(_ROUNDS):
        slopes = [(f(at + _STEP * unit) - value) / _STEP for unit in np.eye(len(at))]
        jacobian = np.stack(slopes, axis=1)
        normal, gradient = jacobian.T @ jacobian, jacobian.T @ value
        before = value @ value
        while damping < _STUCK:
            move = np.linalg.solve(normal + damping * np.diag(normal.diagonal()), gradient)
            # no constant changes by more than a factor e at once
            next_at: Vector = at - np.clip(move, -1, 1)
            next_value = f(next_at)
            if next_value @ next_value < before:
                break
            damping *= 4
        else:
            break
        at, value, damping = next_at, next_value, damping / 4
        if value @ value > before * (1 - _GAIN):
            break
    return at
