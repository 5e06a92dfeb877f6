"""Modules of PyTorch read as networks give PyTorch's outputs, and take trained weights back."""

import copy
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import examples
from torch import nn
from torch.nn import functional
from torch_modules import (
    CELLS,
    TOLERANCE,
    Last,
    Loop,
    Model,
    assert_same,
    data,
    outputs_of,
    trainer_of,
    widened,
)

import fptt
import fptt.torch

DTYPES = st.sampled_from([torch.float64, torch.float32])
SIZES = st.integers(1, 6)


def check(module, seed=0, dtype=torch.float32, example=None, steps=4):
    """Reads a module and compares its outputs; returns what was read."""
    module = widened(module, seed, dtype)
    before = copy.deepcopy(module.state_dict())
    found = fptt.torch.read_module(module, example)
    x = data(found.network, steps, seed)
    trainer = trainer_of(found, steps, str(dtype).removeprefix("torch."))
    wanted = outputs_of(module, x, found, dtype)
    assert_same(trainer.predict(x), wanted, TOLERANCE[dtype])
    after = module.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    return found


@st.composite
def models(draw):
    cells = draw(
        st.lists(
            st.tuples(st.sampled_from(list(CELLS)), SIZES, st.integers(1, 3)),
            min_size=1,
            max_size=2,
        )
    )
    return Model(
        draw(SIZES),
        cells,
        draw(st.sampled_from(["out", "h_n", "all"])),
        draw(st.lists(SIZES, max_size=2)),
        batch_first=draw(st.booleans()),
        tokens=draw(st.sampled_from([0, 0, 7])),
        dropout=draw(st.sampled_from([0.0, 0.4])),
    )


@settings(max_examples=examples(30))
@given(models(), DTYPES, st.integers(3, 6), st.integers(0, 1000))
def test_stacks_give_the_same_outputs(module, dtype, steps, seed):
    found = check(module, seed, dtype, steps=steps)
    assert found.loss == ("every_step" if module.take == "all" else "last")
    assert found.batch_first == module.batch_first
    assert found.train == ("*",)
    layers = sum(cell.num_layers for cell in module.cells)
    assert sum(layer.recurrent for layer in found.network.layers) == layers


@settings(max_examples=examples(12))
@given(
    st.sampled_from([nn.LSTMCell, nn.GRUCell, nn.RNNCell]),
    st.sampled_from([nn.LSTMCell, nn.GRUCell, nn.RNNCell]),
    st.booleans(),
    st.booleans(),
    DTYPES,
    st.integers(0, 1000),
)
def test_loops_around_cells_give_the_same_outputs(first, second, every_step, first_axis, dtype, s):
    module = Loop(first, second, 3, 4, 2, every_step=every_step, batch_first=first_axis)
    found = check(module, s, dtype, steps=5)
    assert found.loss == ("every_step" if every_step else "last")
    assert found.batch_first == first_axis


def lstm(**options):
    return nn.LSTM(3, 5, **{"batch_first": True, **options})


