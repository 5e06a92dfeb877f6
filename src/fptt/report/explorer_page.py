"""The page of an exploration: one HTML file with everything inside. Rendering only."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from fptt.report import page as pages
from fptt.report.chip_tables import BYTES, FPGA, clocks, seconds
from fptt.report.wording import count, listed
from fptt.soc.explore import FIGURES, RESOURCES, Point, on_front
from fptt.storage.files import write_atomically

if TYPE_CHECKING:
    from fptt.exploring import Mark

_MARK = '<meta name="generator" content="fptt explore">'

_STYLE = """
.chosen { display: flex; flex-wrap: wrap; gap: 8px 20px; margin: 8px 0; }
#table th { white-space: nowrap; }
#table thead th:not(:first-child) { white-space: normal; min-width: 4.5em; }
#table td.said { text-align: left; min-width: 22em; }
"""


def check_out(out: str | Path) -> None:
    """Raises InputError where a page would take the place of something else."""
    pages.check_out(out, _MARK, "fptt explore")


def write_page(
    points: Sequence[Point],
    out: str | Path,
    *,
    subject: str,
    figures: Sequence[str],
    marks: Sequence[Mark],
    command: str,
    date: str,
    ours: bool = False,
    only_front: bool = False,
) -> int:
    """Writes the page.

    Args:
        points: what it shows; at least one.
        out: the file. One that is there already must be a page that this function wrote.
        subject: what is trained.
        figures: what the front of the table weighs.
        marks: published measurements of the same training; none where there are none.
        command: the command that makes the page, which it names.
        date: when it was made.
        ours: it is a program of the user's that is trained, and not the published one.
        only_front: the table leaves out the points that are not on the front; the plots do not.

    Returns:
        Its size in bytes.

    Raises:
        InputError: the file is something else, or cannot be written.
        SaveError: as `write_atomically`.
    """
    # late: where bokeh is missing, `pages` has said so
    from fptt.report.explorer_bars import bars
    from fptt.report.explorer_plots import scatter

    check_out(out)
    roots = scatter(points, marks, ours=ours) | bars(points)
    script, divs = pages.embedded(roots)
    beside = (
        "Published measurements stand beside the predictions where the figure of an axis was "
        "published, dotted lines where only one was; their memory is that of their own program."
        + (" They are of the published program, the predictions of this one." if ours else "")
        if marks
        else "No measurements of this training are published, so none stand beside it."
    )
    table, shown = _table(points, figures, only_front)
    text = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{_MARK}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fptt: chips</title>
<link rel="icon" href="data:,">
<style>{pages.STYLE}{_STYLE}</style>
{pages.scripts("bokeh", "bokeh-widgets")}
</head>
<body>
<header><h1>Chips that train by FPTT</h1>
<p>{escape(subject)}. Everything is predicted, for one pass over a batch at {clocks(points)}; ± is
one standard deviation of the prediction. Bytes are {escape(BYTES)}. {escape(FPGA)}. {beside}</p>
</header>
<main>
<section id="points"><h2>Any figure against any other</h2>
<p>Less is better on both axes; the front joins the points that no other point beats. Where K is on
an axis it joins the least of the other figure for each K. A click on a name in the legend hides its
points.</p>
<div class="chosen">{divs["x"]}{divs["y"]}{divs["colour"]}</div>
<figure role="group" aria-label="All points; the numbers are in the table below">
<figcaption>All points</figcaption>{divs["scatter"]}</figure>
</section>
<section id="classes"><h2>Where the time goes</h2>
<div class="chosen">{divs["of"]}{divs["unit"]}</div>
<figure role="group" aria-label="Time by function class">
<figcaption>Time by function class</figcaption>{divs["bars"]}</figure>
</section>
<section id="table"><h2>All numbers</h2>
<details><summary>{shown}</summary>{table}</details>
</section>
</main>
<footer><p>Made by <code>{escape(command)}</code> on {escape(date)}.</p></footer>
{script}
</body>
</html>
""".encode()
    write_atomically(out, text)
    return len(text)


def _table(points: Sequence[Point], figures: Sequence[str], only_front: bool) -> tuple[str, str]:
    """The table, and what it holds in words."""
    heads = ["chip", "K", "seconds of a pass", "bytes of training memory"]
    heads += [*(FIGURES[name] for name in RESOURCES), "most of the time", "front", "notes"]
    rows = []
    for point, best in zip(points, on_front(points, figures), strict=True):
        if only_front and not best:
            continue
        name, share = point.dominant
        cells = [
            f"{point.parts:,}",
            seconds(point),
            f"{point.memory_bytes:,}",
            *(f"{getattr(point, resource):,}" for resource in RESOURCES),
            f"{name} {share:.0%}",
            "yes" if best else "",
        ]
        note = "; ".join(text for text in (point.extrapolated, point.too_large) if text)
        rows.append(
            f'<tr><th scope="row">{escape(point.design)}</th>'
            + "".join(f'<td class="n">{escape(cell)}</td>' for cell in cells)
            + f'<td class="n said">{escape(note)}</td></tr>'
        )
    which = "Points of the front" if only_front else "All points"
    text = (
        f'<div class="wide"><table><caption>{which}; front: of '
        f"{listed(list(figures))}</caption><thead><tr>"
        + "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
        + f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
    whole = count(len(points), "point")
    return text, f"{len(rows):,} of {whole}" if only_front else whole
