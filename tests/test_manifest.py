"""What prepare leaves on disk: round trips, refusals, and files that are whole or not there."""

import errno
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.clip import Clip
from pipeline.corpora.base import CorpusClip, Problem
from pipeline.corpora.mmsa import read_mmsa
from pipeline.errors import PipelineError
from pipeline.files import TEMPORARY_PREFIX, check_writable, write_atomic
from pipeline.manifest import (
    Manifest,
    corpus_root,
    read_labels,
    read_manifest,
    to_clip,
    write_labels,
    write_manifest,
    write_problems,
)

CLIPS = [
    CorpusClip("-a_1", "Raw/-a/1.mp4", transcript="好\u2028\n\"'"),
    CorpusClip("b", "b.mp4", 0.5, 2.0, None, "tape"),
]

clips = st.builds(
    CorpusClip,
    clip_id=st.text(min_size=1),
    media=st.text().filter(lambda path: not path.startswith("/") and ".." not in path and "\0" not in path),
    start_s=st.floats(0, 1e6),
    end_s=st.none() | st.floats(1e6, 1e9, exclude_min=True),
    video=st.none() | st.text(),
    transcript=st.none() | st.text(st.sampled_from("a\n\r\u2028\u2029\x85\0\"',\\\ufeff好😀") | st.characters()),
)


@settings(deadline=None)  # a disk that others use too
@given(st.lists(clips, unique_by=lambda clip: clip.clip_id))
def test_the_manifest_comes_back_as_it_was(rows: list[CorpusClip]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.jsonl"
        write_manifest(path, rows)
        assert read_manifest(path) == rows
        assert len(path.read_text(encoding="ascii").splitlines()) == len(rows)  # a line a clip, for any tool


def test_the_manifest_is_one_json_object_a_line(tmp_path: Path) -> None:
    path = tmp_path / "new" / "manifest.jsonl"
    assert write_manifest(path, CLIPS)
    first, second = map(json.loads, path.read_text().splitlines())
    assert first == {
        "clip_id": "-a_1",
        "media": "Raw/-a/1.mp4",
        "start_s": 0.0,
        "end_s": None,
        "transcript": "好\u2028\n\"'",
        "video": None,
    }
    assert (second["start_s"], second["end_s"], second["transcript"]) == (0.5, 2.0, None)


def test_unchanged_files_are_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    write_manifest(path, CLIPS)
    before = path.stat()
    assert not write_manifest(path, CLIPS)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert write_manifest(path, CLIPS[:1])
    assert read_manifest(path) == CLIPS[:1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"clip_id": "c", "media": "c.m', "not a clip: Unterminated string"),
        ("[1]", "not a clip: expected an object, got list"),
        (
            '{"clip_id": "c", "media": "c.mp4", "label": "3"}',
            "unknown keys label; known: clip_id, media, start_s",
        ),
        ('{"clip_id": "c"}', "not a clip: no media"),
        ('{"media": "c.mp4"}', "not a clip: no clip_id"),
        ('{"clip_id": 3, "media": "c.mp4"}', "clip_id: expected str, got 3"),
        ('{"clip_id": "c", "media": "c.mp4", "start_s": true}', "start_s: expected float or int, got True"),
        (
            '{"clip_id": "c", "media": "c.mp4", "transcript": 1}',
            "transcript: expected str or NoneType, got 1",
        ),
        ('{"clip_id": "", "media": "c.mp4"}', "clip_id is empty"),
        ('{"clip_id": "c", "media": "c.mp4", "start_s": NaN}', "start_s must be >= 0"),
        ('{"clip_id": "c", "media": "c.mp4", "end_s": 0}', r"end_s \(0\) must be after start_s"),
        ('{"clip_id": "b", "media": "c.mp4"}', "clip id 'b' is on line 2 already"),
        ("\udcff", "not a clip: .*can't decode byte 0xff"),
    ],
)
def test_a_broken_line_is_named_with_what_to_do(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    write_manifest(path, CLIPS)
    path.write_bytes(path.read_bytes() + line.encode("utf-8", "surrogateescape"))
    with pytest.raises(PipelineError, match=rf"manifest\.jsonl:3: .*{message}.*; run prepare again"):
        read_manifest(path)


def test_a_manifest_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"no .*manifest\.jsonl; run prepare first"):
        read_manifest(tmp_path / "manifest.jsonl")
    with pytest.raises(PipelineError, match=r"cannot read .*: Is a directory; give read permission"):
        read_manifest(tmp_path)


def test_defaults_may_be_left_out_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text('{"clip_id": "a", "media": "a.mp4"}\n\n')
    assert read_manifest(path) == [CorpusClip("a", "a.mp4")]
    path.write_text("")
    assert read_manifest(path) == []


