"""Low-rank changes of matrices that do not train themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from fptt.checks import is_whole
from fptt.errors import InputError
from fptt.nets.layer import Layer, Layout, Parameter, Part, rows_of

if TYPE_CHECKING:
    from fptt.program.ir import Buffer, Ref


def parameters_of(layers: Sequence[Layer]) -> dict[str, Parameter]:
    """The layers' own parameters by full name, such as "0.weight_ih"."""
    return {
        f"{index}.{name}": parameter
        for index, layer in enumerate(layers)
        for name, parameter in layer.parameters().items()
    }


def _adaptable(layers: Sequence[Layer]) -> list[str]:
    return [f"{index}.{name}" for index, layer in enumerate(layers) for name in layer.adaptable]


def checked_adapters(layers: Sequence[Layer], adapters: Mapping[str, int]) -> dict[str, int]:
    """The adapters, in the order of the matrices.

    Raises:
        InputError: something else than names of matrices and ranks, or a rank so high that the
            factors would hold as many numbers as the matrix.
    """
    if not isinstance(adapters, Mapping):
        raise InputError(f"adapters: {adapters!r} is no dict; give names and ranks")
    own, adaptable = parameters_of(layers), _adaptable(layers)
    for name, rank in adapters.items():
        if name not in adaptable:
            why = (
                f"adapters change the matrices of LSTM, GRU, RNN and Linear, and {name} is none"
                if name in own
                else f"no parameter is called {name!r}"
            )
            raise InputError(f"adapters: {why}; there are {', '.join(adaptable) or 'none'}")
        if not is_whole(rank) or rank < 1:
            raise InputError(
                f"adapters: the rank of {name} is {rank!r}; give a whole number of at least 1"
            )
        outputs, inputs = own[name].shape
        if rank * (outputs + inputs) >= outputs * inputs:
            raise InputError(
                f"adapters: factors of rank {rank} would hold {rank * (outputs + inputs)} numbers, "
                f"no fewer than {name} [{outputs}, {inputs}] itself; give a lower rank, or train "
                "the matrix"
            )
    return {name: int(adapters[name]) for name in adaptable if name in adapters}


def matched_adapters(layers: Sequence[Layer], adapters: Mapping[str, int]) -> dict[str, int]:
    """Ranks by the full names of matrices, from ranks by names or shell-style patterns.

    Raises:
        InputError: a pattern that fits no matrix, or two ranks for one.
    """
    if not isinstance(adapters, Mapping):
        raise InputError(f"adapters: {adapters!r} is no dict; give names and ranks")
    adaptable = _adaptable(layers)
    found: dict[str, int] = {}
    for pattern, rank in adapters.items():
        matching = [name for name in adaptable if fnmatchcase(name, str(pattern))]
        for name in matching or [pattern]:  # `checked_adapters` says what is wrong with the latter
            if found.setdefault(name, rank) != rank:
                raise InputError(f"adapters: {name} has two ranks, {found[name]} and {rank}")
    return checked_adapters(layers, found)


def adapter_parameters(name: str, shape: tuple[int, ...], rank: int) -> dict[str, Parameter]:
    """The two factors of the change of a matrix [out, in] (LoRA: Hu et al., 2022).

    `down` [rank, in] is drawn uniformly within 1/sqrt(in), `up` [out, rank] starts at zero, so that
    at first nothing is changed. There is no further scale.

    Example:
        >>> list(adapter_parameters("weight_hh", (512, 128), 4))
        ['weight_hh.down', 'weight_hh.up']
    """
    outputs, inputs = shape
    return {
        f"{name}.down": Parameter((rank, inputs), inputs**-0.5),
        f"{name}.up": Parameter((outputs, rank), 0.0),
    }


@dataclass(frozen=True)
class Adapter:
    """W x becomes W x + up (down x); the sum of the matrices is never formed.

        z = x down^T,      y += z up^T
        dz = dy up,        dx += dz down
        dup = dy^T z,      ddown = dz^T x

    Attributes:
        name: the layer's name of W.
        down, up: the factors [r, in] and [out, r].
        late: in a recurrent layer, whether dz is kept at all steps, so that ddown is one product
            after the loop; it is only r wide.
    """

    name: str
    down: Buffer
    up: Buffer
    late: bool

    @property
    def rank(self) -> int:
        """r."""
        return self.down.inner[0]

    def forward(self, e: Layout, x: Ref, z: Ref, sums: Sequence[Part]) -> None:
        """Writes z and adds the change to y: rows of W, and the columns of y that they make."""
        e.emit("affine", [x, self.down.whole, None, None], [z])
        for rows, y in sums:
            e.emit("affine", [z, rows_of(self.up, rows), None, y], [y])

    def between(self, e: Layout, sums: Sequence[Part], dz: Ref) -> None:
        """Writes dz from dy."""
        start = None
        for rows, dy in sums:
            e.emit("product", [dy, rows_of(self.up, rows), start], [dz])
            start = dz

    def below(self, e: Layout, dz: Ref, dx: Ref, *, after_first: bool = False) -> None:
        """Adds to dx."""
        e.emit("product", [dz, self.down.whole, dx], [dx], after_first=after_first)

    # -- in recurrent layers, where both stay or pass with the gates --------------------------

    def z(self, e: Layout) -> Buffer:
        """x down^T, at all steps or, where it is computed again, at one."""
        name = f"{self.name}.z"
        return e.rows(name, self.rank) if e.recomputes else e.history(name, self.rank)

    def dz(self, e: Layout) -> Buffer:
        """Its gradient."""
        name = f"{self.name}.dz"
        return e.history(name, self.rank) if self.late else e.rows(name, self.rank)
