"""The user's own sequences, from an npz archive.

Keys: x and y, optionally lengths; for data that is already split also x_test, y_test and
optionally lengths_test.

| x | lengths | means |
|---|---|---|
| float or int [n, T, F] | none, or [n] | n sequences of F features a step |
| int [n, T] | none, or [n] | n sequences of tokens |
| float or int [N, F] | [n], sum N | n sequences of unequal length, one after the other |

| y | criterion, loss |
|---|---|
| int [n] | cross-entropy, last |
| int [n, T], or [N] beside x [N, F] | cross-entropy, every step (-1 = no target) |
| float [n] or [n, C] | mean squared error, last |
| float [n, T, C], or [N] or [N, C] beside x [N, F] | mean squared error, every step |

Where n and N are equal (every sequence has one step) y [N] counts as [n].
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fptt.errors import InputError
from fptt.tasks.checks import fraction, whole_number
from fptt.tasks.files import read_npz
from fptt.tasks.npz_targets import Layout, Targets, convert_targets, not_finite, to_float32
from fptt.tasks.sequences import SequenceData, Task

Array = NDArray[Any]
_LARGEST = int(np.iinfo(np.int32).max) - 1


def load_npz(path: str | Path, test_fraction: float = 0.2, seed: int = 0) -> Task:
    """Make a task of the user's own sequences; the module's docstring lists what may be given.

    Args:
        path: npz archive, made with `np.savez`. Pickled objects are never loaded.
        test_fraction: how many of the sequences are held out, drawn at random (at least one);
            not used if the archive holds x_test.
        seed: of this draw.

    Returns:
        A task named after the file. Inputs become float32 (tokens int32) and are not normalised;
        sequences of unequal length are filled up with 0 to the longest. `inputs` is F, or the
        largest token + 1; `outputs` is C, or the largest label + 1.

    Raises:
        InputError: no such file, not an npz archive, damaged; a key is missing; shapes do not
            agree; NaN, Inf, a negative label or length; nothing in it.

    Example:
        >>> np.savez("mine.npz", x=np.zeros((10, 7, 2)), y=np.arange(10) % 3)  # doctest: +SKIP
        >>> task = load_npz("mine.npz")  # doctest: +SKIP
        >>> len(task.train), len(task.test), task.outputs  # doctest: +SKIP
        (8, 2, 3)
    """
    path = Path(path).expanduser()
    test_fraction = fraction("test_fraction", test_fraction)
    rng = np.random.default_rng(whole_number("seed", seed, minimum=0))
    arrays = read_npz(path)
    train, targets = _sequences(path, arrays, "")
    if "x_test" in arrays or "y_test" in arrays:
        test, test_targets = _sequences(path, arrays, "_test")
        _check_same_kind(path, train, test, targets, test_targets)
        outputs = max(targets.outputs, test_targets.outputs)
        split = "split as given"
    else:
        n = len(train)
        if n < 2:
            raise InputError(
                f"{path}: x holds 1 sequence; at least 2 are needed to hold one out: add more, or "
                "give x_test and y_test"
            )
        held_out = min(n - 1, max(1, round(n * test_fraction)))
        order = rng.permutation(n)
        train, test = train.subset(order[held_out:]), train.subset(order[:held_out])
        outputs = targets.outputs
        split = f"{held_out} drawn at random for the test"
    tokens = train.features is None
    inputs = train.features or int(max(train.x.max(), test.x.max())) + 1
    return Task(
        name=path.stem,
        train=train,
        test=test,
        inputs=inputs,
        outputs=outputs,
        steps=max(train.steps, test.steps),
        loss=targets.loss,
        criterion=targets.criterion,
        tokens=tokens,
        description=(
            f"Sequences from {path.name}: {len(train):,} to train on and {len(test):,} held out "
            f"({split}), not normalised."
        ),
    )


def _sequences(path: Path, arrays: dict[str, Array], suffix: str) -> tuple[SequenceData, Targets]:
    x_key, y_key, lengths_key = f"x{suffix}", f"y{suffix}", f"lengths{suffix}"
    missing = [key for key in (x_key, y_key) if key not in arrays]
    if missing:
        raise InputError(
            f"{path}: {' and '.join(missing)} missing; it holds {', '.join(arrays) or 'nothing'}: "
            f"store the inputs as {x_key} and the targets as {y_key}"
        )
    x = arrays[x_key]
    if x.dtype.kind not in "biuf":
        raise InputError(
            f"{path}: {x_key} has dtype {x.dtype}; expected real numbers: convert them first"
        )
    if x.size == 0:
        raise InputError(f"{path}: {x_key} has shape {list(x.shape)} and so holds nothing")
    given = arrays.get(lengths_key)
    concatenated = given is not None and _one_after_the_other(x, given)
    if not (x.ndim == 3 or concatenated or (x.ndim == 2 and x.dtype.kind in "iu")):
        raise InputError(
            f"{path}: {x_key} is {x.dtype} of shape {list(x.shape)}; expected [n, T, F], or "
            f"integers [n, T] for tokens, or [N, F] beside {lengths_key} [n]: for one feature a "
            "step use x[:, :, np.newaxis]"
        )
    n, steps, lengths = len(x), x.shape[1], None
    if given is not None:
        lengths = _lengths(path, lengths_key, given, x_key, x, concatenated)
        n, steps = len(lengths), int(lengths.max()) if concatenated else steps
    layout = Layout(x_key, x.shape, n, steps, lengths, concatenated)
    targets = convert_targets(path, y_key, arrays[y_key], layout)
    return SequenceData(_values(path, x, layout), targets.y, lengths), targets


def _one_after_the_other(x: Array, lengths: Array) -> bool:
    """Whether x beside lengths is frames [N, F]; integers could also be tokens [n, T]."""
    if x.ndim != 2 or x.dtype.kind == "f":
        return x.ndim == 2
    return lengths.dtype.kind in "iu" and lengths.size != len(x) and int(lengths.sum()) == len(x)


def _lengths(
    path: Path, key: str, given: Array, x_key: str, x: Array, concatenated: bool
) -> NDArray[np.int32]:
    if given.dtype.kind not in "iu" or given.ndim != 1 or given.size == 0:
        raise InputError(
            f"{path}: {key} is {given.dtype} of shape {list(given.shape)}; expected whole numbers "
            "[n], the steps of each sequence"
        )
    wrong = np.flatnonzero(given < 1)
    if wrong.size:
        raise InputError(
            f"{path}: {key}[{wrong[0]}] is {given[wrong[0]]}; every sequence needs at least one "
            "step: leave empty ones out"
        )
    if concatenated:
        total = sum(given.tolist())
        if total != len(x):
            raise InputError(
                f"{path}: {key} sum to {total}, but {x_key} holds {len(x)} frames; they must agree"
            )
    else:
        if len(given) != len(x):
            raise InputError(
                f"{path}: {x_key} holds {len(x)} sequences and {key} {len(given)}; they must agree"
            )
        wrong = np.flatnonzero(given > x.shape[1])
        if wrong.size:
            raise InputError(
                f"{path}: {key}[{wrong[0]}] is {given[wrong[0]]}, but {x_key} has {x.shape[1]} "
                "steps; no sequence can be longer"
            )
    return given.astype(np.int32)


def _values(path: Path, x: Array, layout: Layout) -> Array:
    # What lies after the end of a sequence is replaced by 0 before the check: it may be anything.
    arranged = layout.arrange(x, 0)
    if x.dtype.kind in "iu" and x.ndim == 2 and not layout.concatenated:
        wrong = np.argwhere((arranged < 0) | (arranged > _LARGEST))
        if wrong.size:
            raise InputError(
                f"{path}: {layout.key}[{layout.place(wrong[0])}] is {arranged[tuple(wrong[0])]}; "
                "tokens are numbered from 0"
            )
        return arranged.astype(np.int32)
    values = to_float32(arranged)
    wrong = np.argwhere(~np.isfinite(values))
    if wrong.size:
        place, value = layout.place(wrong[0]), arranged[tuple(wrong[0])]
        raise InputError(not_finite(path, layout.key, place, value, len(wrong)))
    return values


def _check_same_kind(
    path: Path, train: SequenceData, test: SequenceData, y: Targets, y_test: Targets
) -> None:
    if train.features != test.features:
        raise InputError(
            f"{path}: x has {_features(train)} and x_test {_features(test)}; they must agree"
        )
    if (y.criterion, y.loss) != (y_test.criterion, y_test.loss):
        raise InputError(
            f"{path}: y is for {y.criterion}, {y.loss}, and y_test for {y_test.criterion}, "
            f"{y_test.loss}; both must have the same kind of target"
        )
    if y.criterion == "mse" and y.outputs != y_test.outputs:
        raise InputError(
            f"{path}: y has {y.outputs} outputs and y_test {y_test.outputs}; they must agree"
        )


def _features(data: SequenceData) -> str:
    return "tokens" if data.features is None else f"{data.features} features"
