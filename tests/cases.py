"""What the tests share: networks described once for fptt and the oracle, data, comparisons.

Every number fed to fptt here is a multiple of 1/1024, so float32 holds it exactly and the oracle
(always float64) sees the same input, whatever dtype the program has.
"""

import numpy as np
from oracle import Oracle, parameter_shapes, plain, width

import fptt

# Difference ||a - b|| / ||b|| allowed per tensor. "adam": Adam divides d by sqrt(v), so where d is
# near 0 its rounding in float32 is a sizeable part of a step of length lr, and can flip its sign.
TOLERANCE = {"float64": 1e-10, "float32": 1e-5, "float32 adam": 1e-3}

#: cells that the reference runs and the engine does not
REFERENCE_CELLS = ("ElementwiseLSTM", "LRU")

# Networks that the batteries run over.
STACKS = {
    "LSTM-LSTM-Linear": [("LSTM", 3, 5), ("LSTM", 5, 7), ("Linear", 7, 4)],
    "GRU-Linear-ReLU-LSTM-Linear": [
        ("GRU", 3, 5),
        ("Linear", 5, 9),
        ("ReLU",),
        ("LSTM", 9, 7),
        ("Linear", 7, 4),
    ],
    "Embedding-LSTM-Linear": [("Embedding", 11, 3), ("LSTM", 3, 5), ("Linear", 5, 4)],
    "LSTM-Linear-ReLU-Linear": [("LSTM", 3, 7), ("Linear", 7, 9), ("ReLU",), ("Linear", 9, 5)],
    "RNN": [("RNN", 3, 5)],
    "GRU": [("GRU", 3, 5)],
    "LSTM": [("LSTM", 3, 5)],
    "Linear-LSTM": [("Linear", 3, 7), ("LSTM", 7, 5)],
    "ElementwiseLSTM": [("ElementwiseLSTM", 3, 5)],
    "LRU": [("LRU", 3, 5)],
    "Linear-LRU-ReLU-Linear-ElementwiseLSTM-Linear": [
        ("Linear", 3, 6),
        ("LRU", 6, 5),
        ("ReLU",),
        ("Linear", 10, 9),
        ("ElementwiseLSTM", 9, 7),
        ("Linear", 7, 4),
    ],
    "Embedding-ElementwiseLSTM-LRU-Linear": [
        ("Embedding", 11, 3),
        ("ElementwiseLSTM", 3, 5),
        ("LRU", 5, 7),
        ("Linear", 14, 4),
    ],
    "Linear": [("Linear", 3, 5)],
    "Dropout(0)-RNN-Dropout(0)-Linear": [
        ("Dropout", 0.0),
        ("RNN", 3, 5),
        ("Dropout", 0.0),
        ("Linear", 5, 4),
    ],
}


def grid(values):
    """Round to the 1/1024 grid that float32 holds exactly."""
    return np.round(np.asarray(values) * 1024) / 1024


def random_parameters(layers, seed):
    rng = np.random.default_rng(seed)
    return {
        name: grid(rng.uniform(-0.8, 0.8, shape))
        for name, shape in parameter_shapes(layers).items()
    }


def outputs_of(layers):
    sized = [(kind, size) for kind, *size in plain(layers) if size and kind != "Dropout"]
    return width(*sized[-1])


def with_head(cell, inputs, hidden, outputs):
    """A layer of cells and a linear one upon it."""
    return [(cell, inputs, hidden), ("Linear", width(cell, [hidden]), outputs)]


def random_data(layers, batch, steps, loss, criterion, seed):
    """(x, y) for a network; y fits the loss schedule and the criterion."""
    rng = np.random.default_rng(seed)
    kind, *size = next(layer for layer in plain(layers) if layer[0] != "Dropout")
    if kind == "Embedding":
        x = rng.integers(0, size[0], (batch, steps))
    else:
        x = grid(rng.normal(0, 1, (batch, steps, size[0])))
    lead = (batch, steps) if loss == "every_step" else (batch,)
    if criterion == "mse":
        return x, grid(rng.normal(0, 1, (*lead, outputs_of(layers))))
    return x, rng.integers(0, outputs_of(layers), lead)


def runs_on_the_engine(layers):
    """Whether all layers have C kernels."""
    return not any(kind in REFERENCE_CELLS for kind, *_ in layers)


def fptt_network(layers):
    options = [layer[-1] if isinstance(layer[-1], dict) else {} for layer in layers]
    return fptt.Network(
        [
            getattr(fptt, kind)(*size, **given)
            for (kind, *size), given in zip(plain(layers), options, strict=True)
        ]
    )


