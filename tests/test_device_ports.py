"""The ports: what every firmware stands on, under every emulator.

tests/c/port_check.c is built once for each target and check, and says what it finds.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path

import device_tools
import numpy as np
import pytest
from device_tools import need, need_emulator, need_target

import fptt.device.emulator as emulators
import fptt.device.targets as targets
from fptt.device import EMULATORS, TARGETS, build_elf, read_elf, stack_bound
from fptt.device.sources import runtime_folder
from fptt.errors import FpttError, InputError

CHECK = Path(__file__).parent / "c" / "port_check.c"
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-pedantic", "-Werror"]
#: leaves it small enough for every RAM
SMALL = "-DMEGABYTE=1024"
BARE = [name for name in EMULATORS if name != "posix"]
every = pytest.mark.parametrize("name", EMULATORS)
every_bare = pytest.mark.parametrize("name", BARE)
#: under the emulators a check takes a second; this is for a machine that is busy
TIMEOUT = 120
FAULT_EXIT = 70


def build(name, check, elf, *flags, **memory):
    """The check's ELF file for an emulator's target."""
    need_emulator(name)
    target = TARGETS[EMULATORS[name].target]
    return build_elf(target, [CHECK], elf, flags=[*WARNINGS, f"-DCHECK={check}", *flags], **memory)


def run(name, check, folder, *flags, vlen=128, **memory):
    elf = build(name, check, folder / "check.elf", *flags, **memory)
    return EMULATORS[name].run(elf, timeout=TIMEOUT, vlen=vlen)


def numbers(text):
    """Lines "name number" as pairs."""
    return [(line.split()[0], int(line.split()[1])) for line in text.splitlines()]


# -- console and end -----------------------------------------------------------------------------


@every
@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize("check", ["EXIT", "VALUES"])
def test_exit_codes(name, check, code, tmp_path):
    """From fptt_port_exit and from main."""
    console = run(name, check, tmp_path, SMALL, f"-DEXIT_CODE={code}")
    assert console.exit_code == code
    assert console.seconds > 0
    # QEMU's own words, if it had any, are no part of the text
    assert "qemu" not in console.errors


@every
def test_console_takes_megabytes(name, tmp_path):
    """1,024 times 1 KiB, 1 MiB at once, bytes that are no text, and no byte."""
    target = TARGETS[EMULATORS[name].target]
    console = run(name, "TEXT", tmp_path, ram=target.ram_for(1_100_000))
    line = "".join(chr(ord("a") + n % 26) for n in range(1023)) + "\n"
    assert console.text == 2048 * line + "\0é\n"
    assert console.exit_code == 0


@every_bare
def test_console_through_a_slow_pipe(name, tmp_path):
    """A reader that lets the pipe fill up loses nothing."""
    target = TARGETS[EMULATORS[name].target]
    elf = build(name, "TEXT", tmp_path / "check.elf", ram=target.ram_for(1_100_000))
    with subprocess.Popen(
        EMULATORS[name].command(elf),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        time.sleep(0.2)
        text = process.stdout.read()
        assert process.wait(TIMEOUT) == 0
    assert len(text) == 2 * 2**20 + 4


# -- memory and arithmetic -----------------------------------------------------------------------


def bits(value):
    return struct.unpack("<I", np.float32(value).tobytes())[0]


def expected(pointer_bytes, bss_bytes, *, bare=True):
    again = {"bss_again": bss_bytes, "data_again": 333} if bare else {}
    one, three, tiny = np.float32(1), np.float32(3), np.float32(2.0**-126)
    return {
        "data": 1 + 22 + 333 + 4444,
        "data_changed": 334,
        "bss": 0,
        "bss_written": bss_bytes,
        **again,
        "constant": 8,
        "pointer_bytes": pointer_bytes,
        "third": bits(one / three),
        "sum": bits(one / three + three),
        "product": bits(one / three * (one / three)),
        "subnormal": bits(tiny / three),
        "double": bits(1.0 / 3.0),
    }


@every
def test_memory_and_floating_point(name, tmp_path):
    """.data and .bss as C promises; float as NumPy's, subnormal numbers too: the unit is on."""
    console = run(name, "VALUES", tmp_path, SMALL)
    target = TARGETS[EMULATORS[name].target]
    found = dict(numbers(console.text))
    found.pop("vector_sum", None)
    assert found == expected(target.pointer_bytes, 100_000, bare=name != "posix")


