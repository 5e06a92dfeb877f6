"""Tables about the FPTT unit in hardware. Rendering only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from fptt.report.tables import plain_table
from fptt.rtl.parameters import PUBLISHED_PARAMETERS

if TYPE_CHECKING:
    from fptt.deploy.hardware import GeneratedUnit
    from fptt.deploy.simulate import WholeUpdate
    from fptt.rtl.synthesis import Report


def units(
    found: Sequence[GeneratedUnit], published: Mapping[str, int], published_mhz: float
) -> Iterator[Table | str]:
    """What units take and how long an update lasts, beside the published system."""
    first = found[0].parameters
    title = (
        f"FPTT unit, {first.dtype}, {first.lanes} lane{'s' * (first.lanes > 1)}, banks of "
        f"{first.depth:,} rows{'' if first.regularise else ', without R(t)'}"
    )
    names = list(dict.fromkeys(name for unit in found for name in unit.reports))
    columns = [column for name in names for column in _COLUMNS[name]]
    table = plain_table(title, "schedule", "interval", "latency", "cycles", "ms", *columns)
    for unit in found:
        schedule = unit.parameters.lane_schedule
        cells = [cell for name in names for cell in _cells(name, unit.reports.get(name))]
        table.add_row(
            unit.parameters.schedule,
            str(schedule.interval),
            str(schedule.latency),
            f"{unit.cycles:,}",
            _number(unit.milliseconds, 2),
            *cells,
        )
    table.add_section()
    for name, cycles in published.items():
        table.add_row(name, "", "", f"{cycles:,}", f"{cycles / published_mhz / 1e3:.2f}")
    yield table
    yield (
        "cycles: one update of the 67,850 parameters of the 1-128-10 LSTM from and to the unit's "
        "banks; ms: at the clock of ECP5"
        + (
            f" ({found[0].reports['ecp5'].part}); the published at {published_mhz:.0f} MHz"
            if "ecp5" in names
            else f"; the published at {published_mhz:.0f} MHz"
        )
    )
    capacity = first.lanes * first.depth
    if capacity < PUBLISHED_PARAMETERS:
        yield (
            f"these banks hold {capacity:,} parameters; cycles are those of banks that hold all "
            f"(--depth {-(-PUBLISHED_PARAMETERS // first.lanes)}), and filling them comes on top"
        )
    if "osu018" in names:
        yield "area: without the banks' memories"


def check(schedule: str, done: WholeUpdate) -> str:
    """What a whole update in the simulator showed."""
    shares = ", ".join(
        f"{name} {done.differences[name]:.1e} ({share:.0%})" for name, share in done.shares.items()
    )
    return (
        f"{schedule}: {len(done.results['param']):,} parameters in {done.cycles:,} simulated "
        "cycles; every bit is the model's; "
        f"largest difference from the C run time (share of the rounding bound): {shares}"
    )


_COLUMNS = {
    "ecp5": ("MHz", "ECP5 LUT", "FF", "DSP", "BRAM"),
    "xcup": ("US+ LUT", "FF", "DSP", "BRAM"),
    "osu018": ("OSU018 um²", "gates"),
}


def _cells(name: str, report: Report | None) -> tuple[str, ...]:
    if report is None:
        return ("-",) * len(_COLUMNS[name])
    blocks = "-" if report.bram is None else f"{report.bram:g}"
    fabric = (_whole(report.lut), _whole(report.ff), _whole(report.dsp), blocks)
    if name == "ecp5":
        return (_number(report.mhz, 1), *fabric)
    return fabric if name == "xcup" else (_number(report.area_um2, 0), _whole(report.gates))


def _whole(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
