"""Every operation of the engine against the reference: one case class for the whole op table.

An operation stands alone in a program made by hand. Sizes, rows, steps, references, ranges,
optional operands, layouts, number types and what lies in place are drawn anew for every trial; all
memory that the operation should not read is NaN, and every byte that it should not write, between
the buffers and around them, must be there afterwards.

A failure names its seed and trial; FPTT_OPS_SEED=.. and FPTT_OPS_TRIAL=.. run it again.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

import fptt
from fptt.native import Engine
from fptt.native._engine import lib
from fptt.native.compile import INSTRUCTION_SETS
from fptt.program.bfloat16 import from_bits, to_bits
from fptt.program.frame import Frame
from fptt.program.ir import ITEM_BYTES, Buffer, Loop, Op, Ref, Role, Routine
from fptt.program.ops import spec, table
from fptt.program.plan import Plan
from fptt.reference import Interpreter

SEED = int(os.environ.get("FPTT_OPS_SEED", "20240607"))
TRIALS = range(round(14 * float(os.environ.get("FPTT_EXAMPLES", "1"))))
if "FPTT_OPS_TRIAL" in os.environ:
    TRIALS = range(int(os.environ["FPTT_OPS_TRIAL"]), int(os.environ["FPTT_OPS_TRIAL"]) + 1)
ISAS = [name for name, number in INSTRUCTION_SETS.items() if lib.fptt_isa_runs_here(number)]
TYPES = {
    "float32": ("float32", "float32"),
    "bfloat16": ("bfloat16", "bfloat16"),
    "bfloat16 activations": ("float32", "bfloat16"),
    "bfloat16 parameters": ("bfloat16", "float32"),
}

#: with the kernels of test_fused.py, where x (1 - x) is x - x x, Inf may become NaN
FUSED = "FPTT_OPS_FUSED" in os.environ

ROWS = (1, 2, 3, 5, 7, 16, 17, 33, 65, 130)
#: one less and one more than every vector and tile; 521 is longer than a line of an update
SIZES = (1, 2, 3, 5, 7, 15, 16, 17, 33, 64, 65, 130)
LONG = 521
#: operands that are float32 whatever the program's types are
CONTROL = {"lr", "factor", "correction", "correction_out", "loss", "total", "fraction", "tile"}
CONTROL_OF = {"squared_error": {"target"}, "square_sum": {"start"}}
#: one unit in the last place of float32 and of bfloat16, relative; what lies between two numbers of
#: bfloat16 may become the one or the other
ULP32, ULP16 = 2.0**-23, 2.0**-7


def normal(rng, shape):
    return rng.normal(0, 0.7, shape)


def unit(rng, shape):
    return rng.uniform(0.05, 1, shape)


@dataclass(frozen=True)
class OpCase:
    """How one kind of operation is drawn and measured; the rest the op table says.

    Attributes:
        attrs: draws the attributes.
        values: draws the values of inputs, by name; normal numbers otherwise.
        ulps: units in the last place that reference and engine may differ by, of the largest
            number that takes part; one number or a function of how many numbers a sum has.
        positive: no differences occur, so the formula on absolute values bounds each element.
        must: outputs that must lie on their inputs.
        plain: operands that come without ranges and not transposed.
    """

    ulps: float | Callable[[int], float]
    attrs: Callable[[Any], dict[str, Any]] = field(default=lambda rng: {})
    values: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    positive: bool = False
    must: frozenset[str] = frozenset()
    plain: frozenset[str] = frozenset()


def a_sum(terms: int) -> float:
    """Rounding errors of sums in another order grow like a random walk: 8 of its deviations."""
    return 8 * (terms + 4) ** 0.5


def optimizer_attrs(rng):
    return {
        "optimizer": str(rng.choice(["sgd", "momentum", "adam"])),
        "momentum": 0.9,
        "beta1": 0.9,
        "beta2": 0.99,
        "epsilon": 1e-8,
        "tensor": int(rng.integers(5)),
        "first_row": int(rng.integers(3)),
    }


def wrapper_attrs(rng):
    return optimizer_attrs(rng) | {
        "alpha": float(rng.choice([0.25, 0.5])),
        "beta": float(rng.choice([0.5, 1.0])),
        "mode": str(rng.choice(["code", "paper"])),
        "directed": bool(rng.integers(2)),
    }


LEARNT = {"second": unit, "correction": unit, "lr": unit, "factor": unit}
#: what is rounded at random where there is noise
ROUNDED = ("theta_out", "lam_out", "mean_out")
OUTPUTS = frozenset({"theta_out", "lam_out", "mean_out", "first_out", "second_out"})
#: Adam divides by sqrt(v'/q): v >= 0.05 keeps that below 5; beta / alpha enlarges what m gets from
#: lambda up to 4 times
UPDATE: dict[str, Any] = dict(
    ulps=lambda n: 8 * a_sum(n), values=LEARNT, must=OUTPUTS, plain=frozenset({"tile"})
)
LABELS = frozenset({"target", "fraction", "q", "token"})

CASES: dict[str, OpCase] = {
    # sums of products: only the order of the additions and fused roundings differ
    "affine": OpCase(a_sum, positive=True),
    "affine_sum": OpCase(lambda n: a_sum(2 * n), positive=True),
    "product": OpCase(a_sum, positive=True),
    "weight_gradient": OpCase(a_sum, positive=True),
    "bias_gradient": OpCase(a_sum, positive=True),
    "square_sum": OpCase(a_sum, positive=True),
    "embedding_gradient": OpCase(
        a_sum, positive=True, must=frozenset({"dw"}), plain=frozenset({"token", "start"})
    ),
    # sigmoid and tanh of fptt_math.h are within 3 ulp, NumPy's within 4; then a few products
    "lstm_forward": OpCase(16),
    "lstm_backward": OpCase(32),
    "gru_forward": OpCase(24),
    "gru_backward": OpCase(16),
    "rnn_forward": OpCase(8),
    "rnn_backward": OpCase(4),
    # the same operations in the same order: at most one rounding apart
    "relu": OpCase(0),
    "relu_gradient": OpCase(1, positive=True),
    "add": OpCase(1, positive=True),
    "dropout": OpCase(
        2,
        attrs=lambda rng: {"p": float(rng.choice([0, 0.25, 0.3, 0.9])), "layer": 3},
        positive=True,
    ),
    "embedding": OpCase(0, plain=frozenset({"table", "token"})),
    "fill": OpCase(0, attrs=lambda rng: {"value": float(rng.choice([0.0, 1.0, 0.3, -2.5]))}),
    "copy": OpCase(0),
    "next_sequence": OpCase(0),
    "clip_factor": OpCase(4, attrs=lambda rng: {"clip": 0.7}, values={"total": unit}),
    "adam_correction": OpCase(
        2, attrs=lambda rng: {"beta1": 0.9, "beta2": 0.999}, values={"correction": unit}
    ),
    # exp and log are within 2 ulp; the loss is a sum over rows of sums over classes
    "cross_entropy": OpCase(lambda n: 2 * a_sum(n), plain=LABELS),
    "auxiliary_cross_entropy": OpCase(
        lambda n: 4 * a_sum(n),
        attrs=lambda rng: {"rate": 0.3, "per_part": bool(rng.integers(2))},
        values={"q": unit, "fraction": lambda rng, shape: rng.choice([0.25, 0.5, 1.0], shape)},
        must=frozenset({"q_out"}),
        plain=LABELS,
    ),
    "squared_error": OpCase(a_sum, plain=LABELS),
    "update": OpCase(attrs=optimizer_attrs, **UPDATE),
    "weight_update": OpCase(attrs=optimizer_attrs, **UPDATE),
    "bias_update": OpCase(attrs=optimizer_attrs, **UPDATE),
    "fptt_update": OpCase(attrs=wrapper_attrs, **UPDATE),
    "fptt_weight_update": OpCase(attrs=wrapper_attrs, **UPDATE),
    "fptt_bias_update": OpCase(attrs=wrapper_attrs, **UPDATE),
    "fptt_direction": OpCase(4, attrs=lambda rng: {"alpha": 0.5, "mode": str(rng.choice(MODES))}),
}
MODES = ["code", "paper"]


def test_every_operation_has_a_case():
    assert set(CASES) == {kind for kind, entry in table().items() if entry.c_symbol}


class Scene:
    """One operation with its buffers, where and on which rows it runs.

    Args:
        kind: of the operation.
        types: of parameters and activations.
        rng: draws everything.
    """

    def __init__(self, kind: str, types: tuple[str, str], rng: Any) -> None:
        self.kind, self.entry, self.case = kind, spec(kind), CASES[kind]
        self.dtype, self.activation_dtype = types
        self.rng = rng
        self.batch, self.part_steps = self.pick(ROWS), int(rng.integers(1, 5))
        steps = int(rng.integers(1, self.part_steps + 1))
        # more rows than `gradient_update` takes in at a time, as many as a part of real training
        many = kind.endswith("weight_update") and self.chance(0.4)
        if many:
            self.batch, self.part_steps, steps = 130, 5, 5
        rows = np.sort(rng.integers(1, self.batch + 1, steps))[::-1]
        if rng.integers(2):
            rows[:] = self.batch if rng.integers(2) else rows[-1]
        self.frame = Frame(
            int(rng.integers(0, 3)), int(rng.integers(0, 9)), tuple(map(int, rows)), 0
        )
        #: how rows are named: one place; a step of a loop; all steps; every row's last step
        self.rows_at = "all" if many else str(rng.choice(["whole", "loop", "all", "last"]))
        self.t = int(rng.integers(steps)) if self.rows_at == "loop" else None
        self.attrs = self.case.attrs(rng)
        self.sizes = self.draw_sizes()
        self.buffers: dict[str, Buffer] = {}
        self.layouts: dict[tuple[int, ...], dict[str, Any]] = {}
        self.star = bool(rng.integers(2)) and kind in ("fill", "copy")  # has it rows?
        refs = self.draw_refs()
        #: in a loop backwards, not at the first step of the part
        self.after_first = self.t is not None and self.chance(0.3)
        self.op = Op(
            kind,
            tuple(refs.get(o.name) for o in self.entry.inputs),
            tuple(refs.get(o.name) for o in self.entry.outputs),
            self.attrs,
            self.after_first,
        )
        self.refs = refs
        self.program = self.make_program()

    def pick(self, choices: Any) -> int:
        return int(self.rng.choice(choices))

    def chance(self, probability: float = 0.5) -> bool:
        return bool(self.rng.random() < probability)

    # -- drawing ----------------------------------------------------------------------------

    def draw_sizes(self) -> dict[str, int]:
        letters = sorted(
            {
                letter
                for o in (*self.entry.inputs, *self.entry.outputs)
                for _, letter in o.dims or ()
            }
            - {"", "n"}
        )
        sizes = {letter: self.pick(SIZES) for letter in letters}
        if letters and self.chance(0.15):
            sizes = {letter: self.pick(SIZES[:5]) for letter in letters}
            sizes[letters[self.pick(len(letters))]] = LONG
        if "r" in sizes:  # Q, or one for every part
            sizes["c"] = min(sizes["c"], 65)
            sizes["r"] = sizes["c"] * (3 if self.attrs["per_part"] else 1)
        return sizes

    def present(self, name: str) -> bool:
        optimizer = self.attrs.get("optimizer")
        if name in ("first", "first_out"):
            return optimizer in ("momentum", "adam")
        if name in ("second", "second_out", "correction"):
            return optimizer == "adam"
        if name == "noise":
            return self.dtype == "bfloat16" and self.chance()
        return self.chance()

    def draw_refs(self) -> dict[str, Ref]:
        refs: dict[str, Ref] = {}
        for operand in self.entry.inputs:
            if not operand.optional or self.present(operand.name):
                refs[operand.name] = self.draw_ref(operand, output=False)
        taken: set[str] = set()
        for operand in self.entry.outputs:
            if operand.optional and not self.present(operand.name):
                continue
            on = sorted(a for a, b in self.entry.in_place if b == operand.name and a in refs)
            on = [
                name
                for name in on
                if name not in taken
                and refs[name].index != "last"
                and refs[name].buffer.dtype == self.dtype_of(operand)
            ]
            if on and (operand.name in self.case.must or self.chance()):
                source = on[self.pick(len(on))]
                taken.add(source)
                refs[operand.name] = refs[source]
            else:
                refs[operand.name] = self.draw_ref(operand, output=True)
        return refs

    def dtype_of(self, operand: Any) -> str:
        if operand.integer:
            return "uint32" if operand.name in ("random", "next", "noise") else "int32"
        if operand.name in CONTROL | CONTROL_OF.get(self.kind, set()) or (
            self.kind == "clip_factor"
        ):
            return "float32"
        rows = self.star if operand.dims is None else operand.dims[:1] == ((1, "n"),)
        return self.activation_dtype if rows else self.dtype

    def draw_ref(self, operand: Any, *, output: bool) -> Ref:
        rows = self.star if operand.dims is None else operand.dims[:1] == ((1, "n"),)
        dtype = self.dtype_of(operand)
        dims = operand.dims
        if dims is None:
            inner = self.star_shape()
        else:
            inner = tuple(
                (self.sizes[letter] if letter else 1) * times
                for times, letter in (dims[1:] if rows else dims)
            )
        if operand.name == "tile":
            # [lines, 64], see gradient_update in products.c; not all of it need be used
            inner = (max(self.sizes["o"], self.sizes["i"]) + self.pick(3), 64)
        name = f"{operand.name}{len(self.buffers)}"
        if rows:
            return self.row_ref(name, operand, inner, dtype, output)
        return self.plain_ref(name, operand, inner, dtype)

    def star_shape(self) -> tuple[int, ...]:
        if "shape" not in self.__dict__:
            size = (LONG,) if self.chance(0.15) else (self.pick(SIZES),)
            self.shape = size if self.star or self.chance() else (self.pick(SIZES), *size)
        return self.shape

    def row_ref(self, name: str, operand: Any, inner: Any, dtype: str, output: bool) -> Ref:
        column, full = None, inner
        if inner and operand.name not in self.case.plain and self.chance(0.3):
            low, more = self.pick(4), self.pick(4)
            full, column = (low + inner[0] + more,), (low, low + inner[0])
        places = {
            "whole": ["whole"] if output or self.chance() else ["whole", "initial"],
            "loop": ["step", "step", "before", "whole"],
            "all": ["all", "all", "all before"],
            "last": ["whole", "initial"] if output else ["last", "last", "whole"],
        }[self.rows_at]
        where = str(self.rng.choice(places))
        if operand.name == "target" and self.kind == "squared_error" and where == "initial":
            where = "whole"
        held = where != "whole"
        lead = self.pick((1, 2)) if where in ("before", "all before", "initial") else self.pick(2)
        role = Role.TARGET if operand.name == "target" else Role.ACTIVATION
        buffer = Buffer(
            name,
            full,
            dtype,
            role,
            self.batch,
            self.part_steps if held else 0,
            lead if held else 0,
        )
        self.buffers[name] = buffer
        ref = {
            "whole": lambda: buffer.whole,
            "initial": buffer.initial,
            "step": lambda: buffer.at(0),
            "before": lambda: buffer.at(-1),
            "all": buffer.all,
            "all before": lambda: buffer.all(-1),
            "last": buffer.last,
        }[where]()
        return ref.cols(*column) if column else ref

    def plain_ref(self, name: str, operand: Any, inner: Any, dtype: str) -> Ref:
        """What is shaped alike in an update lies alike in memory."""
        plain = operand.integer or inner in ((1,), (2,)) or operand.name in self.case.plain
        layout = self.layouts.get(inner)
        if layout is None:
            layout = {"transposed": len(inner) == 2 and self.chance(), "rows": None, "cols": None}
            layout["full"] = inner
            if self.chance(0.4):
                low, more = self.pick(4), self.pick(4)
                layout["rows"] = (low, low + inner[0])
                layout["full"] = (low + inner[0] + more, *inner[1:])
            if len(inner) == 2 and self.chance(0.2):
                low, more = self.pick(4), self.pick(4)
                layout["cols"] = (low, low + inner[1])
                layout["full"] = (layout["full"][0], low + inner[1] + more)
            if not plain:
                self.layouts[inner] = layout
        if plain:
            layout = {"transposed": False, "rows": None, "cols": None, "full": inner}
        buffer = Buffer(name, layout["full"], dtype, Role.SCRATCH, transposed=layout["transposed"])
        self.buffers[name] = buffer
        return replace(buffer.whole, row_range=layout["rows"], col_range=layout["cols"])

    # -- the program and its memory ----------------------------------------------------------

    def make_program(self) -> Any:
        """The operation as the only one of `forward`, in a plan with gaps between the buffers."""
        base = fptt.build(
            fptt.Network([fptt.Linear(1, 1)]), fptt.BPTT(), fptt.SGD(), steps=1, batch=1
        )
        body = Loop((self.op,), self.after_first) if self.t is not None else self.op
        program = replace(
            base,
            batch=self.batch,
            part_steps=self.part_steps,
            dtype=self.dtype,
            activation_dtype=self.activation_dtype,
            buffers=self.buffers,
            routines={"forward": Routine("forward", (body,))},
            carried=(),
            trained=(),
        )
        offsets, end = {}, 64
        for name, buffer in self.buffers.items():
            offsets[name] = end
            end += buffer.bytes + 16 * self.pick((1, 2, 5))
            end += -end % 16
        program.__dict__["plan"] = Plan(offsets, end, 0, 0)
        return program

    def places(self, views: Mapping[str, Any], ref: Ref) -> list[Any]:
        """Views of what a reference names, stated once more and without the interpreter."""
        view, buffer, rows = views[ref.buffer.name], ref.buffer, self.frame.rows
        running = rows[self.t or 0]
        if not buffer.batch:
            found = [view]
        elif ref.index == "whole":
            found = [view[:running]]
        elif ref.index == "initial":
            found = [view[buffer.lead - 1, :running]]
        elif ref.index == "step":
            found = [view[buffer.lead + ref.offset + self.t, :running]]
        elif ref.index == "all":
            found = [view[buffer.lead + ref.offset + t, :n] for t, n in enumerate(rows)]
        else:
            ends = [max(t for t, n in enumerate(rows) if n > row) for row in range(running)]
            found = [view[buffer.lead + t, row : row + 1] for row, t in enumerate(ends)]
        if ref.row_range:
            found = [part[slice(*ref.row_range)] for part in found]
        if ref.col_range:
            found = [part[..., slice(*ref.col_range)] for part in found]
        return found

    def inputs(self, *, not_finite: bool) -> list[tuple[Ref, list[Any]]]:
        """Values for the places of every input."""
        nothing = {name: np.empty(b.shape, bool) for name, b in self.buffers.items()}
        drawn = []
        for operand in self.entry.inputs:
            ref = self.refs.get(operand.name)
            if ref is None:
                continue
            parts = [self.values(operand, part.shape) for part in self.places(nothing, ref)]
            drawn.append((ref, parts))
        floats = [parts for ref, parts in drawn if ref.buffer.dtype in ("float32", "bfloat16")]
        if not_finite and floats:
            parts = floats[self.pick(len(floats))]
            part = parts[self.pick(len(parts))]
            part.flat[self.pick(part.size)] = self.rng.choice([np.nan, np.inf, -np.inf])
        return drawn

    def values(self, operand: Any, shape: tuple[int, ...]) -> Any:
        if operand.name == "token":
            return self.rng.integers(0, self.sizes["v"], shape)
        if operand.integer and operand.name == "target":
            return self.rng.integers(-1, self.sizes["c"], shape)
        if operand.integer:
            return self.rng.integers(0, 2**32, shape, np.uint32)
        values = self.case.values.get(operand.name, normal)(self.rng, shape)
        if operand.name == "target":
            values[self.rng.random(len(values)) < 0.3] = np.nan
        return values

    def arena(self, drawn: Any) -> Any:
        """Bytes of ones, which are NaN in both types, and the inputs' values."""
        block = np.full(self.program.plan.arena_bytes + 64, 0xFF, np.uint8)
        skip = -block.ctypes.data % 64
        arena = block[skip : skip + self.program.plan.arena_bytes]
        views = Interpreter(self.program, arena)._views
        for ref, parts in drawn:
            for place, values in zip(self.places(views, ref), parts, strict=True):
                place[...] = to_bits(values) if ref.buffer.dtype == "bfloat16" else values
        return arena

    def run(self, backend: Any, drawn: Any) -> tuple[Any, dict[str, list[Any]]]:
        """All bytes afterwards, and what stands in the outputs."""
        arena = self.arena(drawn)
        memory = backend(self.program, arena)
        memory.run("forward", self.frame, self.t)
        found = {}
        for operand in self.entry.outputs:
            if ref := self.refs.get(operand.name):
                parts = self.places(memory._views, ref)
                half = ref.buffer.dtype == "bfloat16"
                found[operand.name] = [from_bits(p) if half else p.copy() for p in parts]
        return arena, found

    def outside(self) -> Any:
        """Which bytes of the arena the operation must leave alone."""
        arena = np.zeros(self.program.plan.arena_bytes + 64, np.uint8)
        arena = arena[-arena.ctypes.data % 64 :][: self.program.plan.arena_bytes]
        views = Interpreter(self.program, arena)._views
        for operand in self.entry.outputs:
            if ref := self.refs.get(operand.name):
                for place in self.places(views, ref):
                    place.view(f"u{place.itemsize}")[...] = np.iinfo(f"u{place.itemsize}").max
        return arena == 0

    # -- comparing ---------------------------------------------------------------------------

    def terms(self) -> int:
        """Numbers in the longest sum."""
        rows = sum(self.frame.rows) if self.rows_at == "all" else self.frame.rows[0]
        ranged = [np.prod(r.inner) for r in self.refs.values() if self.kind == "square_sum"]
        return int(max(rows, *ranged, *self.sizes.values(), 1))

    def bounds(self, drawn: Any, wanted: Mapping[str, list[Any]]) -> dict[str, Any]:
        """How far each output may be from the reference."""
        ulps = self.case.ulps(self.terms()) if callable(self.case.ulps) else self.case.ulps
        numbers = [p for ref, parts in drawn if "int" not in ref.buffer.dtype for p in parts]
        numbers += [p for parts in wanted.values() for p in parts if p.dtype.kind == "f"]
        finite = [np.abs(n[np.isfinite(n)]).max(initial=0) for n in map(np.asarray, numbers)]
        largest = max([1.0, *map(float, finite)])
        if "weight_update" in self.kind or "bias_update" in self.kind:
            largest *= self.terms() ** 0.5  # the gradient, which is in no buffer
        if self.kind in ("cross_entropy", "auxiliary_cross_entropy", "squared_error"):
            largest *= 2  # log of the sum, differences
        if self.case.positive:
            largest = max(
                largest,
                max(
                    float(np.abs(p[np.isfinite(p)]).max(initial=0)) for p in self.magnitudes(drawn)
                ),
            )
        bounds = {}
        for name in wanted:
            half = self.refs[name].buffer.dtype == "bfloat16"
            # embedding_gradient and Q are rounded whenever a row is added
            each = self.terms() if name in ("dw", "q_out") and half and self.case.must else 0
            bounds[name] = (ulps * ULP32 * largest, ULP16 * (half + each), largest if each else 0)
            if self.kind == "affine_sum" and half and not self.one_product:
                # the engine writes the first product before it adds the second
                bounds[name] = (bounds[name][0] + ULP16 / 2 * largest, *bounds[name][1:])
        return bounds

    @property
    def one_product(self) -> bool:
        """Whether both matrices of affine_sum lie so that one kernel takes them."""
        return all(self.refs[name].buffer.transposed for name in ("w", "v"))

    def magnitudes(self, drawn: Any) -> list[Any]:
        """The formula on absolute values: no sum has larger terms."""
        names = [o.name for o in self.entry.inputs if o.name in self.refs]
        by_name = dict(zip(names, drawn, strict=True))
        arrays = []
        for operand in self.entry.inputs:
            if operand.name not in by_name:
                arrays.append(None)
                continue
            ref, parts = by_name[operand.name]
            whole = np.concatenate(parts)
            arrays.append(whole if "int" in ref.buffer.dtype else np.abs(np.asarray(whole, float)))
        extra: dict[str, Any] = dict(self.attrs)
        if self.entry.placed:
            n = len(arrays[0])
            extra["place"] = fptt.program.ops.Place(0, np.zeros(n, int), np.zeros(n, int))
            extra["p"] = 0.0
            arrays[0] = arrays[0] / (1 - self.attrs["p"])
        with np.errstate(all="ignore"):
            return [np.asarray(self.entry.formula(*arrays, **extra))]

    def check(self, *, not_finite: bool, engine: Any = Engine) -> None:
        drawn = self.inputs(not_finite=not_finite)
        before = self.arena(drawn)
        expected, wanted = self.run(Interpreter, drawn)
        after, found = self.run(engine, drawn)
        outside = self.outside()
        assert np.array_equal(expected[outside], before[outside]), "the test's own idea of places"
        touched = np.flatnonzero((after != before) & outside)
        assert not len(touched), f"wrote at byte {touched[0]}: {self.around(int(touched[0]))}"
        if self.after_first and self.t == 0:
            assert np.array_equal(expected, before) and np.array_equal(after, before), "not skipped"
            return
        bounds = self.bounds(drawn, wanted)
        for name, parts in wanted.items():
            if name == "tile":
                continue  # what stands there afterwards means nothing
            absolute, relative, base = bounds[name]
            for number, (a, b) in enumerate(zip(found[name], parts, strict=True)):
                if a.dtype.kind != "f":
                    assert np.array_equal(a, b), f"{name}, part {number}"
                    continue
                same = np.isfinite if FUSED else np.isnan
                assert np.array_equal(same(a), same(b)), f"{name}, part {number}: NaN"
                if not not_finite:
                    assert not np.isnan(b).any(), f"{name}: the case is no number"
                infinite = np.isinf(a) | np.isinf(b)
                if not FUSED:
                    assert np.array_equal(a[infinite], b[infinite]), f"{name}, part {number}: Inf"
                sure = np.isfinite(b)
                gap = np.abs(a[sure].astype(float) - b[sure].astype(float))
                room = absolute + relative * np.maximum(np.abs(b[sure].astype(float)), base)
                worst = (gap - room).max(initial=-1)
                if "noise" in self.refs and name in ROUNDED and not not_finite:
                    # the same random bits: another result only where the sums differ a little
                    other = int((gap > 0).sum())
                    assert other <= 2 + 0.02 * gap.size, f"{name}: {other} of {gap.size} differ"
                assert worst <= 0, f"{name}, part {number}: {gap.max():.3g} apart, {absolute:.3g}"

    def around(self, byte: int) -> str:
        offsets = self.program.plan.offsets
        name = max((n for n in offsets if offsets[n] <= byte), key=lambda n: offsets[n], default="")
        return f"{byte - offsets.get(name, 0)} bytes from the start of {name or 'the arena'}"

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v}" for k, v in self.refs.items())
        return f"{self.kind}({shown}) {self.attrs} sizes={self.sizes} {self.frame} t={self.t}"


