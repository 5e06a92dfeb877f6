"""Trainers and estimators can be pickled and copied; a copy has memory of its own."""

import copy
import pickle
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

import fptt
from fptt.training.batches import make_batch

ROOT = Path(fptt.__file__).parents[2]


def trainer_(**options):
    net = fptt.Network([fptt.LSTM(2, 8), fptt.Dropout(0.2), fptt.Linear(8, 3)])
    program = fptt.build(
        net, fptt.FPTT(parts=3), fptt.Adam(0.01), steps=9, batch=4, loss="auxiliary"
    )
    return fptt.Trainer(program, seed=3, **options)


def data(seed, rows=4):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 9, 2)).astype(np.float32), rng.integers(0, 3, rows)


WAYS = [lambda t: pickle.loads(pickle.dumps(t)), copy.deepcopy, copy.copy]


@pytest.mark.parametrize("way", WAYS, ids=["pickle", "deepcopy", "copy"])
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_a_copy_goes_on_with_the_same_bits_in_memory_of_its_own(way, backend):
    trainer = trainer_(backend=backend)
    trainer.train_batch(*data(0))
    trainer.begin_sequence()
    trainer.step(data(1)[0][:, 0])
    other = way(trainer)
    assert other.backend.name == backend
    before = trainer.parameters()
    for step in range(1, 9):
        other.step(data(1)[0][:, step], data(1)[1])
    assert all(np.array_equal(before[n], a) for n, a in trainer.parameters().items())
    for step in range(1, 9):
        trainer.step(data(1)[0][:, step], data(1)[1])
    for name, values in trainer.parameters().items():
        assert np.array_equal(values, other.parameters()[name]), name
    assert trainer.train_batch(*data(2)) == other.train_batch(*data(2))


def test_an_estimator_can_be_pickled():
    x, y = data(5, rows=12)
    model = fptt.SequenceClassifier(hidden=6, epochs=2).fit(x, y)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert np.array_equal(other.predict(x), model.predict(x))


def run_in_threads(count, work):
    errors = []

    def guarded():
        try:
            work()
        except fptt.FpttError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=guarded) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_one_trainer_in_two_threads_is_an_error_and_not_a_crash():
    net = fptt.Network([fptt.LSTM(1, 64), fptt.Linear(64, 3)])
    program = fptt.build(net, fptt.FPTT(parts=10), steps=500, batch=8)
    trainer = fptt.Trainer(program, threads=2)
    x, y = np.ones((8, 500, 1), np.float32), np.arange(8) % 3
    errors = run_in_threads(4, lambda: [trainer.train_batch(x, y) for _ in range(5)])
    assert errors
    assert all("at work in another thread" in error for error in errors)
    assert all(np.isfinite(values).all() for values in trainer.parameters().values())


def test_a_second_thread_leaves_the_arrays_of_the_first_alone():
    trainer = trainer_(backend="native")
    engine = trainer.backend
    first = engine._handed = object()
    batch = make_batch(trainer.program, *data(0), None, bounded=True)
    with engine._alone(), pytest.raises(fptt.FpttError, match="at work in another thread"):
        engine.train(batch, np.full(3, np.nan), 0)
    assert engine._handed is first


def test_predictions_from_several_threads_are_right():
    trainer = trainer_()
    x, _ = data(7, rows=300)
    wanted = trainer.predict(x)
    wrong = []

    def work():
        for _ in range(5):
            if not np.array_equal(trainer.predict(x), wanted):
                wrong.append(1)

    assert run_in_threads(4, work) == []
    assert not wrong


def test_no_compiled_file_and_no_link_is_part_of_the_sources():
    listed = subprocess.run(
        ["git", "ls-files", "-s"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not in a git checkout")
    for line in listed.stdout.splitlines():
        mode, *_, name = line.split(maxsplit=3)
        assert mode != "120000", f"{name} is a link"
        assert not name.endswith((".so", ".o", ".a")), f"{name} is compiled"
