"""A card for each cluster: which clips stand for it, and what sets it apart in words, in the voice, by modality."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.report.page import Cluster, ModalityInCluster, Voice, Word
from pipeline.report.run import FinishedRun, Material

SHOWN = 5  # clips at either end of a cluster's confidence
_NAMED_WORDS = 5
_LEAST_SDS, _LEAST_ERRORS = 0.5, 2.0  # of a difference worth a word: its size, and its size in standard errors
_LEAST_PROBABILITY = 1e-6  # posteriors are float32, where a cluster that is ruled out may be a plain 0
# Of the voice: name, unit, and how more and less of it are said.
PROPERTIES = (("pitch", "Hz", "higher", "lower"), ("loudness", "LUFS", "louder", "quieter"),
              ("speaking rate", "words/s", "faster", "slower"))  # fmt: skip


def shown_rows(clusters: NDArray[np.int64], confidence: NDArray[np.floating], space: NDArray[np.float64]) -> "Shown":
    """The clips of each card: cluster -> (typical, least sure), no clip in both.

    Typical are the surest; of those that are alike to two decimals, the nearest to the cluster's centre.

    Args:
        clusters, confidence: (N,).
        space: (N, D) without gaps.
    """
    found = {}
    for cluster in np.unique(clusters):
        rows = np.flatnonzero(clusters == cluster)
        from_centre = np.linalg.norm(space[rows] - space[rows].mean(axis=0), axis=1)
        typical = rows[np.lexsort((from_centre, -confidence[rows].round(2)))][:SHOWN]
        others = np.setdiff1d(rows, typical)
        least_sure = others[np.argsort(confidence[others], kind="stable")][:SHOWN]
        found[int(cluster)] = (typical.tolist(), least_sure.tolist())
    return found


Shown = dict[int, tuple[list[int], list[int]]]


def cards(
    run: FinishedRun,
    material: Material,
    shown: Shown,
    words: Mapping[int, Sequence[Word]],
    voice: Mapping[str, NDArray[np.float64]],
    silhouettes: NDArray[np.float64],
) -> list[Cluster]:
    """The clusters in use, the largest first.

    Args:
        shown: cluster -> (typical, least sure) rows.
        words: cluster -> its characteristic words.
        voice: property -> (N,), NaN where unknown.
        silhouettes: (N,), NaN where unknown.
    """
    found = []
    for cluster, size in sorted(run.whole.sizes.items(), key=lambda pair: (-pair[1], pair[0])):
        here = run.clusters == cluster
        labels = Counter(label for label, row in zip(material.labels, here, strict=True) if row and label is not None)
        modalities = [modality_in_cluster(run, name, cluster) for name in run.modalities]
        of_voice = voice_of(voice, here)
        own = silhouettes[here & np.isfinite(silhouettes)]
        counted = sorted(labels.items(), key=lambda pair: (-pair[1], pair[0]))
        found.append(
            Cluster(
                cluster=cluster,
                size=size,
                n_shown=int(here.sum()),
                confidence=float(run.model.confidence_[here].mean()),
                agreement=float(run.model.agreement_[here].mean()),
                silhouette=float(own.mean()) if len(own) else None,
                typical=shown[cluster][0],
                least_sure=shown[cluster][1],
                words=words.get(cluster, []),
                voice=of_voice,
                modalities=modalities,
                labels=counted,
                n_labelled=labels.total(),
                summary=summary(of_voice, words.get(cluster, []), counted, modalities),
            )
        )
    return found


def voice_of(voice: Mapping[str, NDArray[np.float64]], here: NDArray[np.bool_]) -> list[Voice]:
    """Each property of the voice here against all clips; only those that differ between clips and are known here."""
    found = []
    for name, unit, _, _ in PROPERTIES:
        known = np.isfinite(voice[name])
        whole, own = voice[name][known], voice[name][known & here]
        if len(own) and whole.std() > 0:
            sds = float((own.mean() - whole.mean()) / whole.std())
            found.append(Voice(name, unit, float(np.median(own)), float(np.median(whole)), sds, len(own)))
    return found


def modality_in_cluster(run: FinishedRun, name: str, cluster: int) -> ModalityInCluster:
    """How a modality alone judges the clips of a cluster."""
    alone = run.model.modality_proba_[name]  # (N, K), NaN where missing
    rows = (run.clusters == cluster) & np.isfinite(alone).all(axis=1)
    if not rows.any():
        return ModalityInCluster(name, 0, 0.0, 0.0, None)
    chosen = alone[rows].argmax(axis=1)
    elsewhere = Counter(chosen[chosen != cluster].tolist()).most_common(1)
    bits = divergence_bits(run.model.proba_[rows], alone[rows])
    agree = float((chosen == cluster).mean())
    return ModalityInCluster(name, int(rows.sum()), agree, float(bits.mean()), elsewhere[0][0] if elsewhere else None)


def divergence_bits(p: NDArray[np.floating], q: NDArray[np.floating]) -> NDArray[np.float64]:
    """KL(p || q) of each row: what p says that q does not.

    Args:
        p, q: (n, K) probabilities; those below 1e-6 count as that.
    Returns:
        (n,) bits, >= 0.
    """
    p, q = (np.clip(x.astype(np.float64), _LEAST_PROBABILITY, None) for x in (p, q))
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    return np.asarray((p * np.log2(p / q)).sum(axis=1))


def summary(
    voice: Sequence[Voice],
    words: Sequence[Word],
    labels: Sequence[tuple[str, int]],
    modalities: Sequence[ModalityInCluster],
) -> str:
    """What sets a cluster apart, in one sentence."""
    parts = []
    differs = [v for v in voice if abs(v.sds) >= max(_LEAST_SDS, _LEAST_ERRORS / np.sqrt(v.n_clips))]
    if differs:
        said = {name: (more, less) for name, _, more, less in PROPERTIES}
        told = [f"{said[v.name][v.sds < 0]} ({v.sds:+.1f} sd)".replace("-", "−") for v in differs]
        parts.append(f"a {_listed(told)} voice than on average")
    if words:
        parts.append(f"words: {', '.join(word.word for word in words[:_NAMED_WORDS])}")
    if labels:
        (label, count), total = labels[0], sum(n for _, n in labels)
        share = "all" if count == total else "mostly" if count > total / 2 else "most often"
        parts.append(f"{share} “{label}” ({count} of {total} labelled)")
    if not parts:
        parts = [_by_modality(modalities)]
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _by_modality(modalities: Sequence[ModalityInCluster]) -> str:
    """Where neither voice, words nor labels tell: who sees the cluster."""
    told = [f"{m.modality} {m.agree:.0%}" for m in sorted(modalities, key=lambda m: -m.agree) if m.n_clips]
    return f"clips that a modality alone would put here too: {_listed(told)}"


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
