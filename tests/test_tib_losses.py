"""The terms against hand-computed values, double loops, their bounds and the published demo's number."""

import math
import re
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
    complementarity,
    joint_distribution,
    joint_information,
    mutual_information,
    normalised_joint,
    sampled_superfluous_information,
    summed_joint_distribution,
    superfluous_information,
    symmetric_divergence,
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


def random_gaussians(seed: int, *shape: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """mu and sigma > 0."""
    generator = torch.Generator().manual_seed(seed)
    mu, spread = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return scale * mu, (0.7 * spread).exp()


def slow_gaussian_divergence(mu_a: float, sigma_a: float, mu_b: float, sigma_b: float) -> float:
    """KL(a || b) of two normal distributions, as in the textbooks."""
    return math.log(sigma_b / sigma_a) + (sigma_a**2 + (mu_a - mu_b) ** 2) / (2 * sigma_b**2) - 0.5


def slow_information(joint: Tensor, balance: float = 1.0) -> float:
    """b H(rows) + b H(columns) - H(both), an entropy at a time."""
    n_clusters = len(joint)
    rows, columns, both = 0.0, 0.0, 0.0
    for i in range(n_clusters):
        p_row, p_column = float(joint[i].sum()), float(joint[:, i].sum())
        rows -= p_row * math.log(p_row)
        columns -= p_column * math.log(p_column)
        for j in range(n_clusters):
            both -= float(joint[i, j]) * math.log(float(joint[i, j]))
    return balance * (rows + columns) - both


def test_normalised_joint_by_hand() -> None:
    counts = torch.tensor([[2.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    assert normalised_joint(counts).tolist() == [[0.5, 0.125], [0.125, 0.25]]
    assert normalised_joint(torch.stack([counts, 10 * counts]))[1].tolist() == [[0.5, 0.125], [0.125, 0.25]]


def test_no_counts_say_nothing_and_move_nothing() -> None:
    counts = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    value = joint_information(normalised_joint(counts))
    value.backward()
    assert float(value.detach()) == pytest.approx(0, abs=1e-12)
    assert counts.grad is not None
    assert torch.equal(counts.grad, torch.zeros(3, 3, dtype=torch.float64))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 8), st.sampled_from([1e-6, 1.0, 1e6]))
def test_a_normalised_joint_is_symmetric_and_sums_to_one(seed: int, n_clusters: int, scale: float) -> None:
    counts = scale * torch.rand(2, n_clusters, n_clusters, generator=torch.Generator().manual_seed(seed)).double()
    joint = normalised_joint(counts)
    assert torch.equal(joint, joint.transpose(-1, -2))
    assert joint.sum((-1, -2)).tolist() == pytest.approx([1.0, 1.0], abs=1e-14)


@pytest.mark.parametrize("balance", [0.0, 0.7, 1.0, 2.0])
def test_joint_information_equals_the_loops(balance: float) -> None:
    joints = random_posteriors(3, 2, 16, sharpness=2).view(2, 4, 4)  # not symmetric: rows and columns are told apart
    expected = [slow_information(joint, balance) for joint in joints]
    assert joint_information(joints, balance).tolist() == pytest.approx(expected, abs=1e-14)
    assert joint_information(joints.transpose(-1, -2), balance).tolist() == pytest.approx(expected, abs=1e-14)


def test_joint_information_by_hand() -> None:
    joint = torch.tensor([[0.5, 0.125], [0.125, 0.25]], dtype=torch.float64)
    of_one = -(5 / 8 * math.log(5 / 8) + 3 / 8 * math.log(3 / 8))
    of_both = (1 / 2 + 2 / 4) * math.log(2) + 1 / 4 * math.log(8)
    assert float(joint_information(joint)) == pytest.approx(2 * of_one - of_both, abs=1e-15)
    assert float(joint_information(joint, 0.5)) == pytest.approx(of_one - of_both, abs=1e-15)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 9), st.sampled_from([0.01, 1.0, 30.0, 1e3]))
def test_joint_information_is_between_zero_and_log_k(seed: int, n_clusters: int, sharpness: float) -> None:
    joint = random_posteriors(seed, n_clusters**2, sharpness=sharpness).view(n_clusters, n_clusters)
    assert -1e-12 <= float(joint_information(joint)) <= math.log(n_clusters) + 1e-12
    # the product of the marginals holds no information
    independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    assert float(joint_information(independent)) == pytest.approx(0, abs=1e-11)


