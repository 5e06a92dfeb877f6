"""Which layers of PyTorch become which of fptt's, and which cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from fptt.errors import InputError
from fptt.nets import GRU, LSTM, RNN, Dropout, Embedding, Linear, ReLU
from fptt.nets.layer import Layer
from fptt.torch.imported import Place

_RECURRENT: dict[type[nn.Module], Callable[[int, int], Layer]] = {
    nn.LSTM: LSTM,
    nn.GRU: GRU,
    nn.RNN: RNN,
}
_CELLS: dict[type[nn.Module], Callable[[int, int], Layer]] = {
    nn.LSTMCell: LSTM,
    nn.GRUCell: GRU,
    nn.RNNCell: RNN,
}
_OTHERS = (nn.Linear, nn.ReLU, nn.Dropout, nn.Embedding, nn.Identity, nn.Flatten)
LEAVES = (*_RECURRENT, *_CELLS, *_OTHERS)
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
#: what to do about modules that are met often
_ADVICE = {
    "LogSoftmax": "return the logits: the cross-entropy includes the softmax",
    "Softmax": "return the logits: the cross-entropy includes the softmax",
    "Sigmoid": "return the logits, and train with cross-entropy on two classes",
    "DataParallel": "give the module inside, model.module",
    "DistributedDataParallel": "give the module inside, model.module",
    "Transformer": "use a recurrent layer: attention looks at all steps at once",
    "MultiheadAttention": "use a recurrent layer: attention looks at all steps at once",
}
SUPPORTED = (
    "fptt has LSTM, GRU, RNN (tanh) and their cells, Linear, ReLU, Dropout, Embedding and Identity"
)


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is a layer, or claims to be one."""
    return isinstance(module, (nn.RNNBase, nn.RNNCellBase, *_OTHERS))


def is_recurrent(module: nn.Module) -> bool:
    """Whether it takes whole sequences."""
    return type(module) in _RECURRENT


def is_cell(module: nn.Module) -> bool:
    """Whether it takes single steps and the state."""
    return type(module) in _CELLS


def refusal(name: str, module: nn.Module, what: str, advice: str) -> InputError:
    """The error about a module, by name."""
    kind = f"nn.{type(module).__name__}" if _is_torchs(module) else type(module).__name__
    return InputError(f"{name or 'the module'} ({kind}) {what}; {advice}")


def _is_torchs(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.")


def check_known(module: nn.Module, name: str) -> None:
    """Raises InputError for a layer that fptt does not have."""
    if hasattr(module, "parametrizations"):
        raise refusal(
            name,
            module,
            "computes its weights from other tensors",
            "make it plain with torch.nn.utils.parametrize.remove_parametrizations",
        )
    if module._forward_hooks or module._forward_pre_hooks:
        raise refusal(name, module, "has forward hooks", "remove them, or import a copy without")
    if type(module) in LEAVES:
        return
    if is_leaf(module):
        raise refusal(
            name,
            module,
            "is a class of its own made from a layer of PyTorch's, and may compute something else",
            "use the layer itself",
        )
    if _is_torchs(module) and not isinstance(module, _CONTAINERS):
        advice = _ADVICE.get(type(module).__name__, "take it out of the module")
        raise refusal(name, module, f"is not a layer that fptt has ({SUPPORTED})", advice)


def places(module: nn.Module, name: str) -> list[Place]:
    """The layers of fptt that a supported module becomes, from the input upwards.

    Raises:
        InputError: an option that fptt does not have.
    """
    prefix = f"{name}." if name else ""
    if is_recurrent(module) or is_cell(module):
        return _recurrent(module, name, prefix)
    if isinstance(module, nn.Linear):
        return [Place(Linear(module.in_features, module.out_features), prefix)]
    if isinstance(module, nn.Embedding):
        if module.max_norm is not None:
            raise refusal(
                name, module, f"has max_norm={module.max_norm:g}", "import it with max_norm=None"
            )
        return [Place(Embedding(module.num_embeddings, module.embedding_dim), prefix)]
    if isinstance(module, nn.ReLU):
        return [Place(ReLU())]
    if isinstance(module, nn.Dropout):
        return dropout(module.p, f"{name} (nn.Dropout)")
    return []


def dropout(p: float, what: str) -> list[Place]:
    """A layer of dropout, or none where nothing is dropped."""
    if p == 0:
        return []
    try:
        return [Place(Dropout(float(p)))]
    except InputError:
        raise InputError(
            f"{what} has p={p:g}, which leaves nothing; give a probability below 1"
        ) from None


def _recurrent(module: Any, name: str, prefix: str) -> list[Place]:
    make = {**_RECURRENT, **_CELLS}[type(module)]
    if getattr(module, "bidirectional", False):
        raise refusal(
            name,
            module,
            "has bidirectional=True, and so needs the end of a sequence before its first output",
            "use bidirectional=False",
        )
    if getattr(module, "proj_size", 0):
        raise refusal(
            name,
            module,
            f"has proj_size={module.proj_size}, a projection of h that fptt does not have",
            "use proj_size=0 and a Linear behind the layer",
        )
    if getattr(module, "nonlinearity", "tanh") != "tanh":
        raise refusal(
            name,
            module,
            f"has nonlinearity={module.nonlinearity!r}",
            "use tanh, which is the one that fptt has",
        )
    if is_cell(module):
        return [Place(make(module.input_size, module.hidden_size), prefix)]
    found: list[Place] = []
    for index in range(module.num_layers):
        if index:
            found += dropout(module.dropout, f"{name} (nn.{type(module).__name__})")
        inputs = module.hidden_size if index else module.input_size
        found.append(Place(make(inputs, module.hidden_size), prefix, f"_l{index}"))
    return found
