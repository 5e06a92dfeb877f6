"""Layers that do not train: the gradients of the others stay the same, and memory falls."""

import numpy as np
import pytest
from cases import fptt_network, random_data

import fptt

STACKS = {
    "Dropout-Linear-LSTM": [("Dropout", 0.3), ("Linear", 3, 4), ("LSTM", 4, 5)],
    "LSTM-Linear-GRU-Linear": [("LSTM", 3, 4), ("Linear", 4, 6), ("GRU", 6, 5), ("Linear", 5, 4)],
    "Linear-ReLU-Dropout-RNN-Linear": [
        *[("Linear", 3, 6), ("ReLU",), ("Dropout", 0.4), ("RNN", 6, 5), ("Linear", 5, 4)]
    ],
    "LSTM-Dropout-LSTM-ReLU-Linear-Linear": [
        *[("LSTM", 3, 4), ("Dropout", 0.2), ("LSTM", 4, 5), ("ReLU",), ("Linear", 5, 6)],
        ("Linear", 6, 4),
    ],
    "Embedding-Linear-GRU": [("Embedding", 9, 3), ("Linear", 3, 4), ("GRU", 4, 5)],
}


def trainer_(layers, loss, train):
    program = fptt.build(
        fptt_network(layers),
        fptt.FPTT(parts=3),
        fptt.SGD(lr=0.1),
        steps=7,
        batch=5,
        loss=loss,
        dtype="float64",
        train=train,
    )
    return fptt.Trainer(program, seed=4)


@pytest.mark.parametrize("lengths", [None, [7, 2, 5, 1, 7]], ids=["equal", "unequal"])
@pytest.mark.parametrize("loss", ["last", "every_step", "auxiliary"])
@pytest.mark.parametrize("stack", STACKS)
def test_what_trains_has_the_gradient_that_it_has_when_all_train(stack, loss, lengths):
    layers = STACKS[stack]
    x, y = random_data(layers, 5, 7, loss, "cross_entropy", 3)
    everything = trainer_(layers, loss, ("*",)).part_gradients(x, y, lengths)
    names = list(fptt_network(layers).parameters)
    choices = [(f"{index}.*",) for index in sorted({name.split(".")[0] for name in names})]
    for train in [*choices, ("*bias*",), ("*weight*",), ("*weight_hh",)]:
        if not any(name in names for name in fnmatch_all(names, train)):
            continue
        found = trainer_(layers, loss, train).part_gradients(x, y, lengths)
        for one, other in zip(found, everything, strict=True):
            assert (one is None) == (other is None)
            for name in one or {}:
                assert np.array_equal(one[name], other[name]), (train, name)


def fnmatch_all(names, patterns):
    from fnmatch import fnmatchcase

    return [name for name in names if any(fnmatchcase(name, p) for p in patterns)]


def test_a_trained_readout_alone_keeps_no_history():
    layers = [("LSTM", 1, 128), ("Linear", 128, 10)]
    memory = {
        train: fptt.build(
            fptt_network(layers), fptt.FPTT(parts=1), steps=784, batch=4, train=train
        ).memory()
        for train in (("*",), ("1.*",))
    }
    assert memory[("*",)].arena_bytes == 10_497_696
    assert memory[("1.*",)].arena_bytes == 40_448
    assert memory[("1.*",)].const_bytes == 266_240


def test_training_a_readout_alone_is_training_on_the_frozen_features():
    """Streams and batches agree where the state lies in one place."""
    layers = [("GRU", 3, 6), ("Linear", 6, 4)]
    x, y = random_data(layers, 5, 7, "last", "cross_entropy", 3)
    batch, stream = (trainer_(layers, "last", ("1.*",)) for _ in range(2))
    for _ in range(3):
        batch.train_batch(x, y)
        stream.begin_sequence()
        for t in range(7):
            stream.step(x[:, t], y)
    for name, values in batch.parameters().items():
        assert np.array_equal(values, stream.parameters()[name])
    assert not np.array_equal(
        batch.parameters()["1.weight"], batch.program.net.initial(4)["1.weight"]
    )
