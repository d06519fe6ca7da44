"""Whether a run's clusters still hold for new clips: told where they do not, and not where chance alone would do it."""

import json

import numpy as np
import pytest

from pipeline.drift import Tally, Trained, drift, in_words

N = 4000


@pytest.fixture(scope="module")
def trained():
    """Clusters of shares .5, .3 and .2; confidences spread evenly from .5 to 1."""
    rng = np.random.default_rng(0)
    return Trained.of(rng.choice(3, N, p=(0.5, 0.3, 0.2)), rng.uniform(0.5, 1, N), 4)


def drift_of(trained, cluster, confidence):
    """As they come: in two batches."""
    tally, half = Tally(trained), len(cluster) // 2
    tally.add(cluster[:half], confidence[:half])
    tally.add(cluster[half:], confidence[half:])
    return drift(tally)


def clips(n, shares=(0.5, 0.3, 0.2), least=0.5, seed=1):
    rng = np.random.default_rng(seed)
    return rng.choice(len(shares), n, p=shares), rng.uniform(least, 1, n)


def test_more_of_the_same_is_no_drift(trained):
    found = drift_of(trained, *clips(N))
    assert found.unsure == pytest.approx(0.1, abs=0.02)
    assert found.psi < 0.01
    assert found.shares[0] == pytest.approx((0.5, 0.5), abs=0.03)
    assert not found.reasons
    assert len(in_words(found)) == 1


@pytest.mark.parametrize("n", [1, 2, 5, 12, 40])
def test_few_clips_of_the_same_kind_seldom_look_like_drift_of(trained, n):
    alarms = sum(bool(drift_of(trained, *clips(n, seed=seed)).reasons) for seed in range(500))
    assert alarms <= 3  # of 500; each of two tests may be wrong once in 1,000


def test_clips_told_less_surely_are_drift(trained):
    cluster, confidence = clips(300)
    found = drift_of(trained, cluster, np.where(np.arange(300) % 3, confidence, 0.4))
    assert found.unsure > 0.33
    assert "% of the clips are told less surely (below 0.55) than 9 of 10 in training" in found.reasons[0]
    assert "a refit is due" in in_words(found)[-1]


def test_clusters_of_another_size_are_drift(trained):
    found = drift_of(trained, *clips(300, shares=(0.1, 0.2, 0.7)))
    assert found.psi > 0.25
    assert "most of all cluster 2: 20% of the clips in training, 68% now" in found.reasons[0]


def test_a_cluster_that_nothing_falls_in_any_more_is_counted(trained):
    found = drift_of(trained, *clips(500, shares=(1.0,)))
    assert found.shares[2][1] < 0.002
    assert np.isfinite(found.psi)
    assert found.reasons


def test_its_values_are_json(trained):
    values = json.loads(json.dumps(drift_of(trained, *clips(5)).values))
    assert values["clips"] == 5
    assert set(values["clusters"]) == {"0", "1", "2"}
    assert values["refit_due"] is False
