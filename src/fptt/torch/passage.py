"""A batch on its way through a model: runs any steps of it and keeps the state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fptt.checks import is_whole
from fptt.errors import InputError
from fptt.torch.forgetting import refuse_forgetting
from fptt.torch.spiking_libraries import Holder, held_state, holders
from fptt.torch.stateful import as_runner, takes_state
from fptt.torch.states import detached, tensors_in


@dataclass(frozen=True)
class PartsState:
    """The state after a part of a model that keeps some of it inside its modules.

    Attributes:
        passed: what the model returned as its state, or None.
        held: what modules keep: their name in the model -> name -> value.
    """

    passed: Any
    held: dict[str, dict[str, Any]]


class Passage:
    """A batch of sequences on its way through a model, part by part.

    Attributes:
        steps: of x.
        lengths: of every row.
        finished: whether all parts have run.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        x: Tensor,
        lengths: Sequence[int] | Tensor | None,
        state: Any,
        batch_first: bool,
    ) -> None:
        if not callable(model):
            raise InputError(f"parts: model is {model!r}; give a module or a function")
        if not isinstance(x, Tensor) or x.ndim < 2 or 0 in x.shape[:2]:
            shape = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
            order = "[batch, steps, ...]" if batch_first else "[steps, batch, ...]"
            raise InputError(f"parts: x is {shape}; give a tensor {order} with at least one step")
        self.model, self.x, self.time = model, x, 1 if batch_first else 0
        self.steps = x.shape[self.time]
        rows = x.shape[1 - self.time]
        self.lengths = _checked_lengths(lengths, rows, self.steps)
        self.finished = False
        self._runner = as_runner(model, batch_first)
        self._passes_state = takes_state(self._runner)
        self._held: list[Holder] = holders(model)
        self.begin(state)

    def begin(self, state: Any) -> None:
        """Starts from a state; None is the beginning, also of what modules keep."""
        held = {}
        if isinstance(state, PartsState):
            state, held = state.passed, state.held
            if set(held) != {holder.name for holder in self._held}:
                raise InputError(
                    f"parts: the state belongs to a model with the modules {sorted(held)}, and "
                    f"this one has {sorted(holder.name for holder in self._held)}; give the "
                    "state of this model, or None"
                )
            for holder in self._held:
                holder.write(detached(held[holder.name]))
        else:
            if state is not None and not self._passes_state:
                raise InputError(
                    "parts: the model takes no state, and state is a "
                    f"{type(state).__name__}; leave it out, or give the `state` of earlier parts"
                )
            for holder in self._held:
                holder.reset()
        if any(tensor.requires_grad for tensor in tensors_in(state)):
            raise InputError(
                "parts: the state requires a gradient, and would be run backward in another batch; "
                "detach it. An initial state that is learnt belongs into the model, for state=None"
            )
        self._state = state

    def run(self, low: int, high: int) -> Tensor:
        """Outputs of the steps low to high - 1; the state keeps its graph until `cut`."""
        part = self.x.narrow(self.time, low, high - low)
        if min(self.lengths) < high:
            part = self._without_padding(part, low, high)
        # autocast keeps its casts of the parameters, which have been updated since
        torch.clear_autocast_cache()
        if not self._passes_state:
            alone = self.model if low > 0 and not self._held else None
            with refuse_forgetting(alone):
                outputs = self._runner(part)
        else:
            result = self._runner(part, self._state)
            if not isinstance(result, tuple) or len(result) != 2:
                raise InputError(
                    f"parts: model(x_part, state) returned a {type(result).__name__}; it must "
                    "return the pair (outputs, state). Where the second argument is no state, give "
                    "`lambda x, state: (model(x), None)`"
                )
            outputs, self._state = result
        if not isinstance(outputs, Tensor):
            raise InputError(
                f"parts: the model's outputs are a {type(outputs).__name__}; give one tensor, for "
                "instance by Stateful(model, output=0)"
            )
        return outputs

    def _without_padding(self, part: Tensor, low: int, high: int) -> Tensor:
        """Zeros behind the sequences' ends, since a NaN there would spoil the gradient."""
        steps, lengths = torch.arange(low, high), torch.tensor(self.lengths)
        behind = steps[None] >= lengths[:, None]
        behind = (behind if self.time == 1 else behind.T).to(part.device)
        return part.masked_fill(behind.reshape(*behind.shape, *[1] * (part.ndim - 2)), 0)

    def cut(self) -> None:
        """Cuts the state, passed and held, off from its graph."""
        self._state = detached(self._state)
        for holder in self._held:
            holder.detach()

    @property
    def state(self) -> Any:
        """What `begin` takes to go on from here."""
        if not self._held:
            return self._state
        return PartsState(self._state, held_state(self._held))


def _checked_lengths(lengths: Sequence[int] | Tensor | None, rows: int, steps: int) -> list[int]:
    if lengths is None:
        return [steps] * rows
    found = lengths.tolist() if isinstance(lengths, Tensor) else list(lengths)
    if len(found) != rows or not all(is_whole(n) and 1 <= n <= steps for n in found):
        raise InputError(
            f"parts: lengths is {found}; give one whole number from 1 to {steps} for each of the "
            f"{rows} sequences"
        )
    return [int(n) for n in found]
