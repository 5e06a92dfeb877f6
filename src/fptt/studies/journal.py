"""Rows of a long study in a file, so that a study that was killed goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fptt.errors import InputError, SaveError
from fptt.storage.files import read_bytes, write_atomically

Row = dict[str, Any]


class Journal:
    """The finished rows of one study in `folder`, by key; in memory only where folder is None.

    Args:
        folder: made if it does not exist; the rows are in its file study.json.
        setting: plain data that decide every row. A folder belongs to one setting.

    Raises:
        InputError: the folder holds another setting, or its file is no journal.
        SaveError: the folder cannot be made.

    Example:
        >>> journal = Journal(None, {"seed": 0})
        >>> journal.add("theo", {"accuracy": 0.9})
        >>> journal.rows
        {'theo': {'accuracy': 0.9}}
    """

    def __init__(self, folder: str | Path | None, setting: Mapping[str, Any]) -> None:
        self.folder = None if folder is None else Path(folder)
        self.setting: dict[str, Any] = json.loads(json.dumps(dict(setting)))
        self.rows: dict[str, Row] = {}
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SaveError(f"cannot make the folder {folder}: {error.strerror}") from None
        if self._file(self.folder).exists():
            self._read(self._file(self.folder))
        else:
            # the setting goes first, so that no checkpoint ever lies in a folder without one
            self._write()

    def path(self, name: str) -> Path | None:
        """A file of the study's own in the folder, or None."""
        return None if self.folder is None else self.folder / name

    def add(self, key: str, row: Row) -> None:
        """Keeps a finished row."""
        self.rows[key] = row
        self._write()

    @staticmethod
    def _file(folder: Path) -> Path:
        return folder / "study.json"

    def _write(self) -> None:
        if self.folder is not None:
            text = json.dumps({"setting": self.setting, "rows": self.rows}, indent=1)
            write_atomically(self._file(self.folder), text.encode())

    def _read(self, file: Path) -> None:
        try:
            document = json.loads(read_bytes(file, "the study"))
            setting, self.rows = dict(document["setting"]), dict(document["rows"])
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{file} is not the journal of a study; give another folder") from None
        for key in {**self.setting, **setting}:
            mine, its = self.setting.get(key), setting.get(key)
            if mine != its:
                raise InputError(
                    f"{file} is of another study: its {key} is {its!r}, here it is "
                    f"{mine!r}; use the same options, or another folder"
                )
