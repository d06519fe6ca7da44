"""What the audio encoder is trained on: a few frames' feature maps and one log-mel of each clip, made once and kept.

    <workdir>/pretrain/inputs/visual/<fingerprint>/    the maps, one row a clip, as embeddings are kept
    <workdir>/pretrain/inputs/audio/<fingerprint>/     the log-mels

The stage `extract` makes both: each file is read once, a clip that fails is a row, a run that was killed goes on.
"""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from extractors.pretraining.inputs import LogMels
from extractors.pretraining.pairs import Pairs
from extractors.visual_frames import FrameMaps, MappedFrameExtractor
from pipeline.config import PretrainSettings, Settings, VisualSettings
from pipeline.console import say
from pipeline.corpora.base import CorpusClip
from pipeline.encoders import build, recipe_of, request_of
from pipeline.engines.jobs import Job
from pipeline.engines.local import run_jobs
from pipeline.errors import PipelineError
from pipeline.extract import fold_failures, open_job
from pipeline.ledger import Ledger
from pipeline.manifest import to_clip
from pipeline.provenance import LIBRARIES, stable_hash, versions
from pipeline.readers import Readers
from pipeline.sources import sources_of
from pipeline.store import EmbeddingStore

_HALF_MAX = float(np.finfo(np.float16).max)


class Inputs(NamedTuple):
    """The pairs, whose clips they are, and the recipe of the image side."""

    pairs: Pairs
    clip_ids: list[str]
    image: dict[str, Any]


def gather(settings: Settings, manifest: Iterable[CorpusClip], root: Path) -> Inputs:
    """Makes what is missing and reads all of it; clips that lack a picture or a sound are told and left out.

    Of more than `pretrain.max_clips` so many are drawn at random: what an encoder learns of more is not worth a second
    reading of every clip, and what is held grows with them.

    Raises:
        PipelineError: the image encoder cannot be loaded or gives no map, or the workdir cannot be written.
    """
    visual = settings.extract.visual
    if visual is None:
        raise PipelineError(
            "pretrain-audio learns which sound belongs to which picture and needs extract.visual, which is null; set "
            "extract.visual.backbone, or take sound that needs no training, extract.audio.backbone=audio/logmel_stats"
        )
    visual = visual.in_torch().model_copy(update={"frames_per_clip": settings.pretrain.frames_per_clip, "fps": None})
    drawn = _drawn(manifest, settings.pretrain)
    clips = [to_clip(clip, root) for clip in drawn]
    folder = settings.work / "pretrain" / "inputs"
    with Ledger(lambda: clips, ("visual", "audio")) as ledger:
        maps, mels = jobs = _maps(folder, visual, ledger), _log_mels(folder, ledger)
        pending = [job for job in jobs if job.n_pending]
        if pending:
            with Readers(settings.extract) as readers:
                run_jobs(pending, ledger, settings.extract, readers, what="pretrain-audio: maps and log-mels")
        for job in jobs:
            first = fold_failures(job, ledger).first
            if first:
                where = job.store.folder / "failures.csv"
                say(f"pretrain-audio: {job.n_failed} clips without {job.modality}: see {where}")
                say(f"  e.g. {first.clip_id}: {first.message}")
    sources = {job.modality: sources_of(clips, job.modality, job.store.done()) for job in jobs}
    return _read(maps.store, mels.store, sources, drawn)


def _drawn(manifest: Iterable[CorpusClip], settings: PretrainSettings) -> list[CorpusClip]:
    n_clips, most = sum(1 for _ in manifest), settings.max_clips
    if most is None or n_clips <= most:
        return list(manifest)
    say(f"pretrain-audio: {most} of {n_clips} clips, drawn at random (pretrain.max_clips)")
    kept = np.zeros(n_clips, dtype=bool)
    kept[np.random.default_rng(settings.seed).choice(n_clips, most, replace=False)] = True
    return [clip for clip, chosen in zip(manifest, kept, strict=True) if chosen]


