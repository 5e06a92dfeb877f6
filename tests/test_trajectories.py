"""Updates over several batches equal the oracle's: rules, losses, optimizers, clip, epochs."""

import itertools

import numpy as np
import pytest
from cases import (
    REFERENCE_CELLS,
    STACKS,
    TOLERANCE,
    assert_bits_equal,
    assert_trainers_equal,
    fptt_trainer,
    pair,
    random_data,
    random_parameters,
    with_head,
)

CELLS = ["LSTM", "GRU", "RNN", *REFERENCE_CELLS]
RULES = {
    "BPTT": dict(kind="bptt"),
    "TBPTT": dict(kind="tbptt", parts=3),
    "FPTT-code": dict(parts=3, alpha=0.4),
    "FPTT-paper": dict(parts=3, alpha=0.4, mode="paper"),
    "FPTT-no-R": dict(parts=3, alpha=0.4, regularise=False),
}
OBJECTIVES = {
    "last-ce": ("last", "cross_entropy"),
    "last-mse": ("last", "mse"),
    "every-ce": ("every_step", "cross_entropy"),
    "every-mse": ("every_step", "mse"),
    "aux-ce": ("auxiliary", "cross_entropy"),
}
OPTIMIZERS = {
    "SGD": ("sgd", dict(lr=0.2)),
    "momentum": ("sgd", dict(lr=0.1, momentum=0.9)),
    "Adam": ("adam", dict(lr=0.02)),
}


def train_both(trainer, oracle, batches, tolerance):
    for x, y, *lengths in batches:
        found = trainer.train_batch(x, y, *lengths)
        assert found == pytest.approx(oracle.train_batch(x, y, *lengths), rel=10 * tolerance)
    assert_trainers_equal(trainer, oracle, tolerance)


