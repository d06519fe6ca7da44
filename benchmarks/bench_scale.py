"""`make bench-scale`: what grows with a corpus and what does not, as JSON. Exit 1 below a target.

The store of 10 million clips, TIB on a million, the commands that train and predict on a million, extraction on Ray
against extraction without it, and the cost model with its simulation (docs/scale.md). Each is measured in processes of
its own.

make bench-scale                        an hour
make bench-scale ARGS=--quick           small sizes: minutes; too small to hold time against the targets
make bench-scale ARGS="--only tib"      one of store, tib, run, ray, model
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

from benchmarks import scale_model, scale_ray, scale_run, scale_store, scale_tib
from benchmarks.machine import machine
from pipeline.console import Output, output

PARTS = ("store", "tib", "run", "ray", "model")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-scale", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes: minutes")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does
    quick = arguments.quick
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "store": lambda: _store(quick),
        "tib": lambda: _tib(quick),
        "run": lambda: _run(quick),
        "ray": lambda: _ray(quick),
        "model": lambda: {"missed": [], **scale_model.all_sizes(scale_model.read_assumptions(scale_model.ASSUMPTIONS))},
    }
    now = datetime.now(UTC).isoformat(timespec="seconds")
    result: dict[str, Any] = {"date": now, "machine": machine(), "quick": quick}
    with redirect_stdout(sys.stderr):
        for name in (name for name in parts if name in arguments.only):
            result[name] = parts[name]()
            told = "; ".join(result[name]["missed"]) or "nothing missed"
            print(f"scale: {name}: {told}", flush=True)
    print(json.dumps(result, indent=1))
    return 1 if any(result[name]["missed"] for name in arguments.only) else 0


def _store(quick: bool) -> dict[str, Any]:
    found = scale_store.scale(scale_store.QUICK_SIZES if quick else scale_store.SIZES)
    missed = []
    if found["peak_bytes"] > scale_store.MAX_BYTES:
        missed.append(f"peak memory {found['peak_bytes'] / 1e9:.2f} GB, wanted {scale_store.MAX_BYTES / 1e9:.2f}")
    spread = found["per_million"]["cpu_seconds"]["all"]["spread"]
    if not quick and spread > scale_store.MAX_SPREAD:
        missed.append(f"seconds a million clips spread by {spread:.0%}, wanted {scale_store.MAX_SPREAD:.0%}")
    return {"missed": missed, **found}


def _tib(quick: bool) -> dict[str, Any]:
    memory = scale_tib.beyond_memory(scale_tib.QUICK_SIZES if quick else scale_tib.SIZES)
    quality = (
        scale_tib.by_batch(scale_tib.QUICK_BATCHES, n_clips=1000, steps=40, seeds=(0,))
        if quick
        else scale_tib.by_batch()
    )
    missed = []
    if memory["peak_gb"] > scale_tib.MOST_GB:
        missed.append(f"peak memory {memory['peak_gb']:.2f} GB, wanted {scale_tib.MOST_GB}")
    if memory["spread"] > scale_tib.FLAT:
        missed.append(f"time an anchor spreads by {memory['spread']:.0%}, wanted {scale_tib.FLAT:.0%}")
    return {"missed": missed, "beyond_memory": memory, "by_batch": quality}


def _run(quick: bool) -> dict[str, Any]:
    found = scale_run.quick_commands() if quick else scale_run.commands(scale_run.N_CLIPS)
    missed = []
    if found["peak_gb"] > scale_run.MOST_GB:
        missed.append(f"peak memory {found['peak_gb']:.2f} GB, wanted {scale_run.MOST_GB}")
    return {"missed": missed, **found}


def _ray(quick: bool) -> dict[str, Any]:
    if find_spec("ray") is None:
        return {"missed": [], "not_tried": "Ray is not installed: make test-ray installs it"}
    with output(Output(quiet=True)):
        found = scale_ray.engines(*((16, 1) if quick else (64, 3)))
    missed = []
    if not quick and found["of_local"] < scale_ray.WANTED:
        missed.append(f"{found['of_local']:.2f} of the rate without Ray, wanted {scale_ray.WANTED}")
    if found["least_cosine"] < scale_ray.LEAST_COSINE:
        missed.append(f"least cosine {found['least_cosine']:.6f}, wanted {scale_ray.LEAST_COSINE}")
    return {"missed": missed, **found}


if __name__ == "__main__":
    sys.exit(main())
