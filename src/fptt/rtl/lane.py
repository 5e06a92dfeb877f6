"""The processing element: the update's operations, wired as a schedule says."""

from __future__ import annotations

from typing import Any

from fptt.rtl import layouts
from fptt.rtl.adder import FloatAdder
from fptt.rtl.delay import DelayLine
from fptt.rtl.halver import FloatHalver
from fptt.rtl.hdl import Component, In, Module, Mux, Out, Signal
from fptt.rtl.multiplier import FloatMultiplier
from fptt.rtl.operations import CONSTANTS, RESULTS, Operation, Operator
from fptt.rtl.parameters import UnitParameters


class Lane(Component):
    """Takes {grad, param, lam, rmean} in and gives {param, lam, rmean} back, in the same order.

    One generator makes the three schedules from `parameters.lane_schedule`, in which a slot is a
    cycle modulo the initiation interval:

    - Each operand of an operator is chosen by the slot and, where there is a choice, registered.
    - A value that is needed later than it appears waits in a chain of registers (or in a memory)
      that moves on once an interval, apart from the same value of other parameters.
    - Everything stands still while a result is offered and not taken.

    Latency: `parameters.lane_schedule.latency` cycles from `inputs` to `outputs`.
    Throughput: one parameter in `parameters.lane_schedule.interval` cycles. (float32, flushed
    subnormals: baseline 48 and 48, pipelined 42 and 1, compact 50 and 8.)

    While nothing is in flight, the schedule waits for an input. A constant or the switch may change
    only then.

    Args:
        parameters: how the unit is built.

    Attributes:
        inputs: In(stream of `layouts.record`).
        outputs: Out(stream of `layouts.result`). With R(t) switched off only `param` means
            anything, and who stores the results leaves the others as they are.
        lr, lr_alpha, alpha, ita: In(width), bits of the constants (without R(t) only lr).
        regularise: In(1), the switch of R(t); absent in a unit that is built without it.
    """

    def __init__(self, parameters: UnitParameters) -> None:
        self.parameters = parameters
        self.schedule = parameters.lane_schedule
        super().__init__(
            {
                "inputs": In(layouts.records(parameters)),
                "outputs": Out(layouts.results(parameters)),
                **layouts.settings(parameters),
            }
        )

    def elaborate(self, platform: Any) -> Any:
        """Hardware."""
        del platform
        m = Module()
        self._control(m)
        self._taps: dict[str, dict[int, Any]] = {}
        self._operators(m)
        self._wire_operands(m)
        m.d.comb += [
            self.outputs.payload[name].eq(self._value(m, RESULTS[name], self.schedule.latency))
            for name in self.parameters.outputs
        ]
        return m

    def _control(self, m: Any) -> None:
        """The slot counter, and which parameters in flight are real."""
        interval, latency = self.schedule.interval, self.schedule.latency
        self._enable = Signal(name="enable")
        self._slot = Signal(range(interval), name="slot")
        # bit k: the parameter that started k + 1 intervals ago
        flight = Signal(-(-latency // interval), name="flight")
        m.d.comb += [
            self._enable.eq(~self.outputs.valid | self.outputs.ready),
            self.inputs.ready.eq(self._enable & (self._slot == 0)),
            self.outputs.valid.eq(flight[-1] & (self._slot == latency % interval)),
        ]
        with m.If(self._enable & (self._slot == 0)):
            m.d.sync += flight.eq((flight << 1) | self.inputs.valid)
        if interval > 1:
            # in slot 0, those whose results are still to come; one that is leaving now is not
            busy = flight[: (latency - 1) // interval].any()
            with m.If(self._enable & ((self._slot != 0) | busy | self.inputs.valid)):
                m.d.sync += self._slot.eq(self._slot + 1)
                with m.If(self._slot == interval - 1):
                    m.d.sync += self._slot.eq(0)

    def _operators(self, m: Any) -> None:
        """Adders, multipliers and the halver, as many as the schedule uses."""
        format, subnormals = self.parameters.format, self.parameters.subnormals
        latency = self.parameters.latency
        self._units: dict[tuple[Operator, int], Any] = {}
        for place in sorted(set(self.schedule.place.values())):
            kind, number = place
            unit: Any
            if kind == "adder":
                unit = FloatAdder(format, latency[kind], subnormals)
            elif kind == "multiplier":
                unit = FloatMultiplier(format, latency[kind], subnormals)
            else:
                unit = FloatHalver(format, subnormals)
            assert unit.latency == latency[kind], f"{kind}: the schedule counts other cycles"
            self._units[place] = m.submodules[f"{kind}_{number}"] = unit
            m.d.comb += unit.enable.eq(self._enable)

    def _wire_operands(self, m: Any) -> None:
        for place, unit in self._units.items():
            mine = [o for o in self.schedule.operations if self.schedule.place[o.result] == place]
            choices = {"a": [(o, self._operand(m, o, o.a)) for o in mine]}
            if place[0] != "halver":
                choices["b"] = [(o, self._operand(m, o, o.b)) for o in mine]
            if place[0] == "adder":
                choices["subtract"] = [(o, o.kind == "subtract") for o in mine]
            for port, values in choices.items():
                if place[0] in self.schedule.registered:
                    self._choose(m, getattr(unit, port), values)
                else:
                    m.d.comb += getattr(unit, port).eq(values[0][1])

    def _operand(self, m: Any, operation: Operation, name: str | None) -> Any:
        """An operand in the cycle in which it is chosen."""
        assert name is not None
        value = self._value(m, name, self.schedule.start[operation.result])
        if operation.only_regularised and name == operation.b:
            return Mux(self.regularise, value, 0)
        return value

    def _choose(self, m: Any, port: Any, choices: list[tuple[Operation, Any]]) -> None:
        """Gives an operator's port what each operation needs there, in its slot, registered."""
        chosen = Signal.like(port, name=f"{port.name}_chosen", reset_less=True)
        by_source: dict[Any, list[int]] = {}
        sources: dict[Any, Any] = {}
        for operation, value in choices:
            key = value if isinstance(value, bool) else id(value)
            sources[key] = value
            by_source.setdefault(key, []).append(
                self.schedule.start[operation.result] % self.schedule.interval
            )
        # what is chosen in a slot without an operation does not matter
        *others, last = by_source
        with m.If(self._enable), m.Switch(self._slot):
            for key in others:
                with m.Case(*by_source[key]):
                    m.d.sync += chosen.eq(sources[key])
            with m.Default():
                m.d.sync += chosen.eq(sources[last])
        m.d.comb += port.eq(chosen)

    def _value(self, m: Any, name: str, cycle: int) -> Any:
        """A value as it is to be read in a cycle of its parameter's schedule."""
        if name in CONSTANTS:
            return getattr(self, name)
        if name not in self._taps:
            self._taps[name] = self._chain(m, name)
        appears = self.schedule.available.get(name, 0)
        return self._taps[name][-(-(cycle - appears) // self.schedule.interval)]

    def _chain(self, m: Any, name: str) -> dict[int, Any]:
        """The places at which a value is read; see `Schedule.places`."""
        appears = self.schedule.available.get(name, 0)
        if name in self.parameters.inputs:
            value = self.inputs.payload[name]
        else:
            value = self._units[self.schedule.place[name]].result
        move = Signal(name=f"{name}_moves")
        m.d.comb += move.eq(self._enable & (self._slot == appears % self.schedule.interval))
        taps, behind = {0: value}, 0
        for place in self.schedule.places(name):
            if place > behind:
                line = DelayLine(self.parameters.format.width, place - behind)
                m.submodules[f"{name}_{place}"] = line
                m.d.comb += [line.input.eq(taps[behind]), line.enable.eq(move)]
                taps[place], behind = line.output, place
        return taps
