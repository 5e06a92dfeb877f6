"""Accuracy at equal training memory: what FPTT's lambda and running mean buy, and what they cost.

For the bytes of an FPTT run, truncated BPTT can afford a smaller K. So every FPTT configuration is
set against the best TBPTT configuration that fits in its memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fptt.experiments.summary import Group, Record, Spread, groups, is_fptt

Verdict = Literal["FPTT better", "no difference", "FPTT worse", "too few seeds", "nothing fits"]

#: of a configuration, what belongs to the rule and its tuning; in everything else, two runs that
#: are set against each other must agree
_OF_THE_RULE = {
    *("rule", "source", "parts", "alpha", "beta", "mode", "regularise", "epoch_end"),
    *("epoch_lambda", "optimizer", "lr", "momentum", "clip", "schedule", "engine"),
}

#: 97.5 % quantiles of Student's t for 1, 2, ... 10 degrees of freedom
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True)
class Comparison:
    """One FPTT configuration against truncated BPTT in the same memory.

    Attributes:
        fptt: the FPTT runs.
        fits: the TBPTT runs with the best mean among those that need no more bytes. They were
            chosen by the test figures, which favours TBPTT a little. None where nothing fits.
        difference: mean of FPTT minus mean of `fits`, in the unit of the metric.
        standard_error: of the difference, with the standard deviations of both pooled.
        threshold: what |difference| must pass to count, 95 % (two-sided, Student's t).
        verdict: "FPTT better", "FPTT worse", "no difference" that these seeds show, or why
            there is none. Taken one by one: of twenty, one is wrong by chance.
        interpolated: TBPTT at exactly the same bytes, linear in log(bytes) between its two
            neighbours; None outside of what was measured.
    """

    fptt: Group
    fits: Group | None
    difference: float | None
    standard_error: float | None
    threshold: float | None
    verdict: Verdict
    interpolated: float | None

    @property
    def seeds(self) -> int:
        """The smaller number of seeds of the two."""
        return min(self.fptt.final.n, self.fits.final.n if self.fits else 0)


def equal_memory(records: Sequence[Record]) -> list[Comparison]:
    """Sets every FPTT configuration against truncated BPTT in the same memory.

    Only runs that agree in network, data, loss, epochs, batch and type are compared; learning rate
    and schedule may differ, as each rule may have its own.

    Args:
        records: as read. Those without arena_bytes and those of other gradient sources are not
            looked at.

    Returns:
        By task and memory. Empty where a task has runs of one of the two rules only.

    Example:
        >>> def run(rule, parts, size, accuracy, seed):
        ...     return {
        ...         "table": "equal-memory", "variant": rule, "metric": "test_accuracy",
        ...         "arena_bytes": size, "seconds": 1.0,
        ...         "configuration": {"task": "fsdd", "rule": rule, "parts": parts, "seed": seed},
        ...         "epochs": [{"epoch": 1, "test_accuracy": accuracy}],
        ...     }
        >>> records = [run("tbptt", 4, 900, a, seed) for seed, a in enumerate((0.90, 0.91))]
        >>> records += [run("fptt", 8, 1000, a, seed) for seed, a in enumerate((0.80, 0.81))]
        >>> [found] = equal_memory(records)
        >>> found.verdict, round(found.difference, 3), found.fits.parts
        ('FPTT worse', -0.1, 4)
    """
    settings: dict[str, list[Group]] = {}
    for group in groups(records):
        plain = (group.configuration.get("source") or "bptt") == "bptt"
        if plain and group.arena_bytes:
            settings.setdefault(_setting(group), []).append(group)
    found = []
    for several in settings.values():
        control = sorted(
            (group for group in several if not is_fptt(group.configuration)), key=_size
        )
        if control:
            wrapped = (group for group in several if is_fptt(group.configuration))
            found += [_compare(group, control) for group in sorted(wrapped, key=_size)]
    return found


def _size(group: Group) -> int:
    return group.arena_bytes or 0


def _setting(group: Group) -> str:
    same = {k: v for k, v in group.configuration.items() if k not in _OF_THE_RULE}
    return group.panel + json.dumps(same, sort_keys=True, default=str)


def _compare(group: Group, control: Sequence[Group]) -> Comparison:
    sign = 1 if group.higher_is_better else -1
    at_same_bytes = interpolate(control, _size(group))
    fitting = [other for other in control if _size(other) <= _size(group)]
    if not fitting:
        return Comparison(group, None, None, None, None, "nothing fits", at_same_bytes)
    fits = max(fitting, key=lambda other: sign * other.final.mean)
    difference = group.final.mean - fits.final.mean
    error, threshold = pooled(group.final, fits.final)
    verdict: Verdict
    if error is None or threshold is None:
        verdict = "too few seeds"
    elif abs(difference) <= threshold:
        verdict = "no difference"
    else:
        verdict = "FPTT better" if sign * difference > 0 else "FPTT worse"
    return Comparison(group, fits, difference, error, threshold, verdict, at_same_bytes)


def interpolate(control: Sequence[Group], size_bytes: int) -> float | None:
    """The mean of final metrics at a number of bytes, linear in log(bytes) between neighbours.

    Args:
        control: by bytes, ascending.
        size_bytes: where.

    Returns:
        None outside of what was measured.
    """
    below = [group for group in control if _size(group) <= size_bytes]
    above = [group for group in control if _size(group) >= size_bytes]
    if not below or not above:
        return None
    left, right = below[-1], above[0]
    if _size(left) == _size(right):
        return left.final.mean
    weight = math.log(size_bytes / _size(left)) / math.log(_size(right) / _size(left))
    return (1 - weight) * left.final.mean + weight * right.final.mean


def pooled(a: Spread, b: Spread) -> tuple[float | None, float | None]:
    """Standard error of the difference of two means, and what passes for a difference.

    s^2 = ((n_a - 1) s_a^2 + (n_b - 1) s_b^2) / (n_a + n_b - 2);  SE = s sqrt(1/n_a + 1/n_b); the
    threshold is t(0.975, n_a + n_b - 2) SE.

    Returns:
        (None, None) where one of them has a single value.

    Example:
        >>> from fptt.experiments.summary import spread
        >>> error, threshold = pooled(spread([1, 2, 3]), spread([2, 3, 4]))
        >>> round(error, 4), round(threshold, 3)
        (0.8165, 2.267)
    """
    if a.sd is None or b.sd is None:
        return None, None
    freedom = a.n + b.n - 2
    variance = ((a.n - 1) * a.sd**2 + (b.n - 1) * b.sd**2) / freedom
    error = math.sqrt(variance * (1 / a.n + 1 / b.n))
    return error, _quantile(freedom) * error


def _quantile(freedom: int) -> float:
    """97.5 % quantile of Student's t.

    From a table, and beyond it from z + (z^3 + z) / 4n + (5 z^5 + 16 z^3 + 3 z) / 96 n^2
    + (3 z^7 + 19 z^5 + 17 z^3 - 15 z) / 384 n^3 (Abramowitz & Stegun 26.7.5).
    """
    if freedom <= len(_T):
        return _T[freedom - 1]
    z, n = 1.959964, freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )
