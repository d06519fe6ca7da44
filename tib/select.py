"""One result from many restarts, without labels: how far they agree, and what they say together.

Shapes: R restarts, N clips, K clusters.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

ROUNDS = 3
ROWS = 16_384  # clips at a time, to spare memory


def agreement(assignments: NDArray[np.int64]) -> float:
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
    counts = np.zeros((n_restarts * n_clusters,) * 2)
    for start in range(0, n_clips, ROWS):
        some = assignments[:, start : start + ROWS]
        one_hot = (some[:, :, None] == np.arange(n_clusters)).astype(np.float32)  # (R, n, K)
        flat = one_hot.transpose(1, 0, 2).reshape(some.shape[1], -1)
        counts += flat.T @ flat
    # All contingency tables at once: tables[a, b, i, j] clips are in a's cluster i and in b's cluster j.
    tables = counts.reshape(n_restarts, n_clusters, n_restarts, n_clusters).transpose(0, 2, 1, 3)
    upper = np.triu_indices(n_restarts, 1)
    scores = _adjusted_rand(tables[upper])
    return float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")


def _adjusted_rand(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """(pairs,) of contingency tables (pairs, K, K); NaN for a table of fewer than two clips. 1 where both are trivial.

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
        scores = np.where(ceiling == expected, 1.0, (together - expected) / (ceiling - expected))
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


def consensus(posteriors: Sequence[NDArray[np.floating]]) -> NDArray[np.floating]:
    """(N, K) the mean of R posteriors (N, K), their clusters matched first."""
    columns = consensus_columns(posteriors)
    return np.mean([p[:, order] for p, order in zip(posteriors, columns, strict=True)], axis=0)
