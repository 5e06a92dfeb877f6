"""state_dicts and files of PyTorch become networks, models, and firmware."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import examples
from safetensors.torch import save_file
from torch import nn
from torch_modules import CELLS, Model, assert_same, data, outputs_of, trainer_of, widened

import fptt
import fptt.torch
from fptt import cli
from fptt.storage.modelfile import load_model
from fptt.torch import from_state_dict


@settings(max_examples=examples(20))
@given(
    st.lists(
        st.tuples(st.sampled_from(list(CELLS)), st.integers(2, 6), st.integers(1, 2)),
        min_size=1,
        max_size=2,
    ),
    st.lists(st.integers(2, 6), max_size=1),
    st.sampled_from([0, 7]),
    st.integers(0, 1000),
)
def test_layers_are_told_by_shapes(cells, head, tokens, seed):
    """As from the module itself, which knows its layers."""
    module = widened(Model(3, cells, "out", head, batch_first=True, tokens=tokens), seed)
    wanted = fptt.torch.from_module(module)
    found = from_state_dict(module.state_dict())
    assert found == wanted
    for name, array in wanted.weights.items():
        assert np.array_equal(found.weights[name], array), name


def small():
    return widened(Model(3, [("LSTM", 5, 1)], "out", [6, 2], batch_first=True, tokens=7), 1)


def test_layers_without_tensors_are_named():
    module = small()
    found = from_state_dict(
        module.state_dict(), ["emb", "cells.0", "dropout:0.5", "head.0", "relu", "head.1"]
    )
    assert str(found) == (
        "Embedding(7, 3) - LSTM(3, 5) - Dropout(0.5) - Linear(5, 6) - ReLU() - Linear(6, 2)"
    )
    read = fptt.torch.read_module(module)
    x = data(found, 4, 0)
    wanted = outputs_of(module, x, read)
    program = fptt.build(found, fptt.BPTT(), steps=4, batch=3)
    assert_same(fptt.Trainer(program).predict(x), wanted, 1e-5)


@pytest.mark.parametrize("kind", ["pt", "checkpoint", "safetensors"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_files(tmp_path, kind, dtype):
    module = nn.ModuleDict({"rnn": nn.GRU(3, 5), "fc": nn.Linear(5, 2, bias=False)})
    widened(module, 2, dtype)
    path = tmp_path / f"model.{kind}"
    if kind == "safetensors":  # keeps no order: fc comes first
        save_file(module.state_dict(), path)
    elif kind == "pt":
        torch.save(module.state_dict(), path)
    else:
        optimizer = torch.optim.Adam(module.parameters())
        torch.save(
            {"epoch": 3, "model": module.state_dict(), "optimizer": optimizer.state_dict()}, path
        )
    found = from_state_dict(path)
    assert str(found) == "GRU(3, 5) - Linear(5, 2)"
    kept = np.float64 if dtype == torch.float64 else np.float32
    assert {array.dtype for name, array in found.weights.items() if name != "1.bias"} == {
        np.dtype(kept)
    }
    given = module.rnn.weight_hh_l0.detach().double().numpy()
    assert np.array_equal(found.weights["0.weight_hh"], given)
    assert not found.weights["1.bias"].any()


def test_cells_arrays_and_prefixes():
    tensors = {name: p.detach().numpy() for name, p in nn.RNNCell(3, 5).named_parameters()}
    assert from_state_dict(tensors) == fptt.Network([fptt.RNN(3, 5)])
    tensors = {f"module.rnn.{name}": array for name, array in tensors.items()}
    assert from_state_dict(tensors) == fptt.Network([fptt.RNN(3, 5)])


def state(**modules):
    return nn.ModuleDict(modules).state_dict()


SAY = r"say it with layers=\[{}\] in their order, with relu and dropout:0\.5 between them"
#: tensors (and layers) -> the whole message
STATES = {
    "activation": (
        lambda: (state(lstm=nn.LSTM(3, 5), a=nn.Linear(5, 4), b=nn.Linear(4, 2)),),
        r"between a\.weight and b\.weight there may be a ReLU, which has no tensors; "
        + SAY.format('"lstm", "a", "b"'),
    ),
    "either": (
        lambda: (state(emb=nn.Embedding(3, 3), lstm=nn.LSTM(3, 5)),),
        r"the tensors could be emb Linear\(3, 3\) - lstm LSTM\(3, 5\) or emb Embedding\(3, 3\) - "
        r"lstm LSTM\(3, 5\); " + SAY.format('"emb", "lstm"'),
    ),
    "no order": (
        lambda: (state(lstm=nn.LSTM(3, 5), fc=nn.Linear(4, 2)),),
        "the widths of these modules fit in no order; " + SAY.format('"lstm", "fc"'),
    ),
    "many": (
        lambda: (state(**{f"g{n}": nn.GRU(n + 1, 50 + n) for n in range(8)}),),
        "there are 8 modules, too many to find their order; " + SAY.format(".*"),
    ),
    "norm": (
        lambda: (state(lstm=nn.LSTM(3, 5), norm=nn.LayerNorm(5)),),
        r"norm has weight \[5\], bias \[5\], and no layer of fptt has such tensors; name the "
        r"layers to take: layers=\[\.\.\.\]",
    ),
    "bidirectional": (
        lambda: (state(lstm=nn.LSTM(3, 5, bidirectional=True)),),
        r"lstm\.weight_ih_l0_reverse belongs to a bidirectional layer, which needs the end of a "
        "sequence before its first output; train one with bidirectional=False",
    ),
    "projection": (
        lambda: (nn.LSTM(3, 5, proj_size=2).state_dict(),),
        r"weight_hr_l0 is a projection of h \(proj_size\), which fptt does not have; train one "
        "with proj_size=0",
    ),
    "rows": (
        lambda: ({"weight_ih_l0": np.ones((10, 3)), "weight_hh_l0": np.ones((10, 5))},),
        r"weight_hh_l0 has shape \[10, 5\]; \[4H, H\] \(LSTM\), \[3H, H\] \(GRU\) or \[H, H\] "
        r"\(RNN\) was expected",
    ),
    "half a layer": (
        lambda: ({"weight_hh_l0": np.ones((20, 5))},),
        "weight_ih_l0 is missing; give the whole state_dict",
    ),
    "a level": (
        lambda: ({n: t for n, t in nn.GRU(3, 5, 3).state_dict().items() if not n.endswith("_l1")},),
        "weight_hh_l1 is missing; give the whole state_dict",
    ),
    "shape": (
        lambda: (nn.GRU(3, 5).state_dict() | {"bias_hh_l0": np.ones(4)},),
        r"bias_hh_l0 has shape \[4\], and \[15\] was expected",
    ),
    "nan": (
        lambda: (nn.GRU(3, 5).state_dict() | {"bias_hh_l0": np.full(15, np.inf)},),
        "bias_hh_l0 contains NaN or Inf; give weights that are finite",
    ),
    "no recurrence": (
        lambda: (nn.Linear(3, 5).state_dict(),),
        "there is no recurrent layer among these tensors; fptt trains recurrent networks",
    ),
    "empty": (
        lambda: ({},),
        r"the state_dict holds nothing, and not the tensors of one module; give those of one: "
        r"module\.state_dict\(\)",
    ),
    "two": (
        lambda: ({"a": nn.GRU(3, 5).state_dict(), "b": nn.GRU(3, 5).state_dict()},),
        "the state_dict holds 'a', 'b', and not the tensors of one module; .*",
    ),
    "module": (
        lambda: (nn.GRU(3, 5),),
        r"the state_dict holds a GRU; give a state_dict: module\.state_dict\(\)",
    ),
    "unknown name": (
        lambda: (nn.GRU(3, 5).state_dict(), ["gru"]),
        r"layers: there is no 'gru'; the tensors belong to \., and relu and dropout:0\.5 can stand "
        "between them",
    ),
    "dropout": (
        lambda: (nn.GRU(3, 5).state_dict(), [".", "dropout"]),
        r"layers: 'dropout'; give a probability such as dropout:0\.5",
    ),
    "colon": (
        lambda: (state(g=nn.GRU(3, 5)), ["g:relu"]),
        "layers: 'g:relu'; give linear or embedding behind the colon",
    ),
    "no table": (
        lambda: (state(a=nn.Linear(3, 3), g=nn.GRU(3, 5)), ["a:embedding", "g"]),
        "a has a bias and is no embedding",
    ),
    "not so": (
        lambda: (state(g=nn.GRU(3, 5)), ["g:linear"]),
        "g is a recurrent layer and no linear",
    ),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", STATES)
def test_tensors_that_tell_no_network(name):
    make, message = STATES[name]
    with pytest.raises(fptt.InputError) as caught:
        from_state_dict(*make())
    assert re.fullmatch(message, str(caught.value)), str(caught.value)


def test_what_could_be_either_is_said():
    tensors = state(emb=nn.Embedding(3, 3), lstm=nn.LSTM(3, 5))
    assert from_state_dict(tensors, ["emb:embedding", "lstm"]).tokens == 3
    assert from_state_dict(tensors, ["emb", "lstm"]).tokens == 3
    assert from_state_dict(tensors, ["emb:linear", "lstm"]).tokens is None


def test_files_without_order_are_not_believed(tmp_path):
    """A .pt file has its order; safetensors sorts by name, and here both orders would do."""
    tensors = state(low=nn.GRU(3, 3), high=nn.GRU(3, 3))
    torch.save(tensors, tmp_path / "a.pt")
    save_file(tensors, tmp_path / "a.safetensors")
    first = tensors["low.weight_hh_l0"].numpy()
    assert np.array_equal(from_state_dict(tmp_path / "a.pt").weights["0.weight_hh"], first)
    message = (
        "the tensors could be high GRU(3, 3) - low GRU(3, 3) or low GRU(3, 3) - high GRU(3, 3); "
    )
    with pytest.raises(fptt.InputError, match=re.escape(message)):
        from_state_dict(tmp_path / "a.safetensors")
    found = from_state_dict(tmp_path / "a.safetensors", ["low", "high"])
    assert np.array_equal(found.weights["0.weight_hh"], first)


def fptt_model(path):
    trainer_of(fptt.torch.read_module(small()), 4).save_parameters(path)


def checkpoint(path):
    trainer_of(fptt.torch.read_module(small()), 4).save(path)


#: a file -> the whole message
FILES = {
    "missing": (lambda path: None, "cannot read the tensors {path}: No such file or directory"),
    "fptt": (
        fptt_model,
        "{path} is a model of fptt already; give it to `fptt eval`, `fptt export` or `fptt plan "
        "--model` as it is",
    ),
    "checkpoint": (
        checkpoint,
        r"{path} is a checkpoint of fptt; load it with fptt\.load",
    ),
    "text": (
        lambda path: path.write_text("weights"),
        r"{path} is neither a whole safetensors file nor one that torch\.save wrote \(.*\); save "
        r"module\.state_dict\(\)",
    ),
    "cut": (
        lambda path: (
            save_file(nn.GRU(3, 5).state_dict(), path),
            path.write_bytes(path.read_bytes()[:-9]),
        ),
        r"{path} is neither a whole safetensors file nor .*",
    ),
    "module": (
        lambda path: torch.save(nn.GRU(3, 5), path),
        r"{path} cannot be read as tensors \(it holds other objects\); save the weights alone: "
        r"torch\.save\(module\.state_dict\(\), path\)",
    ),
    "cut archive": (
        lambda path: (
            torch.save(nn.GRU(3, 5).state_dict(), path),
            path.write_bytes(path.read_bytes()[:-99]),
        ),
        r"{path} cannot be read as tensors \(.*\); save the weights alone: .*",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_cannot_be_read(tmp_path, name):
    make, message = FILES[name]
    path = tmp_path / "file"
    make(path)
    with pytest.raises(fptt.InputError) as caught:
        from_state_dict(path)
    found = str(caught.value).replace(str(path), "{path}")
    assert re.fullmatch(message.replace("{path}", re.escape("{path}")), found), found


# --- the command ----------


@pytest.fixture
def command(capsys):
    """Runs the command line in this process; returns standard output, or the message."""

    def run(*arguments, code=0):
        capsys.readouterr()
        found = cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert found == code, err
        return out if code == 0 else err.splitlines()[-1]

    return run


def rows_model(seed=0):
    module = nn.ModuleDict({"lstm": nn.LSTM(28, 6), "fc": nn.Linear(6, 10)})
    return widened(module, seed)


def test_a_pytorch_lstm_runs_in_c_in_three_commands(command, tmp_path):
    module = rows_model()
    torch.save(module.state_dict(), tmp_path / "lstm.pt")
    model, firmware = tmp_path / "lstm.safetensors", tmp_path / "firmware"
    of_task = ["--task", "mnist-rows", "--subset"]
    told = json.loads(command("import", tmp_path / "lstm.pt", *of_task, "--out", model, "--json"))
    assert told == {
        "model": str(model),
        "network": "LSTM(28, 6) - Linear(6, 10)",
        "parameters": 910,
        "loss": "last",
        "criterion": "cross_entropy",
        "steps": 28,
        "task": "mnist-rows",
    }
    from fptt.tasks import load

    test = load("mnist-rows", subset=True, limit=20).test
    with torch.no_grad():
        out = module.fc(module.lstm(torch.from_numpy(test.x).transpose(0, 1))[0][-1])
    right = float((out.argmax(1).numpy() == test.y).mean())
    limited = [*of_task, "--limit", "20"]
    assert json.loads(command("eval", model, *limited, "--json"))["accuracy"] == right
    if shutil.which("gcc") is None and shutil.which("cc") is None:
        pytest.skip("no C compiler here")
    command("export", model, "--target", "posix", "--parts", 4, "--out", firmware)
    report = json.loads(command("run", firmware, "--on", "posix", "--sequences", 2, "--json"))
    assert report["updates"] == 8
    assert report["largest_parameter_difference"] <= report["tolerance"]


def test_import_without_a_task(command, tmp_path):
    save_file(rows_model().state_dict(), tmp_path / "lstm.st")
    out = command(
        *("import", tmp_path / "lstm.st", "--out", tmp_path / "m", "--layers", "lstm,relu,fc"),
        *("--loss", "every_step", "--criterion", "mse", "--steps", 9),
    )
    assert out == (
        f"LSTM(28, 6) - ReLU() - Linear(6, 10), 910 parameters; model in {tmp_path / 'm'}\n"
    )
    model = load_model(tmp_path / "m")
    assert (model.loss, model.criterion, model.notes["steps"]) == ("every_step", "mse", 9)
    assert model.net.weights["0.weight_ih"].dtype == np.float32


IMPORTS = {
    "option of tasks": (["--subset"], "--subset needs --task, such as --task mnist-rows"),
    "loss of a task": (
        ["--task", "mnist-rows", "--subset", "--loss", "last"],
        "--loss has no effect with --task; leave it out",
    ),
    "another task": (
        ["--task", "s-mnist", "--subset"],
        r"<file> is LSTM\(28, 6\) - Linear\(6, 10\), with 28 inputs and 10 outputs; task s-mnist "
        "has 1 inputs and 10 outputs",
    ),
    "loss": (["--loss", "first"], "build: loss is 'first'.*"),
    "criterion": (["--criterion", "hinge"], "build: criterion is 'hinge'.*"),
    "both": (
        ["--criterion", "mse", "--loss", "auxiliary"],
        'build: loss="auxiliary" predicts classes and cannot go with .*',
    ),
    "steps": (["--steps", "0"], "import: steps is 0.*"),
    "layers": (["--layers", "lstm,fcc"], "layers: there is no 'fcc'; .*"),
}


@pytest.mark.parametrize("name", IMPORTS)
def test_imports_that_are_refused(command, tmp_path, name):
    arguments, message = IMPORTS[name]
    file = tmp_path / "lstm.pt"
    torch.save(rows_model().state_dict(), file)
    said = command("import", file, "--out", tmp_path / "out", *arguments, code=2)
    said = said.replace(str(file), "<file>")
    assert re.fullmatch("fptt: " + message, said), said
    assert not (tmp_path / "out").exists()


def test_import_overwrites_models_only(command, tmp_path):
    file = tmp_path / "lstm.st"
    save_file(rows_model().state_dict(), file)
    said = command("import", file, "--out", file, code=2)
    assert said == f"fptt: {file} exists and is no model; name another file"
    assert command("import", file, "--out", tmp_path / "m") == command(
        "import", file, "--out", tmp_path / "m"
    )
