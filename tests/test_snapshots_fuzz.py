"""The loader against damaged and hostile files: the first cases of tests/fuzz_snapshots.py."""

import json
import re
import subprocess
import sys
import time

import fuzz_snapshots
import numpy as np
import pytest
from snapshots import LAYERS, contents, first_version, joined, parted, train, trainer_of, two_slots

import fptt
from fptt.errors import InputError

BLOCK, BLOCKS = 200, 5


@pytest.mark.parametrize("block", range(BLOCKS))
def test_the_first_cases(block):
    lines = []
    numbers = range(block * BLOCK, (block + 1) * BLOCK)
    found, failures = fuzz_snapshots.campaign(numbers, report=lines.append)
    assert not failures, "\n".join(lines)
    assert sum(found.values()) == BLOCK
    assert min(found.values()) > BLOCK / 20


def test_a_case_is_its_number(tmp_path):
    one, two = (fuzz_snapshots.Fuzz(tmp_path) for _ in range(2))
    drop = re.compile(rb'"seconds": [-0-9.e]+')  # of the epoch
    for number in range(30):
        one.files = two.files
        one.payloads = two.payloads
        assert drop.sub(b"", one.file(number)) == drop.sub(b"", two.file(number))


@pytest.mark.parametrize("number", [111369, 138591])
def test_cases_that_failed_once(number):
    """A position of 0.0; a target that float32 does not hold."""
    lines = []
    assert not fuzz_snapshots.campaign([number], report=lines.append)[1], lines


@pytest.mark.parametrize("module", [True, False], ids=["module", "file"])
def test_the_long_campaign_is_a_command(module):
    command = ["-m", "tests.fuzz_snapshots"] if module else [fuzz_snapshots.__file__]
    done = subprocess.run(
        [sys.executable, *command, "--first", "5", "--cases", "3", "--seconds", "60"],
        cwd=fuzz_snapshots.HERE.parent,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"3 cases, \d refused, \d loaded, 0 failed", done.stdout)


def test_a_case_that_fails_is_told(monkeypatch):
    """Or the campaign would find nothing."""

    def broken(path):
        raise KeyError("rows")

    monkeypatch.setattr(fptt, "load", broken)
    monkeypatch.setattr(fuzz_snapshots.Fuzz, "__init__", lambda self, folder: None)
    monkeypatch.setattr(fuzz_snapshots.Fuzz, "attempt", lambda self, n: broken(n) if n else None)
    lines = []
    assert fuzz_snapshots.campaign([1], report=lines.append)[1] == [1]
    assert lines[0].startswith("case 1:\nTraceback")


# --- contents that a checksum does not find ----------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def payload(folder):
    """A state in the middle of a part."""
    trainer = trainer_of()
    train(trainer)
    trainer.step([[0.5], [0.25]], [0, 1])
    trainer.save(folder / "state.fptt")
    return contents(folder / "state.fptt")


def set_in(*path):
    *path, value = path

    def change(header):
        for key in path[:-1]:
            header = header[key]
        header[path[-1]] = value

    return change


def without(*path):
    def change(header):
        for key in path[:-1]:
            header = header[key]
        del header[path[-1]]

    return change


