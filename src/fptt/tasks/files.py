"""Finding data files in the user's data directory, and reading npz archives safely."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fptt.errors import InputError

VARIABLE = "FPTT_DATA"
"""The environment variable that names the data directory where no argument does."""


def data_directory(data_dir: str | Path | None, task: str, otherwise: str = "") -> Path:
    """The directory with the user's data: `data_dir`, or else the variable FPTT_DATA.

    Args:
        data_dir: as the caller gave it.
        task: name of the task, for the error.
        otherwise: what the user can do without a directory, e.g. "or use subset=True".

    Raises:
        InputError: neither is given, or the directory does not exist.
    """
    source = "data_dir"
    if data_dir is None:
        source, data_dir = VARIABLE, os.environ.get(VARIABLE) or None
    if data_dir is None:
        more = f", {otherwise}" if otherwise else ""
        raise InputError(
            f"task {task!r} needs a data directory: give data_dir (on the command line: "
            f"--data-dir DIR) or set the variable {VARIABLE}{more}"
        )
    directory = Path(data_dir).expanduser()
    if not directory.is_dir():
        raise InputError(f"{source} is {str(data_dir)!r}, which is not a directory")
    return directory


def find_files(
    directory: Path, folder: str, names: Sequence[str], task: str, hint: str
) -> list[Path]:
    """Paths of files that lie together in directory/folder, or in the directory itself.

    Raises:
        InputError: a file is missing; says which ones, where they were looked for, and `hint`.
    """
    places = [directory / folder, directory]
    for place in places:
        if all((place / name).is_file() for name in names):
            return [place / name for name in names]
    # The place that holds most of them is the one the user meant.
    place = max(places, key=lambda p: sum((p / name).is_file() for name in names))
    missing = [name for name in names if not (place / name).is_file()]
    raise InputError(
        f"task {task!r}: {', '.join(missing)} not found in {place}; expected "
        f"{', '.join(names)} in {places[0]} or in {places[1]}: {hint}"
    )


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an npz archive; never unpickles anything.

    Raises:
        InputError: missing, not an npz archive, damaged, or holding pickled objects.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected an npz archive (made with np.savez)")
    # Opened here because np.load leaves the file open when the archive is damaged.
    with path.open("rb") as file:
        try:
            archive = np.load(file, allow_pickle=False)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            # numpy takes any text for a pickle; what it advises then would be wrong here
            reason = "" if "allow_pickle" in str(error) else f" ({_first_line(error)})"
            raise InputError(
                f"{path}: not a whole npz archive{reason}; expected a file made with np.savez: "
                "make or copy it again"
            ) from None
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InputError(
                f"{path}: holds a single array; expected an npz archive with named arrays: make "
                "it with np.savez(path, x=..., y=...)"
            )
        with archive:
            return {key: _member(path, archive, key) for key in archive.files}


def _member(path: Path, archive: np.lib.npyio.NpzFile, key: str) -> NDArray[Any]:
    try:
        array: NDArray[Any] = archive[key]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise InputError(
                f"{path}: {key} holds pickled Python objects, which fptt never loads; expected "
                "numbers: store sequences of unequal length one after the other as x [N, F] with "
                "lengths [n]"
            ) from None
        raise InputError(
            f"{path}: {key} is damaged ({_first_line(error)}); make or copy the file again"
        ) from None
    return array


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
