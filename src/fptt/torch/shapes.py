"""Operations on axes: which steps are taken, in which order the axes are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fptt.errors import InputError
from fptt.torch.signals import FEATURES, Axes, Finals, Rows

_LAST = "take the last step, as in out[:, -1], or keep all of them"


def indexed(what: str, x: Any, index: Any, axes: Axes) -> Any:
    """x[index]: one step of outputs, or the state of the top layer.

    Raises:
        InputError: what is neither.
    """
    entries = list(index) if isinstance(index, tuple) else [index]
    if isinstance(x, Finals):
        return _final(what, x, entries)
    if not isinstance(x, Rows):
        raise InputError(f"{what} takes a part of what is no output of a layer; {_LAST}")
    if any(entry is Ellipsis for entry in entries):
        at = entries.index(Ellipsis)
        filling = len(x.axes) - sum(entry is not None for entry in entries) + 1
        entries[at : at + 1] = [slice(None)] * filling
    found, position = x, 0
    for entry in entries:
        if entry is None:
            found, position = unsqueezed(what, found, position), position + 1
        elif isinstance(entry, int) and not isinstance(entry, bool):
            found = _step(what, found, position, entry, axes)
        elif entry == slice(None):
            position += 1
        else:
            raise InputError(f"{what} takes {_shown(index)}, several steps or samples; {_LAST}")
    return found


def _step(what: str, x: Rows, position: int, entry: int, axes: Axes) -> Rows:
    axis = x.axes[position]
    if axis == FEATURES:
        raise InputError(f"{what} takes one of the features; use a Linear for that")
    if axis == axes.batch:
        raise InputError(
            f"{what} takes one sample of the batch, not one step; swap the indices, or change "
            "batch_first"
        )
    if x.at is not None:
        raise InputError(f"{what} takes one sample of one step; {_LAST}")
    rest = (*x.axes[:position], *x.axes[position + 1 :])
    return Rows(x.stage, rest, (axis, entry % axes.sizes[axis]))


def _final(what: str, x: Finals, entries: Sequence[Any]) -> Rows:
    if x.last is None:
        raise InputError(f"{what} takes the cell state c; take the outputs, or h")
    first, *others = entries
    if not isinstance(first, int) or any(o not in (slice(None), Ellipsis) for o in others):
        raise InputError(f"{what} takes {_shown(entries)} of the states; give h_n[-1]")
    if first % x.stages != x.stages - 1:
        raise InputError(
            f"{what} takes the state of layer {first % x.stages} of {x.stages}; take that of the "
            "last one, h_n[-1]"
        )
    return x.last


def _shown(index: Any) -> str:
    if isinstance(index, (tuple, list)):
        return f"[{', '.join(map(_shown, index))}]"
    if isinstance(index, slice):
        start, stop, step = (
            "" if part is None else str(part) for part in (index.start, index.stop, index.step)
        )
        return f"{start}:{stop}" + (f":{step}" if step else "")
    return "..." if index is Ellipsis else str(index)


def stacked(what: str, tensors: Any, dim: int, axes: Axes) -> Rows:
    """All steps of a loop as one.

    Raises:
        InputError: something else, or not all steps in turn.
    """
    rows = list(tensors) if isinstance(tensors, (tuple, list)) else []
    first = rows[0] if rows else None
    if isinstance(first, Rows) and first.at is not None:
        axis = first.at[0]
        wanted = [Rows(first.stage, first.axes, (axis, step)) for step in range(axes.sizes[axis])]
        if rows == wanted:
            position = dim % (len(first.axes) + 1)
            return Rows(first.stage, (*first.axes[:position], axis, *first.axes[position:]))
    raise InputError(
        f"{what} joins something else than the outputs of one layer at all steps in turn; {_LAST}"
    )


def permuted(what: str, x: Any, order: Sequence[int]) -> Rows:
    """The axes in another order."""
    if not isinstance(x, Rows):
        raise InputError(f"{what} turns a state; take the state of the last layer, h_n[-1]")
    return Rows(x.stage, tuple(x.axes[axis] for axis in order), x.at)


def unsqueezed(what: str, x: Any, dim: int) -> Rows:
    """[batch, steps] as [batch, steps, 1], for the module's input."""
    if (
        isinstance(x, Rows)
        and x.stage is None
        and FEATURES not in x.axes
        and dim % (len(x.axes) + 1) == len(x.axes)
    ):
        return Rows(None, (*x.axes, FEATURES), x.at)
    raise InputError(
        f"{what} adds an axis; only the axis of features may be added, to an input [batch, steps]"
    )


def squeezed(what: str, x: Any, dim: int | None, axes: Axes) -> Rows:
    """Without the axis of a single feature, or of a single layer's state.

    Raises:
        InputError: another axis, or not said which.
    """
    if isinstance(x, Finals) and dim == 0 and x.stages == 1:
        return _final(what, x, [0])
    if isinstance(x, Rows) and dim is not None and x.axes[dim] == FEATURES:
        return Rows(x.stage, tuple(axis for axis in x.axes if axis != FEATURES), x.at)
    raise InputError(
        f"{what} removes an axis; only that of a single output may go, squeeze(-1), or that of the "
        "state of a single layer, squeeze(0)"
    )
