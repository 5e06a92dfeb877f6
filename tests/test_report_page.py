"""`fptt report`: the page as a file, what it says, and what it refuses. In a browser:
test_report_browser.py."""

import html
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from experiment_records import equal_memory, record, write

import fptt
from fptt import cli
from fptt.experiments.overview import overview
from fptt.experiments.summary import groups
from fptt.report import page as pages
from fptt.report import plots, results_tables, wording

SMALL = {"epochs": 2}


@pytest.fixture
def results(tmp_path):
    """A folder with a small file of results."""
    folder = tmp_path / "results"
    folder.mkdir()
    records = [record(parts=k, seed=seed, **SMALL) for k in (7, 14) for seed in (0, 1)]
    write(folder / "s-mnist.jsonl", records)
    return folder


@pytest.fixture
def run(capsys):
    """The command line in this process: exit code, standard output, standard error."""

    def call(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


class Cells(HTMLParser):
    """The tables of a page as lists of rows of texts."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.inside = [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.inside = True
        elif tag == "br" and self.inside:
            self.tables[-1][-1][-1] += "\n"

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.tables[-1][-1][-1] += data


def body(text):
    """The page without what bokeh brings."""
    return text.partition("<body>")[2].partition("</footer>")[0]


def made(records, tmp_path):
    file = write(tmp_path / "made.jsonl", records)
    return body(pages.page(overview([file]), command="fptt report x", date="today"))


# --- the command ----------


def test_the_command(run, results, tmp_path):
    out = tmp_path / "page.html"
    code, shown, notes = run("report", results, "--out", out)
    size = out.stat().st_size
    assert (code, notes) == (0, "")
    assert shown == f"{out}: 4 runs in 2 rows, {size:,} bytes\n"
    text = out.read_text()
    assert size > 1_200_000  # bokeh is inside
    assert f"Made by <code>fptt report {results} --out {out}</code> on 20" in text
    assert not re.search(r"<(script|link|img)[^>]* (src|href)=\"(?!data:)", text)
    assert str(results / "s-mnist.jsonl") in text
    # a second time it takes the place of the first
    write(results / "more.jsonl", [record(parts=28, **SMALL)])
    code, shown, _ = run("report", results, "--out", out)
    assert (code, shown.split(": ")[1][:6]) == (0, "5 runs")


def test_json(run, results, tmp_path):
    code, shown, _ = run("report", results, "--out", tmp_path / "page.html", "--json")
    document = json.loads(shown)
    assert code == 0
    assert (tmp_path / "page.html").stat().st_size == document["bytes"]
    assert document["runs"] == 4 and document["left_out"] == []
    [first, second] = document["rows"]
    assert (first["parts"], second["parts"]) == (7, 14)
    assert first["seeds"] == [0, 1] and len(first["final"]["values"]) == 2
    assert first["published"][0]["value"] == 0.9752
    help_text = run("report", "--help")[1]
    named = " ".join(help_text.split()).split("JSON: ")[1]
    for key in {*document, *first, *first["published"][0]}:
        assert re.search(rf"\b{key}\b", named), key


def test_the_help_names_the_keys_of_comparisons(run, tmp_path):
    levels = (0.1, 0.9, 0.8)
    file = write(tmp_path / "a.jsonl", equal_memory("fsdd", "test_accuracy", levels, (4,), **SMALL))
    document = overview([file]).as_json()
    named = " ".join(run("report", "--help")[1].split()).split("equal_memory: ")[1]
    for key in document["equal_memory"][0]:
        assert re.search(rf"\b{key}\b", named), key


def test_what_was_left_out_is_said_on_the_page_and_beside_it(run, results, tmp_path):
    file = results / "s-mnist.jsonl"
    bad = record(seed=9, variant="<i>") | {"seconds": None}
    file.write_text(file.read_text() + json.dumps(bad) + '\n{"ver')
    out = tmp_path / "page.html"
    code, _, notes = run("report", results, "--out", out)
    assert code == 0
    said = [
        "s-mnist.jsonl, line 5: seconds is None; the run was left out",
        "s-mnist.jsonl, line 6 was cut off as it was written; the run was left out",
    ]
    assert notes.splitlines() == [f"warning: {note}" for note in said]
    text = out.read_text()
    assert all(f"<li>{note}</li>" in text for note in said)
    assert "Left out of the files: 2 notes" in text


def refused(run, message, *arguments):
    code, shown, notes = run("report", *arguments)
    assert (code, shown, notes.splitlines()[-1]) == (2, "", f"fptt: {message}")


def test_no_data(run, tmp_path):
    out = tmp_path / "page.html"
    hint = "(*.jsonl); `fptt reproduce` writes them"
    refused(run, f"the folder {tmp_path} holds no results {hint}", tmp_path, "--out", out)
    assert not out.exists()


def test_only_a_page_of_its_own_is_overwritten(run, results, tmp_path):
    file = results / "s-mnist.jsonl"
    before = file.read_bytes()
    hint = "give another name with --out, or delete it"
    message = f"{file} exists and is no page of `fptt report`; {hint}"
    refused(run, message, results, "--out", file)
    assert file.read_bytes() == before
    message = f"{results} is no plain file; give the path of a file to write"
    refused(run, message, results, "--out", results)
    empty = tmp_path / "empty.html"
    empty.touch()
    assert run("report", results, "--out", empty)[0] == 0


def test_without_bokeh(results, tmp_path):
    """What a user sees who did not install the extra; in a fresh interpreter without bokeh."""
    code = (
        "import sys; sys.modules['bokeh'] = None\n"
        "from fptt.cli import main\n"
        f"sys.exit(main(['report', {str(results)!r}, '--out', {str(tmp_path / 'p.html')!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(Path(fptt.__file__).parents[1])},
    )
    assert done.returncode == 2
    assert done.stderr == (
        "fptt: the page of results needs bokeh, which is not installed; run: "
        "pip install 'fptt[report]'\n"
    )


# --- what the page says ----------


def test_the_table_of_results(tmp_path):
    records = []
    for seed, (last, size) in enumerate(((0.97, 5000), (0.98, 5000), (0.99, 5000))):
        epochs = [{"epoch": e, "test_accuracy": a} for e, a in ((1, 0.995), (2, last))]
        one = record(parts=14, seed=seed) | {"epochs": epochs, "seconds": 75.0}
        records.append(one | {"arena_bytes": size})
    torch = record(parts=2, engine="torch", seed=0) | {"arena_bytes": None, "seconds": 8130.0}
    [table] = Cells(made([*records, torch], tmp_path)).tables
    assert table[0] == [
        *("variant", "K", "seeds", "last epoch (%)", "best epoch (%)", "bytes", "time"),
        *("published (%)", "ours minus published"),
    ]
    assert table[2] == [
        *("+ auxiliary + R", "14", "3", "98.00 ± 1.00", "99.50 ± 0.00 (epoch 1)", "5,000"),
        "1 min 15 s",
        "98.2\xa0[3]\n97.36\xa0[4]\n97.9\xa0(best\xa098.05)\xa0[5]",
        "\N{MINUS SIGN}0.20\n+0.64\n+0.10",
    ]
    assert table[1][5:7] == ["\N{EN DASH}", "2 h 16 min"]


def test_footnotes_say_where_settings_differ(tmp_path):
    text = html.unescape(made([record(parts=14, rule="tbptt")], tmp_path))
    notes = re.findall(r'<li id="table-1-1-note-(\d)" value="\1">(.*?)</li>', text)
    assert [number for number, _ in notes] == ["1", "2", "3"]
    assert notes[0][1] == (
        "TU/e reports behind Zhang et al., VLSI-SoC 2024 and JLPEA 15(1):15, 2025: first set of "
        "runs: epoch 100, learning rate 0.01, x0.1 at epochs 50, 75 and 90. Where they differ: "
        "ours: learning rate 0.001, rate x0.3 at epochs 13, 18, 22 epochs, one seed; published: "
        "learning rate 0.01, rate x0.1 at epochs 50, 75, 90, 100 epochs, number of seeds not "
        "stated."
    )


def comparison(values, sizes=(1000, 900), parts=(14, 14), metric="test_accuracy", seeds=3):
    records = []
    for rule, middle, size, k in zip(("fptt", "tbptt"), values, sizes, parts, strict=True):
        for seed, shift in zip(range(seeds), (0.0, 0.001, -0.001), strict=False):
            one = record("equal-memory", rule, rule=rule, parts=k, seed=seed, metric=metric)
            epochs = [{"epoch": 1, metric: middle + shift}]
            records.append(one | {"arena_bytes": size, "epochs": epochs})
    return records


def verdicts(records, tmp_path):
    """The row of the verdict, and the sentence."""
    text = made(records, tmp_path)
    sentence = re.search(r'<ul class="verdicts"><li><b>(.*?)</b>: (.*?)</li>', text)
    return Cells(text).tables[0][1], sentence[2]


def test_where_fptt_loses_the_page_says_so(tmp_path):
    row, sentence = verdicts(comparison((0.95, 0.97), parts=(28, 14)), tmp_path)
    assert row == [
        *("28", "1,000", "95.00 ± 0.10 (n=3)", "14", "900", "97.00 ± 0.10 (n=3)"),
        *("\N{MINUS SIGN}2.00 ± 0.08", "FPTT worse", "\N{EN DASH}"),
    ]
    assert sentence == (
        "FPTT loses to truncated BPTT in the same memory at K = 28 (by 2.00 points)."
    )


def test_the_other_verdicts(tmp_path):
    row, sentence = verdicts(comparison((0.97, 0.95)), tmp_path)
    assert row[7] == "FPTT better"
    assert sentence == (
        "FPTT wins at K = 14 (by 2.00 points); FPTT loses nowhere that these seeds show."
    )
    row, sentence = verdicts(comparison((0.97, 0.9705)), tmp_path)
    assert row[7] == "no difference that 3 seeds show"
    assert sentence.startswith("3 seeds show no difference at K = 14; FPTT loses nowhere")
    row, sentence = verdicts(comparison((0.97, 0.5), seeds=1), tmp_path)
    assert row[7] == "too few seeds to tell"
    assert sentence == "one seed tells nothing at K = 14."
    row, sentence = verdicts(comparison((0.97, 0.5), sizes=(1000, 1001)), tmp_path)
    assert row[3:8] == ["\N{EN DASH}"] * 4 + ["no TBPTT run fits"]
    assert sentence == "no TBPTT run needs as few bytes as FPTT at K = 14."
    lower = comparison((6.5, 6.0), metric="test_perplexity")
    row, sentence = verdicts(lower, tmp_path)
    assert row[7] == "FPTT worse" and row[6] == "+0.50 ± 0.00"
    assert sentence.endswith("at K = 14 (by 0.50).")


def test_equal_memory_without_a_control(tmp_path):
    text = made(comparison((0.9, 0.9))[:3], tmp_path)
    assert "There are no runs of both rules with the same setting yet." in text


def test_sections_of_all_tables_in_order(tmp_path):
    names = ["own <table>", *reversed(wording.TABLES)]
    # without curves and memory there are no plots, which is quicker
    records = [record(name, epochs=1) | {"arena_bytes": None} for name in names]
    text = made(records, tmp_path)
    titles = [html.unescape(title) for title in re.findall(r"<h2>(.*?)</h2>", text)]
    assert titles == ["Contents", *(title for title, _ in wording.TABLES.values()), "own <table>"]
    nav = text.partition("<nav")[2].partition("</nav>")[0]
    assert nav.count("<li>") == len(titles) - 1
    assert "<table>" not in "".join(titles[:-1])


def test_texts_of_a_file_are_escaped(tmp_path):
    bad = "<script>x</script>\"'&"
    one = record(bad, bad, task=bad, optimizer=bad, parts=7, **SMALL)
    one |= {"network": bad, "commit": bad, "machine": {"processor": bad}, "date": bad}
    text = made([one, one | {"variant": "other"}], tmp_path)
    assert "<script>x" not in text
    assert text.count(html.escape("<script>x")) >= 10


JUNK = (None, True, -1, 0, 2.5, "", "text", [], [1], {}, {"a": [1]})


def places(value, *path):
    """Every place in a record, without the rows of single epochs."""
    if path:
        yield path
    if isinstance(value, dict):
        for name, inside in value.items():
            yield from places(inside, *path, name)


@pytest.mark.parametrize("path", [p for p in places(record()) if p[0] != "version"], ids=".".join)
def test_whatever_stands_in_a_record_it_is_shown_or_left_out(path, tmp_path, monkeypatch):
    monkeypatch.setattr(pages.Resources, "render", lambda self: "")  # half a second each otherwise
    # one K, no bytes and one epoch: no plots, which is quicker; numbers for plots are checked
    good = record(seed=1, epochs=1) | {"arena_bytes": None}
    for junk in JUNK:
        one = record(epochs=1) | {"arena_bytes": None}
        where = one
        for name in path[:-1]:
            where = where[name]
        where[path[-1]] = junk
        found = overview([write(tmp_path / "made.jsonl", [good, one])])
        pages.page(found, command="", date="")
        assert found.runs + len(found.notes) == 2


# --- parts of plots ----------


def test_places_and_bars_of_points():
    one, two = groups([record(parts=7, seed=0), record(parts=14, seed=0), record(parts=14, seed=1)])
    columns = plots._columns([one, two], [7, 14])
    assert columns["y"] == [100 * one.final.mean, 100 * two.final.mean]
    assert columns["low"][0] != columns["low"][0]  # NaN: one seed has no bar
    assert columns["high"][1] - columns["y"][1] == pytest.approx(100 * two.final.sd)
    assert columns["y"][1] - columns["low"][1] == pytest.approx(100 * two.final.sd)


def test_labels_on_a_logarithmic_axis_keep_their_distance():
    assert plots.apart([1, 2, 4, 7, 14, 28, 56, 98, 112, 392, 784]) == [
        *(1, 2, 4, 7, 14, 28, 56, 98, 392, 784),
    ]
    assert plots.apart([14]) == [14]
    assert plots._one_two_five([0.6, 30.0]) == [1, 2, 5, 10, 20]


def test_no_formula_is_left_for_bokeh_to_typeset():
    assert plots.plain(r"$$x$$ \(a\) \[b\]") == r"$ $x$ $ \ (a\ ) \ [b\ ]"


def test_settings_in_words():
    [group] = groups([record(parts=4)])
    assert wording.setting(group) == (
        "LSTM(1, 128) - Linear(128, 10), 67,850 parameters; 60,000 training sequences, 10,000 for "
        "tests; Adam at 0.001, step:13,18:0.3, clip 1; 22 epochs, batch 128; float32"
    )
    [group] = groups([record(subset=True, task_options={"turn": 30}, limit=1000)])
    assert wording.panel_title(group) == (
        "S-MNIST, T = 784, turn 30, bundled subset, limited to 1,000"
    )


def test_a_setting_that_differs_is_said_for_every_run():
    several = groups([record(parts=4), record(parts=7, lr=0.01)])
    text = results_tables.results(several, [(), ()], "t", "caption")
    assert "<b>+ auxiliary + R, K=4</b>" in text and "<b>+ auxiliary + R, K=7</b>" in text
    assert "Adam at 0.01," in text
