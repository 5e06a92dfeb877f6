"""What the commands start from: a model or a checkpoint, and sequences to run on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fptt.deploy.export import host_trainer
from fptt.device.folder import read_folder
from fptt.errors import InputError
from fptt.nets.network import Network
from fptt.program import build
from fptt.program.program import Program
from fptt.runs import make_optimizer, make_rule, task_of
from fptt.storage import snapshot
from fptt.storage.files import read_bytes
from fptt.storage.modelfile import load_model
from fptt.tasks import NAMES

Array = NDArray[Any]


def trained(
    path: Path,
    *,
    rule: str,
    parts: int,
    steps: int | None,
    batch: int,
    loss: str | None,
    optimizer: tuple[str, float, float],
    fptt: Mapping[str, Any],
    options: Mapping[str, Any],
    seed: int = 0,
    chosen: Collection[str] = (),
) -> tuple[Program, dict[str, Array], Mapping[str, Any], str | None]:
    """The program and the weights that a file stands for.

    Args:
        path: a model, which is trained on by what is named here, or a checkpoint, which brings its
            own program.
        rule, parts, steps, batch, loss: of the program.
        optimizer: its name, learning rate and momentum.
        fptt: options of the rule fptt.
        options: further ones of `fptt.build`.
        seed: of adapters, which start at random.
        chosen: names of the choices that the user made, which a checkpoint cannot honour.

    Returns:
        The program, its parameters, how the input was prepared, and the name of the task.

    Raises:
        InputError: no such file, or choices that do not fit it.
    """
    if read_bytes(path, "the model").startswith(b"FPTTSNAP"):
        if chosen:
            raise InputError(
                f"{path} is a checkpoint and brings its own program, so --"
                f"{sorted(chosen)[0].replace('_', '-')} has no effect; leave it out, or give the "
                "model that `fptt train --out` wrote"
            )
        trainer = snapshot.load(path)
        return trainer.program, trainer.parameters(), {}, None
    model = load_model(path)
    steps = steps or model.notes.get("steps")
    if "parts" not in chosen:
        # as in training, where that is known
        parts = 1 if rule == "bptt" else int(model.notes.get("parts", parts))
    if steps is None:
        raise InputError(f"{path} does not say how long its sequences are; give --steps")
    program = build(
        model.net,
        make_rule(rule, parts, **(fptt if rule == "fptt" else {})),
        make_optimizer(*optimizer),
        steps=int(steps),
        batch=batch,
        loss=loss or model.loss,
        criterion=model.criterion,  # type: ignore[arg-type]
        **options,
    )
    normalisation = model.notes.get("normalisation", {})
    return program, program.net.initial(seed), normalisation, model.notes.get("task")


def samples(
    folder: Path,
    count: int,
    *,
    task: str | None = None,
    data: Path | None = None,
    **options: Any,
) -> tuple[Array, Array, str]:
    """Sequences to run an exported model on: of a task, of your own data, or made up.

    Args:
        folder: the export.
        count: how many.
        task, data, options: as in `fptt train`; by default the model's own task.

    Returns:
        Inputs, targets, and in a few words where they come from.

    Raises:
        InputError: data that do not fit the model.
    """
    program = host_trainer(folder).program
    name = task
    if name is None and data is None:
        recorded = read_folder(folder).task
        name = recorded if recorded in NAMES else None  # a user's own data are not known by name
    count = -(-max(count, 1) // program.batch) * program.batch
    if name is None and data is None:
        x, y = made_up(program, count)
        return x, y, f"{count} made-up sequences (--data gives your own)"
    if name in ("mnist-rows", "s-mnist", "ps-mnist") and options.get("data_dir") is None:
        options["subset"] = True
    found = task_of(name, data, **options)
    if found.steps != program.steps or found.inputs != (program.net.tokens or program.net.inputs):
        raise InputError(
            f"task {found.name} has {found.steps} steps of {found.inputs} inputs; the model was "
            f"exported for {program.steps} steps of {program.net.tokens or program.net.inputs}"
        )
    if len(found.train) < count:
        raise InputError(
            f"task {found.name} has {len(found.train)} sequences, and {count} were asked for"
        )
    # neighbours may be alike: every so many, so that classes differ
    every = max(1, len(found.train) // count)
    x, y = found.train.x[::every][:count], found.train.y[::every][:count]
    return x, y, f"{count} sequences of {found.name}"


def made_up(program: Program, count: int, seed: int = 0) -> tuple[Array, Array]:
    """Random sequences that fit a program."""
    rng = np.random.default_rng(seed)
    net: Network = program.net
    shape = (count, program.steps)
    x: Array
    if net.tokens:
        x = rng.integers(0, net.tokens, shape).astype(np.int32)
    else:
        x = rng.normal(size=(*shape, net.inputs)).astype(np.float32)
    targets = shape if program.schedule.every_step else shape[:1]
    if program.criterion == "cross_entropy":
        return x, rng.integers(0, net.outputs, targets).astype(np.int32)
    return x, rng.normal(size=(*targets, net.outputs)).astype(np.float32)
