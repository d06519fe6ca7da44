"""The terms of the objective, each a pure function with its formula and its source.

Shapes: R restarts, N clips, K clusters, D embedding. All logarithms are natural: values are in nats.
"""

import math
import sys
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

# The floor under every probability that is put into a logarithm; the published demo's constant.
EPS = sys.float_info.epsilon

JointOf = Callable[[Tensor, Tensor], Tensor]


def joint_distribution(p: Tensor, q: Tensor) -> Tensor:
    """How often two views put a clip into clusters i and j, symmetrised.

    J = (1/N) Σ_n p_n q_nᵀ, P = (J + Jᵀ) / 2, scaled to sum to 1. A matrix product: no (N, K, K) tensor is made.

    Args:
        p, q: (N, K) or (R, N, K) posteriors; rows sum to 1.
    Returns:
        (K, K) or (R, K, K), symmetric, >= 0, sums to 1.
    Source: invariant information clustering (Ji et al. 2019), eq. 2 and the symmetrisation below it.
    """
    return normalised_joint(p.transpose(-1, -2) @ q)


def normalised_joint(counts: Tensor) -> Tensor:
    """(C + Cᵀ) / 2, scaled to sum to 1: soft counts of cluster pairs to a symmetric joint distribution.

    Args:
        counts: (..., K, K), >= 0; where all are 0, no clip was counted, the result is 0 too: it says nothing.
    """
    joint = (counts + counts.transpose(-1, -2)) / 2
    return joint / joint.sum((-1, -2), keepdim=True).clamp_min(EPS)


def summed_joint_distribution(p: Tensor, q: Tensor) -> Tensor:
    """joint_distribution added up clip by clip, as the published demo does: the same value, another rounding.

    Makes an (N, K, K) tensor, or (R, N, K, K). Only for retracing the published run, where every step doubles a
    difference of 1e-16.

    Args, Returns: as joint_distribution.
    Source: the published demo code.
    """
    return normalised_joint((p.unsqueeze(-1) * q.unsqueeze(-2)).sum(-3))


def mutual_information(p: Tensor, q: Tensor, joint_of: JointOf = joint_distribution) -> Tensor:
    """I(C; C') = Σ_ij P_ij (log P_ij - log P_i - log P_j), with P = joint_distribution(p, q). Positive.

    Entries of P and of its marginals below EPS are replaced by EPS, as the published demo does; its number is minus
    this one. Symmetric in p and q; 0 where the two are independent; log K where both are the same one-hot posterior
    with clusters of equal size.

    Args:
        p, q: (N, K) or (R, N, K) posteriors; rows sum to 1.
        joint_of: how the joint is added up; what it is does not depend on it.
    Returns:
        () or (R,), nats, between 0 and log K.
    Raises:
        ValueError: the shapes differ, or are neither (N, K) nor (R, N, K).
    Source: invariant information clustering (Ji et al. 2019), eq. 3.
    """
    if p.shape != q.shape or p.ndim not in (2, 3):
        raise ValueError(
            f"mutual_information needs two posteriors of one shape, (N, K) or (R, N, K); "
            f"got {tuple(p.shape)} and {tuple(q.shape)}"
        )
    return joint_information(joint_of(p, q))


def joint_information(joint: Tensor, balance: float = 1.0) -> Tensor:
    """I(C; C') = H(C) + H(C') - H(C, C') of a joint distribution P, or with the marginals' entropies weighed.

    Entries of P and of its marginals below EPS are replaced by EPS. With balance b the value is
    b H(C) + b H(C') - H(C, C'): at 1 the mutual information, below 1 less is gained by clusters of equal size, so
    that they may be unequal or die.

    Args:
        joint: (..., K, K), >= 0, sums to 1.
        balance: b, >= 0.
    Returns:
        (...), nats; with b = 1 between 0 and log K.
    Source: invariant information clustering (Ji et al. 2019), eq. 3; the weight, as in its authors' code.
    """
    # Expanded before the logarithm, not broadcast after it: the backward pass then adds up in the demo's order.
    rows = joint.sum(-1, keepdim=True).expand_as(joint).clamp_min(EPS)
    columns = joint.sum(-2, keepdim=True).expand_as(joint).clamp_min(EPS)
    joint = joint.clamp_min(EPS)
    if balance == 1.0:
        return (joint * (joint.log() - columns.log() - rows.log())).sum((-1, -2))
    return (joint * (joint.log() - balance * columns.log() - balance * rows.log())).sum((-1, -2))


