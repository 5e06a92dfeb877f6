"""Spiking cells: gradients, trajectories and constants against autograd through a surrogate.

The oracle states every cell from its equations, with torch's densities as the surrogate.
"""

import json

import numpy as np
import pytest
from cases import (
    TOLERANCE,
    assert_close,
    assert_gradients_equal,
    assert_trainers_equal,
    fptt_network,
    fptt_trainer,
    pair,
    random_data,
    random_parameters,
)

import fptt

CELLS = ["LIF", "ALIF", "LTC"]
NO_STEP = ("sgd", dict(lr=0.0))
OBJECTIVES = [
    ("last", "cross_entropy"),
    ("last", "mse"),
    ("every_step", "cross_entropy"),
    ("auxiliary", "cross_entropy"),
]
#: constants far from the defaults, so that each of them is seen to matter
OTHER = {
    "LIF": dict(tau=3.0, threshold=0.6, surrogate="triangle", gamma=0.3, surrogate_width=1.7),
    "ALIF": dict(
        tau=4.0, tau_adaptation=9.0, threshold=0.7, beta=0.4, gamma=0.8, surrogate_width=0.9
    ),
    "LTC": dict(threshold=0.3, beta=0.9, gamma=0.9, surrogate_width=1.3),
    "LeakyIntegrator": dict(tau=2.5),
}
STACKS = {
    "LIF-ALIF-LeakyIntegrator": [("LIF", 3, 7), ("ALIF", 7, 5), ("LeakyIntegrator", 5, 4)],
    "Linear-LTC-LTC-Linear": [("Linear", 3, 5), ("LTC", 5, 7), ("LTC", 7, 3), ("Linear", 3, 4)],
    "ALIF-Linear-ReLU-LSTM-LIF": [
        ("ALIF", 3, 5),
        ("Linear", 5, 9),
        ("ReLU",),
        ("LSTM", 9, 7),
        ("LIF", 7, 4),
    ],
    "Embedding-LTC-Dropout(0)-LeakyIntegrator-Linear": [
        ("Embedding", 11, 3),
        ("LTC", 3, 5),
        ("Dropout", 0.0),
        ("LeakyIntegrator", 5, 6),
        ("Linear", 6, 4),
    ],
    "LeakyIntegrator": [("LeakyIntegrator", 3, 5)],
}
STACKS["other constants"] = [
    ("LIF", 3, 7, OTHER["LIF"]),
    ("ALIF", 7, 5, OTHER["ALIF"]),
    ("LTC", 5, 6, OTHER["LTC"]),
    ("LeakyIntegrator", 6, 4, OTHER["LeakyIntegrator"]),
]


def readout(cell):
    return [(cell, 3, 7), ("LeakyIntegrator", 7, 4)]


def compare_gradients(layers, rule, steps, batch, lengths=None, dtype="float64", **options):
    trainer, oracle = pair(layers, rule, NO_STEP, steps, batch, dtype=dtype, **options)
    loss, criterion = options.get("loss", "last"), options.get("criterion", "cross_entropy")
    x, y = random_data(layers, batch, steps, loss, criterion, seed=2)
    found = trainer.part_gradients(x, y, lengths)
    assert_gradients_equal(found, oracle.part_gradients(x, y, lengths), TOLERANCE[dtype])


@pytest.mark.parametrize(("loss", "criterion"), OBJECTIVES)
@pytest.mark.parametrize("parts", [1, 3, 11])
@pytest.mark.parametrize("cell", CELLS)
def test_cell_gradients(cell, parts, loss, criterion):
    """B = 5, T = 11, I = 3, H = 7, C = 4; parts of 11, of 3 and 4, and of 1 step."""
    rule = dict(kind="tbptt", parts=parts)
    compare_gradients(readout(cell), rule, 11, 5, loss=loss, criterion=criterion)


