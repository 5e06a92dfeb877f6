"""The demo: a trained S-MNIST model meets a user who writes in another way, and learns that hand.

The model reads a digit pixel by pixel, T = 784. It comes with the package (`studies/data`) and was
trained on MNIST's training images. The new user's digits are turned; they, and the unchanged digits
of everybody else, are the embedded test images, which no training has seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from fptt.errors import InputError
from fptt.nets import Network
from fptt.program import Program, build
from fptt.rules import FPTT, SGD, TBPTT, CosineSchedule
from fptt.storage.modelfile import Model, load_model
from fptt.studies.turn import turned
from fptt.tasks import SequenceData, load
from fptt.tasks.mnist import CLASSES, SIDE
from fptt.trainer import Trainer
from fptt.training.inference import Inference

RULES = {"FPTT": FPTT, "TBPTT": TBPTT}
MODEL = "s_mnist_1_128_10.safetensors"
STEPS = SIDE * SIDE


@dataclass(frozen=True)
class Run:
    """One way to learn the new hand.

    Attributes:
        rule: "FPTT" or "TBPTT". Truncated BPTT is the control: it keeps as few activations as
            FPTT does and has neither lambda nor a running mean; with K = 1 it is plain BPTT.
        parts: K.
        lr: initial learning rate of SGD, falling along a cosine.
        epochs: passes over the new user's digits.
        label_every: the digit's label is given, and learnt from, at every so manieth step, the
            last step included. 784: at the end of a digit; 28: at the end of each row of pixels.
        clip: largest norm of the update direction, or None. A gradient over 784 steps can be large
            at times; clipping it needs memory for all of it, which short parts do without.
        dtype, rounding, train, adapters, recompute: as in `fptt.build`.
    """

    rule: str
    parts: int
    lr: float
    epochs: int
    label_every: int
    clip: float | None = None
    dtype: str = "float32"
    rounding: str = "nearest"
    train: tuple[str, ...] = ("*",)
    adapters: Mapping[str, int] | None = None
    recompute: bool = False

    @property
    def loss(self) -> str:
        """At the end of every part; where not every part ends with a label, where there is one."""
        return "last" if self.label_every * self.parts == STEPS else "every_step"


@dataclass(frozen=True)
class DemoSettings:
    """What the demo does.

    The rates were chosen on other images than those that judge here: `tools/demo_rates.py`.

    Attributes:
        runs: all start from the same model.
        turn: degrees by which the new user's digits are turned clockwise.
        learn, judge, old: images of each digit that the new user writes to be learnt from, that
            the new user writes to be judged, and of everybody else. They are different images.
        batch: digits that are learnt from together.
        seed: of the order.
        model: another model's file instead of the bundled one.
    """

    runs: tuple[Run, ...] = (
        Run("FPTT", 1, 0.03, 10, STEPS, clip=1.0),
        Run("FPTT", 28, 0.001, 10, SIDE),
        Run("FPTT", 784, 0.001, 10, SIDE),
        Run("TBPTT", 28, 0.001, 10, SIDE),
    )
    turn: float = 30.0
    learn: int = 20
    judge: int = 40
    old: int = 40
    batch: int = 4
    seed: int = 0
    model: Path | None = None


@dataclass(frozen=True)
class DemoRow:
    """One run's result. Accuracies are shares, 0 to 1.

    Attributes:
        rule, parts, lr, epochs: as in `Run`.
        new_before, new_after: accuracy on the new user's digits, before and after learning.
        old_before, old_after: on the unchanged digits of everybody else: what was forgotten.
        label_every: as in `Run`.
        updates: of the weights, in all.
        memory_bytes: exact training memory by category.
        arena_bytes: all of it.
        seconds: time of training.
        seconds_per_sequence: for each digit, each time it is learnt from.
    """

    rule: str
    parts: int
    lr: float
    epochs: int
    new_before: float
    new_after: float
    old_before: float
    old_after: float
    label_every: int
    updates: int
    memory_bytes: Mapping[str, int]
    arena_bytes: int
    seconds: float
    seconds_per_sequence: float

    def as_json(self) -> dict[str, Any]:
        """Plain data with the attributes' names."""
        return dict(vars(self))


