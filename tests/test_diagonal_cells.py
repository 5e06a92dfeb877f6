"""LRU and ElementwiseLSTM: what they start from, what they are, and who refuses to run them.

The batteries hold their gradients and updates to the oracle, beside those of the other cells.
"""

import json
import math
import re

import numpy as np
import pytest
from cases import (
    REFERENCE_CELLS,
    assert_bits_equal,
    assert_close,
    assert_gradients_equal,
    fptt_network,
    pair,
    random_data,
    random_parameters,
    with_head,
)

import fptt
from fptt import cli, deploy, planning, runs
from fptt.deploy import budget as fitting
from fptt.native import Engine
from fptt.nets.lru import Phase, Ring
from fptt.program.frame import Frame
from fptt.program.ops import spec
from fptt.training.carry import write_carry

LACKING = {
    "LRU": "lru_backward, lru_decay_gradient, lru_forward, lru_phase_gradient",
    "ElementwiseLSTM": "diagonal_gradient, diagonal_product, diagonal_sum",
}


def program_of(cell, **options):
    options = {"steps": 7, "batch": 4, **options}
    return fptt.build(fptt_network(with_head(cell, 3, 5, 4)), fptt.FPTT(parts=3), **options)


# --- what they start from ----------


def test_eigenvalues_start_uniformly_in_a_ring():
    """By area, so the square of the radius is uniform; and so is the phase."""
    net = fptt.Network([fptt.LRU(2, 20_000, r_min=0.6, r_max=0.9, max_phase=1.5)])
    start = net.initial(3)
    square = np.exp(-2 * np.exp(start["0.nu"]))
    phase = np.exp(start["0.theta"])
    for values, low, high in ((square, 0.36, 0.81), (phase, 0, 1.5)):
        assert low <= values.min() and values.max() <= high
        found, _ = np.histogram(values, bins=8, range=(low, high))
        assert abs(found - 2500).max() < 250  # five deviations of a bin
    assert abs(np.corrcoef(square, phase)[0, 1]) < 0.04
    weights = start["0.weight_ih"]
    assert weights.shape == (40_000, 2)
    assert weights.mean() == pytest.approx(0, abs=0.01)
    assert weights.var() == pytest.approx(1 / 4, rel=0.03)


def test_the_ends_of_the_ring_have_finite_logarithms():
    class Ends:
        def uniform(self, low, high, shape):
            return np.array([low, high])

    assert np.isfinite(Ring(0.0, 1.0)(Ends(), (2,))).all()
    assert np.isfinite(Phase(1.0)(Ends(), (2,))).all()


def test_the_normalised_state_is_as_large_as_its_input():
    """White noise through gamma and Lambda near the circle: E |s|^2 = E |B x|^2."""
    net = fptt.Network([fptt.LRU(4, 300, r_min=0.8, r_max=0.95)])
    program = fptt.build(net, fptt.BPTT(), steps=150, batch=8, loss="every_step", criterion="mse")
    trainer = fptt.Trainer(program)
    x = np.random.default_rng(0).normal(size=(8, 150, 4)).astype(np.float32)
    states = trainer.predict(x)[:, 100:]
    drive = x @ trainer.parameters()["0.weight_ih"].T
    assert np.mean(states**2) == pytest.approx(np.mean(drive**2), rel=0.1)


@pytest.mark.parametrize("cell", REFERENCE_CELLS)
def test_a_seed_draws_the_same_weights_again(cell):
    net = fptt_network(with_head(cell, 3, 5, 4))
    assert_bits_equal(net.initial(2), net.initial(2), "weights")
    assert not np.array_equal(net.initial(2)["0.weight_ih"], net.initial(3)["0.weight_ih"])


# --- what they are ----------


