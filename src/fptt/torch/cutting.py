"""Cuts sequences into parts, runs the model on each, and carries the state without its graph."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fptt.checks import is_whole
from fptt.errors import InputError
from fptt.torch.passage import Passage
from fptt.torch.spiking_libraries import require_causal
from fptt.torch.states import Moment, attributes_with_graph
from fptt.torch.targets import Criterion, Schedule, Targets

#: models that are under observation for a graph that outlives its part: until when it is clear
#: that autograd nodes are of the past; None when the observation is over
_WATCHED: weakref.WeakKeyDictionary[object, Moment | None] = weakref.WeakKeyDictionary()


def parts(
    model: Callable[..., Any],
    x: Tensor,
    y: Tensor,
    *,
    parts: int,
    loss: Schedule = "last",
    criterion: Criterion = "cross_entropy",
    lengths: Sequence[int] | Tensor | None = None,
    state: Any = None,
    batch_first: bool = True,
    steps: int | None = None,
) -> Parts:
    """Runs a model over a batch in K parts; yields the loss of each, to be learnt from at once.

        for loss in fptt.torch.parts(model, x, y, parts=28):
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    Part p = 1..K covers the steps floor((p - 1) T/K) to floor(p T/K) - 1. The state goes from part
    to part as values, cut off from the graph, so that autograd keeps the activations of one part:
    memory is O(T/K). For that, learn from each loss before the next one is asked for. Two mistakes:

    - To collect the losses (`total = total + loss`) and call backward() at the end keeps all parts,
      O(T), without any error. For a log, use `loss.item()`.
    - To run an encoder over the whole x before cutting it needs the encoder's backward pass once
      for every part, which is refused. It belongs into the model.

    The model may be

    - any module or function that maps (x_part, state) to (outputs, state), where the first state
      is None and a state is made of tensors in tuples, lists, dicts, named tuples and dataclasses;
      nn.LSTM, nn.GRU and nn.RNN are such modules;
    - nn.Sequential with recurrent layers, cells or spiking neurons in it; see `Stateful`, which is
      also how to run a module that takes one step at a time;
    - a module that takes x_part alone and keeps its state inside: neurons of snnTorch and
      SpikingJelly are known; another module needs the methods `reset_state()` and
      `detach_state()`. A state that is kept otherwise is found in the second part, and refused.

    Where sequences have unequal lengths, a sample counts at the end of every part in which it
    still runs and, in the part where it ends, at its own last step. The model also runs over the
    steps behind a sequence's end, on zeros; they do not count, as long as the model treats the
    rows of a batch independently (BatchNorm does not). A part in which nothing counts yields
    nothing.

    Args:
        model: the model, in training mode if so wanted.
        x: [batch, steps, ...], or [steps, batch, ...] unless batch_first.
        y: with loss="every_step" [batch, steps] or [batch, steps, outputs], with time first where
            x has; else labels [batch], or [batch, outputs]. A negative label, or a NaN, marks a
            target that is not there.
        parts: K, at most T.
        loss: "last": every part ends with the loss at its last step. "every_step": the mean over
            the part's steps with a target. Or an AuxiliaryLoss, which gets b = p/K (with unequal
            lengths b = steps seen / own length).
        criterion: "cross_entropy", "mse" (the mean over rows and outputs), or a function of
            outputs and targets, [counted, ...] each, that returns the mean.
        lengths: steps of every sequence.
        state: where to go on: `state` of the parts of the batch before, for language modelling.
            None starts at the beginning.
        batch_first: whether x and the model's outputs are [batch, steps, ...].
        steps: T, which the parts cut; by default that of x. A shorter x keeps the cuts and stops
            early.

    Returns:
        An iterator over the losses, with the attributes `part` (p of the last one yielded) and,
        when it is over, `state`.

    Raises:
        InputError: what does not fit; a graph that reaches back into an earlier part.

    Example:
        >>> import fptt.torch, torch
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.LSTM(1, 8), nn.Linear(8, 2))
        >>> optimizer = fptt.torch.FPTT(torch.optim.Adam(model.parameters(), lr=0.05))
        >>> y = torch.tensor([0, 1] * 4)
        >>> x = y[:, None, None] + torch.zeros(8, 12, 1)
        >>> for epoch in range(10):
        ...     for loss in fptt.torch.parts(model, x, y, parts=3):
        ...         loss.backward()
        ...         optimizer.step()
        ...         optimizer.zero_grad()
        ...     optimizer.end_epoch()
        >>> fptt.torch.predict(model, x).argmax(dim=1).tolist()
        [0, 1, 0, 1, 0, 1, 0, 1]
    """
    return Parts(model, x, y, parts, loss, criterion, lengths, state, batch_first, steps)


class Parts(Iterator[Tensor]):
    """The losses of a batch's parts, computed as they are asked for; made by `parts`.

    Attributes:
        part: number of the part whose loss was yielded last, from 1.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        x: Tensor,
        y: Tensor,
        parts: int,
        loss: Schedule,
        criterion: Criterion,
        lengths: Sequence[int] | Tensor | None,
        state: Any,
        batch_first: bool,
        steps: int | None,
    ) -> None:
        self._passage = Passage(model, x, lengths, state, batch_first)
        total = self._passage.steps if steps is None else steps
        if not is_whole(total) or total < self._passage.steps:
            raise InputError(
                f"parts: steps is {steps!r} and x has {self._passage.steps} steps; give T, the "
                "length of the longest sequence"
            )
        if not is_whole(parts) or not 1 <= parts <= total:
            raise InputError(
                f"parts: parts is {parts!r} and the sequences have {total} steps; give a whole "
                f"number from 1 to {total}"
            )
        if parts > 1:
            require_causal(model)
        if parts > 1 and x.requires_grad:
            raise InputError(
                "parts: x requires a gradient, so what made it would be run backward once for "
                "every part; make it inside the model, part by part, or give x.detach()"
            )
        self._targets = Targets(
            loss,
            criterion,
            y,
            self._passage.lengths,
            total,
            self._passage.steps,
            parts,
            batch_first,
        )
        self._cuts = [number * total // parts for number in range(parts + 1)]
        self._next = 1
        self.part = 0

    def __next__(self) -> Tensor:
        while self._next < len(self._cuts):
            low = self._cuts[self._next - 1]
            high = min(self._cuts[self._next], self._passage.steps)
            if low >= max(self._passage.lengths):
                break
            part, self._next = self._next, self._next + 1
            rows = self._targets.rows(low, high)
            with torch.set_grad_enabled(bool(rows) and torch.is_grad_enabled()):
                outputs = self._passage.run(low, high)
                loss = self._targets.loss(outputs, rows, part, low, high) if rows else None
            if loss is not None:
                self._watch(loss, part)
            self._passage.cut()
            if loss is not None:
                self.part = part
                return loss
        self._next = len(self._cuts)
        self._passage.finished = True
        raise StopIteration

    @property
    def state(self) -> Any:
        """The state after the last part, detached: give it to `parts` with the next batch.

        It is what the model returned; a `PartsState` where modules keep some of it inside.

        Raises:
            InputError: parts are left, or lengths are unequal: then the rows that ended have gone
                on over what fills them up.
        """
        if not self._passage.finished:
            raise InputError(
                f"parts: state after part {self.part} of {len(self._cuts) - 1}; run the loop to "
                "its end first"
            )
        if self._targets.unequal:
            raise InputError(
                "parts: sequences of unequal lengths have no common last state; carry the state "
                "with batches of equal lengths only"
            )
        return self._passage.state

    def _watch(self, loss: Tensor, part: int) -> None:
        """Looks once, in a model's first batch and at the next one's start, for an old graph."""
        if loss.grad_fn is None:  # nobody wants a gradient
            return
        model = self._passage.model
        try:
            before = _WATCHED.get(model, _UNKNOWN)
        except TypeError:  # no weak reference
            return
        if before is None:
            return
        if before is not _UNKNOWN:
            assert isinstance(before, Moment)
            old = before.graph_before(loss)
            if old is not None:
                holding = ", ".join(attributes_with_graph(model)) or "none found"
                raise InputError(
                    f"parts: the loss of part {part} depends on a graph from before this part "
                    f"({old}), so memory would grow with the sequence. Something goes from part to "
                    "part beside the state, or was computed from parameters once for all. "
                    f"Attributes that hold a graph: {holding}. Pass it through forward(x, state), "
                    "or give the module that keeps it the methods reset_state() and detach_state()"
                )
        over = before is not _UNKNOWN and part == 1
        _WATCHED[model] = None if over else Moment.now()


_UNKNOWN = object()


@torch.no_grad()
def predict(
    model: Callable[..., Any],
    x: Tensor,
    *,
    lengths: Sequence[int] | Tensor | None = None,
    every_step: bool = False,
    batch_first: bool = True,
) -> Tensor:
    """The model's outputs at every sequence's last step, without gradients.

    It runs any model that `parts` trains, from the beginning of the sequence, and resets what
    modules keep inside before and after; with such modules, do not call it inside a loop over
    `parts`. Call `model.eval()` first where there is dropout.

    Args:
        model, x, lengths, batch_first: as in `parts`.
        every_step: return the outputs at all steps, as the model gives them.

    Returns:
        [batch, outputs].

    Raises:
        InputError: what does not fit.

    Example:
        >>> from torch import nn
        >>> predict(nn.Sequential(nn.GRU(3, 5), nn.Linear(5, 2)), torch.zeros(4, 7, 3)).shape
        torch.Size([4, 2])
    """
    passage = Passage(model, x, lengths, None, batch_first)
    outputs = passage.run(0, passage.steps)
    passage.begin(None)
    if every_step or outputs.ndim == 2:
        return outputs
    if not batch_first:
        outputs = outputs.transpose(0, 1)
    last = torch.tensor(passage.lengths, device=outputs.device) - 1
    return outputs[torch.arange(len(last), device=outputs.device), last]
