"""The command line: results, JSON, messages, exit codes, interruption and going on."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fptt
from fptt import cli, planning, runs
from fptt.nets import CELLS
from fptt.storage.modelfile import load_model
from fptt.studies import demo

SOURCE = Path(fptt.__file__).parents[1]
COMMANDS = [
    "demo",
    "train",
    "eval",
    "plan",
    "compare",
    "explore",
    "reproduce",
    "report",
    "bench",
    "import",
    "export",
    "run",
    "rtl",
]
SMALL = ["--hidden", "4", "--epochs", "1", "--batch", "8"]


def full(text, **names):
    """A regular expression for a whole message: `text` with <...> for anything."""
    return re.escape(text.format(**names)).replace(re.escape("<...>"), ".+")


@pytest.fixture
def fptt_cli(capsys):
    """Runs the command line in this process; returns what it wrote."""

    def run(*arguments, code=0):
        capsys.readouterr()
        found = cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        assert found == code, err
        return out, err

    return run


@pytest.fixture
def refused(fptt_cli):
    """Runs a command that must fail with this one message and nothing on standard output."""

    def run(message, *arguments, code=2, **names):
        out, err = fptt_cli(*arguments, code=code)
        assert out == ""
        assert re.fullmatch("fptt: " + full(message, **names), err.splitlines()[-1]), err

    return run


@pytest.fixture
def fptt_json(fptt_cli):
    """Runs a command with --json; standard output must be one JSON document and nothing else."""

    def forbidden(name):
        raise AssertionError(f"{name} is no JSON")

    def run(*arguments):
        return json.loads(fptt_cli(*arguments, "--json")[0], parse_constant=forbidden)

    return run


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Writes npz archives and other files into one folder."""
    folder = tmp_path_factory.mktemp("data")

    def write(name, **arrays):
        np.savez(folder / name, **arrays)
        return folder / name

    return write


def sequences(n=24, steps=6, features=2, seed=0):
    return np.random.default_rng(seed).normal(0, 1, (n, steps, features)).astype(np.float32)


@pytest.fixture(scope="module")
def good(store):
    return store("good.npz", x=sequences(), y=np.arange(24) % 3)


@pytest.fixture(scope="module")
def subprocess_environment():
    return {**os.environ, "PYTHONPATH": str(SOURCE), "OPENBLAS_NUM_THREADS": "1"}


# --- help, version, usage ----------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example(fptt_cli, command):
    out, err = fptt_cli(command, "--help")
    assert err == ""
    assert f"Example: fptt {command}" in out
    assert "JSON: " in out
    assert fptt_cli(command, "-h")[0] == out


def test_every_command_is_in_this_list():
    names = [c.name or c.callback.__name__ for c in cli.app.registered_commands]
    assert sorted(names) == sorted(COMMANDS)


@pytest.mark.parametrize("command", ["train", "eval", "plan"])
def test_the_examples_in_the_help_are_accepted(fptt_cli, command, tmp_path, monkeypatch):
    """They parse; the training example runs with the sizes made small."""
    monkeypatch.chdir(tmp_path)
    text = " ".join(fptt_cli(command, "--help")[0].split())
    words = text.split("Example: fptt ")[1].split()
    if command == "eval":
        train = text_of_example(fptt_cli, "train")
        fptt_cli(*train, "--limit", 20, "--hidden", 4, "--epochs", 1)
    extra = ["--limit", 20] if command != "plan" else []
    small = ["--hidden", 4] if command != "eval" else []
    fptt_cli(*words, *extra, *small, *(["--epochs", 1] if command == "train" else []))


def text_of_example(fptt_cli, command):
    return " ".join(fptt_cli(command, "--help")[0].split()).split("Example: fptt ")[1].split()


def test_version(fptt_cli):
    assert fptt_cli("--version") == (f"fptt {fptt.__version__}\n", "")


def test_no_arguments_print_help_and_are_wrong_use(fptt_cli):
    out, err = fptt_cli(code=2)
    assert err == ""
    assert "Usage:" in out and "Example: fptt demo" in out
    assert all(f"\n  {command} " in out for command in COMMANDS)


WRONG_USE = {
    "command": (["trian"], "No such command 'trian'. Did you mean 'train'?", "fptt --help"),
    "option of all": (["--colour"], "No such option: --colour", "fptt --help"),
    "option": (
        ["train", "--epoch", "3"],
        "No such option: --epoch (Possible options: --epoch-end, --epoch-lambda, --epochs)",
        "fptt train --help",
    ),
    "typing error": (
        ["plan", "--hiden", "3"],
        "No such option: --hiden<...>--hidden<...>",
        "fptt plan --help",
    ),
    "no model": (["eval"], "Missing argument 'model'.", "fptt eval --help"),
    "too much": (
        ["demo", "now"],
        "Got unexpected extra argument(s) (now)",
        "fptt demo --help",
    ),
    "no value": (["train", "--lr"], "Option '--lr' requires an argument.", "fptt train --help"),
    "no number": (
        ["train", "--epochs", "many"],
        "Invalid value for '--epochs': <...>valid integer<...>",
        "fptt train --help",
    ),
}


@pytest.mark.parametrize("name", WRONG_USE)
def test_wrong_use_of_the_command_line(refused, name):
    arguments, message, help_line = WRONG_USE[name]
    refused(f"{message} ({help_line} shows what there is)", *arguments)


# --- bad input ----------


def damaged(path, data):
    path.write_bytes(data)
    return path


