"""Writes a program into the engine's tables: operations, blocks, routines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fptt.errors import InputError
from fptt.native._engine import ffi, lib
from fptt.program.bfloat16 import ROW_DISTANCE
from fptt.program.ir import ITEM_BYTES, Loop, Op, Ref, Routine
from fptt.program.lowering import (
    cautious,
    check_places,
    deciding_index,
    first_item,
    item_bits,
    matrix,
    rule_constants,
    watched,
)
from fptt.program.ops import spec
from fptt.program.plan import TILE_COLUMNS, TILE_ROWS

if TYPE_CHECKING:
    from fptt.program.program import Program

#: the engine's numbers for routines
ROUTINES = {
    name: getattr(lib, f"FPTT_{name.upper()}")
    for name in (
        "start",
        "reset",
        "begin_sequence",
        "next_sequence",
        "forward",
        "loss",
        "backward",
        "update",
        "carry",
        "end_epoch",
        "begin_inference",
        "infer",
        "readout",
    )
}


def _names(name_of: Any) -> Iterator[tuple[str, int]]:
    number = 0
    while (text := name_of(number)) != ffi.NULL:
        yield ffi.string(text).decode(), number
        number += 1


KINDS = dict(_names(lib.fptt_kind_name))
INSTRUCTION_SETS = dict(_names(lib.fptt_isa_name))

_INDEX = {
    "step": lib.FPTT_STEP,
    "all": lib.FPTT_ALL,
    "last": lib.FPTT_LAST,
    "whole": lib.FPTT_WHOLE,
    "initial": lib.FPTT_WHOLE,
}
_OPTIMIZERS = {"sgd": lib.FPTT_SGD, "momentum": lib.FPTT_MOMENTUM, "adam": lib.FPTT_ADAM}


class Tables:
    """The tables of one program; they live as long as this object.

    Args:
        program: the program.
        addresses: where every buffer lies in memory.

    Raises:
        InputError: the program has an operation that the engine does not know, or one whose
            operands lie in memory as no kernel takes them.
    """

    def __init__(self, program: Program, addresses: Mapping[str, int]) -> None:
        assert (TILE_ROWS, TILE_COLUMNS) == (lib.FPTT_TILE_ROWS, lib.FPTT_TILE_COLUMNS)
        assert lib.FPTT_ROW_DISTANCE == ROW_DISTANCE
        self._addresses = addresses
        ops: list[Op] = []
        blocks: list[tuple[int, int, int, bool]] = []
        self.routines: dict[str, tuple[int, int]] = {}
        for name, routine in program.routines.items():
            before = len(blocks)
            for body, turn in _blocks(routine):
                by_rows = all(_by_rows(op) for op in body)
                blocks.append((len(ops), len(body), turn, by_rows))
                ops.extend(body)
            self.routines[name] = (before, len(blocks) - before)
        if program.without_kernel:
            raise InputError(
                f"the engine has no kernel for {', '.join(program.without_kernel)}; "
                'for this program use backend="reference"'
            )
        self.op_count, self.block_count = len(ops), len(blocks)
        self.ops = ffi.new("fptt_op[]", max(len(ops), 1))
        for number, op in enumerate(ops):
            self._write_op(self.ops[number], op)
        #: constants so large that no update is safe unseen
        self.cautious = cautious(program)
        number_of = {id(op): number for number, op in enumerate(ops)}
        for op, place, _, is_input in watched(program):
            self.ops[number_of[id(op)]].operand[place].watched = 2 if is_input else 1
        self.blocks = ffi.new("fptt_block[]", blocks or [(0, 0, 0, False)])

    def _write_op(self, to: Any, op: Op) -> None:
        entry = spec(op.kind)
        check_places(op, "the engine", "use backend='reference'")
        to.kind = KINDS[str(entry.c_symbol)]
        to.mode = _INDEX[deciding_index(op)]
        to.after_first = op.after_first
        for place, ref in enumerate((*op.inputs, *op.outputs)):
            if ref is not None:
                self.write_operand(to.operand[place], ref)
        attrs: dict[str, Any] = dict(op.attrs)
        _write_rule(to.rule, attrs)
        if "tensor" in attrs:
            theta = op.inputs[0]
            assert theta is not None
            to.rule.stochastic = (
                op.inputs[[o.name for o in entry.inputs].index("noise")] is not None
            )
            to.tensor = attrs["tensor"]
            to.first_element = (
                attrs["first_row"] * (ROW_DISTANCE if len(theta.inner) == 2 else 1)
            ) & 0xFFFFFFFF
        if op.kind == "fill":
            assert op.outputs[0] is not None
            attrs = {"value": item_bits(op.outputs[0].buffer.dtype, attrs["value"])}
        names = ("p", "layer", "value", "rate", "per_part", "clip")
        for place, name in enumerate(name for name in names if name in attrs):
            to.attribute[place] = float(attrs[name])

    def write_operand(self, to: Any, ref: Ref) -> None:
        buffer, item = ref.buffer, ITEM_BYTES[ref.buffer.dtype]
        base = self._addresses[buffer.name]
        to.item_bytes = item
        if not buffer.batch:
            to.index = lib.FPTT_FIXED
            place = matrix(ref)
            to.base = ffi.cast("uint8_t *", base + first_item(ref) * item)
            to.runs, to.length, to.stride = place.lines, place.length, place.stride
            to.transposed = buffer.transposed
            return
        low_col = ref.col_range[0] if ref.col_range else 0
        to.index = _INDEX[ref.index]
        to.runs, to.length, to.stride = 1, int(np.prod(ref.inner)), buffer.row_items
        to.row_bytes = buffer.row_items * item
        to.slot_bytes = buffer.batch * to.row_bytes
        slot = {"whole": 0, "initial": buffer.lead - 1}.get(ref.index, buffer.lead + ref.offset)
        to.base = ffi.cast("uint8_t *", base + slot * to.slot_bytes + low_col * item)


def _blocks(routine: Routine) -> Iterator[tuple[list[Op], int]]:
    """Runs of operations with the way they are repeated: 0 once, 1 forwards, -1 backwards."""
    once: list[Op] = []
    for item in routine.body:
        if not isinstance(item, Loop):
            once.append(item)
            continue
        if once:
            yield once, 0
        once = []
        yield list(item.body), -1 if item.reverse else 1
    if once:
        yield once, 0


def _by_rows(op: Op) -> bool:
    """Whether each row's results depend on nothing but that row."""
    return all(ref.has_rows for ref in op.outputs if ref is not None)


def _write_rule(to: Any, attrs: Mapping[str, Any]) -> None:
    """Constants of updates."""
    for name, value in rule_constants(attrs).items():
        setattr(to, name, value)
    if "optimizer" in attrs:
        to.optimizer = _OPTIMIZERS[attrs["optimizer"]]
    if "beta" in attrs:
        to.wrapped, to.directed = 1, int(attrs["directed"])


def addresses(program: Program, views: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """Where every buffer starts in memory."""
    return {name: views[name].ctypes.data for name in program.buffers}
