"""The trainer: messages, the watch for NaN, snapshots of streams, fit, evaluation, prediction."""

import itertools
import math
import re

import numpy as np
import pytest
import torch
from cases import assert_bits_equal, assert_close, grid, random_data

import fptt
from fptt.errors import FpttError, InputError, NumericalError
from fptt.program.frame import Frame

LSTM = [("LSTM", 3, 5), ("Linear", 5, 4)]
CELLS = {
    "LSTM": LSTM,
    "GRU": [("GRU", 3, 5), ("Linear", 5, 4)],
    "RNN": [("RNN", 3, 5), ("Linear", 5, 4)],
    "stack": [("Linear", 3, 6), ("ReLU",), ("LSTM", 6, 5), ("Dropout", 0.3), ("Linear", 5, 4)],
    "tokens": [("Embedding", 9, 3), ("GRU", 3, 5), ("Linear", 5, 4)],
}
OBJECTIVES = {
    "last": dict(loss="last"),
    "every step": dict(loss="every_step"),
    "mse": dict(loss="last", criterion="mse"),
    "every step mse": dict(loss="every_step", criterion="mse"),
    "auxiliary": dict(loss="auxiliary"),
}


def full(text, **names):
    """A regular expression for a whole message: `text` with <...> for anything."""
    return "^" + re.escape(text.format(**names)).replace(re.escape("<...>"), ".+") + r"\Z"


def network(layers):
    return fptt.Network([getattr(fptt, kind)(*size) for kind, *size in layers])


def trainer_of(layers=LSTM, rule=None, optimizer=None, *, seed=0, threads=1, **options):
    program = fptt.build(
        network(layers),
        rule or fptt.FPTT(parts=3, alpha=0.4),
        optimizer or fptt.SGD(0.2, 0.9),
        **{"steps": 7, "batch": 5, **options},
    )
    return fptt.Trainer(program, seed=seed, threads=threads)


def data_for(trainer, layers=LSTM, rows=5, steps=7, seed=1):
    program = trainer.program
    loss = "every_step" if program.schedule.every_step else "last"
    return random_data(layers, rows, steps, loss, program.criterion, seed)


# --- messages ----------

X, Y = np.ones((5, 7, 3), np.float32), np.arange(5) % 4


def changed(array, index, value):
    copy = np.array(array)
    copy[index] = value
    return copy


BATCHES = {
    "axes": (X[0], Y, None, "x has shape [7, 3]; this network takes [batch, steps, 3]"),
    "features": (
        X[:, :, :2],
        Y,
        None,
        "x has shape [5, 7, 2]; this network takes [batch, steps, 3]",
    ),
    "no rows": (
        X[:0],
        Y[:0],
        None,
        "x has shape [0, 7, 3]; give at least one sequence of one step",
    ),
    "ragged": (
        [[[1, 2, 3]], [[1, 2, 3]] * 2],
        Y,
        None,
        "x has rows of unequal length; fill them up to one length and give lengths=[...]",
    ),
    "words": (
        np.full(X.shape, "a"),
        Y,
        None,
        "x has type <U1; give real numbers [batch, steps, 3]",
    ),
    "complex": (
        X + 1j,
        Y,
        None,
        "x has type complex64; give real numbers [batch, steps, 3]",
    ),
    "nan": (
        changed(X, (2, 3, 1), np.nan),
        Y,
        None,
        "x contains NaN, Inf or more than float32 holds, first at index [2, 3, 1]; clean the data "
        "before training",
    ),
    "inf": (
        changed(X, (4, 6, 2), -np.inf),
        Y,
        None,
        "x contains NaN, Inf or more than float32 holds, first at index [4, 6, 2]; clean the data "
        "before training",
    ),
    "too large": (
        changed(X.astype(float), (0, 1, 0), 1e39),
        Y,
        None,
        "x contains NaN, Inf or more than float32 holds, first at index [0, 1, 0]; clean the data "
        "before training",
    ),
    "many rows": (
        np.ones((6, 7, 3)),
        np.zeros(6, int),
        None,
        "x has 6 sequences of 7 steps; the program was built for at most 5 of 7: build with "
        "batch=6, steps=7, or give smaller batches",
    ),
    "many steps": (
        np.ones((5, 8, 3)),
        Y,
        None,
        "x has 5 sequences of 8 steps; the program was built for at most 5 of 7: build with "
        "batch=5, steps=8, or give smaller batches",
    ),
    "number of labels": (
        X,
        Y[:4],
        None,
        'y has shape [4] and type int64; loss="last" with cross-entropy takes whole numbers of '
        "shape [5]",
    ),
    "type of labels": (
        X,
        Y.astype(float),
        None,
        'y has shape [5] and type float64; loss="last" with cross-entropy takes whole numbers of '
        "shape [5]",
    ),
    "large label": (
        X,
        changed(Y, 3, 4),
        None,
        "y contains the label 4; this network has the classes 0 to 3",
    ),
    "label -1": (
        X,
        changed(Y, 3, -1),
        None,
        "y contains the label -1; this network has the classes 0 to 3",
    ),
    "number of lengths": (
        X,
        Y,
        [7, 7],
        "lengths has shape [2] and type int64; give one whole number for each of the 5 sequences",
    ),
    "type of lengths": (
        X,
        Y,
        [7.0] * 5,
        "lengths has shape [5] and type float64; give one whole number for each of the 5 sequences",
    ),
    "length 0": (
        X,
        Y,
        [7, 0, 7, 7, 7],
        "lengths contains 0; x has 7 steps, so lengths run from 1 to 7",
    ),
    "length 8": (
        X,
        Y,
        [7, 8, 7, 7, 7],
        "lengths contains 8; x has 7 steps, so lengths run from 1 to 7",
    ),
}


@pytest.mark.parametrize("name", BATCHES)
def test_batches_that_do_not_fit(name):
    """The message says what is wrong, and nothing is learnt."""
    x, y, lengths, message = BATCHES[name]
    trainer = trainer_of()
    before, state = trainer.parameters(), trainer.state()
    with pytest.raises(InputError, match=full(message)):
        trainer.train_batch(x, y, lengths)
    with pytest.raises(InputError, match=full(message)):
        trainer.part_gradients(x, y, lengths)
    assert_bits_equal(trainer.parameters(), before, "parameters")
    assert_bits_equal(trainer.state(), state, "state")


