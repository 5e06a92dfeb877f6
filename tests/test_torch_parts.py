"""fptt.torch.parts: any module in parts, no graph from one part in the next, memory O(T/K)."""

import dataclasses
import itertools
import re
import weakref
from collections import OrderedDict, namedtuple

import pytest
import torch
from torch import nn

import fptt
import fptt.torch
from fptt.torch import Stateful, parts, predict
from fptt.torch.states import map_tensors

torch.set_num_threads(1)
Two = namedtuple("Two", "h c")


@dataclasses.dataclass(frozen=True)
class Frozen:
    h: torch.Tensor
    c: torch.Tensor
    step: int = 0


def refused(message):
    return pytest.raises(fptt.InputError, match="^" + re.escape(message) + "$")


def data(batch=4, steps=11, features=3, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, steps, features, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, classes, (batch,), generator=generator)


def weights(seed=1):
    """An nn.LSTMCell(3, 6) and a Linear(6, 5), the same for every call."""
    torch.manual_seed(seed)
    return nn.LSTMCell(3, 6).double(), nn.Linear(6, 5).double()


def gradients_of(model, run):
    """Of every part's loss, at fixed weights."""
    found = []
    for loss in run:
        model.zero_grad()
        loss.backward()
        found.append((loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])))
    return found


def by_hand(x, y, cuts):
    """The same, written out: the oracle."""
    cell, head = weights()
    state, found = None, []
    for low, high in itertools.pairwise(cuts):
        for t in range(low, high):
            state = cell(x[:, t], state)
        loss = nn.functional.cross_entropy(head(state[0]), y)
        both = nn.ModuleList([cell, head])
        both.zero_grad()
        loss.backward()
        found.append((loss.item(), torch.cat([p.grad.flatten() for p in both.parameters()])))
        state = tuple(value.detach() for value in state)
    return found


def assert_same(found, wanted):
    assert len(found) == len(wanted)
    for (loss, gradient), (expected, right) in zip(found, wanted, strict=True):
        assert loss == pytest.approx(expected, rel=1e-12)
        torch.testing.assert_close(gradient, right, rtol=1e-9, atol=1e-12)


CUTS = [0, 2, 5, 8, 11]  # T = 11 in 4 parts

# -- states of any structure ---------------------------------------------------------------------

PACK = {
    "tuple": (lambda h, c: (h, c), lambda s: s),
    "list": (lambda h, c: [h, c], lambda s: s),
    "dict": (lambda h, c: {"h": h, "c": c}, lambda s: (s["h"], s["c"])),
    "ordered dict": (lambda h, c: OrderedDict(h=h, c=c), lambda s: (s["h"], s["c"])),
    "named tuple": (Two, lambda s: (s.h, s.c)),
    "dataclass": (Frozen, lambda s: (s.h, s.c)),
    "nested": (lambda h, c: {"layers": [(h,), Two(c, None)], "n": 1}, lambda s: (
        s["layers"][0][0], s["layers"][1].h)),
}  # fmt: skip


class Net(nn.Module):
    """A custom recurrent module with a state of any kind."""

    def __init__(self, kind="tuple"):
        super().__init__()
        self.cell, self.head = weights()
        self.pack, self.unpack = PACK[kind]

    def forward(self, x, state=None):
        state = None if state is None else self.unpack(state)
        outputs = []
        for x_t in x.unbind(1):
            state = self.cell(x_t, state)
            outputs.append(self.head(state[0]))
        return torch.stack(outputs, dim=1), self.pack(*state)


@pytest.mark.parametrize("kind", PACK)
def test_states(kind):
    model, (x, y) = Net(kind), data()
    run = parts(model, x, y, parts=4)
    assert_same(gradients_of(model, run), by_hand(x, y, CUTS))
    assert type(run.state) is type(model.pack(torch.zeros(1), torch.zeros(1)))


