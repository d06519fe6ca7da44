"""The graph of neighbours against double loops, and what it alone calls clusters against planted ones."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from tib.twin import graph as graph_module
from tib.twin.graph import n_clusters_curve, n_neighbours, nearest, partition_stability, partitions


def graph_of(views: list[Tensor], present: Tensor | None = None) -> Tensor:
    if present is None:
        present = torch.ones(len(views), len(views[0]), dtype=torch.bool)
    return nearest(views, list(present), n_neighbours(len(views[0])))


def planted(n_clusters: int, n_each: int, apart: float, seed: int = 0) -> tuple[Tensor, NDArray[np.int64]]:
    """(N, 10) blobs of sd 1 in a random order, and which is whose."""
    rng = np.random.default_rng(seed)
    clusters = rng.permutation(np.repeat(np.arange(n_clusters), n_each))
    centres = np.eye(n_clusters, max(10, n_clusters)) * apart
    return torch.from_numpy(
        centres[clusters] + rng.standard_normal((len(clusters), centres.shape[1]))
    ).float(), clusters


def bags_of(n_clips: int, count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    size = round(0.9 * n_clips)
    return torch.stack([torch.randperm(n_clips, generator=generator)[:size].sort().values for _ in range(count)])


def slow_nearness(views: list[Tensor], present: Tensor) -> NDArray[np.float64]:
    """Loops over pairs of clips; the 7th neighbour's distance is the unit, 1 where fewer share the view."""
    n = len(views[0])
    nearness = np.full((n, n), -1.0)
    shared, total = np.zeros((n, n)), np.zeros((n, n))
    for view, have in zip(views, present, strict=True):
        rows = [i for i in range(n) if have[i]]
        distance = {(i, j): math.dist(view[i].tolist(), view[j].tolist()) for i in rows for j in rows if i != j}
        seventh = {}
        for i in rows:
            others = sorted(distance[i, j] for j in rows if j != i)
            rank = min(7, n - 1)
            seventh[i] = others[rank - 1] if len(others) >= rank else 1.0
        for (i, j), apart in distance.items():
            total[i, j] += math.exp(-(apart**2) / (seventh[i] * seventh[j]))
            shared[i, j] += 1
    for i in range(n):
        for j in range(n):
            if shared[i, j]:
                nearness[i, j] = total[i, j] / shared[i, j]
    return nearness


def random_views(n_clips: int, *dims: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(n_clips, dim, generator=generator) for dim in dims]


@pytest.mark.parametrize("missing", [0.0, 0.3, 0.5, 0.8])
def test_neighbours_equal_the_double_loop(missing: float) -> None:
    views = random_views(20, 2, 3)
    gone = torch.rand(2, 20, generator=torch.Generator().manual_seed(1)) < missing
    gone[1] &= ~gone[0]
    for view, rows in zip(views, gone, strict=True):
        view[rows] = torch.nan
    nearness = slow_nearness(views, ~gone)
    np.fill_diagonal(nearness, -np.inf)
    neighbours = graph_of(views, ~gone)
    assert neighbours.shape == (20, 8)
    found = np.take_along_axis(nearness, neighbours.numpy(), axis=1)
    expected = -np.sort(-nearness, axis=1)[:, :8]
    expected[expected < 0] = -np.inf  # strangers: the clip itself instead
    assert found == pytest.approx(expected, abs=1e-5)  # nearest first; float32 inside
    for clip, row in enumerate(neighbours.tolist()):
        others = [other for other in row if other != clip]
        assert len(set(others)) == len(others) == int(np.isfinite(expected[clip]).sum())


def test_nearness_is_relative_to_both_clips_surroundings() -> None:
    # Scales (the farthest of three others) 3, 2.05, 4.05, 4.05. From the first clip: 1/2.05, 1.1025/4.05, 9/4.05,
    # all over 3: the second neighbour in distance is the first, as its surroundings are sparser.
    assert graph_of([torch.tensor([[0.0], [-1.0], [1.05], [-3.0]])])[0].tolist() == [2, 1, 3]


