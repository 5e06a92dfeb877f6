"""Finds recurrent layers that begin anew in every part, because nothing hands them their state."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from fptt.errors import InputError
from fptt.torch.states import tensors_in

#: models whose recurrent layers were seen to go on from a state, so that nobody looks again
_SEEN: weakref.WeakSet[nn.Module] = weakref.WeakSet()


@contextmanager
def refuse_forgetting(model: object) -> Iterator[None]:
    """Looks, while a model without a state runs a later part, at where its layers begin.

    Raises:
        InputError: all of its recurrent layers began without a state, or with one of zeros.
    """
    layers = recurrent_layers(model)
    if not isinstance(model, nn.Module) or model in _SEEN or not layers:
        yield
        return
    anew: dict[str, bool] = {}

    def look(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        state = args[1] if len(args) > 1 else kwargs.get("hx")
        anew.setdefault(name, not any(bool(part.any()) for part in tensors_in(state)))

    hooks = [
        layer.register_forward_pre_hook(
            lambda _, args, kwargs, name=name: look(name, args, kwargs), with_kwargs=True
        )
        for name, layer in layers.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    if anew and all(anew.values()):
        name = next(iter(anew))
        raise InputError(
            f"parts: {name or 'the model'} (nn.{type(layers[name]).__name__}) begins without a "
            "state again in the second part, since the model takes x_part alone: every part would "
            "be a sequence of its own. Write forward(self, x, state=None), give state to the layer "
            "and return (outputs, state). Where parts shall begin anew, give "
            "`lambda x, state: (model(x), None)`"
        )
    _SEEN.add(model)


def recurrent_layers(model: object) -> dict[str, nn.Module]:
    """Recurrent layers and cells of PyTorch in a module, by name; none of one that is compiled."""
    if not isinstance(model, nn.Module) or hasattr(model, "_orig_mod"):
        return {}
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase))
    }
