"""What cannot be read from PyTorch is refused by name, with what to do."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch_modules import Last

import fptt
import fptt.torch
from fptt.torch.versions import require_torch


class Net(nn.Module):
    """An LSTM, a Linear and a forward that is given; x is [batch, steps, 3]."""

    def __init__(self, forward, **options):
        super().__init__()
        self.lstm = nn.LSTM(3, 5, batch_first=True, **options)
        self.fc, self.other = nn.Linear(5, 5), nn.Linear(5, 5)
        self.cell, self.emb = nn.LSTMCell(3, 5), nn.Embedding(7, 3)
        self.norm, self.table = nn.LayerNorm(5), nn.Parameter(torch.ones(5, 5))
        self.do = forward

    def forward(self, x):
        return self.do(self, x)


def run(self, x):
    return self.lstm(x)[0]


def skipping(self, x):
    state = None
    for t in range(1, x.size(1)):
        state = self.cell(x[:, t], state)
    return state[0]


def forgetting(self, x):
    for t in range(x.size(1)):
        h, _ = self.cell(x[:, t])
    return h


def not_to_the_end(self, x):
    state = None
    for t in range(x.size(1) - 2):
        state = self.cell(x[:, t], state)
    return state[0]


def swapped_state(self, x):
    h, c = x.new_zeros(5, 5), x.new_zeros(5, 5)
    for t in range(x.size(1)):
        h, c = self.cell(x[:, t], (c, h))
    return h


def stale_c(self, x):
    h, c = x.new_zeros(5, 5), x.new_zeros(5, 5)
    for t in range(x.size(1)):
        h, _ = self.cell(x[:, t], (h, c))
    return h


def two_steps_back(self, x):
    states = [None, None]
    for t in range(x.size(1)):
        states.append(self.cell(x[:, t], states[-2] if t > 3 else states[-1]))
    return states[-1][0]


def backwards(self, x):
    state, outs = None, []
    for t in range(x.size(1)):
        state = self.cell(x[:, t], state)
        outs.insert(0, state[0])
    return torch.stack(outs, 1)


def in_place(self, x):
    out = run(self, x)
    out.relu_()
    return self.fc(out)


def other_in_training(self, x):
    out = run(self, x)
    return self.fc(out) if self.training else self.other(out)


LINE = r"line \d+ of test_torch_refusals\.py"
STEPS = r"take the last step, as in out\[:, -1\], or keep all of them"
BRANCH = "one layer follows the other in fptt, without branches and residual connections"
LOGITS = "return the logits: the cross-entropy includes the softmax"
WHOLE = r"Linear takes \[batch, steps, features\] as it is; leave the reshaping out"
POOL = r"take the last step, out\[:, -1\], or return the outputs of all steps"
SUPPORTED = (
    r"fptt has LSTM, GRU, RNN \(tanh\) and their cells, Linear, ReLU, Dropout, Embedding and "
    "Identity"
)

#: what `forward` does with the layers -> the whole message
FORWARDS = {
    "pair": (
        lambda s, x: s.fc(s.lstm(x)),
        r"fc \(nn\.Linear\) gets the pair \(outputs, state\) of a recurrent layer; put a module "
        "between that takes the outputs, or their last step",
    ),
    "first step": (
        lambda s, x: s.fc(run(s, x)[:, 0]),
        r"Net\.forward returns step 0 of 7; return the last step, out\[:, -1\] \(out\[-1\] without "
        r"batch_first\), or all of them",
    ),
    "last sample": (
        lambda s, x: s.fc(run(s, x)[-1]),
        f"getitem, {LINE}, takes one sample of the batch, not one step; swap the indices, or "
        "change batch_first",
    ),
    "steps": (
        lambda s, x: s.fc(run(s, x)[:, -2:]),
        f"getitem, {LINE}, takes \\[:, -2:\\], several steps or samples; {STEPS}",
    ),
    "feature": (
        lambda s, x: run(s, x)[..., 0],
        f"getitem, {LINE}, takes one of the features; use a Linear for that",
    ),
    "mean": (lambda s, x: s.fc(run(s, x).mean(1)), f"mean, {LINE}, cannot be read; {POOL}"),
    "residual": (
        lambda s, x: s.fc(run(s, x)) + run(s, x),
        f"add, {LINE}, cannot be read; {BRANCH}",
    ),
    "branches": (
        lambda s, x: s.fc(torch.cat([run(s, x), run(s, x)])),
        f"cat, {LINE}, cannot be read; {BRANCH} \\(to collect the steps of a loop use "
        r"torch\.stack\)",
    ),
    "another type": (
        lambda s, x: s.fc(run(s, x).half().float()),
        f"half, {LINE}, cannot be read; take it out of `forward`; {SUPPORTED}",
    ),
    "a state turned": (
        lambda s, x: s.fc(s.lstm(x)[1][0].transpose(0, 1)),
        f"transpose, {LINE}, cannot be read; .*",
    ),
    "tanh": (
        lambda s, x: s.fc(torch.tanh(run(s, x))),
        f"tanh, {LINE}, cannot be read; take it out of `forward`; {SUPPORTED}",
    ),
    "softmax": (
        lambda s, x: functional.log_softmax(s.fc(run(s, x)), -1),
        f"log_softmax, {LINE}, cannot be read; {LOGITS}",
    ),
    "reshaped": (
        lambda s, x: s.fc(run(s, x).reshape(-1, 5)),
        f"reshape, {LINE}, cannot be read; {WHOLE}",
    ),
    "flattened": (
        lambda s, x: s.fc(run(s, x).flatten(0, 1)),
        f"flatten, {LINE}, joins axes that fptt keeps apart; {WHOLE}",
    ),
    "norm": (
        lambda s, x: s.norm(run(s, x)),
        f"norm \\(nn\\.LayerNorm\\) is not a layer that fptt has \\({SUPPORTED}\\); take it out of "
        "the module",
    ),
    "twice": (
        lambda s, x: s.fc(s.fc(run(s, x))),
        r"fc \(nn\.Linear\) is used twice, in two places of the stack; give every place a layer of "
        "its own",
    ),
    "state": (
        lambda s, x: s.fc(s.lstm(x)[1][0]),
        r"fc \(nn\.Linear\) gets the states of all layers; take those of the last one, h_n\[-1\]",
    ),
    "c": (
        lambda s, x: s.fc(s.lstm(x)[1][1][-1]),
        f"getitem, {LINE}, takes the cell state c; take the outputs, or h",
    ),
    "initial state": (
        lambda s, x: s.lstm(x, (torch.ones(1, 5, 5),) * 2)[0],
        r"lstm \(nn\.LSTM\) gets an initial state; leave it out: fptt starts from zero and carries "
        "the state itself",
    ),
    "learnt state": (
        lambda s, x: s.lstm(x, (0 * s.table[None],) * 2)[0],
        r"lstm \(nn\.LSTM\) gets an initial state; leave it out: .*",
    ),
    "recurrent on a step": (
        lambda s, x: s.lstm(x[:, -1])[0],
        r"lstm \(nn\.LSTM\) gets something else than whole sequences of features, in a batch; give "
        r"it \[batch, steps, features\], and take the last step above it",
    ),
    "parameter": (
        lambda s, x: functional.linear(run(s, x), s.table),
        f"linear, {LINE}, cannot be read; take it out of `forward`; {SUPPORTED}",
    ),
    "constant": (
        lambda s, x: s.fc(torch.ones(2, 5)),
        r"fc \(nn\.Linear\) gets a tensor that is no output of a layer; collect the steps of a "
        r"loop in a list, and join them with torch\.stack",
    ),
    "decision": (
        lambda s, x: run(s, x) if x.sum() > 0 else x,
        r"Net\.forward cannot be followed \(TraceError: .*\); make it a plain stack of layers "
        r"without decisions that depend on data, or give "
        r"fptt\.torch\.from_state_dict\(module\.state_dict\(\)\)",
    ),
    "always dropping": (
        lambda s, x: s.fc(functional.dropout(run(s, x))),
        f"dropout, {LINE}, drops in evaluation, too; give it training=self.training, or use "
        r"nn\.Dropout",
    ),
    "all dropped": (
        lambda s, x: s.fc(functional.dropout(run(s, x), 1.0, s.training)),
        f"dropout, {LINE}, has p=1, which leaves nothing; give a probability below 1",
    ),
    "other in training": (
        other_in_training,
        r"Net\.forward computes something else in training than in evaluation, besides dropout; "
        "make it the same",
    ),
    "in place": (
        in_place,
        r"Net was read as LSTM\(3, 5\) - Linear\(5, 5\), but gives other outputs \(they differ by "
        r".*\): its `forward` does something that does not show, such as changing a tensor in "
        r"place; write it without, or use fptt\.torch\.from_state_dict",
    ),
    "embedding above": (
        lambda s, x: s.emb(run(s, x)),
        r"emb \(nn\.Embedding\) is not the first layer; put it there",
    ),
    "nothing": (
        lambda s, x: x,
        r"Net\.forward does not return outputs of its layers; return them, or a tuple that begins "
        "with them",
    ),
    "dict": (lambda s, x: {"logits": run(s, x)}, r"Net\.forward does not return outputs .*"),
    "no recurrence": (
        lambda s, x: nn.functional.relu(s.emb(x)),
        "Net has no recurrent layer between its input and its output; fptt trains recurrent "
        "networks",
    ),
    "features last": (
        lambda s, x: s.other(run(s, x).transpose(1, 2)),
        r"other \(nn\.Linear\) gets an input whose last axis is not that of the features; give the "
        r"module \[batch, steps, features\]",
    ),
    "steps left out": (
        skipping,
        r"cell \(nn\.LSTMCell\) does not get at step 1 the state that it left at the step before; "
        "call it once for every step in turn, from zeros or no state on",
    ),
    "state left out": (forgetting, r"cell \(nn\.LSTMCell\) does not get at step 6 the state .*"),
    "h for c": (swapped_state, r"cell \(nn\.LSTMCell\) does not get at step 1 the state .*"),
    "stale c": (stale_c, r"cell \(nn\.LSTMCell\) does not get at step 1 the state .*"),
    "older state": (two_steps_back, r"cell \(nn\.LSTMCell\) does not get at step 4 the state .*"),
    "end left out": (not_to_the_end, "cell is called for 5 of 7 steps; call it for every one"),
    "backwards": (
        backwards,
        f"stack, {LINE}, joins something else than the outputs of one layer at all steps in turn; "
        + STEPS,
    ),
    "cell on sequences": (
        lambda s, x: s.cell(x)[0],
        r"cell \(nn\.LSTMCell\) gets something else than one step of its input; loop over the "
        r"steps: for t in range\(x\.size\(1\)\): h, c = cell\(x\[:, t\], \(h, c\)\)",
    ),
}
#: these take tokens or another input than the one that would be made up
EXAMPLES = {"no recurrence": torch.zeros(5, 7, dtype=torch.long)}


@pytest.mark.parametrize("name", FORWARDS)
def test_forwards_that_cannot_be_read(name):
    forward, message = FORWARDS[name]
    with pytest.raises(fptt.InputError) as caught:
        fptt.torch.from_module(Net(forward), EXAMPLES.get(name, torch.zeros(5, 7, 3)))
    assert re.fullmatch(message, str(caught.value)), str(caught.value)


def test_the_state_of_a_lower_layer():
    module = Net(lambda s, x: s.lstm(x)[1][0][0], num_layers=2)
    message = (
        f"getitem, {LINE}, takes the state of layer 0 of 2; take that of the last one, "
        r"h_n\[-1\]"
    )
    with pytest.raises(fptt.InputError, match=f"^{message}$"):
        fptt.torch.from_module(module, torch.zeros(5, 7, 3))


class Needy(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 5)

    def forward(self, x, lengths):
        return self.lstm(x)[0]


class Own(nn.LSTM):
    """A class made from one of PyTorch's."""


