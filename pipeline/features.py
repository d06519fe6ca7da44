"""A workdir's embeddings: which store belongs to the settings at hand, and the stamps its rows must have."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from extractors.clip import Clip
from pipeline.config import Settings
from pipeline.console import say
from pipeline.encoders import request_of
from pipeline.errors import PipelineError
from pipeline.joins import ClipTable
from pipeline.sources import source_of, sources_of
from pipeline.store import EmbeddingStore


def exact_store(settings: Settings, modality: str) -> EmbeddingStore | None:
    """The store that these very settings led to."""
    section = getattr(settings.extract, modality)
    request = request_of(modality, section, keep_sequence=settings.extract.keep_sequence)
    return EmbeddingStore.find(settings.work / "features", modality, request)


def stores_of(
    settings: Settings, clips: Sequence[Clip], stage: str
) -> dict[str, tuple[EmbeddingStore, dict[str, str]]]:
    """Each modality's store with the stamps that its rows must have, all of them in memory.

    Args:
        clips: of the manifest.
        stage: whose lines these are.
    Raises:
        PipelineError: as `chosen_stores`.
    """
    stores = chosen_stores(settings, stage)
    return {m: (store, sources_of(clips, m, store.done())) for m, store in stores.items()}


def chosen_stores(settings: Settings, stage: str) -> dict[str, EmbeddingStore]:
    """Each modality's store; says what is missing or made otherwise.

    Raises:
        PipelineError: no embeddings at all, or several sets and none of these settings.
    """
    stores = {}
    for modality in settings.extract.modalities():
        store = exact_store(settings, modality) or _only_store(settings, modality, stage)
        if store is None:
            say(f"{stage}: {modality}: not extracted; going on without it")
            continue
        stores[modality] = store
    if not stores:
        raise PipelineError(f"no embeddings in {settings.work / 'features'}; run `extract` first, with the same config")
    return stores


def stamped(clips: Iterable[Clip], modalities: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The clips as `ClipTable` takes them: clip_id, and what each modality's embedding would be made from now."""
    return ((clip.clip_id, [source_of(clip, modality) for modality in modalities]) for clip in clips)


def pending(
    clips: Callable[[], Iterable[Clip]],
    stores: Mapping[str, EmbeddingStore | None],
    *,
    retry_failed: bool = False,
) -> Iterator[tuple[Clip, dict[str, str]]]:
    """The clips that a store lacks and that did not fail as they are now; none of them in a list.

    Args:
        clips: gives the corpus in its order, each time it is called: once to look, once to pass on.
        stores: by modality; None where nothing was begun.
        retry_failed: also those that failed before and have not changed since.
    Yields:
        (clip, modality -> stamp of what to embed), in the corpus' order.
    Raises:
        PipelineError: a part or a manifest that cannot be read; two clips with one id.
    """
    with ClipTable(stamped(clips(), tuple(stores)), tuple(stores)) as table:
        numbered = enumerate(clips())
        for row, wanted in table.pending(stores, retry_failed=retry_failed):
            yield next(clip for number, clip in numbered if number == row), wanted


def _only_store(settings: Settings, modality: str, stage: str) -> EmbeddingStore | None:
    """The only one there is, and says so."""
    features = settings.work / "features"
    others = [store for store, _ in EmbeddingStore.all(features, modality)]
    if len(others) > 1:
        told = ", ".join(f"{s.fingerprint} ({s.recipe['extractor']})" for s in others)
        raise PipelineError(
            f"no {modality} embeddings of these settings in {features / modality}, which holds {told}; "
            "extract with these settings, or give those that made one of them"
        )
    if others:
        say(f"{stage}: {modality}: made with other settings or versions ({others[0].folder}); using it")
    return others[0] if others else None
