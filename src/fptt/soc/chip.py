"""Chips: Rocket cores, a Gemmini systolic array and memories, each a validated data file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from fptt.errors import InputError
from fptt.soc.datafile import FOLDER, Entry, entry, known_keys, read_toml, text

#: bits of a number
DATA_TYPES = {"bf16": 16, "fp32": 32}
DATAFLOWS = ("WS", "OS", "BOTH")
#: the design points of the published system
PUBLISHED_MESHES = (4, 8)
PUBLISHED_CORES = (1, 2, 4, 6, 8, 10)

#: beyond these a model of cycles means nothing
_MOST = {"mesh": 1024, "cores": 4096, "clock_hz": 1e12}
_LEAST_HZ = 1e3

_POINT = re.compile(r"(\d+)x(\d+)-(\d+)")


@dataclass(frozen=True)
class _Key:
    """What a key's entry must be."""

    unit: str
    kind: type = int
    least: int = 1
    power_of_two: bool = False
    choices: tuple[str, ...] = ()

    def wanted(self) -> str:
        """In words."""
        if self.choices:
            return " or ".join(self.choices)
        if self.kind is int:
            power = ", a power of two" if self.power_of_two else ""
            return f"a whole number of at least {self.least}{power}"
        return {bool: "true or false", float: "a number above 0", str: "text"}[self.kind]

    def fits(self, value: object) -> bool:
        if self.kind is float:
            return type(value) in (int, float) and 0 < float(value) < float("inf")  # type: ignore[arg-type]
        if type(value) is not self.kind:  # True is an int as well, and no number of cores
            return False
        if isinstance(value, int) and self.kind is int:
            return value >= self.least and not (self.power_of_two and value & (value - 1))
        return not self.choices or value in self.choices


_TYPES = tuple(DATA_TYPES)
_SCHEMA = {
    "cores": _Key("cores"),
    "isa": _Key("ISA", str),
    "mesh_rows": _Key("PEs", least=0, power_of_two=True),
    "mesh_columns": _Key("PEs", least=0, power_of_two=True),
    "dataflow": _Key("dataflow", str, choices=DATAFLOWS),
    "data_type": _Key("type", str, choices=_TYPES),
    "output_type": _Key("type", str, choices=_TYPES),
    "accumulator_type": _Key("type", str, choices=_TYPES),
    "scratchpad_kib": _Key("KiB", least=0),
    "scratchpad_banks": _Key("banks", power_of_two=True),
    "accumulator_kib": _Key("KiB", least=0),
    "accumulator_banks": _Key("banks", power_of_two=True),
    "convolution_paths": _Key("boolean", bool),
    "icache_kib": _Key("KiB", power_of_two=True),
    "dcache_kib": _Key("KiB", power_of_two=True),
    "line_bytes": _Key("bytes", least=8, power_of_two=True),
    "l2_kib": _Key("KiB", power_of_two=True),
    "l2_banks": _Key("banks", power_of_two=True),
    "bus_bits": _Key("bits", least=8, power_of_two=True),
    "clock_hz": _Key("Hz", float),
    "emulated_bf16": _Key("boolean", bool),
}


