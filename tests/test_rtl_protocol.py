"""The FPTT unit's load, store and banks in Amaranth's simulator: pauses, odd counts, resets."""

import random
import re

import numpy as np
import pytest

pytest.importorskip("amaranth")
from amaranth.hdl import ResetInserter, Signal
from amaranth.sim import Simulator
from test_rtl_unit import any_bits

from fptt.rtl.delay import DelayLine
from fptt.rtl.operations import OUTPUTS
from fptt.rtl.parameters import UnitParameters
from fptt.rtl.schedule import OPERATORS
from fptt.rtl.unit import BankedUnit, FpttUnit, cycles
from fptt.rtl.unit_model import Constants, update

SCHEDULES = tuple(OPERATORS)


def simulate(dut, *testbenches):
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for bench in testbenches:
        simulator.add_testbench(bench, background=bench is not testbenches[0])
    simulator.run()


def expected(p, constants, bits, count, *, regularise=True, clear=True):
    """Rows after a run, as lists of integers."""
    after = {name: [int(v) for v in bits[name]] for name in p.inputs}
    new = dict(zip(OUTPUTS, update(p, constants, **bits, regularise=regularise), strict=True))
    for name in OUTPUTS if regularise else ("param",):
        after[name][:count] = (int(v) for v in new[name][:count])
    if clear:
        after["grad"][:count] = [0] * count
    return after


def configure(ctx, dut, p, constants, *, count, regularise=True, clear=True):
    for name in ("lr", "lr_alpha", "alpha", "ita") if p.regularise else ("lr",):
        ctx.set(getattr(dut, name), getattr(constants, name))
    if p.regularise:
        ctx.set(dut.regularise, int(regularise))
    ctx.set(dut.clear_gradient, int(clear))
    ctx.set(dut.count, count)


async def start(ctx, dut):
    ctx.set(dut.start, 1)
    await ctx.tick()
    ctx.set(dut.start, 0)


async def until_idle(ctx, dut, limit=20_000):
    """Busy cycles; `done` is high in the last one and in no other."""
    busy = 0
    while ctx.get(dut.busy):
        last = ctx.get(dut.done)
        await ctx.tick()
        busy += 1
        assert busy < limit
        assert last == (not ctx.get(dut.busy))
    return busy


# -- banks of its own -----------------------------------------------------------------------------


