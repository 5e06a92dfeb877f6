"""Forward Propagation Through Time: the update wrapper (Kag & Saligrama, ICML 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fptt.checks import is_number
from fptt.errors import InputError
from fptt.rules.emitter import Emitter
from fptt.rules.optimizers import Optimizer
from fptt.rules.rule import Rule, check_choice, emit_clipping, emit_tick

if TYPE_CHECKING:
    from fptt.program.ir import Buffer


@dataclass(frozen=True)
class FPTT(Rule):
    """FPTT: after every part, an optimizer step on the loss plus a dynamic regulariser R(t).

    State per tensor: the running mean m (starts as theta) and lambda (starts as 0). With g the
    gradient of the part's data loss at theta:

        d       = g - w lambda + alpha (theta - m)          gradient of l + R(t)
        theta'  = optimizer(theta, d)                        d clipped first, if asked
        lambda' = w lambda - alpha (theta' - m)
        m'      = (1 - beta) m + beta theta' - (beta/alpha) lambda'

    w is 1 in mode "code" (what the authors' program runs) and 1/2 in mode "paper". Other pairings
    of the two coefficients are inconsistent and not offered.

    Args:
        parts: K.
        alpha: strength of R(t), > 0.
        beta: weight of the new parameters in m, 0 < beta <= 1.
        mode: "code" or "paper".
        regularise: False drops R(t), lambda and m: truncated BPTT.
        source: where the gradient comes from: "bptt", inside a part; "rtrl", "diagonal", "ostl",
            "eprop", forwards in time; see `Rule`.
        state: "reset" starts every sequence from h = 0, "carry" goes on.
        epoch_end: "average" sets theta to m at the end of an epoch, "keep" does not.
        epoch_lambda: "zero" sets lambda to 0 at the end of an epoch, "keep" does not.

    Raises:
        InputError: a value outside its range.

    Example:
        >>> FPTT(parts=28).alpha
        0.1
    """

    alpha: float = 0.1
    beta: float = 0.5
    mode: Literal["code", "paper"] = "code"
    regularise: bool = True
    epoch_end: Literal["average", "keep"] = "average"
    epoch_lambda: Literal["zero", "keep"] = "zero"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.alpha) and 0 < self.alpha < float("inf")):
            raise InputError(
                f"FPTT: alpha is {self.alpha!r}; give a number above 0, "
                "or regularise=False to train without R(t)"
            )
        if not (is_number(self.beta) and 0 < self.beta <= 1):
            raise InputError(f"FPTT: beta is {self.beta!r}; give a number with 0 < beta <= 1")
        check_choice("FPTT", "mode", self.mode, ("code", "paper"))
        check_choice("FPTT", "epoch_end", self.epoch_end, ("average", "keep"))
        check_choice("FPTT", "epoch_lambda", self.epoch_lambda, ("zero", "keep"))

    def _state(self, e: Emitter, theta: Buffer) -> tuple[Buffer, Buffer]:
        return (
            e.companion("lambda", theta, "rule_state"),
            e.companion("mean", theta, "rule_state"),
        )

    def emit_start(self, e: Emitter, optimizer: Optimizer) -> None:
        super().emit_start(e, optimizer)
        if self.regularise:
            for _, theta, _ in e.trained:
                lam, mean = self._state(e, theta)
                e.emit("copy", [theta.whole], [mean.whole])
                e.emit("fill", [], [lam.whole], value=0.0)

    def emit_update(self, e: Emitter, optimizer: Optimizer, clip: float | None) -> None:
        if not self.regularise:
            super().emit_update(e, optimizer, clip)
            return
        # clipping needs the norm of d over all tensors before any of them moves
        directed = clip is not None
        if directed:
            for _, theta, gradient in e.trained:
                lam, mean = self._state(e, theta)
                e.emit(
                    "fptt_direction",
                    [theta.whole, gradient.whole, lam.whole, mean.whole],
                    [gradient.whole],
                    alpha=float(self.alpha),
                    mode=self.mode,
                )
        factor = emit_clipping(e, clip)
        emit_tick(e, optimizer)
        for number, (name, theta, gradient) in enumerate(e.trained):
            lam, mean = self._state(e, theta)
            inputs, outputs = optimizer.state(e, name)
            e.emit(
                "fptt_update",
                [
                    theta.whole,
                    gradient.whole,
                    lam.whole,
                    mean.whole,
                    optimizer.rate(e),
                    factor,
                    *inputs,
                    e.noise,
                ],
                [theta.whole, lam.whole, mean.whole, *outputs],
                alpha=float(self.alpha),
                beta=float(self.beta),
                mode=self.mode,
                directed=directed,
                **optimizer.attrs(),
                tensor=number,
                first_row=0,
            )

    def emit_end_epoch(self, e: Emitter) -> None:
        if not self.regularise:
            return
        for _, theta, _ in e.trained:
            lam, mean = self._state(e, theta)
            if self.epoch_end == "average":
                e.emit("copy", [mean.whole], [theta.whole])
            if self.epoch_lambda == "zero":
                e.emit("fill", [], [lam.whole], value=0.0)
