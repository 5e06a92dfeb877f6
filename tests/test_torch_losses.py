"""AuxiliaryLoss against the reference's operation: loss, gradient, and how Q learns."""

import copy
import re

import numpy as np
import pytest
import torch

import fptt
from fptt.program.opset.losses import auxiliary_cross_entropy
from fptt.program.opspec import Place
from fptt.torch import AuxiliaryLoss


def refused(message):
    return pytest.raises(fptt.InputError, match="^" + re.escape(message) + "$")


def case(rows=37, classes=4, seed=0):
    """Many rows of every class, some without a label, some at their end."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, classes, rows)
    fraction = rng.choice([0.25, 0.6, 1.0, 1.0], rows)
    assert ((fraction == 1) & (labels >= 0)).sum() > classes + 3
    return rng.normal(0, 2, (rows, classes)), labels, fraction


@pytest.mark.parametrize("per_part", [False, True])
@pytest.mark.parametrize("rate", [0.1, 0.7, 1.0])
def test_equal_to_the_reference(rate, per_part):
    """Three times in a row, on the Q that was left; the row by row average within one call."""
    parts = 3
    loss = AuxiliaryLoss(4, rate=rate, per_part=per_part, parts=parts if per_part else None)
    loss.double()
    q = loss.Q.numpy().reshape(-1, 4).copy()
    for part in (1, 3, 3):
        logits, labels, fraction = case(seed=part)
        place = Place(part - 1, np.zeros(len(labels)), np.arange(len(labels)))
        d, expected, q = auxiliary_cross_entropy(
            logits, labels, fraction, q, rate=rate, per_part=per_part, place=place
        )
        given = torch.tensor(logits, requires_grad=True)
        found = loss(given, torch.tensor(labels), torch.tensor(fraction), part=part, parts=parts)
        found.backward()
        assert found.item() == pytest.approx(expected[0], rel=1e-12)
        np.testing.assert_allclose(given.grad, d, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(loss.Q.reshape(-1, 4), q, rtol=1e-12)


def test_the_fraction_as_a_number_or_as_parts():
    logits, labels, _ = (torch.tensor(value) for value in case())
    for part in (1, 2, 3):
        losses = [AuxiliaryLoss(4).double() for _ in range(3)]
        values = [
            losses[0](logits, labels, part / 3),
            losses[1](logits, labels, part=part, parts=3),
            losses[2](logits, labels, torch.full((37,), part / 3, dtype=torch.float64)),
        ]
        assert values[1] == values[0]
        assert values[2].item() == pytest.approx(values[0].item(), rel=1e-15)
        for loss in losses:  # learns at the end, and only then
            assert torch.equal(loss.Q, losses[0].Q)
            assert (part == 3) == bool((loss.Q - 0.25).abs().max() > 0.01)


def test_q_learns_only_in_training():
    logits, labels, _ = (torch.tensor(value) for value in case())
    loss = AuxiliaryLoss(4)
    with torch.no_grad():
        value = loss(logits, labels, 1.0)
    loss.eval()
    assert loss(logits, labels, 1.0) == value
    assert torch.equal(loss.Q, torch.full((4, 4), 0.25))
    # with b = 1 only the cross-entropy counts
    assert value.item() == pytest.approx(
        torch.nn.functional.cross_entropy(logits, labels, ignore_index=-1).item()
    )
    loss.train()
    loss(logits, labels, 1.0)
    other = AuxiliaryLoss(4)
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other.Q, loss.Q)
    assert not torch.equal(copy.deepcopy(loss).Q, torch.full((4, 4), 0.25))


def test_rows_without_a_finite_prediction_teach_nothing():
    loss = AuxiliaryLoss(2, rate=0.5)
    logits = torch.tensor([[float("nan"), 0.0], [0.0, 0.0]], requires_grad=True)
    assert loss(logits, torch.tensor([1, 1]), 1.0).isnan()
    torch.testing.assert_close(loss.Q, torch.full((2, 2), 0.5))
    assert loss(logits, torch.tensor([-1, 1]), 1.0).item() == pytest.approx(np.log(2))
    assert loss(logits, torch.tensor([-1, -1]), 1.0).item() == 0  # and no division by zero


def test_half_precision():
    logits, labels, fraction = (torch.tensor(value) for value in case())
    loss, wide = AuxiliaryLoss(4), AuxiliaryLoss(4)
    half = logits.to(torch.bfloat16)
    found, wanted = loss(half, labels, fraction), wide(half.float(), labels, fraction)
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)
    assert torch.equal(loss.Q, wide.Q)


def test_refusals():
    with refused("AuxiliaryLoss: classes is 1; give a whole number of at least 2"):
        AuxiliaryLoss(1)
    with refused("AuxiliaryLoss: rate is 0; give a number with 0 < rate <= 1"):
        AuxiliaryLoss(3, rate=0)
    with refused("AuxiliaryLoss: per_part is 4; give True or False"):
        AuxiliaryLoss(3, per_part=4)
    with refused(
        "AuxiliaryLoss: per_part keeps one Q for each of the K parts, and parts is None; give "
        "AuxiliaryLoss(3, per_part=True, parts=K)"
    ):
        AuxiliaryLoss(3, per_part=True)
    loss, logits, labels = AuxiliaryLoss(3), torch.zeros(5, 3), torch.zeros(5, dtype=torch.long)
    with refused("AuxiliaryLoss: logits have shape [5, 2]; give [rows, 3]"):
        loss(logits[:, :2], labels, 1.0)
    with refused(
        "AuxiliaryLoss: labels have shape [5, 1] and type torch.int64; give one whole number for "
        "each of the 5 rows"
    ):
        loss(logits, labels[:, None], 1.0)
    with refused(
        "AuxiliaryLoss: fraction has shape [4]; give a number, or one for each of the 5 rows"
    ):
        loss(logits, labels, torch.ones(4))
    with refused(
        "AuxiliaryLoss: give fraction=b, how much of its sequence a row has seen, or part=p and "
        "parts=K"
    ):
        loss(logits, labels, part=1)
    with refused("AuxiliaryLoss: part is 0; parts count from 1 to 4"):
        loss(logits, labels, part=0, parts=4)
    one_each = AuxiliaryLoss(3, per_part=True, parts=4)
    with refused(
        "AuxiliaryLoss: it keeps one Q for each of 4 parts; give part=p (here 1) and no other "
        "number of parts (here 5)"
    ):
        one_each(logits, labels, part=1, parts=5)
