import subprocess
import sys

import cifar_files
import numpy as np
import pytest
from tasks_helpers import data_dir, whole  # noqa: F401

from fptt.errors import InputError
from fptt.tasks import NAMES, SequenceData, Task, load, options
from fptt.tasks.limit import limit_task


def test_names_and_options():
    assert NAMES == (
        "mnist-rows",
        "s-mnist",
        "ps-mnist",
        "cifar10",
        "cifar10-rows",
        "add",
        "fsdd",
        "fsdd-personal",
        "char",
        "words",
    )
    assert options("mnist-rows") == options("cifar10") == {}
    assert options("add") == {"steps": 200, "n_train": 10_000, "n_test": 1_000}
    assert options("fsdd") == {"steps": 96, "speaker": None}
    assert options("char") == {
        "steps": 100,
        "batch": 20,
        "test_fraction": 0.1,
        "text_file": None,
        "corpus": None,
        "held_out": "test",
    }
    assert options("words") == {**options("char"), "vocabulary": 10_000}


def test_import_is_fast_because_loaders_are_lazy():
    code = "import sys, fptt.tasks; print([m for m in sys.modules if m.startswith('fptt.tasks.')])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.stdout.strip() == "['fptt.tasks.checks', 'fptt.tasks.sequences']"


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "smnist",
            {},
            "unknown task 'smnist'; expected one of mnist-rows, s-mnist, ps-mnist, cifar10, "
            "cifar10-rows, add, fsdd, fsdd-personal, char, words; did you mean 's-mnist'?",
        ),
        (
            "zzz",
            {},
            "unknown task 'zzz'; expected one of mnist-rows, s-mnist, ps-mnist, cifar10, "
            "cifar10-rows, add, fsdd, fsdd-personal, char, words",
        ),
        (
            "add",
            {"step": 3},
            "unknown option 'step' of task 'add'; expected one of steps, n_train, n_test; did you "
            "mean 'steps'?",
        ),
        (
            "mnist-rows",
            {"steps": 3},
            "unknown option 'steps': task 'mnist-rows' takes no options",
        ),
        (
            "add",
            {"subset": True},
            "task 'add' has no embedded subset, only mnist-rows, s-mnist, ps-mnist have one: leave "
            "subset out",
        ),
        ("add", {"seed": -1}, "seed is -1; it must be a whole number of at least 0"),
        ("add", {"limit": 0}, "limit is 0; it must be a whole number of at least 1"),
        (
            "mnist-rows",
            {},
            "task 'mnist-rows' needs a data directory: give data_dir (on the command line: "
            "--data-dir DIR) or set the variable FPTT_DATA, or use subset=True for the 3,000 "
            "images embedded in the package",
        ),
        (
            "cifar10",
            {},
            "task 'cifar10' needs a data directory: give data_dir (on the command line: --data-dir "
            "DIR) or set the variable FPTT_DATA",
        ),
        (
            "fsdd",
            {},
            "task 'fsdd' needs a data directory: give data_dir (on the command line: --data-dir "
            "DIR) or set the variable FPTT_DATA",
        ),
        (
            "char",
            {},
            "task 'char' needs a data directory: give data_dir (on the command line: --data-dir "
            "DIR) or set the variable FPTT_DATA, or name a text with text_file",
        ),
    ],
)
def test_load_refuses(name, arguments, message, monkeypatch):
    monkeypatch.delenv("FPTT_DATA", raising=False)
    with pytest.raises(InputError, match=whole(message)):
        load(name, **arguments)


def test_a_data_directory_must_exist(tmp_path, monkeypatch):
    absent = tmp_path / "absent"
    with pytest.raises(InputError, match=r"^data_dir is '\S+/absent', which is not a directory\Z"):
        load("fsdd", absent)
    monkeypatch.setenv("FPTT_DATA", str(absent))
    with pytest.raises(InputError, match=r"^FPTT_DATA is '\S+/absent', which is not a directory\Z"):
        load("fsdd")


