"""The auxiliary loss for terminal prediction, as a module with its Q."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, one_hot

from fptt.checks import is_number, is_whole
from fptt.errors import InputError


class AuxiliaryLoss(torch.nn.Module):
    """Terminal prediction with an auxiliary loss (Kag & Saligrama, 2021).

        l = b CE(label, P) + (1 - b) Div,   Div = -sum_y Q[label, y] log P(y)

    with P = softmax(logits) and b the fraction of its sequence that a row has seen; the mean over
    the rows with a label >= 0. Q[label] starts uniform and is a running average of the model's own
    final predictions for sequences of that class: after the loss has been computed, in the order
    of the rows, Q[label] becomes (1 - rate) Q[label] + rate P for every row with b = 1.

    Q learns in training mode (`loss.train()`, as modules are made) where gradients are enabled, so
    evaluation under torch.no_grad() leaves it alone. It is a buffer: save it with the model
    (`loss.state_dict()`) and move it to the model's device.

    `fptt.torch.parts(..., loss=AuxiliaryLoss(10))` gives b to it; by hand it is
    `loss(logits, labels, fraction=b)` or `loss(logits, labels, part=p, parts=K)`.

    Args:
        classes: C.
        rate: weight of a new prediction in Q, 0 < rate <= 1.
        per_part: keep one Q per part, [K, C, C], learnt from every row at the end of that part.
        parts: K; needed with `per_part`.

    Raises:
        InputError: a value outside its range.

    Example:
        >>> import torch
        >>> loss = AuxiliaryLoss(2, rate=0.5)
        >>> logits, label = torch.tensor([[0.0, 0.0]]), torch.tensor([1])
        >>> round(loss(logits, label, part=1, parts=2).item(), 4)
        0.6931
        >>> loss.Q.tolist()  # nothing has ended
        [[0.5, 0.5], [0.5, 0.5]]
        >>> _ = loss(torch.tensor([[0.0, 100.0]]), label, part=2, parts=2)
        >>> loss.Q.tolist()
        [[0.5, 0.5], [0.25, 0.75]]

    The published code averages Div over the classes too, which makes it C times weaker, and takes
    Q from the last misclassified example of the class; this follows the paper's equation.
    """

    Q: Tensor

    def __init__(
        self, classes: int, rate: float = 0.1, per_part: bool = False, parts: int | None = None
    ) -> None:
        super().__init__()
        if not is_whole(classes) or classes < 2:
            raise InputError(
                f"AuxiliaryLoss: classes is {classes!r}; give a whole number of at least 2"
            )
        if not is_number(rate) or not 0 < rate <= 1:
            raise InputError(f"AuxiliaryLoss: rate is {rate!r}; give a number with 0 < rate <= 1")
        if not isinstance(per_part, bool):
            raise InputError(f"AuxiliaryLoss: per_part is {per_part!r}; give True or False")
        if per_part and (not is_whole(parts) or parts < 1):
            raise InputError(
                f"AuxiliaryLoss: per_part keeps one Q for each of the K parts, and parts is "
                f"{parts!r}; give AuxiliaryLoss({classes}, per_part=True, parts=K)"
            )
        self.classes, self.rate, self.per_part, self.parts = classes, rate, per_part, parts
        shape = (parts, classes, classes) if per_part and parts else (classes, classes)
        self.register_buffer("Q", torch.full(shape, 1 / classes))

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        fraction: Tensor | float | None = None,
        *,
        part: int | None = None,
        parts: int | None = None,
    ) -> Tensor:
        """The loss of the rows at the end of a part; Q learns from those that have ended.

        Args:
            logits: [rows, C].
            labels: whole numbers [rows]; a negative one marks a row without a label.
            fraction: b, one number or [rows]; without it b is part / parts.
            part: p, from 1 to K; with `per_part` it chooses the Q.
            parts: K.

        Returns:
            The mean loss, a scalar.

        Raises:
            InputError: shapes that do not fit, or neither fraction nor part and parts.
        """
        self._check(logits, labels, fraction, part, parts)
        if fraction is None:
            assert part is not None
            fraction = part / (parts or self.parts or 1)
        # half precision is too coarse for the logarithm
        wide = torch.promote_types(logits.dtype, torch.float32)
        log_p = log_softmax(logits, dim=1, dtype=wide)
        q = self.Q[(part or 1) - 1] if self.per_part else self.Q
        valid, label = labels >= 0, labels.clamp(min=0).long()
        b = torch.as_tensor(fraction, dtype=wide, device=logits.device).expand(len(labels))
        hit = one_hot(label, self.classes).to(wide)
        soft = (1 - b)[:, None] * q[label].to(wide) + b[:, None] * hit
        losses = torch.where(valid, -(soft * log_p).sum(dim=1), 0)
        loss = losses.sum() / valid.sum().clamp(min=1)
        may_have_ended = self.per_part or isinstance(fraction, Tensor) or fraction == 1
        if self.training and torch.is_grad_enabled() and may_have_ended:
            ended = valid if self.per_part else valid & (b == 1)
            with torch.no_grad():
                self._learn(q, log_p.exp(), hit, ended)
        return loss

    def _learn(self, q: Tensor, p: Tensor, hit: Tensor, ended: Tensor) -> None:
        """Q_c <- (1 - r) Q_c + r P, row by row, for all rows at once.

        The n rows of a class weigh r (1 - r)^(rows of the class after them), and what was there
        before (1 - r)^n. A prediction that is not finite teaches nothing.
        """
        ended = ended & p.isfinite().all(dim=1)
        hit = hit.to(q.dtype) * ended[:, None]
        count = hit.sum(dim=0)
        after = (hit * (count - hit.cumsum(dim=0))).sum(dim=1)
        weight = self.rate * (1 - self.rate) ** after if self.rate < 1 else (after == 0).to(q.dtype)
        p = torch.where(ended[:, None], p, 0).to(q.dtype) * weight[:, None]
        q.mul_(((1 - self.rate) ** count)[:, None]).add_(hit.mT @ p)

    def _check(
        self,
        logits: Tensor,
        labels: Tensor,
        fraction: Tensor | float | None,
        part: int | None,
        parts: int | None,
    ) -> None:
        if logits.ndim != 2 or logits.shape[1] != self.classes:
            raise InputError(
                f"AuxiliaryLoss: logits have shape {list(logits.shape)}; give "
                f"[rows, {self.classes}]"
            )
        if labels.shape != logits.shape[:1] or labels.is_floating_point():
            raise InputError(
                f"AuxiliaryLoss: labels have shape {list(labels.shape)} and type {labels.dtype}; "
                f"give one whole number for each of the {len(logits)} rows"
            )
        if isinstance(fraction, Tensor) and fraction.shape not in ((), labels.shape):
            raise InputError(
                f"AuxiliaryLoss: fraction has shape {list(fraction.shape)}; give a number, or one "
                f"for each of the {len(logits)} rows"
            )
        total = parts if parts is not None else self.parts
        if fraction is None and (part is None or total is None):
            raise InputError(
                "AuxiliaryLoss: give fraction=b, how much of its sequence a row has seen, or "
                "part=p and parts=K"
            )
        if self.per_part and (part is None or total != self.parts):
            raise InputError(
                f"AuxiliaryLoss: it keeps one Q for each of {self.parts} parts; give part=p "
                f"(here {part!r}) and no other number of parts (here {total!r})"
            )
        if part is not None and not 1 <= part <= (total if total is not None else part):
            raise InputError(f"AuxiliaryLoss: part is {part!r}; parts count from 1 to {total}")
