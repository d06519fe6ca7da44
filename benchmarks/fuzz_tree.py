"""A small valid workdir, its run, exports and corpora, written by the stages themselves: what `fuzz_files` damages.

clips/ mosi/ mmsa/ texts/     corpora: a folder with a table, CMU-MOSI as distributed, MMSA's, .txt beside the clips
work/                         prepared, embedded (planted vectors), reduced; work/results/fuzz is a scored run
cached/ exports/              features in every format of `export`; csd/: in CMU-MultimodalSDK's
imported/                     an import of one of them
fuzz.yaml overrides.txt       settings
"""

import csv
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch

from benchmarks.fuzz_media import write_clip
from extractors.base import Embedding
from pipeline.cluster import train
from pipeline.config import Settings, load_settings
from pipeline.console import Output, output
from pipeline.encoders import request_of
from pipeline.evaluate import evaluate, labels_of
from pipeline.export import export
from pipeline.failures import Failure
from pipeline.ingest import ingest
from pipeline.manifest import to_clip
from pipeline.prepare import manifest_of, prepare
from pipeline.pretrain_audio.record import write_weights
from pipeline.provenance import LIBRARIES, versions
from pipeline.reduce import reduce, views_of
from pipeline.sources import source_of
from pipeline.store import EmbeddingStore

N_CLIPS, DIM = 12, 6
WORDS = ("I loved it", 'it was "awful", truly', "well; that happened", "not bad, née", "喜欢", "what a waste")
SETTINGS = """\
# What the run of this tree is made with.
corpus: {kind: folder, table: clips.csv, label_column: label, video_column: speaker}
extract:
  keep_sequence: true
  visual: {backbone: vgg16, weights: random, frames_per_clip: 4}
  text: {backbone: bert, weights: random}
  audio: {backbone: logmel_stats, weights: self}
reduce: {dim: 3, standardize: true}
train: {n_clusters: 2, restarts: 2, epochs: 1, device: cpu}
"""
OVERRIDES = """\
train.n_clusters=7
train.n_clusters=auto
extract.visual.fps=2.5
extract.text=null
extract.audio.backbone=audio/davenet
extract.visual.batch_size=auto
corpus.root=/data/clips
reduce.dim=null
workdir=work/x
name=mine
"""
EXPORTS = {"cached": "npy"} | {f"exports/{name}": name for name in ("npz", "csv", "parquet", "mmsa", "hf")}


def write_tree(root: Path) -> None:
    """Writes all of it, in a few seconds."""
    with output(Output(quiet=True)):
        clip = write_clip(root / "original.mp4").read_bytes()
        _write_corpora(root, clip)
        (root / "fuzz.yaml").write_text(SETTINGS, encoding="utf-8")
        (root / "overrides.txt").write_text(OVERRIDES, encoding="utf-8")
        settings = settings_of(root)
        prepare(settings)
        _write_features(settings)
        reduce(settings)
        views = views_of(settings)
        labels = labels_of(settings, views)
        train(settings, views, labels)
        evaluate(settings, views, labels)
        for folder, format_ in EXPORTS.items():
            cached = format_ == "mmsa"  # of the workdir's text it would make tokens too, which takes seconds
            export(Settings(views=root / "cached") if cached else settings, format_, root / folder)
        ingest(root / "exports/npz", "npz", root / "imported")
        own_audio = with_own_audio(root).own_audio
        write_weights(own_audio, {"weight": torch.zeros(1)}, _AUDIO_RECORD)
        _write_csd(root / "csd")


def settings_of(root: Path) -> Settings:
    """Of the tree's run."""
    return load_settings(root / "fuzz.yaml", [], corpus__root=root / "clips", workdir=root / "work")


def with_own_audio(root: Path) -> Settings:
    """The same with an audio encoder trained on these clips."""
    overrides = ["extract.audio.backbone=davenet", "extract.audio.weights=self"]
    return load_settings(root / "fuzz.yaml", overrides, corpus__root=root / "clips", workdir=root / "work")


_RECALLS = {"recall@1": 0.1, "recall@5": 0.3, "recall@10": 0.5}
_AUDIO_RECORD = {
    "extractor": "audio/davenet",
    "best_epoch": 3,
    "best": {"n_pairs": 4, "image_to_audio": _RECALLS, "audio_to_image": _RECALLS, "chance": _RECALLS},
}


