"""Optimizers as PyTorch defines them: SGD, SGD with momentum, Adam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fptt.checks import is_number
from fptt.errors import InputError
from fptt.rules.emitter import Emitter

if TYPE_CHECKING:
    from fptt.program.ir import Ref


def _check(owner: str, name: str, value: object, low: float, high: float) -> None:
    if not is_number(value) or not low <= value < high:
        raise InputError(
            f"{owner}: {name} is {value!r}; give a number with {low} <= {name} < {high}"
        )


@dataclass(frozen=True)
class Optimizer:
    """Base of the optimizers; its state lives in buffers of the program, one per tensor.

    Attributes:
        lr: the learning rate that training starts with.
    """

    lr: float

    def __post_init__(self) -> None:
        _check(type(self).__name__, "lr", self.lr, 0, float("inf"))

    def attrs(self) -> dict[str, Any]:
        """Constants of the update operation."""
        raise NotImplementedError

    def emit_start(self, e: Emitter) -> None:
        """What the optimizer remembers besides its moments, before any update."""

    def emit_tick(self, e: Emitter) -> None:
        """What happens once per update, before the tensors move."""

    def rate(self, e: Emitter) -> Ref:
        """The learning rate, a number that schedules change while the program stays."""
        return e.buffer("lr", (1,), "optimizer_state", dtype=e.control_dtype).whole

    def state(
        self, e: Emitter, name: str
    ) -> tuple[tuple[Ref | None, Ref | None, Ref | None], tuple[Ref | None, Ref | None]]:
        """Inputs (first moment, second moment, correction) and outputs (the moments)."""
        return (None, None, None), (None, None)

    def _moment(self, e: Emitter, prefix: str, name: str) -> Ref:
        theta = next(theta for known, theta, _ in e.trained if known == name)
        return e.companion(prefix, theta, "optimizer_state").whole


def _attrs(
    optimizer: str,
    momentum: float = 0.0,
    beta1: float = 0.0,
    beta2: float = 0.0,
    epsilon: float = 0.0,
) -> dict[str, Any]:
    return {
        "optimizer": optimizer,
        "momentum": float(momentum),
        "beta1": float(beta1),
        "beta2": float(beta2),
        "epsilon": float(epsilon),
    }


@dataclass(frozen=True)
class SGD(Optimizer):
    """v' = momentum v + d;  theta' = theta - lr v'  (v' = d without momentum).

    Args:
        lr: learning rate.
        momentum: 0 <= momentum < 1; 0 needs no memory.

    Raises:
        InputError: a value outside its range.

    Example:
        >>> SGD(lr=0.01, momentum=0.9)
        SGD(lr=0.01, momentum=0.9)
    """

    lr: float = 0.01
    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("SGD", "momentum", self.momentum, 0, 1)

    def attrs(self) -> dict[str, Any]:
        return _attrs("momentum" if self.momentum else "sgd", self.momentum)

    def state(
        self, e: Emitter, name: str
    ) -> tuple[tuple[Ref | None, Ref | None, Ref | None], tuple[Ref | None, Ref | None]]:
        if not self.momentum:
            return super().state(e, name)
        velocity = self._moment(e, "momentum", name)
        return (velocity, None, None), (velocity, None)


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma & Ba, ICLR 2015).

        m' = b1 m + (1 - b1) d,   v' = b2 v + (1 - b2) d^2
        theta' = theta - lr (m' / (1 - b1^n)) / (sqrt(v' / (1 - b2^n)) + epsilon)

    Args:
        lr: learning rate.
        beta1, beta2: decay of the moments, each in [0, 1).
        epsilon: added to the denominator.

    Raises:
        InputError: a value outside its range.

    Example:
        >>> Adam(lr=1e-3).beta2
        0.999
    """

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("Adam", "beta1", self.beta1, 0, 1)
        _check("Adam", "beta2", self.beta2, 0, 1)
        _check("Adam", "epsilon", self.epsilon, 0, float("inf"))

    def attrs(self) -> dict[str, Any]:
        return _attrs("adam", 0.0, self.beta1, self.beta2, self.epsilon)

    def _correction(self, e: Emitter) -> Ref:
        return e.buffer("correction", (2,), "optimizer_state", dtype=e.control_dtype).whole

    def emit_start(self, e: Emitter) -> None:
        e.emit("fill", [], [self._correction(e)], value=0.0)

    def emit_tick(self, e: Emitter) -> None:
        correction = self._correction(e)
        e.emit(
            "adam_correction",
            [correction],
            [correction],
            beta1=float(self.beta1),
            beta2=float(self.beta2),
        )

    def state(
        self, e: Emitter, name: str
    ) -> tuple[tuple[Ref | None, Ref | None, Ref | None], tuple[Ref | None, Ref | None]]:
        first, second = self._moment(e, "adam_m", name), self._moment(e, "adam_v", name)
        return (first, second, self._correction(e)), (first, second)
