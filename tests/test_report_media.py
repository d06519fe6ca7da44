"""Links, copies, embedding and thumbnails: any file name is a safe URL, and no page grows beyond its bounds."""

import base64
import io
import os
from urllib.parse import unquote, urljoin, urlsplit

import av
import cv2
import numpy as np
import pytest
from media_factory import write_clip
from report_factory import Here

from extractors.clip import Clip
from pipeline.report import media as module
from pipeline.report.clip_facts import encode_thumbnail, read_facts
from pipeline.report.media import players, thumbnails, url_of

NAMES = (
    "plain.mp4",
    "a b #1?.mp4",
    "quo\"te's & <b>.mp4",
    "100%25.mp4",
    "naïve 好 🎬.mp4",
    "c:d;e.mp4",
    "a\\b.mp4",
    "</script>.mp4",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_link_leads_from_the_page_to_the_file_whatever_it_is_called(name, tmp_path):
    path = tmp_path / "raw clips" / name
    url = url_of(Clip("a", str(path)), tmp_path / "results" / "run #1")
    assert url.startswith("../../raw%20clips/")
    assert not set(url) & set("\"'<>#?& \\;")
    page_url = (tmp_path / "results" / "run #1" / "report.html").as_uri()
    assert unquote(urlsplit(urljoin(page_url, url)).path) == str(path)


def test_a_name_that_is_not_utf8_is_linked_by_its_bytes(tmp_path):
    name = os.fsdecode(b"caf\xe9.mp4")
    assert url_of(Clip("a", str(tmp_path / name)), tmp_path) == "caf%E9.mp4"


@pytest.mark.parametrize(
    ("start_s", "end_s", "fragment"),
    [(0.0, None, ""), (1.5, None, "#t=1.5"), (0.0, 2.25, "#t=0,2.25"), (3661.123, 3670.0, "#t=3661.123,3670")],
)
def test_a_span_is_a_media_fragment(start_s, end_s, fragment, tmp_path):
    assert url_of(Clip("a", str(tmp_path / "v.mp4"), start_s, end_s), tmp_path) == f"v.mp4{fragment}"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A clip of each kind: playable, a sound, one to copy, a broken file, a missing one; and their facts."""
    root = tmp_path_factory.mktemp("corpus")
    write_clip(root / "a.mp4", size=(32, 24), fps=10, duration_s=0.5)
    write_clip(root / "b.wav", duration_s=0.5)
    write_clip(root / "c.avi", size=(32, 24), fps=10, duration_s=0.5)
    (root / "d.mpg").write_bytes(b"not a video")
    clips = [Clip(name, str(root / name)) for name in ("a.mp4", "b.wav", "c.avi", "d.mpg", "gone.mp4")]
    return clips, [read_facts(clip) for clip in clips]


def page(tmp_path, corpus, *, shown=(0, 1, 2, 3, 4), embed=False):
    clips, facts = corpus
    return players(clips, facts, shown, tmp_path / "out", embed=embed, readers=Here())


def test_each_clip_gets_what_can_be_played_of_it(tmp_path, corpus):
    found = page(tmp_path, corpus)
    assert found.kinds == ["video", "audio", "video", "file", ""]
    assert found.urls[4] == ""
    assert all((tmp_path / "out" / unquote(url)).is_file() for url in found.urls[:4])
    (copy,) = (tmp_path / "out" / "media").iterdir()
    assert found.urls[2] == f"media/{copy.name}"
    with av.open(str(copy)) as container:
        assert container.streams.video[0].codec.canonical_name == "h264"
    assert len(found.warnings) == 1
    assert "1 of 5 clips are not where they were" in found.warnings[0]


def test_clips_without_media_have_no_player_and_no_warning(tmp_path):
    found = players([None, None], [None, None], [0, 1], tmp_path, embed=False, readers=Here())
    assert (found.urls, found.kinds, found.warnings) == (["", ""], ["", ""], [])


def test_copies_are_made_once_and_old_ones_are_cleared_away(tmp_path, corpus, monkeypatch):
    page(tmp_path, corpus)
    (copy,) = (tmp_path / "out" / "media").iterdir()
    before = copy.stat().st_mtime_ns
    stale, foreign = copy.with_name("0123456789abcdef.mp4"), copy.with_name("holiday.mp4")
    stale.write_bytes(b"x")
    foreign.write_bytes(b"x")
    monkeypatch.setattr(module, "preview", lambda clip: pytest.fail("made again"))
    page(tmp_path, corpus)
    assert copy.stat().st_mtime_ns == before
    assert sorted(path.name for path in copy.parent.iterdir()) == sorted([copy.name, foreign.name])


@pytest.mark.parametrize("embed", [False, True])
def test_a_clip_whose_file_is_gone_is_played_from_its_copy(embed, tmp_path):
    paths = [write_clip(tmp_path / name, size=(32, 24), fps=10, duration_s=0.5) for name in ("a.mp4", "c.avi")]
    clips = [Clip(path.name, str(path)) for path in paths]
    corpus = clips, [read_facts(clip) for clip in clips]
    page(tmp_path, corpus, shown=[0, 1])
    (copy,) = (tmp_path / "out" / "media").iterdir()
    for path in paths:
        path.unlink()
    found = page(tmp_path, corpus, shown=[0, 1], embed=embed)
    assert found.kinds == ["", "video"]
    assert found.urls[1].startswith("data:video/mp4;") if embed else found.urls[1] == f"media/{copy.name}"
    assert copy.is_file()
    assert len(found.warnings) == 1
    assert "The media of 1 of 2 clips are not where they were" in found.warnings[0]


def test_of_many_clips_those_in_cards_alone_are_copied(tmp_path, corpus, monkeypatch):
    monkeypatch.setattr(module, "FEW_CLIPS", 4)
    found = page(tmp_path, corpus, shown=[0, 1])
    assert found.kinds[2] == "file"
    assert not (tmp_path / "out" / "media").exists()
    assert page(tmp_path, corpus, shown=[2]).kinds[2] == "video"


def test_a_clip_that_was_not_read_is_taken_for_one_like_the_others(tmp_path, corpus):
    clips, facts = corpus
    found = players([clips[0], clips[0]], [facts[0], None], [0], tmp_path, embed=False, readers=Here())
    assert found.kinds == ["video", "video"]


def test_a_codecs_surprise_leaves_a_plain_link(tmp_path, corpus, monkeypatch):
    def surprised(clip):
        raise MemoryError

    monkeypatch.setattr(module, "preview", surprised)
    found = page(tmp_path, corpus)
    assert found.kinds == ["video", "audio", "file", "file", ""]


def test_embedded_copies_are_in_the_page_and_nowhere_else(tmp_path, corpus):
    found = page(tmp_path, corpus, embed=True)
    for url, mime, stream in ((0, "video/mp4", "video"), (1, "audio/mp4", "audio"), (2, "video/mp4", "video")):
        head, data = found.urls[url].split(",")
        assert head == f"data:{mime};base64"
        with av.open(io.BytesIO(base64.b64decode(data))) as container:
            assert getattr(container.streams, stream)
    assert found.kinds == ["video", "audio", "video", "file", ""]
    assert not (tmp_path / "out" / "media").exists()
    assert "1 clips are linked, not embedded" in found.warnings[1]  # the broken one


def test_beyond_the_bound_clips_are_linked_and_that_is_said(tmp_path, corpus, monkeypatch):
    monkeypatch.setattr(module, "EMBEDDED_BYTES", 1)
    found = page(tmp_path, corpus, embed=True)
    assert not any(url.startswith("data:") for url in found.urls)
    assert "4 clips are linked, not embedded" in found.warnings[1]


def decoded(uri):
    assert uri.startswith("data:image/webp;base64,")
    return cv2.imdecode(np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8), cv2.IMREAD_COLOR)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    smooth = [cv2.resize(rng.integers(0, 255, (9, 12, 3), np.uint8), (240, 180)) for _ in range(30)]
    return [encode_thumbnail(picture) for picture in smooth]


def test_pictures_that_fit_are_shown_as_they_are(pictures):
    found = thumbnails([*pictures, b""], ())
    assert [base64.b64decode(uri.split(",")[1]) for uri in found[:-1]] == pictures
    assert found[-1] == ""


@pytest.mark.parametrize("share", [0.9, 0.6, 0.3])
def test_of_many_clips_pictures_are_smaller_and_fit(share, pictures, monkeypatch):
    bound = int(share * sum(map(len, pictures)))
    monkeypatch.setattr(module, "THUMBNAIL_BYTES", bound)
    found = thumbnails(pictures, ())
    assert all(found)
    assert sum(len(base64.b64decode(uri.split(",")[1])) for uri in found) <= bound
    (height,) = {decoded(uri).shape[0] for uri in found}
    assert height in (128, 96, 72, 56)


def test_where_not_even_small_ones_fit_those_in_cards_have_one(pictures, monkeypatch):
    monkeypatch.setattr(module, "THUMBNAIL_BYTES", 300)
    found = thumbnails(pictures, {3, 7})
    assert [row for row, uri in enumerate(found) if uri] == [3, 7]
    assert decoded(found[3]).shape == (180, 240, 3)
