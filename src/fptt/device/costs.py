"""What a program costs on a target before it is built: instructions and bytes of code.

Instructions of every kind of operation were counted under emulation at many sizes, and a few
coefficients that are not negative were fitted to them (`tools/calibrate_devices.py`, which writes
`costs/TARGET.json`). A program's figure is the sum over all that runs in one batch. Its error band
comes from the residuals at sizes that the fit had not seen.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fptt.device.calls import learnt_by_loss, statements
from fptt.device.kernels import HEADERS, NAMES, kernels_for
from fptt.device.operations import executions, operations
from fptt.device.sources import runtime_folder
from fptt.errors import InputError
from fptt.program.count import op_work
from fptt.program.ir import Op
from fptt.program.lowering import matrix, watched
from fptt.program.ops import Work, spec
from fptt.program.plan import LEARNED

if TYPE_CHECKING:
    from fptt.program.program import Program

#: where the measured coefficients lie
FOLDER = Path(__file__).parent / "costs"
#: numbers of rows between which the cost of a product is interpolated
KNOTS = (1, 2, 3, 4, 6, 8, 16)
#: pieces into which gradients over many rows are cut
_ROWS_AT_ONCE = 256
#: what watches over the numbers before and after an update
WATCH = "watch"
LEARNER = "learner"
#: what the loss learns by itself
ACCEPT = "accept"
#: first word of the names of updates inside other operations
APPLIED = "applied"

Features = dict[str, float]


# -- what the cost of an operation depends on -----------------------------------------------------


def terms(op: Op, rows: int) -> list[tuple[str, Features]]:
    """What an operation costs: names, and what each is a sum of, for one execution.

    The update inside an operation is a cost of its own (`APPLIED`).

    Args:
        op: the operation.
        rows: on how many rows it runs.

    Example:
        >>> import fptt
        >>> net = fptt.Network([fptt.LSTM(1, 8), fptt.Linear(8, 3)])
        >>> program = fptt.build(net, fptt.FPTT(parts=4), steps=16)
        >>> op = next(op for op, _ in program.routines["carry"].ops())
        >>> terms(op, 2)
        [('copy', {'size': 16.0, 'lines': 1.0, '1': 1.0})]
    """
    sizes, given, _ = op_work(op, rows, 0)
    if op.kind in ("affine", "affine_sum", "product"):
        return [_product(op, sizes, given)]
    if op.kind.endswith(("weight_update", "bias_update", "weight_gradient", "bias_gradient")):
        return [_gradient(op, sizes, given), *_applied(op)]
    if op.kind in ("update", "fptt_update"):
        theta = matrix(_operand(op, "theta"))
        size = float(theta.lines * theta.length)
        return [(f"update {_rule(op)}", {"size": size, "lines": float(theta.lines), "1": 1.0})]
    if op.kind in ("fill", "copy", "fptt_direction", "square_sum"):
        return [_moved(op, sizes)]
    n = sizes["n"]
    width = next((v for k, v in sorted(sizes.items()) if k in "hwce"), 1)
    features = {"n*width": float(n * width), "n": float(n), "width": float(width), "1": 1.0}
    if op.kind == "auxiliary_cross_entropy":
        features["n*width^2"] = float(n * width**2)
    start = " onto" if "start" in given and op.kind in ("relu_gradient", "dropout") else ""
    return [(op.kind + start, features)]


def _applied(op: Op) -> list[tuple[str, Features]]:
    """The update inside an operation."""
    if not op.kind.endswith("update"):
        return []
    theta = matrix(_operand(op, "theta"))
    lines, length = theta.lines, theta.length
    features = {
        "size": lines * length,
        "l": lines,
        "L": length,
        "1": 1,
        "l*ceil(L/16)": lines * -(-length // 16),
        "l*ceil(L/64)": lines * -(-length // 64),
    }
    return [(f"{APPLIED} {_rule(op)}", {key: float(value) for key, value in features.items()})]


def _operand(op: Op, name: str) -> Any:
    entry = spec(op.kind)
    names = [operand.name for operand in (*entry.inputs, *entry.outputs)]
    return dict(zip(names, (*op.inputs, *op.outputs), strict=True))[name]


def _lies(ref: Any) -> str:
    return "columns" if matrix(ref).transposed else "rows"


def _at_knots(rows: int) -> dict[int, float]:
    """How much each number of KNOTS counts for this number of rows."""
    if rows >= KNOTS[-1]:
        return {KNOTS[-1]: rows / KNOTS[-1]}
    above = next(i for i, knot in enumerate(KNOTS) if knot > rows)
    low, high = KNOTS[above - 1], KNOTS[above]
    share = (rows - low) / (high - low)
    return {knot: part for knot, part in ((low, 1 - share), (high, share)) if part}


def _product(op: Op, sizes: Mapping[str, int], given: frozenset[str]) -> tuple[str, Features]:
    n, o, i = sizes["n"], sizes["o"], sizes["i"] + sizes.get("k", 0)
    names = {"affine": ("w",), "affine_sum": ("w", "v"), "product": ("w",)}[op.kind]
    kind = " ".join([op.kind, *(_lies(_operand(op, w)) for w in names)])
    if op.kind == "product":  # dy w: the sums run over the outputs
        i, o = o, i
    features = {f"i*o at {knot}": share * i * o for knot, share in _at_knots(n).items()}
    features |= {
        "n*o": n * o,
        "n*i": n * i,
        "o": o,
        "i": i,
        "n": n,
        "1": 1,
        "n*i*rest4(o)": n * i * (o % 4),
        "n*i*rest16(o)": n * i * (o % 16),
        "n*o*rest4(i)": n * o * (i % 4),
        "n*i*pad4(o)": n * i * (-o % 4),
        "n*i*pad16(o)": n * i * (-o % 16),
        "n*o*pad4(i)": n * o * (-i % 4),
        "n*o*pad16(i)": n * o * (-i % 16),
    }
    # the kernels take four rows at a time and then one by one, in tiles of so many columns
    for group, rows in (("fours", n // 4), ("ones", n % 4)):
        for columns in (4, 5, 6, 8, 16, 20, 24):
            features[f"{group}*i*tiles{columns}(o)"] = rows * i * (o // columns)
            features[f"{group}*i*rest{columns}(o)"] = rows * i * (o % columns)
            features[f"{group}*tiles{columns}(o)"] = rows * -(-o // columns)
        features[f"{group}*i"] = rows * i
        features[f"{group}*o"] = rows * o
        features[group] = rows
    if "start" in given:
        features["n*o onto"] = n * o
    return kind, {key: float(value) for key, value in features.items()}


def _gradient(op: Op, sizes: Mapping[str, int], given: frozenset[str]) -> tuple[str, Features]:
    n = sizes["n"]
    applied = op.kind.endswith("update")
    kind = op.kind.removeprefix("fptt_")
    theta = _operand(op, "theta" if applied else ("dw" if "weight" in kind else "db"))
    m = matrix(theta)
    line, length = m.lines, m.length
    name = kind + (f" {_lies(theta)}" if "weight" in kind else "")
    features = {
        "n*l*L": n * line * length,
        "l*L": line * length,
        "n*l": n * line,
        "n*L": n * length,
        "l": line,
        "L": length,
        "n": n,
        "1": 1,
        "n*l*pad4(L)": n * line * (-length % 4),
        "n*l*pad16(L)": n * line * (-length % 16),
        "n*L*pad2(l)": n * length * (line % 2),
        "n*L*pad4(l)": n * length * (-line % 4),
        "l*L*pieces": line * length * ((n - 1) // _ROWS_AT_ONCE),
    }
    for group, lines in (("fours", line // 4), ("ones", line % 4)):
        for columns in (4, 5, 6, 8, 16, 20):
            features[f"n*{group}*tiles{columns}(L)"] = n * lines * (length // columns)
            features[f"n*{group}*rest{columns}(L)"] = n * lines * (length % columns)
            features[f"{group}*tiles{columns}(L)"] = lines * -(-length // columns)
    if "start" in given:
        features["l*L onto"] = line * length
    if applied:
        # where the kernel does not call the update, but has it inside
        features[f"l*L {_rule(op)}"] = line * length
    return name, {key: float(value) for key, value in features.items()}


def _rule(op: Op) -> str:
    """Optimizer, whether FPTT is around it, and how it rounds: what decides over its cost."""
    words = [str(op.attrs["optimizer"])]
    if op.attrs["optimizer"] == "sgd" and op.attrs.get("momentum"):
        words = ["momentum"]
    if "beta" in op.attrs:
        words.append("fptt")
    if op.attrs.get("directed"):
        words.append("directed")
    if _operand(op, "noise") is not None:
        words.append("stochastic")
    return " ".join(words)


def _moved(op: Op, sizes: Mapping[str, int]) -> tuple[str, Features]:
    output = next(ref for ref in op.outputs if ref is not None)
    source = _operand(op, "d") if op.kind == "square_sum" else output
    size = float(sizes["size"])
    lines = 1.0
    if source.has_rows:
        lines = float(sizes["n"]) if source.col_range else 1.0
    elif matrix(source).length != matrix(source).stride:
        lines = float(matrix(source).lines)
    name = op.kind
    if op.kind == "fill" and op.attrs.get("value"):
        name += " nonzero"
    return name, {"size": size, "lines": lines, "1": 1.0}


def learner_features(program: Program) -> Features:
    """What the cost of driving the program depends on: the learner, with the loop that feeds it."""
    steps, parts, batch = program.steps, program.rule.parts, program.batch
    width = 1 if program.buffers["input"].dtype == "int32" else program.net.inputs
    target = program.buffers["target"]
    return {
        "1": 1.0,
        "K": float(parts),
        "T": float(steps),
        "T*n": float(steps * batch),
        "T*n*inputs": float(steps * batch * width),
        "T*n*targets": float(steps * batch * target.row_items),
        "K*n*outputs": float(parts * batch * program.output.row_items),
    }


def accepted(program: Program) -> Iterator[tuple[Op, Features]]:
    """What the loss learns by itself, of one batch: at the end of the sequence, or of each part."""
    for op, _ in program.routines["loss"].ops():
        if learnt_by_loss(op):
            parts, rows = program.rule.parts, program.batch
            learns = rows * (parts if op.attrs["per_part"] else 1)
            yield (
                op,
                {
                    "n*c": float(learns * program.net.outputs),
                    "n": float(learns),
                    "K*n": float(parts * rows),
                    "K": float(parts),
                },
            )


def watch_features(program: Program) -> Features:
    """What the looks at the numbers before an update depend on."""
    parts = program.bounds
    found = {"float32": 0.0, "bfloat16": 0.0, "looks": 0.0, "K": float(len(parts))}
    for _, _, ref, _ in watched(program):
        buffer = ref.buffer
        found["looks"] += len(parts)
        if not ref.has_rows:
            found[buffer.dtype] += len(parts) * buffer.items
            continue
        rows = sum(high - low for low, high in parts) if ref.index == "all" else len(parts)
        found[buffer.dtype] += rows * program.batch * buffer.row_items
    for buffer in program.carried:
        found["looks"] += len(parts)
        found[buffer.dtype] += len(parts) * buffer.batch * buffer.row_items
    return found


def costs_of(program: Program) -> Iterator[tuple[str, Features, float, Op | None, int]]:
    """All that runs in one batch: name, features of one execution, how often, operation, rows."""
    for e in executions(program):
        for name, features in terms(e.operation.op, e.rows):
            yield name, features, float(e.times), e.operation.op, e.rows
    for op, features in accepted(program):
        yield ACCEPT, features, 1.0, op, program.batch
    yield WATCH, watch_features(program), 1.0, None, 0
    yield LEARNER, learner_features(program), 1.0, None, 0


# -- what was measured ----------------------------------------------------------------------


@dataclass(frozen=True)
class Fitted:
    """The cost of one kind of operation.

    Attributes:
        coefficients: instructions (or bytes) by feature.
        typical, largest: residuals at sizes that the fit had not seen, as shares of what was
            counted: the root of the mean square, and the largest.
        samples: how many sizes were counted.
    """

    coefficients: Mapping[str, float]
    typical: float
    largest: float
    samples: int

    def __call__(self, features: Mapping[str, float]) -> float:
        return sum(self.coefficients.get(name, 0.0) * value for name, value in features.items())


@dataclass(frozen=True)
class Estimate:
    """A figure with its error band.

    Attributes:
        value: what is expected.
        band: the largest error as a share of it.
        unmeasured: kinds of operations that were never counted and are guessed from their work.
    """

    value: float
    band: float
    unmeasured: tuple[str, ...] = ()

    @property
    def low(self) -> float:
        """The lower end of the band."""
        return self.value * (1 - self.band)

    @property
    def high(self) -> float:
        """The upper end of the band."""
        return self.value * (1 + self.band)


@dataclass(frozen=True)
class Costs:
    """What was measured of a target with one number type.

    Attributes:
        target: its name.
        emulator: where it was counted.
        compiler: with what it was compiled.
        kernels: CRC-32 of the run time's sources.
        operations: cost by name.
        guess: instructions for one scalar operation of what was never counted.
        widened: the band over the root of the summed squares of the kinds' typical errors: so wide
            that every network counted lies within its band when the fit had not seen it.
        stack_bytes: the deepest stack of all that was run.
        fixed_code: bytes of startup, learner, snapshots and C library.
        kernel_code: bytes that every kernel adds, and the pieces that it shares: kernel -> {piece:
            bytes}.
        model_code: bytes of generated code by kind of operation.
        code_error: the largest error of the code's size in bytes, on either side.
    """

    target: str
    emulator: str
    compiler: str
    kernels: int
    operations: Mapping[str, Fitted]
    guess: float
    widened: float
    stack_bytes: int
    fixed_code: int
    kernel_code: Mapping[str, Mapping[str, int]]
    model_code: Mapping[str, float]
    code_error: int

    @property
    def stale(self) -> bool:
        """Whether the run time has changed since it was measured."""
        return self.kernels != kernels_checksum(self.target)

    def instructions(self, program: Program) -> Estimate:
        """Instructions of learning from one batch of whole sequences, everything included."""
        by_name: dict[str, float] = {}
        unmeasured: dict[str, None] = {}
        inside = any(name.startswith(APPLIED) for name in self.operations)
        for name, features, times, op, rows in costs_of(program):
            fitted = self.operations.get(name)
            cost = 0.0
            if fitted is not None:
                cost = fitted(features) * times
            elif inside or not name.startswith(APPLIED):
                assert op is not None, f"{name} is always measured"
                unmeasured[name] = None
                cost = self.guess * scalar_operations(op, rows) * times
            by_name[name] = by_name.get(name, 0.0) + cost
        total = sum(by_name.values())
        # kinds err independently of one another
        apart = sum(
            (cost * (0.5 if name in unmeasured else self.operations[name].typical)) ** 2
            for name, cost in by_name.items()
            if name in self.operations or name in unmeasured
        )
        # it holds all networks that were counted; sizes that were not lie a little outside
        band = min(1.5 * self.widened * apart**0.5 / total + 0.05, 0.9)
        return Estimate(total, band, tuple(unmeasured))

    def code_bytes(self, program: Program) -> int:
        """Bytes of the linked firmware besides weights: startup, run time, model."""
        pieces: dict[str, int] = {}
        for kernel in kernels_of(program):
            pieces |= self.kernel_code.get(kernel, {})
        features = code_features(program)
        own = sum(self.model_code.get(name, 0.0) * value for name, value in features.items())
        return round(self.fixed_code + sum(pieces.values()) + own)


def scalar_operations(op: Op, rows: int) -> float:
    """Scalar operations of one execution, a function such as tanh counted as 30 of them."""
    work = sum(op_work(op, rows, 0)[2].values(), Work())
    return work.mul + work.add + 30 * work.trans + 10 * rows + 30


# -- code ----------------------------------------------------------------------------------


def kernels_of(program: Program) -> set[str]:
    """The kernels that a program's code calls, without their prefix."""
    called: set[str] = {"apply", "largest_float"}
    for operation in operations(program):
        text = statements(operation.op, looped=operation.looped, rules={})
        called |= set(
            re.findall(r"\bfptt_(\w+)\(", " ".join([*text, *learnt_by_loss(operation.op)]))
        )
    types = {b.dtype for b in program.buffers.values()}
    called |= {"largest_bf16"} if "bfloat16" in types else set()
    return called & NAMES


