"""The FPTT unit behind AXI4-Lite, in Amaranth's simulator, with pauses on all five channels."""

import random

import numpy as np
import pytest

pytest.importorskip("amaranth")
from test_rtl_protocol import expected, simulate
from test_rtl_unit import any_bits

from fptt.rtl.axi import OKAY, SLVERR, AxiUnit
from fptt.rtl.parameters import UnitParameters
from fptt.rtl.registers import WRITABLE, Window, markdown, register_map
from fptt.rtl.unit import cycles
from fptt.rtl.unit_model import Constants


class Host:
    """Drives the port; every channel waits at random, and what must stay is watched."""

    def __init__(self, ctx, dut, seed, share=0.5):
        self.ctx, self.dut, self.share = ctx, dut, share
        self.dice = random.Random(seed)
        self.map = dut.registers

    def port(self, name):
        return getattr(self.dut, f"s_axi_{name}")

    def set(self, **values):
        for name, value in values.items():
            self.ctx.set(self.port(name), value)

    async def pause(self):
        while self.dice.random() > self.share:
            await self.ctx.tick()

    async def send(self, *channels):
        """(valid, ready, payloads) of channels that may go in any order: all at once, or not."""
        waiting = list(channels)
        while waiting:
            for valid, _, payload in waiting:
                if self.ctx.get(self.port(valid)) or self.dice.random() < self.share:
                    self.set(**{valid: 1}, **payload)
            taken = [
                c
                for c in waiting
                if self.ctx.get(self.port(c[0])) and self.ctx.get(self.port(c[1]))
            ]
            await self.ctx.tick()
            for channel in taken:
                self.set(**{channel[0]: 0})
                waiting.remove(channel)

    async def receive(self, valid, ready, *payload):
        for _ in range(100):
            if self.ctx.get(self.port(valid)):
                break
            await self.ctx.tick()
        first = [self.ctx.get(self.port(name)) for name in payload]
        while self.dice.random() > self.share:
            await self.ctx.tick()
            assert self.ctx.get(self.port(valid)), "an answer was withdrawn"
            assert first == [self.ctx.get(self.port(name)) for name in payload]
        self.set(**{ready: 1})
        await self.ctx.tick()
        self.set(**{ready: 0})
        assert not self.ctx.get(self.port(valid))
        return first

    async def write_at(self, address, data, strobes=15):
        await self.send(
            ("awvalid", "awready", {"awaddr": address}),
            ("wvalid", "wready", {"wdata": data, "wstrb": strobes}),
        )
        (answer,) = await self.receive("bvalid", "bready", "bresp")
        return answer

    async def read_at(self, address):
        await self.send(("arvalid", "arready", {"araddr": address}))
        return tuple(await self.receive("rvalid", "rready", "rdata", "rresp"))

    async def write(self, register, wanted=OKAY, **fields):
        """Fields of a register; those that are not named become 0."""
        r = self.map[register]
        data = sum(value << r[name].low for name, value in fields.items())
        assert await self.write_at(r.offset, data) == wanted, register

    async def read(self, register):
        r = self.map[register]
        data, answer = await self.read_at(r.offset)
        assert answer == OKAY
        return {f.name: (data & f.mask) >> f.low for f in r.fields}

    async def fill(self, p, bits):
        for name in p.inputs:
            for i in range(p.capacity):
                address = self.dut.window.address(i, name)
                assert await self.write_at(address, int(bits[name][i])) == OKAY

    async def banks(self, p):
        found = {name: [] for name in p.inputs}
        for name in p.inputs:
            for i in range(p.capacity):
                data, answer = await self.read_at(self.dut.window.address(i, name))
                assert answer == OKAY
                found[name].append(data)
        return found

    async def configure(self, p, constants, count):
        await self.write("COUNT", count=count)
        for name, bits in vars(constants).items():
            if name.upper() in self.map:
                await self.write(name.upper(), **{name: bits})

    async def idle(self):
        for _ in range(200):
            status = await self.read("STATUS")
            if not status["busy"]:
                return status
        raise AssertionError("still busy")


def with_host(p, bench, **options):
    dut = AxiUnit(p)

    async def run(ctx):
        await bench(Host(ctx, dut, seed=1, **options))

    simulate(dut, run)


