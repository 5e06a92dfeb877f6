"""Experiments: their plain data, the results file, and a sweep in this process."""

import json
from dataclasses import fields, replace

import pytest

from fptt.errors import FpttError, InputError, NumericalError, SaveError
from fptt.experiments.execute import execute, load_task
from fptt.experiments.experiment import Experiment
from fptt.experiments.reading import lines
from fptt.experiments.results import append_result, finished
from fptt.experiments.sweep import Run, sweep
from fptt.experiments.tables import TABLES, Choice

TINY = Experiment(
    "mnist-rows", subset=True, limit=40, hidden=5, parts=3, epochs=3, batch=10, loss="auxiliary"
)


def read_results(file, notes=None):
    """All records of a file."""
    return [record for _, record in lines(file, [] if notes is None else notes)]


def told(records):
    """What must not depend on when, where and in how many pieces the runs were carried out."""
    apart = ("date", "seconds", "commit", "machine")
    return [
        {
            **{name: value for name, value in record.items() if name not in apart},
            "epochs": [
                {name: value for name, value in row.items() if name != "seconds"}
                for row in record["epochs"]
            ],
        }
        for record in records
    ]


def runs(*experiments):
    return [Run("tiny", f"run {n}", "test_accuracy", e) for n, e in enumerate(experiments)]


# -- plain data ------------------------------------------------------------------------------


def test_every_field_survives_json():
    start = replace(TINY, epochs=1)
    experiment = Experiment("add", {"steps": 7, "n_train": 20, "n_test": 5}, seed=3, start=start)
    assert Experiment.from_plain(json.loads(json.dumps(experiment.as_plain()))) == experiment


def test_every_field_that_differs_changes_the_key():
    other = {
        "task": "s-mnist",
        "task_options": {"steps": 3},
        "subset": False,
        "limit": 41,
        "cell": "gru",
        "rule": "tbptt",
        "source": "rtrl",
        "mode": "paper",
        "regularise": False,
        "epoch_end": "keep",
        "epoch_lambda": "keep",
        "loss": None,
        "optimizer": "sgd",
        "clip": None,
        "schedule": "cosine",
        "dtype": "float64",
        "start": TINY,
        "engine": "reference",
    }
    keys = {TINY.key}
    for field in fields(Experiment):
        value = getattr(TINY, field.name)
        changed = other.get(field.name, value + 1 if isinstance(value, (int, float)) else None)
        keys.add(replace(TINY, **{field.name: changed}).key)
    assert len(keys) == 1 + len(fields(Experiment))


def test_the_key_of_a_run_never_changes():
    """Results files hold it: another way to compute it would repeat every run there is."""
    assert Experiment("s-mnist").key == "9a10d355d8efbd35"
    assert replace(TINY, start=Experiment("s-mnist")).key == "97050481af291d4e"


def test_unknown_fields_are_told():
    with pytest.raises(InputError, match="has no colour; it was written by another version"):
        Experiment.from_plain({"task": "add", "colour": "red"})
    with pytest.raises(InputError, match="engine is 'gpu'; choose one of native"):
        Experiment("add", engine="gpu")


# -- the results file ------------------------------------------------------------------------


def line(key, **more):
    return {"version": 1, "table": "t", "key": key, **more}


def test_results_are_appended_and_read(tmp_path):
    file = tmp_path / "sub" / "t.jsonl"
    append_result(file, line("a"))
    append_result(file, line("b", epochs=[]))
    assert read_results(file) == [line("a"), line("b", epochs=[])]


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_torn_line_is_left_out_and_then_cut_off(tmp_path, cut):
    file = tmp_path / "t.jsonl"
    append_result(file, line("a"))
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:cut])
    notes = []
    assert read_results(file, notes) == [line("a")]
    assert notes == ["t.jsonl, line 2 was cut off as it was written; the run was left out"]
    append_result(file, line("b"))
    assert read_results(file) == [line("a"), line("b")]


def test_a_torn_line_longer_than_a_block_is_cut_off(tmp_path):
    file = tmp_path / "t.jsonl"
    append_result(file, line("a"))
    with open(file, "ab") as torn:
        torn.write(b"x" * 200_000)
    append_result(file, line("b"))
    assert read_results(file) == [line("a"), line("b")]