@pytest.mark.parametrize("lengths", [[11, 1, 4, 8, 3], [2, 1, 3, 2, 1]], ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_unequal_length_gradients(cell, lengths):
    compare_gradients(readout(cell), dict(kind="tbptt", parts=3), 11, 5, lengths=lengths)


@pytest.mark.parametrize("build", [{}, dict(recompute=True)], ids=["kept", "recompute"])
@pytest.mark.parametrize("loss", ["last", "every_step"])
@pytest.mark.parametrize("stack", STACKS)
def test_stack_gradients(stack, loss, build):
    compare_gradients(STACKS[stack], dict(kind="tbptt", parts=2), 7, 3, loss=loss, build=build)


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_in_float32(cell):
    rule = dict(kind="tbptt", parts=3)
    compare_gradients(readout(cell), rule, 11, 5, dtype="float32")


def spikes(layer, x, theta):
    """What one layer puts out, [rows, steps, H]."""
    net = fptt.Network([layer])
    program = fptt.build(
        net, fptt.BPTT(), steps=x.shape[1], batch=len(x), loss="every_step", dtype="float64"
    )
    trainer = fptt.Trainer(program)
    trainer.load_parameters(theta)
    return trainer.predict(x)


@pytest.mark.parametrize("cell", CELLS)
def test_the_cases_spike(cell):
    """Otherwise the comparisons above would say nothing of resets, adaptation and spikes."""
    layers = [(cell, 3, 7)]
    x, _ = random_data(layers, 5, 11, "last", "cross_entropy", seed=2)
    z = spikes(getattr(fptt, cell)(3, 7), x, random_parameters(layers, 1))
    assert set(np.unique(z)) == {0.0, 1.0}
    assert 0.05 < z.mean() < 0.8
    assert (z[:, 1:] * z[:, :-1]).any(), "no neuron spikes twice running"


TRAJECTORIES = {
    "FPTT": (dict(parts=3, alpha=0.4), ("sgd", dict(lr=0.1, momentum=0.9))),
    "FPTT paper, Adam": (dict(parts=3, alpha=0.4, mode="paper"), ("adam", dict(lr=0.02))),
    "BPTT": (dict(kind="bptt"), ("sgd", dict(lr=0.2))),
    "carried": (dict(kind="tbptt", parts=2, state="carry"), ("sgd", dict(lr=0.1))),
}


@pytest.mark.parametrize("name", TRAJECTORIES)
@pytest.mark.parametrize("cell", CELLS)
def test_trajectories(cell, name):
    """Three batches of B = 5, T = 7; K does not divide T."""
    rule, optimizer = TRAJECTORIES[name]
    layers = readout(cell)
    trainer, oracle = pair(layers, rule, optimizer, 7, 5, loss="auxiliary", clip=0.5)
    for n in range(3):
        x, y = random_data(layers, 5, 7, "auxiliary", "cross_entropy", 100 + n)
        lengths = [7, 3, 7, 5, 1] if name == "FPTT" and n == 1 else None
        found = trainer.train_batch(x, y, lengths)
        assert found == pytest.approx(oracle.train_batch(x, y, lengths), rel=1e-9)
    trainer.end_epoch()
    oracle.end_epoch()
    assert_trainers_equal(trainer, oracle, 1e-10)


@pytest.mark.parametrize("cell", CELLS)
def test_predictions(cell):
    """Inference keeps the state of one step in place."""
    layers = readout(cell)
    trainer, oracle = pair(layers, dict(parts=3), NO_STEP, 7, 5)
    x, _ = random_data(layers, 3, 7, "last", "cross_entropy", seed=12)
    assert_close(trainer.predict(x), oracle.predict(x), 1e-10, "prediction")
    assert_close(trainer.predict(x, [2, 7, 1]), oracle.predict(x, [2, 7, 1]), 1e-10, "own lengths")


# --- one neuron, by hand ----------


def run_one(layer, theta, inputs):
    x = np.array(inputs, float).reshape(1, -1, 1)
    return spikes(layer, x, {f"0.{name}": np.array(value) for name, value in theta.items()})[
        0, :, 0
    ]


def test_a_neuron_is_reset_a_step_after_its_spike():
    """The potential halves: v = 1.5, 0.75 - 1, -0.125 + 1.5, 0.6875 + 0.5 - 1."""
    layer = fptt.LIF(1, 1, tau=1 / np.log(2), threshold=1.0)
    theta = dict(weight_ih=[[1.0]], weight_hh=[[0.0]], bias=[0.0])
    assert run_one(layer, theta, [1.5, 0.0, 1.5, 0.5]).tolist() == [1, 0, 1, 0]
    theta["weight_hh"] = [[2.0]]  # its own spike excites it a step later
    assert run_one(layer, theta, [1.5, 0.0, 1.5, 0.5]).tolist() == [1, 1, 1, 1]


def test_a_spike_raises_the_threshold():
    """Constant drive: LIF spikes at every step, ALIF more and more rarely, but after a rest."""
    theta = dict(weight_ih=[[1.0]], weight_hh=[[0.0]], bias=[0.0])
    options = dict(tau=1.0, threshold=0.5)
    assert run_one(fptt.LIF(1, 1, **options), theta, [1.1] * 12).all()
    adaptive = fptt.ALIF(1, 1, tau_adaptation=8.0, beta=0.5, **options)
    z = run_one(adaptive, theta, [1.1] * 12 + [0.0] * 30 + [1.1])
    assert z[0] == z[-1] == 1
    assert 0 < z[6:12].sum() < z[:6].sum() < 6
    without = fptt.ALIF(1, 1, tau_adaptation=8.0, beta=0.0, **options)
    assert run_one(without, theta, [1.1] * 12).all()


def test_a_liquid_neuron_is_reset_to_zero_at_once():
    """m = r = 1/2 with weights of zero, so u is the mean of v before and the current."""
    zero = [[0.0]]
    theta = dict(weight_ih=[[1.0]], weight_hh=zero, bias=[0.0], bias_m=[0.0], bias_r=[0.0])
    theta |= dict(weight_im=zero, weight_vm=zero, weight_ir=zero, weight_ar=zero)
    layer = fptt.LTC(1, 1, threshold=0.3, beta=0.0)
    assert run_one(layer, theta, [0.8, 0.5, 0.3]).tolist() == [1, 0, 0]  # u = 0.4, 0.25, 0.275
    assert run_one(layer, theta, [0.5, 0.4, 0.4]).tolist() == [0, 1, 0]  # u = 0.25, 0.325, 0.2
    # a = 0, 0.5, 0.25: the threshold of the second step is 0.3 + 0.2
    tired = fptt.LTC(1, 1, threshold=0.3, beta=0.4)
    assert run_one(layer, theta, [0.8, 0.9, 0.0]).tolist() == [1, 1, 0]  # u = 0.4, 0.45
    assert run_one(tired, theta, [0.8, 0.9, 0.0]).tolist() == [1, 0, 0]


def test_without_adaptation_alif_is_lif_bit_for_bit():
    cells = [("LIF", 3, 7), ("ALIF", 3, 7, dict(beta=0.0))]
    layers = [[cell, ("Linear", 7, 4)] for cell in cells]
    theta = random_parameters(layers[0], 5)
    x, y = random_data(layers[0], 5, 11, "last", "cross_entropy", 6)
    lif, alif = (
        fptt_trainer(one, dict(parts=3), ("sgd", dict(lr=0.1)), 11, 5, parameters=theta)
        for one in layers
    )
    assert lif.train_batch(x, y) == alif.train_batch(x, y)
    for name, values in lif.parameters().items():
        assert np.array_equal(values, alif.parameters()[name])


def test_eligibility_traces_of_e_prop_give_the_gradient_of_neurons_that_do_not_see_each_other():
    """With W_hh = 0 e-prop is exact (Bellec et al., 2020): dL/dW_ih = sum_t dL/dz_t e(t).

    eps_v(t+1) = decay eps_v(t) + x(t+1)
    eps_a(t+1) = psi(t) eps_v(t) + (rho - psi(t) beta) eps_a(t)
    """
    layer = fptt.ALIF(3, 7, tau=4.0, tau_adaptation=9.0, beta=0.4)
    layers = [("ALIF", 3, 7)]
    theta = random_parameters(layers, 7)
    theta["0.weight_hh"][:] = 0
    x, y = random_data(layers, 1, 11, "every_step", "mse", 8)
    program = fptt.build(
        fptt.Network([layer]),
        fptt.BPTT(),
        fptt.SGD(lr=0.0),
        steps=11,
        loss="every_step",
        criterion="mse",
        dtype="float64",
    )
    trainer = fptt.Trainer(program)
    trainer.load_parameters(theta)
    (found,) = trainer.part_gradients(x, y)
    v, a, z, wanted = np.zeros(7), np.zeros(7), np.zeros(7), np.zeros((7, 3))
    eps_v, eps_a, psi = np.zeros((7, 3)), np.zeros((7, 3)), np.zeros(7)
    for t in range(11):
        a = layer.rho * a + z
        v = layer.decay * v + theta["0.weight_ih"] @ x[0, t] + theta["0.bias"] - layer.threshold * z
        u = v - layer.threshold - layer.beta * a
        eps_a = psi[:, None] * eps_v + (layer.rho - psi * layer.beta)[:, None] * eps_a
        eps_v = layer.decay * eps_v + x[0, t]
        psi = 0.5 * (1.15 * normal(u, 0.5) - 0.15 * (normal(u - 0.5, 3) + normal(u + 0.5, 3)))
        z = (u > 0) * 1.0
        signal = 2 * (z - y[0, t]) / y[0].size
        wanted += (signal * psi)[:, None] * (eps_v - layer.beta * eps_a)
    assert_close(found["0.weight_ih"], wanted, 1e-12, "e-prop")


def normal(u, deviation):
    return np.exp(-0.5 * (u / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))


# --- as PyTorch modules ----------


@pytest.mark.parametrize("constants", [False, True], ids=["defaults", "others"])
@pytest.mark.parametrize("cell", [*CELLS, "LeakyIntegrator"])
def test_the_module_is_the_layer(cell, constants):
    """Outputs, and the gradient of every parameter; the state goes from part to part, detached."""
    import torch

    import fptt.torch

    options = OTHER[cell] if constants else {}
    layers = [(cell, 3, 7, options), ("Linear", 7, 4)]
    trainer, _ = pair(layers, dict(kind="tbptt", parts=3), NO_STEP, 11, 5)
    x, y = random_data(layers, 5, 11, "last", "cross_entropy", 9)
    found = trainer.part_gradients(x, y)
    module = getattr(fptt.torch, cell)(3, 7, dtype=torch.float64, **options)
    head = torch.nn.Linear(7, 4, dtype=torch.float64)
    theta = {name: torch.tensor(value) for name, value in trainer.parameters().items()}
    for one, number in ((module, "0."), (head, "1.")):
        own = {k.removeprefix(number): v for k, v in theta.items() if k.startswith(number)}
        one.load_state_dict(own)
    state = None
    for part, (start, stop) in enumerate([(0, 3), (3, 7), (7, 11)]):
        out, state = module(torch.tensor(x[:, start:stop]), state)
        assert torch.equal(out[:, -1], state[0])
        loss = torch.nn.functional.cross_entropy(head(out[:, -1]), torch.tensor(y))
        names = [name for name, _ in module.named_parameters()]
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        scale = max(float(g.norm()) for g in gradients)
        for name, gradient in zip(names, gradients, strict=True):
            ours = found[part][f"0.{name}"]
            assert_close(ours, gradient.numpy(), 1e-10, f"part {part} {name}", 1e-4 * scale)
        state = tuple(one.detach() for one in state)
    assert_close(head(out[:, -1]).detach().numpy(), trainer.predict(x), 1e-10, "outputs")


def test_modules_draw_as_layers_do_and_print_their_constants():
    import torch

    import fptt.torch

    torch.manual_seed(0)
    module = fptt.torch.LTC(40, 50, tau=5.0, tau_adaptation=30.0, beta=0.3)
    again = fptt.torch.LTC(40, 50, tau=5.0, tau_adaptation=30.0, beta=0.3)
    assert not torch.equal(module.bias, again.bias)
    theta = fptt.Network([module.layer]).initial(seed=0)
    for name, values in module.state_dict().items():
        drawn = theta[f"0.{name}"]
        assert values.shape == drawn.shape
        bound = 40**-0.5 if name == "weight_ih" else 50**-0.5
        centre = {"bias_m": np.log(np.expm1(1 / 5)), "bias_r": -np.log(np.expm1(1 / 30))}
        for one in (values.numpy(), drawn):
            off = np.abs(one - centre.get(name, 0.0))
            assert 0.9 * bound < off.max() <= 1.001 * bound, name
    assert "beta=0.3" in repr(module)
    with pytest.raises(
        fptt.InputError,
        match=r"^LTC: x has shape \[2, 40\]; give \[rows, steps, 40\] with at least one step$",
    ):
        module(torch.zeros(2, 40))
    with pytest.raises(fptt.InputError, match=r"^LIF: tau is 0; give a finite number above 0$"):
        fptt.torch.LIF(3, 5, tau=0)
    with pytest.raises(AttributeError, match=r"^module 'fptt.torch' has no attribute 'GIF'$"):
        fptt.torch.GIF  # noqa: B018


# --- use ----------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fptt.LIF(3, 0), "LIF: hidden is 0; give a whole number of at least 1"),
        (lambda: fptt.LTC(3, 5, tau=0), "LTC: tau is 0; give a finite number above 0"),
        (lambda: fptt.LIF(3, 5, tau=-1.0), "LIF: tau is -1.0; give a finite number above 0"),
        (lambda: fptt.LTC(3, 5, gamma=np.inf), "LTC: gamma is inf; give a finite number above 0"),
        (lambda: fptt.ALIF(3, 5, beta=-1), "ALIF: beta is -1; give a finite number of at least 0"),
        (
            lambda: fptt.LIF(3, 5, surrogate="box"),
            "LIF: surrogate is 'box'; choose one of 'multi_gaussian', 'triangle'",
        ),
        (
            lambda: fptt.LeakyIntegrator(3, 5, tau="1"),
            "LeakyIntegrator: tau is '1'; give a finite number above 0",
        ),
    ],
)
def test_wrong_constants_are_refused(make, message):
    with pytest.raises(fptt.InputError) as error:
        make()
    assert str(error.value) == message


