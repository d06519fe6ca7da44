"""OpenVINO in PyTorch's place: the same numbers in fp32, near ones in bf16, int8 calibrated on the corpus' frames."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from corpus_factory import SMALL_ENCODERS
from media_factory import write_clip

from benchmarks.extract_openvino import openvino as compare
from extractors import openvino_network
from extractors.base import Prepared
from extractors.visual_efficientnet_lite import EfficientNetLite0
from pipeline import calibrate
from pipeline.cluster import train
from pipeline.config import Settings, load_settings
from pipeline.doctor import doctor
from pipeline.encoders import build, recipe_of
from pipeline.errors import PipelineError
from pipeline.extract import extract
from pipeline.predict import predict_clips
from pipeline.prepare import manifest_of, prepare
from pipeline.reduce import reduce, views_of
from pipeline.store import EmbeddingStore

# Not by importorskip, whose import would go past what keeps the packages from reporting it.
pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("openvino", "nncf"))), reason="the extra openvino is not installed"
)

N_CLIPS = 8
ONLY_VISUAL = (*SMALL_ENCODERS, "extract.text=null", "extract.audio=null")
INT8 = ("extract.visual.runtime=openvino", "extract.visual.precision=int8")
FAST = ("train.epochs=20", "train.restarts=2", "train.n_clusters=2", "reduce.dim=4")


def settings_for(root: Path, workdir: Path, *overrides: str) -> Settings:
    return load_settings(None, [*ONLY_VISUAL, *FAST, *overrides], corpus__root=root, workdir=workdir)


def run(settings: Settings) -> int:
    prepare(settings)
    return extract(settings, *manifest_of(settings))


def recipes(workdir: Path) -> list[dict]:
    return [store.recipe for store, _ in EmbeddingStore.all(workdir / "features", "visual")]


def patches(n: int) -> np.ndarray:
    """(n, 224, 224, 3) uint8 RGB: no two alike, in large patches of colour."""
    coarse = np.random.default_rng(0).integers(0, 256, (n, 7, 7, 3), dtype=np.uint8)
    return coarse.repeat(32, axis=1).repeat(32, axis=2)


def write_corpus(root: Path, n_clips: int) -> Path:
    root.mkdir()
    for i, picture in enumerate(patches(n_clips)):
        path = root / f"clip_{i:02d}.mp4"
        write_clip(path, frames=[picture] * 4, size=(224, 224), fps=10, duration_s=0.4, audio_codec=None)
        path.with_suffix(".txt").write_text(("what a joy to see", "the train left late")[i % 2] + " again" * i)
    return root


def vectors(extractor: EfficientNetLite0, prepared: list[Prepared]) -> np.ndarray:
    return np.stack([embedding.vector for embedding in extractor.encode(prepared)])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A corpus embedded in int8: (its clips, the workdir, the settings)."""
    base = tmp_path_factory.mktemp("int8")
    clips = write_corpus(base / "clips", N_CLIPS)
    settings = settings_for(clips, base / "work", *INT8)
    assert run(settings) == 0
    return clips, base / "work", settings


def test_the_same_vectors_in_fp32_and_near_ones_in_bf16():
    crops = patches(8).transpose(0, 3, 1, 2)  # (8, 3, 224, 224)
    prepared = [Prepared(f"clip_{i}", crops[i : i + 1], 1) for i in range(8)]
    exact = vectors(EfficientNetLite0(device="cpu"), prepared)
    for precision, least in (("fp32", 1 - 1e-6), ("bf16", 0.995)):
        extractor = EfficientNetLite0(device="cpu")
        extractor.compile_with_openvino(precision)
        found = vectors(extractor, prepared)
        cosine = (found * exact).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(exact, axis=1)
        assert cosine.min() > least, precision
        assert extractor.plan() == f"{precision} on cpu, 2 frames a pass, by OpenVINO"
        if precision == "fp32":
            np.testing.assert_allclose(found, exact, atol=1e-4)


