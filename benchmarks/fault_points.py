"""`python -m benchmarks.fault_points POINT N WORD...`: the pipeline with these words, which breaks at its Nth write.

POINT is where: "half-written", "before-rename" and "after-rename" kill the process as `kill -9` would; "disk-full" and
"rename-refused" let the system refuse the Nth write and all after it. "clips" breaks no write: the process that reads
a clip whose id ends with 1 hangs, with 2 crashes, with 3 asks for more memory than it may have.
"""

import errno
import os
import runpy
import signal
import sys
import time
from pathlib import Path

from extractors.base import Prepared
from extractors.clip import Clip
from extractors.log_mel_preparer import LogMelPreparer
from extractors.media import Media

KILLING = ("half-written", "before-rename", "after-rename")
REFUSING = ("disk-full", "rename-refused")


class FaultyPreparer(LogMelPreparer):
    """DAVEnet's, with three clips that a decoder would not come back from."""

    def prepare(self, clip: Clip, media: Media) -> Prepared:
        if clip.clip_id.endswith("1"):
            time.sleep(3600)
        if clip.clip_id.endswith("2"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if clip.clip_id.endswith("3"):
            bytearray(10**12)
        return super().prepare(clip, media)


def break_at(point: str, nth: int) -> None:
    """Puts the fault into pipeline.files, which all that stages leave goes through."""
    from pipeline import files

    replace, n_writes = files._replace, 0

    def broken(path: Path, content: bytes) -> None:
        nonlocal n_writes
        n_writes += 1
        if n_writes < nth:
            replace(path, content)
            return
        if point == "half-written" or point == "disk-full":
            temporary = path.with_name(f".writing-{n_writes}")
            temporary.write_bytes(content[: len(content) // 2])
            if point == "half-written":
                os.kill(os.getpid(), signal.SIGKILL)
            temporary.unlink()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if point == "before-rename":
            path.with_name(f".writing-{n_writes}").write_bytes(content)
            os.kill(os.getpid(), signal.SIGKILL)
        if point == "rename-refused":
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(path))
        replace(path, content)
        os.kill(os.getpid(), signal.SIGKILL)

    files._replace = broken


def main() -> None:
    point, nth, *words = sys.argv[1:]
    if point == "clips":
        from extractors.audio_davenet import DAVEnetExtractor

        DAVEnetExtractor.preparer = FaultyPreparer()
    else:
        break_at(point, int(nth))
    sys.argv = ["pipeline", *words]
    runpy.run_module("pipeline", run_name="__main__")


if __name__ == "__main__":
    main()
