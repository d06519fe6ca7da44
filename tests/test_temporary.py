"""Temporary folders: gone with their process, and where that was killed with the next; a living one's stays."""

import os
import signal
import subprocess
import sys
import tempfile

import pytest

from pipeline.temporary import TemporaryFolder

HOLDER = """
import sys, time
from pipeline.temporary import TemporaryFolder
folder = TemporaryFolder("tib-joins-")
(folder.path / "big").write_bytes(b"x")
print(folder.path, flush=True)
time.sleep(60)
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def other(temporary):
    """Another process that holds a folder, which is not young any more."""
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True) as process:
        path = process.stdout.readline().strip()
        os.utime(path, (0, 0))
        yield process, temporary / os.path.basename(path)
        process.kill()


def test_it_goes_when_it_is_done_with(temporary):
    folder = TemporaryFolder("tib-joins-")
    (folder.path / "x").write_text("y")
    folder.cleanup()
    assert list(temporary.iterdir()) == []


def test_it_goes_when_nobody_knows_it_any_more(temporary):
    folder = TemporaryFolder("tib-joins-")
    assert folder.path.exists()
    with pytest.warns(ResourceWarning, match="Implicitly cleaning up"):
        del folder
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_left_is_deleted_by_the_next_and_what_lives_is_not(other, temporary):
    process, path = other
    stranger = temporary / "tib-joins-workdir"  # which another command has held
    stranger.mkdir()
    (stranger / ".lock").touch()
    os.utime(stranger, (0, 0))
    TemporaryFolder("tib-joins-").cleanup()
    assert (path / "big").exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    TemporaryFolder("tib-plan-").cleanup()
    assert path.exists()
    TemporaryFolder("tib-joins-").cleanup()
    assert not path.exists()
    assert stranger.exists()


def test_a_folder_that_is_being_made_is_left_alone(other):
    process, path = other
    process.send_signal(signal.SIGKILL)
    process.wait()
    os.utime(path)
    TemporaryFolder("tib-joins-").cleanup()
    assert path.exists()
