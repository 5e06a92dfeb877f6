"""The C sources: no access outside of memory, no undefined behaviour, no warning, no malloc."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from other_engine import (
    GLUE,
    ISAS,
    KERNELS,
    MATH,
    OTHERS,
    ROOT,
    TYPES,
    VERSION,
    build,
    environment,
    include,
    run_all,
    sources,
    widest,
)

import fptt.native._engine

RUNTIME = ROOT / "runtime" / "src"
WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
INCLUDE = include(ROOT)
KERNEL_FILES = sources(ROOT, KERNELS)
#: compiled once
NATIVE = ROOT / "src" / "fptt" / "native"
SINGLE_FILES = [*sources(ROOT, [*OTHERS, *GLUE]), NATIVE / "stopwatch.c", NATIVE / "dispatch.c"]
#: compiled for every instruction set, but for one pair of types
LIMITS = NATIVE / "limits.c"


def compilers():
    return [name for name in ("gcc", "clang") if shutil.which(name)]


def isas():
    """The instruction sets that compilers for this machine know."""
    return ISAS if sysconfig.get_platform().endswith("x86_64") else {"baseline": []}


# -- what a compiler says ------------------------------------------------------------------------


@pytest.mark.parametrize("cc", compilers())
def test_no_warning_for_any_instruction_set_and_types(cc):
    commands = [
        [cc, *WARNINGS, *INCLUDE, *flags, *types, "-DFPTT_SUFFIX=_x_0", "-fsyntax-only", source]
        for flags in isas().values()
        for types in TYPES.values()
        for source in KERNEL_FILES
    ]
    commands += [
        [cc, *WARNINGS, *INCLUDE, *flags, "-DFPTT_SUFFIX=_x", "-fsyntax-only", LIMITS]
        for flags in isas().values()
    ]
    single = [cc, *WARNINGS, *INCLUDE, VERSION, "-fsyntax-only"]
    commands += [[*single, source] for source in SINGLE_FILES]
    # one lane and no suffix, as on a device without vectors; the table needs a suffix
    commands += [
        [cc, *WARNINGS, *INCLUDE, "-DFPTT_LANES=1", "-DFPTT_REGISTERS=32", "-fsyntax-only", source]
        for source in KERNEL_FILES[:-1]
    ]
    assert run_all(commands) == []


@pytest.mark.parametrize("cc", compilers())
def test_no_warning_when_it_optimises(cc, tmp_path):
    """Some warnings need the optimiser; it looks at two of the builds.

    clang says which of the loops that should be vectors are none, but only where it tries.
    """
    level = "-O3" if cc == "clang" else "-O1"
    commands = []
    for flags, types in (([], 0), (widest(), 3)):
        build = [cc, *WARNINGS, *INCLUDE, level, *MATH, *flags, *TYPES[types], "-DFPTT_SUFFIX=_x_0"]
        for source in KERNEL_FILES:
            commands.append([*build, "-c", source, "-o", tmp_path / f"{source.stem}_{types}.o"])
    commands += [
        [cc, *WARNINGS, *INCLUDE, "-O3", VERSION, "-c", source, "-o", tmp_path / f"{source.stem}.o"]
        for source in SINGLE_FILES
    ]
    assert run_all(commands) == []


@pytest.mark.parametrize("cc", [name for name in ("g++", "clang++") if shutil.which(name)])
def test_the_public_header_is_cxx_too(cc, tmp_path):
    source = tmp_path / "user.cpp"
    source.write_text(
        '#include "fptt.h"\nint main() { return fptt_status_name(FPTT_OK) == fptt_version(); }\n'
    )
    library = tmp_path / "status.o"
    command = [shutil.which("cc") or "gcc", *INCLUDE, VERSION, "-c", RUNTIME / "status.c", "-o"]
    version = tmp_path / "version.o"
    assert run_all([[*command, library]]) == []
    assert run_all([[*command[:-3], "-c", RUNTIME / "version.c", "-o", version]]) == []
    program = tmp_path / "user"
    strict = ["-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror", "-x", "c++", source]
    link = ["-x", "none", library, version, "-o", program]
    assert run_all([[cc, *INCLUDE, *strict, *link]]) == []
    assert subprocess.run([program]).returncode == 0


# -- what the objects need -----------------------------------------------------------------------

#: what C11 compilers call by themselves, and (drive.c, stopwatch.c, dispatch.c) the clock and the
#: processor; threads are for pool.c alone
ALLOWED = {"memcpy", "memmove", "memset", "memcmp"}
ALLOWED_GLUE = ALLOWED | {"clock_gettime", "__cpu_model", "__cpu_indicator_init"}
ALLOWED_POOL = ALLOWED_GLUE | {"sched_yield", "getpid", "pthread_create", "pthread_join"}
ALLOWED_POOL |= {f"pthread_mutex_{what}" for what in ("init", "lock", "unlock")}
ALLOWED_POOL |= {f"pthread_cond_{what}" for what in ("init", "wait", "broadcast")}
INSTRUMENTS = re.compile(r"_GLOBAL_OFFSET_TABLE_|__stack_chk_fail|_+chkstk.*")


def nm(objects):
    """The names in every object, also those of archives: [(name, kind)] by file name."""
    members = {}
    for path in objects:
        done = subprocess.run(["nm", "-P", "-A", str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        for line in done.stdout.splitlines():
            where, name, kind, *_ = line.split()
            member = re.split(r"[/\[]", where.rstrip(":]"))[-1]
            members.setdefault(member, []).append((name, kind))
    return members


def undefined(objects):
    """Names that the objects want from elsewhere."""
    names = [pair for member in nm(objects).values() for pair in member]
    return {name for name, kind in names if kind in "Uw"} - {
        name for name, kind in names if kind not in "Uw"
    }


def built_archives():
    """The archives that the engine was linked from, where `make` built it."""
    return sorted(Path(fptt.native._engine.__file__).resolve().parent.glob("libfptt_*.a"))


@pytest.mark.skipif(not shutil.which("nm"), reason="nm is missing: apt-get install binutils")
def test_no_malloc_no_stdio_no_libm(tmp_path):
    archives = built_archives()
    if archives:
        assert len(archives) >= 4
        runtime = [path for path in archives if path.name != "libfptt_engine.a"]
        assert {n for n in undefined(runtime) if not INSTRUMENTS.fullmatch(n)} <= ALLOWED
        members = nm([path for path in archives if path not in runtime])
        whole = undefined(archives)
    else:
        flags = ["-O2", *MATH, *INCLUDE, VERSION, "-DFPTT_SUFFIX=_baseline_0", "-fPIC"]
        files = [*KERNEL_FILES, *SINGLE_FILES[:-1]]
        objects = [tmp_path / f"{source.stem}.o" for source in files]
        pairs = zip(files, objects, strict=True)
        assert run_all([["cc", *flags, "-c", s, "-o", o] for s, o in pairs]) == []
        runtime = objects[: -len(GLUE) - 1]
        assert {n for n in undefined(runtime) if not INSTRUMENTS.fullmatch(n)} <= ALLOWED
        members = nm(objects[-len(GLUE) - 1 :])
        whole = {name for name in undefined(objects) if not name.startswith("fptt_isa_")}
    assert {name for name in whole if not INSTRUMENTS.fullmatch(name)} <= ALLOWED_POOL
    assert any("pool" in member for member in members)
    for member, names in members.items():
        wanted = {name for name, kind in names if kind in "Uw" and not name.startswith("fptt_")}
        wanted = {name for name in wanted if not INSTRUMENTS.fullmatch(name)}
        assert wanted <= (ALLOWED_POOL if "pool" in member else ALLOWED_GLUE), member


# -- sanitizers ----------------------------------------------------------------------------------

SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def sanitizer_library(folder):
    """The library to load first, or None where the compiler has none."""
    probe = folder / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    built = subprocess.run(
        ["gcc", *SANITIZE, str(probe), "-o", str(folder / "probe")], capture_output=True
    )
    if built.returncode or subprocess.run([folder / "probe"]).returncode:
        return None
    asked = ["gcc", "-print-file-name=libasan.so"]
    name = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    return name if Path(name).is_absolute() else None


@pytest.mark.skipif(
    not shutil.which("gcc") or sys.platform != "linux", reason="sanitizers need gcc on Linux"
)
def test_sanitizers_find_nothing(tmp_path):
    """All operations and drawn programs; float32 and bfloat16 with the widest vectors, the mixed
    types with those of the baseline. Without optimisation, which compiles fastest."""
    library = sanitizer_library(tmp_path)
    if library is None:
        pytest.skip("this gcc has no libasan and libubsan")
    engine = build(tmp_path, ["-g", *SANITIZE], narrow=(1, 2))
    options = environment(
        LD_PRELOAD=library,
        ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1",
        UBSAN_OPTIONS="print_stacktrace=1",
        # Python's and cffi's blocks come from malloc too, each with its own fence
        PYTHONMALLOC="malloc",
        OPENBLAS_NUM_THREADS="1",
    )
    child = [sys.executable, str(ROOT / "tests" / "under_sanitizers.py"), str(engine)]

    def start(*more):
        return subprocess.run([*child, *more], capture_output=True, text=True, env=options)

    overrun = start("--overrun")
    assert overrun.returncode != 0 and "heap-buffer-overflow" in overrun.stderr, overrun.stderr
    done = start()
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stdout + done.stderr[-4000:]
