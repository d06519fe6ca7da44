"""docs/screenshots.py: every picture is made, is what its name says, and is small."""

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from page_factory import make_page

from pipeline.errors import PipelineError
from pipeline.report.html import render

SCRIPT = Path(__file__).parents[1] / "docs" / "screenshots.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("screenshots", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.browser
def test_pictures_of_a_report(script: ModuleType, tmp_path: Path) -> None:
    if not any(map(shutil.which, script.BROWSERS)):
        pytest.skip("no Chromium here: install Debian's `chromium` to take pictures of the report")
    report = tmp_path / "report.html"
    report.write_text(render(make_page(40, 4)), encoding="utf-8")
    files = script.screenshots(report, tmp_path / "images")
    pictures = {file.stem: cv2.imread(str(file)) for file in files}
    sizes = {name: picture.shape[1::-1] for name, picture in pictures.items()}
    assert sizes == {
        "report-light": (1280, 840),
        "report-dark": (1280, 840),
        "report-clip": (1000, 660),
        "report-phone": (360, 760),
    }
    assert pictures["report-light"].mean() > 200 > 80 > pictures["report-dark"].mean()
    assert max(file.stat().st_size for file in files) <= 200_000


def test_a_large_picture_gets_fewer_colours_until_it_fits(script: ModuleType) -> None:
    rng = np.random.default_rng(0)
    smooth = cv2.GaussianBlur(rng.integers(0, 256, (600, 600, 3), dtype=np.uint8), (0, 0), 3)
    original = cv2.imencode(".png", smooth)[1].tobytes()
    small = script.small_png(original)
    assert len(small) <= 200_000 < len(original)
    found = cv2.imdecode(np.frombuffer(small, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(found.astype(int) - smooth).mean() < 12
    noise = cv2.imencode(".png", rng.integers(0, 256, (900, 900, 3), dtype=np.uint8))[1].tobytes()
    with pytest.raises(PipelineError, match="bytes with 64 colours; at most 200,000 are allowed"):
        script.small_png(noise)


def test_what_is_missing_is_named(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PipelineError, match="no report at .*none.html; `make demo` writes results/demo/report.html"):
        script.screenshots(tmp_path / "none.html", tmp_path)
    report = tmp_path / "report.html"
    report.touch()
    monkeypatch.setattr(script.shutil, "which", lambda name: None)
    with pytest.raises(PipelineError, match="none of chromium, .* is on the PATH; install Debian's `chromium`"):
        script.screenshots(report, tmp_path)
