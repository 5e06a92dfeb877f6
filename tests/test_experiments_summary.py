"""Records of runs: reading them, seeds together, equal memory, published figures beside them."""

import json
import math
import re

import numpy as np
import pytest
from experiment_records import equal_memory as equal_memory_runs
from experiment_records import everything, record, sweep, write
from scipy import stats

from fptt.errors import InputError
from fptt.experiments.beside import beside
from fptt.experiments.equal_memory import equal_memory, interpolate, pooled
from fptt.experiments.overview import overview, summarise
from fptt.experiments.reading import Reading, read_records
from fptt.experiments.summary import groups, rule_label, spread
from fptt.published_results import PUBLISHED, published_for


def runs(
    values, *, table="equal-memory", metric="test_accuracy", size=1000, epochs=None, **options
):
    """A run a seed, with these metrics at the end."""
    rows = []
    for seed, value in enumerate(values):
        one = record(table, metric=metric, seed=seed, **options)
        one["arena_bytes"] = size
        one["epochs"] = epochs or [{"epoch": 1, "loss": 1.0, metric: value}]
        rows.append(one)
    return rows


def fptt(values, size, parts=14, **options):
    return runs(values, variant="FPTT + auxiliary", size=size, parts=parts, **options)


def tbptt(values, size, parts=14, **options):
    return runs(
        values, variant="TBPTT + auxiliary", size=size, parts=parts, rule="tbptt", **options
    )


# --- reading ----------


def test_files_and_folders(tmp_path):
    first, second = record(seed=0), record(seed=1)
    folder = tmp_path / "results"
    folder.mkdir()
    write(folder / "a.jsonl", [first])
    (folder / "notes.txt").write_text("not read")
    other = write(tmp_path / "b.jsonl", [second])
    reading = read_records([folder, other, other])
    assert reading.records == [first, second]
    assert reading.notes == []
    assert reading.files == [str(folder / "a.jsonl"), str(other)]


def test_a_torn_last_line_is_left_out_and_a_torn_one_before_is_an_error(tmp_path):
    line = json.dumps(record())
    file = tmp_path / "runs.jsonl"
    for cut in (1, len(line) // 2, len(line) - 1):
        file.write_text(f"{line}\n{line[:cut]}")
        reading = read_records([file])
        assert len(reading.records) == 1
        assert reading.notes == [
            "runs.jsonl, line 2 was cut off as it was written; the run was left out"
        ]
        file.write_text(f"{line[:cut]}\n{line}\n")
        message = (
            f"{file}, line 1: no JSON; results have one object a line. Delete this line to read "
            "the others"
        )
        with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
            read_records([file])
    file.write_bytes(line.encode() + b"\n\xff\xfe\n" + line.encode())
    with pytest.raises(InputError, match="line 2: no JSON"):
        read_records([file])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "FILE: no run that can be used; the files are empty"),
        ("\n\n", "FILE: no run that can be used; the files are empty"),
        (
            "[1]\n",
            "FILE, line 1: list where an object of a run should be. Delete this line to read the "
            "others",
        ),
        ("[" * 100_000 + "\n", "FILE, line 1: nested too deeply for a record"),
        (
            '{"version": 2}\n',
            "FILE, line 1: version 2 of records; this fptt reads version 1. Use the fptt that "
            "wrote the file, or leave the file out",
        ),
        (
            "{}",
            "FILE, line 1: version None of records; this fptt reads version 1. Use the fptt that "
            "wrote the file, or leave the file out",
        ),
        (
            '{"version": 1}',
            "FILE: no run that can be used; runs.jsonl, line 1: table is missing",
        ),
    ],
    ids=["empty", "blank", "list", "deep", "newer", "none", "bare"],
)
def test_what_is_no_record(tmp_path, text, message):
    file = tmp_path / "runs.jsonl"
    file.write_text(text)
    with pytest.raises(InputError, match=f"^{re.escape(message.replace('FILE', str(file)))}$"):
        read_records([file])


