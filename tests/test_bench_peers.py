"""The peers that fptt is timed against compute the same training."""

import os

import numpy as np
import pytest

import fptt
from fptt.bench.torch_peer import TorchPeer

INPUTS, HIDDEN, CLASSES, BATCH = 3, 5, 4, 3
LAYERS = {"lstm": fptt.LSTM, "gru": fptt.GRU, "rnn": fptt.RNN}


def compare(make, cell, layers, rule, *, steps, parts, inputs=INPUTS, batch=BATCH, **setting):
    """Trains a peer and the reference for some batches, and asserts equal parameters.

    Args:
        make: of the peer.
        setting: lr, momentum, alpha, beta; the peer and the reference take the same.
    """
    options = {
        "lr": 0.1 if cell == "rnn" else 0.5,
        "momentum": 0.9,
        "alpha": 0.3,
        "beta": 0.5,
        **setting,
    }
    widths = [inputs] + [HIDDEN] * layers
    net = fptt.Network(
        [LAYERS[cell](widths[n], HIDDEN) for n in range(layers)] + [fptt.Linear(HIDDEN, CLASSES)]
    )
    rules = {
        "fptt": fptt.FPTT(parts=parts, alpha=options["alpha"], beta=options["beta"]),
        "tbptt": fptt.TBPTT(parts=parts),
        "bptt": fptt.BPTT(),
    }
    optimizer = fptt.SGD(lr=options["lr"], momentum=options["momentum"])
    trainer = fptt.Trainer(fptt.build(net, rules[rule], optimizer, steps=steps, batch=batch))
    sizes = (inputs, HIDDEN, layers, CLASSES, steps, batch, parts)
    peer = make(cell, *sizes, rule, **options)
    rng = np.random.default_rng(7)
    for seed in (1, 2):  # loading starts learning anew
        start = fptt.Trainer(trainer.program, seed=seed).parameters()
        trainer.load_parameters(start)
        peer.load(start)
        for name, value in peer.parameters().items():
            np.testing.assert_array_equal(value, start[name])
        for _ in range(5):
            x = rng.standard_normal((batch, steps, inputs)).astype(np.float32)
            y = rng.integers(0, CLASSES, batch)
            trainer.train_batch(x, y)
            peer.train_batch(x, y)
        expected, found = trainer.parameters(), peer.parameters()
        assert set(found) == set(expected)
        for name, value in expected.items():
            distance = np.linalg.norm(found[name] - value)
            assert distance <= 1e-5 * np.linalg.norm(value), name
            assert np.linalg.norm(start[name] - value) > 1e-2 * np.linalg.norm(value), name


def torch_peer(form):
    def make(*arguments, **options):
        peer = TorchPeer(*arguments, form=form, **options)
        assert peer.form == form
        return peer

    return make


@pytest.mark.parametrize("form", ["sequence", "steps"])
@pytest.mark.parametrize("rule", ["fptt", "tbptt"])
@pytest.mark.parametrize("cell", LAYERS)
def test_torch_in_unequal_parts(cell, rule, form):
    compare(torch_peer(form), cell, 2, rule, steps=11, parts=4)


@pytest.mark.parametrize("form", ["sequence", "steps"])
@pytest.mark.parametrize("rule", ["fptt", "tbptt"])
def test_torch_without_momentum(rule, form):
    compare(torch_peer(form), "lstm", 1, rule, steps=7, parts=7, momentum=0.0)


@pytest.mark.parametrize("beta", [0.3, 0.8, 1.0])
def test_torch_with_other_beta(beta):
    compare(torch_peer("steps"), "lstm", 1, "fptt", steps=7, parts=3, beta=beta)


def test_torch_bptt():
    compare(torch_peer("sequence"), "lstm", 1, "bptt", steps=7, parts=1)


@pytest.mark.parametrize("cell", LAYERS)
def test_torch_chooses_a_form_and_starts_clean(cell):
    def make(*arguments, **options):
        peer = TorchPeer(*arguments, **options)
        assert peer.form in ("sequence", "steps")
        return peer

    compare(make, cell, 1, "fptt", steps=6, parts=2, inputs=1, batch=1)


@pytest.mark.parametrize("rule", ["bttp", "", None])
def test_torch_refuses_other_rules(rule):
    with pytest.raises(ValueError, match=r"choose fptt, bptt or tbptt"):
        TorchPeer("lstm", 1, 2, 1, 2, 4, 1, 2, rule)


@pytest.fixture(scope="module")
def jax_peer():
    """The class, with jax on the CPU; skipped where jax is not installed."""
    from fptt.bench.jax_peer import JaxPeer, environment

    for name, value in environment(1).items():
        os.environ.setdefault(name, value)
    pytest.importorskip("jax")
    return JaxPeer


@pytest.mark.parametrize("parts", [1, 3, 12])
@pytest.mark.parametrize("rule", ["fptt", "tbptt"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_jax(jax_peer, cell, rule, parts):
    compare(jax_peer, cell, 1, rule, steps=12, parts=parts)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize(("inputs", "batch"), [(1, 1), (1, 3), (3, 1), (1, 33)])
def test_jax_of_other_sizes(jax_peer, cell, inputs, batch):
    compare(jax_peer, cell, 1, "fptt", steps=12, parts=4, inputs=inputs, batch=batch)


@pytest.mark.parametrize("setting", [{"momentum": 0.0}, {"beta": 0.3}, {"transposed": False}])
def test_jax_with_other_settings(jax_peer, setting):
    def make(*arguments, **options):
        return jax_peer(*arguments, **options)

    compare(make, "lstm", 1, "fptt", steps=12, parts=4, **setting)


@pytest.mark.parametrize("rule", ["tbptt", "fptt"])
def test_jax_without_momentum(jax_peer, rule):
    compare(jax_peer, "gru", 1, rule, steps=6, parts=2, momentum=0.0)


@pytest.mark.parametrize(
    ("cell", "layers", "steps", "parts"),
    [("rnn", 1, 12, 4), ("lstm", 2, 12, 4), ("lstm", 1, 11, 4)],
)
def test_jax_refuses_what_it_cannot(cell, layers, steps, parts):
    from fptt.bench.jax_peer import JaxPeer

    with pytest.raises(ValueError, match="one layer of lstm or gru, in parts of equal length"):
        JaxPeer(cell, 1, 5, layers, 4, steps, 2, parts, "fptt")


def test_jax_refuses_other_rules():
    from fptt.bench.jax_peer import JaxPeer

    with pytest.raises(ValueError, match=r"choose fptt, bptt or tbptt"):
        JaxPeer("lstm", 1, 5, 1, 4, 12, 2, 4, "rtrl")


def test_jax_environment():
    from fptt.bench.jax_peer import environment

    assert environment(1) == {
        "JAX_PLATFORMS": "cpu",
        "NPROC": "1",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    }
    assert environment(4)["NPROC"] == "4"
    assert "eigen=true intra_op_parallelism_threads=4" in environment(4)["XLA_FLAGS"]
