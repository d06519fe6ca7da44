"""Stage extract on real clips: every clip accounted for, nothing done twice, bad input a row with its cause."""

import csv
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from corpus_factory import SMALL_ENCODERS, write_folder_corpus
from media_factory import write_clip

from pipeline.config import load_settings
from pipeline.errors import PipelineError
from pipeline.extract import extract
from pipeline.prepare import manifest_of, prepare
from pipeline.store import EmbeddingStore


def run(root: Path, workdir: Path, *overrides: str, **options) -> int:
    """prepare and extract as the command line does; returns the number of failures."""
    settings = load_settings(None, [*SMALL_ENCODERS, *overrides], corpus__root=root, workdir=workdir)
    prepare(settings)
    return extract(settings, *manifest_of(settings), **options)


def failures(workdir: Path) -> dict[tuple[str, str], str]:
    found = {}
    for path in workdir.glob("features/*/*/failures.csv"):
        with path.open(newline="") as file:
            found |= {(row["clip_id"], path.parts[-3]): row["cause"] for row in csv.DictReader(file)}
    return found


def embedded(workdir: Path) -> Counter[str]:
    """How many rows each modality has, clip by clip."""
    rows: Counter[str] = Counter()
    for path in workdir.glob("features/*/*/part-*.parquet"):
        rows.update(f"{path.parts[-3]}/{clip}" for clip in pq.read_table(path)["clip_id"].to_pylist())
    return rows


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A corpus with one of each kind of bad clip among good ones, extracted once."""
    root = write_folder_corpus(tmp_path_factory.mktemp("hostile") / "clips", 2)
    words = {
        "zero": "zero bytes",
        "truncated": "cut off",
        "silent_film": "no sound",
        "radio": "no picture",
        "picture": "a still",
        "short": "brief",
        "odd": "odd and turned",
        "empty_words": "  \n",
        "long_words": "word " * 10_000,
    }
    (root / "zero.mp4").write_bytes(b"")
    whole = write_clip(root / "truncated.mp4", duration_s=1).read_bytes()
    (root / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    write_clip(root / "silent_film.mp4", audio_codec=None)
    write_clip(root / "radio.mp4", video_codec=None)
    cv2.imwrite(str(root / "picture.png"), np.zeros((40, 40, 3), np.uint8))
    (root / "picture.png").rename(root / "picture.mp4")
    write_clip(root / "short.mp4", duration_s=0.1)
    write_clip(root / "odd.mkv", size=(63, 47), rotation=90)
    for name in ("empty_words", "long_words", "not_utf8"):
        write_clip(root / f"{name}.mp4", duration_s=0.3)
    for name, text in words.items():
        (root / f"{name}.txt").write_text(text)
    (root / "not_utf8.txt").write_bytes("très bien".encode("latin-1"))
    write_clip(root / "wordless.mp4", duration_s=0.3)
    workdir = tmp_path_factory.mktemp("hostile_work")
    return root, workdir, run(root, workdir)


def test_each_bad_clip_is_a_row_with_its_cause(hostile):
    _, workdir, n_failed = hostile
    expected = {
        ("zero", "visual"): "empty_file",
        ("zero", "audio"): "empty_file",
        ("truncated", "visual"): "undecodable",
        ("truncated", "audio"): "undecodable",
        ("silent_film", "audio"): "no_audio_stream",
        ("radio", "visual"): "no_video_stream",
        ("picture", "visual"): "undecodable",
        ("picture", "audio"): "no_audio_stream",
        ("empty_words", "text"): "empty_transcript",
        ("wordless", "text"): "missing_transcript",
    }
    assert failures(workdir) == expected
    assert n_failed == len(expected)


def test_a_clip_keeps_its_other_modalities(hostile):
    _, workdir, n_failed = hostile
    rows = embedded(workdir)
    assert set(rows.values()) == {1}
    for kept in ("text/zero", "visual/silent_film", "audio/radio", "visual/short", "audio/short", "visual/odd"):
        assert kept in rows
    n_clips = 13
    assert len(rows) + n_failed == 3 * n_clips


def test_what_was_cut_is_said(tmp_path, capsys):
    root = write_folder_corpus(tmp_path / "clips", 1)
    (root / "clip_00.txt").write_text("word " * 10_000)
    assert run(root, tmp_path / "work", "extract.visual=null", "extract.audio=null") == 0
    assert "to 512 tokens" in capsys.readouterr().out


def test_a_second_run_extracts_nothing_and_still_counts_the_failures(hostile, capsys):
    root, workdir, n_failed = hostile
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("part-*")}
    assert run(root, workdir) == n_failed
    assert "extract: nothing to do: 13 clips" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("part-*")} == before


def test_a_mended_clip_is_extracted_without_being_asked_for(tmp_path):
    root = write_folder_corpus(tmp_path / "clips", 2)
    (root / "clip_00.mp4").write_bytes(b"")
    options = ("extract.visual=null",)
    assert run(root, tmp_path / "work", *options) == 1
    write_clip(root / "clip_00.mp4", duration_s=0.4)
    assert run(root, tmp_path / "work", *options) == 0
    assert embedded(tmp_path / "work")["audio/clip_00"] == 1
    assert failures(tmp_path / "work") == {}


def test_only_one_modality_and_a_wrong_one(tmp_path):
    root = write_folder_corpus(tmp_path / "clips", 1)
    assert run(root, tmp_path / "work", only=["audio"]) == 0
    assert list(embedded(tmp_path / "work")) == ["audio/clip_00"]
    with pytest.raises(PipelineError, match="--only video: not a modality of this run; known: visual, text, audio"):
        run(root, tmp_path / "work", only=["video"])


def test_a_changed_setting_is_a_new_fingerprint(tmp_path):
    root = write_folder_corpus(tmp_path / "clips", 1)
    for pooling in ("mean", "cls"):
        run(root, tmp_path / "work", f"extract.text.pooling={pooling}", only=["text"])
    assert len(list((tmp_path / "work/features/text").iterdir())) == 2
    run(root, tmp_path / "work", "extract.text.batch_size=3", only=["text"])  # how, not what
    assert len(list((tmp_path / "work/features/text").iterdir())) == 2


def test_sequences_are_kept_beside_the_same_embeddings_in_a_store_of_their_own(tmp_path):
    root, work = write_folder_corpus(tmp_path / "clips", 3), tmp_path / "work"
    run(root, work, "extract.chunk_size=2")
    plain = {path.parent for path in work.glob("features/*/*/recipe.json")}
    before = parts(work)
    assert run(root, work, "extract.keep_sequence=true", "extract.chunk_size=2") == 0
    assert {name: data for name, data in parts(work).items() if name in before} == before
    kept = {path.parent for path in work.glob("features/*/*/recipe.json")} - plain
    assert sorted(folder.parent.name for folder in kept) == ["audio", "text", "visual"]
    for folder in kept:
        recipe = json.loads((folder / "recipe.json").read_text())["recipe"]
        other = next(one for one in plain if one.parent == folder.parent)
        assert recipe.pop("keep_sequence") is True
        assert recipe == json.loads((other / "recipe.json").read_text())["recipe"]
        vectors, again = (EmbeddingStore(f, recipe).read() for f in (other, folder))
        assert all(np.array_equal(vectors[clip_id], again[clip_id]) for clip_id in vectors)
        sequences = EmbeddingStore(folder, recipe | {"keep_sequence": True}).read_sequences()
        for clip_id, vector in vectors.items():
            steps = sequences[clip_id]
            assert steps.dtype == np.float16
            off = np.abs(steps).max() / 2048 + 1e-5  # half a unit in the last place of float16
            np.testing.assert_allclose(steps.mean(axis=0, dtype=np.float32), vector, rtol=0, atol=off)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "extract.audio.backbone=davnet",
            "extract.audio.backbone: unknown extractor 'audio/davnet'; known: audio/davenet",
        ),
        ("extract.audio.weights=nowhere.pth", "no weights file at nowhere.pth.*extract.audio.weights"),
        ("extract.audio.weights=hub", "audio/davenet has no hub to download from"),
    ],
)
def test_a_run_that_cannot_start_says_so_before_any_work(tmp_path, override, message):
    root = write_folder_corpus(tmp_path / "clips", 1)
    with pytest.raises(PipelineError, match=message):
        run(root, tmp_path / "work", "extract.visual=null", "extract.text=null", override)


def test_every_modality_off_is_said(tmp_path):
    root = write_folder_corpus(tmp_path / "clips", 1)
    with pytest.raises(PipelineError, match="every modality is switched off"):
        run(root, tmp_path / "work", "extract.visual=null", "extract.text=null", "extract.audio=null")


def parts(workdir: Path) -> dict[str, bytes]:
    return {str(path.relative_to(workdir)): path.read_bytes() for path in workdir.glob("features/*/*/part-*")}


IN_TWOS = "extract.chunk_size=2"


def start(root: Path, workdir: Path) -> "subprocess.Popen[bytes]":
    overrides = [*SMALL_ENCODERS, IN_TWOS, f"workdir={workdir}"]
    options = [word for override in overrides for word in ("--set", override)]
    command = [sys.executable, "-m", "pipeline", "extract", "--clips", str(root), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_killed_run_ends_like_one_that_was_not(tmp_path):
    root = write_folder_corpus(tmp_path / "clips", 12)
    (root / "clip_07.mp4").write_bytes(b"")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(root, whole, IN_TWOS) == 2  # no picture and no sound of clip_07
    rng = np.random.default_rng(0)
    for at_least in (5, 11):  # of 18 parts
        process = start(root, killed)
        deadline = time.monotonic() + 100
        while process.poll() is None and len(parts(killed)) < at_least and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(float(rng.uniform(0, 0.05)))
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
    survived = len(parts(killed))
    assert 0 < survived < len(parts(whole)), "the kills came too early or too late to show anything"
    assert run(root, killed, IN_TWOS) == 2
    assert parts(killed) == parts(whole)
    assert failures(killed) == failures(whole)
    assert not list(killed.rglob(".writing-*"))


def test_too_many_failures_stop_the_run_and_lose_nothing(tmp_path, capsys):
    root, work = write_folder_corpus(tmp_path / "clips", 8), tmp_path / "work"
    for i in range(1, 4):
        (root / f"clip_{i:02d}.mp4").write_bytes(b"not a video")
    settings = ["extract.text=null", "extract.visual=null"]
    with pytest.raises(PipelineError, match=r"stopped, as more than 1 clips have failed .* not tried yet: 5 audio"):
        run(root, work, *settings, max_failures=1)
    assert failures(work) == {("clip_01", "audio"): "undecodable", ("clip_02", "audio"): "undecodable"}
    assert embedded(work) == {"audio/clip_00": 1}
    assert run(root, work, *settings, max_failures=1) == 3  # one more of them, which is no more than allowed
    assert embedded(work) == {f"audio/clip_{i:02d}": 1 for i in (0, 4, 5, 6, 7)}
    assert "not tried" in capsys.readouterr().out
