"""The page of results: one HTML file with everything inside. Rendering only.

It holds bokeh's JavaScript and the data, asks nothing of a network, and opens from a disk.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from fptt.errors import InputError
from fptt.experiments.beside import Beside
from fptt.experiments.equal_memory import Comparison
from fptt.experiments.overview import Overview
from fptt.experiments.summary import Group
from fptt.report import results_tables as tables
from fptt.report.wording import METRIC_NAMES, TABLES, count, duration, panel_title
from fptt.storage.files import write_atomically

try:
    from bokeh.document import Document
    from bokeh.embed import components
    from bokeh.resources import Resources

    from fptt.report import plots
except ImportError as _error:
    if (_error.name or "").partition(".")[0] != "bokeh":
        raise
    raise InputError(
        "the page of results needs bokeh, which is not installed; run: pip install 'fptt[report]'"
    ) from None

#: how a page of ours is known, so that no other file is overwritten
_MARK = '<meta name="generator" content="fptt report">'

#: of all pages
STYLE = """
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: #1c1e21;
  background: #fff; max-width: 1160px; margin: 0 auto; padding: 0 20px 60px; }
h1 { font-size: 30px; margin: 28px 0 6px; }
h2 { font-size: 23px; margin: 52px 0 6px; padding-top: 12px; border-top: 2px solid #d8dce1; }
h3 { font-size: 18px; margin: 30px 0 4px; }
a { color: #174f91; }
nav ol { columns: 2; margin-top: 4px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 10px 0; }
dt { color: #555c66; }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 14px 0; min-width: 0; }
figcaption { font-weight: 600; font-size: 15px; }
figcaption span { font-weight: 400; color: #555c66; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 0 24px; }
.wide { overflow-x: auto; margin: 14px 0; }
table { border-collapse: collapse; font-size: 14px; width: 100%; }
caption { text-align: left; font-weight: 600; font-size: 15px; padding-bottom: 4px; }
th, td { padding: 4px 10px; border-bottom: 1px solid #e1e4e8; text-align: left;
  vertical-align: top; }
thead th { border-bottom: 2px solid #9aa3ad; vertical-align: bottom; }
tbody th { font-weight: 400; }
tbody th.name { min-width: 8em; }
tbody tr:hover { background: #f4f7fb; }
td.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
thead th:not(:first-child) { text-align: right; }
td.v { text-align: right; min-width: 7em; font-weight: 600; }
td.n.said { white-space: normal; }
.notes { font-size: 14px; color: #3b4149; }
details { margin: 8px 0; font-size: 14px; }
summary { cursor: pointer; font-weight: 600; }
.left-out { border-left: 4px solid #c77700; background: #fff6e8; padding: 6px 14px; }
.left-out summary, .left-out li { overflow-wrap: anywhere; }
code { background: #f1f3f5; padding: 1px 4px; border-radius: 3px; overflow-wrap: anywhere; }
footer { margin-top: 50px; color: #555c66; font-size: 14px; }
@media print { figure { break-inside: avoid; } }
"""


def write_page(found: Overview, out: str | Path, *, command: str, date: str) -> int:
    """Writes the page of results.

    Args:
        found: what it shows.
        out: the file. One that is there already must be a page that this function wrote.
        command: the command that makes the page, which it names.
        date: when it was made.

    Returns:
        Its size in bytes.

    Raises:
        InputError: the file is something else, or cannot be written.
        SaveError: as `write_atomically`.
    """
    check_out(out)
    text = page(found, command=command, date=date).encode()
    write_atomically(out, text)
    return len(text)


def check_out(out: str | Path, mark: str = _MARK, maker: str = "fptt report") -> None:
    """Raises InputError where a page would take the place of something else.

    Args:
        mark: how the pages of `maker` are known.
    """
    path = Path(out)
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            if mark.encode() not in file.read(1000):
                raise InputError(
                    f"{out} exists and is no page of `{maker}`; give another name with --out, "
                    "or delete it"
                )


def page(found: Overview, *, command: str, date: str) -> str:
    """The page as text; see `write_page`."""
    figures: dict[str, Any] = {}
    order = list(TABLES)
    rows = sorted(
        zip(found.groups, found.published, strict=True),
        key=lambda row: order.index(row[0].table) if row[0].table in order else len(order),
    )
    contents: list[str] = []
    sections: list[str] = []
    for table, several in groupby(rows, key=lambda row: row[0].table):
        identity = f"table-{len(contents) + 1}"
        title, text = TABLES.get(table, (table, ""))
        contents.append(f'<li><a href="#{identity}">{escape(title)}</a></li>')
        body = _table(table, list(several), found.comparisons, identity, figures)
        heading = f"<h2>{escape(title)}</h2><p>{escape(text)}</p>"
        sections.append(f'<section id="{identity}">{heading}{body}</section>')
    script, divs = embedded(figures)
    body = "".join(sections)
    for name, div in divs.items():
        body = body.replace(f"<!--{name}-->", div)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{_MARK}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fptt: results</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
{scripts("bokeh")}
</head>
<body>
<header><h1>Results of fptt</h1>
{_totals(found)}
{_left_out(found.notes)}
</header>
<nav aria-label="Contents"><h2>Contents</h2><ol>{"".join(contents)}</ol></nav>
<main>
<p>The headline is the metric after the <b>last</b> epoch, mean ± sample standard deviation over
seeds. The best epoch stands beside it: it was picked with the test data and is optimistic. Bytes
are the whole arena that training needs. In the plots, bars are one standard deviation, bands go
from the worst seed to the best; a click on a name in a legend hides its line.</p>
{body}
</main>
<footer><p>Made by <code>{escape(command)}</code> on {escape(date)}.</p></footer>
{script}
</body>
</html>
"""


def scripts(*components: Literal["bokeh", "bokeh-widgets"]) -> str:
    """Bokeh's own JavaScript, inside of the page."""
    return str(Resources(mode="inline", components=list(components)).render())


def embedded(figures: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """The script that draws the plots, and the places where it does."""
    if not figures:
        return "", {}
    document = Document()
    with document.models.freeze():  # adding plots one by one takes a time that grows as its square
        for plot in figures.values():
            document.add_root(plot)
    script, divs = components(figures)
    return str(script), divs


def _totals(found: Overview) -> str:
    rows = [
        ("runs", f"{count(found.runs, 'run')}, {duration(found.seconds)} of training"),
        ("seeds", ", ".join(found.seeds)),
        ("made", " to ".join(found.dates) or "unknown"),
        ("commits", ", ".join(found.commits) or "unknown"),
        ("machines", "; ".join(found.machines) or "unknown"),
        ("files", ", ".join(found.files)),
    ]
    return "<dl>" + "".join(f"<dt>{a}</dt><dd>{escape(b)}</dd>" for a, b in rows) + "</dl>"


def _left_out(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    title = f"Left out of the files: {count(len(notes), 'note')}"
    return f'<details class="left-out" open><summary>{title}</summary><ul>{items}</ul></details>'


def _table(
    table: str,
    rows: Sequence[tuple[Group, tuple[Beside, ...]]],
    comparisons: Iterable[Comparison],
    identity: str,
    figures: dict[str, Any],
) -> str:
    """The panels of a table, each with its plots and its figures."""
    body = []
    if table == "equal-memory":
        found = list(comparisons)
        if found:
            body.append("<h3>Where FPTT loses</h3>" + tables.where_fptt_loses(found))
            body += [
                tables.verdicts(list(several))
                for _, several in groupby(found, key=lambda comparison: comparison.fptt.panel)
            ]
            body.append(
                "<p>A difference counts where it passes the 95 % threshold of Student's t with the "
                "pooled standard error; of twenty such lines one passes by chance. TBPTT is the "
                "best by its test figures among the runs that fit, which favours it a little.</p>"
            )
        else:
            body.append("<p>There are no runs of both rules with the same setting yet.</p>")
    for number, (_, several) in enumerate(groupby(rows, key=lambda row: row[0].panel), start=1):
        panel = list(several)
        groups, published = [g for g, _ in panel], [p for _, p in panel]
        name = f"{identity}-{number}"
        title = panel_title(groups[0])
        named = f"{TABLES.get(table, (table,))[0]}, {title}"
        body.append(f'<h3 id="{name}">{escape(title)}</h3>')
        body.append(_plots(groups, published, name, named, figures))
        body.append(tables.results(groups, published, name, f"Results: {title}"))
    return "".join(body)


def _plots(
    groups: Sequence[Group],
    published: Sequence[Sequence[Beside]],
    name: str,
    named: str,
    figures: dict[str, Any],
) -> str:
    """The plots of a panel. `named`: what it shows, for those who do not see it."""
    metric = METRIC_NAMES[groups[0].metric]
    main = []
    if len({group.parts for group in groups}) > 1:
        plot = plots.against(groups, published, over="parts")
        main.append(_figure(figures, name, plot, "Against K", f"{metric} against K, {named}"))
    with_bytes = [group for group in groups if group.arena_bytes]
    if len(with_bytes) > 1:
        plot = plots.against(with_bytes, [[] for _ in with_bytes], over="bytes")
        described = f"{metric} against training memory, {named}"
        main.append(_figure(figures, name, plot, "Against memory", described))
    curves = []
    by_series = [list(s) for _, s in groupby(groups, key=lambda group: group.series)]
    if max(map(len, by_series)) == 1:  # one K each: their lines belong together
        by_series = [list(groups)]
    shared: dict[str, Any] = {}
    for several in by_series:
        if max(len(group.curve) for group in several) < 2:
            continue  # a single epoch is no curve
        plot = plots.learning_curves(several, **shared)
        shared = {"x_range": plot.x_range, "y_range": plot.y_range}
        own = several[0].series if len(by_series) > 1 or len(several) > 1 else several[0].label
        own = own if len({g.series for g in several}) == 1 else "all variants"
        described = f"{metric} by epoch, {own}, {named}"
        curves.append(_figure(figures, name, plot, "By epoch", described, own))
    return "".join(f'<div class="two">{"".join(some)}</div>' for some in (main, curves) if some)


def _figure(
    figures: dict[str, Any], name: str, plot: Any, title: str, described: str, detail: str = ""
) -> str:
    """A place for a plot, which bokeh fills when all of them are known."""
    key = re.sub(r"\W", "_", f"{name}-plot-{len(figures) + 1}")
    figures[key] = plot
    label = escape(f"{described}; the numbers are in the table below")
    caption = escape(title) + (f" <span>{escape(detail)}</span>" if detail else "")
    return (
        f'<figure role="group" aria-label="{label}"><figcaption>{caption}</figcaption>'
        f"<!--{key}--></figure>"
    )
