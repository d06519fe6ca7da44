"""The headline in words, for runs good and bad, from figures by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.report.headline import headline
from pipeline.report.page import Score
from pipeline.report.run import Whole

OURS = Score("TIB", 0.857, None, 0.70, None, 0.66, None, 7, "ours")
RESTARTS = Score("TIB, each of 12 restarts alone", 0.80, 0.04, 0.65, 0.02, 0.6, 0.03, 6.5, "restarts")
K_MEANS = Score("k-means all", 0.77, 0.02, 0.60, 0.01, 0.5, 0.01, 7, "baseline")
GCCA = Score("gcca", 0.79, 0.02, 0.71, 0.01, 0.5, 0.01, 7, "baseline")
MAJORITY = Score("largest class for all", 0.16, None, 0.0, None, 0.0, None, 1, "majority")


def run_of(clusters, *, n_clusters=7, n_restarts=12, confidence=0.9, **record):
    n = len(clusters)
    model = SimpleNamespace(
        confidence_=np.resize(confidence, n),
        agreement_=np.full(n, 0.75),
        restart_labels_=np.zeros((n_restarts, n), int),
    )
    record = {"n_clusters": n_clusters, "schedule": "free", "stability": {"graph": 0.1, "free": 0.8}} | record
    return SimpleNamespace(
        whole=Whole.of(np.array(clusters), model.confidence_, model.agreement_),
        model=model,
        record=record,
        metrics={"n_scored": 100},
    )


SEVEN = np.arange(140) % 7


def test_the_scores_are_said_in_clips_beside_what_anybody_would_get():
    found = headline(run_of(SEVEN), [OURS, RESTARTS, GCCA, K_MEANS, MAJORITY], 140, [], [])
    assert found.sentences[1] == (
        "With every cluster matched to one label, 86 of 100 labelled clips, 86%, are in their label's cluster "
        "(ACC 0.86, NMI 0.70, ARI 0.66; each restart alone ACC 0.80 ± 0.04, NMI 0.65 ± 0.02, ARI 0.60 ± 0.03); calling "
        "every clip the largest class gets 16%, k-means on all views 77%, the best other method, gcca, 79%."
    )
    assert found.warnings == ["By NMI, gcca is nearer to the labels: 0.71 to 0.70."]


def test_a_run_without_baselines_is_set_against_the_largest_class():
    found = headline(run_of(SEVEN), [OURS, MAJORITY], 140, [], [])
    assert found.sentences[1].endswith("(ACC 0.86, NMI 0.70, ARI 0.66); calling every clip the largest class gets 16%.")
    assert found.warnings == []


@pytest.mark.parametrize(
    ("stability", "told", "warned"),
    [
        (0.8, "agree to 0.80 (1 is the same clusters, 0 is chance): the clusters are much the same each time.", False),
        (0.6, "the clusters are partly the same.", False),
        (0.2, "the clusters differ each time.", True),
    ],
)
def test_stability_is_that_of_the_schedule_kept(stability, told, warned):
    found = headline(run_of(SEVEN, schedule="anchored", stability={"free": 0.9, "anchored": stability}), [], 0, [], [])
    assert found.stability == stability
    assert told in found.sentences[2]
    assert any("do not agree on the clusters" in warning for warning in found.warnings) == warned


def test_confidence_counts_the_unsure():
    found = headline(run_of(SEVEN, confidence=np.array([0.9, 0.4])), [], 0, [], [])
    assert found.n_unsure == 70
    assert "65% of its probability on average; 70 are unsure, with less than 50%." in found.sentences[1]
    assert "none is unsure, with less than 50%." in headline(run_of(SEVEN), [], 0, [], []).sentences[1]
    assert "Asked alone, 75% of a clip's modalities" in found.sentences[-1]


def test_empty_clusters_few_clips_and_a_lone_restart_are_warned_of():
    found = headline(run_of([0, 1, 2, 1], n_restarts=1, stability={}), [], 0, [], ["and more"])
    assert found.sentences[0] == "4 clips are in 3 of 7 clusters; no label was used to find them."
    assert found.warnings == [
        "4 of 7 clusters are empty.",
        "One network alone was trained, so nothing tells how stable the clusters are.",
        "4 clips are few for 7 clusters: fewer than 10 each on average.",
        "There are no labels, so nothing here tells whether the clusters are of emotion: look and listen.",
        "and more",
    ]
    assert found.stability is None


def test_modalities_that_many_clips_lack_are_warned_of():
    accounts = {"audio": (100, 85, 10, 5), "text": (100, 95, 5, 0)}
    names = ("manifest", "done", "failed", "skipped")
    counts = [(what, name, n) for name, of in accounts.items() for what, n in zip(names, of, strict=True)]
    found = headline(run_of(SEVEN), [OURS, MAJORITY], 140, counts, [])
    assert found.warnings == ["15 of 100 clips have no audio embedding; see the failures below."]


def test_untrained_encoders_come_first():
    encoders = {"audio": {"weights": {"trained": False}}, "text": {"weights": {"trained": True}}}
    found = headline(run_of([0] * 140, encoders=encoders), [], 0, [], [])
    assert (
        found.warnings[0]
        == "The audio encoder has random weights: it was never trained, so its embeddings mean little."
    )
    assert found.warnings[1] == "All clips are in one cluster: nothing was told apart."
