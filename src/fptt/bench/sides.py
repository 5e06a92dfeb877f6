"""The same training in fptt, PyTorch and JAX, each ready to train on a batch."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fptt.bench.cases import Case
from fptt.errors import FpttError, InputError
from fptt.trainer import Trainer

Array = NDArray[Any]

#: whom fptt can be measured against, and how each is installed
PEERS = {"torch": ("PyTorch", "pip install torch"), "jax": ("JAX", "pip install jax")}

#: relative distance of parameters after one batch, beyond which two sides do not train alike
_ALIKE = 1e-3


class Side(Protocol):
    """One way to train."""

    def parameters(self) -> dict[str, Array]:
        """Copies of all parameters, by fptt's names."""

    def train_batch(self, x: NDArray[np.float32], y: Array) -> object:
        """Trains on a batch."""


class Peer(Side, Protocol):
    """One that is not fptt."""

    def load(self, parameters: Mapping[str, Array]) -> None:
        """Sets all parameters and starts learning anew."""


def require(against: Sequence[str], optimizer: str) -> None:
    """Sees to it that peers are known, installed, and train with this optimizer.

    Raises:
        InputError: they do not.
    """
    for name in against:
        if name not in PEERS:
            raise InputError(f"--against is {name!r}; choose {', '.join(PEERS)} or none")
        title, how = PEERS[name]
        if importlib.util.find_spec(name) is None:
            raise InputError(
                f"--against {name} needs {title}, which is not installed: {how}; "
                "or measure fptt alone with --against none"
            )
        if optimizer != "sgd":
            raise InputError(
                f"{title} trains with sgd here; measure {optimizer} with --against none"
            )


def sides(case: Case, against: Sequence[str]) -> dict[str, Side]:
    """fptt ("fptt") and its peers with the same parameters.

    "torch" is PyTorch's nn.LSTM, nn.GRU or nn.RNN on whole parts, "torch_steps" PyTorch step by
    step, "jax" JAX; what a peer cannot train is left out.
    """
    trainer = Trainer(case.program(), threads=case.threads)
    found: dict[str, Side] = {"fptt": trainer}
    sizes = (
        *(case.cell, case.inputs, case.hidden, case.layers, case.outputs),
        *(case.steps, case.batch, case.parts, case.rule),
    )
    peers: dict[str, Peer] = {}
    if "torch" in against:
        import torch

        from fptt.bench.torch_peer import TorchPeer

        torch.set_num_threads(case.threads)
        setting: Any = {"lr": case.lr, "momentum": case.momentum}
        peers["torch"] = TorchPeer(*sizes, form="sequence", **setting)
        peers["torch_steps"] = TorchPeer(*sizes, form="steps", **setting)
    if "jax" in against and trains_in_jax(case):
        from fptt.bench.jax_peer import JaxPeer, environment

        if "jax" not in sys.modules:
            os.environ.update(environment(case.threads))
        peers["jax"] = JaxPeer(*sizes, lr=case.lr, momentum=case.momentum)
    start = trainer.parameters()
    for name, peer in peers.items():
        peer.load(start)
        found[name] = peer
    return found


def trains_in_jax(case: Case) -> bool:
    """Whether the JAX peer can do it."""
    return case.cell in ("lstm", "gru") and case.layers == 1 and case.steps % case.parts == 0


def train_alike(case: Case, found: Mapping[str, Side]) -> float:
    """Trains every side on one batch; the largest relative distance of parameters afterwards.

    Raises:
        FpttError: sides that do not compute the same training, so that no time can be compared.
    """
    x, y = case.data()
    for side in found.values():
        side.train_batch(x, y)
    mine, distance = found["fptt"].parameters(), 0.0
    for name, side in found.items():
        theirs = side.parameters()
        away = max(
            float(np.linalg.norm(theirs[key] - value) / np.linalg.norm(value))
            for key, value in mine.items()
        )
        if not away <= _ALIKE:
            raise FpttError(
                f"{case.name}: after one batch the parameters of {name} are {away:.1e} away from "
                "those of fptt; they do not train alike, so their times are not compared"
            )
        distance = max(distance, away)
    return distance
