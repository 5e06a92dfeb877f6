"""What can flow through a module that fptt can read: outputs of a stage, states, zeros."""

from __future__ import annotations

from dataclasses import dataclass, field

from fptt.errors import InputError
from fptt.torch.imported import Place

#: the axis of features
FEATURES = "F"


@dataclass(eq=False)
class Stage:
    """One layer in the stack.

    Attributes:
        place: the layer and its tensors.
        what: what it is called in messages.
        below: the stage that it takes its input from, None for the module's input.
        calls: of a cell, how many steps it has taken.
        cell: whether it is a cell, in a loop of the user's.
    """

    place: Place
    what: str
    below: Stage | None
    cell: bool = False
    calls: int = 0

    def stack(self) -> list[Stage]:
        """From the input up to this stage."""
        return [*(self.below.stack() if self.below else []), self]


@dataclass(frozen=True)
class Rows:
    """The outputs of a stage, or the module's input.

    Attributes:
        stage: None for the input.
        axes: names of the axes. Those of the input are "0" and "1", in the order in which they
            come, of which a recurrent layer tells which one is the batch.
        at: the axis that is no longer there, and which of its entries was taken.
    """

    stage: Stage | None
    axes: tuple[str, ...]
    at: tuple[str, int] | None = None


@dataclass(frozen=True)
class Finals:
    """The states h (or c) of all layers of an nn.LSTM, nn.GRU or nn.RNN behind the last step.

    Attributes:
        stages: its recurrent layers, or none where it is c.
        last: what its top layer has at the last step.
    """

    stages: int
    last: Rows | None


@dataclass(frozen=True)
class CellState:
    """c of an nn.LSTMCell behind a step."""

    stage: Stage
    step: int


@dataclass(frozen=True)
class Zeros:
    """A tensor that is zero whatever the input."""


@dataclass(frozen=True)
class Constant:
    """Another tensor that does not come from the input."""


@dataclass(frozen=True)
class Refused:
    """A value that fptt cannot represent; it is an error only if the output depends on it."""

    error: InputError


@dataclass
class Axes:
    """What is known of the axes of the input.

    Attributes:
        sizes: extent of "0" and "1" on the example.
        batch: which of them is the batch, once a recurrent layer has said so.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    batch: str | None = None

    @property
    def time(self) -> str:
        """The other one."""
        assert self.batch is not None
        return "1" if self.batch == "0" else "0"

    @property
    def order(self) -> tuple[str, str, str]:
        """The axes as fptt has them: batch, steps, features."""
        assert self.batch is not None
        return self.batch, self.time, FEATURES