def test_a_state_that_cannot_be_detached():
    class Odd:
        pass

    x, y = data()
    with refused(
        "parts: the state holds a Odd, which cannot be detached; keep tensors in tuples, lists, "
        "dicts, named tuples or dataclasses, or give the class a method detach() that returns a "
        "detached copy"
    ):
        next(parts(lambda x, state: (x, Odd()), x, y % 3, parts=2))
    Odd.detach = lambda self: "detached"
    assert map_tensors(torch.Tensor.detach, [Odd()]) == ["detached"]


# -- models of any make --------------------------------------------------------------------------


def lstm(batch_first=True):
    cell, _ = weights()
    made = nn.LSTM(3, 6, batch_first=batch_first).double()
    made.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    return made


class Step(nn.Module):
    """One step of the network, as users of spiking libraries write it."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = weights()

    def forward(self, x_t, state):
        state = self.cell(x_t, state)
        return self.head(state[0]), state


class LastOnly(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = lstm(), weights()[1]

    def forward(self, x, state):
        outputs, state = self.body(x, state)
        return self.head(outputs[:, -1]), state


MODELS = {
    "Sequential of nn.LSTM": lambda: nn.Sequential(lstm(), weights()[1]),
    "Sequential, time first inside": lambda: nn.Sequential(lstm(False), weights()[1]),
    "Sequential in Sequential, a cell": lambda: nn.Sequential(
        nn.Sequential(nn.Identity(), weights()[0]), weights()[1]
    ),
    "Sequential with a custom module": lambda: nn.Sequential(Net(), nn.Identity()),
    "one step": lambda: Stateful(Step(), stepwise=True),
    "one step in Sequential": lambda: nn.Sequential(
        Stateful(Step(), stepwise=True), nn.Dropout(0.0)
    ),
    "last output only": LastOnly,
}


@pytest.mark.parametrize("name", MODELS)
def test_models(name):
    model, (x, y) = MODELS[name](), data()
    assert_same(gradients_of(model, parts(model, x, y, parts=4)), by_hand(x, y, CUTS))
    with torch.no_grad():
        cell, head = weights()
        state = None
        for t in range(11):
            state = cell(x[:, t], state)
        torch.testing.assert_close(predict(model, x), head(state[0]))


def test_functions_and_time_first():
    x, y = data()
    model = nn.ModuleList([lstm(False), weights()[1]])

    def function(x, state):
        outputs, state = model[0](x, state)
        return model[1](outputs), state

    run = parts(function, x.transpose(0, 1), y, parts=4, batch_first=False)
    assert_same(gradients_of(model, run), by_hand(x, y, CUTS))
    # with targets at every step these have time first, too
    every = torch.stack([y] * 11)
    losses = [
        [loss.item() for loss in parts(function, x.transpose(0, 1), every, parts=4,
                                       loss="every_step", batch_first=False)],
        [loss.item() for loss in parts(Net(), x, every.T, parts=4, loss="every_step")],
    ]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    torch.testing.assert_close(
        predict(function, x.transpose(0, 1), batch_first=False), predict(Net(), x)
    )


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_torch_modules_alone(kind):
    """The recurrent module itself, with either order of the axes."""
    torch.manual_seed(0)
    x, y = data()
    model = kind(3, 5, num_layers=2).double()
    flipped = kind(3, 5, num_layers=2, batch_first=True).double()
    flipped.load_state_dict(model.state_dict())
    found = [
        gradients_of(m, parts(m, batch, y, parts=3, batch_first=first))
        for m in (model, flipped)
        for first, batch in ((True, x), (False, x.transpose(0, 1)))
    ]
    for other in found[1:]:
        assert_same(other, found[0])


def test_modules_without_a_state_see_one_step_at_a_time():
    """Flatten and convolutions work inside a sequence of images."""
    torch.manual_seed(0)
    x, y = torch.randn(3, 6, 1, 4, 4), torch.tensor([0, 1, 2])
    conv, head = nn.Conv2d(1, 2, 3), nn.Linear(5, 4)
    model = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.LSTM(8, 5), head)
    outputs, _ = Stateful(model)(x)
    assert outputs.shape == (3, 6, 4)
    features = torch.stack([conv(x[:, t]).relu().flatten(1) for t in range(6)])
    torch.testing.assert_close(outputs, head(model[3](features)[0]).transpose(0, 1))
    assert len(list(parts(model, x, y, parts=3))) == 3


# -- what counts ---------------------------------------------------------------------------------


def test_a_part_in_which_nothing_counts_only_carries_the_state():
    """Equal to the whole sequence without that part's update."""
    x, _ = data()
    y = torch.full((4, 11), -1)
    y[1, 0], y[2, 1], y[0, 10] = 3, 1, 2
    model, numbers, graphs = Net(), [], []
    run = parts(model, x, y, parts=4, loss="every_step")
    model.head.register_forward_hook(lambda m, args, out: graphs.append(out.requires_grad))
    for loss in run:
        loss.backward()
        numbers.append(run.part)
    assert numbers == [1, 4]
    assert graphs == [True] * 2 + [False] * 6 + [True] * 3  # no activations are kept for nothing
    outputs, _ = Net()(x)
    assert loss.item() == pytest.approx(
        nn.functional.cross_entropy(outputs[:1, 10], y[:1, 10]).item()
    )


