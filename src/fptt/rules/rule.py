"""Learning rules without a wrapper: BPTT and truncated BPTT.

A rule joins three independent choices: the gradient source (`sources`), the update wrapper (none
here; `fptt` for Forward Propagation Through Time) and, given to `fptt.build`, the loss schedule
(`losses`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fptt.checks import is_whole
from fptt.errors import InputError
from fptt.rules.emitter import Emitter
from fptt.rules.optimizers import Optimizer
from fptt.rules.sources import SOURCES

if TYPE_CHECKING:
    from fptt.program.ir import Ref

State = Literal["reset", "carry"]


def check_choice(owner: str, name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raises InputError unless value is one of the choices."""
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise InputError(f"{owner}: {name} is {value!r}; choose one of {listed}")


@dataclass(frozen=True)
class Rule:
    """K parts, a gradient source, and the plain optimizer as the update.

    Attributes:
        parts: K; part p covers the steps floor((p-1) T/K) to floor(p T/K) - 1.
        state: "reset" starts every sequence from h = 0, "carry" goes on from the sequence before
            (language modelling).
        source: where the gradient comes from: "bptt", "rtrl", "diagonal", "ostl" or "eprop";
            see `fptt.rules.sources`. All but the first go forwards in time: memory does not depend
            on T, and the gradient reaches back beyond the part.
    """

    parts: int = 1
    state: State = "reset"
    source: str = "bptt"

    def __post_init__(self) -> None:
        owner = type(self).__name__
        if not is_whole(self.parts) or self.parts < 1:
            raise InputError(f"{owner}: parts is {self.parts!r}; give a whole number of at least 1")
        object.__setattr__(self, "parts", int(self.parts))  # NumPy's have a largest one
        check_choice(owner, "state", self.state, ("reset", "carry"))
        check_choice(owner, "source", self.source, tuple(SOURCES))

    def emit_start(self, e: Emitter, optimizer: Optimizer) -> None:
        """Writes into the routine `start`: what rule and optimizer remember before any update."""
        for name, _, _ in e.trained:
            for state in optimizer.state(e, name)[1]:
                if state is not None:
                    e.emit("fill", [], [state], value=0.0)
        optimizer.emit_start(e)

    def emit_update(self, e: Emitter, optimizer: Optimizer, clip: float | None) -> None:
        """Writes the routine `update`: gradients to new parameters."""
        factor = emit_clipping(e, clip)
        emit_tick(e, optimizer)
        for number, (name, theta, gradient) in enumerate(e.trained):
            inputs, outputs = optimizer.state(e, name)
            e.emit(
                "update",
                [theta.whole, gradient.whole, optimizer.rate(e), factor, *inputs, e.noise],
                [theta.whole, *outputs],
                **optimizer.attrs(),
                tensor=number,
                first_row=0,
            )

    def emit_end_epoch(self, e: Emitter) -> None:
        """Writes the routine `end_epoch`."""

    def bounds(self, steps: int) -> list[tuple[int, int]]:
        """First step and step after the last one of every part of a sequence of `steps` steps."""
        return [(p * steps // self.parts, (p + 1) * steps // self.parts) for p in range(self.parts)]


@dataclass(frozen=True)
class BPTT(Rule):
    """Full backpropagation through time: one part, one update a sequence.

    Args:
        state: "reset" or "carry", see `Rule`.

    Raises:
        InputError: parts other than 1, another source, or an unknown option.

    Example:
        >>> BPTT().bounds(28)
        [(0, 28)]
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.parts != 1:
            raise InputError(f"BPTT has one part, not {self.parts}; use TBPTT(parts={self.parts})")
        if self.source != "bptt":
            raise InputError(
                f'BPTT is itself a source of gradients; for source="{self.source}" use '
                f'TBPTT(parts=1, source="{self.source}")'
            )


@dataclass(frozen=True)
class TBPTT(Rule):
    """Truncated BPTT: K parts, the state carried, an update of the optimizer after each.

    This is the "online formulation" and the honest control for FPTT: the same activation memory
    and neither lambda nor a running mean.

    Args:
        parts: K.
        state: "reset" or "carry", see `Rule`.
        source: see `Rule`; with one that goes forwards in time nothing is truncated.

    Raises:
        InputError: parts below 1, or an unknown option.

    Example:
        >>> TBPTT(parts=3).bounds(10)
        [(0, 3), (3, 6), (6, 10)]
        >>> TBPTT(source="rtrl").source
        'rtrl'
    """


def emit_tick(e: Emitter, optimizer: Optimizer) -> None:
    """What happens once per update, before the tensors move."""
    optimizer.emit_tick(e)
    if e.noise:
        e.emit("next_sequence", [e.noise], [e.noise])


def emit_clipping(e: Emitter, clip: float | None) -> Ref | None:
    """The factor that clips the global norm of what lies in the gradients, or None."""
    if clip is None:
        return None
    total = e.buffer("clip", (1,), "scratch", dtype=e.control_dtype).whole
    start = None
    for _, _, gradient in e.trained:
        e.emit("square_sum", [gradient.whole, start], [total])
        start = total
    e.emit("clip_factor", [total], [total], clip=float(clip))
    return total
