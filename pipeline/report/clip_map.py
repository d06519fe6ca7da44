"""The space of a run's clips: where each lies, drawn in a plane, and how well its cluster holds together there."""

import hashlib
import importlib
import importlib.util
import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_samples

from pipeline.console import progress
from pipeline.files import write_atomic
from pipeline.provenance import stable_hash, versions
from pipeline.report.page import ClipMap
from tib.baselines import CannotCluster, side_by_side, standardised

SEED = 0
COMPONENTS = 50  # that neighbours are looked for in: what is beyond is noise, and costs time
N_NEIGHBORS = 15  # UMAP's own default
PERPLEXITY = 30.0  # t-SNE's
TSNE_STEPS = 500  # half of scikit-learn's default: the picture hardly changes any more, and waiting is halved
FEWEST = {"t-SNE": 10, "UMAP": 200}  # clips: of fewer, what comes before shows all there is; UMAP's start takes 10 s
MOST = 5_000  # of more, they take minutes
MOST_SILHOUETTES = 5_000  # clips compared with each other; of more, a sample
KEPT = "maps.json"  # in the run's folder, so that a second report is quick

Points = NDArray[np.float64]


def space_of(views: Mapping[str, NDArray[np.float32]], posterior: NDArray[np.floating]) -> tuple[Points, str]:
    """Where the clips lie: all views side by side, each of the same total variance, a missing one at its mean.

    Args:
        views: modality -> (N, D); {} where they are not there any more.
        posterior: (N, K), what is left to show then.
    Returns:
        (N, D) without gaps, and what it is in words.
    """
    try:
        if views:
            return np.nan_to_num(side_by_side(views)), "all views side by side, each of the same weight"
    except CannotCluster:
        pass  # no view tells clips apart
    return np.asarray(posterior, dtype=np.float64), "the clusters' probabilities"


def maps_of(space: Points, what: str, folder: Path) -> list[ClipMap]:
    """PCA; beside it, for FEWEST to MOST clips each, t-SNE, and UMAP where it is installed. Cluster ids play no part.

    Args:
        space: (N, D).
        what: it is, in words.
        folder: where the slow ones are kept; they are drawn again when the space has changed.
    """
    components, shares = principal_components(space)
    note = (
        f"The two directions in which the clips differ most, with {shares[0]:.0%} and {shares[1]:.0%} of the variance "
        f"of {what}. Clips that differ in other directions only fall together."
    )
    maps = [_clip_map("PCA", components[:, :2].tolist(), note)]
    if len(space) > MOST or not components.any():
        return maps
    for name, points in _neighbour_maps(components, folder).items():
        note = f"Clips that are neighbours in {what} lie together; how far groups are apart says little."
        maps.append(_clip_map(name, points, note))
    return maps


def _clip_map(name: str, points: list[list[float]], note: str) -> ClipMap:
    return ClipMap(name, [round(x, 4) for x, _ in points], [round(y, 4) for _, y in points], note)


def principal_components(space: Points) -> tuple[Points, list[float]]:
    """(N, n) coordinates, 2 <= n <= COMPONENTS, and each one's share of the variance; 0 beyond what there is."""
    n = min(COMPONENTS, len(space) - 1, space.shape[1])
    found, shares = np.zeros((len(space), max(n, 2))), np.zeros(max(n, 2))
    if n > 0 and space.var(axis=0).sum() > 0:
        pca = PCA(n, random_state=SEED)
        found[:, :n] = pca.fit_transform(space)
        shares[:n] = pca.explained_variance_ratio_
    return found, shares.tolist()


def _neighbour_maps(components: Points, folder: Path) -> dict[str, list[list[float]]]:
    """Name -> (N, 2), drawn or as kept."""
    drawn = {"t-SNE": _tsne} | ({"UMAP": _umap} if importlib.util.find_spec("umap") else {})
    drawn = {name: draw for name, draw in drawn.items() if len(components) >= FEWEST[name]}
    packages = {"t-SNE": "scikit-learn", "UMAP": "umap-learn"}
    digest = hashlib.sha256(np.ascontiguousarray(components).round(6).tobytes()).hexdigest()
    keys = {name: stable_hash([digest, TSNE_STEPS, versions([packages[name]])], 20) for name in drawn}
    kept = _read_kept(folder / KEPT)
    pending = [name for name in drawn if keys[name] not in kept]
    if pending:
        with progress(len(pending), "report: maps", "map") as bar:
            for name in pending:
                bar.set_postfix_str(name, refresh=True)
                kept[keys[name]] = drawn[name](components).astype(np.float64).round(4).tolist()
                bar.update(1)
        write_atomic(folder / KEPT, json.dumps({key: kept[key] for key in keys.values()}))
    return {name: kept[key] for name, key in keys.items()}


def _read_kept(path: Path) -> dict[str, list[list[float]]]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}  # none yet, or not whole: drawn again


def _tsne(components: Points) -> Points:
    perplexity = min(PERPLEXITY, (len(components) - 1) / 3)
    tsne = TSNE(init="pca", perplexity=perplexity, max_iter=TSNE_STEPS, random_state=SEED)
    return np.asarray(tsne.fit_transform(components))


def _umap(components: Points) -> Points:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a seed leaves it one thread; that TensorFlow is not there
        umap = importlib.import_module("umap").UMAP(n_neighbors=N_NEIGHBORS, random_state=SEED)
        return np.asarray(umap.fit_transform(components))


def silhouettes(space: Points, clusters: NDArray[np.int64]) -> NDArray[np.float64]:
    """How much nearer each clip is to its own cluster than to the next one, -1..1.

    Args:
        space: (N, D); a row of NaN is left out.
        clusters: (N,).
    Returns:
        (N,); NaN where left out, beyond a sample of MOST_SILHOUETTES, and throughout where there are not two clusters
        or each clip is one of its own.
    Source: Rousseeuw 1987, as scikit-learn has it.
    """
    found = np.full(len(space), np.nan)
    rows = np.flatnonzero(np.isfinite(space).all(axis=1))
    if len(rows) > MOST_SILHOUETTES:
        rows = np.sort(np.random.default_rng(SEED).choice(rows, MOST_SILHOUETTES, replace=False))
    if 2 <= len(np.unique(clusters[rows])) < len(rows):
        found[rows] = silhouette_samples(space[rows], clusters[rows])
    return found


def silhouettes_by_view(
    views: Mapping[str, NDArray[np.float32]], all_views: NDArray[np.float64], clusters: NDArray[np.int64]
) -> dict[str, float]:
    """Mean silhouette of the clusters in the space of each view alone, and in that of all; those that can be had.

    Args:
        all_views: (N,) as `silhouettes` gives it for the space of all.
    """
    found = {"all": all_views}
    for name, view in views.items():
        try:
            found[name] = silhouettes(standardised(view), clusters)
        except CannotCluster:
            continue  # the same for every clip
    return {name: float(np.nanmean(values)) for name, values in found.items() if np.isfinite(values).any()}
