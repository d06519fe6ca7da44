"""Pictures of a report for the documentation, made anew by one command so that they stay true.

python docs/screenshots.py results/demo/report.html     # -> docs/images/report-{light,dark,clip,phone}.png
"""

import argparse
import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.errors import PipelineError
from pipeline.files import write_atomic

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MOST_BYTES = 200_000
PALETTES = (256, 128, 64)  # colours, where all of them take too many bytes
DESKTOP, SMALL, PHONE = (1280, 840), (1000, 660), (360, 760)


def top(tab: Any) -> None:
    """The page as it opens."""


def on_the_map(tab: Any) -> None:
    """The map, and one of its dots pointed at."""
    _scroll_to(tab, "#map")
    tab.mouse.move(*tab.evaluate(_DOT, tab.evaluate(_MIDDLE)))
    tab.locator("#hover").wait_for(state="visible")


def clip(tab: Any) -> None:
    """A clip, opened, with its first frame."""
    _scroll_to(tab, "#clusters")
    tab.locator("article .open").first.click()
    media = tab.locator("dialog video")
    if media.count():
        media.evaluate(
            "(video) => new Promise((done) => { video.onloadeddata = video.onerror = done; setTimeout(done, 3000); })"
        )


def card(tab: Any) -> None:
    """The first cluster's card."""
    _scroll_to(tab, "article")


# Picture -> window, theme, what is done before it is taken.
PICTURES: dict[str, tuple[tuple[int, int], str, Callable[[Any], None]]] = {
    "report-light": (DESKTOP, "light", top),
    "report-dark": (DESKTOP, "dark", on_the_map),
    "report-clip": (SMALL, "light", clip),
    "report-phone": (PHONE, "light", card),
}
# Row of the clip whose dot is nearest to the middle, and a dot's pixel.
_MIDDLE = """() => {
  const { x, y, customdata } = document.getElementById("map-plot").data[1];
  const middle = (v) => (Math.min(...v) + Math.max(...v)) / 2;
  const far = customdata.map((_, i) => Math.hypot(x[i] - middle(x), y[i] - middle(y)));
  return customdata[far.indexOf(Math.min(...far))];
}"""
_DOT = """(row) => {
  const plot = document.getElementById("map-plot"), { xaxis, yaxis } = plot._fullLayout, trace = plot.data[1];
  const i = trace.customdata.indexOf(row), box = plot.getBoundingClientRect();
  return [box.left + xaxis._offset + xaxis.l2p(trace.x[i]), box.top + yaxis._offset + yaxis.l2p(trace.y[i])];
}"""


def screenshots(report: Path, out: Path) -> list[Path]:
    """Takes every picture of a report.

    Args:
        report: the HTML file; the clips' media beside it, where it links them.
        out: folder for the PNG files, each of no more than MOST_BYTES.
    Returns:
        the files.
    Raises:
        PipelineError: there is no such report, or no browser to show it.
    """
    if not report.is_file():
        raise PipelineError(f"no report at {report}; `make demo` writes results/demo/report.html")
    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser_path:
        raise PipelineError(f"none of {', '.join(BROWSERS)} is on the PATH; install Debian's `chromium`")
    from playwright.sync_api import sync_playwright

    files = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for name, ((width, height), theme, prepare) in PICTURES.items():
            tab = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme=theme, reduced_motion="reduce"
            )
            tab.goto(report.resolve().as_uri())
            prepare(tab)
            files.append(out / f"{name}.png")
            write_atomic(files[-1], small_png(tab.screenshot()))
            tab.close()
        browser.close()
    return files


def small_png(png: bytes) -> bytes:
    """The same picture, with fewer colours where it takes more than MOST_BYTES.

    Raises:
        PipelineError: it does so with the fewest.
    """
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    for n_colours in (None, *PALETTES):
        file = io.BytesIO()
        (picture.quantize(n_colours, Image.Quantize.FASTOCTREE) if n_colours else picture).save(
            file, "PNG", optimize=True
        )
        if file.tell() <= MOST_BYTES:
            return file.getvalue()
    raise PipelineError(
        f"a picture takes {file.tell():,} bytes with {n_colours} colours; at most {MOST_BYTES:,} are allowed"
    )


def _scroll_to(tab: Any, selector: str) -> None:
    tab.locator(selector).first.evaluate("(element) => element.scrollIntoView({ behavior: 'instant' })")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="report.html of a run")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images", help="folder (docs/images)")
    given = parser.parse_args()
    try:
        for file in screenshots(given.report, given.out):
            print(file)
    except PipelineError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
