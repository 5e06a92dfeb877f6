"""The C engine behind cffi: a program as a flat list of operations, run fast."""

from fptt.native.engine import Engine

__all__ = ["Engine"]
