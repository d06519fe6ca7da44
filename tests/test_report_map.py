"""The space of the clips and its maps: against an SVD by hand, seeded, kept, and silhouettes by their definition."""

import numpy as np
import pytest
from report_factory import planted
from scipy.spatial.distance import cdist
from sklearn.metrics import silhouette_score

from pipeline.report import clip_map as module
from pipeline.report.clip_map import maps_of, principal_components, silhouettes, silhouettes_by_view, space_of

pytestmark = pytest.mark.usefixtures("one_thread")
N, K = 60, 3
PLANTED = np.arange(N) % K


def plane(clip_map):
    return np.column_stack([clip_map.x, clip_map.y])


def test_the_space_is_the_views_side_by_side_and_a_gap_is_the_mean():
    views = planted(N, K)
    views["text"] = 1000 * views["text"]
    views["audio"][4] = np.nan
    space, what = space_of(views, np.zeros((N, K)))
    assert space.shape == (N, 18)
    assert what.startswith("all views")
    weights = [space[:, i : i + 6].var(axis=0).sum() for i in (0, 6, 12)]
    assert weights[:2] == pytest.approx([1, 1])
    np.testing.assert_array_equal(space[4, 12:], 0)


@pytest.mark.parametrize("views", [{}, {"text": np.ones((4, 3), np.float32), "audio": np.ones((4, 2), np.float32)}])
def test_without_views_that_tell_clips_apart_the_posterior_is_shown(views):
    posterior = np.eye(4, dtype=np.float32)
    space, what = space_of(views, posterior)
    np.testing.assert_array_equal(space, posterior)
    assert what == "the clusters' probabilities"


def test_pca_is_the_svd_of_the_centred_space(tmp_path):
    space = np.random.default_rng(0).normal(size=(9, 5)) * [5, 3, 1, 1, 1]
    centred = space - space.mean(axis=0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    expected = centred @ directions[:2].T
    (pca,) = maps_of(space, "it", tmp_path)  # of so few clips there is no other map
    found = plane(pca)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-4)
    shares = singular**2 / (singular**2).sum()
    assert f"{shares[0]:.0%} and {shares[1]:.0%}" in pca.note


@pytest.mark.parametrize(
    "space", [np.zeros((1, 3)), np.zeros((30, 2)), np.arange(30.0)[:, None]], ids=["one clip", "all the same", "a line"]
)
def test_there_is_a_plane_of_any_space(space, tmp_path):
    coordinates, shares = principal_components(space)
    assert coordinates.shape[1] >= 2
    assert np.isfinite(coordinates).all()
    assert len(shares) == coordinates.shape[1]
    maps = maps_of(space, "it", tmp_path)
    assert all(np.isfinite(plane(one)).all() and len(one.x) == len(space) for one in maps)


def test_t_sne_keeps_neighbours_together_and_is_seeded_and_kept(tmp_path, monkeypatch):
    space, what = space_of(planted(N, K), np.zeros((N, K)))
    pca, tsne = maps_of(space, what, tmp_path)
    assert (pca.name, tsne.name) == ("PCA", "t-SNE")
    assert silhouette_score(plane(tsne), PLANTED) > 0.5
    assert plane(maps_of(space, what, tmp_path / "elsewhere")[1]).tolist() == plane(tsne).tolist()
    monkeypatch.setattr(module, "_tsne", lambda components: pytest.fail("drawn again"))
    assert maps_of(space, what, tmp_path)[1] == tsne
    monkeypatch.setattr(module, "_tsne", lambda components: components[:, :2])
    other = space.copy()
    other[0] += 1
    assert plane(maps_of(other, what, tmp_path)[1]).tolist() != plane(tsne).tolist()


def test_kept_maps_that_are_damaged_are_drawn_again(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_tsne", lambda components: components[:, :2])
    space, what = space_of(planted(12, K), np.zeros((12, K)))
    first = maps_of(space, what, tmp_path)
    (tmp_path / module.KEPT).write_text("[1, 2")
    assert maps_of(space, what, tmp_path) == first


def test_of_too_many_clips_pca_alone_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST", N - 1)
    space, what = space_of(planted(N, K), np.zeros((N, K)))
    assert [one.name for one in maps_of(space, what, tmp_path)] == ["PCA"]


@pytest.mark.slow
def test_umap_is_drawn_where_it_is_installed(tmp_path, monkeypatch, recwarn):
    pytest.importorskip("umap")
    n = module.FEWEST["UMAP"]
    space, what = space_of(planted(n, K), np.zeros((n, K)))
    umap = maps_of(space, what, tmp_path)[2]
    assert umap.name == "UMAP"
    assert silhouette_score(plane(umap), np.arange(n) % K) > 0.5
    assert not [warning for warning in recwarn if "n_jobs" in str(warning.message)]
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert [one.name for one in maps_of(space, what, tmp_path)] == ["PCA", "t-SNE"]


def test_a_silhouette_is_its_definition():
    rng = np.random.default_rng(0)
    space, clusters = rng.normal(size=(25, 4)), rng.integers(3, size=25)
    distances, expected = cdist(space, space), []
    for i in range(25):
        own = [distances[i, j] for j in range(25) if clusters[j] == clusters[i] and j != i]
        nearest = min(distances[i, clusters == k].mean() for k in set(clusters.tolist()) - {clusters[i]})
        expected.append((nearest - np.mean(own)) / max(nearest, np.mean(own)))
    np.testing.assert_allclose(silhouettes(space, clusters), expected)


@pytest.mark.parametrize("clusters", [np.zeros(6, int), np.arange(6)], ids=["one cluster", "a cluster a clip"])
def test_without_two_clusters_of_several_clips_there_is_none(clusters):
    space = np.random.default_rng(0).normal(size=(6, 2))
    assert np.isnan(silhouettes(space, clusters)).all()
    assert silhouettes_by_view({"text": space.astype(np.float32)}, silhouettes(space, clusters), clusters) == {}


def test_of_many_clips_a_sample_is_compared(monkeypatch):
    monkeypatch.setattr(module, "MOST_SILHOUETTES", 40)
    space, _ = space_of(planted(N, K), np.zeros((N, K)))
    found = silhouettes(space, PLANTED)
    assert np.isfinite(found).sum() == 40
    assert np.nanmean(found) > 0.5


def test_views_are_judged_on_the_clips_that_have_them():
    views = planted(N, K)
    views["audio"] = np.random.default_rng(5).normal(size=(N, 6)).astype(np.float32)
    views["audio"][:20] = np.nan
    views["flat"] = np.ones((N, 2), np.float32)
    found = silhouettes_by_view(views, silhouettes(views["text"], PLANTED), PLANTED)
    assert list(found) == ["all", "text", "visual", "audio"]
    assert found["all"] == pytest.approx(silhouette_score(views["text"], PLANTED))
    assert found["visual"] > 0.5
    assert abs(found["audio"]) < 0.2
