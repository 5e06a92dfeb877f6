"""What a snapshot holds, as bytes: a description in JSON, then the buffers.

    0  4  length of the description (little endian)
    4     the description: {program, trainer, extra, buffers: [{name, type, shape}]}
          the buffers' bytes, one after the other, little endian

The container around it (`slots`) checks that the bytes are those that were written. `decode` takes
nothing for granted all the same: whatever the bytes are, it ends soon, with a message.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fptt.checks import is_whole, plain
from fptt.program.ir import Buffer, Role
from fptt.program.plan import LEARNED

if TYPE_CHECKING:
    from fptt.backends import Backend
    from fptt.program import Program

Array = NDArray[Any]

#: how numbers of a buffer are stored; bfloat16 as the float32 of the same value
STORED = {
    "float64": "<f8",
    "float32": "<f4",
    "bfloat16": "<f4",
    "int32": "<i4",
    "uint32": "<u4",
}


class Malformed(ValueError):
    """Bytes that are no snapshot's contents; says why."""


@dataclass(frozen=True)
class Kept:
    """A buffer, or that part of it which a snapshot keeps.

    Attributes:
        buffer: the buffer.
        shape: of its first entries, which are kept.
    """

    buffer: Buffer
    shape: tuple[int, ...]

    @property
    def type(self) -> str:
        """NumPy's name of the stored numbers."""
        return STORED[self.buffer.dtype]

    @property
    def bytes(self) -> int:
        """Its size in a snapshot."""
        return math.prod(self.shape) * np.dtype(self.type).itemsize

    def described(self) -> dict[str, Any]:
        """Its entry in the description."""
        return {"name": self.buffer.name, "type": self.type, "shape": list(self.shape)}


def kept(program: Program, *, in_sequence: bool) -> list[Kept]:
    """What must be kept to go on with the same bits.

    Args:
        program: the program.
        in_sequence: whether a stream stands inside a sequence; then every buffer counts, because a
            part may be in flight. Otherwise what outlives a part: what is learnt, frozen
            parameters, and the carried state.
    """
    if in_sequence:
        return [Kept(b, b.shape) for b in program.buffers.values()]
    return [
        Kept(b, (b.lead, *b.shape[1:]) if b.lead else b.shape)
        for b in program.buffers.values()
        if b.role in (*LEARNED, Role.CARRY, Role.FROZEN) or b.lead
    ]


def encode(
    header: Mapping[str, Any], wanted: Sequence[Kept], backend: Backend
) -> tuple[int, Iterator[memoryview]]:
    """The length of the contents, and the contents piece by piece.

    One buffer at a time is copied, so saving takes memory for the largest one and not for all.
    """
    described = {**header, "buffers": [item.described() for item in wanted]}
    text = json.dumps(described, default=plain).encode()
    length = 4 + len(text) + sum(item.bytes for item in wanted)

    def pieces() -> Iterator[memoryview]:
        yield memoryview(struct.pack("<I", len(text)) + text)
        for item in wanted:
            corner = tuple(slice(0, extent) for extent in item.shape)
            values = np.ascontiguousarray(backend.read(item.buffer.name)[corner], item.type)
            yield values.reshape(-1).view(np.uint8).data

    return length, pieces()


def decode(data: bytes | bytearray | memoryview) -> tuple[dict[str, Any], dict[str, Array]]:
    """Description and arrays; the arrays lie in `data`.

    Raises:
        Malformed: anything else than what `encode` writes. Whether it fits a program is not known
            here.
    """
    if len(data) < 4:
        raise Malformed("it ends too soon")
    (length,) = struct.unpack_from("<I", data)
    if length > len(data) - 4:
        raise Malformed("its description is longer than the file")
    try:
        header = json.loads(bytes(data[4 : 4 + length]))
    except (ValueError, RecursionError) as error:
        raise Malformed(f"its description is no JSON ({str(error)[:80]})") from None
    _check_description(header)
    arrays: dict[str, Array] = {}
    offset = 4 + length
    for item in header["buffers"]:
        kind, shape = np.dtype(item["type"]), tuple(item["shape"])
        count = math.prod(shape)  # exact, whatever the numbers
        if count * kind.itemsize > len(data) - offset:
            raise Malformed(f"its buffer {item['name'][:80]} ends behind the end of the file")
        if item["name"] in arrays:
            raise Malformed(f"it has two buffers {item['name'][:80]}")
        arrays[item["name"]] = np.frombuffer(data, kind, count, offset).reshape(shape)
        offset += count * kind.itemsize
    if offset != len(data):
        raise Malformed("it goes on behind its last buffer")
    return header, arrays


def _check_description(header: Any) -> None:
    if not isinstance(header, dict):
        raise Malformed("its description is no JSON object")
    for name, kind in (("program", dict), ("trainer", dict), ("extra", dict), ("buffers", list)):
        if not isinstance(header.get(name), kind):
            raise Malformed(f"its description lacks {name!r}")
    trainer = header["trainer"]
    if not {"seed", "epoch", "stream"} <= trainer.keys():
        raise Malformed("its description lacks what the trainer counts")
    for item in header["buffers"]:
        if not (
            isinstance(item, dict)
            and isinstance(item.get("name"), str)
            and item.get("type") in [*STORED.values()]
            and isinstance(item.get("shape"), list)
            and 1 <= len(item["shape"]) <= 8
            and all(is_whole(extent) and extent > 0 for extent in item["shape"])
        ):
            raise Malformed("its description of the buffers is wrong")
