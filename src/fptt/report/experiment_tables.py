"""Results of experiments for the terminal. Rendering only: every number comes from elsewhere."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from fptt.report.tables import plain_table


def records(rows: Sequence[dict[str, Any]]) -> Table:
    """A line for every variant and K: the metric's mean and spread over seeds, bytes, time."""
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for row in rows:
        setting = row["configuration"]
        groups.setdefault((row["variant"], setting["task"], setting["parts"]), []).append(row)
    table = plain_table("", "", "task", "K", "last", "±", "best", "seeds", "bytes", "s", left=2)
    for (variant, task, parts), runs in groups.items():
        metric = runs[0]["metric"]
        whole = [run for run in runs if "diverged" not in run]
        last = [run["epochs"][-1][metric] for run in whole]
        pick = max if metric.endswith("accuracy") else min
        best = [pick(epoch[metric] for epoch in run["epochs"]) for run in whole]
        table.add_row(
            variant,
            task,
            str(parts),
            _value(metric, statistics.mean(last)) if last else "diverged",
            _value(metric, statistics.stdev(last)) if len(last) > 1 else "",
            _value(metric, statistics.mean(best)) if best else "",
            f"{len(whole)} of {len(runs)}" if len(whole) < len(runs) else str(len(runs)),
            f"{runs[0]['arena_bytes']:,}",
            f"{statistics.mean(run['seconds'] for run in runs):,.0f}",
        )
    return table


def _value(metric: str, value: float) -> str:
    return f"{100 * value:.2f} %" if metric.endswith("accuracy") else f"{value:.4g}"
