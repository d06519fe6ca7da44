"""Folders in TMPDIR that go with their process; those of processes that were killed go with the next one's."""

import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

_LOCK = ".temporary"  # a name that no folder of anybody else has in it
_BEING_MADE_S = 60.0  # a folder this young may be one that is not locked yet


class TemporaryFolder:
    """A folder of its own, which goes when it is cleaned up or when nobody knows it any more.

    Attributes:
        path: where it is.
    """

    def __init__(self, prefix: str) -> None:
        """Makes it, and deletes what dead processes have left of the same prefix.

        Raises:
            OSError: TMPDIR is full, or cannot be written.
        """
        _remove_leftovers(prefix)
        self._folder = tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
        self.path = Path(self._folder.name)
        self._lock = FileLock(self.path / _LOCK, timeout=0)
        with suppress(OSError, NotImplementedError):  # a disk without locks: what is left of it then stays
            self._lock.acquire()

    def cleanup(self) -> None:
        """Deletes it."""
        self._lock.release()
        self._folder.cleanup()


def _remove_leftovers(prefix: str) -> None:
    """The system's lock tells: a dead process does not hold it. A folder that was never locked is left alone."""
    for lock_file in Path(tempfile.gettempdir()).glob(f"{prefix}*/{_LOCK}"):
        folder, lock = lock_file.parent, FileLock(lock_file, timeout=0)
        with suppress(OSError, NotImplementedError, Timeout):
            if time.time() - folder.stat().st_mtime < _BEING_MADE_S:
                continue
            lock.acquire()
            lock.release()
            shutil.rmtree(folder, ignore_errors=True)
