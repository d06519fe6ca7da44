"""Room for what has a row for every clip: in memory, or where that is much, in a file that ends with the process."""

import mmap
import os
import tempfile
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

IN_MEMORY = 2**26  # bytes


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array whose values are not set yet; of more than IN_MEMORY bytes it is a nameless file in TMPDIR, mapped.

    The file's room is taken at once: one that were found to be full later would kill the process.

    Raises:
        OSError: there is no room for the file.
    """
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size <= IN_MEMORY:
        return np.empty(shape, dtype)
    try:
        with tempfile.TemporaryFile(prefix="tib-") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:  # macOS
                file.truncate(size)
            return np.ndarray(shape, dtype, buffer=mmap.mmap(file.fileno(), size))
    except OSError as error:
        raise OSError(
            error.errno,
            f"no room for {size / 1e9:.1f} GB in {tempfile.tempdir or 'TMPDIR'} ({error.strerror}); free some space, "
            "or set TMPDIR to a folder with more",
        ) from error


def let_go(array: NDArray[Any]) -> None:
    """Of an array that is a mapped file: its pages leave this process' memory until they are asked for again."""
    if isinstance(array.base, mmap.mmap):
        array.base.madvise(mmap.MADV_DONTNEED)