@given(st.dictionaries(st.text(), st.text()))
def test_labels_come_back_as_they_were(labels: dict[str, str]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "labels.csv"
        write_labels(path, labels)
        assert read_labels(path) == labels


def test_labels_are_sorted_and_left_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    assert write_labels(path, {"v_10": "3", "-v_1": "-3", "v_2": "=1+1"})
    assert path.read_text() == "clip_id,label\n-v_1,-3\nv_2,'=1+1\nv_10,3\n"  # no formula for a spreadsheet
    assert read_labels(path)["v_2"] == "=1+1"
    assert not write_labels(path, {"v_2": "=1+1", "v_10": "3", "-v_1": "-3"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r": line 1: expected the header clip_id,label, got ''"),
        (b"id,label\na,1\n", r": line 1: expected the header clip_id,label, got 'id,label'"),
        (b"clip_id,label\na,1\nb\n", r": line 3: expected clip_id and label, got 1 cells"),
        (b"clip_id,label\na,1\na,2\n", r": line 3: clip id 'a' has a label already"),
        (b'clip_id,label\na,"1\n', r": line 2: unexpected end of data"),
        (b"clip_id,label\na,\xff\n", r": expected UTF-8 \(.*0xff"),
    ],
)
def test_broken_labels_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(PipelineError, match=rf"labels\.csv{message}.*run prepare again"):
        read_labels(path)


def test_labels_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"no .*labels\.csv; run prepare first"):
        read_labels(tmp_path / "labels.csv")


def test_labels_never_reach_the_manifest(tmp_path: Path) -> None:
    (tmp_path / "Raw/v").mkdir(parents=True)
    (tmp_path / "Raw/v/1.mp4").touch()
    (tmp_path / "label.csv").write_text(
        "video_id,clip_id,text,label,label_T,annotation,mode\nv,1,words,-2.718281,1.414213,Negative,train\n"
    )
    corpus = read_mmsa(tmp_path, label_rule="as_is")
    write_manifest(tmp_path / "manifest.jsonl", corpus.clips)
    text = (tmp_path / "manifest.jsonl").read_text()
    assert corpus.labels == {"v_1": "-2.718281"}
    assert set(json.loads(text)) == {"clip_id", "media", "start_s", "end_s", "transcript", "video"}
    assert json.loads(text)["video"] == "v"
    for secret in ("label", "2.718", "1.414", "egative", "train"):
        assert secret not in text


def test_problems_are_a_table(tmp_path: Path) -> None:
    path = tmp_path / "problems.csv"
    assert write_problems(path, [Problem("missing_file", "t.csv:2", 'no file "a", sorry')])
    assert path.read_text() == 'kind,where,message\nmissing_file,t.csv:2,"no file ""a"", sorry"\n'
    assert write_problems(path, [])
    assert path.read_text() == "kind,where,message\n"


def test_to_clip_gives_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert to_clip(CLIPS[1], Path("data")) == Clip("b", str(tmp_path / "data" / "b.mp4"), 0.5, 2.0, None)


# --- files ----------------------------------------------------------------------------------------------------------


def test_write_atomic_writes_bytes_and_text_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    assert write_atomic(path, "é\r\n")
    assert path.read_bytes() == b"\xc3\xa9\r\n"
    assert not write_atomic(path, b"\xc3\xa9\r\n")
    assert write_atomic(path, b"\x00")
    assert [p.name for p in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt("stopped")])
def test_a_write_that_breaks_leaves_the_old_file_and_no_other(
    step: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def breaks(*args: object) -> None:
        assert len(list(tmp_path.glob(f"{TEMPORARY_PREFIX}*"))) == 1
        raise error

    monkeypatch.setattr(os, step, breaks)
    expected = PipelineError if isinstance(error, OSError) else KeyboardInterrupt
    message = "cannot write .*file: No space left on device; free some space|stopped"
    with pytest.raises(expected, match=message):
        write_atomic(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PipelineError, match=r"cannot write .*file/sub/x: "):
        write_atomic(tmp_path / "file" / "sub" / "x", "data")
    (tmp_path / "folder").mkdir()
    with pytest.raises(PipelineError, match=r"cannot write .*folder: Is a directory"):
        write_atomic(tmp_path / "folder", "data")


def test_a_folder_is_tried_before_it_is_needed(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(PipelineError, match="cannot write in .*file: .*; choose a folder that may be written"):
        check_writable(tmp_path / "file")


def test_clips_come_one_by_one_too(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    write_manifest(path, CLIPS)
    path.write_bytes(path.read_bytes() + b"{")
    manifest = Manifest(path)
    clips, again = iter(manifest), iter(manifest)
    assert [next(clips), next(clips)] == CLIPS
    assert next(again) == CLIPS[0]
    with pytest.raises(PipelineError, match="manifest.jsonl:3: not a clip"):
        next(clips)
    with pytest.raises(PipelineError, match="no .*manifest.jsonl; run prepare first"):
        next(iter(Manifest(tmp_path / "nowhere" / "manifest.jsonl")))


def test_the_corpus_root_is_what_prepare_wrote(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no manifest in .*; run `prepare` or `extract` first"):
        corpus_root(tmp_path)
    (tmp_path / "corpus.json").write_text(json.dumps({"root": "/clips"}))
    assert corpus_root(tmp_path) == Path("/clips")
    for text in ("{", "{}", '{"root": 3}'):
        (tmp_path / "corpus.json").write_text(text)
        with pytest.raises(PipelineError, match="cannot read .*corpus.json .*; run `prepare` again"):
            corpus_root(tmp_path)
