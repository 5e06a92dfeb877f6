"""Predicted against measured: with all measurements known, and with some left out."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from fptt.program.opspec import FUNCTION_CLASSES
from fptt.soc.calibration import calibrate
from fptt.soc.chip import Chip, load_chip
from fptt.soc.constants import Constants
from fptt.soc.cycles import cycles
from fptt.soc.datafile import FOLDER
from fptt.soc.measurements import Measured
from fptt.soc.publications import published_measurements
from fptt.soc.uncertainty import uncertainty
from fptt.soc.workload import published

#: the published measurements (FireSim on a VCU118; Zhang et al.) of four design points at three K
MEASURED = FOLDER / "measurements.csv"
#: of them, in words
SOURCE = "Zhang et al., JLPEA 15(1):15, 2025: cycles by FireSim of 4x4-1, 4x4-4, 4x4-10 and 8x8-1"

#: an error that nothing is known of
_UNKNOWN = 0.1


@dataclass(frozen=True)
class Cell:
    """One measured number and what the model says.

    Attributes:
        mesh, cores, parts, function: of the measurement; function may be "total".
        measured, predicted: cycles.
        left_out: what calibration had not seen ("4x4-4" or "K = 28"); empty if it saw everything.
    """

    mesh: str
    cores: int
    parts: int
    function: str
    measured: int
    predicted: float
    left_out: str = ""

    @property
    def error(self) -> float:
        """predicted / measured - 1."""
        return self.predicted / self.measured - 1


@dataclass(frozen=True)
class Outside:
    """A published time that calibration does not use.

    Attributes:
        name: of the system.
        parts: K.
        published, predicted: seconds.
        uncertainty: of the prediction, one standard deviation as a share.
    """

    name: str
    parts: int
    published: float
    predicted: float
    uncertainty: float


@dataclass(frozen=True)
class Errors:
    """Errors of a function class: shares of the measured cycles.

    Attributes:
        median, worst: of the amounts.
        spread: root of the mean square of log(predicted / measured).
    """

    median: float
    worst: float
    spread: float


def compare(
    measured: Iterable[Measured],
    constants: Constants,
    chip: Chip | None = None,
    left_out: str = "",
) -> list[Cell]:
    """What the model says beside every measurement."""
    base = chip or load_chip("published")
    found = []
    for point in measured:
        predicted = cycles(
            base.with_(mesh=point.mesh, cores=point.cores), published(point.parts), constants
        )
        found += [
            Cell(
                f"{point.mesh}x{point.mesh}",
                point.cores,
                point.parts,
                function,
                point.cycles[function],
                predicted[function],
                left_out,
            )
            for function in (*FUNCTION_CLASSES, "total")
        ]
    return found


def leave_one_out(measured: Sequence[Measured], chip: Chip | None = None) -> list[Cell]:
    """Every design point, and every K, predicted by a model that was calibrated without it."""
    found = []
    designs = {f"design {point.design}": point.design for point in measured}
    for name, design in designs.items():
        found += _without(measured, [p for p in measured if p.design == design], name, chip)
    for parts in sorted({point.parts for point in measured}):
        unseen = [p for p in measured if p.parts == parts]
        found += _without(measured, unseen, f"K = {parts}", chip)
    return found


def _without(
    measured: Sequence[Measured], unseen: Sequence[Measured], name: str, chip: Chip | None
) -> list[Cell]:
    seen = [point for point in measured if point not in unseen]
    return compare(unseen, calibrate(seen, chip), chip, name) if seen else []


def outside(measured: Iterable[Measured], constants: Constants) -> list[Outside]:
    """What was published of our chips in seconds, of designs that are not among the measured."""
    used = {point.design for point in measured}
    found = []
    for row in published_measurements().times:
        if not row.chip or row.chip in used:
            continue
        chip = load_chip(row.chip)
        for parts, seconds in row.seconds.items():
            work = published(parts)
            predicted = cycles(chip, work, constants)["total"] / chip.clock_hz
            spread = uncertainty(chip, work, constants)
            found.append(Outside(row.name, parts, seconds, predicted, spread))
    return found


def errors(cells: Iterable[Cell]) -> dict[str, Errors]:
    """Errors by function class, "total" last."""
    by_function = defaultdict(list)
    for cell in cells:
        by_function[cell.function].append(cell)
    return {
        function: Errors(
            median(abs(cell.error) for cell in rows),
            max(abs(cell.error) for cell in rows),
            math.sqrt(sum(math.log1p(cell.error) ** 2 for cell in rows) / len(rows)),
        )
        for function, rows in by_function.items()
    }


def calibrated(
    measured: Sequence[Measured], chip: Chip | None = None, source: str = SOURCE
) -> Constants:
    """Constants with the model's own error, from measurements that were left out in turn.

    With one design point and one K nothing can be left out; then the errors are taken to be
    `_UNKNOWN`.
    """
    found = errors(leave_one_out(measured, chip))
    spreads = {
        function: found[function].spread if found else _UNKNOWN
        for function in (*FUNCTION_CLASSES, "total")
    }
    return replace(calibrate(measured, chip, source), spreads=spreads)


def dominant(cells: Iterable[Cell]) -> dict[tuple[str, int, int], tuple[str, str]]:
    """(mesh, cores, parts) -> the class that takes most cycles: measured, predicted."""
    points = defaultdict(list)
    for cell in cells:
        if cell.function != "total":
            points[cell.mesh, cell.cores, cell.parts].append(cell)
    return {
        point: (
            max(rows, key=lambda cell: cell.measured).function,
            max(rows, key=lambda cell: cell.predicted).function,
        )
        for point, rows in points.items()
    }
