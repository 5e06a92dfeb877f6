"""The spiking cells as PyTorch modules.

Each computes what the layer of the same name does (`fptt.LIF`, `fptt.ALIF`, `fptt.LTC`,
`fptt.LeakyIntegrator`: equations, constants and references stand there), with the same names,
shapes and initial distributions of parameters, so weights go over by name. Gradients come from
autograd, with the surrogate of the layer in place of the derivative of a spike.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fptt import nets
from fptt.errors import InputError

#: heights and widths of the multi-Gaussian's side lobes, relative to the middle
_SIDE_HEIGHT, _SIDE_SCALE = 0.15, 6.0
#: what a module carries from step to step, spikes (or potentials) first
State = tuple[Tensor, ...]


class _Spike(torch.autograd.Function):
    """1 where u > 0, else 0; backwards psi(u)."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, surrogate: str, gamma: float, width: float) -> Tensor:
        ctx.save_for_backward(u)
        ctx.constants = (surrogate, gamma, width)
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (u,) = ctx.saved_tensors
        surrogate, gamma, width = ctx.constants
        if surrogate == "triangle":
            psi = (gamma / width) * torch.clamp(1 - u.abs() / width, min=0)
        else:
            side = _SIDE_SCALE * width
            lobes = _normal(u - width, side) + _normal(u + width, side)
            psi = gamma * ((1 + _SIDE_HEIGHT) * _normal(u, width) - _SIDE_HEIGHT * lobes)
        return upstream[0] * psi, None, None, None


def _normal(u: Tensor, deviation: float) -> Tensor:
    """The density at u of the normal distribution of mean 0."""
    scale = 1 / (deviation * math.sqrt(2 * math.pi))
    return torch.exp(-0.5 * (u / deviation) ** 2) * scale