def tied():
    module = nn.Sequential(nn.Embedding(7, 5), nn.LSTM(5, 5), Last(False), nn.Linear(5, 7))
    module[3].weight = module[0].weight
    return module


def with_nan():
    module = nn.LSTM(3, 5)
    module.weight_hh_l0.data[0, 0] = np.nan
    return module


def hooked():
    module = nn.Sequential(nn.GRU(3, 5))
    module[0].register_forward_hook(lambda *_: None)
    return module


def normed():
    module = nn.Sequential(nn.Linear(3, 4), nn.GRU(4, 5))
    nn.utils.parametrizations.weight_norm(module[0])
    return module


def mixed():
    return nn.Sequential(nn.GRU(3, 5, batch_first=True), Swap(), nn.GRU(5, 5))


class Swap(nn.Module):
    def forward(self, pair):
        return pair[0]


#: a module -> the whole message
MODULES = {
    "bidirectional": (
        lambda: nn.Sequential(nn.GRU(3, 5, bidirectional=True)),
        r"0 \(nn\.GRU\) has bidirectional=True, and so needs the end of a sequence before its "
        "first output; use bidirectional=False",
    ),
    "projection": (
        lambda: nn.LSTM(3, 5, proj_size=2),
        r"the module \(nn\.LSTM\) has proj_size=2, a projection of h that fptt does not have; use "
        "proj_size=0 and a Linear behind the layer",
    ),
    "relu": (
        lambda: nn.RNN(3, 5, nonlinearity="relu"),
        r"the module \(nn\.RNN\) has nonlinearity='relu'; use tanh, which is the one that fptt has",
    ),
    "max_norm": (
        lambda: nn.Sequential(nn.Embedding(7, 3, max_norm=1.0), nn.GRU(3, 5)),
        r"0 \(nn\.Embedding\) has max_norm=1; import it with max_norm=None",
    ),
    "dropout": (
        lambda: nn.Sequential(nn.Dropout(1.0), nn.GRU(3, 5)),
        r"0 \(nn\.Dropout\) has p=1, which leaves nothing; give a probability below 1",
    ),
    "softmax": (
        lambda: nn.Sequential(nn.GRU(3, 5), Last(False), nn.LogSoftmax(-1)),
        rf"2 \(nn\.LogSoftmax\) is not a layer that fptt has \({SUPPORTED}\); {LOGITS}",
    ),
    "wrapped": (
        lambda: nn.DataParallel(nn.GRU(3, 5)),
        rf"the module \(nn\.DataParallel\) is not a layer that fptt has \({SUPPORTED}\); give the "
        r"module inside, model\.module",
    ),
    "convolution": (
        lambda: nn.Sequential(nn.Conv1d(3, 4, 1), nn.GRU(4, 5)),
        rf"0 \(nn\.Conv1d\) is not a layer that fptt has \({SUPPORTED}\); take it out of the "
        "module",
    ),
    "class": (
        lambda: nn.Sequential(Own(3, 5)),
        r"0 \(Own\) is a class of its own made from a layer of PyTorch's, and may compute "
        "something else; use the layer itself",
    ),
    "second input": (
        Needy,
        r"Needy\.forward wants lengths besides the input; give the parameter a default that it "
        r"works with \(fptt carries states and knows lengths by itself\)",
    ),
    "tied": (
        tied,
        r"3\.weight and 0\.weight are one tensor \(tied weights\), which fptt cannot train as one; "
        "untie them: give each layer a tensor of its own",
    ),
    "nan": (with_nan, "weight_hh_l0 contains NaN or Inf; give weights that are finite"),
    "hook": (
        hooked,
        r"0 \(nn\.GRU\) has forward hooks; remove them, or import a copy without",
    ),
    "parametrized": (
        normed,
        r"0 \(.*\) computes its weights from other tensors; make it plain with "
        r"torch\.nn\.utils\.parametrize\.remove_parametrizations",
    ),
    "two orders": (
        mixed,
        r"2 \(nn\.GRU\) takes for the batch what a layer below it takes for the steps; give all "
        "layers the same batch_first, or transpose between them",
    ),
    "lazy": (
        lambda: nn.Sequential(nn.LazyLinear(3), nn.GRU(3, 5)),
        r"0\.weight has no values yet; run the module once, or load its weights",
    ),
    "meta": (lambda: nn.GRU(3, 5, device="meta"), "weight_ih_l0 has no values yet; .*"),
    "no layer": (nn.ReLU, "ReLU has no layer with weights that fptt knows"),
    "no module": (
        dict,
        r"from_module: dict is no torch\.nn\.Module; for a state_dict there is "
        r"fptt\.torch\.from_state_dict",
    ),
}


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize("name", MODULES)
def test_modules_that_cannot_be_read(name):
    make, message = MODULES[name]
    with pytest.raises(fptt.InputError) as caught:
        fptt.torch.from_module(make())
    assert re.fullmatch(message, str(caught.value)), str(caught.value)


