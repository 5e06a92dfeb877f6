"""The oracle against PyTorch's layers, numbers worked out by hand, and finite differences."""

import math

import numpy as np
import pytest
import torch
from cases import REFERENCE_CELLS, assert_close, random_parameters, with_head
from oracle import Oracle, parameter_shapes

TORCH_NAMES = {
    "LSTM": {"weight_ih": "weight_ih_l0", "weight_hh": "weight_hh_l0", "bias": "bias_ih_l0"},
    "RNN": {"weight_ih": "weight_ih_l0", "weight_hh": "weight_hh_l0", "bias": "bias_ih_l0"},
    "GRU": {
        "weight_ih": "weight_ih_l0",
        "weight_hh": "weight_hh_l0",
        "bias_ih": "bias_ih_l0",
        "bias_hh": "bias_hh_l0",
    },
}


def torch_recurrent(kind, inputs, hidden, parameters):
    module = getattr(torch.nn, kind)(inputs, hidden, batch_first=True).double()
    with torch.no_grad():
        for value in module.parameters():
            value.zero_()  # bias_hh stays 0 where there is one bias
        for ours, theirs in TORCH_NAMES[kind].items():
            getattr(module, theirs).copy_(torch.tensor(parameters[f"0.{ours}"]))
    return module


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("parts", [1, 3])
def test_part_gradients_equal_torch_layers_with_detached_state(kind, parts):
    batch, steps, inputs, hidden, classes = 5, 7, 3, 9, 4
    layers = [(kind, inputs, hidden), ("Linear", hidden, classes)]
    theta = random_parameters(layers, 1)
    oracle = Oracle(
        layers, dict(kind="tbptt", parts=parts), ("sgd", dict(lr=0.1)), steps, parameters=theta
    )
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(batch, steps, inputs)), rng.integers(0, classes, batch)

    module = torch_recurrent(kind, inputs, hidden, theta)
    head = torch.nn.Linear(hidden, classes).double()
    with torch.no_grad():
        head.weight.copy_(torch.tensor(theta["1.weight"]))
        head.bias.copy_(torch.tensor(theta["1.bias"]))
    state = None
    for part, found in enumerate(oracle.part_gradients(x, y)):
        piece = torch.tensor(x[:, part * steps // parts : (part + 1) * steps // parts])
        out, state = module(piece, state)
        state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        module.zero_grad()
        head.zero_grad()
        torch.nn.functional.cross_entropy(head(out[:, -1]), torch.tensor(y)).backward()
        for ours, theirs in TORCH_NAMES[kind].items():
            assert_close(found[f"0.{ours}"], getattr(module, theirs).grad.numpy(), 1e-12, ours)
        assert_close(found["1.weight"], head.weight.grad.numpy(), 1e-12, "head")


def values(losses):
    return [None if loss is None else float(loss.detach()) for loss in losses]


def scalar_oracle(rule, steps=2, **options):
    parameters = {"0.weight": np.array([[2.0]]), "0.bias": np.array([0.5])}
    return Oracle(
        [("Linear", 1, 1)],
        rule,
        ("sgd", dict(lr=0.1)),
        steps,
        criterion="mse",
        parameters=parameters,
        **options,
    )


@pytest.mark.parametrize(
    ("mode", "theta", "mean", "lam"),
    [
        # x = 1 then 2, target 0, w = 2, b = 0.5, lr 0.1, alpha 0.5, beta 0.25.
        # part 1: e = 2.5, g = (5, 5), theta = (1.5, 0), lambda = -0.5 (-0.5) = 0.25 for both,
        #         m = 0.75 (2, .5) + 0.25 (1.5, 0) - 0.5 * 0.25 = (1.75, 0.25)
        # part 2: e = 3, g = (12, 6), theta - m = (-0.25, -0.25)
        #   code: d = g - 0.25 - 0.125 = (11.625, 5.625), theta = (0.3375, -0.5625)
        #         lambda = 0.25 - 0.5 (theta - m) = (0.95625, 0.65625)
        #         m = 0.75 m + 0.25 theta - 0.5 lambda = (0.91875, -0.28125)
        #   paper: d = g - 0.125 - 0.125 = (11.75, 5.75), theta = (0.325, -0.575)
        #         lambda = 0.125 - 0.5 (theta - m) = (0.8375, 0.5375)
        #         m = (0.975, -0.225)
        ("code", (0.3375, -0.5625), (0.91875, -0.28125), (0.95625, 0.65625)),
        ("paper", (0.325, -0.575), (0.975, -0.225), (0.8375, 0.5375)),
    ],
)
def test_two_parts_by_hand(mode, theta, mean, lam):
    oracle = scalar_oracle(dict(parts=2, alpha=0.5, beta=0.25, mode=mode))
    loss = oracle.train_batch(np.array([[[1.0], [2.0]]]), np.array([[0.0]]))
    assert loss == pytest.approx((2.5**2 + 3.0**2) / 2, rel=1e-14)
    parameters, state = oracle.parameters(), oracle.state()
    for n, name in enumerate(("0.weight", "0.bias")):
        assert parameters[name].item() == pytest.approx(theta[n], rel=1e-12)
        assert state[f"mean/{name}"].item() == pytest.approx(mean[n], rel=1e-12)
        assert state[f"lambda/{name}"].item() == pytest.approx(lam[n], rel=1e-12)


@pytest.mark.parametrize("epoch_end", ["average", "keep"])
@pytest.mark.parametrize("epoch_lambda", ["zero", "keep"])
def test_end_of_epoch_by_hand(epoch_end, epoch_lambda):
    rule = dict(parts=2, alpha=0.5, beta=0.25, epoch_end=epoch_end, epoch_lambda=epoch_lambda)
    oracle = scalar_oracle(rule)
    oracle.train_batch(np.array([[[1.0], [2.0]]]), np.array([[0.0]]))
    oracle.end_epoch()
    weight = {"average": 0.91875, "keep": 0.3375}[epoch_end]
    lam = {"zero": 0.0, "keep": 0.95625}[epoch_lambda]
    assert oracle.parameters()["0.weight"].item() == pytest.approx(weight, rel=1e-12)
    assert oracle.state()["lambda/0.weight"].item() == pytest.approx(lam, rel=1e-12)
    assert oracle.state()["mean/0.weight"].item() == pytest.approx(0.91875, rel=1e-12)


def test_clip_acts_on_d_and_not_on_g():
    # part 1: d = g = (5, 5), norm sqrt(50) -> clipped to norm 1: theta = (2, .5) - 0.1 / sqrt(2)
    oracle = scalar_oracle(dict(parts=2, alpha=0.5, beta=0.5), clip=1.0)
    oracle.train_batch(np.array([[[1.0]]]), np.array([[0.0]]))
    moved = 0.1 / math.sqrt(2)
    assert oracle.parameters()["0.weight"].item() == pytest.approx(2 - moved, rel=1e-6)
    assert oracle.state()["lambda/0.bias"].item() == pytest.approx(0.5 * moved, rel=1e-6)
    # part 2 from there, with its gradient given
    g = np.array([2.0 * 2 * 2 * 3.0, 2.0 * 3.0])
    oracle.update({"0.weight": torch.tensor([[g[0]]]), "0.bias": torch.tensor([g[1]])})
    lam = 0.5 * moved
    mean = (4 - moved) / 2 - lam
    d = g - lam + 0.5 * np.array([2 - moved - mean, 2 - moved - mean])
    wanted = 2 - moved - 0.1 * d[0] / math.hypot(*d)
    assert oracle.parameters()["0.weight"].item() == pytest.approx(wanted, rel=1e-6)


def test_unequal_lengths_count_by_hand():
    """T = 5, K = 2: cuts 0, 2, 5. Lengths 1, 2, 4: part 1 counts all, part 2 only the last row."""
    oracle = scalar_oracle(dict(kind="tbptt", parts=2), steps=5)
    x = np.array([[1, 9, 9, 9], [2, 3, 9, 9], [4, 5, 6, 7]], float)[:, :, None]
    y = np.zeros((3, 1))
    first, second = values(oracle.part_losses(x, y, [1, 2, 4]))
    assert first == pytest.approx((2.5**2 + 6.5**2 + 10.5**2) / 3, rel=1e-14)
    assert second == pytest.approx(14.5**2, rel=1e-14)
    assert oracle.part_losses(x, y, [1, 2, 2])[1] is None
    assert oracle.part_gradients(x, y, [1, 2, 2])[1] is None


def test_every_step_counts_labelled_pairs_before_the_end():
    parameters = {"0.weight": np.array([[1.0], [0.0]]), "0.bias": np.zeros(2)}
    oracle = Oracle(
        [("Linear", 1, 2)],
        dict(kind="tbptt", parts=2),
        ("sgd", dict(lr=0.1)),
        4,
        loss="every_step",
        parameters=parameters,
    )
    x = np.arange(8.0).reshape(2, 4, 1) / 8
    y = np.array([[0, -1, 1, -1], [1, 0, 0, 0]])

    def loss(v, label):
        return math.log(math.exp(v) + 1) - (v if label == 0 else 0)

    first, second = values(oracle.part_losses(x, y, [4, 1]))
    assert first == pytest.approx((loss(0, 0) + loss(0.5, 1)) / 2, rel=1e-12)
    assert second == pytest.approx(loss(0.25, 1), rel=1e-12)
    y[0, 2] = -1
    assert oracle.part_losses(x, y, [4, 1])[1] is None


def constant_oracle(per_part, steps=4, parts=2):
    """Outputs P = (0.8, 0.2) whatever the input."""
    parameters = {"0.weight": np.zeros((2, 1)), "0.bias": np.array([math.log(4), 0.0])}
    return Oracle(
        [("Linear", 1, 2)],
        dict(kind="tbptt", parts=parts),
        ("sgd", dict(lr=0.0)),
        steps,
        loss=("auxiliary", dict(rate=0.1, per_part=per_part)),
        parameters=parameters,
    )


def test_auxiliary_weights_and_q_by_hand():
    oracle = constant_oracle(per_part=False)
    ce = {0: -math.log(0.8), 1: -math.log(0.2)}
    div = (ce[0] + ce[1]) / 2  # Q uniform
    # full length: b = 1/2 then 1
    losses = values(oracle.part_losses(np.zeros((1, 4, 1)), np.array([1])))
    assert losses[0] == pytest.approx((ce[1] + div) / 2, rel=1e-12)
    assert losses[1] == pytest.approx(ce[1], rel=1e-12)
    # lengths 3 and 2 of T = 4: part 1 has b = 2/3 and 1, part 2 counts the first row with b = 1
    losses = values(oracle.part_losses(np.zeros((2, 3, 1)), np.array([0, 1]), [3, 2]))
    assert losses[0] == pytest.approx((2 / 3 * ce[0] + div / 3 + ce[1]) / 2, rel=1e-12)
    assert losses[1] == pytest.approx(ce[0], rel=1e-12)
    # Q: class 1 once, class 0 once, each 0.9 * 1/2 + 0.1 * P
    oracle.train_batch(np.zeros((2, 3, 1)), np.array([0, 1]), [3, 2])
    row = [0.45 + 0.08, 0.45 + 0.02]
    np.testing.assert_allclose(oracle.state()["auxiliary.Q"], [row, row], rtol=1e-12)


def test_q_is_updated_one_sample_after_another():
    oracle = constant_oracle(per_part=False)
    oracle.train_batch(np.zeros((3, 4, 1)), np.array([1, 1, 1]))
    q = 0.8 + (0.5 - 0.8) * 0.9**3
    np.testing.assert_allclose(oracle.state()["auxiliary.Q"], [[0.5, 0.5], [q, 1 - q]], rtol=1e-12)


def test_q_order_is_by_length_descending_and_stable():
    layers = [("Linear", 1, 2)]
    parameters = {"0.weight": np.array([[1.0], [0.0]]), "0.bias": np.zeros(2)}
    oracle = Oracle(
        layers,
        dict(kind="tbptt", parts=1),
        ("sgd", dict(lr=0.0)),
        2,
        loss="auxiliary",
        parameters=parameters,
    )
    x = np.array([[1, 0], [0, 2], [3, 0], [0, 4]], float)[:, :, None]
    oracle.train_batch(x, np.zeros(4), [1, 2, 1, 2])
    q = 0.5
    for logit in (2, 4, 1, 3):  # rows 1, 3 (two steps), then 0, 2 (one step)
        q = 0.9 * q + 0.1 / (1 + math.exp(-logit))
    assert oracle.state()["auxiliary.Q"][0, 0] == pytest.approx(q, rel=1e-12)


def test_q_per_part_learns_at_every_part_end():
    oracle = constant_oracle(per_part=True)
    oracle.train_batch(np.zeros((2, 4, 1)), np.array([0, 1]), [4, 1])
    once, never = [0.53, 0.47], [0.5, 0.5]
    np.testing.assert_allclose(
        oracle.state()["auxiliary.Q"], [[once, once], [once, never]], rtol=1e-12
    )


def test_a_row_that_ended_cannot_influence_anything():
    layers = [("GRU", 2, 3), ("Linear", 3, 2)]
    theta = random_parameters(layers, 5)
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(2, 6, 2)), np.array([0, 1])
    changed = x.copy()
    changed[1, 2:] = 100.0
    found = []
    for data in (x, changed):
        oracle = Oracle(layers, dict(parts=3), ("sgd", dict(lr=0.2)), 6, parameters=theta)
        oracle.train_batch(data, y, [6, 2])
        found.append(oracle.parameters())
    for name in theta:
        np.testing.assert_array_equal(found[0][name], found[1][name])


def test_state_is_carried_between_batches_only_if_asked():
    layers = [("LSTM", 2, 3), ("Linear", 3, 2)]
    theta = random_parameters(layers, 7)
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(2, 6, 2)), rng.integers(0, 2, (2, 6))
    results = {}
    for name, rule, pieces in [
        ("whole", dict(kind="tbptt", parts=2), [(6, slice(0, 6))]),
        ("carry", dict(kind="bptt", state="carry"), [(3, slice(0, 3)), (3, slice(3, 6))]),
        ("reset", dict(kind="bptt", state="reset"), [(3, slice(0, 3)), (3, slice(3, 6))]),
    ]:
        oracle = Oracle(
            layers, rule, ("sgd", dict(lr=0.3)), pieces[0][0], loss="every_step", parameters=theta
        )
        for _, piece in pieces:
            oracle.train_batch(x[:, piece], y[:, piece])
        results[name] = oracle.parameters()["0.weight_hh"]
    np.testing.assert_allclose(results["carry"], results["whole"], rtol=1e-13)
    assert not np.allclose(results["reset"], results["whole"], rtol=1e-6)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN", *REFERENCE_CELLS])
