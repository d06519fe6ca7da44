"""Opens pages of a report in a headless Chromium; a test file has these fixtures by naming it in `pytest_plugins`."""

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_visit import MANY, Open, Visit
from media_factory import write_clip
from page_factory import bare_page, hostile_page, make_page

from pipeline.report.html import render
from pipeline.report.page import Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


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
