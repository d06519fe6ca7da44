"""How long `extract` takes where all is done: it should find that out without loading what it would embed with.

python -m benchmarks.extract_again        2,199 clips, as many as MOSI has; prints JSON
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml

from benchmarks.data import ROOT

N_CLIPS = 2199
CHUNK = 16  # clips a part, as `extract` writes them
DIMS = {"visual": 4096, "text": 768, "audio": 1024}  # of the default encoders


def second_run(n_clips: int = N_CLIPS, *, runs: int = 5) -> dict[str, Any]:
    """Wall seconds of `python -m pipeline extract` over clips that are all embedded, with the default settings.

    Returns:
        {"clips", "seconds"}: the median of the runs, after one that is not counted.
    """
    parent = ROOT / "work" / "bench"
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix="extract-again-") as folder:
        config = write_finished(Path(folder), n_clips)
        seconds = [seconds_of_a_run(config, n_clips) for _ in range(1 + runs)]
    return {"clips": n_clips, "seconds": round(median(seconds[1:]), 2)}


def write_finished(folder: Path, n_clips: int, overrides: Sequence[str] = ()) -> Path:
    """A corpus in a folder, and a workdir in which it is prepared, its audio encoder trained and every clip embedded.

    Nothing of it is real but its shape: files that no decoder ever sees, weights that are none, embeddings drawn at
    random, under the request that `extract` looks for.

    Args:
        folder: where all of it goes.
        overrides: settings `a.b=c` beside those of the place.
    Returns:
        the config file.
    """
    from pipeline.config import load_settings
    from pipeline.console import Output, output
    from pipeline.manifest import to_clip
    from pipeline.prepare import manifest_of, prepare

    clips = folder / "clips"
    clips.mkdir()
    for number in range(n_clips):
        (clips / f"clip_{number:04d}.mp4").write_bytes(b"\0" * 64)
        (clips / f"clip_{number:04d}.txt").write_text(f"the words of clip {number}")
    config = folder / "again.yaml"
    config.write_text(yaml.safe_dump({"corpus": {"root": str(clips)}, "workdir": str(folder / "work")}))
    settings = load_settings(config, overrides)
    if settings.uses_own_audio:
        settings.own_audio.parent.mkdir(parents=True)
        settings.own_audio.write_bytes(b"\0" * 64)
        settings.own_audio.with_suffix(".json").write_text("{}")
    with output(Output(quiet=True)):
        prepare(settings)
    manifest, root = manifest_of(settings)
    for modality in settings.extract.modalities():
        _write_store(settings, modality, [to_clip(clip, root) for clip in manifest])
    return config


def _write_store(settings: Any, modality: str, clips: Sequence[Any]) -> None:
    from extractors.base import Embedding
    from pipeline.encoders import request_of
    from pipeline.sources import sources_of
    from pipeline.store import EmbeddingStore

    section, dim = getattr(settings.extract, modality), DIMS[modality]
    recipe = {"extractor": section.backbone, "weights": {"trained": True}, "dim": dim}
    request = request_of(modality, section, keep_sequence=settings.extract.keep_sequence)
    store = EmbeddingStore.create(settings.work / "features", modality, recipe, request)
    sources = sources_of(clips, modality, ())
    rng = np.random.default_rng(0)
    for start in range(0, len(clips), CHUNK):
        chunk = clips[start : start + CHUNK]
        vectors = rng.normal(size=(len(chunk), dim)).astype(np.float32)
        store.write_part([Embedding(c.clip_id, v, 1) for c, v in zip(chunk, vectors, strict=True)], sources)


def seconds_of_a_run(config: Path, n_clips: int) -> float:
    """Wall seconds of one run, as a process of its own.

    Raises:
        RuntimeError: it did not find every clip done.
    """
    command = [sys.executable, "-m", "pipeline", "extract", "--config", str(config)]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603
    seconds = time.perf_counter() - started
    if f"nothing to do: {n_clips} clips" not in done.stdout:
        raise RuntimeError(f"expected nothing to do for {n_clips} clips, got: {done.stdout}")
    return seconds


if __name__ == "__main__":
    print(json.dumps(second_run()))
