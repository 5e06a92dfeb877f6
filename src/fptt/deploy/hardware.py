"""The FPTT unit as a folder: Verilog, a testbench on a real training step, reports of synthesis."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fptt.deploy.simulate import simulate_update
from fptt.deploy.update_vectors import published_program, record_update
from fptt.errors import InputError
from fptt.rtl import synthesis
from fptt.rtl.parameters import PUBLISHED_PARAMETERS, ScheduleName, UnitParameters
from fptt.storage.files import write_atomically

if TYPE_CHECKING:
    from fptt.deploy.simulate import WholeUpdate
    from fptt.rtl.synthesis import Report

#: of a folder: what it holds, and the mark by which it is known
DESCRIPTION = "fptt-unit.json"
TOP = "fptt_unit"
SCHEDULES = ("baseline", "pipelined", "compact")
#: parameters of the testbench: those of all tensors, and more than a multiple of any lanes
VECTORS = 257
#: the published system's cycles for one update of the same network, and the clock it is quoted at
PUBLISHED = {
    "published, one core, bfloat16 emulated": 15_300_000,
    "published, ten cores": 2_070_000,
}
PUBLISHED_MHZ = 500.0


@dataclass(frozen=True)
class GeneratedUnit:
    """A unit that was written.

    Attributes:
        parameters: how it is built.
        folder: where its files are.
        files: their names.
        cycles: of one update of the 67,850-parameter network, all in the unit's banks.
        reports: of synthesis, target -> report.
        check: a whole update in the simulator, where it was asked for.
    """

    parameters: UnitParameters
    folder: Path
    files: tuple[str, ...]
    cycles: int
    reports: dict[str, Report]
    check: WholeUpdate | None = None

    @property
    def milliseconds(self) -> float | None:
        """Of one update, at the clock that ECP5 reaches; None without that."""
        report = self.reports.get("ecp5")
        return None if report is None or not report.mhz else self.cycles / report.mhz / 1e3

    def as_json(self) -> dict[str, Any]:
        """The keys that `fptt rtl` documents."""
        p = self.parameters
        return {
            "folder": str(self.folder),
            "lanes": p.lanes,
            "schedule": p.schedule,
            "dtype": p.dtype,
            "regularise": p.regularise,
            "depth": p.depth,
            "interval": p.lane_schedule.interval,
            "latency": p.lane_schedule.latency,
            "cycles": self.cycles,
            "milliseconds": self.milliseconds,
            "files": list(self.files),
            "reports": {name: report.as_json() for name, report in self.reports.items()},
            "check": None if self.check is None else self.check.as_json(),
        }


def available_targets() -> tuple[str, ...]:
    """The targets of synthesis for which all is installed."""
    found = []
    for target in synthesis.TARGETS:
        try:
            synthesis.require(target)
        except InputError:
            continue
        found.append(target)
    return tuple(found)


def write_units(
    parameters: UnitParameters,
    schedules: Sequence[str],
    folder: Path,
    *,
    targets: Sequence[str] = (),
    part: synthesis.Ecp5 | None = None,
    timeout_s: float = 3600.0,
    on_step: Callable[[str], None] = lambda words: None,
    check: bool = False,
) -> list[GeneratedUnit]:
    """Writes one unit, or the same unit with several schedules, each in a folder below.

    Each has: `fptt_unit.v` (AXI4-Lite slave), `fptt_unit_tb.v` with `writes.hex` and
    `expected.hex` (an update of a real training step), `registers.md`, and with targets
    `synthesis/` (scripts, logs, reports of the tools).

    Args:
        parameters: how they are built, but for the schedule.
        schedules: which.
        folder: new, empty, or of an earlier call.
        targets: of `fptt.rtl.synthesis.TARGETS`.
        part: of ECP5.
        timeout_s: seconds that one tool may take.
        on_step: called with a few words before each step.
        check: run a whole update through the simulator of each; see `simulate_update`.

    Raises:
        InputError: another folder's contents, or something is not installed.
        FpttError: a tool failed; its log is named. Or a check failed.
    """
    if check and not parameters.regularise:
        raise InputError(
            "a whole update is checked with R(t); leave out --no-regularise or --check"
        )
    for target in targets:
        synthesis.require(target)
    _claim(folder)
    several = len(schedules) > 1
    units = []
    for name in schedules:
        built = replace(parameters, schedule=cast(ScheduleName, name))
        into = folder / name if several else folder
        into.mkdir(parents=True, exist_ok=True)

        def step(words: str, name: str = name) -> None:
            on_step(f"{name}: {words}")

        unit = write_unit(built, into, step)
        for target in targets:
            unit.reports[target] = synthesis.synthesise(
                into / f"{TOP}.v",
                TOP,
                target,
                into / "synthesis",
                ecp5=part,
                timeout_s=timeout_s,
                on_step=step,
            )
        if check:
            step("a whole update in the simulator")
            done = simulate_update(built, record_update(published_program(built.dtype)))
            done.require_equal()
            unit = replace(unit, check=done)
        units.append(unit)
    described = json.dumps([unit.as_json() for unit in units], indent=1)
    write_atomically(folder / DESCRIPTION, described.encode())
    return units


def write_unit(
    parameters: UnitParameters, folder: Path, on_step: Callable[[str], None] = lambda words: None
) -> GeneratedUnit:
    """Writes the Verilog of one unit and its testbench; see `write_units`.

    Raises:
        InputError: Amaranth is not installed.
    """
    from fptt.rtl.axi import AxiUnit  # first: this one says what is not installed
    from fptt.rtl.registers import markdown
    from fptt.rtl.testbench import TESTBENCH, make_testbench, make_vectors
    from fptt.rtl.unit import cycles

    on_step("Verilog")
    verilog = synthesis.verilog(AxiUnit(parameters), TOP)
    on_step("vectors of a training step")
    step = record_update(published_program(parameters.dtype))
    count = min(VECTORS, parameters.capacity)
    some = np.linspace(0, step.count - 1, count).astype(int)
    numbers = {name: step.bits(values)[some] for name, values in step.before.items()}
    vectors = make_vectors(parameters, numbers, lr=step.lr, alpha=step.alpha)
    texts = {
        f"{TOP}.v": verilog,
        TESTBENCH: make_testbench(parameters, vectors, TOP),
        "registers.md": markdown(parameters) + "\n",
        **vectors.files,
    }
    for name, text in texts.items():
        write_atomically(folder / name, text.encode())
    return GeneratedUnit(
        parameters, folder, tuple(texts), cycles(parameters, PUBLISHED_PARAMETERS), {}
    )


def _claim(folder: Path) -> None:
    """Raises InputError unless the folder is new, empty, or one of ours; marks it as ours."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder for the unit")
    mark = folder / DESCRIPTION
    if not mark.is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(
                f"{folder} has other files in it; name a new folder, or one of an earlier call"
            )
        folder.mkdir(parents=True, exist_ok=True)
        # first: a folder that has it may be written again, should this be stopped
        write_atomically(mark, b"[]\n")
