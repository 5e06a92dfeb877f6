"""build(adapters=..): W + up down in place of W, which stays as it is; gradients, state, files.

The reference is the PyTorch oracle with W + up @ down formed, which fptt never does.
"""

import re
from fnmatch import fnmatchcase

import numpy as np
import pytest
import torch
from cases import (
    STACKS,
    TOLERANCE,
    assert_bits_equal,
    assert_close,
    assert_gradients_equal,
    assert_trainers_equal,
    fptt_network,
    fptt_rule,
    grid,
    random_data,
    random_parameters,
)
from oracle import Oracle

import fptt
from fptt.program.ir import Role
from fptt.storage.modelfile import load_model
from fptt.training.inference import Inference

CELLS = ["LSTM", "GRU", "RNN"]
NO_STEP = ("sgd", dict(lr=0.0))
ENDS = [("reference", "float64"), ("native", "float32")]
#: networks with every place where an adapter can sit, and ranks there
NETWORKS = {
    **{
        f"{cell}-Linear": ([(cell, 6, 7), ("Linear", 7, 5)], {"0.weight_*": 2, "1.weight": 1})
        for cell in CELLS
    },
    "two recurrent layers": (
        [("GRU", 4, 7), ("Linear", 7, 6), ("ReLU",), ("LSTM", 6, 5), ("Linear", 5, 4)],
        {"*.weight_*h": 2, "1.weight": 3, "4.weight": 1},
    ),
    "embedding": ([("Embedding", 9, 5), ("LSTM", 5, 6), ("Linear", 6, 9)], {"1.*": 1}),
    "two linear layers on top": (
        [("RNN", 3, 7), ("Linear", 7, 8), ("ReLU",), ("Linear", 8, 5)],
        {"*.weight": 2, "0.weight_hh": 3},
    ),
    "recurrent on top": ([("Linear", 5, 6), ("GRU", 6, 5)], {"0.weight": 2, "1.weight_hh": 3}),
}


class AdaptedOracle(Oracle):
    """Trains the factors, and what `train` names of the rest."""

    def __init__(self, layers, rule, optimizer, steps, *, trained, adapters, parameters, **options):
        own = {n: v for n, v in parameters.items() if not n.endswith((".up", ".down"))}
        super().__init__(layers, rule, optimizer, steps, parameters=own, **options)
        tensors = {n: torch.tensor(np.array(v), dtype=self.dtype) for n, v in parameters.items()}
        self.fixed = {n: v for n, v in tensors.items() if n not in trained}
        self.theta = {n: tensors[n].clone().requires_grad_(True) for n in trained}
        self.mean = {n: v.detach().clone() for n, v in self.theta.items()}
        self.lam = {n: torch.zeros_like(v) for n, v in self.mean.items()}
        kind, options = optimizer
        make = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[kind]
        self.optimizer = make(list(self.theta.values()), **options)
        self.adapters = adapters

    def weights(self):
        tensors = {**self.fixed, **self.theta}
        for name in self.adapters:
            change = tensors.pop(f"{name}.up") @ tensors.pop(f"{name}.down")
            tensors[name] = tensors[name] + change
        return tensors


def random_weights(net, seed):
    """Of the network and of its adapters; `up` too is not zero, or ddown would be."""
    rng = np.random.default_rng(seed)
    return {n: grid(rng.uniform(-0.8, 0.8, p.shape)) for n, p in net.parameters.items()}


def build(layers, adapters, rule, optimizer=NO_STEP, steps=7, batch=3, **options):
    kind, its = optimizer
    return fptt.build(
        fptt_network(layers),
        fptt_rule(rule),
        {"sgd": fptt.SGD, "adam": fptt.Adam}[kind](**its),
        steps=steps,
        batch=batch,
        adapters=adapters,
        **options,
    )


