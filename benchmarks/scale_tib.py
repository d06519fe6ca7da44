"""How far TIB goes beyond memory: resident memory and seconds a sample by N, and quality by batch size.

python -m benchmarks.scale_tib --quick     seconds to minutes; without it 10k, 100k and 1M clips, about ten minutes
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import normalized_mutual_info_score

from benchmarks.memory import peak_bytes

NAMES, DIM, N_CLUSTERS = ("text", "visual", "audio"), 60, 7
# Clips, and passes over them; None is the default's number of steps, as a pass over a million takes too long here.
SIZES: tuple[tuple[int, int | None], ...] = ((10_000, 1), (100_000, 1), (1_000_000, None))
QUICK_SIZES = SIZES[:1]
BATCHES, QUICK_BATCHES = (256, 512, 1024, 2048, None), (256, None)
MOST_GB, FLAT = 3.0, 0.10
ROWS = 50_000  # written at a time


def planted(n_clips: int, n_clusters: int, seed: int, apart: float) -> tuple[dict[str, NDArray[np.float32]], Any]:
    """Three views of DIM dims of clusters of unequal size, and which is whose; `apart` in sds of a feature."""
    rng = np.random.default_rng(seed)
    shares = np.linspace(1.0, 3.0, n_clusters)
    truth = rng.choice(n_clusters, n_clips, p=shares / shares.sum())
    centres = {name: apart * np.random.default_rng([7, m]).normal(size=(n_clusters, DIM))
               for m, name in enumerate(NAMES)}  # fmt: skip
    views = {name: (c[truth] + rng.normal(size=(n_clips, DIM))).astype(np.float32) for name, c in centres.items()}
    return views, truth


def write_views(folder: Path, n_clips: int) -> None:
    """A .npy file a view, ROWS clips at a time, and labels.npy."""
    shapes = {**{name: (n_clips, DIM) for name in NAMES}, "labels": (n_clips,)}
    files = {
        name: np.lib.format.open_memmap(
            folder / f"{name}.npy", "w+", np.int8 if name == "labels" else np.float32, shape
        )
        for name, shape in shapes.items()
    }
    for start in range(0, n_clips, ROWS):
        views, truth = planted(min(ROWS, n_clips - start), N_CLUSTERS, start, 0.35)
        for name, rows in {**views, "labels": truth}.items():
            files[name][start : start + ROWS] = rows
    for file in files.values():
        file.flush()


def fit_files(folder: Path, passes: int | None, restarts: int) -> dict[str, Any]:
    """One fit of the files in a folder: seconds by stage, resident memory of this process, NMI at the end."""
    from tib import TIB, StepReport
    from tib.twin.blocks import BLOCK
    from tib.twin.fit import HOMES

    views = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in NAMES}
    n_clips = len(views["text"])
    stamps: list[tuple[float, float]] = []
    begun = _now()
    model = TIB(N_CLUSTERS, random_state=0, restarts=restarts, epochs=passes, schedule="free")

    def stamp(report: StepReport) -> None:
        stamps.append(_now())

    model.fit(views, on_step=stamp)
    ended = _now()
    seconds = [
        [round(until[clock] - since[clock], 1) for clock in range(2)]
        for since, until in ((begun, stamps[0]), (stamps[0], stamps[-1]), (stamps[-1], ended))
    ]
    # Anchors that a restart goes through, in blocks that are read and whose graph is made on the way.
    anchors = (len(stamps) - 1) * 128 * restarts
    blocks = -(-n_clips // BLOCK)
    homes = min(blocks, restarts, HOMES)  # whose graphs were made before the first step
    training = stamps[-1][1] - stamps[0][1] + homes * graph_seconds(n_clips // blocks)
    truth = np.load(folder / "labels.npy")
    return {
        "clips": n_clips,
        "passes": passes,
        "restarts": restarts,
        "steps": len(stamps),
        "setup_wall_cpu_s": seconds[0],
        "training_wall_cpu_s": seconds[1],
        "assignment_wall_cpu_s": seconds[2],
        "training_cpu_us_an_anchor": round(1e6 * training / anchors, 2),
        "assignment_cpu_us_a_clip": round(1e6 * (ended[1] - stamps[-1][1]) / n_clips, 2),
        "peak_gb": round(peak_bytes() / 1e9, 2),
        "nmi": round(float(normalized_mutual_info_score(truth, model.labels_)), 3),
    }


def graph_seconds(n_clips: int) -> float:
    """Processor seconds of one block's graph of neighbours."""
    import torch

    from tib.twin.graph import n_neighbours, nearest

    views = [torch.randn(n_clips, DIM) for _ in NAMES]
    begun = time.process_time()
    nearest(views, [torch.ones(n_clips, dtype=torch.bool)] * len(views), n_neighbours(n_clips))
    return time.process_time() - begun