def batches_for(layers, batch, steps, loss, criterion, count, seed=100):
    schedule = loss[0] if isinstance(loss, tuple) else loss
    return [random_data(layers, batch, steps, schedule, criterion, seed + n) for n in range(count)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("cell", CELLS)
def test_every_combination(cell, rule, objective, optimizer):
    """Two batches of B = 5, T = 7 in parts of 2, 2, 3; I = 3, H = 7, C = 4; float64."""
    loss, criterion = OBJECTIVES[objective]
    layers = with_head(cell, 3, 7, 4)
    trainer, oracle = pair(
        layers, RULES[rule], OPTIMIZERS[optimizer], 7, 5, loss=loss, criterion=criterion
    )
    train_both(trainer, oracle, batches_for(layers, 5, 7, loss, criterion, 2), 1e-10)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("objective", ["last-ce", "every-mse", "aux-ce"])
@pytest.mark.parametrize("rule", ["TBPTT", "FPTT-code", "FPTT-paper"])
@pytest.mark.parametrize("cell", CELLS)
def test_every_combination_in_float32(cell, rule, objective, optimizer):
    """float32 fptt against the float64 oracle; see TOLERANCE for Adam's looser bound."""
    loss, criterion = OBJECTIVES[objective]
    layers = with_head(cell, 3, 7, 4)
    trainer, oracle = pair(
        layers,
        RULES[rule],
        OPTIMIZERS[optimizer],
        7,
        5,
        dtype="float32",
        loss=loss,
        criterion=criterion,
    )
    tolerance = TOLERANCE["float32 adam" if optimizer == "Adam" else "float32"]
    train_both(trainer, oracle, batches_for(layers, 5, 7, loss, criterion, 2), tolerance)


MANY_UPDATES = (
    "LSTM-LSTM-Linear",
    "GRU-Linear-ReLU-LSTM-Linear",
    "Embedding-LSTM-Linear",
    "LSTM-Linear-ReLU-Linear",
    "RNN",
    "Linear-LSTM",
    "Linear-LRU-ReLU-Linear-ElementwiseLSTM-Linear",
    "Embedding-ElementwiseLSTM-LRU-Linear",
)


@pytest.mark.parametrize("mode", ["code", "paper"])
@pytest.mark.parametrize("objective", ["last-ce", "every-mse"])
@pytest.mark.parametrize("stack", MANY_UPDATES)
def test_stacks(stack, objective, mode):
    loss, criterion = OBJECTIVES[objective]
    layers = STACKS[stack]
    rule = dict(parts=4, alpha=0.3, mode=mode)
    trainer, oracle = pair(
        layers, rule, ("sgd", dict(lr=0.2, momentum=0.5)), 9, 5, loss=loss, criterion=criterion
    )
    train_both(trainer, oracle, batches_for(layers, 5, 9, loss, criterion, 2), 1e-10)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("mode", ["code", "paper"])
def test_many_updates(mode, optimizer):
    """28 updates over 7 batches, an end of epoch among them; compared after every batch."""
    layers = [("LSTM", 3, 7), ("Linear", 7, 4)]
    rule = dict(parts=4, alpha=0.5, mode=mode)
    trainer, oracle = pair(layers, rule, OPTIMIZERS[optimizer], 10, 5, loss="auxiliary", clip=0.5)
    start = trainer.parameters()["0.weight_hh"].copy()
    for n, (x, y) in enumerate(batches_for(layers, 5, 10, "auxiliary", "cross_entropy", 7)):
        train_both(trainer, oracle, [(x, y)], 1e-10)
        if n == 3:
            trainer.end_epoch()
            oracle.end_epoch()
            assert_trainers_equal(trainer, oracle, 1e-10)
    moved = np.linalg.norm(trainer.parameters()["0.weight_hh"] - start)
    assert moved > 0.005 * np.linalg.norm(start), "nothing moved, so nothing was compared"


@pytest.mark.parametrize("mode", ["code", "paper"])
@pytest.mark.parametrize(("alpha", "beta"), [(0.05, 0.5), (0.5, 0.25), (0.9, 0.75), (1.0, 1.0)])
def test_alpha_and_beta(alpha, beta, mode):
    layers = [("GRU", 3, 5), ("Linear", 5, 4)]
    rule = dict(parts=3, alpha=alpha, beta=beta, mode=mode)
    trainer, oracle = pair(layers, rule, ("sgd", dict(lr=0.3)), 8, 3)
    train_both(trainer, oracle, batches_for(layers, 3, 8, "last", "cross_entropy", 4), 1e-10)


def test_defaults_are_those_of_the_specification():
    """alpha 0.1, beta 1/2, code, regularised, average and zero at epoch ends, state reset."""
    layers = [("LSTM", 3, 5), ("Linear", 5, 4)]
    trainer, oracle = pair(layers, dict(parts=3), ("adam", dict(lr=0.05)), 8, 3)
    for _ in range(2):
        train_both(trainer, oracle, batches_for(layers, 3, 8, "last", "cross_entropy", 2), 1e-10)
        trainer.end_epoch()
        oracle.end_epoch()
    assert_trainers_equal(trainer, oracle, 1e-10)
    assert not np.any(trainer.state()["lambda/0.bias"])


@pytest.mark.parametrize("clip", [1.0, 0.05])
@pytest.mark.parametrize("rule", ["TBPTT", "FPTT-code", "FPTT-paper"])
def test_clip_is_the_global_norm_of_d(rule, clip):
    layers = [("LSTM", 3, 7), ("Linear", 7, 4)]
    trainer, oracle = pair(
        layers, RULES[rule], ("sgd", dict(lr=0.5, momentum=0.9)), 7, 5, criterion="mse", clip=clip
    )
    unclipped = fptt_trainer(
        layers,
        RULES[rule],
        ("sgd", dict(lr=0.5, momentum=0.9)),
        7,
        5,
        criterion="mse",
        parameters=random_parameters(layers, 1),
    )
    batches = batches_for(layers, 5, 7, "last", "mse", 3)
    batches = [(x, 4 * y) for x, y in batches]  # large errors, so that both bounds act
    train_both(trainer, oracle, batches, 1e-10)
    for x, y in batches:
        unclipped.train_batch(x, y)
    assert not np.allclose(
        unclipped.parameters()["1.weight"], trainer.parameters()["1.weight"], rtol=1e-3
    )


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_without_regulariser_fptt_is_tbptt_bit_for_bit(momentum):
    layers = [("LSTM", 3, 7), ("Linear", 7, 4)]
    optimizer = ("sgd", dict(lr=0.3, momentum=momentum))
    theta = random_parameters(layers, 3)
    bare = fptt_trainer(
        layers,
        dict(kind="tbptt", parts=3),
        optimizer,
        7,
        5,
        loss="auxiliary",
        clip=0.3,
        parameters=theta,
    )
    off = fptt_trainer(
        layers,
        dict(parts=3, alpha=0.4, regularise=False),
        optimizer,
        7,
        5,
        loss="auxiliary",
        clip=0.3,
        parameters=theta,
    )
    for x, y in batches_for(layers, 5, 7, "auxiliary", "cross_entropy", 3):
        assert bare.train_batch(x, y) == off.train_batch(x, y)
        bare.end_epoch()
        off.end_epoch()
    assert_bits_equal(off.parameters(), bare.parameters(), "parameters")
    assert_bits_equal(off.state(), bare.state(), "state")
    assert not any(key.startswith(("lambda/", "mean/")) for key in off.state())
    assert not np.array_equal(off.parameters()["0.bias"], theta["0.bias"])


@pytest.mark.parametrize(
    "rule", [dict(kind="tbptt", parts=1), dict(parts=1, regularise=False)], ids=["TBPTT", "FPTT"]
)
@pytest.mark.parametrize("loss", ["last", "every_step", "auxiliary"])
def test_one_part_without_wrapper_is_bptt_bit_for_bit(rule, loss):
    layers = [("GRU", 3, 7), ("Linear", 7, 4)]
    optimizer = ("adam", dict(lr=0.05))
    theta = random_parameters(layers, 4)
    full = fptt_trainer(layers, dict(kind="bptt"), optimizer, 7, 5, loss=loss, parameters=theta)
    one = fptt_trainer(layers, rule, optimizer, 7, 5, loss=loss, parameters=theta)
    for x, y in batches_for(layers, 5, 7, loss, "cross_entropy", 3):
        assert full.train_batch(x, y) == one.train_batch(x, y)
    assert_bits_equal(one.parameters(), full.parameters(), "parameters")
    assert_bits_equal(one.state(), full.state(), "state")
    assert not np.array_equal(full.parameters()["0.bias_ih"], theta["0.bias_ih"])


EPOCHS = list(itertools.product(["average", "keep"], ["zero", "keep"]))


@pytest.mark.parametrize(("epoch_end", "epoch_lambda"), EPOCHS)
@pytest.mark.parametrize("optimizer", ["momentum", "Adam"])
def test_end_of_epoch(optimizer, epoch_end, epoch_lambda):
    """theta <- m or not, lambda <- 0 or not; m and the optimizer's moments go on."""
    layers = [("LSTM", 3, 5), ("Linear", 5, 4)]
    rule = dict(parts=3, alpha=0.5, epoch_end=epoch_end, epoch_lambda=epoch_lambda)
    trainer, oracle = pair(layers, rule, OPTIMIZERS[optimizer], 7, 5)
    batches = batches_for(layers, 5, 7, "last", "cross_entropy", 4)
    train_both(trainer, oracle, batches[:2], 1e-10)
    before = trainer.parameters()["0.weight_hh"].copy()
    mean = trainer.state()["mean/0.weight_hh"].copy()
    assert not np.array_equal(before, mean)
    trainer.end_epoch()
    oracle.end_epoch()
    after = trainer.parameters()["0.weight_hh"]
    assert np.array_equal(after, mean if epoch_end == "average" else before)
    assert np.any(trainer.state()["lambda/0.weight_hh"]) == (epoch_lambda == "keep")
    assert np.array_equal(trainer.state()["mean/0.weight_hh"], mean)
    assert_trainers_equal(trainer, oracle, 1e-10)
    train_both(trainer, oracle, batches[2:], 1e-10)


def test_running_mean_is_not_the_weights():
    """Not an alias, neither at the start nor after the end of an epoch."""
    layers = [("LSTM", 3, 5), ("Linear", 5, 4)]
    trainer, oracle = pair(layers, dict(parts=3), ("sgd", dict(lr=0.5)), 7, 5)
    for name, value in trainer.parameters().items():
        assert np.array_equal(value, trainer.state()[f"mean/{name}"])
        assert not np.any(trainer.state()[f"lambda/{name}"])
    trainer.end_epoch()  # theta <- m copies; a later update of theta must leave m as the rule says
    oracle.end_epoch()
    train_both(trainer, oracle, batches_for(layers, 5, 7, "last", "cross_entropy", 2), 1e-10)
    gap = trainer.parameters()["0.bias"] - trainer.state()["mean/0.bias"]
    assert np.linalg.norm(gap) > 1e-3


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_loading_parameters_restarts_the_rule(optimizer):
    layers = [("LSTM", 3, 5), ("Linear", 5, 4)]
    rule = dict(parts=3, alpha=0.5)
    trainer, _ = pair(layers, rule, OPTIMIZERS[optimizer], 7, 5)
    batches = batches_for(layers, 5, 7, "last", "cross_entropy", 3)
    for x, y in batches:
        trainer.train_batch(x, y)
    theta = random_parameters(layers, 12)
    trainer.load_parameters(theta)
    fresh = fptt_trainer(layers, rule, OPTIMIZERS[optimizer], 7, 5, parameters=theta)
    for x, y in batches:
        assert trainer.train_batch(x, y) == fresh.train_batch(x, y)
    assert_bits_equal(trainer.parameters(), fresh.parameters(), "parameters")
    assert_bits_equal(trainer.state(), fresh.state(), "state")


def test_loaded_parameters_are_copied():
    layers = [("RNN", 3, 5)]
    theta = random_parameters(layers, 13)
    trainer = fptt_trainer(layers, dict(kind="bptt"), ("sgd", dict(lr=0.5)), 7, 5, parameters=theta)
    kept = {k: v.copy() for k, v in theta.items()}
    ((x, y),) = batches_for(layers, 5, 7, "last", "cross_entropy", 1)
    trainer.load_parameters(theta)
    trainer.train_batch(x, y)
    assert_bits_equal(theta, kept, "the caller's arrays")
    theta["0.bias"][:] = 99.0
    assert np.abs(trainer.parameters()["0.bias"]).max() < 10


@pytest.mark.parametrize("loss", ["last", "every_step", "auxiliary"])
def test_batch_smaller_than_the_maximum(loss):
    """Means use the actual batch; 5, 2, 1 and 4 rows in turn in a program built for 5."""
    layers = [("LSTM", 3, 7), ("Linear", 7, 4)]
    trainer, oracle = pair(layers, dict(parts=3, alpha=0.4), ("sgd", dict(lr=0.3)), 7, 5, loss=loss)
    batches = [random_data(layers, b, 7, loss, "cross_entropy", b) for b in (5, 2, 1, 4)]
    train_both(trainer, oracle, batches, 1e-10)


@pytest.mark.parametrize("loss", ["last", "every_step", "auxiliary"])
def test_input_shorter_than_the_maximum(loss):
    """The cuts stay 0, 2, 4, 7; the input stops inside, at and before them."""
    layers = [("LSTM", 3, 7), ("Linear", 7, 4)]
    trainer, oracle = pair(layers, dict(parts=3, alpha=0.4), ("sgd", dict(lr=0.3)), 7, 5, loss=loss)
    batches = [random_data(layers, 5, s, loss, "cross_entropy", s) for s in (7, 5, 4, 1, 6)]
    train_both(trainer, oracle, batches, 1e-10)


@pytest.mark.parametrize("per_part", [False, True])
@pytest.mark.parametrize("rate", [0.1, 0.7])
def test_auxiliary_options(rate, per_part):
    layers = [("GRU", 3, 5), ("Linear", 5, 4)]
    loss = ("auxiliary", dict(rate=rate, per_part=per_part))
    trainer, oracle = pair(layers, dict(parts=3, alpha=0.4), ("sgd", dict(lr=0.3)), 7, 5, loss=loss)
    train_both(trainer, oracle, batches_for(layers, 5, 7, loss, "cross_entropy", 3), 1e-10)
    q = trainer.state()["auxiliary.Q"]
    assert q.shape == ((3, 4, 4) if per_part else (4, 4))
    np.testing.assert_allclose(q.sum(axis=-1), 1, rtol=1e-12)
    assert np.abs(q - 0.25).max() > 0.01


def test_same_seed_gives_the_same_bits_and_another_seed_others():
    import fptt

    def train(seed):
        net = fptt.Network([fptt.LSTM(3, 5), fptt.Dropout(0.3), fptt.Linear(5, 4)])
        program = fptt.build(
            net,
            fptt.FPTT(parts=3),
            optimizer=fptt.SGD(lr=0.1),
            steps=7,
            batch=5,
            loss="last",
            criterion="cross_entropy",
            dtype="float32",
        )
        trainer = fptt.Trainer(program, backend="reference", seed=seed)
        layers = [("LSTM", 3, 5), ("Linear", 5, 4)]
        for x, y in batches_for(layers, 5, 7, "last", "cross_entropy", 2):
            trainer.train_batch(x, y)
        return trainer.parameters()

    assert_bits_equal(train(3), train(3), "parameters")
    first, second = train(3), train(4)
    assert not any(np.array_equal(first[name], second[name]) for name in first)
