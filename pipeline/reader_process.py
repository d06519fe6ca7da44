"""What a process that reads clips begins with. Light: each of them loads it, and nothing else of the pipeline."""

import multiprocessing
import os
import sys
import threading

# What NumPy's and OpenCV's own threads are counted by. Read when the library is loaded.
_THREADS_OF_LIBRARIES = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)


def use_one_thread() -> None:
    """Of the process it is called in, before it loads NumPy: there is one such process a core.

    OpenBLAS' threads spin while they wait for the next product: a log-mel's single one let them burn half as much as
    all of a clip's reading takes (docs/performance.md).
    """
    os.environ.update(dict.fromkeys(_THREADS_OF_LIBRARIES, "1"))


def settle_in(memory_gb: float) -> None:
    """Of the process it is called in: one thread, so much memory, and an end with the run."""
    use_one_thread()  # where it was not forked from `reader_server`, which has done so
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
