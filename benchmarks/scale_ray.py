"""Extraction on Ray against extraction without it, on this machine: VGG16 over generated clips, by turns.

python -m benchmarks.scale_ray            64 clips, 3 rounds; prints JSON
python -m benchmarks.scale_ray --quick    16 clips, 1 round

A run of all clips and one of the first clip alone are timed with either engine. What the second takes is the start-up
(Ray's processes, PyTorch and the weights loaded); a clip's own cost is the difference of the two over the other clips.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import ROOT
from benchmarks.extract_clips import generated_clips
from benchmarks.machine import machine
from pipeline.config import load_settings
from pipeline.console import Output, output
from pipeline.corpora.base import CorpusClip
from pipeline.extract import extract
from pipeline.features import exact_store
from pipeline.prepare import manifest_of, prepare

WORK = ROOT / "work" / "bench" / "extract"
WANTED, LEAST_COSINE = 0.85, 0.99999
ENGINES = {"local": ["engine.kind=local"], "ray": ["engine.kind=ray", "engine.address=local"]}
VGG16 = ("extract.text=null", "extract.audio=null", "extract.visual.weights=random")
Vectors = dict[str, NDArray[np.float32]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale_ray", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="16 clips, 1 round")
    quick = parser.parse_args().quick
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
    with redirect_stdout(sys.stderr), output(Output(quiet=True)):
        found = {"machine": machine(), **engines(*((16, 1) if quick else (64, 3)))}
    print(json.dumps(found, indent=1))
    return 0 if found["of_local"] >= WANTED and found["least_cosine"] >= LEAST_COSINE else 1


def engines(n_clips: int = 64, rounds: int = 3) -> dict[str, Any]:
    """Both engines over the same clips, by turns.

    Returns:
        clips, rounds; of each engine the medians of `startup_s` and `frames_per_s` with every round's seconds; what
        part of the local rate Ray's is (`of_local`); the least cosine of a clip's two vectors.
    """
    folder = WORK / f"clips_{n_clips}"
    generated_clips(folder, n_clips)
    seconds: dict[str, dict[str, list[float]]] = {name: {"all": [], "one": []} for name in ENGINES}
    vectors: dict[str, Vectors] = {}
    for _ in range(rounds):
        for name in ENGINES:
            one, _ = _seconds(folder, name, n_clips=1)
            every, vectors[name] = _seconds(folder, name, n_clips=n_clips)
            seconds[name]["one"].append(one)
            seconds[name]["all"].append(every)
    rates = {name: _rate(found, n_clips) for name, found in seconds.items()}
    told = {
        name: {
            "startup_s": round(median(found["one"]), 1),
            "frames_per_s": round(rates[name], 2),
            "seconds": {what: [round(value, 2) for value in values] for what, values in found.items()},
        }
        for name, found in seconds.items()
    }
    cosines = [_cosine(vector, vectors["ray"][clip_id]) for clip_id, vector in vectors["local"].items()]
    return {
        "clips": n_clips,
        "rounds": rounds,
        **told,
        "of_local": round(rates["ray"] / rates["local"], 3),
        "least_cosine": round(min(cosines), 7),
    }


def _rate(seconds: dict[str, list[float]], n_clips: int) -> float:
    """Frames a second, the start-up left out."""
    frames = load_settings(None).extract.visual
    a_clip = frames.frames_per_clip if frames and frames.frames_per_clip else 0
    return a_clip * (n_clips - 1) / (median(seconds["all"]) - median(seconds["one"]))


def _seconds(clips: Path, engine: str, n_clips: int) -> tuple[float, Vectors]:
    """Of `extract` over the first clips into an empty workdir, with what it stored."""
    with TemporaryDirectory(dir=WORK) as work:
        settings = load_settings(None, [*VGG16, *ENGINES[engine]], corpus__root=clips, workdir=Path(work))
        prepare(settings)
        manifest, root = manifest_of(settings)
        chosen: Sequence[CorpusClip] = list(manifest)[:n_clips]
        started = time.perf_counter()
        failed = extract(settings, chosen, root)
        seconds = time.perf_counter() - started
        store = exact_store(settings, "visual")
        if failed or store is None:
            raise RuntimeError(f"{failed} clips failed")
        return seconds, store.read()


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    x, y = a.astype(np.float64), b.astype(np.float64)
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


if __name__ == "__main__":
    raise SystemExit(main())
