"""Workdirs and runs that older versions of this code wrote: each is read, or refused with what to do.

The older code is taken from the history of the repository and run with the packages of today.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.data import ROOT
from benchmarks.faults_left import differences, left
from benchmarks.faults_place import Ended, Place, Undisturbed, run
from benchmarks.mutations import what_is_wrong_with

# commit -> what it could do last
OLDER = {
    "3c10374": "the published objective alone",
    "44dd5fe": "the whole method",
    "34268dc": "the report and the command line",
    "eb9c217": "an audio encoder of the corpus' own",
}
WROTE = ("prepare", "extract", "reduce", "train", "evaluate", "report")
# In this order: what reads comes before what writes anew.
READ = ("status", "evaluate", "report", "predict", "export", "rerun")


def versions(place: Place, known: dict[str, Undisturbed]) -> dict[str, list[str]]:
    """Case -> what was lost in it; {} where there is no history to take older code from."""
    return {f"written by {commit}, {what}": list(_older(place, known, commit)) for commit, what in OLDER.items()
            if _is_known(commit)}  # fmt: skip


def _is_known(commit: str) -> bool:
    told = subprocess.run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=ROOT, capture_output=True, check=False)  # noqa: S603, S607
    return told.returncode == 0


def _older(place: Place, known: dict[str, Undisturbed], commit: str) -> Iterator[str]:
    place.restore(known["extract"].before)
    with TemporaryDirectory() as code:
        packed = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout  # noqa: S603, S607
        subprocess.run(["tar", "-x", "-C", code], input=packed, check=True)  # noqa: S603, S607
        for stage in WROTE:
            ended = _by(Path(code), _words(place, stage))
            if ended.code:
                raise RuntimeError(f"{stage} of {commit} ended with {ended.code}: {ended.told[-2000:]}")
    for stage in READ:
        ended = run(_read_words(place, stage), place.folder / "told.txt")
        if ended.code not in (0, 1, 2):
            yield f"{stage} ended with {ended.code}: {ended.last_line}"
        if ended.code == 2 and (wrong := what_is_wrong_with(ended.last_line.removeprefix("error: "))):
            yield f"{stage} {wrong}: {ended.last_line}"
        if "Traceback" in ended.told:
            yield f"{stage} showed a traceback"
        print(f"versions: {commit} {stage}: {ended.code} {ended.last_line[:150]}", flush=True)
    for stage in ("extract", "reduce", "train"):
        if (ended := place.run(stage)).code:
            yield f"{stage} on top of it ended with {ended.code}: {ended.last_line}"
    wanted = {name: of for name, of in known["train"].left.items() if not name.startswith("work/pretrain")}
    found = left(place.trial)
    yield from differences(wanted, {name: found[name] for name in wanted.keys() & found.keys()})


def _read_words(place: Place, stage: str) -> list[str]:
    run_dir = str(place.trial / "out")
    return {
        "predict": ["predict", "--run", run_dir, "--clips", str(place.folder / "clips")],
        "export": ["export", "--run", run_dir, "--format", "npy", "--out", str(place.trial / "exported")],
        "rerun": ["rerun", run_dir],
    }.get(stage) or place.words(stage)


def _words(place: Place, stage: str) -> list[str]:
    """Settings that all of them know; they find the demo's configuration in their own folder."""
    settings = [
        f"workdir={place.trial / 'work'}",
        f"out={place.trial / 'out'}",
        f"corpus.root={place.folder / 'clips'}",
        "corpus.clips_per_class=2",
        "extract.visual.frames_per_clip=2",
        "extract.audio.weights=random",
        "train.n_clusters=3",
    ]
    return [stage, "--config", "configs/demo.yaml", *(word for setting in settings for word in ("--set", setting))]


def _by(code: Path, words: list[str]) -> Ended:
    environment = {**os.environ, "PYTHONPATH": str(code), "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", "pipeline", *words]
    done = subprocess.run(command, cwd=code, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    return Ended(done.returncode, done.stdout + done.stderr)