@pytest.mark.parametrize("share", [1.0, 0.4])
@pytest.mark.parametrize(
    "p",
    [
        UnitParameters(lanes=3, dtype="bfloat16", depth=4),
        UnitParameters(lanes=2, schedule="compact", depth=3),
        UnitParameters(lanes=1, schedule="baseline", dtype="bfloat16", depth=5, regularise=False),
    ],
    ids=["pipelined", "compact", "plain"],
)
def test_a_run_from_a_host(p, share):
    """Fill, configure, start, wait, read back; with R(t) switched off as well."""
    constants = Constants.of(p, 0.05, 0.3)

    async def bench(host):
        rng = np.random.default_rng(2)
        for regularise, clear, count in [(1, 1, p.capacity), (0, 0, p.capacity - 1)]:
            bits = any_bits(p, rng, p.capacity)
            await host.fill(p, bits)
            await host.configure(p, constants, count)
            switches = {"regularise": regularise} if p.regularise else {}
            await host.write("CONTROL", start=1, clear_gradient=clear, **switches)
            status = await host.idle()
            assert status == {"busy": 0, "done": 1, "error": 0}
            assert host.ctx.get(host.dut.interrupt)
            assert (await host.read("CYCLES"))["cycles"] == cycles(p, count)
            on = bool(regularise) and p.regularise
            wanted = expected(p, constants, bits, count, regularise=on, clear=bool(clear))
            assert await host.banks(p) == wanted
            await host.write("STATUS", error=1)
            assert (await host.read("STATUS"))["done"] == 1
            await host.write("STATUS", done=1)
            assert (await host.read("STATUS"))["done"] == 0
            assert not host.ctx.get(host.dut.interrupt)

    with_host(p, bench, share=share)


@pytest.mark.parametrize("regularise", [True, False])
def test_every_field_of_the_map(regularise):
    """Reset values; settings take what is written; all else stays as it is."""
    p = UnitParameters(lanes=3, dtype="bfloat16", schedule="compact", regularise=regularise)

    async def bench(host):
        for name, register in host.map.items():
            found = await host.read(name)
            assert found == {f.name: f.reset for f in register.fields}, name
            ones = 0xFFFFFFFF ^ (3 if name == "CONTROL" else 0)  # neither start nor reset
            answer = await host.write_at(register.offset, ones)
            assert answer == (OKAY if register.writable else SLVERR), name
            settings = [f for f in register.fields if f.kind == "setting"]
            after = {f.name: (1 << f.width) - 1 for f in settings}
            assert await host.read(name) == {**found, **after}
        assert any(f.kind in WRITABLE for f in host.map["COUNT"].fields)

    with_host(p, bench)


def test_what_is_refused_changes_nothing():
    p = UnitParameters(lanes=3, dtype="bfloat16", depth=3)  # banks and rows that are not there
    window = Window(p)
    constants = Constants.of(p, 0.05, 0.3)

    async def bench(host):
        bits = any_bits(p, np.random.default_rng(4), p.capacity)
        before = {name: [int(v) for v in bits[name]] for name in p.inputs}
        await host.fill(p, bits)
        await host.configure(p, constants, p.capacity)
        nowhere = [
            max(r.offset for r in host.map.values()) + 4,
            window.base - 4,
            window.base | 3 << 4,  # row 3
            window.base | 3 << 6,  # bank 3
        ]
        for address in nowhere:
            assert await host.read_at(address) == (0, SLVERR), hex(address)
            assert await host.write_at(address, 1) == SLVERR, hex(address)
        # parts of a word
        for strobes in (0, 1, 3, 14):
            assert await host.write_at(host.map["LR"].offset, 7, strobes) == SLVERR
            assert await host.write_at(window.address(0, "grad"), 7, strobes) == SLVERR
            assert await host.write_at(host.map["CONTROL"].offset, 1, strobes) == SLVERR
        assert (await host.read("LR"))["lr"] == constants.lr
        assert await host.banks(p) == before
        # more than there is
        await host.write("COUNT", count=p.capacity + 1)
        await host.write("CONTROL", SLVERR, start=1, regularise=1, clear_gradient=1)
        assert await host.read("STATUS") == {"busy": 0, "done": 0, "error": 1}
        await host.write("COUNT", count=1 << 31)
        await host.write("CONTROL", SLVERR, start=1, regularise=1, clear_gradient=1)
        await host.write("STATUS", error=1)
        assert await host.read("STATUS") == {"busy": 0, "done": 0, "error": 0}
        assert await host.banks(p) == before

    with_host(p, bench)


def test_the_least_window_has_one_row():
    p = UnitParameters(lanes=1, dtype="bfloat16", depth=1)

    async def bench(host):
        base = host.dut.window.base
        assert await host.write_at(base, 5) == OKAY
        for beyond in (16, 32, 48):
            assert await host.write_at(base + beyond, 7) == SLVERR
            assert await host.read_at(base + beyond) == (0, SLVERR)
        assert await host.read_at(base) == (5, OKAY)

    with_host(p, bench)


