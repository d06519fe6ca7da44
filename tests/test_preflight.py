"""What doctor finds in clips before anything is embedded: each kind of finding, nothing where all is well."""

import json
import os
import shutil
import struct
from contextlib import nullcontext
from pathlib import Path

import pytest
from corpus_factory import write_folder_corpus
from documents import rows
from media_factory import write_clip
from terminal import call_main

from extractors.errors import CAUSES, ExtractionError
from extractors.media_header import MediaHeader
from pipeline import doctor as checks
from pipeline import preflight as looking
from pipeline.config import ExtractSettings, load_settings
from pipeline.corpora.base import PROBLEM_KINDS, CorpusClip
from pipeline.corpora.tables import read_records
from pipeline.doctor import OK, PROBLEM, WARNING
from pipeline.errors import PipelineError
from pipeline.preflight import TODO, Preflight, header_readers, n_words, preflight, write_findings

WELL = MediaHeader(4.0, None, None)


@pytest.fixture(scope="module")
def readers():
    with header_readers(ExtractSettings(decode_workers=1)) as readers:
        readers.wait_until_ready()
        yield readers


@pytest.fixture
def look(tmp_path, readers):
    """Looks at tmp_path/clips, settings given."""

    def look(*overrides: str) -> Preflight:
        return preflight(load_settings(None, overrides, corpus__root=tmp_path / "clips"), readers)

    (tmp_path / "clips").mkdir()
    return look


def add(root: Path, name: str, words: str | None = "what they said", **how) -> Path:
    """A clip of its own content, with a .txt beside it where there are words."""
    path = root / name
    how = {"duration_s": 1.0, "fps": 10, **how}
    write_clip(path, tones_hz=(200.0 + 50 * len(list(root.iterdir())),), **how)
    if words is not None:
        path.with_suffix(".txt").write_text(words, encoding="utf-8")
    return path


def add_table(root: Path, *rows: str) -> None:
    (root / "clips.csv").write_text("\n".join(("clip_id,file,start_s,end_s,transcript", *rows)) + "\n")


def kinds(found: Preflight) -> dict[str, list[str]]:
    return {kind: [finding.where for finding in findings] for kind, findings in found.by_kind().items()}


def at_words(transcript: str | None, length_s: float | None) -> list[str]:
    clip = CorpusClip("a", "a.mp4", transcript=transcript)
    header = MediaHeader(length_s, None, None)
    return [kind for kind, _ in looking._of_clip(clip, header, length_s, length_s, ("visual", "text", "audio"))]


def test_nothing_is_found_where_all_is_well(look, tmp_path):
    write_folder_corpus(tmp_path / "clips", 3, duration_s=1.0)
    found = look()
    assert found.findings == []
    assert (found.layout, found.clips, found.files) == ("folder", 3, 3)
    assert found.having == {"visual": 3, "text": 3, "audio": 3}
    assert found.seconds == pytest.approx(3.0, abs=0.1)
    assert found.n_bytes == sum(path.stat().st_size for path in tmp_path.glob("clips/*.mp4"))
    assert [check.state for check in found.checks()] == [OK]


def test_files_that_cannot_be_opened_and_streams_that_are_not_there(look, tmp_path):
    root = tmp_path / "clips"
    add(root, "well.mp4")
    add(root, "silent.mp4", audio_codec=None)
    add(root, "dark.mp4", video_codec=None)
    cut = add(root, "cut: twice.mp4")
    cut.write_bytes(cut.read_bytes()[:1000])
    for name in ("empty", "playlist"):
        (root / f"{name}.txt").write_text("some words")
    (root / "empty.mp4").touch()
    (root / "playlist.mp4").write_text("ffconcat version 1.0\nfile well.mp4\n")
    found = look()
    assert kinds(found) == {
        "empty_file": ["empty"],
        "undecodable": ["cut: twice", "playlist"],
        "no_video_stream": ["dark"],
        "no_audio_stream": ["silent"],
    }
    assert found.having == {"visual": 2, "text": 6, "audio": 2}
    broken = found.by_kind()["undecodable"][0]
    assert broken.message.startswith("not readable as video or audio (")
    assert (broken.media, broken.n_bytes, broken.length_s) == ("cut: twice.mp4", 1000, None)
    assert all(finding.message and str(root) not in finding.message for finding in found.findings)


def test_what_is_switched_off_is_not_missed(look, tmp_path):
    add(tmp_path / "clips", "silent.mp4", audio_codec=None, words=None)
    assert kinds(look()) == {"no_audio_stream": ["silent"], "clip_without_transcript": ["silent"]}
    assert look("extract.audio=null", "extract.text=null").findings == []


