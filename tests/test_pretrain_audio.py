"""Stage pretrain-audio on real clips: what it writes, that it is used, taken up where it was killed, refuses kindly."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from corpus_factory import SMALL_ENCODERS, write_folder_corpus
from media_factory import write_clip
from safetensors.torch import load_file
from terminal import ROOT, call_main, plain_environment

from extractors import registry
from extractors.audio_davenet import load_davenet
from extractors.visual_efficientnet_lite import PREPROCESSING
from extractors.visual_frames import FrameExtractor
from extractors.weights import file_sha256
from pipeline import hardware
from pipeline import pretrain_audio as stage
from pipeline.config import load_settings
from pipeline.encoders import precision_for
from pipeline.errors import PipelineError
from pipeline.manifest import read_labels
from pipeline.store import EmbeddingStore

SMALL = (
    *SMALL_ENCODERS,
    "extract.audio.backbone=audio/small",
    "extract.audio.weights=self",
    "pretrain.frames_per_clip=2",
    "pretrain.epochs=3",
    "pretrain.batch_size=4",
    "pretrain.precision=fp32",
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Nine clips of three speakers, and one file that is no clip at all, one without sound."""
    root = write_folder_corpus(tmp_path_factory.mktemp("pretrain") / "clips", 9)
    write_clip(root / "silent.mp4", duration_s=0.4, fps=10, audio_codec=None)
    (root / "broken.mp4").write_bytes(b"no clip")
    names = [*sorted(path.name for path in root.glob("clip_*.mp4")), "silent.mp4", "broken.mp4"]
    rows = [f"{name},words {i},speaker {i // 3},{i % 2}" for i, name in enumerate(names)]
    (root / "clips.csv").write_text("\n".join(["file,transcript,speaker,label", *rows]) + "\n")
    return root


@pytest.fixture(autouse=True)
def small_backbone(monkeypatch):
    monkeypatch.setitem(registry._CLASSES, "audio/small", "pretraining_factory:SmallExtractor")


@pytest.fixture
def command(monkeypatch, capsys, clips, tmp_path, one_thread):
    def call(stage_name, *overrides, words=("--clips",), root=clips):
        sets = [word for one in (*SMALL, f"workdir={tmp_path}/work", *overrides) for word in ("--set", one)]
        return call_main(monkeypatch, capsys, stage_name, *words, *([root] if words else []), *sets)

    return call


def weights_in(work: Path) -> list[Path]:
    return sorted(work.glob("pretrain/*/audio.safetensors"))


def failures_in(work: Path) -> dict[str, set[str]]:
    """The clips that were left out, by what they lack."""
    found = {}
    for path in work.glob("pretrain/inputs/*/*/failures.csv"):
        with path.open(newline="") as file:
            found[path.parents[1].name] = {row["clip_id"] for row in csv.DictReader(file)}
    return found


def test_it_writes_weights_with_their_record_and_does_nothing_twice(command, monkeypatch, tmp_path):
    monkeypatch.setattr(stage, "CHECKPOINT_EVERY_S", 0.0)
    said = command("pretrain-audio")
    assert said.code == 0, said
    assert "9 clips of 3 videos with picture and sound: 6 to train on, 3 held out" in said.out
    assert failures_in(tmp_path / "work") == {"visual": {"broken"}, "audio": {"broken", "silent"}}
    assert "1 clips without visual: see" in said.out
    assert "2 clips without audio: see" in said.out
    assert "untrained: recall@1/5/10 of 3 held-out pairs" in said.out
    (weights,) = weights_in(tmp_path / "work")
    record = json.loads(weights.with_suffix(".json").read_text())
    assert record["sha256"] == file_sha256(weights)
    assert record["trained_on"] == {
        "corpus": "folder", "clips": 6, "held_out": 3, "videos": 3, "labels": "none: never read"
    }  # fmt: skip
    assert record["preprocessing"] == registry.extractor_class("audio/small").published.preprocessing
    assert record["best"]["chance"]["recall@1"] == pytest.approx(1 / 3, abs=1e-4)
    assert "what may be done with its clips" in record["licence"]
    with (weights.parent / "history.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1", "2", "3"]
    assert not (weights.parent / "checkpoint.pt").exists()
    before = weights.stat().st_mtime_ns
    again = command("pretrain-audio")
    assert "nothing to do" in again.out
    assert weights.stat().st_mtime_ns == before
    other = command("pretrain-audio", "pretrain.seed=1")
    assert other.code == 0
    assert len(weights_in(tmp_path / "work")) == 2


