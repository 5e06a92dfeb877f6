"""Leaky integrate-and-fire neurons."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

from fptt.nets.layer import Layout
from fptt.nets.spiking import Spiking, decay_of, leaky_trace, take_positive

if TYPE_CHECKING:
    from fptt.program.ir import Buffer, Ref


@dataclass(frozen=True)
class LIF(Spiking):
    """A layer of leaky integrate-and-fire (LIF) neurons.

        i_t = x_t W_ih^T + z_{t-1} W_hh^T + b
        v_t = decay v_{t-1} + i_t - threshold z_{t-1},     decay = exp(-1 / tau)
        z_t = 1 if v_t > threshold, else 0

    The output is the spike z_t, of the potential after this step's input. One step after a spike
    the threshold is subtracted from the potential (reset by subtraction); no gradient flows through
    this reset, only through v and through W_hh (Bellec et al., 2020). The derivative of z by v is
    replaced by a surrogate psi(v_t - threshold) of width w:

        multi_gaussian: gamma (1.15 N(u; 0, w) - 0.15 N(u; w, 6w) - 0.15 N(u; -w, 6w)), where
            N(u; m, s) is the normal density of mean m and deviation s (Yin et al., 2021)
        triangle: (gamma / w) max(0, 1 - |u| / w) (Bellec et al., 2020: gamma = 0.3, w = threshold)

    e-prop leaves out the way through W_hh: dL/dW = sum_t (dL/dz_t psi_t)^T eps_t, where eps_t =
    decay eps_{t-1} + x_t (z_{t-1} for W_hh, 1 for b) is one number per input and row.

    Kept per step and sample: z, v, and the place of i, which takes its gradient (3 H numbers); with
    `recompute` z and v. Runs in the reference back end.

    Args:
        inputs: I, features per step.
        hidden: H, neurons.
        tau: time constant of the membrane, in steps.
        threshold: where a neuron spikes, and what the reset subtracts.
        surrogate: "multi_gaussian" or "triangle".
        gamma: scale of the surrogate.
        surrogate_width: w.

    Parameters: weight_ih [H, I] uniform within 1/sqrt(I); weight_hh [H, H] and bias [H] uniform
    within 1/sqrt(H).

    Raises:
        InputError: a size below 1, a constant that is not above 0, or an unknown surrogate.

    Example:
        >>> LIF(1, 128).width(1)
        128

    References: Bellec et al., "A solution to the learning dilemma for recurrent networks of spiking
    neurons", Nature Communications 2020; Yin, Corradi & Bohte, "Accurate and efficient time-domain
    classification with adaptive spiking recurrent neural networks", Nature Machine Intelligence
    2021.
    """

    inputs: int
    hidden: int
    _: KW_ONLY
    tau: float = 20.0
    threshold: float = 1.0
    surrogate: str = "multi_gaussian"
    gamma: float = 0.5
    surrogate_width: float = 0.5
    sources = frozenset({"eprop"})

    def __post_init__(self) -> None:
        super().__post_init__()
        take_positive(self, "tau", "threshold")

    @property
    def decay(self) -> float:
        """What is left of the potential after one step."""
        return decay_of(self.tau)

    def state(self, e: Layout) -> tuple[Buffer, ...]:
        return (
            e.history("z", self.hidden, carried=True),
            e.history("v", self.hidden, carried=True),
        )

    def forward_step(self, e: Layout, x: Ref, *, before: int) -> None:
        z, v = self.state(e)
        current = self.emit_current(e, x, z.at(before))
        e.emit(
            "lif_forward",
            [current, v.at(before), z.at(before)],
            [v.at(0), z.at(0)],
            decay=self.decay,
            threshold=self.threshold,
        )

    def gradient_state(self, e: Layout) -> tuple[Buffer, ...]:
        return e.rows("dz", self.hidden), e.rows("dv", self.hidden)

    def backward_step(self, e: Layout, dx: Ref | None, start: Ref | None) -> None:
        _, v = self.state(e)
        dz, dv = (buffer.whole for buffer in self.gradient_state(e))
        e.emit(
            "lif_backward",
            [v.at(0), dz, dv],
            [self.sum_gradients(e).at(0), dv],
            decay=self.decay,
            threshold=self.threshold,
            **self.pseudo_derivative,
        )
        self.emit_below(e, dx, start, None)

    # -- e-prop: the trace of v, which is the same for all neurons ---------------------------------

    def traces(self, e: Layout, source: str) -> None:
        for name in self.trained(e):
            leaky_trace(e, "v", name)

    def keep_state(self, e: Layout) -> None:
        e.emit("copy", [self.state(e)[0].whole], [self.before(e)[0]])

    def trace_step(self, e: Layout, source: str, x: Ref) -> None:
        for name in self.trained(e):
            eps, operand = leaky_trace(e, "v", name), self.multiplied(e, x).get(name)
            e.emit("leaky_trace", [eps, operand], [eps], decay=self.decay)

    def trace_gradients(self, e: Layout, source: str, x: Ref, dy: Ref, *, add: bool) -> None:
        du = self.emit_spike_gradient(e, dy)
        for name in self.trained(e):
            gradient = e.gradient(name)
            assert gradient is not None
            g = gradient.whole
            operands = [du, leaky_trace(e, "v", name), g if add else None]
            e.emit("leaky_trace_gradient", operands, [g])

    def emit_spike_gradient(self, e: Layout, dz: Ref) -> Ref:
        du, v = self.sum_gradients(e).at(0), self.state(e)[1].at(0)
        constants = {"threshold": self.threshold, "beta": 0.0, **self.pseudo_derivative}
        e.emit("spike_gradient", [v, None, dz], [du], **constants)
        return du
