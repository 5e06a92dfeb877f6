"""The intermediate representation of a training program: buffers, references, operations, loops.

A program is data. It says which numbers exist (`Buffer`), what is done to them (`Op`, `Loop`) and
when (`Routine`); it knows nothing of who executes, counts, costs or prints it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

#: bytes of one element
ITEM_BYTES: Mapping[str, int] = {
    "float64": 8,
    "float32": 4,
    "bfloat16": 2,
    "int32": 4,
    "uint32": 4,
}


class Role(enum.StrEnum):
    """What a buffer is for. Roles are the categories of the memory table."""

    INPUT = "input"
    TARGET = "target"
    PARAMETER = "parameter"
    FROZEN = "frozen"
    GRADIENT = "gradient"
    RULE_STATE = "rule_state"
    OPTIMIZER_STATE = "optimizer_state"
    CARRY = "carry"
    ACTIVATION = "activation"
    SCRATCH = "scratch"


#: routines in the order in which training runs them; those of PART run for every part
SEQUENCE_START = ("begin_sequence", "next_sequence")
PART = ("forward", "loss", "backward", "update", "carry")
INFERENCE = ("begin_inference", "infer", "readout")

#: roles whose contents outlive a part, so that no other buffer may use their place
PERSISTENT = frozenset(
    {Role.INPUT, Role.TARGET, Role.PARAMETER, Role.RULE_STATE, Role.OPTIMIZER_STATE, Role.CARRY}
)


@dataclass(frozen=True)
class Buffer:
    """A named array.

    Attributes:
        name: unique; the layer's number first, as in "0.gates" or "grad/1.weight".
        inner: shape of one row (with a batch axis) or of the whole.
        dtype: one of ITEM_BYTES.
        role: what it is for.
        batch: largest number of rows, 0 where there is no batch axis.
        steps: largest number of steps of a part that it holds, 0 where there is no step axis.
        lead: slots before the first step; they carry state from part to part and are counted
            under the role `carry`, so that step t and step t - 1 are neighbours in memory.
        transposed: a matrix that lies column by column in memory, so that every product with it
            streams its longer side.
    """

    name: str
    inner: tuple[int, ...]
    dtype: str
    role: Role
    batch: int = 0
    steps: int = 0
    lead: int = 0
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in memory: [lead + steps, batch, ...inner], without the axes that it lacks."""
        steps = (self.lead + self.steps,) if self.steps else ()
        batch = (self.batch,) if self.batch else ()
        return steps + batch + self.inner

    @property
    def row_items(self) -> int:
        """Elements of one row, or of the whole where there is no batch axis."""
        items = 1
        for extent in self.inner:
            items *= extent
        return items

    @property
    def items(self) -> int:
        """Elements in all."""
        return self.row_items * max(self.batch, 1) * max(self.lead + self.steps, 1)

    @property
    def bytes(self) -> int:
        """Bytes in memory."""
        return self.items * ITEM_BYTES[self.dtype]

    @property
    def persistent(self) -> bool:
        """Whether its place belongs to it alone."""
        return self.role in PERSISTENT or self.lead > 0

    def bytes_by_role(self) -> dict[Role, int]:
        """Its bytes; those of the lead slots count as carry."""
        lead = self.bytes * self.lead // (self.lead + self.steps) if self.lead else 0
        shares = {Role.CARRY: lead} if lead else {}
        shares[self.role] = shares.get(self.role, 0) + self.bytes - lead
        return shares

    @property
    def whole(self) -> Ref:
        """All of it; with a batch axis, the rows that are running."""
        return Ref(self, "whole")

    def at(self, offset: int) -> Ref:
        """The slot of step t + offset, in a loop over t; the whole if only one step is kept."""
        return Ref(self, "step", offset) if self.steps else self.whole

    def all(self, offset: int = 0) -> Ref:
        """The rows of all steps of the part, one below the other; offset as in `at`."""
        return Ref(self, "all", offset)

    def last(self) -> Ref:
        """Of every row, the slot of the last step that it takes in this part.

        The whole if only one step is kept: every step runs on a prefix of the rows, so a row that
        has ended keeps its last values.
        """
        return Ref(self, "last") if self.steps else self.whole

    def initial(self) -> Ref:
        """The slot before the first step; the whole if only one step is kept."""
        return Ref(self, "initial") if self.steps else self.whole


