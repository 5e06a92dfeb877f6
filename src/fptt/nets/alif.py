"""Leaky integrate-and-fire neurons with an adaptive threshold."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

from fptt.nets.layer import Layout
from fptt.nets.spiking import Spiking, decay_of, leaky_trace, take_positive

if TYPE_CHECKING:
    from fptt.program.ir import Buffer, Ref


@dataclass(frozen=True)
class ALIF(Spiking):
    """A layer of adaptive leaky integrate-and-fire (ALIF) neurons.

        i_t = x_t W_ih^T + z_{t-1} W_hh^T + b
        v_t = decay v_{t-1} + i_t - threshold z_{t-1},     decay = exp(-1 / tau)
        a_t = rho a_{t-1} + z_{t-1},                       rho = exp(-1 / tau_adaptation)
        z_t = 1 if v_t > A_t, else 0,                      A_t = threshold + beta a_t

    Every spike raises the neuron's own threshold A by beta, and the rise decays with rho: a memory
    of tau_adaptation steps. The output is the spike z_t. After a spike `threshold` (not A) is
    subtracted from the potential, and no gradient flows through this reset; it flows through v,
    through W_hh, and through a. The derivative of z by v is replaced by psi(v_t - A_t), that by a
    by -beta psi(v_t - A_t); see `LIF` for psi. This is the neuron of e-prop (Bellec et al., 2020),
    whose eligibility vectors are, with psi at t,

        eps_v(t+1) = decay eps_v(t) + z_pre(t)
        eps_a(t+1) = psi eps_v(t) + (rho - psi beta) eps_a(t)
        e(t)       = psi (eps_v(t) - beta eps_a(t))

    where z_pre(t) is the input of step t + 1, z_t for W_hh and 1 for b. source="eprop" keeps eps_v
    per input and eps_a per synapse, and leaves out the way through W_hh.

    Kept per step and sample: z, v, a, and the place of i, which takes its gradient (4 H numbers);
    with `recompute` z, v and a. Runs in the reference back end.

    Args:
        inputs: I, features per step.
        hidden: H, neurons.
        tau: time constant of the membrane, in steps.
        tau_adaptation: time constant of the threshold, in steps; about the length of what must be
            remembered.
        threshold: of a neuron at rest, and what the reset subtracts.
        beta: strength of the adaptation, 0 for none: then it is a `LIF`.
        surrogate, gamma, surrogate_width: as in `LIF`.

    Parameters: those of `LIF`.

    Raises:
        InputError: a size below 1, a constant that is not above 0 (beta: below 0), or an unknown
            surrogate.

    Example:
        >>> round(ALIF(1, 128, tau_adaptation=200.0).rho, 4)
        0.995

    Reference: Bellec et al., "A solution to the learning dilemma for recurrent networks of spiking
    neurons", Nature Communications 2020.
    """

    inputs: int
    hidden: int
    _: KW_ONLY
    tau: float = 20.0
    tau_adaptation: float = 200.0
    threshold: float = 1.0
    beta: float = 0.1
    surrogate: str = "multi_gaussian"
    gamma: float = 0.5
    surrogate_width: float = 0.5
    sources = frozenset({"eprop"})

    def __post_init__(self) -> None:
        super().__post_init__()
        take_positive(self, "tau", "tau_adaptation", "threshold")
        take_positive(self, "beta", zero=True)

    @property
    def decay(self) -> float:
        """What is left of the potential after one step."""
        return decay_of(self.tau)

    @property
    def rho(self) -> float:
        """What is left of the adaptation after one step."""
        return decay_of(self.tau_adaptation)

    @property
    def _constants(self) -> dict[str, Any]:
        return {
            "decay": self.decay,
            "rho": self.rho,
            "threshold": self.threshold,
            "beta": self.beta,
        }

    def state(self, e: Layout) -> tuple[Buffer, ...]:
        return (
            e.history("z", self.hidden, carried=True),
            e.history("v", self.hidden, carried=True),
            e.history("a", self.hidden, carried=True),
        )

    def forward_step(self, e: Layout, x: Ref, *, before: int) -> None:
        z, v, a = self.state(e)
        current = self.emit_current(e, x, z.at(before))
        e.emit(
            "alif_forward",
            [current, v.at(before), a.at(before), z.at(before)],
            [v.at(0), a.at(0), z.at(0)],
            **self._constants,
        )

    def gradient_state(self, e: Layout) -> tuple[Buffer, ...]:
        return e.rows("dz", self.hidden), e.rows("dv", self.hidden), e.rows("da", self.hidden)

    def backward_step(self, e: Layout, dx: Ref | None, start: Ref | None) -> None:
        _, v, a = self.state(e)
        dz, dv, da = (buffer.whole for buffer in self.gradient_state(e))
        e.emit(
            "alif_backward",
            [v.at(0), a.at(0), dz, dv, da],
            [self.sum_gradients(e).at(0), dz, dv, da],
            **self._constants,
            **self.pseudo_derivative,
        )
        self.emit_below(e, dx, start, dz)

    # -- e-prop ------------------------------------------------------------------------------------

    def _eligibility(self, e: Layout, name: str) -> tuple[Ref, Ref]:
        """eps_v, which is the same for all neurons, and eps_a."""
        eps_v, theta = leaky_trace(e, "v", name), e.parameter(name)
        inner = (self.hidden, *(theta.inner[1:] or (1,)))
        return eps_v, e.trace(f"a/{theta.name}", inner).whole

    def traces(self, e: Layout, source: str) -> None:
        for name in self.trained(e):
            self._eligibility(e, name)

    def trace_step(self, e: Layout, source: str, x: Ref) -> None:
        _, v_before, a_before = self.before(e)
        constants = {**self._constants, **self.pseudo_derivative}
        del constants["decay"]  # of eps_v alone
        for name in self.trained(e):
            (eps_v, eps_a), operand = self._eligibility(e, name), self.multiplied(e, x).get(name)
            # eps_a takes eps_v of the step before
            operands = [v_before, a_before, eps_v, eps_a]
            e.emit("adaptation_trace", operands, [eps_a], **constants)
            e.emit("leaky_trace", [eps_v, operand], [eps_v], decay=self.decay)

    def trace_gradients(self, e: Layout, source: str, x: Ref, dy: Ref, *, add: bool) -> None:
        du = self.emit_spike_gradient(e, dy)
        for name in self.trained(e):
            gradient = e.gradient(name)
            assert gradient is not None
            g = gradient.whole
            operands = [du, *self._eligibility(e, name), g if add else None]
            e.emit("alif_eprop_gradient", operands, [g], beta=self.beta)

    def emit_spike_gradient(self, e: Layout, dz: Ref) -> Ref:
        _, v, a = (state.at(0) for state in self.state(e))
        du = self.sum_gradients(e).at(0)
        constants = {"threshold": self.threshold, "beta": self.beta, **self.pseudo_derivative}
        e.emit("spike_gradient", [v, a, dz], [du], **constants)
        return du
