"""Frames that no other refers to and no target falls on are passed over undecoded; what is kept is the same."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_factory import sine, write_clip

from extractors import frame_reader
from extractors.clip import Clip
from extractors.frame_sampling import FrameSampling
from extractors.media import FrameBatch, MediaNeeds, read_media

SAMPLINGS = ({"count": 8}, {"count": 1}, {"fps": 3}, {"fps": 100})


def film(path: Path, codec: str, options: dict[str, str], n_frames: int = 90) -> Path:
    """96 x 64, 30 fps, moving texture, so that every frame differs from its neighbours; no key frame but the first."""
    texture = np.random.default_rng(0).integers(0, 256, (16, 40, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options={"g": "250", **options})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(n_frames):
            left = 2 * (index % 100)
            picture = texture[index % 16 : index % 16 + 64, left : left + 96]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def frames_of(path: Path, start_s: float = 0.0, end_s: float | None = None, **sampling) -> FrameBatch:
    clip = Clip("c", str(path), start_s=start_s, end_s=end_s)
    return read_media(clip, MediaNeeds(frames=FrameSampling(**sampling))).require_frames()


@pytest.fixture
def decoded(monkeypatch):
    """Counts the frames that come out of the decoder."""
    count = []
    take = frame_reader.FrameReader._take
    monkeypatch.setattr(
        frame_reader.FrameReader, "_take", lambda reader, frame, time_s: (count.append(1), take(reader, frame, time_s))
    )
    return count


@pytest.mark.parametrize(
    ("codec", "suffix", "options"),
    [
        ("libx264", ".mp4", {"bf": "3", "b-pyramid": "normal"}),
        ("libx264", ".mkv", {"bf": "8", "b-pyramid": "strict", "refs": "6"}),
        ("libx264", ".ts", {"bf": "3"}),
        ("libx264", ".mp4", {"bf": "0"}),
        ("libx265", ".mp4", {"x265-params": "log-level=none:bframes=4"}),
        ("mpeg1video", ".mpg", {"bf": "2"}),
        ("mpeg2video", ".ts", {"bf": "2"}),
        ("mpeg4", ".avi", {"bf": "2"}),
        ("libvpx", ".webm", {"deadline": "realtime", "b": "1M"}),
    ],
)
def test_the_kept_frames_are_those_of_a_full_decoding(tmp_path, monkeypatch, codec, suffix, options):
    path = film(tmp_path / f"film{suffix}", codec, options)
    spans = [(0.0, None), (0.71, 2.3)]
    found = [frames_of(path, *span, **sampling) for span in spans for sampling in SAMPLINGS]
    monkeypatch.setattr(frame_reader, "SKIPPING", ())
    whole = [frames_of(path, *span, **sampling) for span in spans for sampling in SAMPLINGS]
    for ours, expected in zip(found, whole, strict=True):
        assert np.array_equal(ours.pts_seconds, expected.pts_seconds)
        assert np.array_equal(ours.frames, expected.frames)


def test_half_the_frames_of_h264_are_passed_over_where_few_are_kept(tmp_path, decoded):
    path = film(tmp_path / "film.mp4", "libx264", {"bf": "3", "b-pyramid": "normal"}, n_frames=180)
    frames_of(path, count=4)
    few = len(decoded)
    decoded.clear()
    frames_of(path, fps=30)
    assert len(decoded) == 180
    assert few < 0.7 * 180


def test_a_clock_that_starts_anew_changes_nothing(tmp_path, monkeypatch):
    parts = [film(tmp_path / f"{name}.ts", "libx264", {"bf": "2"}, n_frames=45).read_bytes() for name in "ab"]
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(parts))
    found = [frames_of(both, **sampling) for sampling in SAMPLINGS]
    monkeypatch.setattr(frame_reader, "SKIPPING", ())
    for ours, sampling in zip(found, SAMPLINGS, strict=True):
        whole = frames_of(both, **sampling)
        assert np.array_equal(ours.pts_seconds, whole.pts_seconds)
        assert np.array_equal(ours.frames, whole.frames)


def test_a_waveform_does_not_depend_on_how_much_is_resampled_at_once(tmp_path, monkeypatch):
    from extractors import waveform_reader

    sound = sine(3 * 44_100, 44_100, (330.0, 500.0), 0.4)
    path = write_clip(tmp_path / "sound.mp4", video_codec=None, audio=sound, sample_rate_hz=44_100)
    clip, needs = Clip("c", str(path), start_s=0.3, end_s=2.7), MediaNeeds(sample_rate_hz=16_000)
    at_once = read_media(clip, needs).require_waveform().samples
    monkeypatch.setattr(waveform_reader, "BLOCK_S", 0.0)
    assert np.array_equal(read_media(clip, needs).require_waveform().samples, at_once)
