"""Stage extract: raw clips -> embeddings in the store, resumable, one row for every clip that fails.

Each file is opened once for all the modalities that still need it, in a process that may die of it. Clips go through in
chunks of the manifest's order; a chunk is prepared, then encoded, and a modality's part is written when its chunk is
done. A chunk always holds the same clips, so a run that was killed ends with the numbers of one that was not.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from extractors.base import Extractor
from pipeline.calibrate import calibrate_if_wanted
from pipeline.config import ExtractSettings, Settings
from pipeline.console import say, table
from pipeline.corpora.base import CorpusClip
from pipeline.encoders import build, recipe_of, request_of
from pipeline.engines.jobs import Job
from pipeline.engines.local import run_jobs
from pipeline.engines.on_ray import run_on_ray
from pipeline.errors import PipelineError
from pipeline.failures import Failure
from pipeline.features import exact_store
from pipeline.ledger import Ledger
from pipeline.manifest import to_clip
from pipeline.readers import Readers
from pipeline.store import EmbeddingStore


def extract(
    settings: Settings,
    manifest: Iterable[CorpusClip],
    root: Path,
    *,
    only: Sequence[str] = (),
    retry_failed: bool = False,
    max_failures: int | None = None,
) -> int:
    """Embeds every clip that is not in the store yet.

    Args:
        manifest: the corpus' clips, in order: what can be gone through several times, a list or a `Manifest`.
        root: folder their media paths are relative to.
        only: modalities; none means all that are switched on.
        retry_failed: also those that failed before and have not changed since.
        max_failures: stop when more than so many clips have failed in this run.
    Returns:
        how many failures there are in all, modalities counted apart.
    Raises:
        PipelineError: the run cannot start, the store cannot be written, or it was stopped for its failures; what was
            done is kept.
    """
    modalities = _chosen(settings.extract, only)
    with (
        Readers(settings.extract) as readers,
        Ledger(lambda: (to_clip(clip, root) for clip in manifest), modalities) as ledger,
    ):
        jobs = [_plan(settings, modality, ledger, retry_failed, readers) for modality in modalities]
        active = [job for job in jobs if job.n_pending]
        if active and settings.engine.kind == "ray":
            run_on_ray(active, ledger, settings, max_failures=max_failures)
        elif active:
            run_jobs(active, ledger, settings.extract, readers, max_failures=max_failures)
        failed = {job.modality: fold_failures(job, ledger) for job in jobs}
    _summary(jobs, failed, ledger.n_clips, nothing_to_do=not active)
    if any(job.n_left for job in jobs):
        left = ", ".join(f"{job.n_left} {job.modality}" for job in jobs if job.n_left)
        raise PipelineError(
            f"stopped, as more than {max_failures} clips have failed (--max-failures); not tried yet: {left}; mend "
            "them and run again, or allow more"
        )
    return sum(job.n_failed for job in jobs)


def _chosen(settings: ExtractSettings, only: Sequence[str]) -> tuple[str, ...]:
    known = settings.modalities()
    for modality in only:
        if modality not in known:
            raise PipelineError(f"--only {modality}: not a modality of this run; known: {', '.join(known)}")
    chosen = tuple(m for m in known if not only or m in only)
    if not chosen:
        raise PipelineError("every modality is switched off; set one of extract.visual, extract.text, extract.audio")
    return chosen


def _plan(settings: Settings, modality: str, ledger: Ledger, retry_failed: bool, readers: Readers) -> Job:
    """What is left to do for a modality. The encoder is loaded only if something is."""
    section, keep_sequence = getattr(settings.extract, modality), settings.extract.keep_sequence
    store = exact_store(settings, modality)
    job = _job(modality, store, ledger, retry_failed) if store else None
    if job is None or job.n_pending:
        if modality != "text" and settings.engine.kind == "local":
            readers.start()  # beside the loading of the encoder
        if modality == "visual":
            calibrate_if_wanted(settings, ledger, readers)
        extractor = build(modality, section)
        recipe = recipe_of(modality, section, extractor, keep_sequence=keep_sequence)
        request = request_of(modality, section, keep_sequence=keep_sequence)
        made = EmbeddingStore.create(settings.features, modality, recipe, request)
        if job is None or made.folder != job.store.folder:  # weights on a hub can change
            job = _job(modality, made, ledger, retry_failed)
        job.extractor = extractor
    return job


def open_job(
    features: Path, modality: str, extractor: Extractor, recipe: dict[str, Any], request: str, ledger: Ledger
) -> Job:
    """The job of an extractor that is loaded already, its store made where there is none."""
    job = _job(modality, EmbeddingStore.create(features, modality, recipe, request), ledger, retry_failed=False)
    job.extractor = extractor
    return job


def _job(modality: str, store: EmbeddingStore, ledger: Ledger, retry_failed: bool) -> Job:
    return Job(modality, store, *ledger.account(modality, store, retry_failed=retry_failed))


class Failed(NamedTuple):
    """The failures that are left: how many of each cause, and the first."""

    causes: Counter[str]
    first: Failure | None


def fold_failures(job: Job, ledger: Ledger) -> Failed:
    """Writes the failures that are left as failures.csv: a clip that was mended or is gone is none any more."""
    if job.n_pending:  # something has happened since
        ledger.account(job.modality, job.store)
    causes: Counter[str] = Counter()
    firsts: list[Failure] = []

    def counted() -> Iterator[Failure]:
        for failure in ledger.failures(job.modality):
            causes[failure.cause] += 1
            if not firsts:
                firsts.append(failure)
            yield failure

    job.store.failed.write(counted())
    return Failed(causes, next(iter(firsts), None))


def _named(job: Job) -> str:
    trained = job.store.recipe["weights"].get("trained", True)
    return job.modality if trained else f"{job.modality} (RANDOM weights, untrained)"


def _summary(jobs: Sequence[Job], failed: Mapping[str, Failed], n_clips: int, *, nothing_to_do: bool) -> None:
    for job in jobs:
        for note in job.notes:
            say(f"extract: {job.modality}: {note}")
        if job.n_notes > len(job.notes):
            say(f"extract: {job.modality}: and {job.n_notes - len(job.notes)} more like these")
        for what, count in job.counts.items():
            say(f"extract: {job.modality}: {count} of {job.n_units} {what}")
    if nothing_to_do:
        say(f"extract: nothing to do: {n_clips} clips accounted for in {', '.join(j.modality for j in jobs)}")
    rows = [
        (_named(j), j.n_done, j.n_failed, n_clips - j.n_pending - j.n_failed_before, j.n_left, n_clips) for j in jobs
    ]
    columns = ("modality", "done now", "failed", "done before", "not tried", "clips")
    table(f"extract: {n_clips} clips", columns, rows)
    for job in jobs:
        causes, first = failed[job.modality]
        if first:
            told = ", ".join(f"{count} {cause}" for cause, count in sorted(causes.items()))
            say(f"extract: {job.modality}: {told}: see {job.store.folder / 'failures.csv'}")
            say(f"  e.g. {first.clip_id}: {first.message}")
        if job.n_failed == n_clips > 1:
            say(f"  no clip has {job.modality}: leave it out with --set extract.{job.modality}=null")
    if any(j.n_failed for j in jobs):
        say("extract: a clip that failed is tried again when its file or words change, or with --retry-failed")
