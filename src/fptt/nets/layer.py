"""What every layer of a network has in common.

A layer says which parameters it has and writes its own forward and backward operations into a
program through a `Layout`, which hands out buffers and takes operations. It knows nothing of who
runs the program. There are two kinds:

- `Recurrent` layers run inside the loop over the steps of a part and keep histories. What they can
  compute again from h and the input (the gates) they need not keep: see `Layout.recomputes`.
- `FeedForward` layers work on rows: one step (`x.at(0)`), all steps of a part (`x.all()`), or each
  row's last step (`x.last()`). The same three methods serve all places.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from fptt.checks import is_whole
from fptt.errors import InputError
from fptt.nets.tracing import StateTracing, Tracing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fptt.nets.adapters import Adapter
    from fptt.program.ir import Buffer, Ref

Array = NDArray[Any]


@dataclass(frozen=True)
class Parameter:
    """Shape of a trainable tensor and the distribution that it starts from.

    Attributes:
        shape: as PyTorch stores it.
        bound: half width of the uniform distribution, or None for the standard normal one.
        draws: how many independent draws are added. Two for the one bias of LSTM and RNN: PyTorch
            has two biases there, of which only the sum acts.
        by_columns: how a matrix lies in memory: column by column (one input's weights to all
            outputs together) or row by row; by default so that its longer side lies together. A
            table whose rows are looked up must lie by rows, the two matrices of a recurrent layer
            by columns, so that one product takes both.
        distribution: another one, in the place of bound and draws.
    """

    shape: tuple[int, ...]
    bound: float | None = None
    draws: int = 1
    by_columns: bool | None = None
    distribution: Callable[[np.random.Generator, tuple[int, ...]], Array] | None = None

    @property
    def transposed(self) -> bool:
        """Whether it lies column by column."""
        if self.by_columns is not None:
            return self.by_columns
        return len(self.shape) == 2 and self.shape[0] >= self.shape[1]

    def initial(self, rng: np.random.Generator) -> Array:
        """Draws a float64 array."""
        if self.distribution is not None:
            return self.distribution(rng, self.shape)
        if self.bound is None:
            return rng.standard_normal(self.shape)
        return sum(
            (rng.uniform(-self.bound, self.bound, self.shape) for _ in range(self.draws)),
            start=np.zeros(self.shape),
        )


class Layout(Protocol):
    """What a layer may ask of the program that it is being written into."""

    #: the layer's number in the network
    index: int

    @property
    def random_state(self) -> Buffer:
        """The key and the counter of dropout."""

    def parameter(self, name: str) -> Buffer:
        """The layer's own parameter."""

    def gradient(self, name: str) -> Buffer | None:
        """Where its gradient goes, or None if it does not train."""

    def history(self, name: str, width: int, *, carried: bool = False) -> Buffer:
        """A buffer [steps, batch, width]; with `carried`, a slot before the first step."""

    @property
    def recomputes(self) -> bool:
        """Whether the backward loop computes the layer's gates again instead of finding them."""

    def gates(self, name: str, width: int) -> Buffer:
        """A history, or where the layer recomputes a scratch buffer for the present step."""

    def rows(self, name: str, width: int) -> Buffer:
        """A scratch buffer [batch, width]."""

    def like(self, name: str, width: int, other: Ref) -> Ref:
        """A buffer of the same rows and steps as another one's, seen in the same way."""

    def output_like(self, name: str, width: int, *, in_loop: bool) -> Ref:
        """The same for the layer's own output, seen from the loop over the steps or from after."""

    def adapter(self, name: str) -> Adapter | None:
        """The low-rank change of the layer's own matrix, or None if it has none."""

    def trace(self, name: str, inner: tuple[int, ...]) -> Buffer:
        """A buffer [batch, *inner] that goes on from step to step and starts at zero with the
        state: of role `rule_state`, and never below float32."""

    def tangent(self, theta: Buffer, width: int) -> Buffer:
        """A scratch buffer [batch, width, numbers of theta] for derivatives at one step."""

    def emit(
        self,
        kind: str,
        inputs: Sequence[Ref | None],
        outputs: Sequence[Ref],
        *,
        after_first: bool = False,
        **attrs: object,
    ) -> None:
        """Appends one operation to the routine that is being written.

        With `after_first` it runs only at the steps after the first one of a part.
        """


