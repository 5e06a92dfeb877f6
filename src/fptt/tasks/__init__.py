"""Sequence data sets and generators, all in the form of a `Task`.

    >>> from fptt.tasks import load
    >>> task = load("add", steps=50, n_train=100, n_test=10)
    >>> task.train.x.shape, task.loss, task.criterion
    ((100, 50, 2), 'last', 'mse')

Data files are looked for in `data_dir`, or else in the directory that the environment variable
FPTT_DATA names. A user's own data: `fptt.tasks.npz.load_npz`.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from fptt.errors import InputError
from fptt.tasks.checks import whole_number
from fptt.tasks.sequences import SequenceData, Task

__all__ = ["NAMES", "SequenceData", "Task", "load", "options"]

# Task: module and function. The options of a task are the keyword-only parameters of its function.
_LOADERS = {
    "mnist-rows": ("mnist", "rows"),
    "s-mnist": ("mnist", "pixels"),
    "ps-mnist": ("mnist", "permuted"),
    "cifar10": ("cifar", "pixels"),
    "cifar10-rows": ("cifar", "rows"),
    "add": ("add", "add"),
    "fsdd": ("fsdd", "fsdd"),
    "fsdd-personal": ("fsdd", "personal"),
    "char": ("text", "char"),
    "words": ("text", "words"),
}
_OWN = ("seed", "subset")  # keyword-only parameters that `load` itself has

NAMES: tuple[str, ...] = tuple(_LOADERS)
"""The names that `load` knows."""


def load(
    name: str,
    data_dir: str | Path | None = None,
    *,
    subset: bool = False,
    limit: int | None = None,
    seed: int = 0,
    **options: Any,
) -> Task:
    """Load or generate a task.

    Args:
        name: one of NAMES.
        data_dir: directory with the data files; default is the variable FPTT_DATA.
        subset: use the subset embedded in the package instead of data_dir (MNIST tasks only).
        limit: keep at most this many training sequences and the same proportion of the test
            sequences (at least one), classes drawn evenly; see `fptt.tasks.limit.limit_task`.
        seed: of what is generated or drawn (`add`, `limit`); files are read the same whatever it
            is.
        options: of the task; `fptt.tasks.options(name)` lists them with their defaults.

    Raises:
        InputError: unknown name or option, an option out of range, no data, or damaged data.

    Example:
        >>> task = load("mnist-rows", subset=True, limit=100)
        >>> task.train.x.shape, task.outputs
        ((100, 28, 28), 10)
    """
    function = _loader(name)
    seed = whole_number("seed", seed, minimum=0)
    known = _parameters(function)
    for option in options:
        if option not in known:
            raise _unknown_option(name, option)
    if "seed" in known:
        options["seed"] = seed
    if subset:
        if "subset" not in known:
            having = [task for task in NAMES if "subset" in _parameters(_loader(task))]
            raise InputError(
                f"task {name!r} has no embedded subset, only {', '.join(having)} have one: leave "
                "subset out"
            )
        options["subset"] = True
    task = function(data_dir, **options)
    return task if limit is None else _limited(task, limit, seed)


def options(name: str) -> dict[str, Any]:
    """The options of a task with their default values.

    Raises:
        InputError: unknown name.

    Example:
        >>> options("add")
        {'steps': 200, 'n_train': 10000, 'n_test': 1000}
    """
    return {key: value for key, value in _parameters(_loader(name)).items() if key not in _OWN}


def _loader(name: str) -> Callable[..., Task]:
    if name not in _LOADERS:
        close = difflib.get_close_matches(str(name), NAMES, n=1)
        guess = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(f"unknown task {name!r}; expected one of {', '.join(NAMES)}{guess}")
    module, function = _LOADERS[name]
    loader: Callable[..., Task] = getattr(import_module(f"fptt.tasks.{module}"), function)
    return loader


def _parameters(function: Callable[..., Task]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _unknown_option(name: str, option: str) -> InputError:
    known = options(name)
    if not known:
        return InputError(f"unknown option {option!r}: task {name!r} takes no options")
    close = difflib.get_close_matches(option, known, n=1)
    guess = f"; did you mean {close[0]!r}?" if close else ""
    return InputError(
        f"unknown option {option!r} of task {name!r}; expected one of {', '.join(known)}{guess}"
    )


def _limited(task: Task, limit: int, seed: int) -> Task:
    from fptt.tasks.limit import limit_task

    return limit_task(task, limit, seed)
