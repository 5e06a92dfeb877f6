"""Sources whose traces stay inside a layer."""

from __future__ import annotations

from typing import ClassVar

from fptt.rules.emitter import TraceEmitter
from fptt.rules.sources.source import ForwardSource


class LayerLocal(ForwardSource):
    """Traces inside each layer, times the instantaneous spatial learning signal.

        g = sum over steps with a loss of L_t e_t,    L_t = dl_t/dh_t through the layers above at
                                                            step t only

    What a trace is, the layer says (`fptt.nets.tracing`): see `Recurrent.sources`. Layers without a
    state, above or below, learn from the present step: their gradient is that of the step's loss.
    That a parameter of theirs also acts through the memory of a recurrent layer above is left out.

    Attributes:
        name: its name in `SOURCES`, by which layers know it.
    """

    name: ClassVar[str]

    def traces(self, e: TraceEmitter) -> None:
        for one in e.layers:
            one.layer.traces(one.layout, self.name)

    def move_traces(self, e: TraceEmitter) -> None:
        for one in e.layers:
            one.layer.trace_step(one.layout, self.name, one.x)

    def gradients(self, e: TraceEmitter, *, add: bool) -> None:
        if not add:
            e.start_sums()
        for one in reversed(e.layers):
            one.layer.trace_gradients(one.layout, self.name, one.x, one.dy, add=add)
            if one.dx is not None:
                one.layer.spatial_gradient(one.layout, one.y, one.dy, one.dx)
