"""What commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import math
import os
import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

#: for people; standard output carries results only
notes = Console(stderr=True, highlight=False)


def print_json(document: Any) -> None:
    """Prints one JSON document."""
    print(json.dumps(_plain(document), indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    """The same with null for NaN and Inf, which JSON does not have."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def output() -> Console:
    """Standard output; wide enough for tables where it is no terminal."""
    terminal = sys.stdout.isatty()
    return Console(highlight=False, width=None if terminal or "COLUMNS" in os.environ else 140)


def progress() -> Progress:
    """A progress bar on standard error, if that is a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=notes,
        transient=True,
        disable=not notes.is_terminal,
    )
