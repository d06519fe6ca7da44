"""What is done to a chunk, in whatever process: its clips read, encoded together, and written as one part."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from extractors.base import Embedding, Extractor, Prepared, Preparer
from extractors.clip import Clip
from extractors.errors import ExtractionError, as_extraction_error
from extractors.preparing import Outcome, prepare_clip
from pipeline.engines.jobs import Chunk, Told
from pipeline.failures import Failure
from pipeline.readers import Readers
from pipeline.store import EmbeddingStore

Wanted = Sequence[tuple[Clip, Mapping[str, Preparer]]]  # clips with the first steps of the encoders that want them
Ready = list[tuple[Clip, Outcome]]
Reading = list[tuple[Clip, Mapping[str, Preparer], "Future[Outcome]"]]


class Encoder(NamedTuple):
    """A modality's extractor, loaded, and where its embeddings go."""

    modality: str
    extractor: Extractor
    store: EmbeddingStore


def begin_reading(readers: Readers, wanted: Wanted) -> Reading:
    """Queues the clips; `end_reading` waits for them."""
    return [(clip, preparers, readers.submit(prepare_clip, clip, preparers)) for clip, preparers in wanted]


def end_reading(readers: Readers, reading: Reading) -> Ready:
    """Every clip prepared, or why it is not: a reading process that was stopped or died is its clip's failure."""
    return [(clip, _outcome(readers, preparers, future)) for clip, preparers, future in reading]


def _outcome(readers: Readers, preparers: Mapping[str, Preparer], future: "Future[Outcome]") -> Outcome:
    try:
        return readers.result(future)
    except ExtractionError as error:
        return dict.fromkeys(preparers, error)


def prepare_here(wanted: Wanted) -> Ready:
    """The same in this process, where no file is read."""
    return [(clip, prepare_clip(clip, preparers)) for clip, preparers in wanted]


def embed(
    encoder: Encoder,
    chunk: Chunk,
    ready: Iterable[tuple[Clip, Outcome]],
    on_clips: Callable[[int], None] = lambda n: None,
) -> Told | None:
    """Encodes and writes one chunk of one modality.

    Args:
        chunk: what is wanted of its clips.
        ready: they, prepared.
        on_clips: see `Extractor.encode`.
    Returns:
        what came of it; None where no clip of the chunk is wanted in this modality.
    Raises:
        PipelineError: the store cannot be written.
    """
    modality = encoder.modality
    outcomes = {clip.clip_id: outcome[modality] for clip, outcome in ready if modality in outcome}
    if not outcomes:
        return None
    sources = {clip.clip_id: stamps[modality] for clip, stamps in chunk if modality in stamps}
    failed = {clip_id: outcome for clip_id, outcome in outcomes.items() if isinstance(outcome, ExtractionError)}
    prepared = [outcome for outcome in outcomes.values() if isinstance(outcome, Prepared)]
    embeddings: list[Embedding] = []
    notes: list[str] = []
    counts: Counter[str] = Counter()
    for item, result in zip(prepared, _encode(encoder, prepared, on_clips), strict=True):
        if isinstance(result, ExtractionError):
            failed[item.clip_id] = result
            continue
        embeddings.append(result)
        counts.update(item.counts)
        if item.note:
            notes.append(f"{item.clip_id}: {item.note}")
    if embeddings:
        encoder.store.write_part(embeddings, sources)
    failures = [Failure(name, error.stage, error.cause, error.message, sources[name]) for name, error in failed.items()]
    return Told(modality, {e.clip_id: e.n_units for e in embeddings}, failures, notes, counts)


def _encode(
    encoder: Encoder, prepared: list[Prepared], on_clips: Callable[[int], None] = lambda n: None
) -> list[Embedding | ExtractionError]:
    """Encodes together; if that breaks, one by one, so that only the clip at fault is lost."""
    if not prepared:
        return []
    keeps = encoder.store.keeps_sequences
    try:
        return list(encoder.extractor.encode(prepared, keep_sequence=keeps, on_clips=on_clips))
    except Exception as error:
        if len(prepared) == 1:
            return [as_extraction_error("encode", error)]
        return [_encode(encoder, [item])[0] for item in prepared]
