"""The FPTT unit in NumPy, bit for bit: what the hardware is tested against.

It executes the table of `fptt.rtl.operations`. The schedules order the same operations differently
in time, so all of them give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite

import numpy as np

from fptt.errors import InputError
from fptt.rtl import arithmetic
from fptt.rtl.arithmetic import Bits
from fptt.rtl.operations import RESULTS
from fptt.rtl.parameters import UnitParameters


@dataclass(frozen=True)
class Constants:
    """What all parameters of an update share, as bits of the unit's format.

    Args:
        lr: learning rate eta.
        lr_alpha: eta alpha.
        alpha: weight of R(t).
        ita: 1 / (2 alpha).
    """

    lr: int
    lr_alpha: int
    alpha: int
    ita: int

    @classmethod
    def of(cls, parameters: UnitParameters, lr: float, alpha: float) -> Constants:
        """The constants of a learning rate and an alpha, each rounded once.

        Raises:
            InputError: alpha is not above 0 (without R(t), give any that is).

        Example:
            >>> hex(Constants.of(UnitParameters(), lr=0.5, alpha=0.25).ita)
            '0x40000000'
        """
        if not 0 < alpha < inf:
            raise InputError(f"alpha={alpha}: give a number above 0, as 1 / (2 alpha) is needed")
        if not isfinite(lr):
            raise InputError(f"lr={lr}: give a finite number")
        values = np.array([lr, lr * alpha, alpha, 1 / (2 * alpha)], np.float64)
        return cls(*(int(bits) for bits in parameters.format.encode(values, parameters.subnormals)))


def update(
    parameters: UnitParameters,
    constants: Constants,
    grad: Bits,
    param: Bits,
    lam: Bits,
    rmean: Bits,
    *,
    regularise: bool = True,
) -> tuple[Bits, Bits, Bits]:
    """One update, as the unit rounds it.

        param' = param - lr (grad - lam) - lr_alpha (param - rmean)
        lam'   = lam - alpha (param' - rmean)
        rmean' = (param' + rmean) / 2 - ita lam'

    This is the op `fptt_update` of the training program with sgd, mode "code" and beta = 1/2.
    With R(t) off: param' = param - lr grad, and lam and rmean stay as they are.

    Args:
        parameters: how the unit is built.
        constants: of this update.
        grad, param, lam, rmean: bits, unsigned integers of one shape. A unit that is built without
            R(t) reads no lam and rmean and hands them back.
        regularise: the unit's switch.

    Returns:
        Bits of param', lam', rmean'.

    Raises:
        InputError: R(t) is wanted of a unit that is built without it.

    Example:
        >>> unit = UnitParameters()
        >>> numbers = ([0.5], [1.0], [0.25], [0.0])
        >>> bits = [unit.format.encode(np.array(n)) for n in numbers]
        >>> after = update(unit, Constants.of(unit, lr=0.5, alpha=0.5), *bits)
        >>> [float(unit.format.decode(b)[0]) for b in after]
        [0.625, -0.0625, 0.375]
    """
    if regularise and not parameters.regularise:
        raise InputError("this unit is built without R(t); call update with regularise=False")
    values: dict[str, Bits] = {
        "grad": grad,
        "param": param,
        "lam": lam,
        "rmean": rmean,
        **{
            name: np.asarray(bits, parameters.format.bits_dtype)
            for name, bits in vars(constants).items()
        },
    }
    how = parameters.format, parameters.subnormals
    for operation in parameters.operations:
        a = values[operation.a]
        if operation.b is None:
            values[operation.result] = arithmetic.halve(a, *how)
            continue
        off = operation.only_regularised and not regularise
        b = np.zeros_like(grad) if off else values[operation.b]
        compute = getattr(arithmetic, operation.kind)
        values[operation.result] = compute(a, b, *how)
    if not regularise:
        return values["param_out"], lam, rmean
    return values[RESULTS["param"]], values[RESULTS["lam"]], values[RESULTS["rmean"]]
