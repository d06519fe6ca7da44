"""What a person wants first: the run's figures, what they mean in plain words, and what to beware of."""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.predictions import LOW_CONFIDENCE
from pipeline.reduce import untrained
from pipeline.report.page import Headline, Score
from pipeline.report.run import FinishedRun

STEADY, SHAKY = 0.75, 0.5  # ARI between restarts: mostly the same clusters; more different than alike
FEW_CLIPS = 10  # a cluster, on average
MANY_FAILURES = 0.1  # of a modality's clips


def headline(
    run: FinishedRun,
    scores: Sequence[Score],
    n_labelled: int,
    counts: Sequence[tuple[str, str, int]],
    warnings: Sequence[str],
) -> Headline:
    """The top of the page.

    Args:
        scores: as `score_table` gives them.
        n_labelled: clips with a label.
        counts: the accounts of each modality.
        warnings: what was found missing on the way; they come after what concerns the clusters themselves.
    """
    measured = run.record.get("stability", {}).get(run.record.get("schedule"))
    figures = Headline(
        n_clips=run.whole.n_clips,
        n_clusters=int(run.record["n_clusters"]),
        n_clusters_used=len(run.whole.sizes),
        confidence=run.whole.confidence,
        n_unsure=run.whole.n_unsure,
        unsure_below=LOW_CONFIDENCE,
        stability=None if measured is None else float(measured),
        n_restarts=len(run.model.restart_labels_),
        agreement=run.whole.agreement,
        sentences=(),
        warnings=(),
    )
    return replace(
        figures,
        sentences=_sentences(figures, run, scores),
        warnings=[*_warnings(figures, run, scores, n_labelled), *_failure_warnings(counts), *warnings],
    )


def _sentences(figures: Headline, run: FinishedRun, scores: Sequence[Score]) -> list[str]:
    empty = figures.n_clusters - figures.n_clusters_used
    used = f"{figures.n_clusters_used} of {figures.n_clusters} clusters" if empty else f"{figures.n_clusters} clusters"
    used += ", a number that was proposed from the clips themselves" if run.record.get("n_clusters_curve") else ""
    unsure = f"{figures.n_unsure:,} {'is' if figures.n_unsure == 1 else 'are'}" if figures.n_unsure else "none is"
    return [
        f"{figures.n_clips:,} clips are in {used}; no label was used to find them.",
        *([_score_sentence(scores, int(run.metrics["n_scored"]))] if scores else []),
        f"A clip's own cluster has {figures.confidence:.0%} of its probability on average; {unsure} unsure, with less "
        f"than {figures.unsure_below:.0%}.",
        *([_stability_sentence(figures.n_restarts, figures.stability)] if figures.stability is not None else []),
        f"Asked alone, {figures.agreement:.0%} of a clip's modalities on average would put it into the same cluster.",
    ]


def _score_sentence(scores: Sequence[Score], n_scored: int) -> str:
    """ACC as a share of the clips, beside what anybody would get."""
    own, majority = (next(row for row in scores if row.kind == kind) for kind in ("ours", "majority"))
    baselines = {row.method: row for row in scores if row.kind == "baseline"}
    alone = [
        f"; each restart alone ACC {_with_sd(row.acc, row.acc_sd)}, NMI {_with_sd(row.nmi, row.nmi_sd)}, "
        f"ARI {_with_sd(row.ari, row.ari_sd)}"
        for row in scores
        if row.kind == "restarts"
    ]
    told = [f"calling every clip the largest class gets {majority.acc:.0%}"]
    k_means = baselines.pop("k-means all", None)
    if k_means:
        told.append(f"k-means on all views {k_means.acc:.0%}")
    best = max(baselines.values(), key=lambda row: row.acc, default=None)
    if best:
        told.append(f"the best other method, {best.method}, {best.acc:.0%}")
    return (
        f"With every cluster matched to one label, {round(own.acc * n_scored):,} of {n_scored:,} labelled clips, "
        f"{own.acc:.0%}, are in their label's cluster (ACC {own.acc:.2f}, NMI {own.nmi:.2f}, "
        f"ARI {own.ari:.2f}{''.join(alone)}); {', '.join(told)}."
    )


def _with_sd(mean: float, sd: float | None) -> str:
    return f"{mean:.2f}" if sd is None else f"{mean:.2f} ± {sd:.2f}"


def _stability_sentence(n_restarts: int, stability: float) -> str:
    if stability >= STEADY:
        meaning = "the clusters are much the same each time"
    else:
        meaning = "the clusters are partly the same" if stability >= SHAKY else "the clusters differ each time"
    return (
        f"{n_restarts} networks that learned from different parts of the clips agree to {stability:.2f} "
        f"(1 is the same clusters, 0 is chance): {meaning}."
    )


def _warnings(figures: Headline, run: FinishedRun, scores: Sequence[Score], n_labelled: int) -> list[str]:
    """What concerns the clusters themselves, the gravest first."""
    found = [
        f"The {modality} encoder has random weights: it was never trained, so its embeddings mean little."
        for modality in _untrained(run)
    ]
    found += [
        f"The words of {count:,} of {figures.n_clips:,} clips were made by {model}; nobody has checked them."
        for model, count in run.record.get("transcripts_made", {}).items()
    ]
    n, k, used = figures.n_clips, figures.n_clusters, figures.n_clusters_used
    if used == 1:
        found.append("All clips are in one cluster: nothing was told apart.")
    elif used < k:
        found.append(f"{k - used} of {k} clusters {'is' if k - used == 1 else 'are'} empty.")
    if figures.stability is not None and figures.stability < SHAKY:
        found.append("The networks do not agree on the clusters: take them as one possible grouping of several.")
    elif figures.n_restarts == 1:
        found.append("One network alone was trained, so nothing tells how stable the clusters are.")
    if n < FEW_CLIPS * k:
        found.append(f"{n} clips are few for {k} clusters: fewer than {FEW_CLIPS} each on average.")
    if run.record.get("objective") == "reference":
        found.append("The published demo's objective was trained, which reads the clusters off the text alone.")
    best = max((row for row in scores if row.kind == "baseline"), key=lambda row: row.nmi, default=None)
    if best and best.nmi > scores[0].nmi:
        found.append(f"By NMI, {best.method} is nearer to the labels: {best.nmi:.2f} to {scores[0].nmi:.2f}.")
    if not n_labelled:
        found.append("There are no labels, so nothing here tells whether the clusters are of emotion: look and listen.")
    elif n_labelled < n:
        found.append(f"{n_labelled:,} of {n:,} clips have a label: the scores are of those alone.")
    return found


def _untrained(run: FinishedRun) -> list[str]:
    return untrained(run.record.get("encoders", {})) or list(run.record.get("untrained_encoders", []))


def _failure_warnings(counts: Sequence[tuple[str, str, int]]) -> list[str]:
    """The modalities that many clips lack."""
    by_modality: dict[str, dict[str, int]] = {}
    for what, modality, n in counts:
        by_modality.setdefault(modality, {})[what] = n
    found = []
    for modality, of in by_modality.items():
        lacking, whole = of.get("failed", 0) + of.get("skipped", 0), of.get("manifest", 0)
        if lacking > MANY_FAILURES * whole:
            found.append(f"{lacking:,} of {whole:,} clips have no {modality} embedding; see the failures below.")
    return found
