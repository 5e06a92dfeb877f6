"""The demo: one LSTM on embedded MNIST rows, by BPTT and by FPTT in more and more parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fptt.nets import LSTM, Linear, Network
from fptt.program import build
from fptt.rules import BPTT, FPTT, SGD, TBPTT, CosineSchedule
from fptt.tasks import load
from fptt.trainer import Trainer

RULES = {"BPTT": BPTT, "FPTT": FPTT, "TBPTT": TBPTT}


@dataclass(frozen=True)
class DemoSettings:
    """What the demo trains. Rows of 28 pixels make T = 28 steps.

    Attributes:
        runs: rule and K of every run. Truncated BPTT is the control: it keeps as few activations
            as FPTT does and has neither lambda nor a running mean.
        epochs: passes over the 2,000 training images.
        batch: images per batch.
        lr: initial learning rate of SGD with momentum 0.9, falling along a cosine. With the norm
            clipped at 1 it may be as high as 0.5, which gets BPTT far in the 400 updates it has.
        seed: of weights and order.
    """

    runs: tuple[tuple[str, int], ...] = (
        ("BPTT", 1),
        ("FPTT", 2),
        ("FPTT", 4),
        ("FPTT", 7),
        ("FPTT", 28),
        ("TBPTT", 4),
        ("TBPTT", 28),
    )
    epochs: int = 10
    batch: int = 50
    lr: float = 0.5
    seed: int = 0


@dataclass(frozen=True)
class DemoRow:
    """One rule's result.

    Attributes:
        rule: "BPTT", "FPTT" or "TBPTT".
        parts: K.
        accuracy: on the 1,000 test images, 0 to 1.
        memory_bytes: exact training memory by category.
        arena_bytes: all of it.
        seconds: time of training.
    """

    rule: str
    parts: int
    accuracy: float
    memory_bytes: Mapping[str, int]
    arena_bytes: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Plain data with the attributes' names."""
        return dict(vars(self))


#: called with the row's rule, epochs done, epochs
Progress = Callable[[str, int, int], None]


def run_demo(
    settings: DemoSettings | None = None, *, on_progress: Progress | None = None
) -> list[DemoRow]:
    """Trains the same network from the same weights by every rule.

    Returns:
        One row per run.
    """
    settings = settings or DemoSettings()
    task = load("mnist-rows", subset=True)
    net = Network([LSTM(28, 128), Linear(128, 10)])
    rows = []
    for name, parts in settings.runs:
        rule = RULES[name](parts=parts)
        program = build(
            net,
            rule,
            SGD(lr=settings.lr, momentum=0.9),
            steps=task.steps,
            batch=settings.batch,
            clip=1.0,
        )
        trainer = Trainer(program, seed=settings.seed)
        started = time.perf_counter()
        trainer.fit(
            task.train,
            settings.epochs,
            schedule=CosineSchedule(settings.epochs),
            on_epoch=_announcer(f"{name} K={parts}", settings.epochs, on_progress),
        )
        seconds = time.perf_counter() - started
        memory = program.memory()
        rows.append(
            DemoRow(
                name,
                parts,
                trainer.evaluate(task.test)["accuracy"],
                memory.categories,
                memory.arena_bytes,
                seconds,
            )
        )
    return rows


def _announcer(
    name: str, epochs: int, on_progress: Progress | None
) -> Callable[[dict[str, float]], None] | None:
    if on_progress is None:
        return None
    return lambda row: on_progress(name, int(row["epoch"]), epochs)


def trade(rows: list[DemoRow]) -> str:
    """What was traded for what, in words.

    Names the smallest FPTT run whose accuracy is not more than a point below that of BPTT, the
    smallest of all FPTT runs, and beside each what truncated BPTT does with the same K.
    """
    bptt = next(row for row in rows if row.rule == "BPTT")
    ours = [row for row in rows if row.rule == "FPTT"]
    as_good = [row for row in ours if row.accuracy >= bptt.accuracy - 0.01]
    least = min(ours, key=lambda row: row.arena_bytes)
    kept = (
        min(as_good, key=lambda row: row.arena_bytes)
        if as_good
        else max(ours, key=lambda row: row.accuracy)
    )

    def clause(row: DemoRow) -> str:
        percent = 100 * (row.arena_bytes / bptt.arena_bytes - 1)
        text = (
            f"FPTT in {row.parts} parts trains in {row.arena_bytes:,} bytes where BPTT needs "
            f"{bptt.arena_bytes:,} ({abs(percent):.0f} % {'less' if percent < 0 else 'more'}), "
            f"for {100 * (row.accuracy - bptt.accuracy):+.1f} points of accuracy and "
            f"{row.seconds / bptt.seconds:.1f} times the time"
        )
        for control in rows:
            if control.rule == "TBPTT" and control.parts == row.parts:
                text += (
                    f" (without lambda and the running mean: {control.arena_bytes:,} bytes, "
                    f"{100 * (control.accuracy - bptt.accuracy):+.1f} points)"
                )
        return text

    return (
        f"{'; '.join(map(clause, [kept] if kept is least else [kept, least]))}. The parts save "
        "activations; lambda and the running mean are the price of R(t). Every rule saw every "
        "image equally often, from the same weights; with K parts there are K updates a batch. "
        "One seed: differences below a point or so are chance."
    )
