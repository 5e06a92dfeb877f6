"""Tables about devices for the terminal. Rendering only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from fptt.report.tables import plain_table

if TYPE_CHECKING:
    from fptt.deploy.budget import Budget, Configuration
    from fptt.deploy.run import Report


def run(report: Report) -> Iterator[Table | str]:
    """What a run under an emulator showed."""
    worst = report.largest_parameter_difference
    yield (
        f"{report.sequences} sequences, {report.updates} updates on {report.emulator} "
        f"({report.seconds:.1f} s): {report.status}"
    )
    table = plain_table("Device against host", "tensor", "||a - b|| / ||b||")
    for difference in report.differences:
        table.add_row(difference.name, f"{difference.relative:.1e}")
    yield table
    yield (
        f"the parameter farthest from the host's is {worst.name}: {worst.relative:.1e} "
        f"(rounding explains {report.tolerance:.2g})"
    )
    if report.losses:
        yield (
            f"loss of the first part {report.losses[0]:.4f} (host {report.host_losses[0]:.4f}), of "
            f"the last {report.losses[-1]:.4f} (host {report.host_losses[-1]:.4f}), largest "
            f"{max(report.losses):.4f}"
        )
    if report.instructions:
        per = report.instructions_per_multiply_add
        yield (
            f"instructions {report.instructions:,}, multiply-adds {report.multiply_adds:,}: "
            f"{per:.3f} instructions per multiply-add, everything included"
        )
    if report.classes:
        title = "Instructions of one batch (counting them adds one or two percent)"
        table = plain_table(title, "function", "instructions", "share")
        total = sum(report.classes.values())
        for name, count in report.classes.items():
            if count:
                table.add_row(name, f"{count:,}", f"{count / total:.1%}")
        table.add_section()
        table.add_row("total", f"{total:,}", "")
        yield table
        if report.updates and not report.classes.get("EWO-SGD"):
            yield "updates are in MatMul-3 and Mat2Vec: these kernels apply gradients as they go"
    table = plain_table("Memory in bytes", "what", "planned", "linked or measured")
    table.add_row("arena", f"{report.arena_bytes:,}", "")
    linked = f"{report.linked_ram_bytes:,}" if report.linked_ram_bytes else "-"
    table.add_row("arena and handle", f"{report.ram_bytes:,}", linked)
    table.add_row(
        "stack: bound, high-water mark", f"{report.stack_bound:,}", f"{report.stack_bytes:,}"
    )
    if report.flash_bytes:
        table.add_row("flash of the check program", "", f"{report.flash_bytes:,}")
    yield table
    yield "one byte less than it needs: " + (
        "refused" if report.refuses_one_byte_less else "NOT refused"
    )


def bench(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Table | str]:
    """What `fptt bench --device` counted."""
    if found["training"]:
        yield _training(found["training"])
        yield (
            "Everything counts: activations, updates, the loop over the steps. Divided "
            "by 4H(I+H) multiply-adds forward and 4HH + 4H(I+H) backward a step and sequence; "
            "program: by those that it executes, with the readout, without dh at a part's first "
            "step. update: of one parameter."
        )
    if found["functions"]:
        yield _functions(found["functions"])
        yield (
            "A loop over an array: loads, stores, the loop and the call count. update: FPTT around "
            "plain SGD, a parameter. plain_product: the naive code, a multiply-add."
        )
    if found["vectors"]:
        yield _vectors(found["vectors"])
        yield (
            "One part, on Spike. A beat is 128 bits of one operand: an instruction on a group of "
            "LMUL registers takes LMUL beats, whatever its length; a scalar one takes one."
        )
    if found["rocket"]:
        yield _rocket(found["rocket"])


def _training(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = plain_table(
        "Training one batch with FPTT, LSTM 1-H-10",
        *("target", "H", "T", "K", "batch", "instructions", "multiply-adds", "program's"),
        *("per multiply-add", "of the program's", "bar", "", "update"),
    )
    for row in rows:
        table.add_row(
            row["target"],
            *(str(row[name]) for name in ("hidden", "steps", "parts", "batch")),
            *(f"{row[n]:,}" for n in ("instructions", "multiply_adds", "program_multiply_adds")),
            f"{row['per_multiply_add']:.3f}",
            f"{row['per_program_multiply_add']:.3f}",
            *_verdict(row),
            f"{row['update_per_parameter']:.2f}" if row["update_per_parameter"] else "-",
        )
    return table


def _functions(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = plain_table(
        "Instructions by element",
        *("target", "function", "elements", "instructions", "each", "bar", "", "published cycles"),
        left=2,
    )
    for row in rows:
        cycles = row["published_cycles"]
        table.add_row(
            row["target"],
            row["function"],
            f"{row['elements']:,}",
            f"{row['instructions']:,}",
            f"{row['per_element']:.2f}",
            *_verdict(row),
            "-" if cycles is None else f"{cycles:.0f}",
        )
    return table


def _vectors(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Functions that matter, and the sums."""
    table = plain_table(
        "RISC-V vectors of 128 bits, one part",
        *("function", "H", "T", "batch", "instructions", "of vectors", "beats"),
        *("instructions/multiply-add", "beats/multiply-add"),
    )
    for row in rows:
        total = row["function"] == "all"
        if not total and row["beats_per_multiply_add"] < 0.001:
            continue
        table.add_row(
            row["function"],
            *(str(row[name]) for name in ("hidden", "steps", "batch")),
            *(f"{row[name]:,}" for name in ("instructions", "vector_instructions", "beats")),
            f"{row['instructions_per_multiply_add']:.4f}",
            f"{row['beats_per_multiply_add']:.4f}",
            end_section=total,
        )
    return table


