"""The entries of the op table, one family a file; importing this package fills the table."""

from fptt.program.opset import (
    cells,
    diagonal,
    diagonal_traces,
    elementwise,
    eprop,
    losses,
    movement,
    products,
    spiking,
    spiking_traces,
    traces,
    updates,
)

__all__ = [
    "cells",
    "diagonal",
    "diagonal_traces",
    "elementwise",
    "eprop",
    "losses",
    "movement",
    "products",
    "spiking",
    "spiking_traces",
    "traces",
    "updates",
]