def test_a_file_that_hangs_or_kills_its_reader_is_told_and_is_no_duplicate():
    clip = CorpusClip("a", "a.mp4", transcript="some words")
    for cause, told in (("timeout", "its header could not be read within 20 s"), ("crashed", "it ended with -11")):
        error = ExtractionError("read", cause, "it ended with -11")
        assert list(looking._of_clip(clip, error, None, 1.0, ("text",))) == [(cause, told)]


def test_a_header_is_waited_for_no_longer_than_a_clip():
    assert header_readers(ExtractSettings())._time_limit_s == looking.HEADER_TIME_LIMIT_S
    assert header_readers(ExtractSettings(clip_time_limit_s=2.0))._time_limit_s == 2.0


# Words


def test_missing_and_empty_transcripts_are_told_once_each(look, tmp_path):
    add(tmp_path / "clips", "missing.mp4", words=None)
    add(tmp_path / "clips", "blank.mp4", words=" \n")
    add(tmp_path / "clips", "dots.mp4", words="... — !")
    found = look()
    assert kinds(found) == {"clip_without_transcript": ["missing"], "empty_transcript": ["blank", "dots"]}
    missing = found.by_kind()["clip_without_transcript"][0]
    assert (missing.message, missing.media) == ("no missing.txt beside it", "missing.mp4")
    assert found.having["text"] == 0
    problem = next(check for check in found.checks() if check.state == PROBLEM)
    assert (problem.name, problem.found) == ("text", "no clip has words, and `reduce` wants some")
    assert problem.todo.startswith("--set extract.text=null")


def test_a_transcript_that_cannot_be_read_is_told_with_its_reason(look, tmp_path, monkeypatch):
    path = add(tmp_path / "clips", "a.mp4").with_suffix(".txt")
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads anything

        def refuse(self):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "read_bytes", refuse)
    told = look().by_kind()["clip_without_transcript"]
    assert [(one.where, one.message) for one in told] == [
        ("a.txt", "cannot be read: Permission denied"),
        ("a", "the corpus gives no transcript for this clip"),
    ]


def test_a_corpus_without_words_has_each_of_its_clips_told(look, tmp_path):
    root = tmp_path / "clips"
    add(root, "a.mp4", words=None)
    (root / "clips.csv").write_text("file\na.mp4\n")
    assert kinds(look("corpus.transcript_column=''")) == {"clip_without_transcript": ["a"]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I don't know -- well, yes.", 5),
        ("你知道我在说什么吗？", 4.5),  # nine characters
        ("ありがとう", 2.5),
        ("OK, 好的", 2),
        ("สวัสดีครับ", 2),  # ten letters and marks
        ("나는 학교에 간다", 3),
        ("मैं ठीक हूँ", 3),
        (" ...!? ♪", 0),
        ("", 0),
    ],
)
def test_words_are_counted_in_any_script(text, words):
    assert n_words(text) == words


@pytest.mark.parametrize(
    ("transcript", "length_s", "told"),
    [
        ("one two three four five six seven eight", 1.0, []),  # 8 a second are still possible
        ("one two three four five six seven eight nine", 1.0, ["words_per_second"]),
        ("no no", 0.3, []),  # two words, however short
        ("no no no", 0.3, ["words_per_second"]),
        ("我" * 80, 5.0, []),
        ("我" * 81, 5.0, ["words_per_second"]),
        ("hello", 10.0, []),
        ("hello", 10.1, ["words_per_second"]),
        ("hello there", 19.0, []),
        ("hello", None, ["no_duration"]),
    ],
)
def test_words_that_cannot_be_of_their_clip(transcript, length_s, told):
    assert at_words(transcript, length_s) == told


# Lengths and spans


def set_matroska_duration(path: Path, duration_ms: float) -> None:
    content = bytearray(path.read_bytes())
    place = content.index(b"\x44\x89\x88") + 3  # the Duration element, a double of 8 bytes
    content[place : place + 8] = struct.pack(">d", duration_ms)
    path.write_bytes(content)


def test_suspicious_lengths(look, tmp_path):
    root = tmp_path / "clips"
    for name in "abc":
        add(root, f"{name}.mp4")
    add(root, "blink.mp4", words="oh", duration_s=0.2)
    add(root, "live.webm", muxer_options={"live": "1"})
    set_matroska_duration(add(root, "lecture.mkv", words="so " * 100), 61_000)
    set_matroska_duration(add(root, "liar.mkv", words="so " * 10), 1e12)
    found = look()
    assert kinds(found) == {
        "very_short": ["blink"],
        "very_long": ["lecture", "liar"],
        "no_duration": ["live"],
        "words_per_second": ["liar"],
    }
    assert found.by_kind()["very_long"][0].message == "61 s, where half of the clips are shorter than 1.0 s"


