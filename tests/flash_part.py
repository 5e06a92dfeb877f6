"""Flash memory as a part has it, with its rules and its faults, and the run time's saving on it.

`Part` keeps the rules of the data sheets and notes every offence: a unit is written once between
two erases (parts with ECC), aligned, within a page; bits are cleared by writing and set by erasing
whole blocks. It loses power before, in or after any call, and it wears out. `Device` is a program
in C that saves into a part and restores from it.
"""

from __future__ import annotations

import ctypes
import os
import random
import struct
import subprocess
import zlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from test_math import WARNINGS, compiler

#: mutations_c.py compiles another copy, whose warnings do not count as found
ROOT = Path(os.environ.get("FPTT_RUNTIME", Path(__file__).parents[1]))
STRICT = [] if "FPTT_RUNTIME" in os.environ else WARNINGS
INCLUDE = ROOT / "runtime" / "include"
SOURCES = [ROOT / "runtime" / "src" / name for name in ("flash.c", "status.c")]
#: the macros of the header as functions
MACROS = """
#include "fptt_flash.h"
uint32_t blocks_of(uint32_t p, uint32_t e, uint32_t w) { return FPTT_FLASH_SLOT_BLOCKS(p, e, w); }
uint32_t area_of(uint32_t p, uint32_t e, uint32_t w) { return FPTT_FLASH_AREA_BYTES(p, e, w); }
uint32_t header_of(uint32_t w) { return FPTT_FLASH_HEADER_BYTES(w); }
_Static_assert(FPTT_FLASH_HEADER_BYTES(8) == 40, "a constant expression");
"""
#: what these functions answer
STATUSES = (
    "OK",
    "FLASH_GEOMETRY",
    "FLASH_TOO_SMALL",
    "FLASH_WRITE_FAILED",
    "FLASH_READ_FAILED",
    "NOTHING_SAVED",
    "OTHER_PROGRAM",
    "OTHER_KIND",
    "OLDER_STATE",
)
SLOTS = ("damaged", "empty", "other program", "unfinished", "complete")
PAGE = 256
IDENTITY = 0x1234ABCD

_READ = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32
)
_ERASE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32)


class _Flash(ctypes.Structure):
    _fields_ = (
        ("context", ctypes.c_void_p),
        ("bytes", ctypes.c_uint32),
        ("erase_bytes", ctypes.c_uint32),
        ("write_bytes", ctypes.c_uint32),
        ("read", _READ),
        ("write", _READ),
        ("erase", _ERASE),
    )


class Piece(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("bytes", ctypes.c_uint32))


class _Found(ctypes.Structure):
    _fields_ = (
        ("slot", ctypes.c_int * 2),
        ("newest", ctypes.c_int),
        ("kind", ctypes.c_uint32),
        ("sequence", ctypes.c_uint32),
        ("bytes", ctypes.c_uint32),
    )