@dataclass(frozen=True)
class Chip:
    """A system on chip, in plain numbers.

    One Gemmini array of mesh x mesh processing elements (PEs) does the matrix products; the cores
    do the rest. Every number's origin is in `sources`.

    Attributes:
        name: of the file it came from.
        description: one line for people.
        cores: Rocket cores, in order.
        isa: their instruction set.
        mesh: PEs along a side of the array, DIM in Gemmini's terms; 0 for a chip without one.
        dataflow: "WS" (weight stationary), "OS" (output stationary) or "BOTH".
        data_type: "bf16" or "fp32": what the array reads; `DATA_TYPES` has the bits.
        output_type: of the partial sums inside the array.
        accumulator_type: of the accumulator's numbers.
        scratchpad_kib, scratchpad_banks: the array's memory for operands.
        accumulator_kib, accumulator_banks: its memory for results.
        convolution_paths: whether the array has those for pooling, depthwise convolution and the
            first layer of images.
        icache_kib, dcache_kib: of each core.
        line_bytes: a cache line.
        l2_kib, l2_banks: the cache that all share.
        bus_bits: width of the system bus.
        clock_hz: of everything.
        emulated_bf16: whether scalar bfloat16 operations are done in software.
        extras: numbers of units that are no part of the published system, by name.
        sources: key -> who says so: a citation, a file of Chipyard or Gemmini, or an assumption.

    Example:
        >>> chip = load_chip("published").with_(mesh=8, cores=10)
        >>> chip.design, chip.mesh_name, chip.data_type, chip.scratchpad_kib, chip.clock_hz
        ('8x8-10', '8x8', 'bf16', 128, 500000000.0)
    """

    name: str
    description: str
    cores: int
    isa: str
    mesh: int
    dataflow: str
    data_type: str
    output_type: str
    accumulator_type: str
    scratchpad_kib: int
    scratchpad_banks: int
    accumulator_kib: int
    accumulator_banks: int
    convolution_paths: bool
    icache_kib: int
    dcache_kib: int
    line_bytes: int
    l2_kib: int
    l2_banks: int
    bus_bits: int
    clock_hz: float
    emulated_bf16: bool
    extras: Mapping[str, float] = field(default_factory=dict, hash=False)
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def mesh_name(self) -> str:
        """As in the calibration file: "4x4"."""
        return f"{self.mesh}x{self.mesh}"

    @property
    def design(self) -> str:
        """Mesh and cores, as the published design points are called: "8x8-10"."""
        return f"{self.mesh_name}-{self.cores}"

    def with_(self, **changes: Any) -> Chip:
        """This chip with other values; what is changed has the source "assumption: chosen ...".

        A mesh and a number of cores of the published points keep the published source.

        Raises:
            InputError: a name that no chip has, or a value that it cannot have.

        Example:
            >>> load_chip("published").with_(cores=6).sources["cores"]
            'Zhang et al., VLSI-SoC 2024 and JLPEA 15(1):15, 2025: 1 to 10 cores'
            >>> load_chip("published").with_(cores=5).sources["cores"]
            'assumption: chosen, not the 1 of published'
        """
        free = {"name", "description", "extras"}
        sources = dict(self.sources)
        for key, value in changes.items():
            if key in free:
                continue
            _check_value(f"chip {self.name}", key, value)
            if value == getattr(self, key) or self._is_published(key, value):
                continue
            source = f"assumption: chosen, not the {getattr(self, key)} of {self.name}"
            sources |= dict.fromkeys(_file_keys(key), source)
        for name, number in changes.get("extras", {}).items():
            if name not in self.extras or self.extras[name] != number:
                sources[f"extras.{name}"] = "assumption: chosen"
        if "clock_hz" in changes:
            changes["clock_hz"] = float(changes["clock_hz"])
        chip = replace(self, **changes, sources=sources)
        _check_whole(f"chip {self.name}", chip)
        return chip

    def _is_published(self, key: str, value: object) -> bool:
        points = {"mesh": PUBLISHED_MESHES, "cores": PUBLISHED_CORES}
        if value not in points.get(key, ()):
            return False
        published = load_chip("published").sources
        return all(self.sources.get(part) == published[part] for part in _file_keys(key))


def _file_keys(key: str) -> tuple[str, ...]:
    """The keys in a file of what is one attribute."""
    return ("mesh_rows", "mesh_columns") if key == "mesh" else (key,)


def _check_value(where: object, key: str, value: object) -> None:
    wanted = _SCHEMA.get("mesh_rows" if key == "mesh" else key)
    if wanted is None or key in ("mesh_rows", "mesh_columns"):
        known = [f.name for f in fields(Chip) if f.name != "sources"]
        raise InputError(f"{where}: unknown key {key!r}; expected one of {', '.join(known)}")
    if not wanted.fits(value):
        raise InputError(f"{where}: {key} is {value!r}; expected {wanted.wanted()}")


def _check_whole(where: object, chip: Chip) -> None:
    """What no key alone can tell."""
    if chip.mesh == 1:
        raise InputError(
            f"{where}: mesh is 1; expected at least 2, which Gemmini requires, or 0 for no array"
        )
    for key, most in _MOST.items():
        if getattr(chip, key) > most:
            raise InputError(f"{where}: {key} is {getattr(chip, key)}; expected at most {most}")
    if chip.clock_hz < _LEAST_HZ:
        raise InputError(f"{where}: clock_hz is {chip.clock_hz}; expected at least {_LEAST_HZ:g}")
    if chip.emulated_bf16 and chip.data_type != "bf16":
        raise InputError(
            f"{where}: emulated_bf16 is true with data_type {chip.data_type}; expected false, or "
            "data_type bf16"
        )
    for key in ("scratchpad_kib", "accumulator_kib"):
        if (chip.mesh == 0) != (getattr(chip, key) == 0):
            raise InputError(
                f"{where}: {key} is {getattr(chip, key)} with a mesh of {chip.mesh}; expected 0 "
                "without an array, and more with one"
            )
    if chip.l2_kib < chip.l2_banks:
        raise InputError(
            f"{where}: l2_banks is {chip.l2_banks}; expected at most {chip.l2_kib}, one for a KiB"
        )


