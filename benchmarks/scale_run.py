"""`train`, with its scores and its page, and `predict` of a great many clips: seconds and peak memory of each command.

python -m benchmarks.scale_run --quick     a minute; without it a million clips, eight minutes
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.memory import peak_bytes
from benchmarks.scale_tib import N_CLUSTERS, write_views
from pipeline.view_files import CLIP_IDS

N_CLIPS, QUICK_N_CLIPS = 1_000_000, 6_000  # more than t-SNE is drawn of, which takes long
RESTARTS = 4
MOST_GB = 3.0


def commands(n_clips: int) -> dict[str, Any]:
    """Each command on arrays of `n_clips` clips with ids and labels, in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        words, run, views = _written(Path(scratch), n_clips)
        found = {name: _measured([name, *words]) for name in ("train", "evaluate", "report")}
        found["predict"] = _measured(["predict", "--run", str(run), "--views", str(views)])
        return _told(n_clips, found, run)


def quick_commands() -> dict[str, Any]:
    """Two of them on fewer clips without labels, which need no baselines, and trained for a few steps."""
    few_steps = ("train.epochs=1", "train.batch_size=512", "train.schedule=free")
    with tempfile.TemporaryDirectory() as scratch:
        words, run, views = _written(Path(scratch), QUICK_N_CLIPS, *few_steps)
        (views / "labels.npy").unlink()
        found = {"train": _measured(["train", *words])}
        found["predict"] = _measured(["predict", "--run", str(run), "--views", str(views)])
        return _told(QUICK_N_CLIPS, found, run)


def _written(scratch: Path, n_clips: int, *settings: str) -> tuple[list[str], Path, Path]:
    """Arrays to train on; what to tell a command of them, the run's folder, and theirs."""
    views, run = scratch / "views", scratch / "run"
    views.mkdir()
    write_views(views, n_clips)
    (views / CLIP_IDS).write_text(json.dumps([f"clip_{row:09d}" for row in range(n_clips)]))
    told = (f"train.n_clusters={N_CLUSTERS}", f"train.restarts={RESTARTS}", *settings)
    return ["--views", str(views), "--out", str(run), *(w for one in told for w in ("--set", one))], run, views


def _told(n_clips: int, found: dict[str, dict[str, float]], run: Path) -> dict[str, Any]:
    page_mb = round((run / "report.html").stat().st_size / 1e6, 1)
    peak_gb = max(one["peak_gb"] for one in found.values())
    return {"n_clips": n_clips, "commands": found, "page_mb": page_mb, "peak_gb": peak_gb}


def _measured(words: Sequence[str]) -> dict[str, float]:
    program = [sys.executable, "-m", "benchmarks.scale_run", "--command", *words]
    done = subprocess.run(program, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    if done.returncode:
        raise RuntimeError(f"{words[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stderr.splitlines()[-1])
    return found


def _command(words: Sequence[str]) -> int:
    """The command as a person starts it; its seconds and this process' peak on the last line of stderr."""
    from pipeline.cli import main as command

    started = time.monotonic()
    sys.argv = ["pipeline", *words]
    try:
        command()
    except SystemExit as ended:
        if ended.code:
            return int(ended.code)
    told = {"seconds": round(time.monotonic() - started, 1), "peak_gb": round(peak_bytes() / 1e9, 2)}
    print(json.dumps(told), file=sys.stderr)
    return 0


def main() -> int:
    if sys.argv[1:2] == ["--command"]:
        return _command(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale_run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer clips and steps: a minute")
    quick = parser.parse_args().quick
    print(json.dumps(quick_commands() if quick else commands(N_CLIPS), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
