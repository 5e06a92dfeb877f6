"""Two-slot snapshots in flash: power cut in every call, worn and flipped cells, every geometry.

What is promised, and asked here again and again: whatever happened, restoring finds the last state
whose saving answered OK or one that was begun after it, whole, and never a mix of two; and no rule
of the part was broken on the way (see flash_part.py).
"""

import random
import re
import shutil
import subprocess
import zlib

import pytest
from flash_part import (
    ERASE_CUTS,
    GAP,
    IDENTITY,
    INCLUDE,
    ROOT,
    SOURCES,
    STATUSES,
    WRITE_CUTS,
    Cut,
    Device,
    Part,
    header_bytes,
    library,
    make_pieces,
    slot_blocks,
    slot_image,
    slots,
)
from test_math import WARNINGS, compiler

#: write unit, block; slots of two to five blocks follow from the payloads
GEOMETRIES = [
    (1, 256),
    (2, 256),
    (4, 128),
    (8, 128),
    (16, 512),
    (32, 256),
    (64, 192),
    (128, 128),
    (256, 256),
]
LENGTH = 333


@pytest.fixture(scope="session")
def lib(tmp_path_factory):
    return library(str(tmp_path_factory.mktemp("flash")))


@pytest.fixture
def make(lib):
    """Makes devices, and asks at the end whether a rule of the part was broken."""
    made = []

    def device(write=4, erase=128, blocks=None, length=LENGTH, identity=IDENTITY):
        blocks = blocks or 2 * slot_blocks(length, erase, write)
        part = Part(write, erase, blocks)
        made.append(part)
        return Device(lib, part, identity)

    yield device
    assert made
    for part in made:
        assert part.offences == []


def state(number, length=LENGTH):
    """A payload that shares no part with that of another number."""
    return random.Random(number).randbytes(length)


def put_slots(device, first=b"", second=b""):
    """Puts images into both slots, as if they had been written."""
    part = device.part
    half = part.bytes // 2
    for at, image in ((0, first), (half, second)):
        assert len(image) <= half
        part.data[at : at + len(image)] = image
        part.used[at // part.write : (at + len(image)) // part.write] = b"\x01" * (
            len(image) // part.write
        )


def goes_on(device, length=LENGTH, first=900):
    """Saving and restoring work as if nothing had been."""
    for number in range(first, first + 3):
        assert device.save(state(number, length)) == "OK"
        status, found = device.restore(length)
        assert found == state(number, length)
        # cells that do not know what they are may look like something newer
        assert status == "OK" or (status == "OLDER_STATE" and device.part.weak)


# -- without faults ------------------------------------------------------------------------------


@pytest.mark.parametrize(("write", "erase"), [*GEOMETRIES, (8, 4096), (1, 8192), (32, 131072)])
@pytest.mark.parametrize("length", [0, 1, 7, 255, 256, 257, 1000])
def test_what_was_saved_comes_back(make, write, erase, length):
    device = make(write, erase, length=length)
    assert device.restore(length) == ("NOTHING_SAVED", None)
    for number in range(5):
        assert device.save(state(number, length)) == "OK"
        assert device.restore(length) == ("OK", state(number, length))
        status, found = device.look()
        assert (status, found.newest, found.sequence) == ("OK", (number + 1) % 2, number + 1)
        assert (found.kind, found.bytes) == (0, length)
        assert sorted(slots(found)) == ["complete", "complete" if number else "empty"]


def test_pieces_of_any_length_and_address(make):
    source = random.Random(5)
    for _ in range(300):
        length = source.randrange(600)
        write, erase = source.choice(GEOMETRIES)
        device = make(write, erase, length=length)
        cuts, left = [], length
        while left and len(cuts) < 40:
            cuts.append(source.choice([0, 1, 1, 2, 3, source.randrange(left + 1)]))
            cuts[-1] = min(cuts[-1], left)
            left -= cuts[-1]
        payload = state(1, length)
        assert device.save(payload, tuple(cuts)) == "OK"
        # the same bytes into other pieces: only their sum counts
        assert device.restore(length, tuple(cuts)) == ("OK", payload)
        assert device.restore(length) == ("OK", payload)


def test_pieces_of_one_byte_each(make):
    device = make(8, 128)
    assert device.save(state(1), (1,) * LENGTH) == "OK"
    assert device.restore(LENGTH, (1,) * LENGTH) == ("OK", state(1))