def load_chip(name: str | Path = "published") -> Chip:
    """A chip, from its data file.

    Args:
        name: one of `available_chips`, a point of the published system ("8x8-10"), or the path of
            a TOML file of the same form.

    Raises:
        InputError: there is no such chip, or its file is wrong: the message names file, key, what
            was given and what is expected.

    Example:
        >>> load_chip("4x4-6").cores
        6
        >>> load_chip("rocket").mesh
        0
    """
    given = str(name)
    path = Path(given)
    point = _POINT.fullmatch(given)
    if point:
        rows, columns, cores = map(int, point.groups())
        if rows != columns:
            raise InputError(
                f"{given}: an array of {rows} x {columns} PEs; expected as many rows as columns"
            )
        return load_chip("published").with_(mesh=rows, cores=cores)
    if path.suffix != ".toml":
        if given not in available_chips():
            raise InputError(
                f"no chip {given!r}; expected {', '.join(available_chips())}, a point of the "
                "published system such as 8x8-10, or the path of a .toml file"
            )
        return _of_package(given)
    return _read(path)


@cache
def _of_package(name: str) -> Chip:
    return _read(FOLDER / "chips" / f"{name}.toml")


def _read(path: Path) -> Chip:
    content = read_toml(path, "a chip")
    extras = content.pop("extras", {})
    known_keys(path, "", content, ("name", "description", *_SCHEMA))
    entries = {key: entry(path, key, content[key]) for key in _SCHEMA}
    for key, wanted in _SCHEMA.items():
        given = entries[key]
        if given.unit != wanted.unit:
            raise InputError(f"{path}: {key}.unit is {given.unit!r}; expected {wanted.unit!r}")
        if not wanted.fits(given.value):
            raise InputError(f"{path}: {key} is {given.value!r}; expected {wanted.wanted()}")
    if not isinstance(extras, dict):
        raise InputError(f"{path}: extras is {extras!r}; expected tables [extras.NAME]")
    more = {key: entry(path, f"extras.{key}", given) for key, given in extras.items()}
    for key, given in more.items():
        if type(given.value) not in (int, float):
            raise InputError(f"{path}: extras.{key} is {given.value!r}; expected a number")
    values = {key: given.value for key, given in entries.items()}
    rows, columns = values.pop("mesh_rows"), values.pop("mesh_columns")
    if rows != columns:
        raise InputError(
            f"{path}: mesh_columns is {columns} with mesh_rows {rows}; expected a square array, "
            "which Gemmini requires: give both the same number"
        )
    values["clock_hz"] = float(values["clock_hz"])
    chip = Chip(
        name=text(path, "name", content["name"]),
        description=text(path, "description", content["description"]),
        mesh=rows,
        **values,
        extras={key: given.value for key, given in more.items()},
        sources=_sources(entries, more),
    )
    _check_whole(path, chip)
    return chip


def _sources(entries: Mapping[str, Entry], more: Mapping[str, Entry]) -> dict[str, str]:
    return {
        **{key: given.source for key, given in entries.items()},
        **{f"extras.{key}": given.source for key, given in more.items()},
    }


def available_chips() -> list[str]:
    """Names that `load_chip` knows.

    Example:
        >>> available_chips()
        ['gemmini-bf16', 'gemmini-fp32', 'published', 'rocket']
    """
    return sorted(path.stem for path in (FOLDER / "chips").glob("*.toml"))


def design_points(
    base: Chip | None = None,
    meshes: Iterable[int] = PUBLISHED_MESHES,
    cores: Iterable[int] = PUBLISHED_CORES,
) -> list[Chip]:
    """Every mesh with every number of cores; as it stands the twelve published points.

    Args:
        base: all else; the published system if none is given.
        meshes: PEs along a side.
        cores: how many.

    Raises:
        InputError: one that a chip cannot have.

    Example:
        >>> [chip.design for chip in design_points()][::5]
        ['4x4-1', '4x4-10', '8x8-8']
        >>> [chip.design for chip in design_points(load_chip("gemmini-fp32"), [16], [1, 3])]
        ['16x16-1', '16x16-3']
    """
    base = base or load_chip()
    cores = tuple(cores)
    return [base.with_(mesh=mesh, cores=count) for mesh in meshes for count in cores]