class _Cells(nn.Module):
    """A layer of fptt as a module that goes through a batch of sequences step by step.

    Args:
        layer: sizes and constants.
        states: how many tensors it carries.
        device, dtype: of the parameters.
    """

    def __init__(
        self,
        layer: nets.LIF | nets.ALIF | nets.LTC | nets.LeakyIntegrator,
        states: int,
        **where: Any,
    ) -> None:
        super().__init__()
        self.layer, self._states = layer, states
        for name, parameter in layer.parameters().items():
            values = torch.empty(parameter.shape, **where)
            self.register_parameter(name, nn.Parameter(values))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the parameters anew, from PyTorch's random state."""
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        with torch.no_grad():
            for name, parameter in self.layer.parameters().items():
                self.get_parameter(name).copy_(torch.from_numpy(parameter.initial(rng)))

    def extra_repr(self) -> str:
        return repr(self.layer)

    def zero_state(self, x: Tensor) -> State:
        """The state before a sequence, for the rows of x."""
        return tuple(x.new_zeros(len(x), self.layer.width(None)) for _ in range(self._states))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Goes through all steps.

        Args:
            x: [B, T, I].
            state: as it was returned for the steps before; zeros by default.

        Returns:
            The outputs [B, T, H], and the state after the last step, a tuple of [B, H].

        Raises:
            InputError: x of another shape.
        """
        if x.ndim != 3 or x.shape[2] != self.layer.inputs or not x.shape[1]:
            raise InputError(
                f"{type(self).__name__}: x has shape {list(x.shape)}; give "
                f"[rows, steps, {self.layer.inputs}] with at least one step"
            )
        # the part of the current that needs no state, for all steps at once
        currents = functional.linear(x, self.get_parameter("weight_ih"), self.get_parameter("bias"))
        state = self.zero_state(currents[:, 0]) if state is None else state
        outputs = []
        for current in currents.unbind(1):
            state = self._step(current, state)
            outputs.append(state[0])
        return torch.stack(outputs, 1), state

    def _step(self, current: Tensor, state: State) -> State:
        """The state after a step, from what the input adds to the current."""
        raise NotImplementedError


class _SpikingCells(_Cells):
    """What the neurons that spike have in common."""

    layer: nets.LIF | nets.ALIF | nets.LTC
    weight_hh: Tensor

    def _spike(self, u: Tensor) -> Tensor:
        layer = self.layer
        z: Tensor = _Spike.apply(u, layer.surrogate, layer.gamma, layer.surrogate_width)  # type: ignore[no-untyped-call]
        return z


class LIF(_SpikingCells):
    """Leaky integrate-and-fire neurons; equations and arguments: `fptt.LIF`.

    forward(x [B, T, I], state=None) -> (spikes [B, T, H], (z, v)). State of the last step may be
    passed on to the next part of a sequence; detach it there.

    Example:
        >>> cell = LIF(1, 8, tau=10.0)
        >>> spikes, (z, v) = cell(torch.ones(2, 5, 1))
        >>> spikes.shape, v.shape
        (torch.Size([2, 5, 8]), torch.Size([2, 8]))
    """

    layer: nets.LIF

    def __init__(
        self, inputs: int, hidden: int, *, device: Any = None, dtype: Any = None, **constants: Any
    ) -> None:
        super().__init__(nets.LIF(inputs, hidden, **constants), 2, device=device, dtype=dtype)

    def _step(self, current: Tensor, state: State) -> State:
        z, v = state
        layer = self.layer
        v = layer.decay * v + current + z @ self.weight_hh.T - layer.threshold * z.detach()
        return self._spike(v - layer.threshold), v


class ALIF(_SpikingCells):
    """Adaptive leaky integrate-and-fire neurons; equations and arguments: `fptt.ALIF`.

    forward(x [B, T, I], state=None) -> (spikes [B, T, H], (z, v, a)).

    Example:
        >>> spikes, (z, v, a) = ALIF(1, 8, beta=0.3)(torch.ones(2, 5, 1))
        >>> spikes.shape, a.shape
        (torch.Size([2, 5, 8]), torch.Size([2, 8]))
    """

    layer: nets.ALIF

    def __init__(
        self, inputs: int, hidden: int, *, device: Any = None, dtype: Any = None, **constants: Any
    ) -> None:
        super().__init__(nets.ALIF(inputs, hidden, **constants), 3, device=device, dtype=dtype)

    def _step(self, current: Tensor, state: State) -> State:
        z, v, a = state
        layer = self.layer
        v = layer.decay * v + current + z @ self.weight_hh.T - layer.threshold * z.detach()
        a = layer.rho * a + z
        return self._spike(v - layer.threshold - layer.beta * a), v, a


class LTC(_SpikingCells):
    """Liquid time-constant spiking neurons; equations and arguments: `fptt.LTC`.

    forward(x [B, T, I], state=None) -> (spikes [B, T, H], (z, v, a)).

    Example:
        >>> spikes, (z, v, a) = LTC(1, 8)(torch.ones(2, 5, 1))
        >>> spikes.shape, a.shape
        (torch.Size([2, 5, 8]), torch.Size([2, 8]))
    """

    layer: nets.LTC
    weight_im: Tensor
    weight_vm: Tensor
    bias_m: Tensor
    weight_ir: Tensor
    weight_ar: Tensor
    bias_r: Tensor

    def __init__(
        self, inputs: int, hidden: int, *, device: Any = None, dtype: Any = None, **constants: Any
    ) -> None:
        super().__init__(nets.LTC(inputs, hidden, **constants), 3, device=device, dtype=dtype)

    def _step(self, current: Tensor, state: State) -> State:
        z, v, a = state
        layer = self.layer
        i = current + z @ self.weight_hh.T
        m = torch.sigmoid(i @ self.weight_im.T + v @ self.weight_vm.T + self.bias_m)
        r = torch.sigmoid(i @ self.weight_ir.T + a @ self.weight_ar.T + self.bias_r)
        a = r * a + (1 - r) * z
        u = v + m * (i - v)
        z = self._spike(u - layer.threshold - layer.beta * a)
        return z, (1 - z) * u, a


class LeakyIntegrator(_Cells):
    """Neurons that integrate and never spike; equations and arguments: `fptt.LeakyIntegrator`.

    forward(x [B, T, I], state=None) -> (potentials [B, T, O], (y,)).

    Example:
        >>> potentials, (y,) = LeakyIntegrator(8, 10)(torch.ones(2, 5, 8))
        >>> bool((potentials[:, -1] == y).all())
        True
    """

    layer: nets.LeakyIntegrator

    def __init__(
        self, inputs: int, outputs: int, *, device: Any = None, dtype: Any = None, **constants: Any
    ) -> None:
        layer = nets.LeakyIntegrator(inputs, outputs, **constants)
        super().__init__(layer, 1, device=device, dtype=dtype)

    def _step(self, current: Tensor, state: State) -> State:
        return (self.layer.decay * state[0] + current,)
