"""Who is near whom over all modalities, and what the graph of neighbours alone would call clusters.

Shapes: n clips of a block, E dims, k neighbours, K clusters. Graphs are made of blocks of clips alone, so that time and
memory grow with the number of clips and not with its square.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import LinearOperator, eigsh
from sklearn.cluster import KMeans
from torch import Tensor

from tib.select import stability
from tib.views import row_slices

SCALE_NEIGHBOUR = 7
STRIP = 256  # rows of a block's distances at a time


def partitions(graphs: Sequence[Tensor], bags: Tensor, n_clusters: int, seed: int) -> Tensor:
    """(bags, n) int64: what a graph alone calls clusters in each bag; -1 outside the bag.

    k-means, one start a bag, on the row-normalised spectral coordinates.

    Args:
        graphs: (n, k) neighbours each, of one size; bag i is cut in graph i modulo their number.
        bags: (bags, b) places in a block, on the CPU.
    Source: normalised cuts as of Ng, Jordan & Weiss 2001.
    """
    found = torch.full((len(bags), len(graphs[0])), -1)
    for index, bag in enumerate(bags):
        coordinates = _coordinates(graphs[index % len(graphs)], bag, n_clusters)
        found[index, bag] = _k_means(coordinates, n_clusters, seed + index)
    return found


def partition_stability(found: Tensor, n_graphs: int) -> float:
    """Mean ARI between the cuts of one graph in different bags, mean over the graphs.

    Args:
        found: as `partitions` gives it; two bags a graph at least.
        n_graphs: how many graphs they were cut in.
    """
    return float(np.mean([stability(found[graph::n_graphs].numpy()) for graph in range(n_graphs)]))


def n_clusters_curve(graphs: Sequence[Tensor], bags: Tensor, most: int, seed: int) -> dict[int, float]:
    """K -> mean ARI between the partitions into K, cut anew in each bag: how surely K clusters come out again.

    Args:
        graphs, bags: as for `partitions`; two bags a graph at least.
        most: the largest K; no more than half a bag's clips.
    Source: clustering stability (Ben-Hur et al. 2002; Lange et al. 2004).
    """
    sizes = range(2, max(2, min(most, bags.shape[1] // 2)) + 1)
    coordinates = [_coordinates(graphs[index % len(graphs)], bag, sizes[-1]) for index, bag in enumerate(bags)]
    curve = {}
    for n_clusters in sizes:
        found = torch.full((len(bags), len(graphs[0])), -1)
        for index, (bag, every) in enumerate(zip(bags, coordinates, strict=True)):
            found[index, bag] = _k_means(every[:, -n_clusters:], n_clusters, seed + index)
        curve[n_clusters] = partition_stability(found, len(graphs))
    return curve


def _coordinates(neighbours: Tensor, some: Tensor, dim: int) -> NDArray[np.floating]:
    """(n, dim) leading eigenvectors of these clips' normalised graph, the first last; edges to others are cut."""
    place = torch.full((len(neighbours),), -1)
    place[some] = torch.arange(len(some))
    to = place[neighbours.cpu()[some]]  # (n, k), -1 outside
    rows, slots = ((to >= 0) & (to != torch.arange(len(some))[:, None])).nonzero(as_tuple=True)
    edges = np.ones(len(rows))
    graph = csr_matrix((edges, (rows.numpy(), to[rows, slots].numpy())), shape=(len(some), len(some)))
    graph = (graph + graph.T) / 2
    degrees = np.asarray(graph.sum(axis=1)).ravel()
    roots = diags_array(np.where(degrees > 0, 1.0 / np.sqrt(np.maximum(degrees, 1e-12)), 0.0))
    normalised = roots @ graph @ roots
    if 2 * dim >= len(some):  # Lanczos wants room
        return np.linalg.eigh(normalised.toarray())[1][:, -dim:]
    known = _parts(graph, degrees)[:, -dim:]
    if known.shape[1] == dim:
        return known
    # One start vector leads Lanczos to one eigenvector of an eigenvalue, and every part of the graph has 1: these
    # are known, and taken out of its way.
    rest = LinearOperator(graph.shape, lambda x: normalised @ x - known @ (known.T @ x), dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(len(some))
    values, vectors = eigsh(rest, k=dim - known.shape[1], which="LA", v0=start, tol=1e-5)
    return np.hstack([vectors[:, np.argsort(values)], known])


def n_neighbours(n_clips: int) -> int:
    """k = √N / 2, at least 8: grows, as a consistent neighbour graph must, yet stays a vanishing share of the clips."""
    return max(1, min(max(8, round(n_clips**0.5 / 2)), n_clips - 1))


def _parts(graph: csr_matrix, degrees: NDArray[np.floating]) -> NDArray[np.floating]:
    """(n, parts) the eigenvectors to the eigenvalue 1 of a graph in parts, the largest part's last; (n, 0) of one part.

    Clips without an edge are no part.
    """
    part = connected_components(graph, directed=False)[1]
    order = np.argsort(np.bincount(part), kind="stable")
    vectors = np.sqrt(degrees)[:, None] * (part[:, None] == order[None, :])
    lengths = np.linalg.norm(vectors, axis=0)
    vectors = vectors[:, lengths > 0] / lengths[lengths > 0]
    return vectors if vectors.shape[1] > 1 else vectors[:, :0]


def _k_means(coordinates: NDArray[np.floating], n_clusters: int, seed: int) -> Tensor:
    """(n,) clusters of the coordinates, each scaled to length 1."""
    points = coordinates / np.maximum(np.linalg.norm(coordinates, axis=1, keepdims=True), 1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct points than clusters: some stay empty
        clusters = KMeans(min(n_clusters, len(points)), n_init=1, random_state=seed % 2**32).fit_predict(points)
    return torch.from_numpy(clusters.astype(np.int64))


def nearest(views: Sequence[Tensor], present: Sequence[Tensor], k: int) -> Tensor:
    """The k nearest of n clips by all views at once, (n, k) row numbers, nearest first.

    Nearness is the mean, over the views that both clips have, of exp(-d² / s_i s_j), s being the distance to the 7th
    neighbour: no unit, no bandwidth, and an outlier has neighbours too.

    Args:
        views: (n, E_m) each; rows that are not present may hold anything.
        present: (n,) bool each.
        k: < n.
    Source: self-tuning spectral clustering (Zelnik-Manor & Perona 2004), eq. 2; averaged over views.
    """
    n = len(present[0])
    rank = min(SCALE_NEIGHBOUR, n - 1)
    sides = []
    for view, have in zip(views, present, strict=True):
        x = torch.where(have[:, None], view, 0.0).float()
        side = _Side(x, (x * x).sum(1), have, bool(have.all()))
        scales = [side.distances(rows).topk(rank, largest=False).values[:, -1] for rows in row_slices(n, STRIP)]
        scale = torch.cat(scales).sqrt_()
        sides.append((side, torch.where(scale.isfinite(), scale, 1.0).clamp_min(1e-6)))
    return torch.cat([_strip_nearest(sides, rows, k) for rows in row_slices(n, STRIP)])


@dataclass(frozen=True, slots=True)
class _Side:
    """A view of n clips, and between which of them there are distances.

    Attributes:
        x, norms, have: (n, E), (n,) squared lengths, (n,) which have the view.
        complete: whether all have.
    """

    x: Tensor
    norms: Tensor
    have: Tensor
    complete: bool

    def distances(self, rows: slice) -> Tensor:
        """(rows, n) squared; infinite to itself, and where one of both lacks the view."""
        found = torch.addmm(self.norms[None, :], self.x[rows], self.x.T, alpha=-2)
        found.add_(self.norms[rows, None]).clamp_min_(0)
        if not self.complete:
            found.masked_fill_(~(self.have[rows, None] & self.have[None, :]), torch.inf)
        found.diagonal(rows.start).fill_(torch.inf)
        return found


def _strip_nearest(sides: Sequence[tuple[_Side, Tensor]], rows: slice, k: int) -> Tensor:
    """(rows, k), of a strip of rows: few enough that what is done to their distances stays in the processor's cache."""
    near = shared = torch.zeros(rows.stop - rows.start, len(sides[0][1]), device=sides[0][1].device)
    for side, scale in sides:
        distances = side.distances(rows).div_(scale[rows, None]).div_(scale[None, :])
        near = near + distances.neg_().exp_()  # exp(-inf) = 0: clips that do not share the view
        shared = shared + (side.have[rows, None] & side.have[None, :] if not side.complete else 1.0)
    near = torch.where(shared > 0, near / shared.clamp_min(1), -1.0)
    near.diagonal(rows.start).fill_(-torch.inf)
    found = near.topk(k)
    # Clips that share no view are strangers, not neighbours: in their place the clip itself.
    own = torch.arange(rows.start, rows.stop, device=near.device)[:, None]
    return torch.where(found.values >= 0, found.indices, own)
