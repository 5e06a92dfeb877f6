"""The entries of the op table, one family a file; importing this package fills the table."""

from fptt.program.opset import (
    cells,
    diagonal,
    elementwise,
    losses,
    movement,
    products,
    spiking,
    updates,
)

__all__ = [
    "cells",
    "diagonal",
    "elementwise",
    "losses",
    "movement",
    "products",
    "spiking",
    "updates",
]
