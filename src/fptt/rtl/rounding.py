"""How far rounding may take the unit and the C run time apart, worked out number by number.

Both compute the same update in another order. A running error analysis (Higham, "Accuracy and
Stability of Numerical Algorithms", 2nd ed., section 3.3) follows each of them: beside every value
goes a bound of its distance from what exact arithmetic gives with the same inputs and constants.
Rounding a result r to nearest adds u |r| + t, with u = 2^-p (p: bits of the significand) and t the
least normal number, for what is flushed to zero; and an operation passes on what its operands
bring:

    a + b, a - b:  e(a) + e(b)
    a * b:         |a| e(b) + |b| e(a) + e(a) e(b)
    a / 2:         e(a) / 2

Constants are rounded once: u |c|. The two results differ by no more than the sum of both bounds.
The bounds themselves are computed in float64, whose own
rounding is 2^-29 of them at most. Nothing is estimated, so no case may lie outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fptt.rtl.operations import RESULTS, Operation
from fptt.rtl.parameters import UnitParameters

Array = NDArray[np.float64]
#: output of the unit
Bounds = dict[str, Array]


@dataclass(frozen=True)
class _Value:
    """Numbers, and how far each may lie from the exact one."""

    value: Array
    error: Array

    def rounded(self, precision: int, least: float) -> _Value:
        # what is rounded may itself lie `error` away from `value`
        unit = 2.0**-precision
        return _Value(self.value, self.error + unit * (np.abs(self.value) + self.error) + least)

    def __add__(self, other: _Value) -> _Value:
        return _Value(self.value + other.value, self.error + other.error)

    def __sub__(self, other: _Value) -> _Value:
        return _Value(self.value - other.value, self.error + other.error)

    def __mul__(self, other: _Value) -> _Value:
        error = (
            np.abs(self.value) * other.error
            + np.abs(other.value) * self.error
            + self.error * other.error
        )
        return _Value(self.value * other.value, error)


#: least normal number of float32 and of bfloat16
_LEAST = 2.0**-126


def unit_bounds(
    parameters: UnitParameters,
    inputs: Mapping[str, NDArray[Any]],
    *,
    lr: float,
    alpha: float,
    regularise: bool = True,
) -> Bounds:
    """Bounds of what the unit's rounding does to its results.

    Args:
        parameters: how the unit is built.
        inputs: grad, param, lam, rmean as numbers of any one shape.
        lr, alpha: before they are rounded.
        regularise: its switch.

    Returns:
        Output -> bound of |unit's - exact|, float64.

    Example:
        >>> one = np.ones(1)
        >>> unit = UnitParameters(regularise=False)
        >>> inputs = {"grad": one, "param": one}
        >>> bound = unit_bounds(unit, inputs, lr=0.5, alpha=0.1, regularise=False)
        >>> float(bound["param"][0]) < 3 * 2.0**-24  # a product and a difference, each at most 1
        True
    """
    precision = parameters.format.precision
    values = _exact(inputs) | {
        name: _constant(number, precision)
        for name, number in {
            "lr": lr,
            "lr_alpha": lr * alpha,
            "alpha": alpha,
            "ita": 1 / (2 * alpha),
        }.items()
    }
    zero = _Value(np.zeros(1), np.zeros(1))
    for operation in parameters.operations:
        off = operation.only_regularised and not regularise
        result = _applied(operation, values, zero if off else None)
        values[operation.result] = result.rounded(precision, _LEAST)
    kept = RESULTS if regularise else {"param": RESULTS["param"]}
    return {name: values[result].error for name, result in kept.items()}


def _applied(operation: Operation, values: Mapping[str, _Value], other: _Value | None) -> _Value:
    a = values[operation.a]
    if operation.b is None:
        return _Value(a.value / 2, a.error / 2)
    b = values[operation.b] if other is None else other
    return {"add": a + b, "subtract": a - b, "multiply": a * b}[operation.kind]


def engine_bounds(
    dtype: str,
    inputs: Mapping[str, NDArray[Any]],
    *,
    lr: float,
    alpha: float,
    beta: float = 0.5,
) -> Bounds:
    """The same for the C run time: FPTT around plain SGD, mode "code" (`runtime/src/updates.c`).

    It computes in float32, whatever the number type, and rounds once more where it stores
    bfloat16. This is the host's build; one for a processor with fused products differs.

    Args:
        dtype: "float32" or "bfloat16", how parameters are stored.
        inputs: grad, param, lam, rmean as numbers.
        lr, alpha, beta: of the rule, before they are rounded.

    Example:
        >>> from fptt.rtl.parameters import UnitParameters
        >>> numbers = dict.fromkeys(("grad", "param", "lam", "rmean"), np.ones(1))
        >>> ours = engine_bounds("float32", numbers, lr=0.05, alpha=0.1)
        >>> unit = unit_bounds(UnitParameters(), numbers, lr=0.05, alpha=0.1)
        >>> [round(float((ours[k] + unit[k])[0] / 2**-24)) for k in ("param", "lam", "rmean")]
        [3, 2, 46]
    """
    precision = 24
    at = _exact(inputs)
    constants = {
        "lr": lr,
        "alpha": alpha,
        "beta": beta,
        "keep": 1 - beta,
        "ratio": beta / alpha,
    }
    at |= {name: _constant(number, precision) for name, number in constants.items()}

    def rounded(value: _Value) -> _Value:
        return value.rounded(precision, _LEAST)

    pull = rounded(rounded(at["alpha"] * rounded(at["param"] - at["rmean"])) - at["lam"])
    step = rounded(at["lr"] * rounded(at["grad"] + pull))
    param = rounded(at["param"] - step)
    lam = rounded(at["lam"] - rounded(at["alpha"] * rounded(param - at["rmean"])))
    halves = rounded(rounded(at["keep"] * at["rmean"]) + rounded(at["beta"] * param))
    rmean = rounded(halves - rounded(at["ratio"] * lam))
    found = {"param": param, "lam": lam, "rmean": rmean}
    if dtype == "bfloat16":
        found = {name: value.rounded(8, _LEAST) for name, value in found.items()}
    return {name: value.error for name, value in found.items()}


def _exact(inputs: Mapping[str, NDArray[Any]]) -> dict[str, _Value]:
    numbers = {name: np.asarray(values, np.float64) for name, values in inputs.items()}
    return {name: _Value(values, np.zeros_like(values)) for name, values in numbers.items()}


def _constant(number: float, precision: int) -> _Value:
    # lr alpha and 1 / (2 alpha) are computed in double precision: two roundings of 2^-53 more
    error = (2.0**-precision + 2.0**-52) * abs(number) + _LEAST
    return _Value(np.array([number]), np.array([error]))