def pair(layers, adapters, rule, optimizer, steps, batch, *, backend, loss="last", **options):
    """A trainer and an oracle with the same weights, the factors among them."""
    clip = options.get("clip")
    program = build(layers, adapters, rule, optimizer, steps, batch, loss=loss, **options)
    weights = random_weights(program.net, 1)
    trainer = fptt.Trainer(program, backend)
    trainer.load_parameters({n: v.astype(program.dtype) for n, v in weights.items()})
    oracle = AdaptedOracle(
        layers,
        rule,
        optimizer,
        steps,
        trained=program.trained,
        adapters=program.net.adapters,
        parameters=weights,
        loss=loss,
        clip=clip,
    )
    return trainer, oracle


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize(("backend", "dtype"), ENDS)
@pytest.mark.parametrize("train", [(), ("*",)], ids=["alone", "with the rest"])
@pytest.mark.parametrize("lengths", [None, [7, 2, 4]], ids=["equal", "unequal"])
@pytest.mark.parametrize("loss", ["last", "every_step"])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients(name, loss, lengths, train, backend, dtype, recompute):
    layers, adapters = NETWORKS[name]
    rule = dict(kind="tbptt", parts=2)
    options = dict(backend=backend, dtype=dtype, loss=loss, train=train, recompute=recompute)
    trainer, oracle = pair(layers, adapters, rule, NO_STEP, 7, 3, **options)
    x, y = random_data(layers, 3, 7, loss, "cross_entropy", seed=3)
    found = trainer.part_gradients(x, y, lengths)
    factors = {f"{n}.{f}" for n in trainer.program.net.adapters for f in ("up", "down")}
    rest = {n for n in random_parameters(layers, 0) if n not in trainer.program.net.adapters}
    assert set(trainer.program.trained) == factors | (rest if train else set())
    assert_gradients_equal(found, oracle.part_gradients(x, y, lengths), TOLERANCE[dtype])


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("clip", [None, 0.3], ids=["unclipped", "clipped"])
@pytest.mark.parametrize(("backend", "dtype"), ENDS)
@pytest.mark.parametrize(
    "optimizer", [("sgd", dict(lr=0.1, momentum=0.9)), ("adam", dict(lr=0.02))]
)
@pytest.mark.parametrize("cell", CELLS)
def test_trajectories(cell, optimizer, backend, dtype, clip, recompute):
    """Factors, lambda, running mean and moments after three batches; the matrices never move."""
    layers, adapters = NETWORKS[f"{cell}-Linear"]
    rule = dict(parts=3, alpha=0.4)
    options = dict(backend=backend, dtype=dtype, train="*.bias*", clip=clip, recompute=recompute)
    trainer, oracle = pair(layers, adapters, rule, optimizer, 11, 5, **options)
    before = trainer.parameters()
    kind = f"{dtype} adam" if optimizer[0] == "adam" and dtype == "float32" else dtype
    for number, lengths in enumerate([None, [11, 1, 4, 8, 3], [2, 11, 5, 4, 4]]):
        x, y = random_data(layers, 5, 11, "last", "cross_entropy", seed=100 + number)
        found = trainer.train_batch(x, y, lengths)
        wanted = oracle.train_batch(x, y, lengths)
        assert found == pytest.approx(wanted, rel=10 * TOLERANCE[kind])
    after = trainer.parameters()
    for name in trainer.program.net.adapters:
        assert np.array_equal(after[name], before[name])
    trained = {n: after[n] for n in trainer.program.trained}
    trainer.parameters = lambda: trained
    assert_trainers_equal(trainer, oracle, TOLERANCE[kind])


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("cell", CELLS)
def test_gradient_is_the_central_difference_of_the_loss(cell, recompute):
    layers, adapters = NETWORKS[f"{cell}-Linear"]
    program = build(
        layers, adapters, dict(kind="bptt"), dtype="float64", train=(), recompute=recompute
    )
    theta = random_weights(program.net, 9)
    trainer = fptt.Trainer(program, "reference")
    trainer.load_parameters(theta)
    x, y = random_data(layers, 3, 7, "last", "cross_entropy", seed=10)
    (found,) = trainer.part_gradients(x, y, [7, 1, 3])
    rng = np.random.default_rng(11)
    for name in program.trained:
        for flat in rng.choice(theta[name].size, 3, replace=False):
            losses = []
            for sign in (1, -1):
                moved = {k: v.copy() for k, v in theta.items()}
                moved[name].flat[flat] += sign * 1e-5
                trainer.load_parameters(moved)
                losses.append(trainer.train_batch(x, y, [7, 1, 3]))
            numeric = (losses[0] - losses[1]) / 2e-5
            assert found[name].flat[flat] == pytest.approx(numeric, rel=1e-6, abs=1e-9), name


