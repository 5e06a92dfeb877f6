"""Reading records of finished runs: files of one JSON object a line.

A record holds: version, table, variant, metric, key (of the configuration), configuration,
network, parameters, steps, train_sequences, test_sequences, commit, machine, backend, date,
seconds, arena_bytes, memory_bytes and epochs, a list of {epoch, loss, lr, seconds, test_...}. What
is checked here is what summaries are made of.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fptt.errors import InputError
from fptt.storage.files import open_plain

#: the version of records that this fptt reads
VERSION = 1
#: metric -> whether more is better
METRICS = {"test_accuracy": True, "test_loss": False, "test_perplexity": False}

_TEXTS = ("table", "variant", "metric", "key")
#: whole numbers from 1 on, where they are given
_COUNTS = ("arena_bytes", "steps", "parameters", "train_sequences", "test_sequences")
_OF_CONFIGURATION = ("task", "rule", "parts", "seed")


@dataclass(frozen=True)
class Reading:
    """What was in the files.

    Attributes:
        records: those that can be used, in the order in which they were read.
        notes: one sentence for everything that was left out.
        files: the names of the files.
    """

    records: list[dict[str, Any]]
    notes: list[str]
    files: list[str]


def read_records(paths: Iterable[str | Path]) -> Reading:
    """Reads files of records, and all files *.jsonl of folders.

    A last line that was cut off (a process was killed as it wrote) and a record that cannot be used
    are left out with a note. Of several records of the same table, variant and configuration the
    last counts.

    Args:
        paths: files or folders.

    Raises:
        InputError: a path does not exist, a line is no record, the version is not `VERSION`, or
            nothing is left.

    Example:
        >>> import json, tempfile
        >>> run = {
        ...     "version": 1, "table": "add", "variant": "FPTT", "metric": "test_loss", "key": "0a",
        ...     "configuration": {"task": "add", "rule": "fptt", "parts": 4, "seed": 0},
        ...     "seconds": 1.0, "steps": 200, "arena_bytes": 1000,
        ...     "epochs": [{"epoch": 1, "loss": 0.2, "test_loss": 0.1}],
        ... }
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     text = json.dumps(run) + '\\n{"version": 1, "tab'
        ...     _ = Path(folder, "add.jsonl").write_text(text)
        ...     reading = read_records([folder])
        >>> len(reading.records), reading.notes
        (1, ['add.jsonl, line 2 was cut off as it was written; the run was left out'])
    """
    records: list[dict[str, Any]] = []
    notes: list[str] = []
    files = _files(paths)
    for file in files:
        for where, record in lines(file, notes):
            reason = unusable(record)
            if reason:
                notes.append(f"{where}: {reason}; the run was left out")
            else:
                records.append(record)
    records = _newest(records, notes)
    if not records:
        named = ", ".join(str(path) for path in paths)
        first = notes[0].removesuffix("; the run was left out") if notes else "the files are empty"
        raise InputError(f"{named}: no run that can be used; {first}")
    return Reading(records, notes, [str(file) for file in files])


def unusable(record: Mapping[str, Any]) -> str | None:
    """Why a record cannot be summarised, or None.

    Example:
        >>> unusable({"table": "add"})
        'variant is missing'
    """
    for name in _TEXTS:
        if not isinstance(record.get(name), str):
            return f"{name} is missing" if name not in record else f"{name} is no text"
    metric = record["metric"]
    if metric not in METRICS:
        return f"metric is {metric!r}, not one of {', '.join(METRICS)}"
    configuration = record.get("configuration")
    if not isinstance(configuration, dict):
        return "configuration is missing"
    for name in _OF_CONFIGURATION:
        if name not in configuration:
            return f"configuration.{name} is missing"
    parts = configuration["parts"]
    if isinstance(parts, bool) or not isinstance(parts, int) or parts < 1:
        return f"configuration.parts is {parts!r}, not a number of parts"
    for name in ("task", "rule"):
        if not isinstance(configuration[name], str):
            return f"configuration.{name} is {configuration[name]!r}, not a name"
    if not isinstance(configuration.get("task_options") or {}, dict):
        return f"configuration.task_options is {configuration['task_options']!r}"
    if "diverged" in record:
        return f"training ended early: {record['diverged']}"
    if "seconds" not in record:
        return "seconds is missing"
    if not _is_number(record["seconds"]):
        return f"seconds is {record['seconds']!r}"
    for name in _COUNTS:
        value = record.get(name)
        if value is not None and (not isinstance(value, int) or value is True or value < 1):
            return f"{name} is {value!r}"
    return _unusable_epochs(record.get("epochs"), metric)


def _unusable_epochs(epochs: Any, metric: str) -> str | None:
    if not isinstance(epochs, list) or not epochs or not all(isinstance(e, dict) for e in epochs):
        return "epochs is missing or empty"
    for row in epochs:
        number = row.get("epoch")
        if isinstance(number, bool) or not isinstance(number, int):
            return "an epoch has no number"
        for name in ("loss", metric):
            if row.get(name) is not None and not _is_number(row[name]):
                return f"{name} of epoch {number} is {row[name]!r}"
    if epochs[-1].get(metric) is None:
        return f"the last epoch has no {metric}"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _files(paths: Iterable[str | Path]) -> list[Path]:
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(path.glob("*.jsonl"))
            if not inside:
                raise InputError(
                    f"the folder {path} holds no results (*.jsonl); `fptt reproduce` writes them"
                )
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"{path} does not exist; give a folder with results, or files *.jsonl")
    return list(dict.fromkeys(found))


def lines(file: Path, notes: list[str]) -> Iterable[tuple[str, dict[str, Any]]]:
    """The objects of a file with "file, line n"; what was torn goes into the notes.

    Raises:
        InputError: a line that is no object, or of another version.
    """
    with open_plain(file, "the results") as opened:
        texts = opened.read().split(b"\n")
    for number, line in enumerate(texts, start=1):
        if not line.strip():
            continue
        where = f"{file.name}, line {number}"
        try:
            record = json.loads(line)
        except ValueError:  # bytes that are no UTF-8, too
            if number == len(texts):  # no line end follows
                notes.append(f"{where} was cut off as it was written; the run was left out")
                continue
            raise InputError(
                f"{file}, line {number}: no JSON; results have one object a line. Delete this line "
                "to read the others"
            ) from None
        except RecursionError:
            raise InputError(f"{file}, line {number}: nested too deeply for a record") from None
        if not isinstance(record, dict):
            raise InputError(
                f"{file}, line {number}: {type(record).__name__} where an object of a run should "
                "be. Delete this line to read the others"
            )
        version = record.get("version")
        if version != VERSION or isinstance(version, bool):
            raise InputError(
                f"{file}, line {number}: version {version!r} of records; this fptt reads version "
                f"{VERSION}. Use the fptt that wrote the file, or leave the file out"
            )
        yield where, record


def _newest(records: Sequence[dict[str, Any]], notes: list[str]) -> list[dict[str, Any]]:
    """The last record of every configuration in a table."""
    last = {_run(record): record for record in records}
    if len(last) < len(records):
        notes.append(
            f"{len(records) - len(last)} older runs of configurations that were run again were "
            "left out"
        )
    return [record for record in records if last[_run(record)] is record]


def _run(record: Mapping[str, Any]) -> tuple[str, str, str]:
    return record["table"], record["variant"], record["key"]
