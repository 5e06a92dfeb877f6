"""Data files in which every number comes with its unit and its source."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fptt.errors import InputError

#: where the files of the package lie
FOLDER = Path(__file__).parent / "data"
#: the keys of an entry
PARTS = ("value", "unit", "source")


@dataclass(frozen=True)
class Entry:
    """What a file says of one key."""

    value: Any
    unit: str
    source: str


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The contents of a TOML file.

    Raises:
        InputError: it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {what} {path}: {error.strerror or error}") from None
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        raise InputError(f"{path}: {error}; expected {what}, a TOML file") from None


def text(path: Path, key: str, given: object) -> str:
    """A string that says something.

    Raises:
        InputError: it is something else, or empty.
    """
    if not isinstance(given, str) or not given.strip():
        raise InputError(f"{path}: {key} is {given!r}; expected text")
    return given


def known_keys(path: Path, where: str, given: Mapping[str, Any], expected: tuple[str, ...]) -> None:
    """Raises InputError where a key is missing or unknown."""
    for key in given:
        if key not in expected:
            raise InputError(
                f"{path}: {where}unknown key {key!r}; expected {', '.join(expected)}: "
                "remove it or spell it as one of these"
            )
    for key in expected:
        if key not in given:
            raise InputError(f"{path}: {where}{key} is missing; expected {', '.join(expected)}")


def entry(path: Path, key: str, given: object) -> Entry:
    """An entry `{value, unit, source}`.

    Raises:
        InputError: it is none; the message names file, key, what was given and what is expected.
    """
    if not isinstance(given, dict):
        raise InputError(
            f"{path}: {key} is {given!r}; expected a table with value, unit and source"
        )
    known_keys(path, f"{key}: ", given, PARTS)
    unit, source = (text(path, f"{key}.{part}", given[part]) for part in PARTS[1:])
    return Entry(given["value"], unit, source)
