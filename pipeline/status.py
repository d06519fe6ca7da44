"""What each stage has done and what it would do now, with the settings at hand. Nothing is written, no encoder loaded.

The stages' own questions are asked (`account`, `is_reduced`, `is_trained`, `is_scored`): what is said here is what they
would do.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.cluster import is_trained
from pipeline.config import Settings
from pipeline.console import Output, output
from pipeline.corpora.tables import read_records
from pipeline.errors import PipelineError
from pipeline.evaluate import is_scored, labels_of
from pipeline.features import exact_store
from pipeline.ledger import Ledger
from pipeline.manifest import Manifest, manifest_in, read_labels, to_clip
from pipeline.records import Reduction, Run, Shape, TrainedAudio, read_metrics, read_record
from pipeline.reduce import is_reduced, views_of

DONE, TO_DO, WAITS, UNUSED = "done", "to do", "waits", "not used"


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage.

    Attributes:
        state: "done" (it would do nothing), "to do", "waits" (for what `would` names), "not used".
        has: what it left on disk.
        would: what it would do now.
    """

    stage: str
    state: str
    has: str
    would: str


@dataclass(frozen=True, slots=True)
class Modality:
    """The accounts of a modality: clips = done + failed + pending.

    Attributes:
        clips: in the manifest.
        fingerprint: of the recipe, which names the folder; None where nothing was begun with these settings.
        extractor: "visual/vgg16".
        trained: False where the weights are random; None where nothing was begun.
        causes: of the failures: cause -> clips.
    """

    modality: str
    clips: int
    done: int
    failed: int
    pending: int
    fingerprint: str | None
    extractor: str
    trained: bool | None
    causes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Status:
    """Of a workdir and a results folder under one set of settings."""

    name: str
    workdir: str
    results: str
    stages: list[Stage]
    modalities: list[Modality]

    @property
    def next(self) -> str | None:
        """The first stage with something to do."""
        return next((stage.stage for stage in self.stages if stage.state == TO_DO), None)

    def values(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**asdict(self), "next": self.next}


def status(settings: Settings) -> Status:
    """Looks at what is on disk.

    Raises:
        PipelineError: a file of the workdir cannot be read; says which.
    """
    with output(Output(quiet=True)):  # what the stages remark while they look is for those who run them
        return _status(settings)


def _status(settings: Settings) -> Status:
    if settings.views:
        told = f"views are cached features, {settings.views}"
        stages = [Stage(name, UNUSED, "", told) for name in ("prepare", "pretrain-audio", "extract", "reduce")]
        modalities = []
    else:
        modalities = accounts(settings)
        prepared, trained_audio = _prepared(settings), _pretrained(settings, modalities)
        stages = [prepared, trained_audio, _extracted(settings, modalities), _reduced(settings, modalities)]
    stages += _of_the_run(settings, stages[-1])
    return Status(settings.name, str(settings.work), str(settings.results), stages, modalities)


def accounts(settings: Settings) -> list[Modality]:
    """Every modality that is switched on, with its counts; none without a manifest."""
    found, modalities = _manifest(settings), settings.extract.modalities()
    if found is None or not modalities:
        return []
    manifest, root = found
    with Ledger(lambda: (to_clip(clip, root) for clip in manifest), modalities) as ledger:
        return [_account(settings, modality, ledger) for modality in modalities if ledger.n_clips]


def _account(settings: Settings, modality: str, ledger: Ledger) -> Modality:
    extractor = getattr(settings.extract, modality).backbone
    store = exact_store(settings, modality)
    n_pending, n_failed = ledger.account(modality, store)
    if store is None:
        return Modality(modality, ledger.n_clips, 0, 0, n_pending, None, extractor, None, {})
    causes = dict(sorted(Counter(failure.cause for failure in ledger.failures(modality)).items()))
    trained = bool(store.recipe["weights"].get("trained", True))
    counts = (ledger.n_clips, ledger.n_clips - n_pending - n_failed, n_failed, n_pending)
    return Modality(modality, *counts, store.fingerprint, extractor, trained, causes)


def _manifest(settings: Settings) -> tuple[Manifest, Path] | None:
    """The clips, and the folder that their media lie in; None where `prepare` has not run."""
    if not (settings.work / "corpus.json").exists():
        return None
    return manifest_in(settings.work)


def _prepared(settings: Settings) -> Stage:
    root, kind = settings.corpus.root, settings.corpus.kind
    there = root is not None and (root.is_dir() or kind == "synthetic")
    found = _manifest(settings)
    n_clips = sum(1 for _ in found[0]) if found else 0
    if not found or not n_clips:
        if there:
            return Stage("prepare", TO_DO, "", f"read {root}")
        told = f"there is no folder {root}" if root else "corpus.root is not set (CLIPS=DIR, or --clips DIR)"
        return Stage("prepare", WAITS, "", told)
    labels, problems = settings.work / "labels.csv", settings.work / "problems.csv"
    n_labels = len(read_labels(labels)) if labels.exists() else 0
    n_problems = _count_problems(problems)
    has = f"{n_clips} clips, {n_labels} labels" + (f", {n_problems} problems" if n_problems else "")
    _, before = found
    if not there:
        return Stage("prepare", DONE, has, "nothing: its clips are not at hand" if root else "nothing: no corpus.root")
    if root is not None and before != root.resolve():
        return Stage("prepare", TO_DO, has, f"read {root}, in place of {before}")
    return Stage("prepare", DONE, has, f"look for changes in {root}")


