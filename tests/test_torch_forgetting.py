"""Models whose state would silently begin anew in every part, or be mixed up, are refused."""

import re

import pytest
import torch
from torch import nn

import fptt
from fptt.torch import Stateful, parts, predict


def refused(beginning):
    return pytest.raises(fptt.InputError, match=f"^{re.escape(beginning)}")


class Classifier(nn.Module):
    """The class that most people have: the state stays inside forward."""

    def __init__(self, begin=lambda x: None):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 2)
        self.begin = begin

    def forward(self, x):
        outputs, _ = self.lstm(x, self.begin(x))
        return self.fc(outputs[:, -1])


class Cell(nn.Module):
    """A cell of one's own: one step, (x_t, state) -> (y_t, state)."""

    def __init__(self):
        super().__init__()
        self.w, self.u = nn.Linear(3, 5), nn.Linear(5, 5)

    def forward(self, x, state=None):
        h = torch.tanh(self.w(x) + (0 if state is None else self.u(state)))
        return h, h


class Keeping(Cell):
    """The same, with its state inside."""

    h = None

    def forward(self, x):
        out, self.h = super().forward(x, self.h)
        return out

    def reset_state(self):
        self.h = None

    def detach_state(self):
        self.h = self.h.detach()


def zeros(x):
    return (x.new_zeros(1, len(x), 5), x.new_zeros(1, len(x), 5))


def data():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 6, 3, generator=generator), torch.tensor([0, 1, 1, 0])


@pytest.mark.parametrize("begin", [lambda x: None, zeros])
def test_a_model_that_forgets_its_state_between_parts(begin):
    x, y = data()
    model = Classifier(begin)
    run = parts(model, x, y, parts=3)
    next(run).backward()
    with refused("parts: lstm (nn.LSTM) begins without a state again in the second part"):
        next(run)
    list(parts(model, x, y, parts=1))  # one part forgets nothing
    assert len(list(parts(lambda x, state: (model(x), None), x, y, parts=3))) == 3
    assert not model.lstm._forward_pre_hooks


def test_a_model_that_detaches_its_own_state_is_no_such():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.h = nn.GRUCell(3, 2), None

        def forward(self, x):
            h = None if self.h is None else self.h.detach()
            for x_t in x.unbind(1):
                h = self.cell(x_t, h)
            self.h = h
            return h

    assert len(list(parts(Own(), *data(), parts=3))) == 3


def test_cells_of_ones_own_in_a_sequential():
    x, y = data()
    torch.manual_seed(0)
    cell, fc = Cell(), nn.Linear(5, 2)
    keeping = Keeping()
    keeping.load_state_dict(cell.state_dict())
    h, wanted = None, []
    for x_t in x.unbind(1):
        h, _ = cell(x_t, h)
        wanted.append(fc(h))
    for net in (
        Stateful(nn.Sequential(cell, fc), stepwise=True),
        nn.Sequential(Stateful(cell, stepwise=True), fc),
        Stateful(nn.Sequential(keeping, fc), stepwise=True),
        nn.Sequential(Stateful(keeping, stepwise=True), fc),
    ):
        torch.testing.assert_close(predict(net, x, every_step=True), torch.stack(wanted, 1))
        assert len(list(parts(net, x, y, parts=3))) == 3
    for module in (keeping, Classifier()):
        with refused(f"Stateful: in an nn.Sequential stands a {type(module).__name__}, which"):
            next(parts(nn.Sequential(module, fc), x, y, parts=3))


def test_autocast_around_the_loop():
    """Its casts of the parameters would be those from before the update."""
    x, y = data()
    model = nn.Sequential(Stateful(Cell(), stepwise=True), nn.Linear(5, 2))
    optimizer = fptt.torch.FPTT(torch.optim.SGD(model.parameters(), lr=1.0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for loss in parts(model, x, y, parts=2):
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()


def test_labels_of_every_step_with_the_last_loss():
    tokens = torch.randint(0, 7, (4, 6))
    model = nn.Sequential(nn.Embedding(7, 3), nn.GRU(3, 7))
    with refused("parts: y is [4, 6] labels for the [4, 7] outputs that count"):
        next(parts(model, tokens, tokens, parts=2))
