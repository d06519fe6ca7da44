"""What became of every clip: embedded, failed or left out, modality by modality, so that the sums come out."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
MOST_LISTED = 2000  # of a modality that failed, and as many that were skipped; the counts are of all

Counts = list[tuple[str, str, int]]


@dataclass(frozen=True, slots=True)
class Accounts:
    """What became of the clips.

    Attributes:
        failures: an entry a clip and modality; those that `prepare` lost, of each modality those that failed and those
            that were skipped, and those that the objective left out: the first MOST_LISTED of each.
        n_unlisted: the other entries.
        counts: manifest = done + failed + skipped, for each modality.
    """

    failures: list[Failure]
    n_unlisted: int
    counts: Counts


def accounts(settings: Settings, run: FinishedRun, material: Material) -> Accounts:
    """The clips that failed or were left out, and the counts of all."""
    failures, n_lost, counts = list[Failure](), len(material.left_out), Counts()
    if material.manifest:
        manifest, root = material.manifest
        before = _lost_before(settings)
        failures, n_lost = before[:MOST_LISTED], n_lost + len(before)
        encoders: Mapping[str, Any] = run.record.get("encoders", {})
        with Ledger(lambda: (to_clip(clip, root) for clip in manifest), tuple(encoders)) as ledger:
            for modality, recipe in encoders.items():
                store = EmbeddingStore.of_recipe(settings.features, modality, recipe)
                n_skipped, n_failed = ledger.account(modality, store, trust_old=True)  # the clips may have moved
                n_done = ledger.n_clips - n_skipped - n_failed
                names = ("manifest", "done", "failed", "skipped")
                counts += zip(names, [modality] * 4, (ledger.n_clips, n_done, n_failed, n_skipped), strict=True)
                n_lost += n_failed + n_skipped
                if n_failed:
                    failures += _failed(ledger, modality)
                failures += islice(_skipped(ledger, modality), MOST_LISTED)
    told = "the objective needs every modality of a clip, and this one lacks some"
    left_out = (Failure(id_, "all", "train", "lacks_modality", told) for id_ in material.left_out)
    failures += islice(left_out, MOST_LISTED)
    return Accounts(failures, n_lost - len(failures), counts)


def _failed(ledger: Ledger, modality: str) -> Iterator[Failure]:
    """The first clips that have failed, in the corpus' order."""
    failed = {failure.clip_id: failure for failure in islice(ledger.failures(modality), MOST_LISTED)}
    for clip in ledger.clips():
        why = failed.get(clip.clip_id)
        if why:
            # The page may be sent to others: it names the file, not where it lies on this machine.
            told = why.message.replace(clip.media_path, os.path.basename(clip.media_path))
            yield Failure(clip.clip_id, modality, why.stage, why.cause, told)


def _skipped(ledger: Ledger, modality: str) -> Iterator[Failure]:
    """The clips that nobody has tried to embed as they are now."""
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
