"""CREMA-D on its real layout; media are empty files but where one is opened, as no reader opens any."""

from pathlib import Path

import pytest
from media_factory import write_clip

from extractors.errors import ExtractionError
from extractors.frame_sampling import FrameSampling
from extractors.media import MediaNeeds, read_media
from pipeline.corpora import read_corpus
from pipeline.corpora.base import Corpus
from pipeline.corpora.crema_d import read_crema_d
from pipeline.errors import PipelineError
from pipeline.manifest import to_clip

LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 91234\n"


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def found(corpus: Corpus) -> list[tuple[str, str]]:
    return sorted((problem.kind, problem.where) for problem in corpus.problems)


def test_names_give_words_labels_and_actors(tmp_path: Path) -> None:
    touch(tmp_path, *(f"VideoFlash/{name}.flv" for name in ("1001_IEO_ANG_HI", "1091_WSI_NEU_XX", "1040_ITH_SAD_X")))
    touch(tmp_path, "README.md", "SentenceFilenames.csv", "processedResults/summaryTable.csv")
    corpus = read_crema_d(tmp_path)
    assert [(clip.clip_id, clip.transcript, clip.video) for clip in corpus.clips] == [
        ("1001_IEO_ANG_HI", "It's eleven o'clock", "1001"),
        ("1040_ITH_SAD_X", "I think I have a doctor's appointment", "1040"),  # so named in the corpus
        ("1091_WSI_NEU_XX", "We'll stop in a couple of minutes", "1091"),
    ]
    assert corpus.labels == {"1001_IEO_ANG_HI": "anger", "1040_ITH_SAD_X": "sad", "1091_WSI_NEU_XX": "neutral"}
    assert corpus.problems == []


def test_video_goes_before_sound_and_wav_before_mp3(tmp_path: Path) -> None:
    touch(tmp_path, "VideoFlash/1001_IEO_ANG_HI.flv", "AudioWAV/1001_IEO_ANG_HI.wav", "AudioMP3/1001_IEO_ANG_HI.mp3")
    touch(tmp_path, "AudioWAV/1001_TIE_SAD_XX.wav", "AudioMP3/1001_TIE_SAD_XX.mp3", "AudioMP3/1002_TIE_SAD_XX.mp3")
    corpus = read_crema_d(tmp_path)
    assert [clip.media for clip in corpus.clips] == [
        "VideoFlash/1001_IEO_ANG_HI.flv",
        "AudioWAV/1001_TIE_SAD_XX.wav",
        "AudioMP3/1002_TIE_SAD_XX.mp3",
    ]
    assert len(corpus.labels) == 3
    assert corpus.problems == []


def test_copies_are_passed_over_and_what_is_no_copy_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "a/1001_IEO_ANG_HI.flv", "b/1001_IEO_ANG_HI.flv", "b/1001_IEO_ANG_HI.mp4", "c/1001_IEO_ANG_HI.flv")
    (tmp_path / "c/1001_IEO_ANG_HI.flv").write_bytes(b"another")
    corpus = read_crema_d(tmp_path)
    assert [clip.media for clip in corpus.clips] == ["a/1001_IEO_ANG_HI.flv"]
    assert found(corpus) == [("duplicate_id", "c/1001_IEO_ANG_HI.flv")]


def test_files_that_git_lfs_did_not_fetch_are_told_where_they_are_missed(tmp_path: Path) -> None:
    touch(tmp_path, "VideoFlash/1001_IEO_ANG_HI.flv", "AudioWAV/1002_IEO_ANG_HI.wav")
    pointers = ["AudioMP3/1001_IEO_ANG_HI.mp3", "VideoFlash/1002_IEO_ANG_HI.flv"]
    pointers += ["VideoFlash/1003_IEO_ANG_HI.flv", "AudioWAV/1003_IEO_ANG_HI.wav", "processedResults/summaryTable.csv"]
    touch(tmp_path, *pointers)
    for path in pointers:
        (tmp_path / path).write_text(LFS_POINTER.format("0" * 64))
    corpus = read_crema_d(tmp_path)
    assert [clip.media for clip in corpus.clips] == ["VideoFlash/1001_IEO_ANG_HI.flv", "AudioWAV/1002_IEO_ANG_HI.wav"]
    assert found(corpus) == [
        ("missing_file", "VideoFlash/1002_IEO_ANG_HI.flv"),  # the sound stands in
        ("missing_file", "VideoFlash/1003_IEO_ANG_HI.flv"),  # lost, and told once
    ]
    assert "git lfs pull" in corpus.problems[0].message


def test_names_of_something_else_are_told(tmp_path: Path) -> None:
    odd = ["1001_IEO_JOY_HI.flv", "1001_XXX_ANG_HI.flv", "1001_IEO_ANG_UP.flv", "101_IEO_ANG_HI.wav", "holiday.mp4"]
    touch(tmp_path, "VideoFlash/1001_IEO_ANG_HI.flv", *odd)
    corpus = read_crema_d(tmp_path)
    assert len(corpus.clips) == 1
    assert found(corpus) == sorted(("unreadable_row", name) for name in odd)
    (tmp_path / "VideoFlash/1001_IEO_ANG_HI.flv").unlink()
    with pytest.raises(PipelineError, match="no clips in .*: looked for VideoFlash/<actor>_.*first problem: "):
        read_crema_d(tmp_path)


def test_it_takes_no_settings(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"corpus\.table: unknown setting of a crema_d corpus 'table'; known: none"):
        read_corpus("crema_d", tmp_path, table="a.csv")


def test_the_clip_without_sound_keeps_its_picture(tmp_path: Path) -> None:
    (tmp_path / "VideoFlash").mkdir()
    write_clip(tmp_path / "VideoFlash/1076_MTI_SAD_XX.flv", audio_codec=None, duration_s=0.4)
    [clip] = read_crema_d(tmp_path).clips
    read = read_media(to_clip(clip, tmp_path), MediaNeeds(FrameSampling(count=2), sample_rate_hz=16000))
    read.require_frames()
    with pytest.raises(ExtractionError) as error:
        read.require_waveform()
    assert error.value.cause == "no_audio_stream"
