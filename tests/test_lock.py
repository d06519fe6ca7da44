"""Two commands never write in one folder at once; a dead one does not keep others out."""

import os
import signal
import subprocess
import sys

import pytest
from corpus_factory import SMALL_ENCODERS, write_folder_corpus
from filelock import FileLock
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import PipelineError
from pipeline.lock import LOCK_FILE, only_writer

HOLDER = """
import sys, time
from pathlib import Path
from pipeline.lock import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds tmp_path."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_writer_is_told_who_is_at_work(tmp_path, holder):
    told = r"another command is at work in .*; wait until it is done"
    with pytest.raises(PipelineError, match=told), only_writer(tmp_path):
        pass


def test_a_killed_one_holds_nothing(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with only_writer(tmp_path):
        assert (tmp_path / LOCK_FILE).exists()


def test_what_killed_writes_left_is_deleted_but_not_where_another_may_be_writing(tmp_path):
    for name in ("features/visual/0/.writing-0123", ".writing-0", ".writing-folder/model.xml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"half")
    others = tmp_path / "results" / "a" / "inside" / ".writing-1"
    others.parent.mkdir(parents=True)
    others.write_bytes(b"half")
    with only_writer(tmp_path / "results" / "a" / "inside"):
        pass
    others.write_bytes(b"half")
    with only_writer(tmp_path):
        assert list(tmp_path.rglob(".writing-*")) == [others]


def test_where_a_disk_knows_no_locks_it_goes_on(tmp_path, monkeypatch):
    def refuses(*_, **__):
        raise OSError("no locks available")

    monkeypatch.setattr(FileLock, "acquire", refuses)
    with only_writer(tmp_path):
        pass


def test_commands_hold_what_they_write_in(tmp_path, capsys):
    words = [word for setting in (*SMALL_ENCODERS, f"workdir={tmp_path / 'w'}") for word in ("--set", setting)]
    words += ["--clips", str(write_folder_corpus(tmp_path / "clips", 1)), "--only", "text"]
    assert CliRunner().invoke(app, ["extract", *words]).exit_code == 0
    with only_writer(tmp_path / "w"):
        second = CliRunner().invoke(app, ["extract", *words])
        assert second.exit_code == 2
        assert CliRunner().invoke(app, ["status", *words[:-2]]).exit_code == 0
    assert CliRunner().invoke(app, ["extract", *words]).exit_code == 0
