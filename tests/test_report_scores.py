"""The score table and the confusion matrix, against pandas and by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pipeline.report.scores import confusion, restarts_of, score_table


def spread(acc, nmi):
    return {name: {"mean": value, "sd": 0.01} for name, value in
            (("acc", acc), ("nmi", nmi), ("ari", 0.3), ("n_clusters_used", 3.5))}  # fmt: skip


METRICS = {
    "scores": {"acc": 0.8, "nmi": 0.6, "ari": 0.5, "n_clusters_used": 3, "majority_acc": 0.4},
    "n_restarts": 12,
    "restarts": spread(0.7, 0.5),
    "baselines": {"k-means text": spread(0.5, 0.2), "k-means all": spread(0.6, 0.4)},
}


def test_the_table_has_ours_first_then_restarts_baselines_by_nmi_and_the_largest_class():
    rows = score_table(METRICS)
    assert [(row.kind, row.method) for row in rows] == [
        ("ours", "TIB"),
        ("restarts", "TIB, each of 12 restarts alone"),
        ("baseline", "k-means all"),
        ("baseline", "k-means text"),
        ("majority", "largest class for all"),
    ]
    assert (rows[0].acc, rows[0].acc_sd, rows[1].acc, rows[1].acc_sd, rows[2].n_clusters_used) == (
        0.8,
        None,
        0.7,
        0.01,
        3.5,
    )
    assert (rows[-1].acc, rows[-1].nmi, rows[-1].ari) == (0.4, 0.0, 0.0)


def test_one_restart_has_no_row_and_no_labels_no_table():
    assert "restarts" not in [row.kind for row in score_table({**METRICS, "n_restarts": 1})]
    assert score_table({"n_clips": 3}) == []


def test_confusion_counts_what_pandas_counts():
    rng = np.random.default_rng(0)
    labels, clusters = rng.choice(["sad", "happy", "angry"], 200).tolist(), rng.choice([1, 4, 6, 7], 200)
    expected = pd.crosstab(pd.Series(labels), pd.Series(clusters))
    found = confusion(labels, clusters)
    assert found["labels"] == ["angry", "happy", "sad"]
    assert sorted(found["clusters"]) == [1, 4, 6, 7]
    for label, row in zip(found["labels"], found["counts"], strict=True):
        assert row == [expected.loc[label, cluster] for cluster in found["clusters"]]


def test_clusters_follow_the_labels_they_are_matched_to_and_the_rest_by_size():
    labels = ["-1"] * 5 + ["10"] * 4 + ["2"] * 6
    clusters = np.array([3, 3, 3, 9, 9] + [0, 0, 0, 0] + [7, 7, 7, 5, 5, 5])
    clusters[-1] = 7
    found = confusion(labels, clusters)
    assert found == {
        "labels": ["-1", "2", "10"],  # by their numbers
        "clusters": [3, 7, 0, 5, 9],
        "counts": [[3, 0, 0, 0, 2], [0, 4, 0, 2, 0], [0, 0, 4, 0, 0]],
    }


def test_clips_without_a_label_are_left_out_and_labels_need_no_numbers():
    found = confusion(["clip 10", None, "clip 2", None], np.array([0, 0, 1, 2]))
    assert found == {"labels": ["clip 2", "clip 10"], "clusters": [1, 0], "counts": [[1, 0], [0, 1]]}
    assert confusion([None, None], np.array([0, 1])) is None


def test_more_labels_than_clusters_keep_their_rows():
    found = confusion(["a", "b", "c", "c"], np.array([0, 0, 0, 0]))
    assert found == {"labels": ["a", "b", "c"], "clusters": [0], "counts": [[1], [1], [2]]}


def test_restarts_are_set_against_the_run_and_the_labels():
    model = SimpleNamespace(
        restart_labels_=np.array([[5, 5, 7, 7], [0, 1, 0, 1]]), restart_losses_=np.array([-1.5, np.nan])
    )
    run = SimpleNamespace(model=model, clusters=np.array([0, 0, 1, 1]))
    found = restarts_of(run, ["a", None, "b", "b"])
    assert found["loss"] == [-1.5, None]
    assert found["ari"] == pytest.approx([1.0, -0.5])
    assert found["acc"] == pytest.approx([1.0, 2 / 3])
    assert restarts_of(run, [None] * 4)["acc"] is None
