"""Gradient sources besides BPTT: RTRL, OSTL, e-prop.

Float64, T >= 3, weights within +-2, two layers and more, sequences of unequal lengths.
"""

import numpy as np
import pytest
from cases import (
    assert_close,
    assert_gradients_equal,
    fptt_trainer,
    random_data,
)
from oracle import Oracle, parameter_shapes
from sources_oracle import ForwardOracle, mean_cosine

STEPS, BATCH = 7, 3
LENGTHS = [5, 7, 2]
TWO = [("LSTM", 3, 5), ("LSTM", 5, 4), ("Linear", 4, 6)]
BODIES = {
    "LSTM-LSTM-Linear": TWO,
    "GRU-RNN-Linear": [("GRU", 3, 4), ("RNN", 4, 5), ("Linear", 5, 6)],
    "RNN-GRU": [("RNN", 2, 5), ("GRU", 5, 4)],
    "Embedding-LSTM-ReLU-GRU-Linear": [
        ("Embedding", 6, 3),
        ("LSTM", 3, 4),
        ("ReLU",),
        ("GRU", 4, 5),
        ("Linear", 5, 4),
    ],
    "Linear-ReLU-RNN-Linear-LSTM-Linear-ReLU-Linear": [
        ("Linear", 2, 3),
        ("ReLU",),
        ("RNN", 3, 4),
        ("Linear", 4, 3),
        ("LSTM", 3, 5),
        ("Linear", 5, 7),
        ("ReLU",),
        ("Linear", 7, 4),
    ],
}
OBJECTIVES = [
    ("last", "cross_entropy"),
    ("every_step", "mse"),
    ("every_step", "cross_entropy"),
    ("auxiliary", "cross_entropy"),
]
names = pytest.mark.parametrize("body", BODIES)
objectives = pytest.mark.parametrize(
    ("loss", "criterion"), OBJECTIVES, ids=["-".join(one) for one in OBJECTIVES]
)


def wide(layers, seed):
    """Weights within +-2: gates that saturate, states that the past moves."""
    rng = np.random.default_rng(seed)
    return {n: rng.uniform(-2, 2, shape) for n, shape in parameter_shapes(layers).items()}


def data(layers, loss, criterion, seed=5):
    x, y = random_data(layers, BATCH, STEPS, loss, criterion, seed)
    if loss == "every_step" and criterion == "cross_entropy":
        y[np.random.default_rng(seed).random(y.shape) < 0.3] = -1
    return x, y


def both(layers, rule, loss="last", criterion="cross_entropy", optimizer=None, oracle=None, **more):
    """Our trainer and an oracle, from the same wide weights."""
    parameters = wide(layers, 11)
    optimizer = optimizer or ("sgd", dict(lr=0.0))
    options = dict(loss=loss, criterion=criterion, **more)
    trainer = fptt_trainer(layers, rule, optimizer, STEPS, BATCH, parameters=parameters, **options)
    make = oracle or (Oracle if rule.get("source", "bptt") == "bptt" else ForwardOracle)
    return trainer, make(layers, rule, optimizer, STEPS, parameters=parameters, **options)


def tbptt(source, parts=1, **options):
    return dict(kind="tbptt", parts=parts, source=source, **options)


def total(gradients):
    """The sum over the parts."""
    counted = [g for g in gradients if g is not None]
    return {name: sum(g[name] for g in counted) for name in counted[0]}, len(counted)


# --- RTRL is exact ----------


@names
@objectives
def test_rtrl_in_one_part_is_bptt(body, loss, criterion):
    layers = BODIES[body]
    trainer, oracle = both(layers, tbptt("rtrl"), loss, criterion, oracle=Oracle)
    x, y = data(layers, loss, criterion)
    for lengths in (None, LENGTHS):
        found, wanted = (one.part_gradients(x, y, lengths) for one in (trainer, oracle))
        assert_gradients_equal(found, wanted, 1e-9)