@pytest.mark.parametrize("name", sorted(set(BATCHES) - {"many rows", "many steps"}))
def test_data_that_cannot_be_evaluated(name):
    x, y, lengths, message = BATCHES[name]
    if name == "no rows":
        message = "there is nothing to evaluate: the data hold no sequences"
    with pytest.raises(InputError, match=full(message)):
        trainer_of().evaluate((x, y, lengths))


def test_targets_of_other_objectives():
    cases = [
        (
            "every step",
            np.zeros((5, 6), int),
            'y has shape [5, 6] and type int64; loss="every_step" with cross-entropy takes whole '
            "numbers of shape [5, 7]",
        ),
        (
            "every step",
            np.full((5, 7), -2),
            "y contains the label -2; this network has the classes 0 to 3, or -1 for none",
        ),
        (
            "mse",
            np.zeros((5, 3)),
            'y has shape [5, 3] and type float64; loss="last" with mse takes numbers of shape '
            "[5, 4]",
        ),
        (
            "mse",
            np.full((5, 4), "a"),
            'y has shape [5, 4] and type <U1; loss="last" with mse takes numbers of shape [5, 4]',
        ),
        (
            "mse",
            np.zeros((5, 4)) + 1j,
            'y has shape [5, 4] and type complex128; loss="last" with mse takes numbers of shape '
            "[5, 4]",
        ),
        (
            "mse",
            changed(np.zeros((5, 4)), (3, 2), np.inf),
            "y contains NaN or Inf, first at index [3, 2]",
        ),
    ]
    for objective, y, message in cases:
        with pytest.raises(InputError, match=full(message)):
            trainer_of(**OBJECTIVES[objective]).train_batch(X, y)


def test_tokens_that_do_not_fit():
    trainer = trainer_of(CELLS["tokens"])
    cases = [
        (
            X,
            "x has shape [5, 7, 3] and type float32; this network reads tokens: whole numbers "
            "[batch, steps]",
        ),
        (
            X[:, :, 0],
            "x has shape [5, 7] and type float32; this network reads tokens: whole "
            "numbers [batch, steps]",
        ),
        (np.full((5, 7), 9), "x contains the token 9; the vocabulary has the tokens 0 to 8"),
        (np.full((5, 7), -1), "x contains the token -1; the vocabulary has the tokens 0 to 8"),
    ]
    for x, message in cases:
        with pytest.raises(InputError, match=full(message)):
            trainer.train_batch(x, Y)
        with pytest.raises(InputError, match=full(message)):
            trainer.predict(x)


def test_steps_of_a_stream_that_do_not_fit():
    trainer = trainer_of()
    rows = "x_t has {} rows; the program was built for 1 to 5"
    cases = [
        (X[:, 0, :2], None, "x has shape [5, 2]; this network takes [batch, 3]"),
        (X, None, "x has shape [5, 7, 3]; this network takes [batch, 3]"),
        (
            np.full((2, 3), np.nan),
            None,
            "x contains NaN, Inf or more than float32 holds, first at "
            "index [0, 0]; clean the data before training",
        ),
        (np.ones((6, 3)), None, rows.format(6)),
        (np.ones((0, 3)), None, rows.format(0)),
        (
            X[:, 0],
            np.array([0, 1]),
            'y has shape [2] and type int64; loss="last" with '
            "cross-entropy takes whole numbers of shape [5]",
        ),
    ]
    for x, target, message in cases:
        with pytest.raises(InputError, match=full(message)):
            trainer.step(x, target)
    trainer.step(X[:, 0])
    message = (
        "x_t has 4 rows, but this sequence began with 5; call begin_sequence() before changing the "
        "number of rows"
    )
    with pytest.raises(InputError, match=full(message)):
        trainer.step(X[:4, 0])
    trainer.begin_sequence()
    assert trainer.step(X[:4, 0]).shape == (4, 4)


def make(name, **options):
    return lambda: getattr(fptt, name)(**options)


def built(**options):
    arguments = {"rule": fptt.FPTT(parts=2), "steps": 7, **options}
    net = arguments.pop("net", network(LSTM))
    return lambda: fptt.build(net, arguments.pop("rule"), **arguments)


