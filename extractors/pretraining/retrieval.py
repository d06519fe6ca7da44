"""How often the right partner is found among all: recall@k both ways, and the median rank, beside chance."""

from dataclasses import dataclass

import torch
from torch import Tensor

RECALLS_AT = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Of N pairs, how the partners rank.

    Attributes:
        n_pairs: N.
        image_to_audio, audio_to_image: recall@k for k of RECALLS_AT, each in 0..1.
        median_rank: over both ways; 1 is best, (N + 1) / 2 is chance.
    """

    n_pairs: int
    image_to_audio: dict[int, float]
    audio_to_image: dict[int, float]
    median_rank: float

    @property
    def mean_recall(self) -> float:
        """Mean of all the recalls, both ways: the figure that a best epoch is picked by."""
        both = [*self.image_to_audio.values(), *self.audio_to_image.values()]
        return sum(both) / len(both)

    def chance(self, k: int) -> float:
        """Recall@k of guessing."""
        return min(1.0, k / self.n_pairs)


def retrieval(similarities: Tensor) -> Retrieval:
    """Ranks each picture's sound among all sounds, and each sound's picture among all pictures.

    Ties count as if broken at random, so that a network which tells nothing apart scores chance, not 1.

    Args:
        similarities: (N, N), pair i on the diagonal; finite.
    Raises:
        ValueError: not square, empty, or not finite.
    """
    n = len(similarities)
    if similarities.shape != (n, n) or not n or not similarities.isfinite().all():
        raise ValueError(f"expected finite similarities (N, N), N >= 1, got {(*similarities.shape,)}")
    recalls, ranks = [], []
    for rivals in (similarities, similarities.T):
        partner = rivals.diagonal()[:, None]
        better, level = (rivals > partner).sum(1).double(), (rivals == partner).sum(1).double()  # (N,) each
        recalls.append({k: ((k - better) / level).clamp(0, 1).mean().item() for k in RECALLS_AT})
        ranks.append(better + (level + 1) / 2)
    return Retrieval(n, recalls[0], recalls[1], torch.cat(ranks).quantile(0.5).item())