@names
@objectives
def test_rtrl_summed_over_the_parts_is_full_bptt(body, loss, criterion):
    layers = BODIES[body]
    trainer, oracle = both(layers, tbptt("rtrl", 3), loss, criterion, oracle=Oracle)
    x, y = data(layers, loss, criterion)
    for lengths in (None, LENGTHS):
        found, parts = total(trainer.part_gradients(x, y, lengths))
        wanted = oracle.full_gradient(x, y, lengths)
        assert parts > 1
        assert_gradients_equal([found], [{n: g * parts for n, g in wanted.items()}], 1e-9)
        truncated, _ = total(oracle.part_gradients(x, y, lengths))
        assert any(
            np.linalg.norm(truncated[n] - found[n]) > 1e-3 * np.linalg.norm(found[n]) for n in found
        ), "nothing reaches back beyond a part, so nothing was tested"


def test_rtrl_through_carried_state_is_bptt_over_both_sequences():
    """With state="carry" the traces go on, so the gradient reaches into the sequence before."""
    trainer, oracle = both(TWO, tbptt("rtrl", 2, state="carry"), "last")
    for seed, lengths in ((1, LENGTHS), (2, [3, 6, 7]), (3, None)):
        x, y = data(TWO, "last", "cross_entropy", seed)
        found = trainer.part_gradients(x, y, lengths)
        assert_gradients_equal(found, oracle.part_gradients(x, y, lengths), 1e-9)
        trainer.train_batch(x, y, lengths)  # lr = 0: moves state and traces only


@pytest.mark.parametrize("loss", ["last", "every_step"])
def test_rtrl_with_dropout_inside_the_body(loss):
    """Against our own BPTT, which draws the same masks."""
    layers = [
        ("Linear", 2, 3),
        ("ReLU",),
        ("Dropout", 0.4),
        ("LSTM", 3, 4),
        ("Dropout", 0.3),
        ("GRU", 4, 5),
        ("Dropout", 0.5),
        ("Linear", 5, 4),
    ]
    x, y = data(layers, loss, "cross_entropy")
    found, wanted = (
        both(layers, tbptt(source), loss, oracle=Oracle)[0].part_gradients(x, y, LENGTHS)
        for source in ("rtrl", "bptt")
    )
    assert_gradients_equal(found, wanted, 1e-9)


@pytest.mark.parametrize("source", ["rtrl", "ostl", "eprop"])
@pytest.mark.parametrize("loss", ["last", "every_step"])
@pytest.mark.parametrize(
    "train", [["0.weight_hh"], ["1.*"], ["2.*"], ["0.bias", "2.weight"], ["*.weight_ih"]], ids=str
)
def test_a_part_of_the_parameters(source, loss, train):
    """What trains has the gradient that it has when all train; the rest costs no trace."""
    x, y = data(TWO, loss, "cross_entropy")
    rule = tbptt(source, 2)
    some, everything = (
        fptt_trainer(
            TWO,
            rule,
            ("sgd", {}),
            STEPS,
            BATCH,
            loss=loss,
            parameters=wide(TWO, 11),
            build=dict(train=names),
        )
        for names in (train, ["*"])
    )
    found, wanted = (one.part_gradients(x, y, LENGTHS) for one in (some, everything))
    for ours, theirs in zip(found, wanted, strict=True):
        assert set(ours) == set(some.program.trained) < set(theirs)
        for name in ours:
            assert_close(ours[name], theirs[name], 1e-12, name)
    layers_below_train = any(name[0] in "01" for name in some.program.trained)
    assert bool(some.program.carried[4:]) == layers_below_train
    assert (
        some.program.memory().categories["rule_state"]
        < everything.program.memory().categories["rule_state"]
    )


# --- what the others leave out ----------


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
@objectives
def test_ostl_is_exact_for_one_layer(cell, loss, criterion):
    layers = [(cell, 3, 5), ("Linear", 5, 4)]
    x, y = data(layers, loss, criterion)
    trainer, oracle = both(layers, tbptt("ostl"), loss, criterion, oracle=Oracle)
    found, wanted = (one.part_gradients(x, y, LENGTHS) for one in (trainer, oracle))
    assert_gradients_equal(found, wanted, 1e-9)
    trainer, oracle = both(layers, tbptt("ostl", 3), loss, criterion, oracle=Oracle)
    found, parts = total(trainer.part_gradients(x, y, LENGTHS))
    full = oracle.full_gradient(x, y, LENGTHS)
    assert_gradients_equal([found], [{n: g * parts for n, g in full.items()}], 1e-9)


