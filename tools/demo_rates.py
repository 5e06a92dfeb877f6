"""The rates of `fptt demo`: every rate of a grid, judged on images that the demo does not use.

    python tools/demo_rates.py --data-dir DIR

The images are the 9,000 test images of MNIST that do not come with the package (DIR holds MNIST);
they are cut into three sets as the demo cuts its own, and drawn anew for every draw. The demo takes
the rate with the highest mean of both accuracies, the new user's and the old test set's.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np

from fptt.studies.demo import SIDE, STEPS, DemoSettings, Run, adapt, demo_digits, demo_model
from fptt.tasks import load
from fptt.training.inference import Inference

#: K, the steps between labels, epochs, largest norm, rates
GRID = (
    (1, STEPS, 10, 1.0, (0.01, 0.03, 0.1)),
    (1, STEPS, 10, None, (0.001, 0.003, 0.01)),
    (28, SIDE, 10, None, (0.0005, 0.001, 0.002, 0.004)),
    (784, SIDE, 10, None, (0.001, 0.002, 0.004)),
    # a label at every pixel: dear, and no better
    (784, 1, 3, None, (0.00003, 0.0001)),
)


def main() -> None:
    """Print one line for each rate."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data-dir", type=Path, help="with MNIST; default: FPTT_DATA")
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--rule", default="FPTT")
    parser.add_argument("--turn", type=float, default=DemoSettings.turn)
    given = parser.parse_args()

    with resources.as_file(resources.files("fptt.tasks") / "data" / "mnist_subset.npz") as path:
        bundled = np.load(path)["test_index"]
    test = load("s-mnist", given.data_dir).test
    others = np.setdiff1d(np.arange(len(test)), bundled)
    net = demo_model().net
    assert net.weights is not None
    judge = Inference(net, every_step=False, criterion="cross_entropy")
    settings = replace(DemoSettings(), turn=given.turn)
    draws = [
        demo_digits(test.subset(np.random.default_rng(draw).permutation(others)), settings)
        for draw in range(given.draws)
    ]

    def line(what: str, found: list[list[float]]) -> None:
        new, old = 100 * np.mean(found, axis=0)
        print(f"{what:40} {new:8.1f} {old:8.1f} {(new + old) / 2:8.1f}", flush=True)

    print(f"{'':40} {'new':>8} {'old':>8} {'mean':>8}")
    judge.load(net.weights)
    line(
        "before",
        [[judge.evaluate(data)["accuracy"] for data in (d.judge, d.old)] for d in draws],
    )
    for parts, label_every, epochs, clip, rates in GRID:
        for lr in rates:
            run = Run(given.rule, parts, lr, epochs, label_every, clip)
            found = []
            for digits in draws:
                judge.load(adapt(net, run, digits.learn, settings).parameters())
                found.append(
                    [judge.evaluate(data)["accuracy"] for data in (digits.judge, digits.old)]
                )
            norm = f", clip {clip:g}" if clip else ""
            line(f"K={parts}, label every {label_every}, rate {lr:g}{norm}", found)


if __name__ == "__main__":
    main()
