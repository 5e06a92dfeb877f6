"""The engine is compiled, linked and found, in the version of the package."""

import re
from pathlib import Path

import pytest

import fptt
from fptt.native._engine import ffi, lib
from fptt.native.build_ffi import declarations


def test_one_version():
    assert ffi.string(lib.fptt_version()).decode() == fptt.__version__


@pytest.mark.parametrize("header", ["engine.h", "bench.h"])
def test_python_sees_what_the_header_declares(header):
    header = Path(fptt.__file__).parent / "native" / header
    names = re.findall(r"(\w+)\(", declarations(header.read_text()))
    assert names
    assert set(names) <= set(dir(lib))
