"""The page of `fptt explore --out` in a real browser: it draws, answers, and asks no network."""

import time

import browser
import pytest

from fptt import exploring
from fptt.report import explorer_plots
from fptt.report.explorer_page import write_page
from fptt.soc import explore as engine
from fptt.soc.pareto import front

AXES = explorer_plots.AXES

#: the data of a plot's renderer
_DATA = """
([number, renderer]) => {
  const views = [...Bokeh.index.roots].filter(view => view.model.type == "Figure").sort(
    (a, b) => a.el.getBoundingClientRect().top - b.el.getBoundingClientRect().top);
  const data = views[number].model.renderers[renderer].data_source.data;
  return Object.fromEntries(
    Object.entries(data).map(([name, column]) => [name, Array.from(column)]));
}
"""
#: what the axes of the first plot are called
_LABELS = """
() => {
  const [{model}] = [...Bokeh.index.roots].filter(view => view.model.type == "Figure").sort(
    (a, b) => a.el.getBoundingClientRect().top - b.el.getBoundingClientRect().top);
  return [model.below[0].axis_label, model.left[0].axis_label];
}
"""


#: where the boxes of the mouse are
_BOXES = (
    "[...document.querySelectorAll('.bk-Tooltip')].map(one => one.getBoundingClientRect().toJSON())"
    ".filter(box => box.width > 0)"
)
#: what is written at each system's lines across, of those that are shown
_LINES = """
Object.fromEntries([...Bokeh.index.roots].filter(view => view.model.type == "Figure").flatMap(
  view => view.model.center.filter(
    one => one.type == "LabelSet" && one.visible && one.text.field == "across_label"
  ).map(one => [one.source.data.name[0], Array.from(one.source.data.across_label)])))
"""


def complaints(opened):
    """Without that of the browser about this test, which reads pixels."""
    return [text for text in opened.complaints if "willReadFrequently" not in text]


@pytest.fixture(scope="module")
def points():
    return engine.explore(
        exploring.chips("published", cores=[1, 4, 10]),
        exploring.published_program([1, 28, 784], "bfloat16").trainings,
    )


