"""Two slots that take turns: a container in which the last complete state is never overwritten.

It knows nothing of what it holds, and of its medium only reading, erasing, writing and syncing, so
the same layout serves a file and raw flash. All numbers are little endian.

    header of the container, 32 bytes, written once       header of a slot, 32 bytes
     0  8  "FPTTSNAP"                                       0  4  "SLOT"
     8  4  version, 2                                       4  4  version, 2
    12  4  where slot 0 begins                              8  8  length of the payload
    16  8  capacity: bytes of a slot, header included      16  4  sequence number
    24  4  zero                                            20  4  CRC-32 of the payload
    28  4  CRC-32 of bytes 0 to 27                         24  4  zero
                                                           28  4  CRC-32 of bytes 0 to 27

The payload follows its slot's header; slot 1 begins one capacity after slot 0. Both begin at
multiples of ALIGNMENT, so neither shares a sector with the other or with the container's header:
a sector that a power cut spoils costs at most the slot that is being written.

Saving writes the slot that does not hold the newest state, in this order:

1. sync: the newest state may have been written by a process that was killed before its own sync.
   From here on it is the only one, so it must be on the medium and not just on its way.
2. erase the slot's header. Whoever loads now sees that a state was begun and not finished.
3. write the payload; sync. Until here nothing counts: the slot has no header.
4. write the header; sync. It is the commit. It came last and alone, so where it is whole the
   payload is whole; where it is torn its own checksum does not fit, and the other slot counts.

The checksum of the payload is therefore not what a torn write is left to: it finds bytes that
changed later.

Sequence numbers go round at 2^32: a is newer than b if (a - b) mod 2^32 is below 2^31.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

MAGIC = b"FPTTSNAP"
VERSION = 2
#: bytes of either header
HEADER = 32
#: slots begin at multiples of this: the sector of disks and the smallest erasable block of flash
ALIGNMENT = 4096
#: what an erased header holds; flash erases to ones
ERASED = b"\xff" * HEADER

_CONTAINER = struct.Struct("<8sIIQI")
_SLOT = struct.Struct("<4sIQIII")
_SLOT_MAGIC = b"SLOT"
_CHUNK = 1 << 20
#: no medium is larger; offsets fit into 64 bits with a sign
_END = 1 << 62
#: how often a reader looks again while another process is saving
_LOOKS = 5


class Medium(Protocol):
    """Memory that keeps its contents. Offsets and counts are bytes."""

    def size(self) -> int:
        """Where it ends."""

    def read(self, offset: int, count: int) -> bytes | bytearray:
        """Bytes; fewer where the medium ends."""

    def erase(self, offset: int, count: int) -> None:
        """Makes room for a slot of so many bytes and leaves ERASED in the place of its header."""

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Writes what was erased before."""

    def sync(self) -> None:
        """Returns when everything written so far is on the medium."""


