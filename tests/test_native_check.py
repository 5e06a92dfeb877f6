"""The engine looks at its tables before it runs them."""

import re
from pathlib import Path

import pytest

import fptt
from fptt.native import Engine
from fptt.native._engine import ffi, lib

RUNTIME = Path(__file__).parents[1] / "runtime"
STATUSES = re.findall(r"^  S\((\w+),", (RUNTIME / "include" / "fptt.h").read_text(), re.M)


@pytest.fixture
def engine():
    net = fptt.Network([fptt.LSTM(3, 8), fptt.Linear(8, 4)])
    return Engine(fptt.build(net, fptt.FPTT(parts=4), steps=23, batch=5, train=("1.*",)))


def check(engine, arena_less=0, constants_less=0, shift=0):
    """The answer when the engine is told of these pieces of memory."""
    plan = engine.program.plan
    memory = ffi.new(
        "fptt_memory[]",
        [
            (
                ffi.cast("uint8_t *", engine.arena.ctypes.data + shift),
                plan.arena_bytes - arena_less,
            ),
            (ffi.cast("uint8_t *", engine._const.ctypes.data), plan.const_bytes - constants_less),
        ],
    )
    return ffi.string(lib.fptt_status_name(lib.fptt_check(engine._engine, memory, 2))).decode()


def test_a_sound_program(engine):
    assert check(engine) == "FPTT_OK"


def test_one_block_less_of_memory(engine):
    assert check(engine, arena_less=16) == "FPTT_ARENA_TOO_SMALL"
    assert check(engine, constants_less=16) == "FPTT_ARENA_TOO_SMALL"


def test_memory_at_a_crooked_address(engine):
    assert check(engine, shift=4) == "FPTT_UNALIGNED"


def test_an_operation_that_does_not_exist(engine):
    engine._tables.ops[0].kind = 999
    assert check(engine) == "FPTT_UNKNOWN_OP"


def test_a_block_that_reaches_beyond_the_operations(engine):
    engine._tables.blocks[0].count += engine._tables.op_count
    assert check(engine) == "FPTT_BAD_PROGRAM"


def test_an_operand_moved_before_the_memory(engine):
    operand = next(o for o in engine._tables.ops[0].operand if o.index != lib.FPTT_ABSENT)
    operand.base -= engine.program.plan.arena_bytes + 64
    assert check(engine) == "FPTT_ARENA_TOO_SMALL"


@pytest.mark.parametrize("number", range(len(STATUSES) + 1))
def test_every_status_has_a_name_and_a_text(number):
    name, text = (
        ffi.string(of(number)).decode() for of in (lib.fptt_status_name, lib.fptt_status_text)
    )
    known = number < len(STATUSES)
    assert name == (f"FPTT_{STATUSES[number]}" if known else "unknown status")
    assert (text == "unknown status") != known
