"""Stage predict: new clips by a finished run whose workdir is gone and whose folder was moved."""

import csv
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from corpus_factory import SMALL_ENCODERS, write_folder_corpus
from media_factory import indexed_frame, write_clip

from pipeline import predict as module
from pipeline import predictions
from pipeline.cli import main
from pipeline.cluster import train
from pipeline.config import load_settings
from pipeline.errors import PipelineError
from pipeline.extract import extract
from pipeline.predict import predict_clips, predict_views
from pipeline.prepare import manifest_of, prepare
from pipeline.reduce import reduce, views_of
from pipeline.run import load_run
from pipeline.view_files import read_views
from pipeline.views import Views
from tib.config import OBJECTIVES

N_CLIPS = 10
FAST = ("train.epochs=60", "train.restarts=4", "train.n_clusters=2", "reduce.dim=4")


def sentence(i: int) -> str:
    return f"{('what a joy to see', 'the train left late')[i % 2]} {'again ' * (i // 2)}".strip()


def assigned(path: Path) -> dict[str, tuple[int, float, float]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {row["clip_id"]: (int(row["cluster"]), float(row["confidence"]), float(row["agreement"])) for row in rows}


def agree(some: dict, others: dict, tolerance: float) -> None:
    """The same clips in the same clusters and, but for rounding, as sure."""
    assert some.keys() == others.keys()
    for clip_id, row in some.items():
        assert row[0] == others[clip_id][0], clip_id
        assert row[1:] == pytest.approx(others[clip_id][1:], abs=tolerance), clip_id


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Clips, and a run of each objective on them; runs and workdir lie elsewhere than where they were made."""
    base = tmp_path_factory.mktemp("made")
    clips = base / "clips"
    clips.mkdir()
    lines = ["datei,worte"]
    for i in range(N_CLIPS):  # two kinds in turn, and no two clips alike
        frames = [indexed_frame((15, 240)[i % 2] + 256 * i, 64, 48) // (1 + i // 4)] * 4
        write_clip(
            clips / f"clip_{i:02d}.mp4", duration_s=0.4, tones_hz=((200, 3000)[i % 2] + 9 * i,), fps=10, frames=frames
        )
        lines.append(f"clip_{i:02d}.mp4,{sentence(i)}")
    (clips / "list.csv").write_text("\n".join(lines) + "\n")
    columns = ("corpus.table=list.csv", "corpus.file_column=datei", "corpus.transcript_column=worte")
    options = [*SMALL_ENCODERS, *FAST, *columns]
    settings = load_settings(None, options, corpus__root=clips, workdir=base / "made_here")
    prepare(settings)
    assert extract(settings, *manifest_of(settings)) == 0
    reduce(settings)
    for objective in OBJECTIVES:
        told = load_settings(
            None, [*options, f"train.objective={objective}"], workdir=settings.workdir, out=base / "trained" / objective
        )
        train(told, views_of(told), {})
    shutil.move(base / "made_here", base / "work")
    shutil.move(base / "trained", base / "runs")
    return SimpleNamespace(clips=clips, work=base / "work", runs=base / "runs")


@pytest.fixture(params=OBJECTIVES)
def run(made, tmp_path, request):
    """A copy of a run, for a test to write in."""
    return shutil.copytree(made.runs / request.param, tmp_path / "run")


@pytest.fixture
def reference(made, tmp_path):
    return shutil.copytree(made.runs / "reference", tmp_path / "run")


def test_the_training_clips_get_the_runs_own_assignments(made, run, capsys):
    own = assigned(run / "assignments.csv")
    assert len(set(own.values())) > 1, "one answer for all would prove nothing"
    assert predict_views(run, made.work) == 0  # embeddings, reduced as the run's were
    agree(assigned(run / "predictions.csv"), own, 1e-6)
    said = capsys.readouterr().out
    assert "taken as reduced" not in said
    assert "audio: RANDOM weights, untrained" in said
    assert f"{N_CLIPS} clips, {len({row[0] for row in own.values()})} clusters, mean confidence" in said
    assert predict_views(run, made.work / "reduced") == 0
    agree(assigned(run / "predictions.csv"), own, 1e-6)
    assert "text: 4-d features, taken as reduced already" in capsys.readouterr().out


def test_arrays_of_features_are_reduced_by_their_dims(made, run, tmp_path):
    raw = read_views(made.work / "features")
    for name, array in raw.arrays.items():
        np.save(tmp_path / f"{name}.npy", array[2:5])
    assert predict_views(run, tmp_path, out=tmp_path / "mine.csv") == 0
    own = list(assigned(run / "assignments.csv").values())[2:5]
    agree(assigned(tmp_path / "mine.csv"), {str(row): said for row, said in enumerate(own)}, 1e-4)
    assert not (run / "predictions.csv").exists()


def test_raw_clips_of_the_training_again_and_what_is_done_is_not_done_twice(made, run, capsys):
    assert predict_clips(run, made.clips) == 0
    work = run / "predict" / "clips"
    agree(assigned(work / "predictions.csv"), assigned(run / "assignments.csv"), 1e-3)
    capsys.readouterr()
    assert predict_clips(run, made.clips) == 0
    assert f"extract: nothing to do: {N_CLIPS} clips" in capsys.readouterr().out


def test_a_single_clip_with_its_words_beside_it(made, run, tmp_path):
    alone = tmp_path / "one"
    alone.mkdir()
    shutil.copy(made.clips / "clip_03.mp4", alone / "new.mp4")
    (alone / "new.txt").write_text(sentence(3))
    assert predict_clips(run, alone, workdir=tmp_path / "work", out=tmp_path / "new.csv") == 0
    own = assigned(run / "assignments.csv")["clip_03"]
    agree(assigned(tmp_path / "new.csv"), {"new": own}, 1e-3)
    assert (tmp_path / "work/features/text").is_dir()


@pytest.fixture
def mixed(tmp_path):
    """A good clip, one without sound, one without anything."""
    root = write_folder_corpus(tmp_path / "mixed", 1)
    write_clip(root / "silent.mp4", duration_s=0.4, audio_codec=None)
    (root / "silent.txt").write_text("nothing to hear")
    (root / "broken.mp4").write_bytes(b"no video at all")
    return root


def test_a_clip_without_sound_is_predicted_where_the_objective_can(run, mixed, capsys):
    n_missing = predict_clips(run, mixed)
    said = capsys.readouterr().out
    found = assigned(run / "predict/mixed/predictions.csv")
    assert "broken (nothing to go by)" in said
    if load_run(run).model.objective == "reference":
        assert (n_missing, list(found)) == (2, ["clip_00"])
        assert "2 clips have no prediction: broken (nothing to go by), silent (no audio)" in said
    else:
        assert (n_missing, list(found)) == (1, ["clip_00", "silent"])


def test_a_clip_that_is_listed_and_not_there_counts_as_failed(made, reference, tmp_path, capsys):
    new = tmp_path / "listed"
    new.mkdir()
    shutil.copy(made.clips / "clip_00.mp4", new)
    (new / "new.csv").write_text(f"datei,worte\nclip_00.mp4,{sentence(0)}\ngone.mp4,who knows\n")
    assert predict_clips(reference, new) == 1
    assert "gone.mp4" in capsys.readouterr().out
    assert list(assigned(reference / "predict/listed/predictions.csv")) == ["clip_00"]


def test_a_run_on_cached_features_takes_them_as_they_are_and_no_clips(made, tmp_path, run):
    cached, out = tmp_path / "cached", tmp_path / "out"
    cached.mkdir()
    for name, array in read_views(made.work / "reduced").arrays.items():
        np.save(cached / f"{name}.npy", array)
    settings = load_settings(
        None, [*FAST, f"train.objective={load_run(run).model.objective}"], views=cached, out=out, name="x"
    )
    shutil.copytree(run / "reduction", out / "reduction")  # an earlier run's, of other views
    train(settings, views_of(settings), {})
    assert not (out / "reduction").exists()
    assert predict_views(out, cached) == 0
    agree(assigned(out / "predictions.csv"), assigned(out / "assignments.csv"), 1e-6)
    with pytest.raises(module.PipelineError, match="was trained on cached features, and nothing says which encoders"):
        predict_clips(out, made.clips)


def test_a_run_on_anothers_reduced_views_keeps_that_reduction(made, tmp_path):
    settings = load_settings(None, FAST, views=made.work, out=tmp_path / "out")
    train(settings, views_of(settings), {})
    assert predict_views(tmp_path / "out", made.work) == 0
    agree(assigned(tmp_path / "out/predictions.csv"), assigned(tmp_path / "out/assignments.csv"), 1e-6)


def test_a_run_from_before_reductions_were_kept_is_completed_by_train(made, tmp_path):
    work = shutil.copytree(made.work, tmp_path / "work")
    settings = load_settings(None, [*SMALL_ENCODERS, *FAST], workdir=work, out=tmp_path / "out")
    assert train(settings, views_of(settings), {})
    shutil.rmtree(tmp_path / "out/reduction")
    with pytest.raises(module.PipelineError, match="reduction of its views is not kept with it; run `train` again"):
        load_run(tmp_path / "out")
    assert not train(settings, views_of(settings), {})
    assert load_run(tmp_path / "out").reductions.keys() == {"text", "visual", "audio"}


@pytest.mark.parametrize(
    ("kind", "has_table", "expected"),
    [("synthetic", False, "folder"), ("theirs", True, "folder"), ("mosi", False, "mosi"), ("folder", True, "folder")],
)
def test_new_clips_are_read_in_the_layout_of_the_runs_own(tmp_path, kind, has_table, expected):
    (tmp_path / "config.yaml").write_text(
        f"corpus: {{kind: {kind}, root: old, table: old.csv, file_column: datei, label_rule: sign2, seed: 3}}\n"
        "views: somewhere\n"
    )
    clips = tmp_path / "new"
    clips.mkdir()
    if has_table:
        (clips / "clips.csv").write_text("datei\n")
    settings = module._settings_for(tmp_path, clips, None, ["extract.audio.weights=random"])
    assert settings.corpus.kind == expected
    assert settings.corpus.root == clips
    assert settings.corpus.file_column == ("datei" if has_table else None)
    assert (settings.corpus.table, settings.corpus.label_rule, settings.views) == (None, None, None)
    assert settings.work == tmp_path / "predict/new"
    assert settings.extract.audio.weights == "random"


def test_an_encoder_is_known_by_what_it_is_not_by_where_it_was_found(made, capsys):
    recipe = load_run(made.runs / "reference").encoders["text"]
    moved = recipe | {"weights": recipe["weights"] | {"source": "path", "file": "elsewhere.safetensors"}}
    assert module._differences(recipe, moved | {"versions": {}}) == []
    other = recipe | {"weights": recipe["weights"] | {"sha256": "0"}, "settings": recipe["settings"] | {"pooling": "x"}}
    assert module._differences(recipe, other) == [
        "pooling is 'x', the run's 'mean'",
        f"weights sha256 is '0', the run's {recipe['weights']['sha256']!r}",
    ]


def test_other_versions_of_the_libraries_are_said(made, tmp_path, capsys):
    run = load_run(made.runs / "reference")
    settings = load_settings(None, SMALL_ENCODERS, workdir=made.work)
    module._check_encoder(settings, "audio", run.encoders["audio"])
    assert not capsys.readouterr().out
    module._check_encoder(settings, "audio", run.encoders["audio"] | {"versions": {"torch": "1.0"}})
    assert "audio: the run's embeddings were made with other versions (torch 1.0)" in capsys.readouterr().out


def test_a_run_in_half_precision_holds_on_a_processor_without_it(made, capsys):
    run = load_run(made.runs / "reference")
    settings = load_settings(None, SMALL_ENCODERS, workdir=made.work)
    of_run = run.encoders["text"] | {"settings": run.encoders["text"]["settings"] | {"precision": "fp16"}}
    module._check_encoder(settings, "text", of_run)
    assert "text: the run's embeddings were made in fp16, these in " in capsys.readouterr().out
    in_int8 = run.encoders["text"] | {"settings": run.encoders["text"]["settings"] | {"precision": "int8"}}
    with pytest.raises(
        PipelineError, match="the text encoder is not the run's.*precision is 'fp32 or bf16 or fp16', the run's 'int8'"
    ):
        module._check_encoder(settings, "text", in_int8)


# The command line: what cannot run is one line and exit code 2.


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command line in this process; returns exit code, stdout and the lines of stderr."""

    def call(*words: str | Path) -> tuple[int, str, list[str]]:
        monkeypatch.setattr(sys, "argv", ["pipeline", "predict", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capsys.readouterr()
        return int(stopped.value.code), said.out, said.err.splitlines()

    return call


def test_the_command_line_from_clips_to_a_file_and_one_clip_failing(reference, mixed, tmp_path, command):
    words = ("--run", reference, "--clips", mixed, "--workdir", tmp_path / "w", "--out", tmp_path / "p")
    code, said, _ = command(*words)
    assert code == 1
    assert "no prediction: broken" in said
    assert list(assigned(tmp_path / "p")) == ["clip_00"]
    assert "extract: nothing to do" in command(*words)[1]
    assert "extract: nothing to do" not in command(*words, "--retry-failed")[1]


def refused(answer: tuple[int, str, list[str]], message: str) -> None:
    code, _, lines = answer
    assert code == 2, lines
    assert message in lines[-1]
    assert lines[-1].startswith("error: " if "ption" not in message else "")
    assert not any("Traceback" in line for line in lines)


def test_a_run_that_is_none(reference, made, tmp_path, command):
    refused(command("--clips", made.clips), "Missing option '--run'")
    refused(command("--run", tmp_path / "nowhere", "--clips", made.clips), "no such folder; give the results folder")
    refused(command("--run", reference), "one of the two")
    refused(command("--run", reference, "--views", made.work, "--clips", made.clips), "one of the two")
    description = json.loads((reference / "model.json").read_text())
    (reference / "model.json").write_text(json.dumps(description | {"format_version": 99}))
    refused(command("--run", reference, "--views", made.work), "cannot load its model: ")
    (reference / "model.json").unlink()
    refused(command("--run", reference, "--views", made.work), "no finished run here: model.json missing")


def test_a_damaged_reduction(reference, made, command):
    (reference / "reduction/reduction.safetensors").write_bytes(b"cut off")
    refused(command("--run", reference, "--views", made.work), "no whole reduction in")


def test_a_folder_without_clips_or_views(reference, tmp_path, command):
    (tmp_path / "empty").mkdir()
    refused(command("--run", reference, "--clips", tmp_path / "empty"), "no clips in")
    refused(command("--run", reference, "--clips", tmp_path / "nowhere"), "no such folder")
    assert not (reference / "predict").exists()
    refused(command("--run", reference, "--views", tmp_path / "nowhere"), "no such folder")


def test_wrong_dims_name_the_view_and_what_was_expected(reference, made, tmp_path, command):
    arrays = read_views(made.work / "reduced").arrays
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    np.save(tmp_path / "text.npy", np.zeros((N_CLIPS, 5), np.float32))
    refused(
        command("--run", reference, "--views", tmp_path),
        "view text: expected features 384-d as text/bert gives, or 4-d as the run was trained on, got 5-d",
    )


def test_a_view_that_is_not_there_is_refused_by_an_objective_that_needs_it(reference, made, tmp_path, command):
    for name in ("text", "visual"):
        shutil.copy(made.work / f"reduced/{name}.npy", tmp_path)
    refused(
        command("--run", reference, "--views", tmp_path),
        "none of 10 clips has every view, as objective 'reference' needs: there is text of 10, visual of 10, audio of"
        " 0; add what is missing",
    )


def test_views_of_another_reduction_are_refused_though_their_dims_fit(reference, made, tmp_path, command):
    other = shutil.copytree(made.work / "reduced", tmp_path / "other/reduced")
    with (other / "reduction.safetensors").open("ab") as file:
        file.write(b" ")
    for folder in (other, other.parent):
        refused(command("--run", reference, "--views", folder), "was reduced by another reduction than the run's")


def test_another_encoder_is_refused_before_any_clip_is_embedded(reference, made, tmp_path, command):
    answer = command("--run", reference, "--clips", made.clips, "--set", "extract.text.pooling=cls")
    refused(
        answer, "the text encoder is not the run's, so its clusters do not hold for what it gives: pooling is 'cls'"
    )
    assert not list(reference.rglob("part-*"))
    work = shutil.copytree(made.work, tmp_path / "work")
    (path,) = work.glob("features/audio/*/recipe.json")
    record = json.loads(path.read_text())
    record["recipe"]["weights"]["seed"] = 1
    path.write_text(json.dumps(record))
    refused(command("--run", reference, "--views", work), "is not of the run's audio encoder: weights seed is 1")


def test_two_folders_of_one_name_do_not_share_a_workdir(reference, made, tmp_path, command):
    first, second = (write_folder_corpus(tmp_path / side / "takes", 1) for side in ("a", "b"))
    assert command("--run", reference, "--clips", first)[0] == 0
    refused(
        command("--run", reference, "--clips", second), f"holds the predictions for {first}; give another --workdir"
    )
    shutil.rmtree(first)
    assert command("--run", reference, "--clips", second)[0] == 0  # moved, or nothing to be lost


def test_clips_without_any_embedding_are_told(reference, tmp_path, command):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/broken.mp4").write_bytes(b"")
    refused(command("--run", reference, "--clips", tmp_path / "bad"), "none of 1 clips has an embedding in")


def test_values_that_the_model_refuses_are_one_line(made):
    model = load_run(made.runs / "reference").model
    readers = predictions.readers_of(Views([], {name: np.zeros((1, 3), np.float32) for name in model.view_names_}))
    said = predictions._predicted(model, ["a"], readers, predictions._Told(model), lambda n: None)
    with pytest.raises(module.PipelineError, match="predict: fitted on views of text 4, visual 4, audio 4 features"):
        next(said)
