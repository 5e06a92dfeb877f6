"""Locks on files, which end with the process that holds them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

try:
    import fcntl
except ImportError:  # not there on Windows: two processes on one file are then the user's care
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(handle: int, patience_s: float = float("inf")) -> Iterator[None]:
    """Holds an exclusive lock on an open file.

    Raises:
        TimeoutError: another process held it for longer than `patience_s` seconds.
    """
    if fcntl is None:
        yield
        return
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError from None
            time.sleep(0.05)
    try:
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)
