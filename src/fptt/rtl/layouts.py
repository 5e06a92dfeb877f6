"""What the unit's streams and ports carry."""

from __future__ import annotations

from typing import Any

from fptt.rtl.hdl import In, Out, data, stream, wiring
from fptt.rtl.operations import CONSTANTS
from fptt.rtl.parameters import UnitParameters


def record(parameters: UnitParameters) -> Any:
    """One parameter with all that belongs to it: a row of a bank, and what a lane takes in."""
    return data.StructLayout(dict.fromkeys(parameters.inputs, parameters.format.width))


def result(parameters: UnitParameters) -> Any:
    """What a lane gives back."""
    return data.StructLayout(dict.fromkeys(parameters.outputs, parameters.format.width))


def mask(parameters: UnitParameters) -> Any:
    """Which words of a row are written."""
    return data.StructLayout(dict.fromkeys(parameters.inputs, 1))


def write(parameters: UnitParameters) -> Any:
    """New words for a row."""
    return data.StructLayout(
        {"row": row(parameters), "mask": mask(parameters), "words": record(parameters)}
    )


def row(parameters: UnitParameters) -> Any:
    """Number of a row."""
    return range(parameters.depth)


def records(parameters: UnitParameters) -> Any:
    """Signature of a stream of records."""
    return stream.Signature(record(parameters))


def results(parameters: UnitParameters) -> Any:
    """Signature of a stream of results."""
    return stream.Signature(result(parameters))


def requests(parameters: UnitParameters) -> Any:
    """Signature of a stream of row numbers."""
    return stream.Signature(row(parameters))


def writes(parameters: UnitParameters) -> Any:
    """Signature of a stream of writes."""
    return stream.Signature(write(parameters))


def settings(parameters: UnitParameters) -> dict[str, Any]:
    """Members of a signature: the constants of an update, and the switch of R(t)."""
    width = parameters.format.width
    if not parameters.regularise:
        return {"lr": In(width)}
    return {**{name: In(width) for name in CONSTANTS}, "regularise": In(1, init=1)}


def host_port(parameters: UnitParameters, *, banks: int | None = None) -> Any:
    """Signature of a port through which a host reads and writes rows.

    enable: this cycle is the host's. bank (only of a unit): which one. row: which row. mask: the
    words to write; none: read. write: their new values. read: what the row held, a cycle later.
    """
    members = {
        "enable": Out(1),
        "row": Out(row(parameters)),
        "mask": Out(mask(parameters)),
        "write": Out(record(parameters)),
        "read": In(record(parameters)),
    }
    if banks is not None:
        members["bank"] = Out(range(banks))
    return wiring.Signature(members)