def test_last_part_gradient_is_the_derivative_with_the_carried_state_held_still(kind):
    layers = with_head(kind, 2, 3, 2)
    theta = random_parameters(layers, 9)
    rng = np.random.default_rng(10)
    x, y = rng.normal(size=(3, 7, 2)), rng.integers(0, 2, 3)
    rule, sgd = dict(kind="tbptt", parts=2), ("sgd", dict(lr=0.0))
    oracle = Oracle(layers, rule, sgd, 7, parameters=theta)
    found = oracle.part_gradients(x, y)[1]
    xt, yt, lengths, state = oracle.start(x, y, None)
    _, state, _ = oracle.part_loss(0, xt, yt, lengths, state)
    state = [tuple(v.detach() for v in layer) for layer in state]
    for name in parameter_shapes(layers):
        value = oracle.theta[name].detach()
        numeric = np.zeros(value.numel())
        for n in range(value.numel()):
            for sign in (1, -1):
                value.view(-1)[n] += sign * 1e-5
                loss = oracle.part_loss(1, xt, yt, lengths, state)[0]
                numeric[n] += sign * loss.item() / 2e-5
                value.view(-1)[n] -= sign * 1e-5
        assert_close(found[name].ravel(), numeric, 1e-7, name)


def test_element_wise_lstm_is_an_lstm_with_diagonal_matrices():
    """PyTorch's, and its gradient is the diagonal of that of the matrices."""
    theta = random_parameters([("ElementwiseLSTM", 3, 5)], 21)
    oracle = Oracle(
        [("ElementwiseLSTM", 3, 5)],
        dict(kind="bptt"),
        ("sgd", dict(lr=0.1)),
        7,
        criterion="mse",
        parameters=theta,
    )
    blocks = [np.diag(w) for w in theta["0.weight_hh"].reshape(4, 5)]
    module = torch_recurrent("LSTM", 3, 5, {**theta, "0.weight_hh": np.vstack(blocks)})
    rng = np.random.default_rng(22)
    x, y = rng.normal(size=(4, 7, 3)), rng.normal(size=(4, 5))
    out, _ = module(torch.tensor(x))
    assert_close(oracle.predict(x), out[:, -1].detach().numpy(), 1e-14, "outputs")
    ((out[:, -1] - torch.tensor(y)) ** 2).mean().backward()
    (found,) = oracle.part_gradients(x, y)
    diagonals = [np.diag(w) for w in module.weight_hh_l0.grad.numpy().reshape(4, 5, 5)]
    assert_close(found["0.weight_hh"], np.concatenate(diagonals), 1e-12, "weight_hh")
    assert_close(found["0.weight_ih"], module.weight_ih_l0.grad.numpy(), 1e-12, "weight_ih")


