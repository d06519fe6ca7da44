"""Folders for Hugging Face datasets: metadata beside media files, and Parquet files that hold the media."""

import json
import os
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Audio, ClassLabel, Features, Image, Value, Video
from media_factory import write_clip

from extractors.frame_sampling import FrameSampling
from extractors.media import MediaNeeds, read_media
from pipeline.config import load_settings
from pipeline.corpora import hf_media
from pipeline.corpora.base import Corpus, CorpusClip
from pipeline.corpora.hf_folder import read_hf
from pipeline.errors import PipelineError
from pipeline.manifest import to_clip
from pipeline.prepare import manifest_of, prepare
from pipeline.status import status

COLUMNS = {"sentence": Value("string"), "label": ClassLabel(names=["sad", "glad"]), "speaker_id": Value("int64")}


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text, encoding="utf-8")


def write_shard(root: Path, path: str, rows: list[dict], features: dict) -> None:
    """A Parquet file as `datasets` writes it, its notes in the schema."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows, schema=Features(features).arrow_schema)
    datasets.Dataset(table).to_parquet(root / path)


def found(corpus: Corpus) -> list[tuple[str, str]]:
    return sorted((problem.kind, problem.where) for problem in corpus.problems)


def words(corpus: Corpus) -> dict[str, str | None]:
    return {clip.clip_id: clip.transcript for clip in corpus.clips}


def media(corpus: Corpus) -> list[str]:
    return [clip.media for clip in corpus.clips]


def unpacked(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in (root / ".media").rglob("*.*") if path.is_file())


# --- metadata beside media ------------------------------------------------------------------------------------------

JSONL = '{"file_name": "a.mp4", "text": "one", "label": "x", "speaker": 7}\n{"file_name": "sub/b.wav", "text": null}\n'
CSV = "file_name,text,label,speaker\na.mp4,one,x,7\nsub/b.wav,,,\n"


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_metadata_of_every_format_gives_words_and_labels(name: str, tmp_path: Path) -> None:
    for split in ("train", "test"):
        touch(tmp_path, f"{split}/a.mp4", f"{split}/sub/b.wav")
        if name.endswith(".parquet"):
            rows = {"file_name": ["a.mp4", "sub/b.wav"], "text": ["one", None], "label": ["x", None]}
            pq.write_table(pa.table({**rows, "speaker": [7, None]}), tmp_path / split / name)
        else:
            write(tmp_path, f"{split}/{name}", CSV if name.endswith(".csv") else JSONL)
    corpus = read_hf(tmp_path)
    assert corpus.clips == [
        CorpusClip("test/a", "test/a.mp4", transcript="one", video="7"),
        CorpusClip("test/sub/b", "test/sub/b.wav", transcript=""),
        CorpusClip("train/a", "train/a.mp4", transcript="one", video="7"),
        CorpusClip("train/sub/b", "train/sub/b.wav", transcript=""),
    ]
    assert corpus.labels == {"test/a": "x", "train/a": "x"}
    assert corpus.problems == []
    assert words(read_hf(tmp_path / "train")) == {"a": "one", "sub/b": ""}


def test_one_metadata_file_may_be_above_all_splits(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.flac", "test/b.flac")
    write(tmp_path, "metadata.csv", "file_name,transcription\ntrain/a.flac,one\ntest/b.flac,two\n")
    assert words(read_hf(tmp_path)) == {"test/b": "two", "train/a": "one"}


def test_of_several_files_of_a_row_the_video_is_the_clip(tmp_path: Path) -> None:
    touch(tmp_path, "1.wav", "1.mp4", "2.wav", "1.png")
    rows = "image_file_name,audio_file_name,video_file_name,text\n1.png,1.wav,1.mp4,one\n,2.wav,,two\n"
    write(tmp_path, "metadata.csv", rows)
    assert media(read_hf(tmp_path)) == ["1.mp4", "2.wav"]
    by_sound = read_hf(tmp_path, file_column="audio_file_name")
    assert words(by_sound) == {"1": "one", "2": "two"}
    assert found(by_sound) == [("duplicate_id", "1.mp4")]  # which no row lists then
    assert read_hf(tmp_path).problems == []


def test_ids_and_spans_may_be_columns(tmp_path: Path) -> None:
    touch(tmp_path, "long.mp4")
    write(tmp_path, "metadata.csv", "file_name,text,clip_id,start_s,end_s\nlong.mp4,a,u1,0,1.5\nlong.mp4,b,u2,1.5,\n")
    assert read_hf(tmp_path).clips == [
        CorpusClip("u1", "long.mp4", 0.0, 1.5, "a"),
        CorpusClip("u2", "long.mp4", 1.5, None, "b"),
    ]


def test_columns_are_settings_and_a_label_is_no_video(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    write(tmp_path, "metadata.csv", "path,file_name,Text,utterance,speaker,mood\na.mp4,b.mp4,t,u,ann,2.6\n")
    given = read_hf(
        tmp_path, file_column="path", transcript_column="utterance", label_column="mood", label_rule="round7"
    )
    assert given.clips == [CorpusClip("a", "a.mp4", transcript="u", video="ann")]
    assert given.labels == {"a": "3"}
    by_speaker = read_hf(tmp_path, file_column="path", label_column="speaker")
    assert by_speaker.clips == [CorpusClip("a", "a.mp4", transcript="t")]
    assert read_hf(tmp_path, file_column="path", video_column="mood").clips[0].video == "2.6"
    with pytest.raises(PipelineError, match=r"metadata\.csv: expected a column 'film', got .*; set corpus\.video_col"):
        read_hf(tmp_path, video_column="film")
    with pytest.raises(PipelineError, match=r"expected a column 'film', got .*; set corpus\.file_column"):
        read_hf(tmp_path, file_column="film")


def test_words_under_another_name_are_not_lost_in_silence(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    write(tmp_path, "metadata.csv", "file_name,utterance\na.mp4,one\n")
    with pytest.raises(
        PipelineError, match=r"no column transcript, .* or sentence among 'file_name', 'utterance'; set"
    ):
        read_hf(tmp_path)
    corpus = read_hf(tmp_path, transcript_column="")
    assert (words(corpus), corpus.problems) == ({"a": None, "b": None}, [])


def test_rows_and_files_that_do_not_match_are_told(tmp_path: Path) -> None:
    root = tmp_path / "root"
    touch(tmp_path, "outside.mp4", "root/train/a.mp4", "root/train/unlisted.mp4")
    (root / "train/link.mp4").symlink_to(tmp_path / "outside.mp4")
    names = ["a.mp4", "gone.mp4", "../../outside.mp4", str(tmp_path / "outside.mp4"), "link.mp4", "", "a.mp4"]
    lines = [json.dumps({"file_name": name, "text": "x"}) for name in names]
    write(root, "train/metadata.jsonl", "\n".join([*lines, "", "no JSON", "[1]", '{"text": ["a"]}']))
    corpus = read_hf(root)
    assert words(corpus) == {"train/a": "x", "train/unlisted": None}
    at = "train/metadata.jsonl"
    assert found(corpus) == [
        ("clip_without_transcript", "train/unlisted"),
        ("duplicate_id", f"{at}:7"),
        ("missing_file", f"{at}:2"),
        *(("unreadable_row", f"{at}:{line}") for line in (10, 11, 3, 4, 5, 6, 9)),
    ]
    messages = {problem.where: problem.message for problem in corpus.problems}
    assert messages[f"{at}:9"] == "expected a JSON object on one line, got 'no JSON'"


def test_metadata_in_another_encoding_is_read_and_told(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "metadata.jsonl").write_bytes('{"file_name": "a.mp4", "text": "café"}\n'.encode("latin1"))
    corpus = read_hf(tmp_path)
    assert words(corpus) == {"a": "café"}
    assert found(corpus) == [("not_utf8", "metadata.jsonl")]


def test_metadata_that_cannot_be_used_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.mp4")
    write(tmp_path, "metadata.jsonl", '{"path": "a.mp4"}\n')
    with pytest.raises(PipelineError, match=r"metadata\.jsonl: expected a column 'file_name', got 'path'; set corpus"):
        read_hf(tmp_path)

    def deny(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", deny)
    with pytest.raises(PipelineError, match=r"cannot read metadata\.jsonl: Permission denied"):
        read_hf(tmp_path)


def test_without_metadata_folders_are_classes(tmp_path: Path) -> None:
    touch(tmp_path, "train/glad/1.wav", "train/sad/2.wav", "test/sad/3.wav")
    corpus = read_hf(tmp_path)
    assert words(corpus) == dict.fromkeys(("test/sad/3", "train/glad/1", "train/sad/2"))
    assert corpus.labels == {"test/sad/3": "sad", "train/glad/1": "glad", "train/sad/2": "sad"}
    assert corpus.problems == []


@pytest.mark.parametrize("paths", [("train/1.wav", "test/2.wav"), ("a/1.wav", "a/2.wav"), ("a/1.wav", "b/c/2.wav")])
def test_splits_and_folders_of_no_order_are_no_classes(paths: tuple[str, ...], tmp_path: Path) -> None:
    touch(tmp_path, *paths)
    corpus = read_hf(tmp_path)
    assert (len(corpus.clips), corpus.labels) == (2, {})


def test_an_empty_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    touch(tmp_path, "dataset_info.json")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "words.parquet")
    with pytest.raises(
        PipelineError, match="looked for media files with a metadata.csv, .jsonl or .parquet, or Parquet"
    ):
        read_hf(tmp_path)


# --- media in Parquet files -----------------------------------------------------------------------------------------


def test_media_in_parquet_become_files_that_can_be_read(tmp_path: Path) -> None:
    root = tmp_path / "data set"
    clip = write_clip(tmp_path / "real.mp4", duration_s=0.4, fps=10).read_bytes()
    rows = [
        {"video": {"bytes": clip, "path": "real.mp4"}, "sentence": "one", "label": 1, "speaker_id": 3},
        {"video": {"bytes": clip, "path": None}, "sentence": None, "label": -1, "speaker_id": None},
    ]
    write_shard(root, "data/train-00000-of-00001.parquet", rows, {"video": Video(), **COLUMNS})
    settings = load_settings(None, ["corpus.kind=hf"], corpus__root=root, workdir=tmp_path / "work")
    assert prepare(settings) == 0
    clips, base = manifest_of(settings)
    folder = ".media/data/train-00000-of-00001.parquet"
    assert clips == [
        CorpusClip("data/train-00000-of-00001/0", f"{folder}/0.mp4", transcript="one", video="3"),
        CorpusClip("data/train-00000-of-00001/1", f"{folder}/1", transcript=""),
    ]
    assert (settings.work / "labels.csv").read_text() == "clip_id,label\ndata/train-00000-of-00001/0,glad\n"
    for found_clip in clips:
        read = read_media(to_clip(found_clip, base), MediaNeeds(FrameSampling(count=2), sample_rate_hz=16000))
        read.require_frames()
        read.require_waveform()
    assert next(stage for stage in status(settings).stages if stage.stage == "prepare").state == "done"


def test_media_are_unpacked_once_and_again_when_the_file_changes(tmp_path: Path) -> None:
    path, features = "train.parquet", {"audio": Audio(), "text": Value("string")}
    rows = [{"audio": {"bytes": f"sound {n}".encode(), "path": f"{n}.wav"}, "text": str(n)} for n in range(3)]
    write_shard(tmp_path, path, rows, features)
    first = read_hf(tmp_path)
    assert [(tmp_path / name).read_text() for name in media(first)] == ["sound 0", "sound 1", "sound 2"]
    assert [child.name for child in tmp_path.glob(".media/*/.*")] == []
    (tmp_path / ".media" / path / "1.wav").unlink()
    again = read_hf(tmp_path)  # what is said to be unpacked is not read again
    assert words(again) == {"train/0": "0", "train/2": "2"}
    assert found(again) == [("missing_file", "train.parquet:1")]
    rows[0]["audio"]["bytes"] = b"another sound"
    write_shard(tmp_path, path, rows, features)
    assert [(tmp_path / name).read_text() for name in media(read_hf(tmp_path))] == [
        "another sound",
        "sound 1",
        "sound 2",
    ]


def test_unpacking_that_was_cut_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"audio": {"bytes": bytes([n]), "path": "x.wav"}, "text": ""} for n in range(4)]
    write_shard(tmp_path, "a.parquet", rows, {"audio": Audio(), "text": Value("string")})
    write_atomic = hf_media.write_atomic

    def full(path: Path, data: bytes) -> bool:
        if path.name == "2.wav":
            raise PipelineError(f"cannot write {path}: No space left on device; free some space")
        return write_atomic(path, data)

    monkeypatch.setattr(hf_media, "write_atomic", full)
    with pytest.raises(PipelineError, match=r"a\.parquet holds the clips itself, .* unpacked into .*No space left"):
        read_hf(tmp_path)
    monkeypatch.setattr(hf_media, "write_atomic", write_atomic)
    assert [(tmp_path / name).read_bytes() for name in media(read_hf(tmp_path))] == [b"\0", b"\1", b"\2", b"\3"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    rows = [{"audio": {"bytes": b"x", "path": "x.wav"}, "text": ""}]
    write_shard(tmp_path, "a.parquet", rows, {"audio": Audio(), "text": Value("string")})
    touch(tmp_path, ".media")  # no folder can be made here
    message = r"a\.parquet holds the clips itself, and they are unpacked into .*\.media: cannot write .*choose a folder"
    with pytest.raises(PipelineError, match=message):
        read_hf(tmp_path)


def test_a_large_file_is_never_in_memory_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n, size = 24, 1_000_000
    rows = [{"audio": {"bytes": os.urandom(size), "path": f"{i}.wav"}, "text": "x"} for i in range(n)]
    write_shard(tmp_path, "a.parquet", rows, {"audio": Audio(), "text": Value("string")})
    del rows
    assert pq.read_metadata(tmp_path / "a.parquet").num_row_groups == 1
    held = []
    write_atomic = hf_media.write_atomic

    def measured(path: Path, data: bytes) -> bool:
        held.append(pa.total_allocated_bytes())
        return write_atomic(path, data)

    monkeypatch.setattr(hf_media, "write_atomic", measured)
    before = pa.total_allocated_bytes()
    assert len(read_hf(tmp_path).clips) == n
    assert max(held) - before < n * size / 4


def test_video_goes_before_sound_and_pictures_are_neither(tmp_path: Path) -> None:
    features = {"image": Image(), "audio": Audio(), "film": Video(), "text": Value("string")}
    row = {"image": {"bytes": b"i", "path": "1.png"}, "audio": {"bytes": b"a", "path": "1.wav"}, "text": ""}
    write_shard(tmp_path, "a.parquet", [{**row, "film": {"bytes": b"v", "path": "1.mp4"}}], features)
    assert media(read_hf(tmp_path)) == [".media/a.parquet/0.mp4"]
    assert media(read_hf(tmp_path, file_column="audio")) == [".media/a.parquet/0.wav"]
    assert (tmp_path / ".media/a.parquet/0.wav").read_bytes() == b"a"
    with pytest.raises(PipelineError, match=r"a\.parquet: expected a column 'image', got .*; set corpus\.file_column"):
        read_hf(tmp_path, file_column="image")


@pytest.mark.parametrize("note", [b"{}", b"no JSON", b'{"info": {"features": {"audio": "x", "label": {"names": 3}}}}'])
def test_without_the_notes_of_datasets_the_type_tells(note: bytes, tmp_path: Path) -> None:
    table = pa.table({"image": [{"bytes": b"i", "path": "1.png"}], "audio": [{"bytes": b"a", "path": "1.wav"}]})
    table = table.append_column("text", [["x"]]).append_column("label", [[1]])
    pq.write_table(table.replace_schema_metadata({"huggingface": note}), tmp_path / "a.parquet")
    corpus = read_hf(tmp_path)
    assert media(corpus) == [".media/a.parquet/0.wav"]
    assert corpus.labels == {"a/0": "1"}


def test_rows_may_name_files_beside_them(tmp_path: Path) -> None:
    root = tmp_path / "root"
    touch(tmp_path, "root/data/1.wav", "root/wavs/2.wav", "outside.wav")
    paths = [
        "1.wav",
        "wavs/2.wav",
        "gone.wav",
        "../outside.wav",
        str(tmp_path / "outside.wav"),
        "https://a.b/c.wav",
        None,
    ]
    rows = [{"audio": {"bytes": None, "path": path}, "text": str(n)} for n, path in enumerate(paths)]
    rows.append({"audio": None, "text": "nothing"})
    pq.write_table(pa.Table.from_pylist(rows), root / "data/a.parquet")
    corpus = read_hf(root)
    assert [(clip.clip_id, clip.media) for clip in corpus.clips] == [
        ("data/a/0", "data/1.wav"),
        ("data/a/1", "wavs/2.wav"),
    ]
    kinds = ["missing_file", "unreadable_row", "unreadable_row", "missing_file", "unreadable_row", "unreadable_row"]
    assert [(p.kind, p.where) for p in corpus.problems] == [(k, f"data/a.parquet:{n}") for n, k in enumerate(kinds, 2)]
    assert not (root / ".media").exists()


def test_classes_beyond_their_names_stay_numbers(tmp_path: Path) -> None:
    rows = [{"audio": {"bytes": b"x", "path": None}, "sentence": "", "label": n, "speaker_id": 1} for n in range(2)]
    rows[0]["label"] = 7
    write_shard(tmp_path, "a.parquet", rows, {"audio": Audio(), **COLUMNS})
    assert read_hf(tmp_path).labels == {"a/0": "7", "a/1": "glad"}


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + b"\0" * 50 + b"PAR1"])
def test_a_torn_file_costs_no_other(data: bytes, tmp_path: Path) -> None:
    rows = [{"audio": {"bytes": b"x", "path": "x.wav"}, "text": "one"}]
    write_shard(tmp_path, "a.parquet", rows, {"audio": Audio(), "text": Value("string")})
    (tmp_path / "b.parquet").write_bytes(data)
    (tmp_path / "c.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    corpus = read_hf(tmp_path)
    assert words(corpus) == {"a/0": "one"}
    assert found(corpus) == [("missing_file", "c.parquet"), ("unreadable_row", "b.parquet")]
    assert "cannot be read as Parquet" in corpus.problems[0].message


def test_nothing_is_written_or_read_through_links(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    rows = [{"audio": {"bytes": b"x", "path": "../../../../evil.wav"}, "text": ""}]
    write_shard(root, "data/a.parquet", rows, {"audio": Audio(), "text": Value("string")})
    elsewhere.mkdir()
    (root / ".media").symlink_to(elsewhere)
    with pytest.raises(PipelineError, match=r"\.media is a link or holds one, and clips are unpacked there; delete it"):
        read_hf(root)
    (root / ".media").unlink()
    (root / ".media").mkdir()
    (root / ".media/data").symlink_to(elsewhere)
    with pytest.raises(PipelineError, match=r"\.media is a link or holds one"):
        read_hf(root)
    assert list(elsewhere.iterdir()) == []
    (root / ".media/data").unlink()
    (elsewhere / "secret.wav").write_bytes(b"secret")
    folder = root / ".media/data/a.parquet"
    folder.mkdir(parents=True)
    (folder / "0.wav").symlink_to(elsewhere / "secret.wav")
    corpus = read_hf(root)  # the link is replaced, never followed
    assert media(corpus) == [".media/data/a.parquet/0.wav"]
    assert (folder / "0.wav").read_bytes() == b"x"
    assert (elsewhere / "secret.wav").read_bytes() == b"secret"
    (folder / "0.wav").unlink()
    (folder / "0.wav").symlink_to(elsewhere / "secret.wav")  # as a stranger's folder may bring it, record and all
    with pytest.raises(PipelineError, match="a link that leaves the corpus root"):
        read_hf(root)


def test_a_record_that_cannot_be_read_is_made_again(tmp_path: Path) -> None:
    rows = [{"audio": {"bytes": b"x", "path": "x.wav"}, "text": "one"}]
    write_shard(tmp_path, "a.parquet", rows, {"audio": Audio(), "text": Value("string")})
    first = read_hf(tmp_path)
    for text in ("{", "[]", '{"of": 1}'):
        write(tmp_path, ".media/a.parquet/unpacked.json", text)
        assert read_hf(tmp_path).clips == first.clips
        assert json.loads((tmp_path / ".media/a.parquet/unpacked.json").read_text())["files"] == media(first)