class Free(nn.Module):
    """A module whose forward is given."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.do = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.do(self, x)


def zeros_given(self, x):
    h_0 = torch.zeros(1, x.size(0), 5, dtype=x.dtype, device=x.device)
    out, _ = self.lstm(x, (h_0, torch.zeros_like(h_0)))
    return self.fc(out[:, -1, :])


def one_step_after_the_other(self, x):
    h, c = None, None
    for t in range(x.shape[1]):
        h, c = self.cell(x[:, t, :], None if h is None else (h, c))
    return self.fc(functional.relu(h))


def with_state(self, x):
    out, state = self.lstm(x)
    return self.fc(out), state


#: what people write in `forward`: (forward, its parts, where the outputs are)
IDIOMS = {
    "last of out": (lambda s, x: s.fc(s.lstm(x)[0][:, -1]), {}, "last"),
    "dots": (lambda s, x: s.fc(s.lstm(x)[0][:, -1, ...]), {}, "last"),
    "select": (lambda s, x: s.fc(s.lstm(x)[0].select(1, -1)), {}, "last"),
    "last outputs": (lambda s, x: s.fc(s.lstm(x)[0])[:, -1], {}, "last"),
    "h_n[-1]": (lambda s, x: s.fc(s.lstm(x)[1][0][-1]), {}, "last"),
    "h_n[0] of one": (lambda s, x: s.fc(s.lstm(x)[1][0][0, :, :]), {}, "last"),
    "h_n.squeeze": (lambda s, x: s.fc(s.lstm(x)[1][0].squeeze(0)), {}, "last"),
    "h_n.view": (lambda s, x: s.fc(s.lstm(x)[1][0].view(-1, 5)), {}, "last"),
    "zeros given": (zeros_given, {}, "last"),
    "functional": (
        lambda s, x: s.fc(functional.dropout(s.lstm(x)[0][:, -1].relu(), 0.3, s.training)),
        {},
        "last",
    ),
    "transposed": (
        lambda s, x: s.fc(s.lstm(x.transpose(0, 1))[0][-1]),
        {"lstm": nn.LSTM(3, 5)},
        "last",
    ),
    "permuted back": (
        lambda s, x: s.fc(s.lstm(x.permute(1, 0, 2).contiguous())[0].permute(1, 0, 2)),
        {"lstm": nn.LSTM(3, 5)},
        "every_step",
    ),
    "returns the state": (with_state, {}, "every_step"),
    "cell": (one_step_after_the_other, {"cell": nn.LSTMCell(3, 5)}, "last"),
    "flatten of rows": (lambda s, x: s.fc(s.lstm(x)[0][:, -1].flatten(1)), {}, "last"),
    "one ReLU twice": (
        lambda s, x: s.fc(s.act(s.mid(s.act(s.lstm(x)[0])))),
        {"act": nn.ReLU(), "mid": nn.Linear(5, 5)},
        "every_step",
    ),
    "type and device": (lambda s, x: s.fc(s.lstm(x.to(x.device))[0].to(x.dtype)), {}, "every_step"),
    "zeros turned": (
        lambda s, x: s.fc(s.lstm(x, (x.new_zeros(x.size(0), 1, 5).transpose(0, 1),) * 2)[0]),
        {},
        "every_step",
    ),
    "dead code": (
        lambda s, x: (s.lstm(x)[0].mean(), s.fc(s.lstm(x)[0][:, -1]))[1],
        {},
        "last",
    ),
    "branch on a size": (
        lambda s, x: s.fc(s.lstm(x if x.dim() == 3 else x[None])[0][:, -1]),
        {},
        "last",
    ),
}


@pytest.mark.parametrize("name", IDIOMS)
def test_what_people_write_in_forward(name):
    forward, parts, loss = IDIOMS[name]
    module = Free(forward, **({"lstm": lstm()} | {"fc": nn.Linear(5, 2)} | parts))
    assert check(module, 3, torch.float64, steps=5).loss == loss


def test_dropout_that_never_drops_is_none():
    module = Free(lambda s, x: functional.dropout(s.lstm(x)[0], 0.3, False), lstm=lstm())
    assert str(check(module).network) == "LSTM(3, 5)"


def test_classes_first_for_cross_entropy():
    """[batch, classes, steps], as nn.CrossEntropyLoss wants it, is read as every step."""
    module = widened(Free(lambda s, x: s.lstm(x)[0].transpose(1, 2), lstm=lstm()), 1)
    found = fptt.torch.read_module(module)
    x = data(found.network, 4, 0)
    with torch.no_grad():
        wanted = module(torch.from_numpy(x)).numpy().transpose(0, 2, 1)
    assert found.loss == "every_step"
    assert_same(trainer_of(found, 4).predict(x), wanted, 1e-5)


def test_a_single_output_without_its_axis_and_inputs_without_one():
    def forward(self, x):
        return self.fc(self.gru(x.unsqueeze(-1))[0][:, -1]).squeeze(-1)

    module = Free(forward, gru=nn.GRU(1, 4, batch_first=True), fc=nn.Linear(4, 1))
    module = widened(module, 2)
    found = fptt.torch.read_module(module)
    x = data(found.network, 5, 0)
    with torch.no_grad():
        wanted = module(torch.from_numpy(x[..., 0])).numpy()[:, None]
    assert_same(trainer_of(found, 5, criterion="mse").predict(x), wanted, 1e-5)


@pytest.mark.parametrize("batch_first", [True, False])
def test_sequential_with_dropout_between_layers(batch_first):
    module = nn.Sequential(
        nn.Linear(3, 4),
        nn.ReLU(),
        nn.LSTM(4, 5, num_layers=2, dropout=0.25, batch_first=batch_first),
        Last(batch_first),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(5, 2),
    )
    found = check(module)
    assert str(found.network) == (
        "Linear(3, 4) - ReLU() - LSTM(4, 5) - Dropout(0.25) - LSTM(5, 5) - Dropout(0.5) - "
        "Linear(5, 2)"
    )
    assert found.batch_first == batch_first
    assert found.tensors["4.bias"] == ("2.bias_ih_l1", "2.bias_hh_l1")


def test_biases_are_added_in_lstm_and_rnn_and_kept_in_gru():
    for make in (nn.LSTM, nn.RNN):
        module = widened(make(3, 5), 0, torch.float64)
        wanted = (module.bias_ih_l0 + module.bias_hh_l0).detach().numpy()
        assert np.array_equal(fptt.torch.from_module(module).weights["0.bias"], wanted)
    module = widened(nn.GRU(3, 5), 0)
    weights = fptt.torch.from_module(module).weights
    assert np.array_equal(weights["0.bias_hh"], module.bias_hh_l0.detach().numpy())


def test_a_cell_by_itself_is_a_layer():
    """Over the steps of [batch, steps, features]; trained weights go back into the cell."""
    cell = widened(nn.LSTMCell(3, 5), 4)
    found = fptt.torch.read_module(cell)
    assert (found.loss, found.batch_first) == ("every_step", True)
    trainer = trainer_of(found, 4)
    x = data(found.network, 4, 0)
    trainer.train_batch(x, np.ones((3, 4), int))
    fptt.torch.to_module(trainer, cell)
    state, outs = None, []
    with torch.no_grad():
        for t in range(4):
            state = cell(torch.from_numpy(x[:, t]), state)
            outs.append(state[0])
    assert_same(trainer.predict(x), torch.stack(outs, 1).numpy(), 1e-5)


def test_a_module_is_left_as_it_was():
    module = Model(3, [("LSTM", 4, 2)], "out", [2], batch_first=True, dropout=0.5).train()
    module.drop.eval()
    flags = [one.training for one in module.modules()]
    fields = {name: set(vars(one)) for name, one in module.named_modules()}
    torch.manual_seed(1)
    wanted = torch.rand(1)
    torch.manual_seed(1)
    fptt.torch.from_module(module)
    assert torch.equal(torch.rand(1), wanted), "random numbers were taken"
    assert [one.training for one in module.modules()] == flags
    assert {name: set(vars(one)) for name, one in module.named_modules()} == fields


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(dtype):
    module = widened(nn.LSTM(3, 5), 0, dtype)
    net = fptt.torch.from_module(module)
    assert net.weights["0.weight_hh"].dtype == np.float32
    assert np.array_equal(net.weights["0.weight_hh"], module.weight_hh_l0.detach().float().numpy())


def test_missing_biases_are_zeros_that_need_not_train():
    module = nn.Sequential(nn.LSTM(3, 5, bias=False), Last(False), nn.Linear(5, 2, bias=False))
    with pytest.warns(UserWarning, match=r"the module has no 0\.bias, 1\.bias; zeros were taken"):
        net = fptt.torch.from_module(module)
    assert not net.weights["0.bias"].any()
    found = check(module)
    assert found.train == ("0.weight_ih", "0.weight_hh", "1.weight")
    x, y = data(found.network, 4, 1), np.array([0, 1, 1])
    trainer = trainer_of(found, 4, train=found.train)
    trainer.train_batch(x, y)
    fptt.torch.to_module(trainer, module)
    assert_same(outputs_of(module, x, found), trainer.predict(x), 1e-5)
    trainer = trainer_of(found, 4)
    trainer.train_batch(x, y)
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(fptt.InputError, match=r"to_module: 0\.bias was trained, and the module"):
        fptt.torch.to_module(trainer, module)
    assert all(torch.equal(module.state_dict()[name], value) for name, value in before.items())


def test_frozen_tensors_do_not_train():
    module = Model(3, [("GRU", 4, 1)], "out", [2], batch_first=True, tokens=6)
    module.emb.weight.requires_grad_(False)
    found = check(module)
    assert "0.weight" not in found.train
    assert {"1.weight_ih", "2.bias"} <= set(found.train)


def test_compiled_modules_are_read_by_what_they_compile():
    module = nn.Sequential(nn.GRU(3, 4))
    compiled = torch.compile(module, backend="eager")
    assert fptt.torch.from_module(compiled) == fptt.torch.from_module(module)


def test_sizes_written_into_forward_need_an_example():
    def forward(self, x):
        h, c = torch.zeros(2, 5), torch.zeros(2, 5)
        for t in range(4):
            h, c = self.cell(x[t], (h, c))
        return h

    module = Free(forward, cell=nn.LSTMCell(3, 5))
    with pytest.raises(fptt.InputError, match=r"does not run on an input of shape \[5, 7, 3\]: .*"):
        fptt.torch.from_module(module)
    found = fptt.torch.read_module(widened(module, 0), torch.zeros(4, 2, 3))
    assert (found.loss, found.batch_first) == ("last", False)
    x = data(found.network, 4, 0, batch=2)
    assert_same(trainer_of(found, 4).predict(x), outputs_of(module, x, found), 1e-5)


# --- and back ----------


ROUND_TRIPS = {
    "LSTM": ([("LSTM", 4, 2)], "out", [3], 0),
    "GRU": ([("GRU", 5, 1)], "h_n", [4, 3], 0),
    "RNN": ([("RNN", 4, 1)], "all", [3], 7),
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_trained_weights_go_back_into_pytorch(name, dtype):
    cells, take, head, tokens = ROUND_TRIPS[name]
    module = Model(2, cells, take, head, batch_first=True, tokens=tokens, dropout=0.2)
    module = widened(module, 5)
    module.unused = nn.Parameter(torch.ones(2))
    start = copy.deepcopy(module.state_dict())
    found = fptt.torch.read_module(module)
    trainer = trainer_of(found, 6, dtype, optimizer=fptt.SGD(lr=0.1, momentum=0.5))
    x = data(found.network, 6, 1)
    y = np.arange(18).reshape(3, 6) % 3 if found.loss == "every_step" else np.array([0, 1, 2])
    for _ in range(3):
        trainer.train_batch(x, y)
    wanted = trainer.predict(x)
    kind = getattr(torch, dtype)
    tolerance = {"float32": 1e-5, "float64": 1e-12, "bfloat16": 0.05}[dtype]

    fresh = fptt.torch.to_module(trainer)
    assert not fresh.training
    assert {p.dtype for p in fresh.parameters()} == {kind}
    given = torch.from_numpy(x) if found.network.tokens else torch.from_numpy(x).to(kind)
    with torch.no_grad():
        assert_same(fresh(given).double().numpy(), wanted, tolerance)
    if dtype != "bfloat16":
        read = fptt.torch.read_module(fresh)
        assert (read.network, read.loss) == (found.network, found.loss)
        for key, value in trainer.parameters().items():
            assert np.array_equal(read.network.weights[key], value), key

    assert fptt.torch.to_module(trainer, module.to(kind)) is module
    assert_same(outputs_of(module.double(), x, found, torch.float64), wanted, tolerance)
    after = module.state_dict()
    changed = [key for key in start if not torch.equal(after[key], start[key].double())]
    assert set(changed) == set(start) - {"unused"}, "every tensor was trained and written"


def test_adapters_are_merged():
    module = widened(Model(3, [("LSTM", 8, 1)], "out", [6], batch_first=True), 1)
    found = fptt.torch.read_module(module)
    trainer = trainer_of(found, 6, adapters={"0.weight_hh": 2}, optimizer=fptt.SGD(lr=0.5))
    x = data(found.network, 6, 1)
    for _ in range(5):
        trainer.train_batch(x, np.array([0, 1, 2]))
    change = trainer.merged_parameters()["0.weight_hh"] - trainer.parameters()["0.weight_hh"]
    assert np.abs(change).max() > 1e-3
    fptt.torch.to_module(trainer, module)
    assert_same(outputs_of(module, x, found), trainer.predict(x), 1e-5)
    with torch.no_grad():
        assert_same(
            fptt.torch.to_module(trainer)(torch.from_numpy(x)).numpy(), trainer.predict(x), 1e-5
        )


def test_networks_with_weights_become_modules():
    net = fptt.torch.from_module(widened(nn.GRU(3, 5), 1, torch.float64))
    module = fptt.torch.to_module(net, loss="every_step")
    assert next(module.parameters()).dtype == torch.float64
    assert module(torch.zeros(2, 4, 3, dtype=torch.float64)).shape == (2, 4, 5)
    assert fptt.torch.to_module(net)(torch.zeros(2, 4, 3, dtype=torch.float64)).shape == (2, 5)
    assert "every_step=True" in repr(module)


WRONG = {
    "no weights": (
        lambda: fptt.torch.to_module(fptt.Network([fptt.LSTM(2, 3)])),
        r"to_module: the network LSTM\(2, 3\) has no weights; give the Trainer that trained it",
    ),
    "no network": (
        lambda: fptt.torch.to_module({}),
        r"to_module: source is dict; give a Trainer, or a Network with weights",
    ),
    "another network": (
        lambda: fptt.torch.to_module(fptt.torch.from_module(nn.GRU(3, 5)), nn.GRU(3, 4)),
        r"to_module: the module is GRU\(3, 4\), and GRU\(3, 5\) was trained; give the module .*",
    ),
    "loss": (
        lambda: fptt.torch.to_module(fptt.torch.from_module(nn.GRU(3, 5)), loss="all"),
        r"to_module: loss is 'all'.*",
    ),
    "loss and module": (
        lambda: fptt.torch.to_module(
            fptt.torch.from_module(nn.GRU(3, 5)), nn.GRU(3, 5), loss="last"
        ),
        r"to_module: loss has no effect with a module of yours; leave it out",
    ),
    "example alone": (
        lambda: fptt.torch.to_module(fptt.torch.from_module(nn.GRU(3, 5)), example=torch.ones(1)),
        r"to_module: example has no effect without module; leave it out",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_written(name):
    act, message = WRONG[name]
    with pytest.raises(fptt.InputError) as caught:
        act()
    assert re.fullmatch(message, str(caught.value)), str(caught.value)
