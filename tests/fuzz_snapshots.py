"""Damaged and hostile snapshots without end: the loader must answer each with a message, soon.

    python tests/fuzz_snapshots.py --seconds 600            (or python -m tests.fuzz_snapshots)
    python tests/fuzz_snapshots.py --first 1234 --cases 1   that case again

A case is a number: the same number makes the same file. Files are damaged as they lie there, or
inside with checksums that fit again. A case fails if loading raises anything but an FpttError,
takes longer than LIMIT_S or more than LIMIT_BYTES; or if what was loaded cannot be trained a little
and saved.

tests/test_snapshots_fuzz.py runs the first cases.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import random
import resource
import struct
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parent / "src")]

import numpy as np  # noqa: E402
from snapshots import contents, first_version, joined, parted, signed, train, trainer_of, two_slots  # noqa: E402

import fptt  # noqa: E402
from fptt.errors import FpttError, SaveError, SnapshotWarning  # noqa: E402
from fptt.storage import slots, snapshot  # noqa: E402

#: of one case, in seconds; on a busy machine
LIMIT_S = 20
#: that the process may grow by, in all cases together
LIMIT_BYTES = 400e6

STACK = [("Embedding", 5, 2), ("GRU", 2, 3), ("Dropout", 0.4), ("LSTM", 3, 2), ("Linear", 2, 3)]
TRAINERS = {
    "RNN": lambda: trainer_of(),
    "tokens": lambda: trainer_of(
        STACK, fptt.FPTT(parts=3, state="carry"), steps=7, batch=3, loss="every_step"
    ),
    "Adam, bfloat16": lambda: trainer_of(
        [("LSTM", 2, 2), ("Linear", 2, 1)], optimizer=fptt.Adam(0.1), dtype="bfloat16", clip=1.0
    ),
    "mse": lambda: trainer_of(
        [("GRU", 1, 2), ("Linear", 2, 2)], fptt.BPTT(), criterion="mse", loss="every_step"
    ),
    "auxiliary": lambda: trainer_of(
        [("RNN", 1, 2), ("ReLU",), ("Linear", 2, 3)],
        fptt.FPTT(parts=2, mode="paper"),
        loss=fptt.Auxiliary(per_part=True),
        train=("2.*",),
        dtype="float64",
    ),
}
LAYERS = {
    "RNN": [("RNN", 1, 2), ("Linear", 2, 2)],
    "tokens": STACK,
    "Adam, bfloat16": [("LSTM", 2, 2), ("Linear", 2, 1)],
    "mse": [("GRU", 1, 2), ("Linear", 2, 2)],
    "auxiliary": [("RNN", 1, 2), ("ReLU",), ("Linear", 2, 3)],
}


def one_step(trainer, target=True):
    """Of a stream with two rows."""
    net, rows = trainer.program.net, 2
    x = np.zeros(rows, int) if net.tokens else np.full((rows, net.inputs), 0.5)
    y = np.zeros((rows, net.outputs)) if trainer.program.criterion == "mse" else np.zeros(rows, int)
    return trainer.step(x, y if target else None)


class Fuzz:
    """Makes and tries the cases.

    Args:
        folder: for the files.
    """

    def __init__(self, folder):
        self.path = Path(folder) / "case.fptt"
        self.out = Path(folder) / "saved.fptt"
        x, y = np.ones((4, 4, 1), np.float32), np.zeros(4, int)
        self.data = (x, y)
        self.saver = trainer_of()
        self.payloads = []
        for name, make in TRAINERS.items():
            trainer = make()
            train(trainer, LAYERS[name])
            self.payloads.append(self._saved(trainer))
            one_step(trainer, target=name != "mse")
            self.payloads.append(self._saved(trainer))  # in the middle of a part
        trainer = trainer_of()
        self.path.unlink()
        trainer.fit(self.data, 1, checkpoint=self.path)
        self.fitted = contents(self.path)
        self.payloads += [self.fitted, self.fitted]
        self.files = [first_version(payload) for payload in self.payloads]
        self.files += [two_slots(payload) for payload in self.payloads]
        self.files += [two_slots(p, p) for p in self.payloads]

    def _saved(self, trainer):
        self.path.unlink(missing_ok=True)
        trainer.save(self.path)
        return contents(self.path)

    def file(self, number):
        """The bytes of a case."""
        rng = random.Random(number)
        if rng.random() < 0.35:
            data = rng.choice(self.files)
            for _ in range(rng.choice([1, 1, 2, 5])):
                data = damaged(data, rng, rng.choice(self.files))
            return data
        payload = rng.choice(self.payloads)
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            payload = self._changed(payload, rng)
        sequence = rng.choice([0, 0, 2**31 - 1, 2**32 - 1])
        other = rng.choice([payload, rng.choice(self.payloads)])
        data = rng.choice(
            [
                lambda: first_version(payload),
                lambda: two_slots(payload),
                lambda: two_slots(other, payload, sequence=sequence),
            ]
        )()
        return resigned(data, rng) if rng.random() < 0.2 else data

    def _changed(self, payload, rng):
        if len(payload) < 4:
            return payload
        try:
            header, buffers = parted(payload)
        except (ValueError, RecursionError, struct.error):
            return damaged(payload, rng, rng.choice(self.payloads))
        kind = rng.random()
        if kind < 0.6:
            return joined(hostile(header, rng), buffers)
        if kind < 0.7:
            return joined(text_of(header, rng), buffers)
        if kind < 0.85:
            return joined(header, changed_numbers(buffers, rng))
        return damaged(payload, rng, rng.choice(self.payloads))

    def attempt(self, number):
        """Tries a case; returns "refused", "loaded" or raises."""
        data = self.file(number)
        self.path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", SnapshotWarning)
            try:
                trainer = fptt.load(self.path)
            except FpttError as error:
                self._resume()
                self._overwrite(data)
                if not str(error):
                    raise AssertionError("no message") from error
                return "refused"
            self._use(trainer)
            self._resume()
            self._overwrite(data)
        return "loaded"

    def _use(self, trainer):
        """What was let in must work: go on, learn, save, come back."""
        program = trainer.program
        if program.plan.arena_bytes > 1e6 or program.rule.parts > 100:
            return
        with contextlib.suppress(FpttError):
            if trainer.stream.rows in (None, 2):
                for _ in range(min(program.steps, 9)):
                    one_step(trainer)
            trainer.end_sequence()
        with contextlib.suppress(FpttError):
            trainer.end_epoch()
            for _ in range(2):
                one_step(trainer)
        self.out.unlink(missing_ok=True)
        trainer.save(self.out)
        if all(np.isfinite(v).all() for v in trainer.parameters().values()):
            fptt.load(self.out)

    def _overwrite(self, data):
        """Saving into the file, whatever it is; a header may ask for more than the disk has."""
        self.path.write_bytes(data)
        with contextlib.suppress(SaveError):
            self.saver.save(self.path)
            snapshot.read(self.path)

    def _resume(self):
        """The other way in."""
        with contextlib.suppress(FpttError):
            trainer = fptt.Trainer(self.saver.program, seed=7)
            trainer.fit(self.data, 2, checkpoint=self.path, resume=True)


def damaged(data, rng, other):
    """Bytes flipped, cut, doubled, exchanged with those of another file."""
    data, at = bytearray(data), rng.randrange(len(data) + 1)
    size = rng.choice([1, 2, 4, 8, 100, 4096])
    kind = rng.randrange(9)
    if kind == 0:
        for _ in range(rng.choice([1, 1, 8, 100])):
            if data:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        del data[at : at + size]
    elif kind == 3:
        data[at:at] = rng.randbytes(size)
    elif kind == 4:
        data[at : at + size] = rng.choice([bytes(size), b"\xff" * size, rng.randbytes(size)])
    elif kind == 5:
        data[at:] = other[rng.randrange(len(other) + 1) :]
    elif kind == 6:
        cut = rng.randrange(len(other) + 1)
        data[at : at + size] = other[cut : cut + size]
    elif kind == 7:  # one of the numbers at the beginning
        number = rng.choice([0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, rng.getrandbits(32)])
        at = 4 * rng.randrange(10) + rng.choice([0, 0, 4096])
        data[at : at + 4] = struct.pack("<I", number)
    else:
        return rng.choice([b"", rng.randbytes(size), slots.MAGIC + rng.randbytes(size)])
    return bytes(data)


def resigned(data, rng):
    """A number in the header of the container or of a slot, with a checksum that fits."""
    data = bytearray(data)
    start = rng.choice([0, 4096])
    if data[8:12] != b"\x02\0\0\0" or len(data) < start + 32:
        return bytes(data)
    at = start + 4 * rng.randrange(7)
    number = rng.choice([0, 1, 31, 32, 2**31, 2**32 - 1, rng.getrandbits(32)])
    data[at : at + 4] = struct.pack("<I", number)
    if rng.random() < 0.3:
        data[start + 8 : start + 24] = rng.randbytes(16)
    data[start : start + 32] = signed(bytes(data[start : start + 28]))
    return bytes(data)


WHOLE = [0, 1, -1, 2, 3, 5, 255, 2**31 - 1, 2**31, 2**32, 2**63, 2**64, 10**12, 10**30, 10**400]
STRANGE = [None, True, False, "", "x", "0", [], {}, [[]], {"": None}, [0], "\ud800", "a" * 1000]
REAL = [0.5, -0.5, 1e-320, 1e308, -1e308, math.nan, math.inf, -math.inf, 1.0, 0.0]


def hostile(header, rng):
    """The description with a value exchanged, taken away, added or doubled."""
    if not isinstance(header, dict):
        return header
    header = json.loads(json.dumps(header))
    names = ["program", "trainer", "extra", "buffers"]
    place, path = header, [rng.choice(names)]
    while path[-1] in keys(place):
        below = place[path[-1]]
        if not keys(below) or rng.random() < 0.15:
            break
        place = below
        path.append(rng.choice(keys(below)))
    key = path[-1]
    if key not in keys(place):
        return header
    kind = rng.random()
    if kind < 0.7:
        place[key] = rng.choice(rng.choice([WHOLE, WHOLE, STRANGE, REAL]))
    elif kind < 0.8:
        del place[key]
    elif kind < 0.9:
        if isinstance(place, list):
            place.append(place[key])
        else:
            place[rng.choice(["name", "x", "rows", "0.bias"])] = place[key]
    else:
        others = [*header.values(), names]
        place[key] = json.loads(json.dumps(rng.choice(others)))
    return header


def keys(place):
    """What leads from a place further down."""
    if isinstance(place, dict):
        return list(place)
    return list(range(len(place))) if isinstance(place, list) else []


def text_of(header, rng):
    """The description as text that is no good JSON, or strange JSON."""
    text = json.dumps(header)
    depth = rng.choice([10, 990, 5000, 200_000])
    deep = rng.choice(["[" * depth, "[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth])
    choices = [
        lambda: deep,
        lambda: text.replace("null", deep, 1),
        lambda: text.replace("}", "", 1),
        lambda: text[: rng.randrange(len(text))],
        lambda: text + rng.choice([" ", "x", "{}", "\0"]),
        lambda: text.replace("{", '{"program": 1, "net": 1, "rows": 1, ', 1),
        lambda: text.replace("1", "1" * rng.choice([30, 5000, 200_000]), 1),
        lambda: text.replace("2", rng.choice(["2.0", "2e0", "-2", "1e999", "NaN", "-Infinity"]), 1),
        lambda: "\ufeff" + text,
        lambda: " " * 100_000 + text,
    ]
    encoded = rng.choice(choices)().encode()
    return encoded if rng.random() < 0.9 else encoded.replace(b'"', b"\xff", 1)


def changed_numbers(buffers, rng):
    """Some of the numbers of the buffers exchanged for others."""
    data = bytearray(buffers)
    for _ in range(rng.choice([1, 3, 20])):
        at = 4 * rng.randrange(max(1, len(data) // 4))
        number = rng.choice([*REAL, 3.4e38])
        with np.errstate(over="ignore"):
            bits = rng.choice(
                [
                    np.float32(number).tobytes(),
                    np.float64(number).tobytes(),
                    struct.pack("<I", rng.choice([0, 1, 5, 2**31, 2**32 - 1])),
                ]
            )
        data[at : at + len(bits)] = bits
    return bytes(data[: len(buffers)])


def grown_by(before):
    """Bytes by which this process's largest memory has grown."""
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


