"""How far restarts agree and what they say together, against hand-computed values and all permutations."""

import math
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from tib import select
from tib.select import consensus_columns, match_clusters, stability


def random_posterior(seed: int, n_clips: int, n_clusters: int, sharpness: float = 3.0) -> NDArray[np.float64]:
    exponents = np.exp(sharpness * np.random.default_rng(seed).standard_normal((n_clips, n_clusters)))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def test_stability_by_hand() -> None:
    halves, across = [0, 0, 1, 1], [0, 1, 0, 1]
    assert stability(np.array([halves, halves])) == 1
    assert stability(np.array([halves, [7, 7, 3, 3]])) == 1  # numbers are names
    # no pair of clips is together in both: (0 - 2·2/6) / (2 - 2·2/6) = -1/2
    assert stability(np.array([halves, across])) == pytest.approx(-0.5, abs=1e-15)
    assert stability(np.array([halves, halves, across])) == pytest.approx((1 - 0.5 - 0.5) / 3, abs=1e-15)


def test_clips_on_which_a_restart_has_no_say_are_left_out() -> None:
    restarts = np.array([[0, 0, 1, 1, -1, 0], [5, 5, 2, 2, 2, -1], [-1, -1, -1, -1, -1, -1]])
    assert stability(restarts) == 1  # the last is compared with nobody, and 4 clips are common to the others
    restarts[1, :4] = [0, 1, 0, 1]
    assert stability(restarts) == pytest.approx(-0.5, abs=1e-15)


def test_trivial_partitions_agree_on_nothing() -> None:
    assert stability(np.zeros((3, 5), dtype=np.int64)) == 0  # all in one cluster
    assert stability(np.array([np.arange(5), np.arange(5)[::-1]])) == 0  # each in its own


def test_restarts_without_a_common_clip_cannot_agree() -> None:
    assert math.isnan(stability(np.array([[0, 1, -1, -1], [-1, -1, 0, 1]])))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(2, 40), st.integers(1, 5), st.integers(1, 50))
def test_stability_is_the_mean_over_pairs(seed: int, restarts: int, n_clips: int, n_clusters: int, rows: int) -> None:
    """Against scikit-learn's index of one pair after another, whatever the number of clips counted at a time."""
    assignments = np.random.default_rng(seed).integers(-1, n_clusters, (restarts, n_clips))
    scores = []
    for a, b in combinations(assignments, 2):
        both = (a >= 0) & (b >= 0)
        if both.sum() > 1:
            trivial = {1, int(both.sum())}
            same = len(set(a[both])) == len(set(b[both])) and len(set(a[both])) in trivial
            scores.append(0.0 if same else adjusted_rand_score(a[both], b[both]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(select, "ROWS", rows)
        value = stability(assignments)
    if scores:
        assert value == pytest.approx(np.mean(scores), abs=1e-12)
        assert -0.5 <= value <= 1
    else:
        assert math.isnan(value)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(1, 12))
def test_match_clusters_is_the_best_of_all_permutations(seed: int, n_clusters: int, n_clips: int) -> None:
    posterior, reference = random_posterior(seed, n_clips, n_clusters), random_posterior(seed + 1, n_clips, n_clusters)
    columns = match_clusters(posterior, reference)
    assert sorted(columns) == list(range(n_clusters))
    best = max((reference * posterior[:, list(order)]).sum() for order in permutations(range(n_clusters)))
    assert (reference * posterior[:, columns]).sum() == pytest.approx(best, rel=1e-12)


def consensus_of(posteriors: list[np.ndarray]) -> np.ndarray:
    columns = consensus_columns(posteriors)
    return np.mean([p[:, order] for p, order in zip(posteriors, columns, strict=True)], axis=0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 7), st.integers(1, 5))
def test_the_consensus_of_renumbered_copies_is_the_original(seed: int, n_clusters: int, restarts: int) -> None:
    rng = np.random.default_rng(seed)
    original = random_posterior(seed, 40, n_clusters)
    copies = [original[:, rng.permutation(n_clusters)] for _ in range(restarts)]
    together = consensus_of(copies)
    # whose numbering is kept is open
    assert together[:, match_clusters(together, original)] == pytest.approx(original, abs=1e-12)
    columns = consensus_columns(copies)
    for copy, order in zip(copies, columns, strict=True):
        assert copy[:, order] == pytest.approx(together, abs=1e-12)


def test_the_consensus_is_the_mean_of_matched_columns() -> None:
    one = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    other = np.array([[0.3, 0.7], [1.0, 0.0], [0.5, 0.5]])
    together = consensus_of([one, other])
    first = match_clusters(together, one)
    assert together[:, first] == pytest.approx(np.array([[0.8, 0.2], [0.1, 0.9], [0.6, 0.4]]), abs=1e-15)


def test_one_stray_restart_does_not_decide() -> None:
    planted = np.repeat(np.eye(3), 20, axis=0)
    good = [np.roll(0.9 * planted + 0.1 / 3, shift, axis=1) for shift in range(3)]
    for stray in (random_posterior(0, 60, 3), np.full((60, 3), 1 / 3)):  # the other of no use as the one to match
        together = consensus_of([stray, *good])
        assert stability(np.stack([together.argmax(axis=1), planted.argmax(axis=1)])) == 1
