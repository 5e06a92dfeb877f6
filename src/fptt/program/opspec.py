"""How an operation is described: operands, formula, work, C symbol.

A signature names the operands with their dimensions:

    "x:n,i w:o,i bias?:o start?:n,o -> y:n,o"

`n` is the number of rows at run time, other letters are sizes that must agree within one
operation, `4h` is four times h, `*` is any shape (the same for all operands of the operation),
`?` marks an operand that may be missing and `#int` one of whole numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

#: classes of work, named as in the published measurements (Zhang et al., 2024)
FUNCTION_CLASSES = (
    "MatMul-1",
    "MatMul-2",
    "MatMul-3",
    "Mat2Vec",
    "EWO-basic",
    "EWO-combo",
    "EWO-SGD",
    "Sigmoid",
    "tanh",
    "softmax",
    "dataMovement",
)

#: classes that the published system computes on one core (or its array), the others on all
SERIAL_CLASSES = frozenset({"MatMul-1", "MatMul-2", "MatMul-3", "softmax", "dataMovement"})


@dataclass(frozen=True)
class Work:
    """Scalar operations and bytes.

    Attributes:
        mul: multiplications and divisions.
        add: additions and subtractions; a sum of k products that starts at zero or at an earlier
            value counts k of them.
        trans: sigmoid, tanh, exp, log and square root, one each.
        bytes: bytes read and written, each operand once.
    """

    mul: int = 0
    add: int = 0
    trans: int = 0
    bytes: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.mul + other.mul,
            self.add + other.add,
            self.trans + other.trans,
            self.bytes + other.bytes,
        )

    def __mul__(self, times: int) -> Work:
        return Work(self.mul * times, self.add * times, self.trans * times, self.bytes * times)


@dataclass(frozen=True)
class Operand:
    """One operand of a signature; dims is None for any shape."""

    name: str
    dims: tuple[tuple[int, str], ...] | None
    optional: bool
    integer: bool


@dataclass(frozen=True)
class Place:
    """Where in time an operation runs, for the few that need to know.

    Attributes:
        part: number of the part, from 0.
        step: absolute step of every row of the operation, int64 [n].
        row: number of every row in the batch, int64 [n].
    """

    part: int
    step: Array
    row: Array


Formula = Callable[..., Any]
#: sizes by letter (and "n", "ended", "size" of a `*` shape), attributes, names of the operands
#: that are present -> work by function class, without bytes
WorkRule = Callable[[Mapping[str, int], Mapping[str, Any], frozenset[str]], dict[str, Work]]


@dataclass(frozen=True)
class OpSpec:
    """An entry of the op table.

    Attributes:
        kind: the name.
        inputs, outputs: operands in order.
        formula: arrays -> array or tuple of arrays; pure NumPy that also runs on object arrays.
        work: scalar operations by function class.
        main_class: the function class that the bytes count for.
        in_place: (input, output) names that may be the same memory.
        attrs: names of attributes, all of them required.
        placed: the formula takes `place`.
        shaped: the formula takes `shape`, because it has no input to learn it from.
        touched: operands of which only some rows move, with those dimensions instead.
        c_symbol: its name in the engine, or None where only the reference runs it.
    """

    kind: str
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    formula: Formula
    work: WorkRule
    main_class: str
    in_place: frozenset[tuple[str, str]]
    attrs: frozenset[str]
    placed: bool
    shaped: bool
    touched: Mapping[str, Operand]
    c_symbol: str | None

    @property
    def doc(self) -> str:
        """The formula's explanation."""
        return (self.formula.__doc__ or "").strip()


#: filled by `op`; read it through `fptt.program.ops`
REGISTRY: dict[str, OpSpec] = {}

_OPERAND = re.compile(r"(?P<name>\w+)(?P<int>#int)?(?P<optional>\?)?:(?P<dims>\*|[\w,]+)")
_DIM = re.compile(r"(\d*)([a-z]?)")


def parse_operand(text: str) -> Operand:
    """Reads one operand of a signature."""
    match = _OPERAND.fullmatch(text)
    if match is None:
        raise ValueError(f"operand {text!r} is not of the form name#int?:dims")
    dims = None
    if match["dims"] != "*":
        parts = [_DIM.fullmatch(dim) for dim in match["dims"].split(",")]
        dims = tuple((int(part[1] or 1), part[2]) for part in parts if part)
    return Operand(match["name"], dims, bool(match["optional"]), bool(match["int"]))


def op(
    signature: str,
    *,
    work: WorkRule,
    main_class: str,
    in_place: str = "",
    attrs: str = "",
    placed: bool = False,
    shaped: bool = False,
    touched: str = "",
    c_symbol: str | None = None,
) -> Callable[[Formula], Formula]:
    """Enters the decorated formula into the table under its own name."""

    def enter(formula: Formula) -> Formula:
        kind = formula.__name__
        inputs, outputs = (
            tuple(parse_operand(part) for part in side.split()) for side in signature.split("->")
        )
        if kind in REGISTRY or main_class not in FUNCTION_CLASSES:
            raise ValueError(f"op {kind}: entered twice, or unknown class {main_class}")
        pairs = (pair.split("=") for pair in in_place.split())
        REGISTRY[kind] = OpSpec(
            kind=kind,
            inputs=inputs,
            outputs=outputs,
            formula=formula,
            work=work,
            main_class=main_class,
            in_place=frozenset((pair[0], pair[1]) for pair in pairs),
            attrs=frozenset(attrs.split()),
            placed=placed,
            shaped=shaped,
            touched={o.name: o for o in map(parse_operand, touched.split())},
            c_symbol=c_symbol,
        )
        return formula

    return enter


def bind(
    dims: tuple[tuple[int, str], ...], shape: tuple[int, ...], sizes: dict[str, int]
) -> str | None:
    """Matches a shape with an operand's dimensions, adding to `sizes`.

    Returns:
        None if it fits, otherwise what was expected.
    """
    expected = ",".join(
        f"{coefficient if coefficient > 1 or not letter else ''}{letter}"
        for coefficient, letter in dims
    )
    if len(dims) != len(shape):
        return f"[{expected}]"
    for (coefficient, letter), extent in zip(dims, shape, strict=True):
        known = sizes.get(letter) if letter else 1
        if known is None and extent % coefficient == 0:
            sizes[letter] = extent // coefficient
        elif known is None or known * coefficient != extent:
            return f"[{expected}] with " + ", ".join(f"{k}={v}" for k, v in sizes.items())
    return None


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)); one transcendental operation of the work table."""
    if x.dtype == object:
        return np.asarray(np.frompyfunc(lambda scalar: scalar.sigmoid(), 1, 1)(x))
    return np.asarray(1 / (1 + np.exp(-x)))


def multiply_add(a: Array, b: Array, *starts: Array | None) -> Array:
    """a b + the given starts; with none of them the sums start at zero."""
    result = a @ b
    present = [start for start in starts if start is not None]
    if not present and result.dtype == object:
        return result + 0  # a sum that starts at zero: the counter sees its first addition
    for start in present:
        result = result + start
    return np.asarray(result)
