"""What pretraining makes small, from the similarities of a batch's pictures and sounds.

similarities  # (B, B): row i is picture i, column j is sound j; the diagonal holds the pairs
negatives     # (B, B) bool: may i and j stand for two that do not belong together? Never on the diagonal
"""

import torch
from torch import Tensor
from torch.nn import functional


def sampled_margin_ranking(
    similarities: Tensor, negatives: Tensor, *, margin: float, generator: torch.Generator
) -> Tensor:
    """mean_i [margin + S(I_j, A_i) - S(I_i, A_i)]_+ + [margin + S(I_i, A_k) - S(I_i, A_i)]_+, j and k drawn at random.

    Args:
        margin: how much better the pair must be than another.
        generator: draws the impostors j, k of each pair, evenly among its negatives; on the CPU.
    Returns:
        scalar. A pair without negatives adds 0 and is not counted; a batch without any gives 0.
    Raises:
        ValueError: shapes, or a pair marked as its own negative.
    Source: Harwath et al. 2018, eq. 5.
    """
    _check(similarities, negatives)
    anchored = negatives.any(0) & negatives.any(1)
    if not anchored.any():
        return similarities.sum() * 0.0
    rows = anchored.nonzero().squeeze(1)
    pairs = similarities.diagonal()[rows]
    pictures = _drawn(negatives.T[rows], generator)  # another picture for each sound
    sounds = _drawn(negatives[rows], generator)  # another sound for each picture
    by_picture = functional.relu(margin + similarities[pictures, rows] - pairs)
    by_sound = functional.relu(margin + similarities[rows, sounds] - pairs)
    return (by_picture + by_sound).mean()


def masked_margin_softmax(similarities: Tensor, negatives: Tensor, *, margin: float, temperature: float) -> Tensor:
    """-mean_i log e^{(S_ii - margin) / t} / (e^{(S_ii - margin) / t} + sum_j e^{S_ij / t}), by rows plus by columns.

    The whole batch's negatives count at once. With margin 0 it is InfoNCE.

    Args:
        margin: taken from each pair's own similarity.
        temperature: t; > 0.
    Returns:
        scalar, nats. A pair without negatives adds 0.
    Raises:
        ValueError: shapes, a pair marked as its own negative, or t not positive.
    Source: Ilharco, Zhang and Baldridge 2019, eq. 1-3 (masked margin softmax); van den Oord et al. 2018 (InfoNCE).
    """
    _check(similarities, negatives)
    if not temperature > 0:
        raise ValueError(f"expected a temperature above 0, got {temperature}")
    shifted = (similarities - margin * torch.eye(len(similarities), device=similarities.device)) / temperature
    own = torch.eye(len(similarities), dtype=torch.bool, device=similarities.device)
    logits = shifted.masked_fill(~(negatives | own), -torch.inf)
    by_picture = logits.logsumexp(1) - logits.diagonal()
    by_sound = logits.logsumexp(0) - logits.diagonal()
    return (by_picture + by_sound).mean()


def _drawn(allowed: Tensor, generator: torch.Generator) -> Tensor:
    """One column of each row, evenly among those that are allowed."""
    return torch.multinomial(allowed.float().cpu(), 1, generator=generator).squeeze(1).to(allowed.device)


def _check(similarities: Tensor, negatives: Tensor) -> None:
    n = len(similarities)
    if similarities.shape != (n, n) or negatives.shape != (n, n) or negatives.dtype != torch.bool:
        raise ValueError(
            f"expected similarities (B, B) and negatives (B, B) bool, got {(*similarities.shape,)} and "
            f"{(*negatives.shape,)} {negatives.dtype}"
        )
    if negatives.diagonal().any():
        raise ValueError("a pair stands among its own negatives: the diagonal must be False")