def test_paths_without_results(tmp_path):
    message = f"{tmp_path / 'none'} does not exist; give a folder with results, or files *.jsonl"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        read_records([tmp_path / "none"])
    message = f"the folder {tmp_path} holds no results (*.jsonl); `fptt reproduce` writes them"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        read_records([tmp_path])


def broken(**changes):
    return record() | changes


UNUSABLE = [
    (broken(variant=3), "variant is no text"),
    (broken(metric="f1"), "metric is 'f1', not one of test_accuracy, test_loss, test_perplexity"),
    (broken(configuration=None), "configuration is missing"),
    (record(parts=0), "configuration.parts is 0, not a number of parts"),
    (record(parts=True), "configuration.parts is True, not a number of parts"),
    (broken(seconds=math.nan), "seconds is nan"),
    (broken(arena_bytes="many"), "arena_bytes is 'many'"),
    (broken(epochs=[]), "epochs is missing or empty"),
    (broken(epochs=[{"test_accuracy": 0.5}]), "an epoch has no number"),
    (
        broken(epochs=[{"epoch": 1, "loss": math.inf, "test_accuracy": 0.5}]),
        "loss of epoch 1 is inf",
    ),
    (broken(epochs=[{"epoch": 7, "test_accuracy": math.nan}]), "test_accuracy of epoch 7 is nan"),
    (broken(epochs=[{"epoch": 1, "test_loss": 1.0}]), "the last epoch has no test_accuracy"),
]


@pytest.mark.parametrize(("one", "reason"), UNUSABLE, ids=[reason for _, reason in UNUSABLE])
def test_a_record_that_cannot_be_used_is_left_out_with_a_note(tmp_path, one, reason):
    file = write(tmp_path / "runs.jsonl", [one, record()])
    reading = read_records([file])
    assert reading.records == [record()]
    assert reading.notes == [f"runs.jsonl, line 1: {reason}; the run was left out"]


@pytest.mark.parametrize("name", ["table", "variant", "metric", "key", "seconds"])
def test_a_key_that_is_missing(tmp_path, name):
    one = record()
    del one[name]
    reading = read_records([write(tmp_path / "runs.jsonl", [one, record()])])
    assert reading.notes == [f"runs.jsonl, line 1: {name} is missing; the run was left out"]


def test_the_newest_of_runs_with_the_same_key_counts(tmp_path):
    [old], [new] = runs([0.5]), runs([0.9])
    reading = read_records([write(tmp_path / "runs.jsonl", [old, record(seed=5), new])])
    assert reading.records == [record(seed=5), new]
    assert len(reading.notes) == 1 and "1 older run" in reading.notes[0]


# --- seeds together ----------


def test_mean_spread_and_best_epoch():
    curves = ([0.2, 0.9, 0.7], [0.4, 0.5, 0.8], [0.3, 0.6, 0.9])
    records = []
    for seed, curve in enumerate(curves):
        epochs = [{"epoch": e, "loss": 1.0, "test_accuracy": a} for e, a in enumerate(curve, 1)]
        one = record(seed=seed) | {"epochs": epochs, "seconds": 10.0 * (seed + 1)}
        records.insert(0, one)  # the order must not matter
    [group] = groups(records)
    assert group.seeds == (0, 1, 2)
    assert group.final.values == (0.7, 0.8, 0.9)
    assert group.final.mean == pytest.approx(np.mean(group.final.values), abs=1e-15)
    assert group.final.sd == pytest.approx(np.std(group.final.values, ddof=1), abs=1e-15)
    assert group.best.values == (0.9, 0.8, 0.9)
    assert group.best_epochs == (2, 3, 3)
    assert group.seconds.mean == 20.0
    assert [(p.epoch, p.low, p.high, p.n) for p in group.curve] == [
        (1, 0.2, 0.4, 3),
        (2, 0.5, 0.9, 3),
        (3, 0.7, 0.9, 3),
    ]
    assert group.curve[0].mean == pytest.approx(0.3)


