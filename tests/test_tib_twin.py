"""The whole method's parts: projection, network, batch terms, training and model, against slow versions of each."""

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score
from torch import Tensor
from torch.nn import functional as F

from tib.twin import model as model_module
from tib.twin.model import TwinModel, restart_posteriors
from tib.twin.net import BN_EPS, SIGMA_FLOOR, Encoded, PairNorm, TwinNet
from tib.twin.objective import Weights, fuse, loss_terms, pairs_present, partition_term
from tib.twin.projection import Projection, are_principal_components, fill_gaps, present_rows
from tib.twin.train import Data, Pace, Schedule, _Anchors, _height, train

DOUBLE = torch.float64
WEIGHTS = Weights(1.0, 1.0, 0.1, 0.1, 0.1, neighbour_share=0.3, balance=0.9)
TERMS = ("consistency", "fusion", "superfluous", "divergence", "complementarity")
NO_TERMS = Weights(0.0, 0.0, 0.0, 0.0, 0.0, neighbour_share=0.3, balance=1.0)


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


# --- projection ------------------------------------------------------------------------------------------------------


def fitted(view: np.ndarray) -> Projection:
    return Projection.fitted(view, DOUBLE, seed=0)


@pytest.mark.parametrize("shape", [(50, 6), (20, 64), (10, 40), (200, 64)])
def test_distances_of_standardised_features_survive(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    view = (rng.standard_normal(shape) + rng.standard_normal((shape[0], 1))) * 10.0 ** rng.integers(-3, 4, shape[1]) + 5
    projected = fitted(view)(torch.from_numpy(view))
    assert projected.shape == (shape[0], min(shape))
    standardised = torch.from_numpy((view - view.mean(axis=0)) / view.std(axis=0))
    assert torch.allclose(torch.cdist(projected, projected), torch.cdist(standardised, standardised), atol=1e-6)
    assert projected.mean(0).abs().max() < 1e-9
    variances = projected.var(0)
    assert (variances[1:] <= variances[:-1] + 1e-9).all()  # leading directions first


def test_many_features_are_cut_to_the_leading_directions() -> None:
    rng = np.random.default_rng(0)
    view = rng.standard_normal((300, 10)) @ rng.standard_normal((10, 100)) + 0.01 * rng.standard_normal((300, 100))
    projected = fitted(view)(torch.from_numpy(view))
    assert projected.shape == (300, 64)
    standardised = torch.from_numpy((view - view.mean(axis=0)) / view.std(axis=0))
    assert torch.allclose(torch.cdist(projected, projected), torch.cdist(standardised, standardised), atol=0.1)


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e6])
def test_a_constant_feature_becomes_zero(constant: float) -> None:
    view = np.random.default_rng(0).standard_normal((30, 4))
    with_constant = np.insert(view, 2, constant, axis=1)
    projection = fitted(with_constant)
    assert projection.scale[2] == 0
    other = torch.from_numpy(with_constant)
    moved = other.clone()
    moved[:, 2] += 100.0
    assert torch.equal(projection(other), projection(moved))
    constant_view = np.full((30, 3), constant)
    assert fitted(constant_view)(torch.from_numpy(constant_view)).abs().max() == 0


def test_principal_components_keep_their_proportions() -> None:
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.standard_normal((400, 5)) - 0.0)[0]
    directions -= directions.mean(axis=0)
    components = np.linalg.svd(directions, full_matrices=False)[0] * np.array([8.0, 4.0, 2.0, 1.0, 0.5])
    sd = components.std(axis=0)
    assert are_principal_components(components / sd)
    projected = fitted(components)(torch.from_numpy(components))
    assert (projected.std(0) / projected.std(0)[0]).numpy() == pytest.approx(sd / sd[0], rel=1e-9)
    assert float(projected.var(0, correction=0).mean()) == pytest.approx(1.0, rel=1e-9)  # one scale for all
    measured = components.copy()
    measured[:, 1] += components[:, 0]
    assert not are_principal_components(measured / measured.std(axis=0))
    assert fitted(measured).scale.numpy() == pytest.approx(1 / measured.std(axis=0), rel=1e-9)
    assert not are_principal_components(components[:, :1] / sd[:1])  # of one feature nothing can be told


def test_a_missing_row_stays_missing_and_learns_nothing_new() -> None:
    view = torch.from_numpy(np.random.default_rng(0).standard_normal((10, 4)))
    projection = fitted(view.numpy())
    gappy = view.clone()
    gappy[[2, 5]] = torch.nan
    gappy[7, 1] = torch.nan
    projected = projection(gappy)
    assert present_rows(gappy).tolist() == [i not in (2, 5, 7) for i in range(10)]
    assert projected[[2, 5, 7]].isnan().all()
    assert torch.equal(projected[present_rows(gappy)], projection(view)[present_rows(gappy)])


def test_gaps_are_filled_from_the_nearest_neighbour_that_has_the_view() -> None:
    nan = float("nan")
    view = torch.tensor([[1.0, 1.5], [nan, nan], [3.0, 3.5], [nan, nan], [nan, nan]])
    neighbours = torch.tensor([[1, 2], [2, 0], [0, 1], [1, 0], [3, 1]])
    filled = fill_gaps(view, present_rows(view), neighbours)
    # 1 takes its nearest, 3 its second (the first lacks the view too), 4 has no donor
    assert filled.tolist() == [[1.0, 1.5], [3.0, 3.5], [3.0, 3.5], [1.0, 1.5], [0.0, 0.0]]
    assert view[1].isnan().all()
    whole = view[[0, 2]]
    assert fill_gaps(whole, present_rows(whole), neighbours[:2]) is whole


# --- network ---------------------------------------------------------------------------------------------------------


