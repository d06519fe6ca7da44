"""Progress by modality: what a person sees while clips are embedded, and the order in which clips go through."""

import re
import time

import pytest
from corpus_factory import SMALL_ENCODERS, write_folder_corpus

from extractors.clip import Clip
from pipeline import console, hardware
from pipeline.config import load_settings
from pipeline.engines.jobs import chunks_of
from pipeline.extract import extract
from pipeline.meters import meters
from pipeline.prepare import manifest_of, prepare


def test_chunks_grow_to_their_size_and_always_hold_the_same_clips():
    every = [(row, Clip(f"c{row:02d}", "x.mp4"), {"audio": "s"}) for row in range(40)]
    chunks = list(chunks_of(every, first=1, size=8))
    assert [len(chunk) for chunk in chunks] == [1, 2, 4, 8, 8, 8, 8, 1]
    assert [clip for chunk in chunks for clip, _ in chunk] == [clip for _, clip, _ in every]
    some = chunks_of([every[5], every[6], every[30], every[39]], first=1, size=8)
    assert [[clip.clip_id for clip, _ in chunk] for chunk in some] == [["c05", "c06"], ["c30"], ["c39"]]
    assert [len(chunk) for chunk in chunks_of(every, first=1024, size=1024)] == [40]
    assert list(chunks_of([], first=1, size=8)) == []


def test_each_modality_has_its_pace_its_failures_and_its_own_clock(capsys, monkeypatch):
    monkeypatch.setattr(console, "LINE_EVERY_S", 0.0)
    with meters({"visual": 10, "audio": 10}, "extract") as bars:
        time.sleep(0.3)
        bars["audio"].begin()
        time.sleep(0.2)
        bars["audio"].advance(2)
        bars["audio"].show(n_done=4, n_failed=1, n_units=4000)  # 40 s of sound
    lines = capsys.readouterr().err.splitlines()
    [*_, last] = [line for line in lines if line.startswith("extract audio")]
    found = re.fullmatch(r"extract audio: 5 of 10 clips in 00:00.*, ([\d.]+) times real time, 1 failed", last)
    assert found
    assert 40 / 0.5 < float(found[1]) <= 40 / 0.2, "the time before its turn is not its own"


def test_a_run_says_what_was_chosen_and_counts_up_to_every_clip(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(console, "LINE_EVERY_S", 0.0)
    root = write_folder_corpus(tmp_path / "clips", 4)
    (root / "clip_02.mp4").write_bytes(b"")
    settings = load_settings(None, [*SMALL_ENCODERS], corpus__root=root, workdir=tmp_path / "work")
    prepare(settings)
    assert extract(settings, *manifest_of(settings)) == 2
    told = capsys.readouterr()
    [plan] = [line for line in told.out.splitlines() if "decode workers" in line]
    assert re.search(r"visual fp32 on cpu, 2 frames a pass; text \w+ on cpu, 512 tokens a pass; audio \w+ on cpu", plan)
    lines = told.err.splitlines()
    assert [line for line in lines if line.startswith("extract text: 4 of 4 clips")]
    last = [line for line in lines if line.startswith("extract visual: 4 of 4 clips")][-1]
    assert last.endswith("frames/s, 1 failed")


@pytest.mark.parametrize(("asked", "most", "found"), [(3, None, 3), (40, 16, 40), ("auto", None, 8), ("auto", 4, 4)])
def test_threads_are_as_asked_or_the_usable_cores(monkeypatch, asked, most, found):
    monkeypatch.setattr(hardware, "usable_cores", lambda: 8.0)
    assert hardware.threads_of(asked, most) == found
