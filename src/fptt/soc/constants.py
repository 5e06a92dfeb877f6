"""The constants of the cycle model: what each is, and the file that calibration writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fptt.errors import InputError
from fptt.program.opspec import FUNCTION_CLASSES
from fptt.soc.datafile import FOLDER, known_keys, read_toml

#: what calibration wrote
CALIBRATED = FOLDER / "calibrated.toml"


def _constant(unit: str, meaning: str, guess: float, spread: float = 3.0) -> Any:
    """A field of `Constants`.

    Args:
        unit: of its value.
        meaning: in a line.
        guess: what one would say before any measurement. Calibration starts from it and stays near
            it where measurements tell nothing.
        spread: the guess may well be wrong by this factor.
    """
    return field(metadata={"unit": unit, "meaning": meaning, "guess": guess, "spread": spread})


@dataclass(frozen=True)
class Constants:
    """Values of the model's constants; a field's metadata has its unit and its meaning.

    `spreads` is no constant of the chip but the model's own error: the standard deviation of
    predicted / measured of each function class and of the total, at design points and K that
    calibration had not seen.
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
    source: str = "guesses"

    @cached_property
    def prices(self) -> Prices:
        """What an element costs of loops that nobody measured: least squares over those that were,
        whose elements have 1 to 13 additions and multiplications, and 3 to 8 accesses.
        """
        from fptt.soc.workload import ELEMENTS

        known = [name for name, (_, transcendental, _) in ELEMENTS.items() if not transcendental]
        known = [name for name in known if ELEMENTS[name][0]]
        counts = np.array([(ELEMENTS[name][0], ELEMENTS[name][2]) for name in known])
        cycles = np.array([getattr(self, name) for name in known])
        # relative errors count, not absolute ones
        shares = counts / cycles[:, None]
        found = np.maximum(np.linalg.lstsq(shares, np.ones(len(known)), rcond=None)[0], 0.0)
        spread = float(np.sqrt(np.mean((shares @ found - 1) ** 2)))
        return Prices(float(found[0]), float(found[1]), spread)


@dataclass(frozen=True)
class Prices:
    """Cycles of an addition or multiplication, and of a read or a write, in loops over elements.

    `spread` is the standard deviation of their sum / measured.
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
    known_keys(path, "", content, ("source", "constants", "spreads"))
    constants, spreads = content["constants"], content["spreads"]
    known_keys(path, "constants.", constants, NAMES)
    known_keys(path, "spreads.", spreads, (*FUNCTION_CLASSES, "total"))
    values = {}
    for f in FITTED:
        given = constants[f.name]
        if not isinstance(given, dict):
            raise InputError(
                f"{path}: constants.{f.name} is {given!r}; expected {{ value, unit, meaning }}"
            )
        value, unit = given.get("value", 0.0), given.get("unit")
        if not _positive(value):
            raise InputError(
                f"{path}: constants.{f.name}.value is {value!r}; expected a number above 0"
            )
        if unit != f.metadata["unit"]:
            raise InputError(
                f"{path}: constants.{f.name}.unit is {unit!r}; expected {f.metadata['unit']!r}"
            )
        values[f.name] = float(value)
    for name, spread in spreads.items():
        if type(spread) not in (int, float) or not 0 <= spread < float("inf"):
            raise InputError(f"{path}: spreads.{name} is {spread!r}; expected a number from 0")
    return with_values(values.values(), spreads=spreads, source=str(content["source"]))


def _positive(value: object) -> bool:
    return type(value) in (int, float) and 0 < float(value) < float("inf")  # type: ignore[arg-type]


def constants_text(constants: Constants, command: str) -> str:
    """The file of these constants, with the command that wrote it."""
    lines = [
        f"# The cycle model's constants. Written by: {command}",
        f'source = "{constants.source}"',
        "",
        "[constants]",
    ]
    for f in FITTED:
        value = getattr(constants, f.name)
        lines.append(
            f'{f.name} = {{ value = {value:.5g}, unit = "{f.metadata["unit"]}", '
            f'meaning = "{f.metadata["meaning"]}" }}'
        )
    lines += ["", "# standard deviations of predicted / measured where calibration had not seen it"]
    lines.append("[spreads]")
    lines += [f'"{name}" = {constants.spreads[name]:.4f}' for name in (*FUNCTION_CLASSES, "total")]
    return "\n".join(lines) + "\n"


def with_values(
    values: Iterable[float], spreads: Mapping[str, float] | None = None, source: str = "guesses"
) -> Constants:
    """Constants from values in the order of `NAMES`."""
    constants: dict[str, Any] = dict(zip(NAMES, values, strict=True))
    return Constants(**constants, spreads=spreads or {}, source=source)
