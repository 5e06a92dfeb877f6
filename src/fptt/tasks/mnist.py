"""MNIST as sequences: by rows, by pixels, and by pixels in a fixed random order.

The images are those of LeCun, Cortes and Burges. They come from the four official files in the
user's data directory, or from the small subset that is embedded in the package.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fptt.errors import InputError
from fptt.tasks.files import data_directory, find_files, read_npz
from fptt.tasks.idx import read_idx
from fptt.tasks.sequences import SequenceData, Task

FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
PERMUTATION_SEED = 92916
SIDE = 28
CLASSES = 10

Bytes = NDArray[np.uint8]
_Part = tuple[Bytes, Bytes]  # images [n, 28, 28], labels [n]


def permutation() -> NDArray[np.int64]:
    """Order of the pixels in `ps-mnist`, int64 [784]: step t shows the pixel in place t of it.

    Drawn with `np.random.RandomState(92916)`, whose stream numpy has frozen, so the order is the
    same with every version of numpy.
    """
    order = np.random.RandomState(PERMUTATION_SEED).permutation(SIDE * SIDE)
    return order.astype(np.int64)


def _by_rows(images: Bytes) -> Bytes:
    return images


def _by_pixels(images: Bytes) -> Bytes:
    return images.reshape(len(images), SIDE * SIDE, 1)


def _by_permuted_pixels(images: Bytes) -> Bytes:
    return _by_pixels(images)[:, permutation()]


_VIEWS: dict[str, tuple[Callable[[Bytes], Bytes], str]] = {
    "mnist-rows": (_by_rows, "a row of 28 pixels a step, 28 steps"),
    "s-mnist": (_by_pixels, "a pixel a step, 784 steps, row by row"),
    "ps-mnist": (_by_permuted_pixels, "a pixel a step, 784 steps, in a fixed random order"),
}


def rows(data_dir: str | Path | None = None, *, subset: bool = False) -> Task:
    """`mnist-rows`: x [n, 28, 28], step t shows row t of the image. See `official`."""
    return embedded("mnist-rows") if subset else official("mnist-rows", data_dir)


def pixels(data_dir: str | Path | None = None, *, subset: bool = False) -> Task:
    """`s-mnist`: x [n, 784, 1], one pixel a step, row by row. See `official`."""
    return embedded("s-mnist") if subset else official("s-mnist", data_dir)


def permuted(data_dir: str | Path | None = None, *, subset: bool = False) -> Task:
    """`ps-mnist`: x [n, 784, 1], one pixel a step, in the order of `permutation`."""
    return embedded("ps-mnist") if subset else official("ps-mnist", data_dir)


def official(view: str, data_dir: str | Path | None = None) -> Task:
    """All of MNIST (60,000 and 10,000 images) as one of the three tasks.

    x = pixel / 255, in [0, 1]; y = the digit, 0..9.

    Args:
        view: "mnist-rows", "s-mnist" or "ps-mnist".
        data_dir: directory with the four official .gz files, or with a folder mnist that holds
            them; default is the variable FPTT_DATA.

    Raises:
        InputError: unknown view; no directory; a file is missing or damaged.

    Example:
        >>> official("s-mnist", "data").train.x.shape  # doctest: +SKIP
        (60000, 784, 1)
    """
    _check_view(view)
    directory = data_directory(
        data_dir, view, "or use subset=True for the 3,000 images embedded in the package"
    )
    hint = "copy the four files there, or use subset=True for the embedded 3,000 images"
    paths = find_files(directory, "mnist", FILES, view, hint)
    return _task(view, _read_part(paths[0], paths[1]), _read_part(paths[2], paths[3]), "MNIST")


def embedded(view: str = "mnist-rows") -> Task:
    """The subset that comes with the package: 2,000 training and 1,000 test images of MNIST.

    Drawn from the official training and test set, as many of each digit; see
    data/MNIST_LICENSE.md for attribution and how it was made. Needs no data directory.

    Args:
        view: "mnist-rows", "s-mnist" or "ps-mnist".

    Raises:
        InputError: unknown view.

    Example:
        >>> embedded("mnist-rows").train.x.shape
        (2000, 28, 28)
    """
    _check_view(view)
    with resources.as_file(resources.files("fptt.tasks") / "data" / "mnist_subset.npz") as path:
        arrays = read_npz(path)
    train = arrays["train_images"], arrays["train_labels"]
    test = arrays["test_images"], arrays["test_labels"]
    return _task(view, train, test, "the embedded subset of MNIST")


def _check_view(view: str) -> None:
    if view not in _VIEWS:
        raise InputError(f"unknown view {view!r} of MNIST; expected one of {', '.join(_VIEWS)}")


def _read_part(images_path: Path, labels_path: Path) -> _Part:
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if images.shape[1:] != (SIDE, SIDE):
        height, width = images.shape[1:]
        raise InputError(f"{images_path}: images are {height} x {width}; expected {SIDE} x {SIDE}")
    if len(images) != len(labels):
        raise InputError(
            f"{images_path} holds {len(images)} images and {labels_path} {len(labels)} labels; "
            "they must agree: download both again"
        )
    if len(labels) == 0:
        raise InputError(f"{images_path}: holds no images: download it again")
    if labels.max() >= CLASSES:
        raise InputError(f"{labels_path}: holds the label {labels.max()}; expected digits 0..9")
    return images, labels


def _task(view: str, train: _Part, test: _Part, source: str) -> Task:
    arrange, words = _VIEWS[view]

    def data(images: Bytes, labels: Bytes) -> SequenceData:
        # Arranged as bytes first: the permutation then moves a quarter of the memory.
        scaled = arrange(images) / np.float32(255)
        return SequenceData(scaled, labels.astype(np.int32))

    train_data, test_data = data(*train), data(*test)
    features = train_data.x.shape[2]
    normalisation: dict[str, float | list[float]] = {"divide_by": 255.0}
    if view == "ps-mnist":
        normalisation["order"] = [float(pixel) for pixel in permutation()]
    return Task(
        name=view,
        train=train_data,
        test=test_data,
        inputs=features,
        outputs=CLASSES,
        steps=train_data.steps,
        loss="last",
        criterion="cross_entropy",
        description=(
            f"Handwritten digits: {source}, {words}; {len(train_data):,} training and "
            f"{len(test_data):,} test images, pixels scaled to [0, 1]."
        ),
        normalisation=normalisation,
    )
