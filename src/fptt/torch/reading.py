"""Networks from modules: `from_module` and `read_module`."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fptt.errors import InputError
from fptt.nets import Dropout, Network
from fptt.nets.layer import Recurrent
from fptt.torch import modules
from fptt.torch.comparing import as_array, compare
from fptt.torch.imported import Imported, Place, network_of, tensor_names
from fptt.torch.signals import Axes, Refused, Rows, Stage
from fptt.torch.tracing import Failed, trace
from fptt.torch.walking import Walk

#: batch and steps of the input that is made up where none is given
_BATCH, _STEPS = 5, 7


def _named(module: nn.Module) -> str:
    return type(module.root if isinstance(module, _Only) else module).__name__


class _Only(nn.Module):
    """A module that is a layer by itself, with a `forward` to follow; a cell, over all steps."""

    def __init__(self, root: nn.Module) -> None:
        super().__init__()
        self.root = root

    def forward(self, x: Tensor) -> Any:
        if not modules.is_cell(self.root):
            return self.root(x)
        state, outputs = None, []
        for x_t in x.unbind(1):
            state = self.root(x_t, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(outputs, 1)


def from_module(module: nn.Module, example: Tensor | None = None) -> Network:
    """The network, with its weights, that computes what a PyTorch module computes.

        bias = bias_ih + bias_hh in LSTM and RNN;   a GRU keeps both

    Read are nn.LSTM, nn.GRU, nn.RNN (tanh), their cells in a loop over the steps, nn.Linear,
    nn.ReLU, nn.Dropout, nn.Embedding and nn.Identity, in nn.Sequential or in a class of yours whose
    `forward` is a stack of them: it takes one input, begins from no state or from zeros, and
    returns the outputs at all steps or at the last one (`out[:, -1]`, `h_n[-1]`). A stacked nn.LSTM
    becomes one layer for each of its layers, with Dropout between them; a cell given by itself is
    read as a layer. Everything else is refused by name. What was read is compared with the module
    on an input like the example; both must give the same outputs.

    Biases that the module does not have (bias=False) become zeros, with a warning, because fptt
    trains them; `read_module(module).train` says how not to. The row padding_idx of an nn.Embedding
    trains like the others. Weights in half precision become float32.

    Args:
        module: to read; it stays as it is. Its training flags do not matter.
        example: an input, [batch, steps, features] (or [steps, batch, features] where the module
            wants that) or tokens [batch, steps]. Without it one of 5 sequences of 7 steps is made
            up, which is enough unless `forward` has sizes written into it.

    Returns:
        The network, to be given to `fptt.build`. Input of fptt is always [batch, steps, features].

    Raises:
        InputError: a module that cannot be read: which layer or line, why, and what to do.

    Example:
        >>> import fptt.torch, torch
        >>> class Digits(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.lstm = torch.nn.LSTM(28, 16, batch_first=True)
        ...         self.fc = torch.nn.Linear(16, 10)
        ...     def forward(self, x):
        ...         out, _ = self.lstm(x)
        ...         return self.fc(torch.relu(out[:, -1]))
        >>> print(fptt.torch.from_module(Digits()))
        LSTM(28, 16) - ReLU() - Linear(16, 10)
    """
    found = read_module(module, example)
    missing = [name for name, tensors in found.tensors.items() if not tensors]
    if missing:
        warnings.warn(
            f"the module has no {', '.join(missing)}; zeros were taken, which train. To keep them, "
            "give fptt.build train=fptt.torch.read_module(module).train",
            UserWarning,
            stacklevel=2,
        )
    return found.network


def read_module(module: nn.Module, example: Tensor | None = None) -> Imported:
    """Everything that `from_module` finds out: the network, its outputs, its tensors.

    Args:
        module, example: as in `from_module`.

    Returns:
        See `Imported`; `fptt.build(found.network, rule, loss=found.loss, train=found.train, ...)`
        trains what the module would train.

    Raises:
        InputError: as `from_module`.

    Example:
        >>> import fptt.torch, torch
        >>> found = fptt.torch.read_module(torch.nn.GRU(3, 5, num_layers=2))
        >>> print(found.network, found.loss, found.batch_first)
        GRU(3, 5) - GRU(5, 5) every_step False
    """
    if not isinstance(module, nn.Module):
        raise InputError(
            f"from_module: {type(module).__name__} is no torch.nn.Module; for a state_dict there "
            "is fptt.torch.from_state_dict"
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise InputError(
            f"from_module: {type(module).__name__} is compiled by TorchScript; give the module "
            "that it was made from, or fptt.torch.from_state_dict(module.state_dict())"
        )
    module = getattr(module, "_orig_mod", module)  # what torch.compile wrapped
    modules.check_known(module, "")
    if modules.is_leaf(module):
        modules.places(module, "")  # refuses by its own name
        return _read(_Only(module), example, prefix="root.")
    _check_parameters(module)
    return _read(module, example)


def _check_parameters(module: nn.Module) -> None:
    """`forward` must go without anything but the input."""
    wanted = [
        p.name
        for p in inspect.signature(module.forward).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(wanted) > 1:
        raise InputError(
            f"{type(module).__name__}.forward wants {', '.join(wanted[1:])} besides the input; "
            "give the parameter a default that it works with (fptt carries states and knows "
            "lengths by itself)"
        )


def _read(module: nn.Module, example: Tensor | None, prefix: str = "") -> Imported:
    _check_tensors(module, prefix)
    tried: list[InputError] = []
    for candidate in [example] if example is not None else _examples(module):
        try:
            return _read_on(module, candidate, prefix)
        except InputError as error:
            tried.append(error)
    if not tried:
        raise InputError(f"{_named(module)} has no layer with weights that fptt knows")
    raise next((error for error in tried if not isinstance(error, _NoExample)), tried[0])


class _NoExample(InputError):
    """The module does not run on the example."""


def _check_tensors(module: nn.Module, prefix: str) -> None:
    seen: dict[int, str] = {}
    for full, parameter in module.named_parameters(remove_duplicate=False):
        name = full.removeprefix(prefix)
        if nn.parameter.is_lazy(parameter) or parameter.is_meta:
            raise InputError(f"{name} has no values yet; run the module once, or load its weights")
        other = seen.setdefault(id(parameter), name)
        if other != name:
            raise InputError(
                f"{name} and {other} are one tensor (tied weights), which fptt cannot train as "
                "one; untie them: give each layer a tensor of its own"
            )


def _examples(module: nn.Module) -> list[Tensor]:
    """Inputs that could be the module's, the likeliest first."""
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    dtype = next((p.dtype for p in module.parameters()), torch.float32)
    shape = (_BATCH, _STEPS)
    leaves = [one for one in module.modules() if modules.is_leaf(one)]
    if any(isinstance(one, nn.Embedding) for one in leaves):
        return [torch.zeros(shape, dtype=torch.long, device=device)]
    widths = [getattr(one, "input_size", getattr(one, "in_features", None)) for one in leaves]
    # the network's input is likelier that of a recurrent layer than that of a Linear
    ordered = [
        width
        for kind in ("input_size", "in_features")
        for one, width in zip(leaves, widths, strict=True)
        if hasattr(one, kind) and width
    ]
    found = [
        torch.zeros((*shape, width), dtype=dtype, device=device) for width in dict.fromkeys(ordered)
    ]
    return [*found, *([torch.zeros(shape, dtype=dtype, device=device)] if 1 in ordered else [])]


def _read_on(module: nn.Module, example: Tensor, prefix: str) -> Imported:
    if not isinstance(example, Tensor):
        raise InputError(f"example is {type(example).__name__}; give a tensor, an input of it")
    learning, evaluating = (_walk(module, example, training=flag) for flag in (True, False))
    (stack, output, axes), (judged, _, _) = learning, evaluating
    if _kinds(stack) != _kinds(judged):
        raise InputError(
            f"{_named(module)}.forward computes something else in training than in "
            "evaluation, besides dropout; make it the same"
        )
    found = _imported(module, stack, output, axes, prefix)
    compare(_named(module), module, example, found, output, axes)
    return found


def _kinds(stack: Sequence[Stage]) -> list[tuple[Any, str]]:
    return [(s.place.layer, s.what) for s in stack if not isinstance(s.place.layer, Dropout)]


def _walk(module: nn.Module, example: Tensor, *, training: bool) -> tuple[list[Stage], Rows, Axes]:
    """The stack of layers and what of it comes out."""
    try:
        graph, tracer = trace(module, example, training=training)
    except Failed as failed:
        walk = Walk(failed.node.graph, failed.tracer, training=training)
        signal = walk.signal(failed.node)
        if isinstance(signal, Refused):
            raise signal.error from None
        raise _NoExample(
            f"{_named(module)} does not run on an input of shape {list(example.shape)}: "
            f"{str(failed.error).splitlines()[0]}, {failed.tracer.where[failed.node]}; give "
            "`example=`, an input that it takes"
        ) from None
    walk = Walk(graph, tracer, training=training)
    output = walk.run()
    if isinstance(output, (tuple, list)) and output:
        output = output[0]  # what follows are states
    if isinstance(output, Refused):
        raise output.error
    name = _named(module)
    if not isinstance(output, Rows) or output.stage is None:
        raise InputError(
            f"{name}.forward does not return outputs of its layers; return them, or a tuple that "
            "begins with them"
        )
    stack = output.stage.stack()
    _check_output(name, stack, output, walk.axes)
    return stack, output, walk.axes


def _check_output(name: str, stack: Sequence[Stage], output: Rows, axes: Axes) -> None:
    if not any(isinstance(stage.place.layer, Recurrent) for stage in stack):
        raise InputError(
            f"{name} has no recurrent layer between its input and its output; fptt trains "
            "recurrent networks"
        )
    steps = axes.sizes[axes.time]
    for stage in stack:
        if stage.cell and stage.calls != steps:
            raise InputError(
                f"{stage.what} is called for {stage.calls} of {steps} steps; call it for every one"
            )
    if output.at is None and {axes.batch, axes.time} <= set(output.axes):
        return
    if output.at != (axes.time, steps - 1) or axes.batch not in output.axes:
        at = f"step {output.at[1]}" if output.at else "something else"
        raise InputError(
            f"{name}.forward returns {at} of {steps}; return the last step, out[:, -1] "
            "(out[-1] without batch_first), or all of them"
        )


def _imported(
    module: nn.Module, stack: Sequence[Stage], output: Rows, axes: Axes, prefix: str
) -> Imported:
    places = [
        Place(s.place.layer, s.place.prefix.removeprefix(prefix), s.place.suffix) for s in stack
    ]
    tensors = {name.removeprefix(prefix): p for name, p in module.named_parameters()}
    names = tensor_names(places, tensors)
    used = {name for own in names.values() for name in own}
    net = network_of(places, {name: as_array(tensors[name]) for name in used})
    trained = [
        name
        for name, own in names.items()
        if own and any(tensors[tensor].requires_grad for tensor in own)
    ]
    return Imported(
        network=net,
        loss="every_step" if output.at is None else "last",
        batch_first=axes.batch == "0",
        train=("*",) if len(trained) == len(names) else tuple(trained),
        tensors=names,
    )
