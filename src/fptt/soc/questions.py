"""Questions of whoever designs a chip, answered from the points of an exploration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fptt.soc.constants import load_constants
from fptt.soc.explore import FIGURES, RESOURCES, Point, difference_sd

#: how many better points that fail are named
_NAMED = 3


@dataclass(frozen=True)
class Limit:
    """A figure may be at most so large.

    Attributes:
        figure: one of `FIGURES`.
        most: in its unit: seconds, bytes, or pieces.
    """

    figure: str
    most: float

    def excess(self, point: Point) -> float:
        """How far a point is over the limit, as a share of it; negative below it."""
        return point.figure(self.figure) / self.most - 1

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"figure": self.figure, "most": self.most, "unit": FIGURES[self.figure]}


@dataclass(frozen=True)
class Doubt:
    """Where the answer hangs on less than the model's uncertainty.

    Attributes:
        kind: "limit", the point keeps its latency limit by less than the uncertainty; "missed", it
            would be better and misses the limit by less; "order", it is slower by less.
        point: which.
        margin: as a share of the limit, or of the chosen point's latency.
        uncertainty: one standard deviation, as a share of the same; for "order" that of the
            difference, `difference_sd`.
    """

    kind: str
    point: Point
    margin: float
    uncertainty: float

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "kind": self.kind,
            "point": self.point.as_json(),
            "margin": self.margin,
            "uncertainty": self.uncertainty,
        }


@dataclass(frozen=True)
class Loosened:
    """What one limit alone would have to be for a point to fit.

    Attributes:
        limit: the limit as it is.
        point: the one with the least of its figure among those that keep all other limits.
    """

    limit: Limit
    point: Point

    @property
    def excess(self) -> float:
        """How much more it would have to be, as a share of the limit."""
        return self.limit.excess(self.point)

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "figure": self.limit.figure,
            "needed": self.point.figure(self.limit.figure),
            "excess": self.excess,
            "point": self.point.as_json(),
        }


@dataclass(frozen=True)
class Answer:
    """The best point within limits, and why it is not another one.

    Attributes:
        minimise: the figure that was minimised.
        limits: what must hold.
        points: how many points there were.
        fits: how many keep all limits.
        chosen: the best of these, or None.
        equal: how many others of these have the same of the figure.
        runner_up: the next one; where the size of the chip is minimised, of another chip.
        failed: for every limit, by its figure, how many points break it.
        better: points that are better and break a limit; those that break it least.
        nearest: where nothing fits, the point whose largest excess is the smallest.
        loosened: where nothing fits, the limits of which one alone could be loosened, the least
            change first.
        doubts: where the answer hangs on less than the model's uncertainty.
    """

    minimise: str
    limits: tuple[Limit, ...]
    points: int
    fits: int
    chosen: Point | None
    runner_up: Point | None
    failed: Mapping[str, int]
    better: tuple[Point, ...]
    nearest: Point | None
    loosened: tuple[Loosened, ...]
    doubts: tuple[Doubt, ...]
    equal: int = 0

    def broken(self, point: Point) -> list[Limit]:
        """The limits that a point breaks, the worst first."""
        found = [limit for limit in self.limits if limit.excess(point) > 0]
        return sorted(found, key=lambda limit: -limit.excess(point))

    def why_not(self, point: Point) -> str:
        """By how much a point breaks which limits."""
        return " and ".join(
            f"{limit.figure} {shown(limit.figure, point.figure(limit.figure))} is "
            f"{more(limit.excess(point))} {shown(limit.figure, limit.most)}"
            for limit in self.broken(point)
        )

    def message(self) -> str:
        """Why nothing fits, and what would have to change."""
        assert self.nearest is not None
        text = f"none of {self.points} points keeps " + (
            "all limits" if len(self.limits) > 1 else "the limit"
        )
        text += f"; the nearest is {self.nearest}: {self.why_not(self.nearest)}"
        ways = [
            f"{one.limit.figure} {shown(one.limit.figure, one.point.figure(one.limit.figure))} "
            f"({one.point})"
            for one in self.loosened
        ]
        if len(self.limits) > 1 and ways:
            text += f"; what it takes if one limit alone is loosened: {', or '.join(ways)}"
        elif len(self.limits) > 1:
            text += "; to loosen one limit alone does not help"
        if self.doubts:
            text += (
                f"; {self.doubts[0].point} misses the latency by less than the model's "
                f"uncertainty, {self.doubts[0].uncertainty:.1%}"
            )
        return text

    def as_json(self) -> dict[str, Any]:
        """Plain data."""

        def plain(point: Point | None) -> dict[str, Any] | None:
            if point is None:
                return None
            return point.as_json() | {
                "excess": {limit.figure: limit.excess(point) for limit in self.limits}
            }

        return {
            "minimise": self.minimise,
            "limits": [limit.as_json() for limit in self.limits],
            "points": self.points,
            "fits": self.fits,
            "chosen": plain(self.chosen),
            "equal": self.equal,
            "runner_up": plain(self.runner_up),
            "failed": dict(self.failed),
            "better": [plain(point) for point in self.better],
            "nearest": plain(self.nearest),
            "loosened": [one.as_json() for one in self.loosened],
            "doubts": [doubt.as_json() for doubt in self.doubts],
        }


def more(excess: float) -> str:
    """How much more than something, in words.

    Example:
        >>> more(0.0163), more(3.25)
        ('1.6% more than', '4.2 times')
    """
    return f"{excess:.1%} more than" if excess < 1 else f"{1 + excess:,.1f} times"


def shown(figure: str, value: float) -> str:
    """A figure with its unit.

    Example:
        >>> shown("latency", 0.70312), shown("latency", 12.3456), shown("memory", 583632)
        ('0.703 s', '12.35 s', '583,632 bytes')
        >>> shown("lut", 384080)
        '384,080 LUT'
    """
    if figure == "latency":
        return f"{value:.3f} s" if value < 10 else f"{value:,.2f} s"
    return f"{value:,.0f} {FIGURES[figure]}"


#: what decides between points that are equal in what is minimised
_TIES = ("latency", "lut", "memory")


def ask(
    points: Sequence[Point],
    minimise: str,
    limits: Iterable[Limit] = (),
    spreads: Mapping[str, float] | None = None,
) -> Answer:
    """The point with the least of a figure that keeps all limits.

    Of points that are equal in it, the one with the least latency, then LUT, then memory, then K,
    then cores; `Answer.equal` says how many others there are.

    Args:
        points: of `explore`; at least one.
        minimise: one of `FIGURES`.
        limits: what must hold; a point exactly at a limit keeps it.
        spreads: as in `difference_sd`; those of the constants that come with the package, if None.

    Example:
        >>> from fptt.soc.explore import Point
        >>> def point(cores, seconds):
        ...     return Point("4x4", cores, 28, {"tanh": seconds, "total": seconds}, 1.0, 0.02,
        ...                  583_632, None, 57_235 + 29_000 * cores, 1, 1, 1)
        >>> answer = ask([point(1, 3.3), point(4, 1.1), point(6, 0.9), point(10, 0.7)], "lut",
        ...              [Limit("latency", 1.0)])
        >>> str(answer.chosen), str(answer.runner_up), answer.failed
        ('4x4-6 with K=28', '4x4-10 with K=28', {'latency': 2})
    """
    limits = tuple(limits)
    if spreads is None:
        spreads = load_constants().spreads

    def rank(point: Point) -> tuple[float, ...]:
        order = (minimise, *_TIES)
        return (*(point.figure(name) for name in order), point.parts, point.cores)

    def keeps(point: Point) -> bool:
        return all(limit.excess(point) <= 0 for limit in limits)

    def shortfall(point: Point) -> list[float]:
        """The largest excess decides; between equal ones the next."""
        return sorted((max(0.0, limit.excess(point)) for limit in limits), reverse=True)

    def loosen(limit: Limit) -> Loosened | None:
        rest = [other for other in limits if other != limit]
        able = [point for point in ordered if all(other.excess(point) <= 0 for other in rest)]
        return Loosened(limit, min(able, key=limit.excess)) if able else None

    ordered = sorted(points, key=rank)
    fitting = [point for point in ordered if keeps(point)]
    chosen = fitting[0] if fitting else None
    others = [
        point
        for point in fitting[1:]
        if minimise not in RESOURCES or chosen is None or point.design != chosen.design
    ]
    failing = [
        point
        for point in ordered
        if not keeps(point) and (chosen is None or point.figure(minimise) < chosen.figure(minimise))
    ]
    runner_up = others[0] if others else None
    # those that fail by the least say most about what would have to change
    failing.sort(key=shortfall)
    ways = () if chosen else tuple(one for limit in limits if (one := loosen(limit)))
    return Answer(
        minimise=minimise,
        limits=limits,
        points=len(ordered),
        fits=len(fitting),
        chosen=chosen,
        runner_up=runner_up,
        failed={
            limit.figure: sum(limit.excess(point) > 0 for point in ordered) for limit in limits
        },
        better=tuple(failing[:_NAMED]) if chosen else (),
        nearest=None if chosen else failing[0],
        loosened=tuple(sorted(ways, key=lambda one: one.excess)),
        doubts=tuple(_doubts(minimise, limits, chosen, runner_up, failing, spreads)),
        equal=sum(
            chosen is not None and point.figure(minimise) == chosen.figure(minimise)
            for point in fitting[1:]
        ),
    )


def ties(minimise: str) -> list[str]:
    """What decides between points that are equal in what is minimised, in this order.

    Example:
        >>> ties("lut")
        ['latency', 'memory']
    """
    return [name for name in _TIES if name != minimise]


def best_parts(
    points: Sequence[Point],
    limits: Iterable[Limit] = (),
    spreads: Mapping[str, float] | None = None,
) -> dict[str, Answer]:
    """For every chip the K with the least latency, within limits; arguments as in `ask`.

    Returns:
        Answers by design, such as "8x8-10".
    """
    limits = tuple(limits)
    designs: dict[str, list[Point]] = {}
    for point in points:
        designs.setdefault(point.design, []).append(point)
    return {design: ask(own, "latency", limits, spreads) for design, own in designs.items()}


def why_nothing(answers: Sequence[Answer]) -> str:
    """What to say where no answer has a point."""
    if len(answers) == 1:
        return answers[0].message()
    return f"none of {len(answers)} chips keeps the limits with any K"


def _doubts(
    minimise: str,
    limits: Sequence[Limit],
    chosen: Point | None,
    runner_up: Point | None,
    failing: Sequence[Point],
    spreads: Mapping[str, float],
) -> Iterator[Doubt]:
    """What hangs on less than one standard deviation of the predicted latency."""
    for limit in limits:
        if limit.figure != "latency":
            continue
        if chosen is not None:
            own = chosen.uncertainty * chosen.latency_s / limit.most
            if -limit.excess(chosen) < own:
                yield Doubt("limit", chosen, -limit.excess(chosen), own)
        missed = 0
        for point in failing:
            margin = limit.excess(point)
            own = point.uncertainty * point.latency_s / limit.most
            only = all(other.excess(point) <= 0 for other in limits if other != limit)
            if only and margin < own and missed < _NAMED:
                missed += 1
                yield Doubt("missed", point, margin, own)
    if minimise == "latency" and chosen is not None and runner_up is not None:
        margin = runner_up.latency_s / chosen.latency_s - 1
        own = difference_sd(chosen, runner_up, spreads) / chosen.latency_s
        if margin < own:
            yield Doubt("order", runner_up, margin, own)
