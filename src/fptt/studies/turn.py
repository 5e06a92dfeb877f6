"""Another hand: images of digits that are turned."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def turned(images: NDArray[Any], degrees: float) -> NDArray[np.float32]:
    """The images turned clockwise about their middle.

    A pixel at (r, c) from the middle shows what was at (r cos a - c sin a, r sin a + c cos a),
    linear between the four pixels around that place. What lies outside an image is 0, the
    background of MNIST.

    Args:
        images: numbers [n, H, W].
        degrees: the angle a; negative turns the other way.

    Returns:
        float32 [n, H, W].

    Example:
        >>> stroke = np.zeros((1, 3, 3))
        >>> stroke[0, 0, 1] = 1  # a point above the middle
        >>> np.argwhere(turned(stroke, 90)[0] > 0.5).tolist()
        [[1, 2]]
    """
    height, width = images.shape[1:]
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    r = np.arange(height)[:, None] - middle_row
    c = np.arange(width) - middle_column
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    rows = r * cos - c * sin + middle_row
    columns = r * sin + c * cos + middle_column
    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    down, right = rows - top, columns - left

    def pixels(row: NDArray[np.int64], column: NDArray[np.int64]) -> NDArray[Any]:
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        return np.where(inside, images[:, row.clip(0, height - 1), column.clip(0, width - 1)], 0)

    upper = pixels(top, left) * (1 - right) + pixels(top, left + 1) * right
    lower = pixels(top + 1, left) * (1 - right) + pixels(top + 1, left + 1) * right
    blend: NDArray[Any] = upper * (1 - down) + lower * down
    return blend.astype(np.float32)
