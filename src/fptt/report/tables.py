"""Tables for the terminal. Rendering only: every number comes from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from fptt.published import SEEDS_MEMORY_TOTAL, SEEDS_TIME

if TYPE_CHECKING:
    from fptt.planning import MemoryComparison, PlanRow, WorkComparison
    from fptt.studies.demo import DemoRow
    from fptt.studies.formats import PersonalRow, RowsRow, SweepRow
    from fptt.studies.small import SmallRow


def plain_table(title: str, *columns: str, left: int = 1) -> Table:
    """A plain table; the first `left` columns are aligned left, numbers right."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", no_wrap=True)
    return table


def _columns(rows: Sequence[PlanRow]) -> list[str]:
    """A column for every row of the plan; what tells rows apart is named where there are several.

    Of rows with and without gates that are computed again, those with are called so.
    """
    several = len({(row.rule, row.source) for row in rows}) > 1
    again = any(row.recompute for row in rows)
    return [
        f"{row.rule if row.source == 'bptt' else row.source}\n" * several
        + f"K={row.parts}"
        + ("\nrecompute" if row.recompute else "\n") * again
        for row in rows
    ]


def memory_sweep(rows: Sequence[PlanRow]) -> Table:
    """Bytes by category, one column for each K."""
    table = plain_table("Training memory in bytes", "category", *_columns(rows))
    names = [name for name in rows[0].memory_bytes if any(row.memory_bytes[name] for row in rows)]
    for name in names:
        table.add_row(name.replace("_", " "), *(f"{row.memory_bytes[name]:,}" for row in rows))
    table.add_section()
    table.add_row("total", *(f"{row.total_bytes:,}" for row in rows), style="bold")
    return table


def work_single(row: PlanRow) -> Table:
    """Work by function class for one K."""
    table = plain_table(
        f"Work of one pass over a full batch, K={row.parts}",
        "function",
        "mul",
        "add",
        "transcendental",
        "bytes moved",
    )
    total = sum(row.work.values(), start=type(next(iter(row.work.values())))())
    for name, work in [*row.work.items(), ("total", total)]:
        table.add_row(
            name,
            f"{work.mul:,}",
            f"{work.add:,}",
            f"{work.trans:,}",
            f"{work.bytes:,}",
            style="bold" if name == "total" else None,
        )
    return table


def work_sweep(rows: Sequence[PlanRow]) -> Table:
    """Millions of operations by function class, one column for each K."""
    table = plain_table(
        "Work of one pass over a full batch, in millions of operations (mul + add + "
        "transcendental)",
        "function",
        *_columns(rows),
    )
    for name in rows[0].work:
        works = [row.work[name] for row in rows]
        table.add_row(name, *(f"{(w.mul + w.add + w.trans) / 1e6:,.3f}" for w in works))
    moved = [sum(work.bytes for work in row.work.values()) for row in rows]
    table.add_section()
    table.add_row("million bytes", *(f"{size / 1e6:,.3f}" for size in moved))
    return table


def seeds_memory(rows: Sequence[MemoryComparison]) -> Table:
    """The seeds' memory estimate beside the exact bytes."""
    table = Table(
        title="Memory of 1-128-10, T=784, K=28, batch 100, float32, SGD",
        title_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
    )
    for name in ("seeds", "printed", "their formula", "fptt"):
        table.add_column(name, justify="left" if name == "seeds" else "right", no_wrap=True)
    table.add_column("why they differ")
    for row in rows:
        table.add_row(
            row.name,
            row.printed,
            f"{row.formula_bytes:,}" if row.formula_bytes else "-",
            f"{row.ours_bytes:,}",
            row.why,
        )
    table.add_section()
    table.add_row(
        "total",
        SEEDS_MEMORY_TOTAL,
        f"{sum(row.formula_bytes for row in rows):,}",
        f"{sum(row.ours_bytes for row in rows):,}",
        "the last is exact: the arena",
        style="bold",
    )
    return table


