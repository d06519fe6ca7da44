"""Corpora listed in Parquet files: what becomes a clip, what is told, and that none of it is held."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import load_settings
from pipeline.corpora import read_corpus
from pipeline.corpora.base import CorpusClip
from pipeline.corpora.parquet import read_parquet
from pipeline.errors import PipelineError
from pipeline.manifest import read_manifest
from pipeline.prepare import prepare


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = {name: None for row in rows for name in row}
    pq.write_table(pa.Table.from_pylist([{**names, **row} for row in rows]), path)


def test_rows_of_all_files_are_clips_in_order_each_time(tmp_path):
    write(tmp_path / "list_10.parquet", [{"file": "b/x.mp4", "other": 1}])
    span = {"file": "a.mp4", "clip_id": "a_1", "start_s": 1, "end_s": 2.5, "transcript": "words", "video": "v"}
    write(tmp_path / "list_2.parquet", [span, {**span, "clip_id": "a_2", "start_s": None, "end_s": None, "video": ""}])
    corpus = read_parquet(tmp_path)
    expected = [
        CorpusClip("a_1", "a.mp4", 1.0, 2.5, "words", "v"),
        CorpusClip("a_2", "a.mp4", 0.0, None, "words", None),
        CorpusClip("b/x", "b/x.mp4"),
    ]
    assert list(corpus.clips) == list(corpus.clips) == expected
    assert not corpus.problems
    assert list(read_corpus("parquet", tmp_path, table="list_1*.parquet").clips) == expected[2:]


def test_what_is_no_clip_is_told_with_its_row_and_costs_no_other(tmp_path):
    write(tmp_path / "a.parquet", [{"file": "a.mp4"}, {"file": None}, {"file": "../b.mp4"}, {"file": "a.mp4"}])
    write(tmp_path / "b.parquet", [{"file": "c.mp4"}, {"file": "c.avi", "start_s": 2.0, "end_s": 1.0}])
    write(tmp_path / "c.parquet", [{"file": "a.mp4"}, {"file": "d.mp4", "transcript": "x" * 1_000_001}])
    corpus = read_parquet(tmp_path)
    assert [clip.clip_id for clip in corpus.clips] == ["a", "c"]
    told = {problem.where: (problem.kind, problem.message) for problem in corpus.problems}
    assert told["a.parquet:2"] == ("unreadable_row", "no file named")
    assert "media must be a path inside the corpus root" in told["a.parquet:3"][1]
    assert told["a.parquet:4"] == ("duplicate_id", "its clip id is taken by a.parquet:1, which is kept")
    assert told["b.parquet:2"][0] == "unreadable_row"
    assert told["c.parquet:1"] == ("duplicate_id", "its clip id is taken by a.parquet:1, which is kept")
    assert "are no transcript" in told["c.parquet:2"][1]
    assert len(told) == 6


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"file": "a.mp4", "start_s": "1"},
            "column 'start_s': expected numbers, got string; write it so",
        ),
        ({"file": "a.mp4", "end_s": True}, "column 'end_s': expected numbers, got bool"),
        ({"file": "a.mp4", "clip_id": 5}, "column 'clip_id': expected text, got int64"),
        (
            {"file": "a.mp4", "start_s": float("inf")},
            "no row of .*list.parquet:1: start_s: expected a number",
        ),
    ],
)
def test_what_a_column_must_be_is_told(tmp_path, row, message):
    write(tmp_path / "list.parquet", [row])
    with pytest.raises(PipelineError, match=message):
        read_parquet(tmp_path)


def test_columns_of_null_and_of_few_words_are_taken(tmp_path):
    names = pa.array(["a.mp4", "b.mp4"]).dictionary_encode()
    pq.write_table(pa.table({"file": names, "transcript": pa.nulls(2), "end_s": pa.nulls(2)}), tmp_path / "x.parquet")
    assert [clip.clip_id for clip in read_parquet(tmp_path).clips] == ["a", "b"]


def test_text_that_is_no_utf8_is_told(tmp_path):
    broken = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\5\0\0\0"), pa.py_buffer(b"\xff.mp4")])
    pq.write_table(pa.table({"file": broken}), tmp_path / "list.parquet")
    with pytest.raises(PipelineError, match=r"cannot read .*list.parquet \(.*utf-8.*\); it must be a Parquet file"):
        read_parquet(tmp_path)


def test_links_that_leave_the_root_are_refused(tmp_path):
    root = tmp_path / "root"
    write(root / "list.parquet", [{"file": "inside.mp4"}, {"file": "outside.mp4"}])
    (tmp_path / "secret.mp4").write_bytes(b"other people's")
    (root / "outside.mp4").symlink_to(tmp_path / "secret.mp4")
    corpus = read_parquet(root)
    assert [clip.clip_id for clip in corpus.clips] == ["inside"]
    assert "is a link that leaves the corpus root" in corpus.problems[0].message
    write(tmp_path / "far.parquet", [{"file": "inside.mp4"}])
    (root / "far.parquet").symlink_to(tmp_path / "far.parquet")
    with pytest.raises(PipelineError, match="is a link that leaves the corpus root"):
        read_parquet(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no parquet", r"cannot read .*list.parquet \(.*\); it must be a Parquet file that lists the clips"),
        ([{"path": "a.mp4", "n": 1}], "expected a column 'file', got 'path', 'n'; rename one"),
        (
            [{"file": ""}],
            r"no clips in .*: no row of \*.parquet is one; first problem: list.parquet:1: no file named",
        ),
        (None, r"no \*.parquet that lists the clips; set corpus.table to a Parquet file in it"),
    ],
)
def test_lists_that_are_none_are_refused(tmp_path, content, message):
    if isinstance(content, bytes):
        (tmp_path / "list.parquet").write_bytes(content)
    elif content:
        write(tmp_path / "list.parquet", content)
    with pytest.raises(PipelineError, match=message):
        read_parquet(tmp_path)


def test_a_list_that_changes_under_the_reading_is_refused(tmp_path):
    write(tmp_path / "list.parquet", [{"file": "a.mp4"}])
    corpus = read_parquet(tmp_path)
    (tmp_path / "list.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(PipelineError, match="cannot read .*list.parquet"):
        list(corpus.clips)


def test_prepare_writes_the_manifest_and_leaves_it_alone_the_second_time(tmp_path, capsys):
    write(tmp_path / "clips/list.parquet", [{"file": f"{i}.mp4", "transcript": "words"} for i in (10, 2, 2)])
    settings = load_settings(None, ["corpus.kind=parquet"], corpus__root=tmp_path / "clips", workdir=tmp_path / "work")
    assert prepare(settings) == 1
    path = settings.work / "manifest.jsonl"
    assert [clip.clip_id for clip in read_manifest(path)] == ["10", "2"]
    before = path.stat()
    assert prepare(settings) == 1
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert "prepare: nothing to do: up to date" in capsys.readouterr().out
    write(tmp_path / "clips/list.parquet", [{"file": "3.mp4"}])
    assert prepare(settings) == 0
    assert [clip.clip_id for clip in read_manifest(path)] == ["3"]
