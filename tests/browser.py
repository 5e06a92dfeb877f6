"""A headless Chromium for tests of pages, and what it says about the plots of one.

Where there is none the tests are skipped; in CI, where nothing may be left out, they fail.
"""

import contextlib
import shutil
import warnings

from device_tools import lacking

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
NAMES = ("chromium", "chromium-browser", "google-chrome")

#: bokeh's views of all plots, in the order of the page
_VIEWS = """
const views = [...Bokeh.index.roots].filter(view => view.model.type == "Figure").sort(
  (a, b) => a.el.getBoundingClientRect().top - b.el.getBoundingClientRect().top
         || a.el.getBoundingClientRect().left - b.el.getBoundingClientRect().left);
const glyphs = view => [...view.renderer_views.values()]
  .filter(one => one.model.type == "GlyphRenderer");
"""

#: of every plot: its renderers, how many pixels inside of its axes have a colour, and which colours
#: of lines are missing there
_PLOTS = (
    "() => {"
    + _VIEWS
    + """
return views.map(view => {
  const {left, top, width, height} = view.frame_view.bbox;
  const layer = view.canvas_view.primary, ratio = layer._pixel_ratio;
  const canvas = layer._canvas;
  const pixels = canvas.getContext("2d")
    .getImageData(left * ratio, top * ratio, width * ratio, height * ratio).data;
  const found = new Set();
  let coloured = 0;
  for (let i = 0; i < pixels.length; i += 4) {
    const [r, g, b] = [pixels[i], pixels[i + 1], pixels[i + 2]];
    if (pixels[i + 3] && Math.max(r, g, b) - Math.min(r, g, b) > 40) {
      coloured++;
      found.add("#" + [r, g, b].map(v => v.toString(16).padStart(2, "0")).join(""));
    }
  }
  const lines = glyphs(view).map(one => one.model).filter(one => one.glyph.type == "Line");
  return {
    width, height, coloured,
    lines: lines.length,
    missing: lines.map(one => one.glyph.line_color.value.toLowerCase()).filter(c => !found.has(c)),
    visible: glyphs(view).filter(one => one.model.visible).length,
    glyphs: glyphs(view).length,
  };
});}"""
)

#: where on the screen the first point of a plot's first hovered renderer is, and its data
_POINT = (
    "number => {"
    + _VIEWS
    + """
const view = views[number];
view.el.scrollIntoView({block: "center"});
const tool = [...view.tool_views.values()].find(one => one.model.type == "HoverTool");
const drawn = glyphs(view).find(one => one.model === tool.model.renderers[0]);
const box = view.canvas_view.el.getBoundingClientRect();
const data = drawn.model.data_source.data;
const first = Object.fromEntries(Object.entries(data).map(([name, column]) => [name, column[0]]));
return {x: box.left + drawn.glyph.sx[0], y: box.top + drawn.glyph.sy[0], data: first};
}"""
)


class Opened:
    """A page that was opened without a network.

    Attributes:
        page: of playwright.
        complaints: errors and warnings of its scripts.
        requests: everything that it asked for.
    """

    def __init__(self, page, file):
        self.page = page
        self.complaints, self.requests = [], []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.context.set_offline(True)
        page.goto(file.as_uri())
        page.wait_for_function("window.Bokeh && Bokeh.documents[0]?.is_idle", timeout=120_000)

    def _hear(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def plots(self):
        return self.page.evaluate(_PLOTS)

    def hover(self, number):
        """Moves the mouse to a plot's first point; its data, and the texts of what pops up."""
        found = self.page.evaluate(_POINT, number)
        self.page.mouse.move(found["x"], found["y"])
        values = self.page.locator(".bk-tooltip-row-value")
        values.first.wait_for(timeout=20_000)
        return found["data"], [text.strip() for text in values.all_inner_texts()]


@contextlib.contextmanager
def opened(file):
    """A page in a new browser; the test is skipped where there is none."""
    name = next((name for name in NAMES if shutil.which(name)), None)
    if name is None:
        lacking("chromium is missing: run scripts/cross_tools.sh")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of playwright's own event loop
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which(name), args=list(ARGUMENTS), timeout=120_000
            )
            try:
                page = browser.new_page(viewport={"width": 1240, "height": 900})
                page.set_default_timeout(60_000)
                yield Opened(page, file)
            finally:
                browser.close()
