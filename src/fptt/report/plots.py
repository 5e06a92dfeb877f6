"""Plots of the page of results, by bokeh. Rendering only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bokeh.models import (
    BasicTicker,
    ColumnDataSource,
    DataRange1d,
    FixedTicker,
    HoverTool,
    NumeralTickFormatter,
    Range1d,
)
from bokeh.models.annotations.legends import Legend, LegendItem
from bokeh.palettes import Viridis256
from bokeh.plotting import figure

from fptt.experiments.beside import Beside
from fptt.experiments.summary import Group
from fptt.report.wording import axis_label, duration, number, scaled, spread_text

#: of what has no order
COLOURS = (
    *("#1f5fa8", "#d1495b", "#2a9134", "#8a4fbf", "#c77700", "#00868b"),
    *("#7a5230", "#c4459b", "#596275", "#8c8b00"),
)
_DASHES = ("solid", "dashed", "dotdash", "dotted")
_HEIGHT = 380


def plain(text: str) -> str:
    """Text that bokeh shows as it is: what it would typeset as a formula is broken up.

    For a formula it would load a library from the network.
    """
    for mark in ("$$", r"\[", r"\]", r"\(", r"\)"):
        text = text.replace(mark, " ".join(mark))
    return text


def base_plot(**options: Any) -> Any:
    """A figure as all of ours look."""
    plot = figure(
        sizing_mode="stretch_width",
        tools="pan,box_zoom,wheel_zoom,reset,save",
        **options,
    )
    plot.toolbar.logo = None
    plot.toolbar.active_scroll = None
    plot.toolbar.autohide = True
    for axis in plot.axis:
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = "13px"
        axis.major_label_text_font_size = "12px"
    plot.grid.grid_line_alpha = 0.5
    return plot


def _figure(metric: str, x_label: str, **options: Any) -> Any:
    plot = base_plot(
        height=_HEIGHT, x_axis_label=x_label, y_axis_label=axis_label(metric), **options
    )
    if metric == "test_loss":
        plot.yaxis.formatter = NumeralTickFormatter(format="0.[0000000]")
    elif metric == "test_perplexity":
        plot.yaxis.formatter = NumeralTickFormatter(format="0,0.[00]")
    return plot


def _legend(plot: Any, items: list[tuple[str, list[Any]]], place: str, columns: int = 1) -> None:
    legend = Legend(
        items=[LegendItem(label={"value": plain(name)}, renderers=r) for name, r in items],
        click_policy="hide",
        label_text_font_size="12px",
        ncols=columns,
        border_line_color=None,
        spacing=1,
        location="top_left",
        margin=6,
        glyph_height=16,
        stylesheets=[".bk-grid { column-gap: 18px; }"],
    )
    plot.add_layout(legend, place)


def learning_curves(groups: Sequence[Group], **ranges: Any) -> Any:
    """The metric by epoch: for every group its mean, and a band from the worst seed to the best."""
    metric = groups[0].metric
    log = metric == "test_loss" and all(point.low > 0 for g in groups for point in g.curve)
    kind = "log" if log else "linear"
    plot = _figure(metric, "epoch", y_axis_type=kind, **ranges)
    plot.xaxis.ticker = BasicTicker(min_interval=1, num_minor_ticks=0)
    items, lines = [], []
    several = {group.series for group in groups}
    for index, group in enumerate(groups):
        ordered = len(several) == 1 or len(groups) > len(COLOURS)
        colour = ramp(index, len(groups)) if ordered else COLOURS[index]
        points = group.curve
        source = ColumnDataSource(
            {
                "epoch": [p.epoch for p in points],
                "mean": [scaled(metric, p.mean) for p in points],
                "low": [scaled(metric, p.low) for p in points],
                "high": [scaled(metric, p.high) for p in points],
                "shown": [number(metric, p.mean) for p in points],
                "range": [f"{number(metric, p.low)} to {number(metric, p.high)}" for p in points],
                "n": [p.n for p in points],
                "name": [plain(group.label)] * len(points),
            }
        )
        drawn = []
        if group.final.n > 1:
            drawn.append(
                plot.varea(
                    "epoch", "low", "high", source=source, fill_color=colour, fill_alpha=0.15
                )
            )
        line = plot.line("epoch", "mean", source=source, line_color=colour, line_width=2)
        dots = plot.scatter("epoch", "mean", source=source, color=colour, size=4)
        lines.append(dots)
        items.append(
            (f"K={group.parts}" if len(several) == 1 else group.label, [*drawn, line, dots])
        )
    plot.add_tools(
        HoverTool(
            renderers=lines,
            tooltips=[
                ("run", "@name"),
                ("epoch", "@epoch"),
                ("mean", "@shown"),
                ("seeds", "@n, from @range"),
            ],
        )
    )
    _legend(plot, items, "right")
    return plot


def ramp(index: int, total: int) -> str:
    """A colour of an ordered scale, without its palest part."""
    return str(Viridis256[round(205 * index / max(1, total - 1))])


def against(
    groups: Sequence[Group],
    published: Sequence[Sequence[Beside]],
    *,
    over: str,
) -> Any:
    """The final metric against K or memory, a line for each series, with one standard deviation.

    Args:
        groups: with arena_bytes, where memory is asked for.
        published: for every group, figures to be marked at its place; none against memory.
        over: "parts" or "bytes".
    """
    metric = groups[0].metric
    x_of = {id(g): _place(g, over) for g in groups}
    label = (
        "K, parts of a sequence (log scale)"
        if over == "parts"
        else "training memory in MB, 10⁶ bytes (log scale)"
    )
    log = metric == "test_loss" and all(g.final.mean - (g.final.sd or 0) > 0 for g in groups)
    plot = _figure(
        metric,
        label,
        x_axis_type="log",
        y_axis_type="log" if log else "linear",
        x_range=_log_range(list(x_of.values())),
        # so that what is near to one another can be seen after the rest was hidden
        y_range=DataRange1d(only_visible=True),
    )
    if over == "parts":
        ticks = apart(sorted(set(x_of.values())))
        plot.xaxis.ticker = FixedTicker(ticks=ticks)
        plot.xgrid.ticker = FixedTicker(ticks=ticks)
        plot.xaxis.formatter = NumeralTickFormatter(format="0")
    else:
        ticks = _one_two_five(list(x_of.values()))
        if len(ticks) > 2:
            plot.xaxis.ticker = FixedTicker(ticks=ticks)
            plot.xgrid.ticker = FixedTicker(ticks=ticks)
        plot.xaxis.formatter = NumeralTickFormatter(format="0,0.[000]")
    series: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        series.setdefault(group.series, []).append(index)
    items: list[tuple[str, list[Any]]] = []
    others: list[tuple[str, list[Any]]] = []
    hovered, marked = [], []
    for order, (name, indices) in enumerate(series.items()):
        colour = COLOURS[order % len(COLOURS)]
        indices.sort(key=lambda i: x_of[id(groups[i])])
        own = [groups[i] for i in indices]
        source = ColumnDataSource(_columns(own, [x_of[id(g)] for g in own]))
        line = plot.line(
            "x",
            "y",
            source=source,
            line_color=colour,
            line_width=2,
            line_dash=_DASHES[order % len(_DASHES)],
        )
        bars = plot.segment("x", "low", "x", "high", source=source, line_color=colour, line_width=2)
        ends = [
            plot.scatter("x", end, source=source, marker="dash", size=10, line_color=colour)
            for end in ("low", "high")
        ]
        dots = plot.scatter("x", "y", source=source, color=colour, size=8)
        hovered.append(dots)
        items.append((name, [line, bars, *ends, dots]))
        columns = _published_columns(own, [published[i] for i in indices], x_of)
        if columns["x"]:
            diamonds = plot.scatter(
                "x",
                "y",
                source=ColumnDataSource(columns),
                marker="diamond",
                size=13,
                fill_alpha=0,
                line_color=colour,
                line_width=1.5,
            )
            marked.append(diamonds)
            others.append((f"{name}: published", [diamonds]))
    plot.add_tools(
        HoverTool(
            renderers=hovered,
            tooltips=[
                ("run", "@name"),
                ("last epoch", "@shown"),
                ("seeds", "@n"),
                ("best epoch", "@best"),
                ("bytes", "@bytes"),
                ("time", "@time"),
            ],
        )
    )
    if marked:
        plot.add_tools(
            HoverTool(
                renderers=marked,
                tooltips=[("published", "@shown"), ("beside", "@name"), ("setting", "@words")],
            )
        )
    items += others  # the second column, where every line has published figures
    _legend(plot, items, "below", columns=2 if len(items) > 2 else 1)
    return plot


def _place(group: Group, over: str) -> float:
    return group.parts if over == "parts" else (group.arena_bytes or 0) / 1e6


def _log_range(values: Sequence[float]) -> Range1d:
    """A tenth of the width free on either side, and half as much again where there is one value."""
    low, high = math.log10(min(values)), math.log10(max(values))
    edge = 0.08 * (high - low) or 0.15
    return Range1d(start=10 ** (low - edge), end=10 ** (high + edge))


def apart(values: Sequence[float]) -> list[float]:
    """Those values whose labels do not touch on a logarithmic axis."""
    width = math.log10(values[-1] / values[0])
    kept = [values[0]]
    for value in values[1:]:
        if math.log10(value / kept[-1]) >= 0.055 * width:
            kept.append(value)
    return kept


def _one_two_five(values: Sequence[float]) -> list[float]:
    """1, 2, 5, 10, 20, ... (and 0.5, 0.2, ...) around the values."""
    first, last = (math.floor(math.log10(end)) for end in (min(values), max(values)))
    ticks = [m * 10.0**power for power in range(first, last + 1) for m in (1, 2, 5)]
    return [tick for tick in ticks if 0.9 * min(values) <= tick <= 1.1 * max(values)]


def _columns(groups: Sequence[Group], places: Sequence[float]) -> dict[str, list[Any]]:
    metric = groups[0].metric
    return {
        "x": list(places),
        "y": [scaled(metric, g.final.mean) for g in groups],
        "low": [_end(g, -1) for g in groups],
        "high": [_end(g, 1) for g in groups],
        "name": [plain(g.label) for g in groups],
        "shown": [spread_text(metric, g.final) for g in groups],
        "best": [spread_text(metric, g.best) for g in groups],
        "n": [g.final.n for g in groups],
        "bytes": ["-" if g.arena_bytes is None else f"{g.arena_bytes:,}" for g in groups],
        "time": [duration(g.seconds.mean) for g in groups],
    }


def _end(group: Group, sign: int) -> float:
    """An end of the bar of one standard deviation; NaN, which is not drawn, for one seed."""
    if group.final.sd is None:
        return math.nan
    return scaled(group.metric, group.final.mean + sign * group.final.sd)


def _published_columns(
    groups: Sequence[Group], published: Sequence[Sequence[Beside]], x_of: dict[int, float]
) -> dict[str, list[Any]]:
    metric = groups[0].metric
    rows = [
        (x_of[id(group)], found.published, group)
        for group, several in zip(groups, published, strict=True)
        for found in several
        if found.published.value is not None
    ]
    return {
        "x": [x for x, _, _ in rows],
        "y": [scaled(metric, figure.value or 0.0) for _, figure, _ in rows],
        "shown": [f"{figure.printed:g}" for _, figure, _ in rows],
        "words": [plain(figure.words) for _, figure, _ in rows],
        "name": [plain(group.label) for _, _, group in rows],
    }
