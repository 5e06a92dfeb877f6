"""The matrix products for machines without vectors: right, small, and as quick as stated.

They are compiled for the host, where the batteries of the engine run on them, and with the cross
compilers of the device, whose programs run under qemu. The assembly for the Cortex-M4 gives the
same bits as the C that it stands for.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from other_engine import ROOT, TYPES, build, environment, run_all

SOURCE = ROOT / "runtime" / "src" / "products_scalar.c"
PROGRAMS = ROOT / "tests" / "c"
INCLUDE = [f"-I{ROOT / path}" for path in ("runtime/include", "runtime/src")]
MATH = ["-std=c11", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
#: see the head of products_scalar.c
QUICK = ["-O2", "-fno-schedule-insns", "-fno-ivopts"]
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]


@dataclass(frozen=True)
class Machine:
    """A cross compiler, what it links bare programs with, and what runs them."""

    prefix: str
    flags: tuple[str, ...]
    link: tuple[str, ...]
    start: str
    emulator: tuple[str, ...]

    def missing(self) -> str:
        """The first tool that is not there."""
        tools = (f"{self.prefix}gcc", self.emulator[0])
        return next((tool for tool in tools if not shutil.which(tool)), "")


SEMIHOSTING = ("-nographic", "-monitor", "none", "-serial", "none", "-semihosting-config")
SEMIHOSTING += ("enable=on,target=native", "-icount")
RISCV = ("virt", "-bios", "none", *SEMIHOSTING, "shift=0", "-kernel")
PICOLIBC = ("--oslib=semihost", "--crt0=hosted")
M4 = ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard")
M4_LINK = ("-nostartfiles", "--specs=nosys.specs")
M4_RUN = ("qemu-system-arm", "-M", "mps2-an386", *SEMIHOSTING, "shift=6", "-kernel")
MACHINES = {
    "rv64": Machine(
        "riscv64-unknown-elf-",
        ("-march=rv64imafdc_zicsr", "-mabi=lp64d", "-mcmodel=medany", "--specs=picolibc.specs"),
        PICOLIBC,
        "riscv",
        ("qemu-system-riscv64", "-M", *RISCV),
    ),
    "rv32": Machine(
        "riscv64-unknown-elf-",
        ("-march=rv32imafc", "-mabi=ilp32f", "--specs=picolibc.specs"),
        PICOLIBC,
        "riscv",
        ("qemu-system-riscv32", "-M", *RISCV),
    ),
    "cortex-m4": Machine("arm-none-eabi-", M4, M4_LINK, "arm", M4_RUN),
    "cortex-m4-c": Machine("arm-none-eabi-", (*M4, "-DFPTT_ASSEMBLY=0"), M4_LINK, "arm", M4_RUN),
}


def machine(name: str) -> Machine:
    found = MACHINES[name]
    if found.missing():
        pytest.skip(f"{found.missing()} is missing")
    return found


def compiler(found: Machine) -> list[str]:
    return [f"{found.prefix}gcc", *found.flags, *INCLUDE, *MATH]


def run_on(folder: Path, name: str, program: str, types: Sequence[str] = ()) -> list[str]:
    """Compiles a program with the products, runs it under the emulator; the lines it prints."""
    found, binary = machine(name), folder / f"{name}.elf"
    bare = [PROGRAMS / f"bare_{found.start}.c", "-T", PROGRAMS / f"bare_{found.start}.ld"]
    sources = [PROGRAMS / program, SOURCE, *bare]
    said = run_all([[*compiler(found), *QUICK, *types, *found.link, *sources, "-o", binary]])
    assert said == []
    done = subprocess.run(
        [*found.emulator, str(binary)], capture_output=True, text=True, timeout=60
    )
    return (done.stdout + done.stderr).splitlines()


# -- right ---------------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is missing")
def test_the_batteries_of_the_engine(tmp_path):
    engine = build(tmp_path, ["-O1"], instead={"products": "products_scalar"})
    tests = [str(ROOT / "tests" / f"test_native_{name}.py") for name in ("ops", "programs")]
    options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist"]
    options += ["-k", "not ctrl_c"]  # starts a child, with the engine that is installed
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-p", "other_engine", *tests],
        env=environment(FPTT_ENGINE=str(engine), FPTT_HYPOTHESIS="quick"),
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize("cc", [name for name in ("gcc", "clang") if shutil.which(name)])
def test_every_odd_size_on_the_host(cc, types, tmp_path):
    """With sanitizers, where gcc has them."""
    start = tmp_path / "start.c"
    start.write_text(
        "#include <stdio.h>\nint run(void); void say(const char *text);\n"
        "void say(const char *text) { fputs(text, stdout); }\nint main(void) { return run(); }\n"
    )
    program = tmp_path / "products"
    sources = [PROGRAMS / "products.c", SOURCE, start]
    command = [cc, *INCLUDE, *MATH, *WARNINGS, *TYPES[types], "-O1", *sources, "-o", program]
    sanitize = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    if cc == "clang" or run_all([[*command, *sanitize]]):
        assert run_all([command]) == []
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=60)
    assert re.fullmatch(r"ok \d+\n", done.stdout), done.stdout + done.stderr


@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize("name", ["rv64", "rv32", "cortex-m4"])
def test_every_odd_size_on_the_device(name, types, tmp_path):
    (line,) = run_on(tmp_path, name, "products.c", TYPES[types])
    assert re.fullmatch(r"ok \d+", line), line


def test_assembly_gives_the_same_bits(tmp_path):
    assert run_on(tmp_path, "cortex-m4", "products.c") == run_on(
        tmp_path, "cortex-m4-c", "products.c"
    )


# -- what the compiler says, and makes -----------------------------------------------------------


@pytest.mark.parametrize("name", MACHINES)
def test_no_warning(name, tmp_path):
    found = machine(name)
    strict = [*compiler(found), *WARNINGS, "-c", SOURCE]
    commands = [
        [*strict, *flags, *types, "-o", tmp_path / f"{number}{flags[0]}.o"]
        for number, types in TYPES.items()
        for flags in (QUICK, ["-Os"], ["-O0"])
    ]
    assert run_all(commands) == []


@pytest.mark.parametrize("name", MACHINES)
def test_little_code_and_stack(name, tmp_path):
    found, made = machine(name), tmp_path / "products.o"
    assert run_all([[*compiler(found), *QUICK, "-fstack-usage", "-c", SOURCE, "-o", made]]) == []
    done = subprocess.run(
        [f"{found.prefix}size", str(made)], capture_output=True, text=True, check=True
    )
    text, data, bss = map(int, done.stdout.splitlines()[1].split()[:3])
    assert text <= 12 * 1024 and data == bss == 0
    frames = {}
    for line in made.with_suffix(".su").read_text().splitlines():
        where, size, kind = line.split("\t")
        assert kind == "static"
        frames[where.split(":")[-1]] = int(size)
    # with what a block of it takes besides
    assert frames["fptt_gradient_update"] + frames["gradient_block"] <= 1900
    assert all(size <= 512 for name, size in frames.items() if not name.startswith("fptt_gradient"))


#: instructions for a multiply-add at batch 1 and 4: forward, backward, gradient
BARS = {
    "rv64": {1: (2.25, 2.25, 1.72), 4: (1.60, 1.60, 1.65)},
    "rv32": {1: (2.25, 2.25, 1.72), 4: (1.60, 1.62, 1.65)},
    "cortex-m4": {1: (1.30, 1.22, 1.37), 4: (1.35, 1.36, 1.30)},
    "cortex-m4-c": {1: (2.25, 2.27, 1.72), 4: (1.66, 1.55, 1.65)},
}


@pytest.mark.parametrize("name", MACHINES)
def test_few_instructions(name, tmp_path):
    found: dict[int, list[float]] = {1: [], 4: []}
    for line in run_on(tmp_path, name, "products_count.c"):
        _, batch, count, products = line.split()
        found[int(batch)].append(int(count) / int(products))
    for batch, bars in BARS[name].items():
        assert len(found[batch]) == 3
        assert all(a <= b for a, b in zip(found[batch], bars, strict=True)), found
