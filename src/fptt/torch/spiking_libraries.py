"""Modules that keep their recurrent state inside themselves: snnTorch, SpikingJelly, the user's.

Neither library is imported here. A model can hold a neuron of theirs only if it was imported by
then, so the classes are looked up among the modules that Python has loaded.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fptt.errors import InputError
from fptt.torch.states import detached, map_tensors

#: package -> the first version that is supported, the first that is not, and the one tests pin;
#: the tests pass with the first, too
SUPPORTED = {
    "snntorch": ("0.9.4", "2", "1.0.0"),
    "spikingjelly": ("0.0.0.0.14", "3", "2.0.0"),
}


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def require_version(package: str) -> None:
    """Raises InputError where the installed version of a package is not a supported one."""
    low, high, pinned = SUPPORTED[package]
    found = importlib.metadata.version(package)
    if not _numbers(low) <= _numbers(found) < _numbers(high):
        raise InputError(
            f"fptt.torch works with {package} from {low} to below {high}, and here is {found}; "
            f"install another one: pip install '{package}=={pinned}'"
        )


@dataclass(frozen=True)
class Holder:
    """A module that keeps its recurrent state inside itself.

    Attributes:
        name: the module's name in the model.
        read: its state, by name; tensors with their graph.
        write: puts back what `read` gave.
        reset: sets it to what it is before a sequence.
        detach: cuts it off from its graph.
    """

    name: str
    read: Callable[[], dict[str, Any]]
    write: Callable[[dict[str, Any]], None]
    reset: Callable[[], None]
    detach: Callable[[], None]


def _snntorch(name: str, module: Any) -> Holder:
    """snnTorch: the state is in buffers that are not saved; empty ones take the input's shape."""

    def read() -> dict[str, Any]:
        return {key: module._buffers[key] for key in sorted(module._non_persistent_buffers_set)}

    def write(values: dict[str, Any]) -> None:
        for key, value in values.items():
            setattr(module, key, value)

    def reset() -> None:
        if hasattr(module, "reset_mem"):
            module.reset_mem()
        write({k: v.new_zeros(0) for k, v in read().items() if isinstance(v, Tensor)})

    return Holder(name, read, write, reset, lambda: write(detached(read())))


def _spikingjelly(name: str, module: Any) -> Holder:
    """SpikingJelly: every stateful module lists its state in `_memories`."""

    def read() -> dict[str, Any]:
        return dict(module._memories)

    def write(values: dict[str, Any]) -> None:
        module._memories.update(values)

    return Holder(name, read, write, module.reset, lambda: write(detached(read())))


def _own(name: str, module: Any) -> Holder:
    """Anybody's module with the methods reset_state() and detach_state()."""
    return Holder(name, dict, lambda values: None, module.reset_state, module.detach_state)


def _class_of(module: str, name: str) -> type | None:
    return getattr(sys.modules.get(module), name, None)


def _is_neuron_of_snntorch(module: object) -> bool:
    return type(module).__module__.startswith("snntorch._neurons.") or isinstance(
        module, _class_of("snntorch._neurons.neurons", "SpikingNeuron") or ()
    )


def takes_whole_sequence(module: object) -> bool:
    """Whether a module is a neuron of snnTorch's that computes all steps at once."""
    return _is_neuron_of_snntorch(module) and not getattr(module, "_non_persistent_buffers_set", ())


def is_snntorch(module: object) -> bool:
    """Whether a module is a neuron of snnTorch's that goes step by step."""
    return _is_neuron_of_snntorch(module) and not takes_whole_sequence(module)


def is_spikingjelly(module: object) -> bool:
    """Whether a module is one of SpikingJelly's that hold a state."""
    kind = _class_of("spikingjelly.activation_based.base", "MemoryModule")
    return kind is not None and isinstance(module, kind)


def holders(model: object) -> list[Holder]:
    """The modules of a model that keep their state inside themselves.

    Raises:
        InputError: a version of snnTorch or SpikingJelly that is not supported.
    """
    found: list[Holder] = []
    if not isinstance(model, torch.nn.Module):
        return found
    for name, module in model.named_modules():
        if _is_neuron_of_snntorch(module):
            require_version("snntorch")
            if not takes_whole_sequence(module):
                found.append(_snntorch(name, module))
        elif is_spikingjelly(module):
            require_version("spikingjelly")
            found.append(_spikingjelly(name, module))
        elif hasattr(module, "reset_state") and hasattr(module, "detach_state"):
            found.append(_own(name, module))
    return found


def require_causal(model: object) -> None:
    """Raises InputError where a module cannot run over one part after the other."""
    for name, module in model.named_modules() if isinstance(model, torch.nn.Module) else ():
        which = f"{name or 'the model'} is a {type(module).__name__}"
        if takes_whole_sequence(module):
            raise InputError(
                f"parts: {which} of snnTorch's, which takes a whole sequence and hands no state "
                "on; use a neuron that goes step by step, such as snntorch.Leaky, or parts=1"
            )
        if isinstance(module, torch.nn.RNNBase) and module.bidirectional:
            raise InputError(
                f"parts: {which} with bidirectional=True, which needs the end of a sequence for "
                "its beginning; use one that goes forward only, or parts=1"
            )


def held_state(held: list[Holder]) -> dict[str, dict[str, Any]]:
    """Copies of what the holders keep, by the holders' names."""
    return {
        holder.name: map_tensors(lambda tensor: tensor.detach().clone(), holder.read())
        for holder in held
    }