def test_a_run_that_is_there_twice_counts_once(tmp_path):
    file = tmp_path / "t.jsonl"
    for value in (1, 2):
        append_result(file, line("a", value=value))
    assert finished(file, ["a", "b"]) == [line("a", value=2)]
    assert finished(file, ["b"]) == finished(tmp_path / "none.jsonl", ["a"]) == []


def test_results_that_cannot_be_written_are_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match=r"cannot write .*t.jsonl: .*untouched"):
        append_result(tmp_path / "file" / "t.jsonl", line("a"))


# -- carrying out ----------------------------------------------------------------------------


def test_a_record_holds_what_a_reader_needs(tmp_path):
    record = execute(TINY, state_dir=tmp_path)
    assert record["configuration"] == TINY.as_plain()
    assert record["train_sequences"], record["test_sequences"] == (40, 20)
    assert len(record["epochs"]) == 3
    assert {"loss", "lr", "seconds", "test_loss", "test_accuracy"} <= record["epochs"][0].keys()
    memory = TINY.program(load_task(TINY, None)).memory()
    assert record["arena_bytes"] == memory.arena_bytes
    assert record["memory_bytes"]["rule_state"] == memory.categories["rule_state"]
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_seeds_differ_and_one_seed_repeats():
    first, again, other = (execute(replace(TINY, seed=seed)) for seed in (0, 0, 1))
    assert told([first]) == told([again])
    assert first["epochs"][0]["loss"] != other["epochs"][0]["loss"]


def test_a_run_goes_on_from_its_checkpoint(tmp_path):
    """Stopped after every batch again and again, it ends as if it had not been."""
    pieces = 0
    while True:
        asked = iter((False, True))
        try:
            record = execute(TINY, state_dir=tmp_path, should_stop=lambda asked=asked: next(asked))
            break
        except KeyboardInterrupt:
            pieces += 1
    assert pieces >= 5
    assert told([record]) == told([execute(TINY)])


def test_a_diverged_run_is_a_result(tmp_path):
    """With the epochs before, those from before it was stopped and resumed among them."""
    # R(t) pulls with alpha x lr = 4 and momentum: theta overshoots m by more with every update
    wild = replace(TINY, optimizer="sgd", lr=40.0, momentum=0.9, clip=None, epochs=90)
    at_once = execute(wild)
    assert "became NaN or Inf in part" in at_once["diverged"]
    assert 3 <= len(at_once["epochs"]) < 90
    pieces = 0
    while True:
        asked = iter([False] * 5 + [True])
        try:
            record = execute(wild, state_dir=tmp_path, should_stop=lambda asked=asked: next(asked))
            break
        except KeyboardInterrupt:
            pieces += 1
    assert pieces
    assert told([record]) == told([at_once])


def test_a_text_is_cut_into_as_many_streams_as_the_batch_says(tmp_path):
    (tmp_path / "a.txt").write_text("to be, or not to be: that is the question.\n" * 20)
    options = {"text_file": str(tmp_path / "a.txt"), "steps": 6}
    run = Experiment("char", options, hidden=4, embedding=3, batch=7)
    task = load_task(run, None)
    assert (task.batch, run.program(task).batch) == (7, 7)


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_a_diverged_run_that_was_stopped_keeps_its_epochs(tmp_path, monkeypatch, engine):
    """What was done before the checkpoint is in the record, though it diverged after it."""
    if engine == "torch":
        pytest.importorskip("torch")
        from fptt.torch.training import TorchTrainer as Trainer
    else:
        from fptt.trainer import Trainer
    run = replace(TINY, engine=engine)
    rows = []

    def stop_after_two(row):
        rows.append(row)
        if len(rows) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(run, state_dir=tmp_path, on_epoch=stop_after_two)

    def diverge(*_):
        raise NumericalError("the loss became NaN")

    name = "_train" if engine == "torch" else "train_batch"
    monkeypatch.setattr(Trainer, name, diverge)
    record = execute(run, state_dir=tmp_path)
    assert record["diverged"] == "the loss became NaN"
    assert [row["epoch"] for row in record["epochs"]] == [1, 2]