@contextlib.contextmanager
def without_sync():
    """No power will be cut, so nothing has to wait for the disk."""
    fsync = os.fsync
    os.fsync = lambda handle: None
    try:
        yield
    finally:
        os.fsync = fsync


def campaign(numbers, seconds=math.inf, report=print):
    """Tries cases until the time is over; returns how each ended, and the failures."""
    found, failures, slowest = {"refused": 0, "loaded": 0}, [], 0.0
    memory_disk = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory_disk) as folder, without_sync():
        fuzz = Fuzz(folder)
        fuzz.attempt(0)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        end = time.monotonic() + seconds
        for number in numbers:
            started = time.monotonic()
            if started > end:
                break
            try:
                found[fuzz.attempt(number)] += 1
            except Exception:
                failures.append(number)
                report(f"case {number}:\n{traceback.format_exc()}")
            taken = time.monotonic() - started
            slowest = max(slowest, taken)
            if taken > LIMIT_S:
                failures.append(number)
                report(f"case {number} took {taken:.1f} s")
            if grown_by(memory) > LIMIT_BYTES:
                failures.append(number)
                report(f"case {number}: {grown_by(memory):,} bytes more than at the start")
                memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report(
        f"{sum(found.values()) + len(failures)} cases, {found['refused']} refused, "
        f"{found['loaded']} loaded, {len(failures)} failed; the slowest took {slowest:.2f} s, "
        f"{grown_by(memory):,} bytes more than at the start"
    )
    return found, failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--cases", type=int, default=None)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    numbers = itertools.count(given.first)
    if given.cases is not None:
        numbers = itertools.islice(numbers, given.cases)
    failures = campaign(numbers, given.seconds)[1]
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
