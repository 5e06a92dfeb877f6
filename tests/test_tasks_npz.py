import numpy as np
import pytest
from tasks_helpers import whole

from fptt.errors import InputError
from fptt.tasks.npz import load_npz


@pytest.fixture
def store(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "mine.npz", **arrays)
        return tmp_path / "mine.npz"

    return write


def numbered(n=10, steps=4, features=3):
    """x[i, t, f] = 100 i + 10 t + f, float64."""
    i, t, f = np.indices((n, steps, features))
    return 100.0 * i + 10.0 * t + f


FRAMES = np.arange(18.0).reshape(9, 2)  # lengths 2, 4, 3
LENGTHS = np.array([2, 4, 3])


def sorted_rows(task):
    """All sequences (x, y, length) in the order of the archive, whatever the split drew."""
    x = np.concatenate([task.train.x, task.test.x])
    y = np.concatenate([task.train.y, task.test.y])
    order = np.argsort(x.reshape(len(x), -1)[:, 0])
    if task.train.lengths is None:
        return x[order], y[order], None
    return x[order], y[order], np.concatenate([task.train.lengths, task.test.lengths])[order]


def test_labels_per_sequence(store):
    labels = np.array([0, 2, 1, 0, 1, 2, 0, 1, 2, 0])
    task = load_npz(store(x=numbered(), y=labels), test_fraction=0.3)
    assert (task.name, task.inputs, task.outputs, task.steps) == ("mine", 3, 3, 4)
    assert (task.loss, task.criterion, task.tokens) == ("last", "cross_entropy", False)
    assert (len(task.train), len(task.test)) == (7, 3)
    x, y, lengths = sorted_rows(task)
    assert (x.dtype, y.dtype, lengths) == (np.float32, np.int32, None)
    assert np.array_equal(x, numbered())
    assert np.array_equal(y, labels)
    assert task.description == (
        "Sequences from mine.npz: 7 to train on and 3 held out (3 drawn at random for the test), "
        "not normalised."
    )


def test_the_split_depends_on_the_seed_alone(store):
    path = store(x=numbered(), y=np.zeros(10, int))
    one, again, other = (load_npz(path, 0.4, seed=s) for s in (1, 1, 2))
    assert np.array_equal(one.test.x, again.test.x)
    assert not np.array_equal(one.test.x, other.test.x)


@pytest.mark.parametrize(("n", "fraction", "held_out"), [(2, 0.01, 1), (2, 0.99, 1), (10, 0.25, 2)])
def test_at_least_one_sequence_on_each_side(store, n, fraction, held_out):
    task = load_npz(store(x=numbered(n), y=np.zeros(n, int)), fraction)
    assert (len(task.train), len(task.test)) == (n - held_out, held_out)


def test_labels_per_step(store):
    labels = np.arange(40).reshape(10, 4) % 5 - 1
    task = load_npz(store(x=numbered(), y=labels))
    assert (task.loss, task.outputs) == ("every_step", 4)
    assert np.array_equal(sorted_rows(task)[1], labels)


@pytest.mark.parametrize(
    ("shape", "as_loaded", "loss"),
    [
        ((10,), (10, 1), "last"),
        ((10, 4), (10, 4), "last"),
        ((10, 4, 2), (10, 4, 2), "every_step"),
    ],
)
def test_regression(store, shape, as_loaded, loss):
    y = np.arange(np.prod(shape), dtype=float).reshape(shape)
    task = load_npz(store(x=numbered(), y=y))
    assert (task.criterion, task.loss, task.outputs) == ("mse", loss, as_loaded[-1])
    loaded = sorted_rows(task)[1]
    assert loaded.dtype == np.float32
    assert np.array_equal(loaded, y.reshape(as_loaded))


def test_tokens(store):
    x = np.arange(30).reshape(10, 3)
    task = load_npz(store(x=x, y=x[:, ::-1].copy()))
    assert (task.tokens, task.inputs, task.outputs, task.loss) == (True, 30, 30, "every_step")
    assert np.array_equal(sorted_rows(task)[0], x)
    assert np.array_equal(sorted_rows(task)[1], x[:, ::-1])


def test_tokens_with_lengths_ignore_what_lies_beyond(store):
    x = np.array([[1, 2, -7], [3, 4, 5], [6, 99, 99]])
    y = np.array([[0, 1, -100], [1, 1, 1], [0, -100, -100]])
    task = load_npz(store(x=x, y=y, lengths=[2, 3, 1]))
    loaded_x, loaded_y, lengths = sorted_rows(task)
    assert loaded_x.tolist() == [[1, 2, 0], [3, 4, 5], [6, 0, 0]]
    assert loaded_y.tolist() == [[0, 1, -1], [1, 1, 1], [0, -1, -1]]
    assert lengths.tolist() == [2, 3, 1]
    assert (task.inputs, task.outputs) == (7, 2)