@pytest.mark.parametrize("near", [-4.0, -7.0])
def test_gradients_near_the_unit_circle(near):
    """|Lambda| = 0.982 and 0.9991, where gamma is small; three parts, carried state."""
    layers = with_head("LRU", 3, 5, 4)
    theta = random_parameters(layers, 1)
    theta["0.nu"] = theta["0.nu"] * 0.1 + near
    trainer, oracle = pair(layers, dict(kind="tbptt", parts=3), ("sgd", dict(lr=0.0)), 40, 3)
    x, y = random_data(layers, 3, 40, "last", "cross_entropy", seed=2)
    trainer.load_parameters(theta)
    for name, value in theta.items():
        oracle.theta[name].data[...] = oracle.theta[name].new_tensor(value)
    # the oracle computes 1 - |Lambda|^2 by subtraction
    assert_gradients_equal(trainer.part_gradients(x, y), oracle.part_gradients(x, y), 1e-9)


def test_gamma_keeps_its_digits_near_the_unit_circle():
    """In float32 1 - |Lambda|^2 has none left at nu = -17, and a third of them at -6."""
    nu = np.linspace(-17, 1, 19, dtype=np.float32)
    du, _ = spec("lru_backward").formula(np.ones((1, 38), np.float32), nu, np.zeros_like(nu))
    exact = np.sqrt(-np.expm1(-2 * np.exp(nu.astype(np.float64))))
    np.testing.assert_allclose(du[0, :19], exact, rtol=1e-6)


@pytest.mark.parametrize("cell", REFERENCE_CELLS)
def test_a_unit_depends_on_no_other_unit_s_past(cell):
    """Without input, what disturbs the state of one unit stays in that unit."""
    net = fptt_network([(cell, 2, 6)])
    program = fptt.build(net, fptt.BPTT(), steps=5, batch=1, loss="every_step", criterion="mse")
    trainer = fptt.Trainer(program)
    silent = np.zeros((1, 5, 2), np.float32)

    def after(disturbed):
        state = {b.name: np.full((1, net.outputs), 0.1) for b in program.carried}
        state["0.h"][0, disturbed] = 0.7
        write_carry(trainer.backend, state)
        for t in range(5):
            trainer.backend.write("input", silent[:, t], step=t)
        trainer.backend.run("forward", Frame(0, 0, (1,) * 5, 0))
        return trainer.backend.read("0.h")[-1, 0]

    changed = np.flatnonzero(after(1) != after([]))
    assert set(changed) == ({1, 7} if cell == "LRU" else {1})


def test_the_diagonal_lstm_learns_what_an_lstm_with_diagonal_matrices_would():
    theta = random_parameters(with_head("ElementwiseLSTM", 3, 5, 4), 4)
    full = theta | {
        "0.weight_hh": np.vstack([np.diag(w) for w in theta["0.weight_hh"].reshape(4, 5)])
    }
    found = []
    for cell, weights in (("ElementwiseLSTM", theta), ("LSTM", full)):
        trainer = fptt.Trainer(program_of(cell, dtype="float64"), backend="reference")
        trainer.load_parameters(weights)
        x, y = random_data(with_head(cell, 3, 5, 4), 4, 7, "last", "cross_entropy", seed=5)
        found.append(trainer.part_gradients(x, y, [7, 1, 4, 6]))
    for part, (ours, whole) in enumerate(zip(*found, strict=True)):
        blocks = [np.diag(block) for block in whole["0.weight_hh"].reshape(4, 5, 5)]
        assert_close(ours["0.weight_hh"], np.concatenate(blocks), 1e-12, f"part {part}")
        assert_close(ours["0.weight_ih"], whole["0.weight_ih"], 1e-12, f"part {part}")


def test_which_gradients_have_memory():
    """Those of diagonals, which are no products; the others are applied as they are finished."""
    names = {"LRU": {"0.nu", "0.theta"}, "ElementwiseLSTM": {"0.weight_hh"}}
    for cell, wanted in names.items():
        program = program_of(cell)
        assert {n.removeprefix("grad/") for n in program.buffers if n[:5] == "grad/"} == wanted
        kept = program.keeping_gradients()
        x, y = random_data(with_head(cell, 3, 5, 4), 4, 7, "last", "cross_entropy", seed=6)
        pair_ = [fptt.Trainer(p, seed=1) for p in (program, kept)]
        for trainer in pair_:
            trainer.train_batch(x, y, [7, 2, 5, 3])
        assert_bits_equal(pair_[0].parameters(), pair_[1].parameters(), cell)


