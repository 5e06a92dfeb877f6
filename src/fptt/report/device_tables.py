"""Tables about devices for the terminal. Rendering only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table

from fptt.report.tables import plain_table

if TYPE_CHECKING:
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
        f"(rounding explains {report.tolerance:g})"
    )
    if report.losses:
        yield (
            f"loss of the first part {report.losses[0]:.4f} (host {report.host_losses[0]:.4f}), of "
            f"the last {report.losses[-1]:.4f} (host {report.host_losses[-1]:.4f})"
        )
    if report.instructions:
        per = report.instructions_per_multiply_add
        yield (
            f"instructions {report.instructions:,}, multiply-adds {report.multiply_adds:,}: "
            f"{per:.3f} instructions per multiply-add, everything included"
        )
    if report.classes:
        table = plain_table("Instructions of one batch", "function", "instructions", "share")
        total = sum(report.classes.values())
        for name, count in report.classes.items():
            if count:
                table.add_row(name, f"{count:,}", f"{count / total:.1%}")
        table.add_section()
        table.add_row("total", f"{total:,}", "")
        yield table
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
