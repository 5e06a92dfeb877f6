"""`fptt explore`: design points, the Pareto front, questions, what the command prints and refuses.

The page: test_explore_page.py and test_explore_browser.py."""

import csv
import json
import math
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fptt
from fptt import cli, cli_chip, exploring, runs
from fptt.report import chip_tables
from fptt.soc import explore as engine
from fptt.soc import load_chip, of_program, published
from fptt.soc.constants import constants_text, load_constants
from fptt.soc.cycles import cycles
from fptt.soc.explore import FIGURES, RESOURCES, Point, Training
from fptt.soc.pareto import front
from fptt.soc.questions import Limit, ask, best_parts
from fptt.soc.resources import resources
from fptt.soc.uncertainty import uncertainty
from fptt.soc.validation import MEASURED
from fptt.storage.modelfile import model_bytes

GRID = ["--mesh", "4x4,8x8", "--cores", "1,2,4,6,8,10"]
PARTS = "1,2,7,14,28,56,112,392,784"
SMALL = ["--hidden", 6, "--steps", 12, "--batch", 2, "--parts", "1,4"]


@pytest.fixture
def run(capsys):
    """The command line in this process: what it wrote, and its exit code."""

    def call(*arguments, code=0):
        capsys.readouterr()
        found = cli.main(["explore", *(str(argument) for argument in arguments)])
        out, err = capsys.readouterr()
        assert found == code, err
        return out, err

    return call


def point(mesh="4x4", cores=1, parts=1, seconds=1.0, memory=1000, uncertainty=0.02, **size):
    size = {"lut": 100, "ff": 100, "bram": 10, "dsp": 10} | size
    named = {"Sigmoid": seconds / 4, "EWO-SGD": 3 * seconds / 4, "total": seconds}
    return Point(mesh, cores, parts, named, 1.0, uncertainty, memory, None, **size)


# --- the Pareto front ----------


def dominated(values, own):
    return any(
        all(a <= b for a, b in zip(other, own, strict=True))
        and any(a < b for a, b in zip(other, own, strict=True))
        for other in values
    )


#: few values, so that many are equal
FEW = st.integers(0, 4) | st.floats(0, 2, allow_nan=False)


@given(st.integers(1, 5).flatmap(lambda n: st.lists(st.tuples(*[FEW] * n), max_size=40)))
@settings(max_examples=200, deadline=None)
def test_the_front_is_what_nothing_beats(values):
    assert front(values) == [not dominated(values, own) for own in values]


def test_equal_choices_stand_on_the_front_together():
    assert front([(2, 2), (1, 3), (2, 2), (2, 3)]) == [True, True, True, False]
    assert front([(1.0,)] * 3) == [True] * 3
    assert front([]) == []


def test_front_of_points():
    points = [point(seconds=1, lut=9), point(seconds=2, lut=3), point(seconds=3, lut=4)]
    assert engine.on_front(points, ["latency", "lut"]) == [True, True, False]
    assert engine.on_front(points, ["latency"]) == [True, False, False]
    assert engine.on_front(points, ["memory", "dsp"]) == [True, True, True]


# --- questions ----------

POINTS = st.lists(
    st.builds(
        point,
        cores=st.integers(1, 4),
        parts=st.integers(1, 3),
        seconds=st.sampled_from([0.5, 0.9, 0.99, 1.0, 1.01, 2.0]),
        memory=st.integers(1, 4),
        lut=st.integers(1, 4),
    ),
    min_size=1,
    max_size=25,
)
LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "latency": st.sampled_from([0.4, 0.95, 1.0, 1.5]),
        "memory": st.integers(1, 4),
        "lut": st.integers(1, 4),
    },
).map(lambda found: [Limit(name, most) for name, most in found.items()])


@given(POINTS, LIMITS, st.sampled_from(["latency", "memory", "lut"]))
@settings(max_examples=300, deadline=None)
def test_answers_against_all_points(points, limits, minimise):
    answer = ask(points, minimise, limits)

    def keeps(one, some=limits):
        return all(one.figure(limit.figure) <= limit.most for limit in some)

    fitting = [one for one in points if keeps(one)]
    assert (answer.points, answer.fits) == (len(points), len(fitting))
    assert answer.failed == {
        limit.figure: sum(one.figure(limit.figure) > limit.most for one in points)
        for limit in limits
    }
    if fitting:
        best = min(one.figure(minimise) for one in fitting)
        assert answer.chosen in fitting and answer.chosen.figure(minimise) == best
        # between equal ones latency, then LUT, then memory
        equal = [one for one in fitting if one.figure(minimise) == best]
        assert answer.equal == len(equal) - 1
        assert (answer.chosen.latency_s, answer.chosen.lut, answer.chosen.memory_bytes) == min(
            (one.latency_s, one.lut, one.memory_bytes) for one in equal
        )
        assert answer.nearest is None and answer.loosened == ()
        other = [one for one in fitting if one.design != answer.chosen.design]
        if minimise == "lut":
            assert (answer.runner_up is None) == (not other)
            if other:
                assert answer.runner_up.lut == min(one.lut for one in other)
        elif len(fitting) > 1:
            assert (
                answer.runner_up.figure(minimise)
                == sorted(one.figure(minimise) for one in fitting)[1]
            )
        for one in answer.better:
            assert not keeps(one) and one.figure(minimise) < best
            assert answer.broken(one)
        beaten = sum(one.figure(minimise) < best for one in points)
        assert len(answer.better) == min(3, beaten)
        return
    assert answer.chosen is answer.runner_up is None and answer.better == ()

    def worst(one):
        return max(one.figure(limit.figure) / limit.most for limit in limits)

    assert worst(answer.nearest) == min(worst(one) for one in points)
    found = {one.limit.figure: one for one in answer.loosened}
    for limit in limits:
        able = [one for one in points if keeps(one, [x for x in limits if x != limit])]
        assert (limit.figure in found) == bool(able)
        if able:
            needed = found[limit.figure].point.figure(limit.figure)
            assert needed == min(one.figure(limit.figure) for one in able) > limit.most
            assert found[limit.figure].excess == pytest.approx(needed / limit.most - 1)
    assert [one.excess for one in answer.loosened] == sorted(one.excess for one in answer.loosened)
    assert str(answer.nearest) in answer.message()


