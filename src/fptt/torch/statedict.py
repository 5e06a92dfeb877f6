"""Networks from tensors by name: state_dicts and files. Needs no PyTorch for .safetensors files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fptt.errors import InputError
from fptt.nets import GRU, LSTM, RNN, Dropout, Embedding, Linear, Network, ReLU
from fptt.nets.layer import Layer
from fptt.torch.imported import Place, network_of
from fptt.torch.tensorfiles import plain_tensors, read_tensors

Array = NDArray[Any]
_RECURRENT = re.compile(r"(weight|bias)_(ih|hh|hr)(?:_l(\d+))?(_reverse)?")
#: rows of weight_hh over its columns -> the layer
_KINDS: dict[int, Callable[[int, int], Layer]] = {4: LSTM, 3: GRU, 1: RNN}
#: groups of tensors whose order is searched for
_MOST = 7


@dataclass(frozen=True)
class Group:
    """The tensors of one module.

    Attributes:
        name: of the module, "" at the top.
        tensors: by their names in the module.
    """

    name: str
    tensors: Mapping[str, Array]

    @property
    def shown(self) -> str:
        """The name in messages and in `layers`."""
        return self.name or "."


def from_state_dict(
    source: Mapping[str, Any] | str | Path, layers: Sequence[str] | None = None
) -> Network:
    """The network, with its weights, that a state_dict belongs to.

    The layers are told by the shapes: weight_hh has 4H rows in an LSTM, 3H in a GRU, H in an RNN
    (taken for one with tanh). Their order is that of the state_dict where the widths fit, or the
    only one in which they do (files of safetensors keep no order). What has no tensors, ReLU and
    Dropout, is not in a state_dict and must be named in `layers`.

    Args:
        source: `module.state_dict()`, arrays by the same names, or a file: .safetensors (for which
            PyTorch need not be installed), or .pt, .pth or .bin written by
            `torch.save(module.state_dict(), path)`. A dict or a file with one state_dict in it, as
            checkpoints have, is taken, too.
        layers: the layers from the input upwards, where they cannot be told: names of modules as in
            the state_dict ("lstm" for lstm.weight_ih_l0; "." where there is none), "relu",
            "dropout:0.5"; "emb:embedding" and "fc:linear" where a weight could be either. Modules
            that are not named are left out.

    Returns:
        The network. Its input is [batch, steps, features] or tokens; where its outputs are wanted,
        at the last step or at all, a state_dict does not know.

    Raises:
        InputError: tensors of layers that fptt does not have, or layers that cannot be told; the
            message says what to give.

    Example:
        >>> import numpy as np
        >>> tensors = {"lstm.weight_ih_l0": np.ones((20, 3)), "lstm.weight_hh_l0": np.ones((20, 5)),
        ...            "fc.weight": np.ones((2, 5)), "fc.bias": np.ones(2)}
        >>> print(from_state_dict(tensors))
        LSTM(3, 5) - Linear(5, 2)
        >>> print(from_state_dict(tensors, layers=["lstm", "relu", "dropout:0.5", "fc"]))
        LSTM(3, 5) - ReLU() - Dropout(0.5) - Linear(5, 2)
    """
    if isinstance(source, (str, Path)):
        tensors, ordered = read_tensors(source)
    else:
        tensors, ordered = plain_tensors(source, "the state_dict"), True
    groups = _groups(tensors)
    told = layers is None
    places = _told(list(groups.values()), ordered) if told else _named(groups, layers or ())
    if not any(place.layer.recurrent for place in places):
        raise InputError(
            "there is no recurrent layer among these tensors; fptt trains recurrent networks"
        )
    return network_of(places, tensors)


def _groups(tensors: Mapping[str, Array]) -> dict[str, Group]:
    found: dict[str, dict[str, Array]] = {}
    for full, array in tensors.items():
        prefix, _, name = full.rpartition(".")
        found.setdefault(prefix, {})[name] = array
    if not found:
        raise InputError("the state_dict is empty; give module.state_dict()")
    return {name: Group(name, arrays) for name, arrays in found.items()}


# -- one module ----------------------------------------------------------------------------------


def _places(group: Group, kind: str | None = None) -> list[list[Place]]:
    """What a group of tensors can be: for each possibility its layers.

    Raises:
        InputError: it can be nothing that fptt has.
    """
    if all(_RECURRENT.fullmatch(name) for name in group.tensors):
        if kind is not None:
            raise InputError(f"{group.shown} is a recurrent layer and no {kind}")
        return [_recurrent(group)]
    weight = group.tensors.get("weight")
    if weight is None or weight.ndim != 2 or not set(group.tensors) <= {"weight", "bias"}:
        shown = ", ".join(f"{name} {list(array.shape)}" for name, array in group.tensors.items())
        raise InputError(
            f"{group.shown} has {shown}, and no layer of fptt has such tensors; name the layers "
            "to take: layers=[...]"
        )
    prefix = f"{group.name}." if group.name else ""
    rows, columns = weight.shape
    linear = [Place(Linear(columns, rows), prefix)]
    embedding = [Place(Embedding(rows, columns), prefix)]
    if kind == "linear" or (kind is None and "bias" in group.tensors):
        return [linear]
    if kind is None:
        return [linear, embedding]
    if "bias" in group.tensors:
        raise InputError(f"{group.shown} has a bias and is no embedding")
    return [embedding]


def _recurrent(group: Group) -> list[Place]:
    prefix = f"{group.name}." if group.name else ""
    levels: dict[str, dict[str, Array]] = {}
    for name, array in group.tensors.items():
        match = _RECURRENT.fullmatch(name)
        assert match is not None
        if match[4]:
            raise InputError(
                f"{prefix}{name} belongs to a bidirectional layer, which needs the end of a "
                "sequence before its first output; train one with bidirectional=False"
            )
        if match[2] == "hr":
            raise InputError(
                f"{prefix}{name} is a projection of h (proj_size), which fptt does not have; train "
                "one with proj_size=0"
            )
        suffix = "" if match[3] is None else f"_l{match[3]}"
        levels.setdefault(suffix, {})[f"{match[1]}_{match[2]}"] = array
    found = []
    wanted = [""] if "" in levels else [f"_l{index}" for index in range(len(levels))]
    for suffix in wanted:
        level = levels.get(suffix, {})
        if missing := {"weight_ih", "weight_hh"} - set(level):
            raise InputError(
                f"{prefix}{min(missing)}{suffix} is missing; give the whole state_dict"
            )
        ih, hh = level["weight_ih"], level["weight_hh"]
        rows, hidden = hh.shape if hh.ndim == 2 else (0, 1)
        kind = _KINDS.get(rows // hidden) if rows % hidden == 0 else None
        if kind is None or ih.ndim != 2:
            raise InputError(
                f"{prefix}weight_hh{suffix} has shape {list(hh.shape)}; [4H, H] (LSTM), [3H, H] "
                "(GRU) or [H, H] (RNN) was expected"
            )
        found.append(Place(kind(ih.shape[1], hidden), prefix, suffix))
    return found


# -- which layers, in which order ----------------------------------------------------------------


def _named(groups: Mapping[str, Group], layers: Sequence[str]) -> list[Place]:
    places: list[Place] = []
    for item in layers:
        name, _, rest = str(item).partition(":")
        name = "" if name == "." else name
        if name in groups:
            if rest not in ("", "linear", "embedding"):
                raise InputError(f"layers: {item!r}; give linear or embedding behind the colon")
            found = _places(groups[name], rest or None)
            if len(found) > 1:
                found = found[1:] if not places else found[:1]  # tables come first and only there
            places += found[0]
        elif item == "relu":
            places.append(Place(ReLU()))
        elif name == "dropout":
            try:
                places.append(Place(Dropout(float(rest))))
            except ValueError:
                raise InputError(
                    f"layers: {item!r}; give a probability such as dropout:0.5"
                ) from None
        else:
            raise InputError(
                f"layers: there is no {item!r}; the tensors belong to "
                f"{', '.join(group.shown for group in groups.values())}, and relu and dropout:0.5 "
                "can stand between them"
            )
    return places


def _told(groups: list[Group], ordered: bool) -> list[Place]:
    """The layers from widths alone."""
    choices = [_places(group) for group in groups]
    shown = ", ".join(f'"{group.shown}"' for group in groups)
    hint = f"say it with layers=[{shown}] in their order, with relu and dropout:0.5 between them"
    found = _fitting(choices)
    if not found and len(groups) > _MOST:
        raise InputError(f"there are {len(groups)} modules, too many to find their order; {hint}")
    if not found or not ordered:
        found = [one for order in permutations(choices) for one in _fitting(order)]
    if not found:
        raise InputError(f"the widths of these modules fit in no order; {hint}")
    if len(found) > 1:
        raise InputError(f"the tensors could be {' or '.join(map(_shown, found[:2]))}; {hint}")
    (places,) = found
    for low, high in pairwise(places):
        if isinstance(low.layer, Linear) and isinstance(high.layer, Linear):
            raise InputError(
                f"between {low.prefix}weight and {high.prefix}weight there may be a ReLU, which "
                f"has no tensors; {hint}"
            )
    return places


def _shown(places: Sequence[Place]) -> str:
    return " - ".join(
        f"{place.prefix.rstrip('.')} {Network([place.layer])}".strip() for place in places
    )


def _fitting(choices: Sequence[list[list[Place]]]) -> list[list[Place]]:
    """The stacks that these choices make, in this order, with widths that fit."""
    stacks: list[list[Place]] = [[]]
    for options in choices:
        stacks = [stack + option for stack in stacks for option in options if _fit(stack, option)]
    return stacks


def _fit(below: Sequence[Place], above: Sequence[Place]) -> bool:
    """Whether layers can stand upon others; a table only stands at the bottom."""
    width = _width(below[-1].layer) if below else None
    for place in above:
        inputs = getattr(place.layer, "inputs", None)  # none: a table of vectors
        if width is not None and inputs != width:
            return False
        width = _width(place.layer)
    return True


def _width(layer: Layer) -> int:
    return int(getattr(layer, "hidden", 0) or getattr(layer, "outputs", 0))
