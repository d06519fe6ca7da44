"""Reading real files, written here: each frame carries its own index and the sound is a known sine, so the oracle is
arithmetic. What goes wrong with files is in test_media_faults.py."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from media_factory import CODECS, frame_index, indexed_frame, sine, write_clip

from extractors.clip import Clip
from extractors.errors import ExtractionError
from extractors.frame_sampling import FrameSampling
from extractors.media import FrameBatch, Media, MediaNeeds, read_media

GRID = Path(__file__).parents[2] / "shared" / "data" / "grid"
BOTH = MediaNeeds(frames=FrameSampling(count=8), sample_rate_hz=16000)
VIDEO_SUFFIXES = [suffix for suffix, (video, _) in CODECS.items() if video]


def read(path: Path, needs: MediaNeeds, start_s: float = 0.0, end_s: float | None = None) -> Media:
    return read_media(Clip("c", str(path), start_s, end_s), needs)


def read_frames(path: Path, start_s: float = 0.0, end_s: float | None = None, **sampling: Any) -> FrameBatch:
    return read(path, MediaNeeds(frames=FrameSampling(**sampling)), start_s, end_s).require_frames()


def read_samples(path: Path, start_s: float = 0.0, end_s: float | None = None, rate_hz: int = 16000) -> Any:
    waveform = read(path, MediaNeeds(sample_rate_hz=rate_hz), start_s, end_s).require_waveform()
    assert waveform.sample_rate_hz == rate_hz
    return waveform.samples


def indices(batch: FrameBatch) -> list[int]:
    return [frame_index(frame) for frame in batch.frames]


def tone(samples: Any, rate_hz: int) -> tuple[float, float]:
    """Frequency (Hz) and amplitude of the strongest tone, away from the ends, by a Hann-windowed DFT."""
    middle = samples[len(samples) // 8 : -len(samples) // 8]
    window = np.hanning(len(middle))
    spectrum = np.abs(np.fft.rfft(middle * window, 8 * len(middle)))
    peak = int(spectrum.argmax())
    return peak * rate_hz / (8 * len(middle)), float(2 * spectrum[peak] / window.sum())


@pytest.fixture(scope="module")
def clip_mp4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 s at 25 fps, 44.1 kHz stereo, one keyframe at the start only."""
    return write_clip(tmp_path_factory.mktemp("media") / "clip.mp4", duration_s=2.0, gop=250)


# Frames


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ({"fps": 5}, [0, 5, 10, 15, 20, 25, 30, 35, 40, 45]),
        ({"fps": 25}, list(range(50))),
        ({"fps": 1000}, list(range(50))),
        ({"count": 1}, [25]),
        ({"count": 4}, [6, 18, 31, 43]),  # on display at 0.25, 0.75, 1.25, 1.75 s
        ({"count": 400}, list(range(50))),
    ],
)
def test_keeps_exactly_the_frames_on_display(clip_mp4: Path, sampling: dict[str, int], expected: list[int]) -> None:
    batch = read_frames(clip_mp4, **sampling)
    assert indices(batch) == expected
    assert batch.pts_seconds == pytest.approx([i / 25 for i in expected])
    assert batch.frames.shape == (len(expected), 3, 48, 64)


@pytest.mark.parametrize(
    ("suffix", "codecs"),
    [(suffix, {}) for suffix in VIDEO_SUFFIXES]
    + [
        (".webm", {"video_codec": "libvpx-vp9"}),
        (".mkv", {"video_codec": "libx264", "audio_codec": "aac"}),
        (".avi", {"video_codec": "mjpeg", "audio_codec": "pcm_s16le"}),
        (".mpg", {"video_codec": "mpeg2video", "audio_codec": "ac3"}),
        (".ts", {"video_codec": "libx264", "audio_codec": "aac"}),
    ],
)
def test_every_container_gives_both_modalities(tmp_path: Path, suffix: str, codecs: dict[str, str]) -> None:
    media = read(write_clip(tmp_path / f"clip{suffix}", duration_s=2.0, **codecs), BOTH)
    batch, waveform = media.require_frames(), media.require_waveform()
    # Muxers shift the first timestamp by up to two frames for an encoder's delay; targets are 6.25 frames apart.
    assert indices(batch) == pytest.approx([3.125 + 6.25 * i for i in range(8)], abs=2)
    assert batch.pts_seconds == pytest.approx([0.125 + 0.25 * i for i in range(8)], abs=0.05)
    assert len(waveform.samples) == pytest.approx(32000, abs=800)  # lossy codecs pad to whole frames
    frequency_hz, amplitude = tone(waveform.samples, 16000)
    assert frequency_hz == pytest.approx(440, abs=1)
    assert amplitude == pytest.approx(0.5, rel=0.05)


