"""What a task is: sequences with their targets, and what a network needs to know to fit them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fptt.errors import InputError

Array = NDArray[Any]
Loss = Literal["last", "every_step"]
Criterion = Literal["cross_entropy", "mse"]


@dataclass(frozen=True, eq=False)
class SequenceData:
    """A set of n sequences of at most T steps, with their targets.

    Args:
        x: inputs, float32 [n, T, F], or int32 [n, T] where each step is a token.
        y: targets. Classes: int32 [n] (one per sequence) or int32 [n, T] (one per step, -1 = no
            target at this step). Regression: float32 [n, C] or float32 [n, T, C].
        lengths: int32 [n], the steps in use of each sequence (1..T); None if all have T.

    Raises:
        InputError: a shape or dtype is not one of these, or a length is outside 1..T.

    Example:
        >>> data = SequenceData(np.zeros((3, 5, 2), np.float32), np.array([0, 1, 0], np.int32))
        >>> len(data), data.steps, data.features
        (3, 5, 2)
    """

    x: Array
    y: Array
    lengths: NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        """Check shapes and dtypes; content (NaN, class range) is the business of loaders."""
        x, y = self.x, self.y
        for name, array in (("x", x), ("y", y)):
            if not isinstance(array, np.ndarray):
                raise InputError(f"{name} is a {type(array).__name__}; expected a numpy array")
        if not _is_one_of(x, {3}, {2}):
            raise InputError(
                f"x is {x.dtype} of shape {list(x.shape)}; expected float32 [n, T, F], or int32 "
                "[n, T] for tokens: convert it with astype and reshape"
            )
        if not _is_one_of(y, {2, 3}, {1, 2}):
            raise InputError(
                f"y is {y.dtype} of shape {list(y.shape)}; expected int32 [n] or [n, T] for "
                "classes, or float32 [n, C] or [n, T, C] for regression: convert it with astype "
                "and reshape"
            )
        if len(x) != len(y):
            raise InputError(f"x holds {len(x)} sequences and y {len(y)}; they must agree")
        if self.every_step and y.shape[1] != self.steps:
            raise InputError(
                f"y has {y.shape[1]} steps and x {self.steps}; a target for every step needs as "
                "many steps as the input"
            )
        if self.lengths is not None:
            _check_lengths(self.lengths, len(x), self.steps)

    def __len__(self) -> int:
        """Number of sequences n."""
        return len(self.x)

    @property
    def steps(self) -> int:
        """Number of steps T that the arrays hold."""
        return int(self.x.shape[1])

    @property
    def features(self) -> int | None:
        """Number of inputs F of a step; None for tokens."""
        return int(self.x.shape[2]) if self.x.ndim == 3 else None

    @property
    def every_step(self) -> bool:
        """Whether y has an axis of steps."""
        return self.y.ndim == (2 if self.y.dtype == np.int32 else 3)

    def subset(self, indices: Array) -> SequenceData:
        """The sequences with these indices, in this order (a copy).

        Args:
            indices: integers [m] in 0..n-1, or a boolean mask [n].

        Raises:
            InputError: an index is outside 0..n-1, or a mask has another length.
        """
        chosen = np.asarray(indices)
        if chosen.dtype == np.bool_ and chosen.shape == (len(self),):
            chosen = np.flatnonzero(chosen)
        if chosen.size == 0:  # an empty list arrives as float64
            chosen = chosen.astype(np.int64)
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
            raise InputError(
                f"indices are {chosen.dtype} of shape {list(chosen.shape)}; expected integers [m] "
                f"or a boolean mask [{len(self)}]"
            )
        wrong = chosen[(chosen < 0) | (chosen >= len(self))]
        if wrong.size:
            raise InputError(f"index {wrong[0]} is outside 0..{len(self) - 1}")
        lengths = None if self.lengths is None else self.lengths[chosen]
        return SequenceData(self.x[chosen], self.y[chosen], lengths)


@dataclass(frozen=True, eq=False)
class Task:
    """Training and test sequences, and what a network must look like to fit them.

    Attributes:
        name: as given to `fptt.tasks.load`.
        train: the sequences to learn from.
        test: held-out sequences.
        inputs: features of a step, or the vocabulary size for tokens.
        outputs: classes, or outputs of a regression.
        steps: the most steps that train or test hold.
        loss: "last" (a target per sequence) or "every_step".
        criterion: "cross_entropy" or "mse".
        tokens: whether x holds tokens (int32 [n, T]), for an Embedding layer.
        contiguous: rows of consecutive batches continue each other, so the state is carried from
            batch to batch and the order must never be shuffled (language modelling).
        description: one or two plain sentences on the data, its split and its size.
        normalisation: everything that was done to the raw input, by name; a device that feeds
            raw input to the trained network must do the same.
        vocabulary: what each token stands for, or None.
        batch: contiguous tasks only: the number of streams, which is the one batch size for which
            row r of a batch continues row r of the batch before; None otherwise.
    """

    name: str
    train: SequenceData
    test: SequenceData
    inputs: int
    outputs: int
    steps: int
    loss: Loss
    criterion: Criterion
    tokens: bool = False
    contiguous: bool = False
    description: str = ""
    normalisation: dict[str, float | list[float]] = field(default_factory=dict)
    vocabulary: tuple[str, ...] | None = None
    batch: int | None = None

    def __post_init__(self) -> None:
        """Check that the sequences are what the other fields say."""
        for part, data in (("train", self.train), ("test", self.test)):
            if self.tokens != (data.features is None):
                raise InputError(f"{part}.x is {data.x.dtype}, but tokens is {self.tokens}")
            if data.features not in (None, self.inputs):
                raise InputError(
                    f"{part} has {data.features} features, but inputs is {self.inputs}"
                )
            if data.steps > self.steps:
                raise InputError(f"{part} has {data.steps} steps, but steps is {self.steps}")
            if data.every_step != (self.loss == "every_step"):
                raise InputError(
                    f"{part}.y has shape {list(data.y.shape)}, but loss is {self.loss}"
                )
            if (data.y.dtype == np.int32) != (self.criterion == "cross_entropy"):
                raise InputError(f"{part}.y is {data.y.dtype}, but criterion is {self.criterion}")
        if self.contiguous != (self.batch is not None):
            raise InputError("batch must be given for a contiguous task, and for no other")


def _is_one_of(array: Array, float_dimensions: set[int], int_dimensions: set[int]) -> bool:
    if array.dtype == np.float32:
        return array.ndim in float_dimensions
    return array.dtype == np.int32 and array.ndim in int_dimensions


def _check_lengths(lengths: Array, n: int, steps: int) -> None:
    if lengths.dtype != np.int32 or lengths.shape != (n,):
        raise InputError(
            f"lengths are {lengths.dtype} of shape {list(lengths.shape)}; expected int32 [{n}]"
        )
    wrong = np.flatnonzero((lengths < 1) | (lengths > steps))
    if wrong.size:
        raise InputError(f"lengths[{wrong[0]}] is {lengths[wrong[0]]}; expected 1..{steps}")
