"""Modules from networks: `to_module`, into a new module or into the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fptt.errors import InputError
from fptt.nets import GRU, LSTM, RNN, Dropout, Embedding, Linear, Network, ReLU
from fptt.nets.layer import Layer, Recurrent
from fptt.rules.rule import check_choice
from fptt.torch.imported import Place, tensor_names
from fptt.torch.reading import read_module
from fptt.trainer import Trainer

Array = NDArray[Any]
_RECURRENT: dict[type[Layer], Callable[..., nn.Module]] = {LSTM: nn.LSTM, GRU: nn.GRU, RNN: nn.RNN}
_DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


class Stack(nn.Sequential):
    """A network of fptt as a module: its layers by their numbers, "0", "1", ...

    Args:
        layers: nn.LSTM, nn.GRU or nn.RNN (batch_first, one layer each), nn.Linear, nn.ReLU,
            nn.Dropout, nn.Embedding.
        every_step: outputs at every step, or at the last one.

    Example:
        >>> stack = Stack(nn.GRU(3, 5, batch_first=True), nn.Linear(5, 2), every_step=True)
        >>> stack(torch.zeros(4, 6, 3)).shape
        torch.Size([4, 6, 2])
    """

    def __init__(self, *layers: nn.Module, every_step: bool = False) -> None:
        super().__init__(*layers)
        self.every_step = every_step

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [batch, C] or [batch, steps, C] of x [batch, steps, features] or tokens."""
        for layer in self:
            x = layer(x)
            if isinstance(layer, nn.RNNBase):
                x = x[0]  # the outputs; behind them is the state
        return x if self.every_step else x[:, -1]

    def extra_repr(self) -> str:
        """What `print` shows beside the layers."""
        return f"every_step={self.every_step}"


def to_module(
    source: Trainer | Network,
    module: nn.Module | None = None,
    *,
    example: Tensor | None = None,
    loss: str | None = None,
) -> nn.Module:
    """A PyTorch module with the weights of a trainer or a network.

        bias_ih = bias,  bias_hh = 0             in LSTM and RNN; a GRU keeps both

    Args:
        source: a `Trainer`, with its present weights, or a `Network` with weights. Of matrices with
            adapters the sum W + up down is written.
        module: a module of yours to write into, in place; it must be read (`from_module`) as the
            network that was trained. Without it a `Stack` is made, of the trainer's number type
            (a network's: that of its weights), ready for evaluation (`eval()`).
        example: as in `from_module`, to read `module`.
        loss: "last" or "every_step", where a new module has its outputs. By default the trainer's
            own, and "last" for a network.

    Returns:
        The module: `module` itself, or a new one.

    Raises:
        InputError: a network without weights, or a module of another network; a bias that has been
            trained and that the module does not have. Nothing has been written then.

    Example:
        >>> import fptt, fptt.torch, torch
        >>> net = fptt.Network([fptt.LSTM(3, 5), fptt.Linear(5, 2)])
        >>> trainer = fptt.Trainer(fptt.build(net, fptt.FPTT(parts=2), steps=6, batch=4))
        >>> x = torch.randn(4, 6, 3)
        >>> module = fptt.torch.to_module(trainer)
        >>> torch.allclose(module(x), torch.from_numpy(trainer.predict(x.numpy())), atol=1e-6)
        True
        >>> sorted(module.state_dict())
        ['0.bias_hh_l0', '0.bias_ih_l0', '0.weight_hh_l0', '0.weight_ih_l0', '1.bias', '1.weight']
    """
    net, weights, dtype, every_step = _weights(source)
    if loss is not None:
        check_choice("to_module", "loss", loss, ("last", "every_step"))
        every_step = loss == "every_step"
    if module is not None:
        if loss is not None:
            raise InputError("to_module: loss has no effect with a module of yours; leave it out")
        _write_into(module, example, net, weights)
        return module
    if example is not None:
        raise InputError("to_module: example has no effect without module; leave it out")
    stack = Stack(*map(_module, net.layers), every_step=every_step).to(dtype)
    places = [
        Place(layer, f"{index}.", "_l0" if isinstance(layer, Recurrent) else "")
        for index, layer in enumerate(net.layers)
    ]
    tensors = dict(stack.named_parameters())
    _write(tensors, tensor_names(places, tensors), weights)
    return stack.eval()


def _weights(source: object) -> tuple[Network, dict[str, Array], torch.dtype, bool]:
    """The network, its weights without adapters, their type, and where outputs are wanted."""
    if isinstance(source, Trainer):
        program = source.program
        dtype, every_step = _DTYPES[program.dtype], program.schedule.every_step
        return program.net, source.merged_parameters(), dtype, every_step
    if not isinstance(source, Network):
        raise InputError(
            f"to_module: source is {type(source).__name__}; give a Trainer, or a Network with "
            "weights"
        )
    if source.weights is None:
        raise InputError(
            f"to_module: the network {source} has no weights; give the Trainer that trained it"
        )
    weights = source.merged({**source.initial(0), **source.weights})
    kind = np.result_type(*weights.values())
    return source, weights, torch.float64 if kind == np.float64 else torch.float32, False


def _module(layer: Layer) -> nn.Module:
    """One layer, with weights as PyTorch draws them."""
    if isinstance(layer, (LSTM, GRU, RNN)):
        made: nn.Module = _RECURRENT[type(layer)](layer.inputs, layer.hidden, batch_first=True)
        return made
    if isinstance(layer, Linear):
        return nn.Linear(layer.inputs, layer.outputs)
    if isinstance(layer, Embedding):
        return nn.Embedding(layer.tokens, layer.outputs)
    if isinstance(layer, Dropout):
        return nn.Dropout(layer.p)
    if isinstance(layer, ReLU):
        return nn.ReLU()
    raise InputError(f"to_module: PyTorch has no layer {type(layer).__name__}; export another one")


def _write_into(
    module: nn.Module, example: Tensor | None, net: Network, weights: Mapping[str, Array]
) -> None:
    found = read_module(module, example)
    if found.network.layers != net.layers:
        raise InputError(
            f"to_module: the module is {found.network}, and {net} was trained; give the module "
            "that it was imported from"
        )
    for name, tensors in found.tensors.items():
        if not tensors and weights[name].any():
            raise InputError(
                f"to_module: {name} was trained, and the module has no such bias; train with "
                "train=fptt.torch.read_module(module).train, or give a module with biases"
            )
    module = getattr(module, "_orig_mod", module)
    _write(dict(module.named_parameters()), found.tensors, weights)


def _write(
    parameters: Mapping[str, Tensor],
    names: Mapping[str, tuple[str, ...]],
    weights: Mapping[str, Array],
) -> None:
    """The first tensor of each parameter takes its value, further ones become zero."""
    with torch.no_grad():
        for name, tensors in names.items():
            for index, tensor in enumerate(tensors):
                values = torch.from_numpy(np.array(weights[name], np.float64))
                parameters[tensor].copy_(values if index == 0 else torch.zeros_like(values))
