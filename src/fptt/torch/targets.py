"""Which rows and steps of a part count for its loss, and the loss of those."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from fptt.errors import InputError
from fptt.torch.losses import AuxiliaryLoss

Criterion = Literal["cross_entropy", "mse"] | Callable[[Tensor, Tensor], Tensor]
Schedule = Literal["last", "every_step"] | AuxiliaryLoss


def _cross_entropy(outputs: Tensor, y: Tensor) -> Tensor:
    if y.is_floating_point():
        return cross_entropy(outputs, y)
    if y.shape != outputs.shape[:1] + outputs.shape[2:]:
        raise InputError(
            f"parts: y is {list(y.shape)} labels for the {list(outputs.shape)} outputs that count, "
            "[counted, classes]; give one label for each, or, where every step has its own, "
            "[batch, steps] and loss='every_step'"
        )
    return cross_entropy(outputs, y.long())


def _mse(outputs: Tensor, y: Tensor) -> Tensor:
    if y.ndim == outputs.ndim - 1 and outputs.shape[-1] == 1:
        y = y[..., None]
    if y.shape != outputs.shape:  # PyTorch would spread one over the other
        raise InputError(
            f"parts: y is {list(y.shape)} for the {list(outputs.shape)} outputs that count, "
            "[counted, outputs]; with criterion='mse' give as many numbers"
        )
    return mse_loss(outputs, y.to(outputs.dtype))


_CRITERIA: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": _cross_entropy,
    "mse": _mse,
}


def _has_target(y: Tensor, first_dims: int) -> Tensor:
    """Where there is a target: a whole number of at least 0, or a first number that is no NaN."""
    if not y.is_floating_point():
        return y.flatten(first_dims)[..., 0] >= 0 if y.ndim > first_dims else y >= 0
    first = y.flatten(first_dims)[..., 0] if y.ndim > first_dims else y
    return ~first.isnan()


class Targets:
    """The targets of a batch under a loss schedule.

    Args:
        loss, criterion, y: as given to `fptt.torch.parts`.
        lengths: steps of every row.
        total: T, which the parts cut.
        steps: of the input.
        parts: K.
        batch_first: of the input, the outputs and, with every_step, of y.
    """

    def __init__(
        self,
        loss: Schedule,
        criterion: Criterion,
        y: Tensor,
        lengths: list[int],
        total: int,
        steps: int,
        parts: int,
        batch_first: bool,
    ) -> None:
        self.auxiliary = loss if isinstance(loss, AuxiliaryLoss) else None
        self.every_step = loss == "every_step"
        if not (self.auxiliary or self.every_step or loss == "last"):
            raise InputError(
                f"parts: loss is {loss!r}; give 'last', 'every_step' or an AuxiliaryLoss, and what "
                "compares outputs with targets as criterion"
            )
        if self.auxiliary and criterion != "cross_entropy":
            raise InputError(
                "parts: an AuxiliaryLoss predicts classes and holds its own criterion; leave out "
                f"criterion, which is {criterion!r}"
            )
        if not callable(criterion) and criterion not in _CRITERIA:
            raise InputError(
                f"parts: criterion is {criterion!r}; give 'cross_entropy', 'mse' or a function of "
                "outputs and targets [rows, ...] that returns their mean"
            )
        self.criterion = _CRITERIA[criterion] if isinstance(criterion, str) else criterion
        if not isinstance(y, Tensor):
            raise InputError(f"parts: y is a {type(y).__name__}; give a tensor")
        if criterion == "mse" and not y.is_floating_point():
            y = y.to(torch.get_default_dtype())  # numbers, not labels: -1 is one like any other
        rows = len(lengths)
        # targets at every step lie as the input does; inside, batch comes first
        if self.every_step and not batch_first and y.ndim >= 2:
            y = y.transpose(0, 1)
        wanted = (rows, steps) if self.every_step else (rows,)
        if tuple(y.shape[: len(wanted)]) != wanted:
            given = list(y.shape)
            raise InputError(
                f"parts: y has shape {given}{' (batch first)' if self.every_step else ''}; with "
                f"{rows} sequences of {steps} steps and loss={self._name()} give "
                f"{list(wanted)} or [{', '.join(map(str, wanted))}, outputs]"
            )
        self.y, self.lengths, self.parts, self.batch_first = y, lengths, parts, batch_first
        self.unequal = min(lengths) < steps
        # b is p/K unless some sequence is shorter than what the parts cut
        self.shorter = min(lengths) < total
        # the longest first, as the reference takes the rows: Q learns in this order
        self.order = sorted(range(rows), key=lambda row: -lengths[row])
        present = _has_target(y, len(wanted))
        # one look at the device for the whole batch
        self.present = None if bool(present.all()) else present.cpu()

    def _name(self) -> str:
        if self.auxiliary:
            return "AuxiliaryLoss"
        return "'every_step'" if self.every_step else "'last'"

    def rows(self, low: int, high: int) -> list[int]:
        """Rows that count in the part of the steps low to high - 1, the longest first."""
        running = [row for row in self.order if self.lengths[row] > low]
        if self.present is None:
            return running
        if not self.every_step:
            return [row for row in running if self.present[row]]
        ends = {row: min(self.lengths[row], high) for row in running}
        return [row for row in running if bool(self.present[row, low : ends[row]].any())]

    def loss(self, outputs: Tensor, rows: list[int], part: int, low: int, high: int) -> Tensor:
        """The mean over what counts in a part.

        Args:
            outputs: of the model.
            rows: what `rows` gave.
            part: p, from 1 to K.
        """
        steps = high - low
        if outputs.ndim == 2 and not self.every_step and not self.unequal:
            last = outputs  # a model that gives the part's last output only
            outputs = outputs[:, None] if self.batch_first else outputs[None]
            steps = 1
        if not self.batch_first:
            outputs = outputs.transpose(0, 1)
        if outputs.ndim < 3 or tuple(outputs.shape[:2]) != (len(self.lengths), steps):
            order = "[batch, steps, ...]" if self.batch_first else "[steps, batch, ...]"
            raise InputError(
                f"parts: the model returned outputs of shape {list(outputs.shape)} (batch first) "
                f"for {len(self.lengths)} rows of {high - low} steps; give outputs {order}, or, "
                "where only a part's last output counts and all sequences are equally long, "
                "[batch, outputs]"
            )
        if self.every_step:
            return self._at_every_step(outputs, low, high)
        everything = not self.unequal and len(rows) == len(self.lengths)
        if everything:
            last, y = outputs[:, -1], self.y
        else:
            index = torch.tensor(rows, device=outputs.device)
            ends = [min(self.lengths[row], high) - 1 - low for row in rows]
            last = outputs[index, torch.tensor(ends, device=outputs.device)]
            y = self.y[index.to(self.y.device)]
        if self.auxiliary is None:
            return self.criterion(last, y)
        fraction: float | Tensor = part / self.parts
        if self.shorter:
            b = [min(self.lengths[row], high) / self.lengths[row] for row in rows]
            wide = torch.promote_types(outputs.dtype, torch.float32)
            fraction = torch.tensor(b, dtype=wide, device=outputs.device)
        result: Tensor = self.auxiliary(last, y, fraction, part=part, parts=self.parts)
        return result

    def _at_every_step(self, outputs: Tensor, low: int, high: int) -> Tensor:
        y = self.y[:, low:high]
        if self.present is None and not self.unequal:
            return self.criterion(outputs.flatten(0, 1), y.flatten(0, 1))
        counts = torch.arange(low, high)[None] < torch.tensor(self.lengths)[:, None]
        if self.present is not None:
            counts &= self.present[:, low:high]
        counts = counts.to(outputs.device)
        return self.criterion(outputs[counts], y[counts.to(y.device)])
