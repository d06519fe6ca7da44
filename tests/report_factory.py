"""Small finished runs for the report's tests: trained and scored by the stages themselves, in a second or two."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extractors.base import Embedding
from extractors.clip import Clip
from pipeline.cluster import train
from pipeline.config import ExtractSettings, Settings, load_settings
from pipeline.corpora.base import CorpusClip
from pipeline.evaluate import evaluate, labels_of
from pipeline.failures import Failure
from pipeline.manifest import to_clip, write_labels, write_manifest
from pipeline.provenance import LIBRARIES, versions
from pipeline.readers import Readers
from pipeline.reduce import views_of
from pipeline.sources import source_of
from pipeline.store import EmbeddingStore

QUICK = ("train.restarts=2", "train.epochs=1", "train.device=cpu")
MODALITIES = ("text", "visual", "audio")


class Here(Readers):
    """Readers that read in this process, where a test sees what they do."""

    def __init__(self) -> None:
        super().__init__(ExtractSettings())

    def submit(self, function: Any, *arguments: Any, **named: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(function(*arguments, **named))
        return future

    def result(self, future: "Future[Any]") -> Any:
        return future.result()


def planted(n_clips: int, n_clusters: int, *, dim: int = 6, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Three views of the same clusters, clip i being of cluster i % n_clusters."""
    rng = np.random.default_rng(seed)
    of_clip = np.arange(n_clips) % n_clusters
    return {
        name: (5 * rng.normal(size=(n_clusters, dim))[of_clip] + rng.normal(size=(n_clips, dim))).astype(np.float32)
        for name in MODALITIES
    }


def write_views(folder: Path, views: Mapping[str, NDArray[Any]], clip_ids: Sequence[str] | None = None) -> Path:
    """Arrays as `train --views` takes them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, view in views.items():
        np.save(folder / f"{name}.npy", view)
    if clip_ids is not None:
        (folder / "clip_ids.json").write_text(json.dumps(list(clip_ids)), encoding="utf-8")
    return folder


def write_workdir(
    work: Path, root: Path, clips: Sequence[CorpusClip], labels: Mapping[str, str] | None = None
) -> list[Clip]:
    """What prepare leaves of a corpus: manifest, root and labels; returns the clips as extractors take them."""
    write_manifest(work / "manifest.jsonl", clips)
    (work / "corpus.json").write_text(json.dumps({"kind": "folder", "root": str(root)}), encoding="utf-8")
    if labels is not None:
        write_labels(work / "labels.csv", labels)
    return [to_clip(clip, root) for clip in clips]


def write_features(
    work: Path,
    clips: Sequence[Clip],
    views: Mapping[str, NDArray[np.float32]],
    failures: Mapping[str, Mapping[str, str]] | None = None,
    *,
    trained: bool = True,
) -> None:
    """A store a modality, as extract leaves it: an embedding of every clip but those that fail.

    Args:
        failures: modality -> clip_id -> cause; the cause "" stands for a clip that was never tried.
    """
    for modality, view in views.items():
        recipe = {
            "extractor": f"{modality}/test",
            "modality": modality,
            "settings": {"precision": "fp32"},
            "weights": {"source": "path", "trained": trained, "sha256": "ab" * 32, "licence": "CC0 (a test's)"},
            "dim": view.shape[1],
            "versions": versions(LIBRARIES[modality]),
        }
        store = EmbeddingStore.create(work / "features", modality, recipe, "request")
        lost = (failures or {}).get(modality, {})
        kept = [(clip, row) for clip, row in zip(clips, view, strict=True) if clip.clip_id not in lost]
        sources = {clip.clip_id: source_of(clip, modality) for clip in clips}
        store.write_part([Embedding(clip.clip_id, row, 1) for clip, row in kept], sources)
        store.failed.write(
            Failure(clip.clip_id, "read", lost[clip.clip_id], f"{clip.media_path}: a test's", sources[clip.clip_id])
            for clip in clips
            if lost.get(clip.clip_id)
        )


def finish(settings: Settings) -> Settings:
    """Trains and scores."""
    views = views_of(settings)
    labels = labels_of(settings, views)
    train(settings, views, labels)
    evaluate(settings, views, labels)
    return settings


def views_run(
    folder: Path,
    views: Mapping[str, NDArray[Any]],
    *overrides: str,
    n_clusters: int = 3,
    clip_ids: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
) -> Settings:
    """A finished run on arrays alone, as `train --views` makes it."""
    source = write_views(folder / "views", views, clip_ids)
    if labels is not None:
        ids = clip_ids if clip_ids is not None else [str(row) for row in range(len(labels))]
        write_labels(source / "labels.csv", {i: label for i, label in zip(ids, labels, strict=True) if label})
    settings = load_settings(
        None, [*QUICK, f"train.n_clusters={n_clusters}", *overrides], name="test", views=source, out=folder / "out"
    )
    return finish(settings)
