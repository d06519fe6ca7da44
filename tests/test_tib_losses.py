"""The terms against hand-computed values, double loops, their bounds and the published demo's number."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tib.losses import (
    joint_distribution,
    mutual_information,
    sampled_superfluous_information,
    summed_joint_distribution,
)

GOLDEN = Path(__file__).parents[2] / "shared" / "golden" / "tib_reference.npz"


def random_posteriors(seed: int, *shape: int, sharpness: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.softmax(sharpness * torch.randn(*shape, generator=generator, dtype=torch.float64), -1)


def slow_mutual_information(p: Tensor, q: Tensor) -> float:
    """Loops over clips and clusters, with the demo's floor."""
    n_clips, n_clusters = p.shape
    joint = np.zeros((n_clusters, n_clusters))
    for n in range(n_clips):
        for i in range(n_clusters):
            for j in range(n_clusters):
                joint[i, j] += float(p[n, i] * q[n, j] + p[n, j] * q[n, i]) / (2 * n_clips)
    joint /= joint.sum()
    floor = sys.float_info.epsilon
    total = 0.0
    for i in range(n_clusters):
        for j in range(n_clusters):
            p_ij, p_i, p_j = (max(x, floor) for x in (joint[i, j], joint[i].sum(), joint[:, j].sum()))
            total += p_ij * (math.log(p_ij) - math.log(p_i) - math.log(p_j))
    return total


def test_mutual_information_equals_the_loops_for_one_and_for_many_restarts() -> None:
    p, q = random_posteriors(0, 3, 20, 4, sharpness=3), random_posteriors(1, 3, 20, 4, sharpness=3)
    expected = [slow_mutual_information(a, b) for a, b in zip(p, q, strict=True)]
    assert mutual_information(p, q).tolist() == pytest.approx(expected, abs=1e-14)
    assert float(mutual_information(p[1], q[1])) == pytest.approx(expected[1], abs=1e-14)


def test_mutual_information_by_hand() -> None:
    p = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]], dtype=torch.float64)
    q = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1]], dtype=torch.float64)
    # joint [[2, 0], [1, 1]] / 4, symmetrised [[4, 1], [1, 2]] / 8, marginals 5/8 and 3/8
    assert joint_distribution(p, q).tolist() == [[0.5, 0.125], [0.125, 0.25]]
    by_hand = 4 / 8 * math.log(32 / 25) + 2 / 8 * math.log(8 / 15) + 2 / 8 * math.log(16 / 9)
    assert float(mutual_information(p, q)) == pytest.approx(by_hand, abs=1e-15)


@pytest.mark.parametrize("n_clusters", [2, 3, 7])
def test_one_hot_equal_clusters_give_log_k_and_independent_views_give_zero(n_clusters: int) -> None:
    one_hot = torch.eye(n_clusters, dtype=torch.float64).repeat(4, 1)
    uniform = torch.full_like(one_hot, 1 / n_clusters)
    # the floor alone costs K (K - 1) EPS |log EPS|, 3e-13 at K = 7
    assert float(mutual_information(one_hot, one_hot)) == pytest.approx(math.log(n_clusters), abs=1e-12)
    assert float(mutual_information(one_hot, uniform)) == pytest.approx(0, abs=1e-13)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(2, 9), st.sampled_from([0.01, 1.0, 30.0, 1e4]))
def test_mutual_information_is_symmetric_and_between_zero_and_log_k(
    seed: int, n_clips: int, n_clusters: int, sharpness: float
) -> None:
    p = random_posteriors(seed, n_clips, n_clusters, sharpness=sharpness)
    q = random_posteriors(seed + 1, n_clips, n_clusters, sharpness=sharpness)
    value = float(mutual_information(p, q))
    assert -1e-12 <= value <= math.log(n_clusters) + 1e-12
    assert float(mutual_information(q, p)) == pytest.approx(value, abs=1e-13)


def test_gradient_equals_finite_differences() -> None:
    logits = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fixed = random_posteriors(5, 2, 6, 3)
    assert torch.autograd.gradcheck(lambda x: mutual_information(torch.softmax(x, -1), fixed), logits.requires_grad_())


def test_no_tensor_of_clips_by_clusters_by_clusters_is_made() -> None:
    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            self.numel = max(self.numel, out.numel())
            return out

    p = random_posteriors(0, 500, 20).requires_grad_()
    with Largest() as largest:
        mutual_information(p, random_posteriors(1, 500, 20)).backward()
    assert 0 < largest.numel <= 500 * 20


@pytest.mark.parametrize(
    ("p_shape", "q_shape"), [((5, 3), (5, 4)), ((5, 3), (6, 3)), ((3,), (3,)), ((1, 1, 5, 3),) * 2]
)
def test_mutual_information_refuses_other_shapes(p_shape: tuple[int, ...], q_shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"needs two posteriors of one shape, \(N, K\) or \(R, N, K\)"):
        mutual_information(torch.ones(p_shape), torch.ones(q_shape))


@pytest.mark.shared_data
@pytest.mark.skipif(not GOLDEN.exists(), reason=f"{GOLDEN} is not beside the checkout")
def test_mutual_information_is_minus_the_demo_number() -> None:
    with np.load(GOLDEN) as golden:
        p, q = torch.from_numpy(golden["mi_p"]), torch.from_numpy(golden["mi_q"])
        assert -float(mutual_information(p, q)) == pytest.approx(float(golden["mi_value"]), abs=1e-12)


def test_sampled_superfluous_information_equals_the_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    z, prior = torch.randn(2, 2, 4, 3, generator=generator, dtype=torch.float64)
    expected = []
    for restart in range(2):
        total = 0.0
        for n in range(4):
            for d in range(3):
                s = math.exp(prior[restart, n, d]) / sum(math.exp(x) for x in prior[restart, n])
                t = math.exp(z[restart, n, d]) / sum(math.exp(x) for x in z[restart, n])
                total += s * (math.log(s) - math.log(t))
        expected.append(total / (4 * 3))
    assert sampled_superfluous_information(z, prior).tolist() == pytest.approx(expected, abs=1e-15)


def test_sampled_superfluous_information_by_hand() -> None:
    # softmax (1/2, 1/2) against (3/4, 1/4): 1/2 log(2/3) + 1/2 log 2, over two dimensions
    z, prior = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
    assert float(sampled_superfluous_information(z, prior)) == pytest.approx(0.25 * math.log(4 / 3), abs=1e-15)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 8), st.sampled_from([1e-3, 1.0, 1e3]))
def test_sampled_superfluous_information_is_not_negative_and_zero_on_itself(
    seed: int, n_clips: int, dim: int, scale: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    z, prior = scale * torch.randn(2, n_clips, dim, generator=generator, dtype=torch.float64)
    assert float(sampled_superfluous_information(z, prior)) >= -1e-12
    assert float(sampled_superfluous_information(z, z)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("z_shape", "prior_shape"), [((4, 3), (4, 2)), ((3,), (3,))])
def test_sampled_superfluous_information_refuses_other_shapes(
    z_shape: tuple[int, ...], prior_shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"need one shape \(\.\.\., N, D\)"):
        sampled_superfluous_information(torch.ones(z_shape), torch.ones(prior_shape))


def test_the_summed_joint_is_the_product() -> None:
    p, q = (torch.rand(2, 40, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
    summed, product = summed_joint_distribution(p, q), joint_distribution(p, q)
    assert summed.numpy() == pytest.approx(product.numpy(), abs=1e-15)
    assert torch.allclose(mutual_information(p, q, summed_joint_distribution), mutual_information(p, q), atol=1e-14)
