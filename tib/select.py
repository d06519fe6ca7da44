"""One result from many restarts, without labels: how far they agree, and what they say together.

Shapes: R restarts, N clips, K clusters.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

ROUNDS = 3
ROWS = 16_384  # clips at a time, to spare memory


def stability(assignments: NDArray[np.int64]) -> float:
    """Mean adjusted Rand index between any two restarts' clusters: 1 where they are the same, 0 by chance.

    Of restarts that each learned from another bag of clips it is their stability: whether the clusters would come out
    again on other clips. ARI, unlike NMI, does not rise with the number of clusters.

    Args:
        assignments: (R, N), R >= 2; the numbering of two restarts is unrelated; -1 where a restart has no say.
    Returns:
        Between -0.5 and 1; NaN where no two restarts have a clip in common.
    Source: clustering stability (Ben-Hur et al. 2002; Lange et al. 2004).
    """
    n_restarts, n_clips = assignments.shape
    n_clusters = max(int(assignments.max()) + 1, 1)
    scores = []
    for first in range(n_restarts - 1):
        # The contingency tables of one restart with all that follow, at once: a cluster of it by (restart, cluster).
        tables = np.zeros((n_clusters, (n_restarts - first - 1) * n_clusters))
        for start in range(0, n_clips, ROWS):
            rows = _one_hot(assignments[first:, start : start + ROWS], n_clusters)
            tables += rows[:, :n_clusters].T @ rows[:, n_clusters:]
        scores.append(_adjusted_rand(tables.reshape(n_clusters, -1, n_clusters).transpose(1, 0, 2)))
    every = np.concatenate(scores)
    return float(np.nanmean(every)) if np.isfinite(every).any() else float("nan")


def _one_hot(assignments: NDArray[np.int64], n_clusters: int) -> NDArray[np.float32]:
    """(R, n) to (n, R·K); -1 is no cluster."""
    one_hot = (assignments.T[:, :, None] == np.arange(n_clusters)).astype(np.float32)
    return one_hot.reshape(len(one_hot), -1)


def _adjusted_rand(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """(pairs,) of contingency tables (pairs, K, K).

    NaN for a table without two clips. 0 where both partitions are trivial, one cluster for all or one for each clip:
    they could not disagree, so their stability says nothing (scikit-learn has 1 there).
    Source: Hubert & Arabie 1985, eq. 5; as scikit-learn's adjusted_rand_score, which takes one pair at a time.
    """
    together = (tables * (tables - 1) / 2).sum((1, 2))
    rows, columns = tables.sum(2), tables.sum(1)
    in_a = (rows * (rows - 1) / 2).sum(1)
    in_b = (columns * (columns - 1) / 2).sum(1)
    n_clips = tables.sum((1, 2))
    every = n_clips * (n_clips - 1) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = in_a * in_b / every
        ceiling = (in_a + in_b) / 2
        scores = np.where(ceiling == expected, 0.0, (together - expected) / (ceiling - expected))
    return np.where(every > 0, scores, np.nan)


def match_clusters(posterior: NDArray[np.floating], reference: NDArray[np.floating]) -> NDArray[np.int64]:
    """(K,) the posterior's column for each column of the reference, so that they overlap most (Hungarian).

    Args:
        posterior, reference: (N, K).
    """
    return np.asarray(linear_sum_assignment(-(reference.T @ posterior))[1], dtype=np.int64)


def consensus_columns(posteriors: Sequence[NDArray[np.floating]]) -> NDArray[np.int64]:
    """(R, K) the column order in which the restarts speak of the same clusters.

    Each is matched to the restart that is most like the others, then to the running mean.

    Args:
        posteriors: R of (N, K).
    Source: voting / cumulative matching of clusterings (Dudoit & Fridlyand 2003, BagClust1; Ayad & Kamel 2008).
    """
    likeness = [
        sum(float((reference * p[:, match_clusters(p, reference)]).sum()) for p in posteriors)
        for reference in posteriors
    ]
    mean = posteriors[int(np.argmax(likeness))]
    for _ in range(ROUNDS):
        columns = np.stack([match_clusters(p, mean) for p in posteriors])
        mean = np.mean([p[:, order] for p, order in zip(posteriors, columns, strict=True)], axis=0)
    return columns
