"""The targets y in a user's npz archive: which task they mean, and whether they can be used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fptt.errors import InputError
from fptt.tasks.sequences import Criterion, Loss

Array = NDArray[Any]
NO_TARGET = -1
_LARGEST = int(np.iinfo(np.int32).max) - 1


@dataclass(frozen=True, eq=False)
class Layout:
    """How the inputs lie in the archive.

    Attributes:
        key: of the inputs in the archive, "x" or "x_test".
        shape: of the inputs as stored.
        n: number of sequences.
        steps: T once they are filled up.
        lengths: steps of each sequence, int32 [n], or None.
        concatenated: whether they are stored as frames [N, F] one after the other.
    """

    key: str
    shape: tuple[int, ...]
    n: int
    steps: int
    lengths: NDArray[np.int32] | None
    concatenated: bool

    def in_use(self) -> NDArray[np.bool_] | None:
        """Which steps lie before the end of their sequence, bool [n, T]; None if all do."""
        if self.lengths is None:
            return None
        return np.arange(self.steps) < self.lengths[:, np.newaxis]

    def arrange(self, values: Array, fill: int) -> Array:
        """Values of every step as [n, T, ...], with `fill` after the end of each sequence."""
        in_use = self.in_use()
        if in_use is None:
            return values
        padded = np.full((self.n, self.steps, *values.shape[self.first_axis :]), fill, values.dtype)
        padded[in_use] = values if self.concatenated else values[in_use]
        return padded

    @property
    def first_axis(self) -> int:
        """First axis of the stored values that is neither sequence nor step."""
        return 1 if self.concatenated else 2

    def place(self, index: Array) -> str:
        """Where an element of the arranged array [n, T, ...] lies in the stored one, "3, 7"."""
        place = [int(i) for i in index]
        if self.concatenated and self.lengths is not None:
            place = [int(self.lengths[: place[0]].sum()) + place[1], *place[2:]]
        return ", ".join(map(str, place))


@dataclass(frozen=True, eq=False)
class Targets:
    """Targets as `SequenceData` wants them, and the number of classes or outputs."""

    y: Array
    outputs: int
    criterion: Criterion
    loss: Loss


def convert_targets(path: Path, key: str, y: Array, layout: Layout) -> Targets:
    """Recognise what y means from its dtype and shape, check it and bring it into its final form.

    Args:
        path: of the archive, for errors.
        key: of y in the archive.
        y: as stored; the module `fptt.tasks.npz` lists its forms.
        layout: of the inputs.

    Raises:
        InputError: y has none of these forms, or holds NaN, Inf or a label that is no class.
    """
    if y.dtype.kind not in "iuf":
        raise InputError(
            f"{path}: {key} has dtype {y.dtype}; expected whole numbers 0, 1, ... for classes, or "
            "floats for regression: number labels with np.unique(y, return_inverse=True)[1]"
        )
    classes = y.dtype.kind != "f"
    # Steps that count: (N,) where frames lie one after the other, else (n, T).
    per_step = layout.shape[:1] if layout.concatenated else (layout.n, layout.steps)
    if classes:
        last, every_step = y.shape == (layout.n,), y.shape == per_step
    else:
        last = y.ndim in (1, 2) and y.shape[:1] == (layout.n,)
        dimensions = (1, 2) if layout.concatenated else (3,)
        every_step = y.ndim in dimensions and y.shape[: len(per_step)] == per_step
    if y.size == 0 or not (last or every_step):
        raise _wrong_shape(path, key, y, layout, per_step)
    if classes:
        return _labels(path, key, y, layout, last)
    return _numbers(path, key, y, layout, last)


def _wrong_shape(
    path: Path, key: str, y: Array, layout: Layout, per_step: tuple[int, ...]
) -> InputError:
    steps = ", ".join(map(str, per_step))
    if y.dtype.kind != "f":
        forms = f"[{layout.n}] for a label per sequence or [{steps}] for a label per step"
    else:
        forms = f"[{layout.n}, C] for targets per sequence or [{steps}, C] for targets per step"
    return InputError(
        f"{path}: {key} is {y.dtype} of shape {list(y.shape)} beside {layout.n} sequences "
        f"({layout.key} has shape {list(layout.shape)}); expected {forms}"
    )


def _labels(path: Path, key: str, y: Array, layout: Layout, last: bool) -> Targets:
    labels = y if last else layout.arrange(y, NO_TARGET)
    lowest = 0 if last else NO_TARGET
    wrong = np.argwhere((labels < lowest) | (labels > _LARGEST))
    if wrong.size:
        place = str(wrong[0][0]) if last else layout.place(wrong[0])
        none = "" if last else ", or -1 where a step has no target"
        raise InputError(
            f"{path}: {key}[{place}] is {labels[tuple(wrong[0])]}; expected labels 0, 1, ...{none}"
        )
    labels = labels.astype(np.int32)
    outputs = int(labels.max()) + 1
    if outputs == 0:
        raise InputError(f"{path}: {key} holds nothing but -1 (no target); label some steps")
    return Targets(labels, outputs, "cross_entropy", "last" if last else "every_step")


def _numbers(path: Path, key: str, y: Array, layout: Layout, last: bool) -> Targets:
    columns = y[:, np.newaxis] if y.ndim == 1 else y
    if not last:
        columns = layout.arrange(columns, 0)
    numbers = to_float32(columns)
    wrong = np.argwhere(~np.isfinite(numbers))
    if wrong.size:
        index = wrong[0][:-1] if y.ndim == 1 else wrong[0]
        place = ", ".join(map(str, index)) if last else layout.place(index)
        raise InputError(not_finite(path, key, place, columns[tuple(wrong[0])], len(wrong)))
    return Targets(numbers, numbers.shape[-1], "mse", "last" if last else "every_step")


def to_float32(values: Array) -> NDArray[np.float32]:
    """As float32; what is too large becomes Inf, for the check that follows."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def not_finite(path: Path, key: str, place: str, value: object, count: int) -> str:
    """The error for NaN and Inf; `place` is the first of `count`."""
    return (
        f"{path}: {key}[{place}] is {value}, the first of {count} that are no finite float32: "
        "replace them, or leave their sequences out"
    )