def test_long_parts_and_wide_batches_take_the_other_way():
    """dz is kept at all steps where that is smaller than the gradient of `down`, else one step."""
    layers, adapters = [("LSTM", 6, 7), ("Linear", 7, 5)], {"0.weight_*": 2}
    few, many = (
        build(layers, adapters, dict(kind="bptt"), steps=steps, batch=2, recompute=True, train=())
        for steps in (3, 11)
    )
    assert few.buffers["0.weight_hh.dz"].steps == 3
    assert "grad/0.weight_hh.down" not in few.buffers
    assert many.buffers["0.weight_hh.dz"].steps == 0
    assert "grad/0.weight_hh.down" in many.buffers
    for steps in (3, 11):
        for backend, dtype in ENDS:
            options = dict(backend=backend, dtype=dtype, train=(), recompute=True)
            rule = dict(kind="bptt")
            trainer, oracle = pair(layers, adapters, rule, NO_STEP, steps, 2, **options)
            x, y = random_data(layers, 2, steps, "last", "cross_entropy", seed=4)
            for lengths in (None, [steps, 2]):
                assert_gradients_equal(
                    trainer.part_gradients(x, y, lengths),
                    oracle.part_gradients(x, y, lengths),
                    TOLERANCE[dtype],
                )


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("cell", CELLS)
def test_bfloat16(cell, recompute):
    """Gradients to its precision, and the same on both back ends."""
    layers, adapters = NETWORKS[f"{cell}-Linear"]
    x, y = random_data(layers, 5, 11, "last", "cross_entropy", seed=6)
    found = {}
    for backend, dtype in [("reference", "float64"), ("reference", "bfloat16"), ("native", None)]:
        program = build(
            *(layers, adapters, dict(parts=3), NO_STEP, 11, 5),
            dtype=dtype or "bfloat16",
            recompute=recompute,
            train=(),
        )
        trainer = fptt.Trainer(program, backend)
        trainer.load_parameters(
            {n: v.astype("float32") for n, v in random_weights(program.net, 2).items()}
        )
        found[backend, dtype] = trainer.part_gradients(x, y, [11, 1, 4, 8, 3])
    exact, reference, native = found.values()
    assert_gradients_equal(reference, exact, 0.05)
    assert_gradients_equal(native, reference, 0.03)


# -- what is drawn, kept and written -------------------------------------------------------------


def adapted(**options):
    return build(
        [("LSTM", 3, 7), ("Linear", 7, 4)],
        {"0.weight_hh": 2},
        dict(parts=3),
        ("sgd", dict(lr=0.3)),
        11,
        5,
        train=["1.*"],
        **options,
    )


def trained(**options):
    trainer = fptt.Trainer(adapted(**options), seed=5)
    for number in range(3):
        trainer.train_batch(*data(number))
    return trainer


def data(seed=0):
    return random_data([("LSTM", 3, 7), ("Linear", 7, 4)], 5, 11, "last", "cross_entropy", seed)