def test_rows_without_a_target():
    x, y = data()
    y[1] = -100  # what PyTorch ignores
    values = torch.randn(4, 5, dtype=torch.float64)
    values[2, 0] = float("nan")
    outputs, _ = Net()(x)
    rows = [0, 2, 3]
    *_, loss = parts(Net(), x, y, parts=2)
    assert loss.item() == pytest.approx(
        nn.functional.cross_entropy(outputs[rows, -1], y[rows]).item()
    )
    *_, loss = parts(Net(), x, values, parts=2, criterion="mse")
    assert loss.item() == pytest.approx(
        nn.functional.mse_loss(outputs[[0, 1, 3], -1], values[[0, 1, 3]]).item()
    )
    *_, loss = parts(Net(), x, y.clamp(min=0), parts=2, criterion=nn.MultiMarginLoss())
    assert loss.item() == pytest.approx(nn.MultiMarginLoss()(outputs[:, -1], y.clamp(min=0)).item())
    assert list(parts(Net(), x, torch.full((4,), -1), parts=2)) == []


def test_one_number_as_the_target():
    x, _ = data()
    head = nn.Linear(3, 1).double()
    y = torch.tensor([1.0, 2.0, 3.0, 4.0])
    (loss,) = parts(nn.Sequential(head), x, y, parts=1, criterion="mse")
    assert loss.item() == pytest.approx(((head(x[:, -1])[:, 0] - y) ** 2).mean().item())
    (other,) = parts(nn.Sequential(head), x, y[:, None], parts=1, criterion="mse")
    assert other == loss
    with refused(
        "parts: y is [4] for the [4, 3] outputs that count, [counted, outputs]; with "
        "criterion='mse' give as many numbers"
    ):
        next(parts(nn.Identity(), x, y, parts=1, criterion="mse"))


