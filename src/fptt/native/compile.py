"""Writes a program into the engine's tables: operations, blocks, routines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fptt.errors import InputError
from fptt.native._engine import ffi, lib
from fptt.program.bfloat16 import ROW_DISTANCE, to_bits
from fptt.program.ir import ITEM_BYTES, Loop, Op, Ref, Role, Routine
from fptt.program.ops import spec
from fptt.program.plan import LEARNED, TILE_COLUMNS, TILE_ROWS

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

#: the smallest normal float32
_SMALLEST = np.finfo(np.float32).tiny
_INDEX = {
    "step": lib.FPTT_STEP,
    "all": lib.FPTT_ALL,
    "last": lib.FPTT_LAST,
    "whole": lib.FPTT_WHOLE,
    "initial": lib.FPTT_WHOLE,
}
#: operations whose outputs the kernels write to where the inputs lie, and nowhere else
_IN_PLACE = frozenset(
    {
        "update",
        "weight_update",
        "bias_update",
        "fptt_update",
        "fptt_weight_update",
        "fptt_bias_update",
        "auxiliary_cross_entropy",
        "embedding_gradient",
    }
)
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
        unknown = sorted({op.kind for op in ops if spec(op.kind).c_symbol is None})
        if unknown:
            raise InputError(
                f"the engine has no kernel for {', '.join(unknown)}; use backend='reference'"
            )
        self.op_count, self.block_count = len(ops), len(blocks)
        self.ops = ffi.new("fptt_op[]", max(len(ops), 1))
        for number, op in enumerate(ops):
            self._write_op(self.ops[number], op)
        updates = _of_routine(program, "update")
        #: constants so large that no update is safe unseen
        self.cautious = any(
            attrs.get("alpha", 0) > 1e3
            or attrs.get("beta", 0) > 1e6 * attrs.get("alpha", 1)
            # 0 / 0 where a gradient is exactly zero
            or (attrs.get("optimizer") == "adam" and np.float32(attrs["epsilon"]) < _SMALLEST)
            for attrs in map(_attrs, updates)
        )
        self._watch(ops, updates)
        self.blocks = ffi.new("fptt_block[]", blocks or [(0, 0, 0, False)])

    def _watch(self, ops: list[Op], updates: list[Op]) -> None:
        """Marks what an update reads besides what is learnt, everything once."""
        seen: set[str] = set()
        for number, op in enumerate(ops):
            for place, ref in enumerate(op.inputs if any(op is u for u in updates) else ()):
                if ref is None or ref.buffer.role in LEARNED:
                    continue
                if ref.buffer.role == Role.SCRATCH and not ref.has_rows:
                    continue
                if str(ref) not in seen and ref.buffer.dtype not in ("int32", "uint32"):
                    seen.add(str(ref))
                    is_input = spec(op.kind).inputs[place].name == "x"
                    self.ops[number].operand[place].watched = 2 if is_input else 1

    def _write_op(self, to: Any, op: Op) -> None:
        entry = spec(op.kind)
        _check_places(op)
        to.kind = KINDS[str(entry.c_symbol)]
        indices = {ref.index for ref in op.refs if ref.has_rows}
        deciding = next((i for i in ("all", "last", "step") if i in indices), "whole")
        to.mode = _INDEX[deciding]
        to.after_first = op.after_first
        for place, ref in enumerate((*op.inputs, *op.outputs)):
            if ref is not None:
                self.write_operand(to.operand[place], ref)
        attrs = _attrs(op)
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
            attrs = {"value": _item_bits(op.outputs[0].buffer.dtype, attrs["value"])}
        names = ("p", "layer", "value", "rate", "per_part", "clip")
        for place, name in enumerate(name for name in names if name in attrs):
            to.attribute[place] = float(attrs[name])

    def write_operand(self, to: Any, ref: Ref) -> None:
        buffer, item = ref.buffer, ITEM_BYTES[ref.buffer.dtype]
        base = self._addresses[buffer.name]
        to.item_bytes = item
        low_row = ref.row_range[0] if ref.row_range else 0
        low_col = ref.col_range[0] if ref.col_range else 0
        if not buffer.batch:
            to.index = lib.FPTT_FIXED
            runs, length, stride = _lines(ref.inner, buffer.inner, buffer.transposed)
            first = low_col * stride + low_row if buffer.transposed else low_row * stride + low_col
            if len(buffer.inner) < 2:
                first = low_row + low_col
            to.base = ffi.cast("uint8_t *", base + first * item)
            to.runs, to.length, to.stride = runs, length, stride
            to.transposed = buffer.transposed
            return
        to.index = _INDEX[ref.index]
        to.runs, to.length, to.stride = 1, int(np.prod(ref.inner)), buffer.row_items
        to.row_bytes = buffer.row_items * item
        to.slot_bytes = buffer.batch * to.row_bytes
        slot = {"whole": 0, "initial": buffer.lead - 1}.get(ref.index, buffer.lead + ref.offset)
        to.base = ffi.cast("uint8_t *", base + slot * to.slot_bytes + low_col * item)


def _lines(inner: tuple[int, ...], full: tuple[int, ...], transposed: bool) -> tuple[int, int, int]:
    """Lines in memory, the length of each, and the distance from one to the next, in elements."""
    if len(inner) < 2:
        length = inner[0] if inner else 1
        return 1, length, length
    runs, length = (inner[1], inner[0]) if transposed else (inner[0], inner[1])
    return runs, length, full[0] if transposed else full[1]


def _attrs(op: Op) -> dict[str, Any]:
    """The attributes: numbers and words."""
    return dict(op.attrs)


def _check_places(op: Op) -> None:
    """InputError where operands lie in memory as no kernel takes them."""
    entry = spec(op.kind)
    names = [operand.name for operand in (*entry.inputs, *entry.outputs)]
    refs = dict(zip(names, (*op.inputs, *op.outputs), strict=True))
    for before, after in entry.in_place if op.kind in _IN_PLACE else ():
        if refs[before] != refs[after]:
            raise InputError(
                f"the engine runs {op.kind} in place only, but {after} is {refs[after]} and "
                f"{before} is {refs[before]}; use backend='reference'"
            )
    tile, theta = refs.get("tile"), refs.get("theta")
    if tile is not None and theta is not None:
        lines = _lines(theta.inner, theta.buffer.inner, theta.buffer.transposed)[0]
        if tile.inner[0] < lines or tile.inner[1] != TILE_COLUMNS:
            raise InputError(f"the engine needs a tile of {lines} x {TILE_COLUMNS}: {tile}")
    if op.kind in ("affine", "affine_sum", "product"):
        return
    layouts: dict[tuple[int, ...], tuple[str, tuple[int, int, int], bool]] = {}
    for name, ref in refs.items():
        if ref is None or ref.has_rows or len(ref.inner) < 2 or name == "tile":
            continue
        buffer = ref.buffer
        place = _lines(ref.inner, buffer.inner, buffer.transposed)
        if op.kind.startswith("embedding") and (buffer.transposed or place[1] != place[2]):
            raise InputError(f"the engine runs {op.kind} on whole tables row by row only: {ref}")
        first, *layout = layouts.setdefault(ref.inner, (str(ref), place, buffer.transposed))
        if layout != [place, buffer.transposed]:
            raise InputError(
                f"the engine runs {op.kind} on tensors that lie alike in memory only, not on "
                f"{first} and {ref}; use backend='reference'"
            )


def _of_routine(program: Program, name: str) -> list[Op]:
    routine = program.routines.get(name)
    return [op for op, _ in routine.ops()] if routine else []


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


def _item_bits(dtype: str, value: Any) -> int:
    if dtype == "bfloat16":
        return int(to_bits(np.array([value]))[0])
    kinds = {"float32": np.float32, "int32": np.int32, "uint32": np.uint32}
    return int(np.array([value], kinds[dtype]).view(np.uint32)[0])


def _write_rule(to: Any, attrs: Mapping[str, Any]) -> None:
    """Constants of updates; what is derived is rounded once, from double precision."""
    if "optimizer" in attrs:
        to.optimizer = _OPTIMIZERS[attrs["optimizer"]]
        to.momentum, to.epsilon = attrs["momentum"], attrs["epsilon"]
    if "beta1" in attrs:
        to.beta1, to.one_minus_beta1 = attrs["beta1"], 1 - attrs["beta1"]
        to.beta2, to.one_minus_beta2 = attrs["beta2"], 1 - attrs["beta2"]
    if "alpha" in attrs:
        to.alpha, to.pull = attrs["alpha"], 1.0 if attrs["mode"] == "code" else 0.5
    if "beta" in attrs:
        to.wrapped, to.directed = 1, int(attrs["directed"])
        to.beta, to.one_minus_beta = attrs["beta"], 1 - attrs["beta"]
        to.beta_over_alpha = attrs["beta"] / attrs["alpha"]


def addresses(program: Program, views: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """Where every buffer starts in memory."""
    return {name: views[name].ctypes.data for name in program.buffers}
