"""runtime/src/mve: the Cortex-M55's vector kernels against the scalar ones, on an emulated one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "runtime" / "src"
PROGRAM = ROOT / "tests" / "c" / "mve_kernels.c"
MEMORY = ROOT / "tests" / "c" / "mps3_an547.ld"
GCC, QEMU = "arm-none-eabi-gcc", "qemu-system-arm"
COMPILERS = {"clang": "clang-19", "gcc": GCC}
FAMILIES = ("products", "cells", "updates")

#: what the files of runtime/src/mve need; those of runtime/src get +nomve, see target()
FLAGS = [
    *("-mthumb", "-mfloat-abi=hard", "-O2", "-std=c11", "-fno-math-errno", "-fno-trapping-math"),
    *("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"),
]

#: (file, what stands there, what stands there instead)
MUTATIONS = [
    ("products", "and %[n], %[n], #3", "and %[n], %[n], #2"),
    ("products", '"vfma.f32 %q[s6], q7, r12\\n"', '"vfma.f32 %q[s6], q7, r10\\n"'),
    ("products", '"vldrw.32 q7, [%[w], #80]\\n"', '"vldrw.32 q7, [%[w], #64]\\n"'),
    ("products", "lanes_of(to->rows)", "lanes_of(4)"),
    ("products", "begun ? y : start", "start"),
    ("products", "if (of->n % 4)", "if (0)"),
    ("products", "if (of->n & 1)", "if (0)"),
    ("products", "FPTT_MVE_INNER - some", "FPTT_MVE_INNER"),
    ("products", "last - done - rows : first", "last - done - 1 : first"),
    ("products", "least(cols - column, 3)", "3"),
    (
        "cells",
        "vcmpltq_n_s32(vreinterpretq_s32_f32(x), 0)",
        "vcmpgtq_n_s32(vreinterpretq_s32_f32(x), 0)",
    ),
    ("cells", "fptt_bits(FPTT_EXP_MIN) +", "fptt_bits(FPTT_EXP_MIN) - 1000000 +"),
    ("cells", "hidden - from < FPTT_PIECE ? hidden - from", "hidden - from < FPTT_PIECE ? hidden"),
    ("updates", "vmulq_n_f32(m, keep)", "vmulq_n_f32(new, keep)"),
    ("updates", "first += next;", "first += 0;"),
    ("updates", "size = vmaxnmaq_f32(size, new);", ""),
    ("updates", "step->factor != 1.0f || rule->pull != 1.0f", "step->factor != 1.0f"),
]


def missing(compiler: str) -> list[str]:
    """The tools that are not here."""
    return [tool for tool in (COMPILERS[compiler], GCC, QEMU) if not shutil.which(tool)]


def call(command: list[str], limit: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=limit)


def newlib() -> str:
    """The folder of newlib's headers, for clang, which does not know it."""
    with_header = call([GCC, "-M", "-x", "c", "-include", "string.h", "/dev/null"]).stdout.split()
    return str(Path(next(word for word in with_header if word.endswith("/string.h"))).parent)


def target(compiler: str, vectors: bool) -> list[str]:
    """The compiler and its target.

    Scalar code does not get the vector instructions: clang 19 would use them for its loops, and to
    them NaN is less than any number, so that fptt_sigmoid(NaN) becomes 0. clang lays out enums as
    gcc does here only with -fshort-enums.
    """
    cpu = f"-mcpu=cortex-m55{'' if vectors else '+nomve'}"
    if compiler == "gcc":
        return [GCC, cpu]
    return [
        COMPILERS[compiler],
        "--target=arm-none-eabi",
        cpu,
        "-fshort-enums",
        f"-isystem{newlib()}",
    ]


def build(compiler: str, out: Path, sources: Path, turns: int, seed: int, only: str = "") -> Path:
    """The program with both kinds of kernels; with `only`, that one object and a new link."""
    rounding = {"products": "-ffp-contract=fast"}
    rest = (SOURCES / "updates.c", False, ["-DFPTT_SUFFIX=_mve", "-DFPTT_APPLY_ELSEWHERE=1"])
    objects = {"rest": rest, "main": (PROGRAM, False, [f"-DTURNS={turns}", f"-DSEED={seed}"])}
    for family in (*FAMILIES, "elementwise", "losses"):
        plain = SOURCES / f"{family}.c"
        objects[family] = (plain, False, ["-DFPTT_SUFFIX=_plain"])
        own = sources / "mve" / f"{family}.c"
        vectors = own.exists()
        objects[f"{family}_mve"] = (own if vectors else plain, vectors, ["-DFPTT_SUFFIX=_mve"])
    for name, (source, vectors, defines) in objects.items():
        if only and name != only:
            continue
        command = [*target(compiler, vectors), *FLAGS, *defines]
        command += [rounding.get(name.removesuffix("_mve"), "-ffp-contract=off")]
        command += [f"-I{SOURCES}", f"-I{ROOT / 'runtime' / 'include'}", "-c", str(source)]
        done = call([*command, "-o", str(out / f"{name}.o")])
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr
    link = [GCC, "-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard", "-nostartfiles"]
    link += ["-Wl,--gc-sections", "-T", str(MEMORY), *(str(out / f"{name}.o") for name in objects)]
    done = call([*link, "-o", str(out / "program.elf")])
    assert done.returncode == 0, done.stderr
    return out / "program.elf"


def run(program: Path) -> subprocess.CompletedProcess[str]:
    command = [QEMU, "-M", "mps3-an547", "-nographic", "-monitor", "none", "-serial", "none"]
    return call(
        [*command, "-semihosting-config", "enable=on,target=native", "-kernel", str(program)]
    )


@pytest.mark.parametrize("compiler", COMPILERS)
def test_vector_kernels_are_the_scalar_ones(compiler, tmp_path):
    if missing(compiler):
        pytest.skip(f"not installed: {', '.join(missing(compiler))}")
    program = build(compiler, tmp_path, SOURCES, turns=60, seed=1)
    done = run(program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "2040 cases, 0 differ\n")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    if missing("clang"):
        pytest.skip(f"not installed: {', '.join(missing('clang'))}")
    out = tmp_path_factory.mktemp("mve")
    build("clang", out, SOURCES, turns=20, seed=2)
    return out


@pytest.mark.parametrize(("family", "old", "new"), MUTATIONS)
def test_a_wrong_kernel_is_noticed(family, old, new, built, tmp_path):
    shutil.copytree(SOURCES / "mve", tmp_path / "mve")
    source = tmp_path / "mve" / f"{family}.c"
    text = source.read_text()
    assert old in text
    source.write_text(text.replace(old, new))
    for ready in built.glob("*.o"):
        shutil.copy(ready, tmp_path)
    program = build("clang", tmp_path, tmp_path, turns=20, seed=2, only=f"{family}_mve")
    done = run(program)
    assert done.returncode != 0
    assert " differ" in done.stderr or "fault" in done.stderr


@pytest.mark.parametrize("family", ["products", "cells", "updates"])
def test_bfloat16_is_refused(family):
    if missing("clang"):
        pytest.skip(f"not installed: {', '.join(missing('clang'))}")
    command = [*target("clang", True), *FLAGS, "-DFPTT_ACTIVATION_BF16=1", f"-I{SOURCES}"]
    command += [f"-I{ROOT / 'runtime' / 'include'}", "-fsyntax-only"]
    done = call([*command, str(SOURCES / "mve" / f"{family}.c")])
    assert done.returncode != 0
    assert "runtime/src/mve holds float32 only: with bfloat16, build the files" in done.stderr
