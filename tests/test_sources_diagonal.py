"""Diagonal RTRL, and e-prop of spiking cells; see test_sources.py for what the others share.

Float64, T >= 3, wide weights, one and two layers, sequences of unequal lengths.
"""

import json

import numpy as np
import pytest
from cases import (
    assert_bits_equal,
    assert_close,
    assert_gradients_equal,
    fptt_network,
    fptt_trainer,
)
from oracle import Oracle
from sources_oracle import mean_cosine
from test_sources import (
    BATCH,
    LENGTHS,
    OBJECTIVES,
    STEPS,
    WAYS,
    both,
    data,
    tbptt,
    total,
    wide,
)

import fptt
from fptt import cli
from fptt.experiments.compare import compare
from fptt.tasks import load

#: constants far from the defaults, and surrogates wide enough that no gradient vanishes
ALIF = dict(tau=4.0, tau_adaptation=9.0, threshold=0.7, beta=0.4, gamma=0.8, surrogate_width=1.5)
LIF = dict(tau=3.0, threshold=0.6, surrogate="triangle", gamma=0.5, surrogate_width=2.5)
LEAKY = dict(tau=2.5)

ONE = {
    "LRU": [("LRU", 3, 5), ("ReLU",), ("Linear", 10, 4)],
    "ElementwiseLSTM": [("ElementwiseLSTM", 3, 5), ("Linear", 5, 4)],
    "LeakyIntegrator": [("LeakyIntegrator", 3, 4, LEAKY)],
}
TWO = {
    "LRU-ReLU-Linear-ElementwiseLSTM-Linear": [
        ("LRU", 3, 4),
        ("ReLU",),
        ("Linear", 8, 3),
        ("ElementwiseLSTM", 3, 5),
        ("Linear", 5, 4),
    ],
    "Embedding-ElementwiseLSTM-LRU-Linear": [
        ("Embedding", 6, 3),
        ("ElementwiseLSTM", 3, 4),
        ("LRU", 4, 3),
        ("Linear", 6, 4),
    ],
    "ElementwiseLSTM-LeakyIntegrator": [
        ("ElementwiseLSTM", 2, 5),
        ("LeakyIntegrator", 5, 4, LEAKY),
    ],
}
SPIKING = {
    "ALIF-Linear": [("ALIF", 3, 6, ALIF), ("Linear", 6, 4)],
    "ALIF-LeakyIntegrator": [("ALIF", 3, 6, ALIF), ("LeakyIntegrator", 6, 4, LEAKY)],
    "Embedding-LIF-ALIF-LIF-LeakyIntegrator": [
        ("Embedding", 6, 3),
        ("LIF", 3, 6, LIF),
        ("ALIF", 6, 5, ALIF),
        ("LIF", 5, 4, LIF),
        ("LeakyIntegrator", 4, 3, LEAKY),
    ],
    "LSTM-ALIF-Linear": [("LSTM", 3, 4), ("ALIF", 4, 6, ALIF), ("Linear", 6, 4)],
}
objectives = pytest.mark.parametrize(
    ("loss", "criterion"), OBJECTIVES, ids=["-".join(one) for one in OBJECTIVES]
)


def assert_some(gradients):
    """No tensor's gradient is zero throughout, or nothing was compared."""
    assert all(np.abs(g).max() > 1e-6 for g in gradients.values()), gradients


# --- one layer: exact ----------


@pytest.mark.parametrize("source", ["diagonal", "ostl"])
@pytest.mark.parametrize("body", ONE)
@objectives
def test_one_layer_is_bptt(source, body, loss, criterion):
    """At K = 1, and summed over the parts."""
    layers = ONE[body]
    x, y = data(layers, loss, criterion)
    trainer, oracle = both(layers, tbptt(source), loss, criterion, oracle=Oracle)
    for lengths in (None, LENGTHS):
        found, wanted = (one.part_gradients(x, y, lengths) for one in (trainer, oracle))
        assert_gradients_equal(found, wanted, 1e-9)
    trainer, oracle = both(layers, tbptt(source, 3), loss, criterion, oracle=Oracle)
    for lengths in (None, LENGTHS):
        found, parts = total(trainer.part_gradients(x, y, lengths))
        full = oracle.full_gradient(x, y, lengths)
        assert parts > 1
        assert_some(found)
        assert_gradients_equal([found], [{n: g * parts for n, g in full.items()}], 1e-9)
        truncated, _ = total(oracle.part_gradients(x, y, lengths))
        assert any(
            np.linalg.norm(truncated[n] - found[n]) > 1e-3 * np.linalg.norm(found[n]) for n in found
        ), "nothing reaches back beyond a part, so nothing was tested"


