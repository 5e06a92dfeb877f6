"""Every part's gradient equals autograd's: cells, stacks, losses, lengths; finite differences."""

import numpy as np
import pytest
from cases import (
    REFERENCE_CELLS,
    STACKS,
    TOLERANCE,
    assert_bits_equal,
    assert_close,
    assert_gradients_equal,
    fptt_trainer,
    pair,
    random_data,
    random_parameters,
    with_head,
)

CELLS = ["LSTM", "GRU", "RNN", *REFERENCE_CELLS]
OBJECTIVES = [
    ("last", "cross_entropy"),
    ("last", "mse"),
    ("every_step", "cross_entropy"),
    ("every_step", "mse"),
    ("auxiliary", "cross_entropy"),
]
NO_STEP = ("sgd", dict(lr=0.0))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("loss", "criterion"), OBJECTIVES)
@pytest.mark.parametrize("parts", [1, 3, 7, 11])
@pytest.mark.parametrize("cell", CELLS)
def test_cell_gradients(cell, parts, loss, criterion, dtype):
    """B = 5, T = 11, I = 3, H = 7, C = 4; parts of 11, of 3 and 4, of 1 and 2, and of 1 step."""
    layers = with_head(cell, 3, 7, 4)
    trainer, oracle = pair(
        layers,
        dict(kind="tbptt", parts=parts),
        NO_STEP,
        11,
        5,
        dtype=dtype,
        loss=loss,
        criterion=criterion,
    )
    x, y = random_data(layers, 5, 11, loss, criterion, seed=2)
    found = trainer.part_gradients(x, y)
    assert len(found) == parts
    assert_gradients_equal(found, oracle.part_gradients(x, y), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("loss", "criterion"), [OBJECTIVES[0], OBJECTIVES[3]])
@pytest.mark.parametrize("stack", STACKS)
def test_stack_gradients(stack, loss, criterion, dtype):
    layers = STACKS[stack]
    trainer, oracle = pair(
        layers,
        dict(kind="tbptt", parts=2),
        NO_STEP,
        7,
        3,
        dtype=dtype,
        loss=loss,
        criterion=criterion,
    )
    x, y = random_data(layers, 3, 7, loss, criterion, seed=3)
    assert_gradients_equal(
        trainer.part_gradients(x, y), oracle.part_gradients(x, y), TOLERANCE[dtype]
    )


@pytest.mark.parametrize("lengths", [[11, 1, 4, 8, 3], [2, 1, 3, 2, 1], [7, 7, 7, 7, 7]], ids=str)
@pytest.mark.parametrize(("loss", "criterion"), OBJECTIVES)
@pytest.mark.parametrize("cell", CELLS)
def test_unequal_length_gradients(cell, loss, criterion, lengths):
    """Cuts 0, 3, 7, 11: lengths 3 and 7 end at a cut; a part that counts nothing is None."""
    layers = with_head(cell, 3, 7, 4)
    trainer, oracle = pair(
        layers, dict(kind="tbptt", parts=3), NO_STEP, 11, 5, loss=loss, criterion=criterion
    )
    x, y = random_data(layers, 5, 11, loss, criterion, seed=4)
    assert_gradients_equal(
        trainer.part_gradients(x, y, lengths), oracle.part_gradients(x, y, lengths), 1e-10
    )


def test_unequal_lengths_leave_late_parts_without_gradient():
    layers = [("LSTM", 3, 5), ("Linear", 5, 4)]
    trainer, _ = pair(layers, dict(kind="tbptt", parts=3), NO_STEP, 11, 2)
    x, y = random_data(layers, 2, 11, "last", "cross_entropy", seed=5)
    for lengths, counted in [
        ([3, 1], [True, False, False]),
        ([4, 1], [True, True, False]),
        ([8, 2], [True, True, True]),
    ]:
        found = trainer.part_gradients(x, y, lengths)
        assert [g is not None for g in found] == counted, lengths


def test_part_without_labels_has_no_gradient():
    layers = [("GRU", 3, 5), ("Linear", 5, 4)]
    trainer, oracle = pair(layers, dict(kind="tbptt", parts=3), NO_STEP, 7, 3, loss="every_step")
    x, y = random_data(layers, 3, 7, "every_step", "cross_entropy", seed=6)
    y[:, 2:4] = -1  # cuts 0, 2, 4, 7
    y[1, 5:] = -1
    found = trainer.part_gradients(x, y)
    assert [g is None for g in found] == [False, True, False]
    assert_gradients_equal(found, oracle.part_gradients(x, y), 1e-10)


