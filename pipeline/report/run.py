"""What a finished run left on disk, and what is known of its clips: read once, row by row as in assignments.csv.

Of very many clips the page shows a sample, and what is read is of those.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extractors.clip import Clip
from pipeline.assignments import ASSIGNMENTS, Assignments, read_assignments
from pipeline.config import MODALITIES, Settings
from pipeline.corpora.tables import read_records
from pipeline.errors import PipelineError
from pipeline.evaluate import labels_of
from pipeline.manifest import Manifest, manifest_in, to_clip
from pipeline.metrics import clustering_scores
from pipeline.predictions import LOW_CONFIDENCE
from pipeline.records import Run, check_record, read_metrics, read_record
from pipeline.reduce import views_of
from pipeline.views import Views
from tib import TIB

MOST_SHOWN = 30_000  # clips; a page of more takes a browser long
LEAST_OF_EACH = 100  # clips of a cluster that are shown whatever the share of it
SEED = 0  # of the sample


@dataclass(frozen=True, slots=True)
class Whole:
    """Figures of all N clips, shown or not.

    Attributes:
        sizes: cluster -> clips, of those in use.
        confidence, agreement: means.
        n_unsure: clips of low confidence.
    """

    n_clips: int
    sizes: Mapping[int, int]
    confidence: float
    agreement: float
    n_unsure: int

    @classmethod
    def of(cls, clusters: NDArray[np.integer], confidence: NDArray[Any], agreement: NDArray[Any]) -> "Whole":
        """Of (N,) each."""
        ids, sizes = np.unique(clusters, return_counts=True)
        return cls(
            n_clips=len(clusters),
            sizes=dict(zip(ids.tolist(), sizes.tolist(), strict=True)),
            confidence=float(confidence.mean(dtype=np.float64)),
            agreement=float(agreement.mean(dtype=np.float64)),
            n_unsure=int((confidence < LOW_CONFIDENCE).sum()),
        )


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run's results folder. n clips are shown, which are all N where these are not too many; K clusters.

    Attributes:
        record, metrics: run.json and metrics.json.
        assignments: of all clips.
        whole: figures of all clips.
        clip_ids: n, in the order of assignments.csv.
        clusters: (n,).
        model: whose posteriors are of these n clips, in this order.
        history: term -> a value a step, `loss` last.
        config: the resolved settings as YAML.
    """

    folder: Path
    record: Mapping[str, Any]
    metrics: Mapping[str, Any]
    assignments: Assignments
    whole: Whole
    clip_ids: Sequence[str]
    clusters: NDArray[np.int64]
    model: TIB
    history: Mapping[str, Sequence[float | None]]
    config: str

    @property
    def modalities(self) -> list[str]:
        """The run's views: the project's three in its order, then any others."""
        names = list(self.model.view_names_)
        return [*(name for name in MODALITIES if name in names), *(name for name in names if name not in MODALITIES)]


@dataclass(frozen=True, slots=True)
class Material:
    """What lies beside a run and may have gone or changed since; of the n clips that are shown, unless said.

    Attributes:
        views: modality -> (n, D) as clustered, a row of NaN where missing; {} where they are not there any more.
        clips: a clip each, None where no manifest knows it.
        labels: ground truth, None where unknown.
        n_labelled: of all clips.
        manifest: every clip that was prepared, those that were not clustered included, and the folder of their media;
            None where there is none, or one of other clips.
        left_out: ids of clips that have views and were not clustered.
        warnings: what is missing, each a sentence.
    """

    views: Mapping[str, NDArray[np.float32]]
    clips: Sequence[Clip | None]
    labels: Sequence[str | None]
    n_labelled: int
    manifest: tuple[Manifest, Path] | None
    left_out: Sequence[str]
    warnings: Sequence[str]

    @property
    def transcripts(self) -> list[str]:
        return [(clip.transcript or "") if clip else "" for clip in self.clips]


def read_run(folder: Path) -> FinishedRun:
    """Reads a results folder.

    Raises:
        PipelineError: no finished and evaluated run there, or files in it that are not of one run.
    """
    try:
        record = read_record(folder / "run.json")
        if not {"n_clusters", "views_digest", "finished"} <= record.keys():
            raise PipelineError(f"no finished run in {folder}: run.json is not a run's record; run `train` first")
        check_record(record, Run)
    except (OSError, ValueError) as error:
        raise PipelineError(f"no finished run in {folder} ({error}); run `train` first") from None
    try:
        metrics = read_metrics(folder / "metrics.json")
    except (OSError, ValueError) as error:
        raise PipelineError(f"the run in {folder} is not evaluated ({error}); run `evaluate` first") from None
    assignments = read_assignments(folder / ASSIGNMENTS)
    try:
        model = TIB.load(folder, device="cpu")
        history = _read_history(folder / "history.csv")
        config = (folder / "config.yaml").read_text(encoding="utf-8")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PipelineError(f"{folder}: cannot read the run ({error}); run `train` again") from None
    if len(model.labels_) != len(assignments) or metrics.get("n_clips") != len(assignments):
        raise PipelineError(
            f"{folder}: assignments.csv names {len(assignments)} clips, the model {len(model.labels_)}, metrics.json "
            f"{metrics.get('n_clips')}; they are not of one run: run `train` again"
        )
    rows = shown_of(assignments.cluster)
    return FinishedRun(
        folder,
        record,
        metrics,
        assignments,
        Whole.of(assignments.cluster, model.confidence_, model.agreement_),
        _at(assignments.clip_ids, rows),
        assignments.cluster[rows].astype(np.int64),
        _of_clips(model, rows),
        history,
        config,
    )


