"""The FPTT unit behind an AXI4-Lite slave port."""

from __future__ import annotations

from typing import Any

from fptt.rtl import layouts
from fptt.rtl.hdl import Cat, Component, Const, In, Module, Mux, Out, ResetInserter, Signal
from fptt.rtl.parameters import UnitParameters
from fptt.rtl.registers import Field, Register, Window, register_map
from fptt.rtl.unit import BankedUnit

OKAY, SLVERR = 0, 2


class AxiUnit(Component):
    """`BankedUnit` with the registers of `fptt.rtl.registers` and a window to its banks.

    AXI4-Lite, 32 bits of data; write address and write data come in any order; one write and one
    read are handled at a time, writes first. The two lowest bits of an address are ignored.

    SLVERR answers, and nothing is changed by: an address where nothing is; a write to a register
    that can only be read; WSTRB other than 1111; a write of a setting, and any use of the window,
    while the unit is busy; a start while it is busy or with COUNT above the capacity (which also
    sets STATUS.error). CONTROL.reset is always obeyed, and wins over a start in the same write.

    Latency: a write is answered two cycles after its address and data are both there, a read five
    cycles after its address. A run takes `fptt.rtl.unit.cycles`.

    Args:
        parameters: how the unit is built.

    Attributes:
        s_axi_*: the slave port; names and meaning as in AMBA. awprot and arprot are ignored.
        interrupt: Out(1), STATUS.done.

    Source: AMBA AXI and ACE Protocol Specification (ARM IHI 0022), part B, AXI4-Lite.
    """

    def __init__(self, parameters: UnitParameters) -> None:
        self.parameters = parameters
        self.window = Window(parameters)
        self.registers = register_map(parameters)
        address = self.window.address_bits
        members = {
            "awaddr": In(address),
            "awprot": In(3),
            "awvalid": In(1),
            "awready": Out(1),
            "wdata": In(32),
            "wstrb": In(4),
            "wvalid": In(1),
            "wready": Out(1),
            "bresp": Out(2),
            "bvalid": Out(1),
            "bready": In(1),
            "araddr": In(address),
            "arprot": In(3),
            "arvalid": In(1),
            "arready": Out(1),
            "rdata": Out(32),
            "rresp": Out(2),
            "rvalid": Out(1),
            "rready": In(1),
        }
        super().__init__(
            {**{f"s_axi_{n}": member for n, member in members.items()}, "interrupt": Out(1)}
        )

    def elaborate(self, platform: Any) -> Any:
        """Hardware."""
        del platform
        m = Module()
        p = self.parameters
        soft_reset = Signal()
        unit = BankedUnit(p)
        m.submodules.unit = ResetInserter(soft_reset)(unit)

        write, write_at, write_data, whole = self._write_channel(m)
        read, answer, read_at = self._read_channel(m, write)
        fields = self._fields()

        # -- which write is allowed --------------------------------------------------------------
        control, count = self.registers["CONTROL"], fields["COUNT.count"]
        start, reset = (write_data[control[name].low] for name in ("start", "reset"))
        runnable = ~unit.busy & (count <= p.capacity)
        accepted: dict[str, Any] = {}
        for register in self.registers.values():
            here = Signal(name=f"write_{register.name.lower()}")
            m.d.comb += here.eq(write & whole & self._is_register(write_at, register))
            allowed: Any = Const(int(register.writable))
            if register is control:
                allowed = reset | Mux(start, runnable, ~unit.busy)
                # registered: it goes to every register of the unit
                m.d.sync += soft_reset.eq(here & reset)
                refused = here & start & ~allowed
            elif any(field.kind == "setting" for field in register.fields):
                allowed = ~unit.busy
            accepted[register.name] = here & allowed
        to_bank = write & whole & ~unit.busy & self._in_window(write_at)
        good = to_bank | Cat(accepted.values()).any()
        with m.If(write):
            m.d.sync += self.s_axi_bresp.eq(Mux(good, OKAY, SLVERR))

        # -- registers ---------------------------------------------------------------------------
        for register in self.registers.values():
            for field in register.fields:
                signal = fields[f"{register.name}.{field.name}"]
                new = write_data[field.low : field.low + field.width]
                with m.If(accepted[register.name]):
                    if field.kind == "setting":
                        m.d.sync += signal.eq(new)
                    elif field.kind == "sticky":
                        m.d.sync += signal.eq(signal & ~new)
        with m.If(soft_reset):
            m.d.sync += [fields["STATUS.done"].eq(0), fields["STATUS.error"].eq(0)]
        with m.Else():
            # what happens wins over its being cleared
            with m.If(unit.start):
                m.d.sync += fields["STATUS.done"].eq(0)
            with m.If(unit.done):
                m.d.sync += fields["STATUS.done"].eq(1)
            with m.If(refused):
                m.d.sync += fields["STATUS.error"].eq(1)

        # -- the unit ----------------------------------------------------------------------------
        m.d.comb += [
            unit.start.eq(accepted["CONTROL"] & start & ~reset),
            unit.count.eq(count),
            unit.clear_gradient.eq(fields["CONTROL.clear_gradient"]),
            fields["STATUS.busy"].eq(unit.busy),
            fields["CYCLES.cycles"].eq(unit.cycles),
            self.interrupt.eq(fields["STATUS.done"]),
        ]
        for name in layouts.settings(p):
            register_name = "CONTROL" if name == "regularise" else name.upper()
            m.d.comb += getattr(unit, name).eq(fields[f"{register_name}.{name}"])

        # -- the window --------------------------------------------------------------------------
        at = Mux(write, write_at, read_at)
        rows = self.window.row_bits
        # a register in front of the banks: no path from the bus through them to the lanes
        m.d.sync += [
            unit.host.enable.eq(to_bank | (read & self._in_window(read_at))),
            unit.host.row.eq(at[4 : 4 + rows]),
            unit.host.bank.eq(at[4 + rows : 4 + rows + self.window.bank_bits]),
        ]
        for position, name in enumerate(p.inputs):
            m.d.sync += [
                unit.host.mask[name].eq(write & (write_at[2:4] == position)),
                unit.host.write[name].eq(write_data),
            ]

        # -- what a read answers -----------------------------------------------------------------
        readable = Signal()  # the unit was idle when the bank was asked
        with m.If(read):
            m.d.sync += readable.eq(~unit.busy)
        # a register between the banks' multiplexer and that of the words
        row = Signal.like(unit.host.read, name="row_read", reset_less=True)
        m.d.sync += row.eq(unit.host.read)
        with m.If(answer):
            m.d.sync += [self.s_axi_rdata.eq(0), self.s_axi_rresp.eq(SLVERR)]
            with m.If(readable & self._in_window(read_at)):
                m.d.sync += self.s_axi_rresp.eq(OKAY)
                with m.Switch(read_at[2:4]):
                    for position, name in enumerate(p.inputs):
                        with m.Case(position):
                            m.d.sync += self.s_axi_rdata.eq(row[name])
            for register in self.registers.values():
                with m.If(self._is_register(read_at, register)):
                    m.d.sync += self.s_axi_rresp.eq(OKAY)
                    for field in register.fields:
                        part = self.s_axi_rdata[field.low : field.low + field.width]
                        m.d.sync += part.eq(fields[f"{register.name}.{field.name}"])
        return m

    def _write_channel(self, m: Any) -> tuple[Any, Any, Any, Any]:
        """High for the cycle in which a write happens; its address and data; all strobes set."""
        address, data = Signal(self.window.address_bits), Signal(32)
        address_held, data_held, whole = Signal(), Signal(), Signal()
        write = Signal(name="write")
        m.d.comb += [
            self.s_axi_awready.eq(~address_held),
            self.s_axi_wready.eq(~data_held),
            write.eq(address_held & data_held & ~self.s_axi_bvalid),
        ]
        with m.If(self.s_axi_awvalid & self.s_axi_awready):
            m.d.sync += [address_held.eq(1), address.eq(self.s_axi_awaddr)]
        with m.If(self.s_axi_wvalid & self.s_axi_wready):
            m.d.sync += [
                data_held.eq(1),
                data.eq(self.s_axi_wdata),
                whole.eq(self.s_axi_wstrb.all()),
            ]
        with m.If(self.s_axi_bready):
            m.d.sync += self.s_axi_bvalid.eq(0)
        with m.If(write):
            m.d.sync += [address_held.eq(0), data_held.eq(0), self.s_axi_bvalid.eq(1)]
        return write, address, data, whole

    def _read_channel(self, m: Any, write: Any) -> tuple[Any, Any, Any]:
        """High for the cycle before a bank is asked, for the one after it; the address in all."""
        address = Signal(self.window.address_bits, name="read_address")
        held, answer = Signal(name="read_held"), Signal(name="answer")
        read, asked, arrived = Signal(name="read"), Signal(name="asked"), Signal(name="arrived")
        m.d.comb += [
            self.s_axi_arready.eq(~held),
            read.eq(held & ~asked & ~arrived & ~answer & ~self.s_axi_rvalid & ~write),
        ]
        m.d.sync += [asked.eq(read), arrived.eq(asked), answer.eq(arrived)]
        with m.If(self.s_axi_arvalid & self.s_axi_arready):
            m.d.sync += [held.eq(1), address.eq(self.s_axi_araddr)]
        with m.If(self.s_axi_rready):
            m.d.sync += self.s_axi_rvalid.eq(0)
        with m.If(answer):
            m.d.sync += [held.eq(0), self.s_axi_rvalid.eq(1)]
        return read, answer, address

    def _fields(self) -> dict[str, Any]:
        """Every field's value, as "REGISTER.field"."""

        def made(register: Register, field: Field) -> Any:
            if field.kind == "constant":
                return Const(field.reset, field.width)
            if field.kind == "strobe":
                return Const(0, field.width)
            name = f"{register.name.lower()}_{field.name}"
            return Signal(field.width, name=name, init=field.reset)

        return {
            f"{register.name}.{field.name}": made(register, field)
            for register in self.registers.values()
            for field in register.fields
        }

    def _is_register(self, address: Any, register: Register) -> Any:
        return address[2:] == register.offset >> 2

    def _in_window(self, address: Any) -> Any:
        """Whether there is a word of a bank at this address."""
        p, rows = self.parameters, self.window.row_bits
        row, bank = address[4 : 4 + rows], address[4 + rows : 4 + rows + self.window.bank_bits]
        # between the banks and a window of the least size there may be nothing
        above = address[4 + rows + self.window.bank_bits : -1]
        inside = address[-1] & ~above.any() & (address[2:4] < len(p.inputs))
        return inside & (row < p.depth) & (bank < p.lanes)
