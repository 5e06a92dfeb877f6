"""A program as C source: model.h, model.c and the constants of its weights.

`model.c` reads like the printed program: one function for each routine, one call of the runtime for
each operation, every place in memory named. Sizes and offsets are those of `program.plan`.
"""

from __future__ import annotations

import textwrap
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fptt.device.calls import base, c_name, learnt_by_loss, place, statements
from fptt.device.footprint import footprint, saved_state
from fptt.device.operations import ROUTINES
from fptt.device.text import array_lines, comment, float_literal
from fptt.errors import InputError
from fptt.program.arena import Arena
from fptt.program.ir import ITEM_BYTES, Buffer, Loop, Op, Ref, Role
from fptt.program.lowering import cautious, watched

if TYPE_CHECKING:
    from fptt.program.program import Program

#: words of C and C++ that cannot be a name
_RESERVED = frozenset(
    """alignas alignof and asm auto bool break case catch char class const continue default delete
    do double else enum explicit export extern false float for friend goto if inline int long
    mutable namespace new not operator or private protected public register restrict return short
    signed sizeof static struct switch template this throw true try typedef typename union unsigned
    using virtual void volatile while xor main""".split()  # noqa: SIM905
)
#: names of files of the run time, of the port and of C, beside which model.c and model.h lie
_TAKEN = frozenset(
    """apply bare build cells cells_fused check_data count elementwise flash functions kernels
    learner losses math mve_cells null port products products_scalar random rvv semihosting status
    stddef stdint string target updates vector""".split()  # noqa: SIM905
)
_EXPLAINED = {
    "load": "the factory weights",
    "start": "what rule and optimizer remember before the first part",
    "begin_sequence": "the state with which a sequence starts",
    "next_sequence": "other random numbers for every sequence",
    "forward": "steps of the part, forwards",
    "readout": "the outputs of a step",
    "loss": "the outputs of the part, its loss, and the gradient of that",
    "accept": "what the loss itself learns, once its value was found finite",
    "backward": "the part, backwards",
    "update": "everything that trains moves; the bits of the largest |value|",
    "carry": "the state goes on to the next part",
    "reset": "the state to zero",
    "end_epoch": "after a pass over all data",
}


@dataclass(frozen=True)
class Source:
    """What is written.

    Attributes:
        header, code, weights: of model.h, model.c and model_weights.h.
        identity: CRC-32 of the printed program and the frozen weights; saved states belong to it.
        frozen_bytes, factory_bytes: of the constants: weights that do not train, and the first
            values of those that do.
    """

    header: str
    code: str
    weights: str
    identity: int
    frozen_bytes: int
    factory_bytes: int


def check(program: Program, who: str = "export") -> None:
    """Raises InputError, naming who asked and why, where a program cannot run on a device."""
    if "float64" in (program.dtype, program.activation_dtype):
        raise InputError(
            f"{who}: the program computes in float64, for which devices have no kernels; build it "
            'with dtype="float32" or dtype="bfloat16"'
        )
    if unknown := program.without_kernel:
        raise InputError(
            f"{who}: the program ({program.net}) has operations without a C kernel, "
            f"{', '.join(unknown)}; train it on a computer, with "
            'Trainer(program, backend="reference"), or choose other layers'
        )


def emit(
    program: Program,
    parameters: Mapping[str, NDArray[Any]],
    *,
    name: str = "model",
    seed: int = 0,
    loss_limit: float | None = None,
    normalisation: Mapping[str, Any] | None = None,
) -> Source:
    """Writes a program and its weights as C.

    Args:
        program: a verified program.
        parameters: the factory weights, by name.
        name: prefix of all names in the C interface.
        seed: of dropout and stochastic rounding.
        loss_limit: learning stops when the loss of a part passes it; by default 100 for
            classification, and never for regression, whose unit nobody knows.
        normalisation: how the input was prepared, numbers and lists of numbers by name; they
            become constants of the C interface.

    Raises:
        InputError: a program that cannot run on a device.
    """
    check(program)
    if not (name.isidentifier() and name.isascii()) or name in _RESERVED:
        raise InputError(f"export: name is {name!r}; give a C identifier such as 'model'")
    if name.lower() in _TAKEN or name.lower().startswith("fptt"):
        raise InputError(
            f"export: name is {name!r}, as a file of the run time or of C; give another one"
        )
    if not 0 <= seed < 2**32:
        raise InputError(f"export: seed is {seed}; give a whole number from 0 to 2^32 - 1")
    if loss_limit is not None and not loss_limit > 0:
        raise InputError(f"export: loss_limit is {loss_limit}; give a number above 0")
    return _Emitter(program, parameters, name, seed, loss_limit, normalisation or {}).source()


