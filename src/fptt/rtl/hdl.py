"""Amaranth, for the modules that describe hardware; without it, a message that says what to do."""

from fptt.errors import InputError

try:
    from amaranth.hdl import (
        Array,
        Cat,
        ClockDomain,
        ClockSignal,
        Const,
        Elaboratable,
        Module,
        Mux,
        ResetInserter,
        ResetSignal,
        Shape,
        Signal,
        Value,
        ValueLike,
        signed,
        unsigned,
    )
    from amaranth.lib import data, stream, wiring
    from amaranth.lib.memory import Memory
    from amaranth.lib.wiring import Component, In, Out
except ImportError as error:
    raise InputError(
        f"this needs Amaranth ({error}). Install it with: pip install 'fptt[hardware]'"
    ) from error

__all__ = [
    "Array",
    "Cat",
    "ClockDomain",
    "ClockSignal",
    "Component",
    "Const",
    "Elaboratable",
    "In",
    "Memory",
    "Module",
    "Mux",
    "Out",
    "ResetInserter",
    "ResetSignal",
    "Shape",
    "Signal",
    "Value",
    "ValueLike",
    "data",
    "signed",
    "stream",
    "unsigned",
    "wiring",
]
