"""How a layer takes part in gradients that are computed forwards in time.

A forward-mode source keeps no activations. At every step the layer's traces move on, from the
state before and after the step; where there is a loss, its gradient meets the traces. A program
asks a layer in this order:

    traces        once: which traces there are
    keep_state    before the step: what the step will overwrite
    trace_step    after the step of all layers, from the bottom up
    trace_gradients, then spatial_gradient
                  where there is a loss, from the top down: from the gradient of the layer's output
                  at this step to those of its parameters, and to that of its input

RTRL asks for the derivatives of everything by everything instead: `tangents`, and `tangent_step`
in the place of `trace_step`.

All places are those of the present step. After a part they hold every row's own last step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fptt.nets.layer import Layout, Parameter
    from fptt.program.ir import Buffer, Ref


class Tracing:
    """What the gradient sources besides BPTT ask of every layer.

    Attributes:
        sources: names of the forward-mode sources that the layer serves; those without a state
            serve all of them.
    """

    sources: ClassVar[frozenset[str]] = frozenset()

    def traces(self, e: Layout, source: str) -> None:
        """Declares the traces of the layer's own parameters (`Layout.trace`)."""

    def keep_state(self, e: Layout) -> None:
        """Before a step: copies what the step overwrites and the traces need."""

    def trace_step(self, e: Layout, source: str, x: Ref) -> None:
        """After a step: moves the traces on; x is the layer's input."""

    def trace_gradients(self, e: Layout, source: str, x: Ref, dy: Ref, *, add: bool) -> None:
        """Writes (or adds to) the gradients of the layer's own parameters.

        Args:
            e: the layer's view of the program.
            source: name of the gradient source.
            x: the layer's input at this step.
            dy: the learning signal, the gradient of the loss at this step by the layer's output;
                must be left as it is.
            add: whether to add to what is there.
        """
        raise NotImplementedError

    def spatial_gradient(self, e: Layout, y: Ref, dy: Ref, dx: Ref) -> None:
        """Writes dx, the gradient that dy sends to the input at this step, the state before it
        taken as constant. Runs last: it may overwrite dy and what only the step needed."""
        raise NotImplementedError

    def tangents(self, e: Layout, theta: Buffer) -> tuple[Buffer, ...]:
        """d state / d theta, [batch, width, numbers of theta] for every part of the state."""
        return ()

    def tangent_step(
        self, e: Layout, x: Ref, y: Ref, theta: Buffer, own: str | None, below: Ref | None
    ) -> Ref:
        """Writes d output / d theta of the present step, and says where it lies.

        Args:
            e: the layer's view of the program.
            x, y: input and output at this step.
            theta: a parameter of this layer or of one below.
            own: its name in this layer, if it is its own.
            below: d x / d theta, if it lies below.
        """
        raise NotImplementedError


class StateTracing(Tracing):
    """The same for a layer with a state; what stands here serves "ostl" with `tangent_step`.

    A trace is then d state / d theta for each of the layer's own parameters.
    """

    if TYPE_CHECKING:  # what a recurrent layer has besides

        def parameters(self) -> Mapping[str, Parameter]: ...

        def state(self, e: Layout) -> tuple[Buffer, ...]: ...

    def before(self, e: Layout) -> tuple[Ref, ...]:
        """The state before the present step, h first: the state itself has one place."""
        return tuple(
            e.rows(f"{_own_name(state)}.before", state.inner[-1]).whole for state in self.state(e)
        )

    def trained(self, e: Layout) -> Iterator[str]:
        """Names of the layer's own parameters that train."""
        return (name for name in self.parameters() if e.gradient(name))

    def keep_state(self, e: Layout) -> None:
        for state, copy in zip(self.state(e), self.before(e), strict=True):
            e.emit("copy", [state.whole], [copy])

    def tangents(self, e: Layout, theta: Buffer) -> tuple[Buffer, ...]:
        return tuple(
            e.trace(f"{_own_name(state)}/{theta.name}", (state.inner[-1], theta.row_items))
            for state in self.state(e)
        )

    def traces(self, e: Layout, source: str) -> None:
        for name in self.trained(e):
            self.tangents(e, e.parameter(name))

    def trace_step(self, e: Layout, source: str, x: Ref) -> None:
        y = self.state(e)[0].at(0)
        for name in self.trained(e):
            self.tangent_step(e, x, y, e.parameter(name), name, None)

    def trace_gradients(self, e: Layout, source: str, x: Ref, dy: Ref, *, add: bool) -> None:
        for name in self.trained(e):
            gradient = e.gradient(name)
            assert gradient is not None
            tangent, g = self.tangents(e, e.parameter(name))[0], gradient.whole
            e.emit("tangent_gradient", [dy, tangent.whole, g if add else None], [g])

    def tangent_operands(
        self, e: Layout, x: Ref, own: str | None, below: Ref | None
    ) -> tuple[Ref | None, Ref | None, Ref | None]:
        """Seed, w and jx of the cell's tangent: what an own matrix was multiplied with, or from
        where the derivative by a parameter below comes."""
        weight = e.parameter("weight_ih").whole if below is not None else None
        return self.multiplied(e, x).get(own or ""), weight, below

    def multiplied(self, e: Layout, x: Ref) -> Mapping[str, Ref]:
        """What each of the layer's own matrices was multiplied with at the present step."""
        return {"weight_ih": x, "weight_hh": self.before(e)[0]}


def _own_name(buffer: Buffer) -> str:
    """A buffer's name without the layer's number."""
    return buffer.name.partition(".")[2]
