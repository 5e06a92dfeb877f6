"""What is read from PyTorch, and how its tensors become parameters. Needs no PyTorch itself.

PyTorch gives a recurrent layer two biases. LSTM and RNN only ever see their sum, so fptt has one:

    bias = bias_ih + bias_hh                  read
    bias_ih = bias,  bias_hh = 0              written

In a GRU the reset gate multiplies the recurrent half with its bias, so both stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fptt.errors import InputError
from fptt.nets import LSTM, RNN, Network
from fptt.nets.layer import Layer

Array = NDArray[Any]


@dataclass(frozen=True)
class Imported:
    """A module as fptt sees it.

    Attributes:
        network: the layers with the module's weights.
        loss: where the module has its outputs: "last" at the last step, "every_step" at each; what
            `fptt.build` takes. (A module with outputs at the last step may train by "auxiliary".)
        batch_first: whether the module takes [batch, steps, ...] (fptt always does) or
            [steps, batch, ...].
        train: what `fptt.build` takes as `train` to change nothing that the module does not train:
            ("*",), or without biases that the module does not have and without tensors whose
            requires_grad is False.
        tensors: parameter of the network -> the module's tensors that it is the sum of; none for a
            bias that the module does not have.

    Example:
        >>> import torch, fptt.torch
        >>> found = fptt.torch.read_module(torch.nn.LSTM(3, 5, batch_first=True))
        >>> found.loss, found.batch_first, found.tensors["0.bias"]
        ('every_step', True, ('bias_ih_l0', 'bias_hh_l0'))
    """

    network: Network
    loss: str
    batch_first: bool
    train: tuple[str, ...]
    tensors: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Place:
    """Where a layer's tensors are.

    Attributes:
        layer: the layer.
        prefix: before the names of its tensors, such as "encoder.lstm."; "" at the top.
        suffix: behind those of a recurrent layer, such as "_l0"; cells have none.
    """

    layer: Layer
    prefix: str = ""
    suffix: str = ""

    def tensors(self) -> dict[str, tuple[str, ...]]:
        """Parameter of the layer -> names of the tensors that it is the sum of."""

        def named(name: str) -> tuple[str, ...]:
            summed = name == "bias" and isinstance(self.layer, (LSTM, RNN))
            own = ("bias_ih", "bias_hh") if summed else (name,)
            return tuple(f"{self.prefix}{one}{self.suffix}" for one in own)

        return {name: named(name) for name in self.layer.parameters()}


def tensor_names(
    places: Sequence[Place], available: Mapping[str, object]
) -> dict[str, tuple[str, ...]]:
    """Parameter of the network -> its tensors among those that there are."""
    return {
        f"{index}.{name}": tuple(tensor for tensor in tensors if tensor in available)
        for index, place in enumerate(places)
        for name, tensors in place.tensors().items()
    }


def network_of(places: Sequence[Place], arrays: Mapping[str, Array]) -> Network:
    """The network with its weights, float32 or float64 as they come; missing biases are zero.

    Raises:
        InputError: a tensor with NaN or Inf, of another type or shape; widths that do not fit.
    """
    net = Network([place.layer for place in places])
    weights: dict[str, Array] = {}
    for name, tensors in tensor_names(places, arrays).items():
        shape = net.parameters[name].shape
        for tensor in tensors:
            _check(tensor, arrays[tensor], shape)
        kind = np.result_type(*(arrays[tensor] for tensor in tensors)) if tensors else np.float32
        total = sum((arrays[tensor].astype(np.float64) for tensor in tensors), np.zeros(shape))
        with np.errstate(over="ignore"):
            weights[name] = total.astype(kind)
    return Network(net.layers, weights)


def _check(name: str, array: Array, shape: tuple[int, ...]) -> None:
    if array.dtype not in (np.float32, np.float64):
        raise InputError(f"{name} has numbers of type {array.dtype}; give floating-point tensors")
    if array.shape != shape:
        raise InputError(f"{name} has shape {list(array.shape)}, and {list(shape)} was expected")
    if not np.isfinite(array).all():
        raise InputError(f"{name} contains NaN or Inf; give weights that are finite")
