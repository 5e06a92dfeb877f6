"""Writing files so that nothing is ever half written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from fptt.errors import InputError, SaveError


def check_writable(path: str | Path) -> None:
    """Raises InputError where no file can be written, so that a long run need not find out last."""
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is no plain file; give the path of a file to write")
    if not path.parent.is_dir():
        raise InputError(f"the folder of {path} does not exist; create it first")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"the folder of {path} cannot be written to; choose another one")


def _save_error(path: Path, error: OSError) -> SaveError:
    reason = error.strerror or error
    return SaveError(f"cannot write {path}: {reason}; what was there before is untouched")


def _beside(path: Path) -> Path:
    """Where a file is written before it takes its place."""
    return path.with_name(f".{path.name}.part")


@contextlib.contextmanager
def reserved(path: str | Path, size_bytes: int) -> Iterator[None]:
    """Keeps room on the disk for a file that is written at the end of long work.

    Raises:
        InputError: as `write_atomically`.
        SaveError: there is no room, before the work has begun.
    """
    path = Path(os.path.realpath(path))
    check_writable(path)
    try:
        try:
            with open(_beside(path), "wb") as file:
                os.posix_fallocate(file.fileno(), 0, size_bytes)
        except OSError as error:
            raise _save_error(path, error) from None
        yield
    finally:
        _beside(path).unlink(missing_ok=True)


def write_atomically(path: str | Path, data: bytes) -> None:
    """Replaces a file's contents in one step.

    The data go to a file beside it and to the disk first; a full disk, a killed process or a power
    cut leaves the old file as it was.

    A link is followed; anything but a plain file is refused, because replacing a device or a
    pipe would destroy it.

    Raises:
        InputError: the path names something that is no plain file, or a folder that is missing.
        SaveError: the file cannot be written; the old one is untouched.
    """
    path = Path(os.path.realpath(path))
    check_writable(path)
    beside = _beside(path)
    try:
        with open(beside, "r+b" if beside.exists() else "wb") as file:
            file.write(data)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        _sync_folder(path.parent)
    except BaseException as error:  # Ctrl-C, too, must leave nothing behind
        with contextlib.suppress(OSError):
            beside.unlink()
        if not isinstance(error, OSError):
            raise
        raise _save_error(path, error) from None


def _sync_folder(folder: Path) -> None:
    """Makes the renaming itself durable, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_bytes(path: str | Path, what: str) -> bytes:
    """The contents of a file, or InputError saying what it should have been."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {what} {path}: {error.strerror or error}") from None