@pytest.mark.parametrize("body", ONE)
def test_through_carried_state_it_is_bptt_over_all_sequences(body):
    """With state="carry" the traces go on into the next sequence: 2 x 7 steps are one of 14."""
    layers = ONE[body]
    rule = tbptt("diagonal", 1, state="carry")
    trainer, _ = both(layers, rule, "last", oracle=Oracle)
    x, y = data(layers, "last", "cross_entropy", 1)
    x2, y2 = data(layers, "last", "cross_entropy", 2)
    trainer.train_batch(x, y)  # lr = 0: moves state and traces only
    (found,) = trainer.part_gradients(x2, y2)
    whole = Oracle(
        layers, dict(kind="bptt"), ("sgd", dict(lr=0.0)), 2 * STEPS, parameters=wide(layers, 11)
    )
    (wanted,) = whole.part_gradients(np.concatenate((x, x2), axis=1), y2)
    assert_gradients_equal([found], [wanted], 1e-9)
    (short,) = both(layers, tbptt("diagonal"), "last")[0].part_gradients(x2, y2)
    assert any(np.linalg.norm(found[n] - short[n]) > 1e-3 for n in found)


# --- several layers and e-prop: autograd with the other paths cut ----------


@pytest.mark.parametrize(
    ("source", "body"), [("diagonal", n) for n in TWO] + [("eprop", n) for n in SPIKING]
)
@objectives
def test_autograd_with_the_other_paths_cut(source, body, loss, criterion):
    layers = {**TWO, **SPIKING}[body]
    trainer, oracle = both(layers, tbptt(source, 3), loss, criterion)
    x, y = data(layers, loss, criterion)
    for lengths in (None, LENGTHS):
        found, wanted = (one.part_gradients(x, y, lengths) for one in (trainer, oracle))
        assert_some(total(wanted)[0])
        assert_gradients_equal(found, wanted, 1e-10)


def test_the_cases_spike():
    """Otherwise resets, adaptation and W_hh would have no part in what is compared."""
    layers = SPIKING["ALIF-LeakyIntegrator"][:1]
    trainer = fptt_trainer(layers, dict(kind="bptt"), ("sgd", {}), STEPS, BATCH, "every_step")
    trainer.load_parameters(wide(SPIKING["ALIF-LeakyIntegrator"][:1], 11))
    z = trainer.predict(data(layers, "every_step", "mse")[0])
    assert set(np.unique(z)) == {0.0, 1.0}
    assert 0.1 < z.mean() < 0.9
    assert (z[:, 1:] * z[:, :-1]).any(), "no neuron spikes twice running"


@pytest.mark.parametrize(("cell", "constants"), [("ALIF", ALIF), ("LIF", LIF)], ids=["ALIF", "LIF"])
def test_eprop_is_exact_for_neurons_that_do_not_see_each_other(cell, constants):
    """With W_hh = 0, for all parameters but W_hh, it is BPTT."""
    layers = [(cell, 3, 6, constants), ("Linear", 6, 4)]
    weights = wide(layers, 11)
    weights["0.weight_hh"][:] = 0
    x, y = data(layers, "every_step", "mse")
    found, wanted = (
        fptt_trainer(
            layers,
            tbptt(source),
            ("sgd", {}),
            STEPS,
            BATCH,
            "every_step",
            "mse",
            parameters=weights,
        ).part_gradients(x, y, LENGTHS)[0]
        for source in ("eprop", "bptt")
    )
    assert_some(wanted)
    for name in ("0.weight_ih", "0.bias", "0.weight_hh", "1.weight"):
        assert_close(found[name], wanted[name], 1e-10, name)


