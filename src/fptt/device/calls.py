"""Every operation of a program as calls of the runtime's kernels, in C.

One function here for every C symbol of the op table; what it writes is what the engine's adaptor of
that name does (src/fptt/native/engine.c), with all sizes as constants and all rows running.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from fptt.device.text import float_literal
from fptt.errors import InputError
from fptt.program.bfloat16 import ROW_DISTANCE
from fptt.program.ir import ITEM_BYTES, Buffer, Op, Ref, Role
from fptt.program.lowering import (
    check_places,
    deciding_index,
    first_item,
    item_bits,
    matrix,
    rule_constants,
)
from fptt.program.ops import spec

C_TYPES = {"float32": "float", "bfloat16": "uint16_t", "int32": "int32_t", "uint32": "uint32_t"}
_VIEWS = {"float32": "F32", "bfloat16": "BF16", "int32": "I32", "uint32": "U32"}
#: no operand
NONE = "NULL"
_NO_ROWS = "(fptt_rows){0}"
_NO_FACTORS = "(fptt_factors){0}"


def c_name(name: str) -> str:
    """A buffer's name as a C identifier: "lambda/0.weight_ih" -> "lambda_0_weight_ih"."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)


class Call:
    """One operation while it is written.

    Args:
        op: the operation.
        looped: whether it stands in a loop over steps; then `t` is the step.
        rules: constants of updates, text -> name, to which those of this one are added.
    """

    def __init__(
        self, op: Op, *, looped: bool = False, rules: dict[str, str] | None = None
    ) -> None:
        self.op, self.looped, self.rules = op, looped, {} if rules is None else rules
        entry = spec(op.kind)
        self.names = [operand.name for operand in (*entry.inputs, *entry.outputs)]
        self._refs = dict(zip(self.names, (*op.inputs, *op.outputs), strict=True))
        self.mode = deciding_index(op)

    def ref(self, name: str) -> Ref:
        """The operand of this name; it must be there."""
        ref = self._refs[name]
        assert ref is not None, f"{self.op.kind} without {name}"
        return ref

    def has(self, name: str) -> bool:
        """Whether the operation has an operand of this name, and it is given."""
        return self._refs.get(name) is not None

    @property
    def n(self) -> str:
        """The number of rows."""
        return "steps * BATCH" if self.mode == "all" else "BATCH"

    def attr(self, name: str) -> Any:
        """An attribute."""
        return self.op.attrs[name]

    # -- places ------------------------------------------------------------------------------

    def at(self, name: str) -> str:
        """A pointer to the first number of an operand; NULL if it is absent."""
        return place(self.ref(name)) if self.has(name) else NONE

    def rows(self, name: str) -> str:
        """An operand with rows, as fptt_rows."""
        if not self.has(name):
            return _NO_ROWS
        ref = self.ref(name)
        return f"(fptt_rows){{{place(ref)}, {ref.buffer.row_items}}}"

    def width(self, name: str) -> int:
        """Numbers of one row of an operand, or of the whole of a vector."""
        return int(np.prod(self.ref(name).inner, dtype=int))

    def factors(self, x: str, w: str) -> str:
        """x and a matrix, as fptt_factors."""
        stride = matrix(self.ref(w)).stride
        return f"(fptt_factors){{{self.width(x)}, {self.rows(x)}, {self.at(w)}, {stride}}}"


def place(ref: Ref) -> str:
    """C expression: where an operand's first number lies."""
    buffer = ref.buffer
    start = base(buffer)
    if not buffer.batch:
        offset = first_item(ref)
        return start + (f" + {offset}" if offset else "")
    low_col = ref.col_range[0] if ref.col_range else 0
    slot_items = buffer.batch * buffer.row_items
    slot = {
        "whole": "0",
        "initial": str(buffer.lead - 1),
        "all": str(buffer.lead + ref.offset),
        "last": _sum("steps", buffer.lead - 1),
        "step": _sum("t", buffer.lead + ref.offset),
    }[ref.index]
    terms = [start]
    if slot != "0":
        terms.append(f"({slot}) * {slot_items}" if " " in slot else f"{slot} * {slot_items}")
    if low_col:
        terms.append(str(low_col))
    return " + ".join(terms)


def base(buffer: Buffer) -> str:
    """C expression: the start of a buffer, in the arena or in constant memory."""
    if buffer.role == Role.FROZEN:
        return f"frozen_{c_name(buffer.name)}"
    return f"{_VIEWS[buffer.dtype]}(AT_{c_name(buffer.name)})"


