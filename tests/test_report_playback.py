"""Which files browsers play, and the copies that are made of the others, decoded again and played in Chromium."""

import io
import itertools
from pathlib import Path

import av
import numpy as np
import pytest
from media_factory import frame_index, indexed_frame, write_clip

from extractors.clip import Clip
from pipeline.report import playback
from pipeline.report.playback import preview, probe

CHROMIUM = Path("/usr/bin/chromium")
GRID = Path(__file__).resolve().parents[2] / "shared/data/grid"


@pytest.mark.parametrize(
    ("name", "codecs", "expected"),
    [
        ("a.mp4", {}, "video"),
        ("a.mp4", {"audio_codec": None}, "video"),
        ("a.mp4", {"video_codec": None}, "audio"),
        ("a.mp4", {"video_codec": "mpeg4"}, "other"),
        ("a.mp4", {"pixel_format": "yuv444p"}, "other"),
        ("a.mov", {}, "other"),  # PCM in a QuickTime file
        ("a.webm", {}, "video"),
        ("a.webm", {"video_codec": "libvpx-vp9"}, "video"),
        ("a.mkv", {}, "other"),
        ("a.mkv", {"video_codec": "libx264", "audio_codec": "aac"}, "other"),
        ("a.avi", {}, "other"),
        ("a.mpg", {}, "other"),
        ("a.wav", {}, "audio"),
        ("a.mp3", {"video_codec": None, "audio_codec": "libmp3lame"}, "audio"),
        ("a.flac", {"video_codec": None, "audio_codec": "flac"}, "audio"),
        ("a.ogg", {"video_codec": None, "audio_codec": "libopus"}, "audio"),
    ],
)
def test_which_files_browsers_play(name, codecs, expected, tmp_path):
    path = write_clip(tmp_path / name, duration_s=0.6, **codecs)
    kind, duration_s = probe(str(path))
    assert kind == expected
    assert duration_s == pytest.approx(0.6, abs=0.15)


def test_a_cover_picture_makes_no_video_of_a_song(tmp_path):
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("libmp3lame", rate=44100, layout="mono")
        cover = container.add_stream("png")
        cover.width = cover.height = 16
        cover.pix_fmt = "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        container.mux(cover.encode(picture))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1  # else this test shows nothing
    assert probe(str(path))[0] == "audio"


def decoded(copy):
    """(times in s, frames (3, H, W), samples, their rate) of a copy, by PyAV alone."""
    with av.open(io.BytesIO(copy.data)) as container:
        assert container.format.name.startswith("mov,mp4")
        frames = [(f.time, f.to_ndarray(format="rgb24").transpose(2, 0, 1)) for f in container.decode(video=0)]
    return [time for time, _ in frames], [frame for _, frame in frames]


def sound_of(copy):
    with av.open(io.BytesIO(copy.data)) as container:
        stream = container.streams.audio[0]
        assert stream.codec.canonical_name == "aac"
        return np.concatenate([f.to_ndarray()[0] for f in container.decode(stream)]), stream.rate


def tone_hz(samples, rate_hz):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return spectrum.argmax() * rate_hz / len(samples)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mpg", {}),
        ("a.avi", {"fps": 15}),
        ("a.mkv", {"fps": 12.5}),
        ("a.flv", {}),
        ("a.webm", {}),
    ],
)
def test_a_copy_shows_each_frame_at_its_time_and_sounds_the_same(name, options, tmp_path):
    path = write_clip(tmp_path / name, size=(64, 48), duration_s=2.0, tones_hz=(440.0,), **options)
    copy = preview(Clip("a", str(path)))
    times, frames = decoded(copy)
    fps = options.get("fps", 25)
    assert copy.kind == "video"
    assert 0 <= times[0] < 1 / fps  # in MPEG the sound begins a little before the pictures
    assert times == sorted(set(times))
    assert len(frames) == pytest.approx(2 * fps, abs=2)
    shown = [frame_index(frame) for frame in frames]
    assert [round(time * fps) for time in times] == pytest.approx(shown, abs=1)
    samples, rate_hz = sound_of(copy)
    assert len(samples) / rate_hz == pytest.approx(2.0, abs=0.15)
    assert tone_hz(samples, rate_hz) == pytest.approx(440, abs=3)


def test_a_copy_is_of_the_clips_span_alone(tmp_path):
    path = write_clip(tmp_path / "a.mkv", size=(64, 48), duration_s=4.0)
    times, frames = decoded(preview(Clip("a", str(path), 1.0, 2.2)))
    assert (frame_index(frames[0]), frame_index(frames[-1])) == (25, 54)
    assert times[0] == 0
    assert times[-1] == pytest.approx(1.16, abs=0.05)


def test_pieces_meet_without_a_gap_or_a_repeat(tmp_path, monkeypatch):
    monkeypatch.setattr(playback, "_PIECE_BYTES", 1)  # half a second each, the least
    path = write_clip(tmp_path / "a.mp4", size=(64, 48), duration_s=2.3)
    _, frames = decoded(preview(Clip("a", str(path))))
    shown = [frame_index(frame) for frame in frames]
    assert shown == list(range(shown[0], shown[0] + len(shown)))
    assert len(shown) >= 57


