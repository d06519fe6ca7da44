"""What a header tells, and that it says of broken files what reading them would."""

import os
from pathlib import Path

import pytest
from media_factory import indexed_frame, write_clip

from extractors import frame_reader
from extractors.clip import Clip
from extractors.errors import ExtractionError
from extractors.frame_sampling import FrameSampling
from extractors.media import MediaNeeds, read_media
from extractors.media_header import MediaHeader, read_header

BOTH = MediaNeeds(frames=FrameSampling(count=1), sample_rate_hz=16000)


def told(failure):
    return failure and (failure.stage, failure.cause, failure.message)


def as_read(path: Path) -> tuple:
    """(video, audio): what reading the whole clip says of each, None where it is well."""
    media = read_media(Clip("c", str(path)), BOTH)
    return tuple(told(p) if isinstance(p, ExtractionError) else None for p in (media.frames, media.waveform))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".flv"])
def test_a_whole_file_has_a_duration_and_nothing_against_it(tmp_path, suffix):
    header = read_header(str(write_clip(tmp_path / f"a{suffix}", duration_s=2.0)))
    assert header == MediaHeader(header.duration_s, None, None)
    assert header.duration_s == pytest.approx(2.0, abs=0.1)


def test_a_stream_that_is_missing_is_told_as_reading_tells_it(tmp_path):
    for name, kept in (("silent", {"audio_codec": None}), ("dark", {"video_codec": None})):
        path = write_clip(tmp_path / f"{name}.mp4", **kept)
        header = read_header(str(path))
        assert (told(header.video), told(header.audio)) == as_read(path)
        assert None in as_read(path)
        assert header.duration_s == pytest.approx(1.0, abs=0.1)


def test_a_header_without_a_duration(tmp_path):
    path = write_clip(tmp_path / "live.webm", muxer_options={"live": "1"})
    assert read_header(str(path)) == MediaHeader(None, None, None)


def write_hostile(folder: Path) -> dict[str, Path]:
    """Files that no clip can be had from, by what they are."""
    cut = write_clip(folder / "cut.mp4")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    write_clip(folder / "other.mp4")
    (folder / "playlist.mp4").write_text("ffconcat version 1.0\nfile other.mp4\n")
    (folder / "hls.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nother.mp4\n#EXT-X-ENDLIST\n")
    (folder / "text.mp4").write_text("a text, not a film\n" * 200)
    (folder / "noise.mp4").write_bytes(os.urandom(5000))
    (folder / "empty.mp4").touch()
    (folder / "folder.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    return {name: folder / f"{name}.mp4" for name in (*HOSTILE, "gone")}


HOSTILE = {
    **dict.fromkeys(("cut", "playlist", "hls", "text", "noise", "folder", "pipe"), "undecodable"),
    "empty": "empty_file",
}


def test_hostile_files_fail_with_the_words_of_reading_them(tmp_path):
    causes = {**HOSTILE, "gone": "missing_file"}
    for name, path in write_hostile(tmp_path).items():
        header = read_header(str(path))
        assert isinstance(header, ExtractionError)
        assert (name, header.cause) == (name, causes[name])
        assert as_read(path) == (told(header), told(header))


def test_a_picture_and_frames_too_large_are_refused_by_the_header(tmp_path, monkeypatch):
    cv2 = pytest.importorskip("cv2")
    assert cv2.imwrite(str(tmp_path / "photo.png"), indexed_frame(3, 64, 48))
    path = (tmp_path / "photo.png").rename(tmp_path / "photo.mp4")
    header = read_header(str(path))
    assert (told(header.video), told(header.audio)) == as_read(path)
    assert "a picture (png), not a video" in header.video.message
    monkeypatch.setattr(frame_reader, "MAX_FRAME_PIXELS", 64 * 48 - 1)
    assert "frames of 64 x 48 pixels" in read_header(str(write_clip(tmp_path / "vast.mp4"))).video.message


def test_a_demuxers_surprise_is_the_files_failure(tmp_path, monkeypatch):
    def surprise(path):
        raise RuntimeError("never seen before")

    monkeypatch.setattr("extractors.media_header.open_container", surprise)
    header = read_header(str(write_clip(tmp_path / "a.mp4", duration_s=0.2)))
    assert (header.cause, header.message) == ("unexpected", "RuntimeError: never seen before")
