"""runtime/src/fptt_math.h and fptt_fused.h: errors, edges, and the same bits from every build."""

import ctypes
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [ROOT / "runtime" / "src" / "math_arrays.c"]
EXHAUSTIVE = ROOT / "tests" / "c" / "math_exhaustive.c"
STRIDE = 4099
FLAGS = ["-std=c11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
NAMES = ["exp", "sigmoid", "tanh", "log", "sqrt"]


def compiler():
    """The system's C compiler, a requirement of the project."""
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert found, "no C compiler: on Debian and Ubuntu, apt-get install gcc"
    return found


def processor_flags():
    """What this processor can do, as Linux names it; nothing where that cannot be known."""
    if platform.machine() not in ("x86_64", "AMD64") or not Path("/proc/cpuinfo").exists():
        return set()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def builds():
    """The flags of every build that runs here."""
    flags = {"O0": ["-O0"], "baseline": ["-O3"]}
    if "avx2" in processor_flags():
        # with fma, which the compiler must not use for a product and a sum
        flags["avx2"] = ["-O3", "-mavx2", "-mfma"]
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= processor_flags():
        flags["avx512"] = ["-O3", *AVX512]
    return flags


def fused_builds():
    """The flags of the builds with FPTT_FUSED that run here."""
    if "fma" not in processor_flags():
        pytest.skip("this processor has no fused multiply-add")
    flags = {level: [f"-{level}", "-mfma", "-DFPTT_FUSED=1"] for level in ("O0", "O2", "O3")}
    if "avx512f" in processor_flags():
        flags["avx512"] = ["-O3", *AVX512, "-mfma", "-DFPTT_FUSED=1"]
    return flags


def build(output, sources, *flags, cc=None):
    """Compile; the compiler may not say a word."""
    command = [cc or compiler(), *FLAGS, *WARNINGS, *flags, f"-I{ROOT / 'runtime' / 'src'}"]
    command += [*map(str, sources), "-o", str(output), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return output


def test_errors_edges_and_the_same_bits_from_every_build(tmp_path):
    printed = {}
    for name, flags in builds().items():
        program = build(tmp_path / name, [EXHAUSTIVE, *SOURCES], *flags)
        done = subprocess.run([program, "--stride", str(STRIDE)], capture_output=True, text=True)
        assert done.returncode == 0, f"{name}:\n{done.stdout}{done.stderr}"
        printed[name] = done.stdout
    lines = printed["O0"].splitlines()
    assert [line.split(":")[0] for line in lines] == NAMES
    assert all(" 0 violations, checksum " in line for line in lines)
    assert {name: text for name, text in printed.items() if text != printed["O0"]} == {}


def test_fused_errors_edges_and_the_same_bits_from_every_build(tmp_path):
    printed = set()
    for cc in [cc for cc in ("gcc", "clang") if shutil.which(cc)]:
        for name, flags in fused_builds().items():
            program = build(tmp_path / f"{cc}_{name}", [EXHAUSTIVE, *SOURCES], *flags, cc=cc)
            done = subprocess.run(
                [program, "--stride", str(STRIDE)], capture_output=True, text=True
            )
            assert done.returncode == 0, f"{cc} {name}:\n{done.stdout}{done.stderr}"
            printed.add(done.stdout)
    assert len(printed) == 1


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="others may have one")
def test_fused_without_such_an_instruction_is_refused(tmp_path):
    command = [compiler(), "-DFPTT_FUSED=1", "-c", str(SOURCES[0]), "-o", str(tmp_path / "object")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "no fused multiply-add; compile without FPTT_FUSED" in done.stderr


def changed_copy(folder, name, old, new):
    """A copy of the functions with one place of a header changed."""
    for path in SOURCES[0].parent.glob("math_arrays.?"):
        (folder / path.name).write_text(path.read_text())
    for header in ("fptt_math.h", "fptt_fused.h"):
        text = (SOURCES[0].parent / header).read_text()
        if header == name:
            assert text.count(old) == 1
            text = text.replace(old, new)
        (folder / header).write_text(text)
    return [EXHAUSTIVE, folder / "math_arrays.c"]


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("FPTT_SQUARE_Q 0x1.697094p", "FPTT_SQUARE_Q 0x1.697194p", "sigmoid: error too large"),
        ("biased > 115u + 127u", "biased > 120u + 127u", "sigmoid: error too large"),
        ("-FPTT_LN2_OVER", "0.0f", "sigmoid: error too large"),
        ("-(0.5f - half)", "half - 0.5f", "tanh: sign of zero"),
        ("return fptt_tanh_far(x);", "return x > 0.0f ? 1.0f : -1.0f;", "tanh: NaN"),
        ("-FPTT_COTH_B, square", "-FPTT_COTH_A, square", "tanh: error too large"),
    ],
)
def test_fused_violations_are_found(old, new, found, tmp_path):
    sources = changed_copy(tmp_path, "fptt_fused.h", old, new)
    program = build(tmp_path / "wrong", sources, *fused_builds()["O2"])
    done = subprocess.run([program, "--stride", "65537"], capture_output=True, text=True)
    assert done.returncode == 1
    assert found in done.stdout


