"""What is measured of real clips; and that it is measured once, goes on where it was killed, and follows the file."""

import os

import cv2
import numpy as np
import pytest
from media_factory import frame_index, write_clip
from report_factory import Here

from extractors.clip import Clip
from pipeline.report import clip_facts as module
from pipeline.report.clip_facts import CHUNK, ClipFacts, clip_facts, encode_thumbnail, read_facts

RATE_HZ = 16000


def buzz(pitch, seconds, rate_hz=44100):
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.2 * sum(np.sin(2 * np.pi * k * pitch * t) / k for k in range(1, 8))).astype(np.float32)[None]


def picture_of(facts):
    """(H, W, 3) RGB."""
    return cv2.imdecode(np.frombuffer(facts.thumbnail, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


@pytest.fixture
def corpus(tmp_path):
    """Three clips, small enough to be read in no time."""
    clips = []
    for i in range(3):
        path = write_clip(tmp_path / f"c{i}.mp4", size=(32, 24), fps=10, duration_s=0.5, tones_hz=(200.0 + 20 * i,))
        clips.append(Clip(f"clip/{i}", str(path)))
    return clips


@pytest.fixture
def reads(monkeypatch):
    """The ids of the clips whose media were read, in order."""
    seen = []

    def watched(clip):
        seen.append(clip.clip_id)
        return read_facts(clip)

    monkeypatch.setattr(module, "read_facts", watched)
    return seen


def test_a_clip_is_measured_over_its_own_span(tmp_path):
    sound = np.concatenate([buzz(120, 1.0), buzz(240, 1.0), buzz(120, 1.0)], axis=1)
    path = write_clip(tmp_path / "a.mp4", size=(640, 480), fps=25, duration_s=3.0, audio=sound)
    whole, middle = read_facts(Clip("a", str(path))), read_facts(Clip("b", str(path), 1.1, 1.9))
    assert whole.plays_as == middle.plays_as == "video"
    assert whole.duration_s == pytest.approx(3.0, abs=0.1)
    assert middle.duration_s == pytest.approx(0.8)
    assert whole.pitch_hz == pytest.approx(120, rel=0.02)
    assert middle.pitch_hz == pytest.approx(240, rel=0.02)
    assert -30 < whole.loudness_db < -5
    picture = picture_of(middle)
    assert picture.shape == (180, 240, 3)
    # Frame 37 or 38 is on display in the middle of 1.1 to 1.9 s.
    assert frame_index(picture.transpose(2, 0, 1)) in (37, 38)


def test_colours_are_kept(tmp_path):
    orange = np.broadcast_to(np.array([230, 120, 30], np.uint8), (48, 64, 3))
    path = write_clip(tmp_path / "a.mp4", frames=[orange] * 5, audio_codec=None)
    np.testing.assert_allclose(picture_of(read_facts(Clip("a", str(path)))).mean(axis=(0, 1)), [230, 120, 30], atol=12)


def test_pictures_are_shrunk_never_enlarged_and_panoramas_are_bounded():
    def size(height, width):
        webp = encode_thumbnail(np.zeros((height, width, 3), np.uint8))
        return cv2.imdecode(np.frombuffer(webp, np.uint8), cv2.IMREAD_COLOR).shape[:2]

    assert size(720, 1280) == (180, 320)
    assert size(1280, 720) == (180, 101)
    assert size(24, 32) == (24, 32)
    assert size(100, 4000) == (11, 432)


def test_what_a_file_lacks_is_none(tmp_path):
    silent = write_clip(tmp_path / "v.mp4", audio_codec=None, duration_s=1.0)
    sound = write_clip(tmp_path / "a.wav", audio=buzz(150, 1.0))
    seen, heard = read_facts(Clip("v", str(silent))), read_facts(Clip("a", str(sound)))
    assert seen.thumbnail
    assert seen.plays_as == "video"
    assert (seen.pitch_hz, seen.loudness_db) == (None, None)
    assert heard.thumbnail == b""
    assert heard.plays_as == "audio"
    assert heard.pitch_hz == pytest.approx(150, rel=0.02)
    assert heard.duration_s == pytest.approx(1.0)


def test_a_clip_shorter_than_a_loudness_block_keeps_its_pitch(tmp_path):
    path = write_clip(tmp_path / "a.wav", audio=buzz(150, 0.3))
    facts = read_facts(Clip("a", str(path)))
    assert facts.loudness_db is None
    assert facts.pitch_hz == pytest.approx(150, rel=0.02)


@pytest.mark.parametrize("data", [b"", b"not a video at all", b"\0" * 5000], ids=["empty", "text", "zeros"])
def test_a_broken_file_has_no_facts_and_breaks_nothing(data, tmp_path, corpus):
    path = tmp_path / "broken.mp4"
    path.write_bytes(data)
    found = clip_facts(
        [*corpus, Clip("broken", str(path)), Clip("gone", str(tmp_path / "gone.mp4"))], tmp_path / "c", Here()
    )
    assert found["broken"] == found["gone"] == ClipFacts()
    assert all(found[clip.clip_id].thumbnail for clip in corpus)


def test_a_decoders_surprise_costs_one_clip_its_facts(tmp_path, corpus, monkeypatch):
    def surprised(path):
        if path.endswith("c1.mp4"):
            raise RuntimeError("no such luck")
        return "video", 0.5

    monkeypatch.setattr(module, "probe", surprised)
    found = clip_facts(corpus, tmp_path / "cache", Here())
    assert [found[clip.clip_id] == ClipFacts() for clip in corpus] == [False, True, False]


def test_a_second_report_reads_only_what_has_changed(tmp_path, corpus, reads):
    cache = tmp_path / "cache"
    first = clip_facts(corpus, cache, Here())
    assert sorted(reads) == [clip.clip_id for clip in corpus]
    reads.clear()
    assert clip_facts(corpus, cache, Here()) == first
    assert reads == []
    write_clip(tmp_path / "c1.mp4", size=(32, 24), fps=10, duration_s=1.0, tones_hz=(300.0,))
    os.utime(tmp_path / "c1.mp4", ns=(1, 1))
    again = clip_facts(corpus, cache, Here())
    assert reads == ["clip/1"]
    assert again["clip/1"].pitch_hz == pytest.approx(300, rel=0.02)
    assert again["clip/0"] == first["clip/0"]
    reads.clear()
    assert clip_facts(corpus, cache, Here()) == again
    assert reads == []


def test_a_file_that_is_gone_keeps_what_was_read_of_it(tmp_path, corpus, reads):
    first = clip_facts(corpus, tmp_path / "cache", Here())
    for clip in corpus:
        os.remove(clip.media_path)
    reads.clear()
    assert clip_facts(corpus, tmp_path / "cache", Here()) == first
    assert reads == []


def test_a_killed_report_goes_on_from_the_last_chunk(tmp_path, corpus, monkeypatch):
    clips = [Clip(f"{i}", corpus[0].media_path) for i in range(CHUNK + 3)]
    calls = []

    def killed(clip):
        calls.append(clip.clip_id)
        if clip.clip_id == str(CHUNK + 1):
            raise KeyboardInterrupt
        return ClipFacts(plays_as=clip.clip_id)

    monkeypatch.setattr(module, "read_facts", killed)
    with pytest.raises(KeyboardInterrupt):
        clip_facts(clips, tmp_path / "cache", Here())
    calls.clear()
    monkeypatch.setattr(module, "read_facts", lambda clip: (calls.append(clip.clip_id), ClipFacts(plays_as="later"))[1])
    found = clip_facts(clips, tmp_path / "cache", Here())
    assert calls == ["64", "65", "66"]
    assert found["3"].plays_as == "3"
    assert found["65"].plays_as == "later"


def test_a_damaged_part_is_read_again(tmp_path, corpus, reads):
    cache = tmp_path / "cache"
    first = clip_facts(corpus, cache, Here())
    (part,) = cache.rglob("*.parquet")
    part.write_bytes(part.read_bytes()[:100])
    reads.clear()
    assert clip_facts(corpus, cache, Here()) == first
    assert len(reads) == 3


def test_spans_of_one_file_are_clips_of_their_own(tmp_path, corpus):
    path = corpus[0].media_path
    found = clip_facts([Clip("a", path, 0.0, 0.2), Clip("b", path, 0.2, 0.5)], tmp_path / "cache", Here())
    assert [found[name].duration_s for name in "ab"] == pytest.approx([0.2, 0.3])
