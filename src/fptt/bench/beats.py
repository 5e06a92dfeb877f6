"""Instructions and 128-bit beats of the RISC-V vector kernels, by function, from Spike's log.

One instruction on a group of LMUL registers does the work of LMUL on one register, so a count of
instructions flatters large groups. A beat is 128 bits of one operand. The log is read as it is
written, line by line, and never stored.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fptt.device.elf import Symbol, read_elf
from fptt.device.emulator import emulator
from fptt.device.folder import read_folder
from fptt.device.harness import build_check
from fptt.errors import FpttError
from fptt.program.program import Program

#: bits of a vector register, and of a beat
VLEN = 128
#: the check program calls the first before it trains, and the other right after
_FIRST, _LAST = "fptt_begin_sequence", "fptt_port_stack_used"
#: of the C library; the check program calls none of them while it trains
_COPIES = ("memcpy", "memmove", "memset")

_SET = re.compile(r"vset\w+ .*\be(\d+), ?(mf|m)(\d)\b")
#: number of whole registers, and bits of an element that is loaded or stored
_WHOLE, _UNIT = re.compile(r"v(?:[ls]|mv)(\d)r"), re.compile(r"v[ls]e(\d+)(?:ff)?\.v")
_APART = re.compile(r"v[ls](?:s|ux|ox)(?:eg)?\w*\.v")
#: one element, or a mask, which is one register
_ONE = re.compile(r"v(f?mv\.[xfs]\.[xfs]|[ls]m\.v|m\w+\.mm|cpop|first)")


@dataclass(frozen=True)
class FunctionBeats:
    """What a function executed.

    Attributes:
        function: its name.
        instructions: all of them.
        vector_instructions: those of vectors, without setting their length.
        beats: 128-bit beats of these, and one for every other instruction.
    """

    function: str
    instructions: int
    vector_instructions: int
    beats: int


def beats_of(text: str, sew: int, lmul: float) -> int:
    """Beats of one instruction on registers of 128 bits.

    A group of LMUL registers takes LMUL beats, whatever its length is set to; a fraction of a
    register takes one; results twice as wide take twice as many. Loads and stores of neighbours
    move whole registers, those of scattered elements one element a beat. Scalar instructions take
    one. That is no timing: a division takes longer on any processor.

    Args:
        text: the instruction as disassembled, such as "vfmacc.vf v8, fa5, v0".
        sew, lmul: bits of an element and registers in a group, as last set.

    >>> beats_of("vfmacc.vf v8, fa5, v0", 32, 4), beats_of("vle32.v v0, (a0)", 32, 4)
    (4, 4)
    >>> beats_of("flw fa5, 0(a1)", 32, 4)
    1
    """
    name = text.split(None, 1)[0]
    if not name.startswith("v") or name.startswith("vset") or _ONE.match(name):
        return 1
    if whole := _WHOLE.match(name):
        return int(whole[1])
    if unit := _UNIT.match(name):
        return max(1, int(lmul * int(unit[1]) / sew))
    if _APART.match(name):
        return max(1, int(lmul * VLEN / sew))
    wide = name.startswith(("vw", "vfw", "vn", "vfn")) and not name.startswith(("vnot", "vneg"))
    wide = wide and not name.startswith(("vfnm", "vnms", "vfneg"))  # -(a b) + c: as wide
    return max(1, int(lmul * (2 if wide else 1)))


def count_log(
    log: Iterable[bytes], symbols: Sequence[Symbol], first: str = _FIRST, last: str = _LAST
) -> list[FunctionBeats]:
    """Counts a log of `spike -l`, from the first call of one function to that of another.

    Args:
        log: its lines.
        symbols: of the program.
        first, last: the functions.

    Returns:
        One entry for each function, the one with the most beats first.

    Raises:
        FpttError: the log ends before `last` was called.
    """
    places = {symbol.name: f"0x{symbol.address:016x}".encode() for symbol in symbols}
    begin, end = places[first], places[last]
    decoded: dict[bytes, _Decoded | None] = {}
    seen: Counter[tuple[bytes, tuple[int, float]]] = Counter()
    group, counting = _NO_GROUP, False
    for line in log:
        place = line[10:28]  # core   0: 0x0000000084000000 (0x00000297) auipc t0, 0x0
        if place in decoded:
            found = decoded[place]
        else:
            found = decoded[place] = _decode(line)
        if found is None:
            continue
        if found.group is not None:
            group = found.group
        if not counting:
            counting = place == begin
        elif place == end:
            return _by_function(seen, decoded, symbols)
        if counting:
            seen[place, group if found.vector else _NO_GROUP] += 1
    raise FpttError(f"the log of Spike ends before {last} is called")


@dataclass(frozen=True)
class _Decoded:
    text: str
    vector: bool
    group: tuple[int, float] | None


_NO_GROUP = (32, 1.0)


def _decode(line: bytes) -> _Decoded | None:
    """An instruction of the log; None for lines that are none, such as the names of functions."""
    found = re.match(rb"core\s+\d+: 0x[0-9a-f]{16} \(0x[0-9a-f]+\) (.*)", line)
    if found is None:
        return None
    text = found[1].decode()
    if not text.startswith("vset"):
        return _Decoded(text, text.startswith("v"), None)
    chosen = _SET.match(text)
    if chosen is None:
        raise FpttError(f"{text!r}: the size of vectors comes from a register")
    lmul = float(chosen[3]) if chosen[2] == "m" else 1.0 / float(chosen[3])
    return _Decoded(text, False, (int(chosen[1]), lmul))


def _by_function(
    seen: Mapping[tuple[bytes, tuple[int, float]], int],
    decoded: Mapping[bytes, _Decoded | None],
    symbols: Sequence[Symbol],
) -> list[FunctionBeats]:
    code = sorted((s for s in symbols if s.kind == "code"), key=lambda s: s.address)
    starts = [symbol.address for symbol in code]
    sums: dict[str, list[int]] = {}
    for (place, group), times in seen.items():
        found = decoded[place]
        assert found is not None
        address = int(place, 16)
        at = bisect_right(starts, address) - 1
        inside = at >= 0 and address < code[at].address + code[at].bytes
        total = sums.setdefault(code[at].name if inside else "", [0, 0, 0])
        total[0] += times
        total[1] += times * found.vector
        total[2] += times * beats_of(found.text, *group)
    rows = [FunctionBeats(name, *total) for name, total in sums.items()]
    return sorted(rows, key=lambda row: (-row.beats, row.function))


def count_beats(
    folder: Path, program: Program, x: Any, y: Any, *, timeout: float = 600.0
) -> list[FunctionBeats]:
    """Runs one batch of an exported model on Spike and counts the library's functions.

    Args:
        folder: what `fptt export --target rv64gcv` wrote.
        program: its program.
        x, y: one batch.
        timeout: seconds.

    Returns:
        One entry for each function of the model and the run time, and for the copies of the C
        library, the one with the most beats first. The check program itself is left out.

    Raises:
        InputError: Spike or a compiler is not installed.
        FpttError: the run does not end.
    """
    firmware = read_folder(folder)
    with tempfile.TemporaryDirectory() as scratch:
        elf = build_check(firmware, program, [(x, y)], Path(scratch), count=False)
        objects = [elf.parent / f"{Path(file.path).stem}.o" for file in firmware.files]
        objects.append(elf.parent / f"{firmware.name}.o")
        library = {s.name for path in objects for s in read_elf(path).symbols} | set(_COPIES)
        program_name, *options = emulator("spike-rv64").command(elf, vlen=VLEN)
        with subprocess.Popen(
            [program_name, "-l", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process:
            watch = threading.Timer(timeout, process.kill)
            watch.start()
            try:
                assert process.stderr is not None
                rows = count_log(process.stderr, read_elf(elf).symbols)
            finally:
                watch.cancel()
                process.kill()  # what follows is not counted
    return [row for row in rows if row.function in library]
