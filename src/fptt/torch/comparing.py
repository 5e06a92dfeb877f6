"""Whether a module and the network that was read from it give the same outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fptt.errors import InputError
from fptt.torch.imported import Imported
from fptt.torch.signals import Axes, Rows
from fptt.training.inference import Inference

Array = NDArray[Any]
#: by how much, in parts of the largest output, module and network may differ on the example
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
#: after rounding to fewer bits
_COARSE = 0.1


def as_array(tensor: Tensor) -> Array:
    """Its values, float32 where it has fewer bits."""
    value = tensor.detach().cpu()
    return (value if value.dtype in _TOLERANCE else value.float()).numpy()


def compare(
    name: str, module: nn.Module, example: Tensor, found: Imported, output: Rows, axes: Axes
) -> None:
    """Raises InputError unless network and module give the same outputs.

    What was read wrongly, such as a tensor that is changed in place, shows here.
    """
    rng = np.random.default_rng(0)
    net = found.network
    inputs: Array
    if net.tokens:
        inputs = rng.integers(0, net.tokens, example.shape)
    else:
        inputs = rng.normal(size=example.shape).astype(np.float32)
    flags = {one: one.training for one in module.modules()}
    x = torch.from_numpy(inputs).to(example.device, example.dtype)
    try:
        module.eval()
        with torch.no_grad():
            given = module(x)
    finally:
        for one, flag in flags.items():
            one.training = flag
    given = given[0] if isinstance(given, (tuple, list)) else given
    order = [output.axes.index(axis) for axis in axes.order if axis in output.axes]
    every_step = found.loss == "every_step"
    wanted = as_array(given.permute(order)).astype(np.float64)
    sizes = [axes.sizes[axis] for axis in axes.order[: 1 + every_step]] + [net.outputs]
    wanted = wanted.reshape(sizes)
    rows = as_array(x).astype(np.float64) if not net.tokens else inputs
    rows = rows if found.batch_first else rows.swapaxes(0, 1)
    if not net.tokens and rows.ndim == 2:
        rows = rows[..., None]
    inference = Inference(
        net,
        every_step=every_step,
        criterion="cross_entropy",
        batch=len(rows),
        dtype="float64",
        backend="reference",
    )
    assert net.weights is not None
    inference.load(net.weights)
    distance = np.abs(inference.predict(rows) - wanted).max()
    allowed = _TOLERANCE.get(given.dtype, _COARSE) * max(1.0, float(np.abs(wanted).max()))
    if not distance <= allowed:
        raise InputError(
            f"{name} was read as {net}, but gives other outputs (they differ by "
            f"{distance:.3g}): its `forward` does something that does not show, such as changing a "
            "tensor in place; write it without, or use fptt.torch.from_state_dict"
        )
