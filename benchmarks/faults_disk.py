"""A disk that refuses, files that change under the reader's hands, and two commands at once.

Each case must end with a message in words and a known exit code, keep what was done, and, once its cause is gone, come
to what an undisturbed run leaves.
"""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.fault_points import REFUSING, at_write, bound_by_modes
from benchmarks.faults_left import differences, left, torn
from benchmarks.faults_place import Ended, Place, Undisturbed

SMALL_DISK_MB = 1


def disk(place: Place, known: dict[str, Undisturbed], *, quick: bool = False) -> dict[str, list[str]]:
    """Case -> what was lost in it; nothing is as it should be.

    Args:
        quick: the cases of one command alone.
    """
    cases: dict[str, Callable[[Place, dict[str, Undisturbed]], Iterator[str]]] = {
        "a write that is refused: the first, the third, the ninth": _refused_writes,
        "a disk that is full": _full_disk,
        "a workdir that may not be written": _read_only,
        "a clip that may not be read": _forbidden_clip,
        "a clip that goes away while others are read": _clip_goes,
        "a clip that is exchanged while others are read": _clip_changes,
        "two commands at once": _two_at_once,
    }
    found = {}
    for name, case in cases.items():
        if quick and case not in QUICK:
            continue
        found[name] = list(case(place, known))
        print(f"disk: {name}: {found[name] or 'nothing lost'}", flush=True)
    return found


def _said(ended: Ended, code: int, *words: str) -> Iterator[str]:
    """What is wrong with how a command ended."""
    if ended.code != code:
        yield f"exit code {ended.code}, not {code}: {ended.last_line}"
    if "Traceback" in ended.told:
        yield "a traceback was shown"
    yield from (f"{word!r} was not said, but: {ended.last_line}" for word in words if word not in ended.told)


def _refused_writes(place: Place, known: dict[str, Undisturbed]) -> Iterator[str]:
    for stage in ("extract", "reduce", "train", "report"):
        for point in REFUSING:
            for nth in (1, 3, 9):
                place.restore(known[stage].before)
                ended = place.run(stage, fault=at_write(point, nth))
                if ended.code == 0:
                    break
                yield from _said(ended, 2, "cannot write")
                yield from (f"torn: {path}" for path in torn(place.trial))
                yield from _ends_well(place, stage, known)


def _ends_well(place: Place, stage: str, known: dict[str, Undisturbed], code: int = 0) -> Iterator[str]:
    yield from _said(place.run(stage), code)
    yield from differences(known[stage].left, left(place.trial))


def _full_disk(place: Place, known: dict[str, Undisturbed]) -> Iterator[str]:
    with _small_disk(place.trial) as mounted:
        if not mounted:
            yield "not tried: a file system of its own needs root"
            return
        shutil.copytree(place.folder / "states" / known["extract"].before, place.trial, dirs_exist_ok=True)
        filler = place.trial / "filler"
        filler.write_bytes(b"\0" * (SMALL_DISK_MB * 2**20 - 2**17))  # 128 KiB and a little are left
        yield from _said(place.run("extract"), 2, "cannot write", "No space left")
        yield from (f"torn: {path}" for path in torn(place.trial))
        filler.unlink()
        yield from _ends_well(place, "extract", known)


@contextmanager
def _small_disk(folder: Path) -> Iterator[bool]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_MB}m", "tmpfs", str(folder)]
    mounted = shutil.which("mount") is not None and subprocess.run(command, check=False).returncode == 0  # noqa: S603
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)  # noqa: S603, S607


def _open_up(folder: Path, *, writable: bool) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if writable else 0o555) if path.is_dir() else (0o666 if writable else 0o444))


def _read_only(place: Place, known: dict[str, Undisturbed]) -> Iterator[str]:
    for stage in ("extract", "reduce", "train"):
        place.restore(known[stage].before)
        _open_up(place.trial, writable=False)
        ended = place.run(stage, fault=bound_by_modes)
        _open_up(place.trial, writable=True)
        yield from _said(ended, 2, "cannot ", "Permission denied", "folder that may be written")
        yield from _ends_well(place, stage, known)


def _forbidden_clip(place: Place, known: dict[str, Undisturbed]) -> Iterator[str]:
    place.restore(known["extract"].before)
    _open_up(place.trial, writable=True)
    clip = sorted((place.folder / "clips").rglob("*.mp4"))[0]
    mode = clip.stat().st_mode
    clip.chmod(0o000)
    try:
        ended = place.run("extract", fault=bound_by_modes)
    finally:
        clip.chmod(mode)
    yield from _said(ended, 1, "permission_denied")
    yield from _said(place.run("extract", "--retry-failed"), 0)
    yield from differences(known["extract"].left, left(place.trial))


def _clip_goes(place: Place, known: dict[str, Undisturbed]) -> Iterator[str]:
    yield from _meddled(place, known, lambda clip, aside: clip.rename(aside))


def _clip_changes(place: Place, known: dict[str, Undisturbed]) -> Iterator[str]:
    def exchange(clip: Path, aside: Path) -> None:
        clip.rename(aside)
        clip.write_bytes(aside.read_bytes()[:5000])

    yield from _meddled(place, known, exchange)


def _meddled(place: Place, known: dict[str, Undisturbed], meddle: Callable[[Path, Path], object]) -> Iterator[str]:
    """The last clip is meddled with while the first are read, and put back: all is as it was."""
    place.restore(known["extract"].before)
    clip = sorted((place.folder / "clips").rglob("*.mp4"))[-1]
    aside = place.folder / "aside"
    timer = threading.Timer(0.7 * known["extract"].seconds, lambda: meddle(clip, aside))
    timer.start()
    ended = place.run("extract")
    timer.join()
    os.replace(aside, clip)
    if ended.code != 0:  # else it was done with the clip already
        yield from _said(ended, 1)
    yield from _said(place.run("extract", "--retry-failed"), 0)
    yield from (text for text in differences(known["extract"].left, left(place.trial)) if "duplicated" not in text)


def _two_at_once(place: Place, known: dict[str, Undisturbed]) -> Iterator[str]:
    for stage in ("extract", "train"):
        place.restore(known[stage].before)
        first = place.start(stage)
        lock = place.trial / ("out" if stage == "train" else "work") / ".lock"
        until = time.monotonic() + 60
        while not lock.exists() and first.exitcode is None and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.2)
        second = place.run(stage)
        if first.exitcode is None or second.code:  # else the first was done before the second began
            yield from _said(second, 2, "another command is at work")
        first.join()
        if first.exitcode:
            yield f"the first of two ended with {first.exitcode}"
        yield from _ends_well(place, stage, known)


QUICK = (_full_disk, _forbidden_clip)
