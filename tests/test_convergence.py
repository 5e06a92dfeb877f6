"""Where FPTT converges to (Proposition 1 of Kag & Saligrama), and what detached state makes of it.

The proposition says that a limit of FPTT is a stationary point of the mean of the losses it runs
through; the gradient meant is the one the updates use. Two readings follow, and both are tested:

- Losses whose gradient is the full BPTT gradient: K = 1 and two batches in turn, l_A and l_B. At a
  constant rate FPTT, like plain online updates, ends in a cycle A, B, A, ... around the stationary
  point, because l_A and l_B pull in opposite directions there; its shape is known in closed form.
- K parts with the state detached between them: the limit is stationary for the sum of the parts'
  truncated gradients. The full BPTT gradient is not zero there, however small the rate.

Measured, and worth knowing before more is claimed: with a decaying rate plain online updates (no
lambda, no m) reach the same points, and with one gradient step per part FPTT does not settle at a
constant rate either. So a small final gradient alone would not notice that lambda and R(t) were
dropped together. The shape of the limit cycle does, and that is why it is tested.
"""

import numpy as np
import pytest
from cases import fptt_trainer, grid, random_parameters
from oracle import Oracle

import fptt

LAYERS = [("RNN", 2, 3)]  # its outputs are h, so that few directions of theta are flat
STEPS, BATCH = 6, 9
OPTIONS = dict(loss="every_step", criterion="mse")
START = random_parameters(LAYERS, 33)
TRAINED = ("0.weight_ih", "0.bias")


def oracle_at(parameters, parts=1):
    rule = dict(kind="tbptt", parts=parts)
    return Oracle(LAYERS, rule, ("sgd", dict(lr=0.0)), STEPS, parameters=parameters, **OPTIONS)


def noisy_teacher_batches():
    """Two batches of one teacher network's outputs, plus noise that no network fits."""
    rng = np.random.default_rng(11)
    teacher = oracle_at(random_parameters(LAYERS, 21))
    batches = []
    for _ in range(2):
        x = grid(rng.normal(size=(BATCH, STEPS, 2)))
        batches.append((x, grid(teacher.predict(x) + rng.normal(0, 0.3, (BATCH, STEPS, 3)))))
    return batches


def flat(tensors, prefix=""):
    return np.concatenate([np.ravel(tensors[prefix + name]) for name in sorted(START)])


def mean_gradient(gradients):
    return np.mean([flat(g) for g in gradients], axis=0)


