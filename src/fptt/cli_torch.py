"""The command for models of PyTorch: `fptt import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fptt import cli_options as given
from fptt.cli_output import print_json, show
from fptt.errors import InputError

File = Annotated[
    Path,
    typer.Argument(
        help="What torch.save(module.state_dict(), FILE) wrote (.pt, .pth), or .safetensors."
    ),
]
OutModel = Annotated[Path, typer.Option("--out", help="Write the model here (safetensors).")]
LayerNames = Annotated[
    str | None,
    typer.Option(
        "--layers",
        help="Modules from the input upwards, such as lstm,relu,dropout:0.5,fc.  [default: told "
        "by names and shapes]",
    ),
]
ImportTask = Annotated[
    str | None,
    typer.Option(
        "--task", help="What it was trained on, with the same preparation: as in `fptt train`."
    ),
]
ImportLoss = Annotated[
    str, typer.Option("--loss", help="last, every_step or auxiliary: where there is a target.")
]
Criterion = Annotated[str, typer.Option(help="cross_entropy or mse.")]
ImportSteps = Annotated[
    int | None, typer.Option("--steps", help="T, steps of a sequence, for `fptt export`.")
]


def import_(
    context: typer.Context,
    file: File,
    out: OutModel,
    layers: LayerNames = None,
    task: ImportTask = None,
    data_dir: given.DataDir = None,
    subset: given.Subset = False,
    option: given.Option = None,
    loss: ImportLoss = "last",
    criterion: Criterion = "cross_entropy",
    steps: ImportSteps = None,
    as_json: given.Json = False,
) -> None:
    """Make a model of the weights of a PyTorch module.

    LSTM, GRU, RNN (tanh), Linear and Embedding are told by their shapes; what has no weights, ReLU
    and Dropout, must be named in --layers. Reading .safetensors needs no PyTorch. Then `fptt eval`,
    `fptt plan --model` and `fptt export` take the model.

    JSON: {model, network, parameters, loss, criterion, steps, task}; steps and task are null where
    not given.
    """
    from fptt import runs
    from fptt.storage.modelfile import load_model
    from fptt.torch.convert import convert

    of_task = None
    if task is not None:
        given.without_effect(context, "--task", ("loss", "criterion", "steps"))
        of_task = runs.task_of(
            task, None, data_dir=data_dir, subset=subset, **given.task_options(option)
        )
    elif found := given.chosen(context, ("data_dir", "subset", "option")):
        raise InputError(f"--{found[0].replace('_', '-')} needs --task, such as --task mnist-rows")
    net = convert(
        file,
        out,
        layers=None if layers is None else layers.split(","),
        task=of_task,
        loss=loss,
        criterion=criterion,
        steps=steps,
    )
    if as_json:
        model = load_model(out)
        print_json(
            {
                "model": str(out),
                "network": str(net),
                "parameters": net.size,
                "loss": model.loss,
                "criterion": model.criterion,
                "steps": model.notes.get("steps"),
                "task": model.notes.get("task"),
            }
        )
    else:
        show(f"{net}, {net.size:,} parameters; model in {out}")