@pytest.mark.parametrize(("name", "vlen"), [("qemu-rv64", 128), ("qemu-rv64", 512),
                                            ("spike-rv64", 128), ("spike-rv64", 256)])  # fmt: skip
def test_riscv_vectors_are_on(name, vlen, tmp_path):
    found = dict(numbers(run(name, "VALUES", tmp_path, SMALL, "-DVECTORS", vlen=vlen).text))
    assert found["vector_bits"] == vlen
    assert found["vector_floats"] == vlen // 32


def test_riscv_without_vectors(tmp_path):
    """The same start on a processor that has none, nor memory protection."""
    elf = build("qemu-rv64", "VALUES", tmp_path / "check.elf", SMALL)
    plain = EMULATORS["qemu-rv64"]
    options = tuple("rv64,pmp=false" if o.startswith("rv64,") else o for o in plain.options)
    assert options != plain.options
    console = dataclasses.replace(plain, options=options).run(elf, timeout=TIMEOUT)
    assert dict(numbers(console.text)) == expected(8, 100_000)


def test_helium_is_on(tmp_path):
    console = run("qemu-cortex-m55", "VALUES", tmp_path, SMALL)
    assert dict(numbers(console.text))["vector_sum"] == 4 * 5


@pytest.mark.parametrize(
    ("name", "region"), [("qemu-cortex-m4", "PSRAM"), ("qemu-cortex-m55", "DDR")]
)
def test_other_ram(name, region, tmp_path):
    """Data too large for the first RAM are refused there, and work in the other one."""
    target = TARGETS[EMULATORS[name].target]
    bss = 5_000_000
    flags = [SMALL, f"-DBSS_BYTES={bss}"]
    with pytest.raises(
        InputError, match=rf"^no\.elf does not fit {target.name}: RAM is [0-9,]+ bytes"
    ):
        build(name, "VALUES", tmp_path / "no.elf", *flags)
    ram = target.ram_for(bss + 100_000)
    assert ram.name == region
    console = run(name, "VALUES", tmp_path, *flags, ram=ram)
    found = dict(numbers(console.text))
    found.pop("vector_sum", None)
    assert found == expected(4, bss)
    sections = {s.name: s for s in read_elf(tmp_path / "check.elf").sections}
    assert ram.origin <= sections[".bss"].address < ram.origin + ram.bytes


@every_bare
def test_large_arenas(name, tmp_path):
    """8 MiB wherever there is such a RAM."""
    target = TARGETS[EMULATORS[name].target]
    bss = 8 * 2**20
    flags = [SMALL, f"-DBSS_BYTES={bss}"]
    console = run(name, "VALUES", tmp_path, *flags, ram=target.ram_for(bss + 100_000))
    assert dict(numbers(console.text))["bss_written"] == bss


# -- instructions --------------------------------------------------------------------------------

TURNS = [1, 2, 3, 1000, 2000, 3000, 10**6, 2 * 10**6, 3 * 10**6, 2 * 10**7, 4 * 10**7, 6 * 10**7]


@every_bare
def test_counting_is_exact(name, tmp_path):
    """Loops of two instructions a turn, and straight code: not one too many or too few.

    What lies between the two readings besides is the same for all.
    """
    first = run(name, "COUNTS", tmp_path, SMALL).text
    found = [pair for pair in numbers(first.replace("written\n", "")) if pair[0] != "write"]
    turns = [value for key, value in found if key == "turns"]
    around = turns[0] - 2
    assert 0 < around < 40
    assert [value - 2 * n - around for value, n in zip(turns, TURNS, strict=True)] == [0] * 12
    nops = [value for key, value in found if key.startswith("nops_")]
    assert [value - nops[0] for value in nops] == list(range(9))
    # the same in every run, writing included
    for _ in range(3):
        assert EMULATORS[name].run(tmp_path / "check.elf", timeout=TIMEOUT).text == first