def test_extract_trains_first_where_the_sound_is_wanted_and_uses_what_was_trained(command, tmp_path):
    assert command("extract", words=("--only", "text", "--clips")).code == 0
    assert not weights_in(tmp_path / "work")
    said = command("extract")
    assert said.code == 1  # the two clips that lack something
    (weights,) = weights_in(tmp_path / "work")
    (recipe,) = (tmp_path / "work" / "features" / "audio").glob("*/recipe.json")
    used = json.loads(recipe.read_text())["recipe"]["weights"]
    assert used["sha256"] == file_sha256(weights)
    assert used["name"] == "audio/small trained on this corpus' own clips"
    assert used["trained"] is True
    status = command("status")
    assert "pretrain-audio" in status.out
    assert "recall@10" in status.out


def test_a_run_predicts_when_its_workdir_has_gone(command, monkeypatch, capsys, clips, tmp_path):
    quick = ("train.n_clusters=2", "train.epochs=4", "train.restarts=2", "reduce.dim=3", f"out={tmp_path}/run")
    assert command("run", *quick).code == 1  # two clips lack something
    kept = tmp_path / "run" / "audio.safetensors"
    assert kept.samefile(weights_in(tmp_path / "work")[0])  # a second name, no second copy
    shutil.rmtree(tmp_path / "work")
    said = call_main(monkeypatch, capsys, "predict", "--run", tmp_path / "run", "--clips", clips)
    assert said.code == 0, said
    (recipe,) = (tmp_path / "run" / "predict").glob("*/features/audio/*/recipe.json")
    assert json.loads(recipe.read_text())["recipe"]["weights"]["sha256"] == file_sha256(kept)


def test_a_run_keeps_its_encoder_when_the_workdirs_has_gone(command, tmp_path):
    quick = ("train.n_clusters=2", "train.epochs=4", "train.restarts=2", "reduce.dim=3", f"out={tmp_path}/run")
    command("run", *quick)
    shutil.rmtree(tmp_path / "work" / "pretrain")
    assert "train: nothing to do" in command("train", *quick, words=()).out
    assert (tmp_path / "run" / "audio.safetensors").is_file()
    assert (tmp_path / "run" / "audio.json").is_file()


def test_a_run_without_an_encoder_of_its_own_keeps_none(command, tmp_path):
    quick = ("train.n_clusters=2", "train.epochs=4", "train.restarts=2", "reduce.dim=3", f"out={tmp_path}/run")
    command("run", *quick)
    assert (tmp_path / "run" / "audio.json").exists()
    command("run", *quick, "extract.audio.weights=random")
    assert not list((tmp_path / "run").glob("audio.*"))


def test_labels_are_never_read(command, tmp_path):
    assert command("pretrain-audio").code == 0
    (first,) = weights_in(tmp_path / "work")
    kept = load_file(first)
    for path in (first, first.with_suffix(".json")):
        path.unlink()
    labels = tmp_path / "work" / "labels.csv"
    labels.write_bytes(b"\xff\x00 no table")
    with pytest.raises(PipelineError, match="labels.csv"):
        read_labels(labels)
    assert command("pretrain-audio", words=()).code == 0
    (again,) = weights_in(tmp_path / "work")
    trained = load_file(again)
    assert trained.keys() == kept.keys()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in trained.items())