def _rocket(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = plain_table(
        "One Rocket core at 500 MHz without accelerator, batch 4",
        *("cycles per instruction", "", "K", "instructions", "seconds", "published", "ratio"),
        left=2,
    )
    for row in rows:
        table.add_row(
            f"{row['cycles_per_instruction']:.2f}",
            row["source"],
            str(row["parts"]),
            f"{row['instructions']:,}",
            f"{row['seconds']:.2f}",
            f"{row['published_seconds']:.2f}",
            f"{row['published_seconds'] / row['seconds']:.1f}",
        )
    return table


def _verdict(row: Mapping[str, Any]) -> tuple[str, str]:
    """The bar, and whether it is met."""
    if row["bar"] is None:
        return "-", ""
    return f"{row['bar']:g}", "pass" if row["met"] else "miss"


def budget(found: Budget, lines: int) -> Iterator[Table | str]:
    """What fits a device, the best first; of nothing, what comes nearest."""
    limits = [
        f"{name} {limit:,} bytes"
        for name, limit in (("RAM", found.ram), ("flash", found.flash))
        if limit is not None
    ]
    yield f"{found.net} on {found.target}: {', '.join(limits) or 'no limit given'}"
    if not found.fits:
        nearest = [found.nearest] if found.nearest else []
        yield _configurations(found, nearest, "Nothing fits; the nearest", {})
        return
    first, best = list(found.fits[:lines]), _best_of_each(found.fits)
    letters = _letters([*first, *best])
    yield _configurations(found, first, "What fits, best first", letters)
    rest = len(found.fits) - len(first)
    fit = f"{len(found.fits)} of {found.tried} configurations fit"
    yield fit + (f"; {rest} more are in --json, or with --lines {len(found.fits)}" if rest else "")
    if rest:
        yield _configurations(found, best, "The best of each way to train", letters)
    for text, letter in letters.items():
        yield f"  {letter}  {text}"
    yield f"The first line: {first[0].export(found.target)}"
    yield from _sources(found, first)


def _best_of_each(fits: Sequence[Configuration]) -> list[Configuration]:
    """The first one of every way to train and number type."""
    best: dict[tuple[str, str, bool], Configuration] = {}
    for one in fits:
        best.setdefault((one.trains, one.dtype, one.recompute), one)
    return list(best.values())


def _letters(shown: Sequence[Configuration]) -> dict[str, str]:
    """A letter for everything that is given up."""
    texts = dict.fromkeys(text for one in shown for text in one.given_up)
    return dict(zip(texts, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", strict=False))


def _configurations(
    found: Budget, shown: Sequence[Configuration], title: str, letters: Mapping[str, str]
) -> Table:
    time = ["a sequence"] if found.clock else []
    table = plain_table(
        title,
        *("K", "batch", "type", "trains", "saves", "RAM", "arena", "flash", "code", "slots"),
        *("instructions", *time, "given up"),
    )
    for one in shown:
        seconds = []
        if one.seconds:
            seconds = [f"{_seconds(one.seconds[0])} ({_range(*one.seconds[1:])})"]
        table.add_row(
            str(one.parts),
            str(one.batch),
            one.dtype,
            one.trains + (", recomputed" if one.recompute else ""),
            one.saves,
            f"{one.ram_bytes:,}",
            f"{one.arena_bytes:,}",
            f"{one.flash_bytes:,}",
            f"{one.code_bytes:,}",
            f"{one.snapshot_bytes:,}",
            f"{one.instructions.value / 1e6:,.1f} M \u00b1 {one.instructions.band:.0%}",
            *seconds,
            (" " if letters else "; ").join(letters.get(text, text) for text in one.given_up)
            or "nothing",
        )
    return table


def _sources(found: Budget, shown: Sequence[Configuration]) -> Iterator[str]:
    stacks = sorted({one.stack_bytes for one in shown})
    stack = " to ".join(f"{n:,}" for n in (stacks[0], stacks[-1])[: len(stacks)])
    yield f"RAM: arena and handle, which are exact, and a bound of {stack} bytes for the stack."
    yield (
        "Flash: code (an upper bound: startup, run time, model; not your application), weights, "
        f"and both slots of a save in blocks of {found.part.erase:,} bytes, written by "
        f"{found.part.write}."
    )
    yield (
        f"A block rated for {found.part.endurance:,} erases bears {found.part.saves:,} saves: "
        "each erases one of the two slots."
    )
    yield (
        f"Instructions of one sequence: {found.source}; the band holds every network that was "
        "counted, left out of the fit."
    )
    if found.clock:
        cycles = found.cycles
        band = "" if cycles.low == cycles.high else f" ({cycles.low:g} to {cycles.high:g})"
        yield (
            f"Time: at {found.clock / 1e6:g} MHz and {cycles.expected:g}{band} cycles per "
            f"instruction, assumed: {cycles.why}."
        )
    guessed = sorted({name for one in shown for name in one.instructions.unmeasured})
    if guessed:
        yield f"Never counted, and guessed from their work: {', '.join(guessed)}."


def _seconds(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f} s"
    return f"{value:.3g} s" if value >= 0.1 else f"{value * 1e3:.3g} ms"


def _range(low: float, high: float) -> str:
    if low >= 0.1:
        return f"{low:.3g} to {_seconds(high)}"
    return f"{_seconds(low)} to {_seconds(high)}"