WHOLE = "give a whole number of at least 1"
CHOICES = {
    "parts": (make("FPTT", parts=0), "FPTT: parts is 0; " + WHOLE),
    "parts 2.0": (make("TBPTT", parts=2.0), "TBPTT: parts is 2.0; " + WHOLE),
    "parts of bptt": (make("BPTT", parts=3), "BPTT has one part, not 3; use TBPTT(parts=3)"),
    "alpha": (
        make("FPTT", alpha=0),
        "FPTT: alpha is 0; give a number above 0, or regularise=False to train without R(t)",
    ),
    "alpha None": (
        make("FPTT", alpha=None),
        "FPTT: alpha is None; give a number above 0, or regularise=False to train without R(t)",
    ),
    "beta": (make("FPTT", beta=1.5), "FPTT: beta is 1.5; give a number with 0 < beta <= 1"),
    "beta a": (make("FPTT", beta="a"), "FPTT: beta is 'a'; give a number with 0 < beta <= 1"),
    "mode": (make("FPTT", mode="x"), "FPTT: mode is 'x'; choose one of 'code', 'paper'"),
    "state": (make("FPTT", state="x"), "FPTT: state is 'x'; choose one of 'reset', 'carry'"),
    "source": (
        make("FPTT", source="rtlr"),
        "FPTT: source is 'rtlr'; choose one of 'bptt', 'rtrl', 'diagonal', 'ostl', 'eprop'",
    ),
    "source of BPTT": (
        make("BPTT", source="rtrl"),
        'BPTT is itself a source of gradients; for source="rtrl" use TBPTT(parts=1, source="rtrl")',
    ),
    "epoch_end": (
        make("FPTT", epoch_end="x"),
        "FPTT: epoch_end is 'x'; choose one of 'average', 'keep'",
    ),
    "epoch_lambda": (
        make("FPTT", epoch_lambda="x"),
        "FPTT: epoch_lambda is 'x'; choose one of 'zero', 'keep'",
    ),
    "lr": (make("SGD", lr=-1), "SGD: lr is -1; give a number with 0 <= lr < inf"),
    "lr nan": (make("Adam", lr=math.nan), "Adam: lr is nan; give a number with 0 <= lr < inf"),
    "momentum": (
        make("SGD", momentum=1),
        "SGD: momentum is 1; give a number with 0 <= momentum < 1",
    ),
    "beta1": (make("Adam", beta1=1.0), "Adam: beta1 is 1.0; give a number with 0 <= beta1 < 1"),
    "beta2": (make("Adam", beta2="a"), "Adam: beta2 is 'a'; give a number with 0 <= beta2 < 1"),
    "epsilon": (
        make("Adam", epsilon=-1),
        "Adam: epsilon is -1; give a number with 0 <= epsilon < inf",
    ),
    "rate of steps": (
        make("StepSchedule", milestones=(3,), factor=1),
        "StepSchedule: factor is 1; give a number with 0 < factor < 1",
    ),
    "rate of a plateau": (
        make("PlateauSchedule", factor="a"),
        "PlateauSchedule: factor is 'a'; give a number with 0 < factor < 1",
    ),
    "patience": (
        make("PlateauSchedule", patience=-1),
        "PlateauSchedule: patience is -1; give a whole number of at least 0",
    ),
    "cosine": (
        make("CosineSchedule", epochs=0),
        "CosineSchedule: epochs is 0 and floor 0.0; give epochs >= 1 and 0 <= floor < 1",
    ),
    "cells": (make("LSTM", inputs=1, hidden=0), "LSTM: hidden is 0; " + WHOLE),
    "dropout": (make("Dropout", p=1), "Dropout: p is 1; give a probability with 0 <= p < 1"),
    "no layers": (
        make("Network", layers=[]),
        "Network: give a list of at least one layer, such as [LSTM(1, 128), Linear(128, 10)]",
    ),
    "no layer": (
        make("Network", layers=["lstm"]),
        "Network: layer 0 is 'lstm', which is no layer; choose from LSTM, GRU, RNN, "
        "ElementwiseLSTM, LRU, LIF, ALIF, LTC, LeakyIntegrator, Linear, ReLU, Dropout, Embedding",
    ),
    "widths": (
        make("Network", layers=[fptt.LSTM(3, 5), fptt.Linear(6, 4)]),
        "Network: layer 1: Linear(6, 4) takes 6 inputs, but the layer below delivers 5; make the "
        "two equal",
    ),
    "nothing to learn": (
        make("Network", layers=[fptt.ReLU()]),
        "Network: ReLU() has nothing to learn; add a layer with parameters",
    ),
    "weights": (
        make("Network", layers=[fptt.Linear(3, 2)], weights={"0.weight": np.ones((2, 3))}),
        "the weights lack 0.bias; this network is Linear(3, 2)",
    ),
    "net": (built(net="lstm"), "build: net is 'lstm'; give a Network([...])"),
    "rule": (
        built(rule="fptt"),
        "build: rule is 'fptt'; give BPTT(), TBPTT(parts=..) or FPTT(parts=..)",
    ),
    "optimizer": (
        built(optimizer="sgd"),
        "build: optimizer is 'sgd'; give SGD(lr=..) or Adam(lr=..)",
    ),
    "steps": (built(steps=0), "build: steps is 0; " + WHOLE),
    "batch": (built(batch=2.5), "build: batch is 2.5; " + WHOLE),
    "K > T": (
        built(rule=fptt.FPTT(parts=8)),
        "build: 8 parts of a sequence of 7 steps; give parts <= 7",
    ),
    "loss": (
        built(loss="first"),
        "build: loss is 'first'; choose one of 'last', 'every_step', 'auxiliary'",
    ),
    "criterion": (
        built(criterion="mae"),
        "build: criterion is 'mae'; choose one of 'cross_entropy', 'mse'",
    ),
    "auxiliary mse": (
        built(loss="auxiliary", criterion="mse"),
        'build: loss="auxiliary" predicts classes and cannot go with criterion="mse"; use '
        'criterion="cross_entropy" or loss="last"',
    ),
    "dtype": (
        built(dtype="float16"),
        "build: dtype is 'float16'; choose one of 'float64', 'float32', 'bfloat16'",
    ),
    "activation dtype": (
        built(activation_dtype="int8"),
        "build: activation_dtype is 'int8'; choose one of 'float64', 'float32', 'bfloat16'",
    ),
    "clip": (built(clip=-1), "build: clip is -1; give a norm above 0, or None"),
    "clip a": (built(clip="a"), "build: clip is 'a'; give a norm above 0, or None"),
    "train": (
        built(train=["1.*", "2.*"]),
        "build: train names '2.*', but no parameter is called so; there are 0.weight_ih, "
        "0.weight_hh, 0.bias, 1.weight, 1.bias",
    ),
    "train nothing": (
        built(train=[]),
        "build: train names no parameter, so there is nothing to learn",
    ),
}


@pytest.mark.parametrize("name", CHOICES)
def test_choices_that_cannot_be_made(name):
    choose, message = CHOICES[name]
    with pytest.raises(InputError, match=full(message)) as caught:
        choose()
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("kind", ["FPTT", "TBPTT", "SGD", "Adam", "LSTM", "Dropout"])
def test_options_that_do_not_exist(kind):
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'colour'"):
        getattr(fptt, kind)(colour=1)


def test_trainers_that_cannot_be_made():
    program = trainer_of().program
    seed = "give a whole number from 0 to 2^32 - 1"
    cases = [
        (dict(backend="cuda"), "backend is 'cuda'; choose one of 'native', 'reference'"),
        (dict(threads=0), "Trainer: threads is 0; " + WHOLE),
        (dict(threads=1.5), "Trainer: threads is 1.5; " + WHOLE),
        (dict(seed=-1), "Trainer: seed is -1; " + seed),
        (dict(seed=2**32), "Trainer: seed is 4294967296; " + seed),
        (dict(seed="a"), "Trainer: seed is 'a'; " + seed),
    ]
    for options, message in cases:
        with pytest.raises(InputError, match=full(message)):
            fptt.Trainer(program, **options)
    fptt.Trainer(program, seed=2**32 - 1)


def test_weights_of_another_network():
    trainer = trainer_of()
    own, net = trainer.parameters(), "LSTM(3, 5) - Linear(5, 4)"
    without = {name: value for name, value in own.items() if name != "0.bias"}
    cases = [
        (without, "the weights lack 0.bias; this network is " + net),
        (
            {**own, "2.bias": np.ones(3)},
            "the weights hold 2.bias, which this network does not have; this network is " + net,
        ),
        (
            {**own, "1.bias": np.ones(5)},
            f"the weights of 1.bias have shape [5], but this network ({net}) needs [4]",
        ),
        ({**own, "1.bias": [0, 1, 2, np.inf]}, "the weights of 1.bias contain NaN or Inf"),
        ({**own, "1.bias": list("abcd")}, "the weights of 1.bias have type <U1; give numbers"),
    ]
    for weights, message in cases:
        with pytest.raises(InputError, match=full(message)):
            trainer.load_parameters(weights)
        assert_bits_equal(trainer.parameters(), own, "parameters")


