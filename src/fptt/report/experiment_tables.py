"""Results of experiments for the terminal. Rendering only: every number comes from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from fptt.published import complexity
from fptt.report.tables import plain_table

if TYPE_CHECKING:
    from fptt.experiments.compare import Alignment, Comparison
    from fptt.experiments.summary import Group


def runs(rows: Sequence[Group]) -> Table:
    """A line for every variant and K: the metric's mean and spread over seeds, bytes, time."""
    table = plain_table(
        "", "", "task", "metric", "K", "last", "±", "best", "seeds", "bytes", "s", left=3
    )
    for row in rows:
        final, best = row.final, row.best
        table.add_row(
            row.series,
            row.task,
            row.metric.removeprefix("test_"),
            str(row.parts),
            _value(row.metric, final.mean),
            "" if final.sd is None else _value(row.metric, final.sd),
            _value(row.metric, best.mean),
            str(final.n),
            "" if row.arena_bytes is None else f"{row.arena_bytes:,}",
            f"{row.seconds.mean:,.{0 if row.seconds.mean >= 10 else 1}f}",
        )
    return table


def _value(metric: str, value: float) -> str:
    return f"{100 * value:.2f} %" if metric.endswith("accuracy") else f"{value:.4g}"


def comparison(rows: Sequence[Comparison]) -> list[Table]:
    """Sources side by side: alignment tensor by tensor, then cost, then growth."""
    aligned = plain_table(
        "Gradient of the summed part losses beside full BPTT in float64: cosine, ratio of norms",
        "",
        *(f"{row.source}\nK={row.parts}" for row in rows),
    )
    for name in rows[0].tensors:
        aligned.add_row(name, *(_alignment(row.tensors[name]) for row in rows))
    aligned.add_section()
    aligned.add_row("all", *(_alignment(row.whole) for row in rows), style="bold")

    cost = plain_table(
        "Cost of one batch in float32",
        "",
        "K",
        "bytes",
        "in FPTT",
        "of the pass",
        "operations",
        "updates",
        "ms",
        "measured with",
    )
    for row in rows:
        cost.add_row(
            row.source,
            str(row.parts),
            f"{row.arena_bytes:,}",
            f"{row.fptt_arena_bytes:,}",
            f"{row.pass_bytes:,}",
            f"{row.operations:,}",
            str(row.updates),
            "" if row.seconds is None else f"{1000 * row.seconds:.3g}",
            row.backend,
        )
    tables = [aligned, cost]
    if any(row.growth for row in rows):
        tables.append(_growth(rows))
    return tables


def _alignment(one: Alignment) -> str:
    return f"{one.cosine:.6f} {one.norm_ratio:.3g}x"


def _growth(rows: Sequence[Comparison]) -> Table:
    table = plain_table(
        "Exponents, from the programs' memory of a pass and operations: measured (theory, "
        "for p ~ H^2 parameters)",
        "",
        "K",
        "memory, T",
        "work, T",
        "memory, K",
        "work, K",
        "memory, H",
        "work, H",
        "seeds: gradient, updates, memory",
    )
    for row in rows:
        if row.growth is None:
            continue
        theory = complexity(row.source, row.parts)
        table.add_row(
            row.source,
            str(row.parts),
            *(
                _exponent(getattr(row.growth, name), getattr(theory, name, None))
                for name in vars(row.growth)
            ),
            theory.printed if theory else "",
        )
    return table


def _exponent(value: float | None, expected: float | None) -> str:
    if value is None:
        return ""
    # without a sign where it rounds to 0
    return f"{round(value, 2) + 0.0:.2f}" + ("" if expected is None else f" ({expected:g})")
