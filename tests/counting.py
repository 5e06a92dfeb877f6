"""A number that counts its own arithmetic, and an interpreter that computes with such numbers."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from fptt.program.ir import ITEM_BYTES
from fptt.program.ops import spec
from fptt.reference.interpreter import Interpreter

#: what happened since the last `clear`, by name of the operation
HAPPENED: Counter[str] = Counter()


class Counted:
    """A float; +, -, *, / and the transcendental functions count, comparisons do not."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = float(value)

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        return f"Counted({self.value})"

    __hash__ = None


def _binary(kind, compute):
    def forward(self, other):
        HAPPENED[kind] += 1
        return Counted(compute(self.value, float(other)))

    def backward(self, other):
        HAPPENED[kind] += 1
        return Counted(compute(float(other), self.value))

    return forward, backward


for _name, _kind, _compute in (
    ("add", "add", lambda a, b: a + b),
    ("sub", "add", lambda a, b: a - b),
    ("mul", "mul", lambda a, b: a * b),
    ("truediv", "mul", lambda a, b: a / b),
):
    _forward, _backward = _binary(_kind, _compute)
    setattr(Counted, f"__{_name}__", _forward)
    setattr(Counted, f"__r{_name}__", _backward)

for _name, _compare in (
    ("lt", lambda a, b: a < b),
    ("le", lambda a, b: a <= b),
    ("gt", lambda a, b: a > b),
    ("ge", lambda a, b: a >= b),
    ("eq", lambda a, b: a == b),
    ("ne", lambda a, b: a != b),
):
    setattr(
        Counted,
        f"__{_name}__",
        lambda self, other, _compare=_compare: _compare(self.value, float(other)),
    )


def _transcendental(name, compute):
    def method(self):
        HAPPENED[name] += 1
        return Counted(compute(self.value))

    return method


for _name, _compute in (
    ("tanh", math.tanh),
    ("exp", math.exp),
    ("expm1", math.expm1),
    ("cos", math.cos),
    ("sin", math.sin),
    ("log", math.log),
    ("sqrt", math.sqrt),
    ("sigmoid", lambda a: 1 / (1 + math.exp(-a))),
):
    setattr(Counted, _name, _transcendental(_name, _compute))

# numpy.negative calls it; a change of sign is part of whatever uses the number
Counted.__neg__ = lambda self: Counted(-self.value)

_counted = np.frompyfunc(lambda v: v if isinstance(v, Counted) else Counted(v), 1, 1)
_plain = np.frompyfunc(float, 1, 1)

#: a product joined with the update along it -> the product, and how many operands follow theta
APPLIED = {
    f"{rule}{product}_update": (f"{product}_gradient", operands)
    for rule in ("", "fptt_")
    for product, operands in (("weight", 2), ("bias", 1))
}

#: operands of which only the rows that the tokens name move: kind -> numbers of operands
#: (inputs, then outputs), and which operand holds the tokens
BY_TOKEN = {"embedding": ({0}, 1), "embedding_gradient": ({2, 3}, 0)}


class CountingInterpreter(Interpreter):
    """Floats lie in arrays of Counted, one per buffer; `counts` collects what happens.

    counts: (routine, kind, function class) -> {"mul": .., "add": .., "trans": .., "bytes": ..}
    runs: (routine, kind) -> executions
    """

    def __init__(self, program):
        super().__init__(program)
        self.counts: dict[tuple[str, str, str], Counter[str]] = {}
        self.runs: Counter[tuple[str, str]] = Counter()
        self.routine = ""

    def _view(self, buffer):
        if buffer.dtype in ("int32", "uint32"):
            return super()._view(buffer)
        return _counted(np.zeros(buffer.shape))

    @staticmethod
    def _decoded(buffer, stored):
        return stored

    @staticmethod
    def _store(buffer, place, values):
        place[...] = _counted(values) if place.dtype == object else values

    def read(self, name, step=None):
        values = self._slot(self.program.buffers[name], step)
        return values.copy() if values.dtype != object else _plain(values).astype(float)

    def write(self, name, values, step=None):
        super().write(name, np.asarray(values), step)

    def run(self, routine, frame, step=None):
        self.routine = routine
        super().run(routine, frame, step)

    def _execute(self, op, frame, t):
        product = self._count_product(op, frame, t)
        HAPPENED.clear()
        super()._execute(op, frame, t)
        happened, entry = Counter(HAPPENED), spec(op.kind)
        happened.subtract(product)
        self.runs[self.routine, op.kind] += 1
        self._count(op, entry.main_class, "mul", happened["mul"])
        self._count(op, entry.main_class, "add", happened["add"])
        for name in ("exp", "expm1", "cos", "sin", "log", "sqrt"):
            self._count(op, entry.main_class, "trans", happened[name])
        self._count(op, "Sigmoid", "trans", happened["sigmoid"])
        self._count(op, "tanh", "trans", happened["tanh"])
        self._count(op, entry.main_class, "bytes", self._bytes(op, frame, t))

    def _count_product(self, op, frame, t):
        """Counts the product that an update applies by itself, under the product's own class."""
        kind, operands = APPLIED.get(op.kind, (None, 0))
        if kind is None:
            return {}
        factors = [self._load(ref, frame, t) for ref in op.inputs[1 : 1 + operands]]
        HAPPENED.clear()
        spec(kind).formula(*factors, None)
        for what, number in HAPPENED.items():
            self._count(op, spec(kind).main_class, what, number)
        return dict(HAPPENED)

    def _count(self, op, function, what, number):
        if number:
            entry = self.counts.setdefault((self.routine, op.kind, function), Counter())
            entry[what] += number

    def _bytes(self, op, frame, t):
        """Of every operand once, from the arrays that the operation really sees."""
        by_token, tokens = BY_TOKEN.get(op.kind, (set(), None))
        total = 0
        for number, ref in enumerate((*op.inputs, *op.outputs)):
            if ref is None:
                continue
            shape = self._select(ref, frame, t).shape
            if number in by_token:
                shape = (len(self._select(op.inputs[tokens], frame, t)), *shape[1:])
            total += math.prod(shape) * ITEM_BYTES[ref.buffer.dtype]
        return total
