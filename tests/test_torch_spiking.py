"""fptt.torch.parts with the real snnTorch and SpikingJelly, against their own detach by hand.

Their states lie inside their neurons: they must be reset at a sequence's start, cut off between
parts, and taken along where a state goes on.
"""

import importlib.metadata
import itertools
import re
import sys

import pytest
import snntorch as snn
import torch
from snntorch import surrogate
from spikingjelly.activation_based import functional, neuron
from spikingjelly.activation_based import layer as jelly_layer
from spikingjelly.activation_based import surrogate as jelly_surrogate
from torch import nn
from torch.nn.functional import cross_entropy

import fptt
import fptt.torch
from fptt.torch import FPTT, Stateful, parts, predict
from fptt.torch.spiking_libraries import SUPPORTED, holders

torch.set_num_threads(1)
STEPS, CUTS = 10, [0, 3, 6, 10]  # T = 10 in 3 parts


def data(features=6):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, STEPS, features, generator=generator) * 2
    return x, torch.tensor([0, 1, 2, 0, 1])


def sequential(*neurons):
    """Wide weights, so that all layers spike."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), neurons[0], nn.Linear(8, 3), neurons[1])
    with torch.no_grad():
        for linear in (net[0], net[2]):
            linear.weight.uniform_(-1, 1.5)
    return net


def leaky(make=snn.Leaky, **options):
    options = {"beta": 0.8, "init_hidden": True, "spike_grad": surrogate.fast_sigmoid()} | options
    return lambda: sequential(make(**options), make(**options))


SNNTORCH = {
    "Leaky": leaky(),
    "Leaky, learned": leaky(learn_beta=True, learn_threshold=True, reset_mechanism="zero"),
    "Lapicque": leaky(snn.Lapicque, threshold=0.3),
    "Synaptic": leaky(snn.Synaptic, alpha=0.7),
    "Alpha": leaky(snn.Alpha, alpha=0.9, threshold=0.2),
    "RLeaky": lambda: sequential(
        snn.RLeaky(beta=0.8, linear_features=8, init_hidden=True),
        snn.RLeaky(beta=0.8, linear_features=3, init_hidden=True),
    ),
    "RSynaptic": lambda: sequential(
        snn.RSynaptic(alpha=0.7, beta=0.8, linear_features=8, init_hidden=True),
        snn.RSynaptic(alpha=0.7, beta=0.8, linear_features=3, init_hidden=True),
    ),
    "SLSTM": lambda: sequential(
        snn.SLSTM(8, 8, init_hidden=True, threshold=0.1),
        snn.SLSTM(3, 3, init_hidden=True, threshold=0.1),
    ),
}


def jelly(make, **options):
    options = {"surrogate_function": jelly_surrogate.ATan(), **options}
    return lambda: sequential(make(**options), make(**options))


SPIKINGJELLY = {
    "IFNode": jelly(neuron.IFNode),
    "LIFNode": jelly(neuron.LIFNode, tau=5.0, decay_input=False),
    "LIFNode, whole parts": jelly(neuron.LIFNode, tau=5.0, decay_input=False, step_mode="m"),
    "ParametricLIFNode": jelly(neuron.ParametricLIFNode, v_reset=None),
    "QIFNode": jelly(neuron.QIFNode),
}


def reset_snntorch(net):
    for module in net.modules():
        if isinstance(module, snn.SpikingNeuron):
            module.reset_mem()


def detach_snntorch(net):
    for module in net.modules():
        if isinstance(module, snn.SpikingNeuron):
            for name in ("mem", "syn", "spk", "syn_exc", "syn_inh"):
                if name in module._buffers:
                    setattr(module, name, getattr(module, name).detach())


LIBRARIES = {
    "snntorch": (SNNTORCH, reset_snntorch, detach_snntorch),
    "spikingjelly": (SPIKINGJELLY, functional.reset_net, functional.detach_net),
}
CASES = [(library, name) for library, (nets, *_) in LIBRARIES.items() for name in nets]


def train_by_hand(library, net, x, y, optimizer, cuts):
    """What a user of the library writes; spikes are summed over the part for the loss."""
    _, reset, detach = LIBRARIES[library]
    reset(net)
    losses = []
    for low, high in itertools.pairwise(cuts):
        outputs = []
        for t in range(low, high):
            out = x[:, t]
            for module in net:
                if getattr(module, "step_mode", "s") == "m":
                    out = module(out[None])[0]
                else:
                    out = module(out)
            outputs.append(out)
        loss = cross_entropy(torch.stack(outputs, dim=1).mean(dim=1), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        detach(net)
        losses.append(loss.item())
    return losses


class Rate(nn.Module):
    """The mean over the part's steps: a readout of spikes."""

    def __init__(self, net):
        super().__init__()
        self.net = Stateful(net)

    def forward(self, x):
        return self.net(x)[0].mean(dim=1)


