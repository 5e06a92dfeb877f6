"""Checks what a user hands over and brings it into the form that programs run on.

A batch is sorted by length, the longest first, so that every step runs on a prefix of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fptt.errors import InputError

if TYPE_CHECKING:
    from fptt.program import Program

Array = NDArray[Any]


@dataclass(frozen=True)
class Batch:
    """A checked batch in the order of its lengths.

    Attributes:
        x: [rows, steps, features] or tokens [rows, steps].
        y: targets, or None.
        lengths: int64 [rows], never growing.
        order: order[i] is the user's number of row i.
        unequal: whether any sequence is shorter than the program's T.
    """

    x: Array
    y: Array | None
    lengths: Array
    order: Array
    unequal: bool


def as_array(name: str, values: ArrayLike) -> Array:
    """An array, or InputError where nested lists have unequal lengths."""
    try:
        return np.asarray(values)
    except ValueError:
        raise InputError(
            f"{name} has rows of unequal length; fill them up to one length and give lengths=[...]"
        ) from None


def _first_not_finite(array: Array) -> list[int] | None:
    """Index of the first NaN or Inf; looks at some rows at a time, to need little memory."""
    some = max(1, 2**20 // max(1, array[:1].size))
    for low in range(0, len(array), some):
        finite = np.isfinite(array[low : low + some])
        if not finite.all():
            first, *others = (int(i) for i in np.argwhere(~finite)[0])
            return [low + first, *others]
    return None


def check_input(
    program: Program,
    x: ArrayLike,
    *,
    axes: str = "[batch, steps, features]",
    first: int = 0,
) -> Array:
    """The input as an array of the program's kind.

    `axes` names its dimensions in messages, and `first` is the number of its first row there.
    """
    net, array = program.net, as_array("x", x)
    names = axes.strip("[]").split(", ")
    if net.tokens:
        names = names[:-1]
        expected = "[" + ", ".join(names) + "]"
        if array.ndim != len(names) or not np.issubdtype(array.dtype, np.integer):
            raise InputError(
                f"x has shape {list(array.shape)} and type {array.dtype}; this "
                f"network reads tokens: whole numbers {expected}"
            )
        if array.size and not 0 <= array.min() <= array.max() < net.tokens:
            bad = int(array.min() if array.min() < 0 else array.max())
            raise InputError(
                f"x contains the token {bad}; the vocabulary has the tokens 0 to {net.tokens - 1}"
            )
        return array.astype(np.int32, copy=False)
    expected = "[" + ", ".join([*names[:-1], str(net.inputs)]) + "]"
    if array.ndim != len(names) or array.shape[-1] != net.inputs:
        raise InputError(f"x has shape {list(array.shape)}; this network takes {expected}")
    if not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise InputError(f"x has type {array.dtype}; give real numbers {expected}")
    kind = np.float64 if program.dtype == "float64" else np.float32
    with np.errstate(over="ignore"):  # what is too large becomes Inf
        array = array.astype(kind, copy=False)
    if where := _first_not_finite(array):
        where[0] += first
        raise InputError(
            f"x contains NaN, Inf or more than {kind.__name__} holds, first at index {where}; "
            "clean the data before training"
        )
    return array


def check_target(
    program: Program, y: ArrayLike, leading: tuple[int, ...], *, optional: bool = False
) -> Array:
    """The targets as an array of the program's kind, for input of shape [*leading, ...].

    With `optional`, -1 marks a row without a label, whatever the loss.
    """
    every_step, classes = program.schedule.every_step, program.net.outputs
    shape = leading if every_step else leading[:1]
    array = as_array("y", y)
    if array.dtype == np.bool_:
        array = array.astype(np.int32)
    if program.criterion == "cross_entropy":
        if array.shape != shape or not np.issubdtype(array.dtype, np.integer):
            raise InputError(
                f"y has shape {list(array.shape)} and type {array.dtype}; "
                f'loss="{program.schedule.name}" with cross-entropy takes whole '
                f"numbers of shape {list(shape)}"
            )
        lowest = -1 if every_step or optional else 0
        if array.size and not lowest <= array.min() <= array.max() < classes:
            bad = int(array.min() if array.min() < lowest else array.max())
            none = ", or -1 for none" if lowest else ""
            raise InputError(
                f"y contains the label {bad}; this network has the classes 0 to {classes - 1}{none}"
            )
        return array.astype(np.int32, copy=False)
    if array.shape == shape and classes == 1:
        array = array[..., None]
    if array.shape != (*shape, classes) or array.dtype.kind not in "iuf":
        raise InputError(
            f"y has shape {list(array.shape)} and type {array.dtype}; "
            f'loss="{program.schedule.name}" with mse takes numbers of shape '
            f"{[*shape, classes]}"
        )
    if where := _first_not_finite(array):
        raise InputError(f"y contains NaN or Inf, first at index {where}")
    with np.errstate(over="ignore"):  # what is too large becomes Inf, and the loss is found to be
        return array.astype(np.float64 if program.dtype == "float64" else np.float32, copy=False)


def check_lengths(lengths: ArrayLike | None, rows: int, steps: int) -> Array:
    """Lengths as an array; `steps` everywhere if there are none."""
    if lengths is None:
        return np.full(rows, steps)
    array = as_array("lengths", lengths)
    if array.shape != (rows,) or not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            f"lengths has shape {list(array.shape)} and type {array.dtype}; give one "
            f"whole number for each of the {rows} sequences"
        )
    if array.min() < 1 or array.max() > steps:
        bad = int(array.min() if array.min() < 1 else array.max())
        raise InputError(
            f"lengths contains {bad}; x has {steps} steps, so lengths run from 1 to {steps}"
        )
    return array.astype(np.int64)


def check_data(program: Program, x: Array, y: Array, lengths: Array | None) -> None:
    """InputError if any of many sequences is not what the program takes."""
    # converted some rows at a time: a copy of all the data could be more than there is room for
    some = max(1, 2**20 // max(1, x[:1].size))
    for low in range(0, len(x), some):
        check_input(program, x[low : low + some], first=low)
    targets = check_target(program, y, x.shape[:2])
    if targets.dtype == np.int32 and not (targets >= 0).any():
        raise InputError("y has no target: all its labels are -1")
    check_lengths(lengths, *x.shape[:2])
    if x.shape[1] > program.steps:
        raise InputError(
            f"x has {x.shape[1]} steps; the program was built for at most {program.steps}"
        )


def make_batch(
    program: Program,
    x: ArrayLike,
    y: ArrayLike | None,
    lengths: ArrayLike | None,
    *,
    bounded: bool = False,
) -> Batch:
    """Checks and sorts; InputError says what does not fit.

    With `bounded`, the program's largest batch and T are limits (those of inference are not).
    """
    x = check_input(program, x)
    rows, steps = x.shape[:2]
    if rows == 0 or steps == 0:
        raise InputError(f"x has shape {list(x.shape)}; give at least one sequence of one step")
    if bounded and (rows > program.batch or steps > program.steps):
        raise InputError(
            f"x has {rows} sequences of {steps} steps; the program was built for at most "
            f"{program.batch} of {program.steps}: build with batch={rows}, steps={steps}, or give "
            "smaller batches"
        )
    if bounded and y is None:
        raise InputError("y is None; training needs a target for every sequence")
    targets = None if y is None else check_target(program, y, (rows, steps))
    length_array = check_lengths(lengths, rows, steps)
    order = np.argsort(-length_array, kind="stable")
    return Batch(
        x[order],
        None if targets is None else targets[order],
        length_array[order],
        order,
        bool((length_array != program.steps).any()),
    )