def test_less_is_better_for_loss_and_perplexity():
    for metric in ("test_loss", "test_perplexity"):
        epochs = [{"epoch": e, metric: value} for e, value in ((1, 3.0), (2, 1.0), (3, 2.0))]
        [group] = groups(runs([0], metric=metric, epochs=epochs))
        assert (group.final.mean, group.best.mean, group.best_epochs) == (2.0, 1.0, (2,))
        assert not group.higher_is_better


def test_epochs_that_were_not_tested():
    epochs = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0, "test_accuracy": 0.5}]
    [group] = groups(runs([0], epochs=epochs))
    assert [point.epoch for point in group.curve] == [2]
    assert group.best_epochs == (2,)


def test_one_seed_has_no_spread():
    [group] = groups(runs([0.5]))
    assert group.final.sd is None and group.final.n == 1


def test_runs_of_other_configurations_are_never_pooled():
    """Quick runs, other rates and other engines beside the full ones get names of their own."""
    records = [*runs([0.9, 0.92]), *runs([0.4], epochs_=1)]
    records += runs([0.8], lr=0.01) + runs([0.7], parts=28)
    named = {group.label: group.final.n for group in groups(records)}
    assert named == {
        "+ auxiliary + R, lr 0.001, epochs_ None, K=14": 2,
        "+ auxiliary + R, lr 0.001, epochs_ 1, K=14": 1,
        "+ auxiliary + R, lr 0.01, epochs_ None, K=14": 1,
        "+ auxiliary + R, lr 0.001, epochs_ None, K=28": 1,
    }


def test_other_data_are_other_panels():
    records = [*runs([0.9]), *runs([0.8], subset=True), *runs([0.7], limit=100)]
    records += runs([0.6], task_options={"turn": 30}) + runs([0.5], table="full")
    made = groups(records)
    assert len({group.panel for group in made}) == 5
    assert {group.label for group in made} == {"+ auxiliary + R, K=14"}


def test_variants_of_the_same_name_by_other_rules_are_told_apart():
    records = [*fptt([0.9], 10), *runs([0.8], variant="FPTT + auxiliary", rule="tbptt")]
    assert {group.series for group in groups(records)} == {
        "FPTT + auxiliary, FPTT + auxiliary",
        "FPTT + auxiliary, TBPTT + auxiliary",
    }


def test_the_order_of_groups_does_not_depend_on_the_order_of_records():
    records = list(everything())
    ordered = [group.label for group in groups(records)]
    assert [group.label for group in groups(records[::-1])] == ordered
    sweep_labels = [g.series for g in groups(list(sweep(seeds=1))) if g.parts == 7]
    assert sweep_labels == ["class loss", "+ auxiliary", "+ auxiliary + R"]
    assert [g.parts for g in groups(list(sweep(seeds=1)))][:4] == [1, 2, 4, 7]


@pytest.mark.parametrize(
    ("options", "label"),
    [
        ({"rule": "bptt", "loss": "last"}, "BPTT"),
        ({"rule": "tbptt", "loss": "last"}, "TBPTT"),
        ({"rule": "fptt", "loss": "every_step"}, "FPTT"),
        ({"rule": "fptt", "loss": "auxiliary"}, "FPTT + auxiliary"),
        ({"rule": "fptt", "loss": "auxiliary", "regularise": False}, "TBPTT + auxiliary"),
        ({"rule": "fptt", "loss": "last", "source": "rtrl"}, "FPTT + rtrl"),
        ({"rule": "tbptt", "loss": "last", "source": "rtrl"}, "rtrl"),
    ],
)
def test_names_of_rules(options, label):
    assert rule_label({"parts": 4} | options) == label


# --- equal memory ----------


