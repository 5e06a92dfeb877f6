"""The kernels for processors that compute one number at a time (FPTT_FUSED), run on this one.

test_math.py has their sigmoid and tanh.
"""

import shutil
import subprocess

import pytest
from mutations_c import green
from other_engine import MATH, ROOT, TYPES, build, include, run_all, sources
from test_math import WARNINGS, processor_flags

if "fma" not in processor_flags():
    pytest.skip("this processor has no fused multiply-add", allow_module_level=True)

WATCH = ROOT / "tests" / "c" / "fused_watch.c"


@pytest.mark.parametrize("cc", [cc for cc in ("gcc", "clang") if shutil.which(cc)])
def test_no_warning(cc):
    command = [cc, "-std=c11", "-O2", *MATH, *WARNINGS, "-mfma", "-DFPTT_FUSED=1", *include(ROOT)]
    files = sources(ROOT, ["cells_fused", "updates", "elementwise", "losses", "math_arrays"])
    output = ["-c", "-o", "/dev/null"]
    assert run_all([[*command, *t, file, *output] for t in TYPES.values() for file in files]) == []


def test_an_engine_of_them_passes_the_tests_of_the_engine(tmp_path, monkeypatch):
    monkeypatch.setenv("FPTT_OPS_FUSED", "1")
    engine = build(tmp_path, ["-O1"], fused=True)
    assert green(engine, ("ops", "programs", "trajectories"))


@pytest.mark.parametrize("types", TYPES)
def test_what_updates_say_of_their_values_is_a_bound(types, tmp_path):
    command = [
        "gcc",
        "-std=c11",
        "-O2",
        *MATH,
        *WARNINGS,
        "-mfma",
        "-DFPTT_FUSED=1",
        *include(ROOT),
    ]
    files = [WATCH, *sources(ROOT, ["updates"])]
    program = tmp_path / "watch"
    done = subprocess.run(
        [*command, *TYPES[types], *files, "-o", program, "-lm"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = subprocess.run([program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