def test_a_large_picture_is_made_small_and_odd_sizes_even(tmp_path):
    large = write_clip(tmp_path / "a.mkv", size=(1280, 720), duration_s=0.3, video_codec="mpeg4", fps=10)
    odd = write_clip(tmp_path / "b.mkv", size=(63, 47), duration_s=0.3, fps=10)
    turned = write_clip(tmp_path / "c.mp4", size=(640, 480), duration_s=0.3, fps=10, rotation=90)
    assert decoded(preview(Clip("a", str(large))))[1][0].shape == (3, 360, 640)
    assert decoded(preview(Clip("b", str(odd))))[1][0].shape == (3, 46, 62)
    assert decoded(preview(Clip("c", str(turned))))[1][0].shape == (3, 360, 270)


def test_a_long_clip_is_copied_from_its_beginning(tmp_path, monkeypatch):
    monkeypatch.setattr(playback, "PREVIEW_S", 1.0)
    path = write_clip(tmp_path / "a.avi", size=(64, 48), duration_s=3.0)
    times, frames = decoded(preview(Clip("a", str(path))))
    assert frame_index(frames[0]) == 0
    assert times[-1] == pytest.approx(0.96, abs=0.05)


def test_a_copy_of_sound_alone_is_sound_and_of_pictures_alone_pictures(tmp_path):
    sound = write_clip(tmp_path / "a.mkv", video_codec=None, duration_s=1.0, tones_hz=(500.0,))
    silent = write_clip(tmp_path / "b.avi", audio_codec=None, duration_s=0.5)
    copy = preview(Clip("a", str(sound)))
    assert copy.kind == "audio"
    assert tone_hz(*sound_of(copy)) == pytest.approx(500, abs=3)
    copy = preview(Clip("b", str(silent)))
    assert copy.kind == "video"
    with av.open(io.BytesIO(copy.data)) as container:
        assert not container.streams.audio


def test_of_a_span_beyond_the_end_there_is_no_copy(tmp_path):
    path = write_clip(tmp_path / "a.avi", duration_s=0.5)
    assert preview(Clip("a", str(path), 30.0, 31.0)) is None


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}; install Chromium (Debian: apt install chromium)")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        yield chromium
        chromium.close()


def played(browser, page_path, url, kind):
    """Opens a page with the element and plays it: (ready state, seconds it got on, width of the picture, error)."""
    page_path.write_text(f'<meta charset="utf-8"><{kind} muted src="{url}"></{kind}>', encoding="utf-8")
    page = browser.new_page()
    page.goto(page_path.as_uri())
    found = page.evaluate(
        """async kind => {
            const m = document.querySelector(kind);
            const start = await m.play().then(() => m.currentTime, error => -1);
            for (let i = 0; i < 50 && !(m.currentTime > start + 0.2) && !m.ended; i++)
                await new Promise(done => setTimeout(done, 100));
            return [m.readyState, m.ended ? 1 : m.currentTime - start, m.videoWidth || 0, m.error && m.error.message];
        }""",
        kind,
    )
    page.close()
    return found


@pytest.mark.browser
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {}),
        ("a.webm", {}),
        ("a.webm", {"video_codec": "libvpx-vp9"}),
        ("a.wav", {}),
        ("a.mp3", {"video_codec": None, "audio_codec": "libmp3lame"}),
        ("a.flac", {"video_codec": None, "audio_codec": "flac"}),
        ("a.ogg", {"video_codec": None, "audio_codec": "libopus"}),
    ],
)
def test_what_is_said_to_play_plays_in_chromium(name, options, tmp_path, browser):
    path = write_clip(tmp_path / name, duration_s=1.0, **options)
    kind, _ = probe(str(path))
    ready, seconds, width, error = played(browser, tmp_path / "page.html", path.name, kind)
    assert error is None
    assert ready >= 2
    assert seconds > 0.2
    assert (width == 64) == (kind == "video")


@pytest.mark.browser
@pytest.mark.parametrize("name", ["a.mpg", "a.avi", "a.mkv"])
def test_copies_play_in_chromium(name, tmp_path, browser):
    path = write_clip(tmp_path / name, size=(64, 48), duration_s=1.0)
    (tmp_path / "copy.mp4").write_bytes(preview(Clip("a", str(path))).data)
    ready, seconds, width, error = played(browser, tmp_path / "page.html", "copy.mp4", "video")
    assert (error, width) == (None, 64)
    assert ready >= 2
    assert seconds > 0.2


@pytest.mark.browser
@pytest.mark.shared_data
@pytest.mark.skipif(not GRID.exists(), reason="no ../shared/data/grid")
def test_real_faces_play_in_chromium(tmp_path, browser):
    for path in itertools.islice(sorted(GRID.glob("*.mpg")), 2):
        copy = preview(Clip(path.stem, str(path)))
        (tmp_path / "copy.mp4").write_bytes(copy.data)
        ready, seconds, width, error = played(browser, tmp_path / "page.html", "copy.mp4", "video")
        assert (error, width) == (None, 360)
        assert ready >= 2
        assert seconds > 0.2


def test_the_tests_frames_carry_their_index():
    assert frame_index(indexed_frame(37, 64, 48).transpose(2, 0, 1)) == 37
