"""The whole method's projection, network and model, against slow versions of each."""

import json
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from twin_factory import DOUBLE, TERMS, WEIGHTS, net_of, randn, slow_fused, softmaxed

from tib.standardise import are_principal_components, standardisation
from tib.twin import model as model_module
from tib.twin.model import TwinModel, restart_posteriors
from tib.twin.net import BN_EPS, SIGMA_FLOOR, Encoded, PairNorm, TwinNet
from tib.twin.objective import loss_terms, pairs_present
from tib.twin.projection import Projection, fill_gaps, present_rows


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
    directions = rng.standard_normal((400, 8))
    directions -= directions.mean(axis=0)
    components = np.linalg.svd(directions, full_matrices=False)[0] * np.array([8.0, 4.0, 2.0, 1.0, 0.5, 0.4, 0.3, 0.2])
    sd = components.std(axis=0)
    assert are_principal_components(components)
    projected = fitted(components)(torch.from_numpy(components))
    assert (projected.std(0) / projected.std(0)[0]).numpy() == pytest.approx(sd / sd[0], rel=1e-9)
    assert float(projected.var(0, correction=0).mean()) == pytest.approx(1.0, rel=1e-9)  # one scale for all
    measured = components.copy()
    measured[:, 1] += components[:, 0]
    assert not are_principal_components(measured)
    assert fitted(measured).scale.numpy() == pytest.approx(1 / measured.std(axis=0), rel=1e-9)
    assert not are_principal_components(components[:, ::-1])  # uncorrelated, and in rising order
    assert not are_principal_components(components[:, :7])  # so few may be uncorrelated by chance


@pytest.mark.parametrize("dim", [2, 7, 12])
def test_independent_features_of_many_clips_are_standardised(dim: int) -> None:
    units = np.random.default_rng(dim).permutation(10.0 ** np.arange(dim) / 100)
    view = np.random.default_rng(0).standard_normal((60_000, dim)) * units
    assert standardisation(view)[1] == pytest.approx(1 / view.std(axis=0), rel=1e-9)


def test_a_value_out_of_this_world_does_not_overflow() -> None:
    view = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    far = torch.full((1, 4), 3e38)
    assert bool(fitted(view)(far.to(fitted(view).mean.dtype)).isfinite().all())


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
        norm.weight.add_(randn(0, 2, 3))
        norm.bias.add_(randn(1, 2, 3))
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
    places = [net.pairs.index((min(order[a], order[b]), max(order[a], order[b]))) for a, b in turned.pairs]
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
    votes = model.said(views)[2]
    monkeypatch.setattr(model_module, "CHUNK", 7)
    for given_views in (views, dict(reversed(views.items()))):
        again, again_alone = model.posteriors(given_views)
        assert torch.allclose(again, fused, rtol=0, atol=1e-12)
        for name, values in alone.items():
            assert torch.allclose(again_alone[name], values, rtol=0, atol=1e-12, equal_nan=True)
        assert torch.equal(model.said(given_views)[2], votes)


def test_restart_labels_are_in_the_numbers_of_the_consensus() -> None:
    model, views = model_of()
    votes = model.said(views)[2]
    assert votes.shape == (3, 30)
    for restart in range(3):
        single = TwinModel(
            {name: cast(Projection, model.projections[f"view_{m}"]) for m, name in enumerate(views)},
            model.net.take([restart]),
        )
        single.columns.copy_(model.columns[restart : restart + 1])
        assert torch.equal(single.said(views)[2][0], votes[restart])
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
