"""Stage evaluate: how good a run's clusters are, against ground truth where there is one, and against baselines."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.assignments import ASSIGNMENTS, read_assignments, read_restarts
from pipeline.config import Settings
from pipeline.console import progress, say, table
from pipeline.errors import PipelineError
from pipeline.files import write_atomic
from pipeline.manifest import read_labels
from pipeline.metrics import clustering_scores
from pipeline.provenance import stable_hash
from pipeline.records import Run, read_metrics, read_record
from pipeline.reduce import encoders_of, untrained
from pipeline.view_files import load_npy
from pipeline.views import Views

BASELINE_SEEDS = range(5)
MOST_BASELINE_CLIPS = 50_000  # of more, a sample: of a million, one of the 13 takes 90 s and 4 GB
SAMPLE_SEED = 0
SCORES = ("acc", "nmi", "ari", "n_clusters_used")


def evaluate(settings: Settings, views: Views, labels: Mapping[str, str]) -> dict[str, Any]:
    """Scores a run's assignments, writes metrics.json and prints the table.

    Args:
        settings: whose results folder holds the assignments.
        views: what was clustered; the baselines run on the same.
        labels: clip_id -> class; none leaves the scores out.
    Returns:
        what was written.
    Raises:
        PipelineError: no finished run, or one on other views.
    """
    out = settings.results
    run = _finished_run(out)
    if run["views_digest"] != views.digest():
        raise PipelineError(f"{out} holds a run on other views than these; run `train` again, or give its config")
    n_clusters = int(run["n_clusters"])  # the run's own: the settings at hand may ask for another
    assignments = read_assignments(out / ASSIGNMENTS)
    sizes = np.unique(assignments.cluster, return_counts=True)
    metrics: dict[str, Any] = {
        "inputs": _inputs(run, labels),
        "untrained_encoders": untrained(encoders_of(settings)),
        "n_clips": len(assignments),
        "n_clusters": n_clusters,
        "n_clusters_used": len(sizes[0]),
        "cluster_sizes": {str(k): int(n) for k, n in zip(*sizes, strict=True)},
    }
    # Of all there is here, ground truth alone is held as text: it is what people have made.
    labelled = [(row, clip_id) for row, clip_id in enumerate(assignments.clip_ids) if clip_id in labels]
    if labelled:
        rows, truth = [row for row, _ in labelled], {clip_id: labels[clip_id] for _, clip_id in labelled}
        labels_true = np.unique([truth[clip_id] for _, clip_id in labelled], return_inverse=True)[1]
        metrics["n_scored"] = len(rows)
        metrics["scores"] = clustering_scores(labels_true, assignments.cluster[rows])
        restarts = read_restarts(out, assignments.clip_ids)
        metrics["n_restarts"] = len(restarts)
        metrics["restarts"] = _mean_sd([clustering_scores(labels_true, restart[rows]) for restart in restarts])
        sample = _sample(views, truth)
        metrics["n_baseline_clips"] = len(sample.clip_ids)
        metrics["baselines"], metrics["baselines_left_out"] = baseline_scores(sample, truth, n_clusters)
    write_atomic(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    _tell(metrics, out)
    return metrics


def is_scored(settings: Settings, labels: Mapping[str, str]) -> bool:
    """Whether metrics.json is of this very run and these labels."""
    try:
        metrics = read_record(settings.results / "metrics.json")
        return bool(metrics["inputs"] == _inputs(_finished_run(settings.results), labels))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def is_evaluated(settings: Settings, labels: Mapping[str, str]) -> bool:
    """Whether the scores are of this very run and these labels, and the page is there."""
    return is_scored(settings, labels) and (settings.results / "report.html").exists()


def _inputs(run: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    return stable_hash([run["inputs"], sorted(labels.items())], 20)


def _finished_run(out: Path) -> dict[str, Any]:
    try:
        run = read_record(out / "run.json", Run)
        if "inputs" not in run:
            raise ValueError("it is not a run's record")
    except (OSError, ValueError) as error:
        raise PipelineError(f"no finished run in {out} ({error}); run `train` first") from None
    return run


def show(settings: Settings) -> None:
    """Prints what evaluate wrote before, and where the page is."""
    path = settings.results / "metrics.json"
    try:
        metrics = read_metrics(path)
    except (OSError, ValueError) as error:
        raise PipelineError(f"cannot read {path} ({error}); run `evaluate` again") from None
    _tell(metrics, settings.results)
    say(f"report: {settings.results / 'report.html'}")


def baseline_scores(
    views: Views, labels_true: Mapping[str, str], n_clusters: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """What TIB has to beat, from 5 seeds: k-means and spectral clustering on each view and on all, generalised CCA.

    A baseline sees the clips that have the view and is scored on those of them with a label. All 13 together
    take about 5 seconds on one core for 2,199 clips with 3 views of 60 dims.

    Returns:
        name -> score -> {"mean", "sd"} over the seeds; name -> why there is no score.
    """
    from tib.baselines import CannotCluster, baselines  # only now: it loads PyTorch

    found: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    labelled = [(row, labels_true[i]) for row, i in enumerate(views.clip_ids) if i in labels_true]
    rows = np.array([row for row, _ in labelled], dtype=np.int64)
    truth = np.unique([label for _, label in labelled], return_inverse=True)[1]
    runs = baselines(views.arrays, n_clusters, BASELINE_SEEDS)
    with progress(len(runs), "baselines", "baseline") as bar:
        for name, run in runs.items():
            bar.set_postfix_str(name, refresh=False)
            try:
                found[name] = _mean_sd([_score(truth, clusters[rows]) for clusters in run()])
            except CannotCluster as reason:
                left_out[name] = str(reason)
            bar.update(1)
    return found, left_out


def _sample(views: Views, truth: Collection[str]) -> Views:
    """The clips that baselines run on: all, or of very many some drawn at random, in their order.

    Those with a label come first: a baseline that is fitted on clips of which hardly any can be scored tells nothing.
    """
    n_clips = len(views.clip_ids)
    if n_clips <= MOST_BASELINE_CLIPS:
        return views
    order = np.random.default_rng(SAMPLE_SEED).permutation(n_clips)
    has_label = np.fromiter((clip_id in truth for clip_id in views.clip_ids), bool, n_clips)
    drawn = np.zeros(n_clips, dtype=bool)
    drawn[order[np.argsort(~has_label[order], kind="stable")][:MOST_BASELINE_CLIPS]] = True
    return views.take(drawn)


def _score(truth: NDArray[Any], clusters: NDArray[np.int64]) -> dict[str, float | int]:
    from tib.baselines import CannotCluster

    there = clusters >= 0
    if not there.any():
        raise CannotCluster("no clip that has it has a label")
    return clustering_scores(truth[there], clusters[there])


def _mean_sd(runs: list[dict[str, float | int]]) -> dict[str, dict[str, float]]:
    return {
        score: {
            "mean": float(np.mean([r[score] for r in runs])),
            "sd": float(np.std([r[score] for r in runs])),
        }
        for score in SCORES
        if runs
    }


def _tell(metrics: Mapping[str, Any], out: Path) -> None:
    used, k, n = metrics["n_clusters_used"], metrics["n_clusters"], metrics["n_clips"]
    say(f"evaluate: {n} clips in {used} of {k} clusters, sizes {list(metrics['cluster_sizes'].values())}")
    for modality in metrics["untrained_encoders"]:
        say(f"evaluate: {modality}: its encoder has RANDOM weights (untrained)")
    if "scores" not in metrics:
        say(f"evaluate: no labels, so no scores; see {out / 'metrics.json'}")
        return
    scores, restarts = metrics["scores"], metrics["restarts"]
    rows: list[tuple[str, ...]] = [("TIB", *(f"{scores[s]:.3f}" for s in SCORES[:3]), str(used))]
    if metrics.get("n_restarts", 1) > 1:
        rows.append((f"TIB, each of {metrics['n_restarts']} restarts", *_spread(restarts)))
    rows += [(name, *_spread(values)) for name, values in metrics.get("baselines", {}).items()]
    rows.append(("majority class", f"{scores['majority_acc']:.3f}", "0.000", "0.000", "1"))
    title = f"evaluate: {metrics['n_scored']} clips with a label (mean ± sd over restarts or seeds)"
    table(title, ("", "ACC", "NMI", "ARI", "clusters used"), rows)
    n_baseline_clips = metrics.get("n_baseline_clips", n)
    if n_baseline_clips < n:
        say(
            f"evaluate: the baselines are of {n_baseline_clips} of {n} clips: of those with a label, and where these "
            "are fewer of others too, drawn at random"
        )
    for reason, names in _by_reason(metrics.get("baselines_left_out", {})).items():
        say(f"evaluate: no {', '.join(names)}: {reason}")
    say(f"evaluate: {_in_words(metrics)}; see {out / 'metrics.json'}")


def _by_reason(left_out: Mapping[str, str]) -> dict[str, list[str]]:
    return {reason: [name for name in left_out if left_out[name] == reason] for reason in left_out.values()}


def _in_words(metrics: Mapping[str, Any]) -> str:
    """Whether the clusters are worth having, in a sentence."""
    if not metrics.get("baselines"):
        return "no baseline to compare with"
    nmi, best = metrics["scores"]["nmi"], max(metrics["baselines"].items(), key=lambda item: item[1]["nmi"]["mean"])
    name, level = best[0], best[1]["nmi"]["mean"]
    verdict = "above" if nmi > level else "not above"
    return f"NMI {nmi:.3f} is {verdict} the best baseline, {name} with {level:.3f}"


def _spread(values: Mapping[str, Mapping[str, float]]) -> list[str]:
    digits = {"n_clusters_used": 1}
    return [f"{values[s]['mean']:.{digits.get(s, 3)}f} ± {values[s]['sd']:.{digits.get(s, 3)}f}" for s in SCORES]


def labels_of(settings: Settings, views: Views) -> dict[str, str]:
    """Ground truth to score with: the file that was given, else what lies beside the views; {} where there is none.

    Raises:
        PipelineError: a file that cannot be read, or labels for none of the clips: told before anything is trained.
    """
    folder = settings.views or settings.work
    beside = [folder / "labels.npy", folder / "labels.csv"]
    found = settings.labels or next((path for path in beside if path.exists()), None)
    labels = read_label_file(found, views.clip_ids) if found else {}
    if labels and not any(clip_id in labels for clip_id in views.clip_ids):
        told = f"{next(iter(labels))!r} there, {next(iter(views.clip_ids), None)!r} here"
        raise PipelineError(f"{found}: none of the {len(views.clip_ids)} clips has a label; the ids differ ({told})")
    return labels


def read_label_file(path: Path, clip_ids: Collection[str]) -> dict[str, str]:
    """Ground truth from a CSV (clip_id,label) or an .npy with one label a row of the views; blank and NaN are none.

    Raises:
        PipelineError: unreadable, or an .npy of another length than the views.
    """
    if path.suffix == ".npy":
        labels = dict(zip(clip_ids, _read_label_array(path, len(clip_ids)), strict=True))
    else:
        labels = read_labels(path)
    return {clip_id: label for clip_id, label in labels.items() if label.strip() not in ("", "nan")}


def _read_label_array(path: Path, n_clips: int) -> list[str]:
    try:
        array: NDArray[Any] = load_npy(path)
        array = array.reshape(-1) if array.size == len(array) else array  # (N, 1) is (N,)
    except (OSError, ValueError, TypeError) as error:
        raise PipelineError(f"cannot read {path} as an array of labels ({error})") from None
    if array.shape != (n_clips,):
        raise PipelineError(f"{path}: expected {n_clips} labels, one a row of the views, got shape {array.shape}")
    return [str(value) for value in array]
