"""What one training run is, as plain data: everything that decides its result, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from fptt.errors import InputError
from fptt.nets import LSTM, Network
from fptt.program import Program
from fptt.rules import Rule, Schedule
from fptt.runs import NetworkChoice, make_optimizer, make_rule, make_schedule, program_for
from fptt.tasks import Task

ENGINES = ("native", "reference", "torch")


@dataclass(frozen=True)
class Experiment:
    """One run: task, network, rule, optimizer, budget, seed.

    Two experiments that are equal give the same result on the same kind of machine; `key` names
    them in files. How a run is carried out (threads, place, checkpoints) is no part of it.

    Attributes:
        task, task_options, subset, limit: as in `fptt.tasks.load`; which sequences are drawn
            depends on `data_seed` alone, so that all seeds learn from the same ones.
        cell, hidden, layers, readout, dropout, embedding: as in `fptt.runs.NetworkChoice`.
        rule, parts, source, alpha, beta, mode, regularise, epoch_end, epoch_lambda: as in
            `fptt train`.
        loss: None for what the task asks for.
        optimizer, lr, momentum, clip, schedule, epochs, batch, dtype: as in `fptt train`.
        forget_bias: added to the initial bias of an LSTM's forget gates, so that it remembers for
            longer from the start (Gers et al., 2000): with the usual ones a step keeps about half.
        seed: of weights, order and dropout.
        start: the experiment whose final weights this one starts from, or None.
        engine: "native" (C), "reference" (NumPy) or "torch" (`nn.LSTM` with `fptt.torch.FPTT`).

    Example:
        >>> run = Experiment("mnist-rows", subset=True, parts=4, epochs=2)
        >>> run == Experiment.from_plain(run.as_plain())
        True
    """

    task: str
    task_options: Mapping[str, Any] = field(default_factory=dict)
    subset: bool = False
    limit: int | None = None
    data_seed: int = 0
    cell: str = "lstm"
    hidden: int = 128
    layers: int = 1
    readout: int = 0
    dropout: float = 0.0
    embedding: int = 64
    rule: str = "fptt"
    parts: int = 1
    source: str = "bptt"
    alpha: float = 0.1
    beta: float = 0.5
    mode: str = "code"
    regularise: bool = True
    epoch_end: str = "average"
    epoch_lambda: str = "zero"
    loss: str | None = None
    optimizer: str = "adam"
    lr: float = 1e-3
    momentum: float = 0.0
    clip: float | None = 1.0
    schedule: str = "constant"
    epochs: int = 10
    batch: int = 128
    dtype: str = "float32"
    forget_bias: float = 0.0
    seed: int = 0
    start: Experiment | None = None
    engine: str = "native"

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise InputError(f"engine is {self.engine!r}; choose one of {', '.join(ENGINES)}")

    def as_plain(self) -> dict[str, Any]:
        """The fields by name, as JSON holds them."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Experiment:
        """The experiment that `as_plain` described.

        Raises:
            InputError: fields that this version does not know.
        """
        values = dict(plain)
        known = {f.name for f in fields(cls)}
        if unknown := sorted(values.keys() - known):
            raise InputError(
                f"an experiment has no {', '.join(unknown)}; it was written by another version"
            )
        if values.get("start") is not None:
            values["start"] = cls.from_plain(values["start"])
        return cls(**values)

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits that name this experiment; they depend on every field that
        is not at its default, so that a field added later changes no key."""
        told: dict[str, Any] = {"task": self.task}
        if self.task_options:
            told["task_options"] = dict(self.task_options)
        if self.start:
            told["start"] = self.start.key
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name not in ("task", "task_options", "start") and value != f.default:
                told[f.name] = value
        text = json.dumps(told, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def with_seed(self, seed: int) -> Experiment:
        """The same with another seed, in what it starts from as well."""
        start = self.start.with_seed(seed) if self.start else None
        return replace(self, seed=seed, start=start)

    # -- what it asks for --------------------------------------------------------------------

    def network(self, task: Task) -> Network:
        """The network for a task, with the weights that training starts from."""
        choice = NetworkChoice(
            self.cell, self.hidden, self.layers, self.readout, self.dropout, self.embedding
        )
        net = choice.network(task.inputs, task.outputs, tokens=task.tokens)
        if not self.forget_bias:
            return net
        weights = net.initial(self.seed)
        for index, layer in enumerate(net.layers):
            if isinstance(layer, LSTM):
                weights[f"{index}.bias"][layer.hidden : 2 * layer.hidden] += self.forget_bias
        return Network(net.layers, weights)

    def learning_rule(self, task: Task) -> Rule:
        """The rule; in contiguous text the state goes on from batch to batch."""
        return make_rule(
            self.rule,
            self.parts,
            source=self.source,
            alpha=self.alpha,
            beta=self.beta,
            mode=self.mode,
            regularise=self.regularise,
            state="carry" if task.contiguous else "reset",
            epoch_end=self.epoch_end,
            epoch_lambda=self.epoch_lambda,
        )

    def program(self, task: Task, net: Network | None = None) -> Program:
        """The training program on a task, of this network or a fresh one."""
        return program_for(
            task,
            net or self.network(task),
            self.learning_rule(task),
            make_optimizer(self.optimizer, self.lr, self.momentum),
            batch=self.batch,
            loss=self.loss,
            clip=self.clip,
            dtype=self.dtype,
        )

    def learning_rates(self) -> Schedule | None:
        """The schedule of the learning rate."""
        return make_schedule(self.schedule, self.epochs)

    def __str__(self) -> str:
        """For a line of progress."""
        loss = f" {self.loss}" if self.loss else ""
        return f"{self.task}, {self.rule} K={self.parts}{loss}, seed {self.seed}"
