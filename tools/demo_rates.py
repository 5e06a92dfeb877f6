"""The rates of `fptt demo`: every rate of a grid, judged on images that the demo does not use.

    python tools/demo_rates.py --data-dir DIR
    python tools/demo_rates.py --data-dir DIR --small     # those of `fptt reproduce small`

The images are the 9,000 test images of MNIST that do not come with the package (DIR holds MNIST);
they are cut into three sets as the demo cuts its own, and drawn anew for every draw. The demo takes
the rate with the highest mean of both accuracies, the new user's and the old test set's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np

from fptt.studies import small
from fptt.studies.demo import SIDE, STEPS, DemoSettings, Judge, Run, adapt, demo_digits, demo_model
from fptt.studies.formats import FORMATS
from fptt.tasks import load

#: K, the steps between labels, epochs, largest norm, rates
GRID = (
    (1, STEPS, 10, 1.0, (0.01, 0.03, 0.1)),
    (1, STEPS, 10, None, (0.001, 0.003, 0.01)),
    (28, SIDE, 10, None, (0.0005, 0.001, 0.002, 0.004)),
    (784, SIDE, 10, None, (0.001, 0.002, 0.004)),
    # a label at every pixel: dear, and no better
    (784, 1, 3, None, (0.00003, 0.0001)),
)

#: what trains, K, batch -> rates, of kept gates and of gates that are computed again
SMALL_GRID = {
    ("everything", 28, 4): (0.0005, 0.001, 0.002),
    ("everything", 28, 1): (0.00015, 0.0003, 0.0006),
    ("everything", 784, 1): (0.00015, 0.0003, 0.0006),
    ("recurrent weights", 28, 1): (0.0003, 0.0006, 0.0012),
    ("biases", 28, 1): (0.00003, 0.0001, 0.0005, 0.001, 0.002, 0.004),
    ("adapters, readout", 28, 1): (0.0001, 0.0003, 0.001, 0.003),
    ("adapters, readout", 784, 1): (0.001, 0.003, 0.01),
    ("readout", 28, 1): (0.0001, 0.0003, 0.001, 0.003, 0.01),
    ("readout", 784, 1): (0.0001, 0.0003, 0.001),  # as with K = 28, to the bit
}


def _of_the_demo(rule: str) -> Iterator[tuple[str, Run, int]]:
    """Name, run and batch of every line."""
    for parts, label_every, epochs, clip, rates in GRID:
        norm = f", clip {clip:g}" if clip else ""
        for lr in rates:
            run = Run(rule, parts, lr, epochs, label_every, clip)
            yield f"K={parts}, label every {label_every}, rate {lr:g}{norm}", run, 4


def _of_small(rule: str, formats: list[str]) -> Iterator[tuple[str, Run, int]]:
    ways = {(way.trains, way.run.parts, way.batch): way for way in reversed(small.WAYS)}
    for (trains, parts, batch), rates in SMALL_GRID.items():
        way = ways[trains, parts, batch]
        for lr in rates:
            for name in formats:
                run = replace(way.run, rule=rule, lr=lr, **FORMATS[name])
                shown = f", {name}" * (len(formats) > 1)
                yield f"{trains}, K={parts}, batch {batch}, rate {lr:g}{shown}", run, batch


def main() -> None:
    """Print one line for each rate."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data-dir", type=Path, help="with MNIST; default: FPTT_DATA")
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--rule", default="FPTT")
    parser.add_argument("--turn", type=float, default=DemoSettings.turn)
    parser.add_argument("--small", action="store_true", help="of `fptt reproduce small`")
    parser.add_argument(
        "--bfloat16", action="store_true", help="with --small: also in bfloat16, stochastic"
    )
    parser.add_argument("--only", default="", help="lines that begin so")
    given = parser.parse_args()

    with resources.as_file(resources.files("fptt.tasks") / "data" / "mnist_subset.npz") as path:
        bundled = np.load(path)["test_index"]
    test = load("s-mnist", given.data_dir).test
    others = np.setdiff1d(np.arange(len(test)), bundled)
    net = demo_model().net
    assert net.weights is not None
    settings = replace(DemoSettings(), turn=given.turn)
    draws = [
        demo_digits(test.subset(np.random.default_rng(draw).permutation(others)), settings)
        for draw in range(given.draws)
    ]
    judges = [Judge(net, digits) for digits in draws]

    def line(what: str, found: list[tuple[float, float]]) -> None:
        new, old = 100 * np.mean(found, axis=0)
        print(f"{what:54} {new:8.1f} {old:8.1f} {(new + old) / 2:8.1f}", flush=True)

    print(f"{'':54} {'new':>8} {'old':>8} {'mean':>8}")
    line("before", [judge.accuracies(net.weights) for judge in judges])
    names = list(small.USED_FORMATS) if given.bfloat16 else ["float32"]
    lines = _of_small(given.rule, names) if given.small else _of_the_demo(given.rule)
    for what, run, batch in lines:
        if not what.startswith(given.only):
            continue
        found = []
        for digits, judge in zip(draws, judges, strict=True):
            trainer = adapt(net, run, digits.learn, replace(settings, batch=batch))
            found.append(judge.accuracies(trainer.merged_parameters()))
        line(what, found)


if __name__ == "__main__":
    main()
