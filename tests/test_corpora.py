"""Corpus readers on trees built here, quirks included; media are empty files, since no reader opens one."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline.corpora
import pipeline.corpora.synthetic
from pipeline.corpora import read_corpus, read_synthetic
from pipeline.corpora.base import Corpus, CorpusClip, Problem, natural_key
from pipeline.corpora.mmsa import read_mmsa
from pipeline.corpora.mosi import read_mosi
from pipeline.errors import PipelineError

MOSI_TEXT = Path(__file__).parents[2] / "shared" / "data" / "mosi_text" / "transcripts.csv"
VIDEO, TRANSCRIPT = "Raw/Video/Segmented", "Raw/Transcript/Segmented"
HEADER = "video_id,clip_id,text,label,annotation,mode\n"


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def write(root: Path, path: str, content: str | bytes) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    (root / path).write_bytes(data)


def found(corpus: Corpus) -> list[tuple[str, str]]:
    return sorted((problem.kind, problem.where) for problem in corpus.problems)


def words(corpus: Corpus) -> dict[str, str | None]:
    return {clip.clip_id: clip.transcript for clip in corpus.clips}


@pytest.fixture
def raw_mosi(tmp_path: Path) -> Path:
    touch(tmp_path, *(f"{VIDEO}/{name}.mp4" for name in ("_dI--eQ6qVU_1", "_dI--eQ6qVU_10", "_dI--eQ6qVU_2")))
    touch(tmp_path, f"{VIDEO}/-a_b_3.MP4", f"{VIDEO}/.DS_Store", f"{VIDEO}/._-a_b_3.mp4", f"{VIDEO}/notes.doc")
    write(
        tmp_path,
        f"{TRANSCRIPT}/_dI--eQ6qVU.annotprocessed",
        "1_DELIM_I LOVED IT  \r\n\r\n2_DELIM_WELL_DELIM_ NO\r\n10_DELIM_\r\n",
    )
    write(tmp_path, f"{TRANSCRIPT}/-a_b.annotprocessed", "3_DELIM_OK\n")
    write(tmp_path, f"{TRANSCRIPT}/._-a_b.annotprocessed", b"\x00\x05\x16")
    return tmp_path


@pytest.fixture
def mmsa(tmp_path: Path) -> Path:
    touch(tmp_path, "Raw/-a_b/1.mp4", "Raw/-a_b/2.mp4", "Raw/2024/1.mp4")
    rows = '-a_b,1,"He said ""no"", twice",-1.6,Negative,train\n-a_b,2,,0.4,Neutral,test\n2024,1,好的,3.0,P,valid\n'
    write(tmp_path, "label.csv", "\ufeff" + HEADER + rows)
    return tmp_path


# --- raw MOSI -------------------------------------------------------------------------------------------------------


def test_raw_mosi_gives_ids_words_and_natural_order(raw_mosi: Path) -> None:
    corpus = read_mosi(raw_mosi)
    assert [clip.clip_id for clip in corpus.clips] == [
        "-a_b_3",
        "_dI--eQ6qVU_1",
        "_dI--eQ6qVU_2",
        "_dI--eQ6qVU_10",
    ]
    assert words(corpus) == {
        "-a_b_3": "OK",
        "_dI--eQ6qVU_1": "I LOVED IT",
        "_dI--eQ6qVU_2": "WELL_DELIM_ NO",
        "_dI--eQ6qVU_10": "",
    }
    assert corpus.clips[0].media == f"{VIDEO}/-a_b_3.MP4"
    assert (corpus.labels, corpus.problems) == ({}, [])


def test_raw_mosi_root_may_be_raw_itself(raw_mosi: Path) -> None:
    corpus = read_mosi(raw_mosi / "Raw")
    assert corpus.clips[0].media == "Video/Segmented/-a_b_3.MP4"
    assert words(corpus) == words(read_mosi(raw_mosi))
    assert corpus.problems == []


def test_raw_mosi_reports_what_does_not_match(raw_mosi: Path) -> None:
    touch(raw_mosi, f"{VIDEO}/lonely_4.mp4", f"{VIDEO}/nonumber.mp4", f"{VIDEO}/x_y.mp4", f"{VIDEO}/-a_b_03.avi")
    write(
        raw_mosi,
        f"{TRANSCRIPT}/gone.annotprocessed",
        "1_DELIM_HELLO\n1_DELIM_AGAIN\nno delimiter\nx_DELIM_Y\n",
    )
    corpus = read_mosi(raw_mosi)
    assert found(corpus) == [
        ("clip_without_transcript", "lonely_4"),
        ("duplicate_id", f"{TRANSCRIPT}/gone.annotprocessed:2"),
        ("duplicate_id", f"{VIDEO}/-a_b_3.MP4"),  # "-a_b_03.avi" sorts before it and is the same number
        ("transcript_without_clip", "gone_1"),
        ("unreadable_row", f"{TRANSCRIPT}/gone.annotprocessed:3"),
        ("unreadable_row", f"{TRANSCRIPT}/gone.annotprocessed:4"),
        ("unreadable_row", f"{VIDEO}/nonumber.mp4"),
        ("unreadable_row", f"{VIDEO}/x_y.mp4"),
    ]
    assert words(corpus)["lonely_4"] is None


def test_raw_mosi_without_any_transcripts_keeps_the_clips(tmp_path: Path) -> None:
    touch(tmp_path, f"{VIDEO}/v_1.mp4")
    corpus = read_mosi(tmp_path)
    assert words(corpus) == {"v_1": None}
    assert found(corpus) == [("clip_without_transcript", "v_1")]


def test_raw_mosi_reads_other_encodings_and_says_so(tmp_path: Path) -> None:
    touch(tmp_path, f"{VIDEO}/v_1.mp4", f"{VIDEO}/v_2.mp4", f"{VIDEO}/w_1.mp4")
    write(tmp_path, f"{TRANSCRIPT}/v.annotprocessed", b"1_DELIM_CAF\xc9\r\n2_DELIM_\xc3\x89T\xc3\x89\r\n")
    write(tmp_path, f"{TRANSCRIPT}/w.annotprocessed", "1_DELIM_ÉTÉ\r\n".encode("utf-16"))
    corpus = read_mosi(tmp_path)
    assert words(corpus) == {"v_1": "CAFÉ", "v_2": "ÉTÉ", "w_1": "ÉTÉ"}
    assert [problem.kind for problem in corpus.problems] == ["not_utf8", "not_utf8"]
    assert "1 of its lines (first: 1) read as Windows-1252" in corpus.problems[0].message
    assert "byte-order mark" in corpus.problems[1].message


def test_raw_mosi_takes_labels_from_a_csv(raw_mosi: Path) -> None:
    write(raw_mosi, "labels.csv", "clip_id,label\n-a_b_3,2.5\n_dI--eQ6qVU_1,-3.4\n_dI--eQ6qVU_1,1\nnobody_1,0\n")
    corpus = read_mosi(raw_mosi, labels_csv="labels.csv")
    assert corpus.labels == {"-a_b_3": "2", "_dI--eQ6qVU_1": "-3"}  # 2.5 rounds half to even
    assert found(corpus) == [("duplicate_id", "labels.csv:4"), ("label_without_clip", "labels.csv:5")]
    write(raw_mosi, "mmsa.csv", HEADER + "-a_b,0003,OK,1.2,P,train\n")
    absolute = read_mosi(raw_mosi / "Raw", labels_csv=str(raw_mosi / "mmsa.csv"), label_rule="sign3")
    assert absolute.labels == {"-a_b_3": "positive"}


def test_raw_mosi_uses_a_label_csv_that_lies_in_root(raw_mosi: Path) -> None:
    write(raw_mosi, "label.csv", HEADER + "-a_b,3,OK,1.2,P,train\n")
    assert read_mosi(raw_mosi).labels == {"-a_b_3": "1"}
    assert read_mosi(raw_mosi / "Raw").labels == {"-a_b_3": "1"}


def test_labels_csv_that_cannot_be_used_is_refused(raw_mosi: Path) -> None:
    with pytest.raises(PipelineError, match=r"no file .*none\.csv; set corpus\.labels_csv"):
        read_mosi(raw_mosi, labels_csv="none.csv")
    write(raw_mosi, "bad.csv", "id,label\na,1\n")
    with pytest.raises(PipelineError, match=r"bad\.csv: expected a column 'clip_id', got 'id', 'label'"):
        read_mosi(raw_mosi, labels_csv="bad.csv")


def test_a_transcript_file_that_cannot_be_read_costs_no_clip(raw_mosi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_bytes = Path.read_bytes

    def deny(path: Path) -> bytes:
        if path.name == "-a_b.annotprocessed":
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", deny)
    corpus = read_mosi(raw_mosi)
    assert words(corpus)["-a_b_3"] is None
    assert found(corpus) == [
        ("clip_without_transcript", "-a_b_3"),
        ("unreadable_row", f"{TRANSCRIPT}/-a_b.annotprocessed"),
    ]


def test_the_video_folder_may_be_a_link_to_another_disk(
    raw_mosi: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    disk = tmp_path_factory.mktemp("disk")
    (raw_mosi / VIDEO).rename(disk / "Segmented")
    (raw_mosi / VIDEO).symlink_to(disk / "Segmented")
    assert len(read_mosi(raw_mosi).clips) == 4


@pytest.mark.shared_data
@pytest.mark.skipif(not MOSI_TEXT.is_file(), reason="../shared/data/mosi_text is not beside the checkout")
def test_every_published_mosi_utterance_comes_back(tmp_path: Path) -> None:
    with MOSI_TEXT.open(newline="", encoding="utf-8") as file:
        published = {row[0]: row[1] for row in csv.reader(file)}
    lines: dict[str, str] = {}
    for clip_id, text in published.items():
        video, n = re.fullmatch(r"(.+)_(\d+)", clip_id).groups()
        lines[video] = lines.get(video, "") + f"{n}_DELIM_{text}\n"
    touch(tmp_path, *(f"{VIDEO}/{clip_id}.mp4" for clip_id in published))
    for video, text in lines.items():
        write(tmp_path, f"{TRANSCRIPT}/{video}.annotprocessed", text)
    corpus = read_mosi(tmp_path)
    assert len(corpus.clips) == 2199
    assert words(corpus) == {clip_id: text.strip() for clip_id, text in published.items()}
    assert corpus.problems == []


# --- MMSA -----------------------------------------------------------------------------------------------------------


def test_mmsa_gives_ids_words_and_rounded_labels(mmsa: Path) -> None:
    corpus = read_mmsa(mmsa)
    assert words(corpus) == {"-a_b_1": 'He said "no", twice', "-a_b_2": "", "2024_1": "好的"}
    assert corpus.labels == {"-a_b_1": "-2", "-a_b_2": "0", "2024_1": "3"}
    assert [clip.media for clip in corpus.clips] == ["Raw/2024/1.mp4", "Raw/-a_b/1.mp4", "Raw/-a_b/2.mp4"]
    assert corpus.problems == []


def test_mmsa_root_may_be_raw_with_label_csv_beside_it(mmsa: Path) -> None:
    corpus = read_mmsa(mmsa / "Raw")
    assert [clip.media for clip in corpus.clips] == ["2024/1.mp4", "-a_b/1.mp4", "-a_b/2.mp4"]
    assert corpus.labels == read_mmsa(mmsa).labels


def test_mosi_recognises_the_mmsa_tree(mmsa: Path) -> None:
    assert read_mosi(mmsa).clips == read_mmsa(mmsa).clips
    write(mmsa, "other.csv", "clip_id,label\n2024_1,-1\n")
    assert read_mosi(mmsa, labels_csv="other.csv").labels == {"2024_1": "-1"}


def test_both_layouts_give_a_clip_one_id(tmp_path: Path) -> None:
    touch(tmp_path, f"a/{VIDEO}/-v_x_1.mp4", f"a/{VIDEO}/-v_x_12.mp4", "b/Raw/-v_x/1.mp4", "b/Raw/-v_x/12.mp4")
    write(tmp_path, f"a/{TRANSCRIPT}/-v_x.annotprocessed", "1_DELIM_A\n12_DELIM_B\n")
    write(tmp_path, "b/label.csv", HEADER + "-v_x,12,B,0,N,train\n-v_x,1,A,0,N,train\n")
    assert words(read_mosi(tmp_path / "a")) == words(read_mosi(tmp_path / "b"))


def test_mmsa_matches_numbers_with_leading_zeros_on_either_side(tmp_path: Path) -> None:
    touch(tmp_path, "Raw/v/0001.mp4", "Raw/v/2.mp4", "Raw/v/3.mp4", "Raw/v/003.mp4", "Raw/v/0000.mp4")
    write(tmp_path, "label.csv", HEADER + "v,1,a,0,N,x\nv,0002,b,0,N,x\nv,3,c,0,N,x\nv,0,d,0,N,x\n")
    corpus = read_mmsa(tmp_path)
    assert [(clip.clip_id, clip.media) for clip in corpus.clips] == [
        ("v_0", "Raw/v/0000.mp4"),
        ("v_1", "Raw/v/0001.mp4"),
        ("v_2", "Raw/v/2.mp4"),
        ("v_3", "Raw/v/3.mp4"),  # the exact name before the equal number
    ]
    assert found(corpus) == [("duplicate_id", "Raw/v/003.mp4")]


def test_mmsa_reports_what_does_not_match(tmp_path: Path) -> None:
    touch(tmp_path, *(f"Raw/v/{n}.mp4" for n in range(1, 6)), "Raw/v/1.avi", "Raw/v/.DS_Store")
    rows = [
        "video_id,clip_id,text,label,label_T,label_A,annotation,mode",
        "v,1,one,1,0,0,P,train",
        "v,2,two,many,0,0,P,train",  # a label that is no number
        "v,3,a text, unquoted,1,0,0,P,train",
        "v,4,short,1",
        "v,9,no such clip,1,0,0,P,train",
        "v,1,one again,1,0,0,P,train",
        "v,5,five,,0,0,P,train",  # no label at all
    ]
    write(tmp_path, "label.csv", "\r\n".join(rows))
    corpus = read_mmsa(tmp_path)
    assert words(corpus) == {"v_1": "one", "v_2": "two", "v_3": None, "v_4": None, "v_5": "five"}
    assert corpus.labels == {"v_1": "1"}
    assert found(corpus) == [
        ("clip_without_transcript", "v_3"),
        ("clip_without_transcript", "v_4"),
        ("duplicate_id", "Raw/v/1.mp4"),
        ("duplicate_id", "label.csv:7"),
        ("transcript_without_clip", "label.csv:6"),
        ("unreadable_label", "label.csv:3"),
        ("unreadable_row", "label.csv:4"),
        ("unreadable_row", "label.csv:5"),
    ]


def test_mmsa_without_its_table_or_its_columns_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "Raw/v/1.mp4")
    with pytest.raises(PipelineError, match=r"no label\.csv in .*; expected the MMSA layout"):
        read_mmsa(tmp_path)
    write(tmp_path, "label.csv", "video_id,clip_id,text\nv,1,a\n")
    with pytest.raises(
        PipelineError, match=r"label\.csv: expected a column 'label', got 'video_id', 'clip_id', 'text'"
    ):
        read_mmsa(tmp_path)


# --- roots ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in pipeline.corpora.READERS if kind != "synthetic"])
def test_a_root_that_cannot_be_read_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PipelineError, match=r"nowhere: no such folder; .*; set corpus\.root \(CLIPS="):
        read_corpus(kind, tmp_path / "nowhere")
    write(tmp_path, "clips.zip", b"PK")
    with pytest.raises(PipelineError, match=r"clips\.zip: is a file; .*unpack an archive"):
        read_corpus(kind, tmp_path / "clips.zip")

    def deny(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(PipelineError, match=r"cannot be read: Permission denied; set corpus\.root"):
        read_corpus(kind, tmp_path)


@pytest.mark.parametrize("kind", ["mosi", "folder"])
def test_a_root_without_clips_says_what_was_looked_for_and_found(kind: str, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"no clips in .*: looked for .*mp4, m4v.*found an empty folder; set"):
        read_corpus(kind, tmp_path)
    touch(tmp_path, "songs/a.mp3", *(f"{n}.pdf" for n in range(9)))
    with pytest.raises(PipelineError, match=r"found 0\.pdf, 1\.pdf, .* and 2 more; set corpus\.root"):
        read_corpus(kind, tmp_path)


def test_an_mmsa_table_without_media_names_the_first_problem(tmp_path: Path) -> None:
    write(tmp_path, "label.csv", HEADER + "v,1,a,0,N,x\n")
    with pytest.raises(PipelineError, match=r"first problem: label\.csv:2: no media file for clip '1' of video 'v'"):
        read_mmsa(tmp_path)


# --- the registry and the contract ----------------------------------------------------------------------------------


def test_read_corpus_refuses_kinds_and_options_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="unknown corpus 'mossi'; did you mean 'mosi'\\? known: mosi, mmsa, folder"):
        read_corpus("mossi", tmp_path)
    message = "corpus.table: unknown setting of a mosi corpus 'table'; .*known: label_rule, labels_csv"
    with pytest.raises(PipelineError, match=message):
        read_corpus("mosi", tmp_path, table="a.csv")


def test_read_corpus_passes_its_options_on(mmsa: Path) -> None:
    assert read_corpus("mmsa", mmsa, label_rule="sign2").labels["-a_b_1"] == "negative"


def test_readers_are_imported_only_when_asked_for() -> None:
    named = {"mosi", "mmsa", "folder", "meld", "iemocap", "crema_d", "ravdess", "grid", "hf", "parquet", "synthetic"}
    assert set(pipeline.corpora.READERS) == named
    code = "import sys, pipeline.corpora; print(sorted(m for m in sys.modules if m.startswith('pipeline.corpora.')))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "mosi" not in output
    assert "synthetic" not in output


def test_the_synthetic_corpus_is_drawn_then_read_like_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(root: Path, *, clips_per_class: int, seed: int, progress: object) -> None:
        touch(root, "clips/a.mp4")
        write(root, "clips.csv", f"file,transcript,label\nclips/a.mp4,hello,{clips_per_class}-{seed}\n")
        progress(1, 1)

    monkeypatch.setattr(pipeline.corpora.synthetic, "write_synthetic_corpus", draw)
    corpus = read_corpus("synthetic", tmp_path, clips_per_class=2, seed=5)
    assert (words(corpus), corpus.labels) == ({"clips/a": "hello"}, {"clips/a": "2-5"})
    assert read_synthetic(tmp_path).labels == {"clips/a": "12-0"}


def test_problem_and_clip_check_themselves() -> None:
    with pytest.raises(ValueError, match="unknown kind of problem 'missing'; did you mean 'missing_file'"):
        Problem("missing", "a", "b")
    with pytest.raises(ValueError, match="clip_id is empty"):
        CorpusClip("", "a.mp4")
    with pytest.raises(ValueError, match=r"end_s .* must be after start_s"):
        CorpusClip("a", "a.mp4", 2.0, 1.0)


def test_natural_key_orders_digits_as_numbers() -> None:
    ids = ["a10", "a2", "a02", "10", "9", "a2b10", "a2b9", "", "9" * 5000]
    assert sorted(ids, key=natural_key) == ["", "9", "10", "9" * 5000, "a02", "a2", "a2b9", "a2b10", "a10"]
