"""Tables about chips for the terminal. Rendering only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from fptt.report.tables import plain_table
from fptt.report.wording import count, listed
from fptt.soc.explore import FIGURES, RESOURCES, on_front
from fptt.soc.questions import shown

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


def points(found: Sequence[Point], figures: Sequence[str]) -> Iterator[Table | str]:
    """A row for each design point and K."""
    published = any(point.published_memory_bytes for point in found)
    table = plain_table(
        "Predicted for one pass over a batch",
        "chip",
        "K",
        "seconds",
        "bytes",
        *(["published bytes"] if published else []),
        *(FIGURES[name] for name in RESOURCES),
        "most of the time",
        "front",
    )
    for point, best in zip(found, on_front(found, figures), strict=True):
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
        f"*: on the Pareto front of {listed(list(figures))}. ±: one standard deviation of the "
        "prediction."
    )
    for text, several in _notes(found).items():
        yield f"{listed(several)}: {text}"


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
                f"within the model's uncertainty: {listed(doubtful)}; --design with one of them "
                "says what hangs on it"
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
        yield "no answer hangs on less than one standard deviation of the prediction"


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
        "order": f"{doubt.point} is slower by {margin}, within the {own} by which predictions with "
        "independent errors differ",
    }[doubt.kind]
