"""What a process that reads clips begins with. Light: each of them loads it, and nothing else of the pipeline."""

import multiprocessing
import os
import sys
import threading


def settle_in(memory_gb: float) -> None:
    """Of the process it is called in: so much memory, and an end with the run."""
    if sys.platform != "win32":
        import resource

        limit, (_, most) = round(memory_gb * 1e9), resource.getrlimit(resource.RLIMIT_DATA)
        limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))
    threading.Thread(target=_end_with_the_run, daemon=True).start()


def _end_with_the_run() -> None:
    """A reader that hangs would outlive a run that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