def check_trial(kind: str, isa: str, types: str, trial: int, engine: Any = Engine) -> None:
    """Draws a scene and checks it; every fourth has a number that is NaN or infinite."""
    rng = np.random.default_rng([SEED, zlib.crc32(f"{kind} {isa} {types}".encode()), trial])
    scene = Scene(kind, TYPES[types], rng)
    try:
        scene.check(not_finite=trial % 4 == 3, engine=engine)
    except BaseException as error:
        error.add_note(f"FPTT_OPS_SEED={SEED} FPTT_OPS_TRIAL={trial}: {scene}")
        raise


@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", CASES)
def test_equals_the_reference(kind, isa, types, monkeypatch):
    monkeypatch.setenv("FPTT_ISA", isa)
    for trial in TRIALS:
        check_trial(kind, isa, types, trial)


def tables(op: Op) -> None:
    """Writes one operation into the engine's tables."""
    buffers = {ref.buffer.name: ref.buffer for ref in op.refs}
    program = replace(
        fptt.build(fptt.Network([fptt.Linear(1, 1)]), fptt.BPTT(), steps=1),
        buffers=buffers,
        routines={"forward": Routine("forward", (op,))},
        carried=(),
    )
    Engine(program)


def scratch(name: str, *inner: int, dtype: str = "float32", **more: Any) -> Ref:
    return Buffer(name, inner, dtype, Role.SCRATCH, **more).whole