#: bodies that serve e-prop; those of feed-forward layers learn from the present step
LSTMS = {
    "LSTM-LSTM-Linear": TWO,
    "LSTM": [("LSTM", 3, 5)],
    "Embedding-LSTM-Linear-ReLU-LSTM-Linear": [
        ("Embedding", 6, 3),
        ("LSTM", 3, 4),
        ("Linear", 4, 3),
        ("ReLU",),
        ("LSTM", 3, 5),
        ("Linear", 5, 4),
    ],
}


@pytest.mark.parametrize(
    ("source", "body"), [("ostl", n) for n in BODIES] + [("eprop", n) for n in LSTMS]
)
@objectives
def test_local_sources_are_autograd_with_the_other_paths_cut(source, body, loss, criterion):
    layers = {**BODIES, **LSTMS}[body]
    trainer, oracle = both(layers, tbptt(source, 3), loss, criterion)
    x, y = data(layers, loss, criterion)
    for lengths in (None, LENGTHS):
        found, wanted = (one.part_gradients(x, y, lengths) for one in (trainer, oracle))
        assert_gradients_equal(found, wanted, 1e-10)


@pytest.mark.parametrize(
    ("source", "layers", "low", "high"),
    [
        ("ostl", TWO, 0.7, 0.95),
        ("eprop", TWO, 0.7, 0.95),
        ("eprop", [("LSTM", 3, 5), ("Linear", 5, 6)], 0.85, 0.985),
        ("ostl", BODIES["GRU-RNN-Linear"], 0.6, 0.9),
    ],
    ids=["OSTL LSTM-LSTM", "e-prop LSTM-LSTM", "e-prop LSTM", "OSTL GRU-RNN"],
)
@pytest.mark.parametrize("loss", ["last", "every_step"])
def test_alignment_of_what_approximates(source, layers, low, high, loss):
    """The mean cosine to BPTT over several draws lies in a band: useful, and not BPTT itself."""
    trainers = (
        fptt_trainer(layers, tbptt(one), ("sgd", {}), STEPS, BATCH, loss=loss)
        for one in ("bptt", source)
    )
    batches = [data(layers, loss, "cross_entropy", seed) for seed in range(8)]
    mean = mean_cosine(*trainers, layers, batches, LENGTHS)
    assert low < mean < high, mean


# --- inside the wrapper ----------

WAYS = {
    "SGD, FPTT": ("sgd", dict(lr=0.1), dict(alpha=0.3), {}),
    "momentum, paper, clip": (
        "sgd",
        dict(lr=0.1, momentum=0.9),
        dict(mode="paper"),
        dict(clip=0.5),
    ),
    "Adam, carry": ("adam", dict(lr=0.01), dict(state="carry"), {}),
    "SGD, no R": ("sgd", dict(lr=0.1), dict(regularise=False), {}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("source", ["rtrl", "ostl", "eprop"])
@objectives
def test_trajectories(source, way, loss, criterion):
    """Several updates, with traces that were computed with the weights of their time."""
    kind, options, rule, more = WAYS[way]
    rule = dict(kind="fptt", parts=3, source=source, **rule)
    trainer, oracle = both(TWO, rule, loss, criterion, (kind, options), **more)
    for seed, lengths in ((1, LENGTHS), (2, None), (3, [2, 6, 4])):
        x, y = data(TWO, loss, criterion, seed)
        losses = [one.train_batch(x, y, lengths) for one in (trainer, oracle)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-9)
        if seed == 2:
            trainer.end_epoch(), oracle.end_epoch()
    state = trainer.state()
    for name, value in oracle.parameters().items():
        assert_close(trainer.parameters()[name], value, 1e-9, name)
    for name, value in oracle.state().items():
        assert_close(state[name], value, 1e-7, name, 1e-3)
