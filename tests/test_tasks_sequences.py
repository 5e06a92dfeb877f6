import numpy as np
import pytest
from tasks_helpers import whole

from fptt.errors import FpttError, InputError
from fptt.tasks import SequenceData, Task


def numbered(n, steps=3, lengths=None):
    """Sequence i holds i everywhere and has label i."""
    x = np.repeat(np.arange(n, dtype=np.float32), steps * 2).reshape(n, steps, 2)
    return SequenceData(x, np.arange(n, dtype=np.int32), lengths)


def test_properties():
    data = numbered(5)
    assert (len(data), data.steps, data.features, data.every_step) == (5, 3, 2, False)
    tokens = SequenceData(np.zeros((4, 7), np.int32), np.zeros((4, 7), np.int32))
    assert (len(tokens), tokens.steps, tokens.features, tokens.every_step) == (4, 7, None, True)


@pytest.mark.parametrize(
    ("shape", "dtype", "every_step"),
    [
        ((4,), np.int32, False),
        ((4, 7), np.int32, True),
        ((4, 2), np.float32, False),
        ((4, 7), np.float32, False),
        ((4, 7, 2), np.float32, True),
    ],
)
def test_every_step_follows_from_dtype_and_dimensions(shape, dtype, every_step):
    data = SequenceData(np.zeros((4, 7), np.int32), np.zeros(shape, dtype))
    assert data.every_step is every_step


def test_subset_by_indices_and_by_mask():
    data = numbered(4, lengths=np.array([1, 2, 3, 2], np.int32))
    chosen = data.subset([3, 1, 1])
    assert (chosen.y.tolist(), chosen.lengths.tolist()) == ([3, 1, 1], [2, 2, 2])
    assert chosen.x[:, 0, 0].tolist() == [3, 1, 1]
    assert data.subset(np.array([True, False, False, True])).y.tolist() == [0, 3]
    assert len(data.subset([])) == 0


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0, 4], "index 4 is outside 0..3"),
        ([-1], "index -1 is outside 0..3"),
        ([0.5], "indices are float64 of shape [1]; expected integers [m] or a boolean mask [4]"),
        ([True], "indices are bool of shape [1]; expected integers [m] or a boolean mask [4]"),
    ],
)
def test_subset_refuses(indices, message):
    with pytest.raises(InputError, match=whole(message)):
        numbered(4).subset(indices)


X, Y = np.zeros((4, 7, 2), np.float32), np.zeros(4, np.int32)


@pytest.mark.parametrize(
    ("x", "y", "lengths", "message"),
    [
        ([[0.0]], Y, None, "x is a list; expected a numpy array"),
        (
            X.astype(np.float64),
            Y,
            None,
            "x is float64 of shape [4, 7, 2]; expected float32 [n, T, F], or int32 [n, T] for "
            "tokens: convert it with astype and reshape",
        ),
        (
            X[:, :, 0],
            Y,
            None,
            "x is float32 of shape [4, 7]; expected float32 [n, T, F], or int32 [n, T] for "
            "tokens: convert it with astype and reshape",
        ),
        (
            X,
            Y.astype(np.float32),
            None,
            "y is float32 of shape [4]; expected int32 [n] or [n, T] for classes, or float32 "
            "[n, C] or [n, T, C] for regression: convert it with astype and reshape",
        ),
        (X, Y[:3], None, "x holds 4 sequences and y 3; they must agree"),
        (
            X,
            np.zeros((4, 6), np.int32),
            None,
            "y has 6 steps and x 7; a target for every step needs as many steps as the input",
        ),
        (X, Y, np.full(4, 7), "lengths are int64 of shape [4]; expected int32 [4]"),
        (X, Y, np.full(3, 7, np.int32), "lengths are int32 of shape [3]; expected int32 [4]"),
        (X, Y, np.array([7, 0, 8, 7], np.int32), "lengths[1] is 0; expected 1..7"),
        (X, Y, np.array([7, 7, 8, 7], np.int32), "lengths[2] is 8; expected 1..7"),
    ],
)
def test_sequence_data_refuses(x, y, lengths, message):
    with pytest.raises(InputError, match=whole(message)):
        SequenceData(x, y, lengths)


def test_task_refuses_what_its_data_contradicts():
    data = SequenceData(X, Y)
    fits = {"name": "t", "train": data, "test": data, "inputs": 2, "outputs": 1, "steps": 7}
    fits |= {"loss": "last", "criterion": "cross_entropy"}
    Task(**fits)
    for change, message in [
        ({"tokens": True}, "train.x is float32, but tokens is True"),
        ({"inputs": 3}, "train has 2 features, but inputs is 3"),
        ({"steps": 6}, "train has 7 steps, but steps is 6"),
        ({"loss": "every_step"}, "train.y has shape [4], but loss is every_step"),
        ({"criterion": "mse"}, "train.y is int32, but criterion is mse"),
        ({"contiguous": True}, "batch must be given for a contiguous task, and for no other"),
        ({"batch": 4}, "batch must be given for a contiguous task, and for no other"),
    ]:
        with pytest.raises(InputError, match=whole(message)):
            Task(**(fits | change))


def test_an_input_error_is_a_value_error_with_exit_code_2():
    assert issubclass(InputError, FpttError)
    assert issubclass(InputError, ValueError)
    assert (FpttError.exit_code, InputError.exit_code) == (1, 2)