EXAMPLE_MESSAGES = {
    "no tensor": ([1, 2], "example is list; give a tensor, an input of it"),
    "axes": (torch.zeros(2, 3, 4, 5), r"the input has 4 axes; give modules that take .*"),
    "width": (
        torch.zeros(2, 4, 9),
        r"GRU does not run on an input of shape \[2, 4, 9\]: .*; give `example=`, an input that "
        "it takes",
    ),
}


@pytest.mark.parametrize("name", EXAMPLE_MESSAGES)
def test_examples_that_do_not_fit(name):
    example, message = EXAMPLE_MESSAGES[name]
    with pytest.raises(fptt.InputError) as caught:
        fptt.torch.from_module(nn.GRU(3, 5), example)
    assert re.fullmatch(message, str(caught.value)), str(caught.value)


# --- PyTorch itself ----------


def test_versions_that_are_not_supported(monkeypatch):
    for version in ("2.4.0", "2.13.0+cpu", "2.99.1"):
        monkeypatch.setattr(torch, "__version__", version)
        require_torch()
    for version in ("2.3.1", "1.13.0", "3.0.0a0+git"):
        monkeypatch.setattr(torch, "__version__", version)
        message = (
            f"fptt.torch works with PyTorch from 2.4 to below 3.0, and here is {version}; install "
            "another one: pip install 'torch>=2.4,<3.0'"
        )
        with pytest.raises(fptt.InputError, match=re.escape(message)):
            require_torch()