def _pretrained(settings: Settings, modalities: list[Modality]) -> Stage:
    weights, audio = settings.own_audio, settings.extract.audio
    if not settings.uses_own_audio:
        told = f"{audio.backbone}, weights {audio.weights}" if audio else "extract.audio is null"
        return Stage("pretrain-audio", UNUSED, "", told)
    record = _read(weights.with_suffix(".json"), TrainedAudio)
    if record and settings.own_audio_is_trained:
        recall = record["best"]["audio_to_image"]["recall@10"]
        has = f"{record['extractor']}: recall@10 {recall:.2f}, chance {record['best']['chance']['recall@10']:.2f}"
        return Stage("pretrain-audio", DONE, has, "nothing")
    if not modalities:
        return Stage("pretrain-audio", WAITS, "", "prepare first")
    begun = weights.with_name("checkpoint.pt").exists()
    return Stage("pretrain-audio", TO_DO, "a checkpoint" if begun else "", "go on training" if begun else "train")


def _count_problems(path: Path) -> int:
    try:
        return len(read_records(path)) if path.exists() else 0
    except (OSError, ValueError) as error:
        raise PipelineError(f"cannot read {path} ({error}); run `prepare` again") from None


def _extracted(settings: Settings, modalities: list[Modality]) -> Stage:
    if not settings.extract.modalities():
        return Stage("extract", WAITS, "", "every modality is switched off")
    if not modalities:
        return Stage("extract", WAITS, "", "prepare first")
    done, failed = (", ".join(f"{m.modality} {getattr(m, what)}" for m in modalities) for what in ("done", "failed"))
    has = f"{done}" + (f"; failed: {failed}" if any(m.failed for m in modalities) else "")
    pending = ", ".join(f"{m.modality} {m.pending}" for m in modalities if m.pending)
    if pending:
        return Stage("extract", TO_DO, has, f"embed {pending}")
    return Stage("extract", DONE, has, "nothing" if not any(m.failed for m in modalities) else "nothing but a retry")


def _reduced(settings: Settings, modalities: list[Modality]) -> Stage:
    recipe = _read(settings.work / "reduced" / "recipe.json", Reduction)
    dims = f"{recipe['dim']} dims" if recipe.get("dim") else "all dims"
    has = f"{', '.join(recipe['features'])}: {dims}" if recipe else ""
    if not modalities:
        return Stage("reduce", WAITS, has, "prepare first")
    try:
        done = is_reduced(settings)
    except PipelineError as error:
        begun = any(m.fingerprint for m in modalities)
        return Stage("reduce", WAITS, has, str(error) if begun else "extract first")
    if done:
        return Stage("reduce", DONE, has, "nothing")
    return Stage("reduce", TO_DO, has, "fit again: embeddings or settings changed" if has else "fit and apply")


def _of_the_run(settings: Settings, before: Stage) -> list[Stage]:
    """Train, evaluate and report."""
    run, metrics = _read(settings.results / "run.json", Run), _metrics(settings.results / "metrics.json")
    trained = f"{run['n_clusters']} clusters of {run.get('n_clips', '?')} clips" if run else ""
    scores = {name: metrics["scores"][name] for name in ("acc", "nmi")} if "scores" in metrics else {}
    scored = ", ".join(f"{name.upper()} {value:.3f}" for name, value in scores.items())
    has = {
        "train": trained,
        "evaluate": scored or ("no labels" if metrics else ""),
        "report": "report.html" if (settings.results / "report.html").exists() else "",
    }
    states = _run_states(settings, before, has)
    return [Stage(stage, state, has[stage], would) for stage, (state, would) in zip(has, states, strict=True)]


def _run_states(settings: Settings, before: Stage, has: Mapping[str, str]) -> list[tuple[str, str]]:
    """(state, what it would do) of train, evaluate and report."""
    nothing = (DONE, "nothing")
    waiting = [(WAITS, "reduce first"), (WAITS, "train first"), (WAITS, "evaluate first")]
    if before.state in (TO_DO, WAITS):
        return waiting
    try:
        views = views_of(settings)
        labels = labels_of(settings, views)
    except PipelineError as error:
        return [(WAITS, str(error)), *waiting[1:]]
    if not is_trained(settings, views):
        if settings.train.n_clusters is None:
            return [(WAITS, "train.n_clusters is not set"), *waiting[1:]]
        what = "cluster again: views or settings changed" if has["train"] else "cluster the views"
        return [(TO_DO, what), *waiting[1:]]
    if not is_scored(settings, labels):
        return [nothing, (TO_DO, "score the clusters"), waiting[2]]
    page, metrics = settings.results / "report.html", settings.results / "metrics.json"
    stale = not has["report"] or page.stat().st_mtime_ns < metrics.stat().st_mtime_ns
    return [nothing, nothing, (TO_DO, "write the page") if stale else nothing]


def _metrics(path: Path) -> Mapping[str, Any]:
    try:
        return read_metrics(path)
    except (OSError, ValueError):
        return {}


def _read(path: Path, shape: type[Shape]) -> Mapping[str, Any]:
    """A record of a stage; {} where it is not there or not whole, as the stages take it."""
    try:
        return read_record(path, shape)
    except (OSError, ValueError):
        return {}
