"""How fast: the whole method and the reference against the published demo's plain loop, alternating in one run."""

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.data import DataSet, planted
from benchmarks.plain_loop import plain_run
from tib import TIB, StepReport

PLAIN_EPOCHS = 500


def speed(data: DataSet, rounds: int) -> dict[str, Any]:
    """Wall seconds of each, alternating; medians, and medians of the ratios round by round.

    Args:
        data: with the views text, visual and audio of one dim.
    """
    views = {name: np.asarray(view, dtype=np.float32) for name, view in data.views.items()}
    tensors = {name: torch.from_numpy(view) for name, view in views.items()}
    k = data.n_clusters
    runs: dict[str, Callable[[], object]] = {
        "plain loop": lambda: plain_run(tensors, k, 0, PLAIN_EPOCHS, superfluous=True),
        "TIB default": lambda: TIB(k, random_state=0).fit(views),
        "reference R=1": lambda: TIB(k, objective="reference", random_state=0).fit(views),
        "reference R=16": lambda: TIB(k, objective="reference", restarts=16, random_state=0).fit(views),
    }
    TIB(k, random_state=0, epochs=1).fit(views)  # the first call of everything is slower
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    ratios = {
        name: median(own / plain for own, plain in zip(values, seconds["plain loop"], strict=True))
        for name, values in seconds.items()
    }
    return {
        "clips": len(data.labels_true),
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "median_seconds": {name: round(median(values), 3) for name, values in seconds.items()},
        "ratio_to_plain_loop": {name: round(value, 3) for name, value in ratios.items()},
        "reference_ratio_a_restart": round(ratios["reference R=16"] / 16, 4),
        "gemm": gemm_share(views, k, median(seconds["TIB default"])),
    }


def gemm_share(views: dict[str, NDArray[np.float32]], n_clusters: int, fit_seconds: float) -> dict[str, float]:
    """The fit's matrix products a second, and the share of the peak of one large product in the same minute."""
    with FlopCounterMode(display=False) as counter:
        TIB(n_clusters, random_state=0).fit(views)
    a = torch.randn(2048, 2048)
    times = []
    for _ in range(9):
        started = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - started)
    peak = 2 * 2048**3 / median(times) / 1e9
    reached = counter.get_total_flops() / fit_seconds / 1e9
    return {
        "fit_gflop": round(counter.get_total_flops() / 1e9, 1),
        "fit_gflop_per_second": round(reached, 1),
        "peak_gflop_per_second": round(peak, 1),
        "share": round(reached / peak, 3),
    }


FIT_ALONE = """
import resource, sys
from benchmarks.data import load
from tib import TIB
data = load(sys.argv[1])
TIB(data.n_clusters, random_state=0).fit(data.views)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def peak_memory_gb(source: str) -> float:
    """Of a process that does nothing but the default fit."""
    command = [sys.executable, "-c", FIT_ALONE, source]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - this very interpreter
    return float(done.stdout)


def growth(sizes: tuple[int, ...], epochs: int = 1) -> list[dict[str, float]]:
    """Seconds a clip of one pass at several N, K = 7, three views of 60 dims: flat where cost is linear."""
    TIB(7, random_state=0, epochs=1).fit(planted(500))
    rows = []
    for n_clips in sizes:
        views = planted(n_clips)
        stamps: list[float] = []
        started = time.perf_counter()
        model = TIB(7, random_state=0, epochs=epochs, schedule="free")
        model.fit(views, on_step=partial(_stamp, stamps))
        total = time.perf_counter() - started
        steps = stamps[-1] - stamps[0]
        rows.append(
            {
                "clips": n_clips,
                "seconds": round(total, 2),
                "ms_a_clip": round(1e3 * total / n_clips, 4),
                "training_ms_a_clip": round(1e3 * steps / max(len(stamps) - 1, 1) * len(stamps) / n_clips, 4),
            }
        )
        print(f"growth: {rows[-1]}", file=sys.stderr, flush=True)
    return rows


def _stamp(stamps: list[float], _: StepReport) -> None:
    stamps.append(time.perf_counter())
