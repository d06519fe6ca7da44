"""MMSA's tree as each of its corpora fills it: CMU-MOSEI's ids, CH-SIMS' Chinese words; media are empty files."""

from pathlib import Path

import pytest

from pipeline.corpora.base import Corpus
from pipeline.corpora.mmsa import read_mmsa

MOSEI_HEADER = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"
SIMS_HEADER = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"
SIMS_WORDS = {
    "video_0001_1": "我不想嫁给李茶",
    "video_0001_2": "那你想嫁给谁？",
    "video_0001_10": "啊，你说什么……“我”？",
    "video_0060_3": "嗯",
}
SIMS_ROWS = (
    "video_0001,0001,我不想嫁给李茶,-0.8,-0.6,-0.8,-0.6,Negative,train\n"
    "video_0001,0002,那你想嫁给谁？,0.0,0.0,0.2,0.0,Neutral,train\n"
    "video_0001,0010,啊，你说什么……“我”？,0.2,0.0,0.4,0.2,Positive,valid\n"
    "video_0060,0003,嗯,1.0,0.6,1.0,1.0,Positive,test\n"
)


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def words(corpus: Corpus) -> dict[str, str | None]:
    return {clip.clip_id: clip.transcript for clip in corpus.clips}


@pytest.fixture
def sims(tmp_path: Path) -> Path:
    touch(tmp_path, *(f"Raw/video_0001/{n}.mp4" for n in ("0001", "0002", "0010")), "Raw/video_0060/0003.mp4")
    return tmp_path


# --- CMU-MOSEI ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", ["1", "01", "0001"])
def test_mosei_ids_may_begin_with_anything_and_hold_anything(tmp_path: Path, n: str) -> None:
    videos = ("-3g5yACwYnA", "--qXJuDtHPw", "_4PNh8dIILI", "_aJghSQmxD8", "100178", "0K7dCp80n9c", "=x", "+a@b")
    touch(tmp_path, *(f"Raw/{video}/{n}.mp4" for video in videos), *(f"Raw/{video}/0.mp4" for video in videos))
    rows = "".join(f"{video},1,one of {video},0.66,,,,P,train\n{video},0,nil,-2,,,,N,test\n" for video in videos)
    (tmp_path / "label.csv").write_text(MOSEI_HEADER + rows)
    corpus = read_mmsa(tmp_path)
    assert words(corpus) == {
        **{f"{video}_1": f"one of {video}" for video in videos},
        **{f"{video}_0": "nil" for video in videos},
    }
    assert {clip.clip_id: (clip.media, clip.video) for clip in corpus.clips}["-3g5yACwYnA_1"] == (
        f"Raw/-3g5yACwYnA/{n}.mp4",
        "-3g5yACwYnA",
    )
    assert corpus.labels["_4PNh8dIILI_1"] == "1"
    assert corpus.labels["_4PNh8dIILI_0"] == "-2"
    assert corpus.problems == []


# --- CH-SIMS --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "note"),
    [("utf-8", None), ("utf-8-sig", None), ("gbk", "GBK"), ("gb18030", "GBK"), ("utf-16", "UTF-16")],
)
def test_sims_is_read_in_every_encoding_it_is_kept_in(sims: Path, encoding: str, note: str | None) -> None:
    (sims / "label.csv").write_bytes((SIMS_HEADER + SIMS_ROWS).replace("\n", "\r\n").encode(encoding))
    corpus = read_mmsa(sims, label_rule="sign3")
    assert words(corpus) == SIMS_WORDS
    assert [(problem.kind, note in problem.message) for problem in corpus.problems] == [("not_utf8", True)] * bool(note)


def test_sims_numbers_may_have_lost_their_zeros_in_a_spreadsheet(sims: Path) -> None:
    rows = (
        SIMS_ROWS.replace(",0001,", ",1,").replace(",0002,", ",2,").replace(",0010,", ",10,").replace(",0003,", ",3,")
    )
    (sims / "label.csv").write_text(SIMS_HEADER + rows, encoding="utf-8")
    corpus = read_mmsa(sims)
    assert words(corpus) == SIMS_WORDS
    assert corpus.problems == []


def test_the_sign_of_a_sims_label_is_its_annotation(sims: Path) -> None:
    (sims / "label.csv").write_text(SIMS_HEADER + SIMS_ROWS, encoding="utf-8")
    annotated = [row.split(",")[-2].lower() for row in SIMS_ROWS.splitlines()]
    labels = read_mmsa(sims, label_rule="sign3").labels
    assert labels == dict(zip(SIMS_WORDS, annotated, strict=True))


def test_one_row_of_sims_in_gbk_costs_no_other_its_words(sims: Path) -> None:
    lines = (SIMS_HEADER + SIMS_ROWS).splitlines(keepends=True)
    data = b"".join(line.encode("gbk" if number == 4 else "utf-8") for number, line in enumerate(lines))
    (sims / "label.csv").write_bytes(data)
    corpus = read_mmsa(sims)
    assert {clip_id: text for clip_id, text in words(corpus).items() if clip_id != "video_0060_3"} == {
        clip_id: text for clip_id, text in SIMS_WORDS.items() if clip_id != "video_0060_3"
    }
    assert [problem.kind for problem in corpus.problems] == ["not_utf8"]