def net_of(dims: tuple[int, ...] = (5, 4, 3), n_clusters: int = 4, restarts: int = 3, seed: int = 0) -> TwinNet:
    net = TwinNet(dims, n_clusters, restarts, DOUBLE)
    net.initialise(torch.Generator().manual_seed(seed))
    with torch.no_grad():  # biases and norms too, that no test passes because they are 0 and 1
        for number, parameter in enumerate(net.parameters()):
            parameter += 0.1 * randn(1000 + number, *parameter.shape)
    return net


def batch_of(net: TwinNet, rows: int = 8, seed: int = 1) -> list[Tensor]:
    return [randn(seed + m, net.restarts, rows, adapter.shape[2]) for m, adapter in enumerate(net.adapters)]


def slow_forward(net: TwinNet, views: list[Tensor], noise: Tensor) -> Encoded:
    """A restart, a pair and a modality at a time, rows first, by PyTorch's own layers."""
    rows, pairs = views[0].shape[1], len(net.pairs)
    logits = torch.empty(net.restarts, pairs, net.n_clusters, 2, rows, dtype=DOUBLE)
    mus, sigmas = (torch.empty(net.restarts, pairs, noise.shape[1], 2, rows, dtype=DOUBLE) for _ in range(2))

    def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.relu(F.batch_norm(x, None, None, weight, bias, training=True, eps=BN_EPS))

    for r in range(net.restarts):
        for p, pair in enumerate(net.pairs):
            g = r * pairs + p
            for side, modality in enumerate(pair):
                x = F.linear(views[modality][r], net.adapters[modality][r])
                x = norm(F.linear(x, net.phi_1[g]), net.phi_norm_1.weight[g], net.phi_norm_1.bias[g])
                x = norm(F.linear(x, net.phi_2[g]), net.phi_norm_2.weight[g], net.phi_norm_2.bias[g])
                mu, spread = F.linear(x, net.phi_3[g], net.phi_3_bias[g, :, 0]).chunk(2, 1)
                sigma = torch.log1p(spread.exp()) + SIGMA_FLOOR
                z = mu + sigma * noise[p, :, side].T
                z = norm(F.linear(z, net.psi_1[r]), net.psi_norm_1.weight[r], net.psi_norm_1.bias[r])
                z = norm(F.linear(z, net.psi_2[r]), net.psi_norm_2.weight[r], net.psi_norm_2.bias[r])
                logits[r, p, :, side] = F.linear(z, net.clusters[r], net.clusters_bias[r, :, 0]).T
                mus[r, p, :, side], sigmas[r, p, :, side] = mu.T, sigma.T
    return Encoded(logits, mus, sigmas)


