"""Everything that a page of results shows, computed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fptt.experiments.beside import Beside, beside
from fptt.experiments.equal_memory import Comparison, equal_memory
from fptt.experiments.reading import Reading, read_records
from fptt.experiments.summary import Group, groups


@dataclass(frozen=True)
class Overview:
    """All runs of some files, summarised.

    Attributes:
        groups: runs that differ only in their seed, by table.
        published: for every group the published figures that may stand beside it.
        comparisons: of the table `equal-memory`.
        notes: what was left out of the files, and why.
        files: that were read.
        runs: their number.
        seeds: all that occur.
        machines, commits: where and of what source the runs were made.
        dates: days of the first run and of the last.
        seconds: time of all runs together.
    """

    groups: tuple[Group, ...]
    published: tuple[tuple[Beside, ...], ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]
    files: tuple[str, ...]
    runs: int
    seeds: tuple[str, ...]
    machines: tuple[str, ...]
    commits: tuple[str, ...]
    dates: tuple[str, ...]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        rows = []
        for group, several in zip(self.groups, self.published, strict=True):
            figures = [
                {
                    "value": found.published.value,
                    "text": found.published.text,
                    "source": found.published.source,
                    "setting": found.published.words,
                    "difference": found.difference,
                    "note": found.note,
                }
                for found in several
            ]
            rows.append(group.as_json() | {"published": figures})
        return {
            "rows": rows,
            "equal_memory": [_comparison(found) for found in self.comparisons],
            "left_out": list(self.notes),
            "files": list(self.files),
            "runs": self.runs,
        }


def overview(paths: Iterable[str | Path]) -> Overview:
    """Reads and summarises results.

    Args:
        paths: files *.jsonl, or folders of them.

    Raises:
        InputError: as `read_records`.
    """
    return summarise(read_records(paths))


def summarise(reading: Reading) -> Overview:
    """The summary of records that were read."""
    records = reading.records
    made = groups(records)
    dates = sorted(str(r["date"])[:10] for r in records if r.get("date"))
    return Overview(
        groups=tuple(made),
        published=tuple(tuple(beside(group)) for group in made),
        comparisons=tuple(equal_memory([r for r in records if r["table"] == "equal-memory"])),
        notes=tuple(reading.notes),
        files=tuple(reading.files),
        runs=len(records),
        seeds=_distinct(r["configuration"]["seed"] for r in records),
        machines=_distinct(_machine(r.get("machine")) for r in records),
        commits=_distinct(r.get("commit") for r in records),
        dates=tuple(dict.fromkeys((dates[0], dates[-1]))) if dates else (),
        seconds=sum(float(r["seconds"]) for r in records),
    )


def _distinct(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(sorted({str(value) for value in values if value is not None}, key=_natural))


def _natural(text: str) -> tuple[int, str]:
    return (len(text), text)


def _machine(found: Any) -> str | None:
    if not isinstance(found, dict):
        return None
    cores = f"{found['cores']} cores" if found.get("cores") else None
    named = [found.get("processor"), cores, found.get("system")]
    return ", ".join(str(value) for value in named if value) or None


def _comparison(found: Comparison) -> dict[str, Any]:
    """The figures of a comparison; its groups are among the rows."""
    fits = found.fits
    return {
        "task": found.fptt.task,
        "metric": found.fptt.metric,
        "parts": found.fptt.parts,
        "arena_bytes": found.fptt.arena_bytes,
        "mean": found.fptt.final.mean,
        "sd": found.fptt.final.sd,
        "seeds": found.seeds,
        "tbptt_parts": fits and fits.parts,
        "tbptt_arena_bytes": fits and fits.arena_bytes,
        "tbptt_mean": fits and fits.final.mean,
        "tbptt_sd": fits and fits.final.sd,
        "tbptt_interpolated": found.interpolated,
        "difference": found.difference,
        "standard_error": found.standard_error,
        "threshold": found.threshold,
        "verdict": found.verdict,
    }
