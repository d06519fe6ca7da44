"""The report in a headless Chromium: it opens in silence, does what its buttons say, and plays clips."""

import re

import numpy as np
import pytest
from browser_visit import DOT, DOTS, FOCUSED, MANY, OPEN_ALL, ROWS, Open
from page_factory import ATTACK, hostile_page

from pipeline.report.page import Page

pytest_plugins = ("browser_fixtures",)
pytestmark = pytest.mark.browser

NAMELESS = """() => [...document.querySelectorAll("a, button, select, input, video, audio, [role=img], [role=region]")]
  .filter((e) => !["aria-label", "aria-labelledby"].some((name) => e.getAttribute(name)))
  .filter((e) => !e.textContent.trim() && !e.labels?.length)
  .map((e) => e.outerHTML)"""


@pytest.mark.parametrize(("name", "n_clips"), [("small", 24), ("bare", 5), ("many", MANY)])
def test_opens_without_a_word_at_any_width_and_asks_nobody(visit: Open, name: str, n_clips: int) -> None:
    page = visit(name, width=360)
    assert sorted(page.get(ROWS)) == list(range(n_clips))
    assert page.see("#map-plot .point").count() == n_clips  # drawn, and not only asked for
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


def test_keys_go_on_where_the_list_ends(visit: Open, small: Page) -> None:
    page, ids = visit("small"), small.clips.clip_id
    page.see(".gallery .item").nth(22).click()
    page.see("#next").press("Enter")
    assert page.is_open(ids[23])
    assert page.see("#next").is_disabled()
    page.tab.keyboard.press("ArrowLeft")
    assert page.is_open(ids[22])
    page.tab.keyboard.press("Escape")
    page.see(".gallery .item").nth(1).click()
    page.see("#previous").press("Enter")
    assert page.is_open(ids[0])
    page.tab.keyboard.press("ArrowRight")
    assert page.is_open(ids[1])


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
    page.see("#show-all").press("Enter")
    page.settle("document.getElementById('count').textContent", "24 clips")
    assert page.get(f"{FOCUSED}.id") == "order"  # the button goes, and the keyboard stays where it was
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
    page.tab.get_by_text(f"Show more of {MANY:,}").click()
    assert page.see(".gallery .item").count() == 120
    assert "clip_0060" in page.get(f"{FOCUSED}.textContent")


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