@cache
def library(folder: str) -> ctypes.CDLL:
    """The run time's part, compiled so that undefined behaviour ends the process."""
    macros, output = Path(folder) / "macros.c", Path(folder) / "flash.so"
    macros.write_text(MACROS)
    flags = ["-std=c11", "-O1", "-shared", "-fPIC", "-fsanitize=undefined"]
    trap = ["-fsanitize-undefined-trap-on-error", *(STRICT or ["-w"]), f"-I{INCLUDE}"]
    command = [compiler(), *flags, *trap, "-Wno-missing-prototypes", *map(str, SOURCES)]
    done = subprocess.run([*command, macros, "-o", output], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    lib = ctypes.CDLL(str(output))
    lib.fptt_status_name.restype = ctypes.c_char_p
    lib.fptt_status_text.restype = ctypes.c_char_p
    return lib


def up(count: int, unit: int) -> int:
    """Rounded up to a multiple."""
    return -(-count // unit) * unit


def header_bytes(write: int) -> int:
    """Bytes of a slot before its payload."""
    return up(32, write) + up(4, write)


def slot_blocks(payload: int, erase: int, write: int) -> int:
    """Blocks of a slot, which is the number of erases of a save."""
    return up(header_bytes(write) + payload, erase) // erase


def slot_image(
    payload: bytes,
    write: int,
    *,
    sequence: int = 1,
    kind: int = 0,
    identity: int = IDENTITY,
    version: int = 1,
    mark: bytes = b"KEPT",
) -> bytes:
    """A slot as it is described, written without the C code."""
    head = struct.pack(
        "<4sIIIIII",
        b"FPTT",
        version,
        identity,
        kind,
        sequence,
        len(payload),
        zlib.crc32(payload),
    )
    head += struct.pack("<I", zlib.crc32(head))
    parts = ((head, up(32, write)), (mark, up(4, write)), (payload, up(len(payload), write)))
    return b"".join(part.ljust(length, b"\xff") for part, length in parts)


@dataclass
class Cut:
    """Where the power goes: in a call, counted from 0, and how it leaves the cells.

    `how` is "before" or "after", what WRITE_CUTS and ERASE_CUTS name, or "any" of all these; cells
    that are `weak` then come only of that kind of call.
    """

    call: int
    how: str
    seed: int = 0
    weak: str = ""

    def chosen(self, call: str) -> str:
        """How it leaves the cells in this kind of call."""
        if self.how != "any":
            return self.how
        if call == "read":
            return "before"
        hows = ("before", "after", *(WRITE_CUTS if call == "write" else ERASE_CUTS))
        source = random.Random(self.seed + 1)
        return source.choice([how for how in hows if how != "weak" or call == self.weak])


#: how a write that was cut leaves its units
WRITE_CUTS = ("prefix", "some bits", "all bits", "weak", "unreadable")
#: how an erase that was cut leaves its block
ERASE_CUTS = ("prefix", "some bits", "garbage", "zeros", "ones", "nothing", "weak", "unreadable")


@dataclass
class Part:
    """A flash memory of `blocks` blocks; see the head of the file."""

    write: int
    erase: int
    blocks: int
    data: bytearray = field(init=False)
    used: bytearray = field(init=False)  # of each unit: 1 once it was written
    erases: list[int] = field(init=False)  # of each block
    weak: dict[int, int] = field(default_factory=dict)  # address -> bits that read at random
    unreadable: set[int] = field(default_factory=set)  # units
    offences: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)  # since the last start
    dead: bool = False
    cut: Cut | None = None
    # worn cells: (what, block) -> "fails" or "silent"; stuck: address -> (mask, value)
    worn: dict[tuple[str, int], str] = field(default_factory=dict)
    stuck: dict[int, tuple[int, int]] = field(default_factory=dict)
    flip_at_read: dict[int, int] = field(default_factory=dict)  # call -> address whose bit 0 turns
    complains: set[int] = field(default_factory=set)  # calls that do their work and answer no
    random: random.Random = field(default_factory=lambda: random.Random(0))

    def __post_init__(self) -> None:
        self.data = bytearray(b"\xff" * self.bytes)
        self.used = bytearray(self.bytes // self.write)
        self.erases = [0] * self.blocks

    @property
    def bytes(self) -> int:
        return self.erase * self.blocks

    def image(self) -> tuple[object, ...]:
        """All that the power does not take."""
        return bytes(self.data), bytes(self.used), dict(self.weak), set(self.unreadable)

    def put_back(self, image: tuple[object, ...]) -> None:
        data, used, weak, unreadable = image
        self.data[:], self.used[:] = data, used
        self.weak, self.unreadable = dict(weak), set(unreadable)
        self.start()

    def start(self, cut: Cut | None = None) -> None:
        """Power is on."""
        self.dead, self.cut, self.calls = False, cut, []

    def _offence(self, text: str) -> None:
        self.offences.append(text)

    def _call(self, what: str) -> Cut | None:
        """Counts a call; the cut if it falls into this one."""
        self.calls.append(what)
        if self.cut and self.cut.call == len(self.calls) - 1:
            self.dead = True
            return Cut(self.cut.call, self.cut.chosen(what), self.cut.seed)
        return None

    def on_read(self, at: int, count: int) -> bytes | None:
        """The bytes, or None if they cannot be read."""
        if self.dead:
            return None
        if count < 1 or at + count > self.bytes:
            self._offence(f"read of {count} at {at}")
            return None
        number = len(self.calls)
        if number in self.flip_at_read:
            self.data[self.flip_at_read[number]] ^= 1
        if self._call("read"):
            return None
        if number in self.complains:
            return None
        if self.unreadable and not self.unreadable.isdisjoint(
            range(at // self.write, (at + count - 1) // self.write + 1)
        ):
            return None
        read = self.data[at : at + count]
        for address, mask in self.weak.items():
            if at <= address < at + count:
                read[address - at] ^= self.random.getrandbits(8) & mask
        for address, (mask, value) in self.stuck.items():
            if at <= address < at + count:
                read[address - at] = read[address - at] & ~mask | value & mask
        return bytes(read)

    def on_write(self, at: int, data: bytes, pointer: int) -> bool:
        if self.dead:
            return False
        end = at + len(data)
        units = range(at // self.write, end // self.write)
        if not data or at % self.write or len(data) % self.write or end > self.bytes:
            self._offence(f"write of {len(data)} at {at}")
            return False
        if at // PAGE != (end - 1) // PAGE:
            self._offence(f"write of {len(data)} at {at} across a page")
        if pointer % 8:
            self._offence("write from a crooked address")
        if any(self.used[unit] for unit in units):
            self._offence(f"unit at {at} written twice")
        cut = self._call("write")
        if cut and cut.how == "before":
            return False
        blocks = {at // self.erase, (end - 1) // self.erase}
        worn = next((self.worn["write", b] for b in blocks if ("write", b) in self.worn), None)
        if worn == "silent":
            return True
        if worn == "fails":
            data = bytes(byte | self.random.getrandbits(8) for byte in data)
        for unit in units:
            self.used[unit] = 1
        if cut is None or cut.how == "after":
            self._clear(at, data)
            return cut is None and worn is None and len(self.calls) - 1 not in self.complains
        source = random.Random(cut.seed)
        if cut.how == "prefix":
            self._clear(at, data[: source.randrange(len(data) + 1)])
        elif cut.how == "some bits":
            self._clear(at, bytes(byte | source.getrandbits(8) for byte in data))
        elif cut.how == "all bits":
            self._clear(at, data)
        elif cut.how == "weak":
            self._clear(at, data)
            zeros = [i for i in range(len(data)) if data[i] != 0xFF]
            for i in source.sample(zeros, min(len(zeros), source.choice([1, 1, 2, 300]))):
                self.weak[at + i] = ~data[i] & 255 & (source.getrandbits(8) | 1 << (i % 8))
        else:
            assert cut.how == "unreadable"
            self._clear(at, data)
            self.unreadable.update(units)
        return False

    def _clear(self, at: int, data: bytes) -> None:
        for i, byte in enumerate(data, at):
            self.data[i] &= byte

    def on_erase(self, at: int) -> bool:
        if self.dead:
            return False
        if at % self.erase or at >= self.bytes:
            self._offence(f"erase at {at}")
            return False
        cut = self._call("erase")
        if cut and cut.how == "before":
            return False
        block, end = at // self.erase, at + self.erase
        if (worn := self.worn.get(("erase", block))) is not None:
            return worn == "silent"
        self.erases[block] += 1
        old = self.data[at:end]
        old_weak = {a: mask for a, mask in self.weak.items() if at <= a < end}
        units = range(at // self.write, end // self.write)
        self.data[at:end] = b"\xff" * self.erase
        self.used[units.start : units.stop] = bytes(len(units))
        old_unreadable = self.unreadable.intersection(units)
        self.unreadable -= old_unreadable
        for address in old_weak:
            del self.weak[address]
        if cut is None or cut.how == "after":
            return cut is None and len(self.calls) - 1 not in self.complains
        # whatever it looks like now, it must be erased again before it is written
        self.used[units.start : units.stop] = b"\x01" * len(units)
        source = random.Random(cut.seed)
        if cut.how == "prefix":
            done = source.randrange(self.erase + 1)
            self.data[at + done : end] = old[done:]
        elif cut.how == "some bits":
            self.data[at:end] = bytes(byte | source.getrandbits(8) for byte in old)
        elif cut.how == "garbage":
            self.data[at:end] = source.randbytes(self.erase)
        elif cut.how == "zeros":
            self.data[at:end] = bytes(self.erase)
        elif cut.how == "nothing":
            self.data[at:end] = old
            self.weak.update(old_weak)
            self.unreadable |= old_unreadable
        elif cut.how == "weak":
            self.data[at:end] = old
            zeros = [i for i in range(self.erase) if old[i] != 0xFF]
            for i in source.sample(zeros, min(len(zeros), source.choice([1, 1, 2, 300]))):
                self.weak[at + i] = ~old[i] & 255 & (source.getrandbits(8) | 1 << (i % 8))
        elif cut.how == "unreadable":
            self.unreadable.update(units)
        else:
            assert cut.how == "ones"
        return False


class Device:
    """A program on a device: the run time's functions with a part below."""

    def __init__(self, lib: ctypes.CDLL, part: Part, identity: int = IDENTITY) -> None:
        self.lib, self.part, self.identity = lib, part, identity
        self.flash = _Flash(
            bytes=part.bytes,
            erase_bytes=part.erase,
            write_bytes=part.write,
            read=_READ(self._read),
            write=_READ(self._write),
            erase=_ERASE(self._erase),
        )

    def _read(self, _: int, at: int, to: int, count: int) -> int:
        found = self.part.on_read(at, count)
        if found is None:
            # what a part leaves in memory when it fails is anybody's guess
            ctypes.memset(to, 0x5A, count)
            return 7
        ctypes.memmove(to, found, count)
        return 0

    def _write(self, _: int, at: int, data: int, count: int) -> int:
        return 0 if self.part.on_write(at, ctypes.string_at(data, count), data) else -3

    def _erase(self, _: int, at: int) -> int:
        return 0 if self.part.on_erase(at) else 1

    def _status(self, number: int) -> str:
        name = self.lib.fptt_status_name(number).decode()
        assert name.removeprefix("FPTT_") in STATUSES, name
        return name.removeprefix("FPTT_")

    def check(self) -> str:
        return self._status(self.lib.fptt_flash_check(ctypes.byref(self.flash)))

    def call(self, name: str, kind: int, pieces: ctypes.Array) -> str:
        """fptt_flash_save or fptt_flash_restore."""
        function = getattr(self.lib, f"fptt_flash_{name}")
        flash = ctypes.byref(self.flash)
        return self._status(function(flash, self.identity, kind, pieces, len(pieces)))

    def save(self, payload: bytes, cuts: tuple[int, ...] = (), kind: int = 0) -> str:
        """Saves; `cuts` are the lengths of all pieces but the last."""
        memory, pieces = make_pieces(payload, cuts)
        status = self.call("save", kind, pieces)
        assert memory.raw == _spread(payload, cuts), "saving wrote into the memory"
        return status

    def restore(
        self, length: int, cuts: tuple[int, ...] = (), kind: int = 0
    ) -> tuple[str, bytes | None]:
        """The status, and what was restored if it says so."""
        before = bytes(0xA0 + i % 7 for i in range(length))
        memory, pieces = make_pieces(before, cuts)
        status = self.call("restore", kind, pieces)
        after = _gather(memory.raw, length, cuts)
        assert memory.raw == _spread(after, cuts), "wrote beside the pieces"
        if status in ("OK", "OLDER_STATE"):
            return status, after
        if status != "FLASH_READ_FAILED":
            assert after == before, "the memory was touched"
        return status, None

    def look(self) -> tuple[str, _Found]:
        found = _Found()
        status = self.lib.fptt_flash_look(
            ctypes.byref(self.flash), self.identity, ctypes.byref(found)
        )
        nothing = ctypes.POINTER(_Found)()
        if not self.part.weak:
            again = self.lib.fptt_flash_look(ctypes.byref(self.flash), self.identity, nothing)
            assert status == again
        return self._status(status), found

    def forget(self) -> str:
        return self._status(self.lib.fptt_flash_forget(ctypes.byref(self.flash), self.identity))


def slots(found: _Found) -> tuple[str, str]:
    """What look says of both slots."""
    return SLOTS[found.slot[0]], SLOTS[found.slot[1]]


#: bytes between two pieces in memory, which nobody may touch
GAP = b"\xc3\x3c\xc3"


def _lengths(length: int, cuts: tuple[int, ...]) -> list[int]:
    assert sum(cuts) <= length
    return [*cuts, length - sum(cuts)]


def _spread(payload: bytes, cuts: tuple[int, ...]) -> bytes:
    """The memory around the pieces; with gaps of three bytes they lie at any address."""
    memory, at = GAP, 0
    for length in _lengths(len(payload), cuts):
        memory += payload[at : at + length] + GAP
        at += length
    return memory


def _gather(memory: bytes, length: int, cuts: tuple[int, ...]) -> bytes:
    payload, at = b"", len(GAP)
    for count in _lengths(length, cuts):
        payload += memory[at : at + count]
        at += count + len(GAP)
    return payload


def make_pieces(payload: bytes, cuts: tuple[int, ...]) -> tuple[ctypes.Array, ctypes.Array]:
    """Memory with the payload, and the pieces in it."""
    spread = _spread(payload, cuts)
    memory = ctypes.create_string_buffer(spread, len(spread))
    lengths = _lengths(len(payload), cuts)
    if lengths == [0]:
        return memory, (Piece * 0)()
    pieces, at = (Piece * len(lengths))(), ctypes.addressof(memory) + len(GAP)
    for piece, length in zip(pieces, lengths, strict=True):
        piece.data, piece.bytes = at if length else None, length
        at += length + len(GAP)
    return memory, pieces
