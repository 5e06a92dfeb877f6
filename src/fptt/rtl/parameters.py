"""One object says how an FPTT unit is built; the Python model and the hardware are made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Literal

from fptt.checks import is_whole
from fptt.errors import InputError
from fptt.rtl.formats import FloatFormat, Subnormals, by_name, checked
from fptt.rtl.operations import INPUTS, OUTPUTS, Operation, Operator, operations
from fptt.rtl.schedule import OPERATORS, Schedule, make_schedule

ScheduleName = Literal["baseline", "pipelined", "compact"]

#: the number of parameters in the published 1-128-10 LSTM
PUBLISHED_PARAMETERS = 67_850

#: registers in an operator, chosen for 80 MHz on an ECP5:
#: number type, subnormals -> (adder, multiplier)
_STAGES = {
    ("float32", "flush"): (5, 3),
    ("float32", "keep"): (5, 6),
    ("bfloat16", "flush"): (3, 2),
    ("bfloat16", "keep"): (3, 4),
}
#: rows of all banks: 16 MiB in float32. What trains more parameters keeps them outside
_MOST_ROWS = 1 << 20


@dataclass(frozen=True)
class UnitParameters:
    """How an FPTT unit is built.

    Args:
        lanes: processing elements, 1 to 64; parameter i belongs to lane i mod lanes.
        schedule: "baseline" (one parameter at a time on two adders and two multipliers),
            "pipelined" (eight adders, four multipliers, one parameter a cycle) or "compact" (one
            adder and one multiplier that several parameters in flight keep busy).
        dtype: "float32" or "bfloat16".
        regularise: False builds a unit without R(t): param - lr * grad, no lambda, no mean.
        depth: parameters of one lane's bank; the unit holds lanes * depth, at most 2^20.
        subnormals: "flush" or "keep"; see `fptt.rtl.arithmetic`.
        adder_stages, multiplier_stages: cycles of an operation; None: what reaches 80 MHz on an
            ECP5.

    Raises:
        InputError: for values that make no unit.

    Example:
        >>> unit = UnitParameters(lanes=4, schedule="compact")
        >>> unit.lane_schedule.interval, unit.capacity
        (8, 4096)
    """

    lanes: int = 1
    schedule: ScheduleName = "pipelined"
    dtype: Literal["float32", "bfloat16"] = "float32"
    regularise: bool = True
    depth: int = 1024
    subnormals: Subnormals = "flush"
    adder_stages: int | None = None
    multiplier_stages: int | None = None

    def __post_init__(self) -> None:
        self._check_range("lanes", self.lanes, 1, 64)
        self._check_range("depth", self.depth, 1, _MOST_ROWS // max(self.lanes, 1))
        if self.schedule not in OPERATORS:
            raise InputError(
                f"schedule={self.schedule!r} is not known; give one of {', '.join(OPERATORS)}"
            )
        if not isinstance(self.regularise, bool):
            raise InputError(f"regularise={self.regularise!r}: give True or False")
        checked(self.subnormals)
        by_name(self.dtype)
        for name in ("adder_stages", "multiplier_stages"):
            if getattr(self, name) is not None:
                self._check_range(name, getattr(self, name), 1, 8)

    @staticmethod
    def _check_range(name: str, value: object, least: int, most: int) -> None:
        if not is_whole(value) or not least <= value <= most:
            raise InputError(f"{name}={value!r}: give a whole number from {least} to {most}")

    @property
    def format(self) -> FloatFormat:
        """The binary format of all numbers."""
        return by_name(self.dtype)

    @property
    def inputs(self) -> tuple[str, ...]:
        """What a lane takes in for each parameter."""
        return INPUTS if self.regularise else INPUTS[:2]

    @property
    def outputs(self) -> tuple[str, ...]:
        """What a lane gives back for each parameter."""
        return OUTPUTS if self.regularise else OUTPUTS[:1]

    @property
    def capacity(self) -> int:
        """Parameters that all banks together hold."""
        return self.lanes * self.depth

    @property
    def operations(self) -> tuple[Operation, ...]:
        """What is computed for each parameter."""
        return operations(self.regularise)

    @cached_property
    def latency(self) -> Mapping[Operator, int]:
        """Operator -> cycles from operands to result."""
        adder, multiplier = _STAGES[self.dtype, self.subnormals]
        return MappingProxyType(
            {
                "adder": self.adder_stages or adder,
                "multiplier": self.multiplier_stages or multiplier,
                "halver": 1,
            }
        )

    @cached_property
    def lane_schedule(self) -> Schedule:
        """When a lane computes what."""
        return make_schedule(
            self.operations,
            OPERATORS[self.schedule],
            self.latency,
            overlap=self.schedule != "baseline",
        )
