"""Delay lines: registers where they are short, a memory where they are long."""

from __future__ import annotations

from typing import Any

from fptt.rtl.hdl import Component, In, Memory, Module, Out, Signal

#: from this length on, a memory is smaller than registers
SHORTEST_MEMORY = 8


class DelayLine(Component):
    """What comes in goes out `length` enabled clock edges later.

    Latency: `length` enabled clock edges. Throughput: one word an enabled cycle. What comes out
    before the first word is not defined: nothing is reset but the pointer.

    Args:
        width: bits of a word.
        length: 1 or more.

    Attributes:
        input: In(width); enable: In(1), while low the line holds; output: Out(width).
    """

    def __init__(self, width: int, length: int) -> None:
        self.width = width
        self.length = length
        super().__init__({"input": In(width), "enable": In(1), "output": Out(width)})

    def elaborate(self, platform: Any) -> Any:
        """Hardware."""
        del platform
        m = Module()
        if self.length < SHORTEST_MEMORY:
            value = self.input
            for number in range(self.length):
                register = Signal(self.width, name=f"word_{number}", reset_less=True)
                with m.If(self.enable):
                    m.d.sync += register.eq(value)
                value = register
            m.d.comb += self.output.eq(value)
            return m
        # a ring: the word that the pointer leaves behind is read when it comes by again, and the
        # memory's output register is the last place of the line
        rows = self.length - 1
        m.submodules.memory = memory = Memory(shape=self.width, depth=rows, init=[])
        read, write = memory.read_port(), memory.write_port()
        pointer = Signal(range(rows))
        with m.If(self.enable):
            m.d.sync += pointer.eq(pointer + 1)
            with m.If(pointer == rows - 1):
                m.d.sync += pointer.eq(0)
        m.d.comb += [
            read.addr.eq(pointer),
            read.en.eq(self.enable),
            write.addr.eq(pointer),
            write.en.eq(self.enable),
            write.data.eq(self.input),
            self.output.eq(read.data),
        ]
        return m
