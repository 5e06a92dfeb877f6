"""Two doors for those who live in PyTorch: import and export of modules, and training by FPTT.

>>> import fptt.torch, torch
>>> net = fptt.torch.from_module(torch.nn.LSTM(3, 5))
>>> print(net)
LSTM(3, 5)

PyTorch is an extra, `pip install 'fptt[torch]'`. Names are loaded when they are asked for, so that
what reads files (`from_state_dict` of a .safetensors file) works without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fptt.torch.cutting import Parts as Parts
    from fptt.torch.cutting import parts as parts
    from fptt.torch.cutting import predict as predict
    from fptt.torch.imported import Imported as Imported
    from fptt.torch.losses import AuxiliaryLoss as AuxiliaryLoss
    from fptt.torch.optimizer import FPTT as FPTT
    from fptt.torch.passage import PartsState as PartsState
    from fptt.torch.reading import from_module as from_module
    from fptt.torch.reading import read_module as read_module
    from fptt.torch.spiking import ALIF as ALIF
    from fptt.torch.spiking import LIF as LIF
    from fptt.torch.spiking import LTC as LTC
    from fptt.torch.spiking import LeakyIntegrator as LeakyIntegrator
    from fptt.torch.statedict import from_state_dict as from_state_dict
    from fptt.torch.stateful import Stateful as Stateful
    from fptt.torch.writing import Stack as Stack
    from fptt.torch.writing import to_module as to_module

#: public name -> the module of this package that defines it
_NAMES = {
    "ALIF": "spiking",
    "AuxiliaryLoss": "losses",
    "FPTT": "optimizer",
    "Imported": "imported",
    "LIF": "spiking",
    "LTC": "spiking",
    "LeakyIntegrator": "spiking",
    "Parts": "cutting",
    "PartsState": "passage",
    "Stack": "writing",
    "Stateful": "stateful",
    "from_module": "reading",
    "from_state_dict": "statedict",
    "parts": "cutting",
    "predict": "cutting",
    "read_module": "reading",
    "to_module": "writing",
}
#: modules that work where PyTorch is not installed
_WITHOUT_TORCH = {"imported", "statedict"}

__all__ = [*_NAMES]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'fptt.torch' has no attribute {name!r}")
    if _NAMES[name] not in _WITHOUT_TORCH:
        from fptt.torch.versions import require_torch

        require_torch()
    found = globals()[name] = getattr(import_module(f"fptt.torch.{_NAMES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return [*globals(), *_NAMES]
