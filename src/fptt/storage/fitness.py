"""Whether a snapshot's contents can be the state of a program; checked before any of it is used.

A checksum that fits says that a file is as it was written, not that fptt wrote it. What is let
through here must not make training fail in a strange way later: an index outside its array, a
number that bfloat16 does not have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fptt.checks import is_whole
from fptt.program.ir import Buffer, Role
from fptt.program.plan import LEARNED
from fptt.storage.contents import Malformed, kept

if TYPE_CHECKING:
    from fptt.program import Program

Array = NDArray[Any]


def check_state(program: Program, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Raises Malformed unless position and buffers can be those of the program."""
    counts = header["trainer"]
    if not is_whole(counts["epoch"]) or counts["epoch"] < 0:
        raise Malformed(f"its epoch is {_short(counts['epoch'])}")
    _check_stream(program, counts["stream"])
    wanted = kept(program, in_sequence=counts["stream"]["rows"] is not None)
    if [item.buffer.name for item in wanted] != list(arrays):
        raise Malformed("its buffers are not those of the program that it describes")
    for item in wanted:
        name, array = item.buffer.name, arrays[item.buffer.name]
        if array.dtype != np.dtype(item.type) or array.shape != item.shape:
            raise Malformed(
                f"its buffer {name} is {array.dtype} {list(array.shape)}, where the program has "
                f"{np.dtype(item.type)} {list(item.shape)}"
            )
        _check_values(program, item.buffer, array)


def _check_values(program: Program, buffer: Buffer, array: Array) -> None:
    name = buffer.name
    if buffer.role in (*LEARNED, Role.FROZEN) and not np.isfinite(array).all():
        raise Malformed(f"its buffer {name} contains NaN or Inf")
    if buffer.dtype == "bfloat16" and (array.view("<u4") & 0xFFFF).any():
        raise Malformed(f"its buffer {name} contains numbers that bfloat16 does not have")
    if name == "lr" and (array < 0).any():
        raise Malformed("its learning rate is negative")
    if buffer.dtype == "int32" and buffer.role in (Role.INPUT, Role.TARGET):
        # rows that never ran are 0; -1 is no label
        above = program.net.tokens if buffer.role == Role.INPUT else program.net.outputs
        lowest = 0 if buffer.role == Role.INPUT else -1
        if not lowest <= array.min() <= array.max() < (above or 0):
            raise Malformed(f"its buffer {name} contains what is no token or label")


def _check_stream(program: Program, stream: Any) -> None:
    """What `Stream.as_plain` can have written for this program."""
    if not isinstance(stream, dict) or stream.keys() != {"rows", "position", "frame", "targets"}:
        raise Malformed("its description of the stream is wrong")
    rows, position = stream["rows"], stream["position"]
    frame, targets = stream["frame"], stream["targets"]
    if not is_whole(position) or not 0 <= position < program.steps:
        raise Malformed(f"its stream stands at step {_short(position)}")
    if rows is None:
        if position != 0 or frame is not None or targets != []:
            raise Malformed("its stream has a position but no rows")
        return
    if not is_whole(rows) or not 1 <= rows <= program.batch:
        raise Malformed(f"its stream has {_short(rows)} rows")
    taken = 0
    if frame is not None:
        if not isinstance(frame, list) or len(frame) != 4 or not all(map(is_whole, frame)):
            raise Malformed("its part in flight is described wrongly")
        part, begin, taken, after = frame
        steps, parts = program.steps, program.rule.parts
        if not 0 <= part < parts:
            raise Malformed(f"its part in flight is number {_short(part)}")
        low, high = part * steps // parts, (part + 1) * steps // parts
        rows_after = 0 if high == steps else rows
        if begin != low or not 0 < taken < high - low or position != low + taken:
            raise Malformed("its part in flight is not where the stream stands")
        if after != rows_after:
            raise Malformed("its part in flight has other rows than the stream")
    if not isinstance(targets, list) or len(targets) != taken:
        raise Malformed("its stream has not one target for each step")
    for seen in targets:
        _check_target(program, rows, seen)


def _check_target(program: Program, rows: int, seen: Any) -> None:
    labels = program.criterion == "cross_entropy"
    outputs = program.net.outputs
    if not isinstance(seen, list) or len(seen) != (rows if labels else rows * outputs):
        raise Malformed("its stream has targets of another number of rows")
    for value in seen:
        if labels:
            fits = is_whole(value) and -1 <= value < outputs
        else:  # None stands for NaN, no target
            fits = value is None or (isinstance(value, float) and math.isfinite(value))
        if not fits:
            raise Malformed(f"its stream has the target {_short(value)}")


def _short(value: object) -> str:
    return repr(value)[:80]
