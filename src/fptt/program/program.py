"""A finished training program: what `build` returns and every consumer reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from fptt.program.ir import Buffer, Routine
from fptt.program.ops import spec
from fptt.program.plan import LEARNED, Memory, Plan, memory_table, plan

if TYPE_CHECKING:
    from fptt.nets.network import Network
    from fptt.program.count import WorkTable
    from fptt.rules.losses import Criterion, LossSchedule
    from fptt.rules.optimizers import Optimizer
    from fptt.rules.rule import Rule


@dataclass(frozen=True)
class Program:
    """Buffers, routines, and the choices that they came from.

    Attributes:
        net, rule, optimizer, schedule, criterion: what was asked for.
        steps: T, the longest sequence.
        batch: the largest number of rows.
        part_steps: the steps of the longest part.
        dtype, activation_dtype: of parameters and states, and of activations.
        clip: largest global norm of d, or None.
        train: patterns of the parameters that train.
        keep_gradients: whether every gradient was asked to have memory of its own.
        rounding: "nearest" or "stochastic", of parameters, lambda and running mean.
        recompute: whether the backward pass computes gates again.
        buffers: by name, in order of declaration.
        routines: by name.
        output: what the network puts out (logits, or regression outputs).
        carried: the recurrent states that go on from part to part, and the traces of a gradient
            source with them; where a buffer keeps several steps, its slot before the first one.
        trained: names of the parameters that train.
    """

    net: Network
    rule: Rule
    optimizer: Optimizer
    schedule: LossSchedule
    criterion: Criterion
    steps: int
    batch: int
    part_steps: int
    dtype: str
    activation_dtype: str
    clip: float | None
    train: tuple[str, ...]
    keep_gradients: bool
    rounding: str
    recompute: bool
    buffers: Mapping[str, Buffer] = field(repr=False)
    routines: Mapping[str, Routine] = field(repr=False)
    output: Buffer = field(repr=False)
    carried: tuple[Buffer, ...] = field(repr=False)
    trained: tuple[str, ...] = field(repr=False)

    @cached_property
    def bounds(self) -> list[tuple[int, int]]:
        """First step and step after the last one of every part."""
        return self.rule.bounds(self.steps)

    @cached_property
    def plan(self) -> Plan:
        """Where every buffer lies."""
        return plan(self.buffers.values(), self.routines)

    def keeping_gradients(self) -> Program:
        """The same program with memory for every gradient; itself, if it has that."""
        from fptt.program.build import build

        if all(f"grad/{name}" in self.buffers for name in self.trained):
            return self
        return build(
            self.net,
            self.rule,
            self.optimizer,
            steps=self.steps,
            batch=self.batch,
            loss=self.schedule,
            criterion=self.criterion,
            dtype=self.dtype,
            activation_dtype=self.activation_dtype,
            clip=self.clip,
            train=self.train,
            keep_gradients=True,
            rounding=self.rounding,
            recompute=self.recompute,
        )

    @cached_property
    def moved_by_loss(self) -> tuple[Buffer, ...]:
        """What the loss learns by itself, before any update: the auxiliary Q."""
        written = {
            ref.buffer.name: ref.buffer
            for op, _ in self.routines["loss"].ops()
            for ref in op.outputs
            if ref and ref.buffer.role in LEARNED
        }
        return tuple(written.values())

    @cached_property
    def without_kernel(self) -> list[str]:
        """Kinds of operations that only the reference runs."""
        kinds = {op.kind for routine in self.routines.values() for op, _ in routine.ops()}
        return sorted(kind for kind in kinds if spec(kind).c_symbol is None)

    def memory(self) -> Memory:
        """Exact bytes by category; `.arena_bytes` and `.total_bytes` are what must be provided.

        Example:
            >>> import fptt
            >>> net = fptt.Network([fptt.LSTM(1, 128), fptt.Linear(128, 10)])
            >>> program = fptt.build(net, fptt.FPTT(parts=28), fptt.SGD(lr=0.01), steps=784)
            >>> program.memory().categories["parameter"]
            271400
        """
        return memory_table(self.buffers.values(), self.plan)

    def work(self, lengths: Sequence[int] | None = None) -> WorkTable:
        """Scalar operations and bytes for one pass over a batch, by function class.

        Args:
            lengths: the rows' lengths; by default `batch` rows of `steps` steps.
        """
        from fptt.program.count import work_table

        return work_table(self, lengths)

    def __str__(self) -> str:
        from fptt.program.text import text

        return text(self)