def test_linear_recurrent_unit_is_a_sum_of_powers():
    """s_T = sum over t of Lambda^(T - t) gamma B x_t, in plain complex numbers."""
    theta = random_parameters([("LRU", 3, 5)], 23)
    oracle = Oracle(
        [("LRU", 3, 5)], dict(kind="bptt"), ("sgd", dict(lr=0.1)), 6, "every_step", parameters=theta
    )
    x = np.random.default_rng(24).normal(size=(2, 6, 3))
    modulus = np.exp(-np.exp(theta["0.nu"]))
    eigenvalue = modulus * np.exp(1j * np.exp(theta["0.theta"]))
    driven = np.sqrt(1 - modulus**2)[:, None] * (
        theta["0.weight_ih"][:5] + 1j * theta["0.weight_ih"][5:]
    )
    for t in range(6):
        state = sum(eigenvalue ** (t - s) * (x[:, s] @ driven.T) for s in range(t + 1))
        wanted = np.hstack([state.real, state.imag])
        assert_close(oracle.predict(x)[:, t], wanted, 1e-13, f"step {t}")


def test_full_gradient_differs_from_the_truncated_sum():
    """Otherwise the convergence tests would not see which of the two they look at."""
    layers = [("RNN", 2, 3), ("Linear", 3, 2)]
    oracle = Oracle(
        layers,
        dict(kind="tbptt", parts=3),
        ("sgd", dict(lr=0.0)),
        6,
        loss="every_step",
        parameters=random_parameters(layers, 11),
    )
    rng = np.random.default_rng(12)
    x, y = rng.normal(size=(3, 6, 2)), rng.integers(0, 2, (3, 6))
    full = oracle.full_gradient(x, y)["0.weight_hh"]
    truncated = sum(g["0.weight_hh"] for g in oracle.part_gradients(x, y)) / 3
    assert np.linalg.norm(full - truncated) > 0.05 * np.linalg.norm(full)
