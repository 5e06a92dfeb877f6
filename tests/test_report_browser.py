"""The page of results in a real browser: it asks nothing of a network, draws, and answers."""

from itertools import pairwise

import browser
import pytest
from experiment_records import equal_memory, record, sweep, write

from fptt.experiments.overview import overview
from fptt.report.page import write_page

HOSTILE = (
    "<script>window.broken = 1</script>",
    "</script><script>window.broken = 1</script>",
    '"><img src=x onerror="window.broken = 1">',
    r"$$x^2$$ \(a\) \[b\]",
    "-->'&amp;{{x}} @y `${1}` \\",
)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    small = {"epochs": 3}
    records = [
        *sweep(parts=(7, 14), seeds=2, **small),
        *equal_memory("char", "test_perplexity", (40.0, 6.0, 6.5), (2, 4), seeds=2, **small),
        *(record(HOSTILE[0], name, parts=k, **small) for name in HOSTILE for k in (7, 14)),
    ]
    found = overview([write(folder / "all.jsonl", records)])
    write_page(found, folder / "report.html", command="fptt report <b>x</b>", date="today")
    with browser.opened(folder / "report.html") as page:
        yield page


def test_no_error_and_no_request(opened):
    assert opened.complaints == []
    [own] = opened.requests
    assert own.startswith("file://") and own.endswith("report.html")


def test_nothing_that_a_file_says_is_run(opened):
    assert opened.page.evaluate("window.broken") is None
    assert opened.page.locator("img").count() == 0
    headings = opened.page.locator("h2").all_inner_texts()
    assert HOSTILE[0] in headings
    rows = opened.page.locator("tbody th").all_inner_texts()
    assert all(rows.count(name) == 2 for name in HOSTILE)
    legends = opened.page.locator(".bk-label").all_inner_texts()
    assert all(name in legends for name in (*HOSTILE[:3], HOSTILE[4]))
    assert r"$ $x^2$ $ \ (a\ ) \ [b\ ]" in legends  # or bokeh would fetch a typesetter


def test_every_plot_is_drawn(opened):
    plots = opened.plots()
    # 2 + 3 of the sweep, 2 + 2 of the text, 2 + 5 of the hostile table
    assert len(plots) == opened.page.locator("figure").count() == 16
    for plot in plots:
        assert plot["width"] > 250 and plot["height"] > 150
        assert plot["coloured"] > 300
        assert plot["lines"] >= 2 and plot["missing"] == []


def test_hover_says_what_a_point_is(opened):
    data, shown = opened.hover(0)
    assert shown[:3] == ["TBPTT + auxiliary, K=2", data["shown"], "2"]
    assert "±" in data["shown"] and data["bytes"] in shown


def test_a_click_in_a_legend_hides_a_line_and_brings_it_back(opened):
    [before, *others] = opened.plots()
    opened.page.mouse.move(0, 0)
    entry = opened.page.locator(".bk-label", has_text="FPTT + auxiliary").first
    entry.click()
    hidden, *still = opened.plots()
    assert hidden["visible"] == before["visible"] - 5  # line, bar, its two ends, points
    assert hidden["coloured"] < before["coloured"]
    assert [plot["visible"] for plot in still] == [plot["visible"] for plot in others]
    entry.click()
    assert opened.plots()[0]["visible"] == before["visible"]


def test_readable_without_sight(opened):
    page = opened.page
    assert page.locator("html").get_attribute("lang") == "en"
    labels = [figure.get_attribute("aria-label") for figure in page.locator("figure").all()]
    assert len(set(labels)) == len(labels) and all(labels)
    for link in page.locator("a").all():  # contents and footnotes lead somewhere
        assert page.locator(link.get_attribute("href")).count() == 1
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert page.locator("table").count() == page.locator("caption").count() == 4
