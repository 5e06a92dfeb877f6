"""Reader of PNG images as data sets use them: 8 bits a channel, red, green, blue, not interlaced.

A PNG file is a signature and chunks (length, type, content, checksum). The content of the IDAT
chunks, joined, is one zlib stream; unpacked, it holds for every line a byte with the kind of its
filter and the line's bytes, each less a prediction from the bytes to the left and above.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from fptt.errors import InputError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = 3
MOST_BYTES = 1 << 28  # of the pixels: a damaged header must not ask for all memory
_NONE, _SUB, _UP, _AVERAGE, _PAETH = range(5)

Bytes = NDArray[np.uint8]


def read_png(content: bytes, name: str) -> Bytes:
    """The pixels of a PNG image.

    Args:
        content: of the file.
        name: of the file, for errors.

    Returns:
        uint8 [height, width, 3]: red, green, blue.

    Raises:
        InputError: not a PNG image, damaged, or of another kind than red, green and blue of 8
            bits without interlacing.

    Example:
        >>> from pathlib import Path
        >>> read_png(Path("data_batch_1.png").read_bytes(), "it").shape  # doctest: +SKIP
        (10000, 1024, 3)

    Source: W3C, "Portable Network Graphics (PNG) Specification", sections 5 (chunks), 9 (filters)
    and 11.2.2 (IHDR).
    """
    header, packed = _chunks(content, name)
    width, height, *kind = struct.unpack(">IIBBBBB", header)
    if kind != [8, 2, 0, 0, 0]:
        depth, colour, *_, interlace = kind
        raise InputError(
            f"{name}: is a PNG image with bit depth {depth}, colour type {colour}, interlace "
            f"{interlace}; expected 8, 2 (red, green, blue) and 0: download it again"
        )
    expected = height * (1 + CHANNELS * width)
    if not 0 < expected <= MOST_BYTES or width == 0:
        raise InputError(
            f"{name}: the header states {width} x {height} pixels; expected at least one, and at "
            f"most {MOST_BYTES:,} bytes: download it again"
        )
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(packed, expected + 1)
    except zlib.error as error:
        raise InputError(f"{name}: is damaged ({error}): download it again") from None
    if len(raw) != expected:
        found = f"more than {expected}" if len(raw) > expected else len(raw)
        raise InputError(
            f"{name}: the header states {width} x {height} pixels = {expected} bytes, the image "
            f"holds {found}: download it again"
        )
    if not unpacker.eof:
        raise InputError(f"{name}: the image has no checksum at its end: download it again")
    lines = np.frombuffer(raw, np.uint8).reshape(height, 1 + CHANNELS * width)
    kinds, filtered = lines[:, 0], lines[:, 1:].reshape(height, width, CHANNELS)
    if kinds.max() > _PAETH:
        raise InputError(
            f"{name}: a line has filter {kinds.max()}; expected 0..{_PAETH}: download it again"
        )
    return _unfiltered(kinds, filtered)


def _chunks(content: bytes, name: str) -> tuple[bytes, bytes]:
    """The content of IHDR, and that of all IDAT chunks."""
    if not content.startswith(SIGNATURE):
        raise InputError(f"{name}: is not a PNG image; is this the right file?")
    header, packed, place = b"", [], len(SIGNATURE)
    while True:
        length, kind = struct.unpack_from(">I4s", content.ljust(place + 8, b"\0"), place)
        end = place + 8 + length
        if end + 4 > len(content):
            raise InputError(
                f"{name}: ends after {len(content)} bytes, in the middle of the image: download "
                "it again"
            )
        body = content[place + 8 : end]
        if zlib.crc32(kind + body) != int.from_bytes(content[end : end + 4], "big"):
            raise InputError(f"{name}: a checksum at byte {end} does not agree: download it again")
        if kind == b"IHDR":
            header = body
        elif kind == b"IDAT":
            packed.append(body)
        elif kind == b"IEND":
            break
        place = end + 4
    if len(header) != 13:
        raise InputError(f"{name}: has no whole header (IHDR): download it again")
    return header, b"".join(packed)


def _unfiltered(kinds: Bytes, filtered: Bytes) -> Bytes:
    """The pixels [height, width, 3]; all sums are modulo 256, as uint8 has them."""
    pixels = filtered.copy()
    # Lines with these filters need no other line, so they are done at once.
    to_the_left = kinds == _SUB
    pixels[to_the_left] = np.cumsum(filtered[to_the_left], axis=1, dtype=np.uint8)
    nothing = np.zeros_like(pixels[0])
    for line in np.flatnonzero(kinds >= _UP):
        above = pixels[line - 1] if line else nothing
        if kinds[line] == _UP:
            pixels[line] += above
        else:
            pixels[line] = _sequential(kinds[line] == _PAETH, filtered[line], above)
    return pixels


def _sequential(paeth: bool, line: Bytes, above: Bytes) -> Bytes:
    """A line [width, 3] whose every pixel is predicted from the one before it."""
    found = np.empty_like(line)
    for channel in range(CHANNELS):
        left = corner = 0
        row = []
        for value, up in zip(line[:, channel].tolist(), above[:, channel].tolist(), strict=True):
            guess = _nearest(left, up, corner) if paeth else (left + up) // 2
            left, corner = (value + guess) % 256, up
            row.append(left)
        found[:, channel] = row
    return found


def _nearest(left: int, up: int, corner: int) -> int:
    """Paeth's predictor: of the three, in this order, the one nearest to left + up - corner."""
    estimate = left + up - corner
    return min((left, up, corner), key=lambda value: abs(estimate - value))