def _maps(folder: Path, visual: VisualSettings, ledger: Ledger) -> Job:
    extractor = build("visual", visual)
    if not isinstance(extractor, MappedFrameExtractor):
        raise PipelineError(f"extract.visual.backbone: {extractor.name} gives no feature map to pretrain on")
    maps = FrameMaps(extractor)
    recipe = {**recipe_of("visual", visual, maps, keep_sequence=True), "map_shape": extractor.map_shape}
    return open_job(folder, "visual", maps, recipe, request_of("visual", visual, keep_sequence=True), ledger)


def _log_mels(folder: Path, ledger: Ledger) -> Job:
    extractor = LogMels()
    recipe = {
        "extractor": extractor.name,
        "weights": extractor.weights_record,
        "dim": extractor.dim,
        "versions": versions(LIBRARIES["audio"]),
        "keep_sequence": True,
    }
    return open_job(folder, "audio", extractor, recipe, stable_hash(recipe, 20), ledger)


def _read(
    maps: EmbeddingStore,
    mels: EmbeddingStore,
    sources: Mapping[str, Mapping[str, str]],
    manifest: Sequence[CorpusClip],
) -> Inputs:
    log_mels = _log_mels_of(mels, sources["audio"])
    with_map = {clip_id for clip_id, source in maps.done() if sources["visual"].get(clip_id) == source}
    kept = [clip for clip in manifest if clip.clip_id in log_mels and clip.clip_id in with_map]
    if not kept:
        raise PipelineError("pretrain-audio: no clip has both a picture and a sound; nothing to train on")
    ids = [clip.clip_id for clip in kept]
    videos = [clip.video or clip.media for clip in kept]
    pairs = Pairs(_stacked(maps, sources["visual"], ids), [log_mels[clip_id] for clip_id in ids], videos)
    return Inputs(pairs, ids, dict(maps.recipe))


def _log_mels_of(store: EmbeddingStore, sources: Mapping[str, str]) -> dict[str, NDArray[np.float32]]:
    """clip_id -> (40, T), in a file as the maps are. Kept as float16: right to 0.03 dB."""
    shapes: dict[str, tuple[int, ...]] = {}
    with tempfile.TemporaryFile(dir=store.folder) as file:
        for clip_id, rows in store.iter_sequences(sources):  # (T, 40)
            log_mel = np.ascontiguousarray(rows.T, dtype=np.float32)
            file.write(log_mel.data)
            shapes[clip_id] = log_mel.shape
        file.flush()
        whole = np.memmap(file, dtype=np.float32, mode="r") if shapes else np.empty(0, np.float32)
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
    return {i: whole[end - np.prod(s) : end].reshape(s) for (i, s), end in zip(shapes.items(), ends, strict=True)}


def _stacked(store: EmbeddingStore, sources: Mapping[str, str], ids: Sequence[str]) -> NDArray[np.float16]:
    """(N, F, C, H, W) in a file without a name that ends with the process: a corpus' maps may not fit in memory."""
    position = {clip_id: row for row, clip_id in enumerate(ids)}
    n_frames = int(store.recipe["settings"]["frames_per_clip"])
    channels, height, width = store.recipe["map_shape"]
    shape = (len(ids), n_frames, channels, height, width)
    with tempfile.TemporaryFile(dir=store.folder) as file:
        stacked = np.memmap(file, dtype=np.float16, mode="w+", shape=shape)  # keeps the file open for itself
    for clip_id, rows in store.iter_sequences(sources):  # (T H W, C)
        if clip_id in position:
            maps = rows.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)  # (T, C, H, W)
            held = np.clip(maps, -_HALF_MAX, _HALF_MAX).astype(np.float16)
            stacked[position[clip_id]] = held[np.arange(n_frames) * len(held) // n_frames]  # a short clip's come twice
    return stacked