def noise_of(net: TwinNet, rows: int, seed: int = 9) -> Tensor:
    return randn(seed, len(net.pairs), net.phi_3.shape[1] // 2, 2, rows)


def assert_same(one: Encoded, other: Encoded, atol: float = 1e-11) -> None:
    for a, b in zip(one, other, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=atol)


def test_the_network_equals_the_loops() -> None:
    net = net_of()
    views, noise = batch_of(net), noise_of(net, 8)
    assert_same(net(views, noise), slow_forward(net, views, noise))
    assert_same(net(views), slow_forward(net, views, torch.zeros_like(noise)))  # without noise z is mu


def test_restarts_share_nothing() -> None:
    net = net_of()
    encoded = net(batch_of(net), noise_of(net, 8))
    torch.stack([term[0] for term in loss_terms(encoded, WEIGHTS, None).values()]).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        own, *others = parameter.grad.view(3, -1)
        assert own.abs().max() > 0, name
        assert all(torch.equal(other, torch.zeros_like(other)) for other in others), name


@pytest.mark.parametrize("chosen", [[1], [2, 0], [0, 1, 2]])
def test_take_is_a_copy_of_some_restarts(chosen: list[int]) -> None:
    net = net_of()
    views, noise = batch_of(net), noise_of(net, 8)
    net.keep_moments([view[0] for view in views])
    some = net.take(chosen)
    assert (some.restarts, some.n_clusters, some.pairs) == (len(chosen), 4, net.pairs)
    for by_batch in (True, False):
        expected = Encoded(*(value[chosen] for value in net(views, noise, by_batch=by_batch)))
        assert_same(some([view[chosen] for view in views], noise, by_batch=by_batch), expected)
    with torch.no_grad():
        some.clusters.zero_()
        some.phi_norm_1.running_mean.zero_()
    assert net.clusters.abs().min() > 0
    assert net.phi_norm_1.running_mean.abs().max() > 0


def test_each_modality_has_its_own_moments() -> None:
    """As torch.nn.BatchNorm1d on each group's and each modality's slice; a scale and shift serve several groups."""
    norm = PairNorm(own=2, groups=6, dim=3, dtype=DOUBLE)
    with torch.no_grad():
        norm.weight += randn(0, 2, 3)
        norm.bias += randn(1, 2, 3)
    x, fresh = randn(2, 6, 3, 2 * 10) * 3 + 1, randn(3, 6, 3, 2 * 10)
    passed = norm(x, by_batch=True, keep=True).view(6, 3, 2, 10)
    predicted = norm(fresh, by_batch=False, keep=False).view(6, 3, 2, 10)
    assert torch.equal(norm(x, by_batch=True, keep=False).view(6, 3, 2, 10), passed)
    for group in range(6):
        for side in range(2):
            slow = torch.nn.BatchNorm1d(3, eps=BN_EPS, momentum=1.0, dtype=DOUBLE)
            slow.load_state_dict({"weight": norm.weight[group // 3], "bias": norm.bias[group // 3]}, strict=False)
            expected = slow(x.view(6, 3, 2, 10)[group, :, side].T).T
            assert torch.allclose(passed[group, :, side], expected, rtol=0, atol=1e-12)
            expected = slow.eval()(fresh.view(6, 3, 2, 10)[group, :, side].T).T
            assert torch.allclose(predicted[group, :, side], expected, rtol=0, atol=1e-12)


def test_a_pass_changes_the_moments_only_where_asked() -> None:
    norm = PairNorm(1, 1, 3, DOUBLE)
    for options in ({"by_batch": True, "keep": False}, {"by_batch": False, "keep": False}):
        norm(randn(0, 1, 3, 8), **options)
        assert norm.running_mean.abs().max() == 0
        assert (norm.running_var == 1).all()


def test_kept_moments_reproduce_the_pass_of_the_same_clips() -> None:
    net = net_of()
    clips = [randn(m, 50, adapter.shape[2]) * 2 + 1 for m, adapter in enumerate(net.adapters)]
    net.keep_moments(clips)
    for name, values in net.named_buffers():
        if name.endswith("running_var"):
            values *= 49 / 50  # kept are the unbiased variances, a batch is normalised by its own
    repeated = [clip.expand(3, -1, -1) for clip in clips]
    by_batch, kept = net(repeated).logits, net(repeated, by_batch=False).logits
    assert torch.allclose(kept, by_batch, rtol=0, atol=1e-10)
    some = net([view[:, 3:5] for view in repeated], by_batch=False).logits
    assert torch.allclose(some, kept[..., 3:5], rtol=0, atol=1e-10)  # a clip alone, whatever else is asked


def test_the_order_of_the_views_does_not_matter() -> None:
    """Views and parameters in another order: the pairs come in another order, some turned around, and no more."""
    net, order = net_of(), [2, 0, 1]
    turned = TwinNet([net.adapters[m].shape[2] for m in order], 4, 3, DOUBLE)
    turned.load_state_dict(net.state_dict() | {f"adapters.{i}": net.adapters[m] for i, m in enumerate(order)})
    places = [net.pairs.index(tuple(sorted((order[a], order[b])))) for a, b in turned.pairs]
    with torch.no_grad():
        for name, value in turned.state_dict().items():
            if name.startswith("phi"):
                value.copy_(value.view(3, 3, *value.shape[1:])[:, places].flatten(0, 1))
    clips = [randn(m, 50, adapter.shape[2]) for m, adapter in enumerate(net.adapters)]
    present = torch.rand(3, 50, generator=torch.Generator().manual_seed(0)) < 0.7
    present[0] |= ~present.any(0)
    net.keep_moments(clips)
    turned.keep_moments([clips[m] for m in order])
    fused, alone = restart_posteriors(net, clips, present)
    fused_turned, alone_turned = restart_posteriors(turned, [clips[m] for m in order], present[order])
    assert torch.allclose(fused_turned, fused, rtol=0, atol=1e-11)
    assert torch.allclose(alone_turned, alone[:, order], rtol=0, atol=1e-11)

    views, encoded = batch_of(net), []
    for each, inputs in ((net, views), (turned, [views[m] for m in order])):
        encoded.append(loss_terms(each(inputs), WEIGHTS, None))
    for term in TERMS:
        assert torch.allclose(encoded[0][term], encoded[1][term], rtol=0, atol=1e-11), term


# --- objective -------------------------------------------------------------------------------------------------------


def encoded_of(seed: int, restarts: int = 2, pairs: int = 3, n_clusters: int = 3, half: int = 4) -> Encoded:
    shape = (restarts, pairs, 2, 2, 2 * half)
    logits = 2 * randn(seed, restarts, pairs, n_clusters, 2, 2 * half)
    return Encoded(logits, randn(seed + 1, *shape), (0.7 * randn(seed + 2, *shape)).exp())


def presence_of(seed: int, restarts: int = 2, half: int = 4) -> Tensor:
    """(R, P, 2, L) of three modalities, each row with one at least."""
    has = torch.rand(restarts, 3, 2 * half, generator=torch.Generator().manual_seed(seed)) < 0.6
    has[:, 0] |= ~has.any(1)
    return pairs_present(has.to(DOUBLE), [(0, 1), (0, 2), (1, 2)])


def entries(encoded: Encoded, restart: int, present: Tensor) -> Iterator[tuple[int, int, int]]:
    """(pair, modality, row) that count."""
    _, pairs, _, _, rows = encoded.logits.shape
    for p in range(pairs):
        for side in range(2):
            for row in range(rows):
                if present[restart, p, side, row]:
                    yield p, side, row


def softmaxed(logits: Tensor) -> list[float]:
    total = sum(math.exp(x) for x in logits.tolist())
    return [math.exp(x) / total for x in logits.tolist()]


def divergence_of(p: list[float], q: list[float]) -> float:
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))


def information_of(joint: np.ndarray, balance: float) -> float:
    """b H(C) + b H(C') - H(C, C') of soft counts, symmetrised."""
    joint = (joint + joint.T) / (2 * joint.sum())
    entropy = -sum(x * math.log(x) for x in joint.sum(axis=1))
    return 2 * balance * entropy + sum(x * math.log(x) for x in joint.ravel() if x > 0)


def gaussian_divergence(a: tuple[float, float], b: tuple[float, float]) -> float:
    return math.log(b[1] / a[1]) + (a[1] ** 2 + (a[0] - b[0]) ** 2) / (2 * b[1] ** 2) - 0.5


def slow_fused(logits: Tensor, restart: int, row: int, present: Tensor) -> Tensor:
    sides = [
        logits[restart, p, :, side, row]
        for p in range(logits.shape[1])
        for side in range(2)
        if present[restart, p, side, row]
    ]
    return sum(sides, torch.zeros(logits.shape[2], dtype=DOUBLE)) / max(1, len(sides))


def slow_consistency(encoded: Encoded, restart: int, present: Tensor, weights: Weights) -> float:
    _, pairs, n_clusters, _, rows = encoded.logits.shape
    total = 0.0
    for p in range(pairs):
        joint = np.zeros((n_clusters, n_clusters))
        for row in range(rows):
            partner = (row + rows // 2) % rows
            for other, share in ((row, 1 - weights.neighbour_share), (partner, weights.neighbour_share)):
                if present[restart, p, 0, row] and present[restart, p, 1, other]:
                    a = softmaxed(encoded.logits[restart, p, :, 0, row])
                    b = softmaxed(encoded.logits[restart, p, :, 1, other])
                    joint += share * np.outer(a, b)
        total += information_of(joint, weights.balance)
    return total / pairs


def slow_fusion(encoded: Encoded, restart: int, present: Tensor, weights: Weights) -> float:
    n_clusters, half = encoded.logits.shape[2], encoded.logits.shape[4] // 2
    joint = np.zeros((n_clusters, n_clusters))
    for row in range(half):
        a, b = (softmaxed(slow_fused(encoded.logits, restart, r, present)) for r in (row, row + half))
        joint += np.outer(a, b)
    return information_of(joint, weights.balance)


def mean_of_means(groups: dict[object, list[float]], count: int) -> float:
    """Of every pair and modality the mean over its clips; one without clips adds 0."""
    return sum(sum(values) / len(values) for values in groups.values()) / count


def slow_terms(encoded: Encoded, restart: int, present: Tensor, weights: Weights) -> dict[str, float]:
    logits, mu, sigma = (x[restart] for x in encoded)
    superfluous, added, apart = defaultdict(list), defaultdict(list), defaultdict(list)
    for p, side, row in entries(encoded, restart, present):
        has = [x for x in range(2) if present[restart, p, x, row]]
        together = softmaxed(logits[p][:, has, row].mean(1))
        gained = divergence_of(together, softmaxed(logits[p, :, side, row]))
        added[p, side].append(min(math.log(len(together)), gained))
        if row >= logits.shape[-1] // 2:
            continue  # the codes of the anchors alone
        codes = [list(zip(mu[p, :, x, row].tolist(), sigma[p, :, x, row].tolist(), strict=True)) for x in range(2)]
        superfluous[p, side].append(sum(gaussian_divergence(one, (0.0, 1.0)) for one in codes[side]))
        if side == 0 and len(has) == 2:
            both_ways = (gaussian_divergence(a, b) + gaussian_divergence(b, a) for a, b in zip(*codes, strict=True))
            apart[p].append(sum(both_ways) / 2)
    pairs = len(logits)
    return {
        "consistency": -slow_consistency(encoded, restart, present, weights),
        "fusion": -slow_fusion(encoded, restart, present, weights),
        "superfluous": mean_of_means(superfluous, 2 * pairs),
        "divergence": mean_of_means(apart, pairs),
        "complementarity": -mean_of_means(added, 2 * pairs),
    }


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("missing", [False, True])
def test_the_terms_equal_the_loops(share: float, missing: bool) -> None:
    encoded, weights = encoded_of(0), replace(WEIGHTS, neighbour_share=share)
    present = presence_of(3) if missing else torch.ones(2, 3, 2, 8, dtype=DOUBLE)
    assert not missing or 0.3 < float(present.mean()) < 0.9
    terms = loss_terms(encoded, weights, present if missing else None)
    assert tuple(terms) == TERMS
    for restart in range(2):
        for name, expected in slow_terms(encoded, restart, present, weights).items():
            assert float(terms[name][restart]) == pytest.approx(expected, abs=1e-12), name


@pytest.mark.parametrize("missing", [False, True])
def test_the_partition_term_equals_the_loops(missing: bool) -> None:
    logits = encoded_of(0).logits
    present = presence_of(3) if missing else torch.ones(2, 3, 2, 8, dtype=DOUBLE)
    partition = torch.tensor([[0, 1, 2, -1, 0, 1, -1, 2], [2, 2, -1, 1, 1, 0, 0, -1]])
    for restart in range(2):
        alone, fused = [], []
        for p, side, row in entries(encoded_of(0), restart, present):
            if partition[restart, row] >= 0:
                alone.append(-math.log(softmaxed(logits[restart, p, :, side, row])[partition[restart, row]]))
        for row in range(8):
            if partition[restart, row] >= 0:
                posterior = softmaxed(slow_fused(logits, restart, row, present))
                fused.append(-math.log(posterior[partition[restart, row]]))
        value = partition_term(logits, partition, present if missing else None)[restart]
        assert float(value) == pytest.approx(sum(alone) / len(alone) + sum(fused) / len(fused), abs=1e-13)


def sure(*clusters: int, n_clusters: int = 2) -> Tensor:
    """Logits (K, L) of rows that are sure of their cluster."""
    return 80 * F.one_hot(torch.tensor(clusters), n_clusters).to(DOUBLE).T - 40


def only(name: str, logits: Tensor, present: Tensor | None = None, share: float = 0.0) -> float:
    weights = replace(NO_TERMS, **{name: 1.0}, neighbour_share=share)
    terms = loss_terms(Encoded(logits, logits, logits.exp()), weights, present)
    assert list(terms) == [name]
    return float(terms[name])


def test_consistency_by_hand() -> None:
    # one anchor of cluster 0, its neighbour of cluster 1, both modalities agree
    logits = torch.stack([sure(0, 1), sure(0, 1)], 1)[None, None]
    assert only("consistency", logits) == pytest.approx(-math.log(2), abs=1e-12)
    assert only("consistency", logits, share=1.0) == pytest.approx(-math.log(2), abs=1e-12)  # sure of the other one
    assert only("consistency", logits, share=0.5) == pytest.approx(0, abs=1e-12)  # either is as likely
    # the second row lacks a modality: one pair of clusters is all that is seen
    present = torch.tensor([[1.0, 1.0], [1.0, 0.0]], dtype=DOUBLE)[None, None]
    assert only("consistency", logits, present) == pytest.approx(0, abs=1e-12)


def test_fusion_by_hand() -> None:
    logits = torch.stack([sure(0, 1, 0, 1), sure(0, 1, 0, 1)], 1)[None, None]
    assert only("fusion", logits) == pytest.approx(-math.log(2), abs=1e-12)
    # both neighbours in cluster 0: joint [[1, 0], [1, 0]] / 2, symmetrised [[2, 1], [1, 0]] / 4
    logits = torch.stack([sure(0, 1, 0, 0), sure(0, 1, 0, 0)], 1)[None, None]
    by_hand = 0.5 * math.log(8 / 9) + 0.5 * math.log(4 / 3)
    assert only("fusion", logits) == pytest.approx(-by_hand, abs=1e-12)
    # a modality that is missing has no say, however loud
    logits[0, 0, :, 1] = 9 * logits[0, 0, :, 1].flip(0)
    present = torch.tensor([[1.0] * 4, [0.0] * 4], dtype=DOUBLE)[None, None]
    assert only("fusion", logits, present) == pytest.approx(-by_hand, abs=1e-12)


def test_complementarity_by_hand() -> None:
    # a says 3:1, b says nothing; together sqrt(3):1
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]], dtype=DOUBLE)[None, None, :, :, None].expand(
        -1, -1, -1, -1, 2
    )
    together, a, b = [math.sqrt(3) / (math.sqrt(3) + 1), 1 / (math.sqrt(3) + 1)], [0.75, 0.25], [0.5, 0.5]
    by_hand = (divergence_of(together, a) + divergence_of(together, b)) / 2
    assert only("complementarity", logits) == pytest.approx(-by_hand, abs=1e-14)
    alone = torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=DOUBLE)[None, None]
    assert only("complementarity", logits, alone) == pytest.approx(0, abs=1e-14)  # nothing is added to nothing


