"""Spiking neurons whose time constants depend on input and state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fptt.nets.layer import Array, Layout, Parameter, emit_gradients
from fptt.nets.spiking import Spiking, take_positive

if TYPE_CHECKING:
    from fptt.program.ir import Buffer, Ref

#: the two time constants -> what each looks at besides the current
_SEEN = {"m": "v", "r": "a"}


def _logit_of_decay(tau: float) -> float:
    """The number whose sigmoid is exp(-1 / tau)."""
    return -math.log(math.expm1(1 / tau))


def _uniform_around(
    centre: float, bound: float, rng: np.random.Generator, shape: tuple[int, ...]
) -> Array:
    return centre + rng.uniform(-bound, bound, shape)


@dataclass(frozen=True)
class LTC(Spiking):
    """A layer of liquid time-constant spiking neurons (LTC-SN).

        i_t = x_t W_ih^T + z_{t-1} W_hh^T + b
        m_t = sigmoid(i_t W_im^T + v_{t-1} W_vm^T + b_m)       1 / time constant of the membrane
        r_t = sigmoid(i_t W_ir^T + a_{t-1} W_ar^T + b_r)       decay of the adaptation
        a_t = r_t a_{t-1} + (1 - r_t) z_{t-1}
        u_t = v_{t-1} + m_t (i_t - v_{t-1})
        z_t = 1 if u_t > A_t, else 0,                          A_t = threshold + beta a_t
        v_t = (1 - z_t) u_t

    The output is the spike z_t. A neuron that spikes is reset to zero at once, and the gradient
    flows through this reset too: it carries psi(u_t - A_t), the surrogate of `LIF`, as everything
    that depends on z does. The state before a sequence is zero. The published code draws v at
    random there, starts a at 0.1, normalises the currents by batch statistics of every step, and
    has a surrogate width of 0.3; here there is no normalisation.

    Kept per step and sample: z, v, a, i, m, r, and u, whose place takes the gradient of i (7 H
    numbers); with `recompute` z, v and a. Runs in the reference
    back end. Not to be confused with liquid time-constant networks (Hasani et al., 2021), which
    do not spike.

    Args:
        inputs: I, features per step.
        hidden: H, neurons.
        tau: time constant of the membrane before anything is learnt, in steps.
        tau_adaptation: that of the adaptation.
        threshold: of a neuron at rest.
        beta: strength of the adaptation.
        surrogate, gamma, surrogate_width: as in `LIF`.

    Parameters: weight_ih [H, I] uniform within 1/sqrt(I); weight_hh, weight_im, weight_vm,
    weight_ir, weight_ar [H, H] and bias [H] uniform within 1/sqrt(H); bias_m and bias_r [H] within
    1/sqrt(H) of where m = 1 - exp(-1 / tau) and r = exp(-1 / tau_adaptation) without input. (The
    published code starts both at 0: time constants of 1.4 steps, in which a sequence of hundreds of
    steps is soon forgotten.)

    Raises:
        InputError: a size below 1, a constant that is not above 0 (beta: below 0), or an unknown
            surrogate.

    Example:
        >>> sorted(LTC(1, 64).parameters())[-4:]
        ['weight_ih', 'weight_im', 'weight_ir', 'weight_vm']

    Reference: Yin, Corradi & Bohte, "Accurate online training of dynamical spiking neural networks
    through Forward Propagation Through Time", Nature Machine Intelligence 2023.
    """

    inputs: int
    hidden: int
    _: KW_ONLY
    tau: float = 20.0
    tau_adaptation: float = 50.0
    threshold: float = 0.1
    beta: float = 1.8
    surrogate: str = "multi_gaussian"
    gamma: float = 0.5
    surrogate_width: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        take_positive(self, "tau", "tau_adaptation", "threshold")
        take_positive(self, "beta", zero=True)

    def parameters(self) -> Mapping[str, Parameter]:
        h, bound = self.hidden, self.hidden**-0.5
        found = dict(super().parameters())
        for gate, seen in _SEEN.items():
            found[f"weight_i{gate}"] = Parameter((h, h), bound, by_columns=True)
            found[f"weight_{seen}{gate}"] = Parameter((h, h), bound, by_columns=True)
        centres = {"m": -_logit_of_decay(self.tau), "r": _logit_of_decay(self.tau_adaptation)}
        for gate, centre in centres.items():
            around = partial(_uniform_around, centre, bound)
            found[f"bias_{gate}"] = Parameter((h,), distribution=around)
        return found

    def allocate(self, e: Layout) -> None:
        super().allocate(e)
        self.sum_gradients(e)
        self._rates(e)

    def sum_gradients(self, e: Layout) -> Buffer:
        """The place of u: the current itself is needed for the gradients of W_im and W_ir."""
        return e.gates("u", self.hidden)

    def _rates(self, e: Layout) -> Buffer:
        """The sums of m and r, then m and r, then the gradients of their sums."""
        return e.gates("rates", 2 * self.hidden)

    def _halves(self, e: Layout, v: Ref, a: Ref) -> list[tuple[str, str, Ref, tuple[int, int]]]:
        """Of m and of r: name, name of the state that it looks at, that state, columns."""
        h = self.hidden
        return [("m", "v", v, (0, h)), ("r", "a", a, (h, 2 * h))]

    def state(self, e: Layout) -> tuple[Buffer, ...]:
        return (
            e.history("z", self.hidden, carried=True),
            e.history("v", self.hidden, carried=True),
            e.history("a", self.hidden, carried=True),
        )

    def forward_step(self, e: Layout, x: Ref, *, before: int) -> None:
        z, v, a = self.state(e)
        current = self.emit_current(e, x, z.at(before))
        sums = self._rates(e).at(0)
        for gate, seen, state, columns in self._halves(e, v.at(before), a.at(before)):
            weights = (f"weight_i{gate}", f"weight_{seen}{gate}", f"bias_{gate}")
            from_current, from_state, bias = (e.parameter(name).whole for name in weights)
            e.emit(
                "affine_sum",
                [current, from_current, state, from_state, bias, None],
                [sums.cols(*columns)],
            )
        e.emit(
            "ltc_forward",
            [sums, current, v.at(before), a.at(before), z.at(before)],
            [sums, self.sum_gradients(e).at(0), v.at(0), a.at(0), z.at(0)],
            threshold=self.threshold,
            beta=self.beta,
        )

    def recompute_step(self, e: Layout, x: Ref) -> None:
        self.forward_step(e, x, before=-1)

    def gradient_state(self, e: Layout) -> tuple[Buffer, ...]:
        return e.rows("dz", self.hidden), e.rows("dv", self.hidden), e.rows("da", self.hidden)

    def backward_step(self, e: Layout, dx: Ref | None, start: Ref | None) -> None:
        z, v, a = self.state(e)
        dz, dv, da = (buffer.whole for buffer in self.gradient_state(e))
        dcurrent, dsums = self.sum_gradients(e).at(0), self._rates(e).at(0)
        before = [v.at(-1), a.at(-1), z.at(-1)]
        e.emit(
            "ltc_backward",
            [dsums, dcurrent, self.gates(e).at(0), *before, a.at(0), z.at(0), dz, dv, da],
            [dsums, dcurrent, dz, dv, da],
            threshold=self.threshold,
            beta=self.beta,
            **self.pseudo_derivative,
        )
        for gate, seen, d_state, columns in self._halves(e, dv, da):
            of_gate = dsums.cols(*columns)
            from_current = e.parameter(f"weight_i{gate}").whole
            from_state = e.parameter(f"weight_{seen}{gate}").whole
            e.emit("product", [of_gate, from_current, dcurrent], [dcurrent])
            e.emit("product", [of_gate, from_state, d_state], [d_state], after_first=True)
        self.emit_below(e, dx, start, dz)

    def step_gradients(self, e: Layout, x: Ref) -> None:
        super().step_gradients(e, x)
        _, v, a = self.state(e)
        dsums, current = self._rates(e).at(0), self.gates(e).at(0)
        self._rate_gradients(e, dsums, current, v.at(-1), a.at(-1), add=True)

    def parameter_gradients(self, e: Layout, x: Ref) -> None:
        super().parameter_gradients(e, x)
        if not e.recomputes:
            _, v, a = self.state(e)
            dsums, current = self._rates(e).all(), self.gates(e).all()
            self._rate_gradients(e, dsums, current, v.all(-1), a.all(-1), add=False)

    def _rate_gradients(
        self, e: Layout, dsums: Ref, current: Ref, v: Ref, a: Ref, *, add: bool
    ) -> None:
        for gate, seen, state, columns in self._halves(e, v, a):
            of_gate = dsums.cols(*columns)
            for name, source in (
                (f"weight_i{gate}", current),
                (f"weight_{seen}{gate}", state),
                (f"bias_{gate}", None),
            ):
                emit_gradients(e, name, [(None, of_gate)], source, add=add)
