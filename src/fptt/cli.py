"""The command line. Each command parses its arguments and makes one call."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from fptt import __version__
from fptt.cli_options import (
    ActivationDtype,
    Alpha,
    Beta,
    Cell,
    Clip,
    DataDir,
    Dropout,
    Dtype,
    Embedding,
    Hidden,
    Json,
    Layers,
    Loss,
    Mode,
    Momentum,
    OptimizerName,
    Readout,
    Regularise,
    RuleName,
)
from fptt.errors import FpttError, InputError

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train recurrent networks where the data is, by Forward Propagation Through Time.\n\n"
    "Example: fptt demo",
)
#: for people; standard output carries results only
notes = Console(stderr=True, highlight=False)


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=2))


def _out() -> Console:
    """Standard output; wide enough for tables where it is no terminal."""
    terminal = sys.stdout.isatty()
    return Console(highlight=False, width=None if terminal or "COLUMNS" in os.environ else 140)


def _parts(text: str) -> list[int]:
    try:
        values = [int(item) for item in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < 1:
        raise InputError(f"--parts is {text!r}; give whole numbers from 1, such as 28 or 1,7,28")
    return values


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=notes,
        transient=True,
        disable=not notes.is_terminal,
    )


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"fptt {__version__}")
        raise typer.Exit


@app.command(epilog="Example: fptt demo")
def demo(as_json: Json = False) -> None:
    """Train one LSTM on real digits by BPTT and by FPTT, and show what is traded for what.

    Needs no network and no arguments. JSON: {"rows": [{rule, parts, accuracy, memory_bytes,
    arena_bytes, seconds}], "trade": sentence}.
    """
    from fptt.report import tables
    from fptt.studies.demo import DemoSettings, run_demo, trade

    settings = DemoSettings()
    with _bar() as bar:
        total = settings.epochs * len(settings.parts)
        task = bar.add_task("training", total=total, note="")

        def advance(name: str, epoch: int, epochs: int) -> None:
            bar.update(task, advance=1, note=f"{name}, epoch {epoch} of {epochs}")

        rows = run_demo(settings, on_progress=advance)
    if as_json:
        _print_json({"rows": [row.as_json() for row in rows], "trade": trade(rows)})
    else:
        _out().print(tables.demo(rows))
        _out().print(trade(rows), soft_wrap=True)


@app.command(
    epilog="Example: fptt train --task mnist-rows --subset --parts 4 --epochs 5 "
    "--out digits.safetensors"
)
def train(
    task: Annotated[
        str | None, typer.Option(help="mnist-rows, s-mnist, ps-mnist, add, fsdd, char or words.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Your own data: .npz with x [n, T, F] (or frames [N, F] and lengths [n]) and y.",
        ),
    ] = None,
    data_dir: DataDir = None,
    subset: Annotated[bool, typer.Option(help="The 3,000 MNIST images in the package.")] = False,
    limit: Annotated[int | None, typer.Option(help="Use only so many training sequences.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="Option of the task, such as steps=500; may be repeated."),
    ] = None,
    cell: Cell = "lstm",
    hidden: Hidden = 128,
    layers: Layers = 1,
    readout: Readout = 0,
    dropout: Dropout = 0.0,
    embedding: Embedding = 64,
    rule: RuleName = "fptt",
    parts: Annotated[
        int | None,
        typer.Option(help="K, parts of a sequence.  [default: 4 for tbptt and fptt, 1 for bptt]"),
    ] = None,
    alpha: Alpha = 0.1,
    beta: Beta = 0.5,
    mode: Mode = "code",
    regularise: Regularise = True,
    epoch_end: Annotated[
        str, typer.Option(help="average or keep: theta at the end of an epoch.")
    ] = "average",
    epoch_lambda: Annotated[
        str, typer.Option(help="zero or keep: lambda at the end of an epoch.")
    ] = "zero",
    loss: Loss = None,
    optimizer: OptimizerName = "sgd",
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 0.05,
    momentum: Momentum = 0.9,
    clip: Clip = 1.0,
    schedule: Annotated[
        str, typer.Option(help="constant, cosine, step:50,75,90 or plateau:5.")
    ] = "constant",
    epochs: Annotated[int, typer.Option(help="Passes over the data, in all.")] = 10,
    batch: Annotated[int, typer.Option(help="Sequences per batch.")] = 50,
    dtype: Dtype = "float32",
    activation_dtype: ActivationDtype = None,
    train_only: Annotated[
        list[str] | None,
        typer.Option(help="Pattern of parameters that train, such as '1.*'; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of weights, order and dropout.")] = 0,
    threads: Annotated[int, typer.Option(help="Threads of the matrix products.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Write the trained model here (safetensors).")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Write the training state here after every epoch and every minute."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from --checkpoint, if it exists.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a network on a task or on your own data.

    JSON: {task, network, rule, arena_bytes, model, epochs: [{epoch, loss, lr, seconds, test_loss,
    test_accuracy, test_perplexity}]}.
    """
    from fptt import runs

    if resume and checkpoint is None:
        raise InputError("--resume needs --checkpoint FILE")
    the_task = runs.task_of(
        task,
        data,
        data_dir=data_dir,
        subset=subset,
        limit=limit,
        seed=seed,
        **_task_options(option),
    )
    state = "carry" if the_task.contiguous else "reset"
    k = parts if parts is not None else 1 if rule == "bptt" else min(4, the_task.steps)
    choice = runs.NetworkChoice(cell, hidden, layers, readout, dropout, embedding)
    net = choice.network(the_task.inputs, the_task.outputs, tokens=the_task.tokens)
    program = runs.program_for(
        the_task,
        net,
        runs.make_rule(
            rule,
            k,
            alpha=alpha,
            beta=beta,
            mode=mode,
            regularise=regularise,
            state=state,
            epoch_end=epoch_end,
            epoch_lambda=epoch_lambda,
        ),
        runs.make_optimizer(optimizer, lr, momentum),
        batch=batch,
        loss=loss,
        dtype=dtype,
        activation_dtype=activation_dtype,
        clip=clip,
        train=tuple(train_only or ("*",)),
    )
    notes.print(
        f"{the_task.description}\n{net}, {rule} with K={k}, "
        f"{program.memory().arena_bytes:,} bytes to train",
        markup=False,
        soft_wrap=True,
    )
    with _bar() as bar:
        line = bar.add_task("", total=None, note="")

        def advance(done: int, of: int, mean: float) -> None:
            bar.update(line, completed=done, total=of, note=f"loss {mean:.4f}")

        def epoch_line(row: dict[str, float]) -> None:
            bar.reset(line)
            shown = ", ".join(
                f"{name.replace('_', ' ')} {value:.4g}"
                for name, value in row.items()
                if name != "epoch"
            )
            notes.print(f"epoch {row['epoch']:.0f}: {shown}", soft_wrap=True)

        try:
            result = runs.run(
                the_task,
                program,
                epochs=epochs,
                seed=seed,
                threads=threads,
                schedule=runs.make_schedule(schedule, epochs),
                out=out,
                checkpoint=checkpoint,
                resume=resume,
                on_batch=advance,
                on_epoch=epoch_line,
            )
        except KeyboardInterrupt:
            raise FpttError(
                "stopped"
                + (
                    f"; go on with --checkpoint {checkpoint} --resume"
                    if checkpoint and checkpoint.exists()
                    else ""
                )
            ) from None
    if as_json:
        _print_json(result.as_json())
    else:
        last = result.rows[-1]
        _out().print(
            ", ".join(
                f"{name.removeprefix('test_')} {value:.4f}"
                for name, value in last.items()
                if name.startswith("test_")
            )
            + (f"; model in {out}" if out else ""),
            markup=False,
        )


