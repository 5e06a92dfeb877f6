"""Tables of the cycle model: predicted beside measured, and what other units would buy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from fptt.report.tables import plain_table
from fptt.report.wording import count, listed

if TYPE_CHECKING:
    from fptt.soc.constants import Constants
    from fptt.soc.validation import Cell, Errors, Outside
    from fptt.soc.whatif import Outcome


def validation(
    cells: Sequence[Cell],
    unseen: Sequence[Cell],
    seen_errors: Mapping[str, Errors],
    unseen_errors: Mapping[str, Errors],
    dominant: Mapping[tuple[str, int, int], tuple[str, str]],
    outside: Sequence[Outside],
    source: str,
) -> Iterator[Table | str]:
    """Every measured number, the errors by class, and which class takes most of the time."""
    yield _cells(f"With constants calibrated on: {source}", cells)
    if unseen:
        yield _cells("Each design point and each K predicted without its measurements", unseen)
    table = plain_table(
        "Errors by function class, amounts of predicted / measured - 1",
        *("function", "median", "worst", "unseen: median", "unseen: worst"),
    )
    for name, error in seen_errors.items():
        other = unseen_errors.get(name)
        without = [f"{other.median:.2%}", f"{other.worst:.2%}"] if other else ["-", "-"]
        table.add_row(name, f"{error.median:.2%}", f"{error.worst:.2%}", *without)
    yield table
    table = plain_table(
        "What takes most of the time", *("chip", "K", "measured", "predicted"), left=1
    )
    for (mesh, cores, parts), (measured, predicted) in dominant.items():
        table.add_row(f"{mesh}-{cores}", str(parts), measured, predicted)
    yield table
    columns = ("system", "K", "published s", "predicted s", "error")
    table = plain_table("Published times that calibration does not use", *columns)
    for row in outside:
        table.add_row(
            row.name,
            str(row.parts),
            f"{row.published:.2f}",
            f"{row.predicted:.3f} ± {row.predicted * row.uncertainty:.3f}",
            f"{row.predicted / row.published - 1:+.1%}",
        )
    yield table


def _cells(title: str, cells: Sequence[Cell]) -> Table:
    left = any(cell.left_out for cell in cells)
    names = ("chip", "K", "function", "measured", "predicted", "error")
    table = plain_table(title, *(("without", *names) if left else names))
    before = None
    for cell in cells:
        group = (cell.left_out, cell.mesh, cell.cores, cell.parts)
        if before not in (None, group):
            table.add_section()
        before = group
        table.add_row(
            *([cell.left_out] if left else []),
            f"{cell.mesh}-{cell.cores}",
            str(cell.parts),
            cell.function,
            f"{cell.measured:,}",
            f"{cell.predicted:,.0f}",
            f"{cell.error:+.2%}",
            style="bold" if cell.function == "total" else None,
        )
    return table


def calibration(constants: Constants, cells: int) -> Iterator[Table | str]:
    """The constants and what each is."""
    from fptt.soc.constants import FITTED

    open_ones = constants.undetermined()
    table = plain_table("Constants of the cycle model", "constant", "value", "unit", "meaning")
    table.columns[3].justify = "left"
    for f in FITTED:
        value = f"{getattr(constants, f.name):.4g}"
        mark = "~" if f.name in open_ones else ""
        table.add_row(f.name, f"{mark}{value}", f.metadata["unit"], f.metadata["meaning"])
    yield table
    if open_ones:
        yield f"~: near the first guess, little is measured of {listed(list(open_ones))}."
    yield (
        f"{count(len(FITTED), 'constant')} from {count(cells, 'measured number')}. Where it had "
        f"not seen the measurement, a total is off by {constants.spreads['total']:.1%} (one "
        "standard deviation)."
    )


def what_if(rows: Sequence[Outcome]) -> Iterator[Table | str]:
    """A row for each change of the published best point."""
    parts = list(rows[0].seconds)
    columns = [name for k in parts for name in (f"K={k}: s", "faster")]
    table = plain_table(
        "What other units would buy, predicted for one pass over the published workload",
        *("chip", "program", "most of the time, K=28", *columns, "LUT without units"),
        left=3,
    )
    for row in rows:
        name = max(row.classes, key=lambda name: row.classes[name])
        table.add_row(
            row.change.name,
            "ours" if row.change.ours else "published",
            f"{name} {row.classes[name]:.0%}",
            *(
                text
                for k in parts
                for text in (
                    f"{row.seconds[k]:.3f} ± {row.seconds[k] * row.uncertainty[k]:.3f}",
                    f"{row.speedup[k]:.1f}",
                )
            ),
            f"{row.resources.lut:,}",
        )
    yield table
    yield (
        "±: one standard deviation of the prediction; what is assumed counts as wrong by 30 %. "
        "Added units' own LUTs are not counted: nobody has built them."
    )
    for row in rows:
        yield f"{row.change.name}: {row.change.assumes}"
