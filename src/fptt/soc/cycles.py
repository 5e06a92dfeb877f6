"""Cycles of a work list on a chip, by function class.

The array (one product at a time, started by core 0):

    cycles = call + max(rows of tiles that its DMA moves, weighted; bits over the bus;
                        tiles x rows that pass through)

A loop over e elements on n cores, with m = ceil(e / n) of the elements on the busiest core. Core c
has the elements c, c + n, ...: all cores write to the same cache lines.

    one core:      e w
    several cores: m w + barrier + take lines + retake m (n - 1)/n

Each core has to take each line from another one at least once (`take`), and once more before it
writes the next element if meanwhile another core wrote to the line (`retake`): which core wrote
last is as good as random, so in (n - 1)/n of the cases. Therefore time falls much more slowly than
with 1/n, most of all where an element costs little; two cores can be slower than one.

The update goes through long loops in which cores drift apart and seldom fight for a line; there are
four arrays. What a part's activations have driven out of the L2 cache comes from DRAM (`memory`),
at a rate that does not depend on the number of cores.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, exp

from fptt.program.opspec import FUNCTION_CLASSES
from fptt.soc.chip import DATA_TYPES, Chip
from fptt.soc.constants import Constants, load_constants
from fptt.soc.units import check_units, least_loop, scalar_product, unit_element, unit_loop
from fptt.soc.workload import ELEMENTS, Product, Task, Workload

#: steps back after which a gradient is below 2^-133, bfloat16's least number: in an untrained LSTM
#: of the published size it loses 2.7 bits a step (tests/test_soc_cycles.py measures it)
QUIET_AFTER = 45


def cycles(chip: Chip, workload: Workload, constants: Constants | None = None) -> dict[str, float]:
    """Cycles of one pass over a batch, by function class, and their sum as "total".

    Args:
        chip: on which.
        workload: what is done.
        constants: of the model; those that come with the package, if None.

    Example:
        >>> from fptt.soc import load_chip, published
        >>> found = cycles(load_chip("8x8-10"), published(28))
        >>> max((c for c in found if c != "total"), key=found.get)
        'EWO-SGD'
    """
    known = constants or load_constants()
    check_units(chip)
    found = dict.fromkeys(FUNCTION_CLASSES, 0.0)
    for task in workload.tasks:
        found[task.function] += task.calls * _call(chip, workload, task, known)
    found["total"] = sum(found.values())
    return found


def _call(chip: Chip, workload: Workload, task: Task, known: Constants) -> float:
    """Cycles of one call of a task."""
    if task.product is None:
        return loop_cycles(chip, workload, task, known)
    if chip.mesh:
        return product_cycles(chip, task.product, known)
    in_hardware = scalar_product(chip, task.product, known)
    if in_hardware is not None:
        return in_hardware
    # sums stay in a register
    prices = known.prices
    return task.product.macs / chip.cores * 2 * (prices.operation + prices.access)


def product_cycles(chip: Chip, product: Product, known: Constants) -> float:
    """Cycles of one product on the array, set-up and end included.

    The DMA moves rows of at most DIM numbers of a tile, no faster than the bus. Where the first
    operand does not fit into half of the scratchpad, it is read again for every block of columns of
    the second that fits into the other half. A tile of the second operand stays in the array while
    the rows of the first pass through: no fewer cycles than its own rows take to enter.
    """
    dim, width = chip.mesh, DATA_TYPES[chip.data_type]
    inner, columns = ceil(product.inner / dim), ceil(product.columns / dim)
    passing = inner * columns * max(product.rows, dim)
    half = chip.scratchpad_kib * 1024 * 8 / 2
    again = 1
    if product.rows * product.inner * width > half:
        again = ceil(columns / max(1, half // (product.inner * dim * width)))
    # rows in memory: [inner, rows] where results are accumulated, else [rows, inner]
    first = again * (
        product.inner * ceil(product.rows / dim) if product.accumulated else product.rows * inner
    )
    second = product.columns * inner if product.transposed else product.inner * columns
    written = product.rows * columns
    moved = (
        known.row_read * first
        + (known.row_transposed if product.transposed else known.row_read) * second
        + known.row_written * written
    )
    on_bus = (first + second + written) * dim * width / chip.bus_bits
    return known.call + max(moved, on_bus, passing)


def element_cycles(chip: Chip, workload: Workload, task: Task, known: Constants) -> float:
    """Cycles of an element of a loop on one core, the caches being warm."""
    in_hardware = unit_element(chip, task, known)
    if in_hardware is not None:
        return in_hardware
    if task.kind == "column":
        steps = workload.steps / workload.parts
        live = min(1.0, QUIET_AFTER / steps)
        return known.column * live + known.quiet_column * (1 - live)
    if task.kind in ELEMENTS:
        return float(getattr(known, task.kind))
    if task.function == "EWO-SGD":
        # another optimizer: its operations cost what those of the measured update do
        return known.update * task.operations / ELEMENTS["update"][0]
    prices = known.prices
    return (
        task.operations * prices.operation
        + task.accesses * prices.access
        + task.transcendental * (known.tanh if task.function == "tanh" else known.sigmoid)
    )


def loop_cycles(chip: Chip, workload: Workload, task: Task, known: Constants) -> float:
    """Cycles of a loop, until the last core has reached the barrier."""
    update = task.function == "EWO-SGD"
    from_memory = task.elements * known.memory * _missing(chip, workload) if update else 0.0
    on_unit = unit_loop(chip, task, known.call)
    if on_unit is not None:
        return on_unit + from_memory
    cores = chip.cores if task.parallel else 1
    own = ceil(task.elements / cores)
    found = max(own * element_cycles(chip, workload, task, known), least_loop(chip, task))
    found += from_memory
    if cores == 1:
        return found
    width = DATA_TYPES[chip.data_type] // 8
    lines = ceil(task.elements * width / chip.line_bytes)
    found += known.barrier
    if "blocks" in chip.extras or "vector_bits" in chip.extras:
        # whole lines are a core's own; it had them before
        return found
    # who wrote to a line last: any core, one as likely as another
    retaken = own * (cores - 1) / cores
    if update:
        # theta, lambda, m and g are read and written
        return found + lines * (task.accesses / 2) * known.take + retaken * known.retake_update
    if task.function == "Mat2Vec":
        return found + lines * task.accesses * known.take * known.column_crowding
    ratio = known.crowding if task.function == "EWO-basic" else 1.0
    return found + ratio * (lines * known.take + retaken * known.retake)


def _missing(chip: Chip, workload: Workload) -> float:
    """Share of the update's lines that are not in the L2 cache.

    Between two updates all parameters, their gradients, lambda and m and a part's activations go
    through it: F bytes through a cache of C bytes with random replacement. Of the lines that are
    used again after F m misses, 1 - exp(-m F / C) are gone, which is m.
    """
    numbers = 4 * workload.parameters + workload.part_numbers
    return _fixed_point(numbers * DATA_TYPES[chip.data_type] / 8 / (chip.l2_kib * 1024))


@lru_cache(maxsize=1024)
def _fixed_point(ratio: float) -> float:
    """The largest m with m = 1 - exp(-m ratio). Every loop of an update asks for it."""
    share = 1.0
    for _ in range(200):
        share = 1 - exp(-share * ratio)
    return share


def memory_cycles(chip: Chip, workload: Workload, known: Constants) -> float:
    """Cycles that the updates of a pass wait for DRAM."""
    updated = sum(t.calls * t.elements for t in workload.tasks if t.function == "EWO-SGD")
    return updated * known.memory * _missing(chip, workload)
