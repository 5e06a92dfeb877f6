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

if __name__ == "__main__":  # pytest looks for doctests in this file, too
    load(sys.argv[1])

from hypothesis import HealthCheck, Phase, given, seed, settings
from programs import cases
from test_native_ops import CASES, TYPES, check_trial
from test_native_programs import FLOATS, train

import fptt
from fptt.native import Engine
from fptt.native._engine import ffi, lib

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

    def _memory(self) -> list[tuple[int, int]]:
        return [(view.ctypes.data, view.nbytes) for view in self._views.values()]

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
@given(cases(engine=True, dtypes=FLOATS))
def programs(case: Any) -> None:
    trainer = case.trainer(Apart(case.program))
    train(case, trainer, 3)
    for t in range(case.x.shape[1]):
        trainer.step(case.x[:, t], case.y[:, t] if case.program.schedule.every_step else case.y)
    trainer.end_sequence()


def threads() -> None:
    """Work that is large enough to be shared: rows of a loop and lines of gradients."""
    net = fptt.Network([fptt.LSTM(5, 48), fptt.Linear(48, 7)])
    program = fptt.build(net, fptt.FPTT(parts=2), fptt.SGD(0.1, 0.9), steps=16, batch=21)
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(21, 16, 5)), rng.integers(0, 7, 21)
    lengths = rng.integers(1, 17, 21).tolist()
    found = []
    for count in (1, 3):
        trainer = fptt.Trainer(program, Apart(program, threads=count), seed=2)
        losses = [trainer.train_batch(x, y, given) for given in (None, lengths)]
        found.append((losses, [value.tobytes() for value in trainer.state().values()]))
    assert found[0] == found[1]


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
    threads()
    print("done")


if __name__ == "__main__":
    main()
