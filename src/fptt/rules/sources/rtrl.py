"""Real-time recurrent learning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from fptt.rules.emitter import TracedLayer, TraceEmitter
from fptt.rules.sources.source import ForwardSource

if TYPE_CHECKING:
    from fptt.program.ir import Buffer, Ref


class RealTimeRecurrentLearning(ForwardSource):
    """The exact gradient, computed forwards (Williams & Zipser, 1989).

        J_t = D_t J_{t-1} + I_t,    g = (dl/dh_t) J_t
        J = d state / d theta,  D_t = d state_t / d state_{t-1},  I_t what theta does at step t

    for the state of all recurrent layers and the parameters of the whole body, all paths between
    layers included. At fixed weights the gradients of the parts add up to full BPTT of the sum of
    their losses.

    Memory per row: state x parameters, n^3; work per step n^4. Only for small networks.
    """

    title: ClassVar[str] = "RTRL"

    def traces(self, e: TraceEmitter) -> None:
        for theta, _, layers in self._parameters(e):
            for one in layers:
                one.layer.tangents(one.layout, theta)

    def move_traces(self, e: TraceEmitter) -> None:
        for theta, _, layers in self._parameters(e):
            self._chain(theta, layers)

    def gradients(self, e: TraceEmitter, *, add: bool) -> None:
        for theta, gradient, layers in self._parameters(e):
            top = layers[-1]
            tangent, g = top.layer.tangents(top.layout, theta)[0], gradient.whole
            e.emit("tangent_gradient", [top.dy, tangent.whole, g if add else None], [g])

    @staticmethod
    def _parameters(e: TraceEmitter) -> Iterator[tuple[Buffer, Buffer, list[TracedLayer]]]:
        """Everything in the body that trains, its gradient, and its layer with those above."""
        for name, theta, gradient in e.trained:
            layers = [one for one in e.layers if one.index >= int(name.partition(".")[0])]
            if layers:  # and is not in the head
                yield theta, gradient, layers

    @staticmethod
    def _chain(theta: Buffer, layers: list[TracedLayer]) -> None:
        """The derivatives of all layers by theta, from its own upwards."""
        below: Ref | None = None
        own: str | None = theta.name.partition(".")[2]
        for one in layers:
            below = one.layer.tangent_step(one.layout, one.x, one.y, theta, own, below)
            own = None
