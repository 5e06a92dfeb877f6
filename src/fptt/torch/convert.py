"""From a file of PyTorch's tensors to a model file of fptt: `fptt import` is this."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fptt.errors import InputError
from fptt.nets import Network
from fptt.nets.layer import check_size
from fptt.rules.losses import as_schedule
from fptt.storage.files import check_writable
from fptt.storage.modelfile import load_model, save_model
from fptt.tasks import Task
from fptt.torch.statedict import from_state_dict


def convert(
    source: Path,
    out: Path,
    *,
    layers: Sequence[str] | None = None,
    task: Task | None = None,
    loss: str = "last",
    criterion: str = "cross_entropy",
    steps: int | None = None,
    seed: int = 0,
) -> Network:
    """Reads tensors and writes a model, in float32, that `fptt eval`, `plan` and `export` take.

    Args:
        source, layers: as in `from_state_dict`.
        out: the model file.
        task: what the module was trained on, its input prepared as the task prepares it; gives
            loss, criterion and steps. Without it, the input is taken as it comes.
        loss: "last", "every_step" or "auxiliary": where there is a target.
        criterion: "cross_entropy" or "mse".
        steps: T, for what is exported.
        seed: of the task's split.

    Returns:
        The network that was written.

    Raises:
        InputError: tensors that cannot be read, or a network that is none for the task.
        SaveError: the model cannot be written.
    """
    check_writable(out)
    if out.exists():
        try:
            load_model(out)
        except InputError:
            raise InputError(f"{out} exists and is no model; name another file") from None
    notes: dict[str, Any] = {"seed": seed, "dtype": "float32"}
    if task is not None:
        loss, criterion, steps = task.loss, task.criterion, task.steps
        notes |= {
            "task": task.name,
            "normalisation": task.normalisation,
            "vocabulary": task.vocabulary,
        }
    as_schedule(loss).check(criterion)  # type: ignore[arg-type]
    if steps is not None:
        check_size("import", "steps", steps)
        notes["steps"] = steps
    net = from_state_dict(source, layers)
    if task is not None:
        _check_fit(source, net, task)
    assert net.weights is not None
    with np.errstate(over="ignore"):
        weights = {name: array.astype(np.float32) for name, array in net.weights.items()}
    net = Network(net.layers, weights)
    save_model(out, net, weights, loss, criterion, notes)
    return net


def _check_fit(source: Path, net: Network, task: Task) -> None:
    found = f"{net.tokens} tokens" if net.tokens else f"{net.inputs} inputs"
    wanted = f"{task.inputs} {'tokens' if task.tokens else 'inputs'}"
    if (found, net.outputs) != (wanted, task.outputs):
        raise InputError(
            f"{source} is {net}, with {found} and {net.outputs} outputs; task {task.name} has "
            f"{wanted} and {task.outputs} outputs"
        )
