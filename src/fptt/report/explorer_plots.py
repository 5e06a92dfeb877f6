"""Plots of the page of an exploration, by bokeh: any figure against any other. Rendering only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from bokeh.models import (
    CDSView,
    ColumnDataSource,
    CustomJS,
    CustomJSTicker,
    CustomJSTickFormatter,
    DataRange1d,
    FixedTicker,
    HoverTool,
    IndexFilter,
)
from bokeh.models.annotations.labels import LabelSet
from bokeh.models.annotations.legends import Legend, LegendItem
from bokeh.models.widgets import Select

from fptt.report import explorer_scripts as scripts
from fptt.report.chip_tables import seconds
from fptt.report.plots import COLOURS, apart, base_plot, plain, ramp
from fptt.soc.explore import FIGURES, RESOURCES, Point
from fptt.soc.pareto import front as front_of

if TYPE_CHECKING:
    from fptt.exploring import Mark

#: what may stand on an axis, and what it is called there
AXES = {
    "latency": "latency (s)",
    "memory": "training memory (bytes)",
    "parts": "K",
    "cores": "cores",
    "lut": "LUT",
    "ff": "FF",
    "bram": "BRAM",
    "dsp": "DSP",
}
#: what may be told apart by colour
COLOURINGS = {"parts": "K", "cores": "cores", "mesh": "array"}
_MARKS = {"rocket": "square_x", "chip": "diamond", "gpu": "triangle"}
_HEIGHT = 560
#: pixels between the labels of lines, and the ratio of values that are far enough apart for two
_LABEL_WIDTH = 140
_NEAR = 1.12


def add_legend(plot: Any, items: list[LegendItem]) -> None:
    """Names beside a plot; a click hides what is called so."""
    legend = Legend(
        items=items,
        click_policy="hide",
        label_text_font_size="12px",
        border_line_color=None,
        spacing=1,
        margin=6,
    )
    plot.add_layout(legend, "right")


def scatter(
    points: Sequence[Point],
    marks: Sequence[Mark],
    x: str = "lut",
    y: str = "latency",
    *,
    ours: bool = False,
) -> dict[str, Any]:
    """The plot of all points, and the selectors of its axes and colours.

    Args:
        points: predicted.
        marks: published measurements.
        x, y: the axes at first.
        ours: the points are of another program than the measurements, which the legend says.

    Returns:
        Roots of the page: "scatter", "x", "y", "colour".
    """
    source = ColumnDataSource(_columns(points, x, y))
    marked = ColumnDataSource(_mark_columns(marks, x, y))
    rings, line = _front(points, x, y)
    front, front_line = ColumnDataSource(rings), ColumnDataSource(line)
    plot = base_plot(
        height=_HEIGHT,
        x_axis_type="log",
        y_axis_type="log",
        x_range=DataRange1d(range_padding=0.08),
        y_range=DataRange1d(range_padding=0.08),
    )
    style = {"line_color": "#8b0000", "line_width": 2}
    drawn = [
        plot.line("x", "y", source=front_line, **style),
        plot.scatter("x", "y", source=front, size=15, fill_alpha=0, **style),
    ]
    groups = _groups(plot, points, source)
    items = [item for several in groups.values() for item in several]
    hovered: list[Any] = [one for item in items for one in item.renderers]
    items.append(LegendItem(label={"value": "Pareto front"}, renderers=drawn))
    published, lines = _published(plot, marks, marked, x, y, ours)
    plot.add_tools(
        # on the two sides of a place where both are
        HoverTool(
            renderers=hovered,
            attachment="right",
            tooltips=[
                ("chip", "@design"),
                ("K", "@parts"),
                ("seconds", "@shown"),
                ("bytes", "@memory{0,0}"),
                *((FIGURES[name], f"@{name}{{0,0}}@about") for name in RESOURCES),
                ("cycles", "@{total cycles}"),
                *((name, f"@{{{name} cycles}}") for name in classes(points)),
            ],
        ),
        HoverTool(
            renderers=[one for item in published for one in item.renderers],
            attachment="left",
            tooltips=[
                ("published program" if ours else "published", "@name"),
                ("K", "@parts"),
                ("seconds", "@latency{0.00}"),
            ],
        ),
    )
    add_legend(plot, items + published)
    axes: list[Any] = list(AXES.items())
    xs, ys = (
        Select(title=f"{axis} axis", value=value, options=axes)
        for axis, value in (("x", x), ("y", y))
    )
    kinds: list[Any] = list(COLOURINGS.items())
    colour = Select(title="colour", value="parts", options=kinds)
    tickers: dict[str, Any] = {name: _fixed(points, name) for name in ("parts", "cores")}
    tickers["other"] = CustomJSTicker(major_code=scripts.TICKS)
    for axis, grid, name in (
        (plot.xaxis[0], plot.xgrid[0], x),
        (plot.yaxis[0], plot.ygrid[0], y),
    ):
        axis.formatter = CustomJSTickFormatter(code=scripts.TICK)
        axis.axis_label = AXES[name]
        axis.ticker = grid.ticker = tickers.get(name, tickers["other"])
    move = CustomJS(
        args={
            "x": xs,
            "y": ys,
            "points": source,
            "marks": [marked, *lines],
            "front": front,
            "front_line": front_line,
            "x_axis": plot.xaxis[0],
            "y_axis": plot.yaxis[0],
            "x_grid": plot.xgrid[0],
            "y_grid": plot.ygrid[0],
            "labels": AXES,
            "tickers": tickers,
        },
        code=scripts.MOVE,
    )
    xs.js_on_change("value", move)
    ys.js_on_change("value", move)
    colour.js_on_change(
        "value", CustomJS(args={"groups": groups, "colour": colour}, code=scripts.COLOUR)
    )
    return {"scatter": plot, "x": xs, "y": ys, "colour": colour}


def _fixed(points: Sequence[Point], name: str) -> FixedTicker:
    values = sorted({float(getattr(point, name)) for point in points})
    return FixedTicker(ticks=apart(values) if len(values) > 1 else values)


def _front(points: Sequence[Point], x: str, y: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The points of the front of two axes, and the steps that join them; as `scripts.MOVE` does."""
    places = [(_value(point, x), _value(point, y)) for point in points]
    best = sorted({place for place, on in zip(places, front_of(places), strict=True) if on})
    steps = [
        place
        for before, after in pairwise([(0.0, 0.0), *best])
        for place in ([(after[0], before[1])] if before[0] else []) + [after]
    ]
    return (
        {"x": [place[0] for place in best], "y": [place[1] for place in best]},
        {"x": [place[0] for place in steps], "y": [place[1] for place in steps]},
    )


