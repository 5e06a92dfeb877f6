"""`fptt compare`: gradient sources side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from fptt import cli_options as given
from fptt.cli_output import notes, print_json, progress, show
from fptt.errors import InputError

Task = Annotated[
    str | None, typer.Option(help="A task with one target a sequence.  [default: mnist-rows]")
]
Hidden = Annotated[int, typer.Option(help="Cells of each recurrent layer.")]
Source = Annotated[
    str | None,
    typer.Option(
        help="bptt, rtrl, ostl, eprop, diagonal, or several: bptt,eprop.  [default: all that the "
        "network serves]"
    ),
]
Parts = Annotated[str, typer.Option(help="K of every source, or a list; bptt also with K = 1.")]
Batch = Annotated[int, typer.Option(help="Sequences.")]
Scale = Annotated[
    float,
    typer.Option(
        help="Factor on the initial weights; with small ones gradients fade within a few steps and "
        "all sources look alike."
    ),
]
Growth = Annotated[bool, typer.Option(help="Measure how cost grows with T, K and H.")]


def compare(
    context: typer.Context,
    task: Task = None,
    data: given.TrainData = None,
    data_dir: given.DataDir = None,
    subset: given.Subset = False,
    limit: given.TrainLimit = None,
    option: given.TrainOption = None,
    cell: given.Cell = "lstm",
    hidden: Hidden = 16,
    layers: given.Layers = 1,
    readout: given.Readout = 0,
    embedding: given.Embedding = 64,
    model: given.Model = None,
    source: Source = None,
    parts: Parts = "4",
    batch: Batch = 4,
    seed: given.TrainSeed = 0,
    scale: Scale = 1.0,
    growth: Growth = True,
    as_json: given.Json = False,
) -> None:
    """Gradient sources side by side: alignment with BPTT, memory, work, time, growth.

    The gradient of the summed losses at the ends of the K parts, at fixed weights, on the first
    sequences of a task. BPTT of the whole sequence in float64 is exact; cosine 1 and ratio 1 say
    that a source is. Bytes and operations are those of the training program; "of the pass" are
    activations, traces, carried state and scratch. Time includes the update.

    JSON: a list of {source, parts, whole: {cosine, norm_ratio}, tensors: {name: {cosine,
    norm_ratio}}, arena_bytes, fptt_arena_bytes, pass_bytes, operations, updates, seconds, backend,
    growth: {memory_steps, work_steps, memory_parts, work_parts, memory_width, work_width}}; growth
    is null without --growth.
    """
    from fptt import runs
    from fptt.experiments import compare as comparing
    from fptt.report import experiment_tables
    from fptt.rules.sources import SOURCES
    from fptt.storage.modelfile import load_model

    built = ("cell", "hidden", "layers", "readout", "embedding", "scale")
    given.without_effect(context, "--model", built if model else ())
    name = task if task or data else "mnist-rows"
    the_task = runs.task_of(
        name,
        data,
        data_dir=data_dir,
        subset=subset,
        limit=limit,
        seed=seed,
        **given.task_options(option),
    )
    net = (
        load_model(model).net
        if model
        else runs.NetworkChoice(cell, hidden, layers, readout, 0.0, embedding).network(
            the_task.inputs, the_task.outputs, tokens=the_task.tokens
        )
    )
    wanted = source.split(",") if source else list(SOURCES)
    if unknown := [one for one in wanted if one not in SOURCES]:
        raise InputError(f"--source is {unknown[0]!r}; choose of {', '.join(SOURCES)}")
    several = given.number_list(parts)
    pairs = [("bptt", 1)] if "bptt" in wanted else []
    for one in wanted:
        try:
            comparing.check_served(the_task, net, one)
        except InputError as error:
            if source:
                raise
            notes.print(f"left out: {error}", markup=False, soft_wrap=True)
            continue
        pairs += [(one, k) for k in several if (one, k) not in pairs]
    with progress() as bar:
        line = bar.add_task("comparing", total=len(pairs), note="")

        def advance(what: str) -> None:
            bar.update(line, advance=1, note=what)

        rows = comparing.compare(
            the_task,
            net,
            pairs,
            batch=batch,
            seed=seed,
            scale=scale,
            grow=growth,
            on_progress=advance,
        )
    if as_json:
        print_json([row.as_json() for row in rows])
        return
    show(f"{net}, {the_task.name}, T={the_task.steps}, {batch} sequences")
    for table in experiment_tables.comparison(rows):
        show(table)
