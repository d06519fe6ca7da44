"""One command at a time writes in a folder. The lock is the operating system's: a dead process does not hold it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.console import detail
from pipeline.errors import PipelineError

LOCK_FILE = ".lock"


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Holds a folder that is there.

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
        yield
    finally:
        lock.release()
