"""The running joint: by hand, in the limit the full batch, and what its gradient is."""

import math

import pytest
import torch
from torch import Tensor
from twin_factory import DOUBLE, WEIGHTS, randn

from tib import TIB
from tib.losses import joint_information, normalised_joint
from tib.twin.net import Encoded
from tib.twin.objective import Joints, loss_terms
from tib.twin.train import RISE, _steadiness


def counts_of(seed: int, n_clips: int, n_clusters: int = 4) -> Tensor:
    """Of clips whose two posteriors agree somewhat."""
    logits = 2 * randn(seed, n_clips, n_clusters)
    p, q = logits.softmax(1), (logits + randn(seed + 1, n_clips, n_clusters)).softmax(1)
    return p.T @ q


def test_the_running_joint_by_hand() -> None:
    joints = Joints(0.75)
    one, two = torch.tensor([[4.0, 0.0], [0.0, 4.0]]), torch.tensor([[0.0, 2.0], [2.0, 4.0]])
    assert joints.of("fusion", one).tolist() == [[0.5, 0.0], [0.0, 0.5]]
    # 3/4 of the first and 1/4 of the second: [[3, .5], [.5, 4]] / 8
    assert joints.of("fusion", two).flatten().tolist() == pytest.approx([0.375, 0.0625, 0.0625, 0.5], abs=1e-7)
    assert joints.of("consistency", two).tolist() == [[0.0, 0.25], [0.25, 0.5]]  # each term has its own


def test_without_momentum_a_batch_is_by_itself() -> None:
    joints = Joints(0.0)
    for seed in range(3):
        counts = counts_of(seed, 20)
        assert torch.equal(joints.of("fusion", counts), normalised_joint(counts))
    assert joints.counts == {}


def test_a_batch_without_a_clip_changes_nothing() -> None:
    joints = Joints(0.5)
    before = joints.of("fusion", counts_of(0, 20))
    assert torch.allclose(joints.of("fusion", torch.zeros(4, 4, dtype=DOUBLE)), before, rtol=0, atol=1e-15)


def test_in_the_limit_the_value_is_that_of_all_clips() -> None:
    """Batches of 20 for 12 clusters have more mutual information than there is; their running joint has not."""
    every = [counts_of(seed, 20, 12) for seed in range(0, 2000, 2)]
    whole = float(joint_information(normalised_joint(torch.stack(every).sum(0))))
    alone = [float(joint_information(normalised_joint(counts))) for counts in every]
    assert sum(alone) / len(alone) > 1.2 * whole
    errors = []
    for momentum in (0.0, 0.9, 0.99):
        joints = Joints(momentum)
        values = [float(joint_information(joints.of("fusion", counts))) for counts in every]
        errors.append(abs(sum(values[-500:]) / 500 - whole))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1 * errors[0]


def test_the_gradient_goes_through_the_batch_at_the_running_joint() -> None:
    first, batch = counts_of(0, 50), counts_of(2, 20).requires_grad_()
    joints = Joints(0.9)
    joints.of("fusion", first)
    (found,) = torch.autograd.grad(joint_information(joints.of("fusion", batch)), batch)
    running = normalised_joint(0.9 * first + 0.1 * batch.detach()).requires_grad_()
    (slope,) = torch.autograd.grad(joint_information(running), running)
    (expected,) = torch.autograd.grad((normalised_joint(batch) * slope).sum(), batch)
    assert torch.allclose(found, expected, rtol=0, atol=1e-14)
    assert not joints.counts["fusion"].requires_grad


def test_both_mutual_informations_are_of_running_joints_and_nothing_else_is() -> None:
    shape = (2, 3, 2, 2, 8)
    batches = [
        Encoded(2 * randn(seed, 2, 3, 4, 2, 8), randn(seed + 1, *shape), randn(seed + 2, *shape).exp())
        for seed in (0, 10)
    ]
    joints = Joints(0.5)
    loss_terms(batches[0], WEIGHTS, None, joints)
    running, alone = loss_terms(batches[1], WEIGHTS, None, joints), loss_terms(batches[1], WEIGHTS, None)
    moved = {name for name, value in alone.items() if (running[name] - value).abs().max() > 1e-3}
    assert moved == {"consistency", "fusion"}
    assert all((running[name] >= -math.log(4) - 1e-12).all() for name in moved)


@pytest.mark.parametrize("momentum", [-0.1, 1.0, float("nan")])
def test_a_momentum_out_of_range(momentum: float) -> None:
    view = randn(0, 10, 3).numpy()
    with pytest.raises(ValueError, match="joint_momentum must be a finite number >= 0 and <= 0.999, got"):
        TIB(2, joint_momentum=momentum).fit([view, view])


def test_the_momentum_comes_in_as_the_steps_grow_small() -> None:
    found = [_steadiness(step / 100) for step in range(100)]
    assert found[: round(100 * RISE)] == [0.0] * round(100 * RISE)
    assert found == sorted(found)
    assert found[round(100 * RISE)] == 0
    assert found[-1] == pytest.approx(1, abs=0.01)


def test_training_takes_the_momentum_as_it_comes_in(monkeypatch) -> None:
    views = [randn(seed, 60, 5).numpy() for seed in (0, 1)]

    def losses(momentum: float) -> list[float]:
        model = TIB(3, restarts=1, epochs=6, batch_size=16, joint_momentum=momentum, random_state=0).fit(views)
        return [row["loss"] for row in model.history_]

    alone, running = losses(0.0), losses(0.9)
    assert running[0] == alone[0]
    assert running[-1] != alone[-1]
    monkeypatch.setattr("tib.twin.train._steadiness", lambda done: 0.0)
    assert losses(0.9) == alone