def test_at_first_nothing_is_changed():
    """`up` is zero, and with and without adapters one seed draws the same weights."""
    program = adapted()
    plain = fptt.Trainer(
        fptt.build(fptt_network([("LSTM", 3, 7), ("Linear", 7, 4)]), fptt.FPTT(parts=3), steps=11),
        seed=5,
    )
    trainer = fptt.Trainer(program, seed=5)
    theta = trainer.parameters()
    assert list(theta)[-2:] == ["0.weight_hh.down", "0.weight_hh.up"]
    assert not theta["0.weight_hh.up"].any()
    down = theta["0.weight_hh.down"]
    assert down.shape == (2, 7) and 0 < np.abs(down).max() <= 7**-0.5
    assert np.unique(down).size == down.size
    assert_bits_equal({n: theta[n] for n in plain.parameters()}, plain.parameters(), "weights")
    x, _ = data()
    assert np.array_equal(trainer.predict(x), plain.predict(x))
    other = fptt.Trainer(program, seed=6).parameters()["0.weight_hh.down"]
    assert not np.array_equal(down, other)


def test_only_what_trains_has_memory_of_its_own():
    program = adapted(keep_gradients=True)
    names = ["1.weight", "1.bias", "0.weight_hh.down", "0.weight_hh.up"]
    assert program.trained == tuple(names)
    for kind in ("grad", "lambda", "mean"):
        assert [n for n in program.buffers if n.startswith(kind)] == [f"{kind}/{n}" for n in names]
    frozen = [b.name for b in program.buffers.values() if b.role == Role.FROZEN]
    assert frozen == ["0.weight_ih", "0.weight_hh", "0.bias"]
    matrices = [b.inner for b in program.buffers.values() if b.inner == (28, 7)]
    assert len(matrices) == 1, "W + up down is never formed"


def test_merged_parameters_compute_the_same():
    for dtype in ("float32", "float64"):
        trainer = fptt.Trainer(adapted(dtype=dtype), seed=5)
        given = random_weights(trainer.program.net, 4)
        trainer.load_parameters({n: v.astype(dtype) for n, v in given.items()})
        merged = trainer.merged_parameters()
        net = fptt_network([("LSTM", 3, 7), ("Linear", 7, 4)])
        assert list(merged) == list(net.parameters)
        theta = trainer.parameters()
        change = theta["0.weight_hh.up"] @ theta["0.weight_hh.down"]
        assert np.abs(change).max() > 0.1
        assert_close(merged["0.weight_hh"], theta["0.weight_hh"] + change, 1e-6, "merged")
        assert merged["0.weight_hh"].dtype == theta["0.weight_hh"].dtype
        plain = fptt.Trainer(
            fptt.build(fptt.Network(net.layers, merged), fptt.BPTT(), steps=11, dtype=dtype)
        )
        x, _ = data()
        assert_close(plain.predict(x), trainer.predict(x), TOLERANCE[dtype], "predictions")


def test_an_inference_program_of_another_batch():
    trainer = trained()
    x, y = data()
    wide = np.concatenate([x] * 60)
    assert_close(trainer.predict(wide)[-5:], trainer.predict(x), 1e-6, "predictions")
    found = trainer.evaluate((x, y))
    inference = Inference(trainer.program.net, every_step=False, criterion="cross_entropy", batch=2)
    inference.load(trainer.parameters())
    assert inference.evaluate((x, y))["loss"] == pytest.approx(found["loss"], rel=1e-6)


def test_streams_have_the_bits_of_batches():
    for recompute in (False, True):
        batch = fptt.Trainer(adapted(recompute=recompute), seed=5)
        stream = fptt.Trainer(adapted(recompute=recompute), seed=5)
        x, y = data()
        for _ in range(2):
            batch.train_batch(x, y)
            stream.begin_sequence()
            for t in range(11):
                stream.step(x[:, t], y)
        assert_bits_equal(stream.parameters(), batch.parameters(), "parameters")


