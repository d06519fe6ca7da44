"""Stages that are killed in the middle, again and again, and what they leave.

Each trial starts a stage in the same folder from the same state, kills it some times, and lets it end. Then the folder
must hold what an undisturbed run leaves there: the same clips, once each, with the same numbers.
"""

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.data import ROOT
from benchmarks.fault_points import KILLING

KILLS_A_TRIAL = 5
# What differs between two runs that did the same: when, and how long it took.
_TIMES = re.compile(r"finished|date|made|seconds|started")
STAGES = ("extract", "pretrain-audio", "reduce", "train", "report")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the trials run: a corpus that stays, and a folder with the workdir and the results that is made anew.

    Attributes:
        folder: gets `clips`, `trial` (with `work` and `out`) and `states`.
    """

    folder: Path

    @property
    def trial(self) -> Path:
        return self.folder / "trial"

    def words(self, stage: str) -> list[str]:
        """A stage on the small corpus, with small encoders and a short training."""
        settings = [
            f"workdir={self.trial / 'work'}",
            f"out={self.trial / 'out'}",
            f"corpus.root={self.folder / 'clips'}",
            "corpus.clips_per_class=2",
            "extract.visual.frames_per_clip=2",
            *(["extract.audio.weights=self"] if stage == "pretrain-audio" else ["extract.audio.weights=random"]),
            "extract.chunk_size=2",
            "pretrain.epochs=3",
            "pretrain.frames_per_clip=2",
            "train.restarts=2",
            "train.epochs=40",
            "train.n_clusters=3",
        ]
        options = [word for setting in settings for word in ("--set", setting)]
        return [stage, "--config", str(ROOT / "configs" / "demo.yaml"), *options]

    def run(self, stage: str, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603
            [sys.executable, "-m", "pipeline", *self.words(stage), *more],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def start(self, stage: str, driver: Sequence[str] = ("pipeline",)) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", *driver, *self.words(stage)]
        return subprocess.Popen(  # noqa: S603
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def keep(self, name: str) -> None:
        """Keeps the trial's state under a name."""
        shutil.rmtree(self.folder / "states" / name, ignore_errors=True)
        shutil.copytree(self.trial, self.folder / "states" / name)

    def restore(self, name: str) -> None:
        shutil.rmtree(self.trial, ignore_errors=True)
        shutil.copytree(self.folder / "states" / name, self.trial)


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """What a stage leaves when nothing befalls it, and how long it takes."""

    before: str  # name of the state it starts from
    seconds: float
    left: dict[str, Any]


def undisturbed(place: Place) -> dict[str, Undisturbed]:
    """Runs every stage once, in order.

    Raises:
        RuntimeError: one of them fails.
    """
    shutil.rmtree(place.trial, ignore_errors=True)
    _must(place.run("prepare"))
    found = {}
    for stage in STAGES:
        place.keep(f"before-{stage}")
        started = time.monotonic()
        _must(place.run(stage))
        seconds = time.monotonic() - started
        found[stage] = Undisturbed(f"before-{stage}", seconds, left(place.trial))
    return found


def _must(run: subprocess.CompletedProcess[str]) -> None:
    if run.returncode:
        raise RuntimeError(f"{run.args} ended with {run.returncode}: {run.stdout[-1000:]} {run.stderr[-2000:]}")


def kills(place: Place, n: int, rng: np.random.Generator) -> dict[str, dict[str, int]]:
    """n kills at random moments, and as many again at points of a write: stage -> counts of what came of them."""
    known = undisturbed(place)
    total = sum(of.seconds for of in known.values())
    counts = {}
    for stage, of in known.items():
        wanted = max(KILLS_A_TRIAL, round(n * of.seconds / total))
        found = Counter(_at_random(place, stage, of, wanted, rng))
        found.update(_at_writes(place, stage, of))
        counts[stage] = dict(found)
    return counts