def test_long_clips_among_long_clips_are_not_suspicious(look, tmp_path):
    for name in "ab":
        set_matroska_duration(add(tmp_path / "clips", f"{name}.mkv", words="so " * 100), 90_000)
    assert look().findings == []


def test_spans_outside_their_file_and_lengths_of_spans(look, tmp_path):
    root = tmp_path / "clips"
    add(root, "long.mp4", words=None, duration_s=4.0)
    add_table(
        root,
        "first,long.mp4,0,2,what they said",
        "to the end,long.mp4,2,,what they said",
        "a little over,long.mp4,2,4.4,what they said",
        "over,long.mp4,3,5,what they said",
        "beyond,long.mp4,9,10,what they said",
        "past,long.mp4,4.5,,what they said",
        "blink,long.mp4,1,1.2,what",
    )
    found = look()
    assert kinds(found) == {"span_outside_file": ["beyond", "over", "past"], "very_short": ["blink"]}
    told = {finding.where: finding for finding in found.findings}
    assert told["over"].message == "3 to 5 s, and the file ends at 4.00 s"
    assert told["past"].message == "from 4.5 s on, and the file ends at 4.00 s"
    assert told["over"].length_s == pytest.approx(1.0, abs=0.05)
    assert (found.clips, found.files) == (7, 1)


# Duplicates


def test_duplicates_are_found_by_content(look, tmp_path):
    root = tmp_path / "clips"
    one = add(root, "one.mp4")
    add(root, "other.mp4")
    shutil.copy(one, root / "copy.mp4")
    os.link(one, root / "linked.mp4")
    almost = bytearray(one.read_bytes()) + bytes(200_000)  # FFmpeg passes over what follows
    for name, last in (("almost", 1), ("nearly", 2)):  # of one size and one beginning
        almost[-1] = last
        (root / f"{name}.mp4").write_bytes(almost)
    for name in ("copy", "linked", "almost", "nearly"):
        (root / f"{name}.txt").write_text("what they said")
    found = look()
    assert kinds(found) == {"duplicate_content": ["linked", "one"]}
    assert {finding.message for finding in found.findings} == {"the same as copy (copy.mp4)"}


def test_spans_of_one_file_are_no_duplicates_but_the_same_span_is(look, tmp_path):
    root = tmp_path / "clips"
    add(root, "a.mp4", words=None, duration_s=3.0)
    shutil.copy(root / "a.mp4", root / "b.mp4")
    of_a = ("a1,a.mp4,0,1,yes", "a2,a.mp4,1,2,no", "a2 again,a.mp4,1,2,no")
    add_table(root, *of_a, "b1,b.mp4,0,1,yes", "b3,b.mp4,2,3,so")
    found = look()
    assert {finding.where: finding.message for finding in found.findings} == {
        "a2 again": "the same as a2",
        "b1": "the same as a1 (a.mp4)",
    }


def test_empty_and_broken_files_are_no_duplicates(look, tmp_path):
    for name in "ab":
        (tmp_path / f"clips/{name}.mp4").write_text("not a film")
        (tmp_path / f"clips/{name}.txt").write_text("some words")
    assert kinds(look()) == {"undecodable": ["a", "b"]}


def test_a_file_that_goes_while_it_is_looked_at_is_no_duplicate(tmp_path):
    kept = tmp_path / "kept.mp4"
    kept.write_bytes(b"film")
    gone = {name: str(tmp_path / name) for name in ("gone", "gone too")}
    contents = looking._contents({"kept": str(kept), **gone})
    assert len(set(contents.values())) == 3


# The corpus' own problems


def test_what_prepare_would_report_is_told_and_nothing_is_written(look, tmp_path):
    root = tmp_path / "clips"
    add(root, "a.mp4")
    (root / "lost.txt").write_text("words of a clip that is not there")
    (root / "a.txt").write_bytes("où".encode("latin-1"))
    os.symlink(__file__, root / "outside.mp4")
    before = {path: path.lstat() for path in tmp_path.rglob("*")}
    found = look(f"workdir={tmp_path / 'work'}")
    assert kinds(found) == {
        "unreadable_row": ["outside.mp4"],
        "transcript_without_clip": ["lost.txt"],
        "not_utf8": ["a.txt"],
    }
    assert {path: path.lstat() for path in tmp_path.rglob("*")} == before


