"""A plain file as the medium of two slots."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from fptt.storage import slots
from fptt.storage.files import allocate, check_writable, replacing, save_error, sync_folder


class Disk:
    """An open file as a medium, see `slots.Medium`.

    Args:
        file: opened for what will be done with it.
    """

    def __init__(self, file: FileIO | BinaryIO) -> None:
        self._file = file

    def size(self) -> int:
        """Bytes of the file."""
        return os.fstat(self._file.fileno()).st_size

    def read(self, offset: int, count: int) -> bytearray:
        """Bytes of the file; a count from a damaged file takes no more memory than the file has."""
        data = bytearray(max(0, min(count, self.size() - offset)))
        view, done = memoryview(data), 0
        if view:
            self._file.seek(offset)
        while done < len(view):
            step = self._file.readinto(view[done:])  # type: ignore[union-attr]
            if not step:  # somebody made the file shorter
                break
            done += step
        view.release()
        del data[done:]
        return data

    def erase(self, offset: int, count: int) -> None:
        """Takes room on the disk, so that a full one is noticed before anything is overwritten."""
        before = self.size()
        try:
            allocate(self._file, offset, count)
        except OSError:
            if self.size() > before:
                self._file.truncate(before)
            raise
        self.write(offset, slots.ERASED)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Writes at an offset."""
        view = memoryview(data)
        self._file.seek(offset)
        while view:
            view = view[self._file.write(view) :]

    def sync(self) -> None:
        """fsync; the length of the file is part of it."""
        self._file.flush()
        os.fsync(self._file.fileno())


def save(path: str | Path, length: int, chunks: Iterable[memoryview]) -> None:
    """Makes a state the newest one of a file of two slots; the state before stays until then.

    The file is written anew, through another one that takes its place, where there is none yet,
    where it is no such file or damaged, where the state has outgrown its slots, and where writing
    in place would change what is not meant: a file with a second name (a hard link kept as a
    backup) or one that is read-only.

    Args:
        path: the file; a link is followed.
        length, chunks: as in `slots.put`.

    Raises:
        InputError: the path names something that is no plain file, or a folder that is missing.
        SaveError: the file cannot be written; the newest state in it is untouched.
    """
    path = Path(os.path.realpath(path))
    check_writable(path)
    try:
        file = open(path, "r+b", buffering=0)  # noqa: SIM115
    except OSError:
        file = None
    if file is not None:
        try:
            with file:
                if _save_in_place(file, path, length, chunks):
                    return
        except OSError as error:
            raise save_error(path, error) from None
    with replacing(path) as new:
        new.truncate(0)
        slots.create(Disk(new), slots.Layout.of(length), length, chunks)


def _save_in_place(file: FileIO, path: Path, length: int, chunks: Iterable[memoryview]) -> bool:
    """False, and nothing is done, where the file must be written anew."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        return False
    disk = Disk(file)
    try:
        layout = slots.read_layout(disk)
        if layout is None or length > layout.room:
            return False
        last = slots.newest(disk, layout)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return False  # a bad sector: a new file will lie elsewhere
    if last is None:
        return False
    # a process that was killed right after it had put the file into its place may not have got
    # as far as this; see step 1 in slots.py
    sync_folder(path.parent)
    slots.put(disk, layout, last, length, chunks)
    return True