def _task_options(pairs: list[str] | None) -> dict[str, Any]:
    """Reads name=value pairs; numbers become numbers."""
    options: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"--option is {pair!r}; give NAME=VALUE, such as steps=500")
        try:
            options[name] = int(value)
        except ValueError:
            try:
                options[name] = float(value)
            except ValueError:
                options[name] = value
    return options


@app.command("eval", epilog="Example: fptt eval digits.safetensors --task mnist-rows --subset")
def evaluate(
    model: Annotated[Path, typer.Argument(help="A model that `fptt train --out` wrote.")],
    task: Annotated[str | None, typer.Option(help="A task, as in `fptt train`.")] = None,
    data: Annotated[Path | None, typer.Option(help="Your own data, as in `fptt train`.")] = None,
    data_dir: DataDir = None,
    subset: Annotated[bool, typer.Option(help="The 3,000 MNIST images in the package.")] = False,
    limit: Annotated[int | None, typer.Option(help="Use only so many sequences.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="Option of the task.")] = None,
    seed: Annotated[int, typer.Option(help="Of the split of your own data.")] = 0,
    as_json: Json = False,
) -> None:
    """Loss and accuracy of a saved model on a task's test data.

    JSON: {model, task, loss, accuracy, perplexity}.
    """
    from fptt import runs

    the_task = runs.task_of(
        task,
        data,
        data_dir=data_dir,
        subset=subset,
        limit=limit,
        seed=seed,
        **_task_options(option),
    )
    result = runs.evaluate(model, the_task)
    if as_json:
        _print_json({"model": str(model), "task": the_task.name, **result})
    else:
        _out().print(", ".join(f"{name} {value:.4f}" for name, value in result.items()))


@app.command(epilog="Example: fptt plan --parts 1,2,7,14,28,56,112,392,784")
def plan(
    parts: Annotated[str, typer.Option(help="K, or a list such as 1,7,28.")] = "28",
    steps: Annotated[int, typer.Option(help="T, steps of a sequence.")] = 784,
    batch: Annotated[int, typer.Option(help="Sequences per batch.")] = 4,
    inputs: Annotated[int, typer.Option(help="Features per step, or tokens with --tokens.")] = 1,
    outputs: Annotated[int, typer.Option(help="Classes.")] = 10,
    tokens: Annotated[bool, typer.Option("--tokens", help="Input is tokens.")] = False,
    cell: Cell = "lstm",
    hidden: Hidden = 128,
    layers: Layers = 1,
    readout: Readout = 0,
    dropout: Dropout = 0.0,
    embedding: Embedding = 64,
    model: Annotated[Path | None, typer.Option(help="Take the network from a saved model.")] = None,
    rule: RuleName = "fptt",
    regularise: Regularise = True,
    loss: Loss = None,
    optimizer: OptimizerName = "sgd",
    momentum: Momentum = 0.0,
    clip: Clip = None,
    dtype: Dtype = "float32",
    activation_dtype: ActivationDtype = None,
    seeds_configuration: Annotated[
        bool,
        typer.Option(
            "--seeds-configuration",
            help="The published configuration beside its published estimates.",
        ),
    ] = False,
    program: Annotated[bool, typer.Option("--program", help="Print the program, too.")] = False,
    as_json: Json = False,
) -> None:
    """Exact training memory by category and work by function class, for one K or several.

    JSON: a list of {parts, part_steps, memory_bytes, arena_bytes, total_bytes, work}; with
    --seeds-configuration {memory: [..], work: [..]}.
    """
    from fptt import planning, runs
    from fptt.modelfile import load_model
    from fptt.program import build
    from fptt.report import tables

    if seeds_configuration:
        configured = planning.seeds_program()
        memory, work = planning.seeds_memory(configured), planning.seeds_work(configured)
        if as_json:
            _print_json(
                {"memory": [vars(row) for row in memory], "work": [vars(row) for row in work]}
            )
        else:
            _out().print(tables.seeds_memory(memory))
            _out().print(tables.seeds_work(work))
        return
    net = (
        load_model(model).net
        if model
        else runs.NetworkChoice(cell, hidden, layers, readout, dropout, embedding).network(
            inputs, outputs, tokens=tokens
        )
    )
    programs = [
        build(
            net,
            runs.make_rule(rule, k, regularise=regularise),
            runs.make_optimizer(optimizer, 0.01, momentum),
            steps=steps,
            batch=batch,
            loss=loss or "last",
            clip=clip,
            dtype=dtype,
            activation_dtype=activation_dtype,
        )
        for k in _parts(parts)
    ]
    rows = [planning.plan_row(one) for one in programs]
    if as_json:
        _print_json([row.as_json() for row in rows])
        return
    out = _out()
    out.print(f"{net}, T={steps}, batch {batch}, {dtype}, {programs[0].optimizer}", markup=False)
    out.print(tables.memory_sweep(rows))
    out.print(tables.work_single(rows[0]) if len(rows) == 1 else tables.work_sweep(rows))
    if program:
        for one in programs:
            print(one)


@app.command(epilog="Example: fptt reproduce fsdd --data-dir DIR")
def reproduce(
    table: Annotated[str, typer.Argument(help="fsdd: six speakers' digits.")],
    data_dir: DataDir = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A short version, to see that it works.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of weights, order and split.")] = 0,
    checkpoint_dir: Annotated[
        Path | None,
        typer.Option(help="Keep finished work here; a study that was stopped goes on from there."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Repeat a study and print its table.

    fsdd: train on five speakers, then adapt to the sixth on 5 recordings of each digit; the same
    for every speaker, beside a model that learns from these 50 recordings alone.

    JSON: a list of {speaker, base_accuracy, tuned_accuracy, own_only_accuracy,
    others_accuracy_before, others_accuracy_after, tune_recordings, test_recordings,
    others_recordings, tune_memory_bytes, seconds}; the last row is the mean.
    """
    if table != "fsdd":
        raise InputError(f"unknown table {table!r}; expected fsdd")
    from fptt.report import tables
    from fptt.studies import fsdd

    with _bar() as bar:
        line = bar.add_task("", total=1.0, note="")

        def advance(speaker: str, stage: str, share: float) -> None:
            bar.update(line, completed=share, note=f"{speaker}: {stage}")

        rows = fsdd.speakers_study(
            data_dir,
            seed=seed,
            epochs=1 if quick else None,
            tune_epochs=2 if quick else None,
            limit=100 if quick else None,
            checkpoint_dir=checkpoint_dir,
            on_progress=advance,
        )
    rows.append(fsdd.mean_row(rows))
    if as_json:
        _print_json(rows)
    else:
        _out().print(tables.speakers(rows))


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0 done, 1 failed, 2 wrong use."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        app(given or ["--help"], standalone_mode=False)
        if not given:
            return 2
    except typer.Exit as leaving:
        return leaving.exit_code
    except FpttError as error:
        return _complain(str(error), error.exit_code)
    except typer.TyperException as error:
        return _complain(f"{error.format_message()} (fptt --help shows what there is)", 2)
    except (typer.Abort, KeyboardInterrupt):
        return _complain("stopped", 1)
    except BrokenPipeError:
        # the reader of our output went away; nothing is left to say, and nowhere to say it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _complain(message: str, code: int) -> int:
    print(f"fptt: {message}", file=sys.stderr)
    return code


def entry() -> None:
    """The console script."""
    sys.exit(main())