def test_an_update_that_is_not_in_place_is_refused():
    theta, g, out, lr = (scratch(n, 3) for n in ("theta", "g", "out", "lr"))
    attrs = optimizer_attrs(np.random.default_rng(1)) | {"optimizer": "sgd"}
    lr = replace(lr, buffer=replace(lr.buffer, inner=(1,)))
    inputs = (theta, g, lr, None, None, None, None, None)
    tables(Op("update", inputs, (theta, None, None), attrs))
    message = "^the engine runs update in place only, but theta_out is out and theta is theta; "
    with pytest.raises(fptt.InputError, match=message):
        tables(Op("update", inputs, (out, None, None), attrs))


def test_an_embedding_gradient_that_is_not_in_place_is_refused():
    token = scratch("token", dtype="int32", batch=1)
    dy, start, dw = scratch("dy", 2, batch=1), scratch("start", 5, 2), scratch("dw", 5, 2)
    tables(Op("embedding_gradient", (token, dy, start), (start,)))
    with pytest.raises(fptt.InputError, match="in place only, but dw is dw and start is start; "):
        tables(Op("embedding_gradient", (token, dy, start), (dw,)))


def test_tensors_that_lie_differently_are_refused():
    x, y, across = scratch("x", 3, 2), scratch("y", 3, 2), scratch("z", 3, 2, transposed=True)
    tables(Op("copy", (x,), (y,)))
    message = "^the engine runs copy on tensors that lie alike in memory only, not on x and z; "
    with pytest.raises(fptt.InputError, match=message):
        tables(Op("copy", (x,), (across,)))


def test_a_table_that_lies_by_columns_is_refused():
    token, y = scratch("token", dtype="int32", batch=1), scratch("y", 2, batch=1)
    tables(Op("embedding", (scratch("table", 5, 2), token), (y,)))
    for table_ in (scratch("table", 5, 2, transposed=True), scratch("table", 5, 3).cols(0, 2)):
        with pytest.raises(fptt.InputError, match="embedding on whole tables row by row only"):
            tables(Op("embedding", (table_, token), (y,)))


def test_item_bytes_of_the_types():
    """The poison is NaN in every type of float that the engine has."""
    assert np.isnan(np.uint32(0xFFFFFFFF).view(np.float32))
    assert np.isnan(from_bits(np.array([0xFFFF], np.uint16))).all()
    assert ITEM_BYTES["bfloat16"] == 2