class _Emitter:
    def __init__(
        self,
        program: Program,
        parameters: Mapping[str, NDArray[Any]],
        name: str,
        seed: int,
        loss_limit: float | None,
        normalisation: Mapping[str, Any],
    ) -> None:
        self.normalisation = normalisation
        self.program, self.name, self.seed = program, name, seed
        self.memory = Arena(program)
        for parameter, values in parameters.items():
            self.memory.write(parameter, values)
        if loss_limit is None:
            loss_limit = 100.0 if program.criterion == "cross_entropy" else float("inf")
        self.loss_limit = loss_limit
        self.trained = [program.buffers[n] for n in program.trained]
        self.frozen = [b for b in program.buffers.values() if b.role == Role.FROZEN]
        self.rules: dict[str, str] = {}
        self.operations = 0
        self.code = self._routines()
        # all that decides what a saved state means; the learning rate is part of the state
        meaning = str(program).partition("\nbuffers\n")[2]
        self.identity = zlib.crc32(f"{meaning} {program.steps} {program.rule.parts}".encode())
        for buffer in self.frozen:
            self.identity = zlib.crc32(self.memory.stored(buffer.name).tobytes(), self.identity)

    def source(self) -> Source:
        """All files."""
        return Source(
            header=self._header(),
            code=self._code(),
            weights=self._weights(),
            identity=self.identity,
            frozen_bytes=sum(b.bytes for b in self.frozen),
            factory_bytes=sum(b.bytes for b in self.trained),
        )

    # -- routines ----------------------------------------------------------------------------

    def _routines(self) -> dict[str, list[str]]:
        """The body of every function."""
        bodies = {
            name: self._body(self.program.routines[name].body)
            for name in (*ROUTINES, "update")
            if name in self.program.routines
        }
        bodies["load"] = self._load()
        bodies["accept"] = [
            line for op, _ in self.program.routines["loss"].ops() for line in learnt_by_loss(op)
        ]
        if bodies["accept"]:
            bodies["accept"].insert(0, f"FPTT_OP({self.operations + 1})")
        return bodies

    def _body(self, items: Iterable[Op | Loop]) -> list[str]:
        lines: list[str] = []
        for item in items:
            if not isinstance(item, Loop):
                lines += self._operation(item, looped=False)
                continue
            lines.append(
                "for (size_t t = at.high; t-- > at.low;) {"
                if item.reverse
                else "for (size_t t = at.low; t < at.high; t++) {"
            )
            for op in item.body:
                lines += [f"  {line}" for line in self._operation(op, looped=True)]
            lines.append("}")
        return lines

    def _operation(self, op: Op, *, looped: bool) -> list[str]:
        lines = [
            wrapped
            for line in statements(op, looped=looped, rules=self.rules)
            for wrapped in _wrap(line)
        ]
        self.operations += 1
        lines = [f"FPTT_OP({self.operations})", *lines]
        # a block of its own: what it puts on the stack (rows, factors) is given back after it
        start = "if (t > 0) {" if op.after_first else "{"
        if op.after_first or "){" in "".join(lines):
            lines = [start, *(f"  {line}" for line in lines), "}"]
        return [comment(_short(op)), *lines]

    def _load(self) -> list[str]:
        """Copies the first values of what trains, the learning rate, and sets counters."""
        lines = [f"memcpy({base(b)}, factory_{c_name(b.name)}, {b.bytes});" for b in self.trained]
        lines.append(f"*F32(AT_lr) = {float_literal(self.program.optimizer.lr)};")
        for counter in ("random", "rounding"):
            if counter in self.program.buffers:
                start = base(self.program.buffers[counter])
                lines += [f"({start})[0] = {self.seed}u;", f"({start})[1] = 0;"]
        return lines

    # -- files -------------------------------------------------------------------------------

    def _code(self) -> str:
        program, name = self.program, self.name
        lines = [
            comment(
                f"{program.net}, {program.rule}: the training program, written by fptt export."
            ).replace(", source='bptt'", ""),
            f'#include "{name}.h"',
            "",
            "#include <string.h>",
            "",
            '#include "fptt_kernels.h"',
            '#include "fptt_math.h"',
            '#include "random.h"',
            f'#include "{name}_weights.h"',
            "",
            "/* counts instructions by operation, where the build defines it */",
            "#ifndef FPTT_OP",
            "#define FPTT_OP(number)",
            "#endif",
            "",
            f"enum {{ BATCH = {program.batch} }};",
            "",
            *_block(
                "Where everything lies in the arena, in bytes from its start. What is never needed "
                "at the same time may share a place."
            ),
            "enum {",
            *self._places(),
            f"  ARENA_BYTES = {program.plan.arena_bytes}",
            "};",
            "",
            *self._views(),
            "",
            "/* constants of the updates */",
            *(
                line
                for text, rule in self.rules.items()
                for line in _wrap(f"static const fptt_update_rule {rule} = {text};")
            ),
        ]
        for routine in (*ROUTINES, "update"):
            lines += self._function(routine)
        lines += self._watch_functions()
        lines += self._description()
        lines += self._constant_arrays()
        return "\n".join(lines) + "\n"

    def _places(self) -> Iterator[str]:
        offsets = self.program.plan.offsets
        for buffer in self.program.buffers.values():
            if buffer.role != Role.FROZEN:
                shape = " x ".join(map(str, buffer.shape)) or "1"
                shape += ", by columns" if buffer.transposed else ""
                carried = f", slot 0 carried ({buffer.lead})" if buffer.lead else ""
                text = f"{buffer.role.replace('_', ' ')}, {buffer.dtype} {shape}{carried}"
                yield f"  AT_{c_name(buffer.name)} = {offsets[buffer.name]}, {comment(text)}"

    def _views(self) -> Iterator[str]:
        used = "\n".join(line for body in self.code.values() for line in body)
        used += "\n".join(place(ref) for ref in self._watched_refs())
        for view, c_type in (
            ("F32", "float"),
            ("BF16", "uint16_t"),
            ("I32", "int32_t"),
            ("U32", "uint32_t"),
        ):
            if f"{view}(" in used:
                yield f"#define {view}(place) (({c_type} *)(void *)(arena + (place)))"

    def _watched_refs(self) -> Iterator[Ref]:
        yield from (ref for _, _, ref, _ in watched(self.program))
        yield from (buffer.whole for buffer in self._learned_numbers())
        yield from (buffer.initial() for buffer in self.program.carried)

    def _function(self, routine: str) -> Iterator[str]:
        body = self.code.get(routine, [])
        text = "\n".join(body)
        result = "uint32_t" if routine == "update" else "void"
        yield ""
        yield comment(f"{_EXPLAINED[routine][0].upper()}{_EXPLAINED[routine][1:]}.")
        yield f"static {result} {routine}(uint8_t *arena, fptt_moment at) {{"
        if "steps" in text:
            yield "  const size_t steps = at.high;"
        if routine == "update":
            yield "  uint32_t largest = 0;"
        if "at." not in text and "steps" not in text:
            yield "  (void)at;"
        if "(AT_" not in text:
            yield "  (void)arena;"
        yield from (f"  {line}" for line in body)
        if "FPTT_OP" in text:
            yield "  FPTT_OP(0)"
        if routine == "update":
            yield "  return largest;"
        yield "}"

    def _learned_numbers(self) -> list[Buffer]:
        program = self.program
        # as the update does: moments are large where gradients are, and no reason to stop
        watched = {*program.trained, *(f"lambda/{name}" for name in program.trained)}
        return [b for b in program.buffers.values() if b.name in watched]

    def _watch_functions(self) -> Iterator[str]:
        learned = [(b.whole, str(b.items)) for b in self._learned_numbers()]
        carried = [(b.initial(), str(b.batch * b.row_items)) for b in self.program.carried]
        for name, refs, text in (
            ("largest_learned", learned, "Bits of the largest |value| that was learnt."),
            ("largest_carried", carried, "Bits of the largest |value| of the carried state."),
        ):
            yield ""
            yield comment(text)
            yield f"static uint32_t {name}(const uint8_t *memory) {{"
            yield "  uint8_t *arena = (uint8_t *)(uintptr_t)memory;"
            yield "  uint32_t largest = 0;"
            yield f"  FPTT_OP({self.operations + 2})"
            for ref, count in refs:
                yield f"  largest = fptt_larger(largest, {_look(ref, count)});"
            yield "  FPTT_OP(0)"
            yield "  return largest;"
            yield "}"
        yield ""
        yield comment("Bits of the largest |values| that an update would read.")
        yield "static fptt_watched watch(const uint8_t *memory, fptt_moment at) {"
        yield "  uint8_t *arena = (uint8_t *)(uintptr_t)memory;"
        yield "  const size_t steps = at.high;"
        yield "  fptt_watched seen = {0, 0};"
        yield f"  FPTT_OP({self.operations + 2})"
        for _, _, ref, is_input in watched(self.program):
            what = "input" if is_input else "gradient"
            count = str(ref.buffer.items)
            if ref.has_rows:
                rows = "steps * BATCH" if ref.index == "all" else "BATCH"
                count = f"{rows} * {ref.buffer.row_items}"
            if ref.col_range:
                # the whole rows: the other columns are gradients of the same values
                ref = Ref(ref.buffer, ref.index, ref.offset)
            yield f"  seen.{what} = fptt_larger(seen.{what}, {_look(ref, count)});"
        yield "  FPTT_OP(0)"
        yield "  (void)steps;"
        yield "  return seen;"
        yield "}"

    def _description(self) -> Iterator[str]:
        program, buffers, offsets = self.program, self.program.buffers, self.program.plan.offsets
        fraction = offsets.get("fraction")
        yield ""
        weights = [f"{{AT_{c_name(b.name)}, {b.bytes}}}" for b in self.trained]
        learned = [f"{{0, {program.plan.learned_bytes}}}"]
        # the slot before the first step; a buffer of one step carries its state in place
        carried = [
            f"{{AT_{c_name(b.name)}, {b.batch * b.row_items * ITEM_BYTES[b.dtype]}}}"
            for b in program.carried
            if b.lead <= 1
        ]
        for name, extents in (("weights", weights), ("learned", learned), ("carried", carried)):
            yield f"static const fptt_extent {name}[] = {{{', '.join(extents)}}};"
        yield ""
        token = buffers["input"].dtype == "int32"
        fields: dict[str, str] = {
            "name": f'"{self.name}"',
            "types": "&FPTT_TYPES",
            "identity": f"0x{self.identity:08x}u",
            "arena_bytes": "ARENA_BYTES",
            "steps": str(program.steps),
            "parts": str(program.rule.parts),
            "batch": "BATCH",
            "input": self._place(buffers["input"], width=1 if token else None),
            "target": self._place(buffers["target"]),
            "output": self._place(program.output),
            "tokens": str(program.net.tokens or 0) if token else "0",
            "input_is_token": str(int(token)),
            "target_is_label": str(int(buffers["target"].dtype == "int32")),
            "every_step": str(int(buffers["target"].steps > 0)),
            "cautious": str(int(cautious(program))),
            "loss_at": "AT_loss",
            "lr_at": "AT_lr",
            "fraction_at": "UINT32_MAX" if fraction is None else "AT_fraction",
        }
        for name, extents in (("weights", weights), ("learned", learned), ("carried", carried)):
            fields[name] = name
            fields[f"{name}_count"] = str(len(extents))
        limit = self.loss_limit
        fields["loss_limit"] = float_literal(limit) if limit < 3.4e38 else "FLT_MAX"
        fields |= {routine: routine for routine in (*ROUTINES, "update")}
        fields |= {name: name for name in ("largest_learned", "largest_carried", "watch")}
        handle = {p: footprint(program, p).handle for p in (4, 8)}
        yield (
            f"_Static_assert(sizeof({self.name}_t) == (sizeof(void *) == 8 ? {handle[8]} : "
            f'{handle[4]}), "RAM as planned");'
        )
        yield ""
        yield f"const fptt_model {self.name}_program = {{"
        yield from (f"    .{field} = {value}," for field, value in fields.items())
        yield "};"

    def _place(self, buffer: Buffer, width: int | None = None) -> str:
        step = buffer.batch * buffer.row_items * ITEM_BYTES[buffer.dtype] if buffer.steps else 0
        lead = buffer.lead * buffer.batch * buffer.row_items * ITEM_BYTES[buffer.dtype]
        at = f"AT_{c_name(buffer.name)}" + (f" + {lead}" if lead else "")
        width = width or buffer.row_items
        return f"{{{at}, {width}, {step}, {int(buffer.dtype == 'bfloat16')}}}"

    def _constants(self) -> str:
        """How the input must be prepared, for the header."""
        if not self.normalisation:
            return ""
        lines = [comment("How the input was prepared in training; x must be prepared alike.")]
        for key, value in self.normalisation.items():
            if isinstance(value, int | float):
                lines.append(
                    f"#define {self.name.upper()}_{c_name(key).upper()} {float_literal(value)}"
                )
            else:
                count = np.size(np.asarray(value, np.float32))
                lines.append(f"extern const float {self.name}_{c_name(key)}[{count}];")
        return "\n".join(lines) + "\n\n"

    def _constant_arrays(self) -> Iterator[str]:
        for key, value in self.normalisation.items():
            if not isinstance(value, int | float):
                numbers = np.asarray(value, np.float32)
                yield ""
                yield f"const float {self.name}_{c_name(key)}[{numbers.size}] = {{"
                yield from array_lines(numbers)
                yield "};"

    def _weights(self) -> str:
        lines = [
            comment(f"The weights of {self.program.net}, in the order of memory."),
            "#include <stdint.h>",
        ]
        for kind, buffers, text in (
            ("frozen", self.frozen, "does not train; read where it lies"),
            ("factory", self.trained, "trains; the value to start from"),
        ):
            for buffer in buffers:
                shape = " x ".join(map(str, buffer.shape)) or "1"
                shape += ", by columns" if buffer.transposed else ""
                c_type = "uint16_t" if buffer.dtype == "bfloat16" else "float"
                lines += [
                    "",
                    comment(f"{buffer.name}, {shape}, {buffer.dtype}: {text}"),
                    f"static const {c_type} {kind}_{c_name(buffer.name)}[{buffer.items}] "
                    "__attribute__((aligned(16))) = {",
                    *array_lines(self.memory.stored(buffer.name)),
                    "};",
                ]
        return "\n".join(lines) + "\n"

    def _header(self) -> str:
        program, name = self.program, self.name
        upper, net = name.upper(), program.net
        saved = saved_state(program)
        token = program.buffers["input"].dtype == "int32"
        label = program.buffers["target"].dtype == "int32"
        x = (
            f"const int32_t x[{upper}_BATCH]"
            if token
            else f"const float x[{upper}_BATCH * {upper}_INPUTS]"
        )
        y = (
            f"const int32_t label[{upper}_BATCH]"
            if label
            else f"const float target[{upper}_BATCH * {upper}_OUTPUTS]"
        )
        target = "label" if label else "target"
        none = "a negative one: this row has none" if label else "a NaN first: this row has none"
        inputs = 1 if token else int(program.buffers["input"].row_items)
        out = f"float out[{upper}_BATCH * {upper}_OUTPUTS]"
        return f"""\
/* {net}: a recurrent network that goes on learning.
 *
 * Written by fptt export; README.md says how to use it. All functions answer at once, allocate
 * nothing and may be called from one thread at a time.
 */
#ifndef {upper}_H
#define {upper}_H

#include "fptt_learner.h"

#ifdef __cplusplus
extern "C" {{
#endif

#define {upper}_INPUTS {inputs}
#define {upper}_OUTPUTS {program.output.row_items}
#define {upper}_BATCH {program.batch}
#define {upper}_STEPS {program.steps} /* of a whole sequence */
#define {upper}_PARTS {program.rule.parts} /* it learns at the end of each */
#define {upper}_ARENA_BYTES {program.plan.arena_bytes}
/* what a save holds, in bytes, and of how many pieces it consists */
#define {upper}_WEIGHTS_BYTES {saved.weights}
#define {upper}_FULL_BYTES {saved.full}
#define {upper}_PIECES {saved.pieces}

{self._constants()}/* Stays where it was prepared: do not copy it. */
typedef struct {{
  fptt_learner learner;
  float outputs[{upper}_BATCH * {upper}_OUTPUTS];
}} {name}_t;

extern const fptt_model {name}_program;

/* Factory weights, learning on. `arena`: {upper}_ARENA_BYTES, at a multiple of 16 bytes. */
static inline fptt_status {name}_init({name}_t *m, void *arena, size_t bytes) {{
  return fptt_init(&m->learner, &{name}_program, arena, bytes, m->outputs);
}}

/* A new sequence; a part in flight is forgotten. */
static inline void {name}_begin_sequence({name}_t *m) {{ fptt_begin_sequence(&m->learner); }}

/* The next step, without a {target}. */
static inline fptt_status {name}_observe({name}_t *m, {x}) {{
  return fptt_observe(&m->learner, x, NULL);
}}

/* The next step with its {target}s ({none}). What the statuses mean: fptt_observe. */
static inline fptt_status {name}_observe_labelled({name}_t *m, {x},
                                                    {y}) {{
  return fptt_observe(&m->learner, x, {target});
}}

/* The sequence ends here, before its last step: learns from the part in flight. */
static inline fptt_status {name}_end_sequence({name}_t *m) {{
  return fptt_end_sequence(&m->learner);
}}

/* The outputs of the last step. */
static inline void {name}_predict({name}_t *m, {out}) {{ fptt_predict(&m->learner, out); }}

/* Learning on (1) or off (0). */
static inline void {name}_learning({name}_t *m, int on) {{ fptt_learning(&m->learner, on); }}

/* Saves to flash: FPTT_SAVE_WEIGHTS at any time, FPTT_SAVE_FULL between two parts. An area of
 * FPTT_FLASH_AREA_BYTES({upper}_FULL_BYTES, erase_bytes, write_bytes) bytes takes it. */
static inline fptt_status {name}_save(const {name}_t *m, const fptt_flash *flash,
                                      fptt_saved what) {{
  fptt_piece pieces[{upper}_PIECES];
  return fptt_save(&m->learner, flash, what, pieces);
}}

/* Restores what was saved last; what the statuses mean: fptt_restore. */
static inline fptt_status {name}_restore({name}_t *m, const fptt_flash *flash, fptt_saved what) {{
  fptt_piece pieces[{upper}_PIECES];
  return fptt_restore(&m->learner, flash, what, pieces);
}}

/* Back to the factory weights, from any state. */
static inline void {name}_rollback({name}_t *m) {{ fptt_rollback(&m->learner); }}

#ifdef __cplusplus
}}
#endif
#endif
"""


def _short(op: Op) -> str:
    """The operation without its constants and absent operands."""
    outputs = ", ".join(str(ref) for ref in op.outputs if ref is not None)
    inputs = ", ".join(str(ref) for ref in op.inputs if ref is not None)
    return f"{outputs} = {op.kind}({inputs})"


def _wrap(line: str, width: int = 92) -> list[str]:
    """A statement on as many lines as it needs."""
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(
        line,
        width,
        initial_indent="",
        subsequent_indent=f"{indent}    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _block(*sentences: str) -> Iterator[str]:
    """A comment of several lines."""
    text = [line for s in sentences for line in textwrap.wrap(s, 92)]
    yield f"/* {text[0]}"
    yield from (f" * {line}" for line in text[1:])
    yield " */"


def _look(ref: Ref, count: str) -> str:
    kernel = "largest_bf16" if ref.buffer.dtype == "bfloat16" else "largest_float"
    return f"fptt_{kernel}({count}, {place(ref)})"