@pytest.mark.parametrize("cell", CELLS)
def test_part_gradients_change_nothing(cell):
    layers = with_head(cell, 3, 5, 4)
    rule = dict(parts=3, alpha=0.5)
    trainer, _ = pair(layers, rule, ("sgd", dict(lr=0.3, momentum=0.9)), 7, 3, loss="auxiliary")
    x, y = random_data(layers, 3, 7, "auxiliary", "cross_entropy", seed=7)
    trainer.train_batch(x, y)
    parameters = {k: np.array(v) for k, v in trainer.parameters().items()}
    state = {k: np.array(v) for k, v in trainer.state().items()}
    first = trainer.part_gradients(x, y, [7, 1, 4])
    second = trainer.part_gradients(x, y, [7, 1, 4])
    assert_bits_equal(trainer.parameters(), parameters, "parameters")
    assert_bits_equal(trainer.state(), state, "state")
    for part, (ours, again) in enumerate(zip(first, second, strict=True)):
        assert_bits_equal(ours, again, f"part {part}")


def test_gradient_is_that_of_the_data_loss_alone():
    """After some updates lambda and theta - m are not 0; neither may enter part_gradients."""
    layers = [("LSTM", 3, 5), ("Linear", 5, 4)]
    trainer, oracle = pair(layers, dict(parts=3, alpha=0.7), ("sgd", dict(lr=0.5)), 7, 3, clip=0.1)
    x, y = random_data(layers, 3, 7, "last", "cross_entropy", seed=8)
    for _ in range(2):
        trainer.train_batch(x, y)
        oracle.train_batch(x, y)
    assert np.abs(trainer.state()["lambda/0.weight_hh"]).max() > 1e-4
    assert_gradients_equal(trainer.part_gradients(x, y), oracle.part_gradients(x, y), 1e-9)


@pytest.mark.parametrize("lengths", [None, [5, 1, 3]], ids=["full", "unequal"])
@pytest.mark.parametrize(("loss", "criterion"), OBJECTIVES)
@pytest.mark.parametrize("cell", CELLS)
def test_gradient_is_the_central_difference_of_the_loss(cell, loss, criterion, lengths):
    """fptt against itself: lr = 0 and K = 1, so train_batch returns the loss and moves nothing."""
    layers = with_head(cell, 2, 3, 2)
    theta = random_parameters(layers, 9)
    trainer = fptt_trainer(
        layers, dict(kind="bptt"), NO_STEP, 5, 3, loss=loss, criterion=criterion, parameters=theta
    )
    x, y = random_data(layers, 3, 5, loss, criterion, seed=10)
    (found,) = trainer.part_gradients(x, y, lengths)
    rng = np.random.default_rng(11)
    for name, value in theta.items():
        for flat in rng.choice(value.size, min(3, value.size), replace=False):
            losses = []
            for sign in (1, -1):
                moved = {k: v.copy() for k, v in theta.items()}
                moved[name].flat[flat] += sign * 1e-5
                trainer.load_parameters(moved)
                losses.append(trainer.train_batch(x, y, lengths))
            numeric = (losses[0] - losses[1]) / 2e-5
            assert found[name].flat[flat] == pytest.approx(numeric, rel=1e-6, abs=1e-9), name


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "stack",
    [
        *("LSTM-LSTM-Linear", "Embedding-LSTM-Linear", "GRU", "Linear", "RNN", "LRU"),
        "Linear-LRU-ReLU-Linear-ElementwiseLSTM-Linear",
    ],
)
@pytest.mark.parametrize("loss", ["last", "every_step"])
def test_predictions(stack, loss, dtype):
    layers = STACKS[stack]
    trainer, oracle = pair(layers, dict(parts=3), NO_STEP, 7, 5, dtype=dtype, loss=loss)
    x, _ = random_data(layers, 3, 7, loss, "cross_entropy", seed=12)
    assert_close(trainer.predict(x), oracle.predict(x), TOLERANCE[dtype], "full length")
    short = trainer.predict(x[:, :5])
    assert_close(short, oracle.predict(x[:, :5]), TOLERANCE[dtype], "short input")
    if loss == "last":
        found = trainer.predict(x, [2, 7, 1])
        assert_close(found, oracle.predict(x, [2, 7, 1]), TOLERANCE[dtype], "own last steps")


def test_dropout_is_off_in_inference_and_on_in_training():
    layers = [("Dropout", 0.5), ("LSTM", 3, 5), ("Dropout", 0.5), ("Linear", 5, 4)]
    trainer, oracle = pair(layers, dict(kind="bptt"), NO_STEP, 7, 5)
    x, y = random_data(layers, 5, 7, "last", "cross_entropy", seed=13)
    assert_close(trainer.predict(x), oracle.predict(x), 1e-10, "prediction")
    without = oracle.train_batch(x, y)
    assert abs(trainer.train_batch(x, y) - without) > 1e-6 * without
