"""A module whose state goes in and out, made of one that was not written so."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fptt.errors import InputError
from fptt.torch.forgetting import recurrent_layers
from fptt.torch.spiking_libraries import (
    holders,
    is_snntorch,
    is_spikingjelly,
    takes_whole_sequence,
)

#: time first; what it returns has time first as well
Stage = Callable[[Tensor, Any], tuple[Tensor, Any]]


class Stateful(nn.Module):
    """Runs a module over a part of a sequence: (x_part, state) -> (outputs, state).

    Of an nn.Sequential, nested ones too, the children run one after the other over the whole part:

    - nn.LSTM, nn.GRU and nn.RNN in one call, with their state, whatever their `batch_first`;
    - nn.LSTMCell, nn.GRUCell and nn.RNNCell step by step, with their state;
    - neurons of snnTorch step by step, those of SpikingJelly too, or in step mode "m" in one call;
      they keep their state themselves, and `fptt.torch.parts` resets and detaches it;
    - another Stateful, or a module whose forward takes (x_part, state) and returns both, or with
      stepwise=True (x_t, state);
    - all other modules (Linear, Conv2d, Dropout, ...) with the steps among the rows of the batch,
      so that each sees one step at a time.

    `fptt.torch.parts` wraps an nn.Sequential, a cell or a neuron by itself.

    Args:
        module: the module.
        stepwise: the module takes one step, [batch, ...], as module(x_t) or
            module(x_t, state) -> (y_t, state). It is called for each step. Of an nn.Sequential
            this says so of the children that are your own and keep a state.
        batch_first: whether x is [batch, steps, ...], or [steps, batch, ...].
        output: which one it is, where the module or a neuron returns several outputs
            (of snnTorch's Leaky with output=True 0 is the spike and 1 the membrane potential).

    Raises:
        InputError: no module.

    Example:
        >>> import torch
        >>> model = Stateful(nn.Sequential(nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 2)))
        >>> outputs, state = model(torch.zeros(4, 7, 3))
        >>> outputs.shape
        torch.Size([4, 7, 2])
        >>> outputs, state = model(torch.zeros(4, 7, 3), state)
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        stepwise: bool = False,
        batch_first: bool = True,
        output: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise InputError(f"Stateful: module is {module!r}; give a torch.nn.Module")
        self.module, self.batch_first = module, batch_first
        self.stepwise, self.output = stepwise, output
        self._opaque = stepwise and not is_plain_sequential(module)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Outputs at every step, and the state after the last.

        Args:
            x: [batch, steps, ...], or [steps, batch, ...] unless batch_first.
            state: what the call before returned; None starts a sequence.
        """
        if not self.batch_first:
            return self.run(x, state)
        outputs, state = self.run(x.transpose(0, 1), state)
        return outputs.transpose(0, 1), state

    def run(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """`forward` with time first."""
        children = [self.module] if self._opaque else list(_flat(self.module))
        states = [None] * len(children) if state is None else state
        if not isinstance(states, tuple | list) or len(states) != len(children):
            raise InputError(
                f"Stateful: the state is a {type(state).__name__} that does not belong to these "
                f"{len(children)} modules; give what the call before returned, or None"
            )
        after = []
        for child, before in zip(children, states, strict=True):
            x, new = self._stage(child)(x, before)
            after.append(new)
        return x, tuple(after)

    def _stage(self, module: nn.Module) -> Stage:
        if self._opaque:
            return _by_steps(module, takes_state(module), self.output)
        if isinstance(module, Stateful):
            return module.run
        if isinstance(module, nn.RNNBase):
            return _sequence(module, module.batch_first)
        if isinstance(module, nn.RNNCellBase):
            return _by_steps(_cell(module), True, 0)
        if getattr(module, "step_mode", None) == "m" or takes_whole_sequence(module):
            return lambda x, state: (module(x), None)
        if is_snntorch(module) or is_spikingjelly(module):
            return _by_steps(module, False, self.output)
        if takes_state(module):
            if self.stepwise:
                return _by_steps(module, True, self.output)
            return _sequence(module, self.batch_first)
        if recurrent_layers(module) or holders(module):
            if self.stepwise:
                return _by_steps(module, False, self.output)
            name = type(module).__name__
            raise InputError(
                f"Stateful: in an nn.Sequential stands a {name}, which keeps a state and takes x "
                "alone, so that nobody knows whether it wants one step or a whole part. Where it "
                f"keeps its state inside and takes one step, wrap it: Stateful({name}(...), "
                "stepwise=True). Else write forward(self, x_part, state=None) that returns "
                "(outputs, state)"
            )
        return lambda x, state: (module(x.flatten(0, 1)).unflatten(0, x.shape[:2]), None)


def _flat(module: nn.Module) -> Iterator[nn.Module]:
    if is_plain_sequential(module):
        for child in module.children():
            yield from _flat(child)
    else:
        yield module


def is_plain_sequential(module: object) -> bool:
    """Whether a module calls its children one after the other, and does nothing else."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _sequence(module: nn.Module, batch_first: bool) -> Stage:
    def run(x: Tensor, state: Any) -> tuple[Tensor, Any]:
        outputs, state = module(x.transpose(0, 1) if batch_first else x, state)
        return (outputs.transpose(0, 1) if batch_first else outputs), state

    return run


def _cell(cell: nn.Module) -> Callable[..., tuple[Tensor, Any]]:
    """A cell of PyTorch, which returns its new state only; the output is its h."""

    def step(x: Tensor, state: Any) -> tuple[Tensor, Any]:
        state = cell(x, state)
        return (state[0] if isinstance(state, tuple) else state), state

    return step


def _by_steps(step: Callable[..., Any], passes_state: bool, output: int) -> Stage:
    def run(x: Tensor, state: Any) -> tuple[Tensor, Any]:
        outputs = []
        for x_t in x.unbind(0):
            if passes_state:
                y, state = step(x_t, state)
            else:
                y = step(x_t)
            outputs.append(y[output] if isinstance(y, (tuple, list)) else y)
        return torch.stack(outputs), state

    return run


def _unwrapped(model: Callable[..., Any]) -> Callable[..., Any]:
    """What torch.compile or data parallelism was given."""
    while isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        model = model.module
    return getattr(model, "_orig_mod", model)


def takes_state(model: Callable[..., Any]) -> bool:
    """Whether a model is called with a state besides its input."""
    model = _unwrapped(model)
    function = model.forward if isinstance(model, nn.Module) else model
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of C, or of TorchScript
        return True
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return True
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters) > 1


def as_runner(model: Callable[..., Any], batch_first: bool) -> Callable[..., Any]:
    """The model itself, or wrapped in Stateful where it is plain how to run it."""
    inner = _unwrapped(model)
    if inner is not model and isinstance(inner, nn.RNNBase) and inner.batch_first != batch_first:
        raise InputError(
            f"parts: the compiled or parallel model is a {type(inner).__name__} with "
            f"batch_first={inner.batch_first} and here batch_first is {batch_first}; make them "
            "equal"
        )
    if isinstance(model, nn.RNNBase) and model.batch_first != batch_first:
        return Stateful(model, batch_first=batch_first)
    if isinstance(model, Stateful) and model.batch_first != batch_first:
        raise InputError(
            f"parts: the model is Stateful(..., batch_first={model.batch_first}) and here "
            f"batch_first is {batch_first}; make them equal"
        )
    known = is_plain_sequential(model) or is_snntorch(model) or is_spikingjelly(model)
    if isinstance(model, nn.Module) and (known or isinstance(model, nn.RNNCellBase)):
        return Stateful(model, batch_first=batch_first)
    return model