def test_against_the_best_that_fits():
    """At 1,000 bytes K=14 and K=28 of TBPTT fit; K=28 is the better one."""
    records = [
        *fptt([0.90, 0.91, 0.92], 1000, parts=14),
        *tbptt([0.99, 0.99, 0.99], 1001, parts=7),
        *tbptt([0.93, 0.94, 0.95], 1000, parts=14),
        *tbptt([0.95, 0.96, 0.97], 500, parts=28),
        *tbptt([0.50, 0.51, 0.52], 100, parts=56),
    ]
    [found] = equal_memory(records)
    assert found.fits.parts == 28
    assert found.difference == pytest.approx(-0.05)
    assert found.standard_error == pytest.approx(0.01 * math.sqrt(2 / 3))
    assert found.verdict == "FPTT worse"
    assert found.interpolated == pytest.approx(0.94)
    assert found.seeds == 3


def test_lower_is_better_turns_the_verdict():
    for metric, verdict in (("test_accuracy", "FPTT better"), ("test_perplexity", "FPTT worse")):
        records = fptt([8.0, 8.1], 1000, metric=metric) + tbptt([6.0, 6.1], 900, metric=metric)
        [found] = equal_memory(records)
        assert found.verdict == verdict
        assert found.difference == pytest.approx(2.0)
    records += tbptt([7.0, 7.1], 800, parts=28, metric=metric)
    [found] = equal_memory(records)
    assert found.fits.parts == 14


def test_the_verdict_is_that_of_a_t_test():
    random = np.random.default_rng(3)
    seen = set()
    for case in range(60):
        a = random.normal(0.9, 0.01, 2 + case % 4)
        b = random.normal(0.9 + random.normal(0, 0.02), 0.01, 2 + case % 3)
        [found] = equal_memory(fptt(a, 1000) + tbptt(b, 900))
        p = stats.ttest_ind(a, b).pvalue
        assert (found.verdict == "no difference") == (p > 0.05), (a, b)
        if p <= 0.05:
            assert found.verdict == ("FPTT better" if a.mean() > b.mean() else "FPTT worse")
        seen.add(found.verdict)
    assert len(seen) == 3


@pytest.mark.parametrize("n", [2, 3, 5, 6, 7, 20, 60])
def test_threshold_is_student_t(n):
    a, b = spread(range(n)), spread(range(1, n + 1))
    error, threshold = pooled(a, b)
    assert threshold / error == pytest.approx(stats.t.ppf(0.975, 2 * n - 2), abs=1e-3)
    assert error == pytest.approx(math.sqrt(np.var(a.values, ddof=1) * 2 / n))


def test_interpolation_is_linear_in_the_logarithm_of_bytes():
    records = tbptt([0.8], 100, parts=28) + tbptt([0.9], 10_000, parts=4)
    control = sorted(groups(records), key=lambda group: group.arena_bytes)
    assert interpolate(control, 1000) == pytest.approx(0.85)
    assert interpolate(control, 100) == 0.8
    assert interpolate(control, 10_000) == 0.9
    assert interpolate(control, 99) is None
    assert interpolate(control, 10_001) is None


def test_verdicts_without_a_difference():
    [found] = equal_memory(fptt([0.9, 0.91], 1000) + tbptt([0.9, 0.91], 1001))
    assert found.verdict == "nothing fits" and found.fits is None and found.difference is None
    [found] = equal_memory(fptt([0.9], 1000) + tbptt([0.5, 0.51], 900))
    assert found.verdict == "too few seeds"
    assert found.difference == pytest.approx(0.395)
    assert equal_memory(fptt([0.9], 1000)) == []
    assert equal_memory(tbptt([0.9], 1000)) == []


def test_only_like_is_set_against_like():
    """Another network, batch, task or number of epochs is no control; another rate may be."""
    mine = fptt([0.9, 0.91], 1000)
    for other in ({"hidden": 64}, {"batch": 1}, {"epochs_": 2}, {"task": "fsdd"}, {"limit": 5}):
        assert equal_memory(mine + tbptt([0.1, 0.11], 900, **other)) == []
    assert equal_memory(mine + tbptt([0.1, 0.11], 900, source="eprop")) == []
    [found] = equal_memory(mine + tbptt([0.95, 0.96], 900, lr=0.01, optimizer="sgd"))
    assert found.verdict == "FPTT worse"
    without_r = runs([0.95, 0.96], size=900, variant="TBPTT", regularise=False)
    [found] = equal_memory(mine + without_r)
    assert found.verdict == "FPTT worse"


