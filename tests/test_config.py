"""Settings: files, overrides, and what is said of a wrong one."""

from pathlib import Path

import pytest

from pipeline.config import Settings, load_settings, setting_names
from pipeline.errors import PipelineError

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_valid(path):
    settings = load_settings(path)
    assert settings.name == path.stem
    assert settings.train.n_clusters


def test_overrides_are_yaml_and_win_over_the_file(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("train: {n_clusters: 3}\n")
    settings = load_settings(config, ["train.n_clusters=5", "extract.text=null", "reduce.dim=null"])
    assert settings.train.n_clusters == 5
    assert settings.reduce.dim is None
    assert settings.extract.modalities() == ("visual", "audio")


def test_shortcuts_win_and_none_means_not_given():
    settings = load_settings(None, ["train.seed=1"], train__seed=2, train__n_clusters=None)
    assert (settings.train.seed, settings.train.n_clusters) == (2, None)


def test_a_key_of_a_switched_off_modality_switches_it_on(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("extract: {text: null}\n")
    settings = load_settings(config, ["extract.text.pooling=cls"])
    assert settings.extract.text is not None
    assert settings.extract.text.pooling == "cls"


def test_fps_takes_the_place_of_frames_per_clip():
    visual = load_settings(None, ["extract.visual.fps=2.5"]).extract.visual
    assert visual is not None
    assert (visual.fps, visual.frames_per_clip) == (2.5, None)


def test_backbone_may_be_named_without_its_modality():
    visual = load_settings(None, ["extract.visual.backbone=vgg16"]).extract.visual
    assert visual is not None
    assert visual.backbone == "visual/vgg16"


def test_folders_follow_the_name(tmp_path):
    assert load_settings(None, name="a").results == Path("work/a/results/a")
    assert load_settings(None, name="a", workdir=tmp_path).results == tmp_path / "results/a"
    assert load_settings(None, name="a", views=tmp_path).results == Path("results/a")
    assert load_settings(None, name="a", out=tmp_path / "x").results == tmp_path / "x"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.n_cluster=3", "unknown setting 'train.n_cluster'; did you mean 'train.n_clusters'"),
        ("clusters=3", "did you mean 'train.n_clusters'"),
        ("zzz=3", "unknown setting 'zzz'; known here: corpus"),
        ("train.n_clusters=seven", "train.n_clusters: .*integer.*got 'seven'"),
        (
            "train.objective=refrence",
            r"train.objective: unknown value 'refrence'; known: tib, reference \(did you mean",
        ),
        ("extract.text.precision=int4", "extract.text.precision: unknown value 'int4'; known: auto, fp32, bf16, fp16$"),
        ("extract.audio.device=7", "extract.audio.device: unknown value 7; known: auto, cpu, cuda$"),
        ("corpus.label_rule=round", "known: round7, sign3, sign2, as_is .did you mean 'round7'"),
        ("train.n_clusters=1", "train.n_clusters: .*greater than or equal to 2, got 1"),
        ("corpus=3", "corpus: .*got 3"),
        ("extract.visual.frames_per_clip=null", "one of fps and frames_per_clip must be set"),
        ("nonsense", "--set takes key=value, got 'nonsense'"),
        ("train.seed=[1", r"--set train.seed: cannot read '\[1' as YAML"),
        ("name=2001-99-99", "--set name: cannot read '2001-99-99' as YAML"),
        ("workdir.x=2", None),
    ],
)
def test_a_wrong_override_is_told_in_one_line(override, message):
    with pytest.raises(PipelineError, match=message) as caught:
        load_settings(None, [override])
    assert "\n" not in str(caught.value)


def test_both_samplings_are_refused():
    with pytest.raises(PipelineError, match="set fps or frames_per_clip, not both"):
        load_settings(None, ["extract.visual.fps=2", "extract.visual.frames_per_clip=4"])


def test_a_key_below_a_value_is_refused(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("workdir: here\n")
    with pytest.raises(PipelineError, match="cannot set workdir.x: workdir is 'here', not a group of settings"):
        load_settings(config, ["workdir.x=1"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b\n", "expected settings as `key: value`, got a list"),
        (b"a: [1\n", "is not YAML: .*line"),
        (b"\xff\xfe\xff", "as UTF-8 text|is not YAML"),
        (b"train: {n_clusters: x}\n", r"bad.yaml:1: train.n_clusters"),
        (b"name: x\ntrain:\n  n_cluster: 3\n", r"bad.yaml:3: unknown setting 'train.n_cluster'; did you mean"),
        (b"extract:\n  visual:\n    fps: 2\n    frames_per_clip: 4\n", "bad.yaml:2: extract.visual: set fps or frames"),
    ],
)
def test_a_broken_file_is_told_in_one_line(tmp_path, content, message):
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(PipelineError, match=message) as caught:
        load_settings(path)
    assert "\n" not in str(caught.value)


def test_a_file_is_named_where_it_is_at_fault_and_an_option_where_that_is(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train:\n  n_clusters: none\n")
    with pytest.raises(PipelineError, match=r"mine.yaml:2: train.n_clusters: .*got 'none'"):
        load_settings(path, ["train.seed=1"])
    with pytest.raises(PipelineError, match=r"^train.n_clusters: .*got 'few'$"):
        load_settings(path, ["train.n_clusters=few"])
    with pytest.raises(PipelineError, match=r"^train.n_clusters: .*got 0$"):
        load_settings(path, train__n_clusters=0)


def test_a_missing_file_is_named():
    with pytest.raises(PipelineError, match="no such config file: configs/nowhere.yaml"):
        load_settings(Path("configs/nowhere.yaml"))


def test_an_empty_file_is_the_defaults(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("")
    assert load_settings(path).train == Settings().train


def test_setting_names_reach_into_the_modalities():
    assert {"train.epochs", "extract.visual.batch_size", "corpus.root"} <= set(setting_names(Settings))


@pytest.mark.parametrize(("given", "folder"), [("/x/a #1 %", "/x/a #1 %"), ("#1", "#1"), ("'/x/a' # quoted", "/x/a")])
def test_a_folder_may_have_a_hash_in_its_name(given, folder):
    assert load_settings(None, [f"out={given}"]).out == Path(folder)