@pytest.fixture(scope="module")
def opened(points, tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "chips.html"
    write_page(
        points,
        file,
        subject="chips",
        figures=["latency"],
        marks=exploring.published_marks(exploring.published_network(), 784, 4),
        command="fptt explore",
        date="today",
    )
    with browser.opened(file) as page:
        yield page


def overlap(one, other):
    return (
        one["x"] < other["x"] + other["width"]
        and other["x"] < one["x"] + one["width"]
        and one["y"] < other["y"] + other["height"]
        and other["y"] < one["y"] + one["height"]
    )


def choose(opened, title, label):
    """Chooses by the label that is shown, and waits until the page is drawn again."""
    opened.page.get_by_label(title, exact=True).select_option(label=label)
    opened.page.wait_for_function("Bokeh.documents[0].is_idle")


def data(opened, number, renderer):
    return opened.page.evaluate(_DATA, [number, renderer])


def value(point, axis):
    return getattr(point, axis) if axis in ("parts", "cores") else point.figure(axis)


def test_no_error_and_no_request(opened):
    assert complaints(opened) == []
    [own] = opened.requests
    assert own.startswith("file://") and own.endswith("chips.html")


def test_both_plots_are_drawn(opened):
    scatter, bars = opened.plots()
    assert scatter["width"] > 600 and scatter["height"] > 400
    assert scatter["coloured"] > 2000
    assert (scatter["lines"], scatter["missing"]) == (1, [])  # the front
    # three K, the front and its rings, nine published systems; lines of the four without a chip
    assert scatter["visible"] == 3 + 2 + 9 + 2 * 4
    assert bars["coloured"] > 20_000
    assert bars["visible"] == bars["glyphs"] == 11


def test_hover_says_what_a_point_is(opened, points):
    found, shown = opened.hover(0)
    one = points[0]
    assert (found["design"], found["parts"]) == (one.design, one.parts)
    assert shown[:4] == [one.design, "1", found["shown"], f"{one.memory_bytes:,}"]
    assert shown[4:8] == [f"{getattr(one, name):,}" for name in ("lut", "ff", "bram", "dsp")]
    assert shown[8] == f"{one.cycles['total']:,.0f}"
    for name, cycles in one.classes.items():
        assert any(text.startswith(f"{cycles:,.0f} (") for text in shown[9:]), name


def test_what_is_at_one_place_is_said_side_by_side(opened):
    """A predicted point and the published one, whose places differ by less than their size."""
    opened.page.mouse.move(5, 5)
    opened.page.wait_for_function(f"{_BOXES}.length == 0")
    opened.hover(0)
    opened.page.wait_for_function(f"{_BOXES}.length == 2")
    one, other = opened.page.evaluate(_BOXES)
    assert not overlap(one, other)
    opened.page.mouse.move(5, 5)


def test_lines_are_named_while_they_are_shown(opened):
    choose(opened, "x axis", AXES["lut"])
    choose(opened, "y axis", AXES["latency"])
    rocket = opened.page.evaluate(_LINES)["single Rocket"]
    assert rocket == ["single Rocket K=1, 28", "", "single Rocket K=784"]
    choose(opened, "y axis", AXES["cores"])
    assert opened.page.evaluate(_LINES)["single Rocket"][1:] == ["", ""]
    choose(opened, "y axis", AXES["latency"])
    entry = opened.page.locator(".bk-item", has_text="published: T4")
    assert opened.page.evaluate(_LINES).keys() == {"single Rocket", "T4", "L4", "V100"}
    entry.click()
    until(lambda: opened.page.evaluate(_LINES).keys() == {"single Rocket", "L4", "V100"})
    entry.click()
    until(lambda: len(opened.page.evaluate(_LINES)) == 4)
    assert complaints(opened) == []


def test_a_narrow_window(opened):
    """The table scrolls inside its own box, and no chip's name is broken."""
    page = opened.page
    before = page.viewport_size
    page.set_viewport_size({"width": 800, "height": 900})
    page.evaluate("document.querySelector('details').open = true")
    try:
        assert page.evaluate("document.documentElement.scrollWidth") <= 800
        wide, inside = page.evaluate(
            "(() => { const box = document.querySelector('#table .wide');"
            " return [box.scrollWidth, box.clientWidth]; })()"
        )
        assert inside <= 760 < wide
        heights = page.evaluate(
            "[...document.querySelectorAll('#table tbody th')].map("
            "one => one.getBoundingClientRect().height)"
        )
        assert max(heights) < 40
        broken = page.evaluate(
            "[...document.querySelectorAll('#table tbody th')].filter(one => {"
            " const range = document.createRange(); range.selectNodeContents(one);"
            " return range.getClientRects().length != 1; }).length"
        )
        assert broken == 0
    finally:
        page.evaluate("document.querySelector('details').open = false")
        page.set_viewport_size(before)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ("memory", "latency"),
        ("cores", "latency"),
        ("lut", "memory"),
        ("latency", "dsp"),
        ("bram", "ff"),
        ("ff", "ff"),
        ("parts", "latency"),
        ("memory", "parts"),
    ],
)
def test_the_axes_can_be_chosen(opened, points, x, y):
    """Points move, the front is drawn anew, and it is the front of these two figures."""
    before = opened.page.locator(".bk-Canvas").first.screenshot()
    choose(opened, "x axis", AXES[x])
    choose(opened, "y axis", AXES[y])
    places = [(value(point, x), value(point, y)) for point in points]
    drawn = data(opened, 0, 2)
    assert list(zip(drawn["x"], drawn["y"], strict=True)) == places
    if "parts" in (x, y):
        key, other = (0, 1) if x == "parts" else (1, 0)
        wanted = []
        for k in sorted({place[key] for place in places}):
            least = min(place[other] for place in places if place[key] == k)
            wanted.append((k, least) if key == 0 else (least, k))
    else:
        wanted = sorted({place for place, on in zip(places, front(places), strict=True) if on})
    rings = data(opened, 0, 1)
    assert list(zip(rings["x"], rings["y"], strict=True)) == wanted
    line = data(opened, 0, 0)
    assert set(wanted) <= set(zip(line["x"], line["y"], strict=True))
    assert opened.page.locator(".bk-Canvas").first.screenshot() != before
    assert complaints(opened) == []
    assert opened.page.evaluate(_LABELS) == [AXES[x], AXES[y]]


