"""What is to be embedded, in which chunks, and how it went: kept by the process that a person started."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from extractors.base import Extractor
from extractors.clip import Clip
from extractors.media import MediaNeeds
from pipeline.config import ExtractSettings
from pipeline.console import detail, trace
from pipeline.failures import Failure
from pipeline.ledger import Stamps
from pipeline.store import EmbeddingStore

TRANSCRIPTS_A_CHUNK = 1024  # sorted by length together; seconds of work, which a killed run loses
NOTES_SHOWN = 5

Chunk = list[tuple[Clip, Stamps]]


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
    n_pending: int
    n_failed_before: int  # as they are now, so that they are not tried again
    extractor: Extractor | None = None  # loaded where something is pending
    n_done: int = 0
    n_failed_now: int = 0
    n_units: int = 0  # frames, tokens, 10 ms of sound
    n_notes: int = 0
    notes: list[str] = field(default_factory=list)  # the first of them
    counts: Counter[str] = field(default_factory=Counter)  # of units: what befell how many

    @property
    def n_failed(self) -> int:
        return self.n_failed_before + self.n_failed_now

    @property
    def n_left(self) -> int:
        """Clips that were not come to."""
        return self.n_pending - self.n_done - self.n_failed_now

    @property
    def reads_media(self) -> bool:
        return self.extractor is not None and self.extractor.preparer.needs != MediaNeeds()

    def take(self, told: Told) -> None:
        """Adds what came of a chunk; its failures are on disk then, as its embeddings are already."""
        for failure in told.failures:
            detail(f"extract: {self.modality}: {failure.clip_id} failed, {failure.cause}: {failure.message}")
        if told.failures:
            self.store.failed.add(told.failures)
        for clip_id, n_units in told.units.items():
            trace(f"extract: {self.modality}: {clip_id} done, from {n_units} units")
        self.n_done += len(told.units)
        self.n_failed_now += len(told.failures)
        self.n_units += sum(told.units.values())
        self.n_notes += len(told.notes)
        self.notes += told.notes[: NOTES_SHOWN - len(self.notes)]
        self.counts.update(told.counts)


class FailureLimit:
    """Ends a run in which too many clips fail, in whatever modality."""

    def __init__(self, most: int | None) -> None:
        """Of more than `most` clips; None is no limit."""
        self._most = most
        self._clip_ids: set[str] = set()

    def take(self, told: Told) -> bool:
        """Adds what came of a chunk; whether the limit is passed now."""
        if self._most is None:
            return False
        self._clip_ids.update(failure.clip_id for failure in told.failures)
        return len(self._clip_ids) > self._most


def in_turn(jobs: Sequence[Job], settings: ExtractSettings) -> Iterator[tuple[list[Job], int, int]]:
    """Jobs that go through together, with the length of their first chunk and of the longest.

    Those without media go first: they are quick, and sort by length over many clips at once.
    """
    without = [job for job in jobs if not job.reads_media]
    with_media = [job for job in jobs if job.reads_media]
    if without:
        yield without, TRANSCRIPTS_A_CHUNK, TRANSCRIPTS_A_CHUNK
    if with_media:
        yield with_media, 1, settings.chunk_size


def chunks_of(pending: Iterable[tuple[int, Clip, Stamps]], first: int, size: int) -> Iterator[Chunk]:
    """What is pending, cut where the corpus is cut: after `first` clips, and then after twice as many each time.

    So the first embeddings are there soon; and a clip is always in the same chunk, whatever is done already.

    Args:
        pending: as `Ledger.pending` gives it.
        size: of the longest chunks.
    """
    chunk: Chunk = []
    length = stop = min(first, size)
    for row, clip, stamps in pending:
        while row >= stop:
            if chunk:
                yield chunk
                chunk = []
            length = min(2 * length, size)
            stop += length
        chunk.append((clip, stamps))
    if chunk:
        yield chunk
