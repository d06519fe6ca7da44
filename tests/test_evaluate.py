"""What evaluate says of the baselines: their scores, those left out, and the best of them in the sentence."""

import json

import numpy as np
import pytest

from pipeline import evaluate as module
from pipeline.assignments import ASSIGNMENTS, write_assignments, write_restarts
from pipeline.config import Settings
from pipeline.evaluate import baseline_scores, evaluate
from pipeline.views import Views

N, K = 60, 3
PLANTED = np.arange(N) % K


@pytest.fixture
def views():
    rng = np.random.default_rng(0)
    arrays = {
        name: (6 * rng.normal(size=(K, 8))[PLANTED] + rng.normal(size=(N, 8))).astype(np.float32)
        for name in ("text", "visual", "audio")
    }
    return Views([f"clip{row}" for row in range(N)], arrays)


@pytest.fixture
def labels_true(views):
    return {clip_id: f"class {k}" for clip_id, k in zip(views.clip_ids, PLANTED, strict=True)}


def told(capsys, found, left_out, nmi):
    """What a person reads for a run of this NMI."""
    scores = {"acc": 0.5, "nmi": nmi, "ari": 0.3, "n_clusters_used": K, "majority_acc": 0.4}
    metrics = {
        **{"n_clips": N, "n_clusters": K, "n_clusters_used": K, "cluster_sizes": {"0": 20, "1": 20, "2": 20}},
        **{"untrained_encoders": [], "n_scored": N, "n_restarts": 1, "scores": scores, "restarts": {}},
        **{"baselines": found, "baselines_left_out": left_out},
    }
    module._tell(metrics, module.Path("results/x"))
    return capsys.readouterr()


def test_every_baseline_is_scored_from_five_seeds_and_shown(views, labels_true, capsys):
    found, left_out = baseline_scores(views, labels_true, K)
    assert not left_out
    assert len(found) == 13
    for name, scores in found.items():
        assert scores["nmi"]["mean"] > 0.95, name
        assert scores["n_clusters_used"] == {"mean": K, "sd": 0}
    warned = capsys.readouterr().err
    assert "Warning" not in warned
    shown = told(capsys, found, left_out, 0.5).out
    assert all(f"{name} " in shown for name in found)


def test_scores_are_of_the_clips_with_a_label_alone(views, labels_true):
    rng = np.random.default_rng(1)
    shuffled = dict(zip(labels_true, rng.permutation(list(labels_true.values())), strict=True))
    half = {clip_id: labels_true[clip_id] for clip_id in views.clip_ids[::2]}
    assert baseline_scores(views, shuffled, K)[0]["k-means all"]["ari"]["mean"] < 0.1
    assert baseline_scores(views, half, K)[0]["k-means all"]["ari"]["mean"] > 0.95


def test_what_is_left_out_is_told_with_its_reason(views, labels_true, capsys):
    views.arrays["audio"][:] = np.nan
    views.arrays["visual"][20:] = np.nan
    unseen = {clip_id: label for clip_id, label in labels_true.items() if int(clip_id[4:]) >= 20}
    found, left_out = baseline_scores(views, unseen, K)
    assert set(found) == {"k-means text", "k-means all", "spectral rbf text", "spectral rbf all"} | {
        *("spectral nn text", "spectral nn all", "gcca")
    }
    assert left_out["k-means audio"] == "0 clips are too few, it needs 3"
    assert left_out["k-means visual"] == "no clip that has it has a label"
    shown = told(capsys, found, left_out, 0.5).out
    expected = "no k-means visual, spectral rbf visual, spectral nn visual: no clip that has it has a label"
    assert expected in shown


def test_the_best_baseline_is_in_the_sentence(capsys):
    def level(nmi):
        return {score: {"mean": nmi, "sd": 0.0} for score in module.SCORES}

    found = {"k-means text": level(0.2), "spectral nn all": level(0.31), "gcca": level(0.3)}
    assert "NMI 0.320 is above the best baseline, spectral nn all with 0.310" in told(capsys, found, {}, 0.32).out
    assert "NMI 0.305 is not above the best baseline, spectral nn all" in told(capsys, found, {}, 0.305).out
    assert "no baseline to compare with" in told(capsys, {}, {"gcca": "too few"}, 0.32).out


def test_of_very_many_clips_the_baselines_are_of_a_sample(tmp_path, views, labels_true, monkeypatch, capsys):
    settings = Settings(out=tmp_path)
    ids = list(views.clip_ids)
    write_assignments(tmp_path / ASSIGNMENTS, ((i, k, 1.0, 1.0) for i, k in zip(ids, PLANTED, strict=True)))
    write_restarts(tmp_path, ids, np.stack([PLANTED, np.zeros(N, int)]))
    record = {"inputs": "x", "n_clusters": K, "views_digest": views.digest()}
    (tmp_path / "run.json").write_text(json.dumps(record))
    monkeypatch.setattr(module, "MOST_BASELINE_CLIPS", 40)
    few = dict(list(labels_true.items())[-7:])
    assert {*few} < {*module._sample(views, few).clip_ids}  # what can be scored is there
    metrics = evaluate(settings, views, labels_true)
    assert (metrics["n_scored"], metrics["n_baseline_clips"], metrics["n_restarts"]) == (N, 40, 2)
    assert metrics["scores"]["acc"] == 1  # of all
    assert metrics["restarts"]["acc"] == pytest.approx({"mean": 2 / 3, "sd": 1 / 3})
    assert metrics["baselines"]["k-means all"]["nmi"]["mean"] > 0.95
    assert (
        "the baselines are of 40 of 60 clips: of those with a label, and where these are fewer"
        in capsys.readouterr().out
    )
