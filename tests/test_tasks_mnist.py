import gzip
import hashlib
import struct

import numpy as np
import pytest
from tasks_helpers import data_dir, whole  # noqa: F401

from fptt.errors import InputError
from fptt.tasks import load, mnist
from fptt.tasks.idx import parse_idx, read_idx


def idx(array, magic=None):
    magic = 0x0800 | array.ndim if magic is None else magic
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


@pytest.fixture
def small(tmp_path):
    """Three training and two test images, in the four official files."""
    images = (np.arange(5 * 784) % 256).astype(np.uint8).reshape(5, 28, 28)
    labels = np.array([3, 1, 4, 0, 9], np.uint8)
    folder = tmp_path / "mnist"
    folder.mkdir()
    parts = (images[:3], labels[:3], images[3:], labels[3:])
    for name, part in zip(mnist.FILES, parts, strict=True):
        (folder / name).write_bytes(gzip.compress(idx(part)))
    return tmp_path, images, labels


def test_rows_are_rows_scaled_to_one(small):
    folder, images, _ = small
    task = load("mnist-rows", folder)
    assert (task.inputs, task.outputs, task.steps) == (28, 10, 28)
    assert task.normalisation == {"divide_by": 255.0}
    assert task.train.x.dtype == np.float32
    assert np.array_equal(task.train.x, images[:3].astype(np.float32) / np.float32(255))
    assert task.train.x[0, 9, 3] == np.float32(255) / 255  # 9 * 28 + 3 = 255
    assert (task.train.y.tolist(), task.test.y.tolist()) == ([3, 1, 4], [0, 9])
    assert task.description == (
        "Handwritten digits: MNIST, a row of 28 pixels a step, 28 steps; 3 training and 2 test "
        "images, pixels scaled to [0, 1]."
    )


def test_pixels_go_row_by_row(small):
    folder, images, _ = small
    task = load("s-mnist", folder)
    assert task.train.x.shape == (3, 784, 1)
    assert (task.inputs, task.steps) == (1, 784)
    assert task.train.x[1, 2 * 28 + 5, 0] == images[1, 2, 5] / np.float32(255)


def test_permuted_pixels(small):
    folder, images, _ = small
    task = load("ps-mnist", folder)
    order = mnist.permutation()
    assert sorted(order) == list(range(784))
    assert order[:8].tolist() == [319, 576, 323, 107, 355, 716, 197, 20]
    digest = hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()
    assert digest == "96240fe27409981c3ed3e92c20d995f7103a94c2282307bc776923030113be74"
    assert task.test.x[1, 0, 0] == images[4].ravel()[319] / np.float32(255)
    assert task.normalisation == {"divide_by": 255.0, "order": order.tolist()}
    plain = load("s-mnist", folder)
    assert np.array_equal(task.train.x, plain.train.x[:, order])


def test_files_may_lie_in_the_directory_itself(small):
    folder, _, _ = small
    assert len(load("mnist-rows", folder / "mnist").train) == 3


def test_missing_file_names_it_and_the_places(small):
    folder, _, _ = small
    (folder / "mnist" / mnist.FILES[3]).unlink()
    message = (
        f"task 's-mnist': t10k-labels-idx1-ubyte.gz not found in {folder}/mnist; expected "
        "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, "
        f"t10k-labels-idx1-ubyte.gz in {folder}/mnist or in {folder}: copy the four files there, "
        "or use subset=True for the embedded 3,000 images"
    )
    with pytest.raises(InputError, match=whole(message)):
        load("s-mnist", folder)


@pytest.mark.parametrize("keep", [0, 5, 30, -9, -1])
def test_truncated_gzip(small, keep):
    folder, _, _ = small
    path = folder / "mnist" / mnist.FILES[0]
    path.write_bytes(path.read_bytes()[:keep])
    expected = (
        rf"^{path}: (cannot be unpacked \(.+\); expected a whole gzip file: download it again"
        r"|the magic number is 0x00000000; expected 0x00000803 \(unsigned bytes, dimensions: 3\): "
        r"is this the right file\?)\Z"
    )
    with pytest.raises(InputError, match=expected):
        load("mnist-rows", folder)


def test_a_damaged_byte_inside_gzip_is_noticed(small):
    folder, _, _ = small
    path = folder / "mnist" / mnist.FILES[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=rf"^{path}: cannot be unpacked \(.+\); expected .+ again\Z"
    ):
        load("mnist-rows", folder)


def test_a_file_that_is_not_gzip(small):
    folder, _, _ = small
    path = folder / "mnist" / mnist.FILES[1]
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match=rf"^{path}: cannot be unpacked \(Not a gzip.+ again\Z"):
        load("mnist-rows", folder)


