"""The FPTT unit: lanes with load and store modules, on memory outside or on banks of its own."""

from __future__ import annotations

from typing import Any

from fptt.rtl import layouts
from fptt.rtl.hdl import Component, In, Module, Out, Signal, wiring
from fptt.rtl.lane import Lane
from fptt.rtl.load_store import Bank, Load, Store, StreamRegister
from fptt.rtl.parameters import UnitParameters

#: busy cycles of a run besides those of the lane: the bank and the register behind it, and the one
#: in which the last write is seen
_OVERHEAD_CYCLES = 3


def cycles(parameters: UnitParameters, count: int) -> int:
    """Busy cycles of a run on banks of its own, or on any memory that answers in the next cycle.

    lane cycles of ceil(count / lanes) parameters + 3; 1 if there is nothing to do.

    Args:
        parameters: how the unit is built.
        count: parameters, all lanes together.

    Example:
        >>> cycles(UnitParameters(lanes=4, schedule="pipelined", depth=16963), 67_850)
        17008
    """
    if count == 0:
        return 1
    rows = -(-count // parameters.lanes)
    return parameters.lane_schedule.cycles(rows) + _OVERHEAD_CYCLES


def _control(parameters: UnitParameters) -> dict[str, Any]:
    return {
        "start": In(1),
        "count": In(range(parameters.capacity + 1)),
        "clear_gradient": In(1, init=1),
        "busy": Out(1),
        "done": Out(1),
        "refused": Out(1),
        "cycles": Out(32),
        **layouts.settings(parameters),
    }


class FpttUnit(Component):
    """N lanes on memory outside; parameter i is row i // N of lane i mod N.

    `start` begins an update of the first `count` parameters. Every lane asks for its rows in order
    and writes each result to the row that it came from; memory may take any time for any of it, as
    long as it answers requests in order.

    Latency and throughput: `cycles`, if memory answers in the next cycle.

    Args:
        parameters: how the unit is built; `depth` rows a lane.

    Attributes:
        start: In(1), for one cycle. count: In, 0 to `parameters.capacity`; with 0 the run is over
            in the next cycle and touches nothing.
        clear_gradient: In(1), write zeros over the gradients that were used.
        lr, lr_alpha, alpha, ita, regularise: as in `Lane`. They, `count` and `clear_gradient` must
            not change while `busy` is high.
        busy: Out(1), high during a run. done: Out(1), in the last busy cycle.
        refused: Out(1), this `start` has no effect: the unit is busy, or `count` above capacity.
        cycles: Out(32), busy cycles of this or the last run.
        requests: Out(stream of row numbers), one for each lane. responses: In(stream of
            `layouts.record`). writes: Out(stream of `layouts.write`); its `ready` stops the lane
            within the cycle, so it should come early in it.
    """

    def __init__(self, parameters: UnitParameters) -> None:
        self.parameters = parameters
        lanes = parameters.lanes
        super().__init__(
            {
                **_control(parameters),
                "requests": Out(layouts.requests(parameters)).array(lanes),
                "responses": In(layouts.records(parameters)).array(lanes),
                "writes": Out(layouts.writes(parameters)).array(lanes),
            }
        )

    def elaborate(self, platform: Any) -> Any:
        """Hardware."""
        del platform
        m = Module()
        p = self.parameters
        busy = Signal()
        elapsed = Signal(32)
        stored = Signal(p.lanes)
        fits = self.count <= p.capacity
        m.d.comb += [
            self.busy.eq(busy),
            self.done.eq(busy & stored.all()),
            self.refused.eq(self.start & (busy | ~fits)),
            self.cycles.eq(elapsed),
        ]
        with m.If(busy):
            m.d.sync += [busy.eq(~stored.all()), elapsed.eq(elapsed + 1)]
        with m.Elif(self.start & fits):
            m.d.sync += [busy.eq(1), elapsed.eq(0)]

        for number in range(p.lanes):
            load, store, lane = Load(p, number), Store(p, number), Lane(p)
            register = StreamRegister(layouts.records(p))
            m.submodules[f"load_{number}"] = load
            m.submodules[f"register_{number}"] = register
            m.submodules[f"lane_{number}"] = lane
            m.submodules[f"store_{number}"] = store
            wiring.connect(m, wiring.flipped(self.requests[number]), load.requests)
            wiring.connect(m, wiring.flipped(self.responses[number]), register.inputs)
            wiring.connect(m, register.outputs, lane.inputs)
            wiring.connect(m, lane.outputs, store.results)
            wiring.connect(m, store.writes, wiring.flipped(self.writes[number]))
            m.d.comb += [getattr(lane, n).eq(getattr(self, n)) for n in layouts.settings(p)]
            m.d.comb += [
                load.busy.eq(busy),
                load.count.eq(self.count),
                store.busy.eq(busy),
                store.count.eq(self.count),
                store.clear_gradient.eq(self.clear_gradient),
                store.regularise.eq(self.regularise if p.regularise else 0),
                stored[number].eq(store.done),
            ]
        return m


class BankedUnit(Component):
    """`FpttUnit` with its banks, and a port through which a host fills and reads them.

    Args:
        parameters: how the unit is built.

    Attributes:
        start, count, clear_gradient, busy, done, refused, cycles and the settings: as in
            `FpttUnit`.
        host: In(`layouts.host_port`); has no effect while `busy` is high.
    """

    def __init__(self, parameters: UnitParameters) -> None:
        self.parameters = parameters
        super().__init__(
            {
                **_control(parameters),
                "host": In(layouts.host_port(parameters, banks=parameters.lanes)),
            }
        )

    def elaborate(self, platform: Any) -> Any:
        """Hardware."""
        del platform
        m = Module()
        p, host = self.parameters, self.host
        m.submodules.unit = unit = FpttUnit(p)
        for name, member in wiring.Signature(_control(p)).members.items():
            mine, inner = getattr(self, name), getattr(unit, name)
            m.d.comb += inner.eq(mine) if member.flow == In else mine.eq(inner)

        # which bank the host read last
        read_bank = Signal.like(host.bank, reset_less=True)
        with m.If(host.enable):
            m.d.sync += read_bank.eq(host.bank)
        banks = []
        for number in range(p.lanes):
            bank = m.submodules[f"bank_{number}"] = Bank(p)
            wiring.connect(m, unit.requests[number], bank.requests)
            wiring.connect(m, bank.responses, unit.responses[number])
            wiring.connect(m, unit.writes[number], bank.writes)
            m.d.comb += [
                bank.host.enable.eq(host.enable & ~unit.busy & (host.bank == number)),
                bank.host.row.eq(host.row),
                bank.host.mask.eq(host.mask),
                bank.host.write.eq(host.write),
            ]
            banks.append(bank)
        with m.Switch(read_bank):
            for number, bank in enumerate(banks):
                with m.Case(number):
                    m.d.comb += host.read.eq(bank.host.read)
        return m
