"""What this machine can do at best, and how a program's time divides; for `fptt bench`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fptt.native._engine import ffi, lib
from fptt.native.compile import INSTRUCTION_SETS, ROUTINES
from fptt.native.engine import check, instruction_set

if TYPE_CHECKING:
    from fptt.native.engine import Engine
    from fptt.program.frame import Frame

#: arrays are taken in blocks of so many numbers
_BLOCK = 256


class Limits:
    """Loops that do one thing as fast as an instruction set can.

    Args:
        isa: the instruction set; by default the one that the engine takes.
    """

    def __init__(self, isa: str | None = None) -> None:
        self.isa = isa or instruction_set()
        self._loops = lib.fptt_isa_limits(INSTRUCTION_SETS[self.isa])

    def multiply_adds(self, rounds: int) -> int:
        """Multiplies and adds in registers; how many multiply-adds that were."""
        return int(self._loops.multiply_adds(rounds))

    def read(self, array: Memory, rounds: int) -> None:
        """Reads the array so many times."""
        self._loops.read(array.address, array.items, rounds)

    def rewrite(self, array: Memory, rounds: int) -> None:
        """Reads and writes the array so many times."""
        self._loops.rewrite(array.address, array.items, rounds)


class Memory:
    """Numbers to stream, about as many bytes as are wanted, at the start of a cache line."""

    def __init__(self, wanted: int) -> None:
        self.items = max(1, wanted // (4 * _BLOCK)) * _BLOCK
        self._numbers = np.zeros(self.items + 16, np.float32)
        begin = -self._numbers.ctypes.data % 64
        self.address: Any = ffi.cast("float *", self._numbers.ctypes.data + begin)

    @property
    def bytes(self) -> int:
        """How many there are."""
        return 4 * self.items


def routine_seconds(engine: Engine, frames: Sequence[Frame]) -> dict[str, float]:
    """Trains on the input that lies in the engine's memory, part by part; seconds by routine."""
    rows = [ffi.new("int32_t[]", frame.rows) for frame in frames]
    parts = ffi.new(
        "fptt_frame[]",
        [(f.part, f.begin, f.steps, running) for f, running in zip(frames, rows, strict=True)],
    )
    seconds = ffi.new("double[]", lib.FPTT_ROUTINES)
    check(lib.fptt_time_routines(engine._engine, parts, len(frames), seconds))
    return {name: seconds[number] for name, number in ROUTINES.items()}
