"""One command at a time writes in a folder. The lock is the operating system's: a dead process does not hold it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.console import detail
from pipeline.errors import PipelineError
from pipeline.files import TEMPORARY_PREFIX

LOCK_FILE = ".lock"


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Holds a folder that is there; what killed writes left in it is deleted.

    Raises:
        PipelineError: another command holds it.
    """
    lock = FileLock(folder / LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise PipelineError(
            f"another command is at work in {folder} (the newest file in its logs folder says which); wait until it "
            "is done, or give another folder"
        ) from None
    except (OSError, NotImplementedError) as error:  # a network disk without locks
        detail(f"{folder} cannot be locked ({error}); see to it yourself that one command at a time writes there")
        yield
        return
    try:
        _remove_leftovers(folder)
        yield
    finally:
        lock.release()


def _remove_leftovers(held: Path) -> None:
    """Not in the folders inside that have a lock of their own: another command may be writing there."""
    for at, folders, files in os.walk(held):
        if LOCK_FILE in files and Path(at) != held:
            folders.clear()
            continue
        for name in (name for name in files if name.startswith(TEMPORARY_PREFIX)):
            Path(at, name).unlink(missing_ok=True)
        for name in [name for name in folders if name.startswith(TEMPORARY_PREFIX)]:
            folders.remove(name)
            shutil.rmtree(Path(at, name), ignore_errors=True)