@pytest.mark.parametrize(
    ("source", "layers", "low", "high"),
    [
        ("diagonal", TWO["LRU-ReLU-Linear-ElementwiseLSTM-Linear"], 0.8, 0.95),
        ("diagonal", TWO["ElementwiseLSTM-LeakyIntegrator"], 0.85, 0.98),
        ("eprop", SPIKING["ALIF-Linear"], 0.75, 0.95),
        ("eprop", SPIKING["ALIF-LeakyIntegrator"], 0.85, 0.98),
    ],
    ids=["LRU-ElementwiseLSTM", "ElementwiseLSTM-LeakyIntegrator", "ALIF", "ALIF-LeakyIntegrator"],
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


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("source", "body"),
    [
        ("diagonal", "LRU-ReLU-Linear-ElementwiseLSTM-Linear"),
        ("eprop", "ALIF-LeakyIntegrator"),
    ],
    ids=["diagonal", "eprop"],
)
@pytest.mark.parametrize("loss", ["last", "every_step", "auxiliary"])
def test_trajectories(source, body, way, loss):
    """Several updates, with traces that were computed with the weights of their time."""
    layers = {**TWO, **SPIKING}[body]
    kind, options, rule, more = WAYS[way]
    rule = dict(kind="fptt", parts=3, source=source, **rule)
    trainer, oracle = both(layers, rule, loss, "cross_entropy", (kind, options), **more)
    for seed, lengths in ((1, LENGTHS), (2, None), (3, [2, 6, 4])):
        x, y = data(layers, loss, "cross_entropy", seed)
        losses = [one.train_batch(x, y, lengths) for one in (trainer, oracle)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-9)
        if seed == 2:
            trainer.end_epoch(), oracle.end_epoch()
    state = trainer.state()
    for name, value in oracle.parameters().items():
        assert_close(trainer.parameters()[name], value, 1e-9, name)
    for name, value in oracle.state().items():
        assert_close(state[name], value, 1e-7, name, 1e-3)


# --- memory, work, who serves what ----------


def traced(layers, source, batch=1, **options):
    program = fptt.build(
        fptt.Network(layers), fptt.TBPTT(source=source), steps=9, batch=batch, **options
    )
    buffers = [b for b in program.buffers.values() if b.name.startswith("trace/")]
    used = {r.buffer.name for p in program.routines.values() for o, _ in p.ops() for r in o.refs}
    assert set(program.buffers) == used
    return sum(b.items for b in buffers)


def test_traces_take_what_the_theory_says():
    """One or two numbers per parameter and row."""
    assert traced([fptt.LRU(3, 5)], "diagonal") == 2 * 5 * (3 + 1 + 1)
    assert traced([fptt.LRU(3, 5)], "ostl") == traced([fptt.LRU(3, 5)], "diagonal")
    assert traced([fptt.ElementwiseLSTM(3, 5)], "diagonal", 4) == 4 * 2 * 20 * (3 + 1 + 1)
    assert traced([fptt.LeakyIntegrator(3, 5)], "diagonal") == 3 + 1
    assert traced([fptt.LIF(3, 5)], "eprop") == 3 + 5 + 1
    alif = 5 * (3 + 5 + 1) + (3 + 5 + 1)
    assert traced([fptt.ALIF(3, 5)], "eprop") == alif
    assert traced([fptt.ALIF(3, 5), fptt.LeakyIntegrator(5, 4)], "eprop") == alif + 5 + 1
    assert traced([fptt.ALIF(3, 5)], "eprop", train=["0.bias"]) == 5 + 1
    assert traced([fptt.LRU(3, 5)], "diagonal", train=["0.theta"]) == 2 * 5


STACKS = {
    "diagonal": [
        lambda n: [fptt.LRU(1, n), fptt.LRU(2 * n, n), fptt.Linear(2 * n, 2)],
        lambda n: [fptt.ElementwiseLSTM(1, n), fptt.ElementwiseLSTM(n, n), fptt.Linear(n, 2)],
    ],
    "eprop": [lambda n: [fptt.ALIF(1, n), fptt.LeakyIntegrator(n, 2)]],
}


@pytest.mark.parametrize(
    ("source", "stack"), [(source, one) for source, all in STACKS.items() for one in all]
)
def test_memory_and_work_grow_as_the_parameters(source, stack):
    """From n to 2n units: both by 4. From T to 2T steps: memory not at all, work by 2."""
    sizes = []
    for n, steps in ((256, 10), (512, 10), (256, 20)):
        net, rule = fptt.Network(stack(n)), fptt.TBPTT(source=source)
        program = fptt.build(net, rule, steps=steps)
        numbers = sum(b.items for b in program.buffers.values() if b.name[:5] == "trace")
        sizes.append((numbers, program.work().total("forward").mul))
    (memory, work), *grown = sizes
    assert np.log2([grown[0][0] / memory, grown[0][1] / work]) == pytest.approx([2, 2], abs=0.05)
    assert grown[1][0] == memory
    assert grown[1][1] / work == pytest.approx(2, abs=0.01)


