"""Reader of idx files, the format in which MNIST is published.

An idx file is a big-endian header (two zero bytes, a type code, the number of dimensions, then
each dimension as a 32-bit count) followed by the numbers themselves.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fptt.errors import InputError

_UNSIGNED_BYTE = 0x08


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes, compressed if its name ends in .gz.

    Args:
        path: the file.
        dimensions: how many dimensions the array must have (images 3, labels 1).

    Returns:
        uint8 array with the shape that the header states.

    Raises:
        InputError: cannot be read or unpacked, has another magic number, or holds more or fewer
            bytes than its header states.

    Example:
        >>> read_idx(Path("train-labels-idx1-ubyte.gz"), 1)  # doctest: +SKIP
        array([5, 0, 4, ..., 5, 6, 8], dtype=uint8)
    """
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: cannot be unpacked ({error}); expected a whole gzip file: download it again"
        ) from None
    return parse_idx(content, dimensions, str(path))


def parse_idx(content: bytes, dimensions: int, name: str) -> NDArray[np.uint8]:
    """The array in the bytes of an idx file; see `read_idx`. `name` is for error messages."""
    header_bytes = 4 + 4 * dimensions
    expected_magic = _UNSIGNED_BYTE << 8 | dimensions
    magic = int.from_bytes(content[:4], "big")
    if len(content) < 4 or magic != expected_magic:
        raise InputError(
            f"{name}: the magic number is 0x{magic:08x}; expected 0x{expected_magic:08x} "
            f"(unsigned bytes, dimensions: {dimensions}): is this the right file?"
        )
    if len(content) < header_bytes:
        raise InputError(
            f"{name}: holds {len(content)} bytes; expected a header of {header_bytes}: "
            "download it again"
        )
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    stated = int(np.prod([int(count) for count in shape], dtype=object))
    if len(content) - header_bytes != stated:
        raise InputError(
            f"{name}: the header states {' x '.join(map(str, shape))} = {stated} bytes of data, "
            f"the file holds {len(content) - header_bytes}: download it again"
        )
    return np.frombuffer(content, np.uint8, offset=header_bytes).reshape(shape)
