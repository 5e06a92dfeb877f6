"""The commands for results of research: `fptt report`."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from fptt import cli_options as given
from fptt.cli_output import notes, print_json, show

Results = Annotated[
    list[Path], typer.Argument(help="Folders with results, or files *.jsonl of one run a line.")
]
OutPage = Annotated[Path, typer.Option("--out", help="The page to write.")]


def report(
    results: Results,
    out: OutPage = Path("report.html"),
    as_json: given.Json = False,
) -> None:
    """Render results as one HTML page: curves, accuracy against memory, published figures beside.

    The page needs no network: everything is inside. Runs that differ only in their seed are shown
    as mean and standard deviation. An existing file is overwritten only if it is such a page. Needs
    bokeh: pip install 'fptt[report]'.

    JSON: {page, bytes, runs, files, left_out: [note], rows: [{label, table, task, variant, metric,
    rule, parts, extra, configuration, seeds, final: {mean, sd, values}, best: {mean, sd, values},
    best_epochs, seconds: {mean, sd, values}, arena_bytes, curve: [{epoch, mean, low, high, n}],
    network, parameters, steps, train_sequences, test_sequences, panel, published: [{value, text,
    source, setting, difference, note}]}], equal_memory: [{task, metric, parts, arena_bytes, mean,
    sd, seeds, tbptt_parts, tbptt_arena_bytes, tbptt_mean, tbptt_sd, tbptt_interpolated, difference,
    standard_error, threshold, verdict}]}.
    """
    from fptt.experiments.overview import overview
    from fptt.report import page

    page.check_out(out)
    found = overview(results)
    for note in found.notes:
        notes.print(f"warning: {note}", markup=False, soft_wrap=True)
    command = shlex.join(["fptt", "report", *map(str, results), "--out", str(out)])
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    size = page.write_page(found, out, command=command, date=date)
    if as_json:
        print_json({"page": str(out), "bytes": size} | found.as_json())
    else:
        show(f"{out}: {found.runs} runs in {len(found.groups)} rows, {size:,} bytes")
