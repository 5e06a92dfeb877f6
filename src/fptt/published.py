"""Figures that others have published, to stand beside ours. Nothing is computed from them but the
cycles per instruction that a published run implies (`fptt.bench.device`).

The seeds: estimates for the network 1-128-10 on S-MNIST, T = 784 in K = 28 parts, batch 100,
float32, plain SGD, as printed in the TU/e presentations of 2023 and 2024 on which this project
builds. Published accuracies and perplexities are in `fptt.published_results`, and what is published
of a system on chip in `fptt.soc.publications`.
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


#: bytes of the published C program (LSTM 1-128-10, T = 784, batch 4) in float32, by K, without
#: 20,960 bytes of samples, labels and temporaries; in bfloat16 half of them
PUBLISHED_BYTES = {1: 20_662_160, 28: 1_828_688, 784: 1_156_064}
#: cycles of one element in the element-wise functions of the published system of FPTT (Zhang et
#: al.), whose clock and seconds `fptt.soc` has. The first two were timed with bfloat16 in
#: software; the update, in float32 on one core, lies between 70 and 110
ELEMENT_CYCLES = {"sigmoid": 320.0, "tanh": 275.0, "update": 90.0}


@dataclass(frozen=True)
class Complexity:
    """What theory says of a gradient source's cost for one sequence, one layer of n units.

    Attributes:
        memory_steps, work_steps: exponents in T.
        memory_parts, work_parts: exponents in K.
        memory_width, work_width: exponents in n, with p ~ n^2 parameters; None where there is no
            general one.
        printed: what the seeds print: gradient, parameter updates, memory; c is a step's cost.
    """

    memory_steps: float
    work_steps: float
    memory_parts: float
    work_parts: float
    memory_width: float
    work_width: float
    printed: str


def complexity(source: str, parts: int) -> Complexity | None:
    """The complexity of a source with K parts; None for one that nobody printed.

    Memory is that of activations and traces. The seeds let RTRL's memory grow with T, which it
    does not: it is n^3 for the traces, whatever T is. OSTL is stated for recurrent matrices; where
    the recurrence is diagonal it is "diagonal". The exponents in n hold where inputs are about as
    many as units: the lowest layer alone, with a fixed number of inputs I, has p ~ n I.

    Example:
        >>> complexity("bptt", 28).printed
        'c(K)T, K, T/K'
    """
    if source == "bptt":
        return Complexity(1, 1, -1, 0, 1, 2, "c(K)T, K, T/K" if parts > 1 else "c(T)T, 1, T")
    if source == "rtrl":
        return Complexity(0, 1, 0, 0, 3, 4, "c(T)T^2, T, T")
    if source == "eprop":
        return Complexity(0, 1, 0, 0, 2, 2, "c(1)T, T, 1")
    if source == "diagonal":
        return Complexity(0, 1, 0, 0, 2, 2, "")
    if source == "ostl":
        return Complexity(0, 1, 0, 0, 3, 4, "")
    return None