@dataclass(frozen=True)
class Layout:
    """Where the slots lie.

    Attributes:
        begin: offset of slot 0.
        capacity: bytes of a slot, its header included.
    """

    begin: int
    capacity: int

    @classmethod
    def of(cls, length: int) -> Layout:
        """For payloads of about this length; they may grow a little."""
        wanted = HEADER + length + length // 8 + ALIGNMENT
        return cls(ALIGNMENT, -(-wanted // ALIGNMENT) * ALIGNMENT)

    @property
    def room(self) -> int:
        """The longest payload."""
        return self.capacity - HEADER

    def offset(self, index: int) -> int:
        """Where a slot begins."""
        return self.begin + index * self.capacity


@dataclass(frozen=True)
class Slot:
    """What the header of a slot says."""

    index: int
    sequence: int
    length: int
    checksum: int


@dataclass(frozen=True)
class State:
    """The newest complete state.

    Attributes:
        payload: its bytes.
        newest: False where something newer, or something that cannot be judged, is damaged.
    """

    payload: bytes | bytearray
    newest: bool


def _signed(data: bytes) -> bytes:
    return data + struct.pack("<I", zlib.crc32(data))


def is_signed(header: bytes | bytearray) -> bool:
    """Whether a header, of the container or of a slot, is whole. Later versions keep this."""
    return len(header) == HEADER and header[-4:] == struct.pack("<I", zlib.crc32(header[:-4]))


def read_layout(medium: Medium) -> Layout | None:
    """Where the slots lie; None if this is no container of this version, or its header is damaged.

    Example:
        >>> class Memory(bytearray):
        ...     def read(self, offset, count):
        ...         return self[offset : offset + count]
        >>> read_layout(Memory(b"something else")) is None
        True
    """
    header = medium.read(0, HEADER)
    if not is_signed(header):
        return None
    magic, version, begin, capacity, zero = _CONTAINER.unpack(header[:-4])
    if (magic, version, zero) != (MAGIC, VERSION, 0) or begin < HEADER or capacity < HEADER:
        return None
    return Layout(begin, capacity) if begin + 2 * capacity < _END else None


def _read_headers(medium: Medium, layout: Layout) -> list[bytes | bytearray | None]:
    """The headers of both slots, None where the medium ends before a slot: it was never begun."""
    end = medium.size()
    return [
        medium.read(layout.offset(index), HEADER) if layout.offset(index) < end else None
        for index in (0, 1)
    ]


def _slot(index: int, header: bytes | bytearray | None, layout: Layout) -> Slot | None:
    if header is None or not is_signed(header):
        return None
    magic, version, length, sequence, checksum, zero = _SLOT.unpack(header[:-4])
    if (magic, version, zero) != (_SLOT_MAGIC, VERSION, 0) or length > layout.room:
        return None
    return Slot(index, sequence, length, checksum)


def _newest_first(
    headers: list[bytes | bytearray | None], layout: Layout
) -> tuple[list[Slot], bool]:
    """The slots whose headers are whole, and whether there is one with something else."""
    slots = [_slot(index, header, layout) for index, header in enumerate(headers)]
    damaged = any(
        slot is None and header is not None for slot, header in zip(slots, headers, strict=True)
    )
    whole = [slot for slot in slots if slot is not None]
    if len(whole) == 2 and is_newer(whole[1].sequence, whole[0].sequence):
        whole.reverse()
    return whole, damaged


def is_newer(a: int, b: int) -> bool:
    """Whether sequence number a comes after b, also past the end of 32 bits.

    Example:
        >>> is_newer(0, 2**32 - 1)
        True
    """
    return 0 < (a - b) % 2**32 < 2**31


def load(medium: Medium, layout: Layout) -> State | None:
    """The newest state that is complete, or None.

    A state that another process is writing does not count yet. If it saves so often that both
    slots change while one is read, this looks again.
    """
    for _ in range(_LOOKS):
        headers = _read_headers(medium, layout)
        slots, damaged = _newest_first(headers, layout)
        for slot in slots:
            payload = medium.read(layout.offset(slot.index) + HEADER, slot.length)
            if len(payload) == slot.length and zlib.crc32(payload) == slot.checksum:
                return State(payload, not damaged and slot == slots[0])
        if _read_headers(medium, layout) == headers:
            break
    return None


def newest(medium: Medium, layout: Layout) -> Slot | None:
    """The slot with the newest complete state, or None; takes no memory for the payload."""
    for slot in _newest_first(_read_headers(medium, layout), layout)[0]:
        start, total, left = layout.offset(slot.index) + HEADER, 0, slot.length
        while left:
            chunk = medium.read(start + slot.length - left, min(left, _CHUNK))
            if not chunk:
                break
            total, left = zlib.crc32(chunk, total), left - len(chunk)
        if not left and total == slot.checksum:
            return slot
    return None


def create(medium: Medium, layout: Layout, length: int, chunks: Iterable[memoryview]) -> None:
    """Writes a container with a first state; `length` and `chunks` as in `put`."""
    medium.write(0, _signed(_CONTAINER.pack(MAGIC, VERSION, layout.begin, layout.capacity, 0)))
    _write(medium, layout, 0, 0, length, chunks)


def put(
    medium: Medium, layout: Layout, last: Slot, length: int, chunks: Iterable[memoryview]
) -> None:
    """Writes the next state into the slot that does not hold the last one.

    Args:
        medium, layout: where.
        last: what `newest` found.
        length: bytes of the state, at most `layout.room`.
        chunks: its bytes, piece by piece; each is taken only when the one before is written.
    """
    medium.sync()
    _write(medium, layout, 1 - last.index, (last.sequence + 1) % 2**32, length, chunks)


def _write(
    medium: Medium,
    layout: Layout,
    index: int,
    sequence: int,
    length: int,
    chunks: Iterable[memoryview],
) -> None:
    start, checksum, done = layout.offset(index), 0, 0
    medium.erase(start, HEADER + length)
    for chunk in chunks:
        medium.write(start + HEADER + done, chunk)
        checksum, done = zlib.crc32(chunk, checksum), done + len(chunk)
    if done != length:
        raise ValueError(f"a state of {length} bytes was announced, and {done} came")
    medium.sync()
    try:
        header = _SLOT.pack(_SLOT_MAGIC, VERSION, length, sequence, checksum, 0)
        medium.write(start, _signed(header))
        medium.sync()
    except BaseException:
        # it may or may not have reached the medium. If it were taken for the newest state, the
        # next one would overwrite the other slot, perhaps the only one that is really there
        with contextlib.suppress(OSError):
            medium.write(start, ERASED)
        raise
