"""`fptt compare`: the exact gradient is exact, alignments and growth are what they must be."""

import json

import numpy as np
import pytest
import torch

import fptt
from fptt import cli
from fptt.errors import InputError
from fptt.experiments.compare import align, compare, exact_gradient, slope, source_gradient
from fptt.tasks import SequenceData, Task

STEPS, PARTS = 11, 4


def made_up(lengths=None, *, criterion="cross_entropy", rows=5):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(rows, STEPS, 3)).astype(np.float32)
    y = (
        rng.integers(0, 4, rows).astype(np.int32)
        if criterion == "cross_entropy"
        else rng.normal(size=(rows, 4)).astype(np.float32)
    )
    data = SequenceData(x, y, None if lengths is None else np.array(lengths, np.int32))
    return Task("made-up", data, data, 3, 4, STEPS, "last", criterion)


def wide(scale=2.0):
    net = fptt.Network([fptt.LSTM(3, 5), fptt.LSTM(5, 6), fptt.Linear(6, 4)])
    rng = np.random.default_rng(7)
    weights = {n: rng.uniform(-scale, scale, p.shape) for n, p in net.parameters.items()}
    return fptt.Network(net.layers, weights)


def by_autograd(net, data, criterion):
    """All part losses in one graph, nothing cut."""
    w = {name: torch.tensor(a, requires_grad=True) for name, a in net.initial(0).items()}
    rows = torch.arange(len(data))
    lengths = torch.tensor(
        [STEPS] * len(data) if data.lengths is None else data.lengths.tolist(), dtype=torch.int64
    )
    states = [[torch.zeros(len(data), h, dtype=torch.float64)] * 2 for h in (5, 6)]
    tops = []
    for t in range(STEPS):
        below = torch.tensor(data.x[:, t].astype(np.float64))
        for layer, (h, c) in enumerate(states):
            a = below @ w[f"{layer}.weight_ih"].T + h @ w[f"{layer}.weight_hh"].T
            i, f, g, o = (a + w[f"{layer}.bias"]).chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            below = o.sigmoid() * c.tanh()
            states[layer] = [below, c]
        tops.append(below)
    tops = torch.stack(tops)
    total = 0
    for p in range(PARTS):
        begin, end = p * STEPS // PARTS, (p + 1) * STEPS // PARTS
        running = rows[lengths > begin]
        if not len(running):
            continue
        at = torch.minimum(lengths[running], torch.tensor(end)) - 1
        out = tops[at, running] @ w["2.weight"].T + w["2.bias"]
        y = torch.tensor(data.y)[running]
        total = total + (
            torch.nn.functional.cross_entropy(out, y.long())
            if criterion == "cross_entropy"
            else torch.nn.functional.mse_loss(out, y.double())
        )
    total.backward()
    return {name: tensor.grad.numpy() for name, tensor in w.items()}


@pytest.mark.parametrize("criterion", ["cross_entropy", "mse"])
@pytest.mark.parametrize("lengths", [None, [11, 3, 7, 1, 10]])
def test_the_exact_gradient_is_that_of_autograd(lengths, criterion):
    task, net = made_up(lengths, criterion=criterion), wide()
    found = exact_gradient(task, net, task.train, PARTS)
    for name, expected in by_autograd(net, task.train, criterion).items():
        assert np.linalg.norm(found[name] - expected) <= 1e-10 * np.linalg.norm(expected), name


def test_one_part_is_exact_and_parts_are_not():
    task, net = made_up(), wide()
    whole, cut = compare(task, net, [("bptt", 1), ("bptt", PARTS)], batch=5, timed=False)
    assert whole.whole.cosine == pytest.approx(1, abs=1e-12)
    assert whole.whole.norm_ratio == pytest.approx(1, abs=1e-12)
    assert cut.whole.cosine < 0.999
    # the readout sees the present state only, so cutting changes nothing for it
    assert cut.tensors["2.weight"].cosine == pytest.approx(1, abs=1e-12)
    assert (cut.updates, whole.updates) == (PARTS, 1)
    assert cut.pass_bytes < whole.pass_bytes < whole.arena_bytes < whole.fptt_arena_bytes


def test_the_source_gradient_is_the_sum_over_the_parts():
    task, net = made_up(), wide()
    program = fptt.build(net, fptt.TBPTT(parts=PARTS), steps=STEPS, batch=5, dtype="float64")
    parts = fptt.Trainer(program).part_gradients(task.train.x, task.train.y)
    found = source_gradient(task, net, task.train, "bptt", PARTS)
    for name, array in found.items():
        assert np.allclose(array, sum(part[name] for part in parts), rtol=1e-12, atol=0)


def test_dropout_is_off():
    """Under other masks for other rows, what is exact would look as if it were not."""
    layers = [fptt.LSTM(3, 5), fptt.Dropout(0.5), fptt.GRU(5, 6), fptt.Linear(6, 4)]
    task = made_up([11, 6, 3, 9, 5])
    [found] = compare(
        task, fptt.Network(layers), [("rtrl", PARTS)], timed=False, grow=False, scale=3.0
    )
    assert found.whole.cosine == pytest.approx(1, abs=1e-12)
    assert found.whole.norm_ratio == pytest.approx(1, abs=1e-12)


def test_growth_is_read_from_the_programs():
    task, net = made_up(), fptt.Network([fptt.LSTM(3, 16), fptt.Linear(16, 4)])
    [one] = compare(task, net, [("bptt", 1)], timed=False)
    assert one.growth.memory_steps == pytest.approx(1, abs=0.05)
    assert one.growth.work_steps == pytest.approx(1, abs=0.05)
    assert one.growth.memory_parts is None
    assert one.growth.memory_width == pytest.approx(1, abs=0.05)
    assert 1.5 < one.growth.work_width < 2
    [cut] = compare(task, net, [("bptt", 8)], timed=False)
    assert cut.growth.memory_parts == pytest.approx(-1, abs=0.3)


def test_alignment():
    assert align(np.array([3.0, 4.0]), np.array([6.0, 8.0])).cosine == pytest.approx(1)
    assert align(np.array([3.0, 4.0]), np.array([6.0, 8.0])).norm_ratio == pytest.approx(0.5)
    assert align(np.array([1.0, 0.0]), np.array([0.0, 1.0])).cosine == 0
    assert np.isnan(align(np.zeros(2), np.ones(2)).cosine)
    assert slope([1, 2, 4, 8], [5, 40, 320, 2560]) == pytest.approx(3)


def test_a_target_at_every_step_is_refused():
    data = SequenceData(np.zeros((2, 3, 3), np.float32), np.zeros((2, 3), np.int32))
    task = Task("steps", data, data, 3, 4, 3, "every_step", "cross_entropy")
    with pytest.raises(InputError, match="task steps has a target at every step; compare takes"):
        compare(task, wide(), [("bptt", 1)])


def test_on_the_command_line(capsys):
    arguments = ["compare", "--subset", "--hidden", "6", "--parts", "4,7", "--source", "bptt"]
    assert cli.main([*arguments, "--scale", "3", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["source"], row["parts"]) for row in rows] == [("bptt", k) for k in (1, 4, 7)]
    assert rows[0]["whole"]["cosine"] == pytest.approx(1)
    assert rows[1]["seconds"] > 0
    assert cli.main([*arguments, "--no-growth"]) == 0
    shown = capsys.readouterr().out
    assert "0.weight_hh" in shown
    assert "Exponents" not in shown
    assert cli.main(["compare", "--subset", "--source", "backprop"]) == 2
    assert "--source is 'backprop'; choose of bptt" in capsys.readouterr().err
