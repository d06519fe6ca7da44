"""What TIB has to beat: k-means, spectral clustering and generalised CCA on the same views, and as blind.

Every baseline here is k-means on points: a view, its spectral embedding, or the space that the views share.
Views are name -> (N, D_m) arrays; a row with NaN is a clip without that view. N clips, D features, M views, K clusters.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.sparse.linalg import svds
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.manifold import spectral_embedding
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import kneighbors_graph

from tib.standardise import standardisation

Views = Mapping[str, NDArray[Any]]
Points = NDArray[np.float64]
Clusters = NDArray[np.int64]

N_INIT = 10  # k-means starts a seed, of which the lowest inertia is kept
N_NEIGHBORS = 10
RIDGE = 0.1  # of generalised CCA, as a share of a view's mean feature variance
MOST_CLIPS = {"rbf": 5_000, "nearest_neighbors": 20_000}  # 5 s and 15 s a view on one core; N³, N² and up


class CannotCluster(ValueError):
    """A baseline has no meaning for these views; the message says why, and the table leaves it out."""


def baselines(views: Views, n_clusters: int, seeds: Iterable[int]) -> dict[str, Callable[[], list[Clusters]]]:
    """Every baseline by name, in the order to show them; nothing runs before it is called.

    "k-means V" and "spectral rbf|nn V" for each view V and for "all" side by side; "gcca" where there are several.
    A seed is where k-means starts; the points are the same for all, so that 5 seeds cost little more than 1.

    Returns:
        name -> a call that gives one (N,) a seed, -1 where a clip lacks the view. It raises CannotCluster where the
        baseline has no meaning: fewer clips than clusters, a view that is the same for every clip, too many clips.
    """
    chosen: dict[str, Views] = {name: {name: view} for name, view in views.items()}
    if len(views) > 1:
        chosen["all"] = views
    points: dict[str, Callable[[], Points]] = {f"k-means {n}": partial(_k_means_points, v) for n, v in chosen.items()}
    for short, affinity in (("rbf", "rbf"), ("nn", "nearest_neighbors")):
        for name, some in chosen.items():
            points[f"spectral {short} {name}"] = partial(_spectral_points, some, n_clusters, affinity)
    if len(views) > 1:
        points["gcca"] = lambda: shared_space(views, n_clusters)[0]  # K directions, as spectral clustering keeps
    return {name: partial(_cluster, make, n_clusters, list(seeds)) for name, make in points.items()}


def _cluster(make_points: Callable[[], Points], n_clusters: int, seeds: list[int]) -> list[Clusters]:
    points = make_points()
    return [k_means(points, n_clusters, seed) for seed in seeds]


def _k_means_points(views: Views) -> Points:
    """One view as it is; several side by side."""
    return next(iter(views.values())).astype(np.float64) if len(views) == 1 else side_by_side(views)


def _spectral_points(views: Views, n_clusters: int, affinity: str) -> Points:
    return spectral_space(side_by_side(views), n_clusters, affinity)


def k_means(points: NDArray[Any], n_clusters: int, seed: int) -> Clusters:
    """k-means on the clips that are there, the best of N_INIT starts.

    Args:
        points: (N, D).
    Returns:
        (N,), 0..K-1; -1 for a row with NaN.
    Raises:
        CannotCluster: fewer clips than clusters, or all the same.
    """
    rows = np.isfinite(points).all(axis=1)
    _check_clips(points[rows], n_clusters)
    clusters = np.full(len(points), -1, dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different clips than clusters: some stay empty
        clusters[rows] = KMeans(n_clusters, n_init=N_INIT, random_state=seed).fit_predict(points[rows])
    return clusters


def standardised(view: NDArray[Any]) -> Points:
    """Every feature to mean 0 and equal variance, then all of them to a total variance of 1.

    Constant features become 0. Principal components keep their proportions: they are (standardised) features already,
    rotated, and equal variances would blow up the last, which are noise.

    Args:
        view: (N, D).
    Returns:
        (N, D); a row with NaN becomes NaN throughout.
    Raises:
        CannotCluster: no clip has the view, or it is the same for all.
    """
    rows = np.isfinite(view).all(axis=1)
    x = view[rows].astype(np.float64)
    _check_clips(x, 1)
    mean, scale = standardisation(x)
    x = (x - mean) * scale
    result = np.full(view.shape, np.nan)
    result[rows] = x / np.sqrt(x.var(axis=0).sum())
    return result


def side_by_side(views: Views) -> Points:
    """All views as one, each of the same total variance, so that none outweighs another by its units or its width.

    Returns:
        (N, sum of D_m). A view that a clip lacks is 0, its mean; NaN where a clip has none.
    Raises:
        CannotCluster: fewer than 2 of several views tell clips apart, or the only one does not.
    """
    usable = _usable(views)
    none = np.all([np.isnan(x).any(axis=1) for x in usable], axis=0)
    joined = np.nan_to_num(np.concatenate(usable, axis=1), nan=0.0)
    joined[none] = np.nan
    return joined


def spectral_space(points: Points, n_clusters: int, affinity: str) -> Points:
    """The first K eigenvectors of the normalised graph Laplacian, as scikit-learn's SpectralClustering makes them.

    Args:
        points: (N, D), standardised.
        affinity: "rbf", exp(-|x - y|² / total variance), which is gamma = 1/D on features of unit variance; or
            "nearest_neighbors", the symmetrised graph of N_NEIGHBORS.
    Returns:
        (N, K); NaN where points has it.
    Raises:
        CannotCluster: too few clips, or more than MOST_CLIPS.
    Source: Shi & Malik 2000; von Luxburg 2007, section 4.
    """
    rows = np.isfinite(points).all(axis=1)
    x = points[rows]
    _check_clips(x, max(N_NEIGHBORS, n_clusters) + 1)
    if len(x) > MOST_CLIPS[affinity]:
        raise CannotCluster(f"{len(x)} clips are more than the {MOST_CLIPS[affinity]} it can take in reasonable time")
    if affinity == "rbf":
        graph = rbf_kernel(x, gamma=1 / x.var(axis=0).sum())
    else:
        graph = kneighbors_graph(x, N_NEIGHBORS, include_self=True)
        graph = (graph + graph.T) / 2
    result = np.full((len(points), n_clusters), np.nan)
    with warnings.catch_warnings():
        # A graph in several pieces is fine: their indicators are among the eigenvectors.
        warnings.filterwarnings("ignore", "Graph is not fully connected", UserWarning)
        result[rows] = spectral_embedding(graph, n_components=n_clusters, random_state=0, drop_first=False)
    return result


def shared_space(views: Views, n_dims: int, ridge: float = RIDGE) -> tuple[Points, Points]:
    """Generalised CCA (MAXVAR): the directions g that all views' regressions R_m on them explain best, in the mean.

    g maximises g' Σ_m R_m g under g' K g = 1, with R_m = X_m (X_m'X_m + r I)⁻¹ X_m', a missing row of X_m being 0 and
    K the diagonal of how many views each clip has ("missing data passive"). The solution is the SVD of the stacked
    whitened views; coordinates are the mean of a clip's projections, so a direction that few views share is short and
    its number matters little.

    Args:
        n_dims: directions wanted; no more than the stacked views have are given.
        ridge: r in units of a view's mean feature variance: a component of that variance counts 1 / (1 + r), and
            those below it less. Above 0.
    Returns:
        (N, n_dims) coordinates, NaN where a clip has no view; (n_dims,) their correlations, falling: the root of the
        mean over views of what a view explains of the direction, 0..1.
    Raises:
        CannotCluster: fewer than 2 views tell clips apart, or there are fewer than 3 clips.
    Source: Kettenring 1971 (MAXVAR); ridge, Takane, Hwang & Abdi 2008; missing rows, van de Velden & Takane 2012,
        section 3 (after Gifi).
    """
    usable = _usable(views)
    n_views = np.sum([np.isfinite(x).all(axis=1) for x in usable], axis=0)  # (N,)
    rows = n_views > 0
    stacked = np.concatenate([_whitened(np.nan_to_num(x[rows], nan=0.0), ridge) for x in usable], axis=1)
    _check_clips(stacked, 3)
    weights = np.sqrt(n_views[rows])[:, None]
    u, s, _ = svds(stacked / weights, k=min(n_dims, min(stacked.shape) - 1), rng=0)
    order = np.argsort(-s)
    result = np.full((len(rows), len(s)), np.nan)
    result[rows] = np.sqrt(n_views.sum()) * (u * s)[:, order] / weights
    return result, s[order]


def _whitened(x: Points, ridge: float) -> Points:
    """F with F F' = X (X'X + r I)⁻¹ X'."""
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += ridge * np.trace(gram) / len(gram)
    return solve_triangular(cholesky(gram, lower=True), x.T, lower=True).T


def _usable(views: Views) -> list[Points]:
    """The standardised views that tell clips apart: at least 2 where several were given."""
    if len(views) == 1:
        return [standardised(view) for view in views.values()]
    usable = []
    for view in views.values():
        with suppress(CannotCluster):
            usable.append(standardised(view))
    if len(usable) < 2:
        raise CannotCluster(f"only {len(usable)} of {len(views)} views tells clips apart")
    return usable


def _check_clips(x: NDArray[Any], at_least: int) -> None:
    if len(x) < max(at_least, 1):
        raise CannotCluster(f"{len(x)} clips are too few, it needs {max(at_least, 1)}")
    if (x == x[0]).all():
        raise CannotCluster("it is the same for every clip")
