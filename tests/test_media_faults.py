"""Files that are broken, lie or are no video: each has its cause and a message, and loses no more than it must."""

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media_factory import frame_index, indexed_frame, sine, write_clip

from extractors import frame_reader, waveform_reader
from extractors.clip import Clip
from extractors.errors import ExtractionError
from extractors.frame_sampling import FrameSampling
from extractors.media import Media, MediaNeeds, read_media

BOTH = MediaNeeds(frames=FrameSampling(count=8), sample_rate_hz=16000)


def read(path: Path, start_s: float = 0.0, end_s: float | None = None, needs: MediaNeeds = BOTH) -> Media:
    return read_media(Clip("c", str(path), start_s, end_s), needs)


def indices(media: Media) -> list[int]:
    return [frame_index(frame) for frame in media.require_frames().frames]


def fails(part: Any, cause: str, message: str) -> None:
    """This modality is an ExtractionError of the reading, whose message names the file."""
    assert isinstance(part, ExtractionError)
    assert (part.stage, part.cause) == ("read", cause)
    with pytest.raises(ExtractionError, match=message):
        raise part
    assert "\n" not in part.message


def both_fail(path: Path, cause: str, message: str, start_s: float = 0.0, end_s: float | None = None) -> None:
    media = read(path, start_s, end_s)
    for part in (media.frames, media.waveform):
        fails(part, cause, rf"{path.name}: {message}")


# No file, or none that holds media


def test_missing_file(tmp_path: Path) -> None:
    both_fail(tmp_path / "gone.mp4", "missing_file", "no such file; check the corpus' root")
    (tmp_path / "file").write_text("x")
    both_fail(tmp_path / "file" / "clip.mp4", "missing_file", "no such file")
    fails(read(Path("a\0b.mp4")).frames, "missing_file", "no such file")


def test_url_is_a_file_name_like_any_other() -> None:
    fails(read(Path("http://localhost/clip.mp4")).frames, "missing_file", "no such file")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    both_fail(tmp_path / "empty.mp4", "empty_file", "0 bytes; copy it again")


def test_folder(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    both_fail(tmp_path / "folder.mp4", "undecodable", "not a file; expected a video or audio file")


def test_named_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    both_fail(tmp_path / "pipe.mp4", "undecodable", "not a file")


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "secret.mp4", duration_s=0.2)
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads anything

        def refuse(*_: Any) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("extractors.media.open", refuse, raising=False)
    both_fail(path, "permission_denied", "may not be read by this user; change its permissions")


def test_path_that_the_system_refuses(tmp_path: Path) -> None:
    both_fail(tmp_path / ("x" * 300), "undecodable", r"cannot be opened \(File name too long\); check the path")


@pytest.mark.parametrize("content", [b"a text, not a film\n" * 200, bytes(5000), os.urandom(5000), b"\0"])
def test_garbage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "garbage.mp4").write_bytes(content)
    both_fail(tmp_path / "garbage.mp4", "undecodable", r"not readable as video or audio \(.*\); play it")