def seeds_work(rows: Sequence[WorkComparison]) -> Table:
    """The seeds' operation counts beside ours."""
    table = Table(
        title="Operations of one epoch of S-MNIST (60,000 images) in units of 1e9: "
        "MUL/DIV, ADD/SUB, non-linear",
        title_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
    )
    for name in ("block", "seeds", "fptt"):
        table.add_column(name, justify="left" if name == "block" else "right", no_wrap=True)
    table.add_column("why they differ")
    for row in rows:
        table.add_row(
            row.block,
            "  ".join(f"{value:.1f}" for value in row.seeds),
            "  ".join(f"{value:.1f}" for value in row.ours),
            row.why,
        )
    return table


def demo(rows: Sequence[DemoRow]) -> Table:
    """The demo's result: the accuracies before and after, the exact memory, the time."""
    table = plain_table(
        "LSTM 1-128-10, pixel by pixel (T=784), goes on learning from a new user, batch "
        "4; memory in bytes",
        "rule",
        "K",
        "new user",
        "old test set",
        "rate",
        "updates",
        "activations",
        "in all",
        "a sequence",
        "time",
    )
    first = rows[0]
    table.add_row(
        "before",
        "",
        f"{100 * first.new_before:.1f} %",
        f"{100 * first.old_before:.1f} %",
        *[""] * 6,
    )
    for row in rows:
        table.add_row(
            row.rule,
            str(row.parts),
            f"{100 * row.new_after:.1f} %",
            f"{100 * row.old_after:.1f} %",
            f"{row.lr:g}",
            f"{row.updates:,}",
            f"{row.memory_bytes['activation']:,}",
            f"{row.arena_bytes:,}",
            f"{1000 * row.seconds_per_sequence:.1f} ms",
            f"{row.seconds:.1f} s",
        )
    return table


def speakers(rows: Sequence[dict[str, Any]]) -> Table:
    """The study of speakers: accuracies in percent, and the mean over the speakers."""
    columns = {
        "before": "base_accuracy",
        "after": "tuned_accuracy",
        "without R(t)": "control_accuracy",
        "own data only": "own_only_accuracy",
        "others before": "others_accuracy_before",
        "others after": "others_accuracy_after",
    }
    table = plain_table(
        "Accuracy in percent on a speaker whom the model had not heard, before and after "
        "fine-tuning by FPTT",
        "speaker",
        *columns,
        "bytes",
        "without R(t)",
        "time",
    )
    for row in rows:
        table.add_row(
            row["speaker"],
            *(f"{100 * row[name]:.1f}" for name in columns.values()),
            f"{row['tune_memory_bytes']:,}",
            f"{row['control_memory_bytes']:,}",
            f"{row['seconds']:.1f} s",
            style="bold" if row["speaker"] == "mean" else None,
        )
    return table


def sweep(rows: Sequence[SweepRow]) -> Table:
    """The sweep over K: one line a K, the formats side by side."""
    names = list(dict.fromkeys(row.format for row in rows))
    short = [name.removeprefix("bfloat16 ") for name in names]
    table = plain_table(
        "Four images of S-MNIST, a pixel a step, FPTT: loss over the parts of the last pass, "
        "training memory, time of a pass; bfloat16 rounded to nearest and stochastically",
        "K",
        *(f"loss {name}" for name in short),
        *(f"bytes {name}" for name in (short[0], "bfloat16")),
        *(f"ms {name}" for name in short),
        left=0,
    )
    for k in dict.fromkeys(row.parts for row in rows):
        found = {row.format: row for row in rows if row.parts == k}
        table.add_row(
            str(k),
            *("NaN" if (loss := found[n].loss) is None else f"{loss:.4f}" for n in names),
            *(f"{found[n].arena_bytes:,}" for n in names[:2]),
            *(f"{1e3 * found[n].seconds:.1f}" for n in names),
        )
    return table


def formats(rows: Sequence[RowsRow]) -> Table:
    """MNIST by rows in three number formats."""
    table = plain_table(
        "MNIST by rows, FPTT with K = 4: accuracy on the test images",
        "format",
        "best",
        "last epoch",
        "bytes",
        "time",
    )
    for row in rows:
        table.add_row(
            row.format,
            f"{100 * max(row.accuracy):.2f} %",
            f"{100 * row.accuracy[-1]:.2f} %",
            f"{row.arena_bytes:,}",
            f"{row.seconds:.1f} s",
        )
    return table


