"""The baselines: planted clusters are found, the shared space is right, and odd views are left out, not fatal."""

import warnings
from functools import partial

import numpy as np
import pytest
from scipy.linalg import eigh, subspace_angles
from sklearn.cluster import SpectralClustering
from sklearn.metrics import normalized_mutual_info_score as nmi

from tib import baselines as module
from tib.baselines import (
    CannotCluster,
    baselines,
    k_means,
    shared_space,
    side_by_side,
    spectral_space,
    standardised,
)

K, N = 3, 90
PLANTED = np.arange(N) % K
NAMES = [f"{method} {view}" for method in ("k-means", "spectral rbf", "spectral nn") for view in ("a", "b", "c", "all")]


@pytest.fixture
def views():
    rng = np.random.default_rng(0)
    return {
        name: (6 * rng.normal(size=(K, dim))[PLANTED] + rng.normal(size=(N, dim))).astype(np.float32)
        for name, dim in (("a", 12), ("b", 9), ("c", 15))
    }


def run(views, n_clusters=K, seeds=(0, 1)):
    """name -> clusters a seed, or why there are none; any warning fails."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, clusters_of in baselines(views, n_clusters, seeds).items():
            try:
                found[name] = clusters_of()
            except CannotCluster as reason:
                found[name] = str(reason)
    return found


def test_every_baseline_finds_planted_clusters(views):
    found = run(views)
    assert list(found) == [*NAMES, "gcca"]
    for name, clusters in found.items():
        assert len(clusters) == 2
        for one in clusters:
            assert one.dtype == np.int64
            assert one.shape == (N,)
            assert nmi(PLANTED, one) > 0.99, name


def test_a_seed_gives_the_same_clusters_and_views_are_left_as_they_were(views):
    noise = {name: np.random.default_rng(3).normal(size=view.shape) for name, view in views.items()}
    before = {name: view.copy() for name, view in noise.items()}
    first, second = run(noise, seeds=(0, 1)), run(noise, seeds=[1, 0])
    for name in first:
        assert (first[name][0] == second[name][1]).all(), name
        assert (first[name][1] == second[name][0]).all(), name
    assert any((clusters[0] != clusters[1]).any() for clusters in first.values())
    assert all((noise[name] == before[name]).all() for name in noise)


def test_one_view_has_no_all_and_no_gcca(views):
    assert list(run({"a": views["a"]})) == ["k-means a", "spectral rbf a", "spectral nn a"]


def test_missing_rows_are_minus_1_in_their_view_and_clustered_by_the_others(views):
    views["a"][:7] = np.nan
    views["b"][4:9, 2] = np.nan  # one NaN: the row is missing
    views["c"][5] = np.nan  # clip 5 has no view at all
    found = run(views)
    lacking = {"a": set(range(7)), "b": set(range(4, 9)), "c": {5}}
    for name, clusters in found.items():
        expected = lacking.get(name.split()[-1], {5})
        for one in clusters:
            assert set(np.flatnonzero(one == -1)) == expected, name
            assert nmi(PLANTED[one >= 0], one[one >= 0]) > 0.9, name


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (np.full((N, 4), np.nan), "0 clips are too few, it needs"),
        (np.full((N, 4), 0.1), "it is the same for every clip"),
        (np.where(np.arange(N)[:, None] < K - 1, np.eye(N, 4), np.nan), f"{K - 1} clips are too few, it needs"),
    ],
    ids=["missing", "constant", "fewer clips than clusters"],
)
def test_a_view_that_cannot_be_clustered_is_left_out_alone(views, odd, reason):
    found = run({**views, "odd": odd})
    for name, clusters in found.items():
        if name.endswith(" odd"):
            assert reason in clusters, name
        else:
            assert nmi(PLANTED, clusters[0]) > 0.95, name
    alone = run({"a": views["a"], "odd": np.full((N, 4), np.nan)})
    for name in ("k-means all", "spectral rbf all", "spectral nn all", "gcca"):
        assert alone[name] == "only 1 of 2 views tells clips apart"


@pytest.mark.parametrize("n_clips", [1, 2, 3, 4, 9, 10, 11])
def test_few_clips_are_no_crash(views, n_clips):
    few = {name: view[:n_clips] for name, view in views.items()}
    found = run(few, n_clusters=3)
    assert isinstance(found["k-means a"], str) == (n_clips < 3)
    assert isinstance(found["spectral nn a"], str) == (n_clips < 11)
    assert isinstance(found["gcca"], str) == (n_clips < 3)


def test_fewer_different_clips_than_clusters_are_no_crash_and_no_warning():
    two = np.repeat([[0.0, 1.0, 2.0], [5.0, 3.0, 1.0]], 15, axis=0)
    for name, clusters in run({"a": two, "b": two[:, ::-1]}, n_clusters=4).items():
        assert nmi(np.repeat([0, 1], 15), clusters[0]) > 0.5, name


def test_a_graph_in_several_pieces_is_clustered_without_a_warning():
    rng = np.random.default_rng(0)
    far = 100 * PLANTED[:, None] + rng.normal(size=(N, 5))  # 30 clips a piece, 10 neighbours: no edge between pieces
    assert nmi(PLANTED, run({"a": far})["spectral nn a"][0]) == pytest.approx(1)


@pytest.mark.parametrize("affinity", ["rbf", "nearest_neighbors"])
def test_too_many_clips_are_left_out(views, monkeypatch, affinity):
    points = standardised(views["a"])
    monkeypatch.setitem(module.MOST_CLIPS, affinity, N)
    assert spectral_space(points, K, affinity).shape == (N, K)
    monkeypatch.setitem(module.MOST_CLIPS, affinity, N - 1)
    with pytest.raises(CannotCluster, match="90 clips are more than the 89 it can take in reasonable time"):
        spectral_space(points, K, affinity)


@pytest.mark.parametrize("affinity", ["rbf", "nearest_neighbors"])
def test_spectral_clustering_is_scikit_learns(affinity):
    x = np.random.default_rng(1).normal(size=(200, 6)) * [5, 3, 1, 1, 1, 0.1]
    x[:100, 0] += 12
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    model = SpectralClustering(4, affinity=affinity, gamma=1 / 6, n_neighbors=10, random_state=0).fit(z)
    ours = k_means(spectral_space(standardised(x), 4, affinity), 4, seed=0)
    assert nmi(model.labels_, ours) > 0.95


def test_standardised_has_unit_total_variance_whatever_the_units():
    x = np.random.default_rng(0).normal(size=(50, 3)) @ np.array([[1, 1, 1], [0, 1, 1], [0, 0, 1]])
    expected = (x - x.mean(axis=0)) / x.std(axis=0) / np.sqrt(3)
    np.testing.assert_allclose(standardised(x), expected, atol=1e-12)
    constant = np.where(np.arange(50) % 2, 0.3, 0.1 + 0.2)  # but for rounding
    other_units = np.column_stack([x * [1e-3, 1, 1e6] + [7, 0, -1e7], constant])
    np.testing.assert_allclose(standardised(other_units)[:, :3], expected, atol=1e-9)
    assert (standardised(other_units)[:, 3] == 0).all()


def test_principal_components_keep_their_proportions():
    x = np.random.default_rng(0).normal(size=(50, 8)) * np.arange(8, 0, -1)
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    components = (u * s).astype(np.float32)
    np.testing.assert_allclose(standardised(components), u * s / np.sqrt((s**2).sum() / 50), atol=1e-5)


def test_side_by_side_weighs_views_alike_and_fills_a_missing_view_with_its_mean():
    rng = np.random.default_rng(0)
    views = {"a": rng.normal(size=(40, 3)) * 1000, "b": rng.normal(size=(40, 20))}
    joined = side_by_side(views)
    assert joined[:, :3].var(axis=0).sum() == pytest.approx(1)
    assert joined[:, 3:].var(axis=0).sum() == pytest.approx(1)
    views["a"][3] = np.nan
    assert (side_by_side(views)[3, :3] == 0).all()
    views["b"][3] = np.nan
    assert np.isnan(side_by_side(views)[3]).all()


def slow_shared_space(views, n_dims, ridge):
    """The definition, with N x N matrices: Σ R_m g = λ K g. Returns G (N, n_dims) with G'KG = I, and sqrt(λ)."""
    total, counts = 0, 0
    for view in views:
        z = standardised(view)
        x = np.array([[0.0] * z.shape[1] if np.isnan(row).any() else row for row in z])
        gram = x.T @ x
        total = total + x @ np.linalg.inv(gram + ridge * np.trace(gram) / len(gram) * np.eye(len(gram))) @ x.T
        counts = counts + (~np.isnan(z).any(axis=1)).astype(float)
    values, vectors = eigh(total, np.diag(counts))
    return vectors[:, ::-1][:, :n_dims], np.sqrt(values[::-1][:n_dims])


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_shared_space_against_its_definition(views, missing, ridge):
    if missing:
        views["a"][:20] = np.nan
        views["b"][15:30] = np.nan
        views["c"][25:40] = np.nan
    points, correlations = shared_space(views, 5, ridge)
    expected, expected_correlations = slow_shared_space(list(views.values()), 5, ridge)
    np.testing.assert_allclose(correlations, expected_correlations, rtol=1e-8)
    scaled = points / np.linalg.norm(points, axis=0)
    expected /= np.linalg.norm(expected, axis=0)
    np.testing.assert_allclose(np.abs((scaled * expected).sum(axis=0)), 1, atol=1e-8)  # equal but for the sign
    if not missing:  # a coordinate's sd is its correlation
        np.testing.assert_allclose(points.std(axis=0), correlations, rtol=1e-8)


