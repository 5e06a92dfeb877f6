"""Fits costs to what was counted: least squares of relative errors, no coefficient negative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fptt.device.costs import Features, Fitted

Array = NDArray[Any]


@dataclass(frozen=True)
class Sample:
    """What was counted of one kind of operation in one network.

    Attributes:
        group: the network; samples of one network are left out together to judge a fit.
        features: what its cost may depend on, summed over the executions.
        counted: instructions of these executions.
    """

    group: str
    features: Features
    counted: float


def fit(samples: Sequence[Sample], *, guess: float = 0.5, judged: bool = True) -> Fitted:
    """The coefficients, and how far they are off for networks that the fit had not seen.

    Args:
        samples: of one kind of operation.
        guess: the error to state where there are too few networks to measure it.
        judged: whether to find the errors, which takes a fit for every network.

    Example:
        >>> line = [Sample(str(n), {"n": n, "1": 1.0}, 3.0 * n + 10) for n in (1.0, 4.0, 9.0)]
        >>> {k: round(v, 6) for k, v in fit(line).coefficients.items()}
        {'1': 10.0, 'n': 3.0}
    """
    coefficients = _solve(samples)
    errors = []
    groups = sorted({sample.group for sample in samples})
    if judged and len(groups) > 1:
        for left_out in groups:
            others = _solve([s for s in samples if s.group != left_out])
            own = [s for s in samples if s.group == left_out]
            errors += [abs(_value(others, s.features) / s.counted - 1) for s in own]
    if not errors:
        errors = [guess]
    return Fitted(
        coefficients={k: float(f"{v:.6g}") for k, v in sorted(coefficients.items()) if v > 0},
        typical=float(f"{np.sqrt(np.mean(np.square(errors))):.4g}"),
        largest=float(f"{max(errors):.4g}"),
        samples=len(samples),
    )


def _value(coefficients: Mapping[str, float], features: Features) -> float:
    return sum(coefficients.get(name, 0.0) * value for name, value in features.items())


def _solve(samples: Sequence[Sample]) -> dict[str, float]:
    names = sorted({name for sample in samples for name in sample.features})
    matrix = np.array([[s.features.get(n, 0.0) / s.counted for n in names] for s in samples])
    scale = np.maximum(np.abs(matrix).max(axis=0), 1e-300)
    solution = nonnegative_least_squares(matrix / scale, np.ones(len(samples)))
    return dict(zip(names, (solution / scale).tolist(), strict=True))


def nonnegative_least_squares(a: Array, b: Array) -> Array:
    """The x >= 0 with the smallest ||a x - b|| (the active-set method of Lawson and Hanson, 1974).

    Example:
        >>> nonnegative_least_squares(np.eye(2), np.array([2.0, -1.0])).tolist()
        [2.0, 0.0]
    """
    count = a.shape[1]
    x, free = np.zeros(count), np.zeros(count, bool)
    tolerance = 1e-9 * max(1.0, float(np.abs(a.T @ b).max(initial=0.0)))
    for _ in range(5 * count + 10):
        gradient = a.T @ (b - a @ x)
        gradient[free] = -np.inf
        best = int(np.argmax(gradient))
        if gradient[best] <= tolerance:
            break
        free[best] = True
        while True:
            step = np.zeros(count)
            step[free] = np.linalg.lstsq(a[:, free], b, rcond=None)[0]
            if step[free].min() > 0:
                x = step
                break
            # as far as the first one that would become negative
            falling = free & (step <= 0)
            distance = x[falling] - step[falling]
            ratio = np.where(distance > 0, x[falling] / np.where(distance > 0, distance, 1), 0.0)
            x = x + ratio.min() * (step - x)
            x[free & (x <= 1e-15)] = 0.0
            free &= x > 0
            if not free.any():
                break
    return x
