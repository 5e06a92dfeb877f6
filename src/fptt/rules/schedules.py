"""Learning-rate schedules. Each is a rule from (epoch, metric, state) to a factor."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fptt.checks import is_number, is_whole
from fptt.errors import InputError

#: what a schedule remembers between epochs
Memory = dict[str, float]


class Schedule:
    """Base: `scale` is called after every epoch and gives the factor for the next."""

    def scale(self, epoch: int, loss: float, memory: Memory) -> float:
        """The factor on the optimizer's lr once `epoch` epochs are done.

        Args:
            epoch: epochs done so far, from 1.
            loss: mean training loss of the epoch just done.
            memory: a dict that the schedule may read and write; it is saved in checkpoints.
        """
        raise NotImplementedError


def _check_factor(owner: str, value: object) -> None:
    if not (is_number(value) and 0 < value < 1):
        raise InputError(f"{owner}: factor is {value!r}; give a number with 0 < factor < 1")


@dataclass(frozen=True)
class StepSchedule(Schedule):
    """lr times `factor` after each of the epochs in `milestones`.

    Example:
        >>> StepSchedule((50, 75, 90)).scale(75, 0.0, {})
        0.010000000000000002
    """

    milestones: tuple[int, ...]
    factor: float = 0.1

    def __post_init__(self) -> None:
        _check_factor("StepSchedule", self.factor)
        if not isinstance(self.milestones, (tuple, list)) or not all(
            map(is_whole, self.milestones)
        ):
            raise InputError(
                f"StepSchedule: milestones is {self.milestones!r}; give epochs such as (50, 75, 90)"
            )

    def scale(self, epoch: int, loss: float, memory: Memory) -> float:
        return float(self.factor ** sum(epoch >= milestone for milestone in self.milestones))


@dataclass(frozen=True)
class CosineSchedule(Schedule):
    """From lr to floor x lr along half a cosine over `epochs` epochs (Loshchilov & Hutter, 2017).

    Example:
        >>> CosineSchedule(epochs=10).scale(5, 0.0, {})
        0.5
    """

    epochs: int
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not (
            is_whole(self.epochs)
            and self.epochs >= 1
            and is_number(self.floor)
            and 0 <= self.floor < 1
        ):
            raise InputError(
                f"CosineSchedule: epochs is {self.epochs!r} and floor "
                f"{self.floor!r}; give epochs >= 1 and 0 <= floor < 1"
            )

    def scale(self, epoch: int, loss: float, memory: Memory) -> float:
        done = min(epoch / self.epochs, 1.0)
        return self.floor + (1 - self.floor) * round((1 + math.cos(math.pi * done)) / 2, 12)


@dataclass(frozen=True)
class PlateauSchedule(Schedule):
    """lr times `factor` whenever the training loss has not fallen for more than `patience` epochs.

    A loss counts as fallen when it is below (1 - threshold) times the best so far.

    Example:
        >>> schedule, memory = PlateauSchedule(patience=0), {}
        >>> [schedule.scale(epoch, 1.0, memory) for epoch in (1, 2, 3)]
        [1.0, 0.1, 0.010000000000000002]
    """

    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4

    def __post_init__(self) -> None:
        _check_factor("PlateauSchedule", self.factor)
        if not is_whole(self.patience) or self.patience < 0:
            raise InputError(
                f"PlateauSchedule: patience is {self.patience!r}; give a whole number of at least 0"
            )

    def scale(self, epoch: int, loss: float, memory: Memory) -> float:
        if loss < memory.get("best", math.inf) * (1 - self.threshold):
            memory.update(best=loss, waited=0)
        else:
            memory["waited"] = memory.get("waited", 0) + 1
        if memory["waited"] > self.patience:
            memory.update(waited=0, drops=memory.get("drops", 0) + 1)
        return float(self.factor ** memory.get("drops", 0))
