"""The report in a headless Chromium: it opens in silence, does what its buttons say, plays clips, and can be read."""

import base64
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media_factory import write_clip
from page_factory import ATTACK, bare_page, hostile_page, make_page

from pipeline.report import render
from pipeline.report.page import Page

pytestmark = pytest.mark.browser
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OWN = ("file:", "data:", "blob:")
MANY = 2199
# Plotly keeps what it draws on the element: the dots of the clips that match are its second trace.
DOTS = "document.getElementById('map-plot').data[1]"
ROWS = f"{DOTS}.customdata"
FOCUSED = "document.activeElement"
OPEN_ALL = "document.querySelectorAll('details').forEach((details) => { details.open = true; })"
GROUND = "(element) => getComputedStyle(element || document.body).backgroundColor"

# Pixel of a clip's dot in the window.
DOT = """(row) => {
  const plot = document.getElementById("map-plot"), { xaxis, yaxis } = plot._fullLayout, trace = plot.data[1];
  const i = trace.customdata.indexOf(row), box = plot.getBoundingClientRect();
  return [box.left + xaxis._offset + xaxis.l2p(trace.x[i]), box.top + yaxis._offset + yaxis.l2p(trace.y[i])];
}"""

# [contrast, colour, background, text] of each text that can be seen, as WCAG 2 defines it; colours read back from a
# canvas, whatever their notation, and laid over what is behind them. A legend's symbol is no text.
CONTRASTS = """() => {
  const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    context.clearRect(0, 0, 1, 1); context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, bottom) => [0, 1, 2].map((i) => top[i] * top[3] + bottom[i] * (1 - top[3])).concat(1);
  const behind = (element) => {
    if (!element) return [255, 255, 255, 1];
    const own = rgba(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? own : over(own, behind(element.parentElement));
  };
  const luminance = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => {
    const v = c[i] / 255;
    return sum + weight * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  }, 0);
  const isText = (e) => !e.matches(":disabled, option, script, noscript, .symbol")
    && e.checkVisibility({ opacityProperty: true, visibilityProperty: true })
    && (e.matches("select, input[type=search]") || [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
  return [...document.body.querySelectorAll("*")].filter(isText).map((e) => {
    const label = e.closest(".annotation-text-g");
    const colour = getComputedStyle(e)[e instanceof SVGElement ? "fill" : "color"];
    const ground = label ? rgba(getComputedStyle(label.querySelector("rect")).fill) : behind(e);
    const [a, b] = [luminance(over(rgba(colour), ground)), luminance(ground)];
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), colour, ground.join(), e.textContent.slice(0, 40)];
  });
}"""

NAMELESS = """() => [...document.querySelectorAll("a, button, select, input, video, audio, [role=img], [role=region]")]
  .filter((e) => !["aria-label", "aria-labelledby"].some((name) => e.getAttribute(name)))
  .filter((e) => !e.textContent.trim() && !e.labels?.length)
  .map((e) => e.outerHTML)"""