def kinds(answer):
    return [(doubt.kind, str(doubt.point)) for doubt in answer.doubts]


def test_what_hangs_on_less_than_the_uncertainty():
    """2 % of the latency at 1 s: what keeps the limit by less, what misses it by less."""
    small, large = point(lut=1, seconds=1.01), point(cores=2, lut=2, seconds=0.99)
    limit = [Limit("latency", 1.0)]
    answer = ask([small, large], "lut", limit)
    assert kinds(answer) == [("limit", "4x4-2 with K=1"), ("missed", "4x4-1 with K=1")]
    assert [round(doubt.margin, 6) for doubt in answer.doubts] == [0.01, 0.01]
    assert answer.doubts[0].uncertainty == pytest.approx(0.02 * 0.99)
    # beyond it there is no doubt
    sure = [replace(small, uncertainty=0.009), replace(large, uncertainty=0.009)]
    assert kinds(ask(sure, "lut", limit)) == []
    # what breaks another limit as well would not fit in any case
    broken = [replace(small, memory_bytes=3000), large]
    assert kinds(ask(broken, "lut", [*limit, Limit("memory", 2000)])) == [
        ("limit", "4x4-2 with K=1")
    ]
    # and what is larger would not be better
    assert kinds(ask([replace(small, lut=5), large], "lut", limit))[1:] == []


def test_when_the_order_is_not_known():
    """Of two chips whose errors no class explains: these are independent."""
    points = [point(cores=1, seconds=1.0), point(cores=2, seconds=1.02)]
    answer = ask(points, "latency", spreads={})
    assert kinds(answer) == [("order", "4x4-2 with K=1")]
    assert answer.doubts[0].margin == pytest.approx(0.02)
    assert answer.doubts[0].uncertainty == pytest.approx(0.02 * math.hypot(1, 1.02))
    assert kinds(ask([points[0], point(cores=2, seconds=1.04)], "latency", spreads={})) == []
    # on one chip the same error is shared
    assert kinds(ask([points[0], point(parts=2, seconds=1.02)], "latency", spreads={})) == []


def test_the_error_of_a_difference():
    """Only what differs in a class counts, and the rest of two chips."""
    spreads = {"Sigmoid": 0.04, "EWO-SGD": 0.01, "total": 9.0}
    share = math.hypot(0.25 * 0.04, 0.75 * 0.01)
    one = point(seconds=4.0, uncertainty=share)
    own = math.hypot(0.04, 0.035) / 4.5
    cycles = {"Sigmoid": 1.0, "EWO-SGD": 3.5, "total": 4.5}
    exact = replace(one, cycles=cycles, parts=2, uncertainty=own)
    assert engine.difference_sd(one, exact, spreads) == pytest.approx(0.5 * 0.01, abs=1e-9)
    other = replace(exact, cores=4, uncertainty=math.hypot(own, 0.1))
    assert engine.difference_sd(one, other, spreads) == pytest.approx(
        math.hypot(0.5 * 0.01, 4.5 * 0.1)
    )
    # another chip of the same array and cores is another chip; a faster clock is less time
    there = replace(one, uncertainty=0.1)
    rest = math.sqrt((4 * 0.1) ** 2 - (4 * share) ** 2)
    assert engine.difference_sd(there, there, spreads) == 0
    assert engine.difference_sd(there, replace(there, chip="own"), spreads) == pytest.approx(
        math.sqrt(2) * rest
    )
    assert engine.difference_sd(one, replace(one, clock_hz=2.0), spreads) == pytest.approx(
        2 * share, abs=1e-9
    )


def test_the_order_of_k_on_a_chip_is_known():
    """K=1 and K=2 of 8x8-10 differ by less than either is uncertain, and in the same direction."""
    trainings = exploring.published_program([1, 2], "bfloat16").trainings
    one, two = engine.explore([load_chip("8x8-10")], trainings)
    assert two.latency_s - one.latency_s < math.hypot(
        *(point.uncertainty * point.latency_s for point in (one, two))
    )
    assert kinds(ask([one, two], "latency")) == []


def test_ties_are_broken_and_said():
    points = [
        point(parts=1, seconds=2.0, lut=5, memory=9),
        point(parts=2, seconds=1.0, lut=7, memory=1),
        point(parts=5, seconds=1.0, lut=5, memory=8),
        point(cores=2, parts=5, seconds=1.0, lut=5, memory=7),
    ]
    answer = ask(points, "dsp")
    assert (str(answer.chosen), answer.equal) == ("4x4-2 with K=5", 3)
    assert ask(points, "memory").equal == 0
    lines = list(chip_tables.answers({None: answer}))
    assert lines[2] == (
        "  3 others have the same dsp; among equal ones the least latency, then lut, then memory "
        "decides"
    )
    lines = list(chip_tables.answers({None: ask(points[:2], "dsp")}))
    assert "one other has the same dsp" in lines[2]
    assert not any(
        "have the same" in line for line in chip_tables.answers({None: ask(points, "memory")})
    )
    assert answer.as_json()["equal"] == 3


def test_a_question_uses_the_spreads_of_the_constants(run, tmp_path):
    file, known = tmp_path / "constants.toml", load_constants()
    wide = replace(known, spreads=known.spreads | {"EWO-SGD": 2.0, "Sigmoid": 2.0})
    file.write_text(constants_text(wide, "none"))
    words = ["--workload", "published", "--design", "4x4-1", "--parts", "28,56"]
    one, two = engine.explore(
        [load_chip("4x4-1")], exploring.published_program([28, 56], "bfloat16").trainings, wide
    )
    wanted = engine.difference_sd(one, two, wide.spreads) / one.latency_s
    for question in (["--minimise", "latency"], ["--best-parts"]):
        [found] = json.loads(run(*words, *question, "--constants", file, "--json")[0])
        [doubt] = found["doubts"]
        assert doubt["kind"] == "order"
        assert doubt["uncertainty"] == pytest.approx(wanted, rel=1e-3)
        [found] = json.loads(run(*words, *question, "--json")[0])
        assert found["doubts"] == []


def test_no_doubt_is_no_guarantee():
    lines = list(chip_tables.answers({None: ask([point()], "latency", spreads={})}))
    assert any("which about one prediction in three exceeds" in line for line in lines)