def test_padded_sequences_ignore_what_lies_beyond(store):
    x = numbered(3, 2, 2)
    x[1, 1] = np.nan
    task = load_npz(store(x=x, y=[0, 1, 0], lengths=[2, 1, 2]))
    loaded = sorted_rows(task)[0]
    assert loaded[1].tolist() == [[100, 101], [0, 0]]
    assert np.array_equal(loaded[[0, 2]], x[[0, 2]])


def test_frames_one_after_the_other(store):
    task = load_npz(store(x=FRAMES, y=[1, 0, 1], lengths=LENGTHS))
    x, y, lengths = sorted_rows(task)
    assert (x.shape, task.steps, task.inputs) == ((3, 4, 2), 4, 2)
    assert x[0].tolist() == [[0, 1], [2, 3], [0, 0], [0, 0]]
    assert x[1].tolist() == [[4, 5], [6, 7], [8, 9], [10, 11]]
    assert x[2].tolist() == [[12, 13], [14, 15], [16, 17], [0, 0]]
    assert (y.tolist(), lengths.tolist()) == ([1, 0, 1], [2, 4, 3])


def test_integer_frames_are_not_taken_for_tokens(store):
    task = load_npz(store(x=FRAMES.astype(np.int16), y=[1, 0, 1], lengths=LENGTHS))
    assert (task.tokens, task.train.x.dtype, task.inputs) == (False, np.float32, 2)


def test_a_label_for_every_frame(store):
    task = load_npz(store(x=FRAMES, y=[0, 1, 2, 0, -1, 1, 2, 0, 1], lengths=LENGTHS))
    assert (task.loss, task.outputs) == ("every_step", 3)
    assert sorted_rows(task)[1].tolist() == [[0, 1, -1, -1], [2, 0, -1, 1], [2, 0, 1, -1]]


@pytest.mark.parametrize("columns", [1, 2])
def test_numbers_for_every_frame(store, columns):
    y = np.arange(9.0 * columns).reshape(9, columns)
    stored = y[:, 0] if columns == 1 else y
    task = load_npz(store(x=FRAMES, y=stored, lengths=LENGTHS))
    loaded = sorted_rows(task)[1]
    assert (task.loss, task.outputs, loaded.shape) == ("every_step", columns, (3, 4, columns))
    assert np.array_equal(loaded[0, :2], y[:2])
    assert np.array_equal(loaded[1], y[2:6])
    assert np.array_equal(loaded[2, :3], y[6:])
    assert (loaded[0, 2:] == 0).all()


def test_numbers_per_sequence_beside_frames(store):
    y = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    task = load_npz(store(x=FRAMES, y=y, lengths=LENGTHS))
    assert (task.loss, task.outputs) == ("last", 2)
    assert np.array_equal(sorted_rows(task)[1], y)


def test_a_split_that_is_given_is_kept(store):
    path = store(
        x=FRAMES, y=[1, 0, 1], lengths=LENGTHS, x_test=FRAMES[:6], y_test=[3], lengths_test=[6]
    )
    task = load_npz(path)
    assert (len(task.train), len(task.test)) == (3, 1)
    assert task.train.x[1, 0].tolist() == [4, 5]
    assert (task.steps, task.train.steps, task.test.steps, task.outputs) == (6, 4, 6, 4)
    assert "(split as given)" in task.description


X, Y = numbered(), np.zeros(10, int)


def changed(array, place, value):
    copy = array.copy()
    copy[place] = value
    return copy


