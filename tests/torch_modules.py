"""Modules as PyTorch users write them, with wide random weights, and how they are compared."""

import numpy as np
import torch
from torch import nn

import fptt

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
CELLS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}


class Last(nn.Module):
    """What people put between nn.LSTM and nn.Linear in nn.Sequential."""

    def __init__(self, batch_first):
        super().__init__()
        self.batch_first = batch_first

    def forward(self, outputs_and_state):
        out, _ = outputs_and_state
        return out[:, -1] if self.batch_first else out[-1]


class Model(nn.Module):
    """A recurrent stack of every kind with a head.

    Args:
        cells: (name, hidden, layers) of each recurrent module.
        take: "out", "h_n" or "all": where the outputs come from.
        head: widths of the linear layers, with ReLU between them.
    """

    def __init__(self, inputs, cells, take, head, *, batch_first, tokens=0, dropout=0.0):
        super().__init__()
        self.take, self.batch_first = take, batch_first
        self.emb = nn.Embedding(tokens, inputs) if tokens else nn.Identity()
        self.cells = nn.ModuleList()
        width = inputs
        for name, hidden, layers in cells:
            between = dropout if layers > 1 else 0.0
            self.cells.append(
                CELLS[name](width, hidden, layers, batch_first=batch_first, dropout=between)
            )
            width = hidden
        self.head = nn.ModuleList()
        for outputs in head:
            self.head.append(nn.Linear(width, outputs))
            width = outputs
        self.drop = nn.Dropout(dropout)
        self.outputs = width

    def forward(self, x):
        x = self.emb(x)
        for cell in self.cells:
            x, state = cell(x)
        if self.take == "h_n":
            x = state[0][-1] if isinstance(state, tuple) else state[-1]
        elif self.take == "out":
            x = x[:, -1, :] if self.batch_first else x[-1]
        for index, linear in enumerate(self.head):
            x = linear(self.drop(torch.relu(x) if index else x))
        return x


class Loop(nn.Module):
    """Two cells in a loop over the steps."""

    def __init__(self, first, second, inputs, hidden, outputs, *, every_step, batch_first):
        super().__init__()
        self.first, self.second = first(inputs, hidden), second(hidden, hidden + 1)
        self.fc, self.hidden = nn.Linear(hidden + 1, outputs), hidden
        self.every_step, self.axis = every_step, 1 if batch_first else 0

    def forward(self, x):
        state = x.new_zeros(x.size(1 - self.axis), self.hidden)
        state = (state, state) if isinstance(self.first, nn.LSTMCell) else state
        above, outs = None, []
        for x_t in x.unbind(self.axis):
            state = self.first(x_t, state)
            h = state[0] if isinstance(state, tuple) else state
            above = self.second(h, above)
            top = above[0] if isinstance(above, tuple) else above
            outs.append(self.fc(top))
        return torch.stack(outs, dim=self.axis) if self.every_step else outs[-1]


def widened(module, seed, dtype=torch.float32):
    """The module with all weights uniform within 0.8, in evaluation."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator) * 1.6 - 0.8)
    return module.to(dtype).eval()


def data(net, steps, seed, batch=3):
    """Inputs [batch, steps, features], or tokens, for fptt."""
    rng = np.random.default_rng(seed)
    if net.tokens:
        return rng.integers(0, net.tokens, (batch, steps))
    return rng.normal(size=(batch, steps, net.inputs)).astype(np.float32)


def outputs_of(module, x, found, dtype=torch.float32):
    """The module's outputs in fptt's order of axes."""
    given = torch.from_numpy(x)
    given = given if given.dtype == torch.int64 else given.to(dtype)
    with torch.no_grad():
        out = module(given if found.batch_first else given.transpose(0, 1))
    out = out[0] if isinstance(out, tuple) else out
    swapped = not found.batch_first and found.loss == "every_step"
    return (out.transpose(0, 1) if swapped else out).numpy()


def trainer_of(found, steps, dtype="float32", batch=3, **options):
    """A trainer of an imported network."""
    rule = options.pop("rule", fptt.FPTT(parts=2))
    program = fptt.build(
        found.network,
        rule,
        options.pop("optimizer", fptt.SGD(lr=0.2)),
        steps=steps,
        batch=batch,
        loss=found.loss,
        dtype=dtype,
        **options,
    )
    return fptt.Trainer(program)


def assert_same(found, wanted, tolerance):
    """Largest difference, in parts of the largest number."""
    assert found.shape == wanted.shape
    scale = max(1.0, np.abs(wanted).max())
    assert np.abs(found - wanted).max() <= tolerance * scale, np.abs(found - wanted).max()
