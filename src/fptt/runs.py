"""One training run from plain choices: the task, the network, the rule. `fptt train` is this."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fptt.backends import backend as make_backend
from fptt.backends import default_backend
from fptt.errors import InputError
from fptt.nets import CELLS, Dropout, Embedding, Linear, Network, cell_layers, top_layer
from fptt.nets.layer import Layer, check_size
from fptt.program import Program, build, build_inference
from fptt.rules import (
    BPTT,
    FPTT,
    SGD,
    TBPTT,
    Adam,
    CosineSchedule,
    PlateauSchedule,
    Rule,
    Schedule,
    StepSchedule,
)
from fptt.storage.files import check_writable, reserved, write_atomically
from fptt.storage.modelfile import Model, load_model, model_bytes
from fptt.tasks import Task, load
from fptt.trainer import Trainer
from fptt.training.fitting import Progress, Row
from fptt.training.inference import ROWS, Inference


@dataclass(frozen=True)
class NetworkChoice:
    """A recurrent stack with a readout: a linear layer, above cells that spike a leaky integrator.

    Attributes:
        cell: "lstm", "gru" or "rnn"; in the reference only "elstm", "lru" (each layer with ReLU
            upon it), and "lif", "alif" and "ltc", which spike.
        hidden: cells per recurrent layer.
        layers: recurrent layers.
        readout: width of a linear layer between the last recurrent layer and the outputs, 0 for
            none.
        dropout: probability before the top layer (after `readout`, if there is one).
        embedding: width of a token's vector, for tasks of tokens.
    """

    cell: str = "lstm"
    hidden: int = 128
    layers: int = 1
    readout: int = 0
    dropout: float = 0.0
    embedding: int = 64

    def network(self, inputs: int, outputs: int, *, tokens: bool = False) -> Network:
        """The network for so many inputs (or tokens) and outputs.

        Example:
            >>> print(NetworkChoice(hidden=128, readout=256, dropout=0.5).network(1, 10))
            LSTM(1, 128) - Linear(128, 256) - Dropout(0.5) - Linear(256, 10)
        """
        if self.cell not in CELLS:
            raise InputError(f"cell is {self.cell!r}; choose one of {', '.join(CELLS)}")
        if self.layers < 1:
            raise InputError(f"layers is {self.layers}; give at least 1")
        stack: list[Layer] = [Embedding(inputs, self.embedding)] if tokens else []
        width = self.embedding if tokens else inputs
        for _ in range(self.layers):
            layers = cell_layers(self.cell, width, self.hidden)
            stack += layers
            width = layers[0].width(width)
        if self.readout:
            stack.append(Linear(width, self.readout))
            width = self.readout
        if self.dropout:
            stack.append(Dropout(self.dropout))
        return Network([*stack, top_layer(layers[0], width, outputs)])


def make_rule(name: str, parts: int, **options: Any) -> Rule:
    """A rule by name; options of FPTT are only taken by FPTT."""
    if name == "fptt":
        return FPTT(parts=parts, **options)
    state, source = options.get("state", "reset"), options.get("source", "bptt")
    if name == "bptt":
        if parts != 1:
            raise InputError(
                f"rule bptt has one part, not {parts}; give --parts 1, or --rule tbptt"
            )
        return BPTT(state=state, source=source)
    if name == "tbptt":
        return TBPTT(parts=parts, state=state, source=source)
    raise InputError(f"rule is {name!r}; choose one of fptt, tbptt, bptt")


def make_optimizer(name: str, lr: float, momentum: float) -> SGD | Adam:
    """An optimizer by name."""
    if name == "sgd":
        return SGD(lr=lr, momentum=momentum)
    if name == "adam":
        return Adam(lr=lr)
    raise InputError(f"optimizer is {name!r}; choose one of sgd, adam")


def make_schedule(text: str, epochs: int) -> Schedule | None:
    """Reads "constant", "cosine", "step:50,75,90", "step:50,75,90:0.3" or "plateau:5".

    The steps multiply by 0.1, or by what follows the epochs.

    Example:
        >>> make_schedule("step:50,75,90", 100)
        StepSchedule(milestones=(50, 75, 90), factor=0.1)
    """
    kind, _, rest = text.partition(":")
    check_size("fit", "epochs", epochs)
    try:
        if kind == "constant" and not rest:
            return None
        if kind == "cosine" and not rest:
            return CosineSchedule(epochs)
        if kind == "step" and rest:
            epochs_text, _, factor = rest.partition(":")
            milestones = tuple(int(epoch) for epoch in epochs_text.split(","))
            return StepSchedule(milestones, float(factor) if factor else 0.1)
        if kind == "plateau":
            return PlateauSchedule(patience=int(rest)) if rest else PlateauSchedule()
    except InputError:
        raise
    except ValueError:
        pass
    raise InputError(f"schedule is {text!r}; give constant, cosine, step:50,75,90 or plateau:5")


def task_of(name: str | None, data: Path | None, **options: Any) -> Task:
    """The task of a name, or the user's own data."""
    if (name is None) == (data is None):
        raise InputError("give either --task NAME or --data FILE.npz")
    if data is None:
        return load(str(name), **options)
    from fptt.tasks.limit import limit_task
    from fptt.tasks.npz import load_npz

    foreign = sorted(
        key
        for key, value in options.items()
        if value is not False and key not in ("seed", "limit", "data_dir")
    )
    if foreign:
        raise InputError(f"{', '.join(foreign)}: these options belong to --task, not to --data")
    task = load_npz(data, seed=options.get("seed", 0))
    limit = options.get("limit")
    return task if limit is None else limit_task(task, limit, options.get("seed", 0))


