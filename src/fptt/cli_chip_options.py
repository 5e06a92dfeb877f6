"""Options of `fptt explore`, and how their texts are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fptt import cli_options as given
from fptt.cli_output import notes
from fptt.errors import InputError

if TYPE_CHECKING:
    from fptt.soc.questions import Limit

ExploreModel = Annotated[
    Path | None,
    typer.Argument(
        help="Take the network from a model that `fptt train --out` wrote.  [default: the one that "
        "the options describe]"
    ),
]
WorkloadName = Annotated[
    str,
    typer.Option(
        "--workload", help="program: ours, of your network; or published: the hand-written one."
    ),
]
ChipName = Annotated[
    str,
    typer.Option(
        "--chip", help="published, rocket, gemmini-bf16, gemmini-fp32, or your own .toml file."
    ),
]
Mesh = Annotated[
    str | None,
    typer.Option("--mesh", help="Arrays.  [default: 4x4,8x8; of other --chip its own]"),
]
Cores = Annotated[
    str | None,
    typer.Option("--cores", help="Cores.  [default: 1,2,4,6,8,10; of other --chip its own]"),
]
Design = Annotated[
    str | None, typer.Option("--design", help="Arrays with their cores, such as 4x4-6,8x8-10.")
]
ExploreParts = Annotated[
    str | None,
    typer.Option(
        "--parts", help="K.  [default: 1,2,7,14,28,56,112,392,784, as far as T allows; 1 for bptt]"
    ),
]
ChipClock = Annotated[
    str | None, typer.Option("--clock", help="Such as 1GHz.  [default: the chip's]")
]
Minimise = Annotated[
    str | None,
    typer.Option(help="Ask for the point with the least latency, memory, lut, ff, bram or dsp."),
]
BestParts = Annotated[
    bool, typer.Option("--best-parts", help="Ask for the K with the least latency on each chip.")
]
MostLatency = Annotated[
    str | None, typer.Option("--latency", help="Limit of a question, such as 1s or 250ms.")
]
MostMemory = Annotated[
    str | None, typer.Option("--memory", help="Limit of a question, such as 512KiB.")
]
MostLut = Annotated[int | None, typer.Option("--lut", min=1, help="Limit of a question.")]
MostFf = Annotated[int | None, typer.Option("--ff", min=1, help="Limit of a question.")]
MostBram = Annotated[int | None, typer.Option("--bram", min=1, help="Limit of a question.")]
MostDsp = Annotated[int | None, typer.Option("--dsp", min=1, help="Limit of a question.")]
Front = Annotated[str, typer.Option("--front", help="What the Pareto front weighs against what.")]
Emit = Annotated[
    tuple[str, str] | None,
    typer.Option(
        "--emit",
        metavar="FORM DESIGN",
        help="Write a design point into the folder --out, such as chipyard 8x8-10.",
    ),
]
ExploreOut = Annotated[
    Path | None,
    typer.Option("--out", help="Write an interactive page here; with --emit the folder."),
]

Validate = Annotated[
    bool, typer.Option("--validate", help="Predicted beside measured; nothing else.")
]
Calibrate = Annotated[
    Path | None,
    typer.Option(
        help="Fit the model to these measurements: CSV with K,mesh,cores,function,cycles; --out "
        "takes the constants."
    ),
]
Measurements = Annotated[
    Path | None, typer.Option(help="With --validate: these instead of the published ones.")
]
ConstantsFile = Annotated[
    Path | None, typer.Option(help="Constants of the model that --calibrate has written.")
]
WhatIf = Annotated[
    bool, typer.Option("--what-if", help="What other units would buy; nothing else.")
]

_LIMITS = ("latency", "memory", "lut", "ff", "bram", "dsp")


def several_parts(text: str | None, rule: str, steps: int) -> list[int]:
    """The values of K. Those of the published grid that T does not allow are left out."""
    from fptt import exploring

    if text is not None:
        return list(dict.fromkeys(given.number_list(text)))
    if rule == "bptt":
        return [1]
    found = [k for k in exploring.PARTS if k <= steps]
    if len(found) < len(exploring.PARTS):
        left = ", ".join(str(k) for k in exploring.PARTS if k > steps)
        notes.print(f"left out, as T is {steps}: K={left}", soft_wrap=True)
    return found


def figures(text: str, option: str, *, several: bool = True) -> list[str]:
    """Reads "latency,lut"."""
    from fptt.soc.explore import FIGURES

    names = list(dict.fromkeys(text.split(","))) if several else [text]
    for name in names:
        if name not in FIGURES:
            raise InputError(
                f"{option} is {text!r}; choose {'from' if several else 'one of'} "
                f"{', '.join(FIGURES)}"
            )
    return names


def limits(
    context: typer.Context, texts: dict[str, str | None], pieces: tuple[int | None, ...]
) -> list[Limit]:
    """The limits of a question."""
    from fptt.deploy.budget import read_bytes, read_seconds
    from fptt.soc.questions import Limit

    minimise, best_parts = (context.params[name] for name in ("minimise", "best_parts"))
    if minimise is not None and best_parts:
        raise InputError("--best-parts minimises latency; leave it or --minimise out")
    if minimise is None and not best_parts:
        for name in given.chosen(context, _LIMITS):
            raise InputError(
                f"--{name} is a limit; say what to look for with --minimise, such as "
                "--minimise lut, or with --best-parts"
            )
    found = []
    if texts["latency"] is not None:
        found.append(Limit("latency", read_seconds(texts["latency"], "--latency")))
    if texts["memory"] is not None:
        found.append(Limit("memory", read_bytes(texts["memory"], "--memory")))
    for name, most in zip(_LIMITS[2:], pieces, strict=True):
        if most is not None:
            found.append(Limit(name, most))
    return found
