"""RAVDESS on its real layouts; media are empty files, since no reader opens one."""

from pathlib import Path

import pytest

from pipeline.corpora.base import Corpus
from pipeline.corpora.ravdess import EMOTIONS, read_ravdess
from pipeline.errors import PipelineError


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def media(corpus: Corpus) -> list[str]:
    return [clip.media for clip in corpus.clips]


def test_names_give_words_labels_and_actors(tmp_path: Path) -> None:
    touch(tmp_path, *(f"Actor_12/01-01-0{n}-01-02-01-12.mp4" for n in range(1, 9)), "Actor_24/01-02-02-02-01-02-24.mp4")
    corpus = read_ravdess(tmp_path)
    assert [corpus.labels[f"01-01-0{n}-01-02-01-12"] for n in range(1, 9)] == list(EMOTIONS)
    first, last = corpus.clips[0], corpus.clips[-1]
    assert (first.clip_id, first.transcript, first.video) == (
        "01-01-01-01-02-01-12",
        "Dogs are sitting by the door",
        "Actor_12",
    )
    assert (last.transcript, last.video, corpus.labels[last.clip_id]) == (
        "Kids are talking by the door",
        "Actor_24",
        "calm",
    )
    assert corpus.problems == []


def test_every_archive_is_read_and_a_recording_is_one_clip(tmp_path: Path) -> None:
    # As the archives of a video, of song and of all sounds unpack, each in a folder of its own.
    touch(
        tmp_path,
        "Video_Speech_Actor_01/Actor_01/01-01-05-01-01-01-01.mp4",
        "Video_Speech_Actor_01/Actor_01/02-01-05-01-01-01-01.mp4",
        "Video_Song_Actor_01/Actor_01/01-02-05-01-01-01-01.mp4",
        "Video_Song_Actor_01/Actor_01/02-02-05-01-01-01-01.mp4",
        "Audio_Speech_Actors_01-24/Actor_01/03-01-05-01-01-01-01.wav",
        "Audio_Speech_Actors_01-24/Actor_02/03-01-05-01-01-01-02.wav",
        "FacialTracking_Actors_01-24/01-01-05-01-01-01-01.csv",
    )
    corpus = read_ravdess(tmp_path)
    assert media(corpus) == [
        "Video_Speech_Actor_01/Actor_01/01-01-05-01-01-01-01.mp4",
        "Video_Song_Actor_01/Actor_01/01-02-05-01-01-01-01.mp4",
        "Audio_Speech_Actors_01-24/Actor_02/03-01-05-01-01-01-02.wav",
    ]
    assert set(corpus.labels) == {clip.clip_id for clip in corpus.clips}
    assert corpus.problems == []


def test_sound_alone_goes_before_a_picture_alone(tmp_path: Path) -> None:
    touch(tmp_path, "Actor_01/02-01-05-01-01-01-01.mp4", "Actor_01/03-01-05-01-01-01-01.wav")
    touch(tmp_path, "Actor_02/02-01-05-01-01-01-02.mp4")
    assert media(read_ravdess(tmp_path)) == [
        "Actor_02/02-01-05-01-01-01-02.mp4",
        "Actor_01/03-01-05-01-01-01-01.wav",
    ]


def test_a_folder_that_holds_everything_again_costs_nothing(tmp_path: Path) -> None:
    names = [f"Actor_01/03-01-0{n}-01-01-01-01.wav" for n in (3, 4)]
    touch(tmp_path, *names, *(f"audio_speech_actors_01-24/{name}" for name in names))
    corpus = read_ravdess(tmp_path)
    assert media(corpus) == names
    assert corpus.problems == []


def test_names_of_something_else_are_told(tmp_path: Path) -> None:
    odd = ["01-01-09-01-01-01-01.mp4", "01-01-05-01-03-01-01.mp4", "01-01-05-01-01-01.mp4", "01-01-05-01-01-01-25.mp4"]
    touch(tmp_path, *odd)
    with pytest.raises(PipelineError, match=r"no clips in .*: looked for Actor_<n>/<modality>-<six more codes>\.mp4"):
        read_ravdess(tmp_path)
    touch(tmp_path, "Actor_01/01-01-05-01-01-01-01.mp4")
    problems = read_ravdess(tmp_path).problems
    assert sorted((problem.kind, problem.where) for problem in problems) == [("unreadable_row", n) for n in sorted(odd)]
