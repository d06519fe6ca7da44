"""Extraction by this process and the processes that read for it."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from extractors.base import Preparer
from extractors.clip import Clip
from pipeline.config import ExtractSettings
from pipeline.console import say
from pipeline.engines.jobs import Job, chunks_of, in_turn, too_many_failed
from pipeline.engines.work import Encoder, Reading, Ready, Wanted, begin_reading, embed, end_reading, prepare_here
from pipeline.hardware import return_freed_memory, threads_of
from pipeline.meters import Meter, meters
from pipeline.provenance import arithmetic
from pipeline.readers import Readers


def run_jobs(
    jobs: Sequence[Job],
    clips: Sequence[Clip],
    settings: ExtractSettings,
    readers: Readers,
    *,
    what: str = "extract",
    max_failures: int | None = None,
) -> None:
    """Prepares each chunk, encodes it, and writes it as it is done. A job's encoder is let go when its clips are done.

    Args:
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
    # A GPU computes while the processor reads on. A processor that does both gains nothing by it (docs/performance.md):
    # it reads a chunk with all its cores, then embeds it with all of them.
    ahead = 1 if torch.cuda.is_available() else 0
    with meters({job.modality: len(job.pending) for job in jobs}, what) as bars:
        for group, first, size in in_turn(jobs, settings):
            for job in group:
                bars[job.modality].begin()
            for ready in _prepared(readers, chunks_of(clips, group, first, size), group, ahead):
                for job in group:
                    _finish(job, ready, bars[job.modality])
                if too_many_failed(jobs, max_failures):
                    return
            for job in group:
                job.extractor = None
            return_freed_memory()


def _prepared(readers: Readers, chunks: Sequence[Sequence[Clip]], jobs: Sequence[Job], ahead: int) -> Iterator[Ready]:
    """Chunks with every clip prepared; the `ahead` next ones are being read while the caller encodes this one."""
    if not any(job.reads_media for job in jobs):
        yield from (prepare_here(_wanted(chunk, jobs)) for chunk in chunks)
        return
    waiting: deque[Reading] = deque()
    for index in range(len(chunks)):
        for chunk in chunks[index + len(waiting) : index + 1 + ahead]:
            waiting.append(begin_reading(readers, _wanted(chunk, jobs)))
        yield end_reading(readers, waiting.popleft())


def _wanted(chunk: Sequence[Clip], jobs: Sequence[Job]) -> Wanted:
    return [(clip, _preparers(clip, jobs)) for clip in chunk]


def _preparers(clip: Clip, jobs: Sequence[Job]) -> Mapping[str, Preparer]:
    return {job.modality: job.extractor.preparer for job in jobs if clip.clip_id in job.pending and job.extractor}


def _finish(job: Job, ready: Ready, meter: Meter) -> None:
    """Embeds one chunk of one modality, and tells."""
    if job.extractor is None:
        return
    told = embed(Encoder(job.modality, job.extractor, job.store), job.sources, ready, meter.advance)
    if told:
        job.take(told)
        meter.show(job.n_done, job.n_failed_now, job.n_units)
