"""Writing files so that nothing is ever half written."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from fptt.errors import InputError, SaveError


def check_writable(path: str | Path) -> None:
    """Raises InputError where no file can be written, so that a long run need not find out last."""
    path = Path(os.path.realpath(path))
    # os.path instead of Path: a name that is too long must get its message, not an OSError here
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{path} is no plain file; give the path of a file to write")
    if not os.path.isdir(path.parent):
        raise InputError(f"the folder of {path} does not exist; create it first")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"the folder of {path} cannot be written to; choose another one")


def save_error(path: Path, error: OSError) -> SaveError:
    """What a user is told when the system refuses to write."""
    reason = error.strerror or error
    return SaveError(f"cannot write {path}: {reason}; what was there before is untouched")


def _beside(path: Path) -> Path:
    """Where a file is written before it takes its place."""
    return path.with_name(f".{path.name}.part")


def allocate(file: Any, offset: int, size: int) -> None:
    """Gives bytes of an open file their place on the disk, where the system can do that ahead.

    Raises:
        OSError: there is no room.
    """
    posix_fallocate = getattr(os, "posix_fallocate", None)  # Linux has it, macOS does not
    if posix_fallocate is None:
        return
    try:
        posix_fallocate(file.fileno(), offset, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # file systems that cannot
            raise


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
                allocate(file, 0, size_bytes)
        except OSError as error:
            raise save_error(path, error) from None
        yield
    finally:
        with contextlib.suppress(OSError):
            _beside(path).unlink()


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` in one step, once everything is on the disk.

    It may hold bytes from an interrupted attempt: whoever writes cuts it to its own length.

    Raises:
        InputError, SaveError: as `write_atomically`.
    """
    path = Path(os.path.realpath(path))
    check_writable(path)
    beside = _beside(path)
    try:
        with open(beside, "r+b" if beside.exists() else "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        sync_folder(path.parent)
    except BaseException as error:  # Ctrl-C, too, must leave nothing behind
        with contextlib.suppress(OSError):
            beside.unlink()
        if not isinstance(error, OSError) or isinstance(error, SaveError):
            raise
        raise save_error(path, error) from None


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
    with replacing(path) as file:
        file.write(data)
        file.truncate()


def sync_folder(folder: Path) -> None:
    """Makes a renaming itself durable, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def open_plain(path: str | Path, what: str) -> FileIO:
    """A plain file opened for reading, unbuffered.

    A pipe would make the reader wait for ever, and some devices never end: they are refused.

    Raises:
        InputError: there is no such file, or it is no plain file.
    """
    try:
        # without O_NONBLOCK, opening a pipe already waits for a writer
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            mode = os.fstat(handle).st_mode
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if not stat.S_ISREG(mode):
                raise InputError(f"cannot read {what} {path}: it is no plain file")
            return FileIO(handle, "rb")
        except BaseException:
            os.close(handle)
            raise
    except OSError as error:
        raise InputError(f"cannot read {what} {path}: {error.strerror or error}") from None


def read_bytes(path: str | Path, what: str) -> bytes:
    """The contents of a file, or InputError saying what it should have been."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {what} {path}: {error.strerror or error}") from None