@pytest.fixture(scope="module")
def bad(store, good, tmp_path_factory):
    """Files that cannot be used, by name."""
    x, y = sequences(), np.arange(24) % 3
    with_nan, with_inf = x.copy(), x.astype(np.float64)
    with_nan[3, 1, 0] = np.nan
    with_inf[2, 0, 1] = 1e300
    folder = good.parent
    np.save(folder / "single.npy", x)
    pickled = np.empty(2, object)
    pickled[:] = [x[0], x[1]]
    tiny = fptt.Trainer(
        fptt.build(
            fptt.Network([fptt.LSTM(2, 4), fptt.Linear(4, 3)]), fptt.FPTT(parts=2), steps=6, batch=8
        )
    )
    tiny.save(folder / "state.fptt")
    tiny.save_parameters(folder / "model.st")
    model = (folder / "model.st").read_bytes()
    return {
        "nan": store("nan.npz", x=with_nan, y=y),
        "huge": store("huge.npz", x=with_inf, y=y),
        "flat": store("flat.npz", x=x[:, :, 0], y=y),
        "labels": store("labels.npz", x=x, y=np.where(y == 1, -2, y)),
        "short": store("short.npz", x=x, y=y[:-1]),
        "words": store("words.npz", x=x, y=np.array(["a", "b", "c"] * 8)),
        "lengths": store("lengths.npz", x=x, y=y, lengths=np.full(24, 7)),
        "no_y": store("no_y.npz", x=x),
        "pickled": store("pickled.npz", x=pickled, y=y[:2]),
        "one": store("one.npz", x=x[:1], y=y[:1]),
        "y_nan": store("y_nan.npz", x=x, y=np.where(y == 1, np.nan, 1.0)),
        "truncated": damaged(folder / "cut.npz", good.read_bytes()[:-300]),
        "text": damaged(folder / "text.npz", b"x,y\n1,2\n"),
        "empty": damaged(folder / "empty.npz", b""),
        "single": folder / "single.npy",
        "missing": folder / "missing.npz",
        "folder": folder,
        "good": good,
        "state": folder / "state.fptt",
        "model": folder / "model.st",
        "model_cut": damaged(folder / "cut.st", model[: len(model) // 2]),
        "model_empty": damaged(folder / "empty.st", b""),
    }


MADE = "make or copy it again"
TRAIN_DATA = {
    "nan": "{file}: x[3, 1, 0] is nan, the first of 1 that are no finite float32: replace them, or "
    "leave their sequences out",
    "huge": "{file}: x[2, 0, 1] is 1e+300, the first of 1 that are no finite float32: replace "
    "them, or leave their sequences out",
    "y_nan": "{file}: y[1] is nan, the first of 8 that are no finite float32: replace them, or "
    "leave their sequences out",
    "flat": "{file}: x is float32 of shape [24, 6]; expected [n, T, F], or integers [n, T] for "
    "tokens, or [N, F] beside lengths [n]: for one feature a step use x[:, :, np.newaxis]",
    "labels": "{file}: y[1] is -2; expected labels 0, 1, ...",
    "short": "{file}: y is int64 of shape [23] beside 24 sequences (x has shape [24, 6, 2]); "
    "expected [24] for a label per sequence or [24, 6] for a label per step",
    "words": "{file}: y has dtype <U1; expected whole numbers 0, 1, ... for classes, or floats "
    "for regression: number labels with np.unique(y, return_inverse=True)[1]",
    "lengths": "{file}: lengths[0] is 7, but x has 6 steps; no sequence can be longer",
    "no_y": "{file}: y missing; it holds x: store the inputs as x and the targets as y",
    "pickled": "{file}: x holds pickled Python objects, which fptt never loads; expected numbers: "
    "store sequences of unequal length one after the other as x [N, F] with lengths [n]",
    "one": "{file}: x holds 1 sequence; at least 2 are needed to hold one out: add more, or give "
    "x_test and y_test",
    "truncated": "{file}: not a whole npz archive (<...>); expected a file made with np.savez: "
    + MADE,
    "text": "{file}: not a whole npz archive; expected a file made with np.savez: " + MADE,
    "empty": "{file}: not a whole npz archive (<...>); expected a file made with np.savez: " + MADE,
    "single": "{file}: holds a single array; expected an npz archive with named arrays: make it "
    "with np.savez(path, x=..., y=...)",
    "missing": "{file}: no such file; expected an npz archive (made with np.savez)",
    "folder": "{file}: no such file; expected an npz archive (made with np.savez)",
    "model": "{file}: not a whole npz archive; expected a file made with np.savez: " + MADE,
}


@pytest.mark.parametrize("kind", TRAIN_DATA)
def test_data_that_cannot_be_used(refused, bad, kind, tmp_path):
    """Training and evaluation say the same, and training writes nothing."""
    message, file = TRAIN_DATA[kind], bad[kind]
    out, checkpoint = tmp_path / "out.st", tmp_path / "run.ckpt"
    refused(
        message,
        "train",
        "--data",
        file,
        *SMALL,
        "--out",
        out,
        "--checkpoint",
        checkpoint,
        file=file,
    )
    refused(message, "eval", bad["model"], "--data", file, file=file)
    assert list(tmp_path.iterdir()) == []


TRAIN_OPTIONS = {
    "K > T": (["--parts", "7"], "build: 7 parts of a sequence of 6 steps; give parts <= 6"),
    "K = 0": (["--parts", "0"], "FPTT: parts is 0; give a whole number of at least 1"),
    "bptt in parts": (
        ["--rule", "bptt", "--parts", "2"],
        "rule bptt has one part, not 2; give --parts 1, or --rule tbptt",
    ),
    "rule": (["--rule", "rtrl"], "rule is 'rtrl'; choose one of fptt, tbptt, bptt"),
    "cell": (["--cell", "lsmt"], f"cell is 'lsmt'; choose one of {', '.join(CELLS)}"),
    "layers": (["--layers", "0"], "layers is 0; give at least 1"),
    "hidden": (["--hidden", "0"], "LSTM: hidden is 0; give a whole number of at least 1"),
    "readout": (["--readout", "-3"], "Linear: outputs is -3; give a whole number of at least 1"),
    "dropout": (
        ["--dropout", "1"],
        "Dropout: p is 1.0; give a probability with 0 <= p < 1",
    ),
    "alpha": (
        ["--alpha", "nan"],
        "FPTT: alpha is nan; give a number above 0, or regularise=False to train without R(t)",
    ),
    "beta": (["--beta", "0"], "FPTT: beta is 0.0; give a number with 0 < beta <= 1"),
    "mode": (["--mode", "x"], "FPTT: mode is 'x'; choose one of 'code', 'paper'"),
    "epoch end": (
        ["--epoch-end", "x"],
        "FPTT: epoch_end is 'x'; choose one of 'average', 'keep'",
    ),
    "epoch lambda": (
        ["--epoch-lambda", "x"],
        "FPTT: epoch_lambda is 'x'; choose one of 'zero', 'keep'",
    ),
    "loss": (
        ["--loss", "mean"],
        "build: loss is 'mean'; choose one of 'last', 'every_step', 'auxiliary'",
    ),
    "loss of another task": (
        ["--loss", "every_step"],
        "task good has loss 'last', which cannot be 'every_step'",
    ),
    "optimizer": (["--optimizer", "lion"], "optimizer is 'lion'; choose one of sgd, adam"),
    "lr": (["--lr", "-1"], "SGD: lr is -1.0; give a number with 0 <= lr < inf"),
    "lr nan": (["--lr", "nan"], "SGD: lr is nan; give a number with 0 <= lr < inf"),
    "momentum": (
        ["--momentum", "1"],
        "SGD: momentum is 1.0; give a number with 0 <= momentum < 1",
    ),
    "clip": (["--clip", "0"], "build: clip is 0.0; give a norm above 0, or None"),
    "schedule": (
        ["--schedule", "linear"],
        "schedule is 'linear'; give constant, cosine, step:50,75,90 or plateau:5",
    ),
    "milestones": (
        ["--schedule", "step:5,x"],
        "schedule is 'step:5,x'; give constant, cosine, step:50,75,90 or plateau:5",
    ),
    "patience": (
        ["--schedule", "plateau:-1"],
        "PlateauSchedule: patience is -1; give a whole number of at least 0",
    ),
    "epochs": (["--epochs", "0"], "fit: epochs is 0; give a whole number of at least 1"),
    "epochs of a cosine": (
        ["--epochs", "0", "--schedule", "cosine"],
        "fit: epochs is 0; give a whole number of at least 1",
    ),
    "batch": (["--batch", "0"], "build: batch is 0; give a whole number of at least 1"),
    "dtype": (
        ["--dtype", "float16"],
        "build: dtype is 'float16'; choose one of 'float64', 'float32', 'bfloat16'",
    ),
    "activation dtype": (
        ["--activation-dtype", "int8"],
        "build: activation_dtype is 'int8'; choose one of 'float64', 'float32', 'bfloat16'",
    ),
    "train only": (
        ["--train-only", "9.*"],
        "build: train names '9.*', but no parameter is called so; there are 0.weight_ih, "
        "0.weight_hh, 0.bias, 1.weight, 1.bias",
    ),
    "adapters": (
        ["--adapters", "0.weight_hh"],
        "--adapters is '0.weight_hh'; give a matrix and a rank, such as 0.weight_hh=4",
    ),
    "adapters by a word": (
        ["--adapters", "0.weight_hh=four"],
        "--adapters is '0.weight_hh=four'; give a matrix and a rank, such as 0.weight_hh=4",
    ),
    "adapters twice": (
        ["--adapters", "0.weight_hh=1", "--adapters", "0.weight_hh=2"],
        "--adapters gives 0.weight_hh two ranks, 1 and 2",
    ),
    "adapters of nothing": (
        ["--adapters", "9.weight=1"],
        "adapters: no parameter is called '9.weight'; there are 0.weight_ih, 0.weight_hh, 1.weight",
    ),
    "seed": (["--seed", "-1"], "seed is -1; it must be a whole number of at least 0"),
    "large seed": (
        ["--seed", str(2**32)],
        "Trainer: seed is 4294967296; give a whole number from 0 to 2^32 - 1",
    ),
    "limit": (["--limit", "0"], "limit is 0; it must be a whole number of at least 1"),
    "resume": (["--resume"], "--resume needs --checkpoint FILE"),
    "subset": (["--subset"], "subset: these options belong to --task, not to --data"),
    "option": (
        ["--option", "steps=0"],
        "steps: these options belong to --task, not to --data",
    ),
    "no pair": (
        ["--option", "steps"],
        "--option is 'steps'; give NAME=VALUE, such as steps=500",
    ),
    "two sources": (["--task", "add"], "give either --task NAME or --data FILE.npz"),
}


@pytest.mark.parametrize("name", TRAIN_OPTIONS)
def test_options_that_cannot_be_used(refused, good, name, tmp_path):
    arguments, message = TRAIN_OPTIONS[name]
    refused(message, "train", "--data", good, *SMALL, "--out", tmp_path / "m.st", *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either --task NAME or --data FILE.npz"),
        (
            ["--task", "mnist-row"],
            "unknown task 'mnist-row'; expected one of mnist-rows, s-mnist, ps-mnist, cifar10, "
            "cifar10-rows, add, fsdd, fsdd-personal, char, words; did you mean 'mnist-rows'?",
        ),
        (
            ["--task", "add", "--subset"],
            "task 'add' has no embedded subset, only mnist-rows, s-mnist, ps-mnist have one: leave "
            "subset out",
        ),
        (
            ["--task", "add", "--option", "step=5"],
            "unknown option 'step' of task 'add'; expected one of steps, n_train, n_test; did you "
            "mean 'steps'?",
        ),
        (
            ["--task", "add", "--option", "steps=1.5"],
            "steps is 1.5; it must be a whole number of at least 2",
        ),
        (
            ["--task", "add", "--option", "seed=3"],
            "--option is 'seed=3'; seed has an option of its own, --seed",
        ),
        (
            ["--task", "add", "--option", "name=fsdd"],
            "--option is 'name=fsdd'; name has an option of its own, --task",
        ),
        (
            ["--task", "mnist-rows", "--data-dir", "/nowhere"],
            "data_dir is '/nowhere', which is not a directory",
        ),
        (
            ["--task", "add", "--loss", "auxiliary"],
            'build: loss="auxiliary" predicts classes and cannot go with criterion="mse"; use '
            'criterion="cross_entropy" or loss="last"',
        ),
        (
            ["--task", "char", "--option", "text_file=/nowhere"],
            "/nowhere: cannot be read (No such file or directory); expected a text file",
        ),
    ],
)
def test_tasks_that_cannot_be_loaded(refused, arguments, message):
    refused(message, "train", *arguments)


def test_a_task_without_its_data(refused, monkeypatch):
    monkeypatch.delenv("FPTT_DATA", raising=False)
    refused(
        "task 'mnist-rows' needs a data directory: give data_dir (on the command line: --data-dir "
        "DIR) or set the variable FPTT_DATA, or use subset=True for the 3,000 images embedded in "
        "the package",
        "train",
        "--task",
        "mnist-rows",
    )


@pytest.mark.parametrize("option", ["--out", "--checkpoint"])
@pytest.mark.parametrize("kind", ["folder", "fifo", "no folder"])
def test_places_that_cannot_be_written(refused, good, tmp_path, option, kind):
    """They are found before training starts, and are left as they were."""
    path, message = tmp_path, "{path} is no plain file; give the path of a file to write"
    if kind == "fifo":
        path = tmp_path / "pipe"
        os.mkfifo(path)
    elif kind == "no folder":
        path, message = (
            tmp_path / "no" / "m",
            "the folder of {path} does not exist; create it first",
        )
    before = sorted(tmp_path.iterdir())
    started = time.monotonic()
    refused(message, "train", "--data", good, *SMALL, "--epochs", 10**6, option, path, path=path)
    assert time.monotonic() - started < 10
    assert sorted(tmp_path.iterdir()) == before
    assert path.is_fifo() == (kind == "fifo")


def test_model_and_checkpoint_must_be_two_files(refused, good, tmp_path):
    path = tmp_path / "one"
    refused(
        "the model and the checkpoint are one file, {path}; name two files",
        "train",
        *[
            "--data",
            good,
            *SMALL,
            "--out",
            path,
            "--checkpoint",
            f"{tmp_path}/../{path.parent.name}/one",
        ],
        path=path,
    )
    assert not path.exists()


NO_MODEL = "give a model that `fptt train --out` wrote"
EVAL = {
    "missing": "cannot read the model {file}: No such file or directory",
    "folder": "cannot read the model {file}: Is a directory",
    "model_cut": "{file} is not a whole safetensors file (<...>); " + NO_MODEL,
    "model_empty": "{file} is not a whole safetensors file (<...>); " + NO_MODEL,
    "state": "{file} is a checkpoint; give a model that `fptt train --out` wrote, or go on "
    "training from it with --checkpoint and --resume",
    "text": "{file} is not a whole safetensors file (<...>); " + NO_MODEL,
    "good": "{file} is not a whole safetensors file (<...>); " + NO_MODEL,
}


@pytest.mark.parametrize("kind", EVAL)
@pytest.mark.parametrize("command", ["eval", "plan"])
def test_models_that_cannot_be_read(refused, bad, kind, command):
    file = bad[kind]
    arguments = (
        ["eval", file, "--data", bad["good"]] if command == "eval" else ["plan", "--model", file]
    )
    refused(EVAL[kind], *arguments, file=file)


def test_a_model_of_another_network(refused, bad, store):
    net = "LSTM(2, 4) - Linear(4, 3)"
    file = store("wide.npz", x=sequences(features=3), y=np.arange(24) % 3)
    refused(
        "{model} is {net}; task wide has 3 inputs and 3 outputs",
        *["eval", bad["model"], "--data", file],
        model=bad["model"],
        net=net,
    )
    file = store("tokens.npz", x=np.arange(48).reshape(24, 2) % 5, y=np.arange(24) % 3)
    refused(
        "{model} is {net}; task tokens has 5 tokens and 3 outputs",
        *["eval", bad["model"], "--data", file],
        model=bad["model"],
        net=net,
    )
    file = store("numbers.npz", x=sequences(), y=np.ones((24, 3)))
    refused(
        "{model} was trained with cross_entropy; task numbers is for mse",
        *["eval", bad["model"], "--data", file],
        model=bad["model"],
    )


def test_a_model_of_another_vocabulary(fptt_cli, refused, tmp_path):
    for name, letters in (("one", "abcd"), ("two", "abce")):
        (tmp_path / name).write_text(letters * 40)
    options = ["--task", "char", "--option", "steps=5", "--option", "batch=2"]
    model = tmp_path / "m.st"
    fptt_cli("train", *options, "--option", f"text_file={tmp_path / 'one'}", *SMALL, "--out", model)
    refused(
        "{model} was trained with another vocabulary than that of this text",
        *["eval", model, *options, "--option", f"text_file={tmp_path / 'two'}"],
        model=model,
    )


PLAN = {
    "parts": (
        ["--parts", "1,,7"],
        "--parts is '1,,7'; give whole numbers from 1, such as 28 or 1,7,28",
    ),
    "zero": (["--parts", "0"], "--parts is '0'; give whole numbers from 1, such as 28 or 1,7,28"),
    "K > T": (
        ["--parts", "1,9", "--steps", "8"],
        "build: 9 parts of a sequence of 8 steps; give parts <= 8",
    ),
    "inputs": (["--inputs", "0"], "LSTM: inputs is 0; give a whole number of at least 1"),
    "tokens": (
        ["--tokens", "--inputs", "0"],
        "Embedding: tokens is 0; give a whole number of at least 1",
    ),
    "outputs": (["--outputs", "-1"], "Linear: outputs is -1; give a whole number of at least 1"),
    "steps": (["--steps", "0"], "build: steps is 0; give a whole number of at least 1"),
    "dtype": (
        ["--dtype", "int8"],
        "build: dtype is 'int8'; choose one of 'float64', 'float32', 'bfloat16'",
    ),
}


@pytest.mark.parametrize("name", PLAN)
def test_plans_that_cannot_be_made(refused, name):
    arguments, message = PLAN[name]
    refused(message, "plan", *arguments)


@pytest.mark.parametrize("hidden", [10**8, 10**20], ids=str)
def test_a_network_that_no_computer_holds(refused, good, hidden):
    refused(
        "the program needs <...> bytes, more than this computer has; use a smaller network or "
        "batch, or more parts",
        *["train", "--data", good, "--hidden", hidden],
        code=1,
    )


def test_training_that_explodes(refused, good, bad, tmp_path):
    """Exit code 1; what was written before is untouched."""
    out = tmp_path / "m.st"
    older = bad["model"].read_bytes()
    out.write_bytes(older)
    refused(
        "<...> became NaN or Inf in part <...> of 2 (steps <...>); training stopped, and the state "
        "of learning is that of the last good update: use a smaller learning rate, or clip the "
        "norm of the update",
        *["train", "--data", good, *SMALL, "--epochs", 20, "--parts", 2, "--lr", "1e38"],
        *["--clip", "1e30", "--momentum", "0", "--out", out],
        code=1,
    )
    assert [p.name for p in tmp_path.iterdir()] == ["m.st"]
    assert out.read_bytes() == older


# --- checkpoints that do not fit ----------


def test_nothing_that_is_no_model_is_overwritten(refused, good, tmp_path):
    whole = good.read_bytes()
    refused(
        "{file} exists and is no model; name another file",
        *["train", "--data", good, *SMALL, "--out", good],
        file=good,
    )
    assert good.read_bytes() == whole


def test_a_checkpoint_is_not_overwritten_without_being_asked(fptt_cli, refused, good, tmp_path):
    checkpoint = tmp_path / "run.ckpt"
    run = ["train", "--data", good, *SMALL, "--checkpoint", checkpoint]
    fptt_cli(*run)
    whole = checkpoint.read_bytes()
    refused(
        "{file} exists; go on from it with resume=True (--resume), or delete it",
        *run,
        file=checkpoint,
    )
    assert checkpoint.read_bytes() == whole
    _, notes = fptt_cli(*run, "--resume")
    assert f"going on from {checkpoint}" in notes.splitlines()
    _, notes = fptt_cli(*run[:-1], tmp_path / "new.ckpt", "--resume")
    assert f"starting; there is no {tmp_path / 'new.ckpt'}" in notes.splitlines()


def test_a_checkpoint_of_another_schedule(fptt_cli, refused, good, tmp_path):
    checkpoint = tmp_path / "run.ckpt"
    run = ["train", "--data", good, *SMALL, "--checkpoint", checkpoint]
    fptt_cli(*run)
    refused(
        "{file} was written with the schedule None, not CosineSchedule(epochs=3, floor=0.0); use "
        "the same, or start without it",
        *[*run, "--resume", "--schedule", "cosine", "--epochs", 3],
        file=checkpoint,
    )


def test_evaluation_judges_what_training_held_out(fptt_json, store, tmp_path):
    """Labels at random: only what was learnt by heart is known."""
    rng = np.random.default_rng(0)
    data = store("random.npz", x=rng.normal(size=(60, 5, 2)), y=rng.integers(0, 2, 60))
    model = tmp_path / "m.st"
    options = ["--hidden", 32, "--batch", 8, "--epochs", 150, "--lr", "0.1", "--rule", "bptt"]
    run = fptt_json("train", "--data", data, "--seed", 3, *options, "--out", model)
    found = fptt_json("eval", model, "--data", data)
    assert found["accuracy"] == run["epochs"][-1]["test_accuracy"] < 0.8
    assert fptt_json("eval", model, "--data", data, "--seed", 4)["accuracy"] > found["accuracy"]


def test_input_prepared_in_another_way(fptt_cli, refused, tmp_path):
    model = tmp_path / "m.st"
    fptt_cli("train", "--task", "ps-mnist", "--subset", "--limit", 10, *SMALL, "--out", model)
    refused(
        "{file} was trained on input that was prepared in another way (task ps-mnist); give the "
        "task and the options of its training",
        *["eval", model, "--task", "s-mnist", "--subset", "--limit", 10],
        file=model,
    )


WITHOUT_EFFECT = {
    "alpha": (["train", "--task", "add", "--rule", "bptt", "--alpha", "3"], "--rule bptt"),
    "epoch-end": (
        ["train", "--task", "add", "--rule", "tbptt", "--epoch-end", "keep"],
        "--rule tbptt",
    ),
    "momentum": (
        ["train", "--task", "add", "--optimizer", "adam", "--momentum", "0.3"],
        "--optimizer adam",
    ),
    "embedding": (["train", "--task", "add", "--embedding", "3"], "task add"),
    "hidden": (["plan", "--model", "m", "--hidden", "3"], "--model"),
    "batch": (["plan", "--seeds-configuration", "--batch", "3"], "--seeds-configuration"),
    "parts": (["bench", "--sizes", "--parts", "3"], "--sizes"),
    "against": (["bench", "--memory", "--against", "none"], "--memory"),
    "momentum of bench": (
        ["bench", "--optimizer", "adam", "--momentum", "0", "--against", "none"],
        "--optimizer adam",
    ),
}


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_options_without_effect_are_refused(refused, name):
    arguments, because = WITHOUT_EFFECT[name]
    name = name.split()[0]
    refused(f"--{name} has no effect with {because}; leave it out", *arguments)


def test_plan_of_several_rules(fptt_json):
    rows = fptt_json("plan", "--rule", "bptt,tbptt,fptt", "--parts", "2,4", "--steps", 8)
    assert [(row["rule"], row["parts"]) for row in rows] == [
        *[("BPTT", 1), ("TBPTT", 2), ("TBPTT", 4), ("FPTT", 2), ("FPTT", 4)]
    ]
    assert [row["memory_bytes"]["rule_state"] for row in rows[:3]] == [0] * 3


def test_plan_of_several_sources(fptt_json):
    rows = fptt_json(
        "plan", "--rule", "tbptt", "--source", "bptt,ostl,eprop", "--parts", 2, "--hidden", 8
    )
    assert [(row["source"], row["parts"]) for row in rows] == [
        *[("bptt", 2), ("ostl", 2), ("eprop", 2)]
    ]
    state = [row["memory_bytes"]["rule_state"] for row in rows]
    assert state[0] == 0 < state[2] < state[1]


def test_training_forwards_in_time(fptt_cli, refused, good):
    source = ["--source", "eprop"]
    _, notes = fptt_cli("train", "--data", good, *SMALL, *source)
    assert "gradients by eprop" in notes and "NumPy reference" in notes
    refused(
        "build: layer 0 is a GRU, which has no e-prop; choose a source that it serves "
        '("bptt", "ostl", "rtrl"), or train only layers above it',
        *["train", "--data", good, *SMALL, *source, "--cell", "gru"],
    )


def test_checkpoints_that_cannot_be_resumed(fptt_cli, refused, good, bad, tmp_path):
    checkpoint = tmp_path / "run.ckpt"
    fptt_cli("train", "--data", good, *SMALL, "--checkpoint", checkpoint)
    again = ["train", "--data", good, *SMALL, "--checkpoint", checkpoint, "--resume"]
    whole = checkpoint.read_bytes()
    other = (
        "{file} is of another training program: its {what}; use the same options, or start "
        "without it"
    )
    for options, what in [
        (["--hidden", 5], "net is LSTM(2, 4) - Linear(4, 3), here it is LSTM(2, 5) - Linear(5, 3)"),
        (
            ["--cell", "gru"],
            "net is LSTM(2, 4) - Linear(4, 3), here it is GRU(2, 4) - Linear(4, 3)",
        ),
        (["--parts", 2], "rule is <...>'parts': 4<...>, here it is <...>'parts': 2<...>"),
        (["--rule", "tbptt"], "rule is <...>FPTT<...>, here it is <...>TBPTT<...>"),
        (["--optimizer", "adam"], "optimizer is <...>SGD<...>, here it is <...>Adam<...>"),
        (["--dtype", "float64"], "dtype is float32, here it is float64"),
        (["--batch", 4], "batch is 8, here it is 4"),
        (["--loss", "auxiliary"], "loss is <...>Last<...>, here it is <...>Auxiliary<...>"),
        (["--clip", 2], "clip is 1.0, here it is 2.0"),
        (["--train-only", "1.*"], "train is ['*'], here it is ['1.*']"),
        (["--recompute"], "recompute is False, here it is True"),
        (
            ["--adapters", "0.weight_hh=1"],
            "net is LSTM(2, 4) - Linear(4, 3), here it is LSTM(2, 4) - Linear(4, 3), changed "
            "0.weight_hh by rank 1",
        ),
    ]:
        refused(other, *again, *options, file=checkpoint, what=what)
    refused(
        "{file} was written with seed 0, not 1; use the same seed, or start without it",
        *[*again, "--seed", 1],
        file=checkpoint,
    )
    assert checkpoint.read_bytes() == whole
    wrong = [
        (
            bad["model"],
            "{file} is not a snapshot of fptt; give a file that --checkpoint or Trainer.save wrote",
        ),
        (bad["state"], "{file} was not written during fit; load it with fptt.load"),
        (bad["folder"], "{file} is no plain file; give the path of a file to write"),
        (
            damaged(tmp_path / "cut.ckpt", whole[:-7]),
            "{file} is damaged: its checksum does not fit, it may be truncated; use an earlier "
            "snapshot",
        ),
    ]
    for file, message in wrong:
        before = None if file.is_dir() else file.read_bytes()
        refused(message, *again, "--checkpoint", file, file=file)
        assert file.is_dir() or file.read_bytes() == before


# --- JSON ----------


def documented(command):
    """The keys that a command's docstring promises: a list of nested dicts, {} for a value."""
    text = re.sub(r"\s+", " ", command.__doc__.split("JSON: ")[1])
    found, depth, start = [], 0, 0
    for at, character in enumerate(text):
        if character == "{":
            start, depth = (at, 1) if depth == 0 else (start, depth + 1)
        elif character == "}":
            depth -= 1
            if depth == 0:
                found.append(_keys(text[start + 1 : at]))
    return found


def _keys(text):
    items, depth = [""], 0
    for character in text:
        depth += (character in "{[") - (character in "}]")
        if character == "," and depth == 0:
            items.append("")
        else:
            items[-1] += character
    keys = {}
    for item in items:
        name, _, value = item.partition(":")
        inner = re.fullmatch(r"\[\{(.*)\}\]", value.strip())
        keys[name.strip(' "')] = _keys(inner[1]) if inner else {}
    return keys


def test_how_documented_keys_are_read():
    assert documented(cli.demo)[0]["rows"].keys() == {
        *("rule", "parts", "lr", "epochs", "label_every", "new_before", "new_after", "old_before"),
        *("old_after", "updates", "memory_bytes", "arena_bytes", "seconds"),
        "seconds_per_sequence",
    }
    assert [set(found) for found in documented(cli.plan)][1] == {"memory", "work"}


@pytest.fixture
def tiny_demo(monkeypatch):
    runs = (demo.Run("FPTT", 28, 0.01, 1, 28), demo.Run("TBPTT", 28, 0.01, 1, 28))
    tiny = demo.DemoSettings(runs=runs, learn=1, judge=1, old=1)
    monkeypatch.setattr(demo, "DemoSettings", lambda: tiny)


def test_json_of_demo(fptt_json, tiny_demo):
    document = fptt_json("demo")
    (keys,) = documented(cli.demo)
    assert set(document) == set(keys)
    assert [set(row) for row in document["rows"]] == [set(keys["rows"])] * 2
    assert [(row["rule"], row["parts"]) for row in document["rows"]] == [
        ("FPTT", 28),
        ("TBPTT", 28),
    ]
    assert document["summary"].startswith("The model reads ")


def test_demo_in_words(fptt_cli, tiny_demo):
    out, err = fptt_cli("demo")
    *table, sentence = out.splitlines()
    rows = [line.split() for line in table if re.match(r" *(T?[BF]PTT|before) ", line)]
    assert [row[0] for row in rows] == ["before", "FPTT", "TBPTT"]
    assert [row[1] for row in rows[1:]] == ["28", "28"]
    assert sentence.startswith("The model reads ") and " in 28 parts, in 1,167,200 " in sentence
    assert err == ""


def test_json_of_train_and_eval(fptt_json, good, tmp_path):
    out = tmp_path / "m.st"
    document = fptt_json("train", "--data", good, *SMALL, "--epochs", 2, "--out", out)
    (keys,) = documented(cli.train)
    assert set(document) == set(keys)
    assert (document["task"], document["model"]) == ("good", str(out))
    assert document["network"] == "LSTM(2, 4) - Linear(4, 3)"
    for row in document["epochs"]:
        assert set(row) == set(keys["epochs"]) - {"test_perplexity"}
    assert [row["epoch"] for row in document["epochs"]] == [1, 2]
    program = fptt.build(
        load_model(out).net, fptt.FPTT(parts=4), fptt.SGD(0.05, 0.9), steps=6, batch=8, clip=1.0
    )
    assert document["arena_bytes"] == program.memory().arena_bytes
    found = fptt_json("eval", out, "--data", good)
    (keys,) = documented(cli.evaluate)
    assert set(found) == set(keys) - {"perplexity"}
    assert found == {
        "model": str(out),
        "task": "good",
        "loss": document["epochs"][-1]["test_loss"],
        "accuracy": document["epochs"][-1]["test_accuracy"],
    }


def test_json_has_null_where_a_number_is_infinite(fptt_json, monkeypatch, bad):
    monkeypatch.setattr(
        runs, "evaluate", lambda path, model, task: {"loss": 1e3, "perplexity": float("inf")}
    )
    arguments = ["eval", bad["model"], "--task", "add", "--option", "n_train=1"]
    assert fptt_json(*arguments)["perplexity"] is None


def test_json_of_plan(fptt_json):
    options = ["plan", "--steps", 28, "--hidden", 8, "--inputs", 3, "--batch", 5]
    (one,) = fptt_json(*options, "--parts", 4)
    row_keys, comparison, device = documented(cli.plan)
    net = fptt.Network([fptt.LSTM(3, 8), fptt.Linear(8, 10)])
    program = fptt.build(net, fptt.FPTT(parts=4), fptt.SGD(0.01), steps=28, batch=5)
    assert set(one) == set(row_keys)
    assert (one["parts"], one["part_steps"]) == (4, 7)
    assert one["arena_bytes"] == program.memory().arena_bytes
    assert one["memory_bytes"]["activation"] == program.memory().categories["activation"]
    works = program.work().by_function()
    assert one["work"] == {name: vars(work) for name, work in works.items()}
    rows = fptt_json(*options, "--parts", "1,4,28")
    assert [row["parts"] for row in rows] == [1, 4, 28]
    assert rows[1] == one
    fits = fptt_json(*options, "--parts", 4, "--target", "rv64")
    assert set(fits) == set(device)
    seeds = fptt_json("plan", "--seeds-configuration")
    assert set(seeds) == set(comparison)
    assert seeds["memory"] == [vars(r) for r in planning.seeds_memory(planning.seeds_program())]


def test_the_plan_shows_both_where_gates_are_computed_again(fptt_json, fptt_cli):
    options = ["plan", "--steps", 28, "--hidden", 8, "--batch", 5, "--parts", "1,4", "--recompute"]
    rows = fptt_json(*options)
    assert [(row["parts"], row["recompute"]) for row in rows] == [
        *[(1, False), (1, True), (4, False), (4, True)],
    ]
    net = fptt.Network([fptt.LSTM(1, 8), fptt.Linear(8, 10)])
    for row in rows:
        program = fptt.build(
            net, fptt.FPTT(parts=row["parts"]), steps=28, batch=5, recompute=row["recompute"]
        )
        assert row["arena_bytes"] == program.memory().arena_bytes
    out, _ = fptt_cli(*options)
    lines = cells_of(out)
    assert ["K=1", "K=1", "K=4", "K=4"] in lines
    assert ["category", "recompute", "recompute"] in lines


def test_the_plan_of_adapters(fptt_json, fptt_cli):
    options = ["plan", "--steps", 28, "--hidden", 8, "--train-only", "1.*"]
    (row,) = fptt_json(*options, "--adapters", "*.weight_hh=2", "--adapters", "1.weight=1")
    net = fptt.Network([fptt.LSTM(1, 8), fptt.Linear(8, 10)])
    program = fptt.build(
        net.adapted({"0.weight_hh": 2, "1.weight": 1}),
        fptt.FPTT(parts=28),
        steps=28,
        batch=4,
        train=["1.*"],
    )
    assert row["memory_bytes"]["parameter"] == program.memory().categories["parameter"]
    assert row["total_bytes"] == program.memory().total_bytes
    out, _ = fptt_cli(*options, "--adapters", "0.weight_hh=2")
    assert out.startswith("LSTM(1, 8) - Linear(8, 10), changed 0.weight_hh by rank 2, T=28")


# --- plan in words ----------


def cells_of(out):
    """Lines of tables as lists of cells."""
    return [re.split(r"\s{2,}", line.strip()) for line in out.splitlines() if line.strip()]


def number(text):
    return int(text.replace(",", ""))


@pytest.mark.parametrize("options", [{}, {"clip": 1.0}], ids=["applied gradients", "clip"])
def test_the_plan_table_shows_the_program(fptt_cli, options):
    """A row for everything that some column has."""
    flags = [text for name, value in options.items() for text in (f"--{name}", value)]
    out, _ = fptt_cli("plan", "--steps", 28, "--hidden", 8, "--parts", "1,7", "--batch", 3, *flags)
    rows = {cells[0]: cells[1:] for cells in cells_of(out)}
    net = fptt.Network([fptt.LSTM(1, 8), fptt.Linear(8, 10)])
    one, seven = (
        fptt.build(net, fptt.FPTT(parts=parts), fptt.SGD(0.01), steps=28, batch=3, **options)
        for parts in (1, 7)
    )
    assert ("gradient" in rows) == ("shared" in rows) == ("clip" in options)
    for column, program in enumerate((one, seven)):
        memory = program.memory()
        sizes = {**memory.categories, "shared": -memory.shared_bytes}
        for name, size in sizes.items():
            shown = rows.get(name.replace("_", " "), ["0", "0"])
            assert number(shown[column]) == size
        assert "frozen" not in rows
        assert number(rows["alignment"][column]) == memory.alignment_bytes
        assert number(rows["total"][column]) == memory.total_bytes
        for name, work in program.work().by_function().items():
            shown = float(rows[name][column].replace(",", ""))
            assert shown == round((work.mul + work.add + work.trans) / 1e6, 3)


def test_the_work_table_of_one_k(fptt_cli):
    out, _ = fptt_cli("plan", "--steps", 28, "--hidden", 8, "--parts", 7, "--batch", 3, "--program")
    net = fptt.Network([fptt.LSTM(1, 8), fptt.Linear(8, 10)])
    program = fptt.build(net, fptt.FPTT(parts=7), fptt.SGD(0.01), steps=28, batch=3)
    rows = {cells[0]: cells[1:] for cells in cells_of(out) if len(cells) == 5}
    for name, work in program.work().by_function().items():
        assert [number(cell) for cell in rows[name]] == [
            work.mul,
            work.add,
            work.trans,
            work.bytes,
        ]
    total = program.work().total()
    assert number(rows["total"][0]) == total.mul
    assert str(program) in out


def test_plan_of_a_saved_model_and_of_bptt(fptt_cli, fptt_json, good, tmp_path):
    out = tmp_path / "m.st"
    fptt_cli("train", "--data", good, *SMALL, "--out", out)
    options = ["--steps", 6, "--parts", 2, "--batch", 8]
    from_file = fptt_json("plan", "--model", out, *options)
    given = ["--hidden", 4, "--inputs", 2, "--outputs", 3]
    assert from_file == fptt_json("plan", *given, *options)
    assert fptt_json("plan", *given, "--rule", "bptt", "--steps", 6)[0]["parts"] == 1


def test_the_seeds_table(fptt_cli):
    out, _ = fptt_cli("plan", "--seeds-configuration")
    program = planning.seeds_program()
    assert f"{program.memory().arena_bytes:,}" in out
    assert f"{program.memory().categories['activation']:,}" in out
    assert "265 KB" in out and "8600 KB" in out and "MUL/DIV" in out


# --- training on every kind of data ----------


def arrays_of_kind(kind):
    rng = np.random.default_rng(1)
    x = sequences()
    if kind == "labels":
        return dict(x=x, y=np.arange(24) % 3)
    if kind == "labels at every step":
        return dict(x=x, y=rng.integers(-1, 3, (24, 6)))
    if kind == "tokens":
        return dict(x=rng.integers(0, 5, (24, 6)), y=np.arange(24) % 3)
    if kind == "frames":
        lengths = rng.integers(1, 6, 24)
        return dict(x=sequences(lengths.sum(), 1)[:, 0], y=np.arange(24) % 3, lengths=lengths)
    if kind == "numbers":
        return dict(x=x, y=rng.normal(0, 1, (24, 2)))
    if kind == "numbers at every step":
        return dict(x=x, y=rng.normal(0, 1, (24, 6, 2)))
    return dict(x=x, y=np.arange(24) % 3, x_test=x[:5], y_test=np.arange(5) % 3)


KINDS = [
    "labels",
    "labels at every step",
    "tokens",
    "frames",
    "numbers",
    "numbers at every step",
    "split",
]


@pytest.mark.parametrize("kind", KINDS)
def test_training_on_own_data_and_evaluating_the_model(fptt_cli, fptt_json, store, tmp_path, kind):
    """eval of the saved model gives the very numbers of training's last test."""
    data, out = store("own.npz", **arrays_of_kind(kind)), tmp_path / "m.st"
    run = fptt_json(
        "train",
        "--data",
        data,
        "--hidden",
        6,
        "--epochs",
        8,
        "--parts",
        2,
        "--out",
        out,
        "--seed",
        3,
    )
    rows = run["epochs"]
    assert len(rows) == 8
    assert rows[-1]["loss"] < rows[0]["loss"]
    found = fptt_json("eval", out, "--data", data, "--seed", 3)
    names = {"loss"} if "numbers" in kind else {"loss", "accuracy"}
    names |= {"perplexity"} if kind == "labels at every step" else set()
    assert set(found) - {"model", "task"} == names
    assert all(found[name] == rows[-1][f"test_{name}"] for name in names)
    shown, _ = fptt_cli("eval", out, "--data", data, "--seed", 3)
    order = [name for name in ("loss", "accuracy", "perplexity") if name in names]
    assert shown == ", ".join(f"{name} {found[name]:.4f}" for name in order) + "\n"


@pytest.mark.parametrize(("task", "limit"), [("mnist-rows", 60), ("s-mnist", 10), ("ps-mnist", 10)])
def test_training_on_the_embedded_digits(fptt_json, fptt_cli, tmp_path, task, limit):
    chosen = ["--task", task, "--subset", "--limit", limit]
    out = tmp_path / "m.st"
    options = ["--hidden", 8, "--epochs", 2, "--parts", 28, "--batch", 10, "--out", out]
    run = fptt_json("train", *chosen, *options)
    assert run["rule"].startswith("FPTT(parts=28,")
    inputs = 28 if task == "mnist-rows" else 1
    assert run["network"] == f"LSTM({inputs}, 8) - Linear(8, 10)"
    found = fptt_json("eval", out, *chosen)
    assert found["accuracy"] == run["epochs"][-1]["test_accuracy"]
    notes = load_model(out).notes
    assert notes["normalisation"]["divide_by"] == 255.0
    assert ("order" in notes["normalisation"]) == (task == "ps-mnist")


def test_training_on_real_digits(fptt_json):
    if not os.environ.get("FPTT_DATA"):
        pytest.skip("FPTT_DATA is not set: no real data")
    run = fptt_json("train", "--task", "mnist-rows", "--limit", 200, "--hidden", 16, "--epochs", 2)
    assert run["epochs"][-1]["loss"] < run["epochs"][0]["loss"] < 2.4


def test_training_on_the_add_task(fptt_json, tmp_path):
    chosen = ["--task", "add"]
    for pair in ("steps=8", "n_train=100", "n_test=40"):
        chosen += ["--option", pair]
    out = tmp_path / "m.st"
    run = fptt_json("train", *chosen, "--hidden", 8, "--epochs", 3, "--out", out)
    assert set(run["epochs"][0]) == {"epoch", "loss", "lr", "seconds", "test_loss"}
    assert fptt_json("eval", out, *chosen)["loss"] == run["epochs"][-1]["test_loss"]


def test_training_on_text(fptt_json, tmp_path):
    """A text whose name is a number; words of its own length; the state is carried."""
    text = tmp_path / "12"
    text.write_text("the quick brown fox jumps over the lazy dog\n" * 12)
    out = tmp_path / "m.st"
    for task in ("char", "words"):
        chosen = ["--task", task]
        for pair in (f"text_file={text}", "steps=10", "batch=4"):
            chosen += ["--option", pair]
        run = fptt_json(
            *["train", *chosen, "--hidden", 12, "--epochs", 3, "--embedding", 6, "--lr", "0.5"],
            *["--dropout", "0.1", "--readout", "9", "--out", out],
        )
        assert "state='carry'" in run["rule"]
        assert " - Linear(12, 9) - Dropout(0.1) - Linear(9, " in run["network"]
        assert run["epochs"][-1]["loss"] < run["epochs"][0]["loss"]
        found = fptt_json("eval", out, *chosen)
        assert found["perplexity"] == run["epochs"][-1]["test_perplexity"]
        assert found["perplexity"] == pytest.approx(np.exp(found["loss"]))
        assert load_model(out).notes["dtype"] == "float32"


def test_a_text_file_may_be_called_by_a_number(fptt_json, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("12").write_text("abcd" * 50)
    pairs = ["--option", "text_file=12", "--option", "steps=5", "--option", "batch=2"]
    assert fptt_json("train", "--task", "char", *pairs, *SMALL)["task"] == "char"


def test_what_training_says_on_the_way(fptt_cli, good, tmp_path):
    """Results on standard output, the rest on standard error."""
    out = tmp_path / ("a long name " * 15 + "m.st")  # paths are never broken over lines
    shown, notes = fptt_cli("train", "--data", good, *SMALL, "--epochs", 2, "--out", out)
    result = rf"loss \d\.\d{{4}}, accuracy \d\.\d{{4}}; model in {re.escape(str(out))}\n"
    assert re.fullmatch(result, shown)
    first, second, *epochs = notes.splitlines()
    assert first.startswith("Sequences from good.npz: 19 to train on and 5 held out")
    assert re.fullmatch(
        r"LSTM\(2, 4\) - Linear\(4, 3\), fptt with K=4, [\d,]+ bytes to train, "
        r"engine, (avx512|avx2|baseline), 1 thread",
        second,
    )
    assert [line[:9] for line in epochs] == ["epoch 1: ", "epoch 2: "]


def test_options_reach_the_program(fptt_json, good, monkeypatch):
    """Every option of the network, the rule and the optimizer arrives where it belongs."""
    built = []
    original = runs.build
    monkeypatch.setattr(runs, "build", lambda *a, **k: built.append(original(*a, **k)) or built[-1])
    base = ["train", "--data", good, *SMALL]
    fptt_json(
        *[*base, "--cell", "gru", "--layers", 2, "--alpha", 0.3, "--beta", 0.25, "--mode", "paper"],
        *["--epoch-end", "keep", "--epoch-lambda", "keep", "--optimizer", "adam", "--lr", 0.02],
        *["--clip", 3, "--dtype", "float64", "--train-only", "2.*", "--train-only", "1.*"],
        *["--loss", "auxiliary", "--parts", 3],
    )
    program = built.pop()
    assert str(program.net) == "GRU(2, 4) - GRU(4, 4) - Linear(4, 3)"
    assert program.rule == fptt.FPTT(
        parts=3, alpha=0.3, beta=0.25, mode="paper", epoch_end="keep", epoch_lambda="keep"
    )
    assert program.optimizer == fptt.Adam(lr=0.02)
    assert (program.clip, program.dtype, program.train) == (3.0, "float64", ("2.*", "1.*"))
    assert program.schedule.name == "auxiliary"
    fptt_json(*base, "--rule", "tbptt", "--momentum", 0.5, "--activation-dtype", "bfloat16")
    program = built.pop()
    assert program.rule == fptt.TBPTT(parts=4)
    assert program.optimizer == fptt.SGD(lr=0.05, momentum=0.5)
    assert (program.dtype, program.activation_dtype) == ("float32", "bfloat16")
    fptt_json(*base, "--rule", "bptt")
    assert built.pop().rule == fptt.BPTT()
    fptt_json(*base, "--recompute", "--adapters", "0.weight_hh=1", "--adapters", "1.weight=1")
    program = built.pop()
    assert program.recompute and program.net.adapters == {"0.weight_hh": 1, "1.weight": 1}
    fptt_json(*base, "--no-regularise")
    assert built.pop().rule == fptt.FPTT(parts=4, regularise=False)


def test_schedules_change_the_learning_rate(fptt_json, good):
    def rates(schedule):
        run = fptt_json(
            *["train", "--data", good, *SMALL, "--epochs", 4, "--lr", 0.5, "--schedule", schedule],
            *["--dtype", "float64"],
        )
        return [row["lr"] for row in run["epochs"]]

    assert rates("constant") == [0.5] * 4
    assert rates("step:1,3") == pytest.approx([0.5, 0.05, 0.05, 0.005], rel=1e-15)
    cosine = [0.25 * (1 + np.cos(np.pi * epoch / 4)) for epoch in range(4)]
    assert rates("cosine") == pytest.approx(cosine, rel=1e-9)


# --- going on ----------


def trained(fptt_cli, data, folder, name, epochs, *options):
    model = folder / f"{name}.st"
    fptt_cli(
        *["train", "--data", data, "--hidden", 5, "--batch", 8, "--epochs", epochs],
        *["--dropout", 0.2, "--out", model, *options],
    )
    return model.read_bytes()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("rule", ["fptt", "tbptt", "bptt"])
def test_two_epochs_and_two_more_are_four(fptt_cli, good, tmp_path, rule, optimizer):
    """Bit for bit in the saved model, with dropout and a schedule."""
    options = ["--rule", rule, "--optimizer", optimizer, "--schedule", "step:1,3"]
    whole = trained(fptt_cli, good, tmp_path, "whole", 4, *options)
    checkpoint = ["--checkpoint", tmp_path / "run.ckpt"]
    half = trained(fptt_cli, good, tmp_path, "half", 2, *options, *checkpoint)
    rest = trained(fptt_cli, good, tmp_path, "rest", 4, *options, *checkpoint, "--resume")
    assert rest == whole
    assert half != whole


def test_resuming_what_is_done_changes_nothing(fptt_cli, fptt_json, good, tmp_path):
    checkpoint = tmp_path / "run.ckpt"
    options = ["--checkpoint", checkpoint, "--resume"]  # no checkpoint yet: a fresh start
    first = trained(fptt_cli, good, tmp_path, "first", 2, *options)
    state = checkpoint.read_bytes()
    assert trained(fptt_cli, good, tmp_path, "again", 2, *options) == first
    assert checkpoint.read_bytes() == state


@pytest.mark.parametrize("damage", [True, False], ids=["damaged", "whole"])
def test_a_checkpoint_whose_newest_state_is_damaged(fptt_cli, good, tmp_path, damage):
    """The run goes on from the state before, says so in one line, and ends with the same bits."""
    whole = trained(fptt_cli, good, tmp_path, "whole", 4)
    checkpoint, model = tmp_path / "run.ckpt", tmp_path / "again.st"
    trained(fptt_cli, good, tmp_path, "half", 2, "--checkpoint", checkpoint)
    if damage:
        data = bytearray(checkpoint.read_bytes())
        data[-1] ^= 1  # the second epoch's
        checkpoint.write_bytes(data)
    _, notes = fptt_cli(
        *["train", "--data", good, "--hidden", 5, "--batch", 8, "--epochs", 4, "--dropout", 0.2],
        *["--out", model, "--checkpoint", checkpoint, "--resume"],
    )
    line = f"{checkpoint}: the newest state was not complete; went on from the one before"
    assert notes.splitlines().count(line) == damage
    assert re.findall(r"^epoch (\d):", notes, re.M) == [*"234"][not damage :]
    assert model.read_bytes() == whole


# --- real processes ----------

#: a checkpoint after every batch, and batches slow enough to be interrupted
SLOW = """
import sys, time
import fptt.training.fitting
from fptt.cli import main
from fptt.trainer import Trainer
fptt.training.fitting.CHECKPOINT_S = 0
train_batch = Trainer.train_batch
def slow(*arguments):
    time.sleep(0.005)
    return train_batch(*arguments)
Trainer.train_batch = slow
sys.exit(main(sys.argv[1:]))
"""


@contextlib.contextmanager
def started(environment, *arguments):
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_change(path, process, before, seconds=20):
    """Until a checkpoint newer than `before` lies there."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime_ns != before:
                return
        time.sleep(0.002)


def test_a_killed_run_goes_on_with_the_same_bits(fptt_cli, good, tmp_path, subprocess_environment):
    """SIGKILL at random moments of training and of writing the checkpoint."""
    whole = trained(fptt_cli, good, tmp_path, "whole", 40)
    checkpoint, model = tmp_path / "run.ckpt", tmp_path / "killed.st"
    arguments = ["train", "--data", good, "--hidden", 5, "--batch", 8, "--epochs", 40]
    arguments += ["--dropout", 0.2, "--checkpoint", checkpoint, "--resume", "--out", model]
    rng, killed = random.Random(5), 0
    for _ in range(6):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
        with started(subprocess_environment, *arguments) as process:
            wait_for_change(checkpoint, process, before)
            time.sleep(rng.uniform(0, 0.05))
            process.kill()
            killed += process.wait() == -signal.SIGKILL
        assert not model.exists()
    assert killed == 6
    for leftover in tmp_path.glob(".*.part"):  # a file that was being written
        leftover.unlink()
    with started(subprocess_environment, *arguments) as process:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    epochs = re.findall(r"^epoch (\d+):", err, re.M)
    assert epochs and int(epochs[0]) > 1, "the run began anew"
    assert model.read_bytes() == whole


def test_ctrl_c_gives_one_line_and_a_checkpoint_that_resumes(
    fptt_cli, good, tmp_path, subprocess_environment
):
    whole = trained(fptt_cli, good, tmp_path, "whole", 20)
    checkpoint, model = tmp_path / "run.ckpt", tmp_path / "m.st"
    arguments = ["train", "--data", good, "--hidden", 5, "--batch", 8, "--epochs", 20]
    arguments += ["--dropout", 0.2, "--checkpoint", checkpoint, "--out", model]
    with started(subprocess_environment, *arguments) as process:
        wait_for_change(checkpoint, process, None)
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert out == ""
    assert err.splitlines()[-1] == f"fptt: stopped; go on with --checkpoint {checkpoint} --resume"
    assert err.count("fptt: ") == 1 and "Traceback" not in err
    assert {p.name for p in tmp_path.iterdir()} == {"whole.st", "run.ckpt"}
    fptt_cli(*arguments, "--resume")
    assert model.read_bytes() == whole


def test_ctrl_c_without_a_checkpoint(fptt_cli, good, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "run", stop)
    _, err = fptt_cli("train", "--data", good, *SMALL, code=1)
    assert err.splitlines()[-1] == "fptt: stopped"
    monkeypatch.setattr(runs, "task_of", stop)
    assert fptt_cli("train", "--data", good, *SMALL, code=1) == ("", "fptt: stopped\n")


def module(environment, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "fptt", *map(str, arguments)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        **options,
    )


def test_the_module_as_a_process(bad, subprocess_environment):
    done = module(subprocess_environment, "plan", "--json", "--hidden", 8, stdout=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)[0]["parts"] == 28
    failed = module(subprocess_environment, "train", "--data", bad["nan"], stdout=subprocess.PIPE)
    assert (failed.returncode, failed.stdout) == (2, "")
    message = "fptt: " + full(TRAIN_DATA["nan"], file=bad["nan"])
    assert re.fullmatch(message + "\n", failed.stderr)


@pytest.mark.parametrize("arguments", [["plan", "--json"], ["--version"]], ids=" ".join)
def test_a_reader_that_goes_away(subprocess_environment, arguments):
    read, write = os.pipe()
    os.close(read)
    try:
        done = module(subprocess_environment, *arguments, stdout=write)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (1, "")