def test_the_partition_term_by_hand() -> None:
    unsure = torch.zeros(1, 1, 4, 2, 2, dtype=DOUBLE)
    expected = {(0, 3): 2 * math.log(4), (-1, 3): 2 * math.log(4), (-1, -1): 0.0}
    for partition, value in expected.items():
        assert float(partition_term(unsure, torch.tensor([partition]), None)) == pytest.approx(value, abs=1e-15)
    certain = torch.stack([sure(0, 1), sure(0, 1)], 1)[None, None]
    assert float(partition_term(certain, torch.tensor([[0, 1]]), None)) == pytest.approx(0, abs=1e-15)
    assert float(partition_term(certain, torch.tensor([[1, 1]]), None)) == pytest.approx(
        80, abs=1e-12
    )  # half of 80, twice


def test_fused_logits_by_hand() -> None:
    logits = torch.tensor([[1.0, 3.0], [5.0, 8.0]], dtype=DOUBLE)[None, None, None].expand(1, 1, 2, 2, 2)
    assert fuse(logits, None)[0, 0].tolist() == [3.0, 5.5]
    present = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=DOUBLE)[None, None]
    assert fuse(logits, present)[0, 0].tolist() == [1.0, 0.0]


def test_presence_by_pair() -> None:
    has = torch.tensor([[[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]])
    expected = [[[1, 0], [1, 1]], [[1, 0], [0, 1]], [[1, 1], [0, 1]]]
    assert pairs_present(has, [(0, 1), (0, 2), (1, 2)])[0].tolist() == expected


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(2, 6),
    st.sampled_from([0.1, 5.0, 300.0]),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.booleans(),
)
def test_the_terms_keep_their_bounds(seed: int, n_clusters: int, sharpness: float, share: float, missing: bool) -> None:
    encoded = encoded_of(seed, n_clusters=n_clusters)
    encoded = encoded._replace(logits=sharpness * encoded.logits)
    present = presence_of(seed) if missing else None
    terms = loss_terms(encoded, replace(WEIGHTS, neighbour_share=share, balance=1.0), present)
    for name in ("consistency", "fusion", "complementarity"):
        assert (terms[name] <= 1e-12).all(), name
        assert (terms[name] >= -math.log(n_clusters) - 1e-12).all(), name
    for name in ("superfluous", "divergence"):
        assert (terms[name] >= 0).all(), name
    partition = torch.randint(-1, n_clusters, (2, 8), generator=torch.Generator().manual_seed(seed))
    assert (partition_term(encoded.logits, partition, present) >= 0).all()