@pytest.mark.parametrize(
    ("name", "pieces"),
    # rv32: 2^32 instructions; Cortex-M: 2^32 ticks, 1.6 and 2.048 an instruction
    [("qemu-rv32", 22), ("qemu-cortex-m4", 14), ("qemu-cortex-m55", 11)],
)
def test_counting_past_32_bits(name, pieces, tmp_path):
    """Pieces of 200 million instructions: counters of 32 bits come round in one of them."""
    *turns, whole = numbers(run(name, "WRAP", tmp_path, SMALL, f"-DPIECES={pieces}").text)
    values = [value for _, value in turns]
    assert len(values) == pieces
    assert len(set(values)) == 1
    assert 2 * 10**8 < values[0] < 2 * 10**8 + 40
    # printing a line takes some hundred instructions
    assert pieces * values[0] < whole[1] < pieces * (values[0] + 2000)


def test_nothing_counts_on_a_computer(tmp_path):
    found = numbers(run("posix", "COUNTS", tmp_path, SMALL).text.replace("written\n", ""))
    assert {value for _, value in found} == {0}


# -- stack ---------------------------------------------------------------------------------------


def graphs(folder):
    return sorted(folder.glob("*.ci"))


@every_bare
def test_stack_painting(name, tmp_path):
    """Calls of known depth: what they take is what the compiler says of a frame."""
    console = run(name, "STACK", tmp_path, SMALL, stack_usage=tmp_path)
    before, *depths, shallow, again = [value for _, value in numbers(console.text)]
    said = re.search(
        r'title: "deep" label: "deep.*?(\d+) bytes', (tmp_path / "port_check.ci").read_text()
    )
    assert said is not None
    frame = int(said[1])
    assert frame >= 256
    steps = np.diff(depths).tolist()
    # the last frame's lowest words may never have been written to
    assert steps[1:] == [4 * frame] * 3
    assert before + frame - 64 <= depths[0] <= before + 2 * frame
    assert shallow == depths[-1]
    # painted again, it has forgotten
    assert again == before


def test_stack_painting_on_a_computer(tmp_path):
    before, *depths, shallow, again = [
        value for _, value in numbers(run("posix", "STACK", tmp_path, SMALL, "-O0").text)
    ]
    assert before == again == 0
    assert shallow == depths[-1] > 16 * 256
    assert depths == sorted(depths)


@every_bare
def test_stack_size_is_as_asked(name, tmp_path):
    elf = build(name, "VALUES", tmp_path / "check.elf", SMALL, stack_bytes=3 * 1024)
    assert read_elf(elf).stack_bytes == 3 * 1024
    assert read_elf(build(name, "VALUES", elf, SMALL)).stack_bytes == 8 * 1024


@pytest.mark.parametrize("name", BARE)
def test_static_bound_is_above_what_is_measured(name, tmp_path):
    need_emulator(name)
    source = tmp_path / "main.c"
    source.write_text("""
#include "port.h"
__attribute__((noinline, noclone)) static unsigned leaf(unsigned n) {
  volatile unsigned block[100];
  for (unsigned i = 0; i < 100; i++) block[i] = n + i;
  return block[n % 100u];
}
__attribute__((noinline, noclone)) static unsigned middle(unsigned n) {
  volatile unsigned block[50];
  for (unsigned i = 0; i < 50; i++) block[i] = leaf(n + i);
  return block[n % 50u];
}
int main(void) {
  fptt_port_paint_stack();
  unsigned sum = middle(3) + leaf(4);
  volatile unsigned seen = sum;
  (void)seen;
  fptt_port_exit((int)(fptt_port_stack_used() / 16u));
}
""")
    target = TARGETS[EMULATORS[name].target]
    elf = build_elf(target, [source], tmp_path / "x.elf", stack_usage=tmp_path)
    used = 16 * EMULATORS[name].run(elf, timeout=TIMEOUT).exit_code
    found = stack_bound(graphs(tmp_path), target.root)
    path = [re.sub(".*:", "", function) for function in found.path]
    assert path[-3:] == ["main", "middle", "leaf"]
    assert path[0] == target.root
    assert found.assumed == ()
    # the measure is rounded down to 16; 64 bytes stay unpainted
    assert used <= found.bytes <= used + 96