@pytest.mark.parametrize(("write", "erase"), GEOMETRIES)
def test_the_bytes_in_the_flash_are_those_described(make, write, erase):
    device = make(write, erase)
    half = device.part.bytes // 2
    assert device.save(state(0), kind=9) == "OK"
    assert device.save(state(1)) == "OK"
    images = (
        slot_image(state(1), write, sequence=2),
        slot_image(state(0), write, sequence=1, kind=9),
    )
    expected = b"".join(image.ljust(half, b"\xff") for image in images)
    assert bytes(device.part.data) == expected
    # and the other way round: what was written by the description is restored
    other = make(write, erase)
    put_slots(other, *images)
    assert other.restore(LENGTH) == ("OK", state(1))


@pytest.mark.parametrize(("write", "erase"), GEOMETRIES)
def test_the_largest_payload_fits_and_one_byte_more_does_not(make, write, erase):
    device = make(write, erase, blocks=4 if header_bytes(write) < 2 * erase else 6)
    room = device.part.bytes // 2 - header_bytes(write)
    for length in (room, room - 1):
        assert device.save(state(1, length)) == "OK"
        assert device.restore(length) == ("OK", state(1, length))
    image, calls = device.part.image(), len(device.part.calls)
    assert device.save(state(2, room + 1)) == "FLASH_TOO_SMALL"
    assert (device.part.image(), len(device.part.calls)) == (image, calls)


def test_lengths_whose_sum_does_not_fit_into_32_bits(make):
    """Taken modulo 2^32 they would be as long as what is saved."""
    device = make()
    assert device.save(state(0)) == "OK"
    image = device.part.image()
    memory, pieces = make_pieces(state(1), (1,))
    before = memory.raw
    pieces[0].bytes, pieces[1].bytes = 2**32 - 1, LENGTH + 1
    assert device.call("save", 0, pieces) == "FLASH_TOO_SMALL"
    assert device.call("restore", 0, pieces) == "OTHER_PROGRAM"
    assert (memory.raw, device.part.image()) == (before, image)


@pytest.mark.parametrize("payload", [0, 1, 91, 92, 93, 4000, 1_240_000])
@pytest.mark.parametrize(("write", "erase"), [*GEOMETRIES, (8, 2048), (32, 131072)])
def test_the_formulas_for_planning(lib, payload, write, erase):
    blocks = slot_blocks(payload, erase, write)
    assert lib.header_of(write) == header_bytes(write)
    assert lib.blocks_of(payload, erase, write) == blocks
    assert lib.area_of(payload, erase, write) == 2 * blocks * erase


@pytest.mark.parametrize(("write", "erase"), GEOMETRIES)
def test_slots_take_turns_and_a_save_erases_what_the_formula_says(make, write, erase):
    device = make(write, erase, blocks=2 * (slot_blocks(LENGTH, erase, write) + 2))
    part, half = device.part, device.part.blocks // 2
    blocks = slot_blocks(LENGTH, erase, write)
    for number in range(10):
        before = list(part.erases)
        assert device.save(state(number)) == "OK"
        done = [after - b for after, b in zip(part.erases, before, strict=True)]
        slot = (number + 1) % 2
        expected = [slot * half <= b < slot * half + blocks for b in range(part.blocks)]
        assert done == list(map(int, expected))
    assert set(part.erases) == {5, 0}


def test_nothing_is_read_or_written_beyond_what_is_needed(make):
    """A save reads headers, the kept payload, and what it wrote; no read finds out twice."""
    device = make(4, 256, length=200)
    assert device.save(state(0, 200)) == "OK"
    device.part.start()
    assert device.save(state(1, 200)) == "OK"
    # marks and headers; kept payload; block; payload; its check; header and mark
    assert "".join(call[0] for call in device.part.calls) == "rrrr" + "r" + "e" + "w" + "r" + "wrwr"


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "erase", "area"),
    [
        (0, 256, 1024),
        (3, 192, 768),
        (512, 512, 2048),
        (8, 0, 1024),
        (8, 100, 800),
        (4, 100, 800),
        (1, 48, 192),
        (8, 256, 1025),
        (64, 96, 768),
        (8, 256, 1024 + 256),
        (8, 256, 1023),
        (8, 256, 0),
        (8, 256, 256),
        (8, 32, 64),
        (256, 256, 512),
        (8, 2**31, 2**31),
    ],
)
def test_sizes_that_contradict_each_other(make, write, erase, area):
    device = make()
    device.flash.write_bytes, device.flash.erase_bytes, device.flash.bytes = write, erase, area
    assert device.check() == "FLASH_GEOMETRY"
    assert device.save(b"a") == "FLASH_GEOMETRY"
    assert device.restore(1) == ("FLASH_GEOMETRY", None)
    assert device.look()[0] == "FLASH_GEOMETRY"
    assert device.forget() == "FLASH_GEOMETRY"
    assert device.part.calls == []