def test_an_argument_goes_before_the_variable(tmp_path, monkeypatch):
    (tmp_path / "input.txt").write_text("abcab" * 20)
    monkeypatch.setenv("FPTT_DATA", "/nowhere")
    assert load("char", tmp_path, batch=2, steps=5).vocabulary == ("a", "b", "c")
    monkeypatch.setenv("FPTT_DATA", str(tmp_path))
    assert load("char", batch=2, steps=5).vocabulary == ("a", "b", "c")


def labelled(n, classes):
    y = (np.arange(n) % classes).astype(np.int32)
    x = np.repeat(np.arange(n, dtype=np.float32), 2).reshape(n, 2, 1)
    return SequenceData(x, y, np.full(n, 2, np.int32))


def classification(n, m, classes=4):
    return Task(
        "t", labelled(n, classes), labelled(m, classes), 1, classes, 2, "last", "cross_entropy"
    )


def test_limit_draws_classes_evenly_and_the_test_in_proportion():
    task = limit_task(classification(100, 51), 22)
    assert sorted(np.bincount(task.train.y)) == [5, 5, 6, 6]
    assert len(task.test) == 11  # 51 * 22 / 100 = 11.22
    assert sorted(np.bincount(task.test.y)) == [2, 3, 3, 3]
    assert task.description == " Limited to 22 training and 11 test sequences."
    assert len(set(task.train.x[:, 0, 0])) == 22
    assert np.array_equal(task.train.x[:, 0, 0] % 4, task.train.y)


def test_limit_takes_all_of_a_rare_class():
    data = labelled(100, 4).subset([0, 1, 5, 9, 13, 17, 21, 2, 6, 10, 14, 18, 22, 26])
    task = Task("t", data, data, 1, 4, 2, "last", "cross_entropy")
    assert np.bincount(limit_task(task, 9).train.y).tolist() == [1, 4, 4]


def test_limit_is_deterministic_shuffled_and_depends_on_the_seed():
    def kept(seed):
        return limit_task(classification(100, 50), 30, seed).train.x[:, 0, 0].tolist()

    assert kept(1) == kept(1)
    assert kept(1) != kept(2)
    labels = limit_task(classification(100, 50), 40).train.y
    assert not np.array_equal(np.sort(labels), labels)
    # Nor are the classes still in turn.
    assert any(len(set(turn)) < 4 for turn in labels.reshape(10, 4).tolist())


def test_limit_keeps_at_least_one_test_sequence_and_does_nothing_when_large():
    task = classification(100, 5)
    assert len(limit_task(task, 2).test) == 1
    assert limit_task(task, 100) is task


def test_limit_of_a_regression():
    task = load("add", steps=4, n_train=30, n_test=10, limit=9)
    full = load("add", steps=4, n_train=30, n_test=10)
    assert (len(task.train), len(task.test)) == (9, 3)
    rows = [np.flatnonzero((full.train.x == x).all(axis=(1, 2))).tolist() for x in task.train.x]
    assert all(len(row) == 1 for row in rows)
    assert np.array_equal(full.train.y[[row[0] for row in rows]], task.train.y)


def test_limit_refuses_a_text(tmp_path):
    (tmp_path / "t.txt").write_text("abc" * 50)
    message = whole(
        "task 'char' is one text, whose rows continue each other: limit cannot leave rows out; "
        "give a shorter text with text_file"
    )
    with pytest.raises(InputError, match=message):
        load("char", text_file=tmp_path / "t.txt", batch=2, steps=5, limit=3)


@pytest.mark.parametrize("name", NAMES)
def test_every_task_loads(name, data_dir, tmp_path):  # noqa: F811
    if name.startswith("cifar10"):
        data_dir = cifar_files.write_folder(tmp_path, "binary", cifar_files.images(11))
    limit = None if name in ("char", "words") else 50
    task = load(name, data_dir, limit=limit)
    assert task.name == name
    assert task.steps == max(task.train.steps, task.test.steps)
    if limit:
        assert len(task.train) == 50
    if task.tokens:
        assert max(task.train.x.max(), task.test.x.max()) < task.inputs
    else:
        assert task.train.features == task.inputs
        assert np.isfinite(task.train.x).all()
    if task.criterion == "cross_entropy":
        assert 0 <= task.train.y.max() < task.outputs
    else:
        assert task.train.y.shape[-1] == task.outputs
