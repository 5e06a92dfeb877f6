"""Training that is killed hundreds of times, and ends with the bits of training that never was.

A server process imports fptt once and forks for every attempt, so an attempt takes milliseconds.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import fptt
from fptt.errors import SnapshotWarning
from fptt.storage import snapshot

KILLS = 200
#: after which a machine is too slow for this test
SECONDS = 300

SERVER = """
import os, sys, warnings
import numpy as np
import fptt
import fptt.training.fitting as fitting
from fptt.storage import snapshot

fitting.CHECKPOINT_S = -1  # a checkpoint after every batch
warnings.simplefilter("ignore", fptt.SnapshotWarning)

def train(seed, epochs, checkpoint):
    net = fptt.Network([fptt.RNN(2, 3), fptt.Dropout(0.2), fptt.Linear(3, 2)])
    program = fptt.build(
        net, fptt.FPTT(parts=2, state="carry"), fptt.Adam(0.01), steps=4, batch=2
    )
    trainer = fptt.Trainer(program, seed=seed)
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(10, 4, 2)), rng.integers(0, 2, 10)
    schedule = fptt.CosineSchedule(epochs)
    trainer.fit(
        (x, y), epochs, shuffle=True, schedule=schedule, checkpoint=checkpoint, resume=True
    )
    state = {**trainer.parameters(), **trainer.state()}
    return b"".join(state[name].tobytes() for name in sorted(state)).hex()

def say(line):
    os.write(1, (line + "\\n").encode())

save = snapshot.save

def reporting(trainer, path, extra):
    save(trainer, path, extra)
    say(f"saved {extra['fit']['epoch'] * 1000 + extra['fit']['batch']}")

for line in sys.stdin:
    seed, epochs, *checkpoint = line.split()
    if not checkpoint:
        say("whole " + train(int(seed), int(epochs), None))
        continue
    child = os.fork()
    if not child:
        try:
            say(f"child {os.getpid()}")
            snapshot.save = reporting
            say("done " + train(int(seed), int(epochs), checkpoint[0]))
        except BaseException as error:
            say(f"error {error!r}")
        finally:
            os._exit(0)
    sys.stdin.readline()  # until then its number belongs to nobody else, even when it has ended
    os.waitpid(child, 0)
    say("ended")
"""


class Server:
    def __init__(self):
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(fptt.__file__).parents[1]),
            "OPENBLAS_NUM_THREADS": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def ask(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")

    def line(self):
        line = self.process.stdout.readline()
        assert line, "the server has gone"
        word, _, rest = line.strip().partition(" ")
        assert word != "error", rest
        return word, rest

    def close(self):
        self.process.kill()
        self.process.communicate()


def position(path):
    """Where a checkpoint stands, and whether it was being written when the process was killed."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SnapshotWarning)
        fit = snapshot.read(path)[0]["extra"]["fit"]
    return fit["epoch"] * 1000 + fit["batch"], bool(caught)


def test_killed_hundreds_of_times_with_the_same_bits(tmp_path):
    """SIGKILL at random moments; nothing that was reported as saved is ever lost."""
    rng, server, epochs = random.Random(3), Server(), 60
    killed = torn = runs = 0
    end = time.monotonic() + SECONDS
    try:
        while killed < KILLS:
            seed, checkpoint, runs = runs, tmp_path / f"{runs}.fptt", runs + 1
            done = None
            while done is None:
                assert time.monotonic() < end
                server.ask(seed, epochs, checkpoint)
                word, child = server.line()
                assert word == "child"
                words = []
                if killed < KILLS:
                    time.sleep(rng.choice([rng.uniform(0, 0.01), rng.uniform(0, 0.06)]))
                    os.kill(int(child), signal.SIGKILL)
                server.ask("wait")
                while (line := server.line())[0] != "ended":
                    words.append(line)
                done = dict(words).get("done")
                killed += killed < KILLS and done is None
                saved = [int(rest) for word, rest in words if word == "saved"]
                if checkpoint.exists():
                    where, mid_write = position(checkpoint)
                    assert where >= max(saved, default=0)
                    torn += mid_write
                else:
                    assert not saved
            server.ask(seed, epochs)
            assert server.line() == ("whole", done)
            names = [path.name for path in tmp_path.iterdir()]
            assert all(re.fullmatch(r"\d+\.fptt|\.\d+\.fptt\.part", name) for name in names)
    finally:
        server.close()
    assert killed == KILLS
    print(f"{killed} kills, {torn} of them while a state was being written, {runs} runs")