def test_nothing_fits_by_less_than_the_uncertainty():
    answer = ask([point(seconds=1.01)], "lut", [Limit("latency", 1.0)])
    assert answer.message() == (
        "none of 1 points keeps the limit; the nearest is 4x4-1 with K=1: latency 1.010 s is 1.0% "
        "more than 1.000 s; 4x4-1 with K=1 misses the latency by less than the model's "
        "uncertainty, 2.0%"
    )


def test_what_it_takes_is_said():
    """The point that is over by the least, and the limits of which one alone could give way."""
    points = [
        point(cores=1, seconds=1.5, memory=900, lut=100),
        point(cores=2, seconds=0.9, memory=1200, lut=150),
        point(cores=4, seconds=0.5, memory=5000, lut=400),
    ]
    limits = [Limit("latency", 1.0), Limit("memory", 1000)]
    answer = ask(points, "lut", limits)
    assert answer.message() == (
        "none of 3 points keeps all limits; the nearest is 4x4-2 with K=1: memory 1,200 bytes is "
        "20.0% more than 1,000 bytes; what it takes if one limit alone is loosened: memory 1,200 "
        "bytes (4x4-2 with K=1), or latency 1.500 s (4x4-1 with K=1)"
    )
    answer = ask(points, "lut", [Limit("latency", 0.4), Limit("memory", 100)])
    assert answer.message() == (
        "none of 3 points keeps all limits; the nearest is 4x4-1 with K=1: memory 900 bytes is 9.0 "
        "times 100 bytes and latency 1.500 s is 3.8 times 0.400 s; to loosen one limit alone does "
        "not help"
    )