def test_superfluous_information_equals_the_loops() -> None:
    mu, sigma = random_gaussians(0, 2, 5, 3)
    counted = torch.tensor([1.0, 0, 1, 1, 0], dtype=torch.float64).expand(2, 5)
    everyone, some = [], []
    for restart in range(2):
        clips = [
            sum(slow_gaussian_divergence(float(mu[restart, n, d]), float(sigma[restart, n, d]), 0, 1) for d in range(3))
            for n in range(5)
        ]
        everyone.append(sum(clips) / 5)
        some.append((clips[0] + clips[2] + clips[3]) / 3)
    assert superfluous_information(mu, sigma).tolist() == pytest.approx(everyone, abs=1e-14)
    assert superfluous_information(mu, sigma, counted).tolist() == pytest.approx(some, abs=1e-14)


def test_superfluous_information_by_hand() -> None:
    mu = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    sigma = torch.tensor([[1.0, 2.0], [1.0, 1.0]], dtype=torch.float64)
    first = 0.5 + (1.5 - math.log(2))  # the second clip is N(0, I) itself
    assert float(superfluous_information(mu, sigma)) == pytest.approx(first / 2, abs=1e-15)
    for weights, expected in (((1.0, 0.0), first), ((0.0, 1.0), 0.0), ((0.0, 0.0), 0.0)):
        weighed = superfluous_information(mu, sigma, torch.tensor(weights, dtype=torch.float64))
        assert float(weighed) == pytest.approx(expected, abs=1e-15)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 8), st.sampled_from([0.0, 1e-3, 1.0, 1e3]))
def test_superfluous_information_is_not_negative_and_zero_for_the_prior(
    seed: int, n_clips: int, dim: int, scale: float
) -> None:
    mu, sigma = random_gaussians(seed, n_clips, dim, scale=scale)
    assert float(superfluous_information(mu, sigma)) > 0
    assert float(superfluous_information(torch.zeros_like(mu), torch.ones_like(mu))) == 0


def test_symmetric_divergence_equals_the_loops() -> None:
    a, b = random_gaussians(0, 2, 4, 3), random_gaussians(1, 2, 4, 3)
    counted = torch.tensor([0.0, 1, 1, 0], dtype=torch.float64).expand(2, 4)
    everyone, some = [], []
    for restart in range(2):
        clips = []
        for n in range(4):
            total = 0.0
            for d in range(3):
                one, other = ([float(x[restart, n, d]) for x in gaussian] for gaussian in (a, b))
                total += slow_gaussian_divergence(*one, *other) / 2 + slow_gaussian_divergence(*other, *one) / 2
            clips.append(total)
        everyone.append(sum(clips) / 4)
        some.append((clips[1] + clips[2]) / 2)
    assert symmetric_divergence(*a, *b).tolist() == pytest.approx(everyone, abs=1e-13)
    assert symmetric_divergence(a[0], a[1], b[0], b[1], counted).tolist() == pytest.approx(some, abs=1e-13)


def test_symmetric_divergence_by_hand() -> None:
    # N(0, 1) and N(1, 4): log 2 - 1/4 one way, 2 - log 2 the other
    numbers = [torch.tensor([[x]], dtype=torch.float64) for x in (0.0, 1.0, 1.0, 2.0)]
    assert float(symmetric_divergence(*numbers)) == pytest.approx(0.875, abs=1e-15)
    assert float(symmetric_divergence(numbers[0], numbers[1], numbers[2], numbers[3], torch.zeros(1))) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 8), st.sampled_from([1e-3, 1.0, 1e3]))
def test_symmetric_divergence_is_symmetric_not_negative_and_zero_where_equal(
    seed: int, n_clips: int, dim: int, scale: float
) -> None:
    a, b = random_gaussians(seed, n_clips, dim, scale=scale), random_gaussians(seed + 1, n_clips, dim, scale=scale)
    value = float(symmetric_divergence(*a, *b))
    assert value > 0
    assert float(symmetric_divergence(*b, *a)) == pytest.approx(value, rel=1e-12)
    assert float(symmetric_divergence(*a, *a)) == 0


