"""Philox4x32-10, the counter-based generator of Salmon et al., SC 2011.

Dropout needs the same mask twice, forward and backward, on every target, in any order and without
storing it: a counter-based generator gives word w of counter c without any state.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox(counter: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Ten rounds on counters [..., 4] of 32-bit words (held in uint64); returns [..., 4] words."""
    c0, c1, c2, c3 = (counter[..., word] for word in range(4))
    k0, k1 = key
    for _ in range(10):
        high_low0, high_low1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (high_low1 >> _HALF) ^ c1 ^ np.uint64(k0),
            high_low1 & _MASK,
            (high_low0 >> _HALF) ^ c3 ^ np.uint64(k1),
            high_low0 & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack((c0, c1, c2, c3), axis=-1)


def uniform(
    width: int, row: NDArray[Any], step: NDArray[Any], sequence: int, key: tuple[int, int]
) -> NDArray[np.float64]:
    """Numbers in [0, 1) for columns 0..width-1 of every (row, step); shape [len(row), width].

    Column 4 q + w takes word w of counter (q, row, step, sequence), divided by 2^32.
    """
    quads = -(-width // 4)
    counter = np.empty((len(row), quads, 4), np.uint64)
    counter[..., 0] = np.arange(quads)
    counter[..., 1] = np.asarray(row)[:, None]
    counter[..., 2] = np.asarray(step)[:, None]
    counter[..., 3] = sequence & 0xFFFFFFFF
    words = philox(counter, (key[0] & 0xFFFFFFFF, key[1] & 0xFFFFFFFF))
    return words.reshape(len(row), quads * 4)[:, :width] / 2.0**32
