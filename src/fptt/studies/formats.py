"""Number formats: float32, bfloat16 rounded to nearest, and bfloat16 rounded at random.

Three studies. `sweep` trains on four images of S-MNIST with nine K. `rows` trains on MNIST by rows
and looks at the test images. `personal` is the demo's personalisation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fptt.errors import NumericalError
from fptt.nets import LSTM, Linear, Network
from fptt.program import build
from fptt.rules import FPTT, SGD, CosineSchedule
from fptt.studies.demo import DemoSettings, run_demo
from fptt.tasks import load
from fptt.trainer import Trainer

#: name -> options of `build`
FORMATS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    "bfloat16 to nearest": {"dtype": "bfloat16"},
    "bfloat16 stochastic": {"dtype": "bfloat16", "rounding": "stochastic"},
}

#: K of the published sweep
SWEEP_PARTS = (1, 2, 7, 14, 28, 56, 112, 392, 784)

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class SweepRow:
    """One K in one format.

    Attributes:
        parts: K.
        format: a name of FORMATS.
        loss: mean data loss over the parts of the last pass, None if numbers became NaN.
        final_loss: loss at the sequences' ends with the final parameters, None likewise.
        arena_bytes: exact training memory.
        seconds: median time of one pass over the four images.
    """

    parts: int
    format: str
    loss: float | None
    final_loss: float | None
    arena_bytes: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Plain data with the attributes' names."""
        return dict(vars(self))


def sweep(
    parts: Sequence[int] = SWEEP_PARTS,
    *,
    passes: int = 100,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> list[SweepRow]:
    """Trains 1-128-10 on the first four embedded training images, a pixel a step (T = 784).

    FPTT with SGD (learning rate 0.02, momentum 0.9) and the loss at every part's end, from the same
    weights for every K and format.

    Args:
        parts: K of every row.
        passes: updates per part of the sequence.
        seed: of the weights and of stochastic rounding.
        on_progress: called with what runs and the share that is done.
    """
    task = load("s-mnist", subset=True)
    x, y = task.train.x[:4], task.train.y[:4]
    net = Network([LSTM(1, 128), Linear(128, 10)])
    rows = []
    for number, (k, name) in enumerate((k, name) for k in parts for name in FORMATS):
        if on_progress:
            on_progress(f"K={k}, {name}", number / (len(parts) * len(FORMATS)))
        program = build(
            net, FPTT(parts=k), SGD(0.02, 0.9), steps=task.steps, batch=len(x), **_options(name)
        )
        trainer = Trainer(program, seed=seed)
        loss: float | None = None
        final: float | None = None
        times = []
        try:
            for _ in range(passes):
                started = time.perf_counter()
                loss = trainer.train_batch(x, y)
                times.append(time.perf_counter() - started)
            final = trainer.evaluate((x, y))["loss"]
        except NumericalError:
            loss = None
        middle = sorted(times)[len(times) // 2] if times else float("nan")
        rows.append(SweepRow(k, name, loss, final, program.memory().arena_bytes, middle))
    return rows


@dataclass(frozen=True)
class RowsRow:
    """MNIST by rows in one format.

    Attributes:
        format: a name of FORMATS.
        accuracy: on the test images, 0 to 1, after every epoch.
        arena_bytes: exact training memory.
        seconds: time of training.
    """

    format: str
    accuracy: list[float]
    arena_bytes: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Plain data with the attributes' names."""
        return dict(vars(self))


def rows(
    data_dir: Path | None = None,
    *,
    epochs: int = 10,
    limit: int | None = None,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> list[RowsRow]:
    """Trains LSTM 28-128-10 on MNIST by rows (T = 28) by FPTT with K = 4.

    SGD, learning rate 0.1 along a cosine, momentum 0.9, batches of 50, norm clipped at 1.

    Args:
        data_dir: folder with the MNIST files; without it the embedded 2,000 images.
        epochs: passes over the data.
        limit: use only so many training images.
        seed: of weights, order and stochastic rounding.
        on_progress: called with what runs and the share that is done.
    """
    task = load("mnist-rows", data_dir=data_dir, subset=data_dir is None, limit=limit)
    net = Network([LSTM(28, 128), Linear(128, 10)])
    result = []
    for number, name in enumerate(FORMATS):
        program = build(
            net,
            FPTT(parts=4),
            SGD(0.1, 0.9),
            steps=task.steps,
            batch=50,
            clip=1.0,
            **_options(name),
        )
        trainer = Trainer(program, seed=seed)

        def after_epoch(row: dict[str, float], name: str = name, number: int = number) -> None:
            if on_progress:
                share = (number + row["epoch"] / epochs) / len(FORMATS)
                on_progress(f"{name}, epoch {int(row['epoch'])} of {epochs}", share)

        started = time.perf_counter()
        history = trainer.fit(
            task.train,
            epochs,
            test=task.test,
            schedule=CosineSchedule(epochs),
            on_epoch=after_epoch,
        )
        accuracy = [row["test_accuracy"] for row in history.rows]
        result.append(
            RowsRow(name, accuracy, program.memory().arena_bytes, time.perf_counter() - started)
        )
    return result


@dataclass(frozen=True)
class PersonalRow:
    """The demo's personalisation with one K in one format.

    Attributes:
        parts: K.
        format: a name of FORMATS.
        new_before, new_after: accuracy on the new user's digits, 0 to 1.
        old_before, old_after: on everybody else's.
        arena_bytes: exact training memory.
        seconds: time of training.
    """

    parts: int
    format: str
    new_before: float
    new_after: float
    old_before: float
    old_after: float
    arena_bytes: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Plain data with the attributes' names."""
        return dict(vars(self))


def personal(
    *, epochs: int | None = None, on_progress: Progress | None = None
) -> list[PersonalRow]:
    """The demo's personalisation by FPTT, every K in every format.

    Args:
        epochs: passes over the new user's digits; the demo's by default.
        on_progress: called with what runs and the share that is done.
    """
    ways = [(run, name) for run in DemoSettings().runs if run.rule == "FPTT" for name in FORMATS]
    result = []
    for number, (run, name) in enumerate(ways):
        if on_progress:
            on_progress(f"personalisation, K={run.parts}, {name}", number / len(ways))
        run = replace(run, epochs=epochs or run.epochs, **FORMATS[name])
        (row,) = run_demo(DemoSettings(runs=(run,)))
        result.append(
            PersonalRow(
                run.parts,
                name,
                row.new_before,
                row.new_after,
                row.old_before,
                row.old_after,
                row.arena_bytes,
                row.seconds,
            )
        )
    return result


def _options(name: str) -> dict[str, Any]:
    return dict(FORMATS[name])