def distance(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("mode", ["code", "paper", "no wrapper"])
def test_limit_cycle_of_two_losses_with_full_bptt_gradients(mode):
    """theta, m, lambda and g in the limit, at a constant rate eta.

    Means over A and B: theta' = theta and so on in the rule leave lambda = 0, m = theta and
    g_A + g_B = 0.
    Half differences (the part of each that changes its sign from A to B) obey the rule with
    theta' = -theta, m' = -m, lambda' = -lambda; with kappa = 1 (code) or 1/2 (paper) and beta = 1/2

        lambda = -4 alpha / (3 kappa + 2) theta;  m = (theta - lambda / alpha) / 3
        g = 2 theta / eta + kappa lambda - alpha (theta - m)

    whatever the network is. Another place or sign of lambda or R(t), an m that aliases theta, or a
    lambda computed from an m that has moved on breaks one of them. Without the wrapper
    g = 2 theta / eta.
    """
    eta, alpha = 1.0, 0.5
    wrapped = mode != "no wrapper"
    rule = dict(parts=1, alpha=alpha, mode=mode) if wrapped else dict(kind="bptt")
    batches = noisy_teacher_batches()
    trainer = fptt_trainer(
        LAYERS, rule, ("sgd", dict(lr=eta)), STEPS, BATCH, parameters=START, **OPTIONS
    )
    for _ in range(400):
        for x, y in batches:
            trainer.train_batch(x, y)

    seen = []
    for x, y in batches:
        theta, state = trainer.parameters(), trainer.state()
        g = flat(oracle_at(theta).full_gradient(x, y))
        m = flat(state, "mean/") if wrapped else flat(theta)
        lam = flat(state, "lambda/") if wrapped else np.zeros_like(m)
        seen.append(np.stack([flat(theta), m, lam, g]))
        trainer.train_batch(x, y)
    theta, m, lam, g = (seen[0] + seen[1]) / 2
    start = np.linalg.norm(mean_gradient([oracle_at(START).full_gradient(*b) for b in batches]))
    assert np.linalg.norm(g) < 1e-4 * start  # Proposition 1
    assert np.linalg.norm(seen[0][3]) > 0.1 * start  # although neither loss is at its own minimum
    assert np.linalg.norm(lam) < 1e-3 * alpha * np.linalg.norm(seen[0][0] - seen[1][0])
    assert distance(m, theta) < 1e-4

    theta, m, lam, g = (seen[0] - seen[1]) / 2
    if not wrapped:
        assert distance(g, 2 / eta * theta) < 1e-4
        return
    kappa = {"code": 1.0, "paper": 0.5}[mode]
    wanted_lam = -4 * alpha / (3 * kappa + 2) * theta
    wanted_m = (theta - wanted_lam / alpha) / 3
    assert distance(lam, wanted_lam) < 1e-4
    assert distance(m, wanted_m) < 1e-4
    assert distance(g, 2 / eta * theta + kappa * wanted_lam - alpha * (theta - wanted_m)) < 1e-4


@pytest.mark.parametrize("mode", ["code", "paper"])
def test_limit_of_detached_parts_is_stationary_for_the_truncated_gradient(mode):
    """K = 2, rate 1 and then halved five times, each stage from the running mean of the last.

    The sum of the parts' gradients falls below 1e-3 of its start, in proportion to the rate (at
    rate 1 it stays above 1e-2). The gradient through all time stays at some 4 % of its start: it
    has converged, but to what the detached parts define.
    """
    batch = noisy_teacher_batches()[0]
    rule = dict(parts=2, alpha=0.5, mode=mode)

    def gradients(parameters):
        oracle = oracle_at(parameters, parts=2)
        truncated = mean_gradient(oracle.part_gradients(*batch))
        return np.linalg.norm(truncated), np.linalg.norm(flat(oracle.full_gradient(*batch)))

    parameters, found = START, []
    for halvings, repeats in enumerate([300, 20, 40, 80, 160, 320]):
        trainer = fptt_trainer(
            LAYERS,
            rule,
            ("sgd", dict(lr=0.5**halvings)),
            STEPS,
            BATCH,
            parameters=parameters,
            **OPTIONS,
        )
        for _ in range(repeats):
            trainer.train_batch(*batch)
        trainer.end_epoch()  # theta <- m
        parameters = trainer.parameters()
        found.append(np.array(gradients(parameters)) / gradients(START))
    truncated, full = np.array(found).T
    assert truncated[0] > 1e-2
    assert truncated[-1] < 1e-3
    assert np.all(truncated[1:] < 0.7 * truncated[:-1])
    assert full[-1] == pytest.approx(full[-2], rel=0.02)
    assert full[-1] > 20 * truncated[-1]


@pytest.mark.parametrize("mode", ["code", "paper"])
def test_limit_has_no_bptt_gradient_where_the_parts_share_no_state(mode):
    """Proposition 1 to the letter: K = 3 parts, full batch, decaying rate, full BPTT gradient.

    weight_hh is frozen at 0, so h_t depends on x_t alone and nothing is lost by detaching: the sum
    of the parts' gradients is the full BPTT gradient. The parts pull in different directions
    (noise that no network fits). FPTT with a decaying rate ends where their sum is zero. Plain
    online updates at a constant rate go round that point for ever.
    """
    batch = noisy_teacher_batches()[0]
    start = {**START, "0.weight_hh": np.zeros_like(START["0.weight_hh"])}

    def gradient(parameters):
        full = oracle_at(parameters).full_gradient(*batch)
        return np.linalg.norm(np.concatenate([np.ravel(full[n]) for n in TRAINED]))

    def train(rule, decay):
        program = fptt.build(
            fptt.Network([fptt.RNN(2, 3)]),
            rule,
            fptt.SGD(lr=1.0),
            steps=STEPS,
            batch=BATCH,
            loss="every_step",
            criterion="mse",
            dtype="float64",
            train=TRAINED,
        )
        trainer = fptt.Trainer(program)
        trainer.load_parameters(start)
        for step in range(900):
            trainer.lr = 1 / (1 + decay * step)
            trainer.train_batch(*batch)
        trainer.end_epoch()
        return gradient(trainer.parameters()) / gradient(start)

    assert train(fptt.FPTT(parts=3, alpha=0.5, mode=mode), decay=0.5) < 1e-3
    assert train(fptt.TBPTT(parts=3), decay=0.0) > 1e-2