def shown_of(clusters: NDArray[np.integer]) -> NDArray[np.int64]:
    """Rows of the clips to show, ascending: all, or of more than MOST_SHOWN a sample with some of each cluster."""
    if len(clusters) <= MOST_SHOWN:
        return np.arange(len(clusters))
    drawn = np.random.default_rng(SEED).permutation(len(clusters))
    _, of_drawn, sizes = np.unique(clusters[drawn], return_inverse=True, return_counts=True)
    by_cluster = np.argsort(of_drawn, kind="stable")
    in_cluster = np.empty(len(drawn), dtype=np.int64)  # the how manieth of its cluster each drawn clip is
    in_cluster[by_cluster] = np.arange(len(drawn)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    can_wait = in_cluster >= min(LEAST_OF_EACH, MOST_SHOWN // len(sizes))
    return np.sort(drawn[np.argsort(can_wait, kind="stable")][:MOST_SHOWN])


def _at(items: Iterable[str], rows: NDArray[np.int64]) -> list[str]:
    """The items at these rows, which ascend."""
    numbered, wanted = enumerate(items), rows.tolist()
    return [next(item for row, item in numbered if row == at) for at in wanted]


def _of_clips(model: TIB, rows: NDArray[np.int64]) -> TIB:
    """The model with what it has learned of these clips alone."""
    found = copy(model)
    for name in ("proba_", "labels_", "confidence_", "agreement_"):
        setattr(found, name, getattr(model, name)[rows])
    found.modality_proba_ = {name: proba[rows] for name, proba in model.modality_proba_.items()}
    found.restart_labels_ = model.restart_labels_[:, rows]
    return found


def _read_history(path: Path) -> dict[str, list[float | None]]:
    rows = read_records(path)
    names = [name for name in (rows[0] if rows else {}) if name != "step"]
    return {name: [_finite(float(row[name])) if row[name] else None for row in rows] for name in names}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def read_material(settings: Settings, run: FinishedRun) -> Material:
    """Reads what the run was made from; what is not there any more is a warning, never an error."""
    warnings: list[str] = []
    n_shown, n_clips = len(run.clip_ids), run.whole.n_clips
    if n_shown < n_clips:
        warnings.append(
            f"{n_shown:,} of {n_clips:,} clips are shown, drawn at random with {LEAST_OF_EACH} or more of each cluster "
            "where it has them: the scores and the clusters' sizes are of all clips, everything else is of those shown."
        )
    every = _views(settings, run, warnings)  # of all clips, those that the objective left out included
    place = {clip_id: row for row, clip_id in enumerate(run.clip_ids)}
    views: dict[str, NDArray[np.float32]] = {}
    left_out: list[str] = []
    if every:
        order = np.full(n_shown, -1)
        for row, clip_id in enumerate(every.clip_ids):
            if clip_id in place:
                order[place[clip_id]] = row
        if (order < 0).any():
            warnings.append(_OTHER_VIEWS)
        else:
            views = {name: array[order] for name, array in every.arrays.items()}
            if len(every.clip_ids) > n_clips:  # by an objective that needs every modality
                left_out = [i for i, whole in zip(every.clip_ids, every.complete(), strict=True) if not whole]
    known, manifest = _manifest(settings, place, warnings)
    labels, n_labelled = _labels(settings, run, every, warnings)
    return Material(
        views=views,
        clips=[known.get(clip_id) for clip_id in run.clip_ids],
        labels=[labels.get(clip_id) for clip_id in run.clip_ids],
        n_labelled=n_labelled,
        manifest=manifest if known else None,
        left_out=left_out,
        warnings=warnings,
    )


_OTHER_VIEWS = "The views have changed since this run, so no map is drawn from them; train again."


def _views(settings: Settings, run: FinishedRun, warnings: list[str]) -> Views | None:
    try:
        views = views_of(settings)
    except PipelineError as error:
        warnings.append(f"The views of this run are not there any more ({error}), so no map is drawn from them.")
        return None
    if views.digest() != run.record["views_digest"]:
        warnings.append(_OTHER_VIEWS)
        return None
    return views


def _manifest(
    settings: Settings, wanted: Collection[str], warnings: list[str]
) -> tuple[dict[str, Clip], tuple[Manifest, Path] | None]:
    """The prepared clips behind the run, of its workdir or of the one that it was pointed at: those wanted, and all."""
    folder = settings.views or settings.work
    if not (folder / "corpus.json").exists():
        return {}, None
    try:
        manifest, root = manifest_in(folder)
        known = {clip.clip_id: to_clip(clip, root) for clip in manifest if clip.clip_id in wanted}
    except PipelineError as error:
        warnings.append(f"Nothing is told of the clips themselves: {error}.")
        return {}, None
    return known, (manifest, root)


def _labels(
    settings: Settings, run: FinishedRun, every: Views | None, warnings: list[str]
) -> tuple[dict[str, str], int]:
    """Ground truth, and of how many of the run's clips."""
    clip_ids = run.assignments.clip_ids
    try:
        labels = labels_of(settings, every or Views(clip_ids, {}))
    except PipelineError as error:
        warnings.append(f"The labels cannot be read: {error}.")
        return {}, 0
    known = [(labels[clip_id], row) for row, clip_id in enumerate(clip_ids) if clip_id in labels]
    told = run.metrics.get("scores", {}).get("nmi")
    nmi = None
    if known:
        labels_true, rows = zip(*known, strict=True)
        nmi = float(clustering_scores(labels_true, run.assignments.cluster[list(rows)])["nmi"])
    if (told is None) != (nmi is None) or (told is not None and nmi is not None and abs(told - nmi) > 1e-6):
        warnings.append("The scores are of other labels than those shown: the labels have changed; run `evaluate`.")
    return labels, len(known)