def test_answers_that_are_not_fetched_hold_the_next_transfers():
    """Two reads and two writes on the way: nothing happens before the first answers are taken."""
    p = UnitParameters(lanes=1, dtype="bfloat16", depth=1)

    async def bench(host):
        nowhere, count = 0x3C, host.map["COUNT"].offset
        for first, second, answers in [
            (nowhere, count, [SLVERR, OKAY]),
            (count, nowhere, [OKAY, SLVERR]),
        ]:
            for address in (first, second):
                await host.send(
                    ("awvalid", "awready", {"awaddr": address}),
                    ("wvalid", "wready", {"wdata": 3, "wstrb": 15}),
                )
            await host.ctx.tick().repeat(5)
            got = [(await host.receive("bvalid", "bready", "bresp"))[0] for _ in answers]
            assert got == answers
            for address in (first, second):
                await host.send(("arvalid", "arready", {"araddr": address}))
            await host.ctx.tick().repeat(8)
            data = {OKAY: 3, SLVERR: 0}
            for answer in answers:
                found = await host.receive("rvalid", "rready", "rdata", "rresp")
                assert found == [data[answer], answer]

    with_host(p, bench)


def test_busy_and_reset():
    """While busy only STATUS and the reset are heard; the reset leaves settings and banks."""
    p = UnitParameters(lanes=1, schedule="baseline", dtype="bfloat16", depth=16)
    constants = Constants.of(p, 0.05, 0.3)

    async def bench(host):
        bits = any_bits(p, np.random.default_rng(5), p.capacity)
        await host.fill(p, bits)
        await host.configure(p, constants, p.capacity)
        await host.write("CONTROL", start=1, regularise=1, clear_gradient=1)
        await host.write("COUNT", SLVERR, count=1)
        await host.write("LR", SLVERR, lr=1)
        await host.write("CONTROL", SLVERR, regularise=0)
        assert await host.write_at(host.dut.window.address(15, "param"), 1) == SLVERR
        assert await host.read_at(host.dut.window.address(15, "param")) == (0, SLVERR)
        assert await host.read("STATUS") == {"busy": 1, "done": 0, "error": 0}
        await host.write("CONTROL", SLVERR, start=1)
        assert await host.read("STATUS") == {"busy": 1, "done": 0, "error": 1}
        await host.idle()
        assert await host.banks(p) == expected(p, constants, bits, p.capacity)
        # again, and stop it; a start in the same write does not count
        await host.fill(p, bits)
        await host.write("CONTROL", start=1, regularise=1, clear_gradient=1)
        await host.write("CONTROL", start=1, reset=1, regularise=1, clear_gradient=0)
        assert await host.read("STATUS") == {"busy": 0, "done": 0, "error": 0}
        assert (await host.read("CYCLES"))["cycles"] == 0
        assert (await host.read("LR"))["lr"] == constants.lr
        assert (await host.banks(p))["param"][15] == int(bits["param"][15])
        await host.fill(p, bits)
        await host.write("CONTROL", start=1, regularise=1, clear_gradient=0)
        await host.idle()
        assert await host.banks(p) == expected(p, constants, bits, p.capacity, clear=False)

    with_host(p, bench, share=0.8)


def test_a_start_clears_done():
    """A host that polls `done` must not take the last run for this one."""
    p = UnitParameters(lanes=1, schedule="baseline", dtype="bfloat16", depth=16)

    async def bench(host):
        await host.configure(p, Constants.of(p, 0.05, 0.3), p.capacity)
        for _ in range(2):
            await host.write("CONTROL", start=1, regularise=1)
            assert await host.read("STATUS") == {"busy": 1, "done": 0, "error": 0}
            while not (await host.read("STATUS"))["done"]:
                pass

    with_host(p, bench)


@pytest.mark.parametrize(("lanes", "depth"), [(1, 1), (1, 5), (3, 3), (8, 1024)])
def test_addresses_are_distinct_and_in_the_table(lanes, depth):
    p = UnitParameters(lanes=lanes, depth=depth)
    window = Window(p)
    offsets = [r.offset for r in register_map(p).values()]
    words = [window.address(i, name) for i in range(p.capacity) for name in p.inputs]
    every = offsets + words
    assert len(set(every)) == len(every)
    assert max(offsets) < window.base <= min(words) and max(words) < 1 << window.address_bits
    assert all(address % 4 == 0 for address in every)
    for register in register_map(p).values():
        assert sum(f.mask for f in register.fields) < 1 << 32
        masks = [f.mask for f in register.fields]
        assert sum(masks) == np.bitwise_or.reduce(masks)  # fields do not overlap
        for field in register.fields:
            assert f"| 0x{register.offset:02x} | {register.name} |" in markdown(p)
            assert f"| {field.name} |" in markdown(p)