def test_stack_without_bound(tmp_path):
    """Recursion, calls through pointers and frames that grow are named."""
    need_target("rv64")
    cases = {
        "int f(int n) { return n ? f(n - 1) * n : 1; } int main(void) { return f(3); }": "f -> f",
        "int (*volatile p)(int); int main(void) { return p(3) + 1; }": (
            "main calls through a pointer"
        ),
        "int g(volatile char *); int main(int n, char **v) { (void)v; volatile char a[n]; "
        "return g(a); }": "the frame of main is only known at run time",
    }
    source = tmp_path / "main.c"
    for text, message in cases.items():
        source.write_text(text)
        subprocess.run(
            [TARGETS["rv64"].compiler(), "-O1", "-fcallgraph-info=su", "-c", source],
            cwd=tmp_path,
            check=True,
        )
        with pytest.raises(FpttError, match=f"no bound of the stack: {message}"):
            stack_bound(graphs(tmp_path))
    with pytest.raises(FpttError, match="no file tells of start"):
        stack_bound([], "start")


# -- faults --------------------------------------------------------------------------------------

FAULTS = {
    ("rv", "NULL_CALL"): r"fault: mcause, mepc, mtval 0x0*1 0x0+ 0x0+\n",
    ("rv", "ILLEGAL"): r"fault: mcause, mepc, mtval 0x0*2 0x0*84[0-9a-f]{6} 0x0+\n",
    (
        "rv",
        "OVERFLOW",
    ): r"fault: stack overflow; mcause, mepc, mtval 0x0*7 0x0*84\w+ 0x0*8000f\w+\n",
    ("cortex", "NULL_CALL"): r"fault: exception, pc, cfsr 0x00000003 0x00000000 0x00020000\n",
    ("cortex", "ILLEGAL"): r"fault: exception, pc, cfsr 0x00000003 0x0000[0-9a-f]{4} 0x00010000\n",
    ("cortex", "OVERFLOW"): r"fault: stack overflow; exception, pc, cfsr 0x00000003 0x0+ 0x\w+\n",
}


@every_bare
@pytest.mark.parametrize("check", ["NULL_CALL", "ILLEGAL", "OVERFLOW"])
def test_faults_end_with_a_message(name, check, tmp_path):
    console = run(name, check, tmp_path, SMALL)
    family = "rv" if EMULATORS[name].target.startswith("rv") else "cortex"
    assert re.fullmatch(FAULTS[family, check], console.text), console.text
    assert console.exit_code == FAULT_EXIT


def test_fault_tells_where(tmp_path):
    """The place that the message names is inside the function that went wrong."""
    for name in ("qemu-rv32", "qemu-cortex-m4"):
        console = run(name, "ILLEGAL", tmp_path, SMALL)
        at = int(console.text.split()[5], 16)
        (main,) = [s for s in read_elf(tmp_path / "check.elf").symbols if s.name == "main"]
        # the lowest bit of an Arm function's address says "Thumb"
        assert main.address & ~1 <= at < main.address + main.bytes


@pytest.mark.parametrize("check", ["NULL_CALL", "ILLEGAL", "OVERFLOW"])
def test_faults_on_a_computer(check, tmp_path):
    assert run("posix", check, tmp_path, SMALL).exit_code < 0


# -- the end of patience -------------------------------------------------------------------------


@every
def test_timeout(name, tmp_path):
    """A firmware that never ends is killed, and its last words are told."""
    elf = build(name, "FOREVER", tmp_path / "check.elf", SMALL)
    with pytest.raises(FpttError) as error:
        EMULATORS[name].run(elf, timeout=3)
    assert str(error.value).startswith(f"{name}: no end after 3 s, killed.")
    assert "turning" in str(error.value)
    assert not running(elf)


@pytest.mark.parametrize(
    ("name", "other"), [("qemu-rv64", "qemu-rv32"), ("qemu-rv32", "qemu-rv64")]
)
def test_file_for_another_width(name, other, tmp_path):
    elf = build(other, "EXIT", tmp_path / "check.elf", SMALL)
    need_emulator(name)
    with pytest.raises(FpttError, match=r"no end after 2 s, killed\. Is the file built for this"):
        EMULATORS[name].run(elf, timeout=2)
    assert not running(elf)