def test_variable_frame_rate(tmp_path: Path) -> None:
    times_s = [0.0, 0.1, 0.5, 0.52, 1.0, 1.9]
    frames = [indexed_frame(i, 64, 48) for i in range(6)]
    path = write_clip(tmp_path / "vfr.mkv", frames=frames, frame_times_s=times_s, audio_codec=None)
    batch = read_frames(path, fps=4, end_s=2.0)  # at 0, .25, .5, .75, 1, 1.25, 1.5, 1.75 s
    assert indices(batch) == [0, 1, 2, 3, 4]
    assert batch.pts_seconds == pytest.approx([0.0, 0.1, 0.5, 0.52, 1.0])


def test_frames_without_timestamps_follow_the_frame_rate(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "raw.h264", video_codec="libx264", duration_s=2.0)
    assert indices(read_frames(path, count=4)) == [6, 18, 31, 43]


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_rotation_flag(tmp_path: Path, degrees: int) -> None:
    stored = np.zeros((48, 64, 3), dtype=np.uint8)
    stored[:24, :32] = (240, 20, 20)  # red where the top left was when filmed
    path = write_clip(tmp_path / "r.mp4", frames=[stored] * 5, rotation=degrees, audio_codec=None)
    frame = read_frames(path, count=1).frames[0]  # (3, H, W)
    upright = np.rot90(stored, degrees // 90).transpose(2, 0, 1)
    assert frame.shape == upright.shape
    assert np.abs(frame.astype(int) - upright.astype(int)).mean() < 5


@pytest.mark.parametrize(
    ("codec", "suffix", "pixel_format"),
    [("ffv1", ".mkv", "bgr0"), ("ffv1", ".mkv", "yuv420p"), ("libvpx", ".webm", None)],
)
def test_odd_size(tmp_path: Path, codec: str, suffix: str, pixel_format: str | None) -> None:
    path = write_clip(
        tmp_path / f"odd{suffix}", video_codec=codec, size=(63, 47), pixel_format=pixel_format, audio_codec=None
    )
    batch = read_frames(path, fps=25)
    assert batch.frames.shape == (25, 3, 47, 63)
    assert indices(batch) == list(range(25))


@pytest.mark.parametrize(
    "pixel_format", ["gray", "gray16le", "yuv420p", "yuv420p10le", "yuv444p", "yuva444p", "bgra", "yuv422p12le"]
)
def test_pixel_formats_become_rgb(tmp_path: Path, pixel_format: str) -> None:
    rgb = (90, 90, 90) if pixel_format.startswith("gray") else (200, 40, 90)
    picture = np.full((48, 64, 3), rgb, dtype=np.uint8)
    path = write_clip(tmp_path / "p.mkv", frames=[picture] * 3, pixel_format=pixel_format, audio_codec=None)
    frame = read_frames(path, count=1).frames[0]
    assert np.abs(frame.reshape(3, -1).T.astype(int) - rgb).max() <= 4


def test_picture_size_may_change_on_the_way(tmp_path: Path) -> None:
    path = tmp_path / "sizes.ts"
    for size, first in [((64, 48), 0), ((128, 96), 25)]:
        frames = [indexed_frame(first + i, *size) for i in range(25)]
        times_s = [(first + i) / 25 for i in range(25)]
        part = write_clip(
            tmp_path / "part.ts",
            video_codec="libx264",
            audio_codec=None,
            size=size,
            frames=frames,
            frame_times_s=times_s,
        )
        with path.open("ab") as whole:
            whole.write(part.read_bytes())
    batch = read_frames(path, fps=5)
    assert batch.frames.shape == (10, 3, 48, 64)
    assert indices(batch) == list(range(0, 50, 5))


# Sound


def test_waveform_is_the_sine_resampled(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "s.wav", tones_hz=(440.0, 440.0), amplitude=0.5)
    samples = read_samples(path)
    assert samples.shape == (16000,)
    inside = slice(400, -400)  # the resampler's filter meets silence at the ends
    assert samples[inside] == pytest.approx(sine(16000, 16000, [440.0], 0.5)[0][inside], abs=1e-3)


@pytest.mark.parametrize(
    ("amplitudes", "expected"), [((0.5, 0.5), 0.5), ((0.5, 0.0), 0.25), ((0.5, -0.5), 0.0), ((0.9, 0.3), 0.6)]
)
def test_down_mix_is_the_mean_of_the_channels(tmp_path: Path, amplitudes: Sequence[float], expected: float) -> None:
    audio = sine(16000, 16000, [300.0, 300.0], 1.0) * np.array(amplitudes, dtype=np.float32)[:, None]
    samples = read_samples(write_clip(tmp_path / "m.wav", audio=audio, sample_rate_hz=16000))
    assert samples == pytest.approx(expected * sine(16000, 16000, [300.0], 1.0)[0], abs=1e-4)


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "flac"])
def test_sample_formats(tmp_path: Path, codec: str) -> None:
    audio = sine(8000, 16000, [300.0], 0.5)
    path = write_clip(tmp_path / "f.mkv", video_codec=None, audio_codec=codec, audio=audio, sample_rate_hz=16000)
    assert read_samples(path) == pytest.approx(audio[0], abs=0.01 if codec == "pcm_u8" else 1e-4)


