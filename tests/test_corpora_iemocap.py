"""IEMOCAP on a tree like the full release, quirks included; media are empty files but where one is cut."""

from pathlib import Path

import numpy as np
import pytest
from media_factory import frame_index, sine, write_clip

from extractors.frame_sampling import FrameSampling
from extractors.media import MediaNeeds, read_media
from pipeline.corpora import read_corpus
from pipeline.corpora.base import Corpus, CorpusClip
from pipeline.corpora.iemocap import read_iemocap
from pipeline.errors import PipelineError
from pipeline.manifest import to_clip

DIALOG = "Session1/dialog"
FILM, SOUND = f"{DIALOG}/avi/DivX/Ses01F_impro01.avi", f"{DIALOG}/wav/Ses01F_impro01.wav"
SENTENCES = "Session1/sentences/wav/Ses01F_impro01"
TRANSCRIPTION = f"{DIALOG}/transcriptions/Ses01F_impro01.txt"
EVALUATION = f"{DIALOG}/EmoEvaluation/Ses01F_impro01.txt"
SAID = (
    "Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.\n"
    "M: Yeah.\n"
    "Ses01F_impro01_M000 [007.5712-010.4750]: Do you have your forms? [LAUGHTER]\n"
    "Ses01F_impro01_FXX0 [012.0000-013.2500]: Mm: yes.\n"
)
JUDGED = (
    "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
    "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\n"
    "C-E2:\tNeutral;\t()\nA-E3:\tval 3; act 2; dom  2;\t()\n\n"
    "[7.5712 - 10.4750]\tSes01F_impro01_M000\txxx\t[2.5000, 3.0000, 3.0000]\n"
    "C-E2:\tNeutral; Frustration;\t(curious)\n"
)


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def write(root: Path, path: str, text: str | bytes) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(text.encode() if isinstance(text, str) else text)


def found(corpus: Corpus) -> list[tuple[str, str]]:
    return sorted((problem.kind, problem.where) for problem in corpus.problems)


def clips(corpus: Corpus) -> dict[str, tuple[str, float, float | None]]:
    return {clip.clip_id: (clip.media, clip.start_s, clip.end_s) for clip in corpus.clips}


@pytest.fixture
def iemocap(tmp_path: Path) -> Path:
    touch(tmp_path, FILM, SOUND, f"{DIALOG}/avi/DivX/._Ses01F_impro01.avi", f"{DIALOG}/MOCAP_head/Ses01F_impro01.txt")
    touch(tmp_path, *(f"{SENTENCES}/Ses01F_impro01_{n}.wav" for n in ("F000", "M000")), "Documentation/timeinfo.txt")
    write(tmp_path, TRANSCRIPTION, SAID)
    write(tmp_path, EVALUATION, JUDGED)
    judge = f"{DIALOG}/EmoEvaluation/Categorical/Ses01F_impro01_e2_cat.txt"
    write(tmp_path, judge, "Ses01F_impro01_F000 :Anger; ()\n")
    return tmp_path


def test_clips_are_spans_of_the_dialogs_film(iemocap: Path) -> None:
    corpus = read_corpus("iemocap", iemocap)
    assert corpus.clips == [
        CorpusClip("Ses01F_impro01_F000", FILM, 6.2901, 8.2357, "Excuse me.", "Session1"),
        CorpusClip("Ses01F_impro01_FXX0", FILM, 12.0, 13.25, "Mm: yes.", "Session1"),
        CorpusClip("Ses01F_impro01_M000", FILM, 7.5712, 10.475, "Do you have your forms? [LAUGHTER]", "Session1"),
    ]
    assert found(corpus) == [("transcript_without_clip", f"{TRANSCRIPTION}:2")]  # M: Yeah.


def test_no_agreement_is_no_label_and_neither_is_one_judges_word(iemocap: Path) -> None:
    assert read_iemocap(iemocap).labels == {"Ses01F_impro01_F000": "neu"}