async def fill(ctx, dut, p, bits):
    host = dut.host
    ctx.set(host.enable, 1)
    ctx.set(host.mask, dict.fromkeys(p.inputs, 1))
    for i in range(p.capacity):
        ctx.set(host.row, i // p.lanes)
        ctx.set(host.bank, i % p.lanes)
        ctx.set(host.write, {name: int(bits[name][i]) for name in p.inputs})
        await ctx.tick()
    ctx.set(host.enable, 0)


async def read_back(ctx, dut, p):
    host = dut.host
    found = {name: [] for name in p.inputs}
    ctx.set(host.mask, {})
    for i in range(p.capacity):
        ctx.set(host.enable, 1)
        ctx.set(host.row, i // p.lanes)
        ctx.set(host.bank, i % p.lanes)
        await ctx.tick()
        ctx.set(host.enable, 0)
        for name in p.inputs:
            found[name].append(ctx.get(host.read[name]))
    return found


@pytest.mark.parametrize("lanes", [1, 3, 8])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_runs_of_any_length(schedule, lanes):
    """Also none, fewer than lanes, not a multiple of them, all; with each switch; in time."""
    depth = 5
    p = UnitParameters(lanes=lanes, schedule=schedule, dtype="bfloat16", depth=depth)
    dut = BankedUnit(p)
    constants = Constants.of(p, 0.05, 0.3)

    async def bench(ctx):
        rng = np.random.default_rng(lanes)
        for count, regularise, clear in [
            (0, True, True),
            (1, True, False),
            (p.capacity - 2, False, True),
            (p.capacity, True, True),
        ]:
            bits = any_bits(p, rng, p.capacity)
            await fill(ctx, dut, p, bits)
            switches = dict(regularise=regularise, clear=clear)
            configure(ctx, dut, p, constants, count=count, **switches)
            await start(ctx, dut)
            assert ctx.get(dut.busy)
            assert await until_idle(ctx, dut) == cycles(p, count) == ctx.get(dut.cycles)
            assert await read_back(ctx, dut, p) == expected(p, constants, bits, count, **switches)

    simulate(dut, bench)


def test_a_unit_built_without_regularisation():
    p = UnitParameters(lanes=2, dtype="bfloat16", depth=4, regularise=False)
    dut = BankedUnit(p)
    constants = Constants.of(p, 0.05, 0.3)
    assert not hasattr(dut, "alpha")

    async def bench(ctx):
        bits = any_bits(p, np.random.default_rng(3), p.capacity)
        await fill(ctx, dut, p, bits)
        configure(ctx, dut, p, constants, count=7)
        await start(ctx, dut)
        await until_idle(ctx, dut)
        wanted = expected(p, constants, bits, 7, regularise=False)
        assert await read_back(ctx, dut, p) == wanted

    simulate(dut, bench)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_reset_in_the_middle(schedule):
    """At once idle; what was not yet stored is as before; the next run is right and in time."""
    p = UnitParameters(lanes=3, schedule=schedule, dtype="bfloat16", depth=4)
    dut = BankedUnit(p)
    reset = Signal()
    constants = Constants.of(p, 0.05, 0.3)

    async def bench(ctx):
        rng = np.random.default_rng(8)
        latency = p.lane_schedule.latency
        for before in (1, 3, latency // 2, latency + 4):
            bits = any_bits(p, rng, p.capacity)
            await fill(ctx, dut, p, bits)
            configure(ctx, dut, p, constants, count=p.capacity)
            await start(ctx, dut)
            await ctx.tick().repeat(before)
            assert ctx.get(dut.busy)
            ctx.set(reset, 1)
            await ctx.tick()
            ctx.set(reset, 0)
            assert not ctx.get(dut.busy)
            await ctx.tick().repeat(2 * latency)
            found = await read_back(ctx, dut, p)
            done = expected(p, constants, bits, p.capacity)
            for i in range(p.capacity):
                row = {name: found[name][i] for name in p.inputs}
                assert row in (
                    {name: int(bits[name][i]) for name in p.inputs},
                    {name: done[name][i] for name in p.inputs},
                )
            await fill(ctx, dut, p, bits)
            await start(ctx, dut)
            assert await until_idle(ctx, dut) == cycles(p, p.capacity)
            assert await read_back(ctx, dut, p) == done

    simulate(ResetInserter(reset)(dut), bench)


def test_starts_that_are_refused():
    """While busy, and beyond the capacity: the run that is on goes on, and no other begins."""
    p = UnitParameters(lanes=2, dtype="bfloat16", depth=5)
    dut = BankedUnit(p)
    constants = Constants.of(p, 0.05, 0.3)

    async def bench(ctx):
        bits = any_bits(p, np.random.default_rng(9), p.capacity)
        await fill(ctx, dut, p, bits)
        configure(ctx, dut, p, constants, count=p.capacity + 1)
        ctx.set(dut.start, 1)
        assert ctx.get(dut.refused)
        await ctx.tick()
        assert not ctx.get(dut.busy)
        ctx.set(dut.count, p.capacity)
        assert not ctx.get(dut.refused)
        await ctx.tick()
        assert ctx.get(dut.busy) and ctx.get(dut.refused)
        # the host is not heard either
        ctx.set(dut.host.enable, 1)
        ctx.set(dut.host.mask, dict.fromkeys(p.inputs, 1))
        await ctx.tick().repeat(5)
        ctx.set(dut.start, 0)
        ctx.set(dut.host.enable, 0)
        await until_idle(ctx, dut)
        assert ctx.get(dut.cycles) == cycles(p, p.capacity)
        assert await read_back(ctx, dut, p) == expected(p, constants, bits, p.capacity)

    simulate(dut, bench)


# -- memory outside -------------------------------------------------------------------------------


def memory(dut, p, lane, content, share, seed):
    """One lane's memory: takes and answers when it likes, in order; checks that offers stay."""
    dice = random.Random(seed)

    async def run(ctx):
        requests, responses, writes = (
            part[lane] for part in (dut.requests, dut.responses, dut.writes)
        )
        waiting, offered = [], {}
        while True:
            takes = {s: dice.random() < share for s in (requests, writes)}
            for s, willing in takes.items():
                ctx.set(s.ready, int(willing))
            # an answer that is offered stays until it is taken
            if waiting and (ctx.get(responses.valid) or dice.random() < share):
                ctx.set(responses.payload, waiting[0])
                ctx.set(responses.valid, 1)
            else:
                ctx.set(responses.valid, 0)
            *_, asked, row, answered, ready, writing, write = await ctx.tick().sample(
                requests.valid,
                requests.payload,
                responses.valid,
                responses.ready,
                writes.valid,
                writes.payload,
            )
            for s, valid, payload in ((requests, asked, row), (writes, writing, write)):
                if s in offered:
                    assert valid and payload == offered.pop(s), "an offer was changed"
                if valid and not takes[s]:
                    offered[s] = payload
            if answered and ready:
                waiting.pop(0)
                ctx.set(responses.valid, 0)
            if asked and takes[requests]:
                i = row * p.lanes + lane
                waiting.append({name: content[name][i] for name in p.inputs})
            if writing and takes[writes]:
                i = write.row * p.lanes + lane
                for name in p.inputs:
                    if write.mask[name]:
                        content[name][i] = write.words[name]

    return run


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_memory_that_hesitates_everywhere(schedule, lanes):
    p = UnitParameters(lanes=lanes, schedule=schedule, dtype="bfloat16", depth=9)
    dut = FpttUnit(p)
    constants = Constants.of(p, 0.05, 0.3)
    count = p.capacity - 1
    bits = any_bits(p, np.random.default_rng(lanes), p.capacity)
    content = {name: [int(v) for v in bits[name]] for name in p.inputs}

    async def bench(ctx):
        configure(ctx, dut, p, constants, count=count)
        await start(ctx, dut)
        assert await until_idle(ctx, dut) > cycles(p, count)
        assert content == expected(p, constants, bits, count)

    memories = [memory(dut, p, lane, content, 0.5, lane) for lane in range(lanes)]
    simulate(dut, bench, *memories)


# -- delay lines ----------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 17])
def test_delay_line(length):
    """Registers and memories alike, held now and then."""
    dut = DelayLine(8, length)
    dice = random.Random(length)

    async def bench(ctx):
        went_in = []
        for number in range(200):
            enabled = dice.random() < 0.7
            ctx.set(dut.enable, int(enabled))
            ctx.set(dut.input, number)
            if len(went_in) >= length:
                assert ctx.get(dut.output) == went_in[-length]
            await ctx.tick()
            if enabled:
                went_in.append(number)

    simulate(dut, bench)


def test_docstrings_state_the_schedules_figures():
    """The figures in the lane's docstring are those of its schedule."""
    from fptt.rtl.lane import Lane

    text = " ".join(Lane.__doc__.split())
    for name in SCHEDULES:
        s = UnitParameters(schedule=name).lane_schedule
        found = re.search(rf"{name} (\d+) and (\d+)", text)
        assert found, name
        assert (int(found[1]), int(found[2])) == (s.latency, s.interval)
