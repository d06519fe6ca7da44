"""How the store's time and memory grow with the clips: synthetic corpora of three modalities, from parts to views.

`python -m benchmarks.scale_store` prints JSON; --quick takes seconds. Each size runs in a process of its own, so that
its peak of resident memory is its own. What is timed are the functions that the stages call, on real files: a list
of clips cut from one recording, parts of 60-d float32 embeddings, aligned views.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.memory import peak_bytes
from pipeline.compact import compact
from pipeline.config import Settings
from pipeline.console import Output, output
from pipeline.corpora.base import CorpusClip
from pipeline.encoders import request_of
from pipeline.extract import extract
from pipeline.features import chosen_stores
from pipeline.manifest import Manifest, to_clip
from pipeline.prepare import prepare
from pipeline.reduce import reduce
from pipeline.sources import source_of
from pipeline.store import EmbeddingStore
from pipeline.view_files import iter_clip_ids, read_views
from pipeline.views import Views

MODALITIES = ("text", "visual", "audio")
DIM, PART_ROWS, CLIP_S, SEED = 60, 16_384, 3.0, 0
SIZES, QUICK_SIZES = (1_000_000, 3_000_000, 10_000_000), (3_000, 30_000)
MAX_BYTES, MAX_SPREAD = 2e9, 0.15


def clips(n: int) -> Iterator[CorpusClip]:
    """A corpus of n clips: spans of one recording, each with its words."""
    for row in range(n):
        start_s = row * CLIP_S
        yield CorpusClip(
            f"stream_{row // 1000:06d}_{row % 1000:03d}", "stream.mp4", start_s, start_s + CLIP_S, f"words {row}"
        )


def write_list(root: Path, n: int) -> None:
    """The recording, which nothing decodes, and a Parquet list of its clips."""
    root.mkdir()
    (root / "stream.mp4").write_bytes(b"a long recording")
    columns = {
        "clip_id": "clip_id",
        "file": "media",
        "start_s": "start_s",
        "end_s": "end_s",
        "transcript": "transcript",
    }
    waiting, writer = clips(n), None
    while some := list(islice(waiting, PART_ROWS)):
        table = pa.table({column: [getattr(clip, name) for clip in some] for column, name in columns.items()})
        writer = writer or pq.ParquetWriter(root / "clips.parquet", table.schema)
        writer.write_table(table)
    if writer:
        writer.close()


def write_stores(settings: Settings, root: Path, n: int) -> None:
    """The embeddings of every clip in parts of PART_ROWS, as an extraction leaves them: a factor model with noise."""
    rng = np.random.default_rng(SEED)
    stores = {}
    for modality in MODALITIES:
        section = getattr(settings.extract, modality)
        recipe = {"extractor": section.backbone, "weights": {}, "dim": DIM}
        request = request_of(modality, section)
        stores[modality] = EmbeddingStore.create(settings.features, modality, recipe, request)
    factors = rng.normal(size=(8, DIM)).astype(np.float32)
    corpus = (to_clip(clip, root) for clip in clips(n))
    for start in range(0, n, PART_ROWS):
        part = [next(corpus) for _ in range(min(PART_ROWS, n - start))]
        hidden = rng.normal(size=(len(part), 8)).astype(np.float32)
        for modality, store in stores.items():
            noise = rng.standard_normal((len(part), DIM), dtype=np.float32)
            stamps = [source_of(clip, modality) for clip in part]
            store.write_rows([clip.clip_id for clip in part], stamps, hidden @ factors + noise, [1] * len(part))


def extract_again(settings: Settings, root: Path) -> int:
    """A second run, as the command makes it; how many clips have failed."""
    return extract(settings, Manifest(settings.work / "manifest.jsonl"), root)


def compact_all(settings: Settings) -> int:
    """Few large parts in place of many; how many parts there are then."""
    return sum(compact(store).parts_after for store in chosen_stores(settings, "bench").values())


def read_all(settings: Settings) -> int:
    """Views, every value and id once; how many clips there are."""
    views: Views = read_views(settings.work / "reduced")
    views.digest()
    if not views.complete().all():
        raise RuntimeError("expected every clip to have every modality")
    return sum(1 for _ in iter_clip_ids(settings.work / "reduced"))


def measure(n: int, folder: Path) -> dict[str, Any]:
    """Seconds and peak memory of each step over n clips, in this process; its answers are checked.

    Raises:
        RuntimeError: a step found other than it should.
    """
    root = folder / "clips"
    corpus = {"kind": "parquet", "root": root}
    settings = Settings(workdir=folder / "work", corpus=corpus, reduce={"dim": 16})
    steps: dict[str, tuple[Callable[[], Any], Any]] = {
        "list": (partial(write_list, root, n), None),
        "prepare": (partial(prepare, settings), 0),
        "write": (partial(write_stores, settings, root, n), None),
        "resume": (partial(extract_again, settings, root), 0),
        "join_and_reduce": (partial(reduce, settings), None),
        "read": (partial(read_all, settings), n),
        "compact": (partial(compact_all, settings), ...),
    }
    seconds, cpu_seconds, peaks = {}, {}, {}
    for name, (step, expected) in steps.items():
        began, cpu_began = time.perf_counter(), time.process_time()
        with output(Output(quiet=True)):
            found = step()
        seconds[name], cpu_seconds[name] = time.perf_counter() - began, time.process_time() - cpu_began
        peaks[name] = peak_bytes()
        if expected is not ... and found != expected:
            raise RuntimeError(f"{name} of {n} clips: expected {expected}, got {found}")
        print(
            f"{n}: {name}: {seconds[name]:.1f} s, {cpu_seconds[name]:.1f} s of CPU, peak {peaks[name] / 1e6:.0f} MB",
            file=sys.stderr,
        )
    return {"clips": n, "seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": peaks}


def measure_apart(n: int) -> dict[str, Any]:
    """`measure` in a fresh process, which has imported nothing else, and in a folder that is deleted after."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.scale_store", "--measure", str(n), folder]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603 - this interpreter
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def scale(sizes: tuple[int, ...]) -> dict[str, Any]:
    """Each size measured, and how far the seconds per million clips are apart: by the clock and of the processor."""
    measured = [measure_apart(n) for n in sizes]
    return {
        "sizes": measured,
        "per_million": {kind: _per_million(measured, kind) for kind in ("seconds", "cpu_seconds")},
        "peak_bytes": max(max(one["peak_bytes"].values()) for one in measured),
    }


