"""The memory that a model takes on a device, besides its arena.

Sizes of structs follow from the fields in fptt_learner.h by the rules that all our targets share
(every field at a multiple of its own size); generated code asserts them, so that a compiler that
thinks otherwise says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fptt.program.ir import ITEM_BYTES, Role

if TYPE_CHECKING:
    from fptt.program.program import Program

#: fields of fptt_learner in order: "p" a pointer, otherwise bytes
_LEARNER = ("p", "p", "p", 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 1, 1, 1)


@dataclass(frozen=True)
class Footprint:
    """Bytes on a device.

    Attributes:
        arena: everything that training needs.
        learner: sizeof(fptt_learner).
        outputs: room for the last step's outputs.
        alignment: of the handle.
        frozen: constants in flash: weights that do not train.
        factory: constants in flash: first values of those that do.
    """

    arena: int
    learner: int
    outputs: int
    alignment: int
    frozen: int
    factory: int

    @property
    def handle(self) -> int:
        """sizeof(model_t)."""
        return -(-(self.learner + self.outputs) // self.alignment) * self.alignment

    @property
    def ram(self) -> int:
        """Arena and handle: all the RAM that the library needs, without the stack."""
        return self.arena + self.handle

    @property
    def constants(self) -> int:
        """Weights in flash."""
        return self.frozen + self.factory


@dataclass(frozen=True)
class SavedState:
    """What a save to flash holds.

    Attributes:
        weights: bytes of what trains.
        full: bytes of everything that learning needs to go on with the same bits.
        pieces: most pieces of memory that either consists of.
    """

    weights: int
    full: int
    pieces: int


#: sizeof(fptt_progress)
_PROGRESS = 12


def saved_state(program: Program) -> SavedState:
    """What the saves of a program hold.

    Example:
        >>> import fptt
        >>> net = fptt.Network([fptt.LSTM(1, 8), fptt.Linear(8, 3)])
        >>> saved_state(fptt.build(net, fptt.FPTT(parts=4), steps=16)).weights
        1388
    """
    carried = [b.batch * b.row_items * ITEM_BYTES[b.dtype] for b in program.carried]
    return SavedState(
        weights=sum(program.buffers[name].bytes for name in program.trained),
        full=program.plan.learned_bytes + sum(carried) + _PROGRESS,
        pieces=max(len(program.trained), 1 + len(carried) + 1),
    )


def struct_bytes(fields: tuple[int | str, ...], pointer_bytes: int) -> int:
    """The size of a struct.

    Args:
        fields: sizes in bytes, "p" for pointers, in order.
        pointer_bytes: size of a pointer.

    Example:
        >>> struct_bytes(("p", 4, 1), 8), struct_bytes(("p", 4, 1), 4)
        (16, 12)
    """
    end, largest = 0, 1
    for given in fields:
        size = pointer_bytes if given == "p" else int(given)
        end = -(-end // size) * size + size
        largest = max(largest, size)
    return -(-end // largest) * largest


def footprint(program: Program, pointer_bytes: int) -> Footprint:
    """What a program takes on a device with pointers of this size.

    Example:
        >>> import fptt
        >>> net = fptt.Network([fptt.LSTM(1, 8), fptt.Linear(8, 3)])
        >>> program = fptt.build(net, fptt.FPTT(parts=4), steps=16)
        >>> footprint(program, 4).learner
        60
    """
    buffers = program.buffers.values()
    trained = [program.buffers[name] for name in program.trained]
    return Footprint(
        arena=program.plan.arena_bytes,
        learner=struct_bytes(_LEARNER, pointer_bytes),
        alignment=pointer_bytes,
        outputs=4 * program.batch * program.output.row_items,
        frozen=sum(b.bytes for b in buffers if b.role == Role.FROZEN),
        factory=sum(b.bytes for b in trained),
    )
