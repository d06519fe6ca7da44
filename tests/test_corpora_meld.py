"""MELD on trees built as its archives unpack, quirks included; media are empty files, since no reader opens one."""

from pathlib import Path

import pytest

from pipeline.corpora import read_corpus
from pipeline.corpora.base import Corpus, CorpusClip
from pipeline.corpora.meld import read_meld
from pipeline.errors import PipelineError

TRAIN, DEV, TEST = "train/train_splits", "dev/dev_splits_complete", "test/output_repeated_splits_test"
HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def row(words: str, emotion: str, dialogue: object, utterance: object, sentiment: str = "neutral") -> str:
    quoted = words.replace('"', '""')
    return f'1,"{quoted}",Joey,{emotion},{sentiment},{dialogue},{utterance},8,21,"00:16:16,059","00:16:21,731"\n'


def write_table(root: Path, path: str, *rows: str, encoding: str = "utf-8") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes((HEADER + "".join(rows)).encode(encoding))


def found(corpus: Corpus) -> list[tuple[str, str]]:
    return sorted((problem.kind, problem.where) for problem in corpus.problems)


def words(corpus: Corpus) -> dict[str, str | None]:
    return {clip.clip_id: clip.transcript for clip in corpus.clips}


@pytest.fixture
def meld(tmp_path: Path) -> Path:
    """Every split has a dialogue 0 of its own."""
    touch(tmp_path, f"{TRAIN}/dia0_utt0.mp4", f"{TRAIN}/dia0_utt10.mp4", f"{TRAIN}/dia0_utt2.mp4")
    touch(tmp_path, f"{TRAIN}/._dia0_utt0.mp4", f"{TRAIN}/.DS_Store", f"{DEV}/dia0_utt0.mp4", f"{TEST}/dia0_utt0.mp4")
    joey = 'He said "how you doin\'?"'
    rows = row("Good, fine.", "neutral", 0, 0), row(joey, "joy", 0, 2, "positive"), row("Oh", "surprise", 0, 10)
    write_table(tmp_path, "train_sent_emo.csv", *rows)
    write_table(tmp_path, "dev_sent_emo.csv", row("What?", "anger", 0, 0, "negative"))
    write_table(tmp_path, "test_sent_emo.csv", row("Hm…", "sadness", 0, 0, "negative"))
    return tmp_path


def test_ids_hold_the_split_and_a_dialogue_is_one_video(meld: Path) -> None:
    corpus = read_corpus("meld", meld)
    assert [clip.clip_id for clip in corpus.clips] == [
        *("dev_dia0_utt0", "test_dia0_utt0", "train_dia0_utt0", "train_dia0_utt2", "train_dia0_utt10")
    ]
    assert corpus.clips[3] == CorpusClip(
        "train_dia0_utt2",
        f"{TRAIN}/dia0_utt2.mp4",
        transcript='He said "how you doin\'?"',
        video="train_dia0",
    )
    assert {clip.video for clip in corpus.clips} == {"dev_dia0", "test_dia0", "train_dia0"}
    assert corpus.problems == []


def test_the_label_is_the_emotion_or_the_sentiment(meld: Path) -> None:
    assert list(read_meld(meld).labels.values()) == ["neutral", "joy", "surprise", "anger", "sadness"]
    by_sentiment = read_corpus("meld", meld, label_column="Sentiment").labels
    assert by_sentiment["train_dia0_utt2"] == "positive"
    with pytest.raises(
        PipelineError, match=r"train_sent_emo\.csv: expected a column 'Mood', .*; set corpus\.label_col"
    ):
        read_meld(meld, label_column="Mood")


@pytest.mark.parametrize(
    ("train", "dev", "test"),
    [
        ("train_splits", "dev_splits_complete", "output_repeated_splits_test"),
        ("MELD.Raw/train/train_splits", "MELD.Raw/dev_splits_complete", "MELD.Raw/test/output_repeated_splits_test"),
        ("media/Train", "media/Dev", "media/Test"),
        ("test-disk/train", "test-disk/dev", "test-disk/test"),  # the nearest folder counts
    ],
)
def test_folders_are_found_where_they_were_unpacked(meld: Path, train: str, dev: str, test: str) -> None:
    before = read_meld(meld)
    for old, new in {TRAIN: train, DEV: dev, TEST: test}.items():
        (meld / "moved" / new).parent.mkdir(parents=True, exist_ok=True)
        (meld / old).rename(meld / "moved" / new)
    for split in ("train", "dev", "test"):
        (meld / "data/MELD").mkdir(parents=True, exist_ok=True)
        (meld / f"{split}_sent_emo.csv").rename(meld / f"data/MELD/{split}_sent_emo.csv")
    after = read_meld(meld)
    assert words(after) == words(before)
    assert after.labels == before.labels
    assert after.problems == []
    assert after.clips[-1].media == f"moved/{train}/dia0_utt10.mp4"


def test_characters_read_in_a_wrong_encoding_are_mended_and_told(meld: Path) -> None:
    # The published train table holds U+0092, U+0085 ...; others' copies hold â€™, as spreadsheets leave it.
    rows = row("You\x92ve \x93lost\x94 it\x85", "joy", 0, 0), row("Itâ€™s a â€œkeyâ€\x9d", "joy", 0, 2)
    write_table(meld, "train_sent_emo.csv", *rows, row("My fiancé\x97fiancÃ©", "joy", 0, 10))
    corpus = read_meld(meld)
    assert words(corpus)["train_dia0_utt0"] == "You’ve “lost” it…"
    assert words(corpus)["train_dia0_utt2"] == "It’s a “key”"
    assert words(corpus)["train_dia0_utt10"] == "My fiancé—fiancé"
    assert found(corpus) == [("not_utf8", "train_sent_emo.csv")]
    assert "3 of its lines (first: 2) held characters read in a wrong encoding" in corpus.problems[0].message