def test_int8_is_calibrated_on_some_clips_and_checked_on_others(made):
    _, workdir, settings = made
    record = json.loads((settings.own_int8.parent / "record.json").read_text())
    (recipe,) = recipes(workdir)
    assert recipe["settings"]["runtime"] == "openvino"
    assert recipe["settings"]["precision"] == "int8"
    assert "openvino" in recipe["versions"]
    kept = recipe["weights"]["quantised"]
    assert kept == {name: value for name, value in record.items() if name != "weights"}
    assert kept["calibrated_on"]["clips"] == 6, "each sixth of 8 is held out"
    assert kept["calibrated_on"]["frames"] == 12
    cosine = kept["cosine_with_fp32"]
    assert (cosine["clips"], cosine["frames"]) == (2, 4)
    assert 0 < cosine["least"] <= cosine["mean"] < 1, "int8 is not fp32"


def test_the_network_is_made_once_and_serves_clips_that_come_later(made, tmp_path, capsys):
    clips, workdir, before = made
    more, work = tmp_path / "clips", tmp_path / "work"
    shutil.copytree(clips, more)
    shutil.copytree(workdir, work)
    settings = settings_for(more, work, *INT8)
    assert settings.own_int8.relative_to(work) == before.own_int8.relative_to(workdir)
    written = settings.own_int8.stat().st_mtime_ns
    run(settings)
    assert "nothing to do: 8 clips" in capsys.readouterr().out
    shutil.copy(more / "clip_00.mp4", more / "clip_99.mp4")
    assert run(settings) == 0
    assert "calibrating" not in capsys.readouterr().out
    assert settings.own_int8.stat().st_mtime_ns == written
    assert len(recipes(work)) == 1, "one space"


def test_predict_takes_the_runs_own_int8_network(made, tmp_path, capsys):
    clips, before, _ = made
    work, results = tmp_path / "work", tmp_path / "results"
    options = (*SMALL_ENCODERS, "extract.audio=null", *FAST, *INT8)
    settings = load_settings(None, options, corpus__root=clips, workdir=work, out=results)
    shutil.copytree(before / "quantised", work / "quantised")
    run(settings)
    reduce(settings)
    train(settings, views_of(settings), {})
    shutil.move(results, tmp_path / "moved")
    shutil.rmtree(work)
    capsys.readouterr()
    assert predict_clips(tmp_path / "moved", clips) == 0
    said = capsys.readouterr().out
    assert "calibrating" not in said
    assert "by OpenVINO" in said
    predicted, assigned = (
        (tmp_path / "moved" / name).read_text().splitlines()
        for name in ("predict/clips/predictions.csv", "assignments.csv")
    )
    assert [row.split(",")[:2] for row in predicted] == [row.split(",")[:2] for row in assigned]


def test_what_is_off_by_default_is_in_no_recipe():
    section = load_settings(None, ONLY_VISUAL).extract.visual
    extractor = build("visual", section)
    recipe = recipe_of("visual", section, extractor)
    assert not {"runtime", "quantised"} & recipe["settings"].keys()
    assert not {"runtime", "quantised"} & section.model_dump(mode="json").keys()
    assert "openvino" not in recipe["versions"]


def test_an_audio_encoder_of_the_corpus_own_is_the_same_one():
    plain, int8 = load_settings(None, SMALL_ENCODERS), load_settings(None, [*SMALL_ENCODERS, *INT8])
    assert plain.own_audio == int8.own_audio, "its pictures come from PyTorch either way"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("precision=int8",), "precision int8 is OpenVINO's alone; set runtime=openvino beside it"),
        (("runtime=openvino", "precision=fp16"), "runtime openvino has no precision fp16"),
        (("runtime=openvino", "device=cuda"), "runtime openvino runs on the CPU; set device=auto or cpu"),
    ],
)
def test_settings_that_do_not_go_together(overrides, told):
    with pytest.raises(PipelineError, match=told):
        load_settings(None, [*ONLY_VISUAL, *(f"extract.visual.{override}" for override in overrides)])


