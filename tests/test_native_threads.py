"""Threads of the engine: any number gives the same bits; they stop, and forks do without them."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time

import numpy as np
import pytest

import fptt
from fptt.native import Engine

THREADS = (1, 2, 3, 5)
LSTM, GRU, RNN, Linear, FPTT, SGD = fptt.LSTM, fptt.GRU, fptt.RNN, fptt.Linear, fptt.FPTT, fptt.SGD

#: (layers, rule, optimizer, batch, options); large enough that 5 threads are worth waking, with
#: sizes that no number of threads divides
PROGRAMS = {
    "LSTM, K=2": ([LSTM(5, 48), Linear(48, 7)], FPTT(parts=2), SGD(0.1, 0.9), 21, {}),
    "LSTM, K=1": ([LSTM(5, 48), Linear(48, 7)], FPTT(parts=1), SGD(0.1), 40, {}),
    "LSTM, a step a part": ([LSTM(9, 130), Linear(130, 7)], FPTT(parts=16), SGD(0.1), 33, {}),
    "RNN, inputs wider than states": ([RNN(150, 131), Linear(131, 7)], FPTT(2), SGD(0.1), 23, {}),
    "LSTM, inputs wider than gates": ([LSTM(150, 31), Linear(31, 7)], FPTT(2), SGD(0.1), 23, {}),
    "GRU, clip": ([GRU(5, 48), Linear(48, 7)], FPTT(parts=4), SGD(0.1), 37, dict(clip=0.01)),
    "GRU-LSTM, Adam, every step": (
        [GRU(5, 48), fptt.Dropout(0.3), LSTM(48, 50), Linear(50, 7)],
        FPTT(parts=2, mode="paper"),
        fptt.Adam(),
        21,
        dict(loss="every_step"),
    ),
    "embedding": (
        [fptt.Embedding(30, 33), LSTM(33, 48), Linear(48, 30)],
        FPTT(parts=2),
        SGD(0.1),
        29,
        dict(loss="every_step"),
    ),
    "bfloat16 at random": (
        [LSTM(5, 48), Linear(48, 7)],
        FPTT(parts=2),
        SGD(0.1),
        21,
        dict(dtype="bfloat16", rounding="stochastic"),
    ),
    "a batch too small to share": ([LSTM(5, 48), Linear(48, 7)], FPTT(2), SGD(0.1), 3, {}),
}


def trained(program, threads):
    """Losses and everything that is learnt after some batches, one of them ragged, one smaller."""
    rng = np.random.default_rng(5)
    trainer = fptt.Trainer(program, Engine(program, threads=threads), seed=4)
    outputs, steps = program.net.outputs, program.steps
    losses = []
    for rows in (program.batch, program.batch, max(program.batch * 2 // 3, 1)):
        if program.buffers["input"].dtype == "int32":
            x = rng.integers(0, 30, (rows, steps))
        else:
            x = rng.normal(size=(rows, steps, program.net.layers[0].inputs))
        every = program.schedule.every_step
        y = rng.integers(0, outputs, (rows, steps) if every else rows)
        lengths = rng.integers(1, steps + 1, rows).tolist() if losses else None
        losses.append(trainer.train_batch(x, y, lengths))
    values = trainer.parameters() | trainer.state()
    return losses, {name: value.tobytes() for name, value in values.items()}


@pytest.mark.parametrize("name", PROGRAMS)
def test_any_number_of_threads_gives_the_same_bits(name):
    layers, rule, optimizer, batch, options = PROGRAMS[name]
    program = fptt.build(fptt.Network(layers), rule, optimizer, steps=16, batch=batch, **options)
    wanted, *others = (trained(program, threads) for threads in THREADS)
    for threads, found in zip(THREADS[1:], others, strict=True):
        assert found == wanted, threads


def test_more_threads_than_there_can_be():
    layers, rule, optimizer, batch, options = PROGRAMS["LSTM, K=2"]
    program = fptt.build(fptt.Network(layers), rule, optimizer, steps=16, batch=batch, **options)
    assert trained(program, 1000) == trained(program, 1)


def small():
    net = fptt.Network([LSTM(5, 48), Linear(48, 7)])
    return fptt.build(net, FPTT(parts=2), SGD(0.1), steps=16, batch=21)


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_an_engine_that_is_gone_stops_its_threads():
    def threads(wanted):
        """How many there are, after a moment for those that are about to go."""
        until = time.monotonic() + 5
        while (count := len(os.listdir("/proc/self/task"))) != wanted:
            if time.monotonic() > until:
                break
            time.sleep(0.01)
        return count

    program = small()
    before = len(os.listdir("/proc/self/task"))
    engine = Engine(program, threads=4)
    assert threads(before + 3) == before + 3
    trained(program, 3)  # comes and goes beside the other
    del engine
    gc.collect()
    assert threads(before) == before


FORK = """
import hashlib, os, sys
import numpy as np
import other_engine, fptt
from test_native_threads import small
program = small()
trainer = fptt.Trainer(program, seed=1, threads=3)
x = np.random.default_rng(1).normal(size=(21, 16, 5))
def digest():
    trainer.train_batch(x, np.arange(21) % 7)
    return hashlib.sha256(trainer.backend.learned.tobytes()).hexdigest()
digest()
back, there = os.pipe()
child = os.fork()
if child == 0:
    os.write(there, digest().encode())
    del trainer
    os._exit(0)
mine = digest()
os.waitpid(child, 0)
print(mine == os.read(back, 100).decode())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_fork_trains_without_the_threads_of_its_parent():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