def _write_corpora(root: Path, clip: bytes) -> None:
    def put(path: str, content: bytes | str) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content.encode() if isinstance(content, str) else content)

    def table(path: str, rows: Sequence[Sequence[object]]) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        with (root / path).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)

    labels = [f"{i % 7 - 3 + 0.4:.1f}" for i in range(N_CLIPS)]
    words = [WORDS[i % len(WORDS)] for i in range(N_CLIPS)]
    names = [f"v{i // 4}_{i % 4}" for i in range(N_CLIPS)]
    for i, name in enumerate(names):
        put(f"clips/{name}.mp4", clip)
        put(f"texts/{name}.mp4", clip)
        put(f"texts/{name}.txt", words[i])
        put(f"mosi/Raw/Video/Segmented/{name}.mp4", clip)
        put(f"mmsa/Raw/v{i // 4}/{i % 4}.mp4", clip)
    rows = zip(names, words, labels, strict=True)
    table(
        "clips/clips.csv",
        [
            ("file", "transcript", "label", "speaker", "start_s", "end_s", "clip_id"),
            *((f"{name}.mp4", text, i % 3, name[:2], 0, 1.5, name) for i, (name, text, _) in enumerate(rows)),
        ],
    )
    for video in ("v0", "v1", "v2"):
        of_video = [f"{i % 4}_DELIM_{words[i]}" for i in range(N_CLIPS) if names[i].startswith(video)]
        put(f"mosi/Raw/Transcript/Segmented/{video}.annotprocessed", "\n".join(of_video))
    table("mosi/label.csv", [("clip_id", "label"), *zip(names, labels, strict=True)])
    table(
        "mmsa/label.csv",
        [
            ("video_id", "clip_id", "text", "label", "annotation", "mode"),
            *(
                (*name.split("_"), text, label, "Neutral", "train")
                for name, text, label in zip(names, words, labels, strict=True)
            ),
        ],
    )


def _write_features(settings: Settings) -> None:
    """Planted vectors of every modality, with their sequences, written as extract does; one clip failed in audio."""
    manifest, root = manifest_of(settings)
    clips = [to_clip(clip, root) for clip in manifest]
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(2, DIM))
    for modality in settings.extract.modalities():
        section = getattr(settings.extract, modality)
        recipe = {
            "extractor": section.backbone,
            "modality": modality,
            "settings": {"precision": "fp32"},
            "weights": {"source": "random", "trained": False, "sha256": "ab" * 32, "licence": "none"},
            "dim": DIM,
            "versions": versions(LIBRARIES[modality]),
            "keep_sequence": True,
        }
        store = EmbeddingStore.create(
            settings.work / "features", modality, recipe, request_of(modality, section, keep_sequence=True)
        )
        sources = {clip.clip_id: source_of(clip, modality) for clip in clips}
        kept = clips[:-1] if modality == "audio" else clips
        embeddings = []
        for i, clip in enumerate(kept):
            steps = (centres[i % 2] + 0.2 * rng.normal(size=(3, DIM))).astype(np.float32)
            embeddings.append(Embedding(clip.clip_id, steps.mean(axis=0), len(steps), sequence=steps))
        store.write_part(embeddings, sources)
        lost = [Failure(c.clip_id, "read", "undecodable", "v.mp4: damaged", sources[c.clip_id]) for c in clips[-1:]]
        store.failed.write(lost if modality == "audio" else ())


@cache
def can_write_csd() -> bool:
    """Whether the extra for .csd files is installed."""
    try:
        import h5py  # type: ignore[import-untyped] # noqa: F401
    except ImportError:
        return False
    return True


def _write_csd(folder: Path) -> None:
    """Features, labels and words of the CMU-MultimodalSDK."""
    if not can_write_csd():
        return
    import h5py

    folder.mkdir()
    rng = np.random.default_rng(1)
    for name in ("COVAREP", "labels", "words"):
        with h5py.File(folder / f"{name}.csd", "w") as file:
            for video in ("v0", "v1"):
                group = file.create_group(f"{name}/data/{video}")
                spans = np.array([[i, i + 1] for i in range(4)], dtype=np.float32)
                rows = rng.normal(size=(4, 1 if name == "labels" else DIM)).astype(np.float32)
                group["features"] = np.array([[b"word"]] * 4) if name == "words" else rows
                group["intervals"] = spans
