"""Put a trained S-MNIST model into the package, for `fptt demo`, with a description of itself.

    fptt train --task s-mnist ... --out s_mnist.safetensors
    python tools/bundle_demo_model.py s_mnist.safetensors --data-dir DIR --command "fptt train ..."

The weights stay as they are. Into the file's notes go the command and the accuracies that are
measured here: on the 10,000 test images of MNIST (DIR holds them) and on the 1,000 of them that
come with the package. A checkpoint will do instead of a model, while training goes on; the notes
say so.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import fptt
from fptt.nets import Network
from fptt.runs import evaluate
from fptt.storage.files import write_atomically
from fptt.storage.modelfile import Model, load_model, model_bytes
from fptt.studies.demo import MODEL
from fptt.tasks import load

ROOT = Path(__file__).parents[1]
COMMAND = (
    "fptt train --task s-mnist --hidden 128 --parts 14 --loss auxiliary --optimizer adam "
    "--lr 0.001 --clip 1 --batch 64 --epochs 12 --schedule cosine --seed 0 "
    "--out s_mnist.safetensors"
)


def read(path: Path) -> Model:
    """A model, or the model that a checkpoint of the same training holds at present."""
    if not path.read_bytes().startswith(b"FPTTSNAP"):
        return load_model(path)
    trainer = fptt.load(path)
    task, program = load("s-mnist", subset=True), trainer.program
    notes = {
        "task": task.name,
        "seed": trainer.seed,
        "normalisation": task.normalisation,
        "vocabulary": None,
        "dtype": program.dtype,
        "activation_dtype": program.activation_dtype,
        "provisional": f"training is not finished: {trainer.epoch} epochs are",
    }
    net = Network(program.net.layers, trainer.parameters())
    return Model(net, program.schedule.name, program.criterion, notes)


def main() -> None:
    """Measure, describe, write."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data-dir", type=Path, help="with MNIST; default: FPTT_DATA")
    parser.add_argument("--command", default=COMMAND, help="what trained the model")
    given = parser.parse_args()
    model = read(given.model)
    measured = {
        "command": given.command,
        "test_accuracy": evaluate(given.model, model, load("s-mnist", given.data_dir))["accuracy"],
        "subset_test_accuracy": evaluate(given.model, model, load("s-mnist", subset=True))[
            "accuracy"
        ],
    }
    assert model.net.weights is not None
    contents = model_bytes(
        model.net, model.net.weights, model.loss, model.criterion, {**model.notes, **measured}
    )
    path = ROOT / "src/fptt/studies/data" / MODEL
    write_atomically(path, contents)
    print(f"{path}: {len(contents):,} bytes")
    for name in ("test_accuracy", "subset_test_accuracy"):
        print(f"{name} {measured[name]:.4f}")


if __name__ == "__main__":
    main()
