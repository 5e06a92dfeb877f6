"""Design points: every chip with every K, what it takes and how long it trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fptt.soc.chip import Chip
from fptt.soc.constants import Constants, load_constants
from fptt.soc.cycles import cycles
from fptt.soc.pareto import front
from fptt.soc.resources import resources
from fptt.soc.uncertainty import uncertainty
from fptt.soc.workload import Workload

#: what can be minimised and limited, and its unit
FIGURES = {
    "latency": "s",
    "memory": "bytes",
    "lut": "LUT",
    "ff": "FF",
    "bram": "BRAM",
    "dsp": "DSP",
}
#: those that say how large a chip is
RESOURCES = ("lut", "ff", "bram", "dsp")
#: what is weighed against what, if nothing else is asked for
FRONT = ("latency", "memory", "lut")


@dataclass(frozen=True)
class Training:
    """What a chip is given to do: one pass over a batch in K parts.

    Attributes:
        parts: K.
        workload: the work list.
        memory_bytes: arena and constant data of our program, exact.
        published_memory_bytes: of the published program in the same number type, where a figure
            was published.
    """

    parts: int
    workload: Workload
    memory_bytes: int
    published_memory_bytes: int | None = None


@dataclass(frozen=True)
class Point:
    """A chip that trains with one K.

    Attributes:
        mesh: of the matrix unit, such as "4x4".
        cores: scalar cores.
        parts: K.
        cycles: predicted, by function class; "total" is their sum.
        clock_hz: of the chip.
        uncertainty: one standard deviation of the total's prediction, as a share of it.
        memory_bytes, published_memory_bytes: as in `Training`.
        lut, ff, bram, dsp: of the whole system on an FPGA, predicted.
        extrapolated: why no published row backs these; None where one does.
        too_large: why the system does not fit on the FPGA of the published one; None where it does.
        chip: the name of the chip whose array and cores these are.
        named: whether `design` begins with that name: where several chips are compared.
    """

    mesh: str
    cores: int
    parts: int
    cycles: Mapping[str, float]
    clock_hz: float
    uncertainty: float
    memory_bytes: int
    published_memory_bytes: int | None
    lut: int
    ff: int
    bram: int
    dsp: int
    extrapolated: str | None = None
    too_large: str | None = None
    chip: str = "published"
    named: bool = False

    @property
    def design(self) -> str:
        """The name among the design points: "8x8-10", of several chips "gemmini-fp32 8x8-10"."""
        return (f"{self.chip} " if self.named else "") + f"{self.mesh}-{self.cores}"

    @property
    def latency_s(self) -> float:
        """Seconds of one pass."""
        return self.cycles["total"] / self.clock_hz

    @property
    def classes(self) -> dict[str, float]:
        """Cycles by function class, without their total."""
        return {name: value for name, value in self.cycles.items() if name != "total"}

    @property
    def dominant(self) -> tuple[str, float]:
        """The function class that takes most of the time, and its share of it."""
        name, most = max(self.classes.items(), key=lambda item: item[1])
        return name, most / self.cycles["total"]

    def figure(self, name: str) -> float:
        """One of `FIGURES`."""
        if name == "latency":
            return self.latency_s
        return float(self.memory_bytes if name == "memory" else getattr(self, name))

    def __str__(self) -> str:
        return f"{self.design} with K={self.parts}"

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        name, share = self.dominant
        return {
            "design": self.design,
            "chip": self.chip,
            "mesh": self.mesh,
            "cores": self.cores,
            "parts": self.parts,
            "clock_hz": self.clock_hz,
            "latency_s": self.latency_s,
            "latency_sd_s": self.latency_s * self.uncertainty,
            "memory_bytes": self.memory_bytes,
            "published_memory_bytes": self.published_memory_bytes,
            **{figure: getattr(self, figure) for figure in RESOURCES},
            "extrapolated": self.extrapolated,
            "too_large": self.too_large,
            "dominant": name,
            "dominant_share": share,
        }


def difference_sd(one: Point, other: Point, spreads: Mapping[str, float]) -> float:
    """Standard deviation of the difference of two predicted latencies, in seconds.

        variance = sum over classes c ((A_c - B_c) spread_c)^2 + rest

    where A_c and B_c are the seconds of a function class, and a point's rest r is what its own
    uncertainty has beyond its classes: r^2 = (uncertainty * total)^2 - sum (A_c spread_c)^2.

    Assumed: a class is wrong by the same factor at both points, and classes err independently of
    each other. The rest is what numbers of cores, arrays and loops that nobody measured add: on the
    same chip it is the same factor too, (r_A - r_B)^2; of different chips independent,
    r_A^2 + r_B^2. A class's error does change somewhat with K and the chip, so this is the least
    that the standard deviation can be.

    Args:
        one, other: the points.
        spreads: of `Constants`: the standard deviation of each class, a share of it.

    Example:
        >>> def point(cores, seconds):
        ...     return Point("4x4", cores, 28, {"tanh": seconds, "total": seconds}, 1.0, 0.02,
        ...                  0, None, 1, 1, 1, 1)
        >>> round(difference_sd(point(1, 3.0), point(1, 2.5), {"tanh": 0.02}), 6)
        0.01
        >>> round(difference_sd(point(1, 4.0), point(4, 3.0), {}), 6)
        0.1
    """
    names = {*one.classes, *other.classes}
    shares = {name: spreads.get(name, 0.0) for name in names}

    def rest(point: Point) -> float:
        own = point.uncertainty * point.latency_s
        known = math.hypot(*(value * shares[name] for name, value in _seconds(point).items()))
        return math.sqrt(max(0.0, own**2 - known**2))

    first, second = _seconds(one), _seconds(other)
    classes = [
        (first.get(name, 0.0) - second.get(name, 0.0)) * share for name, share in shares.items()
    ]
    same = (one.chip, one.design) == (other.chip, other.design)
    rests = [rest(one) - rest(other)] if same else [rest(one), rest(other)]
    return math.hypot(*classes, *rests)


def _seconds(point: Point) -> dict[str, float]:
    return {name: value / point.clock_hz for name, value in point.classes.items()}


def explore(
    chips: Iterable[Chip],
    trainings: Sequence[Training] | Mapping[str, Sequence[Training]],
    constants: Constants | None = None,
    *,
    on_point: Callable[[], None] = lambda: None,
) -> list[Point]:
    """What every training costs on every chip, in the order given.

    Args:
        chips: the design points.
        trainings: one for each K; or these for each number type of the chips, such as "bf16".
        constants: of the cycle model; those that come with the package, if None.
        on_point: called after every point.

    Example:
        >>> from fptt.soc.chip import load_chip
        >>> from fptt.soc.workload import published
        >>> [point] = explore([load_chip("4x4-1")], [Training(28, published(28), 583_632, 914_344)])
        >>> point.design, point.parts, point.lut
        ('4x4-1', 28, 86235)
        >>> point.cycles["total"] == sum(point.classes.values())
        True
    """
    known = constants or load_constants()
    chips, points = list(chips), []
    named = len({chip.name for chip in chips}) > 1
    for chip in chips:
        size = resources(chip)
        own = trainings[chip.data_type] if isinstance(trainings, Mapping) else trainings
        for training in own:
            points.append(
                Point(
                    mesh=chip.mesh_name,
                    cores=chip.cores,
                    parts=training.parts,
                    cycles=cycles(chip, training.workload, known),
                    clock_hz=chip.clock_hz,
                    uncertainty=uncertainty(chip, training.workload, known),
                    memory_bytes=training.memory_bytes,
                    published_memory_bytes=training.published_memory_bytes,
                    lut=size.lut,
                    ff=size.ff,
                    bram=size.bram,
                    dsp=size.dsp,
                    extrapolated=size.extrapolated,
                    too_large=size.lacks(),
                    chip=chip.name,
                    named=named,
                )
            )
            on_point()
    return points


def on_front(points: Sequence[Point], figures: Sequence[str] = FRONT) -> list[bool]:
    """Whether no other point is nowhere worse and somewhere better in these figures."""
    return front([[point.figure(name) for name in figures] for point in points])


def rows(
    points: Sequence[Point], figures: Sequence[str] = FRONT, *, only_front: bool = False
) -> list[dict[str, Any]]:
    """Plain data: one row for each point and function class, and one for the total.

    Args:
        points: of `explore`.
        figures: what the front weighs.
        only_front: leaves out the points that are not on the front of all of them.
    """
    found = []
    for point, best in zip(points, on_front(points, figures), strict=True):
        if only_front and not best:
            continue
        plain = point.as_json()
        classes = {function: round(value) for function, value in point.classes.items()}
        own = {
            name: plain[name]
            for name in (
                *("chip", "design", "clock_hz", "memory_bytes", "published_memory_bytes"),
                *(*RESOURCES, "extrapolated", "too_large"),
            )
        }
        found += [
            {
                "mesh": point.mesh,
                "cores": point.cores,
                "parts": point.parts,
                "function": function,
                "cycles": value,
                "seconds": value / point.clock_hz,
                **own,
                "uncertainty": point.uncertainty,
                "front": best,
            }
            for function, value in (*classes.items(), ("total", sum(classes.values())))
        ]
    return found
