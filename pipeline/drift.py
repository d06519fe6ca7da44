"""Whether a run's clusters still hold for the clips that come in: how sure it is of them, and where they fall.

Both are compared with the clips that the run was trained on, and need no label.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRIFT = "drift.json"  # beside the predictions
LEAST_SURE = 0.1  # of the training's clips: below their confidence a clip counts as unsure
UNSURE_TOO_OFTEN = 2.0  # times LEAST_SURE
MAJOR_SHIFT = 0.25  # of the population stability index
BY_CHANCE = 0.001  # what is likelier than this to come of chance alone is no drift


@dataclass(frozen=True, slots=True)
class Drift:
    """New clips beside those of the training.

    Attributes:
        n_trained, n_clips: of the training, and new ones.
        threshold: confidence below which a clip is unsure: the training's LEAST_SURE quantile.
        unsure: share of the new clips below it; LEAST_SURE where nothing has changed.
        shares: cluster -> (share of the training's clips, share of the new ones).
        psi: population stability index of the shares, 0 where they are the same.
        reasons: why the run should be fitted again, in words; none: it holds.
    """

    n_trained: int
    n_clips: int
    threshold: float
    unsure: float
    shares: dict[int, tuple[float, float]]
    psi: float
    reasons: list[str]

    @property
    def values(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "clips": self.n_clips,
            "clips_of_the_training": self.n_trained,
            "unsure": {"below": self.threshold, "share": self.unsure, "of_the_training": LEAST_SURE},
            "clusters": {str(k): {"training": of, "new": to} for k, (of, to) in self.shares.items()},
            "psi": self.psi,
            "refit_due": bool(self.reasons),
            "reasons": self.reasons,
        }


@dataclass(frozen=True, slots=True)
class Trained:
    """What of a run's own clips new ones are compared with.

    Attributes:
        sizes: (K,) clips of each cluster.
        threshold: their LEAST_SURE quantile of confidence.
    """

    sizes: NDArray[np.int64]
    threshold: float

    @classmethod
    def of(cls, cluster: NDArray[np.integer], confidence: NDArray[np.floating], n_clusters: int) -> "Trained":
        """From clusters (N,) and confidences (N,), N >= 1."""
        return cls(np.bincount(cluster, minlength=n_clusters), float(np.quantile(confidence, LEAST_SURE)))


class Tally:
    """New clips, counted as they come.

    Attributes:
        sizes: (K,) clips of each cluster.
        n_unsure: below the training's threshold.
    """

    def __init__(self, trained: Trained) -> None:
        self.trained = trained
        self.sizes = np.zeros_like(trained.sizes)
        self.n_unsure = 0

    def add(self, cluster: NDArray[np.integer], confidence: NDArray[np.floating]) -> None:
        """Counts (n,) more."""
        self.sizes += np.bincount(cluster, minlength=len(self.sizes))
        self.n_unsure += int((confidence < self.trained.threshold).sum())


def drift(tally: Tally) -> Drift:
    """Compares new clips, one at least, with a run's own.

    Source: population stability index, Siddiqi 2006, whose limit of .25 for a major shift is the customary one. Each
        finding must also be unlikely to come of chance: a binomial test, a chi-square test.
    """
    from scipy.stats import binomtest, chisquare  # half a second that who only reads the figures need not wait

    trained, n_unsure, n = tally.trained, tally.n_unsure, int(tally.sizes.sum())
    clusters = np.flatnonzero(trained.sizes + tally.sizes)
    # Half a clip more each: a cluster that is empty on one side is a shift, and no infinite one.
    before, now = trained.sizes[clusters] + 0.5, tally.sizes[clusters] + 0.5
    shares = np.stack([before / before.sum(), now / now.sum()])
    psi = float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())
    reasons = []
    if n_unsure / n > UNSURE_TOO_OFTEN * LEAST_SURE and _unlikely(
        binomtest(n_unsure, n, LEAST_SURE, alternative="greater").pvalue
    ):
        reasons.append(
            f"{n_unsure / n:.0%} of the clips are told less surely (below {trained.threshold:.2f}) than 9 of 10 in "
            "training"
        )
    if psi > MAJOR_SHIFT and _unlikely(chisquare(now, before / before.sum() * now.sum()).pvalue):
        moved = int(np.abs(shares[1] - shares[0]).argmax())
        reasons.append(
            f"the clusters' sizes have moved (PSI {psi:.2f}, above {MAJOR_SHIFT}), most of all cluster "
            f"{clusters[moved]}: {shares[0][moved]:.0%} of the clips in training, {shares[1][moved]:.0%} now"
        )
    by_cluster = {int(k): (float(of), float(to)) for k, of, to in zip(clusters, *shares, strict=True)}
    return Drift(int(trained.sizes.sum()), n, trained.threshold, n_unsure / n, by_cluster, psi, reasons)


def in_words(found: Drift) -> list[str]:
    """What a person should know of it, a line each."""
    beside = f"{found.n_clips} clips beside the {found.n_trained} of the training"
    told = f"{found.unsure:.0%} told less surely than 9 of 10 in training; cluster sizes moved by PSI {found.psi:.2f}"
    lines = [f"drift: {beside}: {told}"]
    lines += [f"drift: {reason}" for reason in found.reasons]
    if found.reasons:
        lines.append("drift: a refit is due: add these clips to the corpus, then `run` again; what is embedded stays")
    return lines


def _unlikely(p_value: float) -> bool:
    return not math.isnan(p_value) and p_value < BY_CHANCE
