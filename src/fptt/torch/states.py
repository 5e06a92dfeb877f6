"""Recurrent states of any structure: detaching, and the check that nothing of the past is left."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from fptt.errors import InputError


def map_tensors(function: Callable[[Tensor], Tensor], state: Any) -> Any:
    """The state with every tensor replaced; its structure and its types stay.

    Tensors may lie in tuples, lists, dicts, named tuples and dataclasses, nested as one likes;
    None, numbers and strings are kept. Another class may have a method `detach`.

    Raises:
        InputError: something whose tensors cannot be found.
    """

    def visit(value: Any) -> Any:
        if isinstance(value, Tensor):
            return function(value)
        if value is None or isinstance(value, (bool, int, float, complex, str)):
            return value
        if isinstance(value, tuple):
            items = [visit(item) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        if isinstance(value, list):
            changed = copy.copy(value)
            changed[:] = [visit(item) for item in value]
            return changed
        if isinstance(value, dict):
            changed_dict = copy.copy(value)
            for key, item in value.items():
                changed_dict[key] = visit(item)
            return changed_dict
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            made = copy.copy(value)
            for field in dataclasses.fields(value):
                object.__setattr__(made, field.name, visit(getattr(value, field.name)))
            return made
        if callable(getattr(value, "detach", None)):
            return value.detach()
        raise InputError(
            f"parts: the state holds a {type(value).__name__}, which cannot be detached; keep "
            "tensors in tuples, lists, dicts, named tuples or dataclasses, or give the class a "
            "method detach() that returns a detached copy"
        )

    return visit(state)


def detached(state: Any) -> Any:
    """The state with all tensors cut off from the graph that made them."""
    return map_tensors(Tensor.detach, state)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors of a nested structure; what is no structure is passed over."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name))


@dataclasses.dataclass(frozen=True)
class Moment:
    """A moment in the life of autograd: nodes made before it in this thread number below it."""

    number: int
    thread: int

    @classmethod
    def now(cls) -> Moment:
        with torch.enable_grad():
            node = torch.zeros((), requires_grad=True).neg().grad_fn
        assert node is not None
        return cls(node._sequence_nr(), threading.get_ident())

    def graph_before(self, loss: Tensor) -> str | None:
        """Name of a node of the loss's graph that is older than this moment, or None."""
        if loss.grad_fn is None or threading.get_ident() != self.thread:
            return None
        seen, stack = {loss.grad_fn}, [loss.grad_fn]
        while stack:
            node = stack.pop()
            if node._sequence_nr() < self.number:  # nodes of parameters have the largest number
                return node.name()
            for after, _ in node.next_functions:
                if after is not None and after not in seen:
                    seen.add(after)
                    stack.append(after)
        return None


def attributes_with_graph(model: object) -> list[str]:
    """Names of the model's attributes that hold a tensor with a graph."""
    found = []
    named = model.named_modules() if isinstance(model, torch.nn.Module) else [("", model)]
    for path, module in named:
        attributes = {**getattr(module, "__dict__", {}), **getattr(module, "_buffers", {})}
        for name, value in attributes.items():
            if name in ("_parameters", "_modules", "_buffers"):
                continue
            if any(tensor.grad_fn is not None for tensor in tensors_in(value)):
                found.append(f"{path}.{name}" if path else name)
    return found