def test_violations_are_found(tmp_path):
    # one coefficient off by 2^-20
    old, new = "FPTT_COTH_A 0x1.55551ep-2f", "FPTT_COTH_A 0x1.55651ep-2f"
    changed_copy(tmp_path, "fptt_math.h", old, new)
    program = build(tmp_path / "wrong", [EXHAUSTIVE, tmp_path / "math_arrays.c"], "-O1")
    done = subprocess.run([program, "--stride", "65537"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "exp: error too large: " in done.stdout
    assert "log: largest error" in done.stdout and "log: error" not in done.stdout


@pytest.mark.parametrize("cc", [cc for cc in ("cc", "gcc", "clang") if shutil.which(cc)])
@pytest.mark.parametrize("level", ["-O0", "-O3"])
def test_compiles_without_a_warning(cc, level, tmp_path):
    build(tmp_path / "program", [EXHAUSTIVE, *SOURCES], level, cc=cc)


def test_fast_math_is_refused(tmp_path):
    command = [compiler(), "-ffast-math", "-c", str(SOURCES[0]), "-o", str(tmp_path / "object")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "-ffast-math reorders sums; compile without it" in done.stderr


def test_fitted_coefficients_stand_in_the_header():
    command = [sys.executable, str(ROOT / "tools" / "fit_math.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "the headers agree"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("math") / "math.so"
    return ctypes.CDLL(str(build(path, SOURCES, "-O3", "-shared", "-fPIC")))


def apply(library, name, x, y=None):
    """fptt_NAME_n of float32 x, into y or a new array."""
    y = np.empty_like(x) if y is None else y
    pointer = ctypes.POINTER(ctypes.c_float)
    function = getattr(library, f"fptt_{name}_n")
    function.argtypes, function.restype = (pointer, pointer, ctypes.c_size_t), None
    function(y.ctypes.data_as(pointer), x.ctypes.data_as(pointer), x.size)
    return y


@pytest.mark.parametrize("name", NAMES)
def test_every_length_in_place_and_not_beyond_the_end(name, library):
    x = np.random.default_rng(5).normal(0, 3, 71).astype(np.float32)
    whole = apply(library, name, x).view(np.uint32)
    for n in range(71):
        y = np.full(72, 7, np.float32)
        y[:n] = x[:n]
        apply(library, name, y[:n], y[:n])
        assert np.array_equal(np.isnan(y[:n]), np.isnan(whole[:n].view(np.float32)))
        numbers = ~np.isnan(y[:n])
        assert np.array_equal(y[:n].view(np.uint32)[numbers], whole[:n][numbers])
        assert (y[n:] == 7).all()


def test_edges(library):
    inf, nan, tiny = np.inf, np.nan, np.float32(1.4e-45)
    x = np.array([nan, -inf, -0.0, 0.0, tiny, -tiny, inf], np.float32)
    expected = {
        "exp": [nan, 0.0, 1.0, 1.0, 1.0, 1.0, inf],
        "sigmoid": [nan, 0.0, 0.5, 0.5, 0.5, 0.5, 1.0],
        "tanh": [nan, -1.0, -0.0, 0.0, tiny, -tiny, 1.0],
        "log": [nan, nan, -inf, -inf, np.float32(-103.27893), nan, inf],
        "sqrt": [nan, nan, -0.0, 0.0, np.float32(3.743392e-23), nan, inf],
    }
    for name, values in expected.items():
        y = apply(library, name, x)
        np.testing.assert_array_equal(y, np.array(values, np.float32), err_msg=name)
        signs = np.signbit(y[1:]), np.signbit(np.array(values, np.float32)[1:])
        numbers = ~np.isnan(y[1:])
        assert np.array_equal(signs[0][numbers], signs[1][numbers]), name


def test_sqrt_has_the_bits_of_numpy(library):
    bits = np.random.default_rng(6).integers(0, 0x7F800000, 100_000, dtype=np.uint32)
    x = bits.view(np.float32)
    assert np.array_equal(apply(library, "sqrt", x).view(np.uint32), np.sqrt(x).view(np.uint32))
