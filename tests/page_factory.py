"""Makes the contents of a report for tests of its page: figures that fit each other, drawn from a seed, and no run.

Labels follow the clusters loosely; `poisoned` puts an attack into every text there is.
"""

import base64
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import cv2
import numpy as np

from pipeline.report.page import (
    ClipMap,
    Clips,
    Cluster,
    Failure,
    Headline,
    ModalityInCluster,
    Page,
    Score,
    Voice,
    Word,
)

MODALITIES = ("visual", "text", "audio")
VOCABULARY = ("film", "story", "actor", "music", "joke", "ending", "sad", "great", "boring", "lovely", "angry", "calm")
TERMS = ("consistency", "superfluous", "complementarity", "loss")
N_STEPS = 60
ATTACK = (
    '</script><script>window.pwned=1</script><img src=x onerror="window.pwned=1"><!--<script>\'"`&amp;<b>\u2028'
    "{{ 7 * 7 }} ${window.pwned=1} \u202eשלום 😀 "
)
_STRUCTURE = {"kind", "media", "media_kind", "thumbnail"}  # words of the program, and URLs that it makes
_WITH_OWN_KEYS = {"confusion", "restarts"}


def make_page(n_clips: int = 24, n_clusters: int = 3, *, seed: int = 0, media: str = "", media_kind: str = "") -> Page:
    """A page with something in every part.

    Args:
        media, media_kind: of every clip.
    """
    rng = np.random.default_rng(seed)
    clusters = np.arange(n_clips) % n_clusters
    clips = _clips(rng, clusters, media, media_kind)
    labels = sorted({label for label in clips.label if label is not None})
    columns = list(range(n_clusters))
    pairs = Counter(zip(clips.label, clips.cluster, strict=True))
    return Page(
        name="a run",
        headline=Headline(
            n_clips=n_clips,
            n_clusters=n_clusters + 1,
            n_clusters_used=n_clusters,
            confidence=0.83,
            n_unsure=2,
            unsure_below=0.5,
            stability=0.74,
            n_restarts=6,
            agreement=0.71,
            sentences=[f"{n_clips:,} clips fall into {n_clusters} clusters.", "They are much the same each time."],
            warnings=["The audio encoder has random weights."],
        ),
        scores=_scores(),
        n_scored=sum(label is not None for label in clips.label),
        clips=clips,
        modalities=list(MODALITIES),
        maps=[_clip_map(rng, clusters, name) for name in ("PCA", "t-SNE", "UMAP")],
        clusters=[_cluster(clips, cluster) for cluster in columns],
        confusion={
            "labels": labels,
            "clusters": columns,
            "counts": [[pairs[label, k] for k in columns] for label in labels],
        },
        history={term: [None] * i + rng.normal(size=N_STEPS - i).round(3).tolist() for i, term in enumerate(TERMS)},
        restarts={"loss": [-1.4, -1.2, None, -1.1], "ari": [0.9, 0.8, 0.7, 0.6], "acc": [0.8, 0.7, 0.75, 0.6]},
        curve={2: 0.9, 3: 0.88, 4: 0.61},
        silhouette={"all": 0.31, "visual": 0.22, "text": -0.05, "audio": 0.11},
        failures=[
            Failure("clip_0003", "audio", "decode", "no sound", "the file has no audio stream"),
            Failure("clip_0005", "audio", "decode", "no sound", "the file has no audio stream"),
            Failure("clip_0005", "text", "tokens", "empty transcript", "nothing was said"),
        ],
        counts=[
            (what, name, n)
            for name in MODALITIES
            for what, n in {"manifest": n_clips, "done": n_clips - 2, "failed": 2, "skipped": 0}.items()
        ],
        provenance=[
            ("run", "seed", "0"),
            ("run", "commit", "0123abc"),
            ("encoder: text", "sha256", "53aa51172d142c89"),
        ],
        config="train:\n  n_clusters: 4\n",
        commands=["python -m pipeline run --config configs/demo.yaml", "python -m pipeline report"],
        made="2026-01-31T12:00:00+00:00",
    )


def bare_page() -> Page:
    """A page with as little as a run can have: one cluster, one restart, no labels, words, media, history, failures."""
    page = make_page(5, 1)
    n = page.headline.n_clips
    unknown: list[None] = [None] * n
    return replace(
        page,
        headline=replace(page.headline, stability=None, n_restarts=1, n_clusters=1, sentences=[], warnings=[]),
        scores=[],
        n_scored=0,
        clips=replace(
            page.clips,
            label=unknown,
            transcript=[""] * n,
            thumbnail=[""] * n,
            duration_s=unknown,
            pitch_hz=unknown,
            loudness_db=unknown,
            words_per_s=unknown,
            silhouette=unknown,
            by_modality={"text": unknown},
        ),
        modalities=["text"],
        maps=page.maps[:1],
        clusters=[
            replace(
                page.clusters[0],
                words=[],
                voice=[],
                labels=[],
                n_labelled=0,
                least_sure=[],
                silhouette=None,
                modalities=[ModalityInCluster("text", 0, 0.0, 0.0, None)],
            )
        ],
        confusion=None,
        history={},
        restarts={"loss": [-1.0], "ari": [1.0], "acc": None},
        curve={},
        silhouette={},
        failures=[],
        counts=[],
        provenance=[],
        config="",
        commands=[],
    )


