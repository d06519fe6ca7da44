"""A clip that hangs, crashes or swallows memory costs itself, and nothing else."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from corpus_factory import SMALL_ENCODERS, write_folder_corpus

from extractors.audio_logmel_stats import LogMelStats, TracksPreparer
from extractors.errors import ExtractionError
from pipeline.config import ExtractSettings, load_settings
from pipeline.errors import PipelineError
from pipeline.extract import extract
from pipeline.prepare import manifest_of, prepare
from pipeline.readers import Readers

SETTINGS = ExtractSettings(decode_workers=2, clip_time_limit_s=1.0, clip_memory_gb=1.5)


def halve(number):
    return number / 2


def hang():
    time.sleep(60)


def crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def swallow():
    return np.ones(400_000_000).sum()  # 3.2 GB


def threads():
    import cv2
    from threadpoolctl import threadpool_info

    np.ones((2, 2)) @ np.ones((2, 2))
    blas = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
    return blas, cv2.getNumThreads()


class CrashesOnTheSecond(TracksPreparer):
    """Stands for a decoder with a bug: the process ends in the middle of one clip."""

    def prepare(self, clip, media):
        if clip.clip_id.endswith("1"):
            crash()
        return super().prepare(clip, media)


@pytest.fixture(scope="module")
def readers():
    with Readers(SETTINGS) as readers:
        readers.wait_until_ready()
        yield readers


def test_each_process_takes_one_core(readers):
    before = dict(os.environ)
    blas, opencv = readers.result(readers.submit(threads))
    assert blas
    assert {*blas, opencv} == {1}
    assert dict(os.environ) == before, "the run itself may take them all"


def test_results_come_in_the_order_of_the_clips(readers):
    assert list(readers.map(halve, [2, 4, 6])) == [1, 2, 3]


@pytest.mark.parametrize(("function", "cause"), [(hang, "timeout"), (crash, "crashed")])
def test_a_call_that_does_not_come_back_is_told_and_the_others_go_on(readers, function, cause):
    lost, *others = readers.submit(function), *(readers.submit(halve, n) for n in (2, 4))
    with pytest.raises(ExtractionError) as error:
        readers.result(lost)
    assert error.value.cause == cause
    assert [readers.result(other) for other in others] == [1, 2]


def test_memory_is_bounded(readers):
    if sys.platform != "linux":
        pytest.skip("only Linux bounds what a process holds")
    with pytest.raises(MemoryError):
        readers.result(readers.submit(swallow))
    assert readers.result(readers.submit(halve, 2)) == 1


def test_processes_that_cannot_be_kept_alive_are_told(monkeypatch):
    from concurrent.futures.process import BrokenProcessPool

    class Broken:
        def result(self):
            raise BrokenProcessPool("All workers expired")

    with pytest.raises(PipelineError, match="cannot be kept alive"):
        Readers(SETTINGS).result(Broken())


def test_a_clip_that_crashes_its_reader_is_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(LogMelStats, "preparer", CrashesOnTheSecond())
    root = write_folder_corpus(tmp_path / "clips", 4)
    overrides = [*SMALL_ENCODERS, "extract.audio.backbone=audio/logmel_stats", "extract.audio.weights=self"]
    overrides += ["extract.visual=null", "extract.text=null"]
    settings = load_settings(None, overrides, corpus__root=root, workdir=tmp_path / "work")
    prepare(settings)
    assert extract(settings, *manifest_of(settings)) == 1
    [path] = (tmp_path / "work").glob("features/audio/*/failures.csv")
    assert "crashed" in path.read_text()
    assert "re-encode the file" in path.read_text()


PARENT = """
import os, sys, time
from pipeline.config import ExtractSettings
from pipeline.readers import Readers
readers = Readers(ExtractSettings(decode_workers=2))
print(*(readers.result(readers.submit(os.getpid)) for _ in range(8)), flush=True)
readers.submit(time.sleep, 60)
time.sleep(60)
"""  # a script as people write them, not guarded against being run again


def test_a_killed_run_leaves_no_reader_behind(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=here) as run:
        readers = {int(pid) for pid in run.stdout.readline().split()}
        run.kill()
    assert readers
    until = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in readers) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [pid for pid in readers if Path(f"/proc/{pid}").exists()]
