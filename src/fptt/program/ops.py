"""THE op table: for every kind of operation its operands, formula, work and C symbol.

Everything else asks this table: the verifier checks operands against the signature, the reference
runs the formula, the counter calls the work function, a C back end looks up the symbol. The
entries stand in `fptt.program.opset`, one family a file; `fptt.program.opspec` says what an entry
is.
"""

from __future__ import annotations

from collections.abc import Mapping

# importing the families enters their operations
from fptt.program import opset as _families  # noqa: F401
from fptt.program.opspec import (
    FUNCTION_CLASSES,
    REGISTRY,
    SERIAL_CLASSES,
    Operand,
    OpSpec,
    Place,
    Work,
    bind,
)


def spec(kind: str) -> OpSpec:
    """The table's entry for a kind of operation."""
    return REGISTRY[kind]


def table() -> Mapping[str, OpSpec]:
    """The whole table."""
    return REGISTRY


__all__ = [
    "FUNCTION_CLASSES",
    "SERIAL_CLASSES",
    "OpSpec",
    "Operand",
    "Place",
    "Work",
    "bind",
    "spec",
    "table",
]