def test_a_run_starts_from_anothers_weights(tmp_path):
    start = replace(TINY, epochs=2, rule="bptt", parts=1, loss=None)
    tuned = replace(TINY, start=start, lr=0.0, epochs=1)
    with pytest.raises(InputError, match="give state_dir"):
        execute(tuned)
    base = execute(start, state_dir=tmp_path)
    record = execute(tuned, state_dir=tmp_path)
    assert record["epochs"][-1]["test_loss"] == pytest.approx(base["epochs"][-1]["test_loss"])
    # and makes them where they are not there yet
    (tmp_path / "fresh").mkdir()
    assert told([execute(tuned, state_dir=tmp_path / "fresh")]) == told([record])


def test_two_processes_never_work_on_one_run(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr("fptt.experiments.execute.PATIENCE_S", 0.1)
    with open(tmp_path / f"{TINY.key}.lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process works on the run"):
            execute(TINY, state_dir=tmp_path)
    execute(TINY, state_dir=tmp_path)


# -- sweeps ----------------------------------------------------------------------------------


def test_a_sweep_does_every_run_once(tmp_path, monkeypatch):
    other = replace(TINY, parts=7)
    wanted = runs(TINY, other, TINY)
    file = tmp_path / "tiny.jsonl"
    events = []
    options = dict(state_dir=tmp_path / "state", workers=1)
    records = sweep(wanted, file, on_progress=events.append, **options)
    assert [r["key"] for r in records] == [TINY.key, other.key, TINY.key]
    assert len(read_results(file)) == 2
    assert [(e.done, e.total) for e in events if e.row is None] == [(1, 2), (2, 2)]
    monkeypatch.setattr("fptt.experiments.sweep.execute", None)  # nothing is left to do
    assert sweep(wanted, file, **options) == records


def test_a_sweep_that_was_stopped_goes_on(tmp_path):
    wanted = runs(TINY, replace(TINY, parts=7))
    file, options = tmp_path / "tiny.jsonl", dict(state_dir=tmp_path / "state", workers=1)
    stops = 0
    while True:
        asked = iter([False] * 6 + [True])
        try:
            records = sweep(wanted, file, should_stop=lambda asked=asked: next(asked), **options)
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops >= 2
    assert told(records) == told(sweep(wanted, tmp_path / "at_once.jsonl", **options))
    assert not list((tmp_path / "state").glob("*.ckpt"))


def test_a_sweep_tells_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match="workers is 0; give at least 1"):
        sweep(runs(TINY), tmp_path / "t.jsonl", state_dir=tmp_path, workers=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="cannot make the folder"):
        sweep(runs(TINY), tmp_path / "t.jsonl", state_dir=tmp_path / "file" / "state")
    unknown = runs(replace(TINY, cell="perceptron"))
    with pytest.raises(FpttError, match="cell is 'perceptron'; choose one of"):
        sweep(unknown, tmp_path / "t.jsonl", state_dir=tmp_path, workers=1)


# -- tables ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLES)
def test_tables_name_their_runs(name):
    """Full size: legal experiments, no cell twice, a seed in every run and its start."""
    table = TABLES[name]
    wanted = table.runs(Choice(seeds=(0, 1, 2)))
    assert {run.table for run in wanted} == {name}
    keys = [run.experiment.key for run in wanted]
    assert len(set(keys)) == len(keys)
    assert {run.experiment.seed for run in wanted} == {0, 1, 2}
    for run in wanted:
        assert run.experiment.learning_rates() is not None or run.experiment.schedule == "constant"
        if run.experiment.start:
            assert run.experiment.start.seed == run.experiment.seed


def test_choices_change_the_budget():
    [one] = TABLES["full"].runs(Choice(epochs=50, limit=99, parts=(10,)))[:1]
    assert (one.experiment.epochs, one.experiment.limit) == (50, 99)
    assert one.experiment.schedule == "step:30,40:0.3"
    assert {r.experiment.parts for r in TABLES["s-mnist"].runs(Choice(parts=(3, 4)))} == {3, 4}
    with pytest.raises(InputError, match="--limit has no effect on one long text"):
        TABLES["char"].runs(Choice(limit=3))
