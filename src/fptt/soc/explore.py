"""Design points: every chip with every K, what it takes and how long it trains."""

from __future__ import annotations

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

    @property
    def design(self) -> str:
        """The chip's name among the design points, such as "8x8-10"."""
        return f"{self.mesh}-{self.cores}"

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
            "mesh": self.mesh,
            "cores": self.cores,
            "parts": self.parts,
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


def explore(
    chips: Iterable[Chip],
    trainings: Sequence[Training],
    constants: Constants | None = None,
    *,
    on_point: Callable[[], None] = lambda: None,
) -> list[Point]:
    """What every training costs on every chip, in the order given.

    Args:
        chips: the design points.
        trainings: one for each K.
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
    points = []
    for chip in chips:
        size = resources(chip)
        for training in trainings:
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
                )
            )
            on_point()
    return points


def on_front(points: Sequence[Point], figures: Sequence[str] = FRONT) -> list[bool]:
    """Whether no other point is nowhere worse and somewhere better in these figures."""
    return front([[point.figure(name) for name in figures] for point in points])


def rows(points: Sequence[Point], figures: Sequence[str] = FRONT) -> list[dict[str, Any]]:
    """Plain data: one row for each point and function class, and one for the total."""
    found = []
    for point, best in zip(points, on_front(points, figures), strict=True):
        plain = point.as_json()
        own = {
            name: plain[name]
            for name in (
                *("design", "memory_bytes", "published_memory_bytes", *RESOURCES),
                *("extrapolated", "too_large"),
            )
        }
        found += [
            {
                "mesh": point.mesh,
                "cores": point.cores,
                "parts": point.parts,
                "function": function,
                "cycles": round(value),
                "seconds": value / point.clock_hz,
                **own,
                "uncertainty": point.uncertainty,
                "front": best,
            }
            for function, value in (*point.classes.items(), ("total", point.cycles["total"]))
        ]
    return found
