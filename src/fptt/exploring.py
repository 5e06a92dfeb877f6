"""What `fptt explore` compares: which chips, and what is trained on them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from fptt.errors import InputError
from fptt.nets import LSTM, Linear, Network
from fptt.program import Program, build
from fptt.published import PUBLISHED_BYTES
from fptt.rules import FPTT, SGD, Optimizer, Rule
from fptt.soc.chip import PUBLISHED_CORES, PUBLISHED_MESHES, Chip, load_chip
from fptt.soc.explore import Training
from fptt.soc.measurements import read_measurements
from fptt.soc.publications import published_measurements
from fptt.soc.validation import MEASURED
from fptt.soc.workload import of_program, published

#: K of the published grid
PARTS = (1, 2, 7, 14, 28, 56, 112, 392, 784)
#: the published workload
STEPS, BATCH = 784, 4
#: a chip's number type as programs call it
_DTYPES = {"bf16": "bfloat16", "fp32": "float32"}


def dtype(chip: Chip) -> str:
    """The number type of programs for a chip.

    Example:
        >>> dtype(load_chip("published"))
        'bfloat16'
    """
    return _DTYPES[chip.data_type]


def read_mesh(text: str, option: str = "--mesh") -> int:
    """Reads "8x8".

    Raises:
        InputError: something else, or an array that is not square.

    Example:
        >>> read_mesh("8x8")
        8
    """
    match = re.fullmatch(r"\s*(\d+)x(\d+)\s*", text, re.ASCII)
    if match is None or match[1] != match[2]:
        raise InputError(
            f"{option} is {text!r}; give square arrays such as 4x4, or several: 4x4,8x8"
        )
    return int(match[1])


def read_design(text: str, option: str = "--design") -> tuple[int, int]:
    """Reads "8x8-10": the array and the number of cores.

    Raises:
        InputError: something else.

    Example:
        >>> read_design("8x8-10")
        (8, 10)
    """
    match = re.fullmatch(r"\s*(\d+)x(\d+)-0*([1-9]\d*)\s*", text, re.ASCII)
    if match is None or match[1] != match[2]:
        raise InputError(f"{option} is {text!r}; give a square array and its cores, such as 8x8-10")
    return int(match[1]), int(match[3])


def chips(
    name: str,
    *,
    meshes: Sequence[int] | None = None,
    cores: Sequence[int] | None = None,
    designs: Sequence[tuple[int, int]] | None = None,
    clock_hz: float | None = None,
) -> list[Chip]:
    """The chips of a grid.

    Args:
        name: the chip that gives everything but array and cores, see `fptt.soc.chip.load_chip`; or
            several, "published,gemmini-fp32".
        meshes, cores: of the grid. By default the published system comes in its twelve points, any
            other chip as it is.
        designs: instead, single points: array and cores.
        clock_hz: by default the chip's own.

    Raises:
        InputError: no such chip, one that cannot be, or two that would be called the same.

    Example:
        >>> [chip.design for chip in chips("published", cores=[1, 10])]
        ['4x4-1', '4x4-10', '8x8-1', '8x8-10']
        >>> [chip.design for chip in chips("8x8-10")]
        ['8x8-10']
        >>> [chip.name for chip in chips("rocket,gemmini-fp32")]
        ['rocket', 'gemmini-fp32']
    """
    found: dict[tuple[str, str], Chip] = {}
    for one in dict.fromkeys(name.split(",")):
        base = load_chip(one)
        if clock_hz is not None:
            base = base.with_(clock_hz=clock_hz)
        points = designs
        if points is None:
            whole = one == "published"
            points = [
                (mesh, n)
                for mesh in meshes or (PUBLISHED_MESHES if whole else [base.mesh])
                for n in cores or (PUBLISHED_CORES if whole else [base.cores])
            ]
        for mesh, n in dict.fromkeys(points):
            chip = base.with_(mesh=mesh, cores=n)
            if found.setdefault((chip.name, chip.design), chip) != chip:
                raise InputError(
                    f"--chip is {name!r}; two different chips in it are called {chip.name!r}; give "
                    "each file a name of its own"
                )
    return list(found.values())


@dataclass(frozen=True)
class Trained:
    """What chips of a number type are compared on.

    Attributes:
        what: is trained, and how.
        dtype: the number type.
        trainings: for each K.
        marks: what others have measured of the same training.
        ours: whether it is a program of ours, and not the published one.
    """

    what: str
    dtype: str
    trainings: Sequence[Training]
    marks: Sequence[Mark]
    ours: bool = True

    @property
    def subject(self) -> str:
        """In a line."""
        return f"{self.what}, {self.dtype}"


@dataclass(frozen=True)
class Compared:
    """What several chips are compared on.

    Attributes:
        subject: in a line, with number types and clocks.
        trainings: for each number type of the chips, such as "bf16", and each K.
        marks, ours: as in `Trained`.
    """

    subject: str
    trainings: Mapping[str, Sequence[Training]]
    marks: Sequence[Mark]
    ours: bool


def compared(several: Sequence[Chip], trained: Callable[[str], Trained]) -> Compared:
    """The same training on every chip, in each chip's number type.

    Args:
        several: the chips; at least one.
        trained: number type -> what is trained.

    Example:
        >>> found = compared(chips("published,gemmini-fp32", cores=[1]),
        ...                  lambda dtype: published_program([28], dtype))
        >>> found.subject.split(", batch 4, ")[1]
        'bfloat16 (published) and float32 (gemmini-fp32), at 500 MHz'
        >>> {name: one[0].memory_bytes for name, one in found.trainings.items()}
        {'bf16': 583632, 'fp32': 1167200}
    """
    found = {one: trained(_DTYPES[one]) for one in dict.fromkeys(c.data_type for c in several)}
    first = next(iter(found.values()))
    types = _by_chip({chip.name: dtype(chip) for chip in several})
    clocks = _by_chip({chip.name: f"{chip.clock_hz / 1e6:,g} MHz" for chip in several})
    return Compared(
        f"{first.what}, {types}, at {clocks}",
        {name: one.trainings for name, one in found.items()},
        first.marks,
        first.ours,
    )


def _by_chip(values: Mapping[str, str]) -> str:
    """A value, or where chips differ those of each."""
    different: dict[str, list[str]] = {}
    for chip, value in values.items():
        different.setdefault(value, []).append(chip)
    if len(different) == 1:
        return next(iter(different))
    return " and ".join(f"{value} ({', '.join(own)})" for value, own in different.items())


def programs(
    net: Network,
    rule: Callable[[int], Rule],
    parts: Iterable[int],
    optimizer: Optimizer | None = None,
    **options: Any,
) -> Trained:
    """A user's network, one program for each K; options as in `fptt.build`.

    Example:
        >>> net = Network([LSTM(1, 8), Linear(8, 10)])
        >>> found = programs(net, lambda k: FPTT(parts=k), [4], steps=28, batch=2)
        >>> print(found.subject.replace(", SGD", ",\\nSGD"))  # doctest: +ELLIPSIS
        LSTM(1, 8) - Linear(8, 10), FPTT(state='reset', source='bptt', ..., regularise=True, ...),
        SGD(lr=0.01, momentum=0.0), loss last, T=28, batch 2, float32
        >>> program = build(net, FPTT(parts=4), steps=28, batch=2)
        >>> found.trainings[0].memory_bytes == program.memory().total_bytes
        True
    """
    built = [build(net, rule(k), optimizer, **options) for k in parts]
    first = built[0]
    return Trained(
        f"{first.net}, {_settings(first)}, T={first.steps}, batch {first.batch}",
        first.dtype,
        [Training(one.rule.parts, of_program(one), one.memory().total_bytes) for one in built],
        published_marks(first.net, first.steps, first.batch),
    )


def _settings(program: Program) -> str:
    """How a program trains: all that tells two settings apart but K."""
    rule = program.rule
    options = ", ".join(
        f"{f.name}={getattr(rule, f.name)!r}" for f in fields(rule) if f.name != "parts"
    )
    found = [f"{type(rule).__name__}({options})", f"{program.optimizer}"]
    found.append(f"loss {program.schedule.name}")
    if program.criterion != "cross_entropy":
        found.append(program.criterion)
    if program.clip is not None:
        found.append(f"clip {program.clip:g}")
    if tuple(program.train) != ("*",):
        found.append(f"trains {' '.join(program.train)}")
    if program.recompute:
        found.append("recompute")
    return ", ".join(found)


def published_program(parts: Iterable[int], number_type: str) -> Trained:
    """The published workload: LSTM 1-128-10, T = 784, batch 4, plain SGD, R(t).

    Memory is that of our program of the same network; that of theirs stands beside it where it was
    published.

    Raises:
        InputError: a K above 784.

    Example:
        >>> [one] = published_program([28], "bfloat16").trainings
        >>> one.memory_bytes, one.published_memory_bytes
        (583632, 914344)
    """
    net, trainings = published_network(), []
    for k in parts:
        size = our_program(k, number_type).memory().total_bytes
        trainings.append(Training(k, published(k), size, _published_bytes(k, number_type)))
    return Trained(
        f"{net}, the published program (memory: that of our program of the same network), "
        f"T={STEPS}, batch {BATCH}",
        number_type,
        trainings,
        published_marks(net, STEPS, BATCH),
        ours=False,
    )


def our_program(parts: int, number_type: str) -> Program:
    """Our program of the published workload.

    Example:
        >>> our_program(28, "bfloat16").memory().total_bytes
        583632
    """
    return build(
        published_network(),
        FPTT(parts=parts),
        SGD(lr=0.01),
        steps=STEPS,
        batch=BATCH,
        dtype=number_type,
    )


def _published_bytes(parts: int, number_type: str) -> int | None:
    found = PUBLISHED_BYTES.get(parts)
    return found // 2 if found is not None and number_type == "bfloat16" else found


def published_network() -> Network:
    """The network of the published workload."""
    return Network([LSTM(1, 128), Linear(128, 10)])


@dataclass(frozen=True)
class Mark:
    """A published measurement, to stand beside predictions.

    Attributes:
        name: of the system.
        kind: "rocket", "chip" or "gpu", as in `fptt.soc.publications.PublishedTime`.
        parts: K.
        latency_s: of one pass.
        figures: others that were published, by name: "memory", "cores", "lut", ...
    """

    name: str
    kind: str
    parts: int
    latency_s: float
    figures: Mapping[str, float]


def published_marks(net: Network, steps: int, batch: int) -> list[Mark]:
    """What was measured of the published workload; nothing for any other training.

    Example:
        >>> marks = published_marks(published_network(), 784, 4)
        >>> [mark for mark in marks if mark.name == "8x8-10"][1].figures["memory"]
        914344
        >>> published_marks(published_network(), 28, 4)
        []
    """
    if str(net) != str(published_network()) or (steps, batch) != (STEPS, BATCH):
        return []
    measured = published_measurements()
    found = [
        Mark(row.name, row.kind, k, latency, _known(row.chip, k))
        for row in measured.times
        for k, latency in row.seconds.items()
    ]
    there = {(mark.name, mark.parts) for mark in found}
    return found + [
        Mark(
            point.design,
            "chip",
            point.parts,
            point.cycles["total"] / load_chip(point.design).clock_hz,
            _known(point.design, point.parts),
        )
        for point in read_measurements(MEASURED)
        if (point.design, point.parts) not in there
    ]


def _known(name: str, parts: int) -> dict[str, float]:
    """What was published of a chip besides its time; nothing of what is none of our chips."""
    if not name:
        return {}
    chip = load_chip(name)
    found: dict[str, float] = {"cores": chip.cores}
    size = _published_bytes(parts, dtype(chip))
    if size is not None:
        found["memory"] = size
    for row in published_measurements().resources:
        if (row.part, row.chip) == ("system", name):
            found |= {"lut": row.lut, "ff": row.ff, "bram": row.bram[1], "dsp": row.dsp}
    return found