def test_tokens():
    """Next-token prediction, int32, with padding that is no token."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 3), nn.GRU(3, 5), nn.Linear(5, 7))
    tokens = torch.randint(0, 7, (3, 9), dtype=torch.int32)
    tokens[1, 5:] = -1
    x, y = tokens[:, :-1], tokens[:, 1:]
    losses = [loss.item() for loss in parts(model, x, y, parts=2, loss="every_step",
                                            lengths=[8, 4, 8])]  # fmt: skip
    outputs, _ = Stateful(model)(x.clamp(min=0))
    for half, found in ((slice(0, 4), losses[0]), (slice(4, 8), losses[1])):
        wanted = nn.functional.cross_entropy(
            outputs[:, half].flatten(0, 1), y[:, half].flatten().long(), ignore_index=-1
        )
        assert found == pytest.approx(wanted.item())
    labels = torch.tensor([1, 2, 3], dtype=torch.int32)
    assert len(list(parts(model, x.clamp(min=0), labels, parts=2))) == 2


def test_predict_at_each_sequences_own_end():
    x, _ = data()
    model = nn.Sequential(Net(), nn.Dropout(0.5))
    model.eval()
    outputs = predict(model, x, every_step=True)
    assert not outputs.requires_grad
    lengths = [11, 1, 7, 4]
    found = predict(model, x, lengths=torch.tensor(lengths))
    torch.testing.assert_close(found, outputs[torch.arange(4), torch.tensor(lengths) - 1])


# -- the state -----------------------------------------------------------------------------------


def test_state_of_the_batch_before():
    x, y = data(steps=12)
    whole = parts(Net(), x, y, parts=4)
    first = parts(Net(), x[:, :6], y, parts=2)
    losses = [loss.item() for loss in first]
    second = parts(Net(), x[:, 6:], y, parts=2, state=first.state)
    losses += [loss.item() for loss in second]
    assert losses == pytest.approx([loss.item() for loss in whole], rel=1e-12)
    torch.testing.assert_close(second.state, whole.state)


def test_state_is_refused_where_there_is_none():
    x, y = data()
    run = parts(Net(), x, y, parts=4)
    next(run)
    with refused("parts: state after part 1 of 4; run the loop to its end first"):
        _ = run.state
    run = parts(Net(), x, y, parts=4, lengths=[11, 3, 2, 1])
    list(run)
    with refused(
        "parts: sequences of unequal lengths have no common last state; carry the state with "
        "batches of equal lengths only"
    ):
        _ = run.state


def test_a_state_with_a_graph_is_refused():
    x, y = data()
    _, state = Net()(x)
    with refused(
        "parts: the state requires a gradient, and would be run backward in another batch; detach "
        "it. An initial state that is learnt belongs into the model, for state=None"
    ):
        parts(Net(), x, y, parts=2, state=state)


class Holding(nn.Module):
    """Keeps its state in an attribute, as nobody could know."""

    def __init__(self):
        super().__init__()
        self.inner = nn.ModuleDict({"cell": nn.Module()})
        self.cell, self.head = weights()
        self.inner["cell"].memory = {"now": None}

    def forward(self, x):
        memory = self.inner["cell"].memory
        outputs = []
        for x_t in x.unbind(1):
            memory["now"] = self.cell(x_t, memory["now"])
            outputs.append(self.head(memory["now"][0]))
        return torch.stack(outputs, dim=1)


class Cooperating(Holding):
    def reset_state(self):
        self.inner["cell"].memory["now"] = None

    def detach_state(self):
        now = self.inner["cell"].memory["now"]
        self.inner["cell"].memory["now"] = tuple(value.detach() for value in now)


def smuggled(node, part, where):
    return (
        f"parts: the loss of part {part} depends on a graph from before this part ({node}), so "
        "memory would grow with the sequence. Something goes from part to part beside the state, "
        "or was computed from parameters once for all. Attributes that hold a graph: "
        f"{where}. Pass it through forward(x, state), or give the module that keeps it the methods "
        "reset_state() and detach_state()"
    )


def refused_graph(where, part=2):
    message = re.escape(smuggled("NODE", part, where)).replace("NODE", r"\w+0")
    return pytest.raises(fptt.InputError, match=f"^{message}$")


def test_a_state_kept_in_an_attribute_is_found():
    x, y = data()
    model = Holding()
    with torch.no_grad():  # an evaluation tells nothing
        list(parts(model, x, y, parts=4))
    model.inner["cell"].memory["now"] = None
    with refused_graph("inner.cell.memory"):
        gradients_of(model, parts(model, x, y, parts=4))
    model = Holding()  # with one part, at the start of the next batch
    gradients_of(model, parts(model, x, y, parts=1))
    with refused_graph("inner.cell.memory", part=1):
        gradients_of(model, parts(model, x, y, parts=1))


def test_a_module_that_cuts_its_own_state():
    model, (x, y) = Cooperating(), data()
    for _ in range(2):  # it is reset in between
        assert_same(gradients_of(model, parts(model, x, y, parts=4)), by_hand(x, y, CUTS))
    predict(model, x)
    run = parts(model, x, y, parts=4)
    assert_same(gradients_of(model, run), by_hand(x, y, CUTS))
    again = parts(model, x, y, parts=1, state=run.state)
    x2 = torch.cat([x, x], dim=1)
    assert_same(gradients_of(model, again), by_hand(x2, y, [0, 2, 5, 8, 11, 22])[-1:])


def test_what_was_computed_from_parameters_once_is_found():
    model, (x, y) = Net(), data()
    scale = model.head.bias.exp()
    run = parts(lambda x, state: (model(x, state)[0] * scale, model(x, state)[1]), x, y, parts=2)
    next(run).backward()
    with refused_graph("none found"):
        next(run)


def test_a_harmless_attribute_with_a_graph():
    """What is not used in the next part does no harm, and is let be."""

    class Logging(Net):
        def forward(self, x, state=None):
            self.seen, state = super().forward(x, state)
            return self.seen, state

    model, (x, y) = Logging(), data()
    assert_same(gradients_of(model, parts(model, x, y, parts=4)), by_hand(x, y, CUTS))


def test_without_detaching_it_fails(monkeypatch):
    """The mutation that all this is about."""
    monkeypatch.setattr("fptt.torch.passage.detached", lambda state: state)
    x, y = data()
    model = Net()
    with refused_graph("none found"):
        gradients_of(model, parts(model, x, y, parts=4))


# -- memory --------------------------------------------------------------------------------------


class SavedBytes:
    """Bytes that autograd keeps for the backward pass, each block of memory counted once."""

    def __init__(self, *not_counted):
        self.left_out = {t.untyped_storage().data_ptr() for t in not_counted}
        self.holders, self.now, self.peak = {}, 0, 0

    def pack(self, tensor):
        class Kept:
            pass

        kept, storage = Kept(), tensor.untyped_storage()
        kept.tensor = tensor
        address = storage.data_ptr()
        if address in self.left_out:
            return kept
        if address not in self.holders:
            self.holders[address] = 0
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
        self.holders[address] += 1
        weakref.finalize(kept, self.freed, address, storage.nbytes())
        return kept

    def freed(self, address, size):
        self.holders[address] -= 1
        if not self.holders[address]:
            del self.holders[address]
            self.now -= size

    def measure(self):
        return torch.autograd.graph.saved_tensors_hooks(self.pack, lambda kept: kept.tensor)


def peak_of(model, x, y, k, learn=True):
    saved = SavedBytes(x, *model.parameters())
    optimizer = fptt.torch.FPTT(torch.optim.SGD(model.parameters(), lr=0.1))
    losses = []
    with saved.measure():
        for loss in parts(model, x, y, parts=k):
            if learn:
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            else:
                losses.append(loss)
    assert learn == (saved.now == 0)
    return saved.peak


@pytest.mark.parametrize("name", ["Sequential of nn.LSTM", "one step"])
def test_memory_is_that_of_one_part(name):
    """Bytes that autograd holds at the peak, T = 64: K times as many parts, 1/K of the memory."""
    x, y = data(steps=64)
    peaks = {k: peak_of(MODELS[name](), x, y, k) for k in (1, 2, 4, 8, 16, 64)}
    # what a part needs besides its steps: logits, labels, the state it starts from
    per_step = (peaks[1] - peaks[16]) / 60
    besides = peaks[16] - 4 * per_step
    assert per_step > 6 * 4 * 6 * 8  # gates, c, h at least, of 4 rows, 6 units, float64
    assert abs(besides) < 2 * per_step, (peaks, per_step)
    for k, peak in peaks.items():
        assert peak == pytest.approx(64 / k * per_step + besides, abs=0.5 * per_step), k
    assert peaks[16] * 16 < 1.5 * peaks[1]
    # the two mistakes the docstring warns of bring the memory of all T steps back
    assert peak_of(MODELS[name](), x, y, 16, learn=False) > 0.95 * peaks[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    """The same losses, and memory of one part as the allocator sees it."""
    x, y = data()
    model = nn.Sequential(lstm(), weights()[1]).cuda()
    found = gradients_of(model, parts(model, x.cuda(), y.cuda(), parts=4, lengths=[11, 4, 8, 2]))
    model = nn.Sequential(lstm(), weights()[1])
    wanted = gradients_of(model, parts(model, x, y, parts=4, lengths=[11, 4, 8, 2]))
    assert_same([(loss, gradient.cpu()) for loss, gradient in found], wanted)
    auxiliary = fptt.torch.AuxiliaryLoss(5).cuda()
    model.cuda()
    for loss in parts(model, x.cuda(), y.cuda(), parts=4, loss=auxiliary):
        loss.backward()

    model = nn.Sequential(nn.LSTM(1, 256), nn.Linear(256, 10)).cuda()
    x, y = torch.randn(64, 512, 1).cuda(), torch.randint(0, 10, (64,)).cuda()
    peaks = {}
    for k in (1, 1, 2, 4, 8, 16):  # the first run warms up
        torch.cuda.synchronize()
        start = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        for loss in parts(model, x, y, parts=k):
            loss.backward()
        model.zero_grad()
        peaks[k] = torch.cuda.max_memory_allocated() - start
    assert peaks[16] < peaks[1] / 4
    assert sorted(peaks.values(), reverse=True) == list(peaks.values())


# -- refusals ------------------------------------------------------------------------------------


def test_refusals_of_the_arguments():
    x, y = data()
    net = Net()
    with refused("parts: model is 'net'; give a module or a function"):
        parts("net", x, y, parts=2)
    with refused("parts: x is [4]; give a tensor [batch, steps, ...] with at least one step"):
        parts(net, x[:, 0, 0], y, parts=2)
    with refused("parts: x is list; give a tensor [steps, batch, ...] with at least one step"):
        parts(net, x.tolist(), y, parts=2, batch_first=False)
    for wrong in (0, 12, 2.0, True):
        with refused(
            f"parts: parts is {wrong!r} and the sequences have 11 steps; give a whole number from "
            "1 to 11"
        ):
            parts(net, x, y, parts=wrong)
    with refused(
        "parts: steps is 5 and x has 11 steps; give T, the length of the longest sequence"
    ):
        parts(net, x, y, parts=2, steps=5)
    for wrong in ([11, 11], [11, 0, 1, 1], [12, 1, 1, 1], [1.5, 1, 1, 1]):
        with refused(
            f"parts: lengths is {wrong}; give one whole number from 1 to 11 for each of the 4 "
            "sequences"
        ):
            parts(net, x, y, parts=2, lengths=wrong)
    with refused(
        "parts: loss is 'all'; give 'last', 'every_step' or an AuxiliaryLoss, and what compares "
        "outputs with targets as criterion"
    ):
        parts(net, x, y, parts=2, loss="all")
    with refused(
        "parts: criterion is 'l1'; give 'cross_entropy', 'mse' or a function of outputs and "
        "targets [rows, ...] that returns their mean"
    ):
        parts(net, x, y, parts=2, criterion="l1")
    with refused(
        "parts: an AuxiliaryLoss predicts classes and holds its own criterion; leave out "
        "criterion, which is 'mse'"
    ):
        parts(net, x, y, parts=2, loss=fptt.torch.AuxiliaryLoss(5), criterion="mse")
    with refused("parts: y is a list; give a tensor"):
        parts(net, x, y.tolist(), parts=2)
    with refused(
        "parts: y has shape [3]; with 4 sequences of 11 steps and loss='last' give [4] or "
        "[4, outputs]"
    ):
        parts(net, x, y[:3], parts=2)
    with refused(
        "parts: y has shape [4] (batch first); with 4 sequences of 11 steps and loss='every_step' "
        "give [4, 11] or [4, 11, outputs]"
    ):
        parts(net, x, y, parts=2, loss="every_step")
    with refused(
        "parts: x requires a gradient, so what made it would be run backward once for every part; "
        "make it inside the model, part by part, or give x.detach()"
    ):
        parts(net, x.clone().requires_grad_(), y, parts=2)
    parts(net, x.clone().requires_grad_(), y, parts=1)
    with refused(
        "parts: rnn is a LSTM with bidirectional=True, which needs the end of a sequence for its "
        "beginning; use one that goes forward only, or parts=1"
    ):
        model = nn.Sequential(OrderedDict(rnn=nn.LSTM(3, 5, bidirectional=True)))
        parts(model, x, y, parts=2)


def test_refusals_of_the_model():
    x, y = data()
    with refused(
        "parts: model(x_part, state) returned a Tensor; it must return the pair (outputs, state). "
        "Where the second argument is no state, give `lambda x, state: (model(x), None)`"
    ):
        next(parts(lambda x, mask=None: x, x, y, parts=2))
    with refused(
        "parts: the model's outputs are a tuple; give one tensor, for instance by "
        "Stateful(model, output=0)"
    ):
        next(parts(lambda x: (x, None), x, y, parts=2))
    message = (
        "parts: the model returned outputs of shape {} (batch first) for 4 rows of 5 steps; give "
        "outputs [batch, steps, ...], or, where only a part's last output counts and all sequences "
        "are equally long, [batch, outputs]"
    )
    with refused(message.format([4, 4, 3])):
        next(parts(lambda x: x[:, 1:], x, y, parts=2))
    with refused(message.format([4, 3])):
        next(parts(lambda x: x[:, -1], x, y, parts=2, lengths=[11, 4, 2, 1]))
    with refused(
        "parts: the model takes no state, and state is a tuple; leave it out, or give the `state` "
        "of earlier parts"
    ):
        parts(Cooperating(), x, y, parts=2, state=(x, x))
    with refused(
        "parts: the model is Stateful(..., batch_first=False) and here batch_first is True; make "
        "them equal"
    ):
        parts(Stateful(Net(), batch_first=False), x, y, parts=2)
    with refused("Stateful: module is 'LSTM'; give a torch.nn.Module"):
        Stateful("LSTM")
    with refused(
        "Stateful: the state is a Tensor that does not belong to these 2 modules; give what the "
        "call before returned, or None"
    ):
        Stateful(nn.Sequential(lstm(), nn.ReLU()))(x, x)


def test_a_compiled_layer_in_another_order_is_refused():
    x, y = data()
    x = x.float()
    compiled = torch.compile(nn.LSTM(3, 5), backend="eager")
    with refused(
        "parts: the compiled or parallel model is a LSTM with batch_first=False and here "
        "batch_first is True; make them equal"
    ):
        parts(compiled, x, y, parts=2)


def test_whole_numbers_are_numbers_to_mean_squared_error():
    """-1 marks a label that is missing, not a number."""
    x = data()[0].float()
    model = nn.Sequential(nn.LSTM(3, 1))
    values = torch.tensor([-2, -1, 0, 3])
    found, wanted = (
        [loss.item() for loss in parts(model, x, v, parts=2, criterion="mse")]
        for v in (values, values.to(x.dtype))
    )
    assert found == wanted and len(found) == 2