def test_what_a_missing_row_holds_does_not_matter() -> None:
    views = random_views(30, 4, 4)
    present = torch.ones(2, 30, dtype=torch.bool)
    present[0, ::3] = False
    expected = graph_of(views, present)
    for filling in (torch.nan, 1e9, 0.0):
        views[0][::3] = filling
        assert torch.equal(graph_of(views, present), expected)


def test_clips_that_share_no_view_are_no_neighbours() -> None:
    views = random_views(24, 3, 3)
    present = torch.zeros(2, 24, dtype=torch.bool)
    present[0, :8], present[1, 8:] = True, True
    neighbours = graph_of(views, present)
    assert (neighbours[:8, :7] < 8).all()
    assert neighbours[:8, 7].tolist() == list(range(8))  # seven others have the first view; then the clip itself
    assert (neighbours[8:] >= 8).all()


def test_a_constant_view_changes_nothing_and_units_do_not_count() -> None:
    first, second = random_views(40, 5, 6)
    expected = graph_of([first, second])
    assert torch.equal(graph_of([first, torch.zeros(40, 3), second]), expected)
    assert torch.equal(graph_of([first, 1024 * second]), expected)
    assert torch.equal(graph_of([second, first]), expected)


def test_the_neighbours_of_copies_are_copies() -> None:
    which = torch.arange(12).repeat_interleave(11)
    neighbours = graph_of([view[which] for view in random_views(12, 3, 64)])
    assert (which[neighbours] == which[:, None]).all()


@pytest.mark.parametrize(
    ("n_clips", "expected"), [(1, 1), (2, 1), (5, 4), (9, 8), (100, 8), (256, 8), (400, 10), (10_000, 50)]
)
def test_the_number_of_neighbours(n_clips: int, expected: int) -> None:
    assert n_neighbours(n_clips) == expected


def test_bags_are_cut_in_the_graphs_in_turn_and_compared_within_one() -> None:
    views, clusters = planted(3, 40, 30.0)
    order = np.random.default_rng(0).permutation(120)
    truths = [clusters, clusters[order]]
    graphs, bags = [graph_of([views]), graph_of([views[order]])], bags_of(120, 5)
    found = partitions(graphs, bags, 3, seed=0)
    for number, (bag, partition) in enumerate(zip(bags, found, strict=True)):
        assert (partition >= 0).nonzero().flatten().tolist() == bag.tolist()
        assert adjusted_rand_score(truths[number % 2][bag], partition[bag].numpy()) == 1
    assert partition_stability(found, 2) == 1
    assert partition_stability(found, 1) < 0.7  # the same places are other clips in another block
    assert n_clusters_curve(graphs, bags, 4, seed=0)[3] == 1


@pytest.mark.parametrize(("n_clusters", "apart"), [(2, 6.0), (5, 7.0), (3, 50.0), (12, 50.0)])
def test_partitions_recover_planted_clusters(n_clusters: int, apart: float) -> None:
    """Those far apart make a graph of separate parts: the eigenvalue 1 as often as there are clusters."""
    views, clusters = planted(n_clusters, 40, apart)
    bags = bags_of(len(clusters), 4)
    found = partitions([graph_of([views, views.flip(1)])], bags, n_clusters, seed=0)
    for bag, partition in zip(bags, found, strict=True):
        outside = torch.ones(len(clusters), dtype=torch.bool)
        outside[bag] = False
        assert (partition[outside] == -1).all()
        assert adjusted_rand_score(clusters[bag.numpy()], partition[bag].numpy()) > 0.97


def slow_normalised(graph: Tensor) -> NDArray[np.float64]:
    """D^-1/2 (A + Aᵀ)/2 D^-1/2, an edge at a time."""
    n = len(graph)
    weights = np.zeros((n, n))
    for i in range(n):
        for j in graph[i].tolist():
            weights[i, j] += 0.5
            weights[j, i] += 0.5
    degrees = weights.sum(axis=1)
    return np.array([[weights[i, j] / math.sqrt(degrees[i] * degrees[j]) for j in range(n)] for i in range(n)])


