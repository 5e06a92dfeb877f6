"""Trained networks in safetensors files, with their description in the metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fptt.checks import plain
from fptt.errors import InputError
from fptt.nets.network import Network
from fptt.storage.files import read_bytes, write_atomically


@dataclass(frozen=True)
class Model:
    """What a model file holds.

    Attributes:
        net: the network, its weights included.
        loss, criterion: how it was trained, so how it is evaluated.
        notes: plain data, such as the task and the normalisation of its input.
    """

    net: Network
    loss: str
    criterion: str
    notes: Mapping[str, Any]


def model_bytes(
    net: Network,
    parameters: Mapping[str, NDArray[Any]],
    loss: str,
    criterion: str,
    notes: Mapping[str, Any] | None = None,
) -> bytes:
    """The contents of a model file."""
    from safetensors.numpy import save

    description = {
        "network": net.to_config(),
        "loss": loss,
        "criterion": criterion,
        "notes": dict(notes or {}),
    }
    return save(
        {name: np.ascontiguousarray(array) for name, array in parameters.items()},
        metadata={"fptt": json.dumps(description, default=plain)},
    )


def save_model(path: str | Path, *contents: Any) -> None:
    """Writes parameters and description, atomically; `contents` as in `model_bytes`.

    Raises:
        SaveError: the file cannot be written.
    """
    write_atomically(path, model_bytes(*contents))


def load_model(path: str | Path) -> Model:
    """Reads a model file.

    Raises:
        InputError: a file that is missing, truncated, or not written by fptt.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = read_bytes(path, "the model")
    if data.startswith(b"FPTTSNAP"):
        raise InputError(
            f"{path} is a checkpoint; give a model that `fptt train --out` wrote, or go on "
            "training from it with --checkpoint and --resume"
        )
    try:
        parameters = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except KeyError as error:
        raise InputError(
            f"{path} holds numbers of type {error.args[0]}, which fptt does not store; give a "
            "model that `fptt train --out` wrote"
        ) from None
    except (SafetensorError, ValueError) as error:
        raise InputError(
            f"{path} is not a whole safetensors file ({error}); give a model that "
            "`fptt train --out` wrote"
        ) from None
    text = header.get("__metadata__", {}).get("fptt")
    if text is None:
        raise InputError(
            f"{path} holds tensors but no description of an fptt network; give a model that "
            "`fptt train --out` wrote, or make one of a PyTorch module's tensors: fptt import"
        )
    try:
        described = json.loads(text)
        net = Network.from_config(described["network"])
        return Model(
            Network(net.layers, parameters, net.adapters),
            described["loss"],
            described["criterion"],
            dict(described["notes"]),
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the description of the network in {path} is damaged ({error}); give a model that "
            "`fptt train --out` wrote"
        ) from None
