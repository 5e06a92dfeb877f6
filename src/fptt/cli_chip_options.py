"""Options of `fptt explore`, and how their texts are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fptt import cli_options as given
from fptt.cli_output import notes
from fptt.errors import InputError

if TYPE_CHECKING:
    from fptt.soc.questions import Limit

# -- the chip -------------------------------------------------------------------------------------

ChipName = Annotated[
    str,
    typer.Option(
        "--chip",
        help="published, rocket, gemmini-bf16, gemmini-fp32, your own .toml file, or several of "
        "these: published,gemmini-fp32.",
    ),
]
Mesh = Annotated[
    str | None,
    typer.Option("--mesh", help="Arrays.  [default: 4x4,8x8; of other --chip its own]"),
]
Cores = Annotated[
    str | None,
    typer.Option(
        "--cores",
        help="Cores, such as 4,10 or 1-10.  [default: 1,2,4,6,8,10; of other --chip its own]",
    ),
]
Design = Annotated[
    str | None, typer.Option("--design", help="Arrays with their cores, such as 4x4-6,8x8-10.")
]
ChipClock = Annotated[
    str | None, typer.Option("--clock", help="Such as 1GHz.  [default: the chip's]")
]

# -- the network ----------------------------------------------------------------------------------

ExploreModel = Annotated[
    Path | None,
    typer.Argument(
        help="Take the network, T, loss and K from a model that `fptt train --out` wrote.  "
        "[default: what the options describe]"
    ),
]
WorkloadName = Annotated[
    str,
    typer.Option(
        "--workload", help="program: ours, of your network; or published: the hand-written one."
    ),
]
ExploreParts = Annotated[
    str | None,
    typer.Option(
        "--parts",
        help="K.  [default: 1,2,7,14,28,56,112,392,784, as far as T allows, and that of MODEL; 1 "
        "for bptt]",
    ),
]

# -- the question ---------------------------------------------------------------------------------

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
MostLut = Annotated[
    str | None, typer.Option("--lut", help="Limit of a question, such as 200000 or 200k.")
]
MostFf = Annotated[str | None, typer.Option("--ff", help="Limit of a question, as --lut.")]
MostBram = Annotated[str | None, typer.Option("--bram", help="Limit of a question, as --lut.")]
MostDsp = Annotated[str | None, typer.Option("--dsp", help="Limit of a question, as --lut.")]

# -- what is written ------------------------------------------------------------------------------

Front = Annotated[str, typer.Option("--front", help="What the Pareto front weighs against what.")]
OnlyFront = Annotated[
    bool, typer.Option("--only-front", help="Rows of the Pareto front only; plots keep all points.")
]
ExploreOut = Annotated[
    Path | None,
    typer.Option("--out", help="Write an interactive page here; with --emit the folder."),
]
Emit = Annotated[
    tuple[str, str] | None,
    typer.Option(
        "--emit",
        metavar="FORM DESIGN",
        help="Write a design point into the folder --out, such as chipyard 8x8-10.",
    ),
]

# -- the cycle model ------------------------------------------------------------------------------

Validate = Annotated[
    bool, typer.Option("--validate", help="Predicted beside measured; nothing else.")
]
Measurements = Annotated[
    Path | None, typer.Option(help="With --validate: these instead of the published ones.")
]
Calibrate = Annotated[
    Path | None,
    typer.Option(
        help="Fit the model to these measurements: CSV with K,mesh,cores,function,cycles; --out "
        "takes the constants."
    ),
]
ConstantsFile = Annotated[
    Path | None, typer.Option(help="Constants of the model that --calibrate has written.")
]
WhatIf = Annotated[
    bool, typer.Option("--what-if", help="What other units would buy; nothing else.")
]

_LIMITS = ("latency", "memory", "lut", "ff", "bram", "dsp")
#: pieces that a suffix stands for
_PIECES = {"": 1, "k": 10**3, "m": 10**6}
#: a range of cores holds no more
_MOST_CORES = 1000


def core_list(text: str, option: str = "--cores") -> list[int]:
    """Reads "1,4,10", "1-10" or both: "1,4-6".

    Raises:
        InputError: something else, or a range without an end.

    Example:
        >>> core_list("1,4-6,10")
        [1, 4, 5, 6, 10]
    """
    found: list[int] = []
    for item in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:\s*-\s*(\d{1,9}))?\s*", item, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last < first + _MOST_CORES:
            raise InputError(
                f"{option} is {text!r}; give whole numbers from 1, such as 10, 1,4,10 or 1-10 (a "
                f"range of at most {_MOST_CORES:,})"
            )
        found += range(first, last + 1)
    return list(dict.fromkeys(found))


def pieces(text: str, option: str) -> int:
    """Reads "200000", "200k" or "1.2M"; k is 1,000 here, as these are no bytes.

    Raises:
        InputError: something else, or nothing at all.

    Example:
        >>> pieces("200k", "--lut"), pieces("1.2M", "--ff"), pieces("150000", "--lut")
        (200000, 1200000, 150000)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKmM]?)\s*", text, re.ASCII)
    value = Decimal(match[1]) * _PIECES[match[2].lower()] if match else Decimal()
    if value < 1 or value != int(value):
        raise InputError(
            f"{option} is {text!r}; give a whole number from 1, such as 200000, 200k or 1.2M"
        )
    return int(value)


def several_parts(text: str | None, rule: str, steps: int, trained: int | None = None) -> list[int]:
    """The values of K. Those of the published grid that T does not allow are left out.

    Args:
        text: what --parts was given.
        rule: the rule's name.
        steps: T.
        trained: K of the training of a model, which joins the grid.
    """
    from fptt import exploring

    if text is not None:
        return list(dict.fromkeys(given.number_list(text)))
    if rule == "bptt":
        return [1]
    if steps < 1:
        raise InputError(f"--steps is {steps}; give a whole number of at least 1")
    found = [k for k in exploring.PARTS if k <= steps]
    if len(found) < len(exploring.PARTS):
        left = ", ".join(str(k) for k in exploring.PARTS if k > steps)
        notes.print(f"left out, as T is {steps}: K={left}", soft_wrap=True)
    if trained is not None and 1 <= trained <= steps:
        found = sorted({*found, trained})
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
    context: typer.Context,
    latency: str | None,
    memory: str | None,
    sizes: Mapping[str, str | None],
) -> list[Limit]:
    """The limits of a question.

    Args:
        context: of the command.
        latency, memory: what these options were given.
        sizes: what "lut", "ff", ... were given.
    """
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
    if latency is not None:
        found.append(Limit("latency", read_seconds(latency, "--latency")))
    if memory is not None:
        found.append(Limit("memory", read_bytes(memory, "--memory")))
    found += [
        Limit(name, pieces(text, f"--{name}")) for name, text in sizes.items() if text is not None
    ]
    return found