@pytest.mark.parametrize("steps", [0, 5], ids=["between sequences", "within a part"])
def test_snapshots_go_on_with_the_same_bits(steps, tmp_path):
    trainer = trained(recompute=True)
    x, y = data(7)
    for t in range(steps):
        trainer.step(x[:, t], y)
    trainer.save(tmp_path / "state")
    other = fptt.load(tmp_path / "state")
    assert other.program.net == trainer.program.net
    assert other.program.net.adapters == {"0.weight_hh": 2}
    for t in range(steps, 11):
        for one in (trainer, other):
            one.step(x[:, t], y)
    assert_bits_equal(other.parameters(), trainer.parameters(), "parameters")
    assert_bits_equal(other.state(), trainer.state(), "state")
    plain = fptt.build(fptt_network([("LSTM", 3, 7), ("Linear", 7, 4)]), fptt.BPTT(), steps=11)
    assert plain.net != trainer.program.net


def test_model_files_keep_the_factors(tmp_path):
    trainer = trained()
    trainer.save_parameters(tmp_path / "model.safetensors")
    net = load_model(tmp_path / "model.safetensors").net
    assert net == trainer.program.net
    assert str(net) == "LSTM(3, 7) - Linear(7, 4), changed 0.weight_hh by rank 2"
    assert eval(repr(net), {k: getattr(fptt, k) for k in ("Network", "LSTM", "Linear")}) == net
    # training goes on from there, the adapters being the network's
    program = fptt.build(net, fptt.FPTT(parts=3), steps=11, batch=5, train=["1.*"])
    assert program.trained == trainer.program.trained
    again = fptt.Trainer(program)
    assert_bits_equal(again.parameters(), trainer.parameters(), "parameters")
    message = r"the network has adapters already \(LSTM.*rank 2\)"
    with pytest.raises(fptt.InputError, match=message):
        fptt.build(net, fptt.FPTT(parts=3), steps=11, adapters={"0.weight_hh": 2})


def test_known_weights_and_drawn_factors():
    """The usual way: a trained network, and factors that start from nothing."""
    layers = [("LSTM", 3, 7), ("Linear", 7, 4)]
    weights = random_parameters(layers, 3)
    net = fptt.Network(fptt_network(layers).layers, weights)
    program = fptt.build(net, fptt.FPTT(parts=3), steps=11, adapters={"0.weight_hh": 2})
    theta = fptt.Trainer(program, seed=5).parameters()
    for name, value in weights.items():
        assert np.array_equal(theta[name], value.astype(np.float32))
    drawn = fptt.Trainer(adapted(), seed=5).parameters()
    assert np.array_equal(theta["0.weight_hh.down"], drawn["0.weight_hh.down"])


def test_memory_of_the_smallest_training():
    """LSTM 1-128-10, T = 784, batch 1: rank 4 on the recurrent weights, and the readout."""
    net = fptt.Network([fptt.LSTM(1, 128), fptt.Linear(128, 10)])
    found = {}
    for parts in (28, 784):
        for dtype in ("float32", "bfloat16"):
            program = fptt.build(
                net,
                fptt.FPTT(parts=parts),
                fptt.SGD(lr=0.1),
                steps=784,
                dtype=dtype,
                train=["1.*"],
                adapters={"0.weight_hh": 4},
                recompute=True,
            )
            found[parts, dtype] = program.memory().arena_bytes
    assert found == {
        (28, "float32"): 87_888,
        (28, "bfloat16"): 44_016,
        (784, "float32"): 51_520,
        (784, "bfloat16"): 25_824,
    }


# -- names and ranks -----------------------------------------------------------------------------

