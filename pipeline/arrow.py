"""Arrow's columns from Python's values, without `pa.array`: its import of pandas takes longer than a small join."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def strings(values: Sequence[str]) -> pa.Array:
    """A column of text. Half a surrogate pair, which UTF-8 has no form for, becomes a question mark."""
    encoded = [value.encode("utf-8", "replace") for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded)))


def integers(values: NDArray[np.int64]) -> pa.Array:
    """A column of whole numbers."""
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])