def test_what_fit_cannot_use():
    trainer = trainer_of()
    cases = [
        ((X, Y), 0, {}, "fit: epochs is 0; " + WHOLE),
        (
            (X, Y[:3]),
            1,
            {},
            "fit: x has 5 sequences and y 3 targets; give the same number of both, at least one",
        ),
        (
            (X[:0], Y[:0]),
            1,
            {},
            "fit: x has 0 sequences and y 0 targets; give the same number of both, at least one",
        ),
        (
            [X, Y],
            1,
            {},
            "data is list; give (x, y), (x, y, lengths), or a SequenceData of fptt.tasks",
        ),
        (
            (X,),
            1,
            {},
            "data is tuple; give (x, y), (x, y, lengths), or a SequenceData of fptt.tasks",
        ),
    ]
    for data, epochs, options, message in cases:
        with pytest.raises(InputError, match=full(message)):
            trainer.fit(data, epochs, **options)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "a", None])
def test_learning_rates_that_cannot_be(value):
    trainer = trainer_of()
    message = f"Trainer: lr is {value!r}; give a number with 0 <= lr < inf"
    with pytest.raises(InputError, match=full(message)):
        trainer.lr = value
    assert trainer.lr == pytest.approx(0.2)


def test_a_program_that_is_too_large_for_the_computer():
    program = fptt.build(
        fptt.Network([fptt.LSTM(1, 10**8)]), fptt.BPTT(), steps=1, loss="last", criterion="mse"
    )
    message = "the program needs <...> bytes, more than this computer has; use a smaller network "
    with pytest.raises(FpttError, match=full(message + "or batch, or more parts")):
        fptt.Trainer(program)


# --- NaN and Inf ----------

EXPLOSIONS = {
    # what is made huge, options, what the message names
    "large lr": (dict(optimizer=fptt.SGD(1e38)), {}, r"\d\.\w+|the loss|mean/\S+|lambda/\S+"),
    "large lr float64": (
        dict(optimizer=fptt.SGD(1e308), dtype="float64"),
        {},
        r"\d\.\w+|the loss|mean/\S+|lambda/\S+",
    ),
    "large lr bfloat16": (
        dict(optimizer=fptt.SGD(1e38), dtype="bfloat16"),
        {},
        r"\d\.\w+|the loss|mean/\S+|lambda/\S+",
    ),
    "large momentum": (
        dict(optimizer=fptt.SGD(1e37, 0.999), rule=fptt.TBPTT(parts=3)),
        {},
        r"\d\.\w+|the loss|momentum/\S+",
    ),
    "large weights": (dict(), {"1.weight": 3e38}, "the loss"),
    "large recurrent weights": (dict(layers=CELLS["RNN"]), {"1.weight": 1e38}, "the loss"),
    "adam": (dict(optimizer=fptt.Adam(1e38)), {}, r"\d\.\w+|the loss|mean/\S+|lambda/\S+"),
    # Q learns before the update overflows
    "auxiliary": (
        dict(loss=fptt.Auxiliary(rate=0.3), optimizer=fptt.SGD(1e38)),
        {},
        r"\d\.\w+|mean/\S+|lambda/\S+",
    ),
    "auxiliary per part": (
        dict(loss=fptt.Auxiliary(rate=0.3, per_part=True), optimizer=fptt.SGD(1e38)),
        {},
        r"\d\.\w+|mean/\S+|lambda/\S+",
    ),
    "auxiliary loss": (
        dict(loss=fptt.Auxiliary(rate=0.3, per_part=True)),
        {"1.weight": 3e38},
        "the loss",
    ),
    "mse": (
        dict(criterion="mse", rule=fptt.TBPTT(parts=3)),
        {"1.bias": 1e30},
        "the loss",
    ),
}


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize("name", EXPLOSIONS)
def test_an_explosion_keeps_the_last_good_state(name):
    """Parts are run one by one in a twin: the state kept is that before the bad part, in bits."""
    options, weights, what = EXPLOSIONS[name]
    trainer, twin = trainer_of(**options), trainer_of(**options)
    values = trainer.parameters()
    for parameter, value in weights.items():
        values[parameter] = np.full_like(values[parameter], value)
    trainer.load_parameters(values)
    twin.load_parameters(values)
    batches = [data_for(trainer, options.get("layers", LSTM), seed=n) for n in range(30)]
    message = None
    for x, y in batches:
        try:
            trainer.train_batch(x, y)
        except NumericalError as error:
            message = str(error)
            break
        twin.train_batch(x, y)
    assert message is not None, "nothing exploded"
    found = re.fullmatch(
        r"(.+) became NaN or Inf in part (\d) of 3 \(steps (\d) to (\d)\); training stopped, and "
        r"the state of learning is that of the last good update: use a smaller learning rate, or "
        r"clip the norm of the update",
        message,
    )
    assert found, message
    assert re.fullmatch(what, found[1]), message
    part, low, high = int(found[2]), int(found[3]), int(found[4])
    assert (low, high + 1) == trainer.program.bounds[part - 1]
    # the twin takes the same batch as a stream and stops before the bad part
    if low:
        twin.begin_sequence()
        for t in range(low):
            twin.step(x[:, t], y)
    assert_bits_equal(trainer.parameters(), twin.parameters(), "parameters")
    assert_bits_equal(trainer.state(), twin.state(), "state")
    assert all(np.isfinite(value).all() for value in trainer.parameters().values())


@pytest.mark.usefixtures("each_backend")
def test_training_goes_on_after_an_explosion():
    trainer = trainer_of(optimizer=fptt.SGD(1e38))
    x, y = data_for(trainer)
    before = trainer.parameters()
    with pytest.raises(NumericalError):
        [trainer.train_batch(x, y) for _ in range(9)]
    trainer.load_parameters(before)
    trainer.lr = 0.2
    fresh = trainer_of(optimizer=fptt.SGD(0.2))
    assert [trainer.train_batch(x, y) for _ in range(9)] == [
        fresh.train_batch(x, y) for _ in range(9)
    ]