def test_complementarity_equals_the_loops() -> None:
    both, one = random_posteriors(0, 2, 5, 3, sharpness=2), random_posteriors(1, 2, 5, 3, sharpness=2)
    counted = torch.tensor([1.0, 1, 0, 0, 1], dtype=torch.float64).expand(2, 5)
    everyone, some, cut = [], [], 0
    for restart in range(2):
        clips = []
        for n in range(5):
            total = 0.0
            for k in range(3):
                p, q = float(both[restart, n, k]), float(one[restart, n, k])
                total += p * (math.log(p) - math.log(q))
            clips.append(min(total, math.log(3)))
            cut += total > math.log(3)
        everyone.append(sum(clips) / 5)
        some.append((clips[0] + clips[1] + clips[4]) / 3)
    assert 0 < cut < 10  # the case holds both kinds of clips
    assert complementarity(both.log(), one.log()).tolist() == pytest.approx(everyone, abs=1e-14)
    assert complementarity(both.log(), one.log(), counted).tolist() == pytest.approx(some, abs=1e-14)


def test_complementarity_by_hand() -> None:
    both, one = torch.tensor([[[0.75, 0.25]], [[0.5, 0.5]]], dtype=torch.float64).log()
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert float(complementarity(both, one)) == pytest.approx(expected, abs=1e-15)
    certain = torch.tensor([[0.0, -900.0]], dtype=torch.float64)
    assert float(complementarity(certain, certain.flip(-1))) == math.log(2)  # 900 nats, cut
    assert float(complementarity(both, one, torch.zeros(1, dtype=torch.float64))) == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(2, 9), st.sampled_from([0.01, 1.0, 30.0, 1e4]))
def test_complementarity_is_between_zero_and_log_k_and_zero_where_equal(
    seed: int, n_clips: int, n_clusters: int, sharpness: float
) -> None:
    logits = sharpness * torch.randn(2, n_clips, n_clusters, generator=torch.Generator().manual_seed(seed)).double()
    both, one = logits.log_softmax(-1)
    assert -1e-12 <= float(complementarity(both, one)) <= math.log(n_clusters) + 1e-12
    assert float(complementarity(both, both)) == 0


def test_gradients_of_the_new_terms_equal_finite_differences() -> None:
    a, b = random_gaussians(0, 2, 4, 3), random_gaussians(1, 2, 4, 3)
    counted = torch.tensor([1.0, 0, 1, 1], dtype=torch.float64).expand(2, 4)
    inputs = [x.requires_grad_() for x in (*a, *b)]
    assert torch.autograd.gradcheck(lambda mu, sigma: superfluous_information(mu, sigma, counted), inputs[:2])
    assert torch.autograd.gradcheck(lambda w, x, y, z: symmetric_divergence(w, x, y, z, counted), inputs)
    logits = [random_posteriors(s, 2, 4, 3).log().requires_grad_() for s in (2, 3)]
    assert torch.autograd.gradcheck(lambda x, y: complementarity(x.log_softmax(-1), y.log_softmax(-1), counted), logits)
    counts = random_posteriors(4, 2, 3, 3).requires_grad_()
    for balance in (0.5, 1.0):
        assert torch.autograd.gradcheck(lambda c, b=balance: joint_information(normalised_joint(c), b), [counts])


@pytest.mark.parametrize(("one", "other"), [((4, 3), (4, 2)), ((5, 4, 3), (4, 3)), ((3,), (3,))])
def test_the_new_terms_refuse_other_shapes(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    a, b = torch.ones(one), torch.ones(other)
    told = rf"got {re.escape(str(one))} and {re.escape(str(other))}"
    with pytest.raises(ValueError, match=rf"mu and sigma need one shape \(\.\.\., N, D\), {told}"):
        superfluous_information(a, b)
    with pytest.raises(ValueError, match=rf"both log-posteriors need one shape \(\.\.\., N, K\), {told}"):
        complementarity(a, b)
    with pytest.raises(ValueError, match=r"both modalities' mu and sigma need one shape \(\.\.\., N, D\), got"):
        symmetric_divergence(a, a, b, a)
