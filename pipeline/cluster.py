"""Stage train: views -> clusters by TIB, written to the run's folder. Labels are seen by the score line alone.

results/<run>/
    assignments.csv     clip_id, cluster, confidence, agreement
    restarts.csv        clip_id, restart_0, ...: what each restart alone would have said
    history.csv         the losses, epoch by epoch
    model.safetensors + model.json
    config.yaml         every setting as it was used
    run.json            versions, commit, seeds, durations; written last, so that its presence says the rest is whole
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from pipeline.align import Views
from pipeline.config import Settings
from pipeline.console import progress, say
from pipeline.corpora.tables import format_table
from pipeline.errors import PipelineError
from pipeline.files import check_writable, write_atomic
from pipeline.metrics import clustering_scores
from pipeline.provenance import environment, stable_hash
from pipeline.reduce import encoders_of, untrained
from tib import TIB

LINE_EVERY = 10  # epochs between two lines, as the published demo prints them


def train(settings: Settings, views: Views, labels: Mapping[str, str]) -> bool:
    """Clusters the views and writes the run; does nothing where the same run is there already.

    Args:
        views: the modalities, aligned.
        labels: ground truth for the score line that is printed while training goes on; training never gets it.
    Returns:
        whether anything was trained.
    Raises:
        PipelineError: no K, views that do not fit the objective, or a folder that cannot be written.
    """
    out = settings.results
    digest = views.digest()
    inputs = stable_hash({"views": digest, "train": settings.train.model_dump()}, 20)
    if _inputs_of(out) == inputs:
        say(f"train: nothing to do: {out} holds this run")
        return False
    views = _usable(views)
    check_writable(out)  # told now, not after the training
    started = time.monotonic()
    model = _fit(settings, views, labels)
    seconds = time.monotonic() - started
    _write(settings, views, model, {"inputs": inputs, "views_digest": digest}, seconds)
    say(f"train: wrote {out} ({seconds:.1f} s)")
    return True


def _usable(views: Views) -> Views:
    """The clips that the objective can train on: those with every modality. Says how many are left out."""
    complete = views.complete()
    left_out = [clip_id for clip_id, whole in zip(views.clip_ids, complete, strict=True) if not whole]
    if left_out:
        say(f"train: {len(left_out)} of {len(views.clip_ids)} clips lack a modality and are left out: "
            f"{', '.join(left_out[:5])}{', ...' if len(left_out) > 5 else ''}")  # fmt: skip
    return views.take(complete)


def _fit(settings: Settings, views: Views, labels: Mapping[str, str]) -> TIB:
    section = settings.train
    if section.n_clusters is None:
        raise PipelineError("train.n_clusters is not set: how many clusters? (--clusters 7)")
    model = TIB(
        n_clusters=section.n_clusters,
        objective=section.objective,
        restarts=section.restarts,
        epochs=section.epochs,
        learning_rate=section.learning_rate,
        random_state=section.seed,
        device=section.device,
    )
    try:
        with progress(section.epochs, "train", "epoch") as bar:
            return model.fit(views.arrays, on_epoch=_reporter(bar, views.clip_ids, labels))
    except ValueError as error:
        raise PipelineError(f"train: {error}") from None


def _reporter(bar: Any, clip_ids: Sequence[str], labels: Mapping[str, str]) -> Callable[[Any], None]:
    """What is shown after an epoch: the bar always, the published demo's line every tenth."""
    scored = [row for row, clip_id in enumerate(clip_ids) if clip_id in labels]
    truth = [labels[clip_ids[row]] for row in scored]

    def show(report: Any) -> None:
        bar.set_postfix_str(f"loss {report.losses['loss']:.3f}", refresh=False)
        bar.update(1)
        if report.epoch % LINE_EVERY:
            return
        terms = (f"{name} {value:.3f}" for name, value in report.losses.items() if name != "loss")
        line = f" epoch {report.epoch} {' '.join(terms)}"
        if truth:
            scores = clustering_scores(truth, report.predict()[scored])
            line += f" acc {scores['acc']:.3f} nmi {scores['nmi']:.3f}"
        say(line)

    return show


def _inputs_of(out: Path) -> str | None:
    try:
        return str(json.loads((out / "run.json").read_text(encoding="utf-8"))["inputs"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there or not whole: trained again


def _write(settings: Settings, views: Views, model: TIB, inputs: Mapping[str, str], seconds: float) -> None:
    out = settings.results
    for stale in ("run.json", "metrics.json", "report.html"):  # from here on the old run is not taken for whole
        (out / stale).unlink(missing_ok=True)
    said = zip(views.clip_ids, model.labels_, model.confidence_, model.agreement_, strict=True)
    rows = [(clip_id, str(k), f"{confidence:.6f}", f"{agreement:.6f}") for clip_id, k, confidence, agreement in said]
    write_atomic(out / "assignments.csv", format_table(("clip_id", "cluster", "confidence", "agreement"), rows))
    restarts = zip(views.clip_ids, *model.restart_labels_.astype(str).tolist(), strict=True)
    names = ("clip_id", *(f"restart_{r}" for r in range(len(model.restart_labels_))))
    write_atomic(out / "restarts.csv", format_table(names, restarts))
    history = [tuple(str(value) for value in row.values()) for row in model.history_]
    write_atomic(out / "history.csv", format_table(tuple(model.history_[0]), history))
    model.save(out)
    resolved = settings.model_dump(mode="json")
    write_atomic(out / "config.yaml", yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
    encoders = encoders_of(settings)
    record = {
        **inputs,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "n_clusters": settings.train.n_clusters,
        "seed": settings.train.seed,
        "restarts": settings.train.restarts,
        "n_clips": len(views.clip_ids),
        "encoders": encoders,
        "untrained_encoders": untrained(encoders),
        "views": {name: list(array.shape) for name, array in views.arrays.items()},
        "seconds": {"train": round(seconds, 3)},
        **environment(),
    }
    write_atomic(out / "run.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