@pytest.mark.parametrize("rate_hz", [8000, 11025, 22050, 48000, 96000])
def test_any_rate_and_six_channels(tmp_path: Path, rate_hz: int) -> None:
    path = write_clip(tmp_path / "r.wav", sample_rate_hz=rate_hz, tones_hz=(500.0,) * 6, duration_s=2.0)
    samples = read_samples(path)
    assert len(samples) == pytest.approx(32000, abs=1)
    assert tone(samples, 16000) == pytest.approx((500.0, 0.5), rel=0.01)


def test_span_of_sound_is_cut_by_the_sample(tmp_path: Path) -> None:
    audio = np.random.default_rng(0).uniform(-0.9, 0.9, (1, 80000)).astype(np.float32)
    path = write_clip(tmp_path / "n.mov", audio_codec="pcm_f32le", audio=audio, sample_rate_hz=16000, duration_s=5.0)
    for start_s, end_s in [(0.0, 0.1), (0.5, 0.75), (3.0, 4.5), (4.9, None), (4.9, 60.0)]:
        stop = None if end_s is None else round(end_s * 16000)
        np.testing.assert_array_equal(read_samples(path, start_s, end_s), audio[0, round(start_s * 16000) : stop])


def test_sound_in_the_wrong_place_is_put_right(tmp_path: Path) -> None:
    """Sound that begins after the pictures, and a hole in it, are silence: sample 0 stays at start_s."""
    path = tmp_path / "holes.mkv"
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "bgr0"
        sound: Any = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        container.mux(video.encode(av.VideoFrame.from_ndarray(indexed_frame(0, 64, 48))))
        container.mux(video.encode(None))
        for first in (4000, 16000):  # 0.25 s and 1 s
            samples = np.full((1, 8000), 16384, dtype=np.int16)
            for i in range(0, 8000, 1000):
                frame = av.AudioFrame.from_ndarray(samples[:, i : i + 1000].copy(), format="s16", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = 16000, first + i, Fraction(1, 16000)
                for packet in sound.codec_context.encode(frame):
                    packet.stream, packet.pts, packet.dts = sound, first + i, first + i
                    container.mux(packet)
    expected = np.zeros(24000, dtype=np.float32)
    expected[4000:12000] = expected[16000:] = 0.5
    assert read_samples(path) == pytest.approx(expected, abs=1e-4)


# Spans


@pytest.mark.parametrize("suffix", [*VIDEO_SUFFIXES, ".ts"])
def test_span_gives_the_frames_of_the_whole_file(tmp_path: Path, suffix: str) -> None:
    codecs = {"video_codec": "libx264", "audio_codec": "aac"} if suffix == ".ts" else {}
    path = write_clip(tmp_path / f"long{suffix}", duration_s=8.0, gop=100, **codecs)
    whole = read_frames(path, fps=25)
    assert indices(whole) == list(range(200))
    for start_s, end_s in [(0.02, 0.3), (3.03, 4.5), (5.0, 5.1), (7.5, None)]:
        part = read(path, MediaNeeds(FrameSampling(fps=10), 16000), start_s, end_s)
        until_s = whole.pts_seconds[-1] + 0.04 if end_s is None else end_s
        targets_s = start_s + np.arange(np.ceil((until_s - start_s) * 10 - 1e-6)) / 10
        shown = np.unique(np.searchsorted(whole.pts_seconds[1:], targets_s + 6e-4, side="right"))
        frames = part.require_frames()
        np.testing.assert_array_equal(frames.pts_seconds, whole.pts_seconds[shown])
        np.testing.assert_array_equal(frames.frames, whole.frames[shown])
        if end_s is not None:
            assert len(part.require_waveform().samples) == round((end_s - start_s) * 16000)


def test_a_tenth_of_a_second(tmp_path: Path) -> None:
    media = read(write_clip(tmp_path / "t.mp4", duration_s=0.1), BOTH)
    assert 1 <= len(media.require_frames().frames) <= 3
    assert len(media.require_waveform().samples) == pytest.approx(1600, abs=800)


# The reading as a whole


def test_one_open_serves_both_and_only_kept_frames_are_converted(
    clip_mp4: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    real_open = av.open
    monkeypatch.setattr(av, "open", lambda *args, **kwargs: opened.append(args) or real_open(*args, **kwargs))
    media = read(clip_mp4, BOTH)
    assert len(opened) == 1
    assert len(media.require_frames().frames) == 8
    assert read(clip_mp4, MediaNeeds()) == Media()
    assert len(opened) == 1
    alone = [read(clip_mp4, needs) for needs in (MediaNeeds(BOTH.frames), MediaNeeds(sample_rate_hz=16000))]
    assert len(opened) == 3
    assert np.array_equal(media.require_frames().frames, alone[0].require_frames().frames)
    assert np.array_equal(media.require_waveform().samples, alone[1].require_waveform().samples)


def test_threads_read_the_same(clip_mp4: Path) -> None:
    alone = read(clip_mp4, BOTH)
    with ThreadPoolExecutor(8) as pool:
        for media in pool.map(lambda _: read(clip_mp4, BOTH), range(16)):
            np.testing.assert_array_equal(media.require_frames().frames, alone.require_frames().frames)
            np.testing.assert_array_equal(media.require_waveform().samples, alone.require_waveform().samples)


def test_cover_art_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        sound: Any = container.add_stream("aac", rate=44100, layout="mono")
        cover: Any = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(indexed_frame(5, 64, 48))))
        container.mux(cover.encode(None))
        frame = av.AudioFrame.from_ndarray(sine(44100, 44100, [440.0], 0.5), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    media = read(path, BOTH)
    assert isinstance(media.frames, ExtractionError)
    assert media.frames.cause == "no_video_stream"
    assert tone(media.require_waveform().samples, 16000) == pytest.approx((440.0, 0.5), rel=0.02)


@pytest.mark.shared_data
@pytest.mark.skipif(not GRID.is_dir(), reason="the GRID clips are not beside the checkout (../shared/data/grid)")
def test_grid_clips() -> None:
    for path in sorted(GRID.glob("*.mpg"))[:6]:
        media = read(path, BOTH)
        batch = media.require_frames()
        assert batch.frames.shape == (8, 3, 288, 360)
        assert batch.pts_seconds == pytest.approx([3.0 / 8 * (i + 0.5) for i in range(8)], abs=0.06)
        assert np.abs(np.diff(batch.frames.astype(int), axis=0)).max() > 10  # the face moves
        assert len(media.require_waveform().samples) == pytest.approx(3.0 * 16000, abs=800)