@pytest.mark.usefixtures("each_backend")
def test_a_stream_goes_on_after_an_explosion():
    """Whichever part of the sequence was the bad one."""
    trainer = trainer_of(optimizer=fptt.SGD(1e38))
    x, y = data_for(trainer)
    bad_parts = set()
    for t in itertools.islice(itertools.cycle(range(7)), 70):
        try:
            trainer.step(x[:, t], y)
        except NumericalError as error:
            bad_parts.add(re.search(r"part (\d)", str(error))[1])
            assert trainer.stream.position == (t + 1) % 7
    assert "3" in bad_parts
    trainer.lr = 0.0
    for t in range(7):
        assert np.isfinite(trainer.step(x[:, t], y)).all()


@pytest.mark.usefixtures("each_backend")
def test_the_state_starts_from_zero_after_an_explosion():
    trainer = trainer_of(optimizer=fptt.SGD(3e38), criterion="mse")
    x, y = data_for(trainer)
    y = y + 1e3
    for t in range(3):
        trainer.step(x[:, t])  # the first part only carries its state
    with pytest.raises(NumericalError, match=r"part 2 of 3 \(steps 2 to 3\)"):
        trainer.step(x[:, 3], y)
    assert not np.array_equal(trainer.predict(x[:, :5]), trainer.predict(x[:, 4:5]))
    assert np.array_equal(trainer.step(x[:, 4]), trainer.predict(x[:, 4:5]))


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN", "stack"])
def test_inputs_at_the_end_of_float32(cell):
    """A loss or an error that names the place, but never NaN in the parameters."""
    trainer = trainer_of(CELLS[cell], clip=1.0)
    largest = np.finfo(np.float32).max
    x, y = data_for(trainer, CELLS[cell])
    signs = np.where(x < 0, -largest, largest)
    before = trainer.parameters()
    try:
        losses = [trainer.train_batch(signs, y) for _ in range(3)]
        assert np.isfinite(losses).all()
    except NumericalError as error:
        assert re.match(r"\S.* became NaN or Inf in part \d of 3", str(error))  # noqa: PT017
        assert_bits_equal(trainer.parameters(), before, "parameters")
    assert all(np.isfinite(value).all() for value in trainer.parameters().values())
    fresh = trainer_of(CELLS[cell], clip=1.0)
    fresh.load_parameters(trainer.parameters())
    trainer.load_parameters(trainer.parameters())
    assert trainer.train_batch(x, y) == fresh.train_batch(x, y)


@pytest.mark.usefixtures("each_backend")
def test_fit_stops_and_keeps_what_is_good(tmp_path):
    trainer, checkpoint = trainer_of(optimizer=fptt.SGD(1e38)), tmp_path / "run.ckpt"
    x, y = data_for(trainer)
    with pytest.raises(NumericalError):
        trainer.fit((x, y), 50, checkpoint=checkpoint)
    if checkpoint.exists():
        assert np.isfinite(fptt.load(checkpoint).parameters()["1.weight"]).all()
    assert np.isfinite(trainer.parameters()["1.weight"]).all()


