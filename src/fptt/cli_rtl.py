"""The command for hardware: `fptt rtl`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fptt import cli_options as given
from fptt.cli_output import notes, print_json, progress, show
from fptt.errors import InputError

Component = Annotated[str, typer.Argument(help="What to write: fptt-unit.")]
Lanes = Annotated[int, typer.Option(help="Processing elements, each with a bank.")]
Schedule = Annotated[
    str, typer.Option(help="baseline, pipelined or compact; all: each of them, in one table.")
]
Dtype = Annotated[str, typer.Option(help="float32 or bfloat16.")]
Out = Annotated[Path, typer.Option("--out", help="Folder to write.")]
Depth = Annotated[int, typer.Option(help="Parameters of one lane's bank.")]
Targets = Annotated[
    str | None,
    typer.Option(
        help="What to synthesise for: ecp5, xcup (UltraScale+), osu018 (standard cells), such as "
        "ecp5,xcup.  [default: all that is installed]"
    ),
]
Synthesis = Annotated[
    bool, typer.Option("--synthesis/--no-synthesis", help="Run the tools of synthesis.")
]
Check = Annotated[
    bool,
    typer.Option(
        help="Run one update of all 67,850 parameters through the compiled simulator, and compare "
        "it with the model bit for bit and with the C run time."
    ),
]
Size = Annotated[str, typer.Option(help="ECP5: 25k, 45k or 85k.")]
Speed = Annotated[int, typer.Option(help="Speed grade of the ECP5: 6 (slowest), 7 or 8.")]
Placement = Annotated[int, typer.Option("--seed", help="Of the placement on ECP5.")]
Timeout = Annotated[float, typer.Option(min=1, help="Seconds that one tool may take.")]


def rtl(
    context: typer.Context,
    component: Component,
    out: Out,
    lanes: Lanes = 1,
    schedule: Schedule = "pipelined",
    dtype: Dtype = "float32",
    regularise: given.Regularise = True,
    depth: Depth = 1024,
    synthesis: Synthesis = True,
    targets: Targets = None,
    check: Check = False,
    size: Size = "85k",
    speed: Speed = 6,
    seed: Placement = 1,
    timeout: Timeout = 3600.0,
    as_json: given.Json = False,
) -> None:
    """Write the FPTT unit as Verilog, with a testbench, and say what it takes and how fast it is.

    The folder has the unit behind an AXI4-Lite port (fptt_unit.v), its registers (registers.md), a
    testbench that checks itself with an update of a real training step (fptt_unit_tb.v), and what
    the tools of synthesis wrote (synthesis/). Cycles are those of one update of the published
    67,850-parameter network, beside those of the published system. MHz are those of nextpnr on an
    ECP5; standard-cell area leaves the banks' memories out. With --check it ends with code 1 where
    the unit differs from its model or the C run time.

    JSON: a list of {folder, lanes, schedule, dtype, regularise, depth, interval, latency, cycles,
    milliseconds, files, reports: {ecp5, xcup, osu018: {target, part, lut, ff, dsp, bram, mhz,
    area_um2, gates, memory_bits, cells, seconds, logs}}, check: {parameters, cycles, differences,
    shares_of_bound}}, one for each schedule; null where a target has no such figure, and for check
    where it was not asked for. differences: the largest from the C run time, of param, lam and
    rmean; shares_of_bound: the same as shares of what rounding explains.
    """
    if component != "fptt-unit":
        raise InputError(f"there is no {component!r} to write; give fptt-unit")
    if not synthesis:
        given.without_effect(
            context, "--no-synthesis", ("targets", "size", "speed", "seed", "timeout")
        )

    from fptt.deploy import hardware
    from fptt.report import rtl_tables
    from fptt.rtl.parameters import UnitParameters
    from fptt.rtl.synthesis import Ecp5

    schedules = hardware.SCHEDULES if schedule == "all" else (schedule,)
    parameters = UnitParameters(
        lanes=lanes,
        schedule=schedules[0],  # type: ignore[arg-type]
        dtype=dtype,  # type: ignore[arg-type]
        regularise=regularise,
        depth=depth,
    )
    wanted: tuple[str, ...] = ()
    if synthesis:
        wanted = (
            hardware.available_targets()
            if targets is None
            else tuple(name.strip() for name in targets.split(","))
        )
        if not wanted:
            raise InputError(
                "no tool of synthesis is installed: pip install 'fptt[hardware]', or give "
                "--no-synthesis"
            )
    with progress() as bar:
        line = bar.add_task("", total=None, note="")
        units = hardware.write_units(
            parameters,
            schedules,
            out,
            targets=wanted,
            part=Ecp5(size=size, speed=speed, seed=seed),
            timeout_s=timeout,
            on_step=lambda words: bar.update(line, note=words),
            check=check,
        )
    if as_json:
        print_json([unit.as_json() for unit in units])
        return
    for part in rtl_tables.units(units, hardware.PUBLISHED, hardware.PUBLISHED_MHZ):
        show(part)
    for unit in units:
        if unit.check is not None:
            show(rtl_tables.check(unit.parameters.schedule, unit.check))
    for unit in units:
        notes.print(
            f"{unit.folder}: check it with iverilog -g2012 -o testbench fptt_unit.v "
            "fptt_unit_tb.v && vvp -n testbench",
            soft_wrap=True,
            markup=False,
        )
