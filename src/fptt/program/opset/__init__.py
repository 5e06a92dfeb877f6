"""The entries of the op table, one family a file; importing this package fills the table."""

from fptt.program.opset import (
    cells,
    diagonal,
    elementwise,
    eprop,
    losses,
    movement,
    products,
    spiking,
    traces,
    updates,
)

__all__ = [
    "cells",
    "diagonal",
    "elementwise",
    "eprop",
    "losses",
    "movement",
    "products",
    "spiking",
    "traces",
    "updates",
]
