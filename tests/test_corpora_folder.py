"""The folder corpus: media with a CSV, or with a .txt beside each; media are empty files, no reader opens one."""

import errno
import os
from pathlib import Path

import pytest

from pipeline.corpora import scan
from pipeline.corpora.base import Corpus, CorpusClip
from pipeline.corpora.folder import read_folder
from pipeline.errors import PipelineError

GRID = Path(__file__).parents[2] / "shared" / "data" / "grid"


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def found(corpus: Corpus) -> list[tuple[str, str]]:
    return sorted((problem.kind, problem.where) for problem in corpus.problems)


def words(corpus: Corpus) -> dict[str, str | None]:
    return {clip.clip_id: clip.transcript for clip in corpus.clips}


# --- a .txt beside each ---------------------------------------------------------------------------------------------


def test_media_with_a_txt_beside_each(tmp_path: Path) -> None:
    touch(tmp_path, "a10.MP4", "a2.webm", "sub/deep/b.3gp", "sub/a2.mov", "sub/c.d.mkv", "x.wav", ".git/h.mp4")
    touch(tmp_path, "__MACOSX/._a2.mp4", "._a2.mp4")
    (tmp_path / "a2.txt").write_text("  Hello,\nworld \r\n", encoding="utf-8-sig")
    (tmp_path / "a10.TXT").write_text(" \n")
    (tmp_path / "sub/deep/b.txt").write_text("你好")
    (tmp_path / "readme.txt").write_text("not a transcript")
    corpus = read_folder(tmp_path)
    assert [clip.clip_id for clip in corpus.clips] == ["a2", "a10", "sub/a2", "sub/c.d", "sub/deep/b"]
    assert words(corpus) == {
        "a2": "Hello,\nworld",
        "a10": "",
        "sub/a2": None,
        "sub/c.d": None,
        "sub/deep/b": "你好",
    }
    assert corpus.clips[1] == CorpusClip("a10", "a10.MP4", transcript="")
    assert found(corpus) == [
        ("clip_without_transcript", "sub/a2"),
        ("clip_without_transcript", "sub/c.d"),
        ("transcript_without_clip", "readme.txt"),
    ]


SUFFIXES = ["mp4", "m4v", "avi", "mov", "mkv", "webm", "mpg", "mpeg", "flv", "wmv", "3gp", "MpG"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_media_extension_is_found(suffix: str, tmp_path: Path) -> None:
    touch(tmp_path, f"a.{suffix}")
    assert [clip.media for clip in read_folder(tmp_path).clips] == [f"a.{suffix}"]


def test_files_that_differ_by_extension_alone_are_one_id(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "a.avi", "a.MOV")
    corpus = read_folder(tmp_path, transcript_column="")
    assert [clip.media for clip in corpus.clips] == ["a.MOV"]  # first in sorted order
    assert found(corpus) == [("duplicate_id", "a.avi"), ("duplicate_id", "a.mp4")]
    assert "taken by a.MOV, which is kept" in corpus.problems[0].message


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("Zażółć".encode("utf-16"), "Zażółć"),
        ("Zażółć".encode("utf-16-be"), None),  # no byte-order mark: garbage, but no crash
        (b"caf\xe9", "café"),
        (b"\x81\x8d", "\ufffd\ufffd"),  # bytes that Windows-1252 does not define
        (b"ok\x00\x00", "ok"),
        (bytes(range(256)) * 64, None),
    ],
)
def test_a_txt_that_is_not_utf8_is_read_and_reported(data: bytes, text: str | None, tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "a.txt").write_bytes(data)
    corpus = read_folder(tmp_path)
    assert found(corpus) == [("not_utf8", "a.txt")]
    transcript = corpus.clips[0].transcript
    assert transcript is not None
    assert "\0" not in transcript
    if text is not None:
        assert transcript == text