def test_without_pytorch_files_are_read_and_all_else_is_said(tmp_path):
    """In an interpreter where torch cannot be imported."""
    from safetensors.torch import save_file

    save_file(nn.ModuleDict({"gru": nn.GRU(3, 5)}).state_dict(), tmp_path / "gru.safetensors")
    torch.save(nn.GRU(3, 5).state_dict(), tmp_path / "gru.pt")
    code = """
import sys
sys.modules["torch"] = None
import fptt, fptt.torch
print(fptt.torch.from_state_dict("gru.safetensors"))
for act in (lambda: fptt.torch.from_module, lambda: fptt.torch.from_state_dict("gru.pt")):
    try:
        act()
    except fptt.InputError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(fptt.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    why = "which cannot be imported here (import of torch halted; None in sys.modules); install it:"
    assert done.stdout.splitlines() == [
        "GRU(3, 5)",
        f"fptt.torch needs PyTorch, {why} pip install 'fptt[torch]'",
        f"reading gru.pt needs PyTorch, {why} pip install 'fptt[torch]'",
    ]


def test_names_that_there_are_not():
    with pytest.raises(AttributeError, match=r"module 'fptt\.torch' has no attribute 'nothing'"):
        _ = fptt.torch.nothing
    assert set(fptt.torch.__all__) <= set(dir(fptt.torch))