@pytest.mark.parametrize(("library", "name"), CASES)
def test_training_equals_the_librarys_own_way(library, name):
    """Batches of 4, 4 and 3, each from a reset state; FPTT after each of 3 parts."""
    make = LIBRARIES[library][0][name]
    ours, theirs = make(), make()
    x, y = data()
    optimizer, other = (
        FPTT(torch.optim.Adam(net.parameters(), lr=0.02), alpha=0.3) for net in (ours, theirs)
    )
    model, losses = Rate(ours), set()
    for batch in (slice(0, 4), slice(1, 5), slice(2, 5)):
        found = []
        for loss in parts(model, x[batch], y[batch], parts=3):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        wanted = train_by_hand(library, theirs, x[batch], y[batch], other, CUTS)
        assert found == pytest.approx(wanted, rel=1e-5)
        losses.update(found)
    assert len(losses) > 5  # spikes arrive
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)
    hidden = next(p for p in ours.parameters())
    assert (hidden - next(iter(make().parameters()))).abs().max() > 1e-3


@pytest.mark.parametrize(("library", "name"), CASES)
def test_the_state_goes_on_and_comes_back(library, name):
    """Six steps after four, with predictions in between, are ten steps."""
    net = LIBRARIES[library][0][name]()
    x, y = data()
    whole = [loss.item() for loss in parts(net, x, y, parts=10)]
    first = parts(net, x[:, :4], y, parts=4)
    losses = [loss.item() for loss in first]
    state = first.state
    outputs = predict(net, x)
    losses += [loss.item() for loss in parts(net, x[:, 4:], y, parts=6, state=state)]
    assert losses == pytest.approx(whole, rel=1e-6)
    restarted = [loss.item() for loss in parts(net, x[:, 4:], y, parts=6)]
    assert restarted != pytest.approx(whole[4:], rel=1e-3)  # the state matters
    assert torch.equal(outputs, predict(net, x))
    other = LIBRARIES[library][0][name]()[:2]
    with pytest.raises(fptt.InputError, match=r"^parts: the state belongs to a model with the mod"):
        parts(other, x, y, parts=2, state=state)


