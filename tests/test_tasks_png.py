"""PNG images: every filter, and damage in any place."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from cifar_files import chunk, png
from hypothesis import given
from hypothesis import strategies as st
from tasks_helpers import whole

from fptt.errors import InputError
from fptt.tasks.png import read_png

SMALL = np.random.default_rng(1).integers(0, 256, (3, 4, 3), dtype=np.uint8)


@given(
    kinds=st.lists(st.integers(0, 4), min_size=1, max_size=6),
    width=st.integers(1, 7),
    seed=st.integers(0, 99),
)
def test_every_filter_in_every_order(kinds, width, seed):
    # few values, so that the three neighbours are often equally near
    rng, most = np.random.default_rng(seed), (5, 256)[seed % 2]
    pixels = rng.integers(0, most, (len(kinds), width, 3), dtype=np.uint8)
    assert np.array_equal(read_png(png(pixels, kinds), "f"), pixels)


def test_a_byte_damaged_anywhere_is_noticed():
    content = png(SMALL)
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0x21
        with pytest.raises(InputError, match=r"^f: "):
            read_png(bytes(damaged), "f")


def test_every_truncation_is_noticed():
    content = png(SMALL)
    for length in range(8, len(content)):
        message = f"f: ends after {length} bytes, in the middle of the image: download it again"
        with pytest.raises(InputError, match=whole(message)):
            read_png(content[:length], "f")


def header(width, height):
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GIF89a", "f: is not a PNG image; is this the right file?"),
        (b"", "f: is not a PNG image; is this the right file?"),
        (
            png(SMALL, header=(16, 2, 0, 0, 0)),
            "f: is a PNG image with bit depth 16, colour type 2, interlace 0; expected 8, 2 (red, "
            "green, blue) and 0: download it again",
        ),
        (
            png(SMALL, header=(8, 6, 0, 0, 1)),
            "f: is a PNG image with bit depth 8, colour type 6, interlace 1; expected 8, 2 (red, "
            "green, blue) and 0: download it again",
        ),
        (
            header(0, 5),
            "f: the header states 0 x 5 pixels; expected at least one, and at most 268,435,456 "
            "bytes: download it again",
        ),
        (
            header(2**32 - 1, 2**32 - 1),
            "f: the header states 4294967295 x 4294967295 pixels; expected at least one, and at "
            "most 268,435,456 bytes: download it again",
        ),
        (
            png(SMALL, idat=zlib.compress(b"\0" * 38)),
            "f: the header states 4 x 3 pixels = 39 bytes, the image holds 38: download it again",
        ),
        (
            png(SMALL, idat=zlib.compress(b"\0" * 10**6)),
            "f: the header states 4 x 3 pixels = 39 bytes, the image holds more than 39: download "
            "it again",
        ),
        (
            png(SMALL, idat=zlib.compress(b"\0" * 39)[:-4]),
            "f: the image has no checksum at its end: download it again",
        ),
        (
            png(SMALL, idat=zlib.compress(b"\x05" * 39)),
            "f: a line has filter 5; expected 0..4: download it again",
        ),
        (
            b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b""),
            "f: has no whole header (IHDR): download it again",
        ),
    ],
)
def test_images_that_cannot_be(content, message):
    with pytest.raises(InputError, match=whole(message)):
        read_png(content, "f")


def test_a_damaged_stream_whose_checksums_agree():
    with pytest.raises(InputError, match=r"^f: is damaged \(.+\): download it again\Z"):
        read_png(png(SMALL, idat=b"not zlib"), "f")


def test_an_image_that_unpacks_to_far_more_takes_no_memory():
    content = png(SMALL, idat=zlib.compress(bytes(20_000_000)))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="holds more than 39: download it again"):
            read_png(content, "f")
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()