def _sum(name: str, offset: int) -> str:
    if not offset:
        return name
    return f"{name} {'-' if offset < 0 else '+'} {abs(offset)}"


Writer = Callable[[Call], Iterator[str]]
_WRITERS: dict[str, Writer] = {}


def writes(*symbols: str) -> Callable[[Writer], Writer]:
    """Enters a function as the one that writes calls for these C symbols."""

    def enter(writer: Writer) -> Writer:
        for symbol in symbols:
            _WRITERS[symbol] = writer
        return writer

    return enter


def symbols() -> frozenset[str]:
    """The C symbols that can be written."""
    return frozenset(_WRITERS)


def statements(op: Op, *, looped: bool, rules: dict[str, str]) -> list[str]:
    """The C statements of one operation; arguments as for Call.

    Raises:
        InputError: an operation without a kernel, named.
    """
    symbol = spec(op.kind).c_symbol
    if symbol is None or symbol not in _WRITERS:
        raise InputError(
            f"the operation {op.kind} has no C kernel, so this program cannot be exported; "
            'train it with Trainer(program, backend="reference"), or leave out what needs it'
        )
    check_places(op, "a device", "build the program without what changed its memory")
    return list(_WRITERS[symbol](Call(op, looped=looped, rules=rules)))


# -- products --------------------------------------------------------------------------------


def _affine(c: Call, x: str, w: str, bias: str, start: str, y: str, outputs: int) -> str:
    """y = x w^T + bias + start, whichever way w lies."""
    if matrix(c.ref(w)).transposed:
        factors = f"{c.factors(x, w)}, {_NO_FACTORS}"
        return f"fptt_product({c.n}, {outputs}, {factors}, {bias}, {start}, {y});"
    stride = matrix(c.ref(w)).stride
    return (
        f"fptt_product_transposed({c.n}, {c.width(x)}, {outputs}, {c.rows(x)}, {c.at(w)}, "
        f"{stride}, {bias}, {start}, {y});"
    )


@writes("affine")
def _write_affine(c: Call) -> Iterator[str]:
    yield _affine(c, "x", "w", c.at("bias"), c.rows("start"), c.rows("y"), c.width("y"))


@writes("affine_sum")
def _write_affine_sum(c: Call) -> Iterator[str]:
    x, w, h, v = c.names[:4]
    if matrix(c.ref(w)).transposed and matrix(c.ref(v)).transposed:
        yield (
            f"fptt_product({c.n}, {c.width('y')}, {c.factors(x, w)}, {c.factors(h, v)}, "
            f"{c.at('bias')}, {c.rows('start')}, {c.rows('y')});"
        )
        return
    yield _affine(c, x, w, c.at("bias"), c.rows("start"), c.rows("y"), c.width("y"))
    yield _affine(c, h, v, NONE, c.rows("y"), c.rows("y"), c.width("y"))


@writes("product")
def _write_product(c: Call) -> Iterator[str]:
    w = matrix(c.ref("w"))
    dy, outputs = c.width("dy"), c.width("dx")
    if w.transposed:
        yield (
            f"fptt_product_transposed({c.n}, {dy}, {outputs}, {c.rows('dy')}, {c.at('w')}, "
            f"{w.stride}, NULL, {c.rows('start')}, {c.rows('dx')});"
        )
    else:
        yield (
            f"fptt_product({c.n}, {outputs}, {c.factors('dy', 'w')}, {_NO_FACTORS}, NULL, "
            f"{c.rows('start')}, {c.rows('dx')});"
        )


def _span(c: Call, p: str | None, q: str) -> str:
    """The rows of p and q side by side; all rows run, so they are one span."""
    return f"&(fptt_span){{{c.at(p) if p else NONE}, {c.at(q)}, {c.n}}}, 1"


def _stride(c: Call, name: str | None) -> int:
    return c.ref(name).buffer.row_items if name else 0


def _gradient(c: Call, p: str | None, q: str, start: str, out: str) -> str:
    g = matrix(c.ref(out))
    return (
        f"fptt_gradient({_span(c, p, q)}, 0, {g.lines}, {g.length}, {_stride(c, p)}, "
        f"{_stride(c, q)}, {c.at(start)}, {c.at(out)}, {g.stride});"
    )


@writes("weight_gradient")
def _write_weight_gradient(c: Call) -> Iterator[str]:
    p, q = ("x", "dy") if matrix(c.ref("dw")).transposed else ("dy", "x")
    yield _gradient(c, p, q, "start", "dw")