def _at_random(place: Place, stage: str, of: Undisturbed, n: int, rng: np.random.Generator) -> Iterator[str]:
    done = 0
    while done < n:
        place.restore(of.before)
        for _ in range(min(KILLS_A_TRIAL, n - done)):
            process = place.start(stage)
            try:
                process.wait(rng.uniform(0, of.seconds))
                break  # it was done before
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                done += 1
                yield "killed at random"
                yield from (f"torn: {path}" for path in torn(place.trial))
        yield from _ends_well(place, stage, of)


def _at_writes(place: Place, stage: str, of: Undisturbed) -> Iterator[str]:
    """At each point of a write: killed at the first, taken up and killed at the second from there, and so on."""
    for point in KILLING:
        place.restore(of.before)
        nth = 1
        while place.start(stage, ("benchmarks.fault_points", point, str(nth))).wait() == -signal.SIGKILL:
            yield f"killed {point}"
            yield from (f"torn: {path}" for path in torn(place.trial))
            nth += 1
        yield from _ends_well(place, stage, of)


def _ends_well(place: Place, stage: str, of: Undisturbed) -> Iterator[str]:
    run = place.run(stage)
    if run.returncode:
        yield f"exit code {run.returncode}: {run.stderr.strip().splitlines()[-1] if run.stderr.strip() else ''}"
    yield from differences(of.left, left(place.trial))


def left(folder: Path) -> dict[str, Any]:
    """What is in a folder, without times: embeddings by modality and clip, every other file by its digest."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or "/logs/" in f"/{name}" or path.name == ".lock":
            continue
        if path.name.startswith("part-") and "features" in path.parts:
            store = found.setdefault(path.parent.relative_to(folder).as_posix(), {})
            for row in pq.read_table(path).to_pylist():
                store.setdefault(row["clip_id"], []).append(_digest(json.dumps(row).encode()))
        else:
            found[name] = _digest(_without_times(path))
    return found


def _without_times(path: Path) -> bytes:
    """A file's content; of the page, which shows them here and there, all but its figures: they are in other files."""
    if path.suffix == ".html":
        return re.sub(rb"[0-9]+", b"", path.read_bytes())
    if path.suffix != ".json":
        return path.read_bytes()
    return json.dumps(_timeless(json.loads(path.read_text(encoding="utf-8"))), sort_keys=True).encode()


def _timeless(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _timeless(value) for name, value in values.items() if not _TIMES.search(name)}
    return [_timeless(value) for value in values] if isinstance(values, list) else values


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def differences(wanted: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    """Clips lost, there twice or changed; files missing, left over or changed."""
    for name in wanted.keys() | found.keys():
        of, to = wanted.get(name), found.get(name)
        if isinstance(of, dict) or isinstance(to, dict):
            before, after = of or {}, to or {}
            yield from (f"lost: {name} {clip}" for clip in before.keys() - after.keys())
            yield from (f"duplicated: {name} {clip}" for clip, rows in after.items() if len(rows) > 1)
            kept = before.keys() & after.keys()
            yield from (f"changed: {name} {clip}" for clip in kept if before[clip] != after[clip])
        elif of != to:
            yield f"{'left over' if of is None else 'missing' if to is None else 'changed'}: {name}"


def torn(folder: Path) -> list[str]:
    """Files under their final name that cannot be read to their end."""
    readers: dict[str, Callable[[Path], Any]] = {
        ".parquet": pq.read_table,
        ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
        ".npy": np.load,
        ".html": _read_page,
    }
    broken = []
    for path in folder.rglob("*"):
        if path.suffix in readers and not path.name.startswith("."):
            try:
                readers[path.suffix](path)
            except Exception as error:
                broken.append(f"{path.relative_to(folder)} ({type(error).__name__})")
    return broken


def _read_page(path: Path) -> None:
    if not path.read_text(encoding="utf-8").rstrip().endswith("</html>"):
        raise ValueError(path)