def test_what_a_missing_row_holds_changes_neither_terms_nor_gradients() -> None:
    present, partition = presence_of(3), torch.tensor([[0, 1, 2, -1, 0, 1, 2, 2]] * 2)
    gone = (present == 0).unsqueeze(2)
    one = Encoded(*(x.requires_grad_() for x in encoded_of(0)))
    other = Encoded(*(torch.where(gone, y, x.detach()) for x, y in zip(one, encoded_of(50), strict=True)))
    terms = loss_terms(one, WEIGHTS, present) | {"partition": partition_term(one.logits, partition, present)}
    same = loss_terms(other, WEIGHTS, present) | {"partition": partition_term(other.logits, partition, present)}
    for name, value in terms.items():
        assert torch.equal(value, same[name]), name
    torch.stack(list(terms.values())).sum().backward()
    for values in one:
        assert values.grad is not None
        assert values.grad.masked_select(gone.expand_as(values)).abs().max() == 0
        assert values.grad.abs().max() > 0
    assert one.logits.grad is not None
    assert one.logits.grad.masked_select(~gone.expand_as(one.logits)).abs().min() > 0


def test_a_pair_that_no_row_has_both_of_says_nothing() -> None:
    logits = encoded_of(0, restarts=1, pairs=1).logits.requires_grad_()
    present = torch.tensor([[1.0] * 4 + [0.0] * 4, [0.0] * 4 + [1.0] * 4], dtype=DOUBLE)[None, None]
    term = loss_terms(Encoded(logits, logits, logits), replace(NO_TERMS, consistency=1.0), present)["consistency"]
    across = loss_terms(
        Encoded(logits, logits, logits), replace(NO_TERMS, consistency=1.0, neighbour_share=0.0), present
    )
    across["consistency"].backward()
    assert float(across["consistency"].detach()) == pytest.approx(0, abs=1e-12)
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0
    assert float(term.detach()) < -1e-3  # an anchor's a beside its neighbour's b still counts


