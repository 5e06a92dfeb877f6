"""What the tests of firmware need besides Python: compilers and emulators.

A missing tool skips the test and names the tool. In CI, where nothing may be left out, it fails.
"""

import os
import shutil
import sys
from pathlib import Path

import pytest

from fptt.device import EMULATORS, TARGETS
from fptt.errors import InputError


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false", "no")


def lacking(reason: str) -> None:
    """Skips; in CI, fails."""
    if in_ci():
        pytest.fail(f"in CI no test may be left out: {reason}")
    pytest.skip(reason)


def need(*commands: str) -> None:
    """Goes on only where all these commands are, on the path or beside Python."""
    beside = str(Path(sys.executable).parent)
    for command in commands:
        if not shutil.which(command) and not shutil.which(command, path=beside):
            lacking(f"{command} is missing: run scripts/cross_tools.sh")


def need_target(name: str) -> None:
    """Goes on only where a compiler for the target is."""
    try:
        TARGETS[name].compiler()
    except InputError as error:
        lacking(str(error))


def need_emulator(name: str) -> None:
    """Goes on only where the emulator and a compiler for its target are."""
    need_target(EMULATORS[name].target)
    try:
        EMULATORS[name].command(Path("x.elf"))
    except InputError as error:
        lacking(str(error))
