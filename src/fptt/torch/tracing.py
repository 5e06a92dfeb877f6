"""From a module's `forward` to a graph of what it does to its input, by torch.fx.

Why torch.fx and not torch.export: export lowers everything to ATen operations, where an nn.LSTM is
one call with a list of weights, or a loop, and layers lose their names; fx keeps supported modules
whole and by name, so that what cannot be read can be named. What fx lacks, sizes, comes from
running each operation on an example beside recording it: `x.size(0)` is a number, and a loop over
`range(x.size(1))` around a cell is recorded step by step.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from fptt.errors import InputError
from fptt.torch.modules import check_known, is_leaf, places

#: what a value says of itself at once, without an operation in the graph
_ATTRIBUTES = {"shape", "ndim", "dtype", "device", "is_cuda", "layout"}
_TORCH = str(Path(torch.__file__).parent)
_DROPOUTS = (nn.functional.dropout, torch.dropout)


class Failed(Exception):
    """An operation cannot be carried out on the example."""

    def __init__(self, tracer: Tracer, node: fx.Node, error: Exception) -> None:
        super().__init__(str(error))
        self.tracer, self.node, self.error = tracer, node, error


class Value(fx.Proxy):
    """What fx hands through `forward`: a node, and what it is on the example."""

    @property
    def _value(self) -> Any:
        return self.tracer.values[self.node]  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        if name in _ATTRIBUTES:
            return getattr(self._value, name)
        return super().__getattr__(name)

    def size(self, *axis: int) -> Any:
        """The sizes of the example."""
        return self._value.size(*axis)

    def dim(self) -> int:
        """The number of its axes."""
        return int(self._value.dim())

    def __len__(self) -> int:
        return len(self._value)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self._value)))  # type: ignore[index]


class Tracer(fx.Tracer):
    """Records one `forward`.

    Args:
        example: an input of the module.

    Attributes:
        values: node -> its value on the example.
        constants: name in the graph -> tensor that `forward` made by itself.
        where: node -> line of the user's code.
    """

    def __init__(self, example: Tensor) -> None:
        super().__init__()
        self.example = example
        self.values: dict[fx.Node, Any] = {}
        self.constants: dict[str, Tensor] = {}
        self.where: dict[fx.Node, str] = {}

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        """Only the first parameter is the input; the others keep their defaults."""
        return root_fn, [self.root, self.create_proxy("placeholder", "x", (), {})]

    def proxy(self, node: fx.Node) -> Value:
        """The object that stands for a node in `forward`."""
        return Value(node, self)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Tensors of modules stay tensors: layers are run with them."""
        return attr_val

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one operation of the graph."""
        return is_leaf(m)

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Records a layer, or goes into a module of the user's."""
        path = self.path_of_module(m)
        check_known(m, path)
        if not is_leaf(m):
            return forward(*args, **kwargs)
        places(m, path)  # its options, before it runs
        proxy = super().create_proxy("call_module", path, args, kwargs)
        return self._run(proxy, forward)

    def create_proxy(self, kind: str, target: Any, *rest: Any, **options: Any) -> Any:
        """Records an operation and carries it out on the example."""
        proxy = super().create_proxy(kind, target, *rest, **options)
        if kind == "placeholder":
            self.values[proxy.node] = self.example
            return proxy
        if kind == "call_method":
            return self._run(proxy, lambda this, *a, **k: getattr(this, target)(*a, **k))
        if target in _DROPOUTS:  # takes no random numbers here
            return self._run(proxy, lambda input, *_, **__: input)
        return self._run(proxy, target)

    def create_arg(self, a: Any) -> Any:
        """Tensors that are no part of the graph become constants of it, not of the module."""
        if isinstance(a, Tensor):
            name = f"constant_{len(self.constants)}"
            node = self.graph.create_node("get_attr", name)
            self.constants[name] = self.values[node] = a
            return node
        return super().create_arg(a)

    def _run(self, proxy: fx.Proxy, function: Callable[..., Any]) -> Any:
        node = proxy.node
        self.where[node] = _place()
        args = fx.map_arg(node.args, self.values.__getitem__)
        kwargs = fx.map_arg(node.kwargs, self.values.__getitem__)
        try:
            with torch.no_grad():
                self.values[node] = function(*args, **kwargs)
        except Exception as error:
            raise Failed(self, node, error) from None
        return self._apart(proxy)

    def _apart(self, proxy: Any) -> Any:
        """A pair as a pair, so that `forward` can ask whether it is one."""
        value = self.values[proxy.node]
        if type(value) not in (tuple, list):
            return proxy
        return type(value)(proxy[index] for index in range(len(value)))


def _place() -> str:
    """The line of `forward` that is being run."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        file = frame.f_code.co_filename
        if file != __file__ and not file.startswith(_TORCH):
            return f"line {frame.f_lineno} of {Path(file).name}"
        frame = frame.f_back
    return "an unknown line"


def trace(module: nn.Module, example: Tensor, *, training: bool) -> tuple[fx.Graph, Tracer]:
    """The graph of a module's `forward`, up to where it fails on the example.

    Args:
        module: to read; its training flags and its weights are as before afterwards.
        example: its input.
        training: whether modules of the user's believe to be in training.

    Raises:
        Failed: an operation does not run.
        InputError: `forward` cannot be followed.
    """
    tracer = Tracer(example)
    flags = {one: one.training for one in module.modules()}
    try:
        for one in flags:
            one.training = training and not is_leaf(one)
        return tracer.trace(module), tracer
    except (Failed, InputError):
        raise
    except Exception as error:  # whatever a user's code raises when it meets fx
        raise InputError(
            f"{type(module).__name__}.forward cannot be followed ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no reason given'}); make it a plain "
            "stack of layers without decisions that depend on data, or give "
            "fptt.torch.from_state_dict(module.state_dict())"
        ) from None
    finally:
        for one, flag in flags.items():
            one.training = flag
