"""Stage extract: raw clips -> embeddings in the store, resumable, one row for every clip that fails.

Each file is opened once for all the modalities that still need it, in a process that may die of it. Clips go through in
chunks of the manifest's order; a chunk is prepared, then encoded, and a modality's part is written when its chunk is
done. A chunk always holds the same clips, so a run that was killed ends with the numbers of one that was not.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from extractors.base import Embedding, Extractor, Prepared, Preparer
from extractors.clip import Clip
from extractors.errors import ExtractionError, as_extraction_error
from extractors.media import MediaNeeds
from extractors.preparing import Outcome, prepare_clip
from pipeline.calibrate import calibrate_if_wanted
from pipeline.config import ExtractSettings, Settings
from pipeline.console import detail, say, table, trace
from pipeline.corpora.base import CorpusClip
from pipeline.encoders import build, recipe_of, request_of
from pipeline.errors import PipelineError
from pipeline.features import exact_store
from pipeline.hardware import return_freed_memory, threads_of
from pipeline.manifest import to_clip
from pipeline.meters import Meter, meters
from pipeline.provenance import arithmetic
from pipeline.readers import Readers
from pipeline.sources import sources_of
from pipeline.store import EmbeddingStore, Failure

TRANSCRIPTS_A_CHUNK = 1024  # sorted by length together; seconds of work, which a killed run loses


@dataclass(slots=True)
class Job:
    """One modality's share of a run: what is pending, where it goes, how it went."""

    modality: str
    store: EmbeddingStore
    sources: dict[str, str]  # clip_id -> stamp of what there is to embed now
    pending: set[str]
    failures: dict[str, Failure]
    n_skipped: int
    extractor: Extractor | None = None  # loaded where something is pending
    n_done: int = 0
    n_units: int = 0  # frames, tokens, 10 ms of sound
    n_failed_before: int = 0
    notes: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)  # of units: what befell how many

    @property
    def n_failed(self) -> int:
        return len(self.failures)

    @property
    def n_left(self) -> int:
        """Clips that were not come to."""
        return len(self.pending) - self.n_done - self.n_failed_now

    @property
    def n_failed_now(self) -> int:
        return len(self.failures) - self.n_failed_before