def _published(
    plot: Any, marks: Sequence[Mark], source: ColumnDataSource, x: str, y: str, ours: bool
) -> tuple[list[LegendItem], list[ColumnDataSource]]:
    """Every published system: its points, and lines where it has a figure for one axis only.

    Returns:
        The legend's items, and the data of the lines' labels.
    """
    items, labels, called = [], [], "published program" if ours else "published"
    names = dict.fromkeys(mark.name for mark in marks)
    for order, name in enumerate(names):
        rows = [i for i, mark in enumerate(marks) if mark.name == name]
        view = CDSView(filter=IndexFilter(indices=rows))
        style = {"line_color": COLOURS[order % len(COLOURS)], "source": source, "view": view}
        drawn = [
            plot.scatter(
                *("x", "y"),
                marker=_MARKS[marks[rows[0]].kind],
                size=13,
                fill_alpha=0,
                line_width=2,
                **style,
            ),
        ]
        if marks[rows[0]].kind != "chip":  # a chip has such a figure, it was not published
            drawn += [
                plot.hspan(y="across", line_dash="dotted", line_alpha=0.8, **style),
                plot.vspan(x="up", line_dash="dotted", line_alpha=0.8, **style),
            ]
            own = ColumnDataSource(_labels([marks[i] for i in rows], x, y))
            labels.append(own)
            for kind in ("across", "up"):
                _label(plot, kind, len(labels) - 1, own, style["line_color"], drawn[-1])
        items.append(LegendItem(label={"value": plain(f"{called}: {name}")}, renderers=drawn))
    return items, labels