def test_published_points_have_their_places(opened):
    choose(opened, "x axis", AXES["parts"])
    choose(opened, "y axis", AXES["latency"])
    number = 2 + 3 + 3 + 2  # the front, three K, three numbers of cores, two arrays
    found = data(opened, 0, number)
    places = dict(zip(zip(found["name"], found["x"], strict=True), found["y"], strict=True))
    assert places["T4", 784] == 5.04 and places["single Rocket", 1] == 22.06
    assert places["8x8-10", 28] == 0.70 and len(places) == 27
    names = opened.page.locator(".bk-label").all_inner_texts()
    for name in ("single Rocket", "4x4-1", "8x8-10", "T4", "L4", "V100"):
        assert f"published: {name}" in names


def until(holds, seconds=10.0):
    """Waits for a page that draws when it comes to it."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "the page did not change in time"
        time.sleep(0.05)


def test_colours_can_be_chosen_and_a_click_hides(opened):
    def names():
        return opened.page.locator(".bk-label:visible").all_inner_texts()

    assert [name for name in names() if name.startswith("K=")] == ["K=1", "K=28", "K=784"]
    choose(opened, "colour", "array")
    until(lambda: {"4x4", "8x8"} <= set(names()) and "K=28" not in names())
    before = opened.plots()[0]
    opened.page.mouse.move(0, 0)
    entry = opened.page.locator(".bk-label:visible").get_by_text("8x8", exact=True)
    entry.click()
    until(lambda: opened.plots()[0]["visible"] == before["visible"] - 1)
    until(lambda: opened.plots()[0]["coloured"] < before["coloured"])
    entry.click()
    until(lambda: opened.plots()[0]["visible"] == before["visible"])
    choose(opened, "colour", "cores")
    until(lambda: {"cores=1", "cores=4", "cores=10"} <= set(names()))


def test_bars_of_another_chip_and_as_shares(opened, points):
    choose(opened, "bars of", "K=28, by chip")
    found = data(opened, 1, 0)
    assert found["label"] == [f"{mesh}-{n}" for mesh in ("4x4", "8x8") for n in (1, 4, 10)]
    by_design = {point.design: point for point in points if point.parts == 28}
    for name, one in by_design.items():
        at = found["label"].index(name)
        for function, cycles in one.classes.items():
            assert found[function][at] == pytest.approx(cycles / one.clock_hz)
    choose(opened, "in", "share of time")
    found = data(opened, 1, 0)
    for at in range(6):
        total = sum(column[at] for name, column in found.items() if name in points[0].classes)
        assert total == pytest.approx(100)
    assert opened.plots()[1]["coloured"] > 20_000
    assert complaints(opened) == []


def test_readable_without_sight(opened, points):
    page = opened.page
    assert page.locator("html").get_attribute("lang") == "en"
    described = [figure.get_attribute("aria-label") for figure in page.locator("figure").all()]
    assert len(set(described)) == len(described) == 2 and all(described)
    page.locator("details summary").click()
    assert page.locator("tbody tr:visible").count() == len(points)
    assert page.locator("table").count() == page.locator("caption").count() == 1
