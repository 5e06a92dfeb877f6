"""The constants of the cycle model: what each is, and the file that calibration writes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from math import log
from pathlib import Path
from typing import Any

import numpy as np

from fptt.errors import InputError
from fptt.program.opspec import FUNCTION_CLASSES
from fptt.soc.chip import load_chip
from fptt.soc.datafile import FOLDER, known_keys, read_toml
from fptt.soc.workload import ELEMENTS

#: what calibration wrote
CALIBRATED = FOLDER / "calibrated.toml"

#: what of a chip decides about time, besides cores and array: memories, number types, clock
CONDITIONS = (
    *("data_type", "emulated_bf16", "dataflow", "scratchpad_kib", "dcache_kib", "line_bytes"),
    *("l2_kib", "bus_bits", "clock_hz"),
)


def _constant(unit: str, meaning: str, guess: float, spread: float = 3.0) -> Any:
    """A field of `Constants`.

    Args:
        unit: of its value.
        meaning: in a line.
        guess: of the right order. Calibration starts from it and stays near it where measurements
            tell nothing.
        spread: the guess may well be wrong by this factor.
    """
    return field(metadata={"unit": unit, "meaning": meaning, "guess": guess, "spread": spread})


@dataclass(frozen=True)
class Conditions:
    """The chips on which the constants were measured: by default the published ones.

    Attributes:
        cores, meshes: the numbers of cores and the sides of the array that occurred.
        others: key of `fptt.soc.chip.Chip` -> its value; what else decides about time.
    """

    cores: tuple[int, ...] = (1, 4, 10)
    meshes: tuple[int, ...] = (4, 8)
    others: Mapping[str, Any] = field(
        default_factory=lambda: {key: getattr(load_chip(), key) for key in CONDITIONS}
    )


@dataclass(frozen=True)
class Constants:
    """Values of the model's constants; a field's metadata has its unit and its meaning.

    Four fields are no constants of the chip. `spreads` is the model's own error: the standard
    deviation of predicted / measured of each function class and of the total, at design points and
    K that calibration had not seen. `covariance` says how well the measurements determine the
    constants: of their logarithms, in the order of `NAMES`. `measured` and `source`: on what.
    """

    # one core, bfloat16 in software: an element of ...
    multiply: float = _constant("cycles", "an element of a product of two arrays", 25)
    multiply_add: float = _constant("cycles", "an element of c = f c + (i g)", 45)
    state_gradient: float = _constant("cycles", "an element of ds = dh o (1 - tanh(c)^2)", 80)
    derivative: float = _constant("cycles", "an element of a gate's derivative", 50)
    sigmoid: float = _constant("cycles", "a sigmoid", 300)
    tanh: float = _constant("cycles", "a tanh", 300)
    softmax: float = _constant("cycles", "an element of a softmax", 300)
    copy: float = _constant("cycles", "an element that a loop copies", 15)
    move: float = _constant("cycles", "an element that memcpy copies", 2)
    column: float = _constant(
        "cycles", "the sum of a column of four rows, averaged and accumulated", 150
    )
    quiet_column: float = _constant(
        "cycles", "the same where the gradient has become zero by underflow", 150, 1.5
    )
    update: float = _constant("cycles", "the update of a parameter that is in the caches", 200)
    memory: float = _constant(
        "cycles", "more for a parameter that is in DRAM; all cores together wait for it", 4
    )
    # the array
    call: float = _constant("cycles", "set-up and end of a product", 1000)
    row_read: float = _constant("cycles", "a row of a tile, read as it lies in memory", 2)
    row_transposed: float = _constant("cycles", "a row of a tile that is transposed", 3)
    row_written: float = _constant("cycles", "a row of a tile of a large result", 3)
    # several cores
    barrier: float = _constant("cycles", "a barrier at the end of a loop", 300)
    take: float = _constant("cycles", "a cache line that a core takes from another core", 60)
    retake: float = _constant(
        "cycles", "in a short loop: taking a line back that another core wrote to", 40
    )
    retake_update: float = _constant(
        "cycles", "the same in the update's long loops, where cores drift apart", 15
    )
    crowding: float = _constant(
        "ratio", "taking in EWO-basic, whose elements cost least, to taking elsewhere", 1.3, 1.5
    )
    column_crowding: float = _constant(
        "ratio", "taking in Mat2Vec, where all cores read all rows, to taking elsewhere", 1.3, 1.5
    )
    spreads: Mapping[str, float] = field(default_factory=dict)
    covariance: tuple[tuple[float, ...], ...] = ()
    measured: Conditions = field(default_factory=Conditions)
    source: str = "guesses"

    @cached_property
    def prices(self) -> Prices:
        """What an element costs of loops that nobody measured: least squares over those that were,
        whose elements have 1 to 13 additions and multiplications, and 3 to 8 accesses.
        """
        known = [
            name
            for name, (operations, transcendental, _) in ELEMENTS.items()
            if operations and not transcendental
        ]
        counts = np.array([(ELEMENTS[name][0], ELEMENTS[name][2]) for name in known])
        cycles = np.array([getattr(self, name) for name in known])
        # relative errors count, not absolute ones
        shares = counts / cycles[:, None]

        def fitted(rows: Any) -> Any:
            return np.maximum(
                np.linalg.lstsq(shares[rows], np.ones(len(shares))[rows], rcond=None)[0], 0.0
            )

        # the error of each loop that the others predict
        everything = np.arange(len(known))
        left_out = [shares[k] @ fitted(everything != k) - 1 for k in everything]
        operation, access = fitted(everything)
        spread = float(np.sqrt(np.mean(np.square(left_out))))
        return Prices(float(operation), float(access), spread)

    def undetermined(self) -> tuple[str, ...]:
        """Constants of which the measurements say little: more than half of the first guess's
        uncertainty is left. Their values are near that guess.
        """
        return tuple(
            f.name
            for number, f in enumerate(FITTED if self.covariance else ())
            if self.covariance[number][number] > (log(f.metadata["spread"]) / 2) ** 2
        )


@dataclass(frozen=True)
class Prices:
    """Cycles of an addition or multiplication, and of a read or a write, in loops over elements.

    `spread` is the standard deviation of their sum / measured, each loop left out in turn.
    """

    operation: float
    access: float
    spread: float


#: the fields that calibration fits
FITTED = tuple(f for f in fields(Constants) if "meaning" in f.metadata)
NAMES = tuple(f.name for f in FITTED)


def load_constants(path: str | Path | None = None) -> Constants:
    """The constants in a file that `fptt explore --calibrate` has written.

    Args:
        path: of the file; the one that comes with the package, if None.

    Raises:
        InputError: it cannot be read, lacks a constant or holds one that no chip can have.
    """
    path = Path(path or CALIBRATED)
    content = read_toml(path, "constants of the cycle model")
    known_keys(path, "", content, ("source", "constants", "spreads", "measured", "covariance"))
    for key in ("constants", "spreads", "measured"):
        if not isinstance(content[key], dict):
            raise InputError(f"{path}: {key} is {content[key]!r}; expected a table")
    constants, spreads = content["constants"], content["spreads"]
    known_keys(path, "constants.", constants, NAMES)
    known_keys(path, "spreads.", spreads, (*FUNCTION_CLASSES, "total"))
    for name, spread in spreads.items():
        if type(spread) not in (int, float) or not 0 <= spread < float("inf"):
            raise InputError(f"{path}: spreads.{name} is {spread!r}; expected a number from 0")
    return with_values(
        [_read_value(path, f, constants[f.name]) for f in FITTED],
        spreads=spreads,
        covariance=_read_covariance(path, content["covariance"]),
        measured=_read_measured(path, content["measured"]),
        source=str(content["source"]),
    )


def _read_value(path: Path, constant: Any, given: object) -> float:
    name, unit = constant.name, constant.metadata["unit"]
    if not isinstance(given, dict):
        raise InputError(
            f"{path}: constants.{name} is {given!r}; expected {{ value, unit, meaning }}"
        )
    value = given.get("value")
    if not _positive(value):
        raise InputError(f"{path}: constants.{name}.value is {value!r}; expected a number above 0")
    if given.get("unit") != unit:
        raise InputError(
            f"{path}: constants.{name}.unit is {given.get('unit')!r}; expected {unit!r}"
        )
    return float(value)  # type: ignore[arg-type]


def _read_covariance(path: Path, given: object) -> tuple[tuple[float, ...], ...]:
    try:
        found = np.array(given, dtype=float)
    except (TypeError, ValueError):
        found = np.empty(0)
    expected = (len(NAMES), len(NAMES))
    if (
        found.shape != expected
        or not np.allclose(found, found.T)
        or not (found.diagonal() > 0).all()
    ):
        raise InputError(
            f"{path}: covariance has the form {found.shape}; expected {expected}, symmetric, with "
            "variances above 0"
        )
    return tuple(map(tuple, found.tolist()))


def _read_measured(path: Path, given: Mapping[str, Any]) -> Conditions:
    known_keys(path, "measured.", given, ("cores", "meshes", *CONDITIONS))
    for key in ("cores", "meshes"):
        numbers = given[key]
        if not (isinstance(numbers, list) and numbers and all(map(_positive, numbers))):
            raise InputError(f"{path}: measured.{key} is {numbers!r}; expected numbers above 0")
    conditions = {key: given[key] for key in CONDITIONS}
    try:
        load_chip().with_(**conditions)
    except InputError as error:
        raise InputError(f"{path}: measured: {error}") from None
    return Conditions(tuple(given["cores"]), tuple(given["meshes"]), conditions)


def _positive(value: object) -> bool:
    return type(value) in (int, float) and 0 < float(value) < float("inf")  # type: ignore[arg-type]


def constants_text(constants: Constants, command: str) -> str:
    """The file of these constants, with the command that wrote it."""
    measured = constants.measured
    # strings of JSON are strings of TOML
    lines = [
        f"# The cycle model's constants. Written by: {' '.join(command.split())}",
        f"source = {json.dumps(constants.source)}",
        "",
        "# variances and covariances of the constants' logarithms",
        "covariance = [",
        *(f"  [{', '.join(f'{value:.3g}' for value in row)}]," for row in constants.covariance),
        "]",
        "",
        "[constants]",
    ]
    for f in FITTED:
        text = {key: json.dumps(f.metadata[key]) for key in ("unit", "meaning")}
        value = getattr(constants, f.name)
        lines.append(
            f"{f.name} = {{ value = {value:.5g}, unit = {text['unit']}, "
            f"meaning = {text['meaning']} }}"
        )
    lines += ["", "# standard deviations of predicted / measured where calibration had not seen it"]
    lines.append("[spreads]")
    lines += [f'"{name}" = {constants.spreads[name]:.4f}' for name in (*FUNCTION_CLASSES, "total")]
    lines += ["", "# the chips", "[measured]"]
    lines += [f"{key} = {list(getattr(measured, key))}" for key in ("cores", "meshes")]
    lines += [f"{key} = {json.dumps(value)}" for key, value in measured.others.items()]
    return "\n".join(lines) + "\n"


def with_values(values: Iterable[float], **others: Any) -> Constants:
    """Constants from values in the order of `NAMES`."""
    constants: dict[str, Any] = dict(zip(NAMES, values, strict=True))
    return Constants(**constants, **others)