@dataclass(frozen=True)
class Layer(Tracing):
    """Base of all layers. Subclasses are frozen dataclasses, so they compare and print well."""

    recurrent: ClassVar[bool] = False
    #: works in the memory of its input when it may
    in_place: ClassVar[bool] = False
    #: the backward pass looks at the layer's own output
    reads_output: ClassVar[bool] = False
    #: parameter gradients are always added to what is there
    adds_gradients: ClassVar[bool] = False
    #: takes random numbers in training
    random: ClassVar[bool] = False
    #: matrices that a low-rank adapter may change
    adaptable: ClassVar[tuple[str, ...]] = ()
    #: parameters that act on each unit by itself: their gradients are no products over rows, and
    #: small, so they always have memory
    diagonal: ClassVar[tuple[str, ...]] = ()

    def parameters(self) -> Mapping[str, Parameter]:
        """The layer's parameters by name, in the order in which they are drawn and stored."""
        return {}

    def width(self, inputs: int | None) -> int:
        """The number of outputs when the layer below has `inputs` outputs; checks that it fits."""
        raise NotImplementedError


class FeedForward(Layer):
    """A layer without memory of earlier steps."""

    def forward(self, e: Layout, x: Ref, y: Ref, *, training: bool) -> None:
        """Writes y from x."""
        raise NotImplementedError

    def parameter_gradients(self, e: Layout, x: Ref, dy: Ref, *, accumulate: bool) -> None:
        """Writes (or adds to) the gradients of the layer's own parameters."""

    def input_gradient(self, e: Layout, y: Ref, dy: Ref, dx: Ref, start: Ref | None) -> None:
        """Writes dx = (start or 0) + the gradient that dy sends to the layer's input."""
        raise NotImplementedError

    def trace_gradients(self, e: Layout, source: str, x: Ref, dy: Ref, *, add: bool) -> None:
        self.parameter_gradients(e, x, dy, accumulate=add)

    def spatial_gradient(self, e: Layout, y: Ref, dy: Ref, dx: Ref) -> None:
        self.input_gradient(e, y, dy, dx, None)

    def tangent_place(self, e: Layout, theta: Buffer, below: Ref, width: int) -> Ref:
        """Where an element-wise layer writes its tangent: on that of the layer below, unless that
        one is a state's, which goes on."""
        return below if below.buffer.role == "scratch" else e.tangent(theta, width).whole


class Recurrent(StateTracing, Layer):
    """A layer whose state (h, and whatever else) goes on from step to step.

    The sums before the gates' functions, then the gates, then the gradients da of the sums lie in
    one place: a history, or, where the layer recomputes, one step.
    """

    recurrent = True
    hidden: int
    adaptable: ClassVar[tuple[str, ...]] = ("weight_ih", "weight_hh")

    def allocate(self, e: Layout) -> None:
        """Asks for the histories that the backward pass needs."""
        self.gates(e)
        self.state(e)

    def gates(self, e: Layout) -> Buffer:
        """The place of the sums and the gates, and if `sum_gradients` does not differ, of da."""
        raise NotImplementedError

    def sum_gradients(self, e: Layout) -> Buffer:
        """The place of da: that of the gates, which are no longer needed then."""
        return self.gates(e)

    def state(self, e: Layout) -> tuple[Buffer, ...]:
        """The carried histories, h first."""
        raise NotImplementedError

    def forward_step(self, e: Layout, x: Ref, *, before: int) -> None:
        """One step; `before` is -1 in training and 0 where the state is updated in place."""
        raise NotImplementedError

    def gradient_state(self, e: Layout) -> tuple[Buffer, ...]:
        """Gradients that go on from step to step backwards, that of h first."""
        raise NotImplementedError

    def recompute_step(self, e: Layout, x: Ref) -> None:
        """In the backward loop, before `backward_step`: what was not kept of the forward step.

        The state is written once more with the same bits, from the same operands.
        """
        self.forward_step(e, x, before=-1)

    def backward_step(self, e: Layout, dx: Ref | None, start: Ref | None) -> None:
        """One step back; dx, if wanted, becomes (start or 0) + the gradient of the input."""
        raise NotImplementedError

    def sums(self, da: Ref) -> Mapping[str, Sequence[Part]]:
        """For every parameter, its rows and the columns of da that are the sums of these rows.

        Those named in `diagonal` are left out.
        """
        raise NotImplementedError

    def diagonal_gradients(self, e: Layout, at: View, *, add: bool) -> None:
        """Writes the gradients of what `diagonal` names, or adds to them.

        Args:
            e: the layer's view of the program.
            at: (buffer, offset) -> its rows: of one step, or of all of them.
            add: whether to add to what is there.
        """

    def forward_adapters(self, e: Layout, x: Ref, h: Ref) -> None:
        """In a forward step: adds what adapters change to the sums."""
        sums = self.sums(self.gates(e).at(0))
        for name, source in (("weight_ih", x), ("weight_hh", h)):
            if adapter := e.adapter(name):
                adapter.forward(e, source, adapter.z(e).at(0), sums[name])

    def backward_adapters(self, e: Layout, dx: Ref | None) -> None:
        """In a backward step, when da is there: adds what comes through adapters to dx and dh."""
        sums = self.sums(self.sum_gradients(e).at(0))
        if adapter := e.adapter("weight_ih"):
            adapter.between(e, sums["weight_ih"], adapter.dz(e).at(0))
            if dx is not None:
                adapter.below(e, adapter.dz(e).at(0), dx)
        if adapter := e.adapter("weight_hh"):
            adapter.between(e, sums["weight_hh"], adapter.dz(e).at(0))
            dh = self.gradient_state(e)[0].whole
            adapter.below(e, adapter.dz(e).at(0), dh, after_first=True)

    def step_gradients(self, e: Layout, x: Ref) -> None:
        """In the backward loop, after `backward_step`: adds what only this step has of da."""
        self.diagonal_gradients(e, lambda buffer, offset: buffer.at(offset), add=True)
        sums = self.sums(self.sum_gradients(e).at(0))
        sources = {"weight_ih": x, "weight_hh": self.state(e)[0].at(-1)}
        for name, parts in sums.items():
            emit_gradients(e, name, parts, sources.get(name), add=True)
        for name, source in sources.items():
            if adapter := e.adapter(name):
                emit_gradients(e, f"{name}.up", sums[name], adapter.z(e).at(0), add=True)
                if not adapter.late:
                    dz: list[Part] = [(None, adapter.dz(e).at(0))]
                    emit_gradients(e, f"{name}.down", dz, source, add=True)

    def parameter_gradients(self, e: Layout, x: Ref) -> None:
        """After the reverse loop: the gradients that are left, as products over all steps."""
        sources = {"weight_ih": x, "weight_hh": self.state(e)[0].all(-1)}
        if not e.recomputes:
            self.diagonal_gradients(e, lambda buffer, offset: buffer.all(offset), add=False)
            sums = self.sums(self.sum_gradients(e).all())
            for name, parts in sums.items():
                emit_gradients(e, name, parts, sources.get(name), add=False)
            for name in sources:
                if adapter := e.adapter(name):
                    emit_gradients(e, f"{name}.up", sums[name], adapter.z(e).all(), add=False)
        for name, source in sources.items():
            if (adapter := e.adapter(name)) and adapter.late:
                dz: list[Part] = [(None, adapter.dz(e).all())]
                emit_gradients(e, f"{name}.down", dz, source, add=False)