def running(elf):
    """Processes that have the file on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(elf).encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:  # it has just ended
            continue
    return found


def test_interrupted_runs_leave_nothing(tmp_path, monkeypatch):
    """Ctrl-C while an emulator runs kills it, whatever it started."""
    elf = build("posix", "FOREVER", tmp_path / "check.elf", SMALL)
    script = tmp_path / "wrapper"
    # a child of its own, as a wrapper script has
    script.write_text(f"#!/bin/sh\n{elf} & wait\n")
    script.chmod(0o755)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(signal, "SIGALRM", signal.SIGALRM)
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with pytest.raises(KeyboardInterrupt):
            EMULATORS["posix"].run(script, timeout=TIMEOUT)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    for _ in range(100):
        if not running(elf):
            break
        time.sleep(0.05)
    assert not running(elf)


# -- what is missing -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("rv64", "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf"),
        ("rv32", "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf"),
        ("cortex-m4", "gcc-arm-none-eabi libnewlib-arm-none-eabi"),
        ("cortex-m55", "gcc-arm-none-eabi libnewlib-arm-none-eabi"),
        ("posix", "build-essential"),
    ],
)
def test_missing_compiler(name, package, monkeypatch):
    monkeypatch.setattr(targets.shutil, "which", lambda *_, **__: None)
    looked = ", ".join(TARGETS[name].compilers)
    message = f"no compiler for {name}: looked for {looked}. On Debian and Ubuntu: apt-get install "
    with pytest.raises(InputError, match=f"^{re.escape(message + package)}$"):
        TARGETS[name].compiler()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("qemu-rv64", "qemu-system-riscv64, which is not here: on Debian and Ubuntu, "
                      "apt-get install qemu-system-misc"),
        ("qemu-rv32", "qemu-system-riscv32, which is not here: on Debian and Ubuntu, "
                      "apt-get install qemu-system-misc"),
        ("qemu-cortex-m4", "qemu-system-arm, which is not here: on Debian and Ubuntu, "
                           "apt-get install qemu-system-arm"),
        ("spike-rv64", "spike, which is not here: pip install spike, and on Debian and Ubuntu "
                       "apt-get install device-tree-compiler"),
    ],
)  # fmt: skip
def test_missing_emulator(name, message, monkeypatch, tmp_path):
    monkeypatch.setattr(emulators.shutil, "which", lambda *_, **__: None)
    elf = tmp_path / "x.elf"
    elf.write_bytes(b"")
    with pytest.raises(InputError, match=f"^{re.escape(f'{name} needs {message}')}$"):
        EMULATORS[name].run(elf)


def test_wrong_names_and_files(tmp_path):
    with pytest.raises(
        InputError, match="no target 'z80'; there are: rv64, rv64gcv, rv32, cortex-m4"
    ):
        targets.target("z80")
    with pytest.raises(InputError, match="no emulator 'bochs'; there are: qemu-rv64, qemu-rv32"):
        emulators.emulator("bochs")
    assert targets.target("rv32") is TARGETS["rv32"]
    assert emulators.emulator("posix") is EMULATORS["posix"]
    with pytest.raises(InputError, match=r"x\.elf is not there; build it first"):
        EMULATORS["posix"].run(tmp_path / "x.elf")
    with pytest.raises(
        InputError, match="rv64 has no RAM of 100,000,000 bytes: the largest is RAM"
    ):
        TARGETS["rv64"].ram_for(100_000_000)


def test_missing_tools_fail_in_ci(monkeypatch):
    """There a test that is left out would be taken for one that passed."""
    for value, outcome in (("", pytest.skip), ("false", pytest.skip), ("true", pytest.fail)):
        monkeypatch.setenv("CI", value)
        with pytest.raises(outcome.Exception, match="no-such-tool is missing"):
            need("no-such-tool")
    monkeypatch.setattr(device_tools.shutil, "which", lambda *_, **__: None)
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="no compiler for rv32"):
        need_emulator("qemu-rv32")


def test_compile_errors_are_shown(tmp_path):
    source = tmp_path / "main.c"
    source.write_text("int main(void) { return nothing; }\n")
    with pytest.raises(FpttError, match=r"building x\.elf for posix failed: (?s:.*)nothing"):
        build_elf(TARGETS["posix"], [source], tmp_path / "x.elf")


# -- what a file takes ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rv64", "rv32", "cortex-m4", "cortex-m55"])
def test_sizes_are_the_binary_utilities(name, tmp_path):
    """Sections and symbols as `size` and `nm` of the tool chain see them."""
    need_target(name)
    target = TARGETS[name]
    need(f"{target.prefix}size", f"{target.prefix}nm")
    elf = tmp_path / "check.elf"
    build_elf(target, [CHECK], elf, flags=["-DCHECK=VALUES", SMALL], ram=target.ram_for(300_000))
    found = read_elf(elf)
    assert found.bits == 8 * target.pointer_bytes
    assert found.machine == (243 if name.startswith("rv") else 40)
    said = subprocess.run(
        [f"{target.prefix}size", "-A", elf], capture_output=True, text=True, check=True
    ).stdout
    table = {row.split()[0]: row.split()[1:] for row in said.splitlines()[2:] if row}
    for section in found.sections:
        assert [str(section.bytes), str(section.address)] == table[section.name]
    sizes = {key: int(value[0]) for key, value in table.items()}
    assert found.ram_bytes == sizes[".data"] + sizes[".bss"]
    assert found.stack_bytes == sizes[".stack"] == 8192
    stored = [".boot", ".text", ".rodata", ".data"]
    assert found.flash_bytes == sum(sizes.get(key, 0) for key in stored)
    said = subprocess.run(
        [f"{target.prefix}nm", "-S", elf], capture_output=True, text=True, check=True
    ).stdout
    sized = [row.split() for row in said.splitlines() if len(row.split()) == 4]
    rows = {(row[3], int(row[1], 16)) for row in sized}
    assert {(s.name, s.bytes) for s in found.symbols} == rows
    assert found.symbols[0].name == "zero"
    assert found.symbols[0].bytes == 100_000
    assert found.symbols[0].section == ".bss"
    assert found.values["fptt_stack_top"] - found.values["fptt_stack_bottom"] == 8192
    # only ours: what the port itself takes of RAM besides the check's own data
    own = 100_000 + 2048 + 16 + target.pointer_bytes
    assert 0 <= found.ram_bytes - own <= 128
    assert (elf.with_suffix(".map")).read_text().count("fptt_port_write")


def test_damaged_files_are_refused(tmp_path):
    need_target("rv32")
    elf = build_elf(TARGETS["rv32"], [CHECK], tmp_path / "check.elf", flags=["-DCHECK=EXIT", SMALL])
    whole = elf.read_bytes()
    for cut in (0, 3, 40):
        elf.write_bytes(whole[:cut])
        with pytest.raises(InputError, match="is not a little-endian ELF file"):
            read_elf(elf)
    for cut in (60, len(whole) // 2, len(whole) - 1):
        elf.write_bytes(whole[:cut])
        with pytest.raises(InputError, match="is a damaged ELF file"):
            read_elf(elf)


def test_ports_are_found_and_complete():
    """Every file that a target names is there, and every file that is there is named."""
    ports = runtime_folder() / "ports"
    named = {
        ports / path
        for target in TARGETS.values()
        for path in (*target.port, *target.headers, *target.scripts)
    }
    assert named == {path for path in ports.rglob("*") if path.is_file()}


def test_port_header_is_cxx_too(tmp_path):
    cxx = shutil.which(os.environ.get("CXX", "g++"))
    if cxx is None:
        pytest.skip("a C++ compiler is missing")
    source = tmp_path / "user.cpp"
    source.write_text('#include "port.h"\nint main() { fptt_port_exit(0); }\n')
    command = [cxx, *WARNINGS, f"-I{runtime_folder() / 'ports'}", "-fsyntax-only", source]
    subprocess.run(command, check=True)