@pytest.mark.parametrize("name", ["read", "write", "erase"])
def test_a_function_that_is_missing(make, name):
    device = make()
    setattr(device.flash, name, type(getattr(device.flash, name))())
    assert device.check() == "FLASH_GEOMETRY"
    assert device.save(b"a") == "FLASH_GEOMETRY"


@pytest.mark.parametrize(
    ("write", "erase", "area"), [(1, 32, 128), (256, 256, 1024), (8, 96, 192), (1, 64, 2**31)]
)
def test_sizes_that_are_good(make, write, erase, area):
    device = make()
    device.flash.write_bytes, device.flash.erase_bytes, device.flash.bytes = write, erase, area
    assert device.check() == "OK"


def test_another_program(make):
    device = make()
    assert device.save(state(1)) == "OK"
    device.identity = 7
    assert device.restore(LENGTH) == ("OTHER_PROGRAM", None)
    assert device.look()[0] == "OTHER_PROGRAM"
    assert slots(device.look()[1]) == ("empty", "other program")
    device.identity = IDENTITY
    assert device.restore(LENGTH) == ("OK", state(1))


def test_another_length(make):
    device = make()
    assert device.save(state(1)) == "OK"
    for length in (0, LENGTH - 1, LENGTH + 1):
        assert device.restore(length) == ("OTHER_PROGRAM", None)


def test_another_kind(make):
    device = make()
    assert device.save(state(1), kind=0) == "OK"
    assert device.save(state(2, 40), kind=1) == "OK"
    assert device.restore(LENGTH, kind=0) == ("OTHER_KIND", None)
    status, found = device.look()
    assert (status, found.kind, found.bytes) == ("OK", 1, 40)
    assert device.restore(40, kind=1) == ("OK", state(2, 40))


def test_a_later_version_is_left_alone_and_counted(make):
    device = make()
    put_slots(device, slot_image(state(1), 4, sequence=70, version=2))
    assert device.restore(LENGTH) == ("OTHER_PROGRAM", None)
    assert device.save(state(2)) == "OK"
    status, found = device.look()
    assert (status, slots(found)) == ("OK", ("other program", "complete"))
    assert found.sequence == 71


def test_the_first_save_keeps_the_newest_of_the_other_program(make):
    """So that firmware that is put back finds its last state."""
    for count in (1, 2, 3):
        device = make()
        for number in range(count):
            assert device.save(state(number)) == "OK"
        device.identity = 7
        assert device.save(state(50)) == "OK"
        assert device.restore(LENGTH) == ("OK", state(50))
        device.identity = IDENTITY
        assert device.restore(LENGTH) == ("OK", state(count - 1))
        # both have one; whoever saves keeps its own
        assert device.save(state(51)) == "OK"
        assert device.restore(LENGTH) == ("OK", state(51))
        device.identity = 7
        assert device.restore(LENGTH) == ("OTHER_PROGRAM", None)


# -- sequence numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize("last", [0, 1, 2**31 - 2, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1])
@pytest.mark.parametrize("slot", [0, 1])
def test_sequence_numbers_go_round(make, last, slot):
    device = make()
    images = [slot_image(state(n), 4, sequence=(last - 1 + n) % 2**32) for n in (0, 1)]
    put_slots(device, *(images if slot else images[::-1]))
    assert device.restore(LENGTH) == ("OK", state(1))
    for number in range(2, 6):
        assert device.save(state(number)) == "OK"
        assert device.restore(LENGTH) == ("OK", state(number))
        status, found = device.look()
        assert (status, found.sequence) == ("OK", (last - 1 + number) % 2**32)
        assert found.newest == (slot + number - 1) % 2