def test_one_clip_is_too_few_to_check_int8_on_another(tmp_path):
    clips = write_corpus(tmp_path / "clips", 1)
    (clips / "broken.mp4").write_bytes(b"no film")
    with pytest.raises(PipelineError, match="needs 2 clips with a picture, and found 1; take bf16"):
        run(settings_for(clips, tmp_path / "work", *INT8))


def test_a_workdir_that_cannot_be_written(tmp_path):
    clips = write_corpus(tmp_path / "clips", 2)
    settings = settings_for(clips, tmp_path / "work", *INT8)
    prepare(settings)
    (tmp_path / "work" / "quantised").write_text("a file in the folder's place")
    with pytest.raises(PipelineError, match="cannot write in .*quantised: .*; choose a folder that may be written"):
        extract(settings, *manifest_of(settings))
    folder = tmp_path / "work" / "quantised" / "made"  # as when the disk fills up while the network is made
    with pytest.raises(PipelineError, match="cannot write .*made: .*; free some space, or choose another workdir"):
        calibrate._write(folder, None, {})


@pytest.mark.parametrize("package", ["openvino", "nncf"])
def test_a_package_that_is_missing_is_named_with_what_to_do(package, tmp_path, monkeypatch):
    clips = write_corpus(tmp_path / "clips", 2)
    monkeypatch.setitem(sys.modules, package, None)
    told = (
        f"runtime openvino needs the package {package}, .*: .venv/bin/uv pip install {package}; or take runtime torch"
    )
    with pytest.raises(PipelineError, match=told):
        run(settings_for(clips, tmp_path / "work", *INT8))
    assert not list((tmp_path / "work").glob("quantised/*"))


def test_an_int8_network_that_is_not_there_not_whole_or_of_other_weights(made, tmp_path):
    _, _, settings = made
    record = json.loads((settings.own_int8.parent / "record.json").read_text())
    with pytest.raises(ValueError, match="no int8 network at .*; `extract` makes one"):
        openvino_network.load_quantised(tmp_path / "model.xml", record["weights"])
    with pytest.raises(ValueError, match="was made from other weights"):
        openvino_network.load_quantised(settings.own_int8, {"sha256": "0" * 64})
    folder = tmp_path / "cut"
    shutil.copytree(settings.own_int8.parent, folder)
    os.truncate(folder / "model.bin", 1000)
    with pytest.raises(ValueError, match=r"is not whole \(its checksum is another\); delete that folder"):
        openvino_network.load_quantised(folder / "model.xml", record["weights"])


def test_an_unknown_precision():
    with pytest.raises(ValueError, match="unknown precision 'fp16'; known to OpenVINO: fp32, bf16, int8"):
        EfficientNetLite0(device="cpu").compile_with_openvino("fp16")


def test_doctor_loads_the_weights_that_int8_will_be_made_from(tmp_path):
    (check,) = [
        check for check in doctor(settings_for(tmp_path, tmp_path / "work", *INT8)) if check.name == "visual weights"
    ]
    assert check.state == "ok"


def test_nothing_is_sent_or_left_in_the_home_folder(tmp_path):
    """Both packages report their use over the network unless they are kept from it."""
    program = (
        "import sys; from extractors.openvino_network import _package; _package('openvino'); _package('nncf'); "
        "print(sys.modules['openvino_telemetry'])"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])}
    for name in ("CI", "GITHUB_ACTIONS"):  # where they would not
        environment.pop(name, None)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"
    assert not list(tmp_path.iterdir())


def test_the_benchmark_needs_clips_to_calibrate_on():
    with pytest.raises(ValueError, match="needs more than 4 clips to calibrate on some, got 0"):
        compare([], 1)