Index = Literal["whole", "step", "all", "last", "initial"]


@dataclass(frozen=True)
class Ref:
    """What an operation touches of a buffer.

    Attributes:
        buffer: the buffer.
        index: which slots (see the methods of Buffer).
        offset: added to the step.
        row_range: for buffers without a batch axis, a range of the first axis of `inner`.
        col_range: a range of the last axis of `inner`.
    """

    buffer: Buffer
    index: Index
    offset: int = 0
    row_range: tuple[int, int] | None = None
    col_range: tuple[int, int] | None = None

    def rows(self, low: int, high: int) -> Ref:
        """Rows low to high - 1 of a parameter or gradient."""
        return replace(self, row_range=(low, high))

    def cols(self, low: int, high: int) -> Ref:
        """Columns low to high - 1 of every row."""
        return replace(self, col_range=(low, high))

    @property
    def inner(self) -> tuple[int, ...]:
        """Shape of one row (with a batch axis) or of the whole, after the ranges."""
        shape = list(self.buffer.inner)
        if self.row_range:
            shape[0] = self.row_range[1] - self.row_range[0]
        if self.col_range:
            shape[-1] = self.col_range[1] - self.col_range[0]
        return tuple(shape)

    @property
    def has_rows(self) -> bool:
        """Whether its first dimension is a run-time number of rows."""
        return self.buffer.batch > 0

    def __str__(self) -> str:
        text = self.buffer.name
        if self.index == "step":
            text += f"[t{self.offset:+d}]" if self.offset else "[t]"
        elif self.index == "all":
            text += f"[:{self.offset:+d}]" if self.offset else "[:]"
        elif self.index != "whole":
            text += f"[{self.index}]"
        if self.row_range:
            text += "{{rows {}:{}}}".format(*self.row_range)
        if self.col_range:
            text += "{{cols {}:{}}}".format(*self.col_range)
        return text


@dataclass(frozen=True)
class Op:
    """One operation of the op table.

    Attributes:
        kind: its name there.
        inputs, outputs: operands in the order of its signature, None for those that are absent.
        attrs: constants.
        after_first: in a loop, only at the steps after the first one of the part. Nothing flows
            into the part before, so the gradient of the state that came from there is not needed.
        first_only: in a loop, only at the first step of the part: where sums over steps begin.
    """

    kind: str
    inputs: tuple[Ref | None, ...]
    outputs: tuple[Ref | None, ...]
    attrs: Mapping[str, object] = field(default_factory=dict)
    after_first: bool = False
    first_only: bool = False

    @property
    def refs(self) -> Iterator[Ref]:
        """All references, inputs first."""
        return (ref for ref in (*self.inputs, *self.outputs) if ref is not None)


@dataclass(frozen=True)
class Loop:
    """Operations that are repeated for the steps of a part, the last step first if `reverse`."""

    body: tuple[Op, ...]
    reverse: bool = False


@dataclass(frozen=True)
class Routine:
    """What is done at one moment of training.

    start, begin_sequence, next_sequence, forward, loss, backward, update, carry, end_epoch,
    reset, and for inference begin_inference, infer, readout.
    """

    name: str
    body: tuple[Op | Loop, ...]

    def ops(self) -> Iterator[tuple[Op, Loop | None]]:
        """Every operation once, with the loop that it stands in."""
        for item in self.body:
            if isinstance(item, Loop):
                for op in item.body:
                    yield op, item
            else:
                yield item, None