@pytest.mark.parametrize("missing", [False, True])
def test_gradients_of_the_terms_equal_finite_differences(missing: bool) -> None:
    encoded = encoded_of(0, restarts=1, half=2)
    present = presence_of(1, restarts=1, half=2) if missing else None
    inputs = [encoded.logits / 4, encoded.mu, encoded.sigma]  # flatter: nothing is cut at log K
    partition = torch.tensor([[0, -1, 2, 1]])

    def terms(*values: Tensor) -> tuple[Tensor, ...]:
        of_batch = loss_terms(Encoded(*values), WEIGHTS, present)
        return (*of_batch.values(), partition_term(values[0], partition, present))

    assert torch.autograd.gradcheck(terms, [x.requires_grad_() for x in inputs])


def test_certain_posteriors_have_finite_gradients() -> None:
    logits = (300 * randn(0, 2, 3, 4, 2, 8)).requires_grad_()
    for present in (None, presence_of(0)):
        terms = loss_terms(Encoded(logits, logits, logits.detach().abs() + 1e-4), WEIGHTS, present)
        (gradient,) = torch.autograd.grad(torch.stack(list(terms.values())).sum(), logits)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", TERMS)
def test_a_weight_of_zero_leaves_its_term_out(name: str) -> None:
    terms = loss_terms(encoded_of(0), replace(WEIGHTS, **{name: 0.0}), None)
    assert tuple(terms) == tuple(term for term in TERMS if term != name)


# --- training --------------------------------------------------------------------------------------------------------


def data_of(restarts: int = 2, n_each: int = 30, missing: float = 0.0) -> tuple[Data, np.ndarray]:
    """Three blobs in two views, neighbours within a blob, a partition that is right."""
    clusters = torch.arange(3).repeat(n_each)
    generator = torch.Generator().manual_seed(0)
    views = [2 * randn(m, 3, dim)[clusters] + 0.3 * randn(9 + m, len(clusters), dim) for m, dim in enumerate((5, 4))]
    present = torch.rand(2, len(clusters), generator=generator) >= missing
    present[0] |= ~present[1]
    views = [view * have[:, None] for view, have in zip(views, present, strict=True)]
    neighbours = torch.stack([
        members[members != i][torch.randperm(n_each - 1, generator=generator)[:6]]
        for i, members in enumerate((clusters == cluster).nonzero().flatten() for cluster in clusters)
    ])  # fmt: skip
    size = round(0.9 * len(clusters))
    bags = torch.stack([torch.randperm(len(clusters), generator=generator)[:size] for _ in range(restarts)])
    partitions = torch.full((restarts, len(clusters)), -1).scatter(
        1, bags, clusters.expand(restarts, -1).gather(1, bags)
    )
    return Data(views, present, neighbours, bags, partitions), clusters.numpy()


def test_an_epoch_visits_every_clip_of_the_bag_once() -> None:
    data, _ = data_of(restarts=3)  # bags of 81
    anchors = _Anchors(data, 27, torch.Generator().manual_seed(0))
    orders = []
    for _ in range(2):
        epoch = torch.cat([anchors.draw()[:, :27] for _ in range(3)], 1)
        assert torch.equal(epoch.sort(1).values, data.bags.sort(1).values)
        orders.append(epoch)
    assert not torch.equal(*orders)


def test_the_second_half_of_a_batch_are_neighbours_in_the_bag() -> None:
    data, _ = data_of(restarts=3)
    lonely = int(data.bags[0, 0])
    data.neighbours[lonely] = torch.tensor([i for i in range(90) if i not in data.bags[0].tolist()][:6])
    anchors = _Anchors(data, 20, torch.Generator().manual_seed(0))
    seen: set[tuple[int, int]] = set()
    for _ in range(100):
        rows = anchors.draw()
        assert rows.shape == (3, 40)
        for restart, bag in enumerate(data.bags.tolist()):
            assert set(rows[restart].tolist()) <= set(bag)
            for anchor, other in zip(*rows[restart].view(2, 20).tolist(), strict=True):
                some = set(data.neighbours[anchor].tolist()) & set(bag)
                assert other in some or (other == anchor and not some)
                seen.add((restart, anchor))
                if anchor != lonely and restart == 1:
                    seen.add((anchor, -other))
    assert (0, lonely) in seen
    anchor = next(i for i in data.bags[1].tolist() if i != lonely)
    drawn = {-other for i, other in seen if i == anchor and other <= 0} - {0}
    assert len(drawn) > 1  # another neighbour each time