def hostile_page() -> Page:
    """A page whose every text attacks it, and some of whose URLs do."""
    page = poisoned(make_page(media="clip.mp4", media_kind="video"))
    n = page.headline.n_clips
    evil = "javascript:window.pwned=1"
    thumbnail = [f'x" onerror="window.pwned=1" {ATTACK}', *page.clips.thumbnail[1:]]
    clips = replace(
        page.clips,
        thumbnail=thumbnail,
        media=[evil, evil, *[""] * (n - 2)],
        media_kind=["file", "video", *[""] * (n - 2)],
    )
    return replace(page, clips=clips)


def poisoned(value: Any) -> Any:
    """The same with ATTACK at the start of every text, keys of mappings too, but for words of the program's own."""
    if isinstance(value, str):
        return ATTACK + value
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _poisoned_field(f.name, getattr(value, f.name)) for f in fields(value)})
    if isinstance(value, Mapping):
        return {poisoned(key): poisoned(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(poisoned(item) for item in value)
    return value


def _poisoned_field(name: str, value: Any) -> Any:
    if name in _STRUCTURE:
        return value
    return {key: poisoned(item) for key, item in value.items()} if name in _WITH_OWN_KEYS and value else poisoned(value)


def _clips(rng: np.random.Generator, clusters: np.ndarray, media: str, media_kind: str) -> Clips:
    n = len(clusters)
    labels = np.where(rng.random(n) < 0.8, clusters, rng.integers(0, clusters.max() + 1, n))
    known = rng.random(n) < 0.9
    pictures = [_picture(hue) for hue in range(0, 180, 12)]
    return Clips(
        clip_id=[f"clip_{row:04d}" for row in range(n)],
        cluster=clusters.tolist(),
        confidence=rng.uniform(0.35, 1, n).round(3).tolist(),
        agreement=(rng.integers(1, 4, n) / 3).round(4).tolist(),
        label=[f"label {label}" if have else None for label, have in zip(labels, known, strict=True)],
        transcript=[" ".join(rng.choice(VOCABULARY, 9)).capitalize() + "." for _ in range(n)],
        by_modality={
            name: [int(k) if have else None for k, have in zip(labels, rng.random(n) < 0.95, strict=True)]
            for name in MODALITIES
        },
        thumbnail=[pictures[(7 * int(k) + row % 3) % len(pictures)] for row, k in enumerate(clusters)],
        media=[media] * n,
        media_kind=[media_kind] * n,
        duration_s=rng.uniform(1, 9, n).round(2).tolist(),
        pitch_hz=rng.uniform(90, 260, n).round(1).tolist(),
        loudness_db=rng.uniform(-35, -12, n).round(1).tolist(),
        words_per_s=rng.uniform(1, 5, n).round(2).tolist(),
        silhouette=rng.uniform(-0.3, 0.8, n).round(3).tolist(),
    )


def _picture(hue: int) -> str:
    """A data URI of a small gradient."""
    ramp = np.linspace(60, 240, 96, dtype=np.uint8)[None].repeat(72, 0)
    image = cv2.cvtColor(np.dstack([np.full_like(ramp, hue), np.full_like(ramp, 110), ramp]), cv2.COLOR_HSV2BGR)
    return "data:image/webp;base64," + base64.b64encode(cv2.imencode(".webp", image)[1].tobytes()).decode()


def _clip_map(rng: np.random.Generator, clusters: np.ndarray, name: str) -> ClipMap:
    centres = rng.normal(0, 3, (clusters.max() + 1, 2))
    x, y = (centres[clusters] + rng.normal(0, 0.8, (len(clusters), 2))).T.round(4).tolist()
    return ClipMap(name, x, y, f"What {name} shows.")


def _cluster(clips: Clips, cluster: int) -> Cluster:
    rows = [row for row, k in enumerate(clips.cluster) if k == cluster]
    by_confidence = sorted(rows, key=lambda row: -clips.confidence[row])
    labels = Counter(label for row in rows if (label := clips.label[row]) is not None)
    return Cluster(
        cluster=cluster,
        size=len(rows),
        n_shown=len(rows),
        confidence=float(np.mean([clips.confidence[row] for row in rows])),
        agreement=float(np.mean([clips.agreement[row] for row in rows])),
        silhouette=0.21,
        typical=by_confidence[:4],
        least_sure=by_confidence[4:][-3:][::-1],
        words=[Word(VOCABULARY[(cluster + i) % len(VOCABULARY)], 4.0 - i, 9 - i, 2 + i) for i in range(4)],
        voice=[Voice("pitch", "Hz", 201.5, 172.0, 1.2, len(rows)), Voice("loudness", "LUFS", -24.1, -21.0, -0.6, 5)],
        modalities=[
            ModalityInCluster("visual", len(rows), 1.0, 0.01, None),
            ModalityInCluster("text", len(rows), 0.7, 0.3, 1),
            ModalityInCluster("audio", len(rows), 0.4, 1.2, 0),
        ],
        labels=labels.most_common(),
        n_labelled=labels.total(),
        summary="A higher voice than on average; words: film, story.",
    )


def _scores() -> list[Score]:
    return [
        Score("TIB", 0.82, None, 0.84, None, 0.73, None, 3, "ours"),
        Score("TIB, each of 6 restarts alone", 0.79, 0.06, 0.81, 0.03, 0.69, 0.06, 2.9, "restarts"),
        *(Score(f"method {i}", 0.7, 0.02, 0.6 - i / 20, 0.01, 0.5, 0.0, 3, "baseline") for i in range(5)),
        Score("k-means all", 0.5, 0.02, 0.3, 0.01, 0.2, 0.01, 3, "baseline"),
        Score("largest class for all", 0.38, None, 0.0, None, 0.0, None, 1, "majority"),
    ]
