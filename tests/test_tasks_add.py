import numpy as np
import pytest
from tasks_helpers import whole

from fptt.errors import InputError
from fptt.tasks import load
from fptt.tasks.add import sequences


@pytest.mark.parametrize("steps", [2, 3, 7, 200])
def test_the_target_is_the_sum_of_one_number_in_each_half(steps):
    task = load("add", steps=steps, n_train=300, n_test=20, seed=5)
    assert (task.inputs, task.outputs, task.steps) == (2, 1, steps)
    assert (task.loss, task.criterion) == ("last", "mse")
    for data, n in ((task.train, 300), (task.test, 20)):
        assert data.x.shape == (n, steps, 2)
        assert (data.x.dtype, data.y.dtype, data.y.shape) == (np.float32, np.float32, (n, 1))
        for x, y in zip(data.x, data.y, strict=True):
            first, second = np.flatnonzero(x[:, 1])
            assert x[[first, second], 1].tolist() == [1, 1]
            assert first < steps // 2 <= second
            assert y[0] == x[first, 0] + x[second, 0]
            assert ((x[:, 0] >= 0) & (x[:, 0] < 1)).all()


def test_every_place_can_be_marked():
    marks = load("add", steps=7, n_train=500, n_test=1).train.x[:, :, 1].sum(axis=0)
    assert (marks > 0).all()
    assert (marks[:3].sum(), marks[3:].sum()) == (500, 500)


def test_always_answering_one_is_the_stated_baseline():
    y = load("add", steps=20, n_train=20_000).train.y
    assert abs(float(np.mean((y - 1) ** 2)) - 1 / 6) < 0.005


def test_seeds():
    one, again, other = (load("add", steps=9, n_train=5, n_test=5, seed=s) for s in (1, 1, 2))
    assert np.array_equal(one.train.x, again.train.x)
    assert np.array_equal(one.test.y, again.test.y)
    assert not np.array_equal(one.train.x, other.train.x)
    assert not np.array_equal(one.train.x, one.test.x)


def test_more_training_sequences_leave_the_test_unchanged():
    few, many = (load("add", steps=9, n_train=n, n_test=5) for n in (5, 50))
    assert np.array_equal(few.test.x, many.test.x)


def test_new_sequences_for_every_epoch_and_one_test():
    task = load("add", steps=9, n_train=40, n_test=40, seed=3)
    epochs = [sequences(9, 40, seed=3, epoch=epoch) for epoch in range(4)]
    assert np.array_equal(epochs[0].x, task.train.x) and np.array_equal(epochs[0].y, task.train.y)
    again = sequences(9, 40, seed=3, epoch=2)
    assert np.array_equal(again.x, epochs[2].x) and np.array_equal(again.y, epochs[2].y)
    rows = [x.tobytes() for data in (task.test, *epochs) for x in data.x]
    assert len(set(rows)) == 200  # nothing is seen twice, nor in the test
    for data in epochs:
        assert np.array_equal((data.x[:, :, 0] * data.x[:, :, 1]).sum(axis=1), data.y[:, 0])
    assert not np.array_equal(sequences(9, 40, seed=4, epoch=2).x, epochs[2].x)


@pytest.mark.parametrize("option", ["steps", "n", "seed", "epoch"])
def test_sequences_refuses(option):
    with pytest.raises(InputError, match=rf"^{option} is -1; it must be a whole number of "):
        sequences(**{"steps": 9, "n": 4, option: -1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 1}, "steps is 1; it must be a whole number of at least 2"),
        ({"steps": "200"}, "steps is '200'; it must be a whole number of at least 2"),
        ({"n_train": 0}, "n_train is 0; it must be a whole number of at least 1"),
        ({"n_test": 0}, "n_test is 0; it must be a whole number of at least 1"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(InputError, match=whole(message)):
        load("add", **options)