def personal_formats(rows: Sequence[PersonalRow]) -> Table:
    """The demo's personalisation in three number formats."""
    table = plain_table(
        "Personalisation as in the demo: accuracy on the new user's digits and on the old test set",
        "K",
        "format",
        "new before",
        "new after",
        "old before",
        "old after",
        "bytes",
        "time",
        left=2,
    )
    for row in rows:
        shares = (row.new_before, row.new_after, row.old_before, row.old_after)
        table.add_row(
            str(row.parts),
            row.format,
            *(f"{100 * share:.1f} %" for share in shares),
            f"{row.arena_bytes:,}",
            f"{row.seconds:.1f} s",
        )
    return table


def small(rows: Sequence[SmallRow]) -> Table:
    """Small training: one line a way, the formats side by side; first what was before."""
    names = list(dict.fromkeys(row.format for row in rows))
    short = [name.removesuffix(" stochastic") for name in names]
    first = rows[0]
    table = plain_table(
        "LSTM 1-128-10, pixel by pixel (T=784), goes on learning from a new user by FPTT: what "
        "training costs in bytes, and the accuracy on the new user's digits and the old test set",
        *("trains", "gates", "K", "batch", "numbers", "rate", "updates"),
        *(f"{what}\n{name}" for what in ("arena", "constant", "new", "old") for name in short),
        "time",
        left=2,
    )
    table.add_row(
        *("before", *[""] * (6 + 2 * len(names))),
        *[f"{100 * first.new_before:.1f} %"] * len(names),
        *[f"{100 * first.old_before:.1f} %"] * len(names),
        "",
    )
    for low in range(0, len(rows), len(names)):
        way = rows[low : low + len(names)]
        one = way[0]
        table.add_row(
            *(one.trains, "again" if one.recompute else "kept", str(one.parts), str(one.batch)),
            *(f"{one.trained:,}", f"{one.lr:g}", f"{one.updates:,}"),
            *(f"{row.arena_bytes:,}" for row in way),
            *(f"{row.const_bytes:,}" for row in way),
            *(f"{100 * row.new_after:.1f} %" for row in way),
            *(f"{100 * row.old_after:.1f} %" for row in way),
            f"{sum(row.seconds for row in way):.1f} s",
        )
    return table


def history(rows: Sequence[dict[str, float]], title: str) -> Table:
    """One line per epoch."""
    names = list(rows[0])
    table = plain_table(title, *(name.replace("_", " ") for name in names), left=0)
    for row in rows:
        table.add_row(
            *(f"{row[name]:.0f}" if name == "epoch" else f"{row[name]:.4g}" for name in names)
        )
    return table


def _case(row: dict[str, Any]) -> tuple[str, str, str]:
    """Network, batch and K of what was measured."""
    widths = [row["inputs"], *[row["hidden"]] * row["layers"], row["outputs"]]
    network = f"{row['cell']} {'-'.join(map(str, widths))}"
    return network, str(row["batch"]), str(row["parts"])


def _shared(row: dict[str, Any]) -> str:
    """What all measured cases have in common."""
    optimizer = row["optimizer"] + f", momentum {row['momentum']:g}" * (row["optimizer"] == "sgd")
    threads = f"{row['threads']} thread" + "s" * (row["threads"] > 1)
    return f"{row['rule']}, {optimizer}, T={row['steps']}, float32, {threads}"


def _ms(seconds: float | None) -> str:
    """Milliseconds with three digits."""
    if seconds is None:
        return "-"
    value = 1e3 * seconds
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def bench(rows: Sequence[dict[str, Any]]) -> list[Table | str]:
    """Time beside the peers, by block, and the floor, each with how it was measured."""
    fewest = min(row["rounds"] for row in rows)
    return [
        bench_speed(rows),
        f"Medians of at least {fewest} rounds in turns. ratio: the peer's time to fptt's. of peak: "
        "of a loop of multiply-adds in registers (peak), measured in the same rounds.",
        bench_blocks(rows),
        "A clock stands around the routines, in a twin of the program that keeps its gradients: "
        "the program itself computes weight gradients in its updates; here they count as backward.",
        bench_floor(rows),
        "Matrix products at the peak; the weights read once a step, and the state of learning read "
        "and written once a part, at the speeds of the caches measured in the same rounds. "
        "forward, backward, update: floor / measured; here the update computes weight gradients.",
    ]