def test_mp4_cut_before_its_index(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "cut.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    both_fail(path, "undecodable", "not readable as video or audio")


def test_playlist_reads_no_other_file(tmp_path: Path) -> None:
    write_clip(tmp_path / "other.mp4", duration_s=0.2)
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile other.mp4\n")
    both_fail(tmp_path / "list.mp4", "undecodable", "a playlist, not a video; put the video itself there")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
def test_picture_named_mp4(tmp_path: Path, suffix: str) -> None:
    cv2 = pytest.importorskip("cv2")
    assert cv2.imwrite(str(tmp_path / f"photo{suffix}"), indexed_frame(3, 64, 48))
    path = (tmp_path / f"photo{suffix}").rename(tmp_path / "photo.mp4")
    media = read(path)
    fails(media.frames, "undecodable", r"photo\.mp4: a picture \(\w+\), not a video; put the video there")
    fails(media.waveform, "no_audio_stream", r"photo\.mp4: expected audio, the file holds video; replace the file")


# One modality missing or broken: the other is kept


def test_video_without_audio(tmp_path: Path) -> None:
    media = read(write_clip(tmp_path / "silent.mp4", audio_codec=None))
    assert len(media.require_frames().frames) == 8
    fails(media.waveform, "no_audio_stream", "expected audio, the file holds video")


def test_audio_without_video(tmp_path: Path) -> None:
    media = read(write_clip(tmp_path / "dark.mp4", video_codec=None))
    fails(media.frames, "no_video_stream", "expected video, the file holds audio")
    assert len(media.require_waveform().samples) == pytest.approx(16000, abs=400)


@pytest.mark.parametrize(
    ("codec_id", "failed", "kept"), [(b"V_FFV1", "frames", "waveform"), (b"A_FLAC", "waveform", "frames")]
)
def test_unknown_codec(tmp_path: Path, codec_id: bytes, failed: str, kept: str) -> None:
    path = write_clip(tmp_path / "new.mkv")
    path.write_bytes(path.read_bytes().replace(codec_id, codec_id[:2] + b"NEW1"))
    media = read(path)
    fails(getattr(media, failed), "undecodable", "codec has no decoder here; re-encode it")
    assert not isinstance(getattr(media, kept), ExtractionError)


def test_stream_of_which_nothing_decodes(tmp_path: Path) -> None:
    path = tmp_path / "noise.mkv"
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for i in range(5):
            for packet in video.encode(av.VideoFrame.from_ndarray(indexed_frame(i, 64, 48))):
                noise = av.Packet(bytes([255] * packet.size))
                noise.stream, noise.pts, noise.dts = video, i, i
                noise.time_base = packet.time_base
                container.mux(noise)
    fails(read(path).frames, "undecodable", "none of its video can be decoded .*; copy the file again or re-encode")


def test_sound_that_is_not_finite(tmp_path: Path) -> None:
    audio = sine(16000, 16000, [440.0], 0.5)
    audio[0, 5000:5010] = np.nan
    path = write_clip(tmp_path / "nan.mov", audio_codec="pcm_f32le", audio=audio, sample_rate_hz=16000)
    media = read(path)
    fails(media.waveform, "not_finite", "its audio holds NaN or infinite samples; re-encode it")
    assert len(media.require_frames().frames) == 8


# Spans that hold nothing


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mpg", ".avi"])
@pytest.mark.parametrize("end_s", [None, 6.0])
def test_span_beyond_the_end(tmp_path: Path, suffix: str, end_s: float | None) -> None:
    path = write_clip(tmp_path / f"short{suffix}", duration_s=1.0)
    media = read(path, 5.0, end_s)
    span = "from 5 s on" if end_s is None else "from 5 s to 6 s"
    fails(media.frames, "too_short", rf"no video {span}: it ends at (1|0\.9|1\.0)\d* s; check the clip's start_s")
    fails(media.waveform, "too_short", rf"no audio {span}: it ends at 1(\.\d+)? s; check the clip's start_s and end_s")


def test_span_before_the_first_frame(tmp_path: Path) -> None:
    frames = [indexed_frame(i, 64, 48) for i in range(3)]
    path = write_clip(tmp_path / "late.mkv", frames=frames, frame_times_s=[4.0, 4.1, 4.2], duration_s=6.0)
    media = read(path, 0.0, 2.0)
    fails(media.frames, "too_short", "no video from 0 s to 2 s")
    assert len(media.require_waveform().samples) == 32000


# Damaged and lying files: what decodes is used


@pytest.mark.parametrize(("suffix", "share"), [(".mkv", 0.5), (".mpg", 0.2), (".webm", 0.5), (".flv", 0.5)])
def test_clip_cut_short(tmp_path: Path, suffix: str, share: float) -> None:
    path = write_clip(tmp_path / f"cut{suffix}", duration_s=4.0)
    path.write_bytes(path.read_bytes()[: round(path.stat().st_size * share)])
    media = read(path)
    kept = indices(media)
    n_left = indices(read(path, needs=MediaNeeds(frames=FrameSampling(fps=25))))[-1] + 1
    assert n_left < 95
    # Some headers still say 4 s; the frames are spread over what there is.
    assert kept == pytest.approx([n_left / 8 * (i + 0.5) for i in range(8)], abs=1.5)
    assert 3000 < len(media.require_waveform().samples) < 60000


def set_matroska_duration(path: Path, duration_ms: float) -> None:
    content = bytearray(path.read_bytes())
    place = content.index(b"\x44\x89\x88") + 3  # the Duration element, a double of 8 bytes
    content[place : place + 8] = struct.pack(">d", duration_ms)
    path.write_bytes(content)


@pytest.mark.parametrize("claimed_ms", [300.0, 1000.0, 60_000.0, 1e12])
def test_header_that_lies_about_the_duration(tmp_path: Path, claimed_ms: float) -> None:
    path = write_clip(tmp_path / "liar.mkv", duration_s=4.0)
    set_matroska_duration(path, claimed_ms)
    assert indices(read(path)) == [6, 18, 31, 43, 56, 68, 81, 93]
    needs = MediaNeeds(frames=FrameSampling(fps=2))
    assert indices(read(path, needs=needs)) == [0, 12, 25, 37, 50, 62, 75, 87]
    assert indices(read(path, 2.0, 3.0, needs)) == [50, 62]


def test_header_without_a_duration(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "live.webm", duration_s=4.0, muxer_options={"live": "1"})
    with av.open(str(path)) as container:
        assert container.duration is None
    assert indices(read(path)) == [6, 18, 31, 43, 56, 68, 81, 93]


@pytest.mark.parametrize("suffix", [".mp4", ".mpg", ".mkv", ".avi"])
def test_corruption_in_the_middle(tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_clip(tmp_path / f"hit{suffix}", duration_s=3.0, gop=10)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 1500] = np.random.default_rng(0).bytes(1500)
    path.write_bytes(content)
    media = read(path)
    assert len(media.require_frames().frames) >= 6
    assert len(media.require_waveform().samples) > 24000
    assert capfd.readouterr() == ("", "")  # FFmpeg says nothing


# Bounds


def test_absurd_frame_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "vast.mp4")
    monkeypatch.setattr(frame_reader, "MAX_FRAME_PIXELS", 64 * 48 - 1)
    media = read(path)
    fails(media.frames, "undecodable", "frames of 64 x 48 pixels; scale it to at most 0 megapixels")
    assert len(media.require_waveform().samples) > 15000


