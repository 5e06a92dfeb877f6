"""The verifier: named rules that every program obeys. It runs after every build.

A broken rule raises `VerificationError` with the rule's name, the operation, what was expected and
what was found. It is a mistake in the code that wrote the program, never in the user's data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fptt.errors import FpttError
from fptt.program.ir import INFERENCE, ITEM_BYTES, PART, SEQUENCE_START, Loop, Op, Ref, Role
from fptt.program.ops import Operand, OpSpec, bind, table

if TYPE_CHECKING:
    from fptt.program.program import Program


class VerificationError(FpttError):
    """A program breaks a rule of the verifier."""

    def __init__(self, rule: str, where: str, expected: str, found: str) -> None:
        super().__init__(
            f"program rule {rule!r} is broken in {where}: expected {expected}, found {found}"
        )
        self.rule = rule


Site = tuple[str, Op, Loop | None]
#: what must be written before it is read, in this order
_ORDERS = ((*SEQUENCE_START, *PART), INFERENCE)


def _where(site: Site) -> str:
    routine, op, _ = site
    shown = ", ".join(str(ref) if ref else "none" for ref in op.inputs)
    return f"{routine}: {op.kind}({shown}) -> {', '.join(str(r) for r in op.outputs if r)}"


def _operands(site: Site, spec: OpSpec) -> list[tuple[Operand, Ref | None]]:
    op = site[1]
    return [*zip(spec.inputs, op.inputs, strict=True), *zip(spec.outputs, op.outputs, strict=True)]


def known_kind(program: Program, site: Site) -> None:
    op = site[1]
    if op.kind not in table():
        raise VerificationError("known kind", _where(site), "an entry of the op table", op.kind)


def operand_count(program: Program, site: Site) -> None:
    op = site[1]
    spec = table()[op.kind]
    expected, found = (len(spec.inputs), len(spec.outputs)), (len(op.inputs), len(op.outputs))
    if expected != found:
        raise VerificationError("operand count", _where(site), f"{expected} operands", f"{found}")
    for operand, ref in _operands(site, spec):
        if ref is None and not operand.optional:
            raise VerificationError(
                "operand count", _where(site), f"operand {operand.name}", "none"
            )


def attributes(program: Program, site: Site) -> None:
    op = site[1]
    expected = table()[op.kind].attrs
    if set(op.attrs) != expected:
        raise VerificationError(
            "attributes", _where(site), f"attributes {sorted(expected)}", f"{sorted(op.attrs)}"
        )


def declared(program: Program, site: Site) -> None:
    for ref in site[1].refs:
        if program.buffers.get(ref.buffer.name) is not ref.buffer:
            raise VerificationError(
                "declared", _where(site), "a buffer of the program", ref.buffer.name
            )


def ranges(program: Program, site: Site) -> None:
    """Ranges lie inside the buffer; a range of rows is for buffers without a batch axis."""
    for ref in site[1].refs:
        if ref.row_range and ref.has_rows:
            raise VerificationError(
                "ranges", _where(site), "no range of rows beside a batch axis", str(ref)
            )
        for bounds, extent in (
            (ref.row_range, ref.buffer.inner[:1]),
            (ref.col_range, ref.buffer.inner[-1:]),
        ):
            if bounds and not 0 <= bounds[0] < bounds[1] <= extent[0]:
                raise VerificationError(
                    "ranges", _where(site), f"a range within 0:{extent[0]}", str(ref)
                )


def steps(program: Program, site: Site) -> None:
    """[t] only in loops, [:] and [last] only outside, and no slot before the first."""
    for ref in site[1].refs:
        index, has_steps = ref.index, ref.buffer.steps > 0
        in_loop = site[2] is not None
        fits = {
            "step": has_steps and in_loop,
            "all": has_steps and not in_loop,
            "last": has_steps and not in_loop,
            "initial": ref.buffer.lead > 0 and not in_loop,
            "whole": not has_steps,
        }[index]
        if index == "last" and ref in site[1].outputs:
            fits = False  # of rows that end at different steps there is no one place to write
        if not fits or ref.offset + ref.buffer.lead < 0 or ref.offset > 0:
            raise VerificationError(
                "steps", _where(site), "a slot that exists at this point", str(ref)
            )


def first_step(program: Program, site: Site) -> None:
    """Only a loop backwards may leave its last turn, the first step, out; only one forwards may
    do something there alone."""
    _, op, loop = site
    if op.after_first and not (loop and loop.reverse):
        raise VerificationError(
            "first step", _where(site), "every step outside of loops backwards", "after_first"
        )
    if op.first_only and not (loop and not loop.reverse):
        raise VerificationError(
            "first step", _where(site), "every step outside of loops forwards", "first_only"
        )


def shapes(program: Program, site: Site) -> None:
    spec = table()[site[1].kind]
    sizes: dict[str, int] = {}
    whole: tuple[object, ...] | None = None
    for operand, ref in _operands(site, spec):
        if ref is None:
            continue
        if operand.dims is None:
            shape = (ref.has_rows, *ref.inner)
            if whole is not None and shape != whole:
                raise VerificationError(
                    "shapes",
                    _where(site),
                    f"equal shapes {list(whole[1:])}",
                    f"{operand.name} {list(ref.inner)}",
                )
            whole = shape
            continue
        rows = operand.dims[:1] == ((1, "n"),)
        if rows != ref.has_rows:
            raise VerificationError(
                "shapes", _where(site), f"{operand.name} with{'' if rows else 'out'} rows", str(ref)
            )
        expected = bind(operand.dims[1:] if rows else operand.dims, ref.inner, sizes)
        if expected:
            raise VerificationError(
                "shapes", _where(site), f"{operand.name} {expected}", f"{list(ref.inner)}"
            )


def same_rows(program: Program, site: Site) -> None:
    """Outside loops, an operation takes all steps of all rows, or one step of every row."""
    kinds = {ref.index == "all" for ref in site[1].refs if ref.has_rows}
    if len(kinds) > 1:
        raise VerificationError("same rows", _where(site), "all operands [:] or none", "a mixture")


def number_types(program: Program, site: Site) -> None:
    spec = table()[site[1].kind]
    for operand, ref in _operands(site, spec):
        if ref is not None and operand.dims is not None:
            integer = ref.buffer.dtype in ("int32", "uint32")
            if integer != operand.integer or ref.buffer.dtype not in ITEM_BYTES:
                raise VerificationError(
                    "number types",
                    _where(site),
                    "whole numbers" if operand.integer else "floats",
                    f"{ref} {ref.buffer.dtype}",
                )


def aliasing(program: Program, site: Site) -> None:
    """An output lies on an input only where the op table allows it, and then exactly."""
    op, spec = site[1], table()[site[1].kind]
    for output, out in zip(spec.outputs, op.outputs, strict=True):
        for operand, ref in zip(spec.inputs, op.inputs, strict=True):
            if out is None or ref is None or ref.buffer.name != out.buffer.name:
                continue
            allowed = (operand.name, output.name) in spec.in_place and ref == out
            if not allowed and not _apart(ref, out):
                raise VerificationError(
                    "aliasing", _where(site), f"{output.name} apart from {operand.name}", str(out)
                )
    written = [out for out in op.outputs if out is not None]
    for number, out in enumerate(written):
        for other in written[:number]:
            if other.buffer.name == out.buffer.name and not _apart(other, out):
                raise VerificationError(
                    "aliasing", _where(site), "outputs apart from each other", f"{other}, {out}"
                )


def _apart(a: Ref, b: Ref) -> bool:
    """Whether two references to one buffer can never meet."""
    slots = (a.index == b.index == "step" and a.offset != b.offset) or (
        {a.index, b.index} == {"initial", "last"}
    )
    return slots or any(
        x and y and (x[1] <= y[0] or y[1] <= x[0])
        for x, y in ((a.row_range, b.row_range), (a.col_range, b.col_range))
    )


def write_permission(program: Program, site: Site) -> None:
    """Inputs, targets and frozen weights are never written; parameters only by updates."""
    routine, op, _ = site
    for ref in op.outputs:
        if ref is None:
            continue
        role = ref.buffer.role
        forbidden = role in (Role.INPUT, Role.TARGET, Role.FROZEN) or (
            role == Role.PARAMETER and routine not in ("update", "end_epoch")
        )
        if forbidden:
            raise VerificationError(
                "write permission", _where(site), f"{role} left alone", f"{ref} written"
            )


def initialised(program: Program) -> None:
    """What does not persist is written before it is read, in training and in inference."""
    for order in _ORDERS:
        written: set[str] = set()
        for routine in order:
            for op, loop in program.routines[routine].ops() if routine in program.routines else ():
                for ref in op.inputs:
                    if ref is None or ref.buffer.persistent or ref.buffer.role == Role.FROZEN:
                        continue
                    if ref.buffer.name not in written:
                        raise VerificationError(
                            "initialised",
                            _where((routine, op, loop)),
                            "a buffer that was written before",
                            str(ref),
                        )
                written.update(ref.buffer.name for ref in op.outputs if ref)


def kept(program: Program) -> None:
    """A loop back through the steps reads nothing of which only the last step is there.

    Nor does anything after it read what it wrote of one step only, as if it were all of them.
    """
    if "backward" not in program.routines:
        return
    passing = {
        ref.buffer.name
        for op, loop in program.routines["forward"].ops()
        for ref in op.outputs
        if ref and loop and ref.index == "whole"
    }
    for op, loop in program.routines["backward"].ops():
        for ref in op.inputs:
            if loop and ref and ref.buffer.name in passing:
                raise VerificationError(
                    "kept", _where(("backward", op, loop)), "a value of every step", str(ref)
                )
        passing -= {ref.buffer.name for ref in op.outputs if ref}
    single: set[str] = set()
    for routine in ("backward", "update"):
        for op, loop in program.routines[routine].ops():
            for ref in op.inputs:
                if not loop and ref and ref.buffer.name in single:
                    raise VerificationError(
                        "kept", _where((routine, op, loop)), "a value of every step", str(ref)
                    )
            for ref in op.outputs:
                if ref and ref.has_rows and ref.index == "whole":
                    (single.add if loop else single.discard)(ref.buffer.name)


def trained_once(program: Program) -> None:
    """Every row of every trained parameter is written once by `update`, and no other at all."""
    if "update" not in program.routines:
        return
    written: dict[str, list[tuple[int, int]]] = {name: [] for name in program.trained}
    for op, _ in program.routines["update"].ops():
        for ref in op.outputs:
            if ref and ref.buffer.role == Role.PARAMETER:
                rows = ref.row_range or (0, ref.buffer.inner[0])
                written.setdefault(ref.buffer.name, []).append(rows)
    for name, ranges in written.items():
        size = program.buffers[name].inner[0]
        ends = [0, *(end for pair in sorted(ranges) for end in pair), size]
        joined = all(a == b for a, b in zip(ends[::2], ends[1::2], strict=True))
        if name not in program.trained or not ranges or not joined:
            raise VerificationError(
                "trained once",
                "update",
                f"one update of each row of {sorted(program.trained)}",
                f"{name} rows {sorted(ranges)}",
            )


def loop_direction(program: Program) -> None:
    """Only the backward pass runs through the steps in reverse."""
    for name, routine in program.routines.items():
        for item in routine.body:
            if isinstance(item, Loop) and item.reverse != (name == "backward"):
                raise VerificationError(
                    "loop direction", name, "reverse in backward only", f"reverse={item.reverse}"
                )


def placement(program: Program) -> None:
    """No two buffers that are in use at the same moment overlap, and all lie in the arena."""
    from fptt.program.plan import ALIGNMENT, lifetimes

    alive, planned = lifetimes(program.routines), program.plan
    arena = [b for b in program.buffers.values() if b.role != Role.FROZEN]
    for number, a in enumerate(arena):
        low, high = planned.offsets[a.name], planned.offsets[a.name] + a.bytes
        if low % ALIGNMENT or high > planned.arena_bytes:
            raise VerificationError(
                "placement",
                a.name,
                f"an aligned place within {planned.arena_bytes} bytes",
                f"{low}..{high}",
            )
        for b in arena[:number]:
            start = planned.offsets[b.name]
            if (
                low < start + b.bytes
                and start < high
                and (a.persistent or b.persistent or alive[a.name] & alive[b.name])
            ):
                raise VerificationError(
                    "placement", a.name, f"a place apart from {b.name}", f"{low}..{high}"
                )


#: rules about one operation
OP_RULES: tuple[Callable[[Program, Site], None], ...] = (
    known_kind,
    operand_count,
    attributes,
    declared,
    ranges,
    steps,
    first_step,
    shapes,
    same_rows,
    number_types,
    aliasing,
    write_permission,
)
#: rules about the whole
PROGRAM_RULES: tuple[Callable[[Program], None], ...] = (
    initialised,
    kept,
    trained_once,
    loop_direction,
    placement,
)


def verify(program: Program) -> None:
    """Checks all rules.

    Raises:
        VerificationError: naming the first rule that is broken.
    """
    for name, routine in program.routines.items():
        for op, loop in routine.ops():
            for rule in OP_RULES:
                rule(program, (name, op, loop))
    for program_rule in PROGRAM_RULES:
        program_rule(program)
