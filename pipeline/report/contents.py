"""From a finished run to the page's contents: what is measured of its clips, and what each cluster has of it."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from extractors.clip import Clip
from pipeline.config import Settings
from pipeline.provenance import redacted
from pipeline.readers import Readers
from pipeline.report.accounts import accounts
from pipeline.report.clip_facts import ClipFacts, clip_facts
from pipeline.report.clip_map import maps_of, silhouettes, silhouettes_by_view, space_of
from pipeline.report.clusters import cards, shown_rows
from pipeline.report.headline import headline
from pipeline.report.media import Players, players, thumbnails
from pipeline.report.origins import commands, provenance
from pipeline.report.page import Clips, Page
from pipeline.report.run import FinishedRun, Material, read_material, read_run
from pipeline.report.scores import confusion, restarts_of, score_table
from pipeline.report.words import characteristic_words, count_spoken

MOST_READ = 5_000  # clips whose media are read; of more, those in cards and a sample of the others
SEED = 0  # of the sample
LONG_ENOUGH_S = 0.5  # to tell how fast somebody speaks


def gather(settings: Settings, *, embed_media: bool = False) -> Page:
    """Reads a finished run, and the media of its clips where they are at hand.

    Args:
        settings: whose results folder holds the run.
        embed_media: put players' media into the page.
    Raises:
        PipelineError: there is no finished run in the results folder, or what lies there is not of one run.
    """
    run = read_run(settings.results)
    material = read_material(settings, run)
    warnings = list(material.warnings)
    space, what = space_of(material.views, run.model.proba_)
    of_clips = silhouettes(space, run.clusters)
    shown = shown_rows(run.clusters, run.model.confidence_, space)
    in_cards = sorted({row for both in shown.values() for rows in both for row in rows})
    with Readers(settings.extract) as readers:
        facts = _facts(settings, material.clips, in_cards, warnings, readers)
        media = players(material.clips, facts, in_cards, run.folder, embed=embed_media, readers=readers)
    clips = _clips(run, material, facts, media, of_clips, set(in_cards))
    voice = {
        "pitch": _array(clips.pitch_hz),
        "loudness": _array(clips.loudness_db),
        "speaking rate": _array(clips.words_per_s),
    }
    words = characteristic_words(clips.transcript, run.clusters)
    accounted = accounts(settings, run, material)
    if accounted.n_unlisted:
        warnings.append(
            f"{accounted.n_unlisted:,} more entries of clips that failed or were left out are not listed below; "
            "problems.csv, and the failures.csv of each modality's features, have all that failed."
        )
    scores = score_table(run.metrics)
    n_baseline_clips = run.metrics.get("n_baseline_clips", run.whole.n_clips)
    if n_baseline_clips < run.whole.n_clips:
        warnings.append(f"The baselines beside the scores are of {n_baseline_clips:,} clips, TIB's own scores of all.")
    return Page(
        name=settings.name,
        headline=headline(run, scores, material.n_labelled, accounted.counts, [*warnings, *media.warnings]),
        scores=scores,
        n_scored=int(run.metrics.get("n_scored", 0)),
        clips=clips,
        modalities=run.modalities,
        maps=maps_of(space, what, run.folder),
        clusters=cards(run, material, shown, words, voice, of_clips),
        confusion=confusion(material.labels, run.clusters),
        history=run.history,
        restarts=restarts_of(run, material.labels),
        curve={int(k): float(value) for k, value in run.record.get("n_clusters_curve", {}).items()},
        silhouette=silhouettes_by_view(material.views, of_clips, run.clusters),
        failures=accounted.failures,
        counts=accounted.counts,
        provenance=provenance(run),
        config=redacted(run.config),
        commands=commands(run),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _facts(
    settings: Settings, clips: Sequence[Clip | None], in_cards: Sequence[int], warnings: list[str], readers: Readers
) -> list[ClipFacts | None]:
    """Of each clip; None where there are no media, or where they were not read as there are too many."""
    known = [row for row, clip in enumerate(clips) if clip]
    wanted = known
    if len(known) > MOST_READ:
        shown = [row for row in in_cards if clips[row]]
        others = sorted(set(known) - set(shown))
        more = np.random.default_rng(SEED).choice(others, max(0, MOST_READ - len(shown)), replace=False)
        wanted = [*shown, *more.tolist()]
        warnings.append(
            f"The media of {len(wanted):,} of {len(known):,} clips were read: those in cards and a sample of the "
            "others; what is said of voices is of these."
        )
    cache = (settings.results if settings.views else settings.work) / "report"  # views may lie where nobody may write
    to_read = [clip for row in wanted if (clip := clips[row])]
    found = clip_facts(to_read, cache, readers)
    chosen = set(wanted)
    return [found[clip.clip_id] if clip and row in chosen else None for row, clip in enumerate(clips)]


def _clips(
    run: FinishedRun,
    material: Material,
    known: Sequence[ClipFacts | None],
    media: Players,
    of_clips: NDArray[np.float64],
    in_cards: set[int],
) -> Clips:
    facts = [of or ClipFacts() for of in known]
    return Clips(
        clip_id=list(run.clip_ids),
        cluster=run.clusters.tolist(),
        confidence=_rounded(run.model.confidence_, 4),
        agreement=_rounded(run.model.agreement_, 4),
        label=list(material.labels),
        transcript=material.transcripts,
        by_modality={name: _choices(run.model.modality_proba_[name]) for name in run.modalities},
        thumbnail=thumbnails([of.thumbnail for of in facts], in_cards),
        media=media.urls,
        media_kind=media.kinds,
        duration_s=_known([of.duration_s for of in facts], 3),
        pitch_hz=_known([of.pitch_hz for of in facts], 1),
        loudness_db=_known([of.loudness_db for of in facts], 1),
        words_per_s=[_words_per_s(text, of.duration_s) for text, of in zip(material.transcripts, facts, strict=True)],
        silhouette=_known(of_clips.tolist(), 4),
    )


def _words_per_s(transcript: str, duration_s: float | None) -> float | None:
    if not transcript.strip() or duration_s is None or duration_s < LONG_ENOUGH_S:
        return None
    return round(count_spoken(transcript) / duration_s, 3)


def _choices(alone: NDArray[np.floating]) -> list[int | None]:
    """The cluster that each row is highest for; None for a row of NaN."""
    there = np.isfinite(alone).all(axis=1)
    chosen = np.nan_to_num(alone, nan=0.0).argmax(axis=1)
    return [int(k) if have else None for k, have in zip(chosen, there, strict=True)]


def _rounded(values: NDArray[np.floating], digits: int) -> list[float]:
    return [round(float(value), digits) for value in values]


def _known(values: Sequence[float | None], digits: int) -> list[float | None]:
    return [round(value, digits) if value is not None and math.isfinite(value) else None for value in values]


def _array(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