def code_features(program: Program) -> Features:
    """What the size of the generated code depends on: calls, what they are given, and loops."""
    found = {"1": 1.0, "calls": 0.0, "arguments": 0.0, "loops": 0.0, "structs": 0.0, "steps": 0.0}
    for operation in operations(program):
        text = " ".join(statements(operation.op, looped=operation.looped, rules={}))
        found["calls"] += len(re.findall(r"\bfptt_\w+\(|\bmem\w+\(", text))
        found["arguments"] += text.count(",") + 1
        found["loops"] += text.count("for (")
        found["structs"] += text.count("{")
        found["steps"] += len(re.findall(r"\b(?:t|steps)\b", text))
    learned = [
        b for b in program.buffers.values() if b.role in LEARNED and b.dtype == program.dtype
    ]
    found["looks"] = float(sum(1 for _ in watched(program)) + len(program.carried) + len(learned))
    found["trained"] = float(len(program.trained))
    return found


# -- files ---------------------------------------------------------------------------------


@cache
def kernels_checksum(target: str) -> int:
    """CRC-32 of all that is compiled of the run time for a target."""
    runtime, total = runtime_folder(), 0
    files = {
        path
        for dtype in ("float32", "bfloat16")
        for file in kernels_for(target, dtype, dtype)
        for path in (file.path, *file.headers)
    }
    for path in sorted({*HEADERS, *files}):
        total = zlib.crc32((runtime / path).read_bytes(), total)
    return total


@cache
def costs(target: str, dtype: str) -> Costs:
    """What was measured of a target.

    Args:
        target: its name.
        dtype: "float32" or "bfloat16".

    Raises:
        InputError: nothing was; names the targets that were.
    """
    path = FOLDER / f"{target}.json"
    if not path.is_file():
        known = sorted(p.stem for p in FOLDER.glob("*.json"))
        raise InputError(
            f"no instructions were counted for {target}; there are: {', '.join(known) or 'none'}"
        )
    data = json.loads(path.read_text())
    own = data["types"].get(dtype)
    if own is None:
        raise InputError(
            f"{target} was not measured in {dtype}, only in {', '.join(data['types'])}"
        )
    return Costs(
        target=target,
        emulator=data["emulator"],
        compiler=data["compiler"],
        kernels=data["kernels"],
        operations={name: Fitted(**fitted) for name, fitted in own["operations"].items()},
        guess=own["guess"],
        widened=own["widened"],
        stack_bytes=own["stack_bytes"],
        fixed_code=own["fixed_code"],
        kernel_code=own["kernel_code"],
        model_code=own["model_code"],
        code_error=own["code_error"],
    )