UNUSABLE = "holds no training state that can be taken up: "
CANNOT = "the snapshot describes a program that this version of fptt cannot build "
HOSTILE = {
    "no program": (without("program"), UNUSABLE + "its description lacks 'program'"),
    "no seed": (without("trainer", "seed"), UNUSABLE + "its description lacks what"),
    "buffers": (set_in("buffers", 0, "shape", [-1, 2]), UNUSABLE + "its description of the buf"),
    "real shape": (set_in("buffers", 0, "shape", [2.0]), UNUSABLE + "its description of the buf"),
    "overflow": (
        set_in("buffers", 0, "shape", [2**32, 2**32]),
        UNUSABLE + "its buffer input ends behind the end of the file",
    ),
    "type": (set_in("buffers", 0, "type", "O"), UNUSABLE + "its description of the buffers"),
    "other type": (set_in("buffers", 0, "type", "<i4"), UNUSABLE + "its buffer input is int32 ["),
    "other shape": (set_in("buffers", 0, "shape", [1, 2, 2]), UNUSABLE + "its buffer input is"),
    "name": (set_in("buffers", 0, "name", "x"), UNUSABLE + "its buffers are not those of the"),
    "twice": (set_in("buffers", 1, "name", "input"), UNUSABLE + "it has two buffers input"),
    "one less": (lambda h: h["buffers"].pop(), UNUSABLE + "it goes on behind its last buffer"),
    "epoch": (set_in("trainer", "epoch", -1), UNUSABLE + "its epoch is -1"),
    "seed": (set_in("trainer", "seed", -1), "Trainer: seed is -1; give a whole number"),
    "rows": (set_in("trainer", "stream", "rows", 3), UNUSABLE + "its stream has 3 rows"),
    "position": (set_in("trainer", "stream", "position", 2), UNUSABLE + "its part in flight is n"),
    "beyond": (set_in("trainer", "stream", "position", 4), UNUSABLE + "its stream stands at step"),
    "half a step": (set_in("trainer", "stream", "position", 1.0), UNUSABLE + "its stream stands"),
    "frame": (set_in("trainer", "stream", "frame", [1, 2, 1, 0]), UNUSABLE + "its part in flight"),
    "label": (set_in("trainer", "stream", "targets", [[0, 2]]), UNUSABLE + "its stream has the t"),
    "no target": (set_in("trainer", "stream", "targets", []), UNUSABLE + "its stream has not one"),
    "no stream": (set_in("trainer", "stream", "rows", None), UNUSABLE + "its stream has a posit"),
    "net": (set_in("program", "net", 5), CANNOT),
    "layer": (set_in("program", "net", 0, "layer", []), CANNOT),
    "hidden": (set_in("program", "net", 0, "hidden", 10**400), CANNOT),
    "large": (set_in("program", "net", 0, "hidden", 10**9), "Network: layer 1: Linear(2, 2) takes"),
    "batch": (set_in("program", "batch", 3), UNUSABLE + "its buffer input is float32"),
    # so many rows need one more buffer
    "large batch": (set_in("program", "batch", 10**12), UNUSABLE + "its buffers are not those"),
    "rule": (set_in("program", "rule", "name", "SGD"), CANNOT),
    "optimizer": (set_in("program", "optimizer", "lr", 10**400), "Trainer: lr is 1"),
    "base": (set_in("program", "optimizer", {"name": "Optimizer", "lr": 1.0}), CANNOT),
    "words": (set_in("program", "loss", "abc"), CANNOT),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_contents_with_checksums_that_fit(folder, payload, name):
    change, message = HOSTILE[name]
    header, buffers = parted(payload)
    change(header)
    for make in (first_version, two_slots):
        path = folder / "hostile.fptt"
        path.write_bytes(make(joined(header, buffers)))
        if message.startswith(UNUSABLE):
            wanted = re.escape(f"{path} {message}") + ".*; use an earlier snapshot"
        else:
            wanted = re.escape(message) + ".*"
        with pytest.raises(InputError, match=f"^{wanted}$"):
            fptt.load(path)


@pytest.mark.parametrize("parts", [1, 10**9])
def test_enormous_numbers_of_steps_cost_nothing(folder, parts):
    """They are possible, so they may be let in; but not one by one."""
    path = folder / "steps.fptt"
    trainer_of(rule=fptt.FPTT(parts=1)).save(path)
    header, buffers = parted(contents(path))
    header["program"]["steps"] = 10**9 if parts > 1 else 10**15
    header["program"]["rule"]["parts"] = parts
    path.write_bytes(two_slots(joined(header, buffers)))
    started = time.process_time()
    if parts == 1:
        with pytest.raises(fptt.FpttError, match=r"fewer than 2\^31 rows in a part"):
            fptt.load(path)
    else:
        assert fptt.load(path).program.part_steps == 1
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000, b"\xff", b"nul", b"", b"[]", b"1"]
)
def test_a_description_that_is_none(folder, payload, text):
    path = folder / "text.fptt"
    path.write_bytes(two_slots(joined(text, b"")))
    message = re.escape(f"{path} {UNUSABLE}its description is no JSON") + ".*"
    with pytest.raises(InputError, match=message):
        fptt.load(path)


@pytest.mark.parametrize("size", [0, 1, 3, 4])
def test_contents_that_end_too_soon(folder, size):
    path = folder / "short.fptt"
    path.write_bytes(two_slots(b"\xff" * size))
    with pytest.raises(InputError, match=re.escape(f"{path} {UNUSABLE}it")):
        fptt.load(path)


