"""Compiles and links a program for a target, with the target's port."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from fptt.device.kernels import CFLAGS
from fptt.device.sources import runtime_folder
from fptt.device.targets import Region, Target
from fptt.errors import FpttError, InputError


def build_elf(
    target: Target,
    sources: Sequence[Path],
    elf: Path,
    *,
    includes: Sequence[Path] = (),
    flags: Sequence[str] = (),
    objects: Sequence[Path] = (),
    stack_bytes: int | None = None,
    ram: Region | None = None,
    flash: Region | None = None,
    stack_usage: Path | None = None,
) -> Path:
    """Builds an ELF file, and the linker's map beside it (`.map`).

    Args:
        target: for what.
        sources: C files, and assembly with the suffix `.S`; those of the port are added.
        elf: the file to write.
        includes: folders with headers; that of the port is added.
        flags: for the compiler, after `CFLAGS` and the target's.
        objects: compiled already.
        stack_bytes: size of the stack; the linker script's default if not given.
        ram: where data go, if not to the target's first RAM.
        flash: where code goes, if not to the target's flash.
        stack_usage: folder for the call graphs that `fptt.device.stack` reads (gcc only).

    Returns:
        The file written.

    Raises:
        InputError: the compiler is not installed, or what is given does not fit the memory.
        FpttError: the compiler refuses; the message is its own.
    """
    ports = runtime_folder() / "ports"
    script_folder = str((ports / target.scripts[0]).parent) if target.scripts else "."
    maps = ["-Wl,-Map=" + str(elf.with_suffix(".map"))] if target.scripts else []
    graphs = ["-fcallgraph-info=su", "-dumpdir", f"{stack_usage}/"] if stack_usage else []
    command = [
        target.compiler(),
        *CFLAGS,
        *target.cflags,
        *flags,
        *(f"-I{folder}" for folder in (ports, *includes)),
        *(str(source) for source in sources),
        *(str(ports / name) for name in target.port),
        *(str(path) for path in objects),
        *target.link_flags(stack_bytes=stack_bytes, ram=ram, flash=flash, scripts=script_folder),
        *maps,
        *graphs,
        "-o",
        str(elf),
    ]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        lacking = re.findall(r"region `(\w+)' overflowed by (\d+) bytes", done.stderr)
        if lacking:
            regions = ", ".join(
                f"{name} is {int(size):,} bytes too small" for name, size in lacking
            )
            raise InputError(f"{elf.name} does not fit {target.name}: {regions}")
        raise FpttError(f"building {elf.name} for {target.name} failed: {done.stderr.strip()}")
    return elf