def test_best_parts_of_every_chip():
    points = [
        point(cores=cores, parts=parts, seconds=parts / cores, memory=10 // parts)
        for cores in (1, 4)
        for parts in (1, 2, 5)
    ]
    found = best_parts(points)
    assert {name: one.chosen.parts for name, one in found.items()} == {"4x4-1": 1, "4x4-4": 1}
    assert found["4x4-1"].runner_up.parts == 2
    limited = best_parts(points, [Limit("memory", 5)])
    assert {one.chosen.parts for one in limited.values()} == {2}
    assert [one.parts for one in limited["4x4-4"].better] == [1]


# --- points ----------


def test_points_are_the_models(monkeypatch):
    """Every chip with every K, and nothing but what the models say of them."""
    chips = [load_chip("4x4-1"), load_chip("8x8-10").with_(clock_hz=1e9)]
    trainings = [Training(k, published(k), 1000 * k, None) for k in (1, 28)]
    seen = []
    points = engine.explore(chips, trainings, on_point=lambda: seen.append(1))
    assert len(seen) == 4
    assert [(one.design, one.parts) for one in points] == [
        *(("4x4-1", 1), ("4x4-1", 28), ("8x8-10", 1), ("8x8-10", 28))
    ]
    for one, (chip, training) in zip(
        points, [(chip, training) for chip in chips for training in trainings], strict=True
    ):
        assert one.cycles == cycles(chip, training.workload)
        assert one.uncertainty == uncertainty(chip, training.workload) > 0
        assert one.latency_s == one.cycles["total"] / chip.clock_hz
        assert one.memory_bytes == one.figure("memory") == 1000 * one.parts
        size = resources(chip)
        for name in RESOURCES:
            assert one.figure(name) == getattr(one, name) == getattr(size, name)
        name, share = one.dominant
        assert one.cycles[name] == max(one.classes.values())
        assert share == one.cycles[name] / one.cycles["total"]


def test_what_no_row_backs_is_said():
    chips = [load_chip("4x4-1"), load_chip("8x8-10").with_(cores=50)]
    ours, large = engine.explore(chips, [Training(1, published(1), 1, None)])
    assert (ours.extrapolated, ours.too_large) == (None, None)
    assert large.extrapolated == resources(chips[1]).extrapolated is not None
    assert large.too_large == resources(chips[1]).lacks() is not None
    table, *texts = chip_tables.points([ours, large], ["lut"])
    for column, name in zip(table.columns[4:8], RESOURCES, strict=True):
        assert list(column.cells) == [f"{getattr(ours, name):,}", f"~{getattr(large, name):,}"]
    assert any(text.startswith("8x8-50: does not fit on the VCU118") for text in texts)
    assert any(text.startswith("8x8-50: ~ no published figure") for text in texts)
    assert not any("4x4-1" in text for text in texts)


def test_ours_of_the_published_network():
    """Bytes of the plan in bfloat16; theirs where they were published, half of float32."""
    found = exploring.published_program([1, 7, 28, 784], "bfloat16")
    assert [one.published_memory_bytes for one in found.trainings] == [
        *(20_662_160 // 2, None, 1_828_688 // 2, 1_156_064 // 2)
    ]
    net = fptt.Network([fptt.LSTM(1, 128), fptt.Linear(128, 10)])
    for one in found.trainings:
        program = fptt.build(net, fptt.FPTT(parts=one.parts), steps=784, batch=4, dtype="bfloat16")
        assert one.memory_bytes == program.memory().total_bytes
        assert one.workload == published(one.parts)
    [full] = exploring.published_program([28], "float32").trainings
    assert full.published_memory_bytes == 1_828_688


def test_published_marks():
    marks = exploring.published_marks(exploring.published_network(), 784, 4)
    found = {(mark.name, mark.parts): mark for mark in marks}
    assert len(found) == len(marks) == 27  # 1 Rocket, 3 GPUs, 5 chips, each with 3 K
    assert found["T4", 784].latency_s == 5.04 and found["T4", 784].figures == {}
    assert found["single Rocket", 1].figures == {"cores": 1, "memory": 20_662_160}
    assert found["8x8-10", 28].figures == {
        "cores": 10,
        "memory": 914_344,
        "lut": 384_080,
        "ff": 182_179,
        "bram": 244,
        "dsp": 270,
    }
    assert found["4x4-4", 1].latency_s == pytest.approx(572_710_868 / 500e6)
    assert found["4x4-4", 1].figures == {"cores": 4, "memory": 10_331_080}
    other = fptt.Network([fptt.LSTM(1, 64), fptt.Linear(64, 10)])
    assert exploring.published_marks(other, 784, 4) == []
    assert exploring.published_marks(exploring.published_network(), 784, 1) == []


# --- the command: rows ----------


def documented(at):
    """The keys that the docstring promises, of the document number `at`."""
    text = " ".join(cli_chip.explore.__doc__.split("JSON: ")[1].split())
    depth, found, start = 0, [], 0
    for place, character in enumerate(text):
        if character == "{":
            start, depth = (place, 1) if not depth else (start, depth + 1)
        elif character == "}":
            depth -= 1
            if not depth:
                found.append(text[start + 1 : place])
    inner = re.sub(r": \[?\{[^{}]*\}\]?", "", found[at])
    return {key.strip() for key in inner.split(",")}


def test_json_of_the_published_workload(run):
    """The command of the issue: a row for each design point, K and function."""
    out, err = run("--workload", "published", *GRID, "--parts", PARTS, "--json")
    rows = json.loads(out)
    assert err == ""
    assert set(rows[0]) == documented(0)
    places = {(row["mesh"], row["cores"], row["parts"], row["function"]): row for row in rows}
    with MEASURED.open() as file:
        functions = {row["function"] for row in csv.DictReader(file)}
    assert len(places) == len(rows) == 12 * 9 * len(functions) == 12 * 9 * 12
    assert {row["function"] for row in rows} == functions
    assert all(type(row["cores"]) is type(row["parts"]) is int for row in rows)
    assert {row["mesh"] for row in rows} == {"4x4", "8x8"}
    for design, k in (("4x4-1", 1), ("8x8-10", 28), ("4x4-6", 784)):
        chip = load_chip(design)
        for name, value in cycles(chip, published(k)).items():
            row = places[chip.mesh_name, chip.cores, k, name]
            assert row["cycles"] == pytest.approx(value, abs=12)
            assert row["seconds"] == row["cycles"] / 500e6
            assert row["design"] == design
    one = places["8x8", 10, 28, "total"]
    assert one["cycles"] == pytest.approx(
        sum(row["cycles"] for row in rows if row["design"] == "8x8-10" and row["parts"] == 28) / 2
    )
    assert (one["lut"], one["memory_bytes"]) == (384_080, 583_632)
    assert one["published_memory_bytes"] == 914_344
    # the grid is the default
    assert json.loads(run("--workload", "published", "--json")[0]) == rows


def test_rows_of_the_users_network(run, capsys):
    """Memory as `fptt plan` says for the chip's number type, cycles of that program's work."""
    network = ["--cell", "gru", "--hidden", 6, "--inputs", 3, "--outputs", 4, "--steps", 12]
    options = ["--batch", 2, "--optimizer", "adam", "--loss", "every_step", "--clip", 1.0]
    parts = ["--parts", "1,5"]
    out, _ = run(*network, *options, *parts, "--design", "8x8-4", "--json")
    rows = [row for row in json.loads(out) if row["function"] == "total"]
    words = [str(word) for word in [*network, *options, *parts, "--dtype", "bfloat16", "--json"]]
    assert cli.main(["plan", *words]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [row["memory_bytes"] for row in rows] == [row["total_bytes"] for row in plan]
    net = fptt.Network([fptt.GRU(3, 6), fptt.Linear(6, 4)])
    for row in rows:
        program = fptt.build(
            net,
            fptt.FPTT(parts=row["parts"]),
            fptt.Adam(),
            steps=12,
            batch=2,
            loss="every_step",
            clip=1.0,
            dtype="bfloat16",
        )
        assert row["cycles"] == pytest.approx(
            cycles(load_chip("8x8-4"), of_program(program))["total"], abs=12
        )
        assert row["published_memory_bytes"] is None


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        (["--rule", "tbptt"], {}),
        (["--no-regularise"], {}),
        (["--train-only", "1.*"], {"train": ("1.*",)}),
        (["--adapters", "0.weight_hh=2"], {"adapters": {"0.weight_hh": 2}}),
        (["--recompute"], {"recompute": True}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_reach_the_program(run, flags, options):
    out, _ = run(*SMALL, *flags, "--design", "4x4-1", "--json")
    found = [row["memory_bytes"] for row in json.loads(out) if row["function"] == "total"]
    net = fptt.Network([fptt.LSTM(1, 6), fptt.Linear(6, 10)])
    rule = "tbptt" if "tbptt" in flags else "fptt"
    regularise = "--no-regularise" not in flags
    wanted = [
        fptt.build(
            net,
            runs.make_rule(rule, k, regularise=regularise),
            steps=12,
            batch=2,
            dtype="bfloat16",
            **options,
        )
        for k in (1, 4)
    ]
    assert found == [program.memory().total_bytes for program in wanted]
    if rule == "tbptt":
        lines = run(*SMALL, *flags, "--design", "4x4-1")[0].splitlines()
        assert lines[0] == (
            "LSTM(1, 6) - Linear(6, 10), TBPTT(state='reset', source='bptt'), "
            "SGD(lr=0.01, momentum=0.0), loss last, T=12, batch 2, bfloat16, at 500 MHz"
        )


def test_the_subject_tells_settings_apart():
    net = fptt.Network([fptt.LSTM(1, 6), fptt.Linear(6, 10)])
    settings = [
        {},
        *({"rule": name} for name in ("tbptt", "bptt")),
        {"optimizer": fptt.Adam()},
        {"optimizer": fptt.SGD(momentum=0.9)},
        *({"source": name} for name in ("eprop",)),
        {"regularise": False},
        *({"loss": "every_step"}, {"loss": "every_step", "criterion": "mse"}, {"clip": 1.0}),
        *({"train": ("1.*",)}, {"adapters": {"0.weight_hh": 2}}, {"recompute": True}),
        *({"batch": 3}, {"steps": 13}, {"dtype": "float32"}),
    ]
    subjects = []
    for setting in settings:
        chosen = {"steps": 12, "batch": 2, "dtype": "bfloat16"} | setting
        of_rule = {name: chosen.pop(name) for name in ("source", "regularise") if name in chosen}
        name, optimizer = chosen.pop("rule", "fptt"), chosen.pop("optimizer", None)

        def rule(k, name=name, of_rule=of_rule):
            return runs.make_rule(name, k, **of_rule)

        subjects.append(exploring.programs(net, rule, [1], optimizer, **chosen).subject)
    assert len(set(subjects)) == len(settings)


def test_a_saved_model_is_the_same_network(run, tmp_path):
    file = tmp_path / "model.safetensors"
    words = ["--task", "mnist-rows", "--subset", "--limit", "8", "--hidden", "5", "--epochs", "1"]
    assert cli.main(["train", *words, "--batch", "4", "--out", str(file)]) == 0
    of_model, err = run(file, "--parts", "1,4", "--json")
    assert err == (
        f"{file}: taken are the network, T=28 and loss last; by the options rule fptt, optimizer "
        "sgd and batch 4, however it was trained\n"
    )
    named = ["--hidden", 5, "--inputs", 28, "--steps", 28, "--parts", "1,4", "--json"]
    assert json.loads(of_model) == json.loads(run(*named)[0])


def test_k_of_a_model_joins_the_grid(run, tmp_path):
    net = fptt.Network([fptt.LSTM(2, 5), fptt.Linear(5, 3)])
    weights = net.initial(0)
    file = tmp_path / "five.safetensors"
    file.write_bytes(
        model_bytes(net, weights, "every_step", "cross_entropy", {"steps": 20, "parts": 5})
    )

    def parts(*words):
        out, err = run(file, "--design", "4x4-1", "--json", *words)
        return sorted({row["parts"] for row in json.loads(out)}), err.splitlines()[-1]

    found, note = parts()
    assert found == [1, 2, 5, 7, 14]
    assert "taken are the network, T=20, loss every_step and K=5; by the options rule" in note
    found, note = parts("--parts", "2", "--loss", "last", "--batch", "3", "--optimizer", "adam")
    assert found == [2]
    assert "taken are the network and T=20; by the options rule fptt, optimizer adam and" in note
    found, note = parts("--rule", "bptt")
    assert found == [1] and "K=" not in note
    assert parts("--steps", "4")[0] == [1, 2]  # which have no five parts


def test_a_model_of_regression_keeps_its_criterion_and_loss(run, tmp_path):
    net = fptt.Network([fptt.LSTM(2, 5), fptt.Linear(5, 3)])
    program = fptt.build(net, fptt.FPTT(parts=4), steps=12, batch=4, dtype="bfloat16")
    trainer = fptt.Trainer(program, seed=0)
    weights = {name: trainer.backend.read(name) for name in net.parameters}
    file = tmp_path / "sums.safetensors"
    file.write_bytes(model_bytes(net, weights, "every_step", "mse", {"steps": 12}))
    rows = json.loads(run(file, "--parts", "4", "--design", "4x4-1", "--json")[0])
    wanted = fptt.build(
        net,
        fptt.FPTT(parts=4),
        steps=12,
        batch=4,
        loss="every_step",
        criterion="mse",
        dtype="bfloat16",
    )
    assert rows[-1]["cycles"] == pytest.approx(
        cycles(load_chip("4x4-1"), of_program(wanted))["total"], abs=12
    )
    assert rows[-1]["memory_bytes"] == wanted.memory().total_bytes
    classes = fptt.build(
        net, fptt.FPTT(parts=4), steps=12, batch=4, loss="every_step", dtype="bfloat16"
    )
    assert rows[-1]["cycles"] != round(cycles(load_chip("4x4-1"), of_program(classes))["total"])


def test_values_of_k_that_the_steps_do_not_allow(run):
    out, err = run("--hidden", 6, "--steps", 28, "--design", "4x4-1", "--json")
    assert err == "left out, as T is 28: K=56, 112, 392, 784\n"
    assert {row["parts"] for row in json.loads(out)} == {1, 2, 7, 14, 28}
    out, err = run("--hidden", 6, "--rule", "bptt", "--design", "4x4-1", "--json")
    assert err == "" and {row["parts"] for row in json.loads(out)} == {1}


def test_other_chips(run, tmp_path):
    """A chip comes with its own array and cores; its clock and number type count."""
    out, _ = run(*SMALL, "--chip", "gemmini-fp32", "--json")
    rows = json.loads(out)
    assert {row["design"] for row in rows} == {load_chip("gemmini-fp32").design}
    half, _ = run(*SMALL, "--design", rows[0]["design"], "--json")
    assert rows[0]["memory_bytes"] > 1.9 * json.loads(half)[0]["memory_bytes"]
    fast = json.loads(run(*SMALL, "--design", "4x4-2", "--clock", "1GHz", "--json")[0])
    slow = json.loads(run(*SMALL, "--design", "4x4-2", "--json")[0])
    for one, two in zip(fast, slow, strict=True):
        assert one["cycles"] == two["cycles"]
        assert one["seconds"] == pytest.approx(two["seconds"] / 2)
    own = tmp_path / "own.toml"
    text = (exploring.load_chip.__globals__["FOLDER"] / "chips/published.toml").read_text()
    own.write_text(text.replace("[cores]\nvalue = 1", "[cores]\nvalue = 3"))
    assert {row["design"] for row in json.loads(run(*SMALL, "--chip", own, "--json")[0])} == {
        "4x4-3"
    }


def test_several_chips(run, tmp_path):
    """Each in its own number type, in one grid and one question, called by chip and design."""
    words = [*SMALL, "--chip", "published,gemmini-fp32", "--mesh", "4x4", "--cores", "1"]
    rows = json.loads(run(*words, "--json")[0])
    assert {(row["chip"], row["design"]) for row in rows} == {
        ("published", "published 4x4-1"),
        ("gemmini-fp32", "gemmini-fp32 4x4-1"),
    }
    for name in ("published", "gemmini-fp32"):
        own = json.loads(run(*SMALL, "--chip", name, "--design", "4x4-1", "--json")[0])
        theirs = [row for row in rows if row["chip"] == name]
        assert {row["design"] for row in own} == {"4x4-1"}
        for one, other in zip(theirs, own, strict=True):
            assert one | {"design": "", "front": 0} == other | {"design": "", "front": 0}
    out, _ = run(*words)
    assert "bfloat16 (published) and float32 (gemmini-fp32), at 500 MHz" in out.splitlines()[0]
    assert sum(line.startswith(" gemmini-fp32 4x4-1 ") for line in out.splitlines()) == 2
    [found] = json.loads(run(*words, "--minimise", "lut", "--json")[0])
    assert found["points"] == 4 and found["chosen"]["chip"] == "published"
    assert found["runner_up"]["design"] == "gemmini-fp32 4x4-1"
    answers = json.loads(run(*words, "--best-parts", "--json")[0])
    assert [one["design"] for one in answers] == ["published 4x4-1", "gemmini-fp32 4x4-1"]
    # all come with their own arrays and cores
    rows = json.loads(run(*SMALL, "--chip", "published,gemmini-fp32", "--json")[0])
    assert len({row["design"] for row in rows}) == 13
    # two that would be called the same
    own = tmp_path / "own.toml"
    text = (exploring.load_chip.__globals__["FOLDER"] / "chips/published.toml").read_text()
    own.write_text(text.replace("[clock_hz]\nvalue = 500", "[clock_hz]\nvalue = 600"))
    assert own.read_text() != text
    _, err = run(*SMALL, "--chip", f"published,{own}", code=2)
    assert "two different chips in it are called 'published'; give each file a name" in err
    own.write_text(own.read_text().replace('name = "published"', 'name = "own"'))
    out, _ = run(*SMALL, "--chip", f"published,{own}", "--design", "4x4-1")
    assert out.splitlines()[0].endswith(", bfloat16, at 500 MHz (published) and 600 MHz (own)")
    assert "Predicted for one pass over a batch at 500 MHz and 600 MHz" in out


def test_the_clock_and_what_the_numbers_are(run):
    for words, clock in ((), "500 MHz"), (("--clock", "1GHz"), "1,000 MHz"):
        lines = run(*SMALL, "--design", "4x4-1", *words)[0].splitlines()
        assert lines[0].endswith(f", bfloat16, at {clock}")
        assert lines[1].strip() == f"Predicted for one pass over a batch at {clock}"
        assert lines[-2].startswith(f"seconds: at {clock}; bytes: the program's training memory")
        assert lines[-2].endswith(
            "FPGA resources are those of the same design on a VCU118, whose own clock is lower "
            "(FireSim simulated the design there)."
        )
        lines = run(*SMALL, "--design", "4x4-1", *words, "--minimise", "lut")[0].splitlines()
        assert lines[0].endswith(f", at {clock}")
        assert "bytes: the program's training memory" in lines[-1] and "VCU118" in lines[-1]
    [row, *_] = json.loads(run(*SMALL, "--design", "4x4-1", "--clock", "1GHz", "--json")[0])
    assert row["clock_hz"] == 1e9


def test_rows_of_the_front_alone(run):
    words = ["--workload", "published", "--parts", "28,56,112", "--front", "latency"]
    rows = json.loads(run(*words, "--json")[0])
    found = json.loads(run(*words, "--only-front", "--json")[0])
    assert found == [row for row in rows if row["front"]] and 0 < len(found) < len(rows)
    out, _ = run(*words, "--only-front")
    assert [line.split()[:2] for line in out.splitlines() if re.match(r" [48]x[48]-", line)] == [
        [found[0]["design"], str(found[0]["parts"])]
    ]
    assert "as 1 of 36 points are" in out
    assert "--only-front leaves" not in out.splitlines()[-1]
    last = run(*words)[0].splitlines()[-1]
    assert last == (
        "which one to take: --minimise lut --latency 1s asks for the smallest that is fast enough, "
        "--best-parts for the K of each chip; --only-front leaves the others out"
    )


def test_ranges_and_suffixes(run):
    rows = json.loads(run(*SMALL, "--mesh", "4x4", "--cores", "1-3,10", "--json")[0])
    assert {row["cores"] for row in rows} == {1, 2, 3, 10}
    for name, text, most in (
        ("lut", "200k", 200_000),
        ("ff", "0.2M", 200_000),
        ("bram", "1k", 1000),
        ("dsp", "250", 250),
    ):
        words = ["--design", "4x4-1", "--minimise", "latency", f"--{name}", text, "--json"]
        [found] = json.loads(run(*SMALL, *words)[0])
        assert [(one["figure"], one["most"]) for one in found["limits"]] == [(name, most)]


def test_the_help_is_in_order(run):
    text = run("--help")[0].split("\nOptions:")[1]
    groups = [
        *(["chip", "mesh", "cores", "design", "clock"], ["workload", "parts", "recompute"]),
        *(["minimise", "best-parts", "latency", "dsp"], ["front", "only-front", "out", "emit"]),
        ["validate", "calibrate", "what-if"],
    ]
    places = [
        re.search(rf"^\s+--{name}\b", text, re.M).start() for group in groups for name in group
    ]
    assert places == sorted(places)


def test_the_table(run):
    out, err = run("--workload", "published", "--design", "4x4-1,8x8-10", "--parts", "28,56")
    assert err == ""
    subject, *lines = out.splitlines()
    assert subject == (
        "LSTM(1, 128) - Linear(128, 10), the published program (memory: that of our program of the "
        "same network), T=784, batch 4, bfloat16, at 500 MHz"
    )
    rows = [line.split() for line in lines if re.match(r" [48]x[48]-", line)]
    points = engine.explore(
        [load_chip("4x4-1"), load_chip("8x8-10")],
        exploring.published_program([28, 56], "bfloat16").trainings,
    )
    for row, one in zip(rows, points, strict=True):
        name, share = one.dominant
        assert row == [
            *(one.design, str(one.parts), *chip_tables.seconds(one).split()),
            f"{one.memory_bytes:,}",
            f"{one.published_memory_bytes:,}" if one.published_memory_bytes else "-",
            *(f"{getattr(one, size):,}" for size in RESOURCES),
            *(name, f"{share:.0%}", "*"),
        ]
    assert lines[-3] == (
        "*: on the Pareto front of latency, memory and lut, as 4 of 4 points are. ±: one standard "
        "deviation of the prediction."
    )
    out, _ = run(
        *("--workload", "published", "--parts", "28", "--cores", "4,10", "--mesh", "4x4"),
        *("--front", "lut,memory"),
    )
    marks = {line.split()[0]: "*" in line for line in out.splitlines() if line.startswith(" 4x4")}
    assert marks == {"4x4-4": True, "4x4-10": False}


# --- the command: questions ----------

#: far from where the model's constants could move it: 1 s is between 6 and 1 core
ASK = ["--workload", "published", "--minimise", "lut", "--latency", "1.5 s"]


def test_a_question(run):
    out, err = run(*ASK, "--memory", "512KiB")
    assert err == ""
    points = engine.explore(
        exploring.chips("published"),
        exploring.published_program(exploring.PARTS, "bfloat16").trainings,
    )
    answer = ask(points, "lut", [Limit("latency", 1.5), Limit("memory", 2**19)])
    assert answer.chosen.latency_s <= 1.5 and answer.chosen.memory_bytes <= 2**19
    assert answer.chosen.lut == min(
        one.lut for one in points if one.latency_s <= 1.5 and one.memory_bytes <= 2**19
    )
    lines = out.splitlines()[1:]
    assert lines[0] == (
        f"least lut, latency at most 1.500 s, memory at most 524,288 bytes: {answer.chosen}"
    )
    one = answer.chosen
    name, share = one.dominant
    assert lines[1] == (
        f"  {chip_tables.seconds(one)} s, {one.memory_bytes:,} bytes, {one.lut:,} LUT, {one.ff:,} "
        f"FF, {one.bram} BRAM, {one.dsp} DSP; {name} takes {share:.0%} of the time"
    )
    at = 3 if answer.equal else 2
    assert lines[at] == f"next: {answer.runner_up}"
    assert lines[at + 2] == (
        f"{answer.fits} of 108 points fit; {answer.failed['latency']} fail in latency and "
        f"{answer.failed['memory']} fail in memory"
    )
    for one in answer.better:
        [line] = [line for line in lines if line.startswith(f"better but fails: {one}, ")]
        assert answer.why_not(one) in line


def test_the_example_of_the_help(run):
    example = " ".join(run("--help")[0].split()).split("Example: fptt explore ")[1]
    assert run(*example.split())[0].splitlines()[1].startswith("least lut, latency at most 1.000 s")


def test_a_question_as_json(run):
    out, err = run(*ASK, "--memory", "512 KiB", "--json")
    assert err == ""
    [found] = json.loads(out)
    assert set(found) == documented(1)
    assert found["design"] is None and found["minimise"] == "lut"
    assert found["limits"] == [
        {"figure": "latency", "most": 1.5, "unit": "s"},
        {"figure": "memory", "most": 524288, "unit": "bytes"},
    ]
    assert found["chosen"]["excess"]["latency"] == pytest.approx(
        found["chosen"]["latency_s"] / 1.5 - 1
    )
    text = cli_chip.explore.__doc__
    promised = re.search(r"chosen: \{(.*?)\}", text, re.S)[1].replace("\n", " ").split(",")
    assert {key.strip() for key in promised} == set(found["chosen"])


@pytest.mark.parametrize("as_json", [False, True])
def test_nothing_fits(run, as_json):
    """Ends with code 1 and says what is nearest; JSON is still one document."""
    words = ["--workload", "published", "--minimise", "ff", "--latency", "100ms", "--ff", 60_000]
    out, err = run(*words, *(["--json"] if as_json else []), code=1)
    points = engine.explore(
        exploring.chips("published"),
        exploring.published_program(exploring.PARTS, "bfloat16").trainings,
    )
    answer = ask(points, "ff", [Limit("latency", 0.1), Limit("ff", 60_000)])
    assert err == f"fptt: {answer.message()}\n"
    if as_json:
        [found] = json.loads(out)
        assert found["chosen"] is None and found["fits"] == 0
        assert found["nearest"]["excess"]["latency"] > 0
        assert {one["figure"] for one in found["loosened"]} == {"latency"}
    else:
        assert len(out.splitlines()) == 1


def test_best_k_of_a_chip(run):
    out, _ = run("--workload", "published", "--best-parts", "--design", "8x8-10")
    assert out.splitlines()[1] == "least latency: 8x8-10 with K=1"
    out, _ = run(
        *("--workload", "published", "--best-parts", "--design", "8x8-10"),
        *("--memory", "600kB", "--json"),
    )
    [found] = json.loads(out)
    assert (found["design"], found["chosen"]["parts"]) == ("8x8-10", 28)
    assert found["runner_up"]["parts"] == 56
    assert [one["parts"] for one in found["better"]] == [14, 7, 2]


def test_best_k_of_every_chip(run):
    out, _ = run("--workload", "published", "--best-parts", "--cores", "1,10")
    lines = out.splitlines()[1:]
    assert [line.split(": ")[0] for line in lines[:4]] == ["4x4-1", "4x4-10", "8x8-1", "8x8-10"]
    assert all(re.match(r"\S+: K=1, [\d.]+ ± [\d.]+ s; next K=2, ", line) for line in lines[:4])
    out, err = run(
        *("--workload", "published", "--best-parts", "--cores", "1,10"), *("--lut", 1), code=1
    )
    assert len(out.splitlines()) == 5
    assert err == "fptt: none of 4 chips keeps the limits with any K\n"
    # one of them is enough
    run("--workload", "published", "--best-parts", "--cores", "1,10", "--lut", 100_000)


# --- what is refused ----------

FIGURE_NAMES = ", ".join(FIGURES)
REFUSED = {
    "workload": (
        ["--workload", "ours"],
        "--workload is 'ours'; choose one of program, published",
    ),
    "network of the published": (
        ["--workload", "published", "--hidden", 3],
        "--hidden has no effect with --workload published; leave it out",
    ),
    "steps of the published": (
        ["--workload", "published", "--steps", 28],
        "--steps has no effect with --workload published; leave it out",
    ),
    "mesh": (
        ["--mesh", "4x8"],
        "--mesh is '4x8'; give square arrays such as 4x4, or several: 4x4,8x8",
    ),
    "cores": (
        ["--cores", "0"],
        "--cores is '0'; give whole numbers from 1, such as 10, 1,4,10 or 1-10 (a range of at most "
        "1,000)",
    ),
    "cores backwards": (
        ["--cores", "4-1"],
        "--cores is '4-1'; give whole numbers from 1, such as 10, 1,4,10 or 1-10 (a range of at "
        "most 1,000)",
    ),
    "cores without end": (
        ["--cores", "1-999999999"],
        "--cores is '1-999999999'; give whole numbers from 1, such as 10, 1,4,10 or 1-10 (a range "
        "of at most 1,000)",
    ),
    "lut": (
        ["--minimise", "latency", "--lut", "200 kB"],
        "--lut is '200 kB'; give a whole number from 1, such as 200000, 200k or 1.2M",
    ),
    "dsp": (
        ["--minimise", "latency", "--dsp", "0.5"],
        "--dsp is '0.5'; give a whole number from 1, such as 200000, 200k or 1.2M",
    ),
    "only the front of a question": (
        ["--minimise", "lut", "--only-front"],
        "--only-front has no effect with a question; leave it out",
    ),
    "emit without design": (
        ["--emit", "chipyard", "--out", "x"],
        "--emit is 'chipyard' alone; the design is missing: give both, such as --emit chipyard "
        "8x8-10 --out FOLDER",
    ),
    "emit without form": (
        ["--emit", "8x8-10", "--out", "x"],
        "--emit is '8x8-10' alone; the form is missing: give both, such as --emit chipyard 8x8-10 "
        "--out FOLDER",
    ),
    "emit of two chips": (
        ["--emit", "chipyard", "8x8-1", "--out", "x", "--chip", "published,gemmini-fp32"],
        "--emit writes one design, and --chip is 'published,gemmini-fp32'; give one chip",
    ),
    "design": (
        ["--design", "8x8"],
        "--design is '8x8'; give a square array and its cores, such as 8x8-10",
    ),
    "design of no cores": (
        ["--design", "8x8-0"],
        "--design is '8x8-0'; give a square array and its cores, such as 8x8-10",
    ),
    "design and cores": (
        ["--design", "8x8-1", "--cores", 3],
        "--cores has no effect with --design; leave it out",
    ),
    "clock": (["--clock", "fast"], "--clock is 'fast'; give a frequency such as 168MHz or 32kHz"),
    "chip": (["--chip", "none.toml"], "cannot read a chip none.toml: No such file or directory"),
    "parts": (["--parts", "x"], "--parts is 'x'; give whole numbers from 1, such as 28 or 1,7,28"),
    "too many parts": (
        ["--steps", 12, "--parts", "4,28"],
        "build: 28 parts of a sequence of 12 steps; give parts <= 12",
    ),
    "too many parts of the published": (
        ["--workload", "published", "--parts", "785"],
        "build: 785 parts of a sequence of 784 steps; give parts <= 784",
    ),
    "minimise": (
        ["--minimise", "power"],
        f"--minimise is 'power'; choose one of {FIGURE_NAMES}",
    ),
    "front": (["--front", "lut,K"], f"--front is 'lut,K'; choose from {FIGURE_NAMES}"),
    "front of a question": (
        ["--minimise", "lut", "--front", "lut"],
        "--front has no effect with a question; leave it out",
    ),
    "two questions": (
        ["--minimise", "lut", "--best-parts"],
        "--best-parts minimises latency; leave it or --minimise out",
    ),
    "a limit alone": (
        ["--memory", "1MiB"],
        "--memory is a limit; say what to look for with --minimise, such as --minimise lut, or "
        "with --best-parts",
    ),
    "latency": (
        ["--minimise", "lut", "--latency", "1h"],
        "--latency is '1h'; give a time such as 1s, 250ms or 2min",
    ),
    "no latency": (
        ["--minimise", "lut", "--latency", "0s"],
        "--latency is '0s'; give a time such as 1s, 250ms or 2min",
    ),
    "memory": (
        ["--minimise", "lut", "--memory", "small"],
        "--memory is 'small'; give whole bytes from 1, such as 262144, 256KiB, 1MiB or 64kB",
    ),
    "emit": (["--emit", "verilog", "8x8-1"], "--emit is 'verilog'; choose chipyard"),
    "emit nowhere": (["--emit", "chipyard", "8x8-1"], "--emit needs --out FOLDER"),
    "emit what": (
        ["--emit", "chipyard", "8x9-1", "--out", "x"],
        "--emit chipyard is '8x9-1'; give a square array and its cores, such as 8x8-10",
    ),
    "emit and a network": (
        ["--emit", "chipyard", "8x8-1", "--out", "x", "--hidden", 3],
        "--hidden has no effect with --emit; leave it out",
    ),
    "rule": (["--rule", "sgd"], "rule is 'sgd'; choose one of fptt, tbptt, bptt"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(run, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, message = REFUSED[name]
    out, err = run(*arguments, code=2)
    assert (out, err.splitlines()[-1]) == ("", f"fptt: {message}")
    assert list(tmp_path.iterdir()) == []


# --- a configuration for Chipyard ----------


def test_emit(run, tmp_path):
    folder = tmp_path / "chip"
    out, err = run("--emit", "chipyard", "8x8-10", "--out", folder, "--clock", "1GHz", "--json")
    found = json.loads(out)
    assert set(found) == documented(2) and err == ""
    assert found["design"] == "8x8-10" and found["elaborated"] is False
    assert {path.name for path in folder.iterdir()} >= set(found["files"])
    [scala] = [name for name in found["files"] if name.endswith(".scala")]
    text = (folder / scala).read_text()
    assert "WithNHugeCores(10)" in text and "BusFrequency(1000.0)" in text
    out, _ = run("--emit", "chipyard", "8x8-10", "--out", folder)
    assert out == f"{folder}: {scala} and gemmini_params.h for 8x8-10, not elaborated here\n"


def test_emit_warns_of_what_is_not_backed(run, tmp_path):
    """On standard error, so that JSON stays one document."""
    out, err = run("--emit", "chipyard", "8x8-70", "--out", tmp_path / "large", "--json")
    assert json.loads(out)["design"] == "8x8-70"
    size = resources(load_chip("8x8-10").with_(cores=70))
    assert err == (
        f"8x8-70: no published figure backs its resources on an FPGA ({size.extrapolated})\n"
        f"8x8-70: {size.lacks()}\n"
    )
    _, err = run("--emit", "chipyard", "8x8-10", "--out", tmp_path / "published")
    assert err == ""
