"""Measured cycles of the published program, by design point, K and function class: a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fptt.errors import InputError
from fptt.program.opspec import FUNCTION_CLASSES

COLUMNS = ("K", "mesh", "cores", "function", "cycles")
#: of a number; no chip runs that long
_DIGITS = 18
#: relative; `total` is the sum of the classes
_SUM = 1e-6


@dataclass(frozen=True)
class Measured:
    """One design point with one K.

    Attributes:
        mesh: PEs along a side of the array.
        cores: Rocket cores.
        parts: K.
        cycles: of one pass, by function class and "total".
    """

    mesh: int
    cores: int
    parts: int
    cycles: dict[str, int]

    @property
    def design(self) -> str:
        """As everywhere: "8x8-10"."""
        return f"{self.mesh}x{self.mesh}-{self.cores}"


def read_measurements(path: str | Path) -> tuple[Measured, ...]:
    """Measurements in a CSV file with the columns K, mesh ("4x4"), cores, function and cycles.

    A row may stand for "total"; where none does, it is the sum of the classes.

    Raises:
        InputError: the file cannot be read, or a row is not as expected: the message names the
            line, what was given and what is expected.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read measurements {path}: {reason}") from None
    if not lines or tuple(name.strip() for name in lines[0]) != COLUMNS:
        given = ",".join(lines[0]) if lines else "nothing"
        raise InputError(f"{path}: line 1 is {given!r}; expected {','.join(COLUMNS)}")
    found: dict[tuple[int, int, int], dict[str, int]] = {}
    for number, row in enumerate(lines[1:], 2):
        if not row:
            continue
        point, function, cycles = _row(f"{path}: line {number}", row)
        classes = found.setdefault(point, {})
        if function in classes:
            raise InputError(f"{path}: line {number}: {function} of this design and K stands twice")
        classes[function] = cycles
    return tuple(
        Measured(*point, _whole(f"{path}: {point[0]}x{point[0]}-{point[1]}, K={point[2]}", classes))
        for point, classes in sorted(found.items())
    )


def _row(where: str, row: Sequence[str]) -> tuple[tuple[int, int, int], str, int]:
    if len(row) != len(COLUMNS):
        raise InputError(f"{where} has {len(row)} values; expected {','.join(COLUMNS)}")
    parts, mesh, cores, function, cycles = (value.strip() for value in row)
    sides = mesh.split("x")
    if len(sides) != 2 or sides[0] != sides[1]:
        raise InputError(f"{where}: mesh is {mesh!r}; expected a square one such as 4x4")
    if function not in (*FUNCTION_CLASSES, "total"):
        raise InputError(
            f"{where}: function is {function!r}; expected {', '.join(FUNCTION_CLASSES)} or total"
        )
    numbers = {"mesh": sides[0], "cores": cores, "K": parts, "cycles": cycles}
    for name, text in numbers.items():
        if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS and int(text)):
            raise InputError(f"{where}: {name} is {text!r}; expected a whole number above 0")
    return (int(sides[0]), int(cores), int(parts)), function, int(cycles)


def _whole(where: str, classes: dict[str, int]) -> dict[str, int]:
    """The classes and their total, checked."""
    missing = [name for name in FUNCTION_CLASSES if name not in classes]
    if missing:
        raise InputError(f"{where}: no row for {', '.join(missing)}; expected one for every class")
    total = sum(classes[name] for name in FUNCTION_CLASSES)
    if abs(classes.setdefault("total", total) - total) > _SUM * total:
        raise InputError(
            f"{where}: total is {classes['total']}; expected {total}, the sum of the classes"
        )
    return classes
