"""The terms of the whole method on a batch: what is read off the encoded pairs, and how the terms add up.

Shapes: R restarts, P pairs, L = 2B rows (B anchors, then a neighbour of each), Z bottleneck, K clusters. The axis of 2
in between is the pair's two modalities.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tib.losses import (
    complementarity,
    joint_information,
    normalised_joint,
    superfluous_information,
    symmetric_divergence,
)
from tib.twin.net import Encoded


@dataclass(frozen=True, slots=True)
class Weights:
    """Of the terms, in the sum that is minimised; 0 leaves a term out. Their meaning is in TIB's docstring."""

    consistency: float
    fusion: float
    superfluous: float
    divergence: float
    complementarity: float
    neighbour_share: float
    balance: float


def loss_terms(encoded: Encoded, weights: Weights, present: Tensor | None) -> dict[str, Tensor]:
    """Each term with a weight above 0, unweighed, (R,) nats, to be minimised: what is maximised has a minus sign.

    Args:
        present: (R, P, 2, L) 1 where a row has the modality, else 0; None where nothing is missing.
    """
    terms = {}
    if weights.consistency:
        terms["consistency"] = -_consistency(encoded.logits, weights, present)
    if weights.fusion:
        terms["fusion"] = -_fusion(encoded.logits, weights, present)
    # Of the anchors alone: their neighbours are clips like them, and these two terms are the dearest to compute.
    rows = encoded.mu.shape[-1] // 2
    mu, sigma = (values[..., :rows].movedim(2, -1) for values in (encoded.mu, encoded.sigma))  # (R, P, 2, B, Z)
    here = None if present is None else present[..., :rows]
    if weights.superfluous:
        terms["superfluous"] = superfluous_information(mu, sigma, here).mean((1, 2))
    if weights.divergence:
        both = None if here is None else here.prod(2)
        terms["divergence"] = symmetric_divergence(mu[:, :, 0], sigma[:, :, 0], mu[:, :, 1], sigma[:, :, 1], both).mean(
            1
        )
    if weights.complementarity:
        terms["complementarity"] = -_complementarity(encoded.logits, present)
    return terms


def _consistency(logits: Tensor, weights: Weights, present: Tensor | None) -> Tensor:
    """Mean over pairs of I(C^a; C^b); a share of the joint pairs a clip's a with a neighbour's b, and the reverse."""
    posterior = logits.softmax(2)
    if present is not None:
        posterior = posterior * present.unsqueeze(2)
    a, b = posterior[:, :, :, 0], posterior[:, :, :, 1].transpose(-1, -2)
    share, rows = weights.neighbour_share, logits.shape[-1] // 2
    joint = (1 - share) * (a @ b)
    if share:
        joint = joint + share * (a[..., :rows] @ b[..., rows:, :] + a[..., rows:] @ b[..., :rows, :])
    return joint_information(normalised_joint(joint), weights.balance).mean(1)


def _fusion(logits: Tensor, weights: Weights, present: Tensor | None) -> Tensor:
    """I(C; C') of a clip's fused cluster and its neighbour's: what is given out keeps neighbours together."""
    fused = fuse(logits, present).softmax(1)
    if present is not None:
        fused = fused * present.amax((1, 2)).unsqueeze(1)  # a clip has something always, a filled-in row may not
    anchors, neighbours = fused.chunk(2, -1)
    return joint_information(normalised_joint(anchors @ neighbours.transpose(-1, -2)), weights.balance)


def _complementarity(logits: Tensor, present: Tensor | None) -> Tensor:
    together = _mean(logits, present, (3,), keepdim=True).log_softmax(2).expand_as(logits)
    both = None if present is None else present.prod(2, keepdim=True).expand_as(present)
    return complementarity(together.movedim(2, -1), logits.log_softmax(2).movedim(2, -1), both).mean((1, 2))


def partition_term(logits: Tensor, partition: Tensor, present: Tensor | None) -> Tensor:
    """Cross-entropy of each modality's clusters and of the fused ones to the graph's partition, (R,) nats.

    Args:
        logits: (R, P, K, 2, L).
        partition: (R, L) int64, -1 where the row has none.
    """
    known = (partition >= 0).to(logits.dtype)
    target = partition.clamp_min(0)
    each = logits.log_softmax(2).gather(2, target[:, None, None, None].expand(*logits.shape[:2], 1, *logits.shape[3:]))
    weights = known[:, None, None] if present is None else known[:, None, None] * present
    weights = weights.expand_as(each.squeeze(2))
    fused = fuse(logits, present).log_softmax(1).gather(1, target[:, None]).squeeze(1)
    alone = (each.squeeze(2) * weights).sum((1, 2, 3)) / weights.sum((1, 2, 3)).clamp_min(1.0)
    return -alone - (fused * known).sum(1) / known.sum(1).clamp_min(1.0)


def fuse(logits: Tensor, present: Tensor | None) -> Tensor:
    """(R, K, L): the mean of the logits over a clip's (pair, modality)s, a product of experts. 0 where it has none."""
    return _mean(logits, present, (1, 3))


def _mean(logits: Tensor, present: Tensor | None, axes: tuple[int, ...], *, keepdim: bool = False) -> Tensor:
    if present is None:
        return logits.mean(axes, keepdim=keepdim)
    weights = present.unsqueeze(2)
    return (logits * weights).sum(axes, keepdim=keepdim) / weights.sum(axes, keepdim=keepdim).clamp_min(1.0)


def pairs_present(present: Tensor, pairs: list[tuple[int, int]]) -> Tensor:
    """(R, M, L) by modality to (R, P, 2, L) by pair."""
    return torch.stack([present[:, list(pair)] for pair in pairs], 1)
