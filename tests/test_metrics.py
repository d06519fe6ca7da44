"""Scores against hand-computed values, an exhaustive match, and the degenerate cases."""

import itertools

import numpy as np
import pytest

from pipeline.metrics import clustering_scores, contingency


def exhaustive_acc(labels_true, assignments):
    """ACC by trying every one-to-one match."""
    classes, clusters = sorted(set(labels_true)), sorted(set(assignments))
    size = max(len(classes), len(clusters))
    classes += [None] * (size - len(classes))
    best = 0
    for order in itertools.permutations(classes):
        name = dict(zip(clusters, order, strict=False))
        best = max(best, sum(name[k] == t for k, t in zip(assignments, labels_true, strict=True)))
    return best / len(labels_true)


def test_four_clips_by_hand():
    scores = clustering_scores([0, 0, 1, 1], [1, 1, 0, 1])
    assert scores["acc"] == 0.75  # clusters 1 -> class 0 (2 right), 0 -> class 1 (1 right)
    # H(true) = ln 2; H(assigned) = ln 4 - .75 ln 3; joint (0,1) .5, (1,0) .25, (1,1) .25
    entropy_assigned = np.log(4) - 0.75 * np.log(3)
    mutual = np.log(2) + entropy_assigned - 1.5 * np.log(2)
    assert scores["nmi"] == pytest.approx(mutual / ((np.log(2) + entropy_assigned) / 2))
    assert scores["n_clusters_used"] == 2
    assert scores["majority_acc"] == 0.5


def test_negative_integers_and_strings_score_alike():
    numbers = [-3, -3, 0, 2, 2, 2]
    names = ["sad", "sad", "flat", "glad", "glad", "glad"]
    assignments = [5, 5, 9, 0, 0, 9]
    assert clustering_scores(numbers, assignments) == clustering_scores(names, assignments)
    assert clustering_scores(numbers, assignments)["acc"] == pytest.approx(5 / 6)


@pytest.mark.parametrize("seed", range(5))
def test_acc_equals_the_best_of_every_match(seed):
    rng = np.random.default_rng(seed)
    labels_true = rng.integers(0, 4, 30).tolist()
    assignments = rng.integers(0, 5, 30).tolist()
    assert clustering_scores(labels_true, assignments)["acc"] == pytest.approx(exhaustive_acc(labels_true, assignments))


def test_one_cluster_is_the_majority_and_tells_nothing():
    scores = clustering_scores([1, 1, 1, 2], [0, 0, 0, 0])
    assert scores["acc"] == scores["majority_acc"] == 0.75
    assert scores["nmi"] == scores["ari"] == 0.0


def test_permuted_labels_give_ari_near_zero():
    rng = np.random.default_rng(0)
    assignments = np.repeat(np.arange(5), 200)
    scores = clustering_scores(rng.permutation(assignments), assignments)
    assert abs(scores["ari"]) < 0.02


def test_contingency_counts_pairs_in_sorted_order():
    assert contingency(["b", "a", "b"], [7, 7, 3]).tolist() == [[0, 1], [1, 1]]


@pytest.mark.parametrize(
    ("labels_true", "assignments", "message"),
    [([1, 2], [0], "labels_true has 2 entries, assignments 1"), ([], [], "no clips to score")],
)
def test_what_cannot_be_scored_is_said(labels_true, assignments, message):
    with pytest.raises(ValueError, match=message):
        clustering_scores(labels_true, assignments)