class Visit:
    """An open page and what it said and asked for."""

    def __init__(self, tab: Any) -> None:
        self.tab, self.said, self.asked = tab, [], []
        tab.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        tab.on("dialog", lambda dialog: (self.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        tab.context.on("request", lambda request: self.asked.append(request.url))

    @property
    def strangers(self) -> list[str]:
        return [url for url in self.asked if not url.startswith(OWN)]

    def get(self, expression: str, argument: Any = None) -> Any:
        return self.tab.evaluate(expression, argument)

    def see(self, selector: str) -> Any:
        return self.tab.locator(selector)

    def settle(self, expression: str, expected: Any = True) -> None:
        """Waits until an expression has a value: by asking, as the page's policy has no room for a watcher's eval."""
        until = time.monotonic() + 10
        while (found := self.get(expression)) != expected:
            assert time.monotonic() < until, (expression, found)
            time.sleep(0.02)

    def is_open(self, clip_id: str) -> bool:
        return self.see("dialog[open] #clip-name").text_content() == clip_id

    def fits(self, width: int) -> None:
        """Nothing lies beside the window, when it has this width and the plots have followed."""
        self.tab.set_viewport_size({"width": width, "height": 900})
        self.settle("document.documentElement.scrollWidth <= innerWidth")


Open = Callable[..., Visit]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser for all tests of the file; not for the session, as its event loop stays on while it lives."""
    if not CHROMIUM:
        pytest.skip("no Chromium here: install Debian's `chromium`, or Google Chrome, to test the report in a browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--mute-audio"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def small() -> Page:
    """What small.html shows."""
    return make_page(media="a%20clip.mp4", media_kind="video")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, small: Page) -> Path:
    """Pages by name, and beside them the real clip that they link."""
    at = tmp_path_factory.mktemp("pages")
    clip = write_clip(at / "a clip.mp4", size=(160, 120), duration_s=3)
    embedded = "data:video/mp4;base64," + base64.b64encode(clip.read_bytes()).decode()
    pages = {
        "small": small,
        "bare": bare_page(),
        "dozen": make_page(60, 12),
        "many": make_page(MANY, 17),
        "hostile": hostile_page(),
        "embedded": make_page(6, 2, media=embedded, media_kind="video"),
        "moved": make_page(6, 2, media="gone.mp4", media_kind="video"),
        "heard": make_page(6, 2, media="a%20clip.mp4", media_kind="audio"),
    }
    for name, page in pages.items():
        (at / f"{name}.html").write_text(render(page), encoding="utf-8")
    return at


@pytest.fixture
def visit(chromium: Any, folder: Path) -> Iterator[Open]:
    """Opens a page by its name, in a window of its own; whatever it says on the console fails the test at its end."""
    contexts, visits = [], []

    def open_page(name: str, *, width: int = 1280, silent: bool = True, **options: Any) -> Visit:
        context = chromium.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        found = Visit(context.new_page())
        found.tab.goto((folder / f"{name}.html").as_uri())
        if silent:
            visits.append(found)
        return found

    yield open_page
    said = [(one.said, one.strangers) for one in visits]
    for context in contexts:
        context.close()
    assert said == [([], [])] * len(visits)


@pytest.mark.parametrize(("name", "n_clips"), [("small", 24), ("bare", 5), ("many", MANY)])
def test_opens_without_a_word_at_any_width_and_asks_nobody(visit: Open, name: str, n_clips: int) -> None:
    page = visit(name, width=360)
    assert sorted(page.get(ROWS)) == list(range(n_clips))
    assert page.see(".gallery .item").count() == min(n_clips, 60)
    assert page.see("#count").text_content() == f"{n_clips:,} clips"
    page.get(OPEN_ALL)
    page.fits(360)
    page.see(".gallery .item").first.click()
    inside = (
        "((box) => box.left >= 0 && box.right <= innerWidth)(document.querySelector('dialog').getBoundingClientRect())"
    )
    assert page.get(inside)
    assert page.get(NAMELESS) == []
    page.fits(2560)
    assert page.get(inside)
    assert page.asked
    assert page.strangers == []


def test_pointing_at_a_dot_shows_the_clip_and_a_click_opens_it(visit: Open, small: Page) -> None:
    page, clips = visit("small"), small.clips
    page.see("#map-plot").scroll_into_view_if_needed()
    assert not page.see("#hover").is_visible()
    for row in (4, 17):
        page.tab.mouse.move(*page.get(DOT, row))
        page.see(f"#hover:has-text('{clips.clip_id[row]}')").wait_for(state="visible")
        assert clips.transcript[row][:30] in page.see("#hover").inner_text()
        assert page.see("#hover img").get_attribute("src") == clips.thumbnail[row]
        page.tab.mouse.click(*page.get(DOT, row))
        assert page.is_open(clips.clip_id[row])
        shown = page.see("#clip-body").inner_text()
        for text in (clips.transcript[row], f"{100 * clips.confidence[row]:.0f}%", f"{clips.pitch_hz[row]:.0f} Hz"):
            assert text in shown
        told = page.see(".alone li").all_inner_texts()
        for text, modality in zip(told, small.modalities, strict=True):
            choice = clips.by_modality[modality][row]
            verdict = "lacks" if choice is None else "same" if choice == clips.cluster[row] else "another"
            assert modality in text
            assert verdict in text
        page.tab.keyboard.press("Escape")
        assert not page.see("dialog[open]").count()


def test_the_keyboard_alone_reaches_every_clip(visit: Open, small: Page) -> None:
    page = visit("small")
    keys = page.tab.keyboard
    keys.press("Tab")
    assert page.get(f"{FOCUSED}.textContent") == "Skip to the results"
    item = page.see(".gallery .item").nth(5)
    item.focus()
    keys.press("Enter")
    assert page.is_open(small.clips.clip_id[5])
    keys.press("ArrowRight")
    assert page.is_open(small.clips.clip_id[6])
    for _ in range(9):  # whatever is focused, it is within the dialog, or the browser's own
        keys.press("Tab")
        assert page.get(f"{FOCUSED} === document.body || !!{FOCUSED}.closest('dialog')")
    keys.press("Escape")
    assert item.evaluate("(element) => element === document.activeElement")


def test_from_a_clip_to_its_clusters_card_and_back_to_the_map(visit: Open, small: Page) -> None:
    page = visit("small")
    page.see(".gallery .item").nth(1).click()
    page.tab.get_by_text("go to its card").click()
    assert page.get(f"{FOCUSED}.id") == "cluster-1-name"
    assert not page.see("dialog[open]").count()
    page.see("[data-cluster='2']").click()
    assert page.get(ROWS) == [row for row, k in enumerate(small.clips.cluster) if k == 2]
    assert page.get(f"{FOCUSED}.id") == "cluster"


def test_filters_and_search_act_on_the_map_and_the_list(visit: Open, small: Page) -> None:
    page, clips = visit("small"), small.clips
    keys, rows = page.tab.keyboard, range(24)

    def matched(expected: list[int]) -> None:
        page.settle("document.getElementById('count').textContent", f"{len(expected)} of 24 clips match")
        assert page.get(ROWS) == expected
        assert page.see(".gallery .id").all_inner_texts() == [clips.clip_id[row] for row in expected]

    page.see("#cluster").focus()
    keys.press("2")  # of its options, by the keyboard
    matched([row for row in rows if clips.cluster[row] == 2])
    page.see("#label").select_option("label 2")
    matched([row for row in rows if clips.cluster[row] == 2 and clips.label[row] == "label 2"])
    page.see("#show-all").click()
    page.settle("document.getElementById('count').textContent", "24 clips")
    page.see("#query").focus()
    keys.type("FILM clip_")
    matched([row for row in rows if "film" in clips.transcript[row].lower()])
    for text, expected in (("clip_0007", [7]), ("no such word", [])):
        keys.press("Control+A")
        keys.type(text)
        matched(expected)
    assert page.see("#count").get_attribute("aria-live") == "polite"
    keys.press("Control+A")
    keys.press("Delete")
    page.see("#least").focus()
    for _ in range(6):
        keys.press("PageUp")
    matched([row for row in rows if 100 * clips.confidence[row] >= int(page.see("#least").input_value())])
    assert 40 <= int(page.see("#least").input_value()) <= 90
    page.see("#order").select_option("surest first")
    surest = clips.clip_id[int(np.argmax(clips.confidence))]
    page.settle("document.querySelector('.gallery .id').textContent", surest)


def test_a_long_list_grows_when_asked_and_the_focus_goes_on(visit: Open) -> None:
    page = visit("many")
    page.tab.get_by_text("Show more of 2,199").click()
    assert page.see(".gallery .item").count() == 120
    assert "clip_0060" in page.get(f"{FOCUSED}.textContent")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_cluster_has_one_colour_everywhere_which_colour_blind_eyes_tell_apart(visit: Open, scheme: str) -> None:
    page = visit("dozen", color_scheme=scheme)
    badges = [page.see(f"#cluster-{k} .card-title .badge").evaluate(GROUND) for k in range(12)]
    marker, rows = page.get(f"{DOTS}.marker"), page.get(ROWS)
    looks = {(row % 12, marker["color"][i], marker["symbol"][i]) for i, row in enumerate(rows)}
    assert {(k, colour) for k, colour, _ in looks} == set(enumerate(badges))
    assert len({look[1:] for look in looks}) == 12  # those of one colour have dots of two shapes

    rgb, surface = _linear_rgb(badges[:10]), _linear_rgb([page.see("#cluster-0").evaluate(GROUND)])
    luminance, ground = (colours @ [0.2126, 0.7152, 0.0722] for colours in (rgb, surface))
    assert (np.maximum(luminance, ground) + 0.05 >= 3 * (np.minimum(luminance, ground) + 0.05)).all()
    for eyes, seen in SEEN_BY.items():
        lab = _oklab(np.clip(rgb @ np.array(seen).T, 0, 1))
        distance = np.linalg.norm(lab[:, None] - lab[None], axis=-1)[np.triu_indices(10, 1)]
        assert distance.min() > 0.05, eyes  # 2.5 times what can just be told apart


def test_the_map_is_coloured_as_asked_and_its_legend_filters(visit: Open, small: Page) -> None:
    page = visit("small")
    page.see("#colour").select_option("label")
    page.settle(
        "[...document.querySelectorAll('#legend button')].map((e) => e.innerText.split('\\n').pop())",
        ["label 0", "label 1", "label 2"],
    )
    colours = dict(zip(page.get(ROWS), page.get(f"{DOTS}.marker.color"), strict=True))
    assert len({(small.clips.label[row], colour) for row, colour in colours.items()}) == 4  # with those of no label
    page.see("#legend button").nth(1).press("Enter")
    assert page.get(ROWS) == [row for row in range(24) if small.clips.label[row] == "label 1"]
    assert page.get(f"{FOCUSED}.getAttribute('aria-pressed')") == "true"
    page.see("#show-all").click()
    for by, values in (("confidence", small.clips.confidence), ("agreement", small.clips.agreement)):
        page.see("#colour").select_option(by)
        page.settle(f"{DOTS}.marker.color", values)
    page.see("#which-map").select_option("t-SNE")
    page.settle(f"{DOTS}.x", small.maps[1].x)
    assert page.see("#map-note").inner_text() == "What t-SNE shows."


def test_a_card_plays_a_real_clip_and_one_at_a_time(visit: Open) -> None:
    page = visit("small")
    first = page.see("#cluster-0 video").first
    assert first.evaluate("(video) => [video.readyState, video.controls]") == [0, False]
    assert not [url for url in page.asked if url.endswith(".mp4")]  # nothing is loaded before it is wanted
    page.see("#cluster-0 .play").first.click()
    page.settle("document.querySelector('#cluster-0 video').currentTime > 0.3")
    assert first.evaluate("(video) => [video.videoWidth, video.controls, Math.round(video.duration)]") == [160, True, 3]
    page.see("#cluster-0 .play").first.press("Enter")  # the next clip's: the first has none any more
    page.settle("document.querySelectorAll('#cluster-0 video')[1].currentTime > 0.1")
    assert first.evaluate("(video) => video.paused")


@pytest.mark.parametrize(("name", "element"), [("small", "video"), ("heard", "audio"), ("embedded", "video")])
def test_the_dialog_plays_a_real_clip(visit: Open, name: str, element: str) -> None:
    page = visit(name)
    page.see(".gallery .item").first.click()
    page.see(f"dialog {element}").evaluate("(media) => media.play()")
    page.settle(f"document.querySelector('dialog {element}').currentTime > 0.2")
    page.see("#close").click()
    assert not page.see(f"dialog {element}").count()
    if name == "embedded":
        page.see("#cluster-1 .play").first.click()
        page.settle("document.querySelector('#cluster-1 video').currentTime > 0.2")


def test_a_clip_that_has_moved_says_so(visit: Open) -> None:
    page = visit("moved", silent=False)
    page.see("#cluster-0 .play").first.click()
    page.see("#cluster-0 .trouble").wait_for()
    assert "the file has moved, or this browser lacks its codec" in page.see("#cluster-0 .trouble").inner_text()
    assert all("ERR_FILE_NOT_FOUND" in line for line in page.said)


def test_the_theme_follows_the_system_until_one_is_chosen_and_is_kept(visit: Open) -> None:
    page = visit("small", color_scheme="dark")
    dark, dot = page.get(GROUND), page.get(f"{DOTS}.marker.color[0]")
    page.tab.get_by_role("button", name="Light theme").click()
    light = page.get(GROUND)
    assert light != dark
    assert page.get(f"{DOTS}.marker.color[0]") != dot
    page.tab.reload()
    assert page.get(GROUND) == light
    page.tab.get_by_role("button", name="Dark theme").click()
    assert page.get(GROUND) == dark


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_of_wcag_aa(visit: Open, scheme: str) -> None:
    page = visit("dozen", color_scheme=scheme)
    page.get(OPEN_ALL)
    texts = page.get(CONTRASTS)
    page.see(".gallery .item").first.click()
    texts += page.get(CONTRASTS)
    assert len(texts) > 1000
    assert {"Clusters", "Least sure", "no sound", "go to its card", "11"} <= {text for *_, text in texts}
    assert not [text for text in texts if text[0] < 4.5]


def test_without_javascript_all_but_the_map_can_be_read(visit: Open, small: Page) -> None:
    page = visit("small", java_script_enabled=False)
    assert page.see("h1").inner_text() == small.name
    assert page.tab.get_by_text(small.headline.sentences[0]).is_visible()
    assert page.see(".scores").first.is_visible()
    typical = small.clips.transcript[small.clusters[0].typical[0]]
    assert page.see("article blockquote").first.inner_text() == typical
    assert page.see("article video").first.get_attribute("controls") is not None
    assert page.see("noscript .notice").inner_text().startswith("The map of the clips, search and the charts need")
    assert not [element for element in page.see(".needs-js").all() if element.is_visible()]


def test_hostile_text_is_text(visit: Open) -> None:
    page, evil = visit("hostile", silent=False), hostile_page().clips
    page.get(OPEN_ALL)
    page.see("#map-plot").scroll_into_view_if_needed()
    page.tab.mouse.move(*page.get(DOT, 3))
    page.see("#hover").wait_for(state="visible")
    assert page.see("#hover strong").text_content() == evil.clip_id[3]
    for by in ("label", "confidence", "cluster"):
        page.see("#colour").select_option(by)
    page.see("#query").fill("<img")
    page.settle("document.getElementById('count').textContent", "24 clips")
    page.see(".gallery .item").first.click()
    for row in range(6):
        assert page.is_open(evil.clip_id[row])
        assert page.see("dialog blockquote").text_content() == evil.transcript[row]
        assert not page.see("dialog [href*=javascript], dialog [src*=javascript]").count()
        page.see("#next").click()
    page.tab.keyboard.press("Escape")
    assert page.see("h1").text_content() == ATTACK + "a run"
    page.fits(2560)
    page.fits(360)
    assert page.get("window.pwned") is None
    assert page.strangers == []
    assert not [line for line in page.said if not re.search("ERR_FILE_NOT_FOUND|media-src|ERR_INVALID_URL", line)]


def test_a_command_is_copied(visit: Open, small: Page) -> None:
    page = visit("small", permissions=["clipboard-read", "clipboard-write"])
    page.see("[data-copy]").first.click()
    page.tab.get_by_text("Copied").wait_for()
    assert page.get("navigator.clipboard.readText()") == small.commands[0]


def test_on_paper_and_for_those_whom_motion_disturbs(visit: Open) -> None:
    page = visit("small", reduced_motion="reduce", color_scheme="dark")
    assert page.get("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    assert page.see(".item").first.evaluate("(element) => getComputedStyle(element).transitionDuration") == "0s"
    page.tab.emulate_media(media="print")
    assert not [element for element in page.see(".top, .needs-js").all() if element.is_visible()]
    assert page.see("article").first.is_visible()
    assert page.see(".measures").is_visible()  # what is folded on the screen is on paper
    assert page.get(GROUND) == "rgb(255, 255, 255)"


# Linear RGB as seen with the cones of one kind missing: Machado, Oliveira & Fernandes 2009, severity 1.
SEEN_BY = {
    "all": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
# Linear sRGB -> cones, and their cube roots -> OKLab: Ottosson 2020.
CONES = [[0.41222147, 0.53633254, 0.05144599], [0.2119035, 0.68069955, 0.10739696], [0.08830246, 0.28171884, 0.6299787]]
LAB = [
    [0.21045426, 0.79361779, -0.00407205],
    [1.9779985, -2.42859221, 0.45059371],
    [0.02590404, 0.78277177, -0.80867577],
]


def _linear_rgb(colours: list[str]) -> np.ndarray:
    """(n, 3) of CSS colours `rgb(r, g, b)`."""
    srgb = np.array([re.findall(r"\d+", colour)[:3] for colour in colours], dtype=float) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _oklab(rgb: np.ndarray) -> np.ndarray:
    """(n, 3), where a distance of 0.02 can just be seen."""
    return np.cbrt(rgb @ np.array(CONES).T) @ np.array(LAB).T