def run(
    weights: Weights = WEIGHTS,
    schedule: Schedule | None = None,
    *,
    data: Data | None = None,
    net: TwinNet | None = None,
    pace: Pace | None = None,
    stop: int = 10**6,
) -> tuple[dict[str, Tensor], list[tuple[int, int]], TwinNet]:
    """Train; the curves, what the callback was told, the net. `stop`: the step after which the callback says stop."""
    data = data or data_of()[0]
    net = net or net_of((5, 4), 3, 2)
    told: list[tuple[int, int]] = []

    def after(step: int, steps: int, terms: dict[str, Tensor], trained: TwinNet) -> bool:
        assert trained is net
        assert all(values.shape == (net.restarts,) and not values.requires_grad for values in terms.values())
        told.append((step, steps))
        return step >= stop

    schedule = schedule or Schedule("test", 0.0, 0.0, 0.1)
    pace = pace or Pace(20, 2, 0.01)
    curves = train(net, data, schedule, weights, pace, torch.Generator().manual_seed(0), after)
    return curves, told, net


def test_the_history_has_a_row_a_step() -> None:
    curves, told, _ = run()  # bags of 81, 20 anchors, 2 epochs
    assert told == [(step, 8) for step in range(1, 9)]
    assert set(curves) == {*TERMS, "loss"}
    assert all(values.shape == (8, 2) and values.dtype == torch.float64 for values in curves.values())
    assert all(values.isfinite().all() for values in curves.values())


def test_training_ends_where_it_is_told_to() -> None:
    curves, told, _ = run(stop=3)
    assert told == [(1, 8), (2, 8), (3, 8)]
    assert len(curves["loss"]) == 3
    assert torch.equal(curves["loss"], run()[0]["loss"][:3])


@pytest.mark.parametrize(("batch_size", "anchors"), [(20, 20), (10**6, 81), (2, 2)])
def test_a_batch_is_no_more_than_the_bag(batch_size: int, anchors: int) -> None:
    pace = Pace(batch_size, 2, 0.01)
    assert pace.anchors(3, 81) == anchors
    assert pace.steps(3, 81) == round(2 * 81 / anchors)
    assert Pace(None, None, 0.01).anchors(100, 10**6) > Pace(None, None, 0.01).anchors(3, 10**6)
    assert Pace(10**6, 1, 0.01).steps(3, 81) == 1


def test_the_warm_up_fits_the_partition_and_nothing_else() -> None:
    pace = Pace(27, 10, 0.01)  # 30 steps
    curves, _, _ = run(schedule=Schedule("free", 0.2, 0.0, 0.1), pace=pace)
    assert set(curves) == {*TERMS, "partition", "loss"}
    for name in TERMS:
        assert curves[name][:6].isnan().all(), name
        assert curves[name][6:].isfinite().all(), name
    assert torch.equal(curves["partition"][:6], curves["loss"][:6])
    assert curves["partition"][6:].isnan().all()


def test_the_loss_is_the_weighted_sum_of_the_terms() -> None:
    pace = Pace(27, 10, 0.01)
    curves, _, _ = run(schedule=Schedule("anchored", 0.2, 7.0, 0.1), pace=pace)
    rest = sum(
        (getattr(WEIGHTS, name) * curves[name] for name in TERMS if name != "superfluous"), 7 * curves["partition"]
    )
    share = (curves["loss"] - rest)[6:] / (WEIGHTS.superfluous * curves["superfluous"])[6:]
    assert torch.allclose(share[:, 0], share[:, 1], atol=1e-9)
    assert share[-1].tolist() == pytest.approx([1.0, 1.0], abs=1e-9)
    assert 0 < float(share[0, 0]) < 0.5  # the bottleneck closes slowly
    assert (share.diff(dim=0) >= -1e-9).all()


def test_the_learning_rate_rises_and_falls_to_nothing() -> None:
    heights = [_height(step / 200) for step in range(200)]
    peak = int(np.argmax(heights))
    assert 0 < peak < 40
    assert heights[:peak] == sorted(heights[:peak])
    assert heights[peak:] == sorted(heights[peak:], reverse=True)
    assert heights[peak] == pytest.approx(1, abs=0.06)
    assert 0 < heights[0] < 0.1
    assert 0 < heights[-1] < 0.001


def gradients(weights: Weights, at_step: int, partition_weight: float = 0.0) -> Tensor:
    """Of all parameters, at a step of two: the same clips and draws whatever the weights."""
    schedule, pace = Schedule("test", 0.0, partition_weight, 0.1), Pace(81, 2, 0.01)
    _, told, net = run(weights, schedule, pace=pace, stop=at_step)
    assert told[-1] == (at_step, 2)
    return torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in net.parameters()])


@pytest.mark.parametrize("name", TERMS)
def test_a_weight_switches_its_term(name: str) -> None:
    """A gradient is linear in the weight, and another without it. The bottleneck opens at the second of two steps."""
    step = 2 if name == "superfluous" else 1
    off, on, double = (gradients(replace(WEIGHTS, **{name: weight}), step) for weight in (0.0, 1.0, 2.0))
    assert (on - off).abs().max() > 1e-4
    assert torch.allclose(double - off, 2 * (on - off), rtol=0, atol=1e-10)
    curves, _, _ = run(replace(WEIGHTS, **{name: 0.0}))
    assert set(curves) == {*TERMS, "loss"} - {name}


def test_neighbours_balance_and_partition_can_be_switched_off() -> None:
    base = gradients(WEIGHTS, 1)
    for other in (replace(WEIGHTS, neighbour_share=0.0), replace(WEIGHTS, balance=1.0)):
        assert (gradients(other, 1) - base).abs().max() > 1e-4
    assert (gradients(WEIGHTS, 1, partition_weight=1.0) - base).abs().max() > 1e-4


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_training_lowers_the_loss_and_finds_planted_clusters(missing: float) -> None:
    data, clusters = data_of(missing=missing)
    curves, _, net = run(schedule=Schedule("free", 0.2, 0.0, 0.3), data=data, pace=Pace(40, 30, 0.01))
    warm = curves["partition"][:, 0].isfinite().sum()
    assert (curves["partition"][warm - 1] < 0.5 * curves["partition"][0]).all()
    assert (curves["loss"][-5:].mean(0) < curves["loss"][warm : warm + 5].mean(0)).all()
    net.keep_moments(data.views)
    fused, alone = restart_posteriors(net, data.views, data.present)
    for restart in range(2):
        assert adjusted_rand_score(clusters, fused[restart].argmax(-1)) > 0.95
        for modality, have in enumerate(data.present):
            found = alone[restart, modality].argmax(-1)
            assert adjusted_rand_score(clusters[have.numpy()], found[have]) > 0.9