@writes("bias_gradient")
def _write_bias_gradient(c: Call) -> Iterator[str]:
    yield _gradient(c, None, "dy", "start", "db")


# -- cells and element-wise operations ---------------------------------------------------------


def _rows_of(c: Call, *names: str) -> str:
    return ", ".join(c.rows(name) for name in names)


@writes(
    "lstm_forward", "lstm_backward", "gru_forward", "gru_backward", "rnn_forward", "rnn_backward"
)
def _write_cell(c: Call) -> Iterator[str]:
    hidden = c.width(
        {"lstm_backward": "c", "gru_backward": "dh", "rnn_backward": "dh"}.get(c.op.kind, "h")
    )
    yield f"fptt_{c.op.kind}({c.n}, {hidden}, {_rows_of(c, *c.names)});"


@writes("relu", "add")
def _write_rows(c: Call) -> Iterator[str]:
    yield f"fptt_{c.op.kind}({c.n}, {c.width('x')}, {_rows_of(c, *c.names)});"


@writes("relu_gradient")
def _write_relu_gradient(c: Call) -> Iterator[str]:
    yield f"fptt_relu_gradient({c.n}, {c.width('dy')}, {_rows_of(c, *c.names)});"


@writes("dropout")
def _write_dropout(c: Call) -> Iterator[str]:
    p, layer = float(c.attr("p")), int(c.attr("layer"))
    limit = min(int(np.ceil(p * 2.0**32)), 0xFFFFFFFF)
    scale = float_literal(1.0 / (1.0 - p))
    # an operation on rows outside the loop stands at their last step
    step = "t" if c.looped or c.mode == "all" else "steps - 1"
    call = (
        f"fptt_dropout(BATCH, {c.width('x')}, {{x}}, {c.at('random')}, {{start}}, {{y}}, "
        f"{limit}u, {scale}, {layer}u, 0u, (uint32_t)(at.begin + {step}));"
    )
    if c.mode != "all":
        rows = {name: c.rows(name) for name in ("x", "start", "y")}
        yield call.format(**rows)
        return
    # the mask depends on the step, so step by step
    steps = {}
    for name in ("x", "start", "y"):
        steps[name] = _NO_ROWS
        if c.has(name):
            ref = c.ref(name)
            at_step = Ref(ref.buffer, "step", ref.offset, ref.row_range, ref.col_range)
            steps[name] = f"(fptt_rows){{{place(at_step)}, {ref.buffer.row_items}}}"
    yield "for (size_t t = 0; t < steps; t++) {"
    yield "  " + call.format(**steps)
    yield "}"


@writes("embedding")
def _write_embedding(c: Call) -> Iterator[str]:
    table, token, y = c.names
    yield f"fptt_embedding({c.n}, {c.width(y)}, {c.at(table)}, {c.at(token)}, {c.rows(y)});"


@writes("embedding_gradient")
def _write_embedding_gradient(c: Call) -> Iterator[str]:
    token, dy, _start, dw = c.names
    yield f"fptt_embedding_gradient({c.n}, {c.width(dy)}, {c.at(token)}, {c.rows(dy)}, {c.at(dw)});"


# -- movement ----------------------------------------------------------------------------------


def _line_loop(c: Call, name: str, body: Callable[[str, str], str]) -> Iterator[str]:
    """`body(offset, count)` once for each run of neighbouring numbers."""
    ref = c.ref(name)
    if ref.has_rows:
        lines, length, stride = c.n, c.width(name), ref.buffer.row_items
    else:
        m = matrix(ref)
        lines, length, stride = str(m.lines), m.length, m.stride
    if length == stride or lines == "1":
        yield body("", str(length) if lines == "1" else f"{lines} * {length}")
        return
    yield f"for (size_t line = 0; line < {lines}; line++) {{"
    yield "  " + body(f" + line * {stride}", str(length))
    yield "}"


@writes("fill")
def _write_fill(c: Call) -> Iterator[str]:
    dtype = c.ref("y").buffer.dtype
    bits, item = item_bits(dtype, c.attr("value")), ITEM_BYTES[dtype]
    if bits == 0:
        yield from _line_loop(
            c, "y", lambda offset, count: f"memset({c.at('y')}{offset}, 0, ({count}) * {item});"
        )
        return
    value = {
        "float32": lambda: float_literal(float(c.attr("value"))),
        "bfloat16": lambda: f"0x{bits:04x}u",
    }.get(dtype, lambda: f"({C_TYPES[dtype]}){int(c.attr('value'))}")()
    yield from _line_loop(
        c,
        "y",
        lambda offset, count: (
            f"for (size_t i = 0; i < {count}; i++) ({c.at('y')}{offset})[i] = {value};"
        ),
    )