def _label(
    plot: Any, kind: str, order: int, source: ColumnDataSource, colour: Any, line: Any
) -> None:
    """Names a system's lines where they begin, each system in a column of its own.

    They are hidden with the lines.
    """
    away = 6 + _LABEL_WIDTH * order
    place: dict[str, Any] = {"x": away, "x_units": "screen", "y": "across"}
    if kind == "up":
        place = {"x": "up", "y": away, "y_units": "screen", "angle": math.pi / 2}
    label = LabelSet(
        **place,
        text=f"{kind}_label",
        source=source,
        text_color=colour,
        text_font_size="11px",
        text_baseline="bottom",
    )
    plot.add_layout(label)
    line.js_link("visible", label, "visible")


def _labels(marks: Sequence[Mark], x: str, y: str) -> dict[str, list[Any]]:
    """A system's marks, with what is written at a line at each of their figures.

    Lines that lie too close for a label each have one with all their K.
    """
    found = _mark_columns(marks, x, y)
    for axis in AXES:
        texts = [""] * len(marks)
        rows = sorted(
            (i for i in range(len(marks)) if not math.isnan(found[axis][i])),
            key=lambda i: found[axis][i],
        )
        while rows:
            near = [i for i in rows if found[axis][i] <= found[axis][rows[0]] * _NEAR]
            parts = ", ".join(f"{marks[i].parts}" for i in sorted(near))
            texts[near[0]] = plain(f"{marks[near[0]].name} K={parts}")
            rows = rows[len(near) :]
        found[f"{axis} label"] = texts
    found["across_label"], found["up_label"] = found[f"{y} label"], found[f"{x} label"]
    return found


def _groups(
    plot: Any, points: Sequence[Point], source: ColumnDataSource
) -> dict[str, list[LegendItem]]:
    """For every colouring its points, drawn, with their names in the legend."""
    groups: dict[str, list[LegendItem]] = {}
    for number, (kind, called) in enumerate(COLOURINGS.items()):
        values = list(dict.fromkeys(getattr(point, kind) for point in points))
        if kind != "mesh":
            values.sort()
        for order, value in enumerate(values):
            rows = [i for i, point in enumerate(points) if getattr(point, kind) == value]
            ordered = kind != "mesh" or len(values) > len(COLOURS)
            drawn = plot.scatter(
                *("x", "y"),
                source=source,
                view=CDSView(filter=IndexFilter(indices=rows)),
                color=ramp(order, len(values)) if ordered else COLOURS[order],
                size=9,
                visible=number == 0,
            )
            label = str(value) if kind == "mesh" else f"{called}={value}"
            groups.setdefault(kind, []).append(
                LegendItem(label={"value": label}, renderers=[drawn], visible=number == 0)
            )
    return groups


def classes(points: Sequence[Point]) -> list[str]:
    """Function classes of all points, in their order."""
    return list(dict.fromkeys(name for point in points for name in point.classes))


def _columns(points: Sequence[Point], x: str, y: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {name: [_value(point, name) for point in points] for name in AXES}
    found |= {
        "x": found[x],
        "y": found[y],
        "design": [point.design for point in points],
        "shown": [seconds(point) for point in points],
        "about": [" (extrapolated)" if point.extrapolated else "" for point in points],
    }
    for name in (*classes(points), "total"):
        found[f"{name} cycles"] = [_cycles(point, name) for point in points]
    return found


def _value(point: Point, axis: str) -> float:
    return point.figure(axis) if axis in FIGURES else getattr(point, axis)


def _cycles(point: Point, name: str) -> str:
    value = point.cycles.get(name, 0.0)
    share = value / point.cycles["total"]
    return f"{value:,.0f}" + ("" if name == "total" else f" ({share:.1%})")


def _mark_columns(marks: Sequence[Mark], x: str, y: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {
        name: [mark.figures.get(name, math.nan) for mark in marks] for name in AXES
    }
    found["latency"] = [mark.latency_s for mark in marks]
    found["parts"] = [float(mark.parts) for mark in marks]
    found |= {"x": found[x], "y": found[y], "name": [plain(mark.name) for mark in marks]}
    for own, one, other in (("across", y, x), ("up", x, y)):
        found[own] = [
            here if math.isnan(there) else math.nan
            for here, there in zip(found[one], found[other], strict=True)
        ]
    return found
