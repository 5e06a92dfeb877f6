"""Registers between the steps of an operator: which steps share a clock cycle is a list."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fptt.errors import InputError
from fptt.rtl.hdl import Signal, Value

#: what one step hands to the next: name -> value
Values = dict[str, Any]
Step = Callable[[Any, Values], Values]


def chain(
    module: Any,
    steps: Sequence[Step],
    cuts: Sequence[int],
    values: Mapping[str, Any],
    enable: Any,
) -> Values:
    """Connects steps, with registers behind those whose numbers stand in `cuts`.

    Each step gets exactly what it needs and returns exactly what later steps need; so nothing is
    kept that is not read. Registers have no reset: what passes through is data.

    Args:
        module: Amaranth's module; everything is added to its domain `sync`.
        steps: called in order with (module, values).
        cuts: numbers of steps, ascending, from 1 (behind the first) to the number of steps.
        values: for the first step.
        enable: 1 bit; the registers take new values only while it is high.

    Returns:
        What the last step returned.
    """
    current = dict(values)
    for number, step in enumerate(steps, start=1):
        current = step(module, current)
        if number in cuts:
            current = {
                name: _register(module, f"{name}_{number}", value, enable)
                for name, value in current.items()
            }
    return current


def wire(module: Any, value: Any, name: str) -> Any:
    """A signal of its own for a value, so that it has a name in Verilog and is computed once."""
    signal = Signal(Value.cast(value).shape(), name=name)
    module.d.comb += signal.eq(value)
    return signal


def chosen_cuts(
    what: str, choices: Mapping[int, Sequence[int]], stages: int | None, default: int
) -> Sequence[int]:
    """Where to cut for a number of stages.

    Raises:
        InputError: there is no such choice.
    """
    number = default if stages is None else stages
    if number not in choices:
        raise InputError(f"{what} has no {number} stages; give one of {sorted(choices)}")
    return choices[number]


def _register(module: Any, name: str, value: Any, enable: Any) -> Any:
    signal = Signal(Value.cast(value).shape(), name=name, reset_less=True)
    with module.If(enable):
        module.d.sync += signal.eq(value)
    return signal