@pytest.mark.parametrize("last", [5, 2**32 - 1, 2**31])
def test_the_number_goes_on_after_a_damaged_state_too(make, last):
    """What is damaged now may read well later; the next state is newer than that."""
    device = make()
    put_slots(
        device,
        slot_image(state(0), 4, sequence=(last - 1) % 2**32),
        slot_image(state(1), 4, sequence=last),
    )
    device.part.data[device.part.bytes // 2 + 60] ^= 4
    assert device.restore(LENGTH) == ("OLDER_STATE", state(0))
    assert device.save(state(2)) == "OK"
    assert device.look()[1].sequence == (last + 1) % 2**32
    assert device.restore(LENGTH) == ("OK", state(2))
    assert device.look()[1].newest == 1


@pytest.mark.parametrize("last", [5, 2**31 - 1, 2**31, 2**32 - 5, 2**32 - 1])
@pytest.mark.parametrize("slot", [0, 1])
def test_the_number_goes_on_after_the_only_state_is_damaged(make, last, slot):
    device = make()
    image = bytearray(slot_image(state(0), 4, sequence=last))
    image[60] ^= 1
    put_slots(device, *((b"", bytes(image)) if slot else (bytes(image), b"")))
    assert device.save(state(1)) == "OK"
    assert device.look()[1].sequence == (last + 1) % 2**32
    assert device.look()[1].newest == slot  # what is damaged is overwritten first


# -- power ---------------------------------------------------------------------------------------


def cuts_of(calls, seeds):
    """Every cut of a run whose calls are known."""
    for number, call in enumerate(calls):
        yield Cut(number, "before")
        if call == "read":
            continue
        yield Cut(number, "after")
        for how in WRITE_CUTS if call == "write" else ERASE_CUTS:
            for seed in seeds if how in ("prefix", "some bits", "garbage", "weak") else (0,):
                yield Cut(number, how, seed)


@pytest.mark.parametrize(("write", "erase"), GEOMETRIES)
@pytest.mark.parametrize("saved", [0, 1, 2])
def test_power_is_cut_before_in_and_after_every_call(make, write, erase, saved):
    device = make(write, erase)
    part = device.part
    for number in range(saved):
        assert device.save(state(number)) == "OK"
    old = [state(saved - 1)] if saved else [None]
    new = state(saved)
    image = part.image()
    part.start()
    assert device.save(new) == "OK"
    calls = list(part.calls)
    header = max(n for n, call in enumerate(calls) if call == "write") - 2
    assert calls[header:] == ["write", "read", "write", "read"]
    tried = 0
    for cut in cuts_of(calls, range(4)):
        part.put_back(image)
        part.start(cut)
        assert device.save(new) != "OK"
        part.start()
        # the header is what makes it the new one, its mark what makes it stay
        if cut.call < header or (cut.call == header and cut.how == "before"):
            expected = old
        elif cut.call > header + 2 or (cut.call == header + 2 and cut.how == "after"):
            expected = [new]
        else:
            expected = [*old, new]
        answers = [device.restore(LENGTH) for _ in range(3)]
        for status, found in answers:
            assert found in expected, (cut, status)
            assert status in (("NOTHING_SAVED",) if found is None else ("OK", "OLDER_STATE")), cut
            assert status != "OLDER_STATE" or found in old, cut
        if cut.how != "weak":
            assert len(set(answers)) == 1
        tried += 1
        goes_on(device)
    assert tried > 60


def test_a_second_cut_while_going_on_after_a_first_one(make):
    device = make(8, 128, length=150)
    part = device.part
    for number in (0, 1):
        assert device.save(state(number, 150)) == "OK"
    image = part.image()
    part.start()
    assert device.save(state(2, 150)) == "OK"
    calls = list(part.calls)
    compared = 0
    for first in cuts_of(calls, [1]):
        if first.how == "weak":
            continue
        part.put_back(image)
        part.start(first)
        device.save(state(2, 150))
        part.start()
        _, between = device.restore(150)
        middle = part.image()
        part.start()
        assert device.save(state(3, 150)) == "OK"
        for second in cuts_of(list(part.calls), [2]):
            part.put_back(middle)
            part.start(second)
            device.save(state(3, 150))
            part.start()
            status, found = device.restore(150)
            # what was not finished and did not count may be read well after all
            allowed = (between, state(2, 150), state(3, 150))
            assert found in allowed, (first, second, status)
            compared += 1
    assert compared > 2000


def campaign(device, seed, weak, length):
    """Saves under random cuts; after each start, what is restored must be allowed.

    Args:
        weak: whose cut may leave cells that read otherwise each time, "write" or "erase". Both in
            turn could make both slots doubtful, which is more than two slots can bear.
    """
    source, part = random.Random(seed), device.part
    part.random.seed(seed)
    allowed, kept = [None], 0
    for number in range(12):
        payload = state(f"{seed}/{number}", length)
        cut = Cut(source.randrange(30), "any", source.getrandbits(32), weak)
        part.start(cut)
        status = device.save(payload)
        if part.dead:
            assert status == "FLASH_WRITE_FAILED" or part.calls[cut.call] == "read", seed
            allowed.append(payload)
        else:
            assert status == "OK", seed
            allowed, kept = [payload], kept + 1
        part.start()
        status, found = device.restore(length)
        assert found in allowed, (seed, status)
        if kept and len(allowed) == 1:
            assert (status, found) == ("OK", payload), seed
        seen, at = device.look()
        if not part.weak:
            assert seen == status, seed
            assert (at.newest >= 0) == (found is not None), seed
    return kept


@pytest.mark.parametrize("weak", ["write", "erase"])
@pytest.mark.parametrize("hundred", range(10))
def test_a_thousand_lives_of_random_cuts(make, weak, hundred):
    kept = 0
    for seed in range(100 * hundred, 100 * hundred + 100):
        source = random.Random(seed)
        write, erase = source.choice(GEOMETRIES)
        length = source.choice([0, 1, 100, 333, 700])
        device = make(write, erase, length=length)
        kept += campaign(device, seed, weak, length)
    assert 300 < kept < 1000


def test_forgetting_never_brings_an_older_state_back(make):
    device = make(8, 128)
    part = device.part
    for number in (0, 1, 2):
        assert device.save(state(number)) == "OK"
        image = part.image()
        part.start()
        assert device.forget() == "OK"
        assert part.calls.count("erase") == 2
        calls = list(part.calls)
        assert device.restore(LENGTH) == ("NOTHING_SAVED", None)
        for cut in cuts_of(calls, range(8)):
            part.put_back(image)
            part.start(cut)
            assert device.forget() != "OK" or calls[cut.call] == "read"
            part.start()
            for _ in range(3):
                assert device.restore(LENGTH)[1] in (state(number), None), cut
            goes_on(device)
        part.put_back(image)


def test_forgetting_in_a_worn_flash_is_reported(make):
    for how in ("fails", "silent"):
        for block in (0, 3):
            device = make(8, 128, blocks=6, length=300)
            assert device.save(state(0, 300)) == device.save(state(1, 300)) == "OK"
            device.part.worn["erase", block] = how
            assert device.forget() == "FLASH_WRITE_FAILED"


# -- cells that flip -----------------------------------------------------------------------------


@pytest.mark.parametrize(("write", "erase"), [(1, 128), (8, 128), (64, 192)])
@pytest.mark.parametrize("newest", [0, 1])
def test_every_bit_of_both_slots_flips(make, write, erase, newest):
    length = 90
    device = make(write, erase, length=length)
    for number in (0, 1) if newest == 0 else (0, 1, 2):
        assert device.save(state(number, length)) == "OK"
    last = number
    part, half = device.part, device.part.bytes // 2
    assert device.look()[1].newest == newest
    lost = 0
    for address in range(part.bytes):
        slot, at = divmod(address, half)
        begin = header_bytes(write)
        matters = (
            at < 32 or up_mark(write) <= at < up_mark(write) + 4 or begin <= at < begin + length
        )
        for bit in range(8):
            part.data[address] ^= 1 << bit
            status, found = device.restore(length)
            if slot == newest and matters:
                assert (status, found) == ("OLDER_STATE", state(last - 1, length)), (address, bit)
                lost += 1
            else:
                assert found == state(last, length), (address, bit)
                # a header that cannot be read might be a newer one
                assert status == ("OLDER_STATE" if slot != newest and at < 32 else "OK")
            part.data[address] ^= 1 << bit
    assert lost == 8 * (32 + 4 + length)


def up_mark(write):
    """Where the mark lies."""
    return -(-32 // write) * write


def test_both_slots_flip(make):
    source, device = random.Random(3), make(8, 128)
    assert device.save(state(0)) == device.save(state(1)) == "OK"
    image = device.part.image()
    answers = set()
    for _ in range(3000):
        device.part.put_back(image)
        for _ in range(source.choice([1, 2, 3, 30])):
            device.part.data[source.randrange(device.part.bytes)] ^= 1 << source.randrange(8)
        status, found = device.restore(LENGTH)
        assert found in (None, state(0), state(1))
        answers.add((status, found))
        seen, _ = device.look()
        assert seen == status
    assert len(answers) >= 4
    goes_on(device)


@pytest.mark.parametrize("length", [0, 1, 60])
def test_a_state_without_its_mark_counts_where_there_is_no_better_one(make, length):
    device = make(8, 128, length=length)
    older = slot_image(state(0, length), 8, sequence=4)
    for mark in (b"\xff" * 4, b"KEP\xff", bytes(4)):
        newer = slot_image(state(1, length), 8, sequence=5, mark=mark)
        device.part.data[:] = b"\xff" * device.part.bytes
        put_slots(device, older, newer)
        assert device.restore(length) == ("OLDER_STATE", state(0, length))
        assert slots(device.look()[1]) == ("complete", "unfinished")
        device.part.data[35] ^= 1  # its own mark
        assert device.restore(length) == ("OK", state(1, length))
        device.part.data[35] ^= 1
        device.part.data[5] ^= 1
        assert device.restore(length) == ("OLDER_STATE", state(1, length))


def test_a_flip_between_checking_and_copying(make):
    device = make(8, 512)
    part = device.part
    assert device.save(state(0)) == device.save(state(1)) == "OK"
    image = part.image()
    part.start()
    assert device.restore(LENGTH) == ("OK", state(1))
    last = len(part.calls) - 1  # the copy; one piece is one read
    part.put_back(image)
    part.flip_at_read = {last: 50}
    assert device.restore(LENGTH) == ("OLDER_STATE", state(0))
    # the older one as well: the memory has been touched, and the caller must know it
    part.put_back(image)
    part.flip_at_read = {last: 50, last + 1: part.bytes // 2 + 50}
    assert device.restore(LENGTH)[0] == "FLASH_READ_FAILED"


def test_a_read_that_fails_anywhere_is_no_state_and_no_success(make):
    device = make(8, 128)
    part = device.part
    assert device.save(state(0)) == device.save(state(1)) == "OK"
    for unit in range(part.bytes // 8):
        part.unreadable = {unit}
        status, found = device.restore(LENGTH)
        assert found in (state(0), state(1))
        assert found == state(1) or status == "OLDER_STATE"
        if unit >= part.bytes // 16:
            assert found == state(1)  # it lies in slot 0
        elif unit == 4:  # its mark
            assert slots(device.look()[1]) == ("unfinished", "complete")
            assert found == state(0)
    part.unreadable = set(range(part.bytes // 8))
    assert device.restore(LENGTH) == ("NOTHING_SAVED", None)


def test_a_payload_that_cannot_be_read_leaves_the_memory_alone(make):
    device = make(8, 128)
    assert device.save(state(0)) == "OK"
    device.part.unreadable = {device.part.bytes // 16 + 12}
    assert device.restore(LENGTH) == ("NOTHING_SAVED", None)
    assert slots(device.look()[1]) == ("empty", "damaged")


def test_a_read_that_fails_while_copying(make):
    device = make(8, 512)
    part = device.part
    assert device.save(state(0)) == device.save(state(1)) == "OK"
    part.start()
    assert device.restore(LENGTH) == ("OK", state(1))
    last = len(part.calls) - 1
    part.start()
    part.complains = {last}
    assert device.restore(LENGTH) == ("OLDER_STATE", state(0))
    # the older one: two chunks are checked, then it is copied
    part.start()
    part.complains = {last, last + 3}
    assert device.restore(LENGTH) == ("FLASH_READ_FAILED", None)


def test_a_header_of_somebody_else(make):
    device = make(8, 128)
    image = bytearray(slot_image(state(0), 8))
    image[:4] = b"ABCD"
    image[28:32] = zlib.crc32(image[:28]).to_bytes(4, "little")
    put_slots(device, bytes(image))
    assert device.restore(LENGTH) == ("NOTHING_SAVED", None)
    assert slots(device.look()[1]) == ("damaged", "empty")


@pytest.mark.parametrize("length", [2**32 - 1, 2**31, 1000, LENGTH + 60])
def test_a_whole_header_with_a_length_beyond_the_slot(make, length):
    device = make(8, 128)
    image = bytearray(slot_image(state(0), 8))
    image[20:24] = length.to_bytes(4, "little")
    image[28:32] = zlib.crc32(image[:28]).to_bytes(4, "little")
    put_slots(device, bytes(image))
    assert device.restore(LENGTH) == ("NOTHING_SAVED", None)
    assert slots(device.look()[1]) == ("damaged", "empty")
    goes_on(device)


# -- worn flash ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("write", "erase"), GEOMETRIES)
@pytest.mark.parametrize("what", ["erase", "write"])
@pytest.mark.parametrize("how", ["fails", "silent"])
def test_a_worn_block_is_reported_and_costs_no_state(make, write, erase, what, how):
    device = make(write, erase)
    part, half = device.part, device.part.blocks // 2
    for number in (0, 1):
        assert device.save(state(number)) == "OK"
    image = part.image()
    for block in range(part.blocks):
        part.put_back(image)
        part.offences.clear()
        part.worn = {(what, block): how}
        for number in range(2, 5):
            answer = device.save(state(number))
            newest = device.restore(LENGTH)[1]
            if answer == "OK":
                assert newest == state(number)
                last = number
            else:
                assert answer == "FLASH_WRITE_FAILED"
                assert newest == (state(last) if number > 2 else state(1))
            if number == 2:
                last = 2 if answer == "OK" else 1
        # a slot is written every second time, so the worn block was met. A mark that stayed where
        # its block was not erased is no mistake
        mark = up_mark(write) // erase
        harmless = (what, how) == ("erase", "silent") and block % half == mark > 0
        assert (last == 4) == harmless
    # blocks that could not be erased are written again without it: the part may refuse that
    assert all("twice" in offence for offence in part.offences)
    part.offences.clear()


@pytest.mark.parametrize(("write", "erase"), [(4, 128), (64, 192)])
def test_a_part_that_says_no_is_believed(make, write, erase):
    """Even if the cells look well: a write or an erase that did not end may not last."""
    device = make(write, erase)
    part = device.part
    assert device.save(state(0)) == device.save(state(1)) == "OK"
    image = part.image()
    part.start()
    assert device.save(state(2)) == "OK"
    calls = list(part.calls)
    begin = calls.index("erase")
    for number in range(begin, len(calls)):
        part.put_back(image)
        part.complains = {number}
        assert device.save(state(2)) == "FLASH_WRITE_FAILED", (number, calls[number])
        part.complains = set()
        # no further call was made, but for those in turn
        assert len(part.calls) == number + 1
        assert device.restore(LENGTH)[1] in (state(1), state(2))
    part.put_back(image)


@pytest.mark.parametrize("write", [1, 8, 64])
def test_stuck_bits_are_found_where_they_matter(make, write):
    """A save that answers OK is one that comes back, whichever cell does not hold."""
    length, answers = 90, set()
    device = make(write, 192, length=length)
    part = device.part
    assert device.save(state(0, length)) == device.save(state(1, length)) == "OK"
    image = part.image()
    for address in range(part.bytes // 2, part.bytes):
        for mask, value in ((1, 0), (128, 255), (255, 0), (255, 0x55)):
            part.put_back(image)
            part.stuck = {address: (mask, value)}
            first = device.restore(length)[1]
            assert first == state(1, length)  # it lies in slot 0
            assert device.save(state(2, length)) == "OK" or part.stuck
            newest = device.restore(length)[1]
            answer = device.save(state(3, length))
            after = device.restore(length)[1]
            answers.add(answer)
            if answer == "OK":
                assert after == state(3, length)
            else:
                assert answer == "FLASH_WRITE_FAILED"
                # saving failed in its last step at most; what is there is whole
                assert after in (newest, state(3, length)), address
    assert answers == {"OK", "FLASH_WRITE_FAILED"}


@pytest.mark.parametrize("seed", range(40))
def test_blocks_that_wear_out_one_by_one_while_power_is_cut(make, seed):
    source = random.Random(seed)
    write, erase = source.choice(GEOMETRIES)
    device = make(write, erase, length=200)
    part = device.part
    allowed = [None]
    for number in range(25):
        part.start(Cut(source.randrange(40), "before"))
        if source.random() < 0.1:
            worn = (source.choice(["erase", "write"]), source.randrange(part.blocks))
            part.worn[worn] = source.choice(["fails", "silent"])
        payload = state(number, 200)
        allowed = [payload] if device.save(payload) == "OK" else [*allowed, payload]
        part.start()
        assert device.restore(200)[1] in allowed
    part.offences = [text for text in part.offences if "twice" not in text]


# -- what it compiles to -------------------------------------------------------------------------

STRICT = [*WARNINGS, "-Wpedantic", "-Wcast-align", "-Wstrict-prototypes", f"-I{INCLUDE}"]
TARGETS = {
    "cc": [],
    "gcc": [],
    "clang": [],
    "clang-19": [],
    "riscv64-unknown-elf-gcc": [
        "--specs=picolibc.specs",
        "-march=rv64imafdc",
        "-mabi=lp64d",
        "-mcmodel=medany",
    ],
    "riscv64-unknown-elf-gcc -m32": [
        "--specs=picolibc.specs",
        "-march=rv32imafc",
        "-mabi=ilp32f",
    ],
    "arm-none-eabi-gcc": ["-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"],
    "arm-none-eabi-gcc -m55": ["-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"],
}


#: functions with a chunk of data on their stack
CHUNKS = ("payload_fits", "write_payload", "write_words")
#: who calls whom below the public functions
CHAINS = [
    ("choose", "payload_fits", "crc32"),
    ("choose", "payload_fits", "header_bytes", "up"),
    ("write_payload", "crc32"),
    ("write_payload", "up"),
    ("write_words", "up"),
    ("read_headers", "read_header", "crc32"),
    ("read_headers", "read_header", "up"),
    ("copy", "crc32"),
    ("choose", "better", "is_newer"),
    ("answer", "is_newer"),
    ("sum_bytes",),
]


def compiled(name, level, folder):
    """The object, and the bytes of stack of each function where the compiler says so."""
    cc = name.split()[0]
    if not shutil.which(cc):
        pytest.skip(f"{cc} is not installed")
    stack = ["-fstack-usage"]
    command = [cc, "-std=c11", level, *STRICT, *TARGETS[name], *stack, "-c", str(SOURCES[0])]
    done = subprocess.run([*command, "-o", "flash.o"], cwd=folder, capture_output=True, text=True)
    if "fstack-usage" in done.stderr:
        pytest.skip(f"{cc} does not know -fstack-usage")
    assert (done.returncode, done.stderr) == (0, "")
    usage = re.findall(r":(\w+)(?:\.\S+)?\t(\d+)\t(\w+)", (folder / "flash.su").read_text())
    assert len(usage) >= 6
    assert {kind for _, _, kind in usage} == {"static"}
    return folder / "flash.o", {function: int(count) for function, count, _ in usage}


@pytest.mark.parametrize("level", ["-Os", "-O2", "-O3"])
@pytest.mark.parametrize("target", TARGETS)
def test_it_compiles_without_a_warning_and_stays_within_its_stack(target, level, tmp_path):
    _, usage = compiled(target, level, tmp_path)
    public = max(count for name, count in usage.items() if name.startswith("fptt_flash_"))
    # who is below them, deepest; what is missing was made part of its caller
    below = max(sum(usage.get(name, 0) for name in chain) for chain in CHAINS)
    header = (INCLUDE / "fptt_flash.h").read_text()
    wide, narrow = map(int, re.search(r"FLASH_STACK .*\? (\d+) : (\d+)", header).groups())
    stated = wide if "arm" not in target and "m32" not in target else narrow
    print(f"{target} {level}: {public + below} of {stated} bytes of stack")
    # clang does not count the return address, gcc does
    returns = 4 * 8 if "clang" in target else 0
    assert public + below + returns <= stated
    # none holds a second chunk while it calls
    assert all(count < 256 for name, count in usage.items() if name not in CHUNKS)
    assert set(usage) <= {name for chain in CHAINS for name in chain} | {
        f"fptt_flash_{name}" for name in ("check", "save", "restore", "look", "forget")
    }


@pytest.mark.parametrize("target", ["cc", "riscv64-unknown-elf-gcc", "arm-none-eabi-gcc"])
def test_it_needs_nothing_but_memory_functions(target, tmp_path):
    built, _ = compiled(target, "-Os", tmp_path)
    nm = {"cc": "nm"}.get(target, target.replace("gcc", "nm"))
    if not shutil.which(nm):
        pytest.skip(f"{nm} is not installed")
    done = subprocess.run([nm, "-u", built], capture_output=True, text=True, check=True)
    wanted = {line.split()[-1] for line in done.stdout.splitlines()}
    assert wanted <= {"memcpy", "memset", "memcmp", "_GLOBAL_OFFSET_TABLE_"}
    # no memory of its own either
    data = subprocess.run([nm, built], capture_output=True, text=True, check=True).stdout
    assert not re.search(r" [bBdDcC] ", data)


@pytest.mark.parametrize("cc", ["g++", "clang++", "arm-none-eabi-g++"])
def test_it_links_into_cxx(cc, tmp_path):
    if not shutil.which(cc):
        pytest.skip(f"{cc} is not installed")
    user = tmp_path / "user.cpp"
    user.write_text(
        '#include "fptt_flash.h"\n'
        "int main() {\n"
        "  fptt_flash flash = fptt_flash();\n"
        "  return fptt_flash_check(&flash) == FPTT_FLASH_GEOMETRY ? 0 : 1;\n"
        "}\n"
    )
    strict = ["-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror", f"-I{INCLUDE}"]
    built, cross = tmp_path / "flash.o", cc.startswith("arm")
    plain = cc.replace("g++", "gcc") if cross else compiler()
    subprocess.run([plain, f"-I{INCLUDE}", "-c", SOURCES[0], "-o", built], check=True)
    # the cross compiler may come without a library for C++
    link, program = ["-nostdlib", "-r"] if cross else [], tmp_path / "user"
    done = subprocess.run(
        [cc, *strict, user, built, *link, "-o", program], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    if cross:
        nm = [cc.replace("g++", "nm"), "-u", program]
        left = subprocess.run(nm, capture_output=True, text=True, check=True).stdout
        assert "fptt" not in left
    else:
        assert subprocess.run([program]).returncode == 0


def test_every_status_has_a_name_and_a_text_of_its_own(lib):
    text = (ROOT / "runtime" / "include" / "fptt.h").read_text()
    names = re.findall(r"^  S\((\w+),", text, re.M)
    assert set(STATUSES) <= set(names)
    texts = [lib.fptt_status_text(number).decode() for number in range(len(names))]
    assert len(set(texts)) == len(names) and "unknown status" not in texts
    assert lib.fptt_status_text(len(names)) == b"unknown status"
    assert [lib.fptt_status_name(n).decode() for n in range(len(names))] == [
        f"FPTT_{name}" for name in names
    ]


def test_the_gap_between_pieces_makes_crooked_addresses():
    """Or the tests of alignment would test nothing."""
    assert len(GAP) % 2
