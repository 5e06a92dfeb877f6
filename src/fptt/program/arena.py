"""The memory of a program: every buffer is a view of one block of bytes at its planned offset.

Back ends are arenas that can run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fptt.errors import FpttError
from fptt.program.bfloat16 import from_bits, to_bits
from fptt.program.ir import Buffer, Role
from fptt.program.plan import ALIGNMENT, CACHE_LINE

if TYPE_CHECKING:
    from fptt.program.program import Program

Array = NDArray[Any]
#: how elements lie in memory
STORAGE = {
    "float64": np.float64,
    "float32": np.float32,
    "bfloat16": np.uint16,
    "int32": np.int32,
    "uint32": np.uint32,
}


class Arena:
    """The buffers of a program, by name.

    Args:
        program: a verified program.
        arena: memory to use, uint8 of at least `program.plan.arena_bytes`, its address a multiple
            of `plan.ALIGNMENT`; allocated by default.
    """

    def __init__(self, program: Program, arena: NDArray[np.uint8] | None = None) -> None:
        self.program = program
        planned = program.plan
        try:
            self.arena = _aligned_bytes(planned.arena_bytes) if arena is None else arena
        except (MemoryError, ValueError):
            raise FpttError(
                f"the program needs {planned.arena_bytes:,} bytes, more than this computer has; "
                "use a smaller network or batch, or more parts"
            ) from None
        if self.arena.nbytes < planned.arena_bytes:
            raise ValueError(
                f"the arena has {self.arena.nbytes} bytes; the program needs {planned.arena_bytes}"
            )
        if self.arena.ctypes.data % ALIGNMENT:
            raise ValueError(f"the arena's address is not a multiple of {ALIGNMENT}")
        self._const = _aligned_bytes(planned.const_bytes)
        self._views = {buffer.name: self._view(buffer) for buffer in program.buffers.values()}

    def _view(self, buffer: Buffer) -> Array:
        block = self._const if buffer.role == Role.FROZEN else self.arena
        offset = self.program.plan.offsets[buffer.name]
        items = block[offset : offset + buffer.bytes].view(STORAGE[buffer.dtype])
        if buffer.transposed:
            return items.reshape(buffer.shape[::-1]).T
        return items.reshape(buffer.shape)

    def read(self, name: str, step: int | None = None) -> Array:
        """A copy of a buffer, or of its slot of one step; bfloat16 as float32."""
        buffer = self.program.buffers[name]
        return np.array(self._decoded(buffer, self._slot(buffer, step)), order="C")

    def write(self, name: str, values: Array, step: int | None = None) -> None:
        """Writes the first entries along every axis of a buffer, or of its slot of one step."""
        buffer = self.program.buffers[name]
        corner = tuple(slice(0, extent) for extent in values.shape)
        with np.errstate(over="ignore"):  # what is too large becomes Inf, and is found as that
            self._store(buffer, self._slot(buffer, step)[corner], values)

    def stored(self, name: str) -> Array:
        """The items of a buffer in the order of memory, bfloat16 as bits; a view."""
        buffer = self.program.buffers[name]
        view = self._views[name]
        return (view.T if buffer.transposed else view).reshape(-1)

    def _slot(self, buffer: Buffer, step: int | None) -> Array:
        view = self._views[buffer.name]
        return view if step is None else view[buffer.lead + step]

    @property
    def learned(self) -> NDArray[np.uint8]:
        """Parameters, rule and optimizer state as one block of bytes, a view."""
        return self.arena[: self.program.plan.learned_bytes]

    @staticmethod
    def _decoded(buffer: Buffer, stored: Array) -> Array:
        return from_bits(stored) if buffer.dtype == "bfloat16" else stored

    @staticmethod
    def _store(buffer: Buffer, place: Array, values: Array) -> None:
        place[...] = to_bits(values) if buffer.dtype == "bfloat16" else values


def _aligned_bytes(count: int) -> NDArray[np.uint8]:
    """Zeros whose address is a multiple of a cache line."""
    block = np.zeros(count + CACHE_LINE, np.uint8)
    skip = -block.ctypes.data % CACHE_LINE
    return block[skip : skip + count]
