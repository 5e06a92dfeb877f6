"""`fptt reproduce`: studies and tables of experiments."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from fptt import cli_options as given
from fptt.cli_output import interruptible, notes, print_json, progress, show
from fptt.errors import FpttError, InputError

#: studies with a form of their own; all other tables are lists of experiments
STUDIES = ("fsdd", "sweep", "formats", "small")
#: where full tables go, beside what `fptt report` reads by default
RESULTS = Path("results")

TableName = Annotated[
    str,
    typer.Argument(
        help="s-mnist, ps-mnist, cifar10, add, words, char, programs, networks, spiking, "
        "full, equal-memory; fsdd, sweep, formats, small."
    ),
]
Quick = Annotated[
    bool,
    typer.Option("--quick", help="Tiny runs, to see that it works; kept only with --results."),
]
Seeds = Annotated[
    int, typer.Option("--seeds", help="So many seeds of everything, counted from --seed.")
]
Epochs = Annotated[int | None, typer.Option(help="Epochs of every run, instead of the table's.")]
Limit = Annotated[
    int | None, typer.Option(help="Training sequences of every run, instead of the table's.")
]
Parts = Annotated[str | None, typer.Option(help="Only these K, such as 10 or 4,28.")]
Variant = Annotated[
    str | None, typer.Option(help="Only runs whose name in the table contains this.")
]
Results = Annotated[
    Path | None,
    typer.Option("--results", help="Folder of the results files.  [default: results]"),
]
StateDir = Annotated[
    Path | None,
    typer.Option(help="Folder of the checkpoints.  [default: .state in the results folder]"),
]
Workers = Annotated[
    int | None, typer.Option(help="Processes on this machine.  [default: one a processor]")
]
Dask = Annotated[
    str | None, typer.Option(help="Address of a Dask scheduler, such as tcp://10.0.0.1:8786.")
]


def reproduce(
    context: typer.Context,
    table: TableName,
    data_dir: given.DataDir = None,
    quick: Quick = False,
    seed: given.Seed = 0,
    seeds: Seeds = 1,
    parts: Parts = None,
    variant: Variant = None,
    epochs: Epochs = None,
    limit: Limit = None,
    results: Results = None,
    state_dir: StateDir = None,
    workers: Workers = None,
    dask: Dask = None,
    checkpoint_dir: given.CheckpointDir = None,
    as_json: given.Json = False,
) -> None:
    """Repeat a study and print its table.

    Tables of runs, each appended to RESULTS/TABLE.jsonl when it is finished. Runs that are there
    already are not repeated, and what was stopped or killed goes on from its checkpoint: give the
    same command again. They go out over the processors of this machine, or over Dask.

    s-mnist: S-MNIST by K: class loss, with the auxiliary loss, with R(t). ps-mnist, cifar10: with
    and without R(t). add: the add task, T = 200 and 1000. words, char: language models, Penn
    Treebank where it is in the data folder and Tiny Shakespeare otherwise. programs: rows and
    pixels beside PyTorch. networks: BPTT and FPTT on two networks, with and without momentum.
    spiking: LIF, adaptive and liquid neurons. full: all of S-MNIST. equal-memory: truncated BPTT
    and FPTT in the same bytes.

    Studies with a form of their own:

    fsdd: train on five speakers, then adapt to the sixth on 5 recordings of each digit; the same
    for every speaker, beside a model that learns from these 50 recordings alone.

    sweep: train on four images of S-MNIST, a pixel a step, with nine K, in float32, in bfloat16
    rounded to nearest and in bfloat16 rounded at random. Needs no data files.

    formats: the same three formats on MNIST by rows (the embedded images, or all with --data-dir)
    and in the demo's personalisation.

    small: what training in little memory costs in accuracy: the demo's personalisation where all
    weights train or only some, with gates computed again, with low-rank adapters, in float32 and
    bfloat16. Needs no data files.

    JSON: of tables of runs a list of the lines of the results file: {version, table, variant,
    metric, key, configuration, network, parameters, steps, train_sequences, test_sequences, commit,
    machine, backend, date, seconds, arena_bytes, memory_bytes, epochs: [{epoch, loss, lr, seconds,
    test_loss, test_accuracy, test_perplexity}], diverged}; of sweep a list of {parts, format, loss,
    final_loss, arena_bytes, seconds}; of formats a
    list of {study: mnist-rows, format, accuracy, arena_bytes, seconds}, accuracy after every epoch,
    and {study: personalisation, parts, format, new_before, new_after, old_before, old_after,
    arena_bytes, seconds}; of small a list of {trains, parts, batch, recompute, lr, format, trained,
    updates, arena_bytes, const_bytes, new_before, new_after, old_before, old_after, seconds}; of
    fsdd a list of
    {speaker, base_accuracy, tuned_accuracy, control_accuracy, own_only_accuracy,
    others_accuracy_before, others_accuracy_after, tune_recordings, test_recordings,
    others_recordings, tune_memory_bytes, control_memory_bytes, seconds}; the last row is the mean.
    """
    if table in STUDIES:
        only_runs = (
            set(context.params)
            - {
                "table",
                "data_dir",
                "quick",
                "seed",
                "checkpoint_dir",
                "as_json",
            }
            - ({"results"} if table == "fsdd" and not quick else set())
        )
        given.without_effect(context, table, sorted(only_runs))
        if table == "small":
            _small(quick, seed, as_json)
        elif table == "fsdd":
            _speakers(data_dir, quick, seed, checkpoint_dir, results, as_json)
        else:
            _formats(table, data_dir, quick, seed, as_json)
        return
    given.without_effect(context, f"table {table}", ("checkpoint_dir",))
    from fptt.experiments.tables import TABLES, Choice

    if table not in TABLES:
        raise InputError(
            f"unknown table {table!r}; expected one of {', '.join([*TABLES, *STUDIES])}"
        )
    if seeds < 1:
        raise InputError(f"--seeds is {seeds}; give at least 1")
    choice = Choice(
        quick=quick,
        seeds=tuple(range(seed, seed + seeds)),
        parts=None if parts is None else tuple(given.number_list(parts)),
        epochs=epochs,
        limit=limit,
        corpus=_corpus(table, data_dir),
    )
    if quick and results is None:
        # what is not kept must not be mixed with what is
        with TemporaryDirectory() as folder:
            _runs(table, choice, variant, Path(folder), None, data_dir, workers, dask, as_json)
        return
    _runs(table, choice, variant, results or RESULTS, state_dir, data_dir, workers, dask, as_json)


def _corpus(table: str, data_dir: Path | None) -> str | None:
    """Penn Treebank, where a table of text would take it: its runs are other experiments."""
    from fptt.tasks import treebank
    from fptt.tasks.files import VARIABLE

    place = data_dir or os.environ.get(VARIABLE)
    if table not in ("words", "char", "equal-memory") or not place:
        return None
    task = "words" if table == "words" else "char"
    found = treebank.files(Path(place).expanduser(), task, "test", required=False)
    return None if found is None else "ptb"


def _runs(
    table: str,
    choice: object,
    variant: str | None,
    results: Path,
    state_dir: Path | None,
    data_dir: Path | None,
    workers: int | None,
    dask: str | None,
    as_json: bool,
) -> None:
    """A table of experiments."""
    from fptt.experiments.reading import unusable
    from fptt.experiments.summary import groups
    from fptt.experiments.sweep import Progress, sweep
    from fptt.experiments.tables import TABLES, Choice
    from fptt.report import experiment_tables

    assert isinstance(choice, Choice)
    runs = TABLES[table].runs(choice)
    if variant is not None:
        chosen = [run for run in runs if variant in run.variant]
        if not chosen:
            names = ", ".join(dict.fromkeys(run.variant for run in runs))
            raise InputError(f"--variant is {variant!r}; table {table} has {names}")
        runs = chosen
    file = results / f"{table}.jsonl"
    with progress() as bar:
        line = bar.add_task("", total=len(runs), note="")

        def advance(what: Progress) -> None:
            experiment = what.run.experiment
            if what.row is None:
                bar.update(line, completed=what.done, total=what.total)
                notes.print(
                    f"{what.done} of {what.total}: {what.run.variant}, K={experiment.parts}, "
                    f"seed {experiment.seed} done",
                    markup=False,
                    soft_wrap=True,
                )
                return
            value = what.row.get(what.run.metric)
            shown = (
                "" if value is None else f", {what.run.metric.removeprefix('test_')} {value:.4g}"
            )
            bar.update(
                line,
                completed=what.done,
                total=what.total,
                note=f"{what.run.variant}, K={experiment.parts}, seed {experiment.seed}: epoch "
                f"{what.epoch} of {experiment.epochs}{shown}",
            )

        with interruptible() as interrupted:
            try:
                records = sweep(
                    runs,
                    file,
                    state_dir=state_dir or results / ".state",
                    data_dir=data_dir,
                    workers=workers,
                    dask=dask,
                    on_progress=advance,
                    notice=lambda text: notes.print(text, markup=False, soft_wrap=True),
                    should_stop=interrupted,
                )
            except KeyboardInterrupt:
                raise FpttError("stopped; the same command goes on from here") from None
    if as_json:
        print_json(records)
    else:
        show(TABLES[table].title)
        usable = [record for record in records if unusable(record) is None]
        for record in records:
            if reason := unusable(record):
                setting = record["configuration"]
                what = f"{record['variant']}, K={setting['parts']}, seed {setting['seed']}"
                show(f"left out: {what}: {reason}")
        if usable:
            show(experiment_tables.runs(groups(usable)))


def _speakers(
    data_dir: Path | None,
    quick: bool,
    seed: int,
    checkpoint_dir: Path | None,
    results: Path | None,
    as_json: bool,
) -> None:
    """Six speakers; the full study also goes into the results folder."""
    from fptt.report import tables
    from fptt.studies import fsdd

    with progress() as bar:
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
    if not quick:
        _keep_speakers(rows, results or RESULTS, seed)
    rows.append(fsdd.mean_row(rows))
    if as_json:
        print_json(rows)
    else:
        show(tables.speakers(rows))


def _keep_speakers(rows: list[dict[str, Any]], results: Path, seed: int) -> None:
    """Appends what the results file of the speakers does not hold yet."""
    from fptt.experiments.results import append_result, finished
    from fptt.experiments.speakers import speaker_records
    from fptt.studies.fsdd_recipe import Recipe

    file = results / "fsdd.jsonl"
    records = speaker_records(rows, Recipe(), seed)
    known = {record["key"] for record in finished(file, [r["key"] for r in records])}
    for record in records:
        if record["key"] not in known:
            append_result(file, record)


def _formats(table: str, data_dir: Path | None, quick: bool, seed: int, as_json: bool) -> None:
    from fptt.report import tables
    from fptt.studies import formats

    with progress() as bar:
        line = bar.add_task("", total=1.0, note="")

        def advance(what: str, share: float) -> None:
            bar.update(line, completed=share, note=what)

        if table == "sweep":
            swept = formats.sweep(passes=2 if quick else 100, seed=seed, on_progress=advance)
            document = [row.as_json() for row in swept]
            shown = [tables.sweep(swept)]
        else:
            judged = formats.rows(
                data_dir,
                epochs=1 if quick else 10,
                limit=100 if quick else None,
                seed=seed,
                on_progress=advance,
            )
            adapted = formats.personal(epochs=1 if quick else None, on_progress=advance)
            document = [{"study": "mnist-rows", **row.as_json()} for row in judged]
            document += [{"study": "personalisation", **row.as_json()} for row in adapted]
            shown = [tables.formats(judged), tables.personal_formats(adapted)]
    if as_json:
        print_json(document)
    else:
        for result in shown:
            show(result)


def _small(quick: bool, seed: int, as_json: bool) -> None:
    from fptt.report import tables
    from fptt.studies.demo import DemoSettings
    from fptt.studies.small import QUICK, small

    with progress() as bar:
        line = bar.add_task("", total=1.0, note="")

        def advance(what: str, share: float) -> None:
            bar.update(line, completed=share, note=what)

        rows = small(
            settings=replace(QUICK if quick else DemoSettings(), seed=seed),
            epochs=1 if quick else None,
            on_progress=advance,
        )
    if as_json:
        print_json([row.as_json() for row in rows])
    else:
        show(tables.small(rows))