def test_a_folder_that_is_given_to_the_demos_config_is_looked_at_as_a_folder(look, tmp_path):
    add(tmp_path / "clips", "a.mp4")
    found = look("corpus.kind=synthetic", "corpus.clips_per_class=2")
    assert (found.layout, found.clips, found.findings) == ("folder", 1, [])


def test_no_root_is_refused(readers):
    with pytest.raises(PipelineError, match=r"corpus\.root is not set"):
        preflight(load_settings(None), readers)


def test_every_kind_has_something_to_do():
    not_of_a_header = {"too_short", "missing_transcript", "not_finite"}
    assert set(CAUSES) - not_of_a_header <= TODO.keys()
    assert set(PROBLEM_KINDS) <= TODO.keys()
    assert all(TODO.values())
    told = {cells[0].strip("`") for cells in rows("docs/troubleshooting.md")}
    assert TODO.keys() - set(CAUSES) - set(PROBLEM_KINDS) <= told


# The command


@pytest.fixture
def doctor(monkeypatch, capsys, tmp_path, readers):
    """The command, of the machine's checks (test_doctor.py) those alone that clips are looked at after."""
    monkeypatch.setattr(checks, "CHECKS", (checks._libraries, checks._corpus))
    monkeypatch.setattr(checks, "NATIVE", ("av",))
    monkeypatch.setattr(looking, "header_readers", lambda settings: nullcontext(readers))
    monkeypatch.chdir(tmp_path)
    return lambda *words: call_main(monkeypatch, capsys, "doctor", *words)


def test_the_command_tells_a_table_a_csv_and_a_code(doctor, look, tmp_path):
    root = tmp_path / "clips"
    for name in "abc":
        add(root, f"{name}.mp4")
    add(root, "silent.mp4", audio_codec=None)
    (root / "=cmd.txt").write_text("lost words")
    add(root, "\x1b[31mred\n.mp4", audio_codec=None, duration_s=1.2)
    said = doctor("--clips", root, "--csv", "found/clips.csv")
    assert said.code == 1
    assert "5 clips in 5 files" in said.out
    assert "no_audio_stream" in said.out
    assert "\x1b" not in said.out
    assert "nothing, if it is silent" in said.out
    assert "doctor: all of them: found/clips.csv" in said.out
    assert said.out.splitlines()[-1].startswith("doctor: every stage can run; ")
    assert max(map(len, said.out.splitlines())) <= 120
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "found"]
    told = read_records(tmp_path / "found/clips.csv")
    assert [row["kind"] for row in told] == ["no_audio_stream", "no_audio_stream", "transcript_without_clip"]
    assert (told[1]["where"], told[1]["media"], told[1]["length_s"]) == ("silent", "silent.mp4", "1.000")
    assert int(told[1]["bytes"]) == (root / "silent.mp4").stat().st_size
    assert "'=cmd.txt," in (tmp_path / "found/clips.csv").read_text()  # no formula for a spreadsheet

    said = doctor("--clips", root, "--json")
    found = json.loads(said.out)
    assert found["exit_code"] == said.code == 1
    assert found["corpus"]["findings"] == {"no_audio_stream": 2, "transcript_without_clip": 1}
    assert found["corpus"]["having"] == {"visual": 5, "text": 5, "audio": 3}
    assert {check["name"] for check in found["checks"] if check["state"] == WARNING} >= {"no_audio_stream"}
    assert found["csv"] is None


def test_the_command_ends_with_2_where_a_stage_could_not_run(doctor, look, tmp_path):
    said = doctor("-q", "--clips", tmp_path / "clips", "--csv", "x.csv")
    assert said.code == 2
    assert "problem: corpus: no clips in" in said.out
    assert not (tmp_path / "x.csv").exists()
    add(tmp_path / "clips", "silent.mp4", audio_codec=None)
    said = doctor("-q", "--clips", tmp_path / "clips")
    assert said.code == 2
    assert "problem: audio: no clip has sound" in said.out
    assert "warning: no_audio_stream: 1, e.g. silent: expected audio, the file holds video" in said.out


def test_clips_are_not_looked_at_where_libraries_do_not_load(doctor, look, tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "NATIVE", ("av", "no_such_library"))
    add(tmp_path / "clips", "a.mp4")
    said = doctor("--clips", tmp_path / "clips")
    assert said.code == 2
    assert "no_such_library" in said.out
    assert "doctor: the clips are looked at once what reads them is there" in said.out
    assert "corpus" not in said.out


def test_a_csv_without_clips_is_refused(doctor):
    said = doctor("--csv", "x.csv")
    assert said.code == 2
    assert "--csv is for what is found in the clips: give their folder" in said.err


def test_a_csv_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PipelineError, match="cannot write"):
        write_findings(tmp_path / "file/x.csv", [])
