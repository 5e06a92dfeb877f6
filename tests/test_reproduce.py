"""Every table of `fptt reproduce`, its quick version, through the command line."""

import json
import os

import cifar_files
import pytest
from test_experiments import read_results

from fptt import cli
from fptt.experiments.beside import beside
from fptt.experiments.summary import groups
from fptt.experiments.tables import TABLES

DATA = os.environ.get("FPTT_DATA")
#: tables that need data files, even for a quick look
NEED = {"equal-memory": "fsdd"}


def data_folder(name, folder):
    """Where the quick version of a table finds its data: made up where that will do."""
    if name == "cifar10":
        cifar_files.write_folder(folder, "binary", cifar_files.images(per_file=10))
    elif name in ("char", "words"):
        (folder / "input.txt").write_text("to be, or not to be: that is the question.\n" * 200)
    else:
        return []
    return ["--data-dir", str(folder)]


@pytest.mark.parametrize("name", TABLES)
def test_the_quick_version_of_a_table(name, capsys, tmp_path):
    if name in NEED and not (DATA and os.path.isdir(os.path.join(DATA, NEED[name]))):
        pytest.skip(f"needs {NEED[name]} in FPTT_DATA")
    (tmp_path / "data").mkdir()
    quick = ["reproduce", name, "--quick", "--workers", "1", "--results", str(tmp_path)]
    quick += data_folder(name, tmp_path / "data")
    assert cli.main([*quick, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows == read_results(tmp_path / f"{name}.jsonl")
    assert {row["metric"] for row in rows} == {TABLES[name].metric}
    for row in rows:
        assert row["epochs"][-1][row["metric"]] is not None
        # of PyTorch nobody knows it beforehand
        assert row["configuration"]["engine"] == "torch" or row["arena_bytes"] > 0
    # again: nothing is left to do, and the table is the same
    assert cli.main(quick) == 0
    shown = capsys.readouterr().out
    assert TABLES[name].title in shown
    assert all(row["variant"] in shown for row in rows)
    assert read_results(tmp_path / f"{name}.jsonl") == rows


def test_another_text_is_another_experiment(capsys, tmp_path):
    """Penn Treebank that comes into the data folder later does not pass for what was there."""
    data = tmp_path / "data"
    (data / "ptb").mkdir(parents=True)
    (data / "input.txt").write_text("to be, or not to be: that is the question.\n" * 200)
    command = ["reproduce", "words", "--quick", "--workers", "1", "--results", str(tmp_path)]
    command += ["--data-dir", str(data), "--parts", "5", "--json"]
    tables = []
    for _ in range(2):
        assert cli.main(command) == 0
        tables.append(json.loads(capsys.readouterr().out))
        for part in ("train", "test"):
            (data / "ptb" / f"ptb.{part}.txt").write_text(" a rose is a <unk> \n" * 60)
    first, second = tables
    assert {row["key"] for row in first}.isdisjoint(row["key"] for row in second)
    assert {row["configuration"]["task_options"].get("corpus") for row in first} == {None}
    assert {row["configuration"]["task_options"]["corpus"] for row in second} == {"ptb"}
    about = beside(groups(second)[0])[0]
    assert "text not named" not in about.note
    assert "text" not in about.note.partition("; published")[0]


def test_seeds_parts_and_variants(capsys, tmp_path):
    command = ["reproduce", "s-mnist", "--quick", "--workers", "1", "--results", str(tmp_path)]
    chosen = [*command, "--seeds", "2", "--seed", "5", "--parts", "49", "--variant", "R"]
    assert cli.main([*chosen, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["variant"], row["configuration"]["parts"]) for row in rows] == [
        ("+ auxiliary + R", 49)
    ] * 2
    assert [row["configuration"]["seed"] for row in rows] == [5, 6]
    assert cli.main(chosen) == 0
    assert "±" in capsys.readouterr().out


def test_quick_runs_are_not_kept_unless_asked(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["reproduce", "full", "--quick", "--workers", "1"]) == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mnist"], "unknown table 'mnist'; expected one of s-mnist, ps-mnist, "),
        (["full", "--seeds", "0"], "--seeds is 0; give at least 1"),
        (["full", "--quick", "--variant", "Adam"], "--variant is 'Adam'; table full has TBPTT"),
        (["full", "--checkpoint-dir", "x"], "--checkpoint-dir has no effect with table full"),
        (["small", "--seeds", "2"], "--seeds has no effect with small; leave it out"),
        (["sweep", "--results", "x"], "--results has no effect with sweep; leave it out"),
        (["char", "--limit", "3"], "--limit has no effect on one long text; leave it out"),
        (["full", "--quick", "--parts", "900", "--workers", "1"], "900 parts of a sequence of 784"),
    ],
)
def test_wrong_use(arguments, message, capsys):
    assert cli.main(["reproduce", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_results_of_speakers(tmp_path):
    """The study's rows become records with one model each, appended once."""
    from fptt.cli_reproduce import _keep_speakers
    from fptt.experiments.speakers import MODELS
    from fptt.studies.fsdd import COLUMNS

    row = dict.fromkeys(COLUMNS, 0.5) | {
        "speaker": "theo",
        "tune_recordings": 50,
        "test_recordings": 450,
    }
    for _ in range(2):
        _keep_speakers([row, row | {"speaker": "lucas"}], tmp_path, 0)
    records = read_results(tmp_path / "fsdd.jsonl")
    assert [r["variant"] for r in records] == [*MODELS, *MODELS]
    assert len({r["key"] for r in records}) == 8
    assert {r["configuration"]["task_options"]["speaker"] for r in records} == {"theo", "lucas"}
    assert records[1]["configuration"]["rule"] == "fptt"
    assert records[1]["arena_bytes"] > records[2]["arena_bytes"]