def test_a_session_is_one_video_since_its_actors_are_in_all_its_dialogs(iemocap: Path) -> None:
    other = "Session5/dialog/transcriptions/Ses05M_script01_1b.txt"
    write(iemocap, other, "Ses05M_script01_1b_F000 [1.0-2.0]: Hi.\nSes05M_script01_1b_M000 [2.0-3.0]: Hm.\n")
    write(iemocap, "Session5/dialog/transcriptions/Ses05F_impro02.txt", "Ses05F_impro02_F000 [1.0-2.0]: Well.\n")
    touch(iemocap, *(f"Session5/dialog/avi/DivX/{dialog}.avi" for dialog in ("Ses05M_script01_1b", "Ses05F_impro02")))
    videos = {clip.clip_id: clip.video for clip in read_iemocap(iemocap).clips if clip.clip_id.startswith("Ses05")}
    assert videos == dict.fromkeys(
        ("Ses05F_impro02_F000", "Ses05M_script01_1b_F000", "Ses05M_script01_1b_M000"), "Session5"
    )


def test_the_release_may_lie_in_a_folder_of_its_own(iemocap: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    around = tmp_path_factory.mktemp("around")
    (iemocap / "Session1_copy").mkdir()  # no session
    iemocap.rename(around / "IEMOCAP_full_release")
    corpus = read_iemocap(around)
    assert corpus.clips[0].media == f"IEMOCAP_full_release/{FILM}"
    assert [clip.video for clip in corpus.clips] == ["Session1"] * 3


def test_without_a_film_the_sentence_is_the_clip_and_else_the_dialogs_sound(iemocap: Path) -> None:
    (iemocap / FILM).unlink()
    (iemocap / SENTENCES / "Ses01F_impro01_M000.wav").unlink()
    corpus = read_iemocap(iemocap)
    assert clips(corpus) == {
        "Ses01F_impro01_F000": (f"{SENTENCES}/Ses01F_impro01_F000.wav", 0.0, None),
        "Ses01F_impro01_M000": (SOUND, 7.5712, 10.475),
        "Ses01F_impro01_FXX0": (SOUND, 12.0, 13.25),
    }
    assert corpus.clips[0].transcript == "Excuse me."


def test_an_utterance_without_any_media_is_told(iemocap: Path) -> None:
    (iemocap / FILM).unlink()
    (iemocap / SOUND).unlink()
    write(iemocap, EVALUATION, JUDGED + "[20.1 - 21.5]\tSes01F_impro01_M009\tang\t[1.0, 4.0, 4.0]\n")
    corpus = read_iemocap(iemocap)
    assert set(clips(corpus)) == {"Ses01F_impro01_F000", "Ses01F_impro01_M000"}
    assert found(corpus) == [
        ("label_without_clip", f"{EVALUATION}:9"),
        ("transcript_without_clip", f"{TRANSCRIPTION}:2"),
        ("transcript_without_clip", f"{TRANSCRIPTION}:4"),
    ]
    assert "no Ses01F_impro01.avi, Ses01F_impro01_FXX0.wav or Ses01F_impro01.wav" in corpus.problems[1].message


def test_a_line_without_times_takes_them_from_the_evaluation_or_its_sentence(iemocap: Path) -> None:
    said = "Ses01F_impro01_F000: Excuse me.\nSes01F_impro01_M000 : Yes?\nSes01F_impro01_FXX0: Mm.\n"
    write(iemocap, TRANSCRIPTION, said)
    write(iemocap, EVALUATION, JUDGED.split("[7.5712")[0])
    corpus = read_iemocap(iemocap)
    assert clips(corpus) == {
        "Ses01F_impro01_F000": (FILM, 6.2901, 8.2357),
        "Ses01F_impro01_M000": (f"{SENTENCES}/Ses01F_impro01_M000.wav", 0.0, None),
    }
    assert found(corpus) == [("transcript_without_clip", f"{TRANSCRIPTION}:3")]
    assert "no times for 'Ses01F_impro01_FXX0'" in corpus.problems[0].message


def test_what_the_transcriptions_leave_out_is_a_clip_without_words(iemocap: Path) -> None:
    (iemocap / TRANSCRIPTION).unlink()
    touch(iemocap, f"{SENTENCES}/Ses01F_impro01_M007.wav", f"{DIALOG}/avi/DivX/Ses01M_impro02.avi")
    corpus = read_iemocap(iemocap)
    assert clips(corpus) == {
        "Ses01F_impro01_F000": (FILM, 6.2901, 8.2357),
        "Ses01F_impro01_M000": (FILM, 7.5712, 10.475),
        "Ses01F_impro01_M007": (f"{SENTENCES}/Ses01F_impro01_M007.wav", 0.0, None),
    }
    assert {clip.transcript for clip in corpus.clips} == {None}
    assert corpus.labels == {"Ses01F_impro01_F000": "neu"}
    assert found(corpus) == [
        *(("clip_without_transcript", f"Ses01F_impro01_{n}") for n in ("F000", "M000", "M007")),
        ("missing_file", f"{DIALOG}/avi/DivX/Ses01M_impro02.avi"),
    ]
    assert "no Ses01M_impro02.txt in dialog/transcriptions" in corpus.problems[-1].message


def test_lines_that_cannot_be_read_cost_no_other(iemocap: Path) -> None:
    said = SAID + "Ses01F_impro01_F000 [1.0-2.0]: Again.\nnonsense\nSes01F_impro01_F003 [9.5-9.5]: Oh.\n"
    write(iemocap, TRANSCRIPTION, (said + "Ses01F_impro01_F004 [1.2.3-9.5]: caf\xe9\n").encode("cp1252"))
    judged = JUDGED + "[6.2901 - 8.2357]\tSes01F_impro01_F000\tang\t[1, 1, 1]\n[broken\n"
    write(iemocap, EVALUATION, judged + "[9.5 - 9.9]\tSes01F_impro01_F003\tsad\t[1, 1, 1]\n")
    corpus = read_iemocap(iemocap)
    assert clips(corpus)["Ses01F_impro01_F003"] == (FILM, 9.5, 9.9)  # the evaluation has times that can be
    assert corpus.labels == {"Ses01F_impro01_F000": "neu", "Ses01F_impro01_F003": "sad"}
    assert found(corpus) == [
        ("duplicate_id", f"{EVALUATION}:9"),
        ("duplicate_id", f"{TRANSCRIPTION}:5"),
        ("not_utf8", TRANSCRIPTION),
        ("transcript_without_clip", f"{TRANSCRIPTION}:2"),
        ("transcript_without_clip", f"{TRANSCRIPTION}:8"),
        ("unreadable_row", f"{EVALUATION}:10"),
        ("unreadable_row", f"{TRANSCRIPTION}:6"),
        ("unreadable_row", f"{TRANSCRIPTION}:7"),
        ("unreadable_row", f"{TRANSCRIPTION}:8"),
    ]


def test_a_file_that_cannot_be_read_costs_no_other(iemocap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_bytes = Path.read_bytes

    def deny(path: Path) -> bytes:
        if path == iemocap / EVALUATION:
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", deny)
    corpus = read_iemocap(iemocap)
    assert (len(corpus.clips), corpus.labels) == (3, {})
    assert ("unreadable_row", EVALUATION) in found(corpus)


def test_a_folder_that_is_not_iemocap_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "Session1/dialog/notes.txt")
    with pytest.raises(PipelineError, match=r"no clips in .*: looked for Session<n>/dialog/avi/DivX/<dialog>\.avi or"):
        read_iemocap(tmp_path)
    with pytest.raises(PipelineError, match="no such folder"):
        read_iemocap(tmp_path / "nowhere")


def test_a_clip_is_cut_from_its_dialog_picture_and_sound(iemocap: Path) -> None:
    rate_hz = 16_000
    sound = np.concatenate([sine(rate_hz, rate_hz, (300.0 * (second + 1),), 0.5) for second in range(5)], axis=1)
    write_clip(iemocap / FILM, audio_codec="pcm_s16le", fps=25, duration_s=5.0, sample_rate_hz=rate_hz, audio=sound)
    write(iemocap, TRANSCRIPTION, "Ses01F_impro01_F000 [002.0000-003.0000]: Excuse me.\n")
    write(iemocap, EVALUATION, "")
    corpus = read_iemocap(iemocap)
    clip = to_clip(corpus.clips[0], corpus.root)
    media = read_media(clip, MediaNeeds(frames=FrameSampling(count=4), sample_rate_hz=rate_hz))
    frames, waveform = media.require_frames(), media.require_waveform()
    assert [frame_index(frame) for frame in frames.frames] == [53, 59, 65, 71]  # the middles of its quarters, at 25 fps
    assert len(waveform.samples) == rate_hz
    middle = waveform.samples[rate_hz // 4 : -rate_hz // 4]
    loudest_hz = np.abs(np.fft.rfft(middle)).argmax() * rate_hz / len(middle)
    assert loudest_hz == pytest.approx(900, abs=4)  # the tone of its third second
