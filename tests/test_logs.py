"""The log of a command: where it is, what is in it, and that it stands in nobody's way."""

import io
import re
import tempfile
from pathlib import Path

import pytest

from pipeline.logs import ELSEWHERE, KEPT, Log, Tee


def written(path: Path | None) -> list[str]:
    """The lines of a log, each without its time of day."""
    assert path is not None
    return [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in path.read_text().splitlines()]


def test_it_waits_for_its_folder_and_then_has_everything(tmp_path):
    workdir = tmp_path / "work"
    log = Log("extract")
    log.line("before the settings are known")
    log.belongs_to(workdir, lambda: "header\n")
    log.line("before the folder is there")
    assert log.path is None
    assert not workdir.exists()  # a mistyped one is not made for a log
    workdir.mkdir()
    log.line("after")
    log.close()
    assert log.path is not None
    assert log.path.parent == workdir / "logs"
    assert re.fullmatch(r"\d{8}T\d{6}Z-extract\.log", log.path.name)
    assert written(log.path) == ["header", "before the settings are known", "before the folder is there", "after"]


def test_an_error_that_nobody_expected_is_kept_without_a_workdir(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    log = Log("train")
    try:
        raise ZeroDivisionError("by nothing")
    except ZeroDivisionError as error:
        log.traceback_of(error)
    path = log.keep()
    assert path is not None
    assert path.parent == tmp_path / "temporary" / ELSEWHERE
    assert written(path)[0] == "Traceback (most recent call last):"
    assert written(path)[-1] == "ZeroDivisionError: by nothing"


def test_a_kept_log_makes_its_own_folder(tmp_path):
    log = Log("train")
    log.belongs_to(tmp_path / "work", str)
    log.line("said")
    assert log.keep() == log.path
    assert log.path is not None
    assert log.path.parent == tmp_path / "work/logs"


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "logs").write_text("in the way too")
    log = Log("train")
    log.belongs_to(tmp_path, str)
    log.line("said")
    assert log.keep() is None
    log.close()
    assert (tmp_path / "logs").read_text() == "in the way too"


def test_a_header_that_fails_leaves_the_lines(tmp_path):
    log = Log("train")
    log.belongs_to(tmp_path, lambda: str(1 / 0))
    log.line("said")
    log.close()
    assert written(log.path) == ["said"]


def test_the_last_logs_are_kept_and_nothing_else_is_touched(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    for day in range(1, 31):
        (folder / f"202501{day:02d}T000000Z-train.log").write_text("old")
    (folder / "notes.log").write_text("mine")
    log = Log("train")
    log.belongs_to(tmp_path, str)
    log.line("said")
    log.close()
    left = sorted(path.name for path in folder.iterdir())
    assert "notes.log" in left
    assert log.path is not None
    assert log.path.name in left
    assert len(left) == KEPT + 1
    assert "20250130T000000Z-train.log" in left
    assert "20250101T000000Z-train.log" not in left


def test_two_commands_of_one_second_have_a_log_each(tmp_path):
    logs = [Log("train") for _ in range(3)]
    for log in logs:
        log._name = "20250101T000000Z-train"
        log.belongs_to(tmp_path, str)
        log.line("said")
        log.close()
    assert len({log.path for log in logs}) == 3


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("\x1b[1;31merror\x1b[0m: no\n", ["error: no"]),
        ("\rextract:   0%|    |\rextract: 100%|████|\n", ["extract: 100%|████|"]),
        ("\rextract: 50%|\r             \rsaid\n", ["said"]),
        ("a\n\nb\n", ["a", "", "b"]),
        ("not whole yet", []),
    ],
)
def test_a_stream_is_kept_as_it_was_left_on_the_screen(tmp_path, said, kept):
    stream, log = io.StringIO(), Log("train")
    log.belongs_to(tmp_path, str)
    tee = Tee(stream, log)
    for part in (said[:3], said[3:]):
        tee.write(part)
    log.close()
    assert stream.getvalue() == said
    assert tee.isatty() is False
    assert (written(log.path) if log.path else []) == kept


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full here")
def test_a_full_disk_ends_no_log_with_an_error(tmp_path):
    log = Log("train")
    log._file = Path("/dev/full").open("w")  # noqa: SIM115 closed by the log
    log.line("of no use")
    log.close()
