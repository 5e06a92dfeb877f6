"""Files: nothing half written, nothing damaged taken for whole, everything comes back."""

import contextlib
import errno
import itertools
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from cases import assert_bits_equal, random_data

import fptt
import fptt.storage.files
from fptt import cli
from fptt.errors import InputError, SaveError
from fptt.storage import slotfile, slots, snapshot
from fptt.storage.files import read_bytes, write_atomically
from fptt.storage.modelfile import load_model, save_model

OLD, NEW = b"what was there before", b"new" * 40_000


def full(text, **names):
    """A regular expression for a whole message: `text` with <...> for anything."""
    return "^" + re.escape(text.format(**names)).replace(re.escape("<...>"), ".+") + r"\Z"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- writing ----------


def no_space(*arguments, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class HalfWritten:
    """A file on which only the first half of the data still fits."""

    def __init__(self, file, at):
        self._file, self._at = file, at

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()
        if self._at == "close" and error[0] is None:
            no_space()

    def write(self, data):
        self._file.write(data[: len(data) // 2] if self._at == "write" else data)
        if self._at == "write":
            no_space()

    def truncate(self):
        self._file.truncate()

    def flush(self):
        self._file.flush()
        if self._at == "flush":
            no_space()

    def fileno(self):
        return self._file.fileno()


POINTS = ["open", "write", "flush", "fsync", "close", "replace"]


def fail_at(monkeypatch, point):
    if point in ("fsync", "replace"):
        monkeypatch.setattr(os, point, no_space)
    elif point == "open":
        monkeypatch.setattr(fptt.storage.files, "open", no_space, raising=False)
    else:

        def half_opened(*arguments):
            return HalfWritten(open(*arguments), point)

        monkeypatch.setattr(fptt.storage.files, "open", half_opened, raising=False)


@pytest.mark.parametrize("exists", [True, False], ids=["replacing", "new"])
@pytest.mark.parametrize("point", POINTS)
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, point, exists):
    path = tmp_path / "file"
    if exists:
        path.write_bytes(OLD)
    before = names(tmp_path)
    fail_at(monkeypatch, point)
    message = "cannot write {path}: No space left on device; what was there before is untouched"
    with pytest.raises(SaveError, match=full(message, path=path)) as caught:
        write_atomically(path, NEW)
    assert caught.value.exit_code == 1
    assert names(tmp_path) == before
    assert not exists or path.read_bytes() == OLD
    monkeypatch.undo()
    write_atomically(path, NEW)
    assert (path.read_bytes(), names(tmp_path)) == (NEW, ["file"])


@pytest.mark.parametrize("point", ["fsync", "replace"])
def test_ctrl_c_while_writing_leaves_nothing_behind(tmp_path, monkeypatch, point):
    def stop(*arguments):
        raise KeyboardInterrupt

    path = tmp_path / "file"
    path.write_bytes(OLD)
    monkeypatch.setattr(os, point, stop)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, NEW)
    assert (path.read_bytes(), names(tmp_path)) == (OLD, ["file"])


def test_the_data_reach_the_disk_before_the_name_does(tmp_path, monkeypatch):
    """fsync of the whole data, then the renaming, then fsync of the folder."""
    seen = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(handle):
        kind = os.fstat(handle)
        seen.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else kind.st_size)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", lambda *a: (seen.append("replace"), replace(*a)))
    write_atomically(tmp_path / "file", NEW)
    assert seen == [len(NEW), "replace", "folder"]


def test_a_folder_that_cannot_be_synchronised_is_no_error(tmp_path, monkeypatch):
    fsync, calls = os.fsync, []

    def second_fails(handle):
        calls.append(handle)
        return fsync(handle) if len(calls) == 1 else no_space()

    monkeypatch.setattr(os, "fsync", second_fails)
    write_atomically(tmp_path / "file", NEW)
    assert len(calls) == 2
    assert (tmp_path / "file").read_bytes() == NEW