def superfluous_information(mu: Tensor, sigma: Tensor, weights: Tensor | None = None) -> Tensor:
    """KL(N(mu, sigma²) || N(0, I)), the upper bound on I(X; Z): Σ_d (mu² + sigma² - 1) / 2 - log sigma.

    Args:
        mu, sigma: (..., N, D); sigma > 0.
        weights: (..., N), 0 for clips that do not count; None counts all.
    Returns:
        (...), nats, >= 0, mean over the clips that count; lower keeps less of the input. 0 only for N(0, I) itself.
    Raises:
        ValueError: the shapes differ.
    Source: deep variational information bottleneck (Alemi et al. 2017), eq. 17.
    """
    if mu.shape != sigma.shape or mu.ndim < 2:
        raise ValueError(f"mu and sigma need one shape (..., N, D), got {tuple(mu.shape)} and {tuple(sigma.shape)}")
    return _mean_over_clips((0.5 * (mu.square() + sigma.square() - 1.0) - sigma.log()).sum(-1), weights)


def symmetric_divergence(
    mu_a: Tensor, sigma_a: Tensor, mu_b: Tensor, sigma_b: Tensor, weights: Tensor | None = None
) -> Tensor:
    """(KL(a || b) + KL(b || a)) / 2 of a = N(mu_a, sigma_a²) and b = N(mu_b, sigma_b²).

    Σ_d [(va + d²) / vb + (vb + d²) / va] / 4 - 1/2 with v = sigma², d = mu_a - mu_b. What one modality's code holds
    and the other's does not.

    Args:
        mu_a, sigma_a, mu_b, sigma_b: (..., N, D); sigma > 0.
        weights: (..., N), 0 for clips that do not count; None counts all.
    Returns:
        (...), nats, >= 0, mean over the clips that count; symmetric in a and b; 0 where they are equal.
    Raises:
        ValueError: the shapes differ.
    Source: multi-view information bottleneck (Federici et al. 2020), whose loss it is a part of.
    """
    if not mu_a.shape == sigma_a.shape == mu_b.shape == sigma_b.shape or mu_a.ndim < 2:
        shapes = ", ".join(str(tuple(x.shape)) for x in (mu_a, sigma_a, mu_b, sigma_b))
        raise ValueError(f"both modalities' mu and sigma need one shape (..., N, D), got {shapes}")
    va, vb, apart = sigma_a.square(), sigma_b.square(), (mu_a - mu_b).square()
    return _mean_over_clips((0.25 * ((va + apart) / vb + (vb + apart) / va) - 0.5).sum(-1), weights)


def complementarity(log_p_both: Tensor, log_p_one: Tensor, weights: Tensor | None = None) -> Tensor:
    """Λ, an estimate of I(C; Z^a | Z^b): mean_n KL(p(c | z^a, z^b) || p(c | z^b)), what a adds to b about the cluster.

    A clip's divergence is cut at log K: no information about K clusters can be more, yet the divergence of two
    network outputs is unbounded, and would be driven there where it is maximised.

    Args:
        log_p_both, log_p_one: (..., N, K) log-posteriors given both modalities and given one.
        weights: (..., N), 0 for clips that do not count; None counts all.
    Returns:
        (...), nats, between 0 and log K, mean over the clips that count.
    Raises:
        ValueError: the shapes differ.
    Source: the method's description; the chain rule I(C; Z^a, Z^b) = I(C; Z^b) + I(C; Z^a | Z^b).
    """
    if log_p_both.shape != log_p_one.shape or log_p_both.ndim < 2:
        raise ValueError(
            f"both log-posteriors need one shape (..., N, K), got {tuple(log_p_both.shape)} and "
            f"{tuple(log_p_one.shape)}"
        )
    divergence = (log_p_both.exp() * (log_p_both - log_p_one)).sum(-1)
    return _mean_over_clips(divergence.clamp_max(math.log(log_p_both.shape[-1])), weights)


def _mean_over_clips(values: Tensor, weights: Tensor | None) -> Tensor:
    """(..., N) to (...); 0 where no clip counts."""
    if weights is None:
        return values.mean(-1)
    return (values * weights).sum(-1) / weights.sum(-1).clamp_min(1.0)


def sampled_superfluous_information(z: Tensor, prior: Tensor) -> Tensor:
    """The published demo's one-sample stand-in for KL(q(z|x) || N(0, I)).

    (1 / ND) Σ_nd s_nd (log s_nd - log t_nd), s = softmax(prior), t = softmax(z), both over D. It compares the two
    samples as if they were distributions over the D dimensions and divides by D as well as by N; it is kept for
    faithfulness, not because it is the divergence of the method's description.

    Args:
        z: (..., N, D), one sample of q(z|x) a clip.
        prior: (..., N, D), one sample of N(0, I) a clip.
    Returns:
        (...), nats, >= 0; 0 where the two softmaxes are equal.
    Raises:
        ValueError: the shapes differ, or have fewer than two axes.
    Source: the published demo code, its second loss.
    """
    if z.shape != prior.shape or z.ndim < 2:
        raise ValueError(
            f"z and its prior sample need one shape (..., N, D), got {tuple(z.shape)} and {tuple(prior.shape)}"
        )
    divergence = F.kl_div(torch.log_softmax(z, -1), torch.softmax(prior, -1), reduction="none")
    return divergence.mean((-1, -2))