def test_only_the_reference_runs_them():
    net = fptt_network([("LIF", 3, 5), ("LeakyIntegrator", 5, 4)])
    program = fptt.build(net, fptt.FPTT(parts=2), steps=4)
    assert fptt.Trainer(program).backend.name == "reference"
    with pytest.raises(fptt.InputError, match=r"^the engine has no kernel for leaky_backward, "):
        fptt.Trainer(program, backend="native")


def test_constants_are_shown_and_saved(tmp_path):
    net = fptt_network([("ALIF", 3, 5, OTHER["ALIF"]), ("LeakyIntegrator", 5, 4)])
    assert str(net) == (
        "ALIF(3, 5, tau=4.0, tau_adaptation=9.0, threshold=0.7, beta=0.4, gamma=0.8, "
        "surrogate_width=0.9) - LeakyIntegrator(5, 4)"
    )
    trainer = fptt.Trainer(fptt.build(net, fptt.FPTT(parts=2), steps=6, batch=2), seed=3)
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, 6, 3)), np.array([1, 3])
    trainer.train_batch(x, y)
    trainer.save(tmp_path / "state.fptt")
    again = fptt.load(tmp_path / "state.fptt")
    assert again.program.net == net
    assert again.train_batch(x, y) == trainer.train_batch(x, y)


