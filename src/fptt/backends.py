"""What a back end that runs programs must offer, and how to get one by name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fptt.errors import InputError

if TYPE_CHECKING:
    from fptt.program import Program
    from fptt.program.frame import Frame
    from fptt.training.batches import Batch

BACKENDS = ("native", "reference")


class Backend(Protocol):
    """Memory of one program, and the means to run its routines."""

    program: Program
    #: one of BACKENDS: what else the trainer needs, it makes of the same kind
    name: str

    def describe(self) -> str:
        """The back end in a few words."""

    def read(self, name: str, step: int | None = None) -> NDArray[Any]:
        """A copy of a buffer, or of its slot of one step."""

    def write(self, name: str, values: NDArray[Any], step: int | None = None) -> None:
        """Writes the first entries along every axis of a buffer, or of its slot of one step."""

    @property
    def learned(self) -> NDArray[np.uint8]:
        """The state of learning as one block of bytes, a view."""

    def run(self, routine: str, frame: Frame, step: int | None = None) -> None:
        """Runs a routine on a part, its loops for all steps or only for the given one."""

    def update_is_safe(self, frame: Frame) -> bool:
        """Whether `update` cannot overflow, so that no copy of what is learnt is needed."""


class PartsBackend(Backend, Protocol):
    """A back end that runs the parts of a batch by itself."""

    def train(self, batch: Batch, losses: NDArray[np.float64], part: int) -> tuple[str, int]:
        """Trains on a sorted batch from one of its parts on; see `fptt.native.Engine.train`."""

    def before_loss(self, part: int) -> dict[str, NDArray[Any]]:
        """What the loss of this part, the last that ran, has moved, as it was before."""


def _processors() -> int:
    """Those that this process may use; more threads than that only wait for each other."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_backend(program: Program) -> str:
    """The engine where it can run the program, otherwise the reference, which runs all."""
    double = "float64" in (program.dtype, program.activation_dtype)
    return "reference" if double or program.without_kernel else "native"


def backend(choice: str | Backend | None, program: Program, threads: int = 1) -> Backend:
    """A back end for a program, by name; one that exists already is returned as it is.

    Without a choice it is `default_backend`.

    Raises:
        InputError: an unknown name, the back end of another program, or one that lacks what the
            program needs.
    """
    if choice is None:
        choice = default_backend(program)
    if not isinstance(choice, str):
        if getattr(choice, "program", None) is not program:
            raise InputError("backend runs another program than the one given; make one for this")
        return choice
    if choice == "native":
        from fptt.native import Engine

        return Engine(program, threads=min(threads, _processors()))
    if choice == "reference":
        from fptt.reference import Interpreter

        return Interpreter(program)
    raise InputError(f"backend is {choice!r}; choose one of {', '.join(map(repr, BACKENDS))}")
