"""A network: layers one upon another, each with its number, as in nn.Sequential."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from fptt.errors import InputError
from fptt.nets.adapters import adapter_parameters, checked_adapters, matched_adapters, parameters_of
from fptt.nets.alif import ALIF
from fptt.nets.dropout import Dropout
from fptt.nets.elementwise_lstm import ElementwiseLSTM
from fptt.nets.embedding import Embedding
from fptt.nets.gru import GRU
from fptt.nets.layer import Array, FeedForward, Layer, Parameter, Recurrent
from fptt.nets.leaky import LeakyIntegrator
from fptt.nets.lif import LIF
from fptt.nets.linear import Linear
from fptt.nets.lru import LRU
from fptt.nets.lstm import LSTM
from fptt.nets.ltc import LTC
from fptt.nets.relu import ReLU
from fptt.nets.rnn import RNN

LAYERS: Mapping[str, type[Layer]] = {
    layer.__name__: layer
    for layer in (
        *(LSTM, GRU, RNN, ElementwiseLSTM, LRU, LIF, ALIF, LTC, LeakyIntegrator),
        *(Linear, ReLU, Dropout, Embedding),
    )
}


class Network:
    """A stack of layers.

    Args:
        layers: from the input upwards. Widths must fit; Embedding comes first or not at all.
        weights: parameter name -> array, where the network should start from known weights
            (all of them; those of adapters may be missing); without, `initial` draws them.
        adapters: name of a matrix -> rank of the low-rank change that trains in its place, such as
            {"0.weight_hh": 4}; `fptt.build` takes patterns for these names.

    Attributes:
        layers: the layers, a tuple.
        tokens: size of the vocabulary where the input is whole numbers, otherwise None.
        inputs: features per step (1 for tokens).
        widths: width of every layer's output.
        outputs: width of the top layer.
        adapters: name of a matrix -> rank.

    Raises:
        InputError: no layers, something that is no layer, widths that do not fit, adapters of what
            is no matrix or as large as it, or weights of another network.

    Example:
        >>> net = Network([LSTM(1, 128), Linear(128, 10)])
        >>> net.size
        67850
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        weights: Mapping[str, Array] | None = None,
        adapters: Mapping[str, int] | None = None,
    ) -> None:
        if not isinstance(layers, (list, tuple)) or not layers:
            raise InputError(
                "Network: give a list of at least one layer, "
                "such as [LSTM(1, 128), Linear(128, 10)]"
            )
        self.layers = tuple(layers)
        self.adapters: Mapping[str, int] = {}
        for index, layer in enumerate(self.layers):
            if not isinstance(layer, (Recurrent, FeedForward)):
                raise InputError(
                    f"Network: layer {index} is {layer!r}, which is no layer; "
                    f"choose from {', '.join(LAYERS)}"
                )
        first = self.layers[0]
        self.tokens = first.tokens if isinstance(first, Embedding) else None
        sized = [layer for layer in self.layers if layer.parameters()]
        if not sized:
            raise InputError(f"Network: {self} has nothing to learn; add a layer with parameters")
        self.inputs = 1 if self.tokens else int(getattr(sized[0], "inputs", 0))
        widths: list[int] = []
        for index, layer in enumerate(self.layers):
            below = widths[-1] if widths else None if self.tokens else self.inputs
            try:
                widths.append(layer.width(below))
            except InputError as error:
                raise InputError(f"Network: layer {index}: {error}") from None
        self.widths = tuple(widths)
        self.outputs = widths[-1]
        self.adapters = checked_adapters(self.layers, {} if adapters is None else adapters)
        self.weights = None
        if weights is not None and not isinstance(weights, Mapping):
            raise InputError(
                f"Network: weights is a {type(weights).__name__}; give a dict of "
                "parameter name to array"
            )
        if weights is not None:
            self.weights = {name: np.array(array) for name, array in weights.items()}
            self.check_weights(self.weights, adapters_too=False)

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Every parameter by its full name, such as "0.weight_ih"; those of adapters last."""
        found = parameters_of(self.layers)
        for name, rank in self.adapters.items():
            found |= adapter_parameters(name, found[name].shape, rank)
        return found

    @property
    def size(self) -> int:
        """The number of all parameters' numbers."""
        return sum(int(np.prod(parameter.shape)) for parameter in self.parameters.values())

    def initial(self, seed: int) -> dict[str, Array]:
        """The weights that training starts from, float64: the given ones, or drawn from `seed`."""
        given = self.weights or {}
        # of adapters by themselves, so that with and without them the same weights are drawn
        rngs = [np.random.default_rng([seed, stream]) for stream in (0, 1)]
        own = parameters_of(self.layers)
        return {
            name: given[name].astype(np.float64)
            if name in given
            else parameter.initial(rngs[name not in own])
            for name, parameter in self.parameters.items()
        }

    def adapted(self, adapters: Mapping[str, int]) -> Network:
        """The same network, its weights included, with adapters; names may be patterns.

        Raises:
            InputError: a name that fits no matrix, or ranks that `Network` does not take.

        Example:
            >>> net = Network([LSTM(1, 128), Linear(128, 10)]).adapted({"*.weight_hh": 4})
            >>> list(net.parameters)[-2:]
            ['0.weight_hh.down', '0.weight_hh.up']
        """
        return Network(self.layers, self.weights, matched_adapters(self.layers, adapters))

    def merged(self, parameters: Mapping[str, Array]) -> dict[str, Array]:
        """The weights of the network without adapters that computes the same: W + up down."""
        merged = {name: parameters[name] for name in parameters_of(self.layers)}
        for name in self.adapters:
            up, down = (parameters[f"{name}.{factor}"] for factor in ("up", "down"))
            change = up.astype(np.float64) @ down.astype(np.float64)
            merged[name] = (merged[name].astype(np.float64) + change).astype(merged[name].dtype)
        return merged

    def check_weights(self, weights: Mapping[str, Array], *, adapters_too: bool = True) -> None:
        """Raises InputError unless names, shapes and values can be this network's weights."""
        expected, own = self.parameters, parameters_of(self.layers)
        if not adapters_too:
            expected = {n: p for n, p in expected.items() if n in own or n in weights}
        if missing := [name for name in expected if name not in weights]:
            raise InputError(f"the weights lack {', '.join(missing)}; this network is {self}")
        if extra := [name for name in weights if name not in expected]:
            raise InputError(
                f"the weights hold {', '.join(extra)}, which this network does not "
                f"have; this network is {self}"
            )
        for name, parameter in expected.items():
            array = np.asarray(weights[name])
            if array.shape != parameter.shape:
                raise InputError(
                    f"the weights of {name} have shape {list(array.shape)}, but this "
                    f"network ({self}) needs {list(parameter.shape)}"
                )
            if array.dtype.kind not in "iuf" and array.dtype.name != "bfloat16":
                raise InputError(f"the weights of {name} have type {array.dtype}; give numbers")
            if not np.isfinite(array.astype(np.float64)).all():
                raise InputError(f"the weights of {name} contain NaN or Inf")

    def to_config(self) -> list[dict[str, object]]:
        """The layers as plain data, for files."""
        described: list[dict[str, object]] = [
            {
                "layer": type(layer).__name__,
                **{f.name: getattr(layer, f.name) for f in fields(layer)},
            }
            for layer in self.layers
        ]
        for name, rank in self.adapters.items():
            index, _, own = name.partition(".")
            ranks = described[int(index)].setdefault("adapters", {})
            assert isinstance(ranks, dict)
            ranks[own] = rank
        return described

    @classmethod
    def from_config(cls, config: Sequence[Mapping[str, object]]) -> Network:
        """The network that `to_config` described."""
        layers: list[Layer] = []
        adapters: dict[str, int] = {}
        for index, item in enumerate(config):
            options = dict(item)
            kind = options.pop("layer", None)
            ranks = options.pop("adapters", {})
            if not isinstance(ranks, Mapping):
                raise InputError(f"the file describes adapters wrongly: {ranks!r}")
            adapters |= {f"{index}.{name}": rank for name, rank in ranks.items()}
            if kind not in LAYERS:
                raise InputError(
                    f"the file names a layer {kind!r} that this version does not "
                    f"know; it knows {', '.join(LAYERS)}"
                )
            try:
                layers.append(LAYERS[str(kind)](**options))
            except TypeError as error:
                raise InputError(f"the file describes a layer {kind} wrongly: {error}") from None
        return cls(layers, adapters=adapters)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Network)
            and self.layers == other.layers
            and self.adapters == other.adapters
        )

    def __hash__(self) -> int:
        return hash((self.layers, tuple(self.adapters.items())))

    def __str__(self) -> str:
        """For example "LSTM(1, 128) - Linear(128, 10)"."""
        ranks = [f"{name} by rank {rank}" for name, rank in self.adapters.items()]
        changed = f", changed {', '.join(ranks)}" if ranks else ""
        return self._stack() + changed

    def _stack(self) -> str:
        return " - ".join(
            f"{type(layer).__name__}({', '.join(_arguments(layer))})" for layer in self.layers
        )

    def __repr__(self) -> str:
        adapters = f", adapters={dict(self.adapters)!r}" if self.adapters else ""
        return f"Network([{', '.join(map(repr, self.layers))}]{adapters})"


def _arguments(layer: Any) -> list[str]:
    """What a layer was made with; options that stand at their defaults are left out."""
    values = [(f, getattr(layer, f.name)) for f in fields(layer)]
    return [
        f"{f.name}={value}" if f.kw_only else str(value)
        for f, value in values
        if not f.kw_only or value != f.default
    ]
