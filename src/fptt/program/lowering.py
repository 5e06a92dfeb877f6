"""What the C kernels take of a program: layouts, constants, and what must be watched.

The engine writes it into tables, the device export prints it as calls; both say the same because
they ask here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fptt.errors import InputError
from fptt.program.bfloat16 import to_bits
from fptt.program.ir import Op, Ref, Role
from fptt.program.ops import spec
from fptt.program.plan import LEARNED, TILE_COLUMNS

if TYPE_CHECKING:
    from fptt.program.program import Program

#: the smallest normal float32
_SMALLEST = np.finfo(np.float32).tiny
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


@dataclass(frozen=True)
class Matrix:
    """How (a part of) a tensor without rows lies in memory, in elements.

    Attributes:
        lines: runs of neighbouring numbers.
        length: numbers of a run.
        stride: from run to run.
        transposed: whether it lies column by column.
    """

    lines: int
    length: int
    stride: int
    transposed: bool


def matrix(ref: Ref) -> Matrix:
    """The layout of an operand without rows."""
    inner, full, transposed = ref.inner, ref.buffer.inner, ref.buffer.transposed
    if len(inner) < 2:
        length = inner[0] if inner else 1
        return Matrix(1, length, length, transposed)
    lines, length = (inner[1], inner[0]) if transposed else (inner[0], inner[1])
    return Matrix(lines, length, full[0] if transposed else full[1], transposed)


def first_item(ref: Ref) -> int:
    """Elements from the start of a tensor without rows to the first one of an operand."""
    low_row = ref.row_range[0] if ref.row_range else 0
    low_col = ref.col_range[0] if ref.col_range else 0
    if len(ref.buffer.inner) < 2:
        return low_row + low_col
    stride = matrix(ref).stride
    return low_col * stride + low_row if ref.buffer.transposed else low_row * stride + low_col


def deciding_index(op: Op) -> str:
    """Which slots decide over the rows of an operation: all, last, step, or else whole."""
    indices = {ref.index for ref in op.refs if ref.has_rows}
    return next((i for i in ("all", "last", "step") if i in indices), "whole")


def check_places(op: Op, who: str, remedy: str) -> None:
    """Raises InputError where operands lie in memory as no kernel takes them.

    Args:
        op: the operation.
        who: who refuses, such as "the engine".
        remedy: what to do instead.
    """
    entry = spec(op.kind)
    names = [operand.name for operand in (*entry.inputs, *entry.outputs)]
    refs = dict(zip(names, (*op.inputs, *op.outputs), strict=True))
    for before, after in entry.in_place if op.kind in _IN_PLACE else ():
        if refs[before] != refs[after]:
            raise InputError(
                f"{who} runs {op.kind} in place only, but {after} is {refs[after]} and "
                f"{before} is {refs[before]}; {remedy}"
            )
    tile, theta = refs.get("tile"), refs.get("theta")
    if tile is not None and theta is not None:
        lines = matrix(theta).lines
        if tile.inner[0] < lines or tile.inner[1] != TILE_COLUMNS:
            raise InputError(f"{who} needs a tile of {lines} x {TILE_COLUMNS}: {tile}")
    if op.kind in ("affine", "affine_sum", "product"):
        return
    layouts: dict[tuple[int, ...], tuple[str, Matrix]] = {}
    for name, ref in refs.items():
        if ref is None or ref.has_rows or len(ref.inner) < 2 or name == "tile":
            continue
        place = matrix(ref)
        if op.kind.startswith("embedding") and (place.transposed or place.length != place.stride):
            raise InputError(f"{who} runs {op.kind} on whole tables row by row only: {ref}")
        first, layout = layouts.setdefault(ref.inner, (str(ref), place))
        if layout != place:
            raise InputError(
                f"{who} runs {op.kind} on tensors that lie alike in memory only, not on "
                f"{first} and {ref}; {remedy}"
            )


def watched(program: Program) -> Iterator[tuple[Op, int, Ref, bool]]:
    """What an update reads besides what is learnt, everything once: the operation, the operand's
    number, the operand, and whether it is an input of a product (otherwise it is a gradient)."""
    seen: set[str] = set()
    for op in _updates(program):
        for number, ref in enumerate(op.inputs):
            if ref is None or ref.buffer.role in LEARNED or str(ref) in seen:
                continue
            if ref.buffer.role == Role.SCRATCH and not ref.has_rows:
                continue
            if ref.buffer.dtype not in ("int32", "uint32"):
                seen.add(str(ref))
                yield op, number, ref, spec(op.kind).inputs[number].name == "x"


def cautious(program: Program) -> bool:
    """Whether constants are so large that no update is safe unseen."""
    return any(
        attrs.get("alpha", 0) > 1e3
        or attrs.get("beta", 0) > 1e6 * attrs.get("alpha", 1)
        # 0 / 0 where a gradient is exactly zero
        or (attrs.get("optimizer") == "adam" and np.float32(attrs["epsilon"]) < _SMALLEST)
        for attrs in (dict[str, Any](op.attrs) for op in _updates(program))
    )


def _updates(program: Program) -> list[Op]:
    routine = program.routines.get("update")
    return [op for op, _ in routine.ops()] if routine else []


def item_bits(dtype: str, value: Any) -> int:
    """The bits of one number as it is stored."""
    if dtype == "bfloat16":
        return int(to_bits(np.array([value]))[0])
    kinds = {"float32": np.float32, "int32": np.int32, "uint32": np.uint32}
    return int(np.array([value], kinds[dtype]).view(np.uint32)[0])


def rule_constants(attrs: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an update as fptt_update_rule names them; what is derived is computed here, in
    double precision, and rounded once."""
    constants: dict[str, float] = {}
    if "optimizer" in attrs:
        constants |= {"momentum": attrs["momentum"], "epsilon": attrs["epsilon"]}
    if "beta1" in attrs:
        constants |= {"beta1": attrs["beta1"], "one_minus_beta1": 1 - attrs["beta1"]}
        constants |= {"beta2": attrs["beta2"], "one_minus_beta2": 1 - attrs["beta2"]}
    if "alpha" in attrs:
        constants |= {"alpha": attrs["alpha"], "pull": 1.0 if attrs["mode"] == "code" else 0.5}
    if "beta" in attrs:
        constants |= {"beta": attrs["beta"], "one_minus_beta": 1 - attrs["beta"]}
        constants["beta_over_alpha"] = attrs["beta"] / attrs["alpha"]
    return constants