@pytest.mark.parametrize("cell", ["lif", "alif", "ltc"])
def test_the_classifier_reads_spikes_out_by_a_leaky_integrator(cell):
    rng = np.random.default_rng(5)
    y = np.array(["low", "high"] * 16)
    x = rng.normal(size=(32, 12, 2)) + (y == "high")[:, None, None]
    model = fptt.SequenceClassifier(
        cell=cell, hidden=16, epochs=12, batch=8, optimizer=fptt.Adam(lr=0.01)
    )
    assert model.fit(x, y).score(x, y) >= 0.9
    assert isinstance(model.trainer_.program.net.layers[-1], fptt.LeakyIntegrator)


def test_train_and_evaluate_by_name(tmp_path, capsys):
    from fptt import cli

    task = ["--task", "mnist-rows", "--subset", "--limit", "100"]
    options = ["--cell", "ltc", "--hidden", "12", "--epochs", "2", "--batch", "10", "--json"]
    model = tmp_path / "m.safetensors"
    assert cli.main(["train", *task, *options, "--optimizer", "adam", "--out", str(model)]) == 0
    run = json.loads(capsys.readouterr().out)
    assert run["network"] == "LTC(28, 12) - LeakyIntegrator(12, 10)"
    assert cli.main(["eval", str(model), *task, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy"] == run["epochs"][-1]["test_accuracy"]