def test_the_memory_of_a_part():
    """Per step and sample 6 H of either; 2 H where it is computed again. Bytes, float32."""
    for cell in REFERENCE_CELLS:
        for recompute, kept in ((False, 6), (True, 2)):
            program = program_of(cell, steps=9, recompute=recompute)
            histories = [b for b in program.buffers.values() if b.steps and b.name != "input"]
            assert sum(b.row_items for b in histories) == kept * 5, (cell, recompute)


# --- as data ----------


def test_description():
    net = fptt.Network([fptt.LRU(3, 5), fptt.ReLU(), fptt.ElementwiseLSTM(10, 4)])
    assert str(net) == "LRU(3, 5) - ReLU() - ElementwiseLSTM(10, 4)"
    assert net.widths == (10, 10, 4)
    near = fptt.Network([fptt.LRU(3, 5, r_min=0.9, max_phase=0.25), fptt.Linear(10, 2)])
    assert str(near) == "LRU(3, 5, r_min=0.9, max_phase=0.25) - Linear(10, 2)"
    for one in (net, near):
        assert fptt.Network.from_config(json.loads(json.dumps(one.to_config()))) == one


@pytest.mark.parametrize("cell", REFERENCE_CELLS)
def test_a_snapshot_and_a_model_come_back(tmp_path, cell):
    trainer = fptt.Trainer(program_of(cell, dtype="bfloat16"))
    x, y = random_data(with_head(cell, 3, 5, 4), 4, 7, "last", "cross_entropy", seed=7)
    trainer.train_batch(x, y)
    for t in range(3):
        trainer.step(x[:, t], y)
    trainer.save(tmp_path / "state")
    again = fptt.load(tmp_path / "state")
    assert again.backend.name == "reference"
    for one in (trainer, again):
        for t in range(3, 7):
            one.step(x[:, t], y)
    assert_bits_equal(again.parameters(), trainer.parameters(), "parameters")
    assert_bits_equal(again.state(), trainer.state(), "state")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fptt.LRU(0, 5), "LRU: inputs is 0; give a whole number of at least 1"),
        (
            lambda: fptt.ElementwiseLSTM(3, 2.5),
            "ElementwiseLSTM: hidden is 2.5; give a whole number of at least 1",
        ),
        (
            lambda: fptt.LRU(3, 5, r_min=0.9, r_max=0.9),
            "LRU: r_min is 0.9 and r_max 0.9; give radii with 0 <= r_min < r_max <= 1",
        ),
        (
            lambda: fptt.LRU(3, 5, r_max=math.nan),
            "LRU: r_min is 0.0 and r_max nan; give radii with 0 <= r_min < r_max <= 1",
        ),
        (
            lambda: fptt.LRU(3, 5, max_phase=7),
            "LRU: max_phase is 7; give an angle above 0, at most 2 pi",
        ),
        (
            lambda: fptt.Network([fptt.LRU(3, 5), fptt.Linear(5, 2)]),
            "Network: layer 1: Linear(5, 2) takes 5 inputs, but the layer below delivers 10; "
            "make the two equal",
        ),
        (
            lambda: fptt.Network([fptt.LRU(3, 5), fptt.ElementwiseLSTM(3, 2)]),
            "Network: layer 1: ElementwiseLSTM(3, 2) takes 3 inputs, but the layer below delivers "
            "10; make the two equal",
        ),
        (
            lambda: fptt.Network([fptt.LRU(9, 8)], adapters={"0.weight_ih": 1}),
            "adapters: adapters change the matrices of LSTM, GRU, RNN and Linear, and 0.weight_ih "
            "is none; there are none",
        ),
    ],
)
def test_messages(make, message):
    with pytest.raises(fptt.InputError, match=f"^{re.escape(message)}$"):
        make()


# --- who runs them ----------


