"""Figures that others have published, to stand beside ours. Nothing is computed from them but the
cycles per instruction that a published run implies (`fptt.bench.device`).

The seeds: estimates for the network 1-128-10 on S-MNIST, T = 784 in K = 28 parts, batch 100,
float32, plain SGD, as printed in the TU/e presentations of 2023 and 2024 on which this project
builds.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SeedsMemory:
    """A row of the seeds' memory estimate.

    Attributes:
        name: what they call it.
        printed: the figure as printed.
        formula_bytes: what their formula gives when it is worked out.
    """

    name: str
    printed: str
    formula_bytes: int


_PARAMETERS = ((128 * 1 + 1 + 128 * 128 + 128) * 4 + (10 * 128 + 10)) * 4

SEEDS_MEMORY = (
    SeedsMemory("parameters", "265 KB", _PARAMETERS),
    SeedsMemory("lambda", "265 KB", _PARAMETERS),
    SeedsMemory("running mean", "265 KB", _PARAMETERS),
    SeedsMemory("gradients", "265 KB", _PARAMETERS),
    SeedsMemory("input", "400 B", 28 * 100 * 4),
    SeedsMemory("label", "440 B", (100 + 10) * 4),
    SeedsMemory("network states", "8600 KB", 28 * (128 * 6 + 10 * 2) * 100 * 4),
    SeedsMemory("forward scratch", "200 KB", 128 * 4 * 100 * 4),
    SeedsMemory("backward scratch", "500 KB", (128 * 10 + 10) * 100 * 4),
)

#: the sum as printed
SEEDS_MEMORY_TOTAL = "10.2 MB"

#: images of one epoch, for which the seeds count operations
SEEDS_IMAGES = 60_000


@dataclass(frozen=True)
class SeedsWork:
    """A row of the seeds' operation counts for one epoch, in units of 1e9."""

    block: str
    mul_g: float
    add_g: float
    nonlinear_g: float


SEEDS_WORK = (
    SeedsWork("FPTT logic", 5.7, 9.1, 0.0),
    SeedsWork("forward", 3185.2, 3167.4, 3.0),
    SeedsWork("backward", 5609.4, 5470.9, 12.0),
)


#: percent of the time of training that the seeds report for each block
SEEDS_TIME = {"FPTT logic": 0.11, "forward": 39.73, "backward": 60.16}


#: the published system of FPTT (Zhang et al.): LSTM 1-128-10, T = 784, batch 4, at this clock
SYSTEM_HZ = 500e6
#: seconds of one pass on one Rocket core without the matrix accelerator, by K
ROCKET_SECONDS = {1: 22.06, 28: 22.85, 784: 29.64}
#: cycles of one element in its element-wise functions. The first two were timed with bfloat16 in
#: software; the update, in float32 on one core, lies between 70 and 110
ELEMENT_CYCLES = {"sigmoid": 320.0, "tanh": 275.0, "update": 90.0}
