"""Extraction by this process and the processes that read for it."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from extractors.base import Preparer
from pipeline.config import ExtractSettings
from pipeline.console import say
from pipeline.engines.jobs import Chunk, FailureLimit, Job, Told, chunks_of, in_turn
from pipeline.engines.work import Encoder, Reading, Ready, Wanted, begin_reading, embed, end_reading, prepare_here
from pipeline.hardware import return_freed_memory, threads_of
from pipeline.ledger import Ledger
from pipeline.meters import Meter, meters
from pipeline.provenance import arithmetic
from pipeline.readers import Readers

# Chunks that are read while one is embedded: a GPU computes meanwhile, and where the network is small, as the sound's,
# no core waits for the last clip of a chunk (docs/performance.md).
AHEAD = 1


def run_jobs(
    jobs: Sequence[Job],
    ledger: Ledger,
    settings: ExtractSettings,
    readers: Readers,
    *,
    what: str = "extract",
    max_failures: int | None = None,
) -> None:
    """Prepares each chunk, encodes it, and writes it as it is done. A job's encoder is let go when its clips are done.

    Args:
        jobs: each accounted for in the ledger.
        what: stands before the bars.
        max_failures: stop when more than so many clips have failed in this run.
    """
    import torch  # not before something is pending

    return_freed_memory()  # of loading
    torch.set_num_threads(threads_of(settings.threads))
    for job in jobs:
        if job.extractor:
            job.store.add_made_with({"pass": job.extractor.plan(), **arithmetic()})
    how = "; ".join(f"{job.modality} {job.extractor.plan()}" for job in jobs if job.extractor)
    say(f"{what}: {how}; {torch.get_num_threads()} threads, {readers.n_workers} decode workers")
    limit = FailureLimit(max_failures)
    with meters({job.modality: job.n_pending for job in jobs}, what) as bars:
        for group, first, size in in_turn(jobs, settings):
            for job in group:
                bars[job.modality].begin()
            chunks = chunks_of(ledger.pending([job.modality for job in group]), first, size)
            for chunk, ready in _prepared(readers, chunks, group):
                told = [_embedded(job, chunk, ready, bars[job.modality]) for job in group]
                if any([limit.take(one) for one in told if one]):
                    return
            for job in group:
                job.extractor = None
            return_freed_memory()


def _prepared(readers: Readers, chunks: Iterator[Chunk], jobs: Sequence[Job]) -> Iterator[tuple[Chunk, Ready]]:
    """Chunks with every clip prepared; the next AHEAD are being read while the caller encodes this one."""
    preparers = {job.modality: job.extractor.preparer for job in jobs if job.extractor}
    if not any(job.reads_media for job in jobs):
        yield from ((chunk, prepare_here(_wanted(chunk, preparers))) for chunk in chunks)
        return
    waiting: deque[tuple[Chunk, Reading]] = deque()
    for chunk in chunks:
        waiting.append((chunk, begin_reading(readers, _wanted(chunk, preparers))))
        if len(waiting) > AHEAD:
            yield _read(readers, *waiting.popleft())
    while waiting:
        yield _read(readers, *waiting.popleft())


def _read(readers: Readers, chunk: Chunk, reading: Reading) -> tuple[Chunk, Ready]:
    return chunk, end_reading(readers, reading)


def _wanted(chunk: Chunk, preparers: Mapping[str, Preparer]) -> Wanted:
    return [(clip, {modality: preparers[modality] for modality in stamps}) for clip, stamps in chunk]


def _embedded(job: Job, chunk: Chunk, ready: Ready, meter: Meter) -> Told | None:
    """Embeds one chunk of one modality, and tells."""
    if job.extractor is None:
        return None
    told = embed(Encoder(job.modality, job.extractor, job.store), chunk, ready, meter.advance)
    if told:
        job.take(told)
        meter.show(job.n_done, job.n_failed_now, job.n_units)
    return told