@dataclass(frozen=True)
class Digits:
    """Three sets of different images.

    Attributes:
        learn: what the new user gives to be learnt from.
        judge: other digits of the new user.
        old: digits of everybody else, as they are.
    """

    learn: SequenceData
    judge: SequenceData
    old: SequenceData


#: called with the row's rule, epochs done, epochs
Progress = Callable[[str, int, int], None]


def demo_model(path: Path | None = None) -> Model:
    """The model that comes with the package, or that of a file.

    Raises:
        InputError: the file is missing, damaged, or of a model that does not read digits by pixels.
    """
    if path is None:
        with resources.as_file(resources.files("fptt.studies") / "data" / MODEL) as bundled:
            return _reads_pixels(bundled)
    return _reads_pixels(path)


def _reads_pixels(path: Path) -> Model:
    model = load_model(path)
    if model.notes.get("task") != "s-mnist":
        raise InputError(
            f"{path} is {model.net}, trained on task {model.notes.get('task')}; the demo needs a "
            "model of s-mnist"
        )
    return model


def demo_digits(images: SequenceData, settings: DemoSettings) -> Digits:
    """Cuts test images into three sets, the first images of each digit first.

    Args:
        images: x [n, 784, 1], in random order.
        settings: how many of each digit go where, and how far the new user's are turned.

    Raises:
        InputError: there are too few images of a digit.
    """
    counts = (settings.learn, settings.judge, settings.old)
    sets: tuple[list[Any], ...] = ([], [], [])
    for digit in range(CLASSES):
        places = np.flatnonzero(images.y == digit)
        if len(places) < sum(counts):
            raise InputError(
                f"the demo needs {sum(counts)} images of each digit; there are {len(places)} of "
                f"the digit {digit}"
            )
        for chosen, part in zip(sets, np.split(places, np.cumsum(counts))[:3], strict=True):
            chosen.append(part)
    learn, judge, old = (images.subset(np.sort(np.concatenate(chosen))) for chosen in sets)
    return Digits(_turned(learn, settings.turn), _turned(judge, settings.turn), old)


def _turned(data: SequenceData, degrees: float) -> SequenceData:
    pictures = data.x.reshape(len(data), SIDE, SIDE)
    return SequenceData(turned(pictures, degrees).reshape(data.x.shape), data.y)


def demo_program(net: Network, run: Run, settings: DemoSettings) -> Program:
    """What learns the new hand."""
    return build(
        net,
        RULES[run.rule](parts=run.parts),
        SGD(lr=run.lr),
        steps=STEPS,
        batch=settings.batch,
        loss=run.loss,
        clip=run.clip,
        dtype=run.dtype,
        rounding=run.rounding,
        train=run.train,
        adapters=run.adapters,
        recompute=run.recompute,
    )


def adapt(
    net: Network,
    run: Run,
    data: SequenceData,
    settings: DemoSettings,
    on_progress: Progress | None = None,
) -> Trainer:
    """Goes on learning from a network's weights.

    Returns:
        The trainer, with the weights learnt.
    """
    trainer = Trainer(demo_program(net, run, settings), seed=settings.seed)
    labels = data.y
    if run.loss == "every_step":
        labels = np.full((len(data), STEPS), -1, np.int32)
        labels[:, run.label_every - 1 :: run.label_every] = data.y[:, None]
    trainer.fit(
        (data.x, labels),
        run.epochs,
        schedule=CosineSchedule(run.epochs),
        on_epoch=_announcer(f"{run.rule} K={run.parts}", run.epochs, on_progress),
    )
    return trainer


