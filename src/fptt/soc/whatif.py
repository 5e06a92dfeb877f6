"""What other units would buy, over the published best point.

None of these chips exists. Each row names what it assumes; `data/units.toml` has the figures and
their sources.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from fptt.program.program import Program
from fptt.soc.chip import Chip, load_chip
from fptt.soc.constants import Constants
from fptt.soc.cycles import cycles
from fptt.soc.resources import Resources, resources
from fptt.soc.uncertainty import uncertainty
from fptt.soc.workload import Workload, of_program, published

#: the published best point
BEST = "8x8-10"
#: K of the table
PARTS = (1, 28, 784)


@dataclass(frozen=True)
class Change:
    """A chip and a program.

    Attributes:
        name: of the row.
        assumes: what it rests on, in a line.
        chip: with its units.
        ours: whether the program is our exact one instead of the published.
    """

    name: str
    assumes: str
    chip: Chip
    ours: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a change gives.

    Attributes:
        change: the row.
        seconds: of one pass over the sequence, by K.
        uncertainty: of the seconds, one standard deviation as a share, by K; assumptions count as
            wrong by 30 %.
        speedup: the published best point's time, as the model has it, to this one, by K.
        classes: function class -> its share of the cycles at K = 28.
        resources: of the chip without its added units, which nobody has built.
    """

    change: Change
    seconds: dict[int, float]
    uncertainty: dict[int, float]
    speedup: dict[int, float]
    classes: dict[str, float]
    resources: Resources


@cache
def changes() -> tuple[Change, ...]:
    """The rows, from the published best point on."""
    best, small = load_chip(BEST), load_chip("8x8-1")
    hardware = "2.25 cycles an instruction, our kernels' instructions"
    vector = (
        "128-bit vectors in each core, our RVV kernels' beats, one a cycle, consecutive elements"
    )
    unit = "an element a cycle and lane, or the bus; each call costs one of the array"
    everything = {"vector_bits": 128.0, "activation_lanes": 4.0, "fptt_lanes": 4.0}
    return (
        Change("published best point", "the model of the published program and chip", best),
        Change("our program", "exact backward pass, one product for four gates", best, True),
        Change("consecutive elements", "each core has whole cache lines", _plus(best, blocks=1)),
        Change("our program, consecutive", "both", _plus(best, blocks=1), True),
        Change("bfloat16 in the cores", hardware, _plus(best.with_(emulated_bf16=False)), True),
        Change("vector units", vector, _plus(best, vector_bits=128), True),
        Change("activation unit", f"4 lanes; {unit}", _plus(best, activation_lanes=4), True),
        Change("FPTT unit, 1 lane", f"pipelined; {unit}", _plus(best, fptt_lanes=1), True),
        Change("FPTT unit, 4 lanes", f"pipelined; {unit}", _plus(best, fptt_lanes=4), True),
        Change("both units", "activation unit and FPTT unit of 4 lanes",
               _plus(best, activation_lanes=4, fptt_lanes=4), True),
        Change("one core, our program", "8x8-1, nothing added", small, True),
        Change("one core, vector unit", f"8x8-1; {vector}", _plus(small, vector_bits=128), True),
        Change("one core, both units", "8x8-1, activation unit and FPTT unit of 4 lanes",
               _plus(small, activation_lanes=4, fptt_lanes=4), True),
        Change("one core, everything", "8x8-1, vector unit and both units",
               _plus(small, **everything), True),
    )  # fmt: skip


def _plus(chip: Chip, **units: float) -> Chip:
    return chip.with_(extras={**chip.extras, **{k: float(v) for k, v in units.items()}})


def what_if(programs: dict[int, Program], constants: Constants | None = None) -> list[Outcome]:
    """Every change of `changes`, in seconds.

    Args:
        programs: K -> our program of the published workload, for each of `PARTS`.
        constants: of the model; those that come with the package, if None.
    """
    ours = {parts: of_program(program) for parts, program in programs.items()}
    theirs = {parts: published(parts) for parts in programs}
    found: list[Outcome] = []
    for change in changes():
        work: dict[int, Workload] = ours if change.ours else theirs
        spent = {k: cycles(change.chip, work[k], constants) for k in programs}
        seconds = {k: spent[k]["total"] / change.chip.clock_hz for k in programs}
        first = found[0].seconds if found else seconds
        middle = spent[PARTS[1]]
        found.append(
            Outcome(
                change,
                seconds,
                {k: uncertainty(change.chip, work[k], constants) for k in programs},
                {k: first[k] / seconds[k] for k in programs},
                {
                    name: value / middle["total"]
                    for name, value in middle.items()
                    if name != "total"
                },
                resources(change.chip),
            )
        )
    return found
