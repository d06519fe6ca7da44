"""Stage train: views -> clusters by TIB, written to the run's folder. Labels are seen by the score line alone.

results/<run>/
    assignments.csv     what came of it, and restarts.csv: see assignments.py
    history.csv         the losses, step by step
    model.safetensors + model.json
    audio.safetensors   where the audio encoder was trained on this corpus: its weights, and audio.json, their record
    reduction/          what reduced the embeddings, copied from the workdir: `predict` needs this folder alone
    config.yaml         every setting as it was used
    run.json            settings, versions, commit, seeds, machine, durations: what `rerun` needs and compares; written
                        last, so that its presence says the rest is whole
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipeline.assignments import ASSIGNMENTS, write_assignments, write_restarts
from pipeline.config import Settings
from pipeline.console import progress, say
from pipeline.corpora.tables import format_table
from pipeline.errors import PipelineError
from pipeline.files import check_writable, link_or_copy, write_atomic
from pipeline.manifest import manifest_in
from pipeline.metrics import clustering_scores
from pipeline.provenance import arithmetic, environment, stable_hash
from pipeline.records import read_record
from pipeline.reduce import encoders_of, keep_reduction, made_with_of, untrained
from pipeline.transcripts import made_among
from pipeline.views import Views

if TYPE_CHECKING:
    from tib import TIB, StepReport

OWN_AUDIO, OWN_INT8 = "audio.safetensors", "quantised/model.xml"  # in the run's folder
SCORED_AT_MOST = 50_000  # clips, of which the lines tell scores
MODEL_FORMAT = 3  # tib.persistence.FORMAT_VERSION, which is not loaded where there is nothing to train
CHECKPOINT = "checkpoint.pt"  # in the run's folder while it is trained
LINE_EVERY = {True: 10, False: 50}  # steps between two lines; the reference's as the published demo prints them


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
    if is_trained(settings, views):
        keep_reduction(settings, out)  # a run made before reductions were kept is completed
        _keep_own_encoders(settings)
        say(f"train: nothing to do: {out} holds this run")
        return False
    inputs, digest = _inputs(settings, views), views.digest()
    views = _usable(views, settings.train.objective)
    check_writable(out)  # told now, not after the training
    started = time.monotonic()
    model = _fit(settings, views, labels)
    seconds = time.monotonic() - started
    _write(settings, views, model, {"inputs": inputs, "views_digest": digest}, seconds)
    say(f"train: wrote {out} ({seconds:.1f} s)")
    return True


def is_trained(settings: Settings, views: Views) -> bool:
    """Whether `train` would do nothing: the results folder holds the run of these settings on these views."""
    out = settings.results
    return _inputs_of(out) == _inputs(settings, views) and _model_format_of(out) == MODEL_FORMAT


def _inputs(settings: Settings, views: Views) -> str:
    return stable_hash({"views": views.digest(), "train": settings.train.model_dump()}, 20)


def _usable(views: Views, objective: str) -> Views:
    """The clips that the objective can train on: the reference needs every modality. Says how many are left out."""
    complete = views.complete()
    n_lacking = len(complete) - int(complete.sum())
    if not n_lacking:
        return views
    first = islice((clip_id for clip_id, whole in zip(views.clip_ids, complete, strict=True) if not whole), 5)
    shown = f"{', '.join(first)}{', ...' if n_lacking > 5 else ''}"
    count = f"{n_lacking} of {len(views.clip_ids)} clips lack a modality"
    if objective != "reference":
        say(f"train: {count} and are clustered by what they have: {shown}")
        return views
    say(f"train: {count} and are left out: {shown}")
    return views.take(complete)


def _fit(settings: Settings, views: Views, labels: Mapping[str, str]) -> "TIB":
    from tib import TIB  # only now: it loads PyTorch, and a wrong folder should be told at once

    section = settings.train
    if section.n_clusters is None:
        raise PipelineError("train.n_clusters is not set: how many clusters? (--clusters 7, or --clusters auto)")
    parameters = section.model_dump(exclude={"seed", "tensorboard"})
    model = TIB(**parameters, random_state=section.seed)
    try:
        with progress(0, "train", "step") as bar, scalars(settings) as write:
            reporter = _Reporter(bar, views.clip_ids, labels, write)
            model.fit(views.arrays, on_step=reporter.show, checkpoint=settings.results / CHECKPOINT)
    except ValueError as error:
        raise PipelineError(f"train: {error}") from None
    except OSError as error:  # no room for what is kept of a great many clips
        raise PipelineError(f"train: {error.strerror or error}") from None
    _tell(model)
    return model


def _tell(model: "TIB") -> None:
    """How K and the schedule were chosen."""
    if model.n_clusters_curve_:
        curve = " ".join(f"{k}:{value:.2f}" for k, value in model.n_clusters_curve_.items())
        say(f"train: {model.n_clusters_} clusters proposed, the most that are as steady as any (K:ARI) {curve}")
    if model.stability_:
        told = ", ".join(f"{name} {value:.3f}" for name, value in model.stability_.items())
        say(f"train: schedule {model.schedule_}; stability (ARI between clusters from other bags of clips): {told}")


class _Reporter:
    """What is shown while training goes on: the bar after each step; a line now and then, scored where it can be."""

    def __init__(
        self, bar: Any, clip_ids: Collection[str], labels: Mapping[str, str], write: "Callable[[StepReport], None]"
    ) -> None:
        self.bar, self.write = bar, write
        # Of a great many clips the clusters in the middle of training are a pass over all of them: not told.
        told = clip_ids if len(clip_ids) <= SCORED_AT_MOST else []
        scored = [(row, labels[clip_id]) for row, clip_id in enumerate(told) if clip_id in labels]
        self.scored, self.truth = [row for row, _ in scored], [label for _, label in scored]
        self.stability = float("nan")
        self.stage = ""

    def show(self, report: "StepReport") -> None:
        if report.stage != self.stage:
            self.stage = report.stage
            self.bar.reset(report.steps)
            self.bar.set_description(f"train ({report.stage})")
            if report.step > 1:
                say(f"train: goes on from its checkpoint, after step {report.step - 1} of {report.steps}")
                self.bar.update(report.step - 1)
        every = LINE_EVERY[report.stage == "reference"]
        if report.step % every == 0 and report.alive > 1:
            self.stability = report.stability()
        stability = "" if math.isnan(self.stability) else f", stability {self.stability:.2f}"
        loss = report.losses["loss"]
        self.bar.set_postfix_str(f"loss {loss:.3f}, {report.alive} restart(s) alive{stability}", refresh=False)
        self.bar.update(1)
        self.write(report)
        if report.step % every == 0:
            self._line(report)

    def _line(self, report: "StepReport") -> None:
        terms = (f"{name} {value:.3f}" for name, value in report.losses.items() if name != "loss")
        where = f"epoch {report.step}" if report.stage == "reference" else f"{report.stage} step {report.step}"
        line = f" {where} {' '.join(terms)}"
        if self.truth:
            scores = clustering_scores(self.truth, report.predict()[self.scored])
            line += f" acc {scores['acc']:.3f} nmi {scores['nmi']:.3f}"
        say(line)


@contextmanager
def scalars(settings: Settings) -> "Iterator[Callable[[StepReport], None]]":
    """What writes a step's losses for TensorBoard, where asked; nothing otherwise.

    Raises:
        PipelineError: asked, and the package is not installed.
    """
    if not settings.train.tensorboard:
        yield lambda report: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise PipelineError(
            "train.tensorboard needs the package tensorboard: .venv/bin/uv pip install tensorboard, or leave it false"
        ) from None
    folder = settings.results / "tensorboard"
    shutil.rmtree(folder, ignore_errors=True)  # an earlier run's curves are not this one's
    with SummaryWriter(str(folder)) as writer:

        def write(report: "StepReport") -> None:
            for name, value in report.losses.items():
                writer.add_scalar(f"{report.stage}/{name}", value, report.step)

        yield write


def _keep_own_encoders(settings: Settings) -> None:
    """Puts what was made of the corpus' own clips into the run's folder, which is all that `predict` needs then.

    That is the audio encoder, and the int8 network. A run that does not use one keeps none, not even an earlier run's;
    what is kept stays when the workdir's has gone.
    """
    audio, int8, out = settings.own_audio, settings.own_int8.parent, settings.results
    kept_int8 = (out / OWN_INT8).parent
    kept = {
        **{
            (audio.with_suffix(suffix), (out / OWN_AUDIO).with_suffix(suffix)): settings.uses_own_audio
            for suffix in (".safetensors", ".json")
        },
        **{
            (int8 / name, kept_int8 / name): settings.uses_own_int8
            for name in ("model.xml", "model.bin", "record.json")
        },
    }
    for (source, target), uses_it in kept.items():
        if settings.views is not None or not uses_it:
            target.unlink(missing_ok=True)
        elif source.is_file():
            link_or_copy(source, target)


def _transcripts_made(settings: Settings, views: Views) -> dict[str, int]:
    """Model -> clustered clips whose words it made; {} where the corpus has them all."""
    if settings.views is not None or "text" not in views.arrays or not (settings.work / "corpus.json").exists():
        return {}
    manifest, _ = manifest_in(settings.work)
    return made_among(manifest, views.clip_ids) if any(clip.transcribed_by for clip in manifest) else {}


def _inputs_of(out: Path) -> str | None:
    try:
        return str(read_record(out / "run.json")["inputs"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there or not whole: trained again


def _model_format_of(out: Path) -> object:
    try:
        return read_record(out / "model.json").get("format_version")
    except (OSError, ValueError):
        return None


def _write(settings: Settings, views: Views, model: "TIB", inputs: Mapping[str, str], seconds: float) -> None:
    out = settings.results
    for stale in ("run.json", "metrics.json", "report.html"):  # from here on the old run is not taken for whole
        (out / stale).unlink(missing_ok=True)
    said = zip(views.clip_ids, model.labels_, model.confidence_, model.agreement_, strict=True)
    write_assignments(out / ASSIGNMENTS, said)
    write_restarts(out, views.clip_ids, model.restart_labels_)
    # The last row has every term; the first ones, of the warm-up, may have one that it lacks.
    terms = dict.fromkeys(name for row in reversed(model.history_) for name in row if name not in ("step", "loss"))
    names = ("step", *terms, "loss")
    history = [tuple(str(row.get(name, "")) for name in names) for row in model.history_]
    write_atomic(out / "history.csv", format_table(names, history))
    model.save(out)
    keep_reduction(settings, out)
    _keep_own_encoders(settings)
    from tib.config import resolve_device

    resolved = settings.model_dump(mode="json")
    write_atomic(out / "config.yaml", yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
    encoders = encoders_of(settings)
    record = {
        **inputs,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "n_clusters": model.n_clusters_,
        "n_clusters_curve": {str(k): value for k, value in model.n_clusters_curve_.items()},
        "seed": settings.train.seed,
        "objective": settings.train.objective,
        "schedule": model.schedule_,
        "stability": model.stability_,
        "restarts": len(model.restart_labels_),
        "n_clips": len(views.clip_ids),
        "settings": resolved,
        "encoders": encoders,
        "made_with": {
            "train": {"device": str(resolve_device(settings.train.device)), **arithmetic()},
            **made_with_of(settings),
        },
        "untrained_encoders": untrained(encoders),
        "transcripts_made": _transcripts_made(settings, views),
        "views": {name: list(array.shape) for name, array in views.arrays.items()},
        "seconds": {"train": round(seconds, 3)},
        **environment(),
    }
    write_atomic(out / "run.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
