"""Options of the commands, and how their texts are read."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from fptt.cli_output import notes
from fptt.errors import InputError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder with the data files.  [default: the variable FPTT_DATA]")
]
Cell = Annotated[
    str,
    typer.Option(
        help="lstm, gru or rnn; elstm, lru, or lif, alif, ltc, which spike (reference only)."
    ),
]
Hidden = Annotated[int, typer.Option(help="Cells of each recurrent layer.")]
Layers = Annotated[int, typer.Option(help="Recurrent layers.")]
Readout = Annotated[
    int, typer.Option(help="Width of a linear layer before the outputs; 0 for none.")
]
Dropout = Annotated[float, typer.Option(help="Dropout before the top layer.")]
Embedding = Annotated[int, typer.Option(help="Width of a token's vector, for text.")]
RuleName = Annotated[str, typer.Option("--rule", help="fptt, tbptt or bptt.")]
Source = Annotated[
    str,
    typer.Option(
        help="Where gradients come from: bptt, or forwards in time rtrl, ostl, eprop or "
        "diagonal, as far as the cells serve them."
    ),
]
Loss = Annotated[
    str | None,
    typer.Option(help="last, every_step or auxiliary.  [default: what the task asks for]"),
]
OptimizerName = Annotated[str, typer.Option("--optimizer", help="sgd or adam.")]
Momentum = Annotated[float, typer.Option(help="Momentum of sgd.")]
Clip = Annotated[float | None, typer.Option(help="Largest global norm of the update direction.")]
Dtype = Annotated[str, typer.Option(help="float32, float64 or bfloat16.")]
ActivationDtype = Annotated[
    str | None, typer.Option(help="Type of activations.  [default: as --dtype]")
]
Rounding = Annotated[
    str, typer.Option(help="nearest, or with --dtype bfloat16 stochastic: of the weights.")
]
BackendName = Annotated[
    str | None,
    typer.Option(
        "--backend",
        help="native or reference.  [default: native; reference for float64, for --source and for "
        "cells that have no C kernels]",
    ),
]
TrainThreads = Annotated[
    int, typer.Option(help="Threads that the engine may use; results do not depend on it.")
]
Alpha = Annotated[float, typer.Option(help="Strength of R(t).")]
Beta = Annotated[float, typer.Option(help="Weight of new parameters in the running mean.")]
Mode = Annotated[str, typer.Option(help="code or paper: the coefficient of lambda.")]
Regularise = Annotated[bool, typer.Option(help="R(t) on or off.")]
TrainTask = Annotated[
    str | None,
    typer.Option(
        help="mnist-rows, s-mnist, ps-mnist, cifar10, cifar10-rows, add, fsdd, char or words."
    ),
]
TrainData = Annotated[
    Path | None,
    typer.Option(
        help="Your own data: .npz with x [n, T, F] (or frames [N, F] and lengths [n]) and y.",
    ),
]
TrainLimit = Annotated[int | None, typer.Option(help="Use only so many training sequences.")]
TrainOption = Annotated[
    list[str] | None,
    typer.Option(help="Option of the task, such as steps=500; may be repeated."),
]
TrainParts = Annotated[
    int | None,
    typer.Option(help="K, parts of a sequence.  [default: 4 for tbptt and fptt, 1 for bptt]"),
]
EpochEnd = Annotated[str, typer.Option(help="average or keep: theta at the end of an epoch.")]
EpochLambda = Annotated[str, typer.Option(help="zero or keep: lambda at the end of an epoch.")]
Lr = Annotated[float, typer.Option(help="Learning rate.")]
Schedule = Annotated[str, typer.Option(help="constant, cosine, step:50,75,90 or plateau:5.")]
Epochs = Annotated[int, typer.Option(help="Passes over the data, in all.")]
TrainOnly = Annotated[
    list[str] | None,
    typer.Option(help="Pattern of parameters that train, such as '1.*'; may be repeated."),
]
Recompute = Annotated[
    bool,
    typer.Option("--recompute", help="Keep no gates; the backward pass computes them again."),
]
PlanRecompute = Annotated[
    bool,
    typer.Option("--recompute", help="Beside each also what it costs to compute gates again."),
]
Adapters = Annotated[
    list[str] | None,
    typer.Option(
        help="MATRIX=RANK, such as '0.weight_hh=4' or '*.weight_hh=4': a low-rank change trains in "
        "place of the matrix; may be repeated."
    ),
]
TrainSeed = Annotated[int, typer.Option(help="Of weights, order and dropout.")]
Out = Annotated[Path | None, typer.Option(help="Write the trained model here (safetensors).")]
Checkpoint = Annotated[
    Path | None,
    typer.Option(help="Write the training state here after every epoch and every minute."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from --checkpoint, if it exists.")]
EvaluateModel = Annotated[Path, typer.Argument(help="A model that `fptt train --out` wrote.")]
Task = Annotated[str | None, typer.Option(help="A task, as in `fptt train`.")]
Data = Annotated[Path | None, typer.Option(help="Your own data, as in `fptt train`.")]
Subset = Annotated[bool, typer.Option(help="The 3,000 MNIST images in the package.")]
Limit = Annotated[int | None, typer.Option(help="Use only so many sequences.")]
Option = Annotated[list[str] | None, typer.Option(help="Option of the task.")]
EvaluateSeed = Annotated[
    int | None,
    typer.Option(help="Of the split of your own data.  [default: that of the training]"),
]
Parts = Annotated[
    str | None,
    typer.Option(help="K, or a list such as 1,7,28.  [default: 28, 1 for bptt]"),
]
Steps = Annotated[int, typer.Option(help="T, steps of a sequence.")]
Batch = Annotated[int, typer.Option(help="Sequences per batch.")]
Inputs = Annotated[int, typer.Option(help="Features per step, or tokens with --tokens.")]
Outputs = Annotated[int, typer.Option(help="Classes.")]
Tokens = Annotated[bool, typer.Option("--tokens", help="Input is tokens.")]
Model = Annotated[Path | None, typer.Option(help="Take the network from a saved model.")]
SeedsConfiguration = Annotated[
    bool,
    typer.Option(
        "--seeds-configuration",
        help="The published configuration beside its published estimates.",
    ),
]
Program = Annotated[bool, typer.Option("--program", help="Print the program, too.")]
Table = Annotated[
    str,
    typer.Argument(
        help="fsdd: six speakers' digits; sweep, formats: number formats; small: small training."
    ),
]
Quick = Annotated[bool, typer.Option("--quick", help="A short version, to see that it works.")]
Seed = Annotated[int, typer.Option(help="Of weights, order and split.")]
CheckpointDir = Annotated[
    Path | None,
    typer.Option(help="Keep finished work here; a study that was stopped goes on from there."),
]


PlanRules = Annotated[
    str, typer.Option("--rule", help="fptt, tbptt, bptt, or several such as bptt,tbptt,fptt.")
]
PlanSources = Annotated[
    str,
    typer.Option("--source", help="Where gradients come from, or several such as bptt,ostl,eprop."),
]


BenchCells = Annotated[str, typer.Option("--cell", help="lstm, gru, rnn, or several: lstm,gru.")]
BenchHidden = Annotated[str, typer.Option("--hidden", help="Cells of a layer, or a list.")]
BenchLayers = Annotated[str, typer.Option("--layers", help="Recurrent layers, or a list.")]
BenchBatch = Annotated[
    str | None,
    typer.Option("--batch", help="Sequences per batch, or a list.  [default: 1,4,128]"),
]
BenchParts = Annotated[
    str | None,
    typer.Option("--parts", help="K, or a list.  [default: 1,28 and T; 1 for bptt]"),
]
BenchSizes = Annotated[
    bool,
    typer.Option(
        "--sizes", help="Instead, at batch 4 and K=28: 32 cells, 512 cells, GRU, two layers."
    ),
]
Threads = Annotated[int, typer.Option(help="Threads of every side.")]
Against = Annotated[
    list[str] | None,
    typer.Option(
        help="torch, jax, or none; both: torch,jax, or the option twice.  [default: torch]"
    ),
]
Rounds = Annotated[
    int | None, typer.Option(help="Rounds of a case, at most.  [default: 15; 3 with --quick]")
]
Seconds = Annotated[
    float | None,
    typer.Option(
        help="After so many no further round of a case begins, if there were three.  "
        "[default: 30; 5 with --quick]"
    ),
]
BenchMemory = Annotated[
    bool, typer.Option("--memory", help="Peak memory of processes that train, instead of time.")
]
BenchDevice = Annotated[
    bool,
    typer.Option("--device", help="Instructions of firmware under emulation, instead of time."),
]
BenchTarget = Annotated[
    str | None,
    typer.Option(
        "--target",
        help="With --device: rv64, rv32, cortex-m4, cortex-m4-c (no assembly), cortex-m55, rv64gcv "
        "(vectors), or several: rv64,cortex-m4.  [default: all]",
    ),
]


def peers(texts: list[str] | None) -> list[str]:
    """Reads what --against was given, such as ["torch,jax"]; none is an empty list."""
    if texts is None and importlib.util.find_spec("torch") is None:
        notes.print("PyTorch is not installed here, so fptt is measured alone", soft_wrap=True)
        return []
    names = [name for text in texts or ["torch"] for name in text.split(",")]
    if "none" in names and len(names) > 1:
        raise InputError(f"--against is {','.join(names)!r}; give none alone")
    return [name for name in dict.fromkeys(names) if name != "none"]


def was_given(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def chosen(context: typer.Context, among: Iterable[str]) -> list[str]:
    """Which of these options stand on the command line."""
    return [name for name in among if was_given(context, name)]


def without_effect(context: typer.Context, because: str, names: Iterable[str]) -> None:
    """Raises InputError if one of these options was given, since it would change nothing."""
    for name in names:
        if was_given(context, name):
            raise InputError(
                f"--{name.replace('_', '-')} has no effect with {because}; leave it out"
            )


def ranks(pairs: list[str] | None) -> dict[str, int] | None:
    """Reads ["0.weight_hh=4"]; None if nothing was given."""
    found: dict[str, int] = {}
    for pair in pairs or ():
        name, _, rank = pair.partition("=")
        if not name or not rank.isdecimal() or not rank.isascii():
            raise InputError(
                f"--adapters is {pair!r}; give a matrix and a rank, such as 0.weight_hh=4"
            )
        if found.setdefault(name, int(rank)) != int(rank):
            raise InputError(f"--adapters gives {name} two ranks, {found[name]} and {rank}")
    return found or None


def number_list(text: str, option: str = "--parts") -> list[int]:
    """Reads "1,7,28"."""
    try:
        values = [int(item) for item in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < 1 or not text.isascii():
        raise InputError(f"{option} is {text!r}; give whole numbers from 1, such as 28 or 1,7,28")
    return values


#: what `runs.task_of` takes from elsewhere
_NO_OPTIONS = {
    "name": "--task",
    "data": "--data",
    "data_dir": "--data-dir",
    "subset": "--subset",
    "limit": "--limit",
    "seed": "--seed",
}


def task_options(pairs: list[str] | None) -> dict[str, Any]:
    """Reads name=value pairs; numbers become numbers."""
    options: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"--option is {pair!r}; give NAME=VALUE, such as steps=500")
        if name in _NO_OPTIONS:
            raise InputError(
                f"--option is {pair!r}; {name} has an option of its own, {_NO_OPTIONS[name]}"
            )
        if name.endswith("_file"):  # a file may be called 12
            options[name] = value
            continue
        try:
            options[name] = int(value)
        except ValueError:
            try:
                options[name] = float(value)
            except ValueError:
                options[name] = value
    return options
