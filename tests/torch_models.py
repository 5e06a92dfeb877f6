"""PyTorch modules that compute what fptt's networks do, for tests of fptt.torch."""

import itertools

import torch
from torch import nn


class Recurrent(nn.Module):
    """nn.LSTM, nn.GRU or nn.RNN of any depth and a readout; written as users write it.

    Args:
        kind: "LSTM", "GRU" or "RNN".
        parameters: fptt's, by name; the layers "0" to depth - 1, then the readout.
    """

    def __init__(self, kind, inputs, hidden, depth, classes, parameters, **options):
        super().__init__()
        make = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}[kind]
        self.body = make(inputs, hidden, num_layers=depth, **options)
        self.head = nn.Linear(hidden, classes)
        self.double()
        self.names = {}
        for name, tensor in self.body.named_parameters():
            role, layer = name.rsplit("_l", 1)
            if kind == "GRU" or not role.startswith("bias"):
                self.names[f"{layer}.{role}"] = tensor
            elif role == "bias_ih":
                self.names[f"{layer}.bias"] = tensor
            else:  # fptt's LSTM and RNN have one bias
                tensor.requires_grad_(False).zero_()
        self.names[f"{depth}.weight"], self.names[f"{depth}.bias"] = self.head.parameters()
        assert set(self.names) == set(parameters)
        with torch.no_grad():
            for name, tensor in self.names.items():
                tensor.copy_(torch.tensor(parameters[name]))

    def forward(self, x, state=None):
        outputs, state = self.body(x, state)
        return self.head(outputs), state

    def trained(self):
        return {name: tensor.detach().numpy().copy() for name, tensor in self.names.items()}


def layers_of(kind, inputs, hidden, depth, classes):
    """The same network in the words of cases.py."""
    sizes = [inputs] + [hidden] * depth
    body = [(kind, *pair) for pair in itertools.pairwise(sizes)]
    return [*body, ("Linear", hidden, classes)]