def test_linear_maps_of_one_latent_share_it_whole():
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(300, 3))
    views = {name: latent @ rng.normal(size=(3, 3)) + rng.normal(size=3) for name in "ab"}
    points, correlations = shared_space(views, 3, ridge=1e-9)
    np.testing.assert_allclose(correlations, 1, atol=1e-6)
    assert subspace_angles(points, latent - latent.mean(axis=0)).max() < 1e-5


def test_shared_space_finds_what_is_shared_beneath_louder_private_noise():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=500)
    views = {
        name: np.column_stack([shared, 20 * rng.normal(size=(500, 4))]) @ rng.normal(size=(5, 5)) for name in "abc"
    }
    points, correlations = shared_space(views, 2, ridge=1e-9)
    assert abs(np.corrcoef(points[:, 0], shared)[0, 1]) > 0.999
    assert correlations[0] > 0.999
    # unshared: R² of 1 in one view, chance in the two others, in the mean over three: a correlation of about .58
    assert 0.55 < correlations[1] < 0.7


def test_a_direction_more_than_there_are_is_not_given(views):
    narrow = {name: view[:, :2] for name, view in views.items()}
    assert shared_space(narrow, 20)[0].shape == (N, 5)


NAN = np.full((4, 2), np.nan)
SAME = np.ones((4, 2))
DIFFERENT = np.array([[0.0, 1.0], [2.0, 0.0], [1.0, 5.0], [3.0, 3.0]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(k_means, DIFFERENT, 5, seed=0), "4 clips are too few, it needs 5"),
        (partial(k_means, SAME, 2, seed=0), "it is the same for every clip"),
        (partial(standardised, NAN), "0 clips are too few, it needs 1"),
        (partial(standardised, SAME), "it is the same for every clip"),
        (partial(side_by_side, {"a": SAME, "b": NAN}), "only 0 of 2 views tells clips apart"),
        (partial(shared_space, {"a": DIFFERENT, "b": NAN}, 2), "only 1 of 2 views tells clips apart"),
        (partial(shared_space, {"a": DIFFERENT[:2], "b": DIFFERENT[2:]}, 2), "2 clips are too few, it needs 3"),
        (partial(spectral_space, DIFFERENT, 2, "rbf"), "4 clips are too few, it needs 11"),
    ],
)
def test_what_has_no_meaning_says_why(call, message):
    with pytest.raises(CannotCluster, match=message):
        call()
