"""The view of a program that one layer gets while it writes itself into it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fptt.program.ir import Buffer, Ref, Role

if TYPE_CHECKING:
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

    def rows(self, name: str, width: int) -> Buffer:
        """[batch, width]."""
        return self._builder.buffer(f"{self.index}.{name}", (width,), Role.SCRATCH, batch=True)

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
        self._builder.emit(kind, inputs, outputs, after_first=after_first, **attrs)
