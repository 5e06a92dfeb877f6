"""Tables about chips for the terminal. Rendering only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from fptt.report.tables import plain_table
from fptt.report.wording import count, listed
from fptt.soc.explore import FIGURES, RESOURCES, on_front
from fptt.soc.questions import shown, ties

if TYPE_CHECKING:
    from fptt.soc.explore import Point
    from fptt.soc.questions import Answer, Doubt


def seconds(point: Point) -> str:
    """Latency with one standard deviation of the prediction, both to the same decimal.

    Example:
        >>> from fptt.soc.explore import Point
        >>> seconds(Point("4x4", 1, 28, {"total": 1.6512e9}, 5e8, 0.02, 0, None, 1, 1, 1, 1))
        '3.30 ± 0.07'
        >>> seconds(Point("4x4", 1, 28, {"total": 1.6512e6}, 5e8, 0.02, 0, None, 1, 1, 1, 1))
        '0.00330 ± 0.00007'
    """
    value = point.latency_s
    decimals = 2
    while decimals < 9 and value * 10**decimals < 100:
        decimals += 1
    return f"{value:.{decimals}f} ± {value * point.uncertainty:.{decimals}f}"


#: what a table's columns are
BYTES = "the program's training memory: everything that it keeps, in DRAM behind the caches"
FPGA = (
    "FPGA resources are those of the same design on a VCU118, whose own clock is lower (FireSim "
    "simulated the design there)"
)


def clocks(found: Sequence[Point]) -> str:
    """The clock of all points; several in increasing order.

    Example:
        >>> from fptt.soc.explore import Point
        >>> clocks([Point("4x4", 1, 28, {"total": 1e9}, 5e8, 0.02, 0, None, 1, 1, 1, 1)])
        '500 MHz'
    """
    return listed([f"{hertz / 1e6:,g} MHz" for hertz in sorted({one.clock_hz for one in found})])


def points(
    found: Sequence[Point], figures: Sequence[str], *, only_front: bool = False
) -> Iterator[Table | str]:
    """A row for each design point and K.

    Args:
        found: the points.
        figures: what the front weighs.
        only_front: shows no others.
    """
    on = on_front(found, figures)
    shown_points = [one for one, best in zip(found, on, strict=True) if best or not only_front]
    published = any(point.published_memory_bytes for point in found)
    table = plain_table(
        f"Predicted for one pass over a batch at {clocks(found)}",
        "chip",
        "K",
        "seconds",
        "bytes",
        *(["published bytes"] if published else []),
        *(FIGURES[name] for name in RESOURCES),
        "most of the time",
        "front",
    )
    for point, best in zip(found, on, strict=True):
        if only_front and not best:
            continue
        name, share = point.dominant
        theirs = point.published_memory_bytes
        mark = "~" if point.extrapolated else ""
        table.add_row(
            point.design,
            f"{point.parts}",
            seconds(point),
            f"{point.memory_bytes:,}",
            *([f"{theirs:,}" if theirs else "-"] if published else []),
            *(f"{mark}{getattr(point, resource):,}" for resource in RESOURCES),
            f"{name} {share:.0%}",
            "*" if best else "",
        )
    yield table
    yield (
        f"*: on the Pareto front of {listed(list(figures))}, as {sum(on)} of "
        f"{count(len(found), 'point')} are. ±: one standard deviation of the prediction."
    )
    for text, several in _notes(shown_points).items():
        yield f"{listed(several)}: {text}"
    yield f"seconds: at {clocks(found)}; bytes: {BYTES}. {FPGA}."
    yield (
        "which one to take: --minimise lut --latency 1s asks for the smallest that is fast enough, "
        "--best-parts for the K of each chip"
        + ("" if only_front else "; --only-front leaves the others out")
    )


def _notes(found: Sequence[Point]) -> dict[str, list[str]]:
    """What is to be said of resources, and of which chips."""
    notes: dict[str, list[str]] = {}
    for point in found:
        for text in (
            point.extrapolated
            and f"~ no published figure backs the resources ({point.extrapolated})",
            point.too_large,
        ):
            if text and point.design not in notes.setdefault(text, []):
                notes[text].append(point.design)
    return notes


def answers(found: Mapping[str, Answer] | Mapping[None, Answer]) -> Iterator[Table | str]:
    """Answers by chip; without a chip, of all of them."""
    several = len(found) > 1
    for design, answer in found.items():
        if several:
            yield _short(str(design), answer)
        else:
            yield from _long(answer)
    if several:
        doubtful = [str(name) for name, answer in found.items() if answer.doubts]
        if doubtful:
            yield (
                f"within the model's uncertainty: {listed(doubtful)}; one of them alone (--chip, "
                "--design) says what hangs on it"
            )


def _short(design: str, answer: Answer) -> str:
    if answer.chosen is None:
        return f"{design}: {answer.message()}"
    text = f"{design}: K={answer.chosen.parts}, {seconds(answer.chosen)} s"
    if answer.runner_up is not None:
        text += f"; next K={answer.runner_up.parts}, {seconds(answer.runner_up)} s"
    return text


def _long(answer: Answer) -> Iterator[str]:
    if answer.chosen is None:
        return
    asked = "".join(
        f", {one.figure} at most {shown(one.figure, one.most)}" for one in answer.limits
    )
    yield f"least {answer.minimise}{asked}: {answer.chosen}"
    yield f"  {_described(answer.chosen)}"
    if answer.equal:
        others = f"{answer.equal} others have" if answer.equal > 1 else "one other has"
        yield (
            f"  {others} the same {answer.minimise}; among equal ones the least "
            f"{', then '.join(ties(answer.minimise))} decides"
        )
    if answer.runner_up is not None:
        yield f"next: {answer.runner_up}"
        yield f"  {_described(answer.runner_up)}"
    else:
        yield "next: there is no other"
    if answer.limits:
        failed = [f"{number} fail in {name}" for name, number in answer.failed.items() if number]
        yield f"{answer.fits} of {count(answer.points, 'point')} fit" + (
            f"; {listed(failed)}" if failed else ""
        )
    for point in answer.better:
        less = shown(answer.minimise, point.figure(answer.minimise))
        yield f"better but fails: {point}, {less}: {answer.why_not(point)}"
    for doubt in answer.doubts:
        yield f"uncertain: {_doubt(doubt)}"
    if not answer.doubts:
        yield (
            "nothing here hangs on less than one standard deviation of the prediction, which "
            "about one prediction in three exceeds"
        )
    yield f"bytes: {BYTES}. {FPGA}."


def _described(point: Point) -> str:
    name, share = point.dominant
    notes = "".join(f"; {text}" for text in (point.extrapolated, point.too_large) if text)
    sizes = ", ".join(shown(figure, point.figure(figure)) for figure in ("memory", *RESOURCES))
    return f"{seconds(point)} s, {sizes}; {name} takes {share:.0%} of the time{notes}"


def _doubt(doubt: Doubt) -> str:
    margin, own = f"{doubt.margin:.1%}", f"{doubt.uncertainty:.1%}"
    return {
        "limit": f"{doubt.point} keeps the latency by {margin}, less than the model's uncertainty "
        f"of {own}",
        "missed": f"{doubt.point} would be better and misses the latency by {margin}, less than "
        f"the model's uncertainty of {own}",
        "order": f"{doubt.point} is slower by {margin}, less than the {own} that is one standard "
        "deviation of the difference",
    }[doubt.kind]
