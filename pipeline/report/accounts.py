"""What became of every clip: embedded, failed or left out, modality by modality, so that the sums come out."""

import os
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from pipeline.config import Settings
from pipeline.corpora.base import LOSING_KINDS
from pipeline.corpora.tables import read_records
from pipeline.errors import PipelineError
from pipeline.ledger import Ledger
from pipeline.manifest import to_clip
from pipeline.report.page import Failure
from pipeline.report.run import FinishedRun, Material
from pipeline.store import EmbeddingStore

NOT_EXTRACTED = "not_extracted"
MOST_LISTED = 2000  # failures of a modality; the counts are of all

Counts = list[tuple[str, str, int]]


def accounts(settings: Settings, run: FinishedRun, material: Material) -> tuple[list[Failure], Counts]:
    """The clips that failed or were left out, and the counts: manifest = done + failed + skipped for each modality."""
    failures: list[Failure] = []
    counts: Counts = []
    if material.manifest:
        failures += _lost_before(settings)
        manifest, root = material.manifest
        encoders: Mapping[str, Any] = run.record.get("encoders", {})
        with Ledger(lambda: (to_clip(clip, root) for clip in manifest), tuple(encoders)) as ledger:
            for modality, recipe in encoders.items():
                store = EmbeddingStore.of_recipe(settings.features, modality, recipe)
                n_skipped, n_failed = ledger.account(modality, store, trust_old=True)  # the clips may have moved
                n_done = ledger.n_clips - n_skipped - n_failed
                names = ("manifest", "done", "failed", "skipped")
                counts += zip(names, [modality] * 4, (ledger.n_clips, n_done, n_failed, n_skipped), strict=True)
                failures += islice(_of_modality(ledger, modality), MOST_LISTED)
    told = "the objective needs every modality of a clip, and this one lacks some"
    left_out = (Failure(id_, "all", "train", "lacks_modality", told) for id_ in material.left_out)
    return [*failures, *islice(left_out, MOST_LISTED)], counts


def _of_modality(ledger: Ledger, modality: str) -> Iterator[Failure]:
    """The clips that have no embedding, with why."""
    failed = {failure.clip_id: failure for failure in islice(ledger.failures(modality), MOST_LISTED)}
    # The page may be sent to others: it names the file, not where it lies on this machine.
    for clip in ledger.clips():
        why = failed.get(clip.clip_id)
        if why:
            told = why.message.replace(clip.media_path, os.path.basename(clip.media_path))
            yield Failure(clip.clip_id, modality, why.stage, why.cause, told)
    for _, clip, _ in ledger.pending([modality]):
        told = "no embedding of the file as it is now; run `extract`"
        yield Failure(clip.clip_id, modality, "extract", NOT_EXTRACTED, told)


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