@writes("copy")
def _write_copy(c: Call) -> Iterator[str]:
    item = ITEM_BYTES[c.ref("y").buffer.dtype]
    yield from _line_loop(
        c,
        "y",
        lambda offset, count: (
            f"memmove({c.at('y')}{offset}, {c.at('x')}{offset}, ({count}) * {item});"
        ),
    )


@writes("next_sequence")
def _write_next_sequence(c: Call) -> Iterator[str]:
    yield f"({c.at('next')})[0] = ({c.at('random')})[0];"
    yield f"({c.at('next')})[1] = ({c.at('random')})[1] + 1;"


# -- losses --------------------------------------------------------------------------------------


@writes("cross_entropy")
def _write_cross_entropy(c: Call) -> Iterator[str]:
    yield (
        f"*{c.at('loss')} = fptt_cross_entropy({c.n}, {c.width('logits')}, {c.rows('logits')}, "
        f"{c.at('target')}, fptt_share_of_labels({c.n}, {c.at('target')}), {c.rows('d')});"
    )


def _known(c: Call) -> str:
    """Q, or that of the present part."""
    if not c.attr("per_part"):
        return c.at("q")
    return f"{c.at('q')} + at.part * {c.width('logits') ** 2}"


@writes("auxiliary_cross_entropy")
def _write_auxiliary(c: Call) -> Iterator[str]:
    yield (
        f"*{c.at('loss')} = fptt_auxiliary_cross_entropy({c.n}, {c.width('logits')}, "
        f"{c.rows('logits')}, {c.at('target')}, {c.at('fraction')}, {_known(c)}, "
        f"fptt_share_of_labels({c.n}, {c.at('target')}), {c.rows('d')});"
    )


def learnt_by_loss(op: Op) -> list[str]:
    """What a loss learns by itself, to be run when its value was found finite."""
    if spec(op.kind).c_symbol != "auxiliary_cross_entropy":
        return []
    c = Call(op)
    return [
        f"fptt_auxiliary_learn({c.n}, {c.width('logits')}, {c.rows('logits')}, {c.at('target')}, "
        f"{c.at('fraction')}, {_known(c)}, {float_literal(float(c.attr('rate')))}, "
        f"{int(bool(c.attr('per_part')))});"
    ]


@writes("squared_error")
def _write_squared_error(c: Call) -> Iterator[str]:
    width = c.width("y")
    yield (
        f"*{c.at('loss')} = fptt_squared_error({c.n}, {width}, {c.rows('y')}, {c.at('target')}, "
        f"fptt_share_of_numbers({c.n}, {width}, {c.at('target')}), {c.rows('d')});"
    )


# -- updates ---------------------------------------------------------------------------------------


_OPTIMIZERS = {"sgd": "FPTT_SGD", "momentum": "FPTT_MOMENTUM", "adam": "FPTT_ADAM"}


def rule_text(attrs: Mapping[str, Any], *, stochastic: bool) -> str:
    """The constants of an update as an initialiser of fptt_update_rule."""
    fields = {}
    if "optimizer" in attrs:
        fields["optimizer"] = _OPTIMIZERS[attrs["optimizer"]]
    if "beta" in attrs:
        fields["wrapped"] = "1"
        if attrs["directed"]:
            fields["directed"] = "1"
    if stochastic:
        fields["stochastic"] = "1"
    unused = () if attrs.get("optimizer") == "adam" else ("beta1", "beta2", "epsilon")
    for name, value in rule_constants(attrs).items():
        if value and not name.endswith(unused):
            fields[name] = float_literal(value)
    return "{" + ", ".join(f".{name} = {value}" for name, value in fields.items()) + "}"


def _learned(c: Call) -> str:
    theta = c.ref("theta")
    m = matrix(theta)
    by_run, by_place = (1, ROW_DISTANCE) if m.transposed else (ROW_DISTANCE, 1)
    first = (int(c.attr("first_row")) * (ROW_DISTANCE if len(theta.inner) == 2 else 1)) & 0xFFFFFFFF
    pointers = ", ".join(c.at(name) for name in ("theta", "lam", "mean", "first", "second"))
    return f"{{{pointers}, {m.lines}, {m.length}, {m.stride}, {first}u, {by_run}u, {by_place}u}}"


