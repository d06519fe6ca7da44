"""The command line, run as a person runs it: what is printed, what is written, the exit code."""

import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from corpus_factory import SMALL_ENCODERS, WORDS, write_folder_corpus
from media_factory import write_clip
from terminal import ROOT, call_main

SHARED = ROOT.parent / "shared"


def pipeline(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    """As a person starts it, in a process of its own."""
    command = [sys.executable, "-m", "pipeline", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)


@pytest.fixture
def command(monkeypatch, capsys):
    """The same in this process: most of a short training's time would be spent on starting it."""
    monkeypatch.chdir(ROOT)
    return functools.partial(call_main, monkeypatch, capsys)


def sets(*overrides: str) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


FAST = sets("train.epochs=12", "train.restarts=2")


@pytest.fixture(scope="module")
def views_dir(tmp_path_factory):
    """Three planted clusters in the published demo's layout, labels beside them."""
    folder = tmp_path_factory.mktemp("views")
    rng = np.random.default_rng(0)
    labels = np.repeat([-1, 0, 2], 20)
    for name in ("text", "video", "audio"):
        centres = 4 * rng.normal(size=(3, 10))
        np.save(folder / f"{name}.npy", centres[np.repeat([0, 1, 2], 20)] + rng.normal(size=(60, 10)))
    np.save(folder / "labels.npy", labels)
    return folder


def test_cached_features_alone(command, views_dir, tmp_path):
    out = tmp_path / "run"
    words = ("train", "--views", views_dir, "--clusters", 3, "--objective", "reference", "--seed", 358, "--out", out)
    done = command(*words, *FAST)
    assert done.code == 0, done.err
    lines = [line for line in done.out.splitlines() if line.startswith(" epoch ")]
    assert [line.split()[1] for line in lines] == ["10"]
    for name in ("consistency", "superfluous", "complementarity", "acc", "nmi"):
        assert f" {name} " in lines[-1]
    written = {path.name for path in out.iterdir()}
    assert written >= {
        *("assignments.csv", "metrics.json", "history.csv", "model.safetensors", "model.json"),
        *("config.yaml", "run.json", "report.html"),
    }
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["scores"]["majority_acc"] == pytest.approx(1 / 3)
    assert metrics["baselines"]["k-means all"]["nmi"]["mean"] > 0.9
    again = command(*words, *FAST)
    assert "train: nothing to do" in again.out
    scored = command("evaluate", "--out", out)
    assert scored.code == 0, scored.err
    assert "k-means visual" in scored.out


def test_without_labels_there_are_no_scores(command, views_dir, tmp_path):
    for name in ("text", "video", "audio"):
        (tmp_path / f"{name}.npy").write_bytes((views_dir / f"{name}.npy").read_bytes())
    out = tmp_path / "run"
    done = command("train", "--views", tmp_path, "--clusters", 3, "--objective", "reference", "--out", out, *FAST)
    assert done.code == 0, done.err
    assert " acc " not in done.out
    assert "scores" not in json.loads((out / "metrics.json").read_text())


def mosi_tree(root: Path) -> None:
    (root / "Raw/Video/Segmented").mkdir(parents=True)
    (root / "Raw/Transcript/Segmented").mkdir(parents=True)
    for video in ("_dI--eQ6qVU", "03bSnISJMiM"):
        lines = []
        for n in range(1, 5):
            write_clip(root / f"Raw/Video/Segmented/{video}_{n}.mp4", duration_s=0.3, tones_hz=(100.0 * n,))
            lines.append(f"{n}_DELIM_{WORDS[n].upper()}\n")
        (root / f"Raw/Transcript/Segmented/{video}.annotprocessed").write_text("".join(lines))


def mmsa_tree(root: Path) -> None:
    rows = ["video_id,clip_id,text,label,annotation,mode"]
    for video in ("_dI--eQ6qVU", "03bSnISJMiM"):
        (root / "Raw" / video).mkdir(parents=True)
        for n in range(1, 5):
            write_clip(root / f"Raw/{video}/{n}.mp4", duration_s=0.3, tones_hz=(100.0 * n,))
            rows.append(f'{video},{n},"{WORDS[n]}, yes",{n - 2.6},Positive,train')
    (root / "label.csv").write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize(("tree", "n_labels"), [(mosi_tree, 0), (mmsa_tree, 8)])
def test_raw_mosi_in_both_layouts(command, tmp_path, tree, n_labels):
    tree(tmp_path / "MOSI")
    words = ("--config", "configs/mosi.yaml", "--clips", tmp_path / "MOSI", *sets(f"workdir={tmp_path / 'work'}"))
    done = command("extract", *words, *sets(*SMALL_ENCODERS))
    assert done.code == 0, done.err + done.out
    assert f"8 clips, {n_labels or 'none'} with a label" in done.out
    assert "audio (RANDOM weights, untrained)" in done.out
    labels = (tmp_path / "work/labels.csv").read_text().splitlines()[1:]
    assert len(labels) == n_labels
    if n_labels:
        assert labels[0] == "03bSnISJMiM_1,-2"  # -1.6 rounds to -2
    manifest = [json.loads(line) for line in (tmp_path / "work/manifest.jsonl").read_text().splitlines()]
    assert [row["clip_id"] for row in manifest][-1] == "_dI--eQ6qVU_4"
    again = command("extract", *words, *sets(*SMALL_ENCODERS))
    assert "extract: nothing to do: 8 clips" in again.out


def test_all_stages_on_raw_clips_and_again(tmp_path):
    root = write_folder_corpus(tmp_path / "clips", 10)
    (root / "clip_03.mp4").write_bytes(b"no video at all")
    words = ("run", "--clips", root, *sets(f"workdir={tmp_path / 'work'}", "name=mine", *SMALL_ENCODERS))
    done = pipeline(*words, *FAST, *sets("train.n_clusters=2", "train.objective=reference"))
    assert done.returncode == 1, done.stderr  # one clip failed, the rest is done and saved
    out = tmp_path / "work/results/mine"
    assert (out / "report.html").exists()
    again = pipeline(*words, *FAST, *sets("train.n_clusters=2", "train.objective=reference"))
    assert again.returncode == 1
    for stage in ("prepare", "extract", "reduce", "train"):
        assert f"{stage}: nothing to do" in again.stdout


def test_text_of_clips_is_data_in_the_report(command, tmp_path):
    root = write_folder_corpus(tmp_path / "clips", 6)
    (root / "clip_00.txt").write_text("</script><script>alert('x')</script> & <b>bold</b>")
    words = sets(f"workdir={tmp_path / 'work'}", "name=x", *SMALL_ENCODERS, "train.n_clusters=2")
    done = command("run", "--clips", root, *words, *FAST, *sets("train.objective=reference"))
    assert done.code == 0, done.err
    page = (tmp_path / "work/results/x/report.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "random weights" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "no such stage 'trian'; did you mean 'train'?"),
        (["train", "--config", "configs/nowhere.yaml"], "no such config file"),
        (["train", "--set", "train.n_cluster=3"], "did you mean 'train.n_clusters'?"),
        (["train", "--views", "nowhere", "--clusters", "3"], "--views nowhere: no such folder"),
        (["extract", "--clips", "nowhere"], "nowhere"),
        (["extract"], "corpus.root is not set"),
        (["reduce", "--set", "workdir=nowhere"], "run `prepare` or `extract` first"),
        (["train", "--set", "workdir=nowhere"], "run `reduce` first"),
        (["report", "--out", "nowhere"], "run `train` first"),
    ],
)
def test_what_cannot_run_is_one_line_and_exit_code_2(words, message):
    done = pipeline(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "train.n_clusters is not set"),
        (["train.n_clusters=61"], "61"),
        (["train.n_clusters=3", "train.objective=refrence"], "reference"),
    ],
)
def test_training_that_cannot_run_is_one_line(command, views_dir, tmp_path, overrides, message):
    done = command("train", "--views", views_dir, "--out", tmp_path / "run", *sets(*overrides))
    assert done.code == 2
    assert message in done.err.splitlines()[-1]
    assert "Traceback" not in done.err


