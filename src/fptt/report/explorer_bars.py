"""Bars of the page of an exploration: where the time goes. Rendering only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bokeh.models import ColumnDataSource, CustomJS, FactorRange, HoverTool
from bokeh.models.annotations.legends import LegendItem
from bokeh.models.widgets import Select

from fptt.report import explorer_scripts as scripts
from fptt.report.explorer_plots import add_legend, classes
from fptt.report.plots import COLOURS, base_plot
from fptt.soc.explore import Point


def bars(points: Sequence[Point]) -> dict[str, Any]:
    """Stacked bars of function classes, over K for a chip or over chips for one K.

    Returns:
        Roots of the page: "bars", "of", "unit".
    """
    names = classes(points)
    tables: dict[str, dict[str, list[Any]]] = {}
    for point in points:
        for title, label in (
            (f"{point.design}, by K", f"{point.parts}"),
            (f"K={point.parts}, by chip", point.design),
        ):
            table = tables.setdefault(title, {"labels": [], "total": []})
            table["labels"].append(label)
            table["total"].append(point.latency_s)
            for name in names:
                own = point.cycles.get(name, 0.0) / point.clock_hz
                table.setdefault(name, []).append(own)
    first = f"{points[0].design}, by K"
    table = tables[first]
    source = ColumnDataSource({"label": table["labels"], **{name: table[name] for name in names}})
    plot = base_plot(height=420, x_range=FactorRange(factors=table["labels"]))
    plot.yaxis.axis_label = "seconds"
    plot.y_range.start = 0
    plot.xgrid.visible = False
    drawn = plot.vbar_stack(
        names,
        x="label",
        width=0.8,
        source=source,
        color=[_class_colour(i) for i in range(len(names))],
        line_color="white",
        line_width=0.5,
    )
    add_legend(
        plot,
        [
            LegendItem(label={"value": name}, renderers=[one])
            for name, one in reversed(list(zip(names, drawn, strict=True)))
        ],
    )
    plot.add_tools(
        HoverTool(
            renderers=drawn,
            tooltips=[("of", "@label"), ("function", "$name"), ("value", "@$name{0.[0000]}")],
        )
    )
    designs: list[Any] = sorted(tables, key=lambda title: title.endswith("by chip"))  # chips first
    of = Select(title="bars of", value=first, options=designs)
    units: list[Any] = ["seconds", "share of time"]
    unit = Select(title="in", value="seconds", options=units)
    change = CustomJS(
        args={
            "of": of,
            "unit": unit,
            "tables": tables,
            "names": names,
            "bars": source,
            "x_range": plot.x_range,
            "axis": plot.yaxis[0],
        },
        code=scripts.BARS,
    )
    of.js_on_change("value", change)
    unit.js_on_change("value", change)
    return {"bars": plot, "of": of, "unit": unit}


def _class_colour(index: int) -> str:
    colours = (*COLOURS, "#222222")
    return colours[index % len(colours)]