def buffer_of(payload, name):
    """Where a buffer of a state lies, and its type."""
    header, buffers = parted(payload)
    offset = len(payload) - len(buffers)
    for item in header["buffers"]:
        size = int(np.prod(item["shape"])) * np.dtype(item["type"]).itemsize
        if item["name"] == name:
            return slice(offset, offset + size), item["type"]
        offset += size
    raise AssertionError(name)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["1.weight", "lambda/1.weight", "mean/0.bias", "lr"])
def test_what_is_learnt_must_be_finite(folder, payload, name, value):
    path, data = folder / "nan.fptt", bytearray(payload)
    where, kind = buffer_of(payload, name)
    data[where] = np.full((where.stop - where.start) // 4, value, kind).tobytes()
    path.write_bytes(two_slots(bytes(data)))
    message = f"{path} {UNUSABLE}its buffer {name} contains NaN or Inf; use an earlier snapshot"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        fptt.load(path)


def test_tokens_and_labels_must_be_some(folder):
    """They are indices: one outside would fail in the middle of learning."""
    trainer = trainer_of([("Embedding", 5, 2), ("RNN", 2, 2), ("Linear", 2, 3)])
    trainer.step([1, 4], [0, 2])
    path = folder / "tokens.fptt"
    trainer.save(path)
    good = contents(path)
    for name, value in [("input", 5), ("input", -1), ("target", 3), ("target", -2)]:
        where, kind = buffer_of(good, name)
        data = bytearray(good)
        data[where.start : where.start + 4] = np.array([value], kind).tobytes()
        path.write_bytes(two_slots(bytes(data)))
        message = f"{path} {UNUSABLE}its buffer {name} contains what is no token or label;"
        with pytest.raises(InputError, match=re.escape(message)):
            fptt.load(path)


def test_numbers_must_be_some_of_bfloat16(folder):
    path = folder / "bfloat16.fptt"
    trainer_of(dtype="bfloat16").save(path)
    data = bytearray(contents(path))
    where, _ = buffer_of(bytes(data), "1.weight")
    data[where.start] |= 1
    path.write_bytes(two_slots(bytes(data)))
    message = f"{path} {UNUSABLE}its buffer 1.weight contains numbers that bfloat16 does not have;"
    with pytest.raises(InputError, match=re.escape(message)):
        fptt.load(path)


FIT = {
    "no fit": without("fit"),
    "another": set_in("fit", "x", 1),
    "batch": set_in("fit", "batch", -1),
    "epoch": set_in("fit", "epoch", 0.5),
    "rows": set_in("fit", "rows", [1]),
    "sum": set_in("fit", "loss_sum", 10**400),
    "memory": set_in("fit", "memory", {"best": "x"}),
    "own": set_in("own", []),
    "no data": without("own", "data"),
}


@pytest.mark.parametrize("name", FIT)
def test_a_checkpoint_whose_position_is_none(folder, name):
    x, y = np.ones((4, 4, 1), np.float32), np.zeros(4, int)
    path = folder / f"{name}.ckpt"
    trainer_of(LAYERS).fit((x, y), 1, checkpoint=path)
    header, buffers = parted(contents(path))
    FIT[name](header["extra"])
    path.write_bytes(two_slots(joined(json.loads(json.dumps(header)), buffers)))
    trainer = trainer_of(LAYERS)
    message = f"{path} was not written during fit; load it with fptt.load"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        trainer.fit((x, y), 2, checkpoint=path, resume=True)


def test_what_does_not_fit_changes_nothing(folder, payload):
    """restore checks everything before it writes anything."""
    from fptt.storage import snapshot

    trainer = trainer_of()
    path = folder / "other.fptt"
    header, buffers = parted(payload)
    header["trainer"]["stream"]["targets"] = [[0, 9]]
    path.write_bytes(two_slots(joined(header, buffers)))
    before = {name: value.tobytes() for name, value in trainer.parameters().items()}
    with pytest.raises(InputError):
        snapshot.restore(trainer, *snapshot.read(path), path)
    assert before == {name: value.tobytes() for name, value in trainer.parameters().items()}
    assert trainer.stream.rows is None
