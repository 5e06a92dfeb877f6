"""Pickles as data: a numpy array is read, and whatever a file asks to be run is not."""

import os
import pickle
import pickletools
import tracemalloc

import cifar_files as files
import numpy as np
import pytest
from tasks_helpers import whole

from fptt.errors import InputError
from fptt.tasks import load, pickles
from fptt.tasks.pickles import read_pickle

ARRAY = np.arange(12, dtype=np.uint8).reshape(3, 4)
GOOD = files.python2_pickle(ARRAY, [4, 5, 6], "training batch")


def test_the_array_and_the_lists():
    found = read_pickle(GOOD, "f")
    assert list(found) == ["batch_label", "labels", "data", "filenames"]
    assert found["labels"] == [4, 5, 6]
    assert found["batch_label"] == b"training batch"
    assert found["data"].dtype == np.uint8
    assert np.array_equal(found["data"], ARRAY)
    columns = read_pickle(files.python2_pickle(ARRAY, [], "x", order="F"), "f")
    assert np.array_equal(columns["data"], ARRAY)


def test_numpy_itself_reads_what_the_tests_write():
    found = pickle.loads(GOOD, encoding="bytes")  # written by these tests
    assert np.array_equal(found[b"data"], ARRAY)


def refused(name):
    return whole(
        f"f: names {name}, which data have no need of; fptt runs no code from a file: download it "
        "from where it was published"
    )


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("deep", [False, True])
def test_a_call_is_refused_and_not_made(tmp_path, protocol, deep):
    target = tmp_path / "called"
    call = files.Calls(os.mkdir, str(target))
    content = pickle.dumps({"data": [call]} if deep else call, protocol=protocol)
    with pytest.raises(InputError, match=refused(f"{os.mkdir.__module__}.mkdir")):
        read_pickle(content, "f")
    assert not target.exists()
    pickle.loads(content)  # which Python itself would have made
    assert target.exists()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"c__builtin__\neval\n(S'1'\ntR.", "__builtin__.eval"),
        (b"(S'1'\nibuiltins\neval\n.", "builtins.eval"),
        (b"(cbuiltins\neval\nS'1'\no.", "builtins.eval"),
        (b"cnumpy\nload\n(S'f'\ntR.", "numpy.load"),
        (b"cnumpy.core.multiarray\nfromfile\n(S'f'\ntR.", "numpy.core.multiarray.fromfile"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.", "numpy.ndarray.tofile"),
    ],
)
def test_every_other_name_is_refused(content, name):
    with pytest.raises(InputError, match=refused(name)):
        read_pickle(content, "f")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b".",
        b"\x80\x63.",
        b"<html>",
        b"cnumpy\nndarray\n(S'/tmp'\ntR.",  # calls the name of an array's class
        b"cnumpy.core.multiarray\n_reconstruct\n}S'x'\nK\x01sb.",  # sets what the class has
        b"cnumpy\ndtype\n(N}S'__init__'\nNstb.",
        b"P1\n.",  # an object kept elsewhere
        b"\x80\x02\x82\x01.",  # an extension by number
    ],
)
def test_what_is_no_whole_pickle(content):
    with pytest.raises(InputError, match=r"^f: is not a whole pickle \(\w+\); download it again\Z"):
        read_pickle(content, "f")
    assert np.array_equal(read_pickle(GOOD, "f")["data"], ARRAY)  # nothing has stuck


def test_every_truncation_is_refused():
    for length in range(len(GOOD)):
        with pytest.raises(InputError):
            read_pickle(GOOD[:length], "f")


def test_a_damaged_byte_is_refused_or_changes_data_only():
    rng = np.random.default_rng(0)
    outcomes = set()
    for place in range(len(GOOD)):
        content = bytearray(GOOD)
        content[place] ^= int(rng.integers(1, 256))
        try:
            found = read_pickle(bytes(content), "f")
        except InputError:
            outcomes.add("refused")
        else:
            outcomes.add("read")
            assert all(
                isinstance(value, (bytes, list, np.ndarray, pickles._Dtype, int, str))
                or value is None
                for value in found.values()
            )
    assert outcomes == {"refused", "read"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"u1", b"u2", "f: data is not an array of unsigned bytes: is this the right file?"),
        (b"u1", b"O8", "f: data is not an array of unsigned bytes: is this the right file?"),
        (
            b"(J\3\0\0\0J\4\0\0\0t",
            b"(J\3\0\0\0J\5\0\0\0t",
            "f: data has 12 bytes for the shape [3, 5], which needs 15: download it again",
        ),
        (
            b"(J\3\0\0\0J\4\0\0\0t",
            b"(J\xfd\xff\xff\xffJ\xfc\xff\xff\xfft",
            "f: data has the shape (-3, -4): download it again",
        ),
        (
            b"(J\3\0\0\0J\4\0\0\0t",
            b"(NJ\4\0\0\0t",
            "f: data has the shape (None, 4): download it again",
        ),
    ],
)
def test_arrays_that_cannot_be(old, new, message):
    assert GOOD.count(old) == 1
    with pytest.raises(InputError, match=whole(message)):
        read_pickle(GOOD.replace(old, new), "f")


def test_a_large_index_takes_no_memory():
    tracemalloc.start()
    try:
        assert read_pickle(b"\x80\x02Nr\xff\xff\xff\x7f0}.", "f") == {}
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_other_documents():
    with pytest.raises(InputError, match=whole("f: holds no dictionary; is this the right file?")):
        read_pickle(pickle.dumps([1]), "f")


def test_a_file_that_is_too_large(monkeypatch):
    monkeypatch.setattr(pickles, "MOST_BYTES", 100)
    message = f"f: holds {len(GOOD)} bytes; expected at most 100: is this the right file?"
    with pytest.raises(InputError, match=whole(message)):
        read_pickle(GOOD, "f")


def test_the_task_refuses_it_by_file(tmp_path):
    folder = files.write_folder(tmp_path, "python", files.images(1))
    target = tmp_path / "called"
    (folder / "data_batch_3").write_bytes(files.pickled(files.Calls(os.mkdir, str(target))))
    with pytest.raises(InputError, match=rf"^{folder}/data_batch_3: names \w+\.mkdir, which data"):
        load("cifar10", tmp_path)
    assert not target.exists()


def test_the_tests_write_the_opcodes_of_python_2():
    codes = {code.name for code, _, _ in pickletools.genops(GOOD)}
    assert {"BINSTRING", "GLOBAL", "REDUCE", "BUILD"} <= codes
    assert not codes & {"BINUNICODE", "SHORT_BINBYTES", "STACK_GLOBAL"}
