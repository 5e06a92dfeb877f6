"""Spectrograms of speakers who do not exist: recordings with other vocal tracts, speeds, levels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fptt.tasks import SequenceData


def warped_copies(
    data: SequenceData,
    copies: int,
    *,
    stretch: float,
    warp: float,
    gain: float,
    rng: np.random.Generator,
) -> SequenceData:
    """The recordings, and `copies` changed ones of each.

        x'[t, k] = x(t / a, min(k b, F - 1)) + g,   linear between the frames and bands of x

    a stretches time, b warps the bands as a longer or shorter vocal tract does, and g is a level.
    Each copy draws a from [1 - stretch, 1 + stretch], b from [1 - warp, 1 + warp] and g from
    [-gain, gain], evenly.

    Args:
        data: x float32 [n, T, F], normalised log-mel bands, 0 after the end; with lengths.
        copies: how many of each; 0 returns the data.
        stretch: a share, 0 to below 1.
        warp: a share, 0 to below 1.
        gain: in units of x (standard deviations of a band).
        rng: draws.

    Returns:
        n (1 + copies) sequences of at most T steps, the originals first.

    Example:
        >>> data = SequenceData(np.ones((2, 8, 4), np.float32), np.array([0, 1], np.int32),
        ...                     np.array([8, 5], np.int32))
        >>> rng = np.random.default_rng(0)
        >>> len(warped_copies(data, 3, stretch=0.1, warp=0.1, gain=0.2, rng=rng))
        8

    Source: Jaitly & Hinton, "Vocal Tract Length Perturbation improves speech recognition", ICML
    workshop on deep learning for audio, speech and language processing, 2013 (for b).
    """
    n, steps, bands = data.x.shape
    lengths = np.full(n, steps, np.int32) if data.lengths is None else data.lengths
    x = np.zeros((n * copies, steps, bands), np.float32)
    new_lengths = np.zeros(n * copies, np.int32)
    for place in range(n * copies):
        length = int(lengths[place % n])
        a = rng.uniform(1 - stretch, 1 + stretch)
        b = rng.uniform(1 - warp, 1 + warp)
        new = int(np.clip(round(a * length), 1, steps))
        frames = _between(data.x[place % n, :length], np.arange(new) / a)
        x[place, :new] = _between(frames.T, np.arange(bands) * b).T + rng.uniform(-gain, gain)
        new_lengths[place] = new
    return SequenceData(
        np.concatenate([data.x, x]),
        np.tile(data.y, 1 + copies),
        np.concatenate([lengths, new_lengths]),
    )


def _between(rows: NDArray[Any], places: NDArray[Any]) -> NDArray[Any]:
    """Rows [m, F] of `rows` [n, F] at places [m], linear between rows, held at the last one."""
    places = np.minimum(places, len(rows) - 1)
    low = places.astype(np.int64)
    high = np.minimum(low + 1, len(rows) - 1)
    share = (places - low)[:, None]
    blend: NDArray[Any] = rows[low] * (1 - share) + rows[high] * share
    return blend