# --- snapshots of streams ----------


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize("targets", ["all", "some", "none"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_snapshot_in_the_middle_of_a_stream(tmp_path, objective, targets):
    """After every step of two sequences; what follows has the same bits."""
    layers, path = CELLS["stack"], tmp_path / "state.fptt"
    trainer = trainer_of(layers, **OBJECTIVES[objective])
    x, y = data_for(trainer, layers)
    every = trainer.program.schedule.every_step

    def step(one, n):
        given = {"all": True, "some": n % 3 != 1, "none": False}[targets]
        target = (y[:, n % 7] if every else y) if given else None
        return one.step(x[:, n % 7], target)

    def rest(one, n):
        outputs = [step(one, later) for later in range(n, 14)]
        one.end_sequence()
        return outputs, one.parameters(), one.state()

    saved = []
    for n in range(14):
        trainer.save(path)
        saved.append(path.read_bytes())
        step(trainer, n)
    for n in (1, 2, 3, 5, 7, 8, 12, 13):  # parts 0-1, 2-3, 4-6
        path.write_bytes(saved[n])
        again = fptt.load(path)
        ended = fptt.load(path)
        ended.end_sequence()
        once, twice = rest(again, n), rest(fptt.load(path), n)
        fresh = trainer_of(layers, **OBJECTIVES[objective])
        [step(fresh, earlier) for earlier in range(n)]
        wanted = rest(fresh, n)
        other = trainer_of(layers, **OBJECTIVES[objective])
        [step(other, earlier) for earlier in range(n)]
        other.end_sequence()
        assert_bits_equal(ended.parameters(), other.parameters(), f"ended after step {n}")
        for found in (once, twice):
            assert np.array_equal(found[0], wanted[0])
            assert_bits_equal(found[1], wanted[1], f"parameters from step {n}")
            assert_bits_equal(found[2], wanted[2], f"state from step {n}")
    learnt = not np.array_equal(wanted[1]["4.bias"], trainer_of(layers).parameters()["4.bias"])
    assert learnt == (targets != "none")


# --- fit ----------


def orders(monkeypatch, trainer, n, epochs, **options):
    """The rows of every batch of fit, told by the number in x."""
    seen = []
    original = trainer.train_batch
    monkeypatch.setattr(
        trainer,
        "train_batch",
        lambda x, y, lengths: (seen.append(x[:, 0, 0].astype(int).tolist()), original(x, y))[1],
    )
    x = np.repeat(np.arange(n, dtype=np.float32), 21).reshape(n, 7, 3)
    trainer.fit((x, np.zeros(n, int)), epochs, **options)
    return seen


def test_the_order_depends_on_seed_and_epoch_alone(monkeypatch):
    one = orders(monkeypatch, trainer_of(seed=3), 12, 3)
    assert [len(rows) for rows in one] == [5, 5, 2] * 3
    epochs = [[*itertools.chain(*one[n : n + 3])] for n in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert one == orders(monkeypatch, trainer_of(seed=3, rule=fptt.BPTT(), dtype="float64"), 12, 3)
    assert one[:3] != orders(monkeypatch, trainer_of(seed=4), 12, 1)
    other_batch = orders(monkeypatch, trainer_of(seed=3, batch=4), 12, 3)
    assert [*itertools.chain(*one)] == [*itertools.chain(*other_batch)]


def test_the_order_without_shuffling(monkeypatch):
    straight = [[0, 1, 2, 3, 4], [5, 6]]
    assert orders(monkeypatch, trainer_of(), 7, 1, shuffle=False) == straight
    carry = fptt.FPTT(parts=3, state="carry")
    assert orders(monkeypatch, trainer_of(rule=carry), 7, 2) == straight * 2


def test_rows_and_calls_of_fit():
    trainer = trainer_of(loss="every_step")
    x, y = data_for(trainer, rows=5)
    x, y = np.concatenate([x, x, x]), np.concatenate([y, y, y])
    progress, rows = [], []
    twin = trainer_of(loss="every_step")
    history = trainer.fit(
        (x, y), 2, test=(x, y), on_batch=lambda *a: progress.append(a), on_epoch=rows.append
    )
    assert history.rows == rows
    assert history.last is rows[-1]
    names = {"epoch", "loss", "lr", "seconds", "test_loss", "test_accuracy", "test_perplexity"}
    assert [set(row) for row in rows] == [names, names]
    assert [p[:2] for p in progress] == [(1, 3), (2, 3), (3, 3)] * 2
    means = []
    for epoch in range(2):
        order = np.random.default_rng([0, 1, epoch]).permutation(15)
        losses = [twin.train_batch(x[order[n : n + 5]], y[order[n : n + 5]]) for n in (0, 5, 10)]
        twin.end_epoch()
        means.append(np.mean(losses))
        assert rows[epoch]["test_loss"] == twin.evaluate((x, y))["loss"]
    assert [row["loss"] for row in rows] == pytest.approx(means, rel=1e-12)
    assert progress[2][2] == pytest.approx(means[0], rel=1e-12)
    assert trainer.epoch == 2
    assert_bits_equal(trainer.parameters(), twin.parameters(), "parameters")


def lr_of_epochs(schedule, epochs, losses=None):
    """The learning rates of fit's epochs, float64, with the training losses replaced."""
    trainer = trainer_of(optimizer=fptt.SGD(0.5), dtype="float64")
    x, y = data_for(trainer)
    if losses is not None:
        queue = iter(losses)
        trainer.train_batch = lambda *arguments: next(queue)
    return [row["lr"] for row in trainer.fit((x, y), epochs, schedule=schedule).rows]


def test_schedules():
    assert lr_of_epochs(None, 3) == [0.5] * 3
    steps = lr_of_epochs(fptt.StepSchedule((2, 3), factor=0.5), 5)
    assert steps == [0.5, 0.5, 0.25, 0.125, 0.125]
    cosine = lr_of_epochs(fptt.CosineSchedule(4, floor=0.2), 6)
    wanted = [0.5 * (0.2 + 0.4 * (1 + math.cos(math.pi * e / 4))) for e in (0, 1, 2, 3, 4, 4)]
    assert cosine == pytest.approx(wanted, rel=1e-11)
    assert cosine[4] == cosine[5] == pytest.approx(0.1, rel=1e-11)


def test_the_plateau_schedule():
    """With patience 1 the rate falls at the second epoch in a row that brings no improvement."""
    schedule = fptt.PlateauSchedule(factor=0.5, patience=1, threshold=0.01)
    losses = [1.0, 0.5, 0.5, 0.499, 0.499, 0.4, 0.41, 0.42, 0.43]
    lrs = lr_of_epochs(schedule, 9, losses)
    assert lrs == [0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.125]


def test_the_plateau_schedule_against_pytorch():
    rng = np.random.default_rng(0)
    losses = (1 / np.arange(1, 41) + rng.uniform(0, 0.3, 40)).tolist()
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=3, threshold=1e-4, eps=0
    )
    wanted = []
    for loss in losses:
        wanted.append(optimizer.param_groups[0]["lr"])
        theirs.step(loss)
    found = lr_of_epochs(fptt.PlateauSchedule(factor=0.5, patience=3), 40, losses)
    assert found == pytest.approx(wanted)
    assert len(set(wanted)) > 3


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize("schedule", [fptt.PlateauSchedule(factor=0.5, patience=0), None], ids=str)
@pytest.mark.parametrize("state", ["reset", "carry"])
def test_fit_resumes_inside_an_epoch(tmp_path, monkeypatch, state, schedule):
    """A checkpoint after every batch; stopped at each of them in turn."""
    monkeypatch.setattr("fptt.training.fitting.CHECKPOINT_S", -1)
    layers = CELLS["stack"]
    options = dict(rule=fptt.FPTT(parts=3, state=state), loss="every_step", batch=2)
    checkpoint = tmp_path / "run.ckpt"

    def fit(epochs, resume, stop_after=None):
        trainer = trainer_of(layers, **options)
        x, y = data_for(trainer, layers, rows=6)

        def stop(done, of, mean):
            stop.calls += 1
            if stop.calls == stop_after:
                raise KeyboardInterrupt

        stop.calls = 0
        rows = trainer.fit(
            (x, y),
            epochs,
            schedule=schedule,
            checkpoint=checkpoint,
            resume=resume,
            on_batch=stop,
        ).rows
        return trainer, [{k: v for k, v in row.items() if k != "seconds"} for row in rows]

    whole, rows = fit(3, False)
    checkpoint.unlink()
    stopped = 0
    while stopped < 20:
        try:
            again, found = fit(3, True, stop_after=2)
            break
        except KeyboardInterrupt:
            stopped += 1
    assert stopped >= 8
    assert found == rows
    assert_bits_equal(again.parameters(), whole.parameters(), "parameters")
    assert_bits_equal(again.state(), whole.state(), "state")


@pytest.mark.usefixtures("each_backend")
def test_language_modelling_carries_the_state_through_an_epoch():
    """fit over batches that continue each other is one long sequence in parts."""
    layers = CELLS["tokens"]
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 9, (5, 28)), rng.integers(0, 4, (5, 28))
    pieces = np.concatenate([x[:, n : n + 7] for n in range(0, 28, 7)])
    labels = np.concatenate([y[:, n : n + 7] for n in range(0, 28, 7)])
    rule = dict(alpha=0.4, epoch_end="keep", epoch_lambda="keep")
    long = trainer_of(layers, fptt.FPTT(parts=4, **rule), steps=28, loss="every_step")
    short = trainer_of(layers, fptt.FPTT(parts=1, state="carry", **rule), loss="every_step")
    history = short.fit((pieces, labels), 2)  # the state starts from 0 in every epoch
    for epoch in range(2):
        mean = long.train_batch(x, y)
        assert history.rows[epoch]["loss"] == pytest.approx(mean, rel=1e-6)
    assert_bits_equal(short.parameters(), long.parameters(), "parameters")
    assert_bits_equal(short.state(), long.state(), "state")
    # the state that is left is that of the long sequence: the next piece starts from there
    whole = long.predict(np.concatenate([x, x[:, :7]], axis=1))[:, 28:]
    judged = short.evaluate(
        (np.concatenate([pieces, x[:, :7]]), np.concatenate([labels, y[:, :7]]))
    )
    parts = [long.predict(x), whole]
    log_p = log_softmax(np.concatenate(parts, axis=1))
    wanted = -np.take_along_axis(log_p, np.concatenate([y, y[:, :7]], axis=1)[..., None], 2).mean()
    assert judged["loss"] == pytest.approx(wanted, rel=1e-5)


# --- evaluate and predict ----------


def log_softmax(logits):
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


LENGTHS = np.array([3, 7, 1, 7, 5, 2, 6])


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["equal", "unequal"])
def test_evaluate_by_hand(lengths):
    """Mean over sequences, or over labelled steps before the sequences' ends."""
    rows = 7
    trainer = trainer_of(dtype="float64")
    x, y = data_for(trainer, rows=rows)
    outputs = trainer.predict(x, lengths)
    log_p = log_softmax(outputs)
    found = trainer.evaluate((x, y) if lengths is None else (x, y, lengths))
    assert set(found) == {"loss", "accuracy"}
    assert found["loss"] == pytest.approx(-log_p[np.arange(rows), y].mean(), rel=1e-12)
    assert found["accuracy"] == (log_p.argmax(1) == y).mean()

    trainer = trainer_of(dtype="float64", loss="every_step")
    x, y = data_for(trainer, rows=rows)
    y[np.random.default_rng(0).random(y.shape) < 0.3] = -1
    counts = (y >= 0) & (np.arange(7) < (np.full(rows, 7) if lengths is None else lengths)[:, None])
    log_p = log_softmax(trainer.predict(x, lengths))
    losses = -np.take_along_axis(log_p, y.clip(0)[..., None], 2)[..., 0][counts]
    found = trainer.evaluate((x, y, lengths))
    assert found["loss"] == pytest.approx(losses.mean(), rel=1e-12)
    assert found["perplexity"] == pytest.approx(np.exp(losses.mean()), rel=1e-12)
    assert found["accuracy"] == (log_p.argmax(2) == y)[counts].mean()
    assert 0 < counts.sum() < counts.size

    trainer = trainer_of(dtype="float64", loss="every_step", criterion="mse")
    x, y = data_for(trainer, rows=rows)
    used = np.arange(7) < (np.full(rows, 7) if lengths is None else lengths)[:, None]
    squares = ((trainer.predict(x, lengths) - y) ** 2)[used]
    assert trainer.evaluate((x, y, lengths)) == {"loss": pytest.approx(squares.mean(), rel=1e-12)}

    trainer = trainer_of(dtype="float64", criterion="mse")
    x, y = data_for(trainer, rows=rows)
    squares = (trainer.predict(x, lengths) - y) ** 2
    assert trainer.evaluate((x, y, lengths)) == {"loss": pytest.approx(squares.mean(), rel=1e-12)}