def test_what_is_no_known_mistake_is_left_alone(meld: Path) -> None:
    said = "naïve café — “ok” … € Ã â a\u0301 你好"
    write_table(meld, "dev_sent_emo.csv", row(said, "joy", 0, 0))
    corpus = read_meld(meld)
    assert words(corpus)["dev_dia0_utt0"] == said
    assert corpus.problems == []


def test_a_table_in_windows_1252_is_read_and_told(meld: Path) -> None:
    write_table(meld, "dev_sent_emo.csv", row("I’m fine…", "joy", 0, 0), encoding="cp1252")
    corpus = read_meld(meld)
    assert words(corpus)["dev_dia0_utt0"] == "I’m fine…"
    assert found(corpus) == [("not_utf8", "dev_sent_emo.csv")]


def test_what_does_not_match_is_reported(meld: Path) -> None:
    """As in the release: dev lacks dia110_utt7, and has dia66_utt9 without a row."""
    touch(meld, f"{DEV}/dia66_utt9.mp4", f"{DEV}/outtake.mp4", "extras/dia1_utt1.mp4", f"{DEV}/holiday.txt")
    write_table(
        meld,
        "dev_sent_emo.csv",
        row("What?", "anger", 0, 0),
        row("again", "joy", 0, 0),
        row("gone", "joy", 110, 7),
        row("who?", "joy", "x", 7),
        "1,too,few\n",
    )
    corpus = read_meld(meld)
    assert found(corpus) == [
        ("clip_without_transcript", "dev_dia66_utt9"),
        ("duplicate_id", "dev_sent_emo.csv:3"),
        ("missing_file", "dev_sent_emo.csv:4"),
        ("unreadable_row", f"{DEV}/outtake.mp4"),
        ("unreadable_row", "dev_sent_emo.csv:5"),
        ("unreadable_row", "dev_sent_emo.csv:6"),
        ("unreadable_row", "extras/dia1_utt1.mp4"),
    ]
    assert words(corpus)["dev_dia0_utt0"] == "What?"
    assert words(corpus)["dev_dia66_utt9"] is None
    assert "dev_dia66_utt9" not in corpus.labels


def test_the_test_splits_second_files_stand_in_where_there_is_no_first(meld: Path) -> None:
    touch(meld, f"{TEST}/final_videos_testdia0_utt0.mp4", f"{TEST}/final_videos_testdia1_utt0.mp4")
    write_table(meld, "test_sent_emo.csv", row("one", "joy", 0, 0), row("two", "joy", 1, 0))
    corpus = read_meld(meld)
    media = {clip.clip_id: clip.media for clip in corpus.clips}
    assert media["test_dia0_utt0"] == f"{TEST}/dia0_utt0.mp4"
    assert media["test_dia1_utt0"] == f"{TEST}/final_videos_testdia1_utt0.mp4"
    assert found(corpus) == [("duplicate_id", f"{TEST}/final_videos_testdia0_utt0.mp4")]
    assert f"{TEST}/dia0_utt0.mp4 is kept" in corpus.problems[0].message


def test_a_split_that_was_not_downloaded_is_one_problem(meld: Path) -> None:
    for path in (meld / TRAIN).iterdir():
        path.unlink()
    corpus = read_meld(meld)
    assert set(words(corpus)) == {"dev_dia0_utt0", "test_dia0_utt0"}
    assert found(corpus) == [("missing_file", "train_sent_emo.csv")]
    assert "no clips of the split train, so its 3 rows are left out" in corpus.problems[0].message


def test_a_split_without_its_table_has_clips_without_words(meld: Path) -> None:
    (meld / "dev_sent_emo.csv").unlink()
    corpus = read_meld(meld)
    assert words(corpus)["dev_dia0_utt0"] is None
    assert found(corpus) == [("clip_without_transcript", "dev_dia0_utt0")]


def test_of_two_tables_of_a_split_the_higher_one_is_read(meld: Path) -> None:
    write_table(meld, "data/MELD/dev_sent_emo.csv", row("another", "joy", 0, 0))
    write_table(meld, "data/MELD_Dyadic/dev_sent_emo_dya.csv", row("dyadic", "joy", 0, 0))  # another set's
    corpus = read_meld(meld)
    assert words(corpus)["dev_dia0_utt0"] == "What?"
    assert found(corpus) == [("duplicate_id", "data/MELD/dev_sent_emo.csv")]


def test_a_folder_that_is_not_meld_is_refused(meld: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("other")
    touch(elsewhere, f"{TRAIN}/dia0_utt0.mp4")
    with pytest.raises(PipelineError, match=r"no train_sent_emo\.csv, dev_sent_emo\.csv or test_sent_emo\.csv in "):
        read_meld(elsewhere)
    write_table(elsewhere, "train_sent_emo.csv", row("x", "joy", 7, 7))
    (elsewhere / TRAIN / "dia0_utt0.mp4").unlink()
    with pytest.raises(PipelineError, match=r"no clips in .*: looked for train_splits/.*first problem: train_sent_emo"):
        read_meld(elsewhere)
    (meld / "dev_sent_emo.csv").write_text("Utterance,Emotion\nx,joy\n")
    with pytest.raises(PipelineError, match=r"dev_sent_emo\.csv: expected a column 'Dialogue_ID'"):
        read_meld(meld)
    with pytest.raises(PipelineError, match="no such folder"):
        read_meld(meld / "nowhere")
