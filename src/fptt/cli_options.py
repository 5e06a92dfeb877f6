"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder with the data files.  [default: the variable FPTT_DATA]")
]
Cell = Annotated[str, typer.Option(help="lstm, gru or rnn.")]
Hidden = Annotated[int, typer.Option(help="Cells of each recurrent layer.")]
Layers = Annotated[int, typer.Option(help="Recurrent layers.")]
Readout = Annotated[
    int, typer.Option(help="Width of a linear layer before the outputs; 0 for none.")
]
Dropout = Annotated[float, typer.Option(help="Dropout before the top layer.")]
Embedding = Annotated[int, typer.Option(help="Width of a token's vector, for text.")]
RuleName = Annotated[str, typer.Option("--rule", help="fptt, tbptt or bptt.")]
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
Alpha = Annotated[float, typer.Option(help="Strength of R(t).")]
Beta = Annotated[float, typer.Option(help="Weight of new parameters in the running mean.")]
Mode = Annotated[str, typer.Option(help="code or paper: the coefficient of lambda.")]
Regularise = Annotated[bool, typer.Option(help="R(t) on or off.")]
