"""What became of every clip: embedded, failed or left out, modality by modality, so that the sums come out."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from extractors.clip import Clip
from pipeline.config import Settings
from pipeline.corpora.base import LOSING_KINDS
from pipeline.corpora.tables import read_records
from pipeline.errors import PipelineError
from pipeline.report.page import Failure
from pipeline.report.run import FinishedRun, Material
from pipeline.sources import sources_of
from pipeline.store import EmbeddingStore

NOT_EXTRACTED = "not_extracted"

Counts = list[tuple[str, str, int]]


def accounts(settings: Settings, run: FinishedRun, material: Material) -> tuple[list[Failure], Counts]:
    """The clips that failed or were left out, and the counts: manifest = done + failed + skipped for each modality."""
    failures = _lost_before(settings) if material.manifest else []
    counts: Counts = []
    encoders: Mapping[str, Any] = run.record.get("encoders", {}) if material.manifest else {}
    for modality, recipe in encoders.items():
        store = EmbeddingStore.of_recipe(settings.features, modality, recipe)
        found, n_done = _of_modality(store, modality, material.manifest)
        n_failed = sum(failure.cause != NOT_EXTRACTED for failure in found)
        counts += [
            ("manifest", modality, len(material.manifest)),
            ("done", modality, n_done),
            ("failed", modality, n_failed),
            ("skipped", modality, len(found) - n_failed),
        ]
        failures += found
    told = "the objective needs every modality of a clip, and this one lacks some"
    return [*failures, *(Failure(id_, "all", "train", "lacks_modality", told) for id_ in material.left_out)], counts


def _of_modality(store: EmbeddingStore, modality: str, manifest: Iterable[Clip]) -> tuple[list[Failure], int]:
    """The clips that the store has no embedding of, with why; and how many it has."""
    clips = list(manifest)
    done = store.done()
    sources = sources_of(clips, modality, done)
    embedded = {clip_id for clip_id, source in done if sources.get(clip_id) == source}
    known = store.failures()
    found = []
    for clip in clips:
        if clip.clip_id in embedded:
            continue
        why = known.get(clip.clip_id)
        if why:
            # The page may be sent to others: it names the file, not where it lies on this machine.
            told = why.message.replace(clip.media_path, os.path.basename(clip.media_path))
            found.append(Failure(clip.clip_id, modality, why.stage, why.cause, told))
        else:
            told = "no embedding of the file as it is now; run `extract`"
            found.append(Failure(clip.clip_id, modality, "extract", NOT_EXTRACTED, told))
    return found, len(embedded)


def _lost_before(settings: Settings) -> list[Failure]:
    """What the corpus holds and the manifest does not, as prepare told it."""
    path = (settings.views or settings.work) / "problems.csv"
    try:
        return [
            Failure(row["where"], "all", "prepare", row["kind"], row["message"])
            for row in read_records(path)
            if row["kind"] in LOSING_KINDS
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError) as error:
        raise PipelineError(f"cannot read {path} ({error}); run `prepare` again") from None
