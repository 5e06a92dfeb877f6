"""Builds the engine in a few seconds with other flags or from other sources, and puts it in place.

One kernel table for each pair of types, all of one instruction set, "baseline" by name. As a
plugin (`pytest -p other_engine`) it loads the module that FPTT_ENGINE names instead of fptt's own.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from test_math import AVX512, processor_flags

ROOT = Path(__file__).parents[1]
MODULE = "fptt.native._engine"
KERNELS = ("products", "updates", "cells", "losses", "elementwise", "table")
FUSED_KERNELS = ("products", "updates", "cells_fused", "losses", "elementwise", "table")
OTHERS = ("math_arrays", "status", "version")
GLUE = ("check", "engine", "drive", "pool")
#: as in meson.build
ISAS = {"baseline": [], "avx2": ["-mavx2", "-mfma"], "avx512": [*AVX512, "-mfma"]}
TYPES = {
    0: [],
    1: ["-DFPTT_ACTIVATION_BF16=1"],
    2: ["-DFPTT_PARAMETER_BF16=1"],
    3: ["-DFPTT_ACTIVATION_BF16=1", "-DFPTT_PARAMETER_BF16=1"],
}
MATH = ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
VERSION = '-DFPTT_VERSION="0"'
#: in the place of dispatch.c
DISPATCH = """
#include "engine.h"
extern const fptt_kernels fptt_kernels_0, fptt_kernels_1, fptt_kernels_2, fptt_kernels_3;
const char *fptt_isa_name(int32_t isa) { return isa == 0 ? "baseline" : NULL; }
int32_t fptt_isa_runs_here(int32_t isa) { return isa == 0; }
const fptt_kernels *fptt_isa_kernels(int32_t isa, int32_t types) {
  static const fptt_kernels *const tables[] = {&fptt_kernels_0, &fptt_kernels_1,
                                               &fptt_kernels_2, &fptt_kernels_3};
  return isa == 0 && types >= 0 && types < 4 ? tables[types] : NULL;
}
"""


def sources(root: Path, names: Sequence[str]) -> list[Path]:
    """The files of these names, in the run time or the glue."""
    folders = dict.fromkeys(GLUE, "src/fptt/native")
    return [root / folders.get(name, "runtime/src") / f"{name}.c" for name in names]


def include(root: Path) -> list[str]:
    """Where headers are."""
    return [f"-I{root / path}" for path in ("runtime/include", "runtime/src", "src/fptt/native")]


def widest() -> list[str]:
    """The flags of the widest vectors that run here."""
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= processor_flags():
        return ISAS["avx512"]
    return ISAS["avx2"] if {"avx2", "fma"} <= processor_flags() else []


def run_all(commands: Sequence[Sequence[object]]) -> list[str]:
    """Runs commands, two at a time; what they say where they fail or warn."""

    def run(command: Sequence[object]) -> str:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        said = done.stdout + done.stderr
        return said or f"answered {done.returncode}" if done.returncode or done.stderr else ""

    with ThreadPoolExecutor(2) as pool:
        return [said for said in pool.map(run, commands) if said]


def build(
    folder: Path,
    flags: Sequence[str],
    *,
    root: Path = ROOT,
    narrow: Sequence[int] = (),
    only: str | None = None,
    fused: bool = False,
    instead: Mapping[str, str] | None = None,
) -> Path:
    """Compiles and links the module.

    Args:
        folder: where everything is put.
        flags: for gcc, with those of a sanitizer for instance.
        root: of the sources.
        narrow: types that get the baseline's vectors, not the widest.
        only: the one source that has changed; all other objects are in the folder already.
        fused: with the kernels for processors that compute one number at a time (FPTT_FUSED).
        instead: sources that take the place of others, by name.
    """
    module, dispatch = folder / "_engine.c", folder / "dispatch.c"
    kernels = FUSED_KERNELS if fused else KERNELS
    kernels = [(instead or {}).get(name, name) for name in kernels]
    flags = [*flags, "-mfma", "-DFPTT_FUSED=1"] if fused else flags
    commands: list[list[object]] = []
    objects: list[Path] = []
    compiler = ["gcc", "-std=c11", "-fPIC", *MATH, *flags, *include(root), VERSION]

    def compile_(source: Path, name: str, *more: str) -> None:
        objects.append(folder / f"{name}.o")
        if only in (None, source.stem):
            commands.append([*compiler, *more, "-c", source, "-o", objects[-1]])

    for name, source in zip(kernels, sources(root, kernels), strict=True):
        for types, defines in TYPES.items():
            vectors = [] if types in narrow else widest()
            compile_(source, f"{name}_{types}", *vectors, *defines, f"-DFPTT_SUFFIX=_{types}")
    for source in sources(root, [*OTHERS, *GLUE]):
        compile_(source, source.stem)
    if only is None:
        dispatch.write_text(DISPATCH)
        headers = [
            "runtime/include/fptt.h",
            "runtime/src/math_arrays.h",
            "src/fptt/native/engine.h",
        ]
        script = root / "src/fptt/native/build_ffi.py"
        said = run_all([[sys.executable, script, module, *(root / name for name in headers)]])
        assert said == [], said
    compile_(dispatch, "dispatch")
    python = [f"-I{sysconfig.get_path('include')}", "-DPy_LIMITED_API=0x030b0000"]
    compile_(module, "_engine", *python, "-std=gnu11")
    said = run_all(commands)
    assert said == [], "\n".join(said)
    engine = folder / "_engine.abi3.so"
    said = run_all([["gcc", "-shared", *flags, *objects, "-o", engine]])
    assert said == [], "\n".join(said)
    return engine


def load(path: str) -> None:
    """Puts a compiled module in the place of fptt's own."""
    found = importlib.util.spec_from_file_location(MODULE, path)
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    sys.modules[MODULE] = module
    found.loader.exec_module(module)


def environment(**more: str) -> dict[str, str]:
    """For a child that loads another engine."""
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    return os.environ | {"PYTHONPATH": paths, "FPTT_ISA": "baseline"} | more


if "FPTT_ENGINE" in os.environ and MODULE not in sys.modules:
    load(os.environ["FPTT_ENGINE"])
