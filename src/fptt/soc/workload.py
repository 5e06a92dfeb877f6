"""Work lists for a chip: what it does in one pass over a batch, as loops and matrix products.

A program's list comes from `fptt.program.count`. The published program is the one list that is
written by hand (Zhang et al., VLSI-SoC 2024 and JLPEA 15(1):15, 2025).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from fptt.errors import InputError
from fptt.program.count import WorkItem, work_table
from fptt.program.ir import ITEM_BYTES
from fptt.program.opspec import SERIAL_CLASSES

if TYPE_CHECKING:
    from fptt.program.program import Program

#: operations that the array computes as one product; the other ones of the MatMul classes are
#: products of a tangent, or sums along traces, which are no products of two matrices
_PRODUCTS = frozenset(
    {"affine", "affine_sum", "product", "weight_gradient", "weight_update", "fptt_weight_update"}
)
#: products of a cell's recurrent matrix with dh/dtheta of each sample: rows of the matrix, in cells
_TANGENTS = {"lstm_tangent": 4, "gru_tangent": 3, "rnn_tangent": 1}

#: of a number in the scratch memory, where products are summed
_SCRATCH_BYTES = 4


@dataclass(frozen=True)
class Product:
    """A matrix product of the array: [rows, inner] by [inner, columns].

    Attributes:
        transposed: the second operand lies in memory as [columns, inner].
        accumulated: the first operand lies as [inner, rows], and the result is a large matrix that
            goes back to memory (weight gradients).
    """

    rows: int
    inner: int
    columns: int
    transposed: bool = False
    accumulated: bool = False

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return self.rows * self.inner * self.columns


@dataclass(frozen=True)
class Task:
    """Equal loops over elements, or equal matrix products.

    Attributes:
        function: the function class, as in the calibration file.
        kind: what an element of the loop is; the constants of the model know some by name. Others
            are priced by `operations`, `transcendental` and `accesses`.
        calls: how often it runs.
        elements: of one call.
        operations: additions and multiplications of an element.
        transcendental: sigmoid, tanh and exp of an element.
        accesses: numbers that an element reads and writes.
        product: the matrix product, if it is one.
    """

    function: str
    kind: str
    calls: int
    elements: int = 0
    operations: float = 0.0
    transcendental: float = 0.0
    accesses: float = 0.0
    product: Product | None = None

    @property
    def parallel(self) -> bool:
        """Whether all cores share the loop."""
        return self.function not in SERIAL_CLASSES


@dataclass(frozen=True)
class Workload:
    """One pass over a batch, an update after every part.

    Attributes:
        name: for people.
        tasks: what there is to do.
        steps, parts, batch: of the sequences.
        parameters: trained numbers.
        part_numbers: numbers of the activations that a part writes and reads again.
    """

    name: str
    tasks: tuple[Task, ...]
    steps: int
    parts: int
    batch: int
    parameters: int
    part_numbers: int

    @property
    def macs(self) -> int:
        """Multiply-adds of all matrix products."""
        return sum(t.calls * t.product.macs for t in self.tasks if t.product)


#: elements of the published program, by kind: operations, transcendental functions, accesses.
#: column: the sum of a column over a batch of four, averaged and accumulated. update: theta, lambda
#: and m as in `fptt_update` (program/opset/updates.py), and g = 0
ELEMENTS: Mapping[str, tuple[float, float, float]] = {
    "multiply": (1, 0, 3),
    "multiply_add": (2, 0, 4),
    "state_gradient": (4, 0, 4),
    "derivative": (3, 0, 3),
    "sigmoid": (0, 1, 2),
    "tanh": (0, 1, 2),
    "softmax": (0, 1, 2),
    "copy": (0, 0, 2),
    "move": (0, 0, 2),
    "column": (6, 0, 6),
    "update": (13, 0, 8),
}


def _loop(function: str, kind: str, calls: int, elements: int) -> Task:
    operations, transcendental, accesses = ELEMENTS[kind]
    return Task(function, kind, calls, elements, operations, transcendental, accesses)


def published(
    parts: int,
    *,
    steps: int = 784,
    batch: int = 4,
    inputs: int = 1,
    hidden: int = 128,
    classes: int = 10,
) -> Workload:
    """The work of the published program: one LSTM, a readout, SGD with R(t), no auxiliary loss.

    Its backward pass goes through the pairs (t, t) and (t, t - 1) of a part, 2S - 1 of them in S
    steps. The path of the gradient through the cell state ends after one step: exact up to S = 2
    only, and up to 7/4 of the exact weight gradients.

    Args:
        parts: K; the sequence is cut as everywhere, into parts that differ by at most one step.
        steps, batch, inputs, hidden, classes: T, B, I, H and C.

    Raises:
        InputError: K is not between 1 and T.

    Example:
        >>> work = published(28)
        >>> sum(t.calls for t in work.tasks if t.function == "MatMul-3")
        5432
        >>> work.parameters
        67850
    """
    if not 1 <= parts <= steps:
        raise InputError(f"parts is {parts}; expected 1 to {steps}, the steps of the workload")
    joined, cells, logits = inputs + hidden, batch * hidden, batch * classes
    # a part of S steps has 2S - 1 pairs
    pairs = 2 * steps - parts
    tensors = {hidden * joined: 4, hidden: 4, classes * hidden: 1, classes: 1}
    forward = Product(batch, joined, hidden, transposed=True)
    readout = Product(batch, hidden, classes, transposed=True)
    weights = Product(hidden, batch, joined, accumulated=True)
    tasks = (
        Task("MatMul-2", "product", 4 * steps, product=forward),
        Task("MatMul-2", "product", steps, product=readout),
        _loop("Sigmoid", "sigmoid", 3 * steps, cells),
        _loop("tanh", "tanh", 2 * steps, cells),
        _loop("EWO-basic", "multiply", 2 * steps + steps + 4 * pairs, cells),
        _loop("EWO-basic", "multiply_add", steps, cells),
        _loop("EWO-basic", "multiply", parts, logits),
        _loop("softmax", "softmax", steps, logits),
        _loop("dataMovement", "copy", steps, cells),
        _loop("dataMovement", "copy", steps, batch * inputs),
        _loop("dataMovement", "move", parts, 2 * cells),
        Task(
            "MatMul-3",
            "product",
            parts,
            product=Product(classes, batch, hidden, accumulated=True),
        ),
        Task("MatMul-1", "product", parts, product=Product(batch, classes, hidden)),
        Task("MatMul-1", "product", 4 * steps, product=Product(batch, hidden, joined)),
        Task("MatMul-3", "product", steps + 3 * pairs, product=weights),
        _loop("EWO-combo", "state_gradient", steps, cells),
        _loop("EWO-combo", "derivative", steps + 3 * pairs, cells),
        _columns(steps + 3 * pairs, hidden, batch),
        _columns(parts, classes, batch),
        *(_loop("EWO-SGD", "update", n * parts, size) for size, n in tensors.items()),
    )
    return Workload(
        "published",
        tasks,
        steps,
        parts,
        batch,
        sum(size * n for size, n in tensors.items()),
        # of every step: [x, h], eleven arrays of the cells, two of the readout
        -(-steps // parts) * (batch * joined + 11 * cells + 2 * logits),
    )


def _columns(calls: int, columns: int, rows: int) -> Task:
    """Sums over the rows of a batch, averaged and accumulated; one constant is for four rows."""
    kind = "column" if rows == 4 else "other column"
    return Task("Mat2Vec", kind, calls, columns, operations=rows + 2, accesses=rows + 2)


def of_program(program: Program) -> Workload:
    """The work of a program, from `fptt.program.count`: full sequences, one batch.

    What an operation computes is one loop in each function class. The array writes its results to
    memory, so the work is that of the program that keeps its gradients; where this one does not, a
    gradient comes in pieces that fit into its scratch memory, a product each.

    Raises:
        ValueError: the program does not train.

    Example:
        >>> import fptt
        >>> net = fptt.Network([fptt.LSTM(1, 8), fptt.Linear(8, 3)])
        >>> rule, sgd = fptt.FPTT(parts=4), fptt.SGD(lr=0.1)
        >>> work = of_program(fptt.build(net, rule, sgd, steps=12, batch=2, loss="last"))
        >>> sorted({t.kind for t in work.tasks if t.function == "MatMul-1"})
        ['product']
    """
    whole = program.keeping_gradients()
    piece = None if whole is program else program.memory().categories["scratch"] // _SCRATCH_BYTES
    trained = [program.buffers[name] for name in program.trained]
    width = max((ITEM_BYTES[buffer.dtype] for buffer in trained), default=4)
    items = work_table(whole).items
    tasks = tuple(task for item in items for task in _tasks(item, width, piece))
    return Workload(
        "program",
        tasks,
        program.steps,
        len(program.bounds),
        program.batch,
        sum(prod(buffer.shape) for buffer in trained),
        program.memory().categories["activation"] // width,
    )


def _tasks(item: WorkItem, width: int, piece: int | None) -> Iterator[Task]:
    """What a chip does for equal executions of an operation.

    Args:
        item: of the program's work list.
        width: bytes of a number.
        piece: numbers of a weight gradient that there is memory for; None for all.
    """
    times, work, sizes = item.repetitions, item.work, dict(item.shape)
    matrix = item.function.startswith("MatMul")
    left = work.mul + work.add
    if matrix and item.kind in _PRODUCTS:
        rows, columns = sizes["n"], sizes["o"]
        inner = work.mul // (times * rows * columns)
        if item.function == "MatMul-3":
            lines = columns if piece is None else max(1, min(columns, piece // inner))
            for size, pieces in ((lines, columns // lines), (columns % lines, 1)):
                if size:
                    product = Product(size, rows, inner, accumulated=True)
                    yield Task(item.function, item.kind, times * pieces, product=product)
            return
        # weights lie as [outputs, inputs]
        if item.function == "MatMul-1":
            product = Product(rows, columns, inner)
        else:
            product = Product(rows, inner, columns, transposed=True)
        yield Task(item.function, item.kind, times, product=product)
        return
    if matrix and item.kind in (*_TANGENTS, "affine_tangent"):
        outputs = sizes["o"] if "o" in sizes else _TANGENTS[item.kind] * sizes["h"]
        product = Product(sizes["p"], sizes["i" if "o" in sizes else "h"], outputs)
        yield Task(item.function, item.kind, times * sizes["n"], product=product)
        left -= 2 * times * sizes["n"] * product.macs
    counted = left + work.trans or work.bytes // (2 * width)
    if counted:
        # no element without an operation (or, of a copy, without a read and a write)
        elements = max(1, min(_elements(item.function, sizes), counted // times))
        total = times * elements
        yield Task(
            item.function,
            item.kind,
            times,
            elements,
            left / total,
            work.trans / total,
            work.bytes / total / width,
        )


def _elements(function: str, sizes: Mapping[str, int]) -> int:
    """Elements of the loop that an operation is in one of its classes."""
    if "size" in sizes:
        return sizes["size"]
    if function in ("Mat2Vec", "EWO-SGD"):
        # rows are summed inside an element
        return prod(size for letter, size in sizes.items() if letter != "n")
    return prod(sizes.values())
