"""The RISC-V vector kernels do what the scalar ones do, under qemu and Spike.

tests/c/rvv_check.c runs both on the same random memory and compares it. It is compiled for every
pair of number types and run with several lengths of the vector registers.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RUNTIME = ROOT / "runtime" / "src"
TESTS = ROOT / "tests" / "c"
PICOLIBC = Path("/usr/lib/picolibc/riscv64-unknown-elf/include")

TARGET = ["-mabi=lp64d", "-mcmodel=medany", "-std=c11"]
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
INCLUDE = [f"-I{ROOT / 'runtime' / 'include'}", f"-I{RUNTIME}", f"-I{TESTS}"]
GCC = ["riscv64-unknown-elf-gcc", "--specs=picolibc.specs", "-march=rv64gc", *TARGET]
#: the flags that rvv.h asks for
CLANG = ["clang-19", "--target=riscv64-unknown-elf", "-march=rv64gcv", *TARGET, "-O3"]
CLANG += ["-ffp-contract=off", "-fno-vectorize", "-fno-slp-vectorize", f"-isystem{PICOLIBC}"]
CLANG += ["-mllvm", "-enable-misched=false", "-mllvm", "-disable-lsr"]

VECTOR = ["products", "cells", "updates"]
SCALAR = ["losses", "elementwise", "table"]
ACTIVATIONS, PARAMETERS = "-DFPTT_ACTIVATION_BF16=1", "-DFPTT_PARAMETER_BF16=1"
BUILDS = {
    "float": [],
    "bfloat16-activations": [ACTIVATIONS],
    "bfloat16-parameters": [PARAMETERS],
    "bfloat16": [ACTIVATIONS, PARAMETERS],
    "float-no-pairs": ["-DFPTT_RVV_PAIRS=0"],
}
SIMULATORS = ["qemu-128", "qemu-256", "qemu-1024", "spike-128", "spike-512"]
SPIKE = shutil.which("spike") or shutil.which("spike", path=str(Path(sys.executable).parent))


def _need(program: str, package: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"{program} is missing: {package}")


def _run(*command: object, seconds: int = 300) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, f"{done.args}\n{done.stdout}"
    return done.stdout


class Build:
    """The check with one pair of number types, linked for either simulator."""

    def __init__(self, folder: Path, types: list[str]) -> None:
        self.folder, self.types = folder, types
        flags = [*WARNINGS, *INCLUDE, *types, "-c"]
        exact, fused = [*GCC, "-O2", "-ffp-contract=off"], [*GCC, "-O2", "-ffp-contract=fast"]
        self.vector_objects = []
        for name in VECTOR:
            compiler = fused if name == "products" else exact
            self._compile([*compiler, *flags], RUNTIME / f"{name}.c", "_scalar")
            source = RUNTIME / "rvv" / f"{name}.c"
            self.vector_objects.append(self._compile([*CLANG, *flags], source, "_vector"))
        for name in SCALAR:
            for suffix in ("_scalar", "_vector"):
                self._compile([*exact, *flags], RUNTIME / f"{name}.c", suffix)

    def _compile(self, command: list[str], source: Path, suffix: str) -> Path:
        to = self.folder / f"{source.stem}{suffix}.o"
        _run(*command, f"-DFPTT_SUFFIX={suffix}", source, "-o", to)
        return to

    def link(self, simulator: str, trials: int) -> Path:
        elf = self.folder / f"{simulator}.elf"
        if not elf.exists():
            choice = ["-DBARE_QEMU"] if simulator == "qemu" else []
            link = ["-nostartfiles", "-T", TESTS / "bare_rv64.ld", "-Wl,--no-warn-rwx-segments"]
            sources = [TESTS / "rvv_check.c", TESTS / "bare_rv64.c"]
            flags = [*WARNINGS, *INCLUDE, *self.types, *choice, f"-DTRIALS={trials}"]
            objects = sorted(self.folder.glob("*.o"))
            _run(*GCC, "-O2", *flags, *link, *sources, *objects, "-o", elf)
        return elf


@pytest.fixture(scope="module", params=BUILDS)
def build(request, tmp_path_factory):
    _need("clang-19", "apt-get install clang-19")
    _need("riscv64-unknown-elf-gcc", "apt-get install gcc-riscv64-unknown-elf")
    if not PICOLIBC.exists():
        pytest.skip("picolibc is missing: apt-get install picolibc-riscv64-unknown-elf")
    return Build(tmp_path_factory.mktemp("rvv"), BUILDS[request.param])


def _command(simulator: str, vlen: str, elf: Path) -> list[object]:
    if simulator == "qemu":
        _need("qemu-system-riscv64", "apt-get install qemu-system-misc")
        # lanes that an instruction need not keep become all ones: no kernel may rely on them
        cpu = f"rv64,v=true,vext_spec=v1.0,vlen={vlen},rvv_ta_all_1s=true"
        machine = ["-machine", "virt", "-cpu", cpu]
        options = ["-bios", "none", "-nographic", "-monitor", "none", "-m", "64"]
        return ["qemu-system-riscv64", *machine, *options, "-kernel", elf]
    if not SPIKE:
        pytest.skip("spike is missing: pip install spike")
    isa = "rv64gcv" if vlen == "128" else f"rv64gcv_zvl{vlen}b"
    return [SPIKE, f"--isa={isa}", "-m0x80000000:0x4000000", elf]


@pytest.mark.parametrize("target", SIMULATORS)
def test_vector_kernels_do_what_the_scalar_ones_do(build, target):
    simulator, vlen = target.split("-")
    trials = 30
    command = _command(simulator, vlen, build.folder / f"{simulator}.elf")
    build.link(simulator, trials)
    text = _run(*command)
    assert f"passed {trials}\n" in text
    # the length that was asked for, and the bound on the stack that rvv.h gives
    assert f"vlen {vlen}\n" in text
    stack = int(re.search(r"stack (\d+)\n", text)[1])
    assert 3000 < stack < 4096 + 16 * int(vlen) // 8


def test_vector_kernels_call_nothing_but_kernels_and_memory_functions(build):
    text = _run("riscv64-unknown-elf-nm", "-u", *build.vector_objects)
    names = set(re.findall(r"^\s+U (\w+)$", text, re.MULTILINE))
    assert "fptt_apply_vector" in names
    assert {name for name in names if not name.startswith("fptt_")} <= {"memcpy", "memset"}