@pytest.mark.shared_data
@pytest.mark.skipif(not (SHARED / "data/grid").is_dir(), reason="../shared/data/grid is not beside this checkout")
def test_real_grid_clips_end_to_end(tmp_path):
    words = (
        "--config",
        "configs/grid.yaml",
        *sets(f"workdir={tmp_path}", "train.objective=reference", "pretrain.epochs=1"),
        *FAST,
    )
    done = pipeline("run", "--clips", SHARED / "data/grid", *words)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "results/grid/metrics.json").read_text())
    assert metrics["n_clips"] == metrics["n_scored"] == 24
    assert set(metrics["baselines"]) >= {"k-means visual", "k-means text", "k-means audio", "k-means all", "gcca"}


def test_a_persons_folder_is_never_given_to_the_demos_generator(command, tmp_path):
    (tmp_path / "mine.mp4").write_bytes(b"")
    done = command("run", "--config", "configs/demo.yaml", "--clips", tmp_path)
    assert done.code == 2
    assert "give another config, e.g. configs/folder.yaml" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.mp4"]


def test_labels_given_later_are_scored_and_a_new_run_never_keeps_old_scores(command, views_dir, tmp_path):
    views, out = tmp_path / "views", tmp_path / "run"
    views.mkdir()
    for name in ("text", "video", "audio"):
        (views / f"{name}.npy").write_bytes((views_dir / f"{name}.npy").read_bytes())
    words = ("train", "--views", views, "--out", out, *FAST)
    assert command(*words, "--clusters", 3).code == 0
    scored = command(*words, "--clusters", 3, "--labels", views_dir / "labels.npy")
    assert "train: nothing to do" in scored.out
    assert "k-means text" in scored.out
    other = tmp_path / "other.csv"
    other.write_text("clip_id,label\nnobody,1\n")
    wrong = command(*words, "--clusters", 4, "--labels", other)
    assert wrong.code == 2
    assert "none of the 60 clips has a label" in wrong.err
    assert json.loads((out / "metrics.json").read_text())["n_clusters"] == 3  # told before anything was trained
    assert command(*words, "--clusters", 4).code == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["n_clusters"] == 4
    assert "scores" not in metrics
    assert command(*words, "--clusters", 61).code == 2  # more clusters than clips
    assert json.loads((out / "metrics.json").read_text()) == metrics