@pytest.mark.parametrize(
    ("position", "content", "message"),
    [
        (
            0,
            idx(np.zeros(3, np.uint8)),
            "{}: the magic number is 0x00000801; expected 0x00000803 (unsigned bytes, dimensions: "
            "3): is this the right file?",
        ),
        (
            0,
            idx(np.zeros((3, 28, 28), np.uint8))[:-7],
            "{}: the header states 3 x 28 x 28 = 2352 bytes of data, the file holds 2345: download "
            "it again",
        ),
        (
            0,
            idx(np.zeros((3, 28, 28), np.uint8)) + b"!",
            "{}: the header states 3 x 28 x 28 = 2352 bytes of data, the file holds 2353: download "
            "it again",
        ),
        (
            0,
            idx(np.zeros((3, 28, 28), np.uint8))[:10],
            "{}: holds 10 bytes; expected a header of 16: download it again",
        ),
        (
            0,
            idx(np.zeros((3, 27, 28), np.uint8)),
            "{}: images are 27 x 28; expected 28 x 28",
        ),
        (
            1,
            idx(np.zeros(4, np.uint8)),
            "{} holds 3 images and {} 4 labels; they must agree: download both again",
        ),
        (
            1,
            idx(np.array([1, 10, 2], np.uint8)),
            "{}: holds the label 10; expected digits 0..9",
        ),
    ],
)
def test_contents_that_cannot_be(small, position, content, message):
    folder, _, _ = small
    (folder / "mnist" / mnist.FILES[position]).write_bytes(gzip.compress(content))
    with pytest.raises(InputError, match=whole(message)):
        load("mnist-rows", folder)


def test_no_images_at_all(small):
    folder, _, _ = small
    (folder / "mnist" / mnist.FILES[2]).write_bytes(
        gzip.compress(idx(np.zeros((0, 28, 28), np.uint8)))
    )
    (folder / "mnist" / mnist.FILES[3]).write_bytes(gzip.compress(idx(np.zeros(0, np.uint8))))
    with pytest.raises(InputError, match=whole("{}: holds no images: download it again")):
        load("mnist-rows", folder)


def test_a_header_that_states_more_than_fits_is_refused():
    content = struct.pack(">4I", 0x0803, 2**32 - 1, 2**32 - 1, 2**32 - 1)
    stated = (2**32 - 1) ** 3
    message = (
        f"f: the header states 4294967295 x 4294967295 x 4294967295 = {stated} bytes of data, the "
        "file holds 0: download it again"
    )
    with pytest.raises(InputError, match=whole(message)):
        parse_idx(content, 3, "f")


def test_embedded_subset_is_balanced_and_needs_no_directory(monkeypatch):
    monkeypatch.delenv("FPTT_DATA", raising=False)
    task = load("mnist-rows", subset=True)
    assert np.bincount(task.train.y).tolist() == [200] * 10
    assert np.bincount(task.test.y).tolist() == [100] * 10
    assert task.train.x.shape == (2000, 28, 28)
    assert (task.train.x.min(), task.train.x.max()) == (0, 1)
    assert "the embedded subset of MNIST" in task.description
    assert 0.1 < task.train.x.mean() < 0.16  # 0.1307 over all of MNIST
    pixels, permuted = mnist.embedded("s-mnist"), mnist.embedded("ps-mnist")
    assert np.array_equal(pixels.train.x.reshape(2000, 28, 28), task.train.x)
    assert np.array_equal(permuted.test.x, pixels.test.x[:, mnist.permutation()])


def test_embedded_file_is_small_and_is_the_one_that_the_script_makes():
    path = mnist.resources.files("fptt.tasks") / "data" / "mnist_subset.npz"
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert len(content) < 600_000
    licence = (mnist.resources.files("fptt.tasks") / "data" / "MNIST_LICENSE.md").read_text()
    assert f"sha256 {digest}" in licence
    assert all(name in licence for name in ("LeCun", "Cortes", "Burges", "CC BY-SA 3.0"))


def test_embedded_refuses_an_unknown_view():
    message = "unknown view 'rows' of MNIST; expected one of mnist-rows, s-mnist, ps-mnist"
    with pytest.raises(InputError, match=whole(message)):
        mnist.embedded("rows")


def test_embedded_images_are_those_of_the_official_files(data_dir):  # noqa: F811
    archive = np.load(mnist.resources.files("fptt.tasks") / "data" / "mnist_subset.npz")
    with archive:
        for part, prefix in (("train", "train"), ("test", "t10k")):
            index = archive[f"{part}_index"]
            images = read_idx(data_dir / "mnist" / f"{prefix}-images-idx3-ubyte.gz", 3)
            labels = read_idx(data_dir / "mnist" / f"{prefix}-labels-idx1-ubyte.gz", 1)
            assert len(set(index.tolist())) == len(index)
            assert np.array_equal(archive[f"{part}_images"], images[index])
            assert np.array_equal(archive[f"{part}_labels"], labels[index])


def test_all_of_mnist(data_dir):  # noqa: F811
    task = load("mnist-rows", data_dir)
    assert (len(task.train), len(task.test)) == (60_000, 10_000)
    assert task.train.y[:5].tolist() == [5, 0, 4, 1, 9]
    assert task.test.y[:5].tolist() == [7, 2, 1, 0, 4]
    assert abs(float(task.train.x.mean(dtype=np.float64)) - 0.1306605) < 1e-6
