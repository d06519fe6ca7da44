"""Where stages run that something befalls: a small corpus, a folder that is put back to a known state, processes."""

import multiprocessing
import os
import runpy
import shutil
import sys
import time
import types
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

from benchmarks.data import ROOT
from benchmarks.fault_points import Fault, checkpoint_often
from benchmarks.faults_left import left

STAGES = ("extract", "pretrain-audio", "reduce", "train", "report")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a stage ended: its exit code, negative where a signal ended it, and all that it printed."""

    code: int
    told: str

    @property
    def last_line(self) -> str:
        return (self.told.strip().splitlines() or [""])[-1]


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """What a stage leaves when nothing befalls it, and how long it takes."""

    before: str  # name of the state it starts from
    seconds: float
    left: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """A corpus that stays, and a folder with the workdir and the results that is made anew for each trial.

    Attributes:
        folder: gets `clips`, `trial` (with `work` and `out`), `states` and `told.txt`.
    """

    folder: Path

    @property
    def trial(self) -> Path:
        return self.folder / "trial"

    @property
    def log(self) -> Path:
        """What the last stage printed."""
        return self.folder / "told.txt"

    def words(self, stage: str) -> list[str]:
        """A stage on the small corpus, with small encoders and a short training."""
        settings = [
            f"workdir={self.trial / 'work'}",
            f"out={self.trial / 'out'}",
            f"corpus.root={self.folder / 'clips'}",
            "corpus.clips_per_class=2",
            "extract.visual.frames_per_clip=2",
            f"extract.audio.weights={'self' if stage == 'pretrain-audio' else 'random'}",
            "extract.chunk_size=2",
            "pretrain.epochs=2",
            "pretrain.frames_per_clip=2",
            "train.restarts=2",
            "train.epochs=40",
            "train.n_clusters=3",
        ]
        options = [word for setting in settings for word in ("--set", setting)]
        return [stage, "--config", str(ROOT / "configs" / "demo.yaml"), *options]

    def start(self, stage: str, *more: str, fault: Fault | None = None) -> ForkProcess:
        return start([*self.words(stage), *more], self.log, fault)

    def run(self, stage: str, *more: str, fault: Fault | None = None) -> Ended:
        """As a person would type it, to its end."""
        return run([*self.words(stage), *more], self.log, fault)

    def keep(self, name: str) -> None:
        """Keeps the trial's state under a name."""
        shutil.rmtree(self.folder / "states" / name, ignore_errors=True)
        shutil.copytree(self.trial, self.folder / "states" / name)

    def restore(self, name: str) -> None:
        shutil.rmtree(self.trial, ignore_errors=True)
        shutil.copytree(self.folder / "states" / name, self.trial)

    def undisturbed(self, stages: Sequence[str] = STAGES) -> dict[str, Undisturbed]:
        """Runs stages once, in order, with nothing befalling them.

        Raises:
            RuntimeError: one of them fails.
        """
        shutil.rmtree(self.trial, ignore_errors=True)
        must(self.run("prepare"), "prepare")
        found = {}
        for stage in stages:
            self.keep(f"before-{stage}")
            started = time.monotonic()
            must(self.run(stage), stage)
            found[stage] = Undisturbed(f"before-{stage}", time.monotonic() - started, left(self.trial))
        return found


def must(ended: Ended, stage: str) -> None:
    """Raises RuntimeError where a stage did not do what it has to before anything can be tried."""
    if ended.code:
        raise RuntimeError(f"{stage} ended with {ended.code}: {ended.told[-3000:]}")


def start(words: Sequence[str], log: Path, fault: Fault | None = None) -> ForkProcess:
    """`python -m pipeline WORDS` in a process of its own, which prints into `log`.

    Forked from this one, for its imports: two seconds of each kill that no file can be lost in.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before PyTorch loads
    for name in ("torch", "transformers", "sklearn.cluster", "pipeline.cli"):
        __import__(name)
    process = multiprocessing.get_context("fork").Process(target=_be_the_pipeline, args=(list(words), log, fault))
    process.start()
    return process


def run(words: Sequence[str], log: Path, fault: Fault | None = None) -> Ended:
    process = start(words, log, fault)
    process.join()
    return Ended(process.exitcode or 0, log.read_text(encoding="utf-8", errors="replace"))


def _be_the_pipeline(words: list[str], log: Path, fault: Fault | None) -> None:
    os.setsid()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.chdir(ROOT)
    sys.modules["__main__"] = types.ModuleType("__main__")  # or its readers would import the benchmark
    sys.argv = ["pipeline", *words]
    checkpoint_often()
    if fault is not None:
        fault()
    runpy.run_module("pipeline", run_name="__main__")
