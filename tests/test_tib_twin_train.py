"""Batches, schedule and history of the training, what switches a term off, and planted clusters found."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor
from twin_factory import TERMS, WEIGHTS, net_of, randn

from tib.twin.blocks import Block, Window
from tib.twin.model import restart_posteriors
from tib.twin.net import TwinNet
from tib.twin.objective import Weights
from tib.twin.train import Data, Pace, Schedule, _Anchors, _height, train


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
    window = Window([Block(views, present, neighbours)], restarts)
    return Data(window, bags, partitions, bool(present.all())), clusters.numpy()


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
    data.window.neighbours[lonely] = torch.tensor([i for i in range(90) if i not in data.bags[0].tolist()][:6])
    anchors = _Anchors(data, 20, torch.Generator().manual_seed(0))
    seen: set[tuple[int, int]] = set()
    for _ in range(100):
        rows = anchors.draw()
        assert rows.shape == (3, 40)
        for restart, bag in enumerate(data.bags.tolist()):
            assert set(rows[restart].tolist()) <= set(bag)
            for anchor, other in zip(*rows[restart].view(2, 20).tolist(), strict=True):
                some = set(data.window.neighbours[anchor].tolist()) & set(bag)
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


def test_the_first_step_is_of_the_height_it_starts_from() -> None:
    before, after = net_of((5, 4), 3, 2), run(stop=1)[2]
    moved = [float((a - b).detach().abs().max()) for a, b in zip(after.parameters(), before.parameters(), strict=True)]
    assert max(moved) == pytest.approx(0.01 * _height(0.0), rel=1e-3)  # Adam's first step is the learning rate


def test_noise_of_the_asked_strength_is_on_the_inputs() -> None:
    none, little, much = (run(schedule=Schedule("test", 0.0, 0.0, sd), stop=1)[0] for sd in (1e-9, 1e-7, 1.0))
    assert torch.allclose(none["loss"], little["loss"], rtol=0, atol=1e-3)
    assert (none["loss"] - much["loss"]).abs().min() > 0.01


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
    window = data.window
    net.keep_moments(window.views)
    fused, alone = restart_posteriors(net, window.views, window.present)
    for restart in range(2):
        assert adjusted_rand_score(clusters, fused[restart].argmax(-1)) > 0.95
        for modality, have in enumerate(window.present):
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