def bench_speed(rows: Sequence[dict[str, Any]]) -> Table:
    """Milliseconds of training one batch, and how many times those of fptt a peer takes."""
    torch = any(row["torch_s"] is not None for row in rows)
    jax = any(row["jax_s"] is not None for row in rows)
    columns = ["fptt", "quartiles"]
    columns += ["nn module", "ratio", "best PyTorch", "ratio", "form"] * torch
    columns += ["JAX", "ratio"] * jax
    table = plain_table(
        f"Training one batch, in ms; {_shared(rows[0])}, {rows[0]['isa']}",
        *("network", "batch", "K", *columns, "GFLOP/s", "peak", "of peak"),
    )
    for row in rows:
        quartiles = f"{_ms(row['fptt_low_s'])}-{_ms(row['fptt_high_s'])}"
        cells = [_ms(row["fptt_s"]), quartiles]
        if torch:
            cells += [_ms(row["torch_s"]), _ratio(row["ratio"])]
            cells += [_ms(row["torch_best_s"]), _ratio(row["best_ratio"]), row["torch_form"] or "-"]
        if jax:
            cells += [_ms(row["jax_s"]), _ratio(row["jax_ratio"])]
        table.add_row(
            *_case(row),
            *cells,
            f"{row['gflops']:.1f}",
            f"{row['peak_gflops']:.1f}",
            f"{100 * row['peak_share']:.1f} %",
        )
    return table


def bench_blocks(rows: Sequence[dict[str, Any]]) -> Table:
    """Percent of the time in each block, beside the seeds' figures where the rule is FPTT."""
    fptt = rows[0]["rule"] == "fptt"
    table = plain_table(
        "Time by block, in percent",
        *("network", "batch", "K", "FPTT logic" if fptt else "update", "forward", "backward"),
    )
    for row in rows:
        shares = (row["logic_share"], row["forward_share"], row["backward_share"])
        table.add_row(*_case(row), *(f"{100 * share:.2f}" for share in shares))
    if fptt:
        table.add_section()
        table.add_row("the seeds", "", "", *(f"{share:.2f}" for share in SEEDS_TIME.values()))
    return table


def bench_floor(rows: Sequence[dict[str, Any]]) -> Table:
    """The least time for what must be computed and moved, beside the time taken."""
    routines = ("forward", "backward", "update")
    table = plain_table(
        "Floor: the least work of a part, and the ms that it takes in one batch",
        *("network", "batch", "K", "MFLOP", "KB read", "KB rewritten"),
        *("floor", "fptt", "gap", "of fptt", *routines),
    )
    for row in rows:
        table.add_row(
            *_case(row),
            f"{row['part_flop'] / 1e6:,.1f}",
            f"{row['part_read_bytes'] / 1e3:,.0f}",
            f"{row['part_rewritten_bytes'] / 1e3:,.0f}",
            _ms(row["floor_s"]),
            _ms(row["fptt_s"]),
            _ms(row["fptt_s"] - row["floor_s"]),
            f"{100 * row['floor_share']:.0f} %",
            *(f"{_ms(row[f'{name}_floor_s'])} / {_ms(row[f'{name}_s'])}" for name in routines),
        )
    return table


def bench_memory(rows: Sequence[dict[str, Any]]) -> list[Table | str]:
    """Bytes of a process that trains, and what they consist of."""
    names = ("import", "arena", "data", "over", "peak")
    table = plain_table(
        f"Most memory of a process that trains, in bytes; {_shared(rows[0])}",
        *("network", "batch", "K", *names),
    )
    for row in rows:
        table.add_row(*_case(row), *(f"{row[f'{name}_bytes']:,}" for name in names))
    return [
        table,
        "import: a process that does no more than `import fptt`. over: the peak less import, arena "
        "and data; the bar is 30,000,000.",
    ]
