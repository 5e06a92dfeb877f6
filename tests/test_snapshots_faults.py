"""Snapshots on bad days: power cuts at every byte, writes out of order, calls that fail.

The last complete state must always come back, whole: the old one or the new one, never a mixture
and never an error.
"""

import errno
import io
import itertools
import os
import random
import re
import warnings

import pytest
from snapshots import Memory, contents, state_in, state_of, train, trainer_of, two_slots

import fptt
from fptt.errors import InputError, SaveError, SnapshotWarning
from fptt.storage import files, slotfile, slots

# --- power cuts ----------


class Recorded(slotfile.Disk):
    """Writes down what is done to a file."""

    log = None

    def erase(self, offset, count):
        before = self.size()
        files.allocate(self._file, offset, count)
        if self.size() > before:
            self.log.append(("grow", self.size()))
        super().erase(offset, count)

    def write(self, offset, data):
        self.log.append(("write", offset, bytes(data)))
        super().write(offset, data)

    def sync(self):
        self.log.append(("sync",))
        super().sync()


def apply(medium, event):
    if event[0] == "write":
        medium.write(event[1], event[2])
    elif event[0] == "grow":
        medium.data.extend(bytes(max(0, event[1] - len(medium.data))))


def some_of(data, event, rng):
    """What may be there of an event that was not synchronised when the power went."""
    if event[0] == "grow":
        size = rng.choice([len(data), event[1], rng.randint(0, event[1])])
        data.extend(bytes(max(0, size - len(data))))
    elif event[0] == "write":
        _, offset, written = event
        kind = rng.choice(["none", "all", "bytes", "sectors", "prefix", "suffix"])
        cut = rng.randint(0, len(written))
        chance = rng.random()
        sectors = [rng.random() < chance for _ in range(len(written) // 512 + 2)]
        for n, byte in enumerate(written):
            if {
                "none": False,
                "all": True,
                "bytes": kind == "bytes" and rng.random() < chance,
                "sectors": sectors[(offset % 512 + n) // 512],
                "prefix": n < cut,
                "suffix": n >= cut,
            }[kind]:
                data.extend(bytes(max(0, offset + n + 1 - len(data))))
                data[offset + n] = byte


@pytest.fixture(scope="module")
def saves(tmp_path_factory):
    """Three saves of a training into one file: the first makes it, the second makes it longer,
    the third overwrites. For each: the file before, what was done to it, both states."""
    path = tmp_path_factory.mktemp("saves") / "state.fptt"
    trainer, found = trainer_of(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slotfile, "Disk", Recorded)
        for n in range(4):
            Recorded.log = []
            before = (path.read_bytes(), state_of(path)) if n else (b"", None)
            Recorded.log = []
            trainer.save(path)
            log, Recorded.log = Recorded.log, []
            found.append((*before, log, state_of(path), path.read_bytes()))
            train(trainer, seed=n)
    return found


SAVES = {"longer": 1, "over": 2, "again": 3}


def test_what_is_recorded_is_what_happens(saves):
    for before, _, log, _, after in saves:
        medium = Memory(before)
        for event in log:
            apply(medium, event)
        assert medium.data == after
    kinds = [[event[0] for event in log] for _, _, log, _, _ in saves]
    pieces = kinds[1].count("write") - 2
    # of the second save: sync, erase, payload, sync, header, sync
    assert kinds[1] == ["sync", "grow", "write", *["write"] * pieces, "sync", "write", "sync"]
    assert kinds[2] == ["sync", "write", *["write"] * pieces, "sync", "write", "sync"]
    assert saves[2][2][1] == ("write", 4096, slots.ERASED)


@pytest.mark.parametrize("name", SAVES)
def test_a_write_that_is_torn_at_every_byte(tmp_path, saves, name):
    """Every prefix of what is written, each loaded from a file."""
    before, old, log, new, _ = saves[SAVES[name]]
    path = tmp_path / "torn.fptt"
    path.write_bytes(before)
    tried, came = 0, False
    with open(path, "r+b", buffering=0) as file:
        for number, event in enumerate(log):
            if event[0] == "grow":
                file.truncate(event[1])
            steps = event[2] if event[0] == "write" else b" "
            for n, byte in enumerate(steps):
                if event[0] == "write":
                    file.seek(event[1] + n)
                    file.write(bytes([byte]))
                state = state_of(path)
                assert state == new if came else state in (old, new), (number, n)
                came = came or state == new
                assert not came or number >= len(log) - 2, "before the commit was written"
                tried += 1
    assert came
    assert old != new
    assert tried > 500


@pytest.mark.parametrize("name", SAVES)
def test_a_power_cut_that_leaves_any_part_of_what_was_not_synchronised(saves, name):
    """After the last sync before it, any bytes, sectors or writes may be there, in any order."""
    before, old, log, new, _ = saves[SAVES[name]]
    rng, seen = random.Random(name), {"old": 0, "new": 0}
    for cut in range(len(log) + 1):
        last_sync = max((n for n in range(cut) if log[n][0] == "sync"), default=-1)
        committed = any(event[0] == "sync" for event in log[len(log) - 1 : cut])
        begun = cut > len(log) - 2
        for _ in range(60):
            medium = Memory(before)
            for event in log[: last_sync + 1]:
                apply(medium, event)
            pending = log[last_sync + 1 : cut]
            for event in rng.sample(pending, len(pending)):
                some_of(medium.data, event, rng)
            state = state_in(medium)
            assert state in ((new,) if committed else (old, new) if begun else (old,))
            seen["new" if state == new else "old"] += 1
    assert min(seen.values()) > 60


@pytest.mark.parametrize("name", SAVES)
def test_the_commit_with_bytes_missing(saves, name):
    """The header of a slot with any one or two bytes missing, and with thousands of other sets."""
    before, _, log, _, _ = saves[SAVES[name]]
    medium = Memory(before)
    for event in log[:-2]:
        apply(medium, event)
    layout = slots.read_layout(medium)
    old = slots.load(medium, layout).payload
    _, offset, header = log[-2]
    rng = random.Random(0)
    sets = [{n} for n in range(32)] + [set(pair) for pair in itertools.combinations(range(32), 2)]
    sets += [set(rng.sample(range(32), rng.randint(1, 31))) for _ in range(3000)]
    for missing in sets:
        medium.write(offset, bytes(0xFF if n in missing else b for n, b in enumerate(header)))
        state = slots.load(medium, layout)
        whole = medium.read(offset, 32) == header
        assert (state.payload != old, state.newest) == (whole, whole)


def test_a_power_cut_after_a_process_was_killed_before_its_last_sync(saves):
    """The next process goes on from a state that is in the system's memory only. When it saves
    over the other slot, that state must have reached the disk."""
    before, old, first, middle, _ = saves[2]
    _, _, second, new, _ = saves[3]
    log = first[:-1] + second
    rng = random.Random(0)
    for cut in range(len(first) - 1, len(log) + 1):
        last_sync = max(n for n in range(cut) if log[n][0] == "sync")
        for _ in range(60):
            medium = Memory(before)
            for event in log[: last_sync + 1]:
                apply(medium, event)
            for event in log[last_sync + 1 : cut]:
                some_of(medium.data, event, rng)
            assert state_in(medium) in ((old, middle, new) if cut < len(first) else (middle, new))


# --- which slot counts ----------


@pytest.mark.parametrize("start", [0, 5, 2**31 - 2, 2**32 - 3, 2**32 - 1])
def test_the_sequence_number_goes_round(start):
    """Payloads that say their number; the newest one counts, also past 2^32."""
    medium, layout = Memory(), slots.Layout.of(8)
    slots.create(medium, layout, 1, [memoryview(b"-")])
    last = slots.Slot(0, (start - 1) % 2**32, 1, 0)
    for n in range(6):
        slots.put(medium, layout, last, 1, [memoryview(b"%d" % n)])
        if n > 0:
            assert slots.load(medium, layout) == slots.State(b"%d" % n, True)
            assert slots.newest(medium, layout).sequence == (start + n) % 2**32
        last = slots.Slot(1 - last.index, (last.sequence + 1) % 2**32, 1, 0)


def test_order_of_sequence_numbers():
    for a, b in [(1, 0), (2**31, 1), (0, 2**32 - 1), (5, 2**32 - 5)]:
        assert slots.is_newer(a, b)
        assert not slots.is_newer(b, a)
    assert not slots.is_newer(3, 3)


@pytest.mark.parametrize("where", ["header", "first byte", "last byte", "cut"])
def test_a_damaged_newest_state_is_reported(tmp_path, where):
    """The state before is taken, with a warning; saving repairs the file."""
    trainer, path = trainer_of(), tmp_path / "state.fptt"
    trainer.save(path)
    older = state_of(path)
    train(trainer)
    trainer.save(path)
    data = bytearray(path.read_bytes())
    begin = 4096 + int.from_bytes(data[16:24], "little")
    at = {"header": begin + 17, "first byte": begin + 32}.get(where, len(data) - 1)
    data[at] ^= 4
    path.write_bytes(data[:-1] if where == "cut" else data)
    message = f"{path}: the newest state was not complete; went on from the one before"
    with pytest.warns(SnapshotWarning, match=f"^{re.escape(message)}$") as caught:
        again = fptt.load(path)
    assert caught[0].filename.endswith(("snapshot.py", "test_snapshots_faults.py"))
    assert state_of(path) == older
    train(again)
    again.save(path)
    assert fptt.load(path).parameters()["1.bias"].tobytes() == (
        trainer.parameters()["1.bias"].tobytes()
    )  # and no warning, which would be an error here


def test_a_damaged_older_state_is_no_matter_of_the_newest(tmp_path):
    trainer, path = trainer_of(), tmp_path / "state.fptt"
    trainer.save(path)
    train(trainer)
    trainer.save(path)
    newest = state_of(path)
    data = bytearray(path.read_bytes())
    data[4096 + 40] ^= 4
    path.write_bytes(data)
    fptt.load(path)
    assert state_of(path) == newest


def test_both_states_damaged(tmp_path):
    trainer, path = trainer_of(), tmp_path / "state.fptt"
    trainer.save(path)
    trainer.save(path)
    data = bytearray(path.read_bytes())
    data[4096 + 40] ^= 4
    data[-1] ^= 4
    path.write_bytes(data)
    message = (
        f"{path} is damaged: its checksum does not fit, it may be truncated; use an earlier "
        "snapshot"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        fptt.load(path)
    trainer.save(path)  # written anew
    assert fptt.load(path).seed == 7


def test_saving_never_touches_the_newest_state(tmp_path):
    """Also where the older slot's header looks newer but its payload is damaged."""
    trainer, path = trainer_of(), tmp_path / "state.fptt"
    trainer.save(path)
    train(trainer)
    trainer.save(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # slot 1 is the newest by its header, and damaged
    path.write_bytes(data)
    train(trainer)
    trainer.save(path)
    assert path.read_bytes()[: 4096 + 32 + 100] == data[: 4096 + 32 + 100]
    fptt.load(path)


def test_a_reader_beside_a_writer():
    """Both slots change while one of them is read; the reader looks again."""

    class Busy(Memory):
        saves = 4

        def read(self, offset, count):
            if count > slots.HEADER and self.saves:
                self.saves -= 1
                for _ in range(2):
                    last = slots._newest_first(slots._read_headers(self, layout), layout)[0][0]
                    slots.put(self, layout, last, 100, [memoryview(os.urandom(100))])
            return super().read(offset, count)

    medium = Busy(two_slots(b"a" * 100, b"b" * 100))
    layout = slots.read_layout(medium)
    assert len(slots.load(medium, layout).payload) == 100


# --- when the file is written anew ----------


def test_a_state_that_outgrows_its_slots(tmp_path):
    """In the middle of a part every buffer is kept, so the file is written anew; then it is not."""
    trainer, path = trainer_of([("RNN", 3, 60), ("Linear", 60, 2)], steps=30), tmp_path / "s.fptt"
    trainer.save(path)
    between_parts = path.stat().st_ino
    trainer.save(path)
    assert path.stat().st_ino == between_parts
    in_a_part = set()
    for n in range(1, 4):
        trainer.step([[0.1, 0.2, 0.3]] * 2)
        trainer.save(path)
        in_a_part.add(path.stat().st_ino)
        assert fptt.load(path).stream.position == n
        assert [p.name for p in tmp_path.iterdir()] == ["s.fptt"]
    assert len(in_a_part) == 1
    assert between_parts not in in_a_part


def test_a_second_name_keeps_what_it_had(tmp_path):
    """A hard link is a cheap backup: saving must not change it."""
    trainer, path, backup = trainer_of(), tmp_path / "state.fptt", tmp_path / "backup"
    trainer.save(path)
    os.link(path, backup)
    kept = backup.read_bytes()
    train(trainer)
    trainer.save(path)
    trainer.save(path)
    assert backup.read_bytes() == kept
    assert state_of(path) != state_of(backup)


def test_a_link_is_followed_and_stays(tmp_path):
    trainer, target, link = trainer_of(), tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    for _ in range(3):
        train(trainer)
        trainer.save(link)
    assert link.is_symlink()
    assert state_of(target) == state_of(link)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "target"]


def test_what_a_killed_process_left_beside_is_no_matter(tmp_path):
    trainer, path = trainer_of(), tmp_path / "state.fptt"
    for size in (0, 1, 31, 4096, 5000, 100_000):
        (tmp_path / ".state.fptt.part").write_bytes(os.urandom(size))
        path.unlink(missing_ok=True)
        trainer.save(path)
        assert fptt.load(path).seed == 7
        assert [p.name for p in tmp_path.iterdir()] == ["state.fptt"]


@pytest.mark.parametrize("what", ["fifo", "folder", "device", "zero"])
def test_no_plain_file_is_read_or_written(tmp_path, what):
    path = tmp_path / "it"
    if what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/null" if what == "device" else "/dev/zero")
    real = os.path.realpath(path)
    reason = "Is a directory" if what == "folder" else "it is no plain file"
    message = f"cannot read the snapshot {path}: {reason}"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        fptt.load(path)
    message = f"{real} is no plain file; give the path of a file to write"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        trainer_of().save(path)


def test_a_path_that_is_too_long(tmp_path):
    path = tmp_path / ("n" * 300)
    message = f"cannot write {path}: File name too long; what was there before is untouched"
    with pytest.raises(SaveError, match=f"^{re.escape(message)}$"):
        trainer_of().save(path)


# --- calls that fail ----------


class Faults:
    """Makes the nth call fail that goes to the system, and perhaps all after it."""

    def __init__(self, patch, nth=None, number=errno.EIO, for_ever=False):
        self.calls, self.nth, self.number, self.for_ever = [], nth, number, for_ever
        patch.setattr(os, "fsync", lambda handle: None)  # no power will be cut
        for name in ("fsync", "replace", "posix_fallocate"):
            patch.setattr(os, name, self.wrapped(name, getattr(os, name)))
        faults = self

        class File(io.FileIO):
            def write(self, data):
                faults.call("write")
                return super().write(data[: max(1, len(data) // 2)])  # short writes, too

            def readinto(self, data):
                faults.call("read")
                return super().readinto(data)

            def truncate(self, *size):
                faults.call("truncate")
                return super().truncate(*size)

            def close(self):
                closed = self.closed
                super().close()
                if not closed:
                    faults.call("close")

        def opened(path, mode, buffering=-1):
            self.call("open")
            file = File(path, mode)
            if buffering == 0:
                return file
            return io.BufferedRandom(file) if "+" in mode else io.BufferedWriter(file)

        for module in (files, slotfile):
            patch.setattr(module, "open", opened, raising=False)

    def call(self, name):
        self.calls.append(name)
        at = len(self.calls) - 1
        if self.nth is not None and (at == self.nth or (self.for_ever and at > self.nth)):
            raise OSError(self.number, os.strerror(self.number))

    def wrapped(self, name, function):
        def call(*arguments):
            self.call(name)
            return function(*arguments)

        return call


SITUATIONS = ["new", "longer", "over", "anew", "first version"]


@pytest.fixture(scope="module")
def situations(tmp_path_factory):
    """For each situation: the file as it lies there, and a trainer with a newer state."""
    path, found = tmp_path_factory.mktemp("situations") / "file", {}
    trainer = trainer_of()
    found["new"] = (None, trainer)
    trainer.save(path)
    found["longer"] = (path.read_bytes(), train_on(trainer))
    trainer.save(path)
    trainer.save(path)
    found["over"] = (path.read_bytes(), train_on(trainer))
    payload = contents(path)
    medium, layout = Memory(), slots.Layout(4096, len(payload) + 32)
    slots.create(medium, layout, len(payload), [memoryview(payload)])
    found["anew"] = (bytes(medium.data), grown(trainer))
    golden = os.path.join(os.path.dirname(__file__), "data", "snapshot_v1.fptt")
    with open(golden, "rb") as file:
        found["first version"] = (file.read(), train_on(trainer))
    return found


def train_on(trainer):
    """The same state, trained further."""
    other = trainer_of()
    other.load_parameters(trainer.parameters())
    train(other, seed=9)
    return other


def grown(trainer):
    """A stream in the middle of a part, which needs more room."""
    other = trainer_of()
    other.step([[0.5], [0.25]])
    return other


@pytest.mark.parametrize("for_ever", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
@pytest.mark.parametrize("name", SITUATIONS)
def test_every_call_to_the_system_fails_once(tmp_path, situations, name, number, for_ever):
    """A clear message and the old state; or, where it was no matter, the new state."""
    before, trainer = situations[name]
    path = tmp_path / "state.fptt"

    def prepare():
        path.unlink(missing_ok=True)
        if before is not None:
            path.write_bytes(before)

    prepare()
    old = None if before is None else state_of(path)
    with pytest.MonkeyPatch.context() as patch:
        clean = Faults(patch)
        trainer.save(path)
    new = state_of(path)
    assert new != old
    kinds = {"open", "write", "fsync", "close"}
    kinds |= {"posix_fallocate"} if hasattr(os, "posix_fallocate") else set()
    in_place = name in ("longer", "over")
    assert kinds | (set() if in_place else {"replace"}) <= set(clean.calls)
    assert ("replace" in clean.calls) != in_place
    failed = 0
    for nth, call in enumerate(clean.calls):
        prepare()
        with pytest.MonkeyPatch.context() as patch:
            Faults(patch, nth, number, for_ever)
            try:
                trainer.save(path)
                saved = True
            except SaveError as error:
                saved = False
                assert str(error) == (  # noqa: PT017
                    f"cannot write {path}: {os.strerror(number)}; what was there before is "
                    "untouched"
                )
        failed += not saved
        if saved:
            assert state_of(path) == new, (nth, call)
        elif old is None:
            assert not path.exists() or state_of(path) == new, (nth, call)
        else:
            assert state_of(path) in (old, new), (nth, call)
            if not for_ever and call != "close":
                assert state_of(path) == old, (nth, call)
        assert [p.name for p in tmp_path.iterdir()] in ([], ["state.fptt"]), (nth, call)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", lambda handle: None)
            trainer.save(path)  # the disk is in order again
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert state_of(path) == new
    assert failed > len(clean.calls) / 3


def test_a_full_disk_is_noticed_before_anything_is_overwritten(tmp_path, monkeypatch, situations):
    """Room is taken first, so not even the older slot is lost."""
    for name in ("longer", "over"):
        before, trainer = situations[name]
        path = tmp_path / "state.fptt"
        path.write_bytes(before)
        allocate = os.posix_fallocate

        def full(handle, offset, size, allocate=allocate):
            allocate(handle, offset, size // 2)  # some systems take what there is
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", full)
            with pytest.raises(SaveError, match="No space left on device"):
                trainer.save(path)
        assert path.read_bytes() == before


def test_a_file_system_that_cannot_take_room_ahead(tmp_path, monkeypatch, situations):
    for number in (errno.EOPNOTSUPP, errno.EINVAL, None):

        def cannot(*arguments, number=number):
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            if number is None:
                patch.delattr(os, "posix_fallocate")
            else:
                patch.setattr(os, "posix_fallocate", cannot)
            for name in SITUATIONS:
                before, trainer = situations[name]
                path = tmp_path / f"{name} {number}"
                if before is not None:
                    path.write_bytes(before)
                trainer.save(path)
                with pytest.MonkeyPatch.context():
                    fptt.load(path)


def test_a_file_that_is_read_only_is_replaced_as_ever(tmp_path, situations):
    before, trainer = situations["over"]
    path = tmp_path / "state.fptt"
    path.write_bytes(before)
    path.chmod(0o400)
    trainer.save(path)
    fptt.load(path)


def test_a_state_of_another_length_than_announced_is_not_committed():
    medium, layout = Memory(), slots.Layout.of(10)
    slots.create(medium, layout, 3, [memoryview(b"old")])
    for chunks in ([memoryview(b"ne")], [memoryview(b"ne"), memoryview(b"wer")]):
        with pytest.raises(ValueError, match=r"3 bytes was announced, and [25] came"):
            slots.put(medium, layout, slots.newest(medium, layout), 3, chunks)
        assert slots.load(medium, layout) == slots.State(b"old", False)


def test_ctrl_c_while_saving(tmp_path, monkeypatch, situations):
    """At every sync."""
    before, trainer = situations["over"]
    path = tmp_path / "state.fptt"
    path.write_bytes(before)
    old = state_of(path)
    fsync = os.fsync
    for nth in range(4):
        calls = itertools.count()

        def stop(handle, calls=calls, nth=nth):
            fsync(handle)
            if next(calls) == nth:
                raise KeyboardInterrupt

        path.write_bytes(before)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", stop)
            with pytest.raises(KeyboardInterrupt):
                trainer.save(path)
        assert state_of(path) == old
