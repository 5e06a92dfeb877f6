"""Tensors by name from files: .safetensors without PyTorch, .pt and .pth with it."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fptt.errors import InputError
from fptt.storage.files import read_bytes

Array = NDArray[Any]
_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


def read_tensors(path: str | Path) -> tuple[dict[str, Array], bool]:
    """The tensors of a file, by name, float32 where they have fewer bits.

    Args:
        path: .safetensors, or what `torch.save(module.state_dict(), path)` wrote (.pt, .pth, .bin).

    Returns:
        The tensors, and whether the file keeps the order in which the module has them (safetensors
        does not).

    Raises:
        InputError: no such file, a damaged one, or something else than tensors.
    """
    data = read_bytes(path, "the tensors")
    if data.startswith(b"FPTTSNAP"):
        raise InputError(f"{path} is a checkpoint of fptt; load it with fptt.load")
    # a zip archive, or the pickle of old versions; safetensors begins with a length below 2^56
    if data.startswith((b"PK\x03\x04", b"\x80")) and data[8:9] != b"{":
        return plain_tensors(_saved(path), str(path)), True
    return _safetensors(data, path), False


def _safetensors(data: bytes, path: str | Path) -> dict[str, Array]:
    from safetensors import SafetensorError, deserialize

    try:
        found = deserialize(data)  # type: ignore[no-untyped-call]
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError) as error:
        raise InputError(
            f"{path} is neither a whole safetensors file nor one that torch.save wrote ({error}); "
            "save module.state_dict()"
        ) from None
    if "fptt" in header.get("__metadata__", {}):
        raise InputError(
            f"{path} is a model of fptt already; give it to `fptt eval`, `fptt export` or "
            "`fptt plan --model` as it is"
        )
    arrays = {}
    for name, item in sorted(found, key=lambda pair: pair[0]):  # they come in any order
        kind, shape = item["dtype"], item["shape"]
        if kind == "BF16":  # the upper half of a float32
            halves = np.frombuffer(item["data"], "<u2").astype(np.uint32) << 16
            values = halves.view(np.float32)
        elif kind in _NUMPY:
            values = np.frombuffer(item["data"], _NUMPY[kind])
        else:  # counters and masks, which no layer of fptt has
            values = np.zeros(int(np.prod(shape)), np.int64)
        arrays[name] = _wide(values.reshape(shape))
    return arrays


def _saved(path: str | Path) -> object:
    from fptt.torch.versions import require_torch

    require_torch(f"reading {path}")
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of TorchScript archives, which are refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of pickle, of zip, of torch
        pickled = isinstance(error, pickle.UnpicklingError)
        why = "it holds other objects" if pickled else str(error).partition("\n")[0]
        raise InputError(
            f"{path} cannot be read as tensors ({why}); save the weights alone: "
            "torch.save(module.state_dict(), path)"
        ) from None


def plain_tensors(found: object, what: str) -> dict[str, Array]:
    """NumPy's arrays of a state_dict, or of the one state_dict inside a larger dict.

    Raises:
        InputError: something else.
    """
    if not isinstance(found, Mapping):
        raise InputError(
            f"{what} holds a {type(found).__name__}; give a state_dict: module.state_dict()"
        )
    if not _is_state(found):
        inside = {key: value for key, value in found.items() if _is_state(value)}
        if len(inside) != 1:
            of = ", ".join(map(repr, inside or found)) or "nothing"
            raise InputError(
                f"{what} holds {of}, and not the tensors of one module; give those of one: "
                "module.state_dict()"
            )
        (found,) = inside.values()
    assert isinstance(found, Mapping)
    return {str(name): _wide(_array(tensor)) for name, tensor in found.items()}


def _is_state(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(key, str) and hasattr(one, "shape") for key, one in value.items())
    )


def _array(tensor: Any) -> Array:
    if isinstance(tensor, np.ndarray):
        return tensor
    value = tensor.detach().cpu()
    return np.asarray(value.float() if value.is_floating_point() and value.itemsize < 4 else value)


def _wide(array: Array) -> Array:
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)
