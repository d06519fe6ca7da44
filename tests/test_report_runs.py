"""Reports of odd runs: an old, a changed or a thin one costs a part of the page, never all; half a one is refused."""

import json
import shutil

import numpy as np
import pytest
from report_factory import planted, views_run, write_views

from pipeline.errors import PipelineError
from pipeline.report import run as run_module
from pipeline.report.contents import gather
from pipeline.report.html import script_json
from pipeline.report.run import read_run

pytestmark = pytest.mark.usefixtures("one_thread")
N, K = 30, 3
LONGER = "train.epochs=60"  # enough to find what was planted


@pytest.fixture(scope="module")
def views_alone(tmp_path_factory):
    """A run on arrays alone, labelled as planted."""
    labels = [f"class {row % K}" for row in range(N)]
    return views_run(tmp_path_factory.mktemp("views"), planted(N, K), LONGER, labels=labels)


def copied(settings, folder):
    """The same run in a folder of its own, to be spoiled."""
    shutil.copytree(settings.results, folder / "out")
    return settings.model_copy(update={"out": folder / "out"})


def changed(settings, name, **values):
    path = settings.results / name
    record = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in record.items() if value is not None}))


def test_a_run_on_arrays_alone_has_a_page_without_media_and_words(views_alone):
    found = gather(views_alone)
    assert set(found.clips.media) == set(found.clips.thumbnail) == set(found.clips.transcript) == {""}
    assert set(found.clips.pitch_hz) == {None}
    assert (found.failures, found.counts) == ([], [])
    assert all(not cluster.words and not cluster.voice for cluster in found.clusters)
    assert found.n_scored == N
    assert found.silhouette["all"] > 0.5
    assert [warning for warning in found.headline.warnings if "media" in warning] == []
    assert found.commands[-2].startswith("python -m pipeline train --config ")
    json.loads(script_json(found))


def test_of_very_many_clips_a_sample_is_shown_and_the_figures_are_of_all(views_alone, monkeypatch):
    whole = gather(views_alone)
    monkeypatch.setattr(run_module, "MOST_SHOWN", 12)
    monkeypatch.setattr(run_module, "LEAST_OF_EACH", 2)
    found = gather(views_alone)
    assert len(found.clips.clip_id) == len(found.maps[0].x) == 12
    assert [(c.cluster, c.size) for c in found.clusters] == [(c.cluster, c.size) for c in whole.clusters]
    assert sum(c.n_shown for c in found.clusters) == 12
    assert all(2 <= c.n_shown < c.size for c in found.clusters)
    for name in ("n_clips", "n_clusters_used", "confidence", "agreement", "n_unsure"):
        assert getattr(found.headline, name) == getattr(whole.headline, name)
    assert (found.scores, found.n_scored) == (whole.scores, N)
    row = found.clips.clip_id.index(found.clips.clip_id[5])
    at = whole.clips.clip_id.index(found.clips.clip_id[5])
    for column in ("cluster", "confidence", "label"):
        assert getattr(found.clips, column)[row] == getattr(whole.clips, column)[at]
    assert found.clips.by_modality["text"][row] == whole.clips.by_modality["text"][at]
    told = "12 of 30 clips are shown, drawn at random with 2 or more of each cluster where it has them: the scores"
    assert any(warning.startswith(told) for warning in found.headline.warnings)
    json.loads(script_json(found))


def test_baselines_of_a_sample_are_told(views_alone, tmp_path):
    settings = copied(views_alone, tmp_path)
    changed(settings, "metrics.json", n_baseline_clips=10)
    told = "The baselines beside the scores are of 10 clips, TIB's own scores of all."
    assert told in gather(settings).headline.warnings
    assert told not in gather(views_alone).headline.warnings


def test_the_sample_is_of_so_many_clips_with_some_of_each_cluster(monkeypatch):
    monkeypatch.setattr(run_module, "MOST_SHOWN", 1000)
    clusters = np.repeat([0, 3, 7, 8], [5000, 2000, 150, 2])
    rows = run_module.shown_of(clusters)
    assert len(rows) == len(set(rows.tolist())) == 1000
    assert np.all(np.diff(rows) > 0)
    shown = {k: int((clusters[rows] == k).sum()) for k in (0, 3, 7, 8)}
    assert shown[8] == 2
    assert shown[7] >= 100
    assert shown[0] > 1.5 * shown[3]
    many = np.arange(4000)  # more clusters than are shown
    assert len(run_module.shown_of(many)) == 1000
    assert run_module.shown_of(clusters[:999]).tolist() == list(range(999))


def test_no_labels(tmp_path):
    found = gather(views_run(tmp_path, planted(N, K)))
    assert (found.scores, found.confusion, found.n_scored, found.restarts["acc"]) == ([], None, 0, None)
    assert "There are no labels, so nothing here tells whether the clusters are of emotion: look and listen." in (
        found.headline.warnings
    )
    assert set(found.clips.label) == {None}
    assert found.clusters[0].labels == []


def test_labels_of_a_few_clips_alone(tmp_path):
    found = gather(views_run(tmp_path, planted(N, K), labels=["x", "y", *[""] * (N - 2)]))
    assert found.n_scored == 2
    assert np.array(found.confusion["counts"]).sum() == 2
    assert sorted(cluster.n_labelled for cluster in found.clusters) in ([0, 1, 1], [0, 0, 2])


