"""Files of a published data set: in its unpacked folder, or in the archive as it was downloaded."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fptt.errors import InputError

MOST_BYTES = 1 << 26
"""Of one file; a larger one is not what was published."""


@dataclass(frozen=True)
class Form:
    """One form in which a data set is published.

    Attributes:
        title: of the form, for descriptions.
        folders: paths, in a place, of the folder that unpacking makes.
        archive: name of the archive, a tar with gzip; may hold *.
        files: names of all files that are needed.
    """

    title: str
    folders: tuple[str, ...]
    archive: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """The files of a form: a folder, or an archive."""

    form: Form
    path: Path

    def where(self, name: str) -> str:
        """What to call a file in an error."""
        return str(self.path / name) if self.path.is_dir() else f"{name} in {self.path}"

    def read(self) -> dict[str, bytes]:
        """Every file's content, by name.

        Raises:
            InputError: a file cannot be read; the archive is damaged or lacks one.
        """
        if self.path.is_dir():
            return {name: _read(self.path / name) for name in self.form.files}
        contents = _members(self.path, self.form.files)
        if missing := [name for name in self.form.files if name not in contents]:
            raise InputError(
                f"{self.path}: holds no {', '.join(missing)}: is this the right archive?"
            )
        return contents


def find(places: Sequence[Path], forms: Sequence[Form], task: str, get: str) -> Found:
    """The first form that lies in one of the places: a whole folder, or else an archive.

    Args:
        places: directories, the most likely first.
        forms: that would do, the fastest to read first.
        task: name of the task, for errors.
        get: how to get the data, for errors.

    Raises:
        InputError: there is none, or only a folder that lacks some of its files.
    """
    partial: list[tuple[int, Path, list[str]]] = []
    for place in places:
        for form in forms:
            for folder in (place, *(place / name for name in form.folders)):
                missing = [name for name in form.files if not (folder / name).is_file()]
                if not missing:
                    return Found(form, folder)
                partial.append((len(form.files) - len(missing), folder, missing))
            archives = sorted(path for path in place.glob(form.archive) if path.is_file())
            if archives:
                return Found(form, archives[-1])
    present, folder, missing = max(partial, key=lambda entry: entry[0])
    if present:
        raise InputError(f"task {task!r}: {', '.join(missing)} not found in {folder}: {get}")
    looked = " or ".join(str(place) for place in places)
    names = ", ".join(name for form in forms for name in (form.archive, form.folders[0]))
    raise InputError(f"task {task!r}: no data in {looked}; expected one of {names}: {get}")


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise _too_large(str(path), size)
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _members(path: Path, names: Iterable[str]) -> dict[str, bytes]:
    """The files of these names in an archive, in whatever folder; nothing is written to disk."""
    wanted, contents = set(names), {}
    try:
        with gzip.open(path) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    name = PurePosixPath(member.name).name
                    if name not in wanted or not member.isfile():
                        continue
                    if member.size > MOST_BYTES:
                        raise _too_large(f"{name} in {path}", member.size)
                    file = archive.extractfile(member)
                    contents[name] = b"" if file is None else file.read()
            while stream.read(1 << 20):
                pass  # to the end, where gzip keeps the checksum
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise InputError(
            f"{path}: cannot be unpacked ({error}); expected a whole archive: download it again"
        ) from None
    return contents


def _too_large(what: str, size: int) -> InputError:
    return InputError(
        f"{what}: holds {size:,} bytes; expected at most {MOST_BYTES:,}: is this the right file?"
    )
