"""What the audio encoder is trained on: a few frames' feature maps and one log-mel of each clip, made once and kept.

    <workdir>/pretrain/inputs/visual/<fingerprint>/    the maps, one row a clip, as embeddings are kept
    <workdir>/pretrain/inputs/audio/<fingerprint>/     the log-mels

The stage `extract` makes both: each file is read once, a clip that fails is a row, a run that was killed goes on.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from extractors.clip import Clip
from extractors.pretraining.inputs import LogMels
from extractors.pretraining.pairs import Pairs
from extractors.visual_frames import FrameMaps, MappedFrameExtractor
from pipeline.config import Settings, VisualSettings
from pipeline.console import say
from pipeline.corpora.base import CorpusClip
from pipeline.encoders import build, recipe_of, request_of
from pipeline.errors import PipelineError
from pipeline.extract import Job, open_job, run_jobs
from pipeline.manifest import to_clip
from pipeline.provenance import LIBRARIES, stable_hash, versions
from pipeline.readers import Readers

_HALF_MAX = float(np.finfo(np.float16).max)


class Inputs(NamedTuple):
    """The pairs, whose clips they are, and the recipe of the image side."""

    pairs: Pairs
    clip_ids: list[str]
    image: dict[str, Any]


def gather(settings: Settings, manifest: Sequence[CorpusClip], root: Path) -> Inputs:
    """Makes what is missing and reads all of it; clips that lack a picture or a sound are told and left out.

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
    clips = [to_clip(clip, root) for clip in manifest]
    folder = settings.work / "pretrain" / "inputs"
    jobs = [_maps(folder, visual, clips), _log_mels(folder, clips)]
    pending = [job for job in jobs if job.pending]
    if pending:
        with Readers(settings.extract) as readers:
            run_jobs(pending, clips, settings.extract, readers, what="pretrain-audio: maps and log-mels")
    for job in jobs:
        job.store.write_failures(job.failures.values())
        if job.failures:
            first = next(iter(job.failures.values()))
            say(f"pretrain-audio: {job.n_failed} clips without {job.modality}: see {job.store.folder / 'failures.csv'}")
            say(f"  e.g. {first.clip_id}: {first.message}")
    return _read(jobs, manifest)


def _maps(folder: Path, visual: VisualSettings, clips: Sequence[Clip]) -> Job:
    extractor = build("visual", visual)
    if not isinstance(extractor, MappedFrameExtractor):
        raise PipelineError(f"extract.visual.backbone: {extractor.name} gives no feature map to pretrain on")
    maps = FrameMaps(extractor)
    recipe = {**recipe_of("visual", visual, maps, keep_sequence=True), "map_shape": extractor.map_shape}
    return open_job(folder, "visual", maps, recipe, request_of("visual", visual, keep_sequence=True), clips)


def _log_mels(folder: Path, clips: Sequence[Clip]) -> Job:
    extractor = LogMels()
    recipe = {
        "extractor": extractor.name,
        "weights": extractor.weights_record,
        "dim": extractor.dim,
        "versions": versions(LIBRARIES["audio"]),
        "keep_sequence": True,
    }
    return open_job(folder, "audio", extractor, recipe, stable_hash(recipe, 20), clips)


def _read(jobs: Sequence[Job], manifest: Sequence[CorpusClip]) -> Inputs:
    maps_job, mels_job = jobs
    kept_mels = mels_job.store.iter_sequences(mels_job.sources)  # float16: right to 0.03 dB
    log_mels = {name: np.ascontiguousarray(rows.T, dtype=np.float32) for name, rows in kept_mels}
    with_map = {clip_id for clip_id, source in maps_job.store.done() if maps_job.sources.get(clip_id) == source}
    kept = [clip for clip in manifest if clip.clip_id in log_mels and clip.clip_id in with_map]
    if not kept:
        raise PipelineError("pretrain-audio: no clip has both a picture and a sound; nothing to train on")
    ids = [clip.clip_id for clip in kept]
    videos = [clip.video or clip.media for clip in kept]
    pairs = Pairs(_stacked(maps_job, ids), [log_mels[clip_id] for clip_id in ids], videos)
    return Inputs(pairs, ids, dict(maps_job.store.recipe))


def _stacked(job: Job, ids: Sequence[str]) -> NDArray[np.float16]:
    """(N, F, C, H, W) in a file without a name that ends with the process: a corpus' maps may not fit in memory."""
    position = {clip_id: row for row, clip_id in enumerate(ids)}
    n_frames = int(job.store.recipe["settings"]["frames_per_clip"])
    channels, height, width = job.store.recipe["map_shape"]
    shape = (len(ids), n_frames, channels, height, width)
    with tempfile.TemporaryFile(dir=job.store.folder) as file:
        stacked = np.memmap(file, dtype=np.float16, mode="w+", shape=shape)  # keeps the file open for itself
    for clip_id, rows in job.store.iter_sequences(job.sources):  # (T H W, C)
        if clip_id in position:
            maps = rows.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)  # (T, C, H, W)
            held = np.clip(maps, -_HALF_MAX, _HALF_MAX).astype(np.float16)
            stacked[position[clip_id]] = held[np.arange(n_frames) * len(held) // n_frames]  # a short clip's come twice
    return stacked
