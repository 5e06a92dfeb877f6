"""The update as the unit computes it: thirteen operations, in the order in which they round.

This one table is what the Python model executes, what the scheduler orders, and what the lane is
wired from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["add", "subtract", "multiply", "halve"]
Operator = Literal["adder", "multiplier", "halver"]

#: what a parameter brings, and what it takes back
INPUTS = ("grad", "param", "lam", "rmean")
OUTPUTS = ("param", "lam", "rmean")
#: what all parameters share: learning rate eta, eta alpha, alpha, 1 / (2 alpha)
CONSTANTS = ("lr", "lr_alpha", "alpha", "ita")
#: output -> the value that it takes
RESULTS = {name: f"{name}_out" for name in OUTPUTS}

_OPERATORS: dict[Kind, Operator] = {
    "add": "adder",
    "subtract": "adder",
    "multiply": "multiplier",
    "halve": "halver",
}


@dataclass(frozen=True)
class Operation:
    """One rounded operation: result = a (kind) b.

    Args:
        slot: row of the published schedule, 1 to 8.
        result: name of the value that it makes.
        kind: "halve" is a / 2 and has no b.
        a, b: names of inputs, constants or earlier results.
        only_regularised: b counts as +0 while R(t) is switched off.
    """

    slot: int
    result: str
    kind: Kind
    a: str
    b: str | None
    only_regularised: bool = False

    @property
    def operator(self) -> Operator:
        """The piece of hardware that computes it."""
        return _OPERATORS[self.kind]

    @property
    def operands(self) -> tuple[str, ...]:
        """Names of the values that it reads."""
        return (self.a,) if self.b is None else (self.a, self.b)

    @property
    def text(self) -> str:
        """Such as "slope = grad - lam"."""
        if self.kind == "halve":
            return f"{self.result} = {self.a} / 2"
        sign = {"add": "+", "subtract": "-", "multiply": "*"}[self.kind]
        return f"{self.result} = {self.a} {sign} {self.b}"


#: HARDWARE's eight slots; halving takes no multiplier, because it only lowers the exponent
_REGULARISED = (
    Operation(1, "slope", "subtract", "grad", "lam", only_regularised=True),
    Operation(1, "offset", "subtract", "param", "rmean"),
    Operation(2, "step", "multiply", "lr", "slope"),
    Operation(2, "pull", "multiply", "lr_alpha", "offset"),
    Operation(3, "moved", "subtract", "param", "step"),
    Operation(3, "param_out", "subtract", "moved", "pull", only_regularised=True),
    Operation(4, "offset_out", "subtract", "param_out", "rmean"),
    Operation(4, "sum", "add", "param_out", "rmean"),
    Operation(5, "change", "multiply", "alpha", "offset_out"),
    Operation(5, "middle", "halve", "sum", None),
    Operation(6, "lam_out", "subtract", "lam", "change"),
    Operation(7, "memory", "multiply", "ita", "lam_out"),
    Operation(8, "rmean_out", "subtract", "middle", "memory"),
)
_PLAIN = (
    Operation(2, "step", "multiply", "lr", "grad"),
    Operation(3, "param_out", "subtract", "param", "step"),
)


def operations(regularise: bool) -> tuple[Operation, ...]:
    """The operations of a unit with R(t), or of one that is built without it.

    Example:
        >>> [operation.result for operation in operations(regularise=False)]
        ['step', 'param_out']
        >>> sum(operation.operator == "adder" for operation in operations(regularise=True))
        8
    """
    return _REGULARISED if regularise else _PLAIN