def test_more_frames_than_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_reader, "MAX_KEPT_BYTES", 3 * 64 * 48 * 3)
    fails(
        read(write_clip(tmp_path / "many.mp4")).frames,
        "out_of_memory",
        "sampled frames exceed .* GiB; sample fewer or cut it with start_s, end_s",
    )


def test_video_of_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_reader, "MAX_VIDEO_S", 0.5)
    path = write_clip(tmp_path / "days.mp4")
    fails(read(path).frames, "out_of_memory", "longer than .* h; cut it with start_s and end_s")
    assert len(read(path, 0.25, 0.5).require_frames().frames) > 0


def test_audio_of_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waveform_reader, "MAX_AUDIO_S", 0.5)
    path = write_clip(tmp_path / "hours.mp4")
    media = read(path)
    fails(media.waveform, "out_of_memory", "more than .* h of audio; cut the clip with start_s and end_s")
    assert len(media.require_frames().frames) == 8
    assert len(read(path, 0.0, 0.25).require_waveform().samples) == 4000


def test_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: Any) -> None:
        raise MemoryError

    path = write_clip(tmp_path / "big.mp4")
    monkeypatch.setattr(frame_reader.np, "stack", exhausted)
    media = read(path)
    fails(media.frames, "out_of_memory", "its video does not fit in memory; cut it shorter")


def test_reading_needs_no_torch() -> None:
    command = "import sys, extractors.media; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0