# --- published figures ----------


def published(table="s-mnist", metric="test_accuracy", **options):
    [group] = groups([record(table, metric=metric, **options)])
    return [found.published.printed for found in beside(group)]


@pytest.mark.parametrize(
    ("options", "figures"),
    [
        ({"rule": "tbptt", "loss": "last", "parts": 7}, [96.62]),
        ({"rule": "tbptt", "loss": "last", "parts": 5}, []),
        ({"rule": "tbptt", "parts": 784}, [80.14, 15.86]),
        ({"rule": "fptt", "regularise": False, "parts": 784}, [80.14, 15.86]),
        ({"rule": "fptt", "parts": 784}, [83.40, 18.32]),
        ({"rule": "fptt", "parts": 10}, [98.67]),
        ({"rule": "bptt", "loss": "last", "parts": 1}, [11.35, 97.71]),
        ({"rule": "fptt", "parts": 784, "cell": "gru"}, []),
        ({"rule": "fptt", "parts": 784, "source": "eprop"}, []),
        ({"task": "ps-mnist", "table": "ps-mnist", "rule": "tbptt", "parts": 112}, [27.78]),
        ({"task": "ps-mnist", "table": "ps-mnist", "parts": 392}, [27.70]),
        ({"task": "cifar10", "table": "cifar10", "rule": "tbptt", "parts": 8}, [66.76]),
        ({"table": "programs", "parts": 1, "engine": "torch"}, [88.0]),
        ({"table": "programs", "parts": 1, "task": "mnist-rows"}, [94.0]),
        ({"table": "networks", "readout": 256, "parts": 10}, [98.67]),
        ({"table": "networks", "readout": 256, "rule": "bptt", "parts": 1}, [97.71]),
        ({"table": "networks", "optimizer": "sgd", "momentum": 0.9, "parts": 10}, [98.44]),
        ({"table": "networks", "optimizer": "sgd", "parts": 10}, [None]),
    ],
)
def test_what_stands_beside_a_run(options, figures):
    assert published(**options) == figures


def test_perplexities_stand_beside_perplexities():
    options = {"table": "words", "task": "words", "parts": 5, "loss": "every_step"}
    assert published(metric="test_perplexity", **options) == [109.50]
    assert published(metric="test_perplexity", regularise=False, **options) == [121.22]
    assert published(**options) == []


def test_differences_of_settings_are_said():
    [group] = groups([record(rule="tbptt", parts=14, seed=s) for s in (0, 1, 2)])
    first, second, check = beside(group)
    assert first.published.printed == 98.47
    assert first.difference == pytest.approx(group.final.mean - 0.9847)
    assert first.note == (
        "ours: learning rate 0.001, rate x0.3 at epochs 13, 18, 22 epochs, mean of 3 seeds; "
        "published: learning rate 0.01, rate x0.1 at epochs 50, 75, 90, 100 epochs, number of "
        "seeds not stated"
    )
    assert "ours: no layer before the outputs" in second.note
    assert "published: layer before the outputs 256 wide" in second.note
    assert "Adam" not in second.note  # both
    assert "epochs, " not in check.note.split("published")[0].replace("at epochs 13, ", "")
    assert check.note.endswith("one seed")
    [group] = groups([record(parts=10, limit=5000) | {"train_sequences": 5000}])
    [found] = beside(group)
    assert "one seed, 5,000 training sequences (a subset); published" in found.note
    assert found.note.startswith("ours: 22 epochs, batch 128, Adam, learning rate 0.001, ")