def _step(c: Call) -> str:
    factor = f"*{c.at('factor')}" if c.has("factor") else "1.0f"
    corrections = "1.0f, 1.0f"
    if c.has("correction"):
        corrections = f"({c.at('correction')})[0], ({c.at('correction')})[1]"
    keys = "{0}"
    if c.has("noise"):
        noise = c.at("noise")
        tensor = int(c.attr("tensor"))
        keys = (
            "{"
            + ", ".join(
                f"fptt_rounding_key(({noise})[0], ({noise})[1], {tensor}u, {which}u)"
                for which in range(3)
            )
            + "}"
        )
    return f"{{*{c.at('lr')}, {factor}, {corrections}, {keys}}}"


def _rule(c: Call) -> str:
    """The constants of the update, which operations share."""
    text = rule_text(c.op.attrs, stochastic=c.has("noise"))
    return "&" + c.rules.setdefault(text, f"rule_{len(c.rules)}" if c.rules else "rule")


def _moved(c: Call, call: str) -> Iterator[str]:
    """A kernel call that moves theta; `call` has the places of `learned` and `step`."""
    yield "{"
    yield f"  const fptt_learned learned = {_learned(c)};"
    yield f"  const fptt_step step = {_step(c)};"
    yield f"  largest = fptt_larger(largest, {call});"
    yield "}"


@writes("update", "fptt_update")
def _write_update(c: Call) -> Iterator[str]:
    yield from _moved(c, f"fptt_update(&learned, {c.at('g')}, {_rule(c)}, step)")


def _applied(c: Call, p: str | None, q: str) -> Iterator[str]:
    lines = matrix(c.ref("theta")).lines
    tile = c.at("tile") if "tile" in c.names else NONE
    yield from _moved(
        c,
        f"fptt_gradient_update({_span(c, p, q)}, 0, {lines}, {_stride(c, p)}, {_stride(c, q)}, "
        f"&learned, {_rule(c)}, step, {tile}, at.part & 1)",
    )


@writes("weight_update", "fptt_weight_update")
def _write_weight_update(c: Call) -> Iterator[str]:
    p, q = ("x", "dy") if matrix(c.ref("theta")).transposed else ("dy", "x")
    yield from _applied(c, p, q)


@writes("bias_update", "fptt_bias_update")
def _write_bias_update(c: Call) -> Iterator[str]:
    yield from _applied(c, None, "dy")


@writes("fptt_direction")
def _write_direction(c: Call) -> Iterator[str]:
    names = c.names  # theta, gradient, lambda, m, and the direction
    pull = float_literal(1.0 if c.attr("mode") == "code" else 0.5)
    alpha = float_literal(float(c.attr("alpha")))

    def call(offset: str, count: str) -> str:
        places = ", ".join(f"{c.at(name)}{offset}" for name in names)
        return f"fptt_direction({count}, {places}, {alpha}, {pull});"

    yield from _line_loop(c, names[-1], call)


@writes("square_sum")
def _write_square_sum(c: Call) -> Iterator[str]:
    d, start, total = c.names
    yield "{"
    yield "  float total = 0.0f;"
    for line in _line_loop(
        c, d, lambda offset, count: f"total += fptt_square_sum({count}, {c.at(d)}{offset});"
    ):
        yield "  " + line
    yield f"  *{c.at(total)} = " + (f"*{c.at(start)} + total;" if c.has(start) else "total;")
    yield "}"


@writes("clip_factor")
def _write_clip_factor(c: Call) -> Iterator[str]:
    total, factor = c.names
    clip = float_literal(float(c.attr("clip")))
    yield f"*{c.at(factor)} = {clip} / (fptt_sqrt(*{c.at(total)}) + {float_literal(1e-6)});"
    yield f"if (*{c.at(factor)} > 1.0f) *{c.at(factor)} = 1.0f;"


@writes("adam_correction")
def _write_adam_correction(c: Call) -> Iterator[str]:
    before, after = c.names
    for place_, name in enumerate(("beta1", "beta2")):
        beta = float(c.attr(name))
        yield (
            f"({c.at(after)})[{place_}] = {float_literal(beta)} * ({c.at(before)})[{place_}] + "
            f"{float_literal(1 - beta)};"
        )
