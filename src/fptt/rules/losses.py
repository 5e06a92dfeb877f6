"""Loss schedules: at which steps of a part the data loss counts, and with which target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from fptt.checks import is_number
from fptt.errors import InputError
from fptt.rules.emitter import Emitter
from fptt.rules.rule import check_choice

if TYPE_CHECKING:
    from fptt.program.ir import Buffer, Ref

Criterion = Literal["cross_entropy", "mse"]
#: the operation that computes a criterion and its gradient
CRITERION_OPS = {"cross_entropy": "cross_entropy", "mse": "squared_error"}


@dataclass(frozen=True)
class LossSchedule:
    """Base of the schedules.

    Attributes:
        name: the word that `fptt.build` takes.
        every_step: whether there is a target at every step, or one at the end of each part.
        fractional: whether the loss needs to know how much of its sequence a row has seen.
        in_place: whether the gradient may take the place of the outputs.
    """

    name: ClassVar[str]
    every_step: ClassVar[bool] = False
    fractional: ClassVar[bool] = False
    in_place: ClassVar[bool] = True

    def check(self, criterion: Criterion) -> None:
        """Raises InputError where the schedule has no meaning for the criterion."""
        check_choice("build", "criterion", criterion, tuple(CRITERION_OPS))

    def emit_start(self, e: Emitter, classes: int, parts: int) -> None:
        """Writes into the routine `start`: what the loss remembers before any update."""

    def emit(
        self, e: Emitter, criterion: Criterion, y: Ref, target: Ref, d: Ref, loss: Ref, parts: int
    ) -> None:
        """Writes the loss operation: y and target to loss and its gradient d."""
        e.emit(CRITERION_OPS[criterion], [y, target], [d, loss])

    def emit_step(
        self, e: Emitter, criterion: Criterion, y: Ref, target: Ref, d: Ref, loss: Ref, count: Ref
    ) -> None:
        """Writes the loss of one step, for a loop over them: it adds to loss and count, and d is
        the gradient of the sum; whoever uses them divides by count in the end."""
        e.emit(f"{CRITERION_OPS[criterion]}_sum", [y, target, loss, count], [d, loss, count])


@dataclass(frozen=True)
class Last(LossSchedule):
    """Each part ends with the loss of the sequence's label; all parts weigh the same.

    Where sequences have unequal lengths, a sample counts at the end of every part in which it
    still runs and at its own last step in the part where it ends; the mean is over those samples.
    """

    name = "last"


@dataclass(frozen=True)
class EveryStep(LossSchedule):
    """The mean over the part's labelled (sample, step) pairs; target -1 means none."""

    name = "every_step"
    every_step = True


@dataclass(frozen=True)
class Auxiliary(LossSchedule):
    """Terminal prediction with an auxiliary loss (Kag & Saligrama, 2021).

        b = p/K;   l = b CE(label, P) + (1 - b) Div,   Div = -sum_y Q[label, y] log P(y)

    Q[label] starts uniform and is a running average of the model's own final predictions for
    sequences of that class. In a batch of unequal lengths b is steps seen / own length.

    Args:
        rate: weight of a new prediction in Q, 0 < rate <= 1.
        per_part: keep one Q per part, learnt from the predictions at the end of that part.

    Raises:
        InputError: rate outside its range, or a criterion other than cross-entropy.

    Example:
        >>> Auxiliary().rate
        0.1
    """

    name = "auxiliary"
    fractional = True
    #: Q learns from the outputs when the gradient has been written
    in_place = False
    rate: float = 0.1
    per_part: bool = False

    def __post_init__(self) -> None:
        if not is_number(self.rate) or not 0 < self.rate <= 1:
            raise InputError(f"Auxiliary: rate is {self.rate!r}; give a number with 0 < rate <= 1")

    def check(self, criterion: Criterion) -> None:
        super().check(criterion)
        if criterion != "cross_entropy":
            raise InputError(
                f'build: loss="auxiliary" predicts classes and cannot go with criterion='
                f'"{criterion}"; use criterion="cross_entropy" or loss="last"'
            )

    def emit(
        self, e: Emitter, criterion: Criterion, y: Ref, target: Ref, d: Ref, loss: Ref, parts: int
    ) -> None:
        q = self._q(e, y.inner[-1], parts)
        e.emit(
            "auxiliary_cross_entropy",
            [y, target, self.fraction(e).whole, q],
            [d, loss, q],
            rate=float(self.rate),
            per_part=self.per_part,
        )

    def emit_start(self, e: Emitter, classes: int, parts: int) -> None:
        e.emit("fill", [], [self._q(e, classes, parts)], value=1 / classes)

    def _q(self, e: Emitter, classes: int, parts: int) -> Ref:
        rows = (parts if self.per_part else 1) * classes
        return e.buffer("auxiliary.Q", (rows, classes), "rule_state").whole

    @staticmethod
    def fraction(e: Emitter) -> Buffer:
        """b of every row, written by whoever drives the program."""
        return e.buffer("fraction", (), "target", dtype=e.control_dtype, batch=True)


SCHEDULES = {schedule.name: schedule for schedule in (Last, EveryStep, Auxiliary)}


def as_schedule(loss: str | LossSchedule) -> LossSchedule:
    """The schedule of a name; a schedule is returned as it is."""
    if isinstance(loss, LossSchedule):
        return loss
    check_choice("build", "loss", loss, tuple(SCHEDULES))
    return SCHEDULES[loss]()
