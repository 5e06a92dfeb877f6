"""Online spatio-temporal learning."""

from __future__ import annotations

from typing import ClassVar

from fptt.rules.sources.local import LayerLocal


class OSTL(LayerLocal):
    """The exact derivative of a layer's state by its own parameters, times the spatial signal
    (Bohnstingl et al., 2022).

    Exact where the body is one recurrent layer; with several, the paths from a lower layer through
    the memory of a higher one are left out. Memory per row: state x parameters of each layer.
    """

    title: ClassVar[str] = "OSTL"
    name: ClassVar[str] = "ostl"
