"""Units that are no part of the published system, by their name in a chip's `extras`.

    vector_bits        bits of a vector unit in every core (RVV)
    activation_lanes   lanes of a unit for sigmoid and tanh
    fptt_lanes         lanes of the FPTT unit, which makes the update
    blocks             1: cores get consecutive elements, whole cache lines, instead of every n-th

What they cost in cycles stands with unit and source in `data/units.toml`. A chip whose
`emulated_bf16` is false computes scalars in hardware.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import ceil, inf

from fptt.errors import InputError
from fptt.soc.chip import DATA_TYPES, Chip
from fptt.soc.constants import Constants
from fptt.soc.datafile import FOLDER, entry, read_toml
from fptt.soc.workload import Product, Task

UNITS = ("vector_bits", "activation_lanes", "fptt_lanes", "blocks")
#: of the vectors whose beats were counted
_BEAT_BITS = 128


@cache
def costs() -> Mapping[str, float]:
    """The entries of `data/units.toml`."""
    path = FOLDER / "units.toml"
    content = read_toml(path, "costs of units")
    return {key: float(entry(path, key, given).value) for key, given in content.items()}


def check_units(chip: Chip) -> None:
    """Raises InputError where a chip has a unit that the model does not know, or one of no size."""
    for name, value in chip.extras.items():
        if name not in UNITS:
            raise InputError(
                f"chip {chip.name}: extras.{name} is unknown; expected {', '.join(UNITS)}"
            )
        if not 1 <= value < inf:
            raise InputError(
                f"chip {chip.name}: extras.{name} is {value}; expected a number from 1, or no entry"
            )


def unit_loop(chip: Chip, task: Task, call: float) -> float | None:
    """Cycles of a loop on a unit with a DMA of its own; None where the cores compute it.

    A unit is as fast as its lanes or as the bus, whichever is slower.

    Args:
        chip: with its units.
        task: a loop.
        call: cycles that starting a unit takes, and seeing that it is done.
    """
    known = costs()
    if task.function in ("Sigmoid", "tanh") and "activation_lanes" in chip.extras:
        evaluations = task.elements * task.transcendental
        lanes = chip.extras["activation_lanes"] * known["activation_elements"]
        return call + max(evaluations / lanes, _bus(chip, 2 * evaluations))
    if is_update(task) and "fptt_lanes" in chip.extras:
        lanes = chip.extras["fptt_lanes"] * known["fptt_parameters"]
        return call + max(task.elements / lanes, _bus(chip, task.elements * known["fptt_numbers"]))
    return None


def in_hardware(chip: Chip, constants: Constants) -> bool:
    """Whether a chip computes scalars in hardware, and the constants are of one that does not."""
    return not chip.emulated_bf16 and bool(constants.measured.others["emulated_bf16"])


def unit_element(chip: Chip, task: Task, constants: Constants) -> float | None:
    """Cycles of an element on one core that has hardware for it; None where it is emulated."""
    known = costs()
    # our kernels' updates were counted; another program's is priced as any loop
    update = is_update(task) and task.kind != "update"
    if "vector_bits" in chip.extras:
        beats = known["vector_update"] if update else _counted(task, known, "vector")
        return beats * known["cycles_per_beat"] * _BEAT_BITS / chip.extras["vector_bits"]
    if not in_hardware(chip, constants):
        return None
    counted = known["scalar_loop"] + _counted(task, known, "scalar")
    instructions = known["scalar_update"] if update else counted
    return instructions * known["cycles_per_instruction"]


def is_update(task: Task) -> bool:
    """Whether a loop is FPTT's update with plain SGD, which the FPTT unit computes.

    It has 13 operations in the published program, 14 in ours, and no square root.
    """
    return (
        task.function == "EWO-SGD"
        and 13 <= round(task.operations) <= 14
        and not task.transcendental
    )


def _counted(task: Task, known: Mapping[str, float], unit: str) -> float:
    """Instructions or beats of an element."""
    return (
        task.operations * known[f"{unit}_operation"]
        + task.accesses * known[f"{unit}_access"]
        + task.transcendental * known[f"{unit}_function"]
    )


def scalar_product(chip: Chip, product: Product, constants: Constants) -> float | None:
    """Cycles of a product on the cores of a chip without an array; None where it is emulated."""
    known = costs()
    if not in_hardware(chip, constants):
        return None
    each = known["scalar_multiply_add"] * known["cycles_per_instruction"]
    return product.macs / chip.cores * each


def least_loop(chip: Chip, task: Task) -> float:
    """Cycles in which the bus can move what a loop of vectors reads and writes."""
    return _bus(chip, task.elements * task.accesses) if "vector_bits" in chip.extras else 0.0


def _bus(chip: Chip, numbers: float) -> float:
    return ceil(numbers) * DATA_TYPES[chip.data_type] / chip.bus_bits
