"""The terms of the whole method on a batch: what is read off the encoded pairs, and how the terms add up.

Shapes: R restarts, P pairs, L = 2B rows (B anchors, then a neighbour of each), Z bottleneck, K clusters. The axis of 2
in between is the pair's two modalities.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tib.group import ALONE, Group
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


class Joints:
    """From a batch's soft counts to the joint distributions of the mutual informations.

    Small batches make poor joints, and mutual information is no mean over clips: the mean of the batches' values is
    above the value of all clips, by about (K - 1)^2 / 2B. With a momentum the counts are an exponential mean over
    batches: the value is that of the running joint, and the gradient goes through the batch's own part of it, so that
    with small steps and a momentum near 1 the objective is the full batch's.

    Args:
        momentum: m of counts <- m counts + (1 - m) the batch's; 0 knows the batch alone.
        group: whose batch it is.
    Attributes:
        counts: term -> the running counts, (R, ..., K, K).
    Source: invariant information clustering's joint (Ji et al. 2019), averaged as batch normalisation's moments are.
    """

    def __init__(self, momentum: float = 0.0, group: Group = ALONE) -> None:
        self.momentum, self.group = momentum, group
        self.counts: dict[str, Tensor] = {}

    def of(self, term: str, counts: Tensor) -> Tensor:
        """The symmetric joint distribution, (R, ..., K, K), of this process' soft counts and the others'."""
        counts = self.group.sum(counts)
        joint = normalised_joint(counts)
        if not self.momentum:
            return joint
        running = counts.detach()
        if term in self.counts:
            running = torch.lerp(running, self.counts[term], self.momentum)
        self.counts[term] = running
        return joint + (normalised_joint(running) - joint).detach()


def loss_terms(
    encoded: Encoded, weights: Weights, present: Tensor | None, joints: Joints | None = None
) -> dict[str, Tensor]:
    """Each term with a weight above 0, unweighed, (R,) nats, to be minimised: what is maximised has a minus sign.

    Args:
        present: (R, P, 2, L) 1 where a row has the modality, else 0; None where nothing is missing.
        joints: how joints are made of the batch, and which group it is of; None takes the batch as it is.
    """
    joints = joints or Joints()
    group = joints.group
    terms = {}
    if weights.consistency:
        terms["consistency"] = -_consistency(encoded.logits, weights, present, joints)
    if weights.fusion:
        terms["fusion"] = -_fusion(encoded.logits, weights, present, joints)
    # Of the anchors alone: their neighbours are clips like them, and these two terms are the dearest to compute.
    rows = encoded.mu.shape[-1] // 2
    mu, sigma = (values[..., :rows].movedim(2, -1) for values in (encoded.mu, encoded.sigma))  # (R, P, 2, B, Z)
    here = None if present is None else present[..., :rows]
    if weights.superfluous:
        terms["superfluous"] = group.mean(superfluous_information(mu, sigma, here), _counts(here, rows)).mean((1, 2))
    if weights.divergence:
        both = None if here is None else here.prod(2)
        apart = symmetric_divergence(mu[:, :, 0], sigma[:, :, 0], mu[:, :, 1], sigma[:, :, 1], both)
        terms["divergence"] = group.mean(apart, _counts(both, rows)).mean(1)
    if weights.complementarity:
        terms["complementarity"] = -_complementarity(encoded.logits, present, group)
    return terms


def _counts(present: Tensor | None, rows: int) -> Tensor | float:
    """How many clips a mean over the last axis is of."""
    return rows if present is None else present.sum(-1)


def _consistency(logits: Tensor, weights: Weights, present: Tensor | None, joints: Joints) -> Tensor:
    """Mean over pairs of I(C^a; C^b); a share of the joint pairs a clip's a with a neighbour's b, and the reverse."""
    posterior = logits.softmax(2)
    if present is not None:
        posterior = posterior * present.unsqueeze(2)
    a, b = posterior[:, :, :, 0], posterior[:, :, :, 1].transpose(-1, -2)
    share, rows = weights.neighbour_share, logits.shape[-1] // 2
    counts = (1 - share) * (a @ b)
    if share:
        counts = counts + share * (a[..., :rows] @ b[..., rows:, :] + a[..., rows:] @ b[..., :rows, :])
    return joint_information(joints.of("consistency", counts), weights.balance).mean(1)


def _fusion(logits: Tensor, weights: Weights, present: Tensor | None, joints: Joints) -> Tensor:
    """I(C; C') of a clip's fused cluster and its neighbour's: what is given out keeps neighbours together."""
    fused = fuse(logits, present).softmax(1)
    if present is not None:
        fused = fused * present.amax((1, 2)).unsqueeze(1)  # a clip has something always, a filled-in row may not
    anchors, neighbours = fused.chunk(2, -1)
    return joint_information(joints.of("fusion", anchors @ neighbours.transpose(-1, -2)), weights.balance)


def _complementarity(logits: Tensor, present: Tensor | None, group: Group) -> Tensor:
    together = _mean(logits, present, (3,), keepdim=True).log_softmax(2).expand_as(logits)
    both = None if present is None else present.prod(2, keepdim=True).expand_as(present)
    added = complementarity(together.movedim(2, -1), logits.log_softmax(2).movedim(2, -1), both)
    return group.mean(added, _counts(both, logits.shape[-1])).mean((1, 2))


def partition_term(logits: Tensor, partition: Tensor, present: Tensor | None, group: Group = ALONE) -> Tensor:
    """Cross-entropy of each modality's clusters and of the fused ones to the graph's partition, (R,) nats.

    Args:
        logits: (R, P, K, 2, L).
        partition: (R, L) int64, -1 where the row has none.
        group: who has the rest of the batch.
    """
    known = (partition >= 0).to(logits.dtype)
    target = partition.clamp_min(0)
    each = logits.log_softmax(2).gather(2, target[:, None, None, None].expand(*logits.shape[:2], 1, *logits.shape[3:]))
    weights = known[:, None, None] if present is None else known[:, None, None] * present
    weights = weights.expand_as(each.squeeze(2))
    fused = fuse(logits, present).log_softmax(1).gather(1, target[:, None]).squeeze(1)
    n_alone, n_fused = weights.sum((1, 2, 3)), known.sum(1)
    alone = group.mean((each.squeeze(2) * weights).sum((1, 2, 3)) / n_alone.clamp_min(1.0), n_alone)
    return -alone - group.mean((fused * known).sum(1) / n_fused.clamp_min(1.0), n_fused)


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
