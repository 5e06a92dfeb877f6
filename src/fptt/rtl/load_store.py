"""What feeds a lane from its bank and puts the results back; and the bank itself."""

from __future__ import annotations

from typing import Any

from fptt.rtl import layouts
from fptt.rtl.hdl import Component, In, Memory, Module, Mux, Out, Signal
from fptt.rtl.parameters import UnitParameters


class StreamRegister(Component):
    """A register for payload and valid between two streams; ready passes through.

    Latency: 1 cycle. Throughput: one word a cycle.

    Args:
        signature: of both streams.

    Attributes:
        inputs: In(signature). outputs: Out(signature).
    """

    def __init__(self, signature: Any) -> None:
        super().__init__({"inputs": In(signature), "outputs": Out(signature)})

    def elaborate(self, platform: Any) -> Any:
        """Hardware."""
        del platform
        m = Module()
        payload = Signal.like(self.outputs.payload, name="payload", reset_less=True)
        valid = Signal()
        m.d.comb += [
            self.inputs.ready.eq(~valid | self.outputs.ready),
            self.outputs.valid.eq(valid),
            self.outputs.payload.eq(payload),
        ]
        with m.If(self.inputs.ready):
            m.d.sync += [valid.eq(self.inputs.valid), payload.eq(self.inputs.payload)]
        return m


class _Walker(Component):
    """Counts through the rows of one lane: parameters lane, lane + lanes, lane + 2 lanes, ...

    Both walkers rewind while `busy` is low, and take `count` as it is while `busy` is high.
    """

    def __init__(self, parameters: UnitParameters, lane: int, members: dict[str, Any]) -> None:
        self.parameters = parameters
        self.lane = lane
        super().__init__(
            {
                "busy": In(1),
                "count": In(range(parameters.capacity + 1)),
                "done": Out(1),
                **members,
            }
        )

    def _walk(self, m: Any, step: Any) -> Any:
        """The row; `done` is high when there is none left."""
        lanes, capacity = self.parameters.lanes, self.parameters.capacity
        index = Signal(range(capacity + lanes), init=self.lane)
        row = Signal(range(self.parameters.depth))
        m.d.comb += self.done.eq(index >= self.count)
        with m.If(~self.busy):
            m.d.sync += [index.eq(self.lane), row.eq(0)]
        with m.Elif(step):
            m.d.sync += [index.eq(index + lanes), row.eq(row + 1)]
        return row


class Load(_Walker):
    """Asks for the rows of one lane, in order.

    Latency: the first request in the first busy cycle. Throughput: one request a cycle.

    Args:
        parameters: how the unit is built.
        lane: number of the lane, from 0.

    Attributes:
        busy: In(1), high during a run. count: In, parameters of the run, all lanes together;
            stands still during it. done: Out(1), nothing is left to ask for.
        requests: Out(stream of row numbers).
    """

    def __init__(self, parameters: UnitParameters, lane: int) -> None:
        super().__init__(parameters, lane, {"requests": Out(layouts.requests(parameters))})

    def elaborate(self, platform: Any) -> Any:
        """Hardware."""
        del platform
        m = Module()
        row = self._walk(m, self.requests.valid & self.requests.ready)
        m.d.comb += [
            self.requests.valid.eq(self.busy & ~self.done),
            self.requests.payload.eq(row),
        ]
        return m


class Store(_Walker):
    """Writes a lane's results back, each to the row that it came from.

    Only words that change are written: the gradient when it is to be cleared, lambda and the mean
    when R(t) is on. Latency: none. Throughput: one result a cycle.

    Args:
        parameters: how the unit is built.
        lane: number of the lane, from 0.

    Attributes:
        busy, count: as in `Load`. done: Out(1), all results are written.
        clear_gradient: In(1), write zero over the gradient. regularise: In(1).
        results: In(stream of `layouts.result`). writes: Out(stream of `layouts.write`).
    """

    def __init__(self, parameters: UnitParameters, lane: int) -> None:
        super().__init__(
            parameters,
            lane,
            {
                "clear_gradient": In(1),
                "regularise": In(1),
                "results": In(layouts.results(parameters)),
                "writes": Out(layouts.writes(parameters)),
            },
        )

    def elaborate(self, platform: Any) -> Any:
        """Hardware."""
        del platform
        m = Module()
        row = self._walk(m, self.writes.valid & self.writes.ready)
        write = self.writes.payload
        m.d.comb += [
            self.writes.valid.eq(self.results.valid),
            self.results.ready.eq(self.writes.ready),
            write.row.eq(row),
            write.words.grad.eq(0),
            write.mask.grad.eq(self.clear_gradient),
            write.mask.param.eq(1),
        ]
        for name in self.parameters.outputs:
            m.d.comb += write.words[name].eq(self.results.payload[name])
            if name != "param":
                m.d.comb += write.mask[name].eq(self.regularise)
        return m


class Bank(Component):
    """The memory of one lane: a word for each of grad, param, lam, rmean in every row.

    Latency: response one cycle behind the request. Throughput: one read and one write a cycle. A
    row must not be read in the cycle in which it is written.

    Args:
        parameters: how the unit is built; `depth` rows.

    Attributes:
        requests, responses, writes: the lane's streams. While `host.enable` is high neither
            requests nor writes are taken.
        host: In(`layouts.host_port`); its words come one cycle later and stay until the next read
            of this bank.
    """

    def __init__(self, parameters: UnitParameters) -> None:
        self.parameters = parameters
        super().__init__(
            {
                "requests": In(layouts.requests(parameters)),
                "responses": Out(layouts.records(parameters)),
                "writes": In(layouts.writes(parameters)),
                "host": In(layouts.host_port(parameters)),
            }
        )

    def elaborate(self, platform: Any) -> Any:
        """Hardware."""
        del platform
        m = Module()
        host, write = self.host, self.writes.payload
        valid = Signal()
        m.d.comb += [
            self.requests.ready.eq(~host.enable & (~valid | self.responses.ready)),
            self.writes.ready.eq(~host.enable),
            self.responses.valid.eq(valid),
        ]
        with m.If(self.requests.valid & self.requests.ready):
            m.d.sync += valid.eq(1)
        with m.Elif(self.responses.ready):
            m.d.sync += valid.eq(0)
        read = Signal()
        m.d.comb += read.eq(
            Mux(
                host.enable,
                ~host.mask.as_value().any(),
                self.requests.valid & self.requests.ready,
            )
        )
        for name in self.parameters.inputs:
            m.submodules[name] = memory = Memory(
                shape=self.parameters.format.width,
                depth=self.parameters.depth,
                init=[],
                attrs={"no_rw_check": 1},
            )
            # Together with the attribute this is the form in which Yosys makes a block RAM and
            # nothing else: what a read gives that meets a write to its row does not matter.
            read_port, write_port = memory.read_port(domain="comb"), memory.write_port()
            word = Signal(self.parameters.format.width, name=f"{name}_read", reset_less=True)
            with m.If(read):
                m.d.sync += word.eq(read_port.data)
            m.d.comb += [
                read_port.addr.eq(Mux(host.enable, host.row, self.requests.payload)),
                write_port.addr.eq(Mux(host.enable, host.row, write.row)),
                write_port.data.eq(Mux(host.enable, host.write[name], write.words[name])),
                write_port.en.eq(
                    Mux(host.enable, host.mask[name], self.writes.valid & write.mask[name])
                ),
                self.responses.payload[name].eq(word),
                host.read[name].eq(word),
            ]
        return m
