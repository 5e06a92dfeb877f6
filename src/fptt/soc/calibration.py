"""Fitting the cycle model's constants to measurements of the published program."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fptt.errors import InputError
from fptt.program.opspec import FUNCTION_CLASSES
from fptt.soc.chip import Chip, load_chip
from fptt.soc.constants import CONDITIONS, FITTED, Conditions, Constants, with_values
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
    (log spread)^2, which decides where measurements tell nothing. The covariance is the inverse of
    the normal equations' matrix: what is left of the guess's uncertainty.

    Args:
        measured: from `read_measurements`.
        chip: what they were taken on, but for mesh and cores; the published system, if None.
        source: of the measurements, in words.

    Raises:
        InputError: there are none.
    """
    if not measured:
        raise InputError("no measurements; expected at least one design point with one K")
    base = chip or load_chip()
    cells = [
        (base.with_(mesh=m.mesh, cores=m.cores), published(m.parts), m.cycles) for m in measured
    ]
    conditions = Conditions(
        tuple(sorted({m.cores for m in measured})),
        tuple(sorted({m.mesh for m in measured})),
        {key: getattr(base, key) for key in CONDITIONS},
    )
    spread = np.log([f.metadata["spread"] for f in FITTED])

    def logs_of_ratios(logs: Vector) -> Vector:
        known = with_values(np.exp(logs).tolist(), measured=conditions)
        return np.array(
            [
                np.log(predicted[name] / given[name])
                for point, work, given in cells
                for predicted in [cycles(point, work, known)]
                for name in FUNCTION_CLASSES
            ]
        )

    # a chip that is faster as a whole has no other physics: guesses are scaled to its speed
    guess = np.log([f.metadata["guess"] for f in FITTED])
    in_cycles = np.array([f.metadata["unit"] == "cycles" for f in FITTED])
    guess = guess - in_cycles * np.median(logs_of_ratios(guess))
    shares = [given[name] / given["total"] for _, _, given in cells for name in FUNCTION_CLASSES]
    weights = np.sqrt(shares) / _ERROR

    def residuals(logs: Vector) -> Vector:
        return np.concatenate([weights * logs_of_ratios(logs), (logs - guess) / spread])

    found, jacobian = _minimise(residuals, guess)
    return with_values(
        np.exp(found).tolist(),
        covariance=tuple(map(tuple, np.linalg.inv(jacobian.T @ jacobian).tolist())),
        measured=conditions,
        source=source,
    )


def _minimise(f: Callable[[Vector], Vector], start: Vector) -> tuple[Vector, Vector]:
    """Where the sum of squares of f is least, and the slopes there [values, unknowns].

    Levenberg-Marquardt, derivatives by differences.
    """
    at, value, damping = start, f(start), 1e-2
    for _ in range(_ROUNDS):
        jacobian = _slopes(f, at, value)
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
    return at, _slopes(f, at, value)


def _slopes(f: Callable[[Vector], Vector], at: Vector, value: Vector) -> Vector:
    found: Vector = np.stack([(f(at + _STEP * e) - value) / _STEP for e in np.eye(len(at))], axis=1)
    return found