def program_for(
    task: Task,
    net: Network,
    rule: Rule,
    optimizer: SGD | Adam,
    *,
    batch: int,
    loss: str | None = None,
    **options: Any,
) -> Program:
    """The program that trains a network on a task.

    Args:
        task: gives steps, loss and criterion.
        net, rule, optimizer: as in `fptt.build`.
        batch: rows; contiguous text has its own number of streams instead.
        loss: "auxiliary" instead of the task's "last".
        options: dtype, activation_dtype, rounding, clip, train, adapters, recompute, as in
            `fptt.build`.
    """
    if loss is not None and (loss == "every_step") != (task.loss == "every_step"):
        raise InputError(f"task {task.name} has loss {task.loss!r}, which cannot be {loss!r}")
    return build(
        net,
        rule,
        optimizer,
        steps=task.steps,
        batch=task.batch or batch,
        loss=loss or task.loss,
        criterion=task.criterion,
        **options,
    )


def describe_backend(program: Program, backend: str | None, threads: int) -> str:
    """What will run a program, in a few words: reference or engine, instruction set, threads.

    Raises:
        InputError: a choice that is not possible.
    """
    small = build_inference(
        program.net, dtype=program.dtype, activation_dtype=program.activation_dtype
    )
    return make_backend(backend or default_backend(program), small, threads).describe()


@dataclass(frozen=True)
class RunResult:
    """What a run leaves behind.

    Attributes:
        task, network, rule: what was trained, in words.
        rows: one per epoch.
        arena_bytes: exact training memory.
        model: path of the saved model, or None.
    """

    task: str
    network: str
    rule: str
    rows: list[Row]
    arena_bytes: int
    model: str | None

    def as_json(self) -> dict[str, Any]:
        """Plain data: task, network, rule, arena_bytes, model, epochs (one row each)."""
        return {
            "task": self.task,
            "network": self.network,
            "rule": self.rule,
            "arena_bytes": self.arena_bytes,
            "model": self.model,
            "epochs": self.rows,
        }