def fptt_rule(rule):
    options = dict(rule)
    kind = {"bptt": "BPTT", "tbptt": "TBPTT", "fptt": "FPTT"}[options.pop("kind", "fptt")]
    return getattr(fptt, kind)(**options)


def fptt_trainer(
    layers,
    rule,
    optimizer,
    steps,
    batch,
    loss="last",
    criterion="cross_entropy",
    clip=None,
    dtype="float64",
    parameters=None,
    backend="reference",
    build=None,
):
    """A trainer; `build` holds further options of fptt.build."""
    kind, options = optimizer
    program = fptt.build(
        fptt_network(layers),
        fptt_rule(rule),
        optimizer={"sgd": fptt.SGD, "adam": fptt.Adam}[kind](**options),
        steps=steps,
        batch=batch,
        loss=fptt.Auxiliary(**loss[1]) if isinstance(loss, tuple) else loss,
        criterion=criterion,
        dtype=dtype,
        clip=clip,
        **(build or {}),
    )
    trainer = fptt.Trainer(program, backend=backend, seed=0)
    if parameters is not None:
        stored = "float32" if dtype == "bfloat16" else dtype
        trainer.load_parameters({k: v.astype(stored) for k, v in parameters.items()})
    return trainer


def pair(
    layers,
    rule,
    optimizer,
    steps,
    batch,
    dtype="float64",
    seed=1,
    backend="reference",
    build=None,
    **options,
):
    """A fptt Trainer and a float64 Oracle that start from the same parameters."""
    parameters = random_parameters(layers, seed)
    trainer = fptt_trainer(
        layers,
        rule,
        optimizer,
        steps,
        batch,
        dtype=dtype,
        parameters=parameters,
        backend=backend,
        build=build,
        **options,
    )
    return trainer, Oracle(layers, rule, optimizer, steps, parameters=parameters, **options)


def assert_close(found, wanted, tolerance, name, floor=0.0):
    """||found - wanted|| <= tolerance * max(||wanted||, floor)."""
    found, wanted = np.asarray(found, float), np.asarray(wanted, float)
    assert found.shape == wanted.shape, f"{name}: shape {found.shape}, expected {wanted.shape}"
    assert np.isfinite(found).all(), f"{name}: not finite"
    distance, norm = np.linalg.norm(found - wanted), max(np.linalg.norm(wanted), floor)
    assert distance <= tolerance * norm, (
        f"{name}: ||found - wanted|| / ||wanted|| = {distance / norm if norm else np.inf:.3g}, "
        f"allowed {tolerance:.3g}"
    )


def assert_gradients_equal(found, wanted, tolerance):
    assert len(found) == len(wanted)
    assert [g is None for g in found] == [g is None for g in wanted]
    assert any(g is not None for g in wanted), "the case counts nothing and so tests nothing"
    for part, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        if theirs is not None:
            assert set(ours) == set(theirs)
            scale = max(np.linalg.norm(g) for g in theirs.values())
            # a tensor whose gradient is 0, or rounding only, is measured on the others
            for name in theirs:
                assert_close(
                    ours[name], theirs[name], tolerance, f"part {part} {name}", 1e-4 * scale
                )


def assert_trainers_equal(trainer, oracle, tolerance):
    """Parameters, and every tensor of rule and optimizer state, by name."""
    wanted = oracle.parameters()
    found = trainer.parameters()
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert_close(found[name], value, tolerance, name)
    state = trainer.state()
    expected = oracle.state()
    assert set(state) - {"lr", "correction", "random"} == set(expected)
    for key, value in expected.items():
        kind, _, name = key.partition("/")
        # lambda is a sum of differences theta' - m: its rounding is that of alpha * theta
        floor = oracle.rule["alpha"] * np.linalg.norm(wanted[name]) if kind == "lambda" else 0.0
        if kind in ("momentum", "adam_m", "adam_v"):  # may be rounding only
            floor = 1e-4 * max(
                np.linalg.norm(v) for k, v in expected.items() if k.startswith(kind + "/")
            )
        assert_close(state[key], value, tolerance, key, floor)


def assert_bits_equal(first, second, what):
    assert set(first) == set(second), what
    for name in first:
        assert np.array_equal(first[name], second[name]), (
            f"{what} {name}: differs by {np.abs(first[name] - second[name]).max():.3g}"
        )
