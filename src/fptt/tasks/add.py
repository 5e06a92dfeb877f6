"""The add task: two numbers of a long sequence are marked, and the target is their sum."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fptt.tasks.checks import whole_number
from fptt.tasks.sequences import SequenceData, Task


def add(
    data_dir: str | Path | None = None,
    *,
    seed: int = 0,
    steps: int = 200,
    n_train: int = 10_000,
    n_test: int = 1_000,
) -> Task:
    """Generate the add task; needs no data.

    x[:, t, 0] is uniform in [0, 1); x[:, t, 1] is 1 at two steps p < steps // 2 <= q and 0
    elsewhere, p and q uniform in their halves; y = x[:, p, 0] + x[:, q, 0].

    Always answering 1, the mean of y, gives a mean squared error of 1/6 = 0.167, the variance of
    the sum of two such numbers: a network that stays there has learnt nothing.

    The test sequences depend on `seed` and `steps` alone. The training sequences are drawn once;
    published experiments draw new ones all the time, which `sequences` does.

    Args:
        data_dir: not used.
        seed: training and test sequences come from two streams of this seed.
        steps: length T of every sequence, at least 2.
        n_train: training sequences.
        n_test: test sequences.

    Returns:
        A task with x float32 [n, T, 2], y float32 [n, 1], criterion "mse", loss "last".

    Raises:
        InputError: an option is not a whole number, or too small.

    Example:
        >>> add(steps=10, n_train=3, n_test=2).train.x[:, :, 1].sum(axis=1).tolist()
        [2.0, 2.0, 2.0]

    Source: Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997,
    section 5.4, in the form of Arjovsky, Shah and Bengio, "Unitary Evolution Recurrent Neural
    Networks", ICML 2016: numbers in [0, 1), all sequences of one length, one mark in each half,
    the plain sum as the target.
    """
    seed = whole_number("seed", seed, minimum=0)
    steps = whole_number("steps", steps, minimum=2)
    n_train = whole_number("n_train", n_train, minimum=1)
    n_test = whole_number("n_test", n_test, minimum=1)
    return Task(
        name="add",
        train=sequences(steps, n_train, seed=seed),
        test=_generate(np.random.default_rng([seed, 1]), n_test, steps),
        inputs=2,
        outputs=1,
        steps=steps,
        loss="last",
        criterion="mse",
        description=(
            f"Add the two marked numbers of {steps}: {n_train:,} training and {n_test:,} test "
            "sequences, generated; always answering 1 gives a mean squared error of 0.167."
        ),
    )


def sequences(steps: int, n: int, *, seed: int = 0, epoch: int = 0) -> SequenceData:
    """Training sequences of the add task, new ones for every epoch.

    Epoch 0 has those of `add(steps=steps, n_train=n, seed=seed).train`; no epoch has any of the
    test. A sequence takes 8 T bytes, so 10,000 of 1,000 steps take 80 MB.

    Args:
        steps: length T of every sequence, at least 2.
        n: sequences.
        seed: as in `add`.
        epoch: whose sequences to draw; every epoch has a stream of its own.

    Returns:
        x float32 [n, T, 2], y float32 [n, 1].

    Raises:
        InputError: a number is not a whole number, or too small.

    Example:
        To train on sequences that are never seen twice:

            for epoch in range(100):
                trainer.fit(sequences(200, 10_000, epoch=epoch), epochs=1)

        >>> first, second = (sequences(200, 50, epoch=epoch) for epoch in (0, 1))
        >>> bool((first.x[:, :, 0] == second.x[:, :, 0]).any(axis=1).all())
        False
    """
    steps = whole_number("steps", steps, minimum=2)
    n = whole_number("n", n, minimum=1)
    seed = whole_number("seed", seed, minimum=0)
    epoch = whole_number("epoch", epoch, minimum=0)
    # numpy gives [seed, 0, 0] the stream of [seed, 0]
    return _generate(np.random.default_rng([seed, 0, epoch]), n, steps)


def _generate(rng: np.random.Generator, n: int, steps: int) -> SequenceData:
    x = np.zeros((n, steps, 2), np.float32)
    x[:, :, 0] = rng.random((n, steps), dtype=np.float32)
    every = np.arange(n)
    first = rng.integers(0, steps // 2, n)
    second = rng.integers(steps // 2, steps, n)
    x[every, first, 1] = 1
    x[every, second, 1] = 1
    y = x[every, first, 0] + x[every, second, 0]
    return SequenceData(x, y[:, np.newaxis])