def test_nothing_to_evaluate():
    trainer = trainer_of(loss="every_step")
    message = "there is nothing to evaluate: no step has a target"
    with pytest.raises(InputError, match=full(message)):
        trainer.evaluate((X, np.full((5, 7), -1)))


def test_evaluation_with_carried_state_by_hand():
    """Groups of `batch` rows continue each other; the first group starts from zero."""
    trainer = trainer_of(
        CELLS["tokens"], fptt.FPTT(parts=3, state="carry"), loss="every_step", batch=2
    )
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 9, (2, 21)), rng.integers(0, 4, (2, 21))
    pieces = [np.concatenate([a[:, n : n + 7] for n in (0, 7, 14)]) for a in (x, y)]
    log_p = log_softmax(trainer.predict(x))
    wanted = -np.take_along_axis(log_p, y[..., None], 2).mean()
    for _ in range(2):  # a second call starts from zero again
        assert trainer.evaluate(tuple(pieces))["loss"] == pytest.approx(wanted, rel=1e-6)
    alone = log_softmax(np.concatenate([trainer.predict(x[:, n : n + 7]) for n in (0, 7, 14)], 1))
    assert abs(-np.take_along_axis(alone, y[..., None], 2).mean() - wanted) > 1e-4


def test_an_overflowing_perplexity_is_infinite():
    trainer = trainer_of(loss="every_step")
    values = trainer.parameters()
    values["1.bias"] = np.array([1e4, 0, 0, 0])
    trainer.load_parameters(values)
    assert trainer.evaluate((X, np.ones((5, 7), int)))["perplexity"] == math.inf


@pytest.mark.parametrize("loss", ["last", "every_step"])
@pytest.mark.parametrize("cell", CELLS)
def test_prediction_of_unequal_lengths_is_that_one_by_one(cell, loss):
    """More rows than fit at once; zero behind a sequence's end; whatever lies there."""
    trainer = trainer_of(CELLS[cell], loss=loss, dtype="float64")
    rows = 131
    x, _ = data_for(trainer, CELLS[cell], rows=rows)
    lengths = np.random.default_rng(4).integers(1, 8, rows)
    found = trainer.predict(x, lengths)
    for row in (*range(12), *range(120, rows)):
        n = lengths[row]
        alone = trainer.predict(x[row : row + 1, :n])
        if loss == "every_step":
            assert_close(found[row, :n], alone[0], 1e-13, f"row {row}")
            assert not found[row, n:].any()
        else:
            assert_close(found[row], alone[0], 1e-13, f"row {row}")
    other = x.copy()
    other[np.arange(7) >= lengths[:, None]] = 0
    assert np.array_equal(trainer.predict(other, lengths), found)