BESIDE = " beside 10 sequences (x has shape [10, 4, 3]); expected "
REFUSED = {
    "no y": ({"x": X}, "{}: y missing; it holds x: store the inputs as x and the targets as y"),
    "nothing": (
        {},
        "{}: x and y missing; it holds nothing: store the inputs as x and the targets as y",
    ),
    "no x_test": (
        {"x": X, "y": Y, "y_test": Y},
        "{}: x_test missing; it holds x, y, y_test: store the inputs as x_test and the targets as "
        "y_test",
    ),
    "text": (
        {"x": np.array(["a", "b"]), "y": Y[:2]},
        "{}: x has dtype <U1; expected real numbers: convert them first",
    ),
    "empty": (
        {"x": np.zeros((0, 4, 3)), "y": Y[:0]},
        "{}: x has shape [0, 4, 3] and so holds nothing",
    ),
    "no features": (
        {"x": np.zeros((10, 4, 0)), "y": Y},
        "{}: x has shape [10, 4, 0] and so holds nothing",
    ),
    "2-D floats without lengths": (
        {"x": X[:, :, 0], "y": Y},
        "{}: x is float64 of shape [10, 4]; expected [n, T, F], or integers [n, T] for tokens, or "
        "[N, F] beside lengths [n]: for one feature a step use x[:, :, np.newaxis]",
    ),
    "4-D": (
        {"x": X[None], "y": Y},
        "{}: x is float64 of shape [1, 10, 4, 3]; expected [n, T, F], or integers [n, T] for "
        "tokens, or [N, F] beside lengths [n]: for one feature a step use x[:, :, np.newaxis]",
    ),
    "too few labels": (
        {"x": X, "y": Y[:9]},
        "{}: y is int64 of shape [9]" + BESIDE + "[10] for a label per sequence or [10, 4] for a "
        "label per step",
    ),
    "labels for other steps": (
        {"x": X, "y": np.zeros((10, 5), int)},
        "{}: y is int64 of shape [10, 5]" + BESIDE + "[10] for a label per sequence or [10, 4] for "
        "a label per step",
    ),
    "too few numbers": (
        {"x": X, "y": np.zeros((9, 2))},
        "{}: y is float64 of shape [9, 2]" + BESIDE + "[10, C] for targets per sequence or "
        "[10, 4, C] for targets per step",
    ),
    "no outputs": (
        {"x": X, "y": np.zeros((10, 0))},
        "{}: y is float64 of shape [10, 0]" + BESIDE + "[10, C] for targets per sequence or "
        "[10, 4, C] for targets per step",
    ),
    "a single label": (
        {"x": X, "y": np.int64(1)},
        "{}: y is int64 of shape []" + BESIDE + "[10] for a label per sequence or [10, 4] for a "
        "label per step",
    ),
    "labels beside frames": (
        {"x": FRAMES, "y": Y[:4], "lengths": LENGTHS},
        "{}: y is int64 of shape [4] beside 3 sequences (x has shape [9, 2]); expected [3] for a "
        "label per sequence or [9] for a label per step",
    ),
    "names as labels": (
        {"x": X, "y": np.array(["yes"] * 10)},
        "{}: y has dtype <U3; expected whole numbers 0, 1, ... for classes, or floats for "
        "regression: number labels with np.unique(y, return_inverse=True)[1]",
    ),
    "negative label": (
        {"x": X, "y": changed(Y, 6, -1)},
        "{}: y[6] is -1; expected labels 0, 1, ...",
    ),
    "negative label of a step": (
        {"x": X, "y": changed(np.zeros((10, 4), int), (6, 2), -2)},
        "{}: y[6, 2] is -2; expected labels 0, 1, ..., or -1 where a step has no target",
    ),
    "negative label of a frame": (
        {"x": FRAMES, "y": changed(np.zeros(9, int), 7, -2), "lengths": LENGTHS},
        "{}: y[7] is -2; expected labels 0, 1, ..., or -1 where a step has no target",
    ),
    "huge label": (
        {"x": X, "y": changed(Y, 1, 2**31)},
        "{}: y[1] is 2147483648; expected labels 0, 1, ...",
    ),
    "no step has a label": (
        {"x": X, "y": np.full((10, 4), -1)},
        "{}: y holds nothing but -1 (no target); label some steps",
    ),
    "NaN": (
        {"x": changed(changed(X, (3, 2, 1), np.nan), (5, 0, 0), np.inf), "y": Y},
        "{}: x[3, 2, 1] is nan, the first of 2 that are no finite float32: replace them, or leave "
        "their sequences out",
    ),
    "Inf in a frame": (
        {"x": changed(FRAMES, (7, 1), -np.inf), "y": Y[:3], "lengths": LENGTHS},
        "{}: x[7, 1] is -inf, the first of 1 that are no finite float32: replace them, or leave "
        "their sequences out",
    ),
    "too large for float32": (
        {"x": changed(X, (0, 0, 2), 1e39), "y": Y},
        "{}: x[0, 0, 2] is 1e+39, the first of 1 that are no finite float32: replace them, or "
        "leave their sequences out",
    ),
    "NaN target": (
        {"x": X, "y": changed(np.zeros(10), 4, np.nan)},
        "{}: y[4] is nan, the first of 1 that are no finite float32: replace them, or leave their "
        "sequences out",
    ),
    "NaN target of a frame": (
        {"x": FRAMES, "y": changed(np.zeros((9, 2)), (5, 1), np.nan), "lengths": LENGTHS},
        "{}: y[5, 1] is nan, the first of 1 that are no finite float32: replace them, or leave "
        "their sequences out",
    ),
    "negative token": (
        {"x": changed(np.ones((10, 4), int), (2, 3), -1), "y": Y},
        "{}: x[2, 3] is -1; tokens are numbered from 0",
    ),
    "lengths with a point": (
        {"x": FRAMES, "y": Y[:3], "lengths": LENGTHS.astype(float)},
        "{}: lengths is float64 of shape [3]; expected whole numbers [n], the steps of each "
        "sequence",
    ),
    "zero length": (
        {"x": FRAMES, "y": Y[:4], "lengths": [2, 4, 0, 3]},
        "{}: lengths[2] is 0; every sequence needs at least one step: leave empty ones out",
    ),
    "lengths do not sum": (
        {"x": FRAMES, "y": Y[:3], "lengths": [2, 4, 4]},
        "{}: lengths sum to 10, but x holds 9 frames; they must agree",
    ),
    "lengths for others": (
        {"x": X, "y": Y, "lengths": [4] * 9},
        "{}: x holds 10 sequences and lengths 9; they must agree",
    ),
    "too long": (
        {"x": X, "y": Y, "lengths": [4] * 9 + [5]},
        "{}: lengths[9] is 5, but x has 4 steps; no sequence can be longer",
    ),
    "one sequence": (
        {"x": X[:1], "y": Y[:1]},
        "{}: x holds 1 sequence; at least 2 are needed to hold one out: add more, or give x_test "
        "and y_test",
    ),
    "other features in the test": (
        {"x": X, "y": Y, "x_test": X[:, :, :2], "y_test": Y},
        "{}: x has 3 features and x_test 2 features; they must agree",
    ),
    "tokens in the test": (
        {"x": X, "y": Y, "x_test": np.ones((10, 4), int), "y_test": Y},
        "{}: x has 3 features and x_test tokens; they must agree",
    ),
    "other targets in the test": (
        {"x": X, "y": Y, "x_test": X, "y_test": np.zeros(10)},
        "{}: y is for cross_entropy, last, and y_test for mse, last; both must have the same kind "
        "of target",
    ),
    "other outputs in the test": (
        {"x": X, "y": np.zeros(10), "x_test": X, "y_test": np.zeros((10, 2))},
        "{}: y has 1 outputs and y_test 2; they must agree",
    ),
    "NaN in the test": (
        {"x": X, "y": Y, "x_test": changed(X, (0, 0, 0), np.nan), "y_test": Y},
        "{}: x_test[0, 0, 0] is nan, the first of 1 that are no finite float32: replace them, or "
        "leave their sequences out",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(store, case):
    arrays, message = REFUSED[case]
    with pytest.raises(InputError, match=whole(message)):
        load_npz(store(**arrays))


def test_refuses_a_fraction_outside(store):
    message = "test_fraction is 0; it must lie between 0 and 1, both excluded"
    with pytest.raises(InputError, match=whole(message)):
        load_npz(store(x=X, y=Y), test_fraction=0)


def test_pickled_objects_are_never_loaded(tmp_path):
    ragged = np.empty(2, object)
    ragged[:] = [np.zeros(3), np.zeros(4)]
    np.savez(tmp_path / "a.npz", x=ragged, y=[0, 1])
    message = (
        "{}: x holds pickled Python objects, which fptt never loads; expected numbers: store "
        "sequences of unequal length one after the other as x [N, F] with lengths [n]"
    )
    with pytest.raises(InputError, match=whole(message)):
        load_npz(tmp_path / "a.npz")


def test_files_that_are_no_archives(tmp_path):
    path = tmp_path / "a.npz"
    message = "{}: no such file; expected an npz archive (made with np.savez)"
    with pytest.raises(InputError, match=whole(message)):
        load_npz(path)
    with pytest.raises(InputError, match=whole(message)):
        load_npz(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"^\S+: not a whole npz archive \(No data.+ it again\Z"):
        load_npz(path)
    path.write_text("x,y\n1,2\n")
    message = (
        "{}: not a whole npz archive; expected a file made with np.savez: make or copy it again"
    )
    with pytest.raises(InputError, match=whole(message)):
        load_npz(path)
    with path.open("wb") as file:
        np.save(file, X)
    message = (
        "{}: holds a single array; expected an npz archive with named arrays: make it with "
        "np.savez(path, x=..., y=...)"
    )
    with pytest.raises(InputError, match=whole(message)):
        load_npz(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_truncation_at_any_place_and_damage_are_noticed(tmp_path, save):
    path = tmp_path / "a.npz"
    save(path, x=X, y=Y)
    content = path.read_bytes()
    for keep in range(0, len(content), 37):
        path.write_bytes(content[:keep])
        with pytest.raises(InputError, match=r"^\S+: not a whole npz archive \(.+ it again\Z"):
            load_npz(path)
    damaged = bytearray(content)
    damaged[len(content) // 3] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(
        InputError, match=r"^\S+: x is damaged \(.+\); make or copy the file again\Z"
    ):
        load_npz(path)