def test_a_run_is_scored_with_its_own_number_of_clusters(command, views_dir, tmp_path):
    out = tmp_path / "run"
    assert command("train", "--views", views_dir, "--clusters", 3, "--out", out, *FAST).code == 0
    other = command("evaluate", "--views", views_dir, "--out", out, *sets("train.n_clusters=9"))
    assert other.code == 0, other.err
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["n_clusters"] == 3
    assert metrics["baselines"]["k-means text"]["n_clusters_used"]["mean"] == 3


def test_a_half_written_run_is_not_scored(command, views_dir, tmp_path):
    out = tmp_path / "run"
    assert command("train", "--views", views_dir, "--clusters", 3, "--out", out, *FAST).code == 0
    (out / "run.json").unlink()
    done = command("evaluate", "--out", out)
    assert done.code == 2
    assert "no finished run" in done.err


def test_a_results_folder_that_cannot_be_is_told_before_training(command, views_dir, tmp_path):
    (tmp_path / "file").write_text("")
    done = command("train", "--views", views_dir, "--clusters", 3, "--out", tmp_path / "file", *FAST)
    assert done.code == 2
    assert str(tmp_path / "file") in done.err
    assert "Traceback" not in done.err
    assert " epoch " not in done.out


def test_views_of_other_settings_are_not_trained_on(command, tmp_path):
    root = write_folder_corpus(tmp_path / "clips", 6)
    words = sets(f"workdir={tmp_path / 'work'}", "extract.visual=null", *SMALL_ENCODERS[3:])
    assert command("extract", "--clips", root, *words).code == 0
    assert command("reduce", *words).code == 0
    done = command("train", *words, *sets("reduce.dim=2", "train.n_clusters=2"))
    assert done.code == 2
    assert "was made with other settings; run `reduce` again" in done.err


def test_a_number_of_clusters_is_proposed_with_its_curve(command, views_dir, tmp_path):
    out = tmp_path / "run"
    done = command("train", "--views", views_dir, "--clusters", "auto", "--out", out, *FAST)
    assert done.code == 0, done.err
    assert "train: 3 clusters proposed" in done.out
    assert " 3:1.00" in done.out
    run = json.loads((out / "run.json").read_text())
    assert run["n_clusters"] == 3
    assert list(run["n_clusters_curve"]) == [str(k) for k in range(2, 21)]
    assert json.loads((out / "metrics.json").read_text())["scores"]["nmi"] > 0.9


def test_the_whole_method_says_how_it_chose_and_clusters_clips_that_lack_a_modality(command, views_dir, tmp_path):
    views, out = tmp_path / "views", tmp_path / "run"
    views.mkdir()
    for name in ("text", "video", "audio", "labels"):
        array = np.load(views_dir / f"{name}.npy")
        if name == "audio":
            array[:7] = np.nan
        np.save(views / f"{name}.npy", array)
    words = ("train", "--views", views, "--clusters", 3, "--out", out, *FAST, *sets("train.tensorboard=true"))
    done = command(*words)
    assert done.code == 0, done.err
    assert "train: 7 of 60 clips lack a modality and are clustered by what they have: 0, 1, 2, 3, 4, ..." in done.out
    assert re.search(r"train: schedule (free|anchored); stability \(ARI .*\): graph [01]\.\d+, free", done.out)
    assert len((out / "assignments.csv").read_text().splitlines()) == 61
    header = (out / "history.csv").read_text().splitlines()[0].split(",")
    assert header[0] == "step"
    assert header[-1] == "loss"
    assert {"consistency", "fusion", "superfluous", "divergence", "complementarity", "partition"} < set(header)
    assert list((out / "tensorboard").glob("events.out.tfevents.*"))


def test_tensorboard_asked_for_and_not_there_is_told(views_dir, tmp_path, monkeypatch):
    from pipeline.cluster import scalars
    from pipeline.config import Settings
    from pipeline.errors import PipelineError

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    asked = Settings.model_validate({"out": tmp_path, "train": {"tensorboard": True}})
    with (
        pytest.raises(PipelineError, match=r"train.tensorboard needs the package tensorboard: .*install tensorboard"),
        scalars(asked),
    ):
        pass