@pytest.mark.parametrize("kind", ["folder", "fifo", "link to a fifo", "link to a folder"])
def test_what_is_no_plain_file_is_refused(tmp_path, kind):
    real = tmp_path / "real"
    os.mkfifo(real) if "fifo" in kind else real.mkdir()
    path = real
    if "link" in kind:
        path = tmp_path / "link"
        path.symlink_to(real)
    before = names(tmp_path)
    message = "{path} is no plain file; give the path of a file to write"
    with pytest.raises(InputError, match=full(message, path=real)):
        write_atomically(path, NEW)
    assert names(tmp_path) == before
    assert real.is_fifo() if "fifo" in kind else real.is_dir()
    assert path.is_symlink() == ("link" in kind)


def test_a_missing_folder(tmp_path):
    message = "the folder of {path} does not exist; create it first"
    for path in (tmp_path / "no" / "file", tmp_path / "plain" / "file"):
        (tmp_path / "plain").write_bytes(OLD)
        with pytest.raises(InputError, match=full(message, path=path)):
            write_atomically(path, NEW)
    assert names(tmp_path) == ["plain"]


def test_a_folder_without_permission(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    message = "the folder of {path} cannot be written to; choose another one"
    with pytest.raises(InputError, match=full(message, path=tmp_path / "file")):
        write_atomically(tmp_path / "file", NEW)


@pytest.mark.parametrize("exists", [True, False], ids=["replacing", "new"])
def test_a_link_is_followed(tmp_path, exists):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "target", tmp_path / "link"
    if exists:
        target.write_bytes(OLD)
    link.symlink_to(target)
    write_atomically(link, NEW)
    assert link.is_symlink()
    assert target.read_bytes() == NEW
    assert names(tmp_path / "elsewhere") == ["target"]


def test_a_name_that_is_too_long(tmp_path):
    path = tmp_path / ("n" * 250)
    message = "cannot write {path}: File name too long; what was there before is untouched"
    with pytest.raises(SaveError, match=full(message, path=path)):
        write_atomically(path, NEW)
    assert names(tmp_path) == []


def test_reading_what_is_not_there(tmp_path):
    with pytest.raises(
        InputError, match=full("cannot read the map {p}: Is a directory", p=tmp_path)
    ):
        read_bytes(tmp_path, "the map")


# --- a disk that is really full ----------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("there is no mount program")
    if mounted.returncode:
        pytest.skip("this user cannot mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_really_full_disk(small_disk):
    path = small_disk / "file"
    write_atomically(path, OLD)
    message = "cannot write {path}: No space left on device; what was there before is untouched"
    with pytest.raises(SaveError, match=full(message, path=path)):
        write_atomically(path, NEW)
    assert (path.read_bytes(), names(small_disk)) == (OLD, ["file"])


@pytest.mark.parametrize("option", ["--out", "--checkpoint"])
def test_a_full_disk_through_the_command_line(small_disk, tmp_path, capsys, option):
    """One line, exit code 1, and the older file can still be used."""
    data, path = tmp_path / "data.npz", small_disk / "file"
    np.savez(data, x=np.ones((16, 4, 2)), y=np.arange(16) % 2)
    base = ["train", "--data", str(data), "--hidden", "8", option, str(path)]
    assert cli.main([*base, "--epochs", "1"]) == 0
    whole = path.read_bytes()
    with open(small_disk / "filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1024)):
            pass
    capsys.readouterr()
    more = ["--resume"] if option == "--checkpoint" else []
    assert cli.main([*base, "--epochs", "2", *more]) == 1
    out, err = capsys.readouterr()
    message = (
        "fptt: cannot write {path}: No space left on device; what was there before is untouched"
    )
    assert re.fullmatch(full(message, path=path), err.splitlines()[-1])
    assert (out, "Traceback" in err) == ("", False)
    assert path.read_bytes() == whole
    assert names(small_disk) == ["file", "filler"]
    (small_disk / "filler").unlink()
    assert cli.main([*base, "--epochs", "2", *more]) == 0
    assert path.read_bytes() != whole


def test_standard_output_on_a_full_disk(small_disk):
    environment = {**os.environ, "PYTHONPATH": str(Path(fptt.__file__).parents[1])}
    (small_disk / "filler").write_bytes(bytes(60_000))
    for arguments in (["plan", "--json", "--parts", "1,2,4,7,14,28,56"], ["plan", "--program"]):
        with open(small_disk / "out", "w") as file:
            done = subprocess.run(
                [sys.executable, "-m", "fptt", *arguments],
                stdout=file,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
        assert done.returncode == 1
        assert done.stderr == "fptt: cannot write the output: No space left on device\n"


# --- snapshots ----------

LSTM = [("LSTM", 3, 4), ("Linear", 4, 3)]


def network(layers):
    return fptt.Network([getattr(fptt, kind)(*size) for kind, *size in layers])


def trainer_of(layers=LSTM, rule=None, optimizer=None, *, seed=7, **options):
    program = fptt.build(
        network(layers),
        rule or fptt.FPTT(parts=3, alpha=0.4),
        optimizer or fptt.SGD(0.1, 0.9),
        **{"steps": 7, "batch": 4, **options},
    )
    return fptt.Trainer(program, seed=seed)


def some_batches(trainer, layers, count, seed=0):
    program = trainer.program
    every = "every_step" if program.schedule.every_step else "last"
    batches = [random_data(layers, 4, 7, every, program.criterion, seed + n) for n in range(count)]
    return [trainer.train_batch(x, y) for x, y in batches]


def contents(path):
    """The newest state of a snapshot, without the container."""
    with open(path, "rb", buffering=0) as file:
        disk = slotfile.Disk(file)
        return bytes(slots.load(disk, slots.read_layout(disk)).payload)


@pytest.fixture(scope="module")
def whole_snapshot(tmp_path_factory):
    """A snapshot of the first version; those of two slots have tests/test_snapshots_*.py."""
    trainer = trainer_of()
    some_batches(trainer, LSTM, 2)
    path = tmp_path_factory.mktemp("snapshot") / "whole.fptt"
    trainer.save(path)
    return signed(b"FPTTSNAP" + struct.pack("<I", 1) + contents(path))


def sampled(size, count, first, last, seed=0):
    """Positions: the first and last ones, and others at random."""
    rng = np.random.default_rng(seed)
    inner = rng.choice(np.arange(first, size - last), count, replace=False)
    return [*range(first), *sorted(inner.tolist()), *range(size - last, size)]


NO_SNAPSHOT = (
    "{path} is not a snapshot of fptt; give a file that --checkpoint or Trainer.save wrote"
)
DAMAGED = (
    "{path} is damaged: its checksum does not fit, it may be truncated; use an earlier snapshot"
)


def test_a_snapshot_that_is_cut_off_anywhere(tmp_path, whole_snapshot):
    path = tmp_path / "cut.fptt"
    for size in sampled(len(whole_snapshot), 200, 64, 16):
        path.write_bytes(whole_snapshot[:size])
        message = full(NO_SNAPSHOT if size < 8 else DAMAGED, path=path)
        with pytest.raises(InputError, match=message):
            fptt.load(path)


def test_a_snapshot_with_one_bit_wrong(tmp_path, whole_snapshot):
    path = tmp_path / "bit.fptt"
    rng = np.random.default_rng(1)
    for at in sampled(len(whole_snapshot), 300, 64, 16):
        data = bytearray(whole_snapshot)
        data[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        message = full(NO_SNAPSHOT if at < 8 else DAMAGED, path=path)
        with pytest.raises(InputError, match=message):
            fptt.load(path)


@pytest.mark.parametrize("change", ["longer", "swapped", "zeros"])
def test_a_snapshot_damaged_in_other_ways(tmp_path, whole_snapshot, change):
    path, middle = tmp_path / "other.fptt", len(whole_snapshot) // 2
    changed = {
        "longer": whole_snapshot + b"\0",
        "swapped": whole_snapshot[:middle]
        + whole_snapshot[middle:][:8][::-1]
        + whole_snapshot[middle + 8 :],
        "zeros": whole_snapshot[:-100] + bytes(100),
    }
    path.write_bytes(changed[change])
    with pytest.raises(InputError, match=full(DAMAGED, path=path)):
        fptt.load(path)


def signed(body):
    return body + struct.pack("<I", zlib.crc32(body))


@pytest.mark.parametrize("version", [0, 3, 2**32 - 1])
def test_a_snapshot_of_another_version(tmp_path, whole_snapshot, version):
    path = tmp_path / "version.fptt"
    body = whole_snapshot[:-4]
    path.write_bytes(signed(body[:8] + struct.pack("<I", version) + body[12:]))
    message = "{path} has snapshot version {version}; this fptt reads the versions 1 and 2"
    with pytest.raises(InputError, match=full(message, path=path, version=version)):
        fptt.load(path)


def with_header(data, change):
    """The snapshot with its header changed and the checksum made to fit."""
    (length,) = struct.unpack("<I", data[12:16])
    header = json.loads(data[16 : 16 + length])
    change(header)
    text = json.dumps(header).encode()
    return signed(data[:12] + struct.pack("<I", len(text)) + text + data[16 + length : -4])


def test_a_snapshot_of_a_later_fptt(tmp_path, whole_snapshot):
    path = tmp_path / "later.fptt"
    message = "the snapshot describes a program that this version of fptt cannot build (<...>)"
    for key, value in [
        ("rule", {"name": "EProp"}),
        ("rule", {"name": "FPTT", "parts": 3, "gamma": 1}),
        ("optimizer", {"name": "Lion", "lr": 1.0}),
    ]:
        path.write_bytes(with_header(whole_snapshot, lambda h: h["program"].update({key: value})))  # noqa: B023
        with pytest.raises(InputError, match=full(message)):
            fptt.load(path)
    layers = [{"layer": "Spiking"}]
    path.write_bytes(with_header(whole_snapshot, lambda h: h["program"].update(net=layers)))
    message = "the file names a layer 'Spiking' that this version does not know; it knows <...>"
    with pytest.raises(InputError, match=full(message)):
        fptt.load(path)


def test_other_files_are_no_snapshots(tmp_path):
    trainer = trainer_of()
    trainer.save_parameters(tmp_path / "model")
    np.savez(tmp_path / "data.npz", x=np.ones(3))
    (tmp_path / "empty").write_bytes(b"")
    for name in ("model", "data.npz", "empty"):
        with pytest.raises(InputError, match=full(NO_SNAPSHOT, path=tmp_path / name)):
            fptt.load(tmp_path / name)
    message = "cannot read the snapshot {path}: No such file or directory"
    with pytest.raises(InputError, match=full(message, path=tmp_path / "none")):
        fptt.load(tmp_path / "none")


OTHERS = {
    "network": dict(layers=[("LSTM", 3, 5), ("Linear", 5, 3)]),
    "cell": dict(layers=[("GRU", 3, 4), ("Linear", 4, 3)]),
    "rule": dict(rule=fptt.TBPTT(parts=3)),
    "alpha": dict(rule=fptt.FPTT(parts=3, alpha=0.5)),
    "optimizer": dict(optimizer=fptt.Adam(0.1)),
    "dtype": dict(dtype="float64"),
    "activations": dict(activation_dtype="bfloat16"),
    "loss": dict(loss="auxiliary"),
    "criterion": dict(criterion="mse"),
    "steps": dict(steps=8),
    "batch": dict(batch=5),
    "clip": dict(clip=1.0),
    "train": dict(train=("1.*",)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_snapshot_of_another_program_changes_nothing(tmp_path, whole_snapshot, name):
    path = tmp_path / "whole.fptt"
    path.write_bytes(whole_snapshot)
    other = trainer_of(**OTHERS[name])
    before, state = other.parameters(), other.state()
    message = (
        "{path} is of another training program: its <...> is <...>, here it is <...>; use the same "
        "options, or start without it"
    )
    with pytest.raises(InputError, match=full(message, path=path)):
        snapshot.restore(other, *snapshot.read(path), path)
    assert_bits_equal(other.parameters(), before, "parameters")
    assert_bits_equal(other.state(), state, "state")


CELLS = {
    "LSTM": LSTM,
    "GRU": [("GRU", 3, 4), ("Linear", 4, 3)],
    "RNN": [("Embedding", 5, 3), ("RNN", 3, 4), ("Dropout", 0.4), ("Linear", 4, 3)],
}
RULES = {
    "BPTT": fptt.BPTT(),
    "TBPTT": fptt.TBPTT(parts=3),
    "FPTT": fptt.FPTT(parts=3, alpha=0.4),
    "paper": fptt.FPTT(parts=3, alpha=0.4, mode="paper", state="carry"),
    "no R": fptt.FPTT(parts=3, regularise=False),
}
OPTIMIZERS = {"SGD": fptt.SGD(0.1), "momentum": fptt.SGD(0.1, 0.9), "Adam": fptt.Adam(0.01)}
DTYPES = ["float32", "float64", "bfloat16"]
ROUND_TRIPS = {
    "-".join(names): (
        CELLS[names[0]],
        dict(rule=RULES[names[1]], optimizer=OPTIMIZERS[names[2]], dtype=names[3]),
    )
    for names in itertools.product(CELLS, RULES, OPTIMIZERS, DTYPES)
}
ROUND_TRIPS |= {
    "auxiliary": (LSTM, dict(loss=fptt.Auxiliary(rate=0.3))),
    "auxiliary per part": (LSTM, dict(loss=fptt.Auxiliary(rate=0.3, per_part=True))),
    "mse": (LSTM, dict(criterion="mse")),
    "every step": (LSTM, dict(loss="every_step")),
    "clip": (LSTM, dict(clip=0.5)),
    "frozen": (LSTM, dict(train=("1.*",))),
    "activations": (LSTM, dict(activation_dtype="bfloat16")),
}


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_a_snapshot_brings_everything_back(tmp_path, name):
    """Parameters, state and options; and training goes on with the same bits."""
    layers, options = ROUND_TRIPS[name]
    trainer, path = trainer_of(layers, **options), tmp_path / "state.fptt"
    fresh = {name: value / 2 for name, value in trainer.parameters().items()}
    trainer.load_parameters(fresh)  # not those that the seed draws
    some_batches(trainer, layers, 2)
    trainer.end_epoch()
    some_batches(trainer, layers, 1, seed=5)
    trainer.lr = 0.0625
    trainer.save(path)
    again = fptt.load(path)
    assert any(not np.array_equal(fresh[n], v) for n, v in trainer.parameters().items())
    assert snapshot.describe(again.program) == snapshot.describe(trainer.program)
    assert (again.seed, again.epoch, again.lr) == (7, 1, 0.0625)
    for _ in range(2):
        assert_bits_equal(again.parameters(), trainer.parameters(), "parameters")
        assert_bits_equal(again.state(), trainer.state(), "state")
        assert some_batches(again, layers, 2, seed=9) == some_batches(trainer, layers, 2, seed=9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_snapshot_is_loaded_on_the_back_end_of_a_new_trainer(tmp_path, dtype):
    """Unless another one is asked for."""
    trainer, path = trainer_of(dtype=dtype), tmp_path / "state.fptt"
    trainer.save(path)
    assert fptt.load(path).backend.name == trainer.backend.name
    assert fptt.load(path, backend="reference").backend.name == "reference"


@pytest.mark.usefixtures("each_backend")
def test_the_dropout_counter_comes_back(tmp_path):
    layers = CELLS["RNN"]
    trainer, path = trainer_of(layers), tmp_path / "state.fptt"
    some_batches(trainer, layers, 3)
    trainer.save(path)
    seed, counter = trainer.state()["random"]
    assert (seed, counter > 0) == (7, True)
    assert fptt.load(path).state()["random"].tolist() == [seed, counter]


def test_the_first_bytes_of_a_snapshot(tmp_path):
    """The layout that the modules document; a change of it needs a new version."""
    path = tmp_path / "state.fptt"
    trainer_of().save(path)
    whole = path.read_bytes()
    head = struct.unpack("<8sIIQII", whole[:32])
    capacity = head[3]
    assert head[:5] == (b"FPTTSNAP", 2, 4096, capacity, 0)
    assert capacity % 4096 == 0
    assert head[5] == zlib.crc32(whole[:28])
    slot = struct.unpack("<4sIQIIII", whole[4096 : 4096 + 32])
    payload = whole[4096 + 32 :]
    assert slot == (b"SLOT", 2, len(payload), 0, zlib.crc32(payload), 0, slot[6])
    assert slot[6] == zlib.crc32(whole[4096 : 4096 + 28])
    (length,) = struct.unpack("<I", payload[:4])
    header = json.loads(payload[4 : 4 + length])
    assert set(header) == {"program", "trainer", "extra", "buffers"}
    sizes = [np.dtype(b["type"]).itemsize * int(np.prod(b["shape"])) for b in header["buffers"]]
    assert len(payload) == 4 + length + sum(sizes)
    trainer_of(seed=8).save(path)
    again = path.read_bytes()
    assert again[: len(whole)] == whole
    second = struct.unpack("<4sIQIIII", again[4096 + capacity :][:32])
    assert second[:4] == (b"SLOT", 2, len(again) - 4096 - capacity - 32, 1)
    assert fptt.load(path).seed == 8


FIRST_VERSION = Path(__file__).parent / "data" / "snapshot_v1.fptt"


@pytest.mark.usefixtures("each_backend")
def test_a_snapshot_that_fptt_wrote_before_there_were_slots(tmp_path):
    """It loads, and saving over it makes a file of two slots."""
    path = tmp_path / "old.fptt"
    path.write_bytes(FIRST_VERSION.read_bytes())
    trainer = fptt.load(path)
    assert (trainer.seed, trainer.epoch, trainer.lr) == (7, 1, 0.0625)
    assert trainer.program.keep_gradients  # as all programs did then
    data = path.read_bytes()
    (length,) = struct.unpack("<I", data[12:16])
    offset = 16 + length
    for item in json.loads(data[16:offset])["buffers"]:
        values = np.frombuffer(data, item["type"], int(np.prod(item["shape"])), offset)
        offset += values.nbytes
        found = trainer.backend.read(item["name"])
        assert found[: item["shape"][0]].tobytes() == values.tobytes(), item["name"]
    assert offset == len(data) - 4
    # a program of today, which keeps no gradients, goes on from it, too
    header, arrays = snapshot.read(path)
    options = {**snapshot.describe(trainer.program), "keep_gradients": False}
    today = fptt.Trainer(snapshot.rebuild(options), seed=7)
    snapshot.restore(today, header, arrays, path)
    assert_bits_equal(today.parameters(), trainer.parameters(), "parameters")
    assert_bits_equal(today.state(), trainer.state(), "state")
    trainer.save(path)
    assert path.read_bytes()[:12] == b"FPTTSNAP" + struct.pack("<I", 2)
    again = fptt.load(path)
    for _ in range(2):
        assert_bits_equal(again.parameters(), trainer.parameters(), "parameters")
        assert_bits_equal(again.state(), trainer.state(), "state")
        assert some_batches(again, LSTM, 2) == some_batches(trainer, LSTM, 2)


def test_saving_on_a_full_disk_keeps_the_older_snapshot(tmp_path, monkeypatch):
    trainer, path = trainer_of(), tmp_path / "state.fptt"
    trainer.save(path)
    before = trainer.parameters()
    some_batches(trainer, LSTM, 1)
    fail_at(monkeypatch, "write")
    monkeypatch.setattr(os, "posix_fallocate", no_space)
    message = "cannot write {path}: No space left on device; what was there before is untouched"
    for save in (trainer.save, trainer.save_parameters):
        with pytest.raises(SaveError, match=full(message, path=path)):
            save(path)
    monkeypatch.undo()
    assert_bits_equal(fptt.load(path).parameters(), before, "parameters")
    assert names(tmp_path) == ["state.fptt"]


# --- model files ----------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_a_model_comes_back(tmp_path, cell, dtype):
    layers, path = CELLS[cell], tmp_path / "model.st"
    trainer = trainer_of(layers, dtype=dtype, loss="every_step")
    some_batches(trainer, layers, 1)
    trainer.save_parameters(path)
    model = load_model(path)
    assert model.net == trainer.program.net
    assert (model.loss, model.criterion, model.notes) == ("every_step", "cross_entropy", {})
    assert_bits_equal(model.net.weights, trainer.parameters(), "weights")
    again = fptt.Trainer(
        fptt.build(model.net, fptt.BPTT(), steps=7, batch=4, dtype=dtype, loss="every_step")
    )
    assert_bits_equal(again.parameters(), trainer.parameters(), "weights")


def model_bytes(tmp_path):
    trainer_of().save_parameters(tmp_path / "whole.st")
    return (tmp_path / "whole.st").read_bytes()


def test_a_model_that_is_cut_off_anywhere(tmp_path):
    data, path = model_bytes(tmp_path), tmp_path / "cut.st"
    message = full(
        "{path} is not a whole safetensors file (<...>); give a model that `fptt train --out` "
        "wrote",
        path=path,
    )
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(InputError, match=message):
            load_model(path)


def test_a_model_with_one_bit_of_its_header_wrong(tmp_path):
    """A message, or a network whose weights fit it; never another exception."""
    data, path = model_bytes(tmp_path), tmp_path / "bit.st"
    header = 8 + int.from_bytes(data[:8], "little")
    taken = 0
    for at in range(header):
        changed = bytearray(data)
        changed[at] ^= 1 << (at % 8)
        path.write_bytes(changed)
        with contextlib.suppress(InputError):
            load_model(path)
            taken += 1
    assert taken < header * 0.2


DESCRIPTIONS = {
    "none": (
        None,
        "{path} holds tensors but no description of an fptt network; give a model that "
        "`fptt train --out` wrote, or make one of a PyTorch module's tensors: fptt import",
    ),
    "no json": (
        "nonsense",
        "the description of the network in {path} is damaged (<...>); give a "
        "model that `fptt train --out` wrote",
    ),
    "empty": (
        "{{}}",
        "the description of the network in {path} is damaged ('network'); give a "
        "model that `fptt train --out` wrote",
    ),
    "a list": (
        "[1]",
        "the description of the network in {path} is damaged (<...>); give a model "
        "that `fptt train --out` wrote",
    ),
    "no layers": (
        '{{"network": [1]}}',
        "the description of the network in {path} is damaged "
        "(<...>); give a model that `fptt train --out` wrote",
    ),
    "layer": (
        '{{"network": [{{"layer": "Spiking"}}]}}',
        "{path}: the file names a layer 'Spiking' that this version does not know; it knows <...>",
    ),
    "option": (
        '{{"network": [{{"layer": "LSTM", "inputs": 1, "cells": 2}}]}}',
        "{path}: the file describes a layer LSTM wrongly: <...>",
    ),
    "no notes": (
        '{{"network": [{{"layer": "Linear", "inputs": 3, "outputs": 2}}], "loss": "last", '
        '"criterion": "mse"}}',
        "{path}: the weights lack 0.bias; this network is Linear(3, 2)",
    ),
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_model_with_another_description(tmp_path, name):
    from safetensors.numpy import save

    text, message = DESCRIPTIONS[name]
    path = tmp_path / "other.st"
    metadata = None if text is None else {"fptt": text.format()}
    path.write_bytes(save({"0.weight": np.ones((2, 3), np.float32)}, metadata=metadata))
    with pytest.raises(InputError, match=full(message, path=path)):
        load_model(path)


def test_a_model_of_another_program(tmp_path):
    """PyTorch's bfloat16 tensors, which NumPy does not have."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    path = tmp_path / "torch.st"
    save_file({"weight": torch.zeros(3, dtype=torch.bfloat16)}, path)
    message = (
        "{path} holds numbers of type BF16, which fptt does not store; give a model that `fptt "
        "train --out` wrote"
    )
    with pytest.raises(InputError, match=full(message, path=path)):
        load_model(path)


def test_a_model_with_nan(tmp_path):
    net, path = network(LSTM), tmp_path / "nan.st"
    weights = net.initial(0)
    weights["1.bias"][1] = np.nan
    save_model(path, net, weights, "last", "cross_entropy")
    message = "{path}: the weights of 1.bias contain NaN or Inf"
    with pytest.raises(InputError, match=full(message, path=path)):
        load_model(path)
