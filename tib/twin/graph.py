"""Who is near whom over all modalities, and what the graph of neighbours alone would call clusters.

Shapes: N clips, E dims, k neighbours, K clusters. Nothing larger than a block of BLOCK x BLOCK is ever made, so that
time and memory grow with N and not with its square.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import LinearOperator, eigsh
from sklearn.cluster import KMeans
from torch import Tensor

from tib.select import stability

BLOCK = 6000
SCALE_NEIGHBOUR = 7


@dataclass(frozen=True, slots=True)
class Graph:
    """Attributes:
    neighbours: (N, k) row numbers, nearest first; the clip itself where it has fewer.
    blocks: the clips in blocks, on the CPU; neighbours are of the same block.
    """

    neighbours: Tensor
    blocks: list[Tensor]

    @classmethod
    def of(cls, views: Sequence[Tensor], present: Tensor, generator: torch.Generator) -> Self:
        """Of all clips, which fall into random blocks of equal size where they are more than BLOCK.

        Args:
            views: (N, E_m) each; rows that are not present may hold anything.
            present: (M, N) bool.
            generator: on the CPU.
        """
        n_clips = present.shape[1]
        order = torch.randperm(n_clips, generator=generator)
        blocks = [block.sort().values for block in order.tensor_split(-(-n_clips // BLOCK))]
        k = n_neighbours(min(len(block) for block in blocks))
        neighbours = torch.empty(n_clips, k, dtype=torch.int64, device=present.device)
        for block in blocks:
            rows = block.to(present.device)
            neighbours[rows] = rows[_nearest([view[rows] for view in views], list(present[:, rows]), k)]
        return cls(neighbours, blocks)

    def partitions(self, bags: Tensor, n_clusters: int, seed: int) -> Tensor:
        """(bags, N) int64: what the graph alone calls clusters in each bag, or in a block of it; -1 elsewhere.

        k-means, one start a bag, on the row-normalised spectral coordinates.

        Args:
            bags: (bags, n) row numbers, on the CPU.
        Source: normalised cuts as of Ng, Jordan & Weiss 2001.
        """
        found = torch.full((len(bags), len(self.neighbours)), -1)
        for index, some in enumerate(self._in_blocks(bags)):
            coordinates = self._coordinates(some, n_clusters)
            found[index, some] = _k_means(coordinates, n_clusters, seed + index)
        return found

    def n_clusters_curve(self, bags: Tensor, most: int, seed: int) -> dict[int, float]:
        """K -> mean ARI between the partitions into K, cut anew in each bag: how surely K clusters come out again.

        Args:
            bags: (bags, n) row numbers, on the CPU; at least two.
            most: the largest K; no more than half a bag's clips.
        Source: clustering stability (Ben-Hur et al. 2002; Lange et al. 2004).
        """
        clips = list(self._in_blocks(bags))
        sizes = range(2, max(2, min(most, min(map(len, clips)) // 2)) + 1)
        coordinates = [self._coordinates(some, sizes[-1]) for some in clips]
        curve = {}
        for n_clusters in sizes:
            found = torch.full((len(bags), len(self.neighbours)), -1)
            for index, (some, every) in enumerate(zip(clips, coordinates, strict=True)):
                found[index, some] = _k_means(every[:, -n_clusters:], n_clusters, seed + index)
            curve[n_clusters] = stability(found.numpy())
        return curve

    def _in_blocks(self, bags: Tensor) -> Iterator[Tensor]:
        """Of each bag the clips in one block, block after block."""
        for index, bag in enumerate(bags):
            in_bag = torch.zeros(len(self.neighbours), dtype=torch.bool)
            in_bag[bag] = True
            block = self.blocks[index % len(self.blocks)]
            yield block[in_bag[block]]

    def _coordinates(self, some: Tensor, dim: int) -> NDArray[np.floating]:
        """(n, dim) leading eigenvectors of these clips' normalised graph, the first last; edges to others are cut."""
        place = torch.full((len(self.neighbours),), -1)
        place[some] = torch.arange(len(some))
        to = place[self.neighbours.cpu()[some]]  # (n, k), -1 outside
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


def _nearest(views: Sequence[Tensor], present: Sequence[Tensor], k: int) -> Tensor:
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
    near = torch.zeros(n, n, device=views[0].device)
    shared = torch.zeros(n, n, device=views[0].device)
    for view, have in zip(views, present, strict=True):
        x = torch.where(have[:, None], view, 0.0).float()
        norms = (x * x).sum(1)
        distances = torch.addmm(norms[None, :], x, x.T, alpha=-2).add_(norms[:, None]).clamp_min_(0)  # squared
        both = have[:, None] & have[None, :]
        distances.masked_fill_(~both, torch.inf).fill_diagonal_(torch.inf)
        rank = min(SCALE_NEIGHBOUR, n - 1)
        scale = distances.topk(rank, largest=False).values[:, -1].sqrt_()
        scale = torch.where(scale.isfinite(), scale, 1.0)
        distances.div_(scale[:, None].clamp_min(1e-6)).div_(scale[None, :].clamp_min(1e-6))
        near += distances.neg_().exp_()  # exp(-inf) = 0: clips that do not share the view
        shared += both
    near = torch.where(shared > 0, near / shared.clamp_min(1), -1.0).fill_diagonal_(-torch.inf)
    found = near.topk(k)
    # Clips that share no view are strangers, not neighbours: in their place the clip itself.
    return torch.where(found.values >= 0, found.indices, torch.arange(n, device=near.device)[:, None])
