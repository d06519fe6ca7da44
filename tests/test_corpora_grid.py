"""GRID on the layouts people have; media are empty files, since no reader opens one."""

from pathlib import Path

import pytest

from pipeline.config import load_settings
from pipeline.corpora import read_corpus
from pipeline.corpora.base import Corpus
from pipeline.corpora.folder import read_folder
from pipeline.corpora.grid import read_grid
from pipeline.errors import PipelineError

ROOT = Path(__file__).parents[1]
GRID = ROOT.parent / "shared" / "data" / "grid"
ALIGN = "0 23750 sil\n23750 29500 bin\n29500 34000 blue\n34000 35500 at\n35500 41000 f\n41000 41500 sp\n"
ALIGN += "41500 47250 two\n47250 53000 now\n53000 74500 sil\n"


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def align(root: Path, path: str, text: str = ALIGN) -> None:
    touch(root, path)
    (root / path).write_bytes(text.encode("latin1"))


def found(corpus: Corpus) -> list[tuple[str, str]]:
    return sorted((problem.kind, problem.where) for problem in corpus.problems)


def words(corpus: Corpus) -> dict[str, str | None]:
    return {clip.clip_id: clip.transcript for clip in corpus.clips}


@pytest.mark.parametrize("video", ["{s}/{name}.mpg", "{s}/video/mpg_6000/{name}.mpg", "{s}.mpg_6000.part1/{name}.mpg"])
@pytest.mark.parametrize("alignment", ["{s}/align/{name}.align", "alignments/{s}/{name}.align", "{s}/{name}.align"])
def test_every_layout_gives_speakers_and_words(video: str, alignment: str, tmp_path: Path) -> None:
    for speaker in ("s1", "s10", "s2"):
        touch(tmp_path, video.format(s=speaker, name="bbaf2n"))
        align(tmp_path, alignment.format(s=speaker, name="bbaf2n"))
    corpus = read_grid(tmp_path)
    assert [(clip.clip_id, clip.video) for clip in corpus.clips] == [
        ("s1_bbaf2n", "s1"),
        ("s2_bbaf2n", "s2"),
        ("s10_bbaf2n", "s10"),
    ]
    assert set(words(corpus).values()) == {"bin blue at f two now"}
    assert (corpus.labels, corpus.problems) == ({}, [])


def test_the_words_are_those_said_and_else_those_of_the_name(tmp_path: Path) -> None:
    touch(tmp_path, "s1/bbaf2n.mpg", "s1/swiz3a.mpg", "s1/PGBY4S.MPG", "s1/lrwtzp.mpg")
    align(tmp_path, "s1/align/bbaf2n.align", ALIGN.replace("two", "too"))
    corpus = read_grid(tmp_path)
    assert words(corpus) == {
        "s1_bbaf2n": "bin blue at f too now",
        "s1_lrwtzp": "lay red with t zero please",
        "s1_pgby4s": "place green by y four soon",
        "s1_swiz3a": "set white in z three again",
    }
    assert corpus.problems == []


def test_a_speakers_own_folder_may_be_the_root(tmp_path: Path) -> None:
    touch(tmp_path, "s3/bbaf2n.mpg", "s3_processed/bbaf2n.mpg", "clips/bbaf2n.mpg")
    assert read_grid(tmp_path / "s3").clips[0].video == "s3"
    assert read_grid(tmp_path / "s3_processed").clips[0].clip_id == "s3_bbaf2n"
    assert read_grid(tmp_path / "clips").clips[0].clip_id == "bbaf2n"
    assert read_grid(tmp_path / "clips").clips[0].video is None


def test_of_a_recordings_files_the_best_is_taken(tmp_path: Path) -> None:
    touch(tmp_path, "s1.mpg_vcd/s1/bbaf2n.mpg", "s1.mpg_6000.part1/s1/video/mpg_6000/bbaf2n.mpg")
    touch(tmp_path, "audio_25k/s1/bbaf2n.wav", "audio_25k/s21/bbaf2n.wav")  # speaker 21 was published without video
    corpus = read_grid(tmp_path)
    assert [clip.media for clip in corpus.clips] == [
        "s1.mpg_6000.part1/s1/video/mpg_6000/bbaf2n.mpg",
        "audio_25k/s21/bbaf2n.wav",
    ]
    assert corpus.problems == []


def test_a_word_of_the_sentence_may_be_the_label(tmp_path: Path) -> None:
    touch(tmp_path, "s1/bbaf2n.mpg", "s1/swiz3a.mpg")
    assert read_grid(tmp_path, label_column="command").labels == {"s1_bbaf2n": "bin", "s1_swiz3a": "set"}
    assert read_grid(tmp_path, label_column="digit").labels == {"s1_bbaf2n": "two", "s1_swiz3a": "three"}
    with pytest.raises(PipelineError, match=r"corpus\.label_column: unknown word of a GRID sentence 'colour'; did you"):
        read_grid(tmp_path, label_column="colour")


def test_what_does_not_match_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *(f"s1/{name}.mpg" for name in ("bbaf2n", "bbaf3s", "bbaf4p", "bbaf5a", "xbaf2n", "bbaw2n")))
    align(tmp_path, "align/s1/bbaf2n.align", "0 23750 sil\n23750 bin\n29500 34000 blue\n")  # a word short of its time
    align(tmp_path, "align/s1/bbaf3s.align", "2 1 bin\n")
    align(tmp_path, "align/s1/bbaf4p.align", "0 1 caf\xe9\n")
    align(tmp_path, "align/s1/bbaf5a.align")
    align(tmp_path, "align/s1/sbaf2n.align")
    align(tmp_path, "align/s1/lbaf2n.align", "\n")
    read_bytes = Path.read_bytes

    def deny(path: Path) -> bytes:
        if path.name == "bbaf5a.align":
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", deny)
    corpus = read_grid(tmp_path)
    assert words(corpus) == {
        "s1_bbaf2n": "bin blue at f two now",
        "s1_bbaf3s": "bin blue at f three soon",
        "s1_bbaf4p": "café",
        "s1_bbaf5a": "bin blue at f five again",
    }
    assert found(corpus) == [
        ("not_utf8", "align/s1/bbaf4p.align"),
        ("transcript_without_clip", "align/s1/sbaf2n.align"),
        ("unreadable_row", "align/s1/bbaf2n.align:2"),
        ("unreadable_row", "align/s1/bbaf3s.align:1"),
        ("unreadable_row", "align/s1/bbaf5a.align"),
        ("unreadable_row", "s1/bbaw2n.mpg"),  # there is no w, which has three syllables
        ("unreadable_row", "s1/xbaf2n.mpg"),
    ]


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "holiday.mp4")
    with pytest.raises(
        PipelineError, match="no clips in .*: looked for s<speaker>/<sentence>.mpg, sentences as bbaf2n"
    ):
        read_grid(tmp_path)


@pytest.mark.shared_data
@pytest.mark.skipif(not GRID.is_dir(), reason="../shared/data/grid is not beside the checkout")
def test_the_config_reads_the_real_clips_as_their_table_has_them() -> None:
    settings = load_settings(ROOT / "configs" / "grid.yaml", corpus__root=GRID)
    corpus = read_corpus(settings.corpus.kind, GRID, **settings.corpus.options())
    table = read_folder(GRID, label_column="command")
    assert (corpus.clips, corpus.labels, corpus.problems) == (table.clips, table.labels, [])
