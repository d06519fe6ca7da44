"""Faults that are put into a process which then runs a stage: writes at which it dies, or that are refused; files that
it may not read or write; clips that its decoder does not come back from.
"""

import ctypes
import errno
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from extractors.audio_davenet import DAVEnetExtractor
from extractors.base import Prepared
from extractors.clip import Clip
from extractors.log_mel_preparer import LogMelPreparer
from extractors.media import Media
from pipeline import pretrain_audio
from pipeline.files import TEMPORARY_PREFIX
from tib import checkpoint

Fault = Callable[[], None]
KILLING = ("half-written", "before-rename", "after-rename")
REFUSING = ("disk-full", "rename-refused")
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH, _PR_CAPBSET_DROP, _CAPABILITY_VERSION_3 = 1, 2, 24, 0x20080522


def at_write(point: str, nth: int) -> Fault:
    """The renaming that ends every write of the stages' breaks at its nth time, and, where it may go on, ever after.

    Args:
        point: where. One of KILLING ends the process as `kill -9` would, one of REFUSING is an error of the system's.
    """
    return partial(_break_writes, point, nth)


def _break_writes(point: str, nth: int) -> None:
    replace, n_writes = os.replace, 0

    def broken(source: Path, target: Path) -> None:
        nonlocal n_writes
        if not Path(source).name.startswith(TEMPORARY_PREFIX):
            replace(source, target)
            return
        n_writes += 1
        if n_writes < nth:
            replace(source, target)
        elif point in REFUSING:
            number = errno.ENOSPC if point == "disk-full" else errno.EPERM
            raise OSError(number, os.strerror(number), str(target))
        else:
            if point == "half-written":
                os.truncate(source, Path(source).stat().st_size // 2)
            if point == "after-rename":
                replace(source, target)
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = broken  # type: ignore[assignment]


def checkpoint_often() -> None:
    """Of a short training too there is a checkpoint to go on from."""
    checkpoint.EVERY_S = pretrain_audio.CHECKPOINT_EVERY_S = 0.3


def hostile_clips() -> None:
    """The process that reads a clip whose id ends with 1 hangs, with 2 crashes, with 3 asks for too much memory."""
    DAVEnetExtractor.preparer = _NoReturn()


class _NoReturn(LogMelPreparer):
    def prepare(self, clip: Clip, media: Media) -> Prepared:
        if clip.clip_id.endswith("1"):
            time.sleep(3600)
        if clip.clip_id.endswith("2"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if clip.clip_id.endswith("3"):
            bytearray(10**12)
        return super().prepare(clip, media)


def bound_by_modes() -> None:
    """Root obeys files' modes as everybody else does: its two rights that override them are given up (Linux).

    Source: capabilities(7), capset(2).
    """
    if os.geteuid() != 0:
        return
    libc, rights = ctypes.CDLL(None, use_errno=True), (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH)
    for right in rights:
        libc.prctl(_PR_CAPBSET_DROP, right, 0, 0, 0)  # of what it executes
    header, sets = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    for index in range(3):  # effective, permitted, inheritable
        sets[index] &= ~sum(1 << right for right in rights)
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")
