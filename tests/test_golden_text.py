"""The printed form of some programs, literally, so that a review shows every change of meaning.

After a change that is meant: FPTT_UPDATE_GOLDEN=1 pytest tests/test_golden_text.py, and read the
difference in tests/golden.
"""

import os
from pathlib import Path

import pytest

import fptt

GOLDEN = Path(__file__).parent / "golden"


def lstm_fptt():
    net = fptt.Network([fptt.LSTM(3, 5), fptt.Linear(5, 4)])
    return fptt.build(net, fptt.FPTT(parts=3), fptt.SGD(lr=0.01), steps=7, batch=2)


def stack_tbptt_adam_clip():
    net = fptt.Network([fptt.LSTM(3, 5), fptt.LSTM(5, 6), fptt.Linear(6, 4)])
    return fptt.build(
        net,
        fptt.TBPTT(parts=3, state="carry"),
        fptt.Adam(lr=0.001),
        steps=7,
        batch=2,
        loss="every_step",
        clip=1.0,
    )


def embedding_gru_bfloat16():
    net = fptt.Network([fptt.Embedding(11, 3), fptt.GRU(3, 5), fptt.Linear(5, 11)])
    return fptt.build(
        net,
        fptt.FPTT(parts=2, mode="paper", epoch_end="keep"),
        fptt.SGD(lr=0.01, momentum=0.9),
        steps=6,
        batch=2,
        loss="every_step",
        dtype="float32",
        activation_dtype="bfloat16",
    )


def frozen_body():
    net = fptt.Network([fptt.LSTM(3, 5), fptt.Linear(5, 4)])
    return fptt.build(
        net, fptt.FPTT(parts=3), fptt.SGD(lr=0.01), steps=7, batch=2, criterion="mse", train=["1.*"]
    )


def dropout_auxiliary_clip():
    net = fptt.Network([fptt.LSTM(3, 5), fptt.Linear(5, 6), fptt.Dropout(0.5), fptt.Linear(6, 4)])
    return fptt.build(
        net, fptt.FPTT(parts=3), fptt.Adam(lr=0.001), steps=7, batch=2, loss="auxiliary", clip=1.0
    )


def recompute_adapters():
    net = fptt.Network([fptt.LSTM(3, 5), fptt.Linear(5, 4)])
    return fptt.build(
        net,
        fptt.FPTT(parts=2),
        fptt.SGD(lr=0.01),
        steps=7,
        batch=1,
        train=["1.*"],
        adapters={"0.weight_hh": 2},
        recompute=True,
    )


def rtrl():
    net = fptt.Network([fptt.LSTM(2, 3), fptt.Linear(3, 2), fptt.RNN(2, 4), fptt.Linear(4, 2)])
    rule = fptt.FPTT(parts=3, source="rtrl")
    return fptt.build(net, rule, fptt.SGD(lr=0.01), steps=7, batch=2, train=["*.weight_ih", "2.*"])


def ostl_every_step():
    net = fptt.Network([fptt.GRU(2, 3), fptt.RNN(3, 4), fptt.Linear(4, 2)])
    rule = fptt.TBPTT(parts=3, source="ostl", state="carry")
    return fptt.build(
        net, rule, fptt.SGD(lr=0.01), steps=7, batch=2, loss="every_step", criterion="mse"
    )


def eprop_every_step():
    net = fptt.Network([fptt.LSTM(3, 5), fptt.Linear(5, 4)])
    rule = fptt.FPTT(parts=3, source="eprop")
    return fptt.build(net, rule, fptt.SGD(lr=0.01), steps=7, batch=2, loss="every_step")


PROGRAMS = [
    lstm_fptt,
    stack_tbptt_adam_clip,
    embedding_gru_bfloat16,
    frozen_body,
    dropout_auxiliary_clip,
    recompute_adapters,
    rtrl,
    ostl_every_step,
    eprop_every_step,
]


@pytest.mark.parametrize("make", PROGRAMS, ids=lambda make: make.__name__)
def test_a_program_prints_as_before(make):
    path, text = GOLDEN / f"{make.__name__}.txt", str(make())
    if os.environ.get("FPTT_UPDATE_GOLDEN") == "1":
        path.write_text(text)
    assert text == path.read_text()


def test_no_golden_file_is_left_over():
    assert {p.name for p in GOLDEN.iterdir()} == {f"{make.__name__}.txt" for make in PROGRAMS}


def test_a_program_says_all_that_it_holds():
    """Every buffer with its place, every routine and every operation in its order."""
    for make in PROGRAMS:
        program = make()
        lines = str(program).splitlines()
        for buffer in program.buffers.values():
            (line,) = [
                row
                for row in lines
                if row.split()[1:2] == [buffer.name] and row.split()[0].isdigit()
            ]
            assert int(line.split()[0]) == program.plan.offsets[buffer.name]
        for routine in program.routines.values():
            start = lines.index(routine.name)
            shown = lines[start + 1 : start + 1 + 200]
            shown = shown[: shown.index("")] if "" in shown else shown
            kinds = [row.split(" = ")[1].split("(")[0] for row in shown if " = " in row]
            assert kinds == [op.kind for op, _ in routine.ops()]
