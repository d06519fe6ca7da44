"""`make bench-faults`: what is lost when things go wrong, as JSON and a table. Exit 1 where anything is.

Stages are killed at random and at every write; the disk fills up, refuses, is read-only; clips vanish, change, hang and
crash their reader; media files and the stages' own files are damaged; older versions' folders are read. Seeded.

make bench-faults                    200 kills and more, 1,000 media files, 1,000 other files: 20 minutes
make bench-faults ARGS=--quick       a little of it: a minute or two
make bench-faults ARGS="--only kills --seed 3"
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from datetime import UTC, datetime
from typing import Any

import numpy as np

from benchmarks.data import ROOT
from benchmarks.fault_points import KILLING
from benchmarks.faults_clips import clips
from benchmarks.faults_disk import disk
from benchmarks.faults_kills import kills
from benchmarks.faults_place import STAGES, Place
from benchmarks.faults_versions import versions
from benchmarks.fuzz_files import fuzz_files
from benchmarks.fuzz_media import fuzz_media
from benchmarks.machine import machine

WORK = ROOT / "work" / "bench" / "faults"
QUICK_STAGES = tuple(stage for stage in STAGES if stage != "pretrain-audio")
PARTS = ("kills", "disk", "clips", "versions", "media", "files")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-faults", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a little of it: a minute or two")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    quick, seed = arguments.quick, arguments.seed
    WORK.mkdir(parents=True, exist_ok=True)
    place = Place(WORK)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "kills": lambda: _kills(place, quick, seed),
        "disk": lambda: _cases(disk(place, place.undisturbed(STAGES[:1] if quick else STAGES), quick=quick)),
        "clips": lambda: _cases({} if quick else {"clips that hang, crash, or are too large": clips(WORK / "hostile")}),
        "versions": lambda: _cases({} if quick else _versions(place)),
        "media": lambda: _fuzzed(fuzz_media(50 if quick else 1000, seed)),
        "files": lambda: _fuzzed(fuzz_files(50 if quick else 1000, seed)),
    }
    now = datetime.now(UTC).isoformat(timespec="seconds")
    result: dict[str, Any] = {"date": now, "machine": machine(), "seed": seed}
    with redirect_stdout(sys.stderr):
        for name in parts:
            if name not in arguments.only:
                continue
            started = time.monotonic()
            result[name] = parts[name]()
            result[name]["seconds"] = round(time.monotonic() - started, 1)
            print(f"{name}: {json.dumps(result[name])}")
    lost = {name: result[name]["lost"] for name in arguments.only if result[name].get("lost")}
    print(json.dumps(result, indent=1))
    for name in arguments.only:
        print(f"{'LOST' if name in lost else 'kept'} {name}: {result[name]['tried']} tried", file=sys.stderr)
    return 1 if lost else 0


def _kills(place: Place, quick: bool, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    if quick:
        counts = kills(place, place.undisturbed(QUICK_STAGES), 4, rng, points=KILLING[:1], writes=2)
    else:
        counts = kills(place, place.undisturbed(), 130, rng)
    killed = {stage: {k: v for k, v in of.items() if k.startswith("killed")} for stage, of in counts.items()}
    others = {stage: {k: v for k, v in of.items() if not k.startswith("killed")} for stage, of in counts.items()}
    lost = {stage: of for stage, of in others.items() if of}
    return {"tried": sum(sum(of.values()) for of in killed.values()), "lost": lost, "killed": killed}


def _versions(place: Place) -> dict[str, list[str]]:
    place.undisturbed()  # makes the clips
    return versions(place)


def _fuzzed(found: dict[str, Any]) -> dict[str, Any]:
    return {"tried": found["files"], "lost": found["violations"], **found}


def _cases(cases: dict[str, list[str]]) -> dict[str, Any]:
    return {"tried": len(cases), "lost": {name: wrong for name, wrong in cases.items() if wrong}, "cases": list(cases)}


if __name__ == "__main__":
    sys.exit(main())