def _now() -> tuple[float, float]:
    """Seconds by the clock, and of processor time, which other work on the machine does not lengthen."""
    return time.perf_counter(), time.process_time()


def beyond_memory(sizes: Sequence[tuple[int, int | None]] = SIZES, restarts: int = 4) -> dict[str, Any]:
    """A fit a size, each in a process of its own, from files on disk.

    Args:
        sizes: clips, and passes over them.

    Returns:
        `rows`, one a size, as `fit_files` gives them; `spread`, the largest over the smallest processor time an anchor,
        reading and graphs included, less 1;
        `met`, whether memory and spread are within MOST_GB and FLAT.
    """
    rows = []
    for n_clips, passes in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_views(Path(folder), n_clips)
            command = [
                sys.executable, "-m", "benchmarks.scale_tib", "--fit", folder, "--restarts", str(restarts),
                *(() if passes is None else ("--passes", str(passes))),
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - this interpreter
        rows.append(json.loads(done.stdout))
        print(f"scale_tib: {rows[-1]}", file=sys.stderr, flush=True)
    times = [row["training_cpu_us_an_anchor"] for row in rows]
    spread = max(times) / min(times) - 1
    peak = max(row["peak_gb"] for row in rows)
    return {
        "rows": rows,
        "spread": round(spread, 3),
        "peak_gb": peak,
        "met": spread <= FLAT and peak <= MOST_GB,
    }


def by_batch(
    batches: Sequence[int | None] = BATCHES,
    momenta: Sequence[float] = (0.0, 0.9),
    *,
    n_clips: int = 5000,
    n_clusters: int = 20,
    steps: int = 300,
    seeds: Sequence[int] = (0, 1),
) -> list[dict[str, Any]]:
    """NMI and the label-free score by batch size, with the batch's own joint and with a running one.

    The number of steps is the same for all, so that only what a step is estimated from differs. Planted clusters,
    K large beside the smallest batch; labels are seen by the NMI alone.

    Args:
        batches: anchors of a step; None is the full batch.
        momenta: of the running joint.
    """
    from tib import TIB

    rows = []
    for batch in batches:
        for momentum in momenta:
            found = []
            for seed in seeds:
                views, truth = planted(n_clips, n_clusters, seed, 0.6)
                bag = round(0.9 * n_clips)
                epochs = max(1, round(steps * min(batch or bag, bag) / bag))
                model = TIB(
                    n_clusters, random_state=seed, restarts=2, epochs=epochs, batch_size=batch or n_clips,
                    joint_momentum=momentum, schedule="free",
                )  # fmt: skip
                model.fit(views)
                last = model.history_[-max(1, len(model.history_) // 10) :]
                found.append(
                    {
                        "nmi": normalized_mutual_info_score(truth, model.labels_),
                        "score": model.score(views),
                        "training_consistency": -float(np.mean([row["consistency"] for row in last])),
                        "steps": len(model.history_),
                    }
                )
            rows.append({"batch": batch or "full", "joint_momentum": momentum, **_means(found)})
            print(f"scale_tib: {rows[-1]}", file=sys.stderr, flush=True)
    return rows


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, seconds to minutes")
    parser.add_argument("--fit", type=Path, help="one fit of the files in this folder; what a size's own process does")
    parser.add_argument("--passes", type=int)
    parser.add_argument("--restarts", type=int, default=4)
    arguments = parser.parse_args()
    if arguments.fit is not None:
        print(json.dumps(fit_files(arguments.fit, arguments.passes, arguments.restarts)))
        return 0
    quick = arguments.quick
    memory = beyond_memory(QUICK_SIZES if quick else SIZES, arguments.restarts)
    quality = by_batch(QUICK_BATCHES, n_clips=1000, steps=40, seeds=(0,)) if quick else by_batch()
    print(json.dumps({"beyond_memory": memory, "by_batch": quality}, indent=1))
    return 0 if memory["met"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
