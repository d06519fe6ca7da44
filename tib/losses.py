"""The terms of the objective, each a pure function with its formula and its source.

Shapes: R restarts, N clips, K clusters, D embedding. All logarithms are natural: values are in nats.
"""

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
    joint = p.transpose(-1, -2) @ q
    joint = (joint + joint.transpose(-1, -2)) / 2
    return joint / joint.sum((-1, -2), keepdim=True)


def summed_joint_distribution(p: Tensor, q: Tensor) -> Tensor:
    """joint_distribution added up clip by clip, as the published demo does: the same value, another rounding.

    Makes an (N, K, K) tensor, or (R, N, K, K). Only for retracing the published run, where every step doubles a
    difference of 1e-16.

    Args, Returns: as joint_distribution.
    Source: the published demo code.
    """
    joint = (p.unsqueeze(-1) * q.unsqueeze(-2)).sum(-3)
    joint = (joint + joint.transpose(-1, -2)) / 2
    return joint / joint.sum((-1, -2), keepdim=True)


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
    joint = joint_of(p, q)
    # Expanded before the logarithm, not broadcast after it: the backward pass then adds up in the demo's order.
    rows = joint.sum(-1, keepdim=True).expand_as(joint).clamp_min(EPS)
    columns = joint.sum(-2, keepdim=True).expand_as(joint).clamp_min(EPS)
    joint = joint.clamp_min(EPS)
    return (joint * (joint.log() - columns.log() - rows.log())).sum((-1, -2))


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