def run(
    task: Task,
    program: Program,
    *,
    epochs: int,
    seed: int = 0,
    backend: str | None = None,
    threads: int = 1,
    schedule: Schedule | None = None,
    out: Path | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    on_batch: Progress | None = None,
    on_epoch: Callable[[Row], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> RunResult:
    """Trains a program on a task, tests after every epoch, and saves the model.

    Raises:
        InputError: choices or files that do not fit.
        NumericalError: NaN or Inf.
        SaveError: a file that cannot be written.
    """
    if out is not None and checkpoint is not None and out.resolve() == checkpoint.resolve():
        raise InputError(f"the model and the checkpoint are one file, {out}; name two files")
    for path in (out, checkpoint):
        if path is not None:
            check_writable(path)
    if out is not None and out.exists():
        try:
            load_model(out)
        except InputError:
            raise InputError(f"{out} exists and is no model; name another file") from None
    trainer = Trainer(program, backend=backend, seed=seed, threads=threads)
    notes = {
        "task": task.name,
        "steps": task.steps,
        "parts": program.rule.parts,
        "seed": seed,
        "normalisation": task.normalisation,
        "vocabulary": task.vocabulary,
        "dtype": program.dtype,
        "activation_dtype": program.activation_dtype,
    }

    def contents() -> bytes:
        return model_bytes(
            program.net, trainer.parameters(), program.schedule.name, program.criterion, notes
        )

    # a model that cannot be written must be known before hours of training, not after
    room = reserved(out, len(contents())) if out is not None else nullcontext()
    with room:
        history = trainer.fit(
            task.train,
            epochs,
            test=task.test,
            schedule=schedule,
            checkpoint=checkpoint,
            resume=resume,
            on_batch=on_batch,
            on_epoch=on_epoch,
            should_stop=should_stop,
        )
        if out is not None:
            write_atomically(out, contents())
    return RunResult(
        task.name,
        str(program.net),
        str(program.rule),
        history.rows,
        program.memory().arena_bytes,
        str(out) if out else None,
    )


def evaluate(model_path: Path, model: Model, task: Task) -> dict[str, float]:
    """Loss and accuracy of a saved model on the test data of a task.

    Args:
        model_path: for messages.
        model: what `load_model` read from there.
        task: with the same preparation of the input as in training.

    Raises:
        InputError: the model does not fit the task.
    """
    net = model.net
    # a few sequences need not show every token and every class that the model knows
    fits_below = (
        task.inputs <= (net.tokens or 0)
        if task.tokens
        else net.tokens is None and net.inputs == task.inputs
    )
    fits_above = (
        task.outputs <= net.outputs
        if task.criterion == "cross_entropy"
        else task.outputs == net.outputs
    )
    fits = fits_below and fits_above
    if not fits:
        raise InputError(
            f"{model_path} is {net}; task {task.name} has {task.inputs} "
            f"{'tokens' if task.tokens else 'inputs'} and {task.outputs} outputs"
        )
    if model.criterion != task.criterion:
        raise InputError(
            f"{model_path} was trained with {model.criterion}; task {task.name} is for "
            f"{task.criterion}"
        )
    if model.notes.get("normalisation", {}) != json.loads(json.dumps(dict(task.normalisation))):
        raise InputError(
            f"{model_path} was trained on input that was prepared in another way (task "
            f"{model.notes.get('task')}); give the task and the options of its training"
        )
    vocabulary = model.notes.get("vocabulary")
    if vocabulary and task.vocabulary and tuple(vocabulary) != task.vocabulary:
        raise InputError(f"{model_path} was trained with another vocabulary than that of this text")
    inference = Inference(
        net,
        every_step=task.loss == "every_step",
        criterion=task.criterion,
        carry=task.contiguous,
        batch=task.batch or ROWS,
        dtype=model.notes.get("dtype", "float32"),
        activation_dtype=model.notes.get("activation_dtype"),
    )
    assert net.weights is not None
    inference.load(net.weights)
    return inference.evaluate(task.test)
