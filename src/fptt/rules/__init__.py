"""How it learns: gradient source, update wrapper, loss schedule, optimizer, learning rate."""

from fptt.rules.fptt import FPTT
from fptt.rules.losses import Auxiliary, EveryStep, Last, LossSchedule
from fptt.rules.optimizers import SGD, Adam, Optimizer
from fptt.rules.rule import BPTT, TBPTT, Rule
from fptt.rules.schedules import CosineSchedule, PlateauSchedule, Schedule, StepSchedule

__all__ = [
    "BPTT",
    "FPTT",
    "SGD",
    "TBPTT",
    "Adam",
    "Auxiliary",
    "CosineSchedule",
    "EveryStep",
    "Last",
    "LossSchedule",
    "Optimizer",
    "PlateauSchedule",
    "Rule",
    "Schedule",
    "StepSchedule",
]