def test_every_published_figure_has_a_source_and_a_unit():
    assert len(PUBLISHED) > 100
    for figure in PUBLISHED:
        assert figure.source and figure.words
        assert figure.printed is not None or figure.text
        if figure.metric == "test_accuracy" and figure.printed is not None:
            assert 10 < figure.printed < 100
            assert figure.value == figure.printed / 100
        if figure.metric == "test_perplexity":
            assert figure.value == figure.printed > 100
    assert published_for("s-mnist", {"task": "other"}, "test_accuracy") == []


# --- everything ----------


def test_overview_of_all_tables():
    records = list(everything())
    found = summarise(Reading(records, ["a note"], ["a.jsonl"]))
    assert sum(group.final.n for group in found.groups) == found.runs == len(records)
    assert found.seeds == ("0", "1", "2")
    assert found.machines == ("Some processor, 2 cores, Linux",)
    assert found.commits == ("5add61c",)
    assert found.dates == ("2026-11-20",)
    assert found.seconds == 2400.0 * len(records)
    assert {c.fptt.task for c in found.comparisons} == {"s-mnist", "fsdd", "char"}
    document = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert len(document["rows"]) == len(found.groups)
    assert document["left_out"] == ["a note"]
    assert len(document["equal_memory"]) == len(found.comparisons)


def test_only_the_table_of_equal_memory_is_compared(tmp_path):
    file = write(tmp_path / "a.jsonl", sweep(parts=(4, 14), seeds=2))
    assert overview([file]).comparisons == ()
    levels = (0.1, 0.9, 0.8)
    records = equal_memory_runs("s-mnist", "test_accuracy", levels, (4, 14), seeds=2)
    assert len(overview([write(file, records)]).comparisons) == 2


def test_a_start_with_the_seed_of_its_run():
    """Each seed adapts what the same seed trained: the seeds still belong together."""

    def run(seed, lr):
        start = {"task": "fsdd", "seed": seed, "lr": lr, "start": None}
        one = record("equal-memory", variant="FPTT", seed=seed, task="fsdd-personal")
        one["configuration"]["start"] = start
        return one

    (one,) = groups([run(seed, 0.1) for seed in (0, 1, 2)])
    assert one.seeds == (0, 1, 2)
    assert one.label == f"FPTT, K={one.parts}"
    assert "seed" not in one.configuration["start"]
    apart = groups([run(0, 0.1), run(0, 0.2)])
    assert [group.extra for group in apart] == ["start lr 0.1", "start lr 0.2"]


def test_speakers_of_a_seed_count_as_one_run():
    """The mean over speakers for each seed, then the spread over seeds."""

    def run(speaker, seed, values):
        start = {"task": "fsdd", "task_options": {"speaker": speaker}, "seed": seed}
        configuration = {
            "task": "fsdd-personal",
            "rule": "fptt",
            "parts": 4,
            "seed": seed,
            "task_options": {"speaker": speaker, "per_digit": 5},
            "start": start,
        }
        epochs = [{"epoch": n, "test_accuracy": value} for n, value in enumerate(values, 1)]
        return {
            "table": "equal-memory",
            "variant": "FPTT",
            "metric": "test_accuracy",
            "configuration": configuration,
            "seconds": 2.0,
            "test_sequences": 450,
            "arena_bytes": 1000,
            "epochs": epochs,
            "key": f"{speaker}{seed}",
        }

    records = [run("theo", 0, (0.2, 0.5)), run("lucas", 0, (0.4, 0.9))]
    records += [run("theo", 1, (0.2, 0.7)), run("lucas", 1, (0.4, 0.9))]
    [group] = groups(records)
    assert group.seeds == (0, 1)
    assert group.final.values == pytest.approx((0.7, 0.8))
    assert group.curve[0].mean == pytest.approx(0.3)
    assert group.configuration["task_options"] == {"per_digit": 5, "speakers": 2}
    assert "seed" not in group.configuration["start"]
    assert (group.label, group.seconds.mean) == ("FPTT, K=4", 4)
    assert group.test_sequences == 900