def test_a_restart_that_goes_astray_takes_nobody_with_it() -> None:
    well, astray = net_of((5, 4), 3, 2), net_of((5, 4), 3, 2)
    with torch.no_grad():
        astray.psi_1[0] = torch.nan
    expected, _, _ = run(net=well)
    curves, _, _ = run(net=astray)
    assert curves["loss"][:, 0].isnan().all()
    assert torch.allclose(curves["loss"][:, 1], expected["loss"][:, 1], rtol=0, atol=1e-9)


# --- model -----------------------------------------------------------------------------------------------------------


def model_of(restarts: int = 3) -> tuple[TwinModel, dict[str, Tensor]]:
    """Of three views, a third of two of them missing, with restarts that number their clusters differently."""
    views = {name: randn(m, 30, dim) * 3 + 1 for m, (name, dim) in enumerate({"a.b": 6, "b": 5, "": 4}.items())}
    projections = {name: Projection.fitted(view.numpy(), DOUBLE, 0) for name, view in views.items()}
    net = net_of((6, 5, 4), 4, restarts)
    net.keep_moments([projections[name](view) for name, view in views.items()])
    model = TwinModel(projections, net)
    model.columns.copy_(torch.stack([torch.roll(torch.arange(4), shift) for shift in range(restarts)]))
    views["b"][::3] = torch.nan
    views[""][1::3] = torch.nan
    return model, views


def test_posteriors_equal_the_loops() -> None:
    model, views = model_of()
    fused, alone = model.posteriors(views)
    inputs = [model.projections[f"view_{m}"](view).nan_to_num() for m, view in enumerate(views.values())]
    has = torch.stack([~view.isnan().any(1) for view in views.values()])
    logits = model.net([view.expand(3, -1, -1) for view in inputs], by_batch=False).logits.detach()
    present = pairs_present(has.to(DOUBLE).expand(3, -1, -1), model.net.pairs)
    for row in range(30):
        expected = np.zeros(4)
        for restart in range(3):
            posterior = softmaxed(slow_fused(logits, restart, row, present))
            expected += [posterior[column] / 3 for column in model.columns[restart]]
        assert fused[row].numpy() == pytest.approx(expected, abs=1e-12)
        for modality, name in enumerate(views):
            if not has[modality, row]:
                assert alone[name][row].isnan().all()
                continue
            expected = np.zeros(4)
            for restart in range(3):
                sides = [logits[restart, p, :, pair.index(modality), row]
                         for p, pair in enumerate(model.net.pairs) if modality in pair]  # fmt: skip
                posterior = softmaxed(sum(sides) / 2)
                expected += [posterior[column] / 3 for column in model.columns[restart]]
            assert alone[name][row].numpy() == pytest.approx(expected, abs=1e-12)


def test_posteriors_are_distributions_and_missing_where_the_view_is() -> None:
    model, views = model_of()
    fused, alone = model.posteriors(views)
    assert fused.shape == (30, 4)
    assert list(alone) == list(views)
    assert (fused >= 0).all()
    assert fused.sum(1).tolist() == pytest.approx([1.0] * 30, abs=1e-12)
    for name, view in views.items():
        missing = view.isnan().any(1)
        assert alone[name][missing].isnan().all()
        assert alone[name][~missing].sum(1).tolist() == pytest.approx([1.0] * int((~missing).sum()), abs=1e-12)


def test_chunks_and_the_order_of_a_dict_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, views = model_of()
    fused, alone = model.posteriors(views)
    votes = model.restart_labels(views)
    monkeypatch.setattr(model_module, "CHUNK", 7)
    for given_views in (views, dict(reversed(views.items()))):
        again, again_alone = model.posteriors(given_views)
        assert torch.allclose(again, fused, rtol=0, atol=1e-12)
        for name, values in alone.items():
            assert torch.allclose(again_alone[name], values, rtol=0, atol=1e-12, equal_nan=True)
        assert torch.equal(model.restart_labels(given_views), votes)


def test_restart_labels_are_in_the_numbers_of_the_consensus() -> None:
    model, views = model_of()
    votes = model.restart_labels(views)
    assert votes.shape == (3, 30)
    for restart in range(3):
        single = TwinModel(
            {name: model.projections[f"view_{m}"] for m, name in enumerate(views)}, model.net.take([restart])
        )
        single.columns.copy_(model.columns[restart : restart + 1])
        assert torch.equal(single.restart_labels(views)[0], votes[restart])
        assert torch.equal(single.posteriors(views)[0].argmax(1), votes[restart])


def test_a_model_comes_back_from_its_description_and_state() -> None:
    model, views = model_of()
    description = json.loads(json.dumps(model.description))
    again = TwinModel.from_description(description, DOUBLE)
    assert again.description == model.description
    assert not torch.equal(again.columns, model.columns)
    again.load_state_dict(model.state_dict())
    for one, other in zip(again.posteriors(views)[1].values(), model.posteriors(views)[1].values(), strict=True):
        assert torch.equal(one.nan_to_num(), other.nan_to_num())
    assert torch.equal(again.posteriors(views)[0], model.posteriors(views)[0])
