"""A workdir's embeddings: which store belongs to the settings at hand, and the stamps its rows must have."""

from collections.abc import Sequence

from extractors.clip import Clip
from pipeline.config import Settings
from pipeline.console import say
from pipeline.encoders import request_of
from pipeline.errors import PipelineError
from pipeline.sources import sources_of
from pipeline.store import EmbeddingStore


def exact_store(settings: Settings, modality: str) -> EmbeddingStore | None:
    """The store that these very settings led to."""
    section = getattr(settings.extract, modality)
    request = request_of(modality, section, keep_sequence=settings.extract.keep_sequence)
    return EmbeddingStore.find(settings.features, modality, request)


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
        raise PipelineError(f"no embeddings in {settings.features}; run `extract` first, with the same config")
    return stores


def _only_store(settings: Settings, modality: str, stage: str) -> EmbeddingStore | None:
    """The only one there is, and says so."""
    features = settings.features
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
