"""results/*.jsonl: one line for each finished run, appended and never rewritten."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fptt.errors import SaveError
from fptt.experiments.locks import locked
from fptt.experiments.reading import lines

Record = dict[str, Any]
#: called with what a reader should know of a file
Notice = Callable[[str], None]


def append_result(path: str | Path, record: Mapping[str, Any]) -> None:
    """Adds a record at the end of a results file, and waits until it is on the disk.

    What a killed process left of an incomplete line is cut off first.

    Raises:
        SaveError: the file cannot be written.
    """
    path = Path(path)
    line = json.dumps(record, allow_nan=False).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b") as file, locked(file.fileno()):
            end = _whole_lines(file)
            file.truncate(end)
            try:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)  # a full disk must not leave half a line
                raise
    except OSError as error:
        raise SaveError(
            f"cannot write {path}: {error.strerror or error}; the results before are untouched"
        ) from None


def _whole_lines(file: Any) -> int:
    """Where the last complete line of a file ends."""
    size = file.seek(0, os.SEEK_END)
    end = size
    while end:
        low = max(0, end - 65536)
        file.seek(low)
        found = file.read(end - low).rfind(b"\n")
        if found >= 0:
            return int(low + found + 1)
        end = low
    return 0


def finished(path: str | Path, keys: Iterable[str], notice: Notice | None = None) -> list[Record]:
    """The records of these runs that a results file holds already; none if there is no file.

    Args:
        path: the file.
        keys: of the experiments that are looked for.
        notice: told if the last line is incomplete, as a killed process leaves one.

    Raises:
        InputError: a line that is no record, or one of another version.
    """
    if not Path(path).exists():
        return []
    wanted, notes = set(keys), list[str]()
    found = {r.get("key"): r for _, r in lines(Path(path), notes) if r.get("key") in wanted}
    for note in notes:
        if notice:
            notice(note)
    return list(found.values())


def machine() -> dict[str, Any]:
    """What ran: processor, cores, system, versions."""
    from fptt import __version__

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "fptt": __version__,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit of these sources, "-dirty" if they differ from it; None outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=here, capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    # a package that lies in somebody else's checkout, such as in a virtual environment, is none
    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    name = git("rev-parse", "--short", "HEAD")
    changed = git("status", "--porcelain", "--", str(here.parent))
    return name and f"{name}-dirty" if changed else name
