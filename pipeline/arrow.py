"""Arrow's columns and Parquet's files by ways that import no pandas, which takes longer than a small join."""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import PipelineError

BATCH = 65_536  # rows
# Vectors hardly repeat a number: a dictionary of them is space spent.
PARQUET = {"compression": "zstd", "use_dictionary": False}


def strings(values: Sequence[str]) -> pa.Array:
    """A column of text. Half a surrogate pair, which UTF-8 has no form for, becomes a question mark."""
    encoded = [value.encode("utf-8", "replace") for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded)))


def record_batches(rows: Iterable[tuple[Any, ...]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Rows of text and whole numbers as batches of BATCH, none of them held.

    Args:
        schema: of columns of `pa.string()` and `pa.int64()`.
    """
    waiting = iter(rows)
    while some := list(islice(waiting, BATCH)):
        columns = zip(schema.types, zip(*some, strict=True), strict=True)
        arrays = [integers(np.array(v, np.int64)) if kind == pa.int64() else strings(v) for kind, v in columns]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def integers(values: NDArray[np.int64]) -> pa.Array:
    """A column of whole numbers."""
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def as_parquet(table: pa.Table) -> bytes:
    """A table as the bytes of a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **PARQUET)
    return buffer.getvalue()


def row_groups(
    path: Path, columns: Sequence[str], as_written: Callable[[str, pa.ChunkedArray], bool]
) -> Iterator[pa.Table]:
    """The columns of a file, a row group at a time.

    Not by `pq.read_table`: that imports `pyarrow.dataset`, and pandas with it, which takes longer than all parts.
    """
    try:
        with path.open("rb") as opened, pq.ParquetFile(opened) as file:
            for group in range(file.num_row_groups):
                # Without threads, as a part is small; and a column that is not there is left out, so `select` looks.
                table = file.read_row_group(group, list(columns), use_threads=False).select(list(columns))
                for name in columns:
                    if not as_written(name, table[name]):
                        raise ValueError(f"its column {name} is not as it was written: {table[name].type}")
                yield table
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise PipelineError(f"cannot read {path} ({reason}); delete this file and extract again") from None


def are_strings(name: str, column: pa.ChunkedArray) -> bool:
    """What `row_groups` asks of a column of text without gaps."""
    return bool(column.type == pa.string() and not column.null_count)