MATRICES = "there are 1.weight_ih, 1.weight_hh, 2.weight"
WRONG = {
    "no such name": (
        {"1.weight_xx": 2},
        f"adapters: no parameter is called '1.weight_xx'; {MATRICES}",
    ),
    "a pattern of nothing": ({"3.*": 2}, f"adapters: no parameter is called '3.*'; {MATRICES}"),
    "a vector": (
        {"1.bias": 1},
        f"adapters: adapters change the matrices of LSTM, GRU, RNN and Linear, and 1.bias is none; "
        f"{MATRICES}",
    ),
    "an embedding": (
        {"0.weight": 1},
        f"adapters: adapters change the matrices of LSTM, GRU, RNN and Linear, and 0.weight is "
        f"none; {MATRICES}",
    ),
    "rank 0": (
        {"2.weight": 0},
        "adapters: the rank of 2.weight is 0; give a whole number of at least 1",
    ),
    "half a rank": (
        {"2.weight": 1.5},
        "adapters: the rank of 2.weight is 1.5; give a whole number of at least 1",
    ),
    "too high": (
        {"1.weight_hh": 5},
        "adapters: factors of rank 5 would hold 150 numbers, no fewer than 1.weight_hh [24, 6] "
        "itself; give a lower rank, or train the matrix",
    ),
    "two ranks": ({"1.*": 2, "*_hh": 1}, "adapters: 1.weight_hh has two ranks, 2 and 1"),
    "no dict": (["2.weight"], "adapters: ['2.weight'] is no dict; give names and ranks"),
}


@pytest.mark.parametrize(("adapters", "message"), WRONG.values(), ids=WRONG)
def test_wrong_adapters_are_refused(adapters, message):
    net = fptt.Network([fptt.Embedding(9, 5), fptt.LSTM(5, 6), fptt.Linear(6, 9)])
    with pytest.raises(fptt.InputError, match=f"^{re.escape(message)}$"):
        fptt.build(net, fptt.FPTT(parts=2), steps=4, adapters=adapters)


def test_the_highest_rank_that_saves_anything():
    """r (in + out) < in out: [24, 6] takes 4 (120 < 144) and [8, 8] takes 3, for 4 is as many."""
    net = fptt.Network([fptt.LSTM(5, 6)])
    assert net.adapted({"0.weight_hh": 4}).adapters == {"0.weight_hh": 4}
    square = fptt.Network([fptt.RNN(8, 8)])
    assert square.adapted({"0.weight_hh": 3}).adapters == {"0.weight_hh": 3}
    with pytest.raises(fptt.InputError, match="would hold 64 numbers, no fewer"):
        square.adapted({"0.weight_hh": 4})


@pytest.mark.parametrize("train", [["0.weight_hh"], ["1.*", "0.weight_hh"], ["*_hh"]], ids=str)
def test_what_has_an_adapter_cannot_train_itself(train):
    net = fptt_network([("LSTM", 3, 7), ("Linear", 7, 4)])
    pattern = train[-1]
    message = (
        f"build: train names {pattern!r}, which has an adapter, and what has one does not train "
        "itself; leave out one of the two"
    )
    with pytest.raises(fptt.InputError, match=f"^{re.escape(message)}$"):
        fptt.build(net, fptt.BPTT(), steps=4, train=train, adapters={"0.weight_hh": 2})


@pytest.mark.parametrize("pattern", ["*", "0.*", "0.weight_*"])
def test_wildcards_pass_over_what_has_an_adapter(pattern):
    net = fptt_network([("LSTM", 3, 7), ("Linear", 7, 4)])
    program = fptt.build(net, fptt.BPTT(), steps=4, train=pattern, adapters={"0.weight_hh": 2})
    wanted = {n for n in program.net.parameters if fnmatchcase(n, pattern) and n != "0.weight_hh"}
    assert set(program.trained) == wanted | {"0.weight_hh.up", "0.weight_hh.down"}


@pytest.mark.parametrize("stack", [n for n in STACKS if "Linear" in n])
def test_trained_networks_without_adapters_are_as_before(stack):
    """No adapters and an empty dict are the same program."""
    net = fptt_network(STACKS[stack])
    plain = fptt.build(net, fptt.FPTT(parts=2), steps=4)
    assert str(plain) == str(fptt.build(net, fptt.FPTT(parts=2), steps=4, adapters={}))
    assert plain.net.to_config() == net.to_config()
    assert all("adapters" not in layer for layer in net.to_config())