def test_a_txt_that_cannot_be_read_costs_no_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.mp4", "a.txt")

    def deny(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", deny)
    corpus = read_folder(tmp_path)
    assert words(corpus) == {"a": None}
    assert found(corpus) == [("clip_without_transcript", "a.txt")]


# --- a table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_gives_words_and_labels(delimiter: str, tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "sub/b.avi", "c.wav", "unlisted.mov")
    rows = [
        ["file", "transcript", "label"],
        ["a.mp4", '"Yes, ""no""; \tor?"', "joy"],
        ["./sub//b.avi", "", ""],
    ]
    rows += [["c.wav", "sound alone", " sad "]]
    lines = [delimiter.join(row) for row in rows]
    (tmp_path / "clips.csv").write_text("\r\n".join(lines) + "\r\n\r\n", encoding="utf-8-sig", newline="")
    corpus = read_folder(tmp_path)
    assert words(corpus) == {"a": 'Yes, "no"; \tor?', "c": "sound alone", "sub/b": "", "unlisted": None}
    assert corpus.labels == {"a": "joy", "c": "sad"}
    assert found(corpus) == [("clip_without_transcript", "unlisted")]
    assert corpus.clips[2].media == "sub/b.avi"


def test_spans_of_one_file_with_ids_of_their_own(tmp_path: Path) -> None:
    touch(tmp_path, "long.mp4")
    (tmp_path / "t.csv").write_text(
        "clip_id,file,transcript,start_s,end_s\n"
        "-x_2,long.mp4,two,1.5,3\n-x_1,long.mp4,one,,1.5\n-x_3,long.mp4,three,3.0,\n"
    )
    corpus = read_folder(tmp_path)
    assert corpus.clips == [
        CorpusClip("-x_1", "long.mp4", 0.0, 1.5, "one"),
        CorpusClip("-x_2", "long.mp4", 1.5, 3.0, "two"),
        CorpusClip("-x_3", "long.mp4", 3.0, None, "three"),
    ]
    assert corpus.problems == []


def test_rows_that_cannot_be_used_are_reported_at_their_line(tmp_path: Path) -> None:
    touch(tmp_path, "root/a.mp4", "root/b.mp4", "root/sub/c.mp4", "outside.mp4")
    root = tmp_path / "root"
    (root / "link.mp4").symlink_to(tmp_path / "outside.mp4")
    (root / "broken.mp4").symlink_to(root / "nothing.mp4")
    (root / "inside.mp4").symlink_to(root / "a.mp4")
    rows = {  # row -> the problem it is
        "a.mp4,fine,,,a": None,
        "gone.mp4,no such file,,,g": "missing_file",
        "b.mp4,too,few": "unreadable_row",
        "b.mp4,too,many,fields,here,b": "unreadable_row",
        "b.mp4,a bad number,1.2.3,,b1": "unreadable_row",
        "b.mp4,not finite,nan,,b2": "unreadable_row",
        "b.mp4,an empty span,2,1,b3": "unreadable_row",
        "../outside.mp4,up,,,o1": "unreadable_row",
        "sub/../../outside.mp4,up,,,o2": "unreadable_row",
        f"{tmp_path}/outside.mp4,absolute,,,o3": "unreadable_row",
        "..\\outside.mp4,up in Windows,,,o4": "unreadable_row",
        "link.mp4,a link out,,,o5": "unreadable_row",
        "broken.mp4,a link to nothing,,,o6": "missing_file",
        ",no file,,,o7": "unreadable_row",
        "b.mp4,no id,,,": "unreadable_row",
        "b.mp4,taken,,,a": "duplicate_id",
        "sub\\c.mp4,a path from Windows,,,c": None,
        "inside.mp4,a link inside,,,i": None,
        'b.mp4,"never closed,,,q': "unreadable_row",
        "b.mp4,the last one,,,b": None,
    }
    (root / "t.csv").write_text("\n".join(["file,transcript,start_s,end_s,clip_id", *rows]))
    corpus = read_folder(root)
    lines = {problem.where: problem.kind for problem in corpus.problems}
    assert lines == {f"t.csv:{line}": kind for line, kind in enumerate(rows.values(), start=2) if kind}
    assert words(corpus) == {
        "a": "fine",
        "b": "the last one",
        "c": "a path from Windows",
        "i": "a link inside",
    }


def test_row_messages_say_what_was_expected(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "t.csv").write_text("file,transcript\na.mp4,one, two\n/a.mp4,x\n,x\nb.mp4,x\na.mp4,fine\n")
    messages = [problem.message for problem in read_folder(tmp_path).problems]
    assert messages[0] == ("expected 2 fields (file, transcript), got 3; a text that holds ',' needs quotes around it")
    assert messages[1].startswith("the file '/a.mp4' leaves the corpus root")
    assert messages[2] == "no file named"
    assert messages[3].startswith("no file 'b.mp4' in ")


def test_a_table_wins_over_txt_files_and_rows_over_unlisted_media(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "a.avi", "b.mp4")
    (tmp_path / "b.txt").write_text("not read")
    (tmp_path / "t.csv").write_text("file,transcript,label\na.mp4,row,1\n")
    corpus = read_folder(tmp_path)
    assert [(clip.media, clip.transcript) for clip in corpus.clips] == [("a.mp4", "row"), ("b.mp4", None)]
    assert found(corpus) == [("clip_without_transcript", "b"), ("duplicate_id", "a.avi")]


def test_column_names_and_label_rule_are_settings(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "meta.csv").write_text("path,words,score,label\na.mp4,hi,1.6,x\nb.mp4,ho,great,y\n")
    corpus = read_folder(
        tmp_path, file_column="path", transcript_column="words", label_column="score", label_rule="round7"
    )
    assert (words(corpus), corpus.labels) == ({"a": "hi", "b": "ho"}, {"a": "2"})
    assert found(corpus) == [("unreadable_label", "meta.csv:3")]


def test_a_corpus_without_words_reports_none_missing(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "t.csv").write_text("file,label\na.mp4,x\n")
    with pytest.raises(PipelineError, match=r"expected a column 'transcript', .*; set corpus.transcript_column"):
        read_folder(tmp_path)
    corpus = read_folder(tmp_path, transcript_column="")
    assert (words(corpus), corpus.problems) == ({"a": None}, [])


def test_tables_that_cannot_be_used_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.mp4", "other.csv", "._t.csv")
    assert len(read_folder(tmp_path).clips) == 1  # a CSV without the column is none of ours
    with pytest.raises(PipelineError, match=r"no \*\.csv with a column 'path' in .*; set corpus\.table"):
        read_folder(tmp_path, file_column="path")
    with pytest.raises(PipelineError, match=r"no \*\.csv with a column 'file' in .*; set corpus\.table"):
        read_folder(tmp_path, label_column="label")
    with pytest.raises(PipelineError, match=r"cannot read none\.csv: No such file"):
        read_folder(tmp_path, table="none.csv")
    with pytest.raises(PipelineError, match=r"other\.csv is empty; expected a header"):
        read_folder(tmp_path, table="other.csv")
    (tmp_path / "one.csv").write_text("file,transcript\na.mp4,x\n")
    with pytest.raises(
        PipelineError, match=r"one\.csv: expected a column 'emotion', got 'file', 'transcript'; set corp"
    ):
        read_folder(tmp_path, label_column="emotion")
    (tmp_path / "two.csv").write_text("file;transcript\na.mp4;y\n")
    with pytest.raises(
        PipelineError, match=r"has 2 tables with a column 'file': one\.csv, two\.csv; set corpus\.table"
    ):
        read_folder(tmp_path)
    assert words(read_folder(tmp_path, table="two.csv")) == {"a": "y"}
    assert words(read_folder(tmp_path, table=str(tmp_path / "one.csv"))) == {"a": "x"}

    def deny(path: Path) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("pipeline.corpora.folder.read_columns", deny)
    with pytest.raises(PipelineError, match=r"cannot read .*one\.csv: Permission denied; set corpus\.table"):
        read_folder(tmp_path)


def test_a_table_whose_files_are_all_missing_is_no_corpus(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file,transcript\na.mp4,x\n")
    with pytest.raises(PipelineError, match=r"found t\.csv; first problem: t\.csv:2: no file 'a\.mp4'"):
        read_folder(tmp_path)


# --- the walk -------------------------------------------------------------------------------------------------------


def test_links_that_leave_the_root_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "outside/x.mp4", "outside/readme.md", "root/a.mp4", "root/real/b.mp4")
    root = tmp_path / "root"
    for name, target in {
        "x.mp4": "outside/x.mp4",
        "folder": "outside",
        "readme.md": "outside/readme.md",
        "again": "root/real",
        "loop": "root",
        "c.mp4": "root/a.mp4",
        "unfetched.mp4": "root/.objects/1",
    }.items():
        (root / name).symlink_to(tmp_path / target)
    corpus = read_folder(root, transcript_column="")
    assert [clip.clip_id for clip in corpus.clips] == ["a", "c", "real/b"]
    assert found(corpus) == [
        ("missing_file", "unfetched.mp4"),
        ("unreadable_row", "folder"),
        ("unreadable_row", "x.mp4"),
    ]


def test_names_that_are_not_utf8_are_reported(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    try:
        os.close(os.open(os.fsencode(tmp_path) + b"/caf\xe9.mp4", os.O_CREAT))
        os.mkdir(os.fsencode(tmp_path) + b"/d\xe9")
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    corpus = read_folder(tmp_path, transcript_column="")
    assert len(corpus.clips) == 1
    assert found(corpus) == [("unreadable_row", "caf\\xe9.mp4"), ("unreadable_row", "d\\xe9")]


def test_a_subfolder_that_cannot_be_read_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.mp4", "locked/b.mp4")
    scandir = os.scandir

    def deny(path: Path) -> "os._ScandirIterator[str]":
        if Path(path).name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(scan.os, "scandir", deny)
    corpus = read_folder(tmp_path, transcript_column="")
    assert len(corpus.clips) == 1
    assert found(corpus) == [("missing_file", "locked")]
    assert "folder cannot be read (Permission denied)" in corpus.problems[0].message


@pytest.mark.shared_data
@pytest.mark.skipif(not GRID.is_dir(), reason="../shared/data/grid is not beside the checkout")
def test_the_grid_clips_are_read_as_they_are() -> None:
    corpus = read_folder(GRID, label_column="command")
    assert len(corpus.clips) == 24
    assert corpus.problems == []
    assert corpus.clips[0] == CorpusClip("bbaf4p", "bbaf4p.mpg", transcript="bin blue at f four please")
    assert set(corpus.labels.values()) == {"bin", "lay", "place", "set"}


def test_a_table_can_say_which_clips_share_a_video(tmp_path):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "clips.csv").write_text(
        "file,transcript,speaker,tape\na.mp4,one,ann,1\nb.mp4,two, ann ,2\nc.mp4,three,,2\n"
    )
    assert [clip.video for clip in read_folder(tmp_path).clips] == ["ann", "ann", None]
    assert [clip.video for clip in read_folder(tmp_path, video_column="tape").clips] == ["1", "2", "2"]
    by_speaker = read_folder(tmp_path, label_column="speaker")
    assert [clip.video for clip in by_speaker.clips] == [None] * 3  # a label never gets into the manifest
    with pytest.raises(PipelineError, match=r"corpus\.video_column"):
        read_folder(tmp_path, video_column="film")
    (tmp_path / "clips.csv").unlink()
    with pytest.raises(PipelineError, match="the columns that are set need one"):
        read_folder(tmp_path, video_column="film")