def _announcer(
    name: str, epochs: int, on_progress: Progress | None
) -> Callable[[dict[str, float]], None] | None:
    if on_progress is None:
        return None
    return lambda row: on_progress(name, int(row["epoch"]), epochs)


class Judge:
    """The accuracies that count.

    Whatever the weights were trained in, they are judged in float32.

    Args:
        net: the network, without adapters.
        digits: `judge` and `old` are looked at.
    """

    def __init__(self, net: Network, digits: Digits) -> None:
        self._sets = (digits.judge, digits.old)
        self._inference = Inference(net, every_step=False, criterion="cross_entropy")

    def accuracies(self, parameters: Mapping[str, Any]) -> tuple[float, float]:
        """Shares of the new user's other digits and of everybody's that are read right."""
        self._inference.load(parameters)
        new, old = (self._inference.evaluate(data)["accuracy"] for data in self._sets)
        return new, old


def updates(run: Run, sequences: int, settings: DemoSettings) -> int:
    """One for every part with a label, in every batch of every epoch."""
    learning = min(run.parts, STEPS // run.label_every)
    return learning * -(-sequences // settings.batch) * run.epochs


def run_demo(
    settings: DemoSettings | None = None, *, on_progress: Progress | None = None
) -> list[DemoRow]:
    """Adapts the bundled model to the new user, in every way of the settings.

    Returns:
        One row per run.

    Raises:
        InputError: another model's file that does not fit, or more images than there are.
    """
    settings = settings or DemoSettings()
    model = demo_model(settings.model)
    digits = demo_digits(load("s-mnist", subset=True).test, settings)
    judge = Judge(model.net, digits)
    assert model.net.weights is not None
    before = judge.accuracies(model.net.weights)
    rows = []
    for run in settings.runs:
        started = time.perf_counter()
        trainer = adapt(model.net, run, digits.learn, settings, on_progress)
        seconds = time.perf_counter() - started
        after = judge.accuracies(trainer.merged_parameters())
        memory = trainer.program.memory()
        rows.append(
            DemoRow(
                run.rule,
                run.parts,
                run.lr,
                run.epochs,
                new_before=before[0],
                new_after=after[0],
                old_before=before[1],
                old_after=after[1],
                label_every=run.label_every,
                updates=updates(run, len(digits.learn), settings),
                memory_bytes=memory.categories,
                arena_bytes=memory.arena_bytes,
                seconds=seconds,
                seconds_per_sequence=seconds / (run.epochs * len(digits.learn)),
            )
        )
    return rows


def summary(rows: Sequence[DemoRow]) -> str:
    """What was gained, what was forgotten and what it cost, in words."""
    ours = [row for row in rows if row.rule == "FPTT"]
    most = max(row.arena_bytes for row in ours)
    controls = {row.parts: row for row in rows if row.rule == "TBPTT"}

    def clause(row: DemoRow) -> str:
        percent = 100 * (1 - row.arena_bytes / most)
        less = f" ({percent:.0f} % less)" if row.arena_bytes < most else ""
        parts = f"in {row.parts} part{'s' * (row.parts > 1)}, in {row.arena_bytes:,} bytes{less}"
        new, old = f"{100 * row.new_after:.1f} %", f"{100 * row.old_after:.1f} %"
        result = f"{new} and {old}"
        if row is ours[0]:
            result = f"{new} of the new user's, {old} of everybody's"
        if control := controls.get(row.parts):
            result += (
                f" ({100 * control.new_after:.1f} % and {100 * control.old_after:.1f} % without "
                f"lambda and the running mean, in {control.arena_bytes:,} bytes)"
            )
        return f"{parts}: {result}"

    first = rows[0]
    return (
        f"The model reads {100 * first.old_before:.1f} % of everybody's digits and "
        f"{100 * first.new_before:.1f} % of the new user's. After learning from the new user by "
        f"FPTT {'; '.join(map(clause, ours))}. One seed and few images: differences of a few "
        "points are chance."
    )