@pytest.mark.parametrize(
    ("n_clusters", "dim"),
    [(1, 4), (1, 60), (4, 2), (4, 4), (4, 6)],
    ids=["connected", "dense", "fewer than the parts", "the parts", "more than the parts"],
)
def test_coordinates_are_the_leading_eigenvectors(n_clusters: int, dim: int) -> None:
    views, _ = planted(n_clusters, 100 // n_clusters, 50.0)
    graph = graph_of([views])
    normalised = slow_normalised(graph)
    coordinates = graph_module._coordinates(graph, torch.arange(len(views)), dim)
    assert coordinates.shape == (len(views), dim)
    assert coordinates.T @ coordinates == pytest.approx(np.eye(dim), abs=1e-4)
    values = np.linalg.eigvalsh(normalised)[-dim:]
    assert np.einsum("nd,nm,md->d", coordinates, normalised, coordinates) == pytest.approx(values, abs=1e-4)
    assert normalised @ coordinates == pytest.approx(coordinates * values, abs=1e-2)


def test_of_many_parts_the_largest_count() -> None:
    sizes = (20, 60, 12)
    centres = torch.repeat_interleave(50 * torch.arange(3.0), torch.tensor(sizes))[:, None]
    graph = graph_of([centres + torch.randn(92, 3, generator=torch.Generator().manual_seed(0))])
    coordinates = graph_module._coordinates(graph, torch.arange(92), 2)
    assert np.flatnonzero(coordinates[:, 1]).tolist() == list(range(20, 80))
    assert np.flatnonzero(coordinates[:, 0]).tolist() == list(range(20))


def test_clusters_are_directions_of_the_coordinates() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(3), 50)
    coordinates = np.eye(3)[clusters] * rng.uniform(0.01, 1.0, (150, 1)) ** 2
    assert adjusted_rand_score(clusters, graph_module._k_means(coordinates, 3, 0).numpy()) == 1


def test_clips_without_an_edge_are_no_part_and_harm_nobody() -> None:
    ring = torch.stack([torch.arange(1, 31) % 30, torch.arange(2, 32) % 30], 1)
    graph = torch.cat([ring, ring + 30, torch.tensor([[60, 60], [61, 61], [60, 60]])])
    some = torch.cat([torch.arange(60), torch.tensor([62])])  # the last one's neighbours are all outside
    coordinates = graph_module._coordinates(graph, some, 2)
    assert np.abs(coordinates[-1]).max() == 0
    assert np.linalg.norm(graph_module._coordinates(graph, some, 3), axis=0) == pytest.approx(np.ones(3), abs=1e-9)
    partition = partitions([graph], some[None], 2, seed=0)[0]
    assert adjusted_rand_score(np.repeat([0, 1], 30), partition[:60].numpy()) == 1


def test_as_many_clusters_as_clips_or_more() -> None:
    graph = graph_of(random_views(10, 3))
    found = partitions([graph], bags_of(10, 2), 10, seed=0)
    assert ((found >= 0).sum(1) == 9).all()
    assert found.max() < 10


@pytest.mark.parametrize(("n_clusters", "apart"), [(2, 8.0), (4, 8.0), (3, 50.0), (6, 50.0)])
def test_the_curve_peaks_at_the_planted_number(n_clusters: int, apart: float) -> None:
    views, _ = planted(n_clusters, 30, apart)
    curve = n_clusters_curve([graph_of([views])], bags_of(len(views), 6), 9, seed=0)
    assert list(curve) == list(range(2, 10))
    assert max(curve, key=lambda k: curve[k]) == n_clusters
    assert curve[n_clusters] > 0.99
    assert all(value < 0.97 for k, value in curve.items() if k != n_clusters)


@pytest.mark.parametrize(("n_clips", "tried"), [(2, [2]), (5, [2]), (9, [2, 3, 4]), (200, [2, 3, 4, 5])])
def test_the_curve_tries_no_more_than_half_a_bag(n_clips: int, tried: list[int]) -> None:
    curve = n_clusters_curve([graph_of(random_views(n_clips, 3))], bags_of(n_clips, 3), 5, seed=0)
    assert list(curve) == tried


def test_partitions_depend_on_the_seed_alone() -> None:
    graphs, bags = [graph_of(random_views(60, 3))], bags_of(60, 3)
    assert torch.equal(partitions(graphs, bags, 4, seed=1), partitions(graphs, bags, 4, seed=1))
    assert not torch.equal(partitions(graphs, bags, 4, seed=1), partitions(graphs, bags, 4, seed=2))
