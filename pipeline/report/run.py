"""What a finished run left on disk, and what is known of its clips: read once, row by row as in assignments.csv."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extractors.clip import Clip
from pipeline.align import Views
from pipeline.config import MODALITIES, Settings
from pipeline.corpora.tables import read_records
from pipeline.errors import PipelineError
from pipeline.evaluate import labels_of, read_assignments
from pipeline.manifest import to_clip
from pipeline.metrics import clustering_scores
from pipeline.prepare import manifest_of
from pipeline.records import Run, check_record, read_metrics, read_record
from pipeline.reduce import views_of
from tib import TIB


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run's results folder. N clips, K clusters.

    Attributes:
        record, metrics: run.json and metrics.json.
        clip_ids: N, in the order of assignments.csv.
        clusters: (N,).
        model: whose posteriors are of these clips, in this order.
        history: term -> a value a step, `loss` last.
        config: the resolved settings as YAML.
    """

    folder: Path
    record: Mapping[str, Any]
    metrics: Mapping[str, Any]
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
    """What lies beside a run and may have gone or changed since.

    Attributes:
        views: modality -> (N, D) as clustered, a row of NaN where missing; {} where they are not there any more.
        clips: a clip each, None where no manifest knows it.
        labels: ground truth, None where unknown.
        manifest: every clip that was prepared, those that were not clustered included.
        left_out: ids of clips that have views and were not clustered.
        warnings: what is missing, each a sentence.
    """

    views: Mapping[str, NDArray[np.float32]]
    clips: Sequence[Clip | None]
    labels: Sequence[str | None]
    manifest: Sequence[Clip]
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
    assignments = read_assignments(folder)
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
    clusters = np.array(list(assignments.values()), dtype=np.int64)
    return FinishedRun(folder, record, metrics, list(assignments), clusters, model, history, config)


def _read_history(path: Path) -> dict[str, list[float | None]]:
    rows = read_records(path)
    names = [name for name in (rows[0] if rows else {}) if name != "step"]
    return {name: [_finite(float(row[name])) if row[name] else None for row in rows] for name in names}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def read_material(settings: Settings, run: FinishedRun) -> Material:
    """Reads what the run was made from; what is not there any more is a warning, never an error."""
    warnings: list[str] = []
    every = _views(settings, run, warnings)  # of all clips, those that the objective left out included
    whole = every or Views(list(run.clip_ids), {})
    rows = {clip_id: row for row, clip_id in enumerate(whole.clip_ids)}
    order = [rows[clip_id] for clip_id in run.clip_ids]
    manifest = _manifest(settings, warnings)
    known = {clip.clip_id: clip for clip in manifest}
    labels = _labels(settings, run, whole, warnings)
    clustered = set(run.clip_ids)
    return Material(
        views={name: array[order] for name, array in whole.arrays.items()},
        clips=[known.get(clip_id) for clip_id in run.clip_ids],
        labels=[labels.get(clip_id) for clip_id in run.clip_ids],
        manifest=manifest if known.keys() & clustered else [],
        left_out=[clip_id for clip_id in whole.clip_ids if clip_id not in clustered],
        warnings=warnings,
    )


def _views(settings: Settings, run: FinishedRun, warnings: list[str]) -> Views | None:
    try:
        views = views_of(settings)
    except PipelineError as error:
        warnings.append(f"The views of this run are not there any more ({error}), so no map is drawn from them.")
        return None
    if views.digest() != run.record["views_digest"] or not set(run.clip_ids) <= set(views.clip_ids):
        warnings.append("The views have changed since this run, so no map is drawn from them; train again.")
        return None
    return views


def _manifest(settings: Settings, warnings: list[str]) -> list[Clip]:
    """The prepared clips behind the run: of its workdir, or of the one that it was pointed at."""
    folder = settings.views or settings.work
    if not (folder / "corpus.json").exists():
        return []
    try:
        clips, root = manifest_of(Settings(workdir=folder))
    except PipelineError as error:
        warnings.append(f"Nothing is told of the clips themselves: {error}.")
        return []
    return [to_clip(clip, root) for clip in clips]


def _labels(settings: Settings, run: FinishedRun, whole: Views, warnings: list[str]) -> dict[str, str]:
    try:
        labels = labels_of(settings, whole)
    except PipelineError as error:
        warnings.append(f"The labels cannot be read: {error}.")
        return {}
    scored = [row for row, clip_id in enumerate(run.clip_ids) if clip_id in labels]
    told = run.metrics.get("scores", {}).get("nmi")
    nmi = _nmi([labels[run.clip_ids[row]] for row in scored], run.clusters[scored]) if scored else None
    if (told is None) != (nmi is None) or (told is not None and nmi is not None and abs(told - nmi) > 1e-6):
        warnings.append("The scores are of other labels than those shown: the labels have changed; run `evaluate`.")
    return labels


def _nmi(labels_true: Iterable[str], clusters: NDArray[np.int64]) -> float:
    return float(clustering_scores(list(labels_true), clusters)["nmi"])
