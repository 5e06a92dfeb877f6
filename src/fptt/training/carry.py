"""The recurrent state that goes on from part to part, and for text from batch to batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fptt.backends import Backend
    from fptt.program.ir import Buffer

Array = NDArray[Any]


def _slot(buffer: Buffer) -> int | None:
    """Where a carried buffer keeps the state: before its first step, or all of it."""
    return -1 if buffer.lead else None


def read_carry(backend: Backend) -> dict[str, Array]:
    """Copies of the carried state, [batch, width] each."""
    return {b.name: backend.read(b.name, step=_slot(b)) for b in backend.program.carried}


def write_carry(backend: Backend, state: dict[str, Array]) -> None:
    """Puts back what `read_carry` gave."""
    for buffer in backend.program.carried:
        backend.write(buffer.name, state[buffer.name], step=_slot(buffer))


@contextmanager
def rows_in_order(backend: Backend, order: Array) -> Iterator[None]:
    """While a batch runs with its rows sorted, each row goes on from its own state.

    order[i] is the user's number of row i. Afterwards, and also when the batch was interrupted,
    the state lies in the user's order again.
    """
    sorted_rows = bool((order != np.arange(len(order))).any())
    if sorted_rows:
        _permute(backend, order)
    try:
        yield
    finally:
        if sorted_rows:
            _permute(backend, np.argsort(order))


def _permute(backend: Backend, order: Array) -> None:
    state = read_carry(backend)
    for values in state.values():
        values[: len(order)] = values[order]
    write_carry(backend, state)