#: rows of a parameter (None for all), and the gradient of the sums that these rows make
Part = tuple[tuple[int, int] | None, "Ref"]
#: (buffer, offset in steps) -> the rows that an operation shall see
View = Callable[["Buffer", int], "Ref"]


def rows_of(tensor: Buffer, rows: tuple[int, int] | None) -> Ref:
    """These rows of a parameter or gradient, or all of it."""
    return tensor.whole.rows(*rows) if rows else tensor.whole


def emit_gradients(
    e: Layout, name: str, parts: Sequence[Part], x: Ref | None, *, add: bool
) -> None:
    """Writes the gradient of a parameter, or adds to it; nothing if it does not train.

    Args:
        e: the layer's view of the program.
        name: the layer's name of the parameter.
        parts: its rows, and the gradient dy of the sums that these rows make.
        x: what the rows were multiplied with: the gradient is dy^T x; None for a bias, where it is
            the sum of the rows of dy.
        add: whether to add to what is there.
    """
    gradient = e.gradient(name)
    for rows, dy in parts if gradient else ():
        assert gradient is not None
        out = rows_of(gradient, rows)
        start = out if add else None
        if x is None:
            e.emit("bias_gradient", [dy, start], [out])
        else:
            e.emit("weight_gradient", [dy, x, start], [out])


def check_size(owner: str, name: str, value: object) -> None:
    """Raises InputError unless value is an integer of at least 1."""
    if not is_whole(value) or value < 1:
        raise InputError(f"{owner}: {name} is {value!r}; give a whole number of at least 1")


def take_sizes(layer: object, *names: str) -> None:
    """Checks sizes of a layer, and makes them Python's numbers: NumPy's have a largest one."""
    for name in names:
        check_size(type(layer).__name__, name, getattr(layer, name))
        object.__setattr__(layer, name, int(getattr(layer, name)))


def check_fit(owner: str, expected: int, inputs: int | None) -> None:
    """Raises InputError unless the layer below delivers what this layer takes."""
    if inputs is not None and inputs != expected:
        raise InputError(
            f"{owner} takes {expected} inputs, but the layer below delivers {inputs}; "
            f"make the two equal"
        )
