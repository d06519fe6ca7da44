"""What is to be embedded, in which chunks, and how it went: kept by the process that a person started."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from extractors.base import Extractor
from extractors.clip import Clip
from extractors.media import MediaNeeds
from pipeline.config import ExtractSettings
from pipeline.console import detail, trace
from pipeline.store import EmbeddingStore, Failure

TRANSCRIPTS_A_CHUNK = 1024  # sorted by length together; seconds of work, which a killed run loses


@dataclass(frozen=True, slots=True)
class Told:
    """What came of one modality's clips of a chunk: small, as it may come from another machine.

    Attributes:
        units: clip_id -> frames, tokens or 10 ms of sound, of those that are in the store now.
        notes: what a person should know of single clips though nothing failed.
        counts: of units: what befell how many.
    """

    modality: str
    units: dict[str, int]
    failures: list[Failure]
    notes: list[str]
    counts: Counter[str]


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

    @property
    def reads_media(self) -> bool:
        return self.extractor is not None and self.extractor.preparer.needs != MediaNeeds()

    def take(self, told: Told) -> None:
        """Adds what came of a chunk; its failures are on disk then, as its embeddings are already."""
        for failure in told.failures:
            detail(f"extract: {self.modality}: {failure.clip_id} failed, {failure.cause}: {failure.message}")
            self.failures[failure.clip_id] = failure
        if told.failures:
            self.store.add_failures(told.failures)
        for clip_id, n_units in told.units.items():
            trace(f"extract: {self.modality}: {clip_id} done, from {n_units} units")
        self.n_done += len(told.units)
        self.n_units += sum(told.units.values())
        self.notes += told.notes
        self.counts.update(told.counts)


def in_turn(jobs: Sequence[Job], settings: ExtractSettings) -> Iterator[tuple[list[Job], int, int]]:
    """Jobs that go through together, with the length of their first chunk and of the longest.

    Those without media go first: they are quick, and sort by length over many clips at once.
    """
    without = [job for job in jobs if not job.reads_media]
    with_media = [job for job in jobs if job.reads_media]
    yield without, TRANSCRIPTS_A_CHUNK, TRANSCRIPTS_A_CHUNK
    yield with_media, 1, settings.chunk_size


def chunks_of(clips: Sequence[Clip], jobs: Sequence[Job], first: int, size: int) -> list[Sequence[Clip]]:
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


def too_many_failed(jobs: Sequence[Job], most: int | None) -> bool:
    """Whether more than `most` clips failed in this run, in whatever modality; None is no limit."""
    return most is not None and len({clip_id for job in jobs for clip_id in job.failures.keys() & job.pending}) > most
