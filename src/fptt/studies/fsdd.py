"""The study of learning on the device: five speakers' digits, then the owner's own voice.

A base model learns from five speakers of the Free Spoken Digit Dataset and meets the sixth. How
well does it know the digits then, and how well after fine-tuning by FPTT, in little memory, on
five recordings of each digit? `speakers_study` answers for every speaker in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from fptt.errors import InputError
from fptt.rules import CosineSchedule
from fptt.studies.fsdd_recipe import Recipe
from fptt.studies.journal import Journal, Row
from fptt.tasks import SequenceData
from fptt.tasks.checks import whole_number
from fptt.tasks.fsdd import DIGITS, SpeakerSplit, speaker_split
from fptt.tasks.fsdd import speakers as speaker_names
from fptt.trainer import Trainer

#: called with (speaker, stage, share of the stage that is done)
Progress = Callable[[str, str, float], None]

STAGES = ("base", "tune", "control", "own")

#: what a row holds; accuracies are shares, 0 to 1
COLUMNS = {
    "speaker": "the sixth speaker, of whom the base model has heard nothing",
    "base_accuracy": "of the base model on the sixth speaker's test recordings",
    "tuned_accuracy": "the same after fine-tuning by FPTT on the sixth's tuning recordings",
    "control_accuracy": "the same after fine-tuning by truncated BPTT: no lambda, no running mean",
    "own_only_accuracy": "of a model that learnt from the tuning recordings alone",
    "others_accuracy_before": "of the base model on held-out recordings of the five others",
    "others_accuracy_after": "the same after fine-tuning: what it forgot of them",
    "tune_recordings": "recordings that the fine-tuning learns from",
    "test_recordings": "other recordings of the sixth speaker, for the first three accuracies",
    "others_recordings": "held-out recordings of the five others",
    "tune_memory_bytes": "what the fine-tuning program needs, arena and constant data",
    "control_memory_bytes": "the same for truncated BPTT",
    "seconds": "for the row, on this machine",
}


def speakers_study(
    data_dir: str | Path | None = None,
    *,
    seed: int = 0,
    epochs: int | None = None,
    tune_epochs: int | None = None,
    limit: int | None = None,
    speakers: Sequence[str] | None = None,
    on_row: Callable[[Row], None] | None = None,
    on_progress: Progress | None = None,
    checkpoint_dir: str | Path | None = None,
    recipe: Recipe | None = None,
    backend: str | None = None,
) -> list[Row]:
    """For every speaker: a base model of the five others, before and after fine-tuning.

    Four models a speaker, of the same network and judged on the same recordings of the sixth:

        base    BPTT, Adam: nine tenths of the five others' recordings and changed copies of them
        tuned   goes on from base by FPTT, SGD: 5 recordings a digit of the sixth, unchanged
        control as tuned, but by truncated BPTT: what R(t) adds is the difference
        own     from nothing, BPTT, Adam: the same 5 a digit and changed copies of them

    Base and tuned are also judged on the tenth of the others' recordings that no model learnt
    from. Mean and deviation of the bands come from the others (that tenth included), for own from
    the 5 a digit.

    Args:
        data_dir: directory with the data; default is the variable FPTT_DATA.
        seed: of the recordings drawn, the initial weights and the order of training.
        epochs: of the base model instead of the recipe's; own's change in proportion.
        tune_epochs: of fine-tuning instead of the recipe's.
        limit: train base on at most this many recordings (before copying), and judge on at most
            this many of each kind, the same number of every digit; 10 or more. For a quick look.
        speakers: the sixth speakers, in this order; all by default.
        on_row: called with every row as soon as it is known, those from before included.
        on_progress: called after every batch with speaker, stage (see STAGES) and share done.
        checkpoint_dir: finished rows and base models are kept in this folder, and a study that
            was killed goes on from there with the same result. One folder for each setting.
        recipe: hyperparameters; see `Recipe` for the defaults.
        backend: as in `fptt.Trainer`: "native" (the default: the engine in C) or "reference". They
            round differently, and training amplifies that to a point or two of accuracy: so each
            has a checkpoint_dir of its own.

    Returns:
        A row for each speaker, with the keys of COLUMNS.

    Raises:
        InputError: no data, an unknown speaker, a number out of range, or a checkpoint_dir of
            another setting.
        SaveError: the folder cannot be written.

    Example:
        >>> rows = speakers_study("data", epochs=1, limit=100)  # doctest: +SKIP
        >>> np.mean([row["tuned_accuracy"] for row in rows])  # doctest: +SKIP
    """
    seed, recipe = whole_number("seed", seed, minimum=0), recipe or Recipe()
    if epochs is not None:
        scale = whole_number("epochs", epochs, minimum=1) / recipe.base_epochs
        recipe = replace(
            recipe, base_epochs=epochs, own_epochs=max(1, round(recipe.own_epochs * scale))
        )
    if tune_epochs is not None:
        recipe = replace(recipe, tune_epochs=whole_number("tune_epochs", tune_epochs, minimum=1))
    if limit is not None:
        whole_number("limit", limit, minimum=DIGITS)
    known = speaker_names(data_dir)
    chosen = known if speakers is None else tuple(speakers)
    if unknown := [name for name in chosen if name not in known]:
        raise InputError(f"unknown speaker {unknown[0]!r}; expected one of {', '.join(known)}")
    # by its name, so that a folder that the reference has begun is not finished by the engine
    backend = backend or "native"
    setting = {"seed": seed, "limit": limit, "backend": backend, **asdict(recipe)}
    journal = Journal(checkpoint_dir, setting)
    rows = []
    for name in chosen:
        if name not in journal.rows:
            report = None if on_progress is None else _named(on_progress, name)
            split = speaker_split(data_dir, name, recipe.adapt_per_digit, seed)
            study = _Study(recipe, seed, backend, journal.path(f"{name}.base"), report)
            journal.add(name, study.row(split, limit))
        rows.append(journal.rows[name])
        if on_row:
            on_row(rows[-1])
    return rows


def mean_row(rows: Sequence[Row]) -> Row:
    """The mean of every column over the speakers; whole numbers are rounded.

    Example:
        >>> mean_row([{"speaker": "a", "x": 1.0}, {"speaker": "b", "x": 2.0}])
        {'speaker': 'mean', 'x': 1.5}
    """
    mean: Row = {"speaker": "mean"}
    for name in list(rows[0])[1:]:
        values = [row[name] for row in rows]
        average = sum(values) / len(values)
        mean[name] = round(average) if isinstance(values[0], int) else average
    return mean


def _named(progress: Progress, name: str) -> Callable[[str, float], None]:
    return lambda stage, share: progress(name, stage, share)


@dataclass(frozen=True)
class _Study:
    """How to make one speaker's row; `checkpoint` is the base model's, with its progress."""

    recipe: Recipe
    seed: int
    backend: str
    checkpoint: Path | None
    progress: Callable[[str, float], None] | None

    def row(self, split: SpeakerSplit, limit: int | None) -> Row:
        """Trains the three models and judges them."""
        started = time.perf_counter()
        recipe = self.recipe
        rng = np.random.default_rng([self.seed, 2])
        held_out = max(1, round(recipe.held_out * len(split.others_train) / DIGITS))
        others_test, others_train = _divide(split.others_train, held_out, rng)
        test, test_own = split.test, split.test_own
        if limit is not None:
            few = limit // DIGITS
            others_test, _ = _divide(others_test, few, rng)
            others_train, _ = _divide(others_train, few, rng)
            # these two are the same recordings on two scales: one seed, one draw
            test, _ = _divide(test, few, np.random.default_rng([self.seed, 3]))
            test_own, _ = _divide(test_own, few, np.random.default_rng([self.seed, 3]))
        steps = split.test.steps
        base = Trainer(recipe.host_program(steps, recipe.host_batch), self.backend, self.seed)
        self._fit(
            "base", base, recipe.more_voices(others_train, rng), recipe.base_epochs, self.checkpoint
        )
        tuned = Trainer(recipe.tune_program(steps, base.parameters()), self.backend, self.seed)
        self._fit("tune", tuned, split.adapt, recipe.tune_epochs)
        control = Trainer(
            recipe.tune_program(steps, base.parameters(), regularise=False), self.backend, self.seed
        )
        self._fit("control", control, split.adapt, recipe.tune_epochs)
        own = Trainer(recipe.host_program(steps, recipe.own_batch), self.backend, self.seed)
        self._fit("own", own, recipe.more_voices(split.adapt_own, rng), recipe.own_epochs)
        return {
            "speaker": split.speaker,
            "base_accuracy": base.evaluate(test)["accuracy"],
            "tuned_accuracy": tuned.evaluate(test)["accuracy"],
            "control_accuracy": control.evaluate(test)["accuracy"],
            "own_only_accuracy": own.evaluate(test_own)["accuracy"],
            "others_accuracy_before": base.evaluate(others_test)["accuracy"],
            "others_accuracy_after": tuned.evaluate(others_test)["accuracy"],
            "tune_recordings": len(split.adapt),
            "test_recordings": len(test),
            "others_recordings": len(others_test),
            "tune_memory_bytes": tuned.program.memory().total_bytes,
            "control_memory_bytes": control.program.memory().total_bytes,
            "seconds": time.perf_counter() - started,
        }

    def _fit(
        self,
        stage: str,
        trainer: Trainer,
        data: SequenceData,
        epochs: int,
        checkpoint: Path | None = None,
    ) -> None:
        """Trains, the rate falling along half a cosine; on from the checkpoint if there is one."""

        def batch_done(batch: int, batches: int, loss: float) -> None:
            if self.progress:
                self.progress(stage, (trainer.epoch + batch / batches) / epochs)

        trainer.fit(
            data,
            epochs,
            schedule=CosineSchedule(epochs),
            checkpoint=checkpoint,
            resume=checkpoint is not None,
            on_batch=batch_done,
        )


def _divide(
    data: SequenceData, per_digit: int, rng: np.random.Generator
) -> tuple[SequenceData, SequenceData]:
    """`per_digit` recordings of every digit, drawn at random, and all others."""
    drawn = np.concatenate(
        [rng.permutation(np.flatnonzero(data.y == digit))[:per_digit] for digit in range(DIGITS)]
    )
    chosen = np.isin(np.arange(len(data)), drawn)
    return data.subset(chosen), data.subset(~chosen)


__all__ = ["COLUMNS", "STAGES", "Progress", "Recipe", "Row", "mean_row", "speakers_study"]
