"""A program as text, for people, for reviews and for golden tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fptt.program.ir import Buffer, Loop, Op

if TYPE_CHECKING:
    from fptt.program.program import Program


def text(program: Program) -> str:
    """Header, buffers with their places, and the routines."""
    lines = [
        f"program {program.net}",
        f"  rule {program.rule}",
        f"  optimizer {program.optimizer}, clip {program.clip}",
        f"  loss {program.schedule}, {program.criterion}",
        f"  steps {program.steps}, longest part {program.part_steps}, batch {program.batch}, "
        f"{program.dtype}, activations {program.activation_dtype}",
        f"  arena {program.plan.arena_bytes} bytes, the first {program.plan.learned_bytes} "
        f"are the state of learning",
        "",
        "buffers",
    ]
    lines += [
        _buffer(buffer, program.plan.offsets[buffer.name]) for buffer in program.buffers.values()
    ]
    for routine in program.routines.values():
        lines += ["", routine.name]
        for item in routine.body:
            if isinstance(item, Loop):
                lines.append(f"  for t in {'reversed(steps)' if item.reverse else 'steps'}:")
                lines += [f"    {op_text(op)}" for op in item.body]
            else:
                lines.append(f"  {op_text(item)}")
    return "\n".join(lines) + "\n"


def _buffer(buffer: Buffer, offset: int) -> str:
    shape = "x".join(map(str, buffer.shape)) or "1"
    shape += " by columns" if buffer.transposed else ""
    lead = f", slot 0 carried ({buffer.lead})" if buffer.lead else ""
    return f"  {offset:>9} {buffer.name:<20} {buffer.role:<16} {buffer.dtype} {shape}{lead}"


def op_text(op: Op) -> str:
    """One operation, as an assignment."""
    outputs = ", ".join("-" if ref is None else str(ref) for ref in op.outputs)
    inputs = ["-" if ref is None else str(ref) for ref in op.inputs]
    attrs = [f"{name}={value!r}" for name, value in op.attrs.items()]
    when = "if t > 0: " if op.after_first else ""
    if op.first_only:
        when = "if t == 0: "
    return f"{when}{outputs} = {op.kind}({', '.join(inputs + attrs)})"
