"""Fewer sequences of a task, with the classes as even as they can be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fptt.errors import InputError
from fptt.tasks.checks import whole_number
from fptt.tasks.sequences import SequenceData, Task


def limit_task(task: Task, limit: int, seed: int = 0) -> Task:
    """Keep at most `limit` training sequences, and the same proportion of the test sequences.

    With n training sequences and m test sequences, max(1, round(m * limit / n)) of the test
    sequences stay. Where each sequence has one label, classes are drawn in turn, so their counts
    differ by at most one as long as none runs out. The kept sequences are in random order.

    Args:
        task: any task that is not contiguous.
        limit: training sequences to keep, at least 1; no fewer than n changes nothing.
        seed: of the draw.

    Raises:
        InputError: limit < 1, or the task is contiguous.

    Example:
        >>> from fptt.tasks.mnist import embedded
        >>> small = limit_task(embedded(), 100)
        >>> len(small.train), len(small.test), np.bincount(small.train.y).tolist()
        (100, 50, [10, 10, 10, 10, 10, 10, 10, 10, 10, 10])
    """
    limit = whole_number("limit", limit, minimum=1)
    seed = whole_number("seed", seed, minimum=0)
    if task.contiguous:
        raise InputError(
            f"task {task.name!r} is one text, whose rows continue each other: limit cannot leave "
            "rows out; give a shorter text with text_file"
        )
    n, m = len(task.train), len(task.test)
    if limit >= n:
        return task
    kept = max(1, round(m * limit / n))
    train = _draw(task.train, limit, np.random.default_rng([seed, 0]))
    test = _draw(task.test, kept, np.random.default_rng([seed, 1]))
    note = f" Limited to {len(train):,} training and {len(test):,} test sequences."
    return replace(task, train=train, test=test, description=task.description + note)


def _draw(data: SequenceData, count: int, rng: np.random.Generator) -> SequenceData:
    order: NDArray[Any] = rng.permutation(len(data))
    if data.y.dtype == np.int32 and data.y.ndim == 1:
        # The first of every class, then the second of every class, and so on.
        turn = np.zeros(len(data), np.int64)
        for label in np.unique(data.y):
            of_class = data.y[order] == label
            turn[of_class] = np.arange(np.count_nonzero(of_class))
        order = order[np.argsort(turn, kind="stable")]
    return data.subset(rng.permutation(order[:count]))
