"""The page of `fptt explore --out`: what it says, and what it refuses. In a browser:
test_explore_browser.py."""

import html
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fptt
from fptt import cli, exploring
from fptt.report import explorer_bars, explorer_page, explorer_plots
from fptt.soc import explore as engine
from fptt.soc.explore import FIGURES, on_front

SMALL = ["--hidden", "6", "--steps", "12", "--batch", "2", "--parts", "1,4"]


@pytest.fixture
def run(capsys):
    """The command line in this process: exit code, standard output, standard error."""

    def call(*arguments):
        code = cli.main(["explore", *(str(argument) for argument in arguments)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def points():
    """Two arrays, three numbers of cores, three K."""
    return engine.explore(
        exploring.chips("published", cores=[1, 4, 10]),
        exploring.published_program([1, 28, 784], "bfloat16").trainings,
    )


def text_of(file):
    """What a page says, without scripts and styles."""
    text = re.sub(r"<(script|style)\b.*?</\1>", " ", file.read_text(), flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def test_the_page(run, tmp_path):
    out = tmp_path / "page.html"
    words = ["--workload", "published", "--cores", "1,10", "--parts", "28,56", "--out", out]
    code, shown, err = run(*words)
    assert (code, err) == (0, "")
    assert shown == f"{out}: 8 points, {out.stat().st_size:,} bytes\n"
    assert out.stat().st_size > 1_200_000  # bokeh is inside
    text = text_of(out)
    assert "LSTM(1, 128) - Linear(128, 10), the published program (memory: that of our" in text
    assert "T=784, batch 4, bfloat16, at 500 MHz. Everything is predicted, for one pass" in text
    assert "for one pass over a batch at 500 MHz;" in text
    assert "Bytes are the program's training memory: everything that it keeps, in DRAM" in text
    assert "FPGA resources are those of the same design on a VCU118, whose own clock" in text
    assert "chip K seconds of a pass bytes of training memory LUT FF BRAM DSP" in text
    assert "They are of the published program" not in text
    assert "Published measurements stand beside the predictions" in text
    command = f"fptt explore --cores 1,10 --workload published --parts 28,56 --out {out}"
    assert f"Made by {command} on 20" in text
    assert "All points; front: of latency, memory and lut" in text
    # a row for each point
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</th>(.*?)</tr>", out.read_text())
    found = [
        [name, *(html.unescape(cell) for cell in re.findall(r'<td class="n">(.*?)</td>', cells))]
        for name, cells in rows
    ]
    assert [(row[0], row[1]) for row in found] == [
        (design, k) for design in ("4x4-1", "4x4-10", "8x8-1", "8x8-10") for k in ("28", "56")
    ]
    assert found[6][3:8] == ["583,632", "384,080", "182,179", "244", "270"]
    assert re.fullmatch(r"0\.7\d\d ± 0\.0\d\d", found[6][2])


def test_a_page_of_another_network(run, tmp_path):
    """No published measurements beside it; JSON and answers go on as without a page."""
    out = tmp_path / "page.html"
    code, shown, err = run(*SMALL, "--design", "4x4-1", "--out", out, "--json")
    assert code == 0
    assert err.startswith(f"{out}: 2 points, ")
    assert [row["function"] for row in json.loads(shown)].count("total") == 2
    assert "No measurements of this training are published" in text_of(out)
    code, shown, err = run(*SMALL, "--best-parts", "--design", "4x4-1", "--out", out)
    assert code == 0 and "least latency: 4x4-1 with K=" in shown
    assert err.startswith(f"{out}: 2 points, ")
    code, _, err = run(*SMALL, "--minimise", "lut", "--lut", 1, "--out", out)
    assert code == 1 and out.exists()


def test_a_page_of_ones_own_program_of_the_published_network(run, tmp_path):
    """Published points are of another program; the page and its legend say so."""
    out = tmp_path / "page.html"
    run("--design", "4x4-1", "--parts", "28", "--out", out)
    text = out.read_text()
    assert "They are of the published program, the predictions of this one." in text_of(out)
    assert '"published program: 8x8-10"' in text and '"published: 8x8-10"' not in text
    run("--workload", "published", "--design", "4x4-1", "--parts", "28", "--out", out)
    text = out.read_text()
    assert '"published: 8x8-10"' in text and '"published program: 8x8-10"' not in text


def test_a_table_of_the_front_alone(run, tmp_path):
    out = tmp_path / "page.html"
    words = [*SMALL, "--front", "latency", "--mesh", "4x4", "--out", out]
    run(*words, "--only-front")
    assert "1 of 12 points" in text_of(out) and "Points of the front; front: of" in text_of(out)
    assert len(re.findall('<tr><th scope="row">', out.read_text())) == 1
    run(*words)
    assert len(re.findall('<tr><th scope="row">', out.read_text())) == 12


def test_lines_of_a_system_have_names():
    """With their K; lines too close for two names share one."""
    marks = exploring.published_marks(exploring.published_network(), 784, 4)
    for name, texts in (
        ("T4", ["T4 K=1, 28", "", "T4 K=784"]),
        ("single Rocket", ["single Rocket K=1, 28", "", "single Rocket K=784"]),
    ):
        own = [mark for mark in marks if mark.name == name]
        found = explorer_plots._labels(own, "lut", "latency")
        assert found["latency label"] == found["across_label"] == texts
        assert found["up_label"] == ["", "", ""]
        assert set(map(len, found.values())) == {3}
    # each K has another memory, and one line is all of the number of cores
    assert found["cores label"] == ["single Rocket K=1, 28, 784", "", ""]
    assert found["memory label"][0] == "single Rocket K=1"


def test_what_stands_in_the_way(run, tmp_path, monkeypatch):
    """It is said before any work."""
    monkeypatch.setattr(engine, "explore", None)
    out = tmp_path / "mine.html"
    out.write_text("mine")
    code, shown, err = run(*SMALL, "--out", out)
    assert (code, shown, out.read_text()) == (2, "", "mine")
    assert err == (
        f"fptt: {out} exists and is no page of `fptt explore`; give another name with --out, or "
        "delete it\n"
    )


def test_a_page_in_no_folder(run, tmp_path):
    code, shown, err = run(*SMALL, "--out", tmp_path / "none" / "page.html")
    assert (code, shown) == (2, "")
    assert err == (
        f"fptt: the folder of {tmp_path}/none/page.html does not exist; create it first\n"
    )


def test_without_bokeh(tmp_path):
    """What a user sees who did not install the extra; in a fresh interpreter without bokeh."""
    out = tmp_path / "page.html"
    code = (
        "import sys; sys.modules['bokeh'] = None\n"
        "from fptt import cli\n"
        f"sys.exit(cli.main(['explore', '--design', '4x4-1', *{SMALL!r}, *sys.argv[1:]]))"
    )
    environment = {"PYTHONPATH": str(Path(fptt.__file__).parents[1]), "PATH": ""}
    for words, wanted in ((["--out", str(out)], 2), ([], 0)):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment
        )
        assert done.returncode == wanted, done.stderr
        assert ("needs bokeh" in done.stderr) == bool(words)
    assert not out.exists()


def test_the_front_of_two_axes(points):
    """The points that `on_front` names, joined by steps."""
    for x in explorer_plots.AXES:
        for y in FIGURES:
            if "parts" in (x, y) or x not in FIGURES:
                continue
            rings, line = explorer_plots._front(points, x, y)
            best = {
                (one.figure(x), one.figure(y))
                for one, on in zip(points, on_front(points, [x, y]), strict=True)
                if on
            }
            found = list(zip(rings["x"], rings["y"], strict=True))
            assert set(found) == best and len(found) == len(best)
            assert found == sorted(found)
            steps = list(zip(line["x"], line["y"], strict=True))
            assert len(steps) == 2 * len(found) - 1 and steps[::2] == found
            for corner, before, after in zip(steps[1::2], found, found[1:], strict=False):
                assert corner == (after[0], before[1])


def test_bars_are_the_seconds(points):
    roots = explorer_bars.bars(points)
    tables = roots["of"].js_property_callbacks["change:value"][0].args["tables"]
    assert len(tables) == 6 + 3
    for one in points:
        for title, label in (
            (f"{one.design}, by K", str(one.parts)),
            (f"K={one.parts}, by chip", one.design),
        ):
            table = tables[title]
            at = table["labels"].index(label)
            assert table["total"][at] == one.latency_s
            for name, value in one.classes.items():
                assert table[name][at] == value / one.clock_hz
            assert sum(table[name][at] for name in one.classes) == pytest.approx(one.latency_s)


def test_marks_have_a_place_or_none():
    marks = exploring.published_marks(exploring.published_network(), 784, 4)
    roots = explorer_plots._mark_columns(marks, "lut", "latency")
    for mark, x, y, across in zip(marks, roots["x"], roots["y"], roots["across"], strict=True):
        assert y == mark.latency_s
        assert (x == 384_080) if mark.name == "8x8-10" else True
        # what has no figure on the x axis has a line at its latency
        assert math.isnan(x) == (across == y) == ("lut" not in mark.figures)
    assert not any(map(math.isnan, explorer_plots._mark_columns(marks, "parts", "latency")["x"]))


def test_a_page_says_what_it_is_told(points, tmp_path):
    out = tmp_path / "page.html"
    size = explorer_page.write_page(
        points,
        out,
        subject="<script>alert(1)</script>",
        figures=["lut"],
        marks=[],
        command="fptt explore '<b>'",
        date="today",
    )
    assert size == out.stat().st_size
    body = out.read_text()
    assert "<script>alert" not in body and "&lt;script&gt;alert" in body
    assert "fptt explore &#x27;&lt;b&gt;&#x27;" in body
    # and it may be written again
    explorer_page.check_out(out)
