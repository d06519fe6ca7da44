"""How well assignments match ground truth. The only room, with evaluate.py, that sees `labels_true`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def contingency(labels_true: Sequence[Any] | NDArray[Any], assignments: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
    """Counts of (class, cluster) pairs: (n_classes, n_clusters), both in sorted order.

    Raises:
        ValueError: no clips, or different lengths.
    """
    true = np.asarray(labels_true).ravel()
    assigned = np.asarray(assignments).ravel()
    if len(true) != len(assigned):
        raise ValueError(f"labels_true has {len(true)} entries, assignments {len(assigned)}; one of each per clip")
    if not len(true):
        raise ValueError("no clips to score; labels_true is empty")
    classes, row = np.unique(true, return_inverse=True)
    clusters, column = np.unique(assigned, return_inverse=True)
    counts = np.zeros((len(classes), len(clusters)), dtype=np.int64)
    np.add.at(counts, (row, column), 1)
    return counts


def clustering_scores(
    labels_true: Sequence[Any] | NDArray[Any], assignments: Sequence[Any] | NDArray[Any]
) -> dict[str, float | int]:
    """The field's scores of a clustering against ground truth.

    Args:
        labels_true: (N,) classes, any integers (negative ones too) or strings.
        assignments: (N,) cluster ids; the ids themselves carry no meaning.
    Returns:
        acc: share of clips right under the best one-to-one match of clusters to classes (Hungarian), 0..1; a cluster
            beyond the number of classes counts as wrong. One cluster for all gives majority_acc.
        nmi: mutual information over the arithmetic mean of both entropies, 0..1, symmetric; 0 for one cluster
            (1 where there is one class and one cluster).
        ari: adjusted Rand index, -0.5..1, symmetric, 0 in the mean for random assignments.
        n_clusters_used: distinct ids in assignments.
        majority_acc: ACC of calling every clip the largest class.
    Raises:
        ValueError: no clips, or different lengths.
    Source: ACC by Kuhn 1955 as in Xie et al. 2016 (DEC); NMI and ARI as in scikit-learn.
    """
    from scipy.optimize import linear_sum_assignment  # only now: both load for seconds
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    counts = contingency(labels_true, assignments)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    true, assigned = np.asarray(labels_true).ravel(), np.asarray(assignments).ravel()
    return {
        "acc": float(counts[rows, columns].sum() / counts.sum()),
        "nmi": float(normalized_mutual_info_score(true, assigned, average_method="arithmetic")),
        "ari": float(adjusted_rand_score(true, assigned)),
        "n_clusters_used": int(counts.shape[1]),
        "majority_acc": float(counts.sum(axis=1).max() / counts.sum()),
    }