@pytest.mark.parametrize("cell", REFERENCE_CELLS)
def test_the_reference_runs_them_by_default_and_says_why(cell):
    for dtype in ("float32", "bfloat16", "float64"):
        trainer = fptt.Trainer(program_of(cell, dtype=dtype))
        assert trainer.backend.describe() == f"NumPy reference (no C kernel for {LACKING[cell]})"
    plain = fptt.Trainer(program_of("LSTM"), backend="reference")
    assert plain.backend.describe() == "NumPy reference"
    assert fptt.Trainer(program_of("LSTM")).backend.name == "native"


@pytest.mark.parametrize("cell", REFERENCE_CELLS)
def test_the_engine_refuses_them_by_name(cell):
    message = (
        f'the engine has no kernel for {LACKING[cell]}; for this program use backend="reference"'
    )
    for make in (lambda p: fptt.Trainer(p, backend="native"), Engine):
        with pytest.raises(fptt.InputError, match=f"^{re.escape(message)}$"):
            make(program_of(cell))


@pytest.mark.parametrize("cell", REFERENCE_CELLS)
def test_devices_refuse_them_by_name(cell, tmp_path):
    program = program_of(cell)
    folder = tmp_path / "model"
    message = (
        f"export: the program ({program.net}) has operations without a C kernel, {LACKING[cell]}; "
        'train it on a computer, with Trainer(program, backend="reference"), or choose other layers'
    )
    with pytest.raises(fptt.InputError, match=f"^{re.escape(message)}$"):
        deploy.export(program, program.net.initial(0), folder, target="posix")
    assert not folder.exists()
    with pytest.raises(fptt.InputError, match=r"^plan --target: .*C kernel, (lru_b|diagonal_g)"):
        fitting.budget(program.net, lambda k: fptt.FPTT(parts=k), target="rv64", steps=7, ram=2**20)


def command(capsys, *arguments):
    code = cli.main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("name", ["lru", "elstm"])
def test_the_command_line(name, tmp_path, capsys):
    path = str(tmp_path / "model.safetensors")
    small = ["--cell", name, "--hidden", "4", "--layers", "2", "--readout", "3", "--parts", "2"]
    task = ["--task", "add", "--option", "steps=8", "--limit", "20"]
    code, out, err = command(
        capsys, "train", *task, *small, "--epochs", "1", "--batch", "5", "--out", path
    )
    assert code == 0, err
    assert "NumPy reference (no C kernel for " in err
    assert "loss" in out
    code, out, err = command(capsys, "eval", path, *task)
    assert code == 0, err
    code, out, err = command(capsys, "train", *task, *small, "--backend", "native")
    assert code == 2 and "the engine has no kernel for " in err
    code, out, err = command(
        capsys, "export", path, "--target", "rv64", "--out", str(tmp_path / "firmware")
    )
    assert code == 2 and "without a C kernel" in err
    target = ["plan", "--cell", name, "--hidden", "4", "--target", "rv64", "--ram", "1MiB"]
    code, out, err = command(capsys, *target)
    assert code == 2 and "plan --target: " in err and "without a C kernel" in err
    code, out, err = command(capsys, "bench", "--cell", name, "--hidden", "4", "--quick")
    assert code == 2 and f"so not for --cell {name}" in err


@pytest.mark.parametrize("cell", ["elstm", "lru"])
def test_the_estimator_takes_them(cell):
    x = np.random.default_rng(1).normal(size=(30, 6, 2)).astype(np.float32)
    y = (x[:, :, 0].sum(axis=1) > 0).astype(int)
    model = fptt.SequenceClassifier(cell=cell, hidden=6, epochs=10, batch=10).fit(x, y)
    assert model.score(x, y) > 0.7


def test_networks_of_options_have_a_nonlinearity_on_every_linear_recurrence():
    net = runs.NetworkChoice("lru", 4, layers=2, readout=3).network(2, 5)
    assert str(net) == ("LRU(2, 4) - ReLU() - LRU(8, 4) - ReLU() - Linear(8, 3) - Linear(3, 5)")


def test_the_memory_table_counts_them():
    for cell in REFERENCE_CELLS:
        row = planning.plan_row(program_of(cell))
        assert row.arena_bytes == program_of(cell).plan.arena_bytes