def test_all_clips_in_one_cluster(views_alone, tmp_path, monkeypatch):
    settings = copied(views_alone, tmp_path)
    rows = [f"{row},0,0.9,1.0" for row in range(N)]
    (settings.results / "assignments.csv").write_text("\n".join(["clip_id,cluster,confidence,agreement", *rows]))
    found = gather(settings)
    assert len(found.clusters) == 1
    assert "All clips are in one cluster: nothing was told apart." in found.headline.warnings
    assert set(found.clips.silhouette) == {None}
    assert found.silhouette == {}
    json.loads(script_json(found))


def test_as_many_clusters_as_clips(tmp_path):
    found = gather(views_run(tmp_path, planted(6, 3), n_clusters=6))
    assert found.headline.n_clusters == 6
    assert any("6 clips are few for 6 clusters" in warning for warning in found.headline.warnings)
    json.loads(script_json(found))


def test_a_modality_that_some_clips_lack(tmp_path):
    views = planted(N, K)
    views["audio"][:20] = np.nan
    found = gather(views_run(tmp_path, views))
    assert [value is None for value in found.clips.by_modality["audio"]] == [True] * 20 + [False] * 10
    assert sum(m.n_clips for cluster in found.clusters for m in cluster.modalities if m.modality == "audio") == 10


def test_the_published_objective_leaves_out_clips_and_says_so(tmp_path):
    views = planted(N, K)
    views["audio"][3] = np.nan
    labels = [str(row % K) for row in range(N)]
    settings = views_run(tmp_path, views, "train.objective=reference", "train.restarts=1", labels=labels)
    found = gather(settings)
    assert len(found.clips.clip_id) == N - 1
    assert [(f.clip_id, f.stage, f.cause) for f in found.failures] == [("3", "train", "lacks_modality")]
    assert found.headline.stability is None
    assert any("reads the clusters off the text alone" in warning for warning in found.headline.warnings)
    assert any("One network alone was trained" in warning for warning in found.headline.warnings)


def test_a_proposed_k_has_its_curve(tmp_path):
    found = gather(views_run(tmp_path, planted(N, K), "train.n_clusters=auto", "train.max_clusters=5"))
    assert all(isinstance(k, int) for k in found.curve)
    assert set(found.curve) <= {2, 3, 4, 5}
    assert "a number that was proposed from the clips themselves" in found.headline.sentences[0]


def test_other_names_of_views_come_after_the_projects_own(tmp_path):
    views = dict(zip(("gaze", "audio", "text"), planted(N, K).values(), strict=True))
    assert gather(views_run(tmp_path, views)).modalities == ["text", "audio", "gaze"]


def test_a_record_of_an_older_version_is_enough(views_alone, tmp_path):
    settings = copied(views_alone, tmp_path)
    new = ("stability", "schedule", "encoders", "n_clusters_curve", "packages", "seconds", "command")
    changed(settings, "run.json", **dict.fromkeys(new), untrained_encoders=["audio"])
    changed(settings, "metrics.json", baselines=None, n_restarts=None)
    found = gather(settings)
    assert found.headline.stability is None
    assert found.headline.warnings[0].startswith("The audio encoder has random weights")
    assert [score.kind for score in found.scores] == ["ours", "majority"]
    assert len(found.commands) == 2


def test_views_that_have_changed_or_gone_are_a_warning(tmp_path):
    settings = views_run(tmp_path, planted(N, K))
    write_views(settings.views, planted(N, K, seed=1))
    found = gather(settings)
    assert (
        "The views have changed since this run, so no map is drawn from them; train again." in found.headline.warnings
    )
    assert list(found.silhouette) == ["all"]
    assert "the clusters' probabilities" in found.maps[0].note
    shutil.rmtree(settings.views)
    assert any(
        "The views of this run are not there any more" in warning for warning in gather(settings).headline.warnings
    )


def test_labels_that_have_changed_or_broken_are_a_warning(views_alone, tmp_path):
    settings = copied(views_alone, tmp_path)
    labels = tmp_path / "labels.csv"
    labels.write_text("clip_id,label\n" + "".join(f"{row},{row % 2}\n" for row in range(N)))
    found = gather(settings.model_copy(update={"labels": labels}))
    assert any("the labels have changed; run `evaluate`" in warning for warning in found.headline.warnings)
    labels.write_text("clip_id\n")
    found = gather(settings.model_copy(update={"labels": labels}))
    assert any("The labels cannot be read" in warning for warning in found.headline.warnings)
    assert found.confusion is None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda out: (out / "run.json").unlink(), r"no finished run in .*run `train` first"),
        (lambda out: (out / "run.json").write_text("{"), r"no finished run in .*run `train` first"),
        (lambda out: (out / "run.json").write_text("[]"), r"no finished run in .*not an object.*run `train` first"),
        (lambda out: (out / "run.json").write_text("{}"), r"run\.json is not a run's record; run `train` first"),
        (lambda out: (out / "metrics.json").unlink(), r"the run in .* is not evaluated .*run `evaluate` first"),
        (lambda out: (out / "assignments.csv").unlink(), r"no assignments\.csv in .*run `train` first"),
        (
            lambda out: (out / "model.json").unlink(),
            r"cannot read the run .*model\.json is not there.*run `train` again",
        ),
        (lambda out: (out / "history.csv").write_text("step,loss\n1,x\n"), r"cannot read the run .*run `train` again"),
        (
            lambda out: (out / "assignments.csv").write_text("clip_id,cluster,confidence,agreement\na,0,1,1\n"),
            r"names 1 clips, the model 30, metrics\.json 30; they are not of one run: run `train` again",
        ),
    ],
)
def test_a_run_that_is_not_whole_is_refused(spoil, message, views_alone, tmp_path):
    settings = copied(views_alone, tmp_path)
    spoil(settings.results)
    with pytest.raises(PipelineError, match=message):
        read_run(settings.results)
