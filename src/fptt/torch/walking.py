"""From the graph of a `forward` to a stack of layers.

Each operation gets the signals of its arguments and returns one. What fptt cannot represent becomes
`Refused`, which spreads; only if the output of the module is such, it is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import fx, nn

from fptt.errors import InputError
from fptt.nets import ReLU
from fptt.torch import modules
from fptt.torch.functions import ADVICE, FUNCTIONS, METHODS
from fptt.torch.imported import Place
from fptt.torch.shapes import indexed, permuted, squeezed, stacked, unsqueezed
from fptt.torch.signals import (
    FEATURES,
    Axes,
    CellState,
    Constant,
    Finals,
    Refused,
    Rows,
    Stage,
    Zeros,
)
from fptt.torch.tracing import Tracer


class Walk:
    """Reads one graph.

    Args:
        graph, tracer: from `trace`.
        training: whether it is the one of training, where dropout drops.

    Attributes:
        axes: what the layers say of the input's axes.
    """

    def __init__(self, graph: fx.Graph, tracer: Tracer, *, training: bool) -> None:
        self.graph, self.tracer, self.training = graph, tracer, training
        self.root: nn.Module = tracer.root
        self.axes = Axes()
        self._stages: dict[Any, Stage] = {}
        self._below: dict[str, Stage | None] = {}
        self._signals: dict[fx.Node, Any] = {}

    def run(self) -> Any:
        """The signal of the output."""
        return self.signal(next(reversed(self.graph.nodes)))

    def signal(self, wanted: fx.Node) -> Any:
        """The signal of one node; for an operation that failed, perhaps why."""
        for node in self.graph.nodes:
            self._signals[node] = self._one(node)
            if node is wanted:
                break
        return self._signals[wanted]

    def _one(self, node: fx.Node) -> Any:
        args = fx.map_arg(node.args, lambda n: self._signals[n])
        kwargs = fx.map_arg(node.kwargs, lambda n: self._signals[n])
        if node.op == "output":
            return args[0]
        # a list of steps of which one is refused is refused
        for signal in _leaves([*args, *kwargs.values()]):
            if isinstance(signal, Refused):
                return signal
        try:
            return self._act(node, args, kwargs)
        except InputError as error:
            return Refused(error)

    def _act(self, node: fx.Node, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if node.op == "placeholder":
            return self._input()
        if node.op == "get_attr":
            value = self.tracer.values[node]
            return Constant() if value.requires_grad or value.any() else Zeros()
        if node.op == "call_module":
            return self._module(str(node.target), *args, **kwargs)
        table: dict[Any, str] = METHODS if node.op == "call_method" else FUNCTIONS
        name = table.get(node.target)
        called = getattr(node.target, "__name__", str(node.target))
        handler: Callable[..., Any] | None = getattr(self, f"_{name}", None)
        what = f"{called}, {self.tracer.where[node]},"
        if name == "cast" and self._type_of(node) == self._type_of(node.args[0]):
            return args[0]
        if handler is None:
            raise self.refusal(what, called)
        if args and isinstance(args[0], Zeros):  # in whatever shape
            return args[0]
        try:
            return handler(what, *args, **kwargs)
        # arguments in another way, or of another kind, than the ones that are known
        except (AttributeError, IndexError, TypeError):
            raise self.refusal(what, called) from None

    def _type_of(self, node: Any) -> Any:
        return getattr(self.tracer.values.get(node), "dtype", node)

    @staticmethod
    def refusal(what: str, called: str, why: str = "cannot be read") -> InputError:
        """The error about a function of a user's `forward`."""
        general = f"take it out of `forward`; {modules.SUPPORTED}"
        return InputError(f"{what} {why}; {ADVICE.get(called, general)}")

    # -- layers ------------------------------------------------------------------------------

    def _input(self) -> Rows:
        shape = self.tracer.example.shape
        if len(shape) not in (2, 3):
            raise InputError(
                f"the input has {len(shape)} axes; give modules that take [batch, steps, features] "
                "or tokens [batch, steps], and `example=` such an input"
            )
        self.axes.sizes = {"0": shape[0], "1": shape[1]}
        return Rows(None, ("0", "1", FEATURES)[: len(shape)])

    def _module(self, name: str, *args: Any, **kwargs: Any) -> Any:
        module = self.root.get_submodule(name)
        if modules.is_cell(module):
            return self._cell(name, module, *args, **kwargs)
        x = args[0] if args else kwargs.pop("input", None)
        if isinstance(x, tuple):
            raise modules.refusal(
                name,
                module,
                "gets the pair (outputs, state) of a recurrent layer",
                "put a module between that takes the outputs, or their last step",
            )
        if isinstance(x, Finals):
            raise modules.refusal(
                name, module, "gets the states of all layers", "take those of the last one, h_n[-1]"
            )
        if not isinstance(x, Rows):
            raise modules.refusal(
                name,
                module,
                "gets a tensor that is no output of a layer",
                "collect the steps of a loop in a list, and join them with torch.stack",
            )
        if modules.is_recurrent(module):
            return self._recurrent(name, module, x, *args[1:], **kwargs)
        if isinstance(module, nn.Flatten):
            return self._flatten(
                f"{name} (nn.Flatten)", x, start_dim=module.start_dim, end_dim=module.end_dim
            )
        is_embedding = isinstance(module, nn.Embedding)
        if is_embedding and (x.stage is not None or FEATURES in x.axes):
            raise modules.refusal(name, module, "is not the first layer", "put it there")
        if isinstance(module, nn.Linear) and x.axes[-1:] != (FEATURES,):
            raise modules.refusal(
                name,
                module,
                "gets an input whose last axis is not that of the features",
                "give the module [batch, steps, features]",
            )
        made = modules.places(module, name)
        if not any(place.layer.parameters() for place in made):  # may stand in several places
            return self._functional(name, x, made)
        stage = self._stage(name, module, x.stage, made)
        return Rows(stage, (*x.axes, FEATURES) if is_embedding else x.axes, x.at)

    def _stage(
        self, name: str, module: nn.Module, below: Stage | None, places: Sequence[Place]
    ) -> Stage | None:
        """The top one of a module's layers; calls for further steps find it again."""
        if self._below.setdefault(name, below) is not below:
            raise modules.refusal(
                name,
                module,
                "is used twice, in two places of the stack",
                "give every place a layer of its own",
            )
        for index, place in enumerate(places):
            below = self._stages.setdefault(
                (name, index), Stage(place, name, below, modules.is_cell(module))
            )
        return below

    def _batch_is(self, axis: str, name: str, module: nn.Module) -> None:
        if self.axes.batch not in (None, axis):
            raise modules.refusal(
                name,
                module,
                "takes for the batch what a layer below it takes for the steps",
                "give all layers the same batch_first, or transpose between them",
            )
        self.axes.batch = axis

    def _recurrent(self, name: str, module: Any, x: Rows, hx: Any = None) -> Any:
        if hx is not None and not all(isinstance(state, Zeros) for state in _leaves([hx])):
            raise modules.refusal(
                name,
                module,
                "gets an initial state",
                "leave it out: fptt starts from zero and carries the state itself",
            )
        if x.at is not None or len(x.axes) != 3 or x.axes[2] != FEATURES:
            raise modules.refusal(
                name,
                module,
                "gets something else than whole sequences of features, in a batch",
                "give it [batch, steps, features], and take the last step above it",
            )
        self._batch_is(x.axes[0 if module.batch_first else 1], name, module)
        made = modules.places(module, name)
        top = self._stage(name, module, x.stage, made)
        batch, time, _ = self.axes.order
        end = (time, self.axes.sizes[time] - 1)
        last = Finals(module.num_layers, Rows(top, (batch, FEATURES), end))
        is_lstm = isinstance(module, nn.LSTM)
        state = (last, Finals(module.num_layers, None)) if is_lstm else last
        return (Rows(top, x.axes), state)

    def _cell(self, name: str, module: Any, input: Any, hx: Any = None) -> Any:
        if not isinstance(input, Rows) or input.at is None or input.axes[1:] != (FEATURES,):
            raise modules.refusal(
                name,
                module,
                "gets something else than one step of its input",
                "loop over the steps: for t in range(x.size(1)): h, c = cell(x[:, t], (h, c))",
            )
        self._batch_is(input.axes[0], name, module)
        stage = self._stage(name, module, input.stage, modules.places(module, name))
        assert stage is not None
        step = input.at[1]
        states = [state for state in _leaves([hx]) if state is not None]
        if not _follows(stage, states, input.at, isinstance(module, nn.LSTMCell)):
            raise modules.refusal(
                name,
                module,
                f"does not get at step {step} the state that it left at the step before",
                "call it once for every step in turn, from zeros or no state on",
            )
        stage.calls = step + 1
        h = Rows(stage, input.axes, input.at)
        return (h, CellState(stage, step)) if isinstance(module, nn.LSTMCell) else h

    def _functional(self, what: str, x: Any, places: Sequence[Place]) -> Any:
        if not isinstance(x, Rows):
            raise self.refusal(what, "", "is applied to a state, not to outputs")
        stage = x.stage
        for place in places:
            key = (place.layer, stage)
            stage = self._stages.setdefault(key, Stage(place, what, stage))
        return Rows(stage, x.axes, x.at)

    def _relu(self, what: str, input: Any, inplace: bool = False) -> Any:
        return self._functional(what, input, [Place(ReLU())])

    def _dropout(
        self, what: str, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Any:
        if training and not self.training:
            raise InputError(
                f"{what} drops in evaluation, too; give it training=self.training, or use "
                "nn.Dropout"
            )
        return self._functional(what, input, modules.dropout(p, what) if training else [])

    # -- axes, steps, states -----------------------------------------------------------------

    def _same(self, what: str, x: Any) -> Any:
        return x

    def _zeros(self, what: str, *_: Any, **__: Any) -> Zeros:
        return Zeros()

    def _getitem(self, what: str, x: Any, index: Any) -> Any:
        if isinstance(x, (tuple, list)):
            return x[index]
        return indexed(what, x, index, self.axes)

    def _select(self, what: str, x: Any, dim: int, index: int) -> Any:
        axes = 3 if isinstance(x, Finals) else len(x.axes)
        return indexed(what, x, (*[slice(None)] * (dim % axes), index), self.axes)

    def _unbind(self, what: str, x: Any, dim: int = 0) -> Any:
        size = self.axes.sizes.get(x.axes[dim], 0)
        return tuple(self._select(what, x, dim, index) for index in range(size))

    def _stack(self, what: str, tensors: Any, dim: int = 0) -> Any:
        return stacked(what, tensors, dim, self.axes)

    def _transpose(self, what: str, x: Any, dim0: int, dim1: int) -> Any:
        order = list(range(len(x.axes)))
        order[dim0], order[dim1] = order[dim1], order[dim0]
        return permuted(what, x, order)

    def _permute(self, what: str, x: Any, *dims: Any) -> Any:
        return permuted(what, x, dims[0] if isinstance(dims[0], (tuple, list)) else dims)

    def _unsqueeze(self, what: str, x: Any, dim: int) -> Any:
        return unsqueezed(what, x, dim)

    def _squeeze(self, what: str, x: Any, dim: int | None = None) -> Any:
        return squeezed(what, x, dim, self.axes)

    def _flatten(self, what: str, x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
        if isinstance(x, Rows) and start_dim % len(x.axes) == end_dim % len(x.axes):
            return x
        raise self.refusal(what, "flatten", "joins axes that fptt keeps apart")

    def _view(self, what: str, x: Any, *shape: Any) -> Any:
        if isinstance(x, Finals) and x.stages == 1 and x.last is not None and len(shape) == 2:
            return x.last  # [1, batch, hidden] as [batch, hidden]
        raise self.refusal(what, "view")


def _follows(stage: Stage, states: Sequence[Any], at: tuple[str, int], is_lstm: bool) -> bool:
    """Whether these are a cell's states of the step before."""
    axis, step = at
    if step == 0:
        return all(isinstance(state, Zeros) for state in states)
    if not states or not isinstance(states[0], Rows):
        return False
    h, *others = states
    wanted = [CellState(stage, step - 1)] if is_lstm else []
    return h.stage is stage and h.at == (axis, step - 1) and others == wanted


def _leaves(values: Sequence[Any]) -> list[Any]:
    """What nested tuples, lists and slices hold."""
    return [
        leaf
        for value in values
        for leaf in (_leaves(value) if isinstance(value, (tuple, list)) else [value])
    ]
