"""The stages in the order of a run, each imported when it is its turn."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.session import Session
from pipeline.config import Settings
from pipeline.console import say
from pipeline.errors import PipelineError
from pipeline.files import check_writable
from pipeline.storage import is_local

if TYPE_CHECKING:
    from pipeline.compact import Compacted


def prepare(session: Session, settings: Settings) -> int:
    """Returns how many clips are lost to the manifest."""
    from pipeline.prepare import prepare

    with session.doing("prepare"):
        session.hold(settings.work)
        return prepare(settings)


def prepare_if_told(session: Session, settings: Settings) -> int:
    """Prepares where a corpus is given; a workdir that was prepared before can go on without its raw clips."""
    told = settings.corpus.root is not None or not (settings.work / "manifest.jsonl").exists()
    return prepare(session, settings) if told else 0


def transcribe(session: Session, settings: Settings, *, every_clip: bool, retry_failed: bool) -> int:
    """Returns how many clips failed."""
    from pipeline.manifest import manifest_in
    from pipeline.transcribe import transcribe

    with session.doing("transcribe"):
        session.hold(settings.work)
        return transcribe(settings, *manifest_in(settings.work), every_clip=every_clip, retry_failed=retry_failed)


def pretrain_audio(session: Session, settings: Settings) -> Path:
    """Returns the weights file."""
    from pipeline.manifest import manifest_in
    from pipeline.pretrain_audio import pretrain_audio

    with session.doing("pretrain-audio"):
        session.hold(settings.work)
        return pretrain_audio(settings, *manifest_in(settings.work))


def pretrain_audio_if_wanted(session: Session, settings: Settings, only: list[str] | None) -> None:
    """Trains the audio encoder where the sound is to be embedded by one of the corpus' own and there is none yet."""
    wanted = settings.uses_own_audio and not settings.own_audio_is_trained
    if wanted and (not only or "audio" in only):
        pretrain_audio(session, settings)


def extract(
    session: Session, settings: Settings, only: list[str] | None, retry_failed: bool, max_failures: int | None
) -> int:
    """Returns how many failures there are in all, modalities counted apart."""
    from pipeline.extract import extract
    from pipeline.manifest import manifest_in

    with session.doing("extract"):
        _hold_embeddings(session, settings)
        manifest, root = manifest_in(settings.work)
        return extract(settings, manifest, root, only=only or (), retry_failed=retry_failed, max_failures=max_failures)


def compact(session: Session, settings: Settings) -> "dict[str, Compacted]":
    """Returns what was done, by modality."""
    from pipeline.compact import compact
    from pipeline.features import exact_store

    with session.doing("compact"):
        _hold_embeddings(session, settings)
        stores = {modality: exact_store(settings, modality) for modality in settings.extract.modalities()}
        if not any(stores.values()):
            raise PipelineError(f"no embeddings of these settings in {settings.features}; run `extract` first")
        return {modality: compact(store) for modality, store in stores.items() if store}


def _hold_embeddings(session: Session, settings: Settings) -> None:
    """An object store knows no locks: there it is for people to see to it that one command at a time is at work."""
    session.hold(settings.work)
    if settings.extract.store and is_local(settings.features):
        check_writable(settings.features)  # makes it, as what is not there cannot be held
        session.hold(settings.features)


def reduce(session: Session, settings: Settings) -> None:
    from pipeline.reduce import reduce

    with session.doing("reduce"):
        _hold_embeddings(session, settings)
        reduce(settings)


def train(session: Session, settings: Settings) -> None:
    """Trains, scores and writes the page; what is there of this very run already is shown."""
    from pipeline.cluster import train
    from pipeline.evaluate import evaluate, is_evaluated, labels_of, show
    from pipeline.reduce import views_of

    with session.doing("train"):
        views = views_of(settings)
        labels = labels_of(settings, views)
        check_writable(settings.results)
        session.hold(settings.results)
        train(settings, views, labels)
    if is_evaluated(settings, labels):
        show(settings)
        return
    with session.doing("evaluate"):
        evaluate(settings, views, labels)
    report(session, settings)


def evaluate(session: Session, settings: Settings) -> None:
    from pipeline.evaluate import evaluate, labels_of
    from pipeline.reduce import views_of

    with session.doing("evaluate"):
        views = views_of(settings)
        session.hold(settings.results)
        evaluate(settings, views, labels_of(settings, views))


def report(session: Session, settings: Settings, *, embed_media: bool = False) -> Path:
    """Returns the page's path."""
    from pipeline.report.html import report

    with session.doing("report"):
        session.hold(settings.results)
        page = report(settings, embed_media=embed_media)
        say(f"report: wrote {page}")
    return page