DRIVER = """
import sys, time
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from extractors import registry
from extractors.pretraining.train import Pretraining
from pipeline import pretrain_audio as stage
from pipeline.cli import main
registry._CLASSES["audio/small"] = "pretraining_factory:SmallExtractor"
stage.CHECKPOINT_EVERY_S = 0.0
step = Pretraining._train_step
def slow(self, *drawn):
    time.sleep({pause_s})
    return step(self, *drawn)
Pretraining._train_step = slow
main()
"""


def start(clips: Path, work: Path, pause_s: float) -> "subprocess.Popen[str]":
    """The command in a process of its own, which rests before each of its 20 steps and has a checkpoint after it."""
    code = DRIVER.format(tests=str(ROOT / "tests"), pause_s=pause_s)
    sets = [word for one in (*SMALL, f"workdir={work}", "pretrain.epochs=10") for word in ("--set", one)]
    return subprocess.Popen(
        [sys.executable, "-c", code, "pretrain-audio", "--clips", str(clips), *sets],
        cwd=ROOT, env=plain_environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.mark.slow
def test_killed_in_the_middle_it_ends_with_the_same_weights(command, clips, tmp_path):
    said = command("pretrain-audio", "pretrain.epochs=10", f"workdir={tmp_path}/whole")
    assert said.code == 0, said
    cut = start(clips, tmp_path / "cut", 0.5)
    deadline = time.monotonic() + 100
    while not list((tmp_path / "cut").glob("pretrain/*/checkpoint.pt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    cut.kill()
    told, _ = cut.communicate()
    assert cut.returncode == -signal.SIGKILL, told
    assert not weights_in(tmp_path / "cut")
    again = start(clips, tmp_path / "cut", 0)
    told, _ = again.communicate(timeout=120)
    assert again.returncode == 0, told
    assert "goes on after step" in told
    (one,), (other,) = weights_in(tmp_path / "whole"), weights_in(tmp_path / "cut")
    assert one.read_bytes() == other.read_bytes()


def test_a_checkpoint_of_no_use_is_told(command, tmp_path, monkeypatch):
    settings = load_settings(None, [*SMALL, f"workdir={tmp_path}/work"])
    checkpoint = settings.own_audio.parent / "checkpoint.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"cut short")
    said = command("pretrain-audio")
    assert said.code == 0
    assert "checkpoint.pt is of no use" in said.out
    assert "starting anew" in said.out
    for path in settings.own_audio.parent.iterdir():
        path.unlink()
    torch.save({"clips": "others"}, checkpoint)
    assert "it was made with other clips" in command("pretrain-audio").out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("extract.visual=null", "needs extract.visual, which is null"),
        ("extract.audio=null", "extract.audio is null; set it"),
        ("extract.audio.backbone=audio/logmel_stats", "audio/logmel_stats has no network to train"),
        ("extract.audio.backbone=audio/nothing", "unknown extractor 'audio/nothing'"),
        ("pretrain.negatives=nobody", "unknown value 'nobody'"),
        ("pretrain.device=cuda", "PyTorch sees no CUDA device"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(command, override, message):
    if override.endswith("cuda") and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    said = command("pretrain-audio", override)
    assert said.code == 2
    assert message in " ".join(said.err.split())
    assert said.err.splitlines()[-1].startswith("error: ")  # not an unexpected one, to be reported


class NoMap(FrameExtractor):
    """A frame backbone that has no last feature map."""

    name, dim, weights_record = "visual/no_map", 3 * 224 * 224, {"source": "none"}

    def __init__(self, *, weights, seed, fps, count, batch_size, device, precision):
        how = {"batch_size": batch_size, "device": device, "precision": precision}
        super().__init__(torch.nn.Flatten(), PREPROCESSING, fps=fps, count=count, **how)


def test_a_picture_without_a_feature_map_is_refused(command, monkeypatch):
    monkeypatch.setitem(registry._CLASSES, "visual/no_map", f"{__name__}:NoMap")
    said = command("pretrain-audio", "extract.visual.backbone=no_map")
    assert said.code == 2
    assert "extract.visual.backbone: visual/no_map gives no feature map to pretrain on" in " ".join(said.err.split())


def test_too_few_clips_are_refused_with_a_way_out(command, tmp_path):
    root = write_folder_corpus(tmp_path / "few", 3)
    said = command("run", "train.n_clusters=2", root=root)
    assert said.code == 2
    told = " ".join(said.err.split())
    assert "3 clips of 3 videos are too few" in told
    assert "--set extract.audio.backbone=audio/logmel_stats" in told


def test_of_a_larger_corpus_so_many_clips_are_drawn_and_no_others_read(command, tmp_path):
    root = write_folder_corpus(tmp_path / "more", 12)
    said = command("pretrain-audio", "pretrain.max_clips=8", "pretrain.epochs=1", root=root)
    assert said.code == 0, said
    assert "8 of 12 clips, drawn at random (pretrain.max_clips)" in said.out
    assert "8 clips of 8 videos with picture and sound: 6 to train on, 2 held out" in said.out
    ((store, _),) = EmbeddingStore.all(tmp_path / "work" / "pretrain" / "inputs", "audio")
    assert len(list(store.done())) == 8
    (weights,) = weights_in(tmp_path / "work")
    assert json.loads(weights.with_suffix(".json").read_text())["settings"]["max_clips"] == 8


def test_the_way_out_works(command, tmp_path):
    root = write_folder_corpus(tmp_path / "few", 3)
    assert command("extract", "extract.audio.backbone=audio/logmel_stats", root=root).code == 0
    assert not (tmp_path / "work" / "pretrain").exists()


def test_no_sound_anywhere_is_refused(command, tmp_path):
    root = tmp_path / "mute"
    root.mkdir()
    for i in range(6):
        write_clip(root / f"{i}.mp4", duration_s=0.4, fps=10, audio_codec=None)
    said = command("pretrain-audio", root=root)
    assert said.code == 2
    assert "no clip has both a picture and a sound" in said.err


def test_a_learning_rate_that_breaks_it_is_named(command):
    said = command("pretrain-audio", "pretrain.learning_rate=1e30")
    assert said.code == 2
    assert "(pretrain.learning_rate)" in said.err


def test_a_single_video_is_split_by_clip_and_told(command, tmp_path):
    root = write_folder_corpus(tmp_path / "one", 8)
    rows = [f"{path.name},x,me" for path in sorted(root.glob("*.mp4"))]
    (root / "clips.csv").write_text("\n".join(["file,transcript,video", *rows]) + "\n")
    said = command("pretrain-audio", root=root)
    assert said.code == 0
    assert "all are of one video, so its speaker is on both sides" in said.out


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["audio/davenet", "audio/resdavenet"])
def test_the_real_networks_are_trained_and_load_as_any_checkpoint_does(command, tmp_path, backbone):
    said = command("pretrain-audio", f"extract.audio.backbone={backbone}", "pretrain.epochs=1")
    assert said.code == 0, said
    (weights,) = weights_in(tmp_path / "work")
    if backbone == "audio/davenet":
        load_davenet(weights)
    made = registry.create(backbone, weights=str(weights))
    assert made.weights_record["name"] == f"{backbone} trained on this corpus' own clips"


def test_bf16_is_chosen_by_what_the_processor_has(monkeypatch):
    monkeypatch.setattr(hardware, "read_cpuinfo", lambda: "flags : avx2 avx512_bf16\n")
    assert precision_for("auto", "cpu") == "bf16"
    monkeypatch.setattr(hardware, "read_cpuinfo", lambda: "flags : avx2\n")
    assert precision_for("auto", "cpu") == "fp32"
    assert precision_for("bf16", "cpu") == "bf16"
