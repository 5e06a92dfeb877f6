"""The view of a program that one layer gets while it writes itself into it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fptt.program.ir import Buffer, Ref, Role

if TYPE_CHECKING:
    from fptt.nets.adapters import Adapter
    from fptt.program.builder import Builder


class LayerLayout:
    """Buffers of one layer, under names that start with its number."""

    def __init__(self, builder: Builder, index: int) -> None:
        self.index = index
        self._builder = builder

    @property
    def random_state(self) -> Buffer:
        """Seed and sequence counter of dropout."""
        return self._builder.buffer("random", (2,), Role.RULE_STATE, dtype="uint32")

    def parameter(self, name: str) -> Buffer:
        """The layer's own parameter."""
        return self._builder.buffers[f"{self.index}.{name}"]

    def gradient(self, name: str) -> Buffer | None:
        """Where its gradient goes, or None if it does not train."""
        return self._builder.gradients.get(f"{self.index}.{name}")

    def history(self, name: str, width: int, *, carried: bool = False) -> Buffer:
        """[steps, batch, width], or [batch, width] where no step but the present one is needed."""
        full = f"{self.index}.{name}"
        if not self._builder.keeps_steps(self.index):
            role = Role.CARRY if carried else Role.SCRATCH
            return self._builder.buffer(full, (width,), role, batch=True)
        return self._builder.buffer(
            full,
            (width,),
            Role.ACTIVATION,
            batch=True,
            steps=self._builder.part_steps,
            lead=int(carried),
        )

    @property
    def recomputes(self) -> bool:
        """Whether the backward loop computes the layer's gates again."""
        return self._builder.recomputes(self.index)

    def gates(self, name: str, width: int) -> Buffer:
        """A history, or where the layer recomputes a place for the present step."""
        return self.rows(name, width) if self.recomputes else self.history(name, width)

    def rows(self, name: str, width: int) -> Buffer:
        """[batch, width]."""
        return self._builder.buffer(f"{self.index}.{name}", (width,), Role.SCRATCH, batch=True)

    def like(self, name: str, width: int, other: Ref) -> Ref:
        """A buffer of the same rows and steps as another one's, seen in the same way."""
        steps = other.buffer.steps
        buffer = self._builder.buffer(
            f"{self.index}.{name}",
            (width,),
            Role.ACTIVATION if steps else Role.SCRATCH,
            batch=True,
            steps=steps,
        )
        return Ref(buffer, other.index, other.offset)

    def output_like(self, name: str, width: int, *, in_loop: bool) -> Ref:
        """The same for the layer's own output, seen from the loop over the steps or from after."""
        return self.like(name, width, self._builder.value(self.index, in_loop=in_loop))

    def adapter(self, name: str) -> Adapter | None:
        """The low-rank change of the layer's own matrix."""
        return self._builder.adapter(self.index, name)

    def trace(self, name: str, inner: tuple[int, ...]) -> Buffer:
        """[batch, *inner], starting at zero with the state and going on with it."""
        builder = self._builder
        buffer = builder.buffer(
            f"trace/{self.index}.{name}",
            inner,
            Role.RULE_STATE,
            dtype=builder.control_dtype,
            batch=True,
        )
        if buffer not in builder.traces:
            builder.traces.append(buffer)
        return buffer

    def tangent(self, theta: Buffer, width: int) -> Buffer:
        """[batch, width, numbers of theta], of the present step."""
        return self._builder.buffer(
            f"{self.index}.tangent/{theta.name}",
            (width, theta.row_items),
            Role.SCRATCH,
            dtype=self._builder.control_dtype,
            batch=True,
        )

    def emit(
        self,
        kind: str,
        inputs: Sequence[Ref | None],
        outputs: Sequence[Ref | None],
        *,
        after_first: bool = False,
        **attrs: object,
    ) -> None:
        """Appends one operation to the routine that is being written."""
        self._builder.emit(
            kind, inputs, outputs, after_first=after_first, first_only=False, **attrs
        )