def test_a_net_of_ones_own_that_takes_one_step():
    """snnTorch's usual form: forward takes one step, the last neuron returns spike and membrane."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.body, self.lif1 = nn.Linear(6, 8), snn.Leaky(0.8, init_hidden=True)
            self.head, self.lif2 = nn.Linear(8, 3), snn.Leaky(0.8, init_hidden=True, output=True)

        def forward(self, x_t):
            return self.lif2(self.head(self.lif1(self.body(x_t))))

    x, y = data()
    model = Stateful(Net(), stepwise=True, output=1)
    losses = [loss.item() for loss in parts(model, x, y, parts=2)]
    net = Net()
    reset_snntorch(net)
    membranes = [net(x[:, t])[1] for t in range(STEPS)]
    wanted = [cross_entropy(membranes[t], y).item() for t in (4, 9)]
    assert losses == pytest.approx(wanted, rel=1e-6)


def test_states_that_users_pass_themselves():
    """snnTorch without init_hidden: mem goes in and out, here as a dict."""
    torch.manual_seed(0)
    body, lif = nn.Linear(6, 3), snn.Leaky(0.8)

    def model(x, state):
        mem = lif.reset_mem() if state is None else state["mem"]
        outputs = []
        for x_t in x.unbind(1):
            _, mem = lif(body(x_t), mem)
            outputs.append(mem)
        return torch.stack(outputs, dim=1), {"mem": mem}

    x, y = data()
    whole, _ = model(x, None)
    wanted = [cross_entropy(whole[:, t - 1], y).item() for t in CUTS[1:]]
    found = []
    for loss in parts(model, x, y, parts=3):
        loss.backward()
        found.append(loss.item())
    assert found == pytest.approx(wanted, rel=1e-6)


def test_layers_of_spikingjelly():
    """Its own Linear takes whole parts in step mode "m"."""
    torch.manual_seed(0)
    net = nn.Sequential(jelly_layer.Linear(6, 8), neuron.LIFNode(), jelly_layer.Linear(8, 3))
    x, y = data()
    one = [loss.item() for loss in parts(net, x, y, parts=3)]
    functional.set_step_mode(net, "m")
    assert [loss.item() for loss in parts(net, x, y, parts=3)] == pytest.approx(one, rel=1e-6)


def test_a_state_without_an_adapter_is_found(monkeypatch):
    """What the adapters are for."""
    monkeypatch.setattr("fptt.torch.passage.holders", lambda model: [])
    x, y = data()
    for net, where in ((leaky()(), "mem"), (jelly(neuron.LIFNode)(), "_memories")):
        message = rf"^parts: the loss of part 2 depends on a graph .*: (1\.\w+, )*1\.{where}, 3"
        run = parts(net, x, y, parts=3)
        next(run).backward()
        with pytest.raises(fptt.InputError, match=message):
            next(run)


def test_neurons_that_take_whole_sequences_are_refused():
    x, y = data()
    net = nn.Sequential(nn.Linear(6, 8), snn.LeakyParallel(8, 3))
    with pytest.raises(
        fptt.InputError,
        match=r"^parts: 1 is a LeakyParallel of snnTorch's, which takes a whole sequence and hands "
        r"no state on; use a neuron that goes step by step, such as snntorch\.Leaky, or parts=1$",
    ):
        parts(net, x, y, parts=2)
    (loss,) = parts(net, x, y, parts=1)
    assert loss.requires_grad


@pytest.mark.parametrize(
    ("package", "found", "message"),
    [
        (
            "snntorch",
            "0.9.1",
            "fptt.torch works with snntorch from 0.9.4 to below 2, and here is 0.9.1; install "
            "another one: pip install 'snntorch==1.0.0'",
        ),
        (
            "spikingjelly",
            "0.0.0.0.12",
            "fptt.torch works with spikingjelly from 0.0.0.0.14 to below 3, and here is "
            "0.0.0.0.12; install another one: pip install 'spikingjelly==2.0.0'",
        ),
        (
            "spikingjelly",
            "3.1",
            "fptt.torch works with spikingjelly from 0.0.0.0.14 to below 3, and here is 3.1; "
            "install another one: pip install 'spikingjelly==2.0.0'",
        ),
    ],
)
def test_versions_that_are_not_supported(monkeypatch, package, found, message):
    real = importlib.metadata.version
    monkeypatch.setattr(
        "importlib.metadata.version", lambda name: found if name == package else real(name)
    )
    x, y = data()
    nets = {"snntorch": leaky(), "spikingjelly": jelly(neuron.LIFNode)}
    with pytest.raises(fptt.InputError, match="^" + re.escape(message) + "$"):
        parts(nets[package](), x, y, parts=2)
    parts(nn.Sequential(nn.LSTM(6, 3)), x, y, parts=2)  # others are not asked


def test_the_pinned_versions_are_the_ones_here():
    for package, (*_, pinned) in SUPPORTED.items():
        assert importlib.metadata.version(package) == pinned


def test_the_libraries_are_not_imported_unless_they_are(monkeypatch):
    for name in list(sys.modules):
        if name.split(".")[0] in ("snntorch", "spikingjelly"):
            monkeypatch.delitem(sys.modules, name)
    assert holders(nn.Sequential(nn.LSTM(6, 3))) == []
    assert not {"snntorch", "spikingjelly"} & set(sys.modules)
