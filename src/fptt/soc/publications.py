"""Published figures of the system on chip: marks for plots and tables, and the resource model.

No cycle is predicted from them. They are in `data/publications.toml`, each with its unit
and its source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fptt.errors import InputError
from fptt.soc.datafile import FOLDER, known_keys, read_toml, text

_FILE = FOLDER / "publications.toml"
_RESOURCES = ("lut", "ff", "bram", "dsp")


@dataclass(frozen=True)
class PublishedTime:
    """Seconds of the published workload somewhere.

    Attributes:
        name: of the system.
        kind: "rocket" (one core alone), "chip" (a design point) or "gpu".
        chip: what `fptt.soc.chip.load_chip` calls it; "" for what is none of our chips.
        seconds: of one pass, by K.
        source: who published it.
    """

    name: str
    kind: str
    chip: str
    seconds: Mapping[int, float]
    source: str


@dataclass(frozen=True)
class PublishedResources:
    """What the published system takes on an FPGA.

    Attributes:
        name: of the row.
        part: "gemmini" (the array alone), "system" (everything) or "core" (what one more adds).
        chip: as in `PublishedTime`.
        lut, ff, dsp: look-up tables, flip-flops and DSP slices.
        bram: block RAMs of 36 Kibit: the least and the most that is stated.
        source: who published it.
    """

    name: str
    part: str
    chip: str
    lut: int
    ff: int
    bram: tuple[int, int]
    dsp: int
    source: str


@dataclass(frozen=True)
class Fpga:
    """What an FPGA has: look-up tables, flip-flops, block RAMs of 36 Kibit and DSP slices."""

    name: str
    lut: int
    ff: int
    bram: int
    dsp: int
    source: str


@dataclass(frozen=True)
class Measurements:
    """All of the file.

    Attributes:
        workload: what `times` are of, in words.
    """

    workload: str
    times: tuple[PublishedTime, ...]
    resources: tuple[PublishedResources, ...]
    fpgas: tuple[Fpga, ...]

    def time(self, name: str) -> PublishedTime:
        """By its name.

        Raises:
            InputError: there is none; the message lists them.
        """
        return self.times[_index(self.times, name)]

    def fpga(self, name: str) -> Fpga:
        """By its name.

        Raises:
            InputError: there is none; the message lists them.
        """
        return self.fpgas[_index(self.fpgas, name)]


def _index(rows: Sequence[PublishedTime | Fpga], name: str) -> int:
    names = [row.name for row in rows]
    if name not in names:
        raise InputError(f"no {name!r}; expected one of {', '.join(names)}")
    return names.index(name)


@cache
def published_measurements() -> Measurements:
    """What was published.

    Example:
        >>> found = published_measurements()
        >>> [row.name for row in found.times]
        ['single Rocket', '4x4-1', '8x8-10', 'T4', 'L4', 'V100']
        >>> found.time("8x8-10").seconds[28], found.fpga("VCU118").dsp
        (0.7, 6840)
    """
    return read_measurements(_FILE)


def read_measurements(path: Path) -> Measurements:
    """A file of this form.

    Raises:
        InputError: it is not; the message names file, key, what was given and what is expected.
    """
    content = read_toml(path, "published measurements")
    known_keys(path, "", content, ("workload", "time", "resources", "fpga"))
    return Measurements(
        text(path, "workload", content["workload"]),
        tuple(_time(path, row) for row in _rows(path, "time", content, "kind", "chip", "seconds")),
        tuple(
            _resources(path, row)
            for row in _rows(path, "resources", content, "part", "chip", *_RESOURCES)
        ),
        tuple(_fpga(path, row) for row in _rows(path, "fpga", content, *_RESOURCES)),
    )


def _rows(path: Path, key: str, content: Mapping[str, Any], *own: str) -> list[dict[str, Any]]:
    rows = content[key]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: {key} is {rows!r}; expected tables [[{key}]]")
    for i, row in enumerate(rows):
        where = f"{key}[{i}]"
        known_keys(path, f"{where}: ", row, ("name", "unit", "source", *own))
        for part in ("name", "unit", "source"):
            text(path, f"{where}.{part}", row[part])
    return rows


def _time(path: Path, row: Mapping[str, Any]) -> PublishedTime:
    where = f"time {row['name']}"
    _choice(path, f"{where}.kind", row["kind"], ("rocket", "chip", "gpu"))
    if row["unit"] != "s":
        raise InputError(f"{path}: {where}.unit is {row['unit']!r}; expected 's'")
    given = row["seconds"]
    if not isinstance(given, dict) or not all(
        k.isdecimal() and type(v) in (int, float) and v > 0 for k, v in given.items()
    ):
        raise InputError(f"{path}: {where}.seconds is {given!r}; expected seconds above 0 by K")
    seconds = {int(parts): float(value) for parts, value in given.items()}
    return PublishedTime(row["name"], row["kind"], row["chip"], seconds, row["source"])


def _resources(path: Path, row: Mapping[str, Any]) -> PublishedResources:
    where = f"resources {row['name']}"
    _choice(path, f"{where}.part", row["part"], ("gemmini", "system", "core"))
    bram = row["bram"]
    if not isinstance(bram, list) or len(bram) != 2:
        raise InputError(f"{path}: {where}.bram is {bram!r}; expected the least and the most")
    least, most = (_count(path, f"{where}.bram", number) for number in bram)
    lut, ff, dsp = (_count(path, f"{where}.{key}", row[key]) for key in ("lut", "ff", "dsp"))
    return PublishedResources(
        row["name"], row["part"], row["chip"], lut, ff, (least, most), dsp, row["source"]
    )


def _fpga(path: Path, row: Mapping[str, Any]) -> Fpga:
    lut, ff, bram, dsp = (_count(path, f"fpga {row['name']}.{key}", row[key]) for key in _RESOURCES)
    return Fpga(row["name"], lut, ff, bram, dsp, row["source"])


def _choice(path: Path, key: str, given: object, choices: tuple[str, ...]) -> None:
    if given not in choices:
        raise InputError(f"{path}: {key} is {given!r}; expected {' or '.join(choices)}")


def _count(path: Path, key: str, given: object) -> int:
    if type(given) is not int or given < 0:
        raise InputError(f"{path}: {key} is {given!r}; expected a whole number of at least 0")
    return given