def extract(
    settings: Settings,
    manifest: Sequence[CorpusClip],
    root: Path,
    *,
    only: Sequence[str] = (),
    retry_failed: bool = False,
    max_failures: int | None = None,
) -> int:
    """Embeds every clip that is not in the store yet.

    Args:
        manifest: the corpus' clips, in order.
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
    clips = [to_clip(clip, root) for clip in manifest]
    with Readers(settings.extract) as readers:
        jobs = [_plan(settings, modality, clips, retry_failed, readers) for modality in modalities]
        active = [job for job in jobs if job.pending]
        if active:
            run_jobs(active, clips, settings.extract, readers, max_failures=max_failures)
    for job in jobs:  # a clip that was mended is no failure any more
        job.store.write_failures(job.failures.values())
    _summary(jobs, len(clips), nothing_to_do=not active)
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


def _plan(settings: Settings, modality: str, clips: Sequence[Clip], retry_failed: bool, readers: Readers) -> Job:
    """What is left to do for a modality. The encoder is loaded only if something is."""
    section, keep_sequence = getattr(settings.extract, modality), settings.extract.keep_sequence
    job = account(settings, modality, clips, retry_failed=retry_failed)
    if job is None or job.pending:
        if modality != "text":
            readers.start()  # beside the loading of the encoder
        if modality == "visual":
            calibrate_if_wanted(settings, clips, readers)
        extractor = build(modality, section)
        recipe = recipe_of(modality, section, extractor, keep_sequence=keep_sequence)
        request = request_of(modality, section, keep_sequence=keep_sequence)
        store = EmbeddingStore.create(settings.work / "features", modality, recipe, request)
        job = _job(modality, store, clips, retry_failed)
        job.extractor = extractor
    return job


def open_job(
    features: Path, modality: str, extractor: Extractor, recipe: dict[str, Any], request: str, clips: Sequence[Clip]
) -> Job:
    """The job of an extractor that is loaded already, its store made where there is none."""
    job = _job(modality, EmbeddingStore.create(features, modality, recipe, request), clips, retry_failed=False)
    job.extractor = extractor
    return job


def account(settings: Settings, modality: str, clips: Sequence[Clip], *, retry_failed: bool = False) -> Job | None:
    """What is done, failed and pending of a modality, without its encoder; None where nothing was begun."""
    store = exact_store(settings, modality)
    return _job(modality, store, clips, retry_failed) if store else None


def _job(modality: str, store: EmbeddingStore, clips: Sequence[Clip], retry_failed: bool) -> Job:
    done = store.done()
    sources = sources_of(clips, modality, done)
    pending = {clip_id for clip_id, _ in sources.items() - set(done)}
    failures = {
        clip_id: failure
        for clip_id, failure in store.failures().items()
        if not retry_failed and clip_id in pending and sources[clip_id] == failure.source
    }
    pending -= failures.keys()
    n_skipped = len(clips) - len(pending) - len(failures)
    return Job(modality, store, sources, pending, failures, n_skipped, n_failed_before=len(failures))


def run_jobs(
    jobs: Sequence[Job],
    clips: Sequence[Clip],
    settings: ExtractSettings,
    readers: Readers,
    *,
    what: str = "extract",
    max_failures: int | None = None,
) -> None:
    """Prepares each chunk, encodes it, and writes it as it is done.

    Modalities without media go first: they are quick, and sort by length over many clips at once. A job's encoder is
    let go when its clips are done.

    Args:
        what: stands before the bars.
        max_failures: see `extract`.
    """
    import torch  # not before something is pending

    return_freed_memory()  # of loading
    torch.set_num_threads(threads_of(settings.threads))
    for job in jobs:
        if job.extractor:
            job.store.add_made_with({"pass": job.extractor.plan(), **arithmetic()})
    how = "; ".join(f"{job.modality} {job.extractor.plan()}" for job in jobs if job.extractor)
    say(f"{what}: {how}; {torch.get_num_threads()} threads, {readers.n_workers} decode workers")
    # A GPU computes while the processor reads on. A processor that does both gains nothing by it (docs/performance.md):
    # it reads a chunk with all its cores, then embeds it with all of them.
    ahead = 1 if torch.cuda.is_available() else 0
    without, with_media = ([job for job in jobs if _reads_media(job) == reads] for reads in (False, True))
    with meters({job.modality: len(job.pending) for job in jobs}, what) as bars:
        for group, first, size in (
            (without, TRANSCRIPTS_A_CHUNK, TRANSCRIPTS_A_CHUNK),
            (with_media, 1, settings.chunk_size),
        ):
            for job in group:
                bars[job.modality].begin()
            chunks = _chunks(clips, group, first, size)
            prepared = (
                _prepared(readers, chunks, group, ahead) if group is with_media else _prepared_here(chunks, group)
            )
            for chunk in prepared:
                for job in group:
                    ready = [(clip, outcome[job.modality]) for clip, outcome in chunk if job.modality in outcome]
                    if ready:
                        _finish(job, ready, bars[job.modality])
                if max_failures is not None and len(_failed_now(jobs)) > max_failures:
                    return
            for job in group:
                job.extractor = None
            return_freed_memory()


def _failed_now(jobs: Sequence[Job]) -> set[str]:
    """Clips that failed in this run, in whatever modality."""
    return {clip_id for job in jobs for clip_id in job.failures.keys() & job.pending}


def _reads_media(job: Job) -> bool:
    return job.extractor is not None and job.extractor.preparer.needs != MediaNeeds()


def _chunks(clips: Sequence[Clip], jobs: Sequence[Job], first: int, size: int) -> list[Sequence[Clip]]:
    """Those with something pending. The first is of `first` clips, each after it twice as long, up to `size`.

    So the first embeddings are there soon; and a clip is always in the same chunk, whatever is done already.
    """
    chunks: list[Sequence[Clip]] = []
    start, length = 0, min(first, size)
    while start < len(clips):
        chunk = clips[start : start + length]
        start, length = start + length, min(2 * length, size)
        if any(clip.clip_id in job.pending for clip in chunk for job in jobs):
            chunks.append(chunk)
    return chunks


def _prepared(
    readers: Readers, chunks: Sequence[Sequence[Clip]], jobs: Sequence[Job], ahead: int
) -> Iterator[list[tuple[Clip, Outcome]]]:
    """Chunks with every clip prepared; the `ahead` next ones are being read while the caller encodes this one."""
    waiting: deque[list[tuple[Clip, Mapping[str, Preparer], Future[Outcome]]]] = deque()
    for index in range(len(chunks)):
        for chunk in chunks[index + len(waiting) : index + 1 + ahead]:
            wanted = [(clip, _preparers(clip, jobs)) for clip in chunk]
            waiting.append([(clip, them, readers.submit(prepare_clip, clip, them)) for clip, them in wanted])
        yield [(clip, _outcome(readers, them, future)) for clip, them, future in waiting.popleft()]


def _prepared_here(chunks: Sequence[Sequence[Clip]], jobs: Sequence[Job]) -> Iterator[list[tuple[Clip, Outcome]]]:
    """The same in this process, where no file is read."""
    for chunk in chunks:
        yield [(clip, prepare_clip(clip, _preparers(clip, jobs))) for clip in chunk]


def _preparers(clip: Clip, jobs: Sequence[Job]) -> dict[str, Preparer]:
    return {job.modality: job.extractor.preparer for job in jobs if clip.clip_id in job.pending and job.extractor}


def _outcome(readers: Readers, preparers: Mapping[str, Preparer], future: "Future[Outcome]") -> Outcome:
    try:
        return readers.result(future)
    except ExtractionError as error:  # the reading process was stopped or died
        return dict.fromkeys(preparers, error)


def _finish(job: Job, ready: Sequence[tuple[Clip, Prepared | ExtractionError]], meter: Meter) -> None:
    """Encodes and writes one chunk of one modality."""
    failed = {clip.clip_id: outcome for clip, outcome in ready if isinstance(outcome, ExtractionError)}
    prepared = [outcome for _, outcome in ready if isinstance(outcome, Prepared)]
    embeddings: list[Embedding] = []
    for item, result in zip(prepared, _encode(job, prepared, meter.advance), strict=True):
        if isinstance(result, ExtractionError):
            failed[item.clip_id] = result
        else:
            embeddings.append(result)
            job.counts.update(item.counts)
            if item.note:
                job.notes.append(f"{item.clip_id}: {item.note}")
    if failed:
        for clip_id, error in failed.items():
            detail(f"extract: {job.modality}: {clip_id} failed, {error.cause}: {error.message}")
            source = job.sources[clip_id]
            job.failures[clip_id] = Failure(clip_id, error.stage, error.cause, error.message, source)
        job.store.write_failures(job.failures.values())
    if embeddings:
        job.store.write_part(embeddings, job.sources)
        for embedding in embeddings:
            trace(f"extract: {job.modality}: {embedding.clip_id} done, from {embedding.n_units} units")
    job.n_done += len(embeddings)
    job.n_units += sum(embedding.n_units for embedding in embeddings)
    meter.show(job.n_done, job.n_failed_now, job.n_units)


def _encode(
    job: Job, prepared: list[Prepared], on_clips: Callable[[int], None] = lambda n: None
) -> list[Embedding | ExtractionError]:
    """Encodes together; if that breaks, one by one, so that only the clip at fault is lost."""
    if not prepared or job.extractor is None:
        return []
    try:
        return list(job.extractor.encode(prepared, keep_sequence=job.store.keeps_sequences, on_clips=on_clips))
    except Exception as error:
        if len(prepared) == 1:
            return [as_extraction_error("encode", error)]
        return [_encode(job, [item])[0] for item in prepared]


def _named(job: Job) -> str:
    trained = job.store.recipe["weights"].get("trained", True)
    return job.modality if trained else f"{job.modality} (RANDOM weights, untrained)"


def _summary(jobs: Sequence[Job], n_clips: int, *, nothing_to_do: bool) -> None:
    for job in jobs:
        for note in job.notes[:5]:
            say(f"extract: {job.modality}: {note}")
        if len(job.notes) > 5:
            say(f"extract: {job.modality}: and {len(job.notes) - 5} more like these")
        for what, count in job.counts.items():
            say(f"extract: {job.modality}: {count} of {job.n_units} {what}")
    if nothing_to_do:
        say(f"extract: nothing to do: {n_clips} clips accounted for in {', '.join(j.modality for j in jobs)}")
    rows = [(_named(j), j.n_done, j.n_failed, j.n_skipped, j.n_left, n_clips) for j in jobs]
    columns = ("modality", "done now", "failed", "done before", "not tried", "clips")
    table(f"extract: {n_clips} clips", columns, rows)
    for job in jobs:
        causes: dict[str, int] = {}
        for failure in job.failures.values():
            causes[failure.cause] = causes.get(failure.cause, 0) + 1
        if causes:
            told = ", ".join(f"{count} {cause}" for cause, count in sorted(causes.items()))
            say(f"extract: {job.modality}: {told}: see {job.store.folder / 'failures.csv'}")
            first = next(iter(job.failures.values()))
            say(f"  e.g. {first.clip_id}: {first.message}")
        if job.n_failed == n_clips > 1:
            say(f"  no clip has {job.modality}: leave it out with --set extract.{job.modality}=null")
    if any(j.n_failed for j in jobs):
        say("extract: a clip that failed is tried again when its file or words change, or with --retry-failed")