def _per_million(measured: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """Of each step, and of all together: the seconds per million clips at each size, and their spread."""
    by_step = {name: [one[kind][name] / one["clips"] * 1e6 for one in measured] for name in measured[0][kind]}
    by_step["all"] = [sum(values) for values in zip(*by_step.values(), strict=True)]
    return {name: {"by_size": values, "spread": _spread(values)} for name, values in by_step.items()}


def _spread(values: list[float]) -> float:
    """Largest deviation from the mean, as a share of it."""
    mean = sum(values) / len(values)
    return max(abs(value - mean) for value in values) / mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, whose seconds per million say little")
    parser.add_argument("--sizes", type=int, nargs="+", help="clips, in place of the usual sizes")
    parser.add_argument("--measure", nargs=2, metavar=("CLIPS", "FOLDER"), help="what one size's own process does")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(int(options.measure[0]), Path(options.measure[1]))))
        return
    found = scale(tuple(options.sizes or (QUICK_SIZES if options.quick else SIZES)))
    # Of the processor: by the clock it tells of whatever else this machine does.
    flat = found["per_million"]["cpu_seconds"]["all"]["spread"] <= MAX_SPREAD
    enough = found["peak_bytes"] <= MAX_BYTES and (options.quick or flat)
    print(json.dumps(found | {"passed": enough}, indent=2))
    sys.exit(not enough)


if __name__ == "__main__":
    main()
