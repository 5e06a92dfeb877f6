"""Shared by the tests of fptt.tasks."""

import os
import re
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The directory with real data; the variable FPTT_DATA names it."""
    given = os.environ.get("FPTT_DATA")
    if not given:
        pytest.skip("FPTT_DATA is not set: this test needs the real data files")
    return Path(given)


def whole(message: str) -> str:
    """A pattern that matches this message and nothing else; {} stands for any path."""
    return "^" + re.escape(message).replace(r"\{\}", r"\S+") + r"\Z"