def test_prediction_of_more_steps_than_training_has():
    trainer = trainer_of()
    x = grid(np.random.default_rng(5).normal(0, 1, (3, 50, 3)))
    lstm = torch.nn.LSTM(3, 5, batch_first=True, dtype=torch.float64)
    own = {name: torch.tensor(v.astype(np.float64)) for name, v in trainer.parameters().items()}
    with torch.no_grad():
        lstm.weight_ih_l0.copy_(own["0.weight_ih"])
        lstm.weight_hh_l0.copy_(own["0.weight_hh"])
        lstm.bias_ih_l0.copy_(own["0.bias"])
        lstm.bias_hh_l0.zero_()
        wanted = lstm(torch.tensor(x))[0][:, -1] @ own["1.weight"].T + own["1.bias"]
    assert_close(trainer.predict(x), wanted.numpy(), 1e-5, "outputs")


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize("loss", ["last", "every_step", "auxiliary"])
@pytest.mark.parametrize("cell", CELLS)
def test_the_program_s_own_routines_predict_the_same(cell, loss):
    """`begin_inference`, `infer` and `readout` of the training program, between trained batches."""
    layers = CELLS[cell]
    trainer = trainer_of(layers, loss=loss)
    x, y = data_for(trainer, layers)
    trainer.train_batch(x, y)
    wanted = trainer.predict(x)
    backend, frame = trainer.backend, Frame(0, 0, (5,), 0)
    backend.run("begin_inference", Frame(0, 0, (trainer.program.batch,), 0))
    output = trainer.program.output
    for t in range(7):
        backend.write("input", np.asarray(x)[None, :, t])
        backend.run("infer", frame, 0)
        backend.run("readout", frame, 0)
        values = backend.read(output.name)
        values = values[output.lead] if output.steps else values
        if loss == "every_step":
            assert np.array_equal(values[:5], wanted[:, t])
    assert np.array_equal(values[:5], wanted if wanted.ndim == 2 else wanted[:, -1])
    # training is not disturbed by it
    twin = trainer_of(layers, loss=loss)
    twin.train_batch(x, y)
    assert trainer.train_batch(x, y) == twin.train_batch(x, y)
    assert_bits_equal(trainer.parameters(), twin.parameters(), "parameters")


# --- the same bits, other bits ----------


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize("sizes", [(96, 160, 96), (28, 128, 50), (3, 64, 97)], ids=str)
def test_threads_do_not_change_the_bits(sizes):
    """Sizes at which the matrix library does use its threads, and then sums otherwise."""
    inputs, hidden, rows = sizes
    layers = [("LSTM", inputs, hidden), ("Linear", hidden, 11)]
    found = []
    for threads in (1, 2):
        trainer = trainer_of(layers, threads=threads, batch=rows)
        x, y = data_for(trainer, layers, rows=rows)
        losses = [trainer.train_batch(x, y) for _ in range(2)]
        found.append((losses, trainer.parameters(), trainer.predict(x)))
    assert found[0][0] == found[1][0]
    assert_bits_equal(found[0][1], found[1][1], "parameters")
    assert np.array_equal(found[0][2], found[1][2])


@pytest.mark.usefixtures("each_backend")
def test_same_seed_same_bits_other_seed_other_bits():
    def run(seed):
        trainer = trainer_of(CELLS["stack"], seed=seed)
        x, y = random_data(CELLS["stack"], 20, 7, "last", "cross_entropy", 0)
        trainer.fit((x, y), 2)
        return trainer.parameters()

    assert_bits_equal(run(1), run(1), "parameters")
    first, other = run(1), run(2)
    assert not any(np.array_equal(first[name], other[name]) for name in first)


@pytest.mark.usefixtures("each_backend")
def test_dropout_depends_on_the_seed():
    weights = trainer_of(CELLS["stack"]).parameters()
    losses = []
    for seed in (1, 1, 2):
        trainer = trainer_of(CELLS["stack"], seed=seed)
        trainer.load_parameters(weights)
        losses.append(trainer.train_batch(*data_for(trainer, CELLS["stack"])))
    assert losses[0] == losses[1] != losses[2]


# --- initial weights ----------


def theirs(kind, layer):
    """PyTorch's initial tensors in fptt's names; the two biases of LSTM and RNN added."""
    torch.manual_seed(1)
    module = layer()
    tensors = {n.replace("_l0", ""): p.detach().numpy() for n, p in module.named_parameters()}
    if kind in ("LSTM", "RNN"):
        tensors["bias"] = tensors.pop("bias_ih") + tensors.pop("bias_hh")
    return tensors


INITIAL = {
    "LSTM": (("LSTM", 150, 250), lambda: torch.nn.LSTM(150, 250)),
    "GRU": (("GRU", 150, 250), lambda: torch.nn.GRU(150, 250)),
    "RNN": (("RNN", 150, 900), lambda: torch.nn.RNN(150, 900)),
    "Linear": (("Linear", 90, 1000), lambda: torch.nn.Linear(90, 1000)),
    "Embedding": (("Embedding", 300, 200), lambda: torch.nn.Embedding(300, 200)),
}


@pytest.mark.parametrize("kind", INITIAL)
def test_initial_weights_are_distributed_as_pytorch_s(kind):
    layer, module = INITIAL[kind]
    net = network([layer, ("Linear", layer[2], 2)])
    wanted = theirs(kind, module)
    found = {n.removeprefix("0."): v for n, v in net.initial(1).items() if n.startswith("0.")}
    assert set(found) == set(wanted)
    for name, ours in found.items():
        other = wanted[name]
        assert ours.shape == other.shape
        n, sigma = ours.size, other.std()
        summed = kind in ("LSTM", "RNN") and name == "bias"
        bound = (90 if kind == "Linear" else layer[2]) ** -0.5 * (2 if summed else 1)
        # the standard deviation of an estimate from n draws, four of them allowed
        assert abs(ours.mean()) < 4 * sigma / math.sqrt(n)
        assert abs(ours.std() / sigma - 1) < 4 * math.sqrt(2 / n)
        if kind == "Embedding":
            assert abs(sigma - 1) < 0.02
        else:
            assert np.abs(ours).max() <= bound
            assert np.abs(ours).max() > bound * (0.8 if summed else 0.98)
            exact = bound / math.sqrt(6 if summed else 3)
            assert abs(ours.std() / exact - 1) < 4 * math.sqrt(2 / n)
        # the shape of the distribution: a sum of two draws is a triangle
        quarter = (np.abs(ours) < np.abs(other).max() / 2).mean()
        assert abs(quarter - (np.abs(other) < np.abs(other).max() / 2).mean()) < 4 / math.sqrt(n)


def test_every_tensor_is_drawn_anew():
    weights = network([("LSTM", 5, 5), ("LSTM", 5, 5), ("Linear", 5, 2)]).initial(0)
    assert not np.array_equal(weights["0.weight_ih"], weights["1.weight_ih"])
    assert not np.array_equal(weights["0.weight_hh"], weights["0.weight_ih"])


def test_given_weights_are_the_initial_ones():
    weights = network(LSTM).initial(5)
    net = fptt.Network([fptt.LSTM(3, 5), fptt.Linear(5, 4)], weights)
    trainer = fptt.Trainer(fptt.build(net, fptt.BPTT(), steps=7, dtype="float64"), seed=9)
    assert_bits_equal(trainer.parameters(), weights, "weights")
