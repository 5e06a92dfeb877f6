"""Runs operations and programs on an engine that was compiled with sanitizers.

    python under_sanitizers.py ENGINE.so

test_native_sanitizers.py builds the engine and starts this with the sanitizer's library. Every
buffer has a block of memory of exactly its size, so that an access outside of it, were it in the
middle of the arena, is found.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

import numpy as np
from other_engine import load

load(sys.argv[1])

from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: E402
from programs import cases  # noqa: E402
from test_native_ops import CASES, TYPES, check_trial  # noqa: E402
from test_native_programs import FLOATS, train  # noqa: E402

from fptt.native import Engine  # noqa: E402
from fptt.native._engine import ffi, lib  # noqa: E402

TRIALS = int(os.environ.get("FPTT_SANITIZER_TRIALS", "5"))
malloc, free = ctypes.CDLL(None).malloc, ctypes.CDLL(None).free
malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
free.restype, free.argtypes = None, [ctypes.c_void_p]


class Apart(Engine):
    """The engine, with a block of its own for every buffer."""

    def _view(self, buffer: Any) -> Any:
        planned = super()._view(buffer)
        self.__dict__.setdefault("blocks", []).append(malloc(buffer.bytes))
        block = (ctypes.c_uint8 * buffer.bytes).from_address(self.blocks[-1])
        items = np.frombuffer(block, np.uint8).view(planned.dtype)
        shape = buffer.shape[::-1] if buffer.transposed else buffer.shape
        view = items.reshape(shape).T if buffer.transposed else items.reshape(shape)
        view[...] = planned
        return view

    def __del__(self) -> None:
        for block in self.blocks:
            free(block)


@settings(
    max_examples=8 * TRIALS,
    deadline=None,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)
@seed(3)
@given(cases(dtypes=FLOATS))
def programs(case: Any) -> None:
    trainer = case.trainer(Apart(case.program))
    train(case, trainer, 3)
    for t in range(case.x.shape[1]):
        trainer.step(case.x[:, t], case.y[:, t] if case.program.schedule.every_step else case.y)
    trainer.end_sequence()


def main() -> None:
    if "--overrun" in sys.argv:  # shows that the sanitizer watches
        numbers = ffi.cast("float *", malloc(12))
        lib.fptt_exp_n(numbers, numbers, 4)
        return
    for kind in CASES:
        for types in TYPES:
            for trial in range(TRIALS):
                check_trial(kind, "baseline", types, trial, Apart)
    programs()
    print("done")


if __name__ == "__main__":
    main()
