"""What commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fptt.errors import SnapshotWarning

#: for people; standard output carries results only
notes = Console(stderr=True, highlight=False)


#: of tables with running text, where there is no terminal
WIDTH = 140


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


def show(result: Table | str) -> None:
    """Prints a table or a line of results on standard output.

    A table is never narrower than its numbers: a terminal that is too small breaks the lines, but
    no digit is lost.
    """
    terminal = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = Console(highlight=False, width=None if terminal else WIDTH)
    if isinstance(result, Table):
        rigid = all(column.no_wrap for column in result.columns)
        wide = Console(width=10_000).measure(result).maximum
        console.width = max(console.width, wide if rigid else min(wide, WIDTH))
        console.print(result)
    else:
        console.print(result, soft_wrap=True, markup=False)


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


@contextmanager
def warnings_as_notes() -> Iterator[None]:
    """What the library warns of is one line for people, without a file name and a line of code."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", SnapshotWarning)
        otherwise = warnings.showwarning

        def show_note(message: Warning | str, category: type[Warning], *where: Any) -> None:
            if issubclass(category, SnapshotWarning):
                notes.print(str(message), markup=False, soft_wrap=True)
            else:
                otherwise(message, category, *where)

        warnings.showwarning = show_note  # type: ignore[assignment]
        yield


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C asks long work to stop at the next good moment; a second one stops it at once.

    Yields a function that says whether work should stop.
    """
    asked = False

    def on_interrupt(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        notes.print("stopping after this batch; Ctrl-C again stops at once")

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
