"""The study of speakers (`fptt.studies.fsdd`) as records of the results file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from fptt.experiments.experiment import Experiment
from fptt.experiments.reading import VERSION
from fptt.experiments.results import Record, commit, machine
from fptt.runs import describe_backend
from fptt.studies.fsdd_recipe import Recipe
from fptt.tasks.fsdd import STEPS

#: what the models of a row are called in the table, and the column of their accuracy
MODELS: Mapping[str, str] = {
    "five others, not adapted": "base_accuracy",
    "adapted by FPTT": "tuned_accuracy",
    "adapted by truncated BPTT": "control_accuracy",
    "own recordings alone": "own_only_accuracy",
}


def speaker_records(rows: Sequence[Mapping[str, Any]], recipe: Recipe, seed: int) -> list[Record]:
    """Four records a speaker, one for each model.

    Args:
        rows: what `speakers_study` returned, without the mean.
        recipe: its hyperparameters.
        seed: its seed.
    """
    backend = describe_backend(recipe.tune_program(STEPS), None, 1)
    ran = {"commit": commit(), "machine": machine(), "backend": backend}
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return [
        {
            "version": VERSION,
            "table": "fsdd",
            "variant": variant,
            "metric": "test_accuracy",
            **record,
            **ran,
            "date": date,
        }
        for row in rows
        for variant, record in _models(row, recipe, seed)
    ]


def _models(
    row: Mapping[str, Any], recipe: Recipe, seed: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    options = {"speaker": row["speaker"], "per_digit": recipe.adapt_per_digit}
    tuned = Experiment(
        "fsdd-personal",
        options,
        hidden=recipe.hidden,
        dropout=recipe.dropout,
        rule="fptt",
        parts=recipe.parts,
        alpha=recipe.alpha,
        beta=recipe.beta,
        loss=recipe.loss,
        optimizer="sgd",
        lr=recipe.tune_lr,
        momentum=recipe.tune_momentum,
        clip=recipe.clip,
        schedule="cosine",
        epochs=recipe.tune_epochs,
        batch=recipe.tune_batch,
        seed=seed,
    )
    host = {
        "rule": "bptt",
        "parts": 1,
        "loss": None,
        "optimizer": "adam",
        "lr": recipe.host_lr,
        "momentum": 0.0,
    }
    base = {"epochs": recipe.base_epochs, "batch": recipe.host_batch}
    own = {"epochs": recipe.own_epochs, "batch": recipe.own_batch}
    changes: Mapping[str, Mapping[str, Any]] = {
        "base_accuracy": {**host, **base},
        "tuned_accuracy": {},
        "control_accuracy": {"rule": "tbptt"},
        "own_only_accuracy": {**host, **own},
    }
    programs = {
        "base_accuracy": recipe.host_program(STEPS, recipe.host_batch),
        "tuned_accuracy": recipe.tune_program(STEPS),
        "control_accuracy": recipe.tune_program(STEPS, regularise=False),
        "own_only_accuracy": recipe.host_program(STEPS, recipe.own_batch),
    }
    for variant, column in MODELS.items():
        # the recipe says more than an experiment can: copies, held-out recordings
        configuration = {**tuned.as_plain(), **changes[column], "recipe": asdict(recipe)}
        text = json.dumps([variant, configuration], sort_keys=True)
        program = programs[column]
        memory = program.memory()
        yield (
            variant,
            {
                "key": hashlib.sha256(text.encode()).hexdigest()[:16],
                "configuration": configuration,
                "network": str(program.net),
                "parameters": program.net.size,
                "steps": STEPS,
                "train_sequences": row["tune_recordings"],
                "test_sequences": row["test_recordings"],
                # of all four models together
                "seconds": row["seconds"],
                "arena_bytes": memory.arena_bytes,
                "memory_bytes": {str(r): size for r, size in memory.categories.items() if size},
                "epochs": [{"epoch": configuration["epochs"], "test_accuracy": row[column]}],
                "study": dict(row),
            },
        )