@pytest.mark.parametrize(
    ("source", "body"), [("diagonal", n) for n in TWO] + [("eprop", "LSTM-ALIF-Linear")]
)
@pytest.mark.parametrize("loss", ["last", "every_step"])
def test_a_stream_learns_with_the_bits_of_a_batch(source, body, loss, tmp_path):
    """And goes on with them from a file that was written inside a part."""
    layers = {**TWO, **SPIKING}[body]
    x, y = data(layers, loss, "cross_entropy")
    y = np.abs(y)
    rule = fptt.FPTT(parts=3, source=source)
    program = fptt.build(fptt_network(layers), rule, steps=STEPS, batch=BATCH, loss=loss)
    batches, stream = (fptt.Trainer(program, seed=3) for _ in range(2))
    for _ in range(2):
        batches.train_batch(x, y)
        stream.begin_sequence()
        for t in range(STEPS):
            if t == 5:  # parts are 2, 2 and 3 steps long
                stream.save(tmp_path / "state")
                stream = fptt.load(tmp_path / "state")
            stream.step(x[:, t], y[:, t] if loss == "every_step" else y)
    assert_bits_equal(stream.parameters(), batches.parameters(), "parameters")
    ours, theirs = stream.state(), batches.state()
    ours.pop("random", None), theirs.pop("random", None)
    assert_bits_equal(ours, theirs, "state")


def test_who_does_not_serve_it():
    message = (
        r"^build: layer 0 is a ALIF, which has no diagonal RTRL; choose a source that it serves "
        r'\("bptt", "eprop"\), or train only layers above it$'
    )
    with pytest.raises(fptt.InputError, match=message):
        fptt.build(
            fptt.Network([fptt.ALIF(3, 5), fptt.LeakyIntegrator(5, 2)]),
            fptt.TBPTT(source="diagonal"),
            steps=4,
        )


# --- fptt compare ----------


def test_compare_measures_that_diagonal_is_exact_and_grows_with_the_parameters():
    task = load("add", steps=12, n_train=4, n_test=1)
    net = fptt.Network([fptt.LRU(2, 6), fptt.ReLU(), fptt.Linear(12, 1)])
    [row] = compare(task, net, [("diagonal", 3)], timed=False, grow=False)
    assert row.whole.cosine == pytest.approx(1, abs=1e-12)
    assert row.whole.norm_ratio == pytest.approx(1, abs=1e-12)
    deep = [fptt.ElementwiseLSTM(2, 64), fptt.ElementwiseLSTM(64, 64), fptt.Linear(64, 1)]
    spiking = [fptt.ALIF(2, 64), fptt.LeakyIntegrator(64, 1)]
    for layers, source in ((deep, "diagonal"), (spiking, "eprop")):
        [row] = compare(task, fptt.Network(layers), [(source, 4)], timed=False)
        growth = row.growth
        assert growth.memory_width == pytest.approx(2, abs=0.15)
        assert growth.work_width == pytest.approx(2, abs=0.15)
        assert growth.memory_steps == pytest.approx(0, abs=1e-9)
        assert growth.work_steps == pytest.approx(1, abs=0.1)
        assert growth.memory_parts == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("cell", "sources"), [("lru", "bptt,diagonal"), ("alif", "eprop")])
def test_compare_on_the_command_line(cell, sources, capsys):
    arguments = ["--subset", "--limit", "5", "--hidden", "4", "--source", sources, "--json"]
    assert cli.main(["compare", "--cell", cell, *arguments]) == 0
    rows = {(row["source"], row["parts"]): row for row in json.loads(capsys.readouterr().out)}
    if cell == "lru":
        assert rows["diagonal", 4]["whole"]["cosine"] == pytest.approx(1, abs=1e-12)
        assert rows["bptt", 4]["whole"]["cosine"] < 1 - 1e-4
    else:
        assert 0.1 < rows["eprop", 4]["whole"]["cosine"] < 1 - 1e-4
        assert rows["eprop", 4]["growth"]["memory_width"] is not None
