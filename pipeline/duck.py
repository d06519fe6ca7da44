"""DuckDB, for what no list and no dict should hold: streams in, streams out, and the disk beyond MEMORY.

10 million clips take 1.2 GB resident, where Arrow's own hash join takes 5.5 GB (docs/decisions.md).
"""

import os
from collections.abc import Iterable, Iterator

import pyarrow as pa

from pipeline import arrow
from pipeline.errors import PipelineError
from pipeline.temporary import TemporaryFolder

MEMORY = "768MB"  # what DuckDB may hold; the rest goes to the system's folder for temporary files
THREADS = 4  # at most, as each wants memory of its own: with 64 of them a join of 8 million clips does not fit into it


class Engine:
    """A DuckDB in a folder of its own, which goes with it. A context manager."""

    def __init__(self) -> None:
        import duckdb  # only now: a tenth of a second

        try:
            self._folder = TemporaryFolder("tib-joins-")
        except OSError as error:
            raise _refused(error) from None
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": MEMORY,
            "threads": min(THREADS, os.cpu_count() or 1),
            "preserve_insertion_order": False,
        }
        try:
            self._connection = duckdb.connect(str(self._folder.path / "joins.duckdb"), config=config)
        except duckdb.Error as error:
            self._folder.cleanup()
            raise _refused(error) from None
        self._failed: BaseException | None = None

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *of_an_error: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()
        self._folder.cleanup()

    def run(self, query: str, **streams: tuple[pa.Schema, Iterable[pa.RecordBatch]]) -> None:
        """Runs a query to its end. Streams are tables by name, each read once.

        Raises:
            PipelineError: what a stream raises; or that the disk for temporary files is full.
        """
        import duckdb

        self._failed = None
        for name, (schema, batches) in streams.items():
            self._connection.register(name, pa.RecordBatchReader.from_batches(schema, self._watched(batches)))
        try:
            self._connection.execute(query).fetchall()
        except duckdb.Error as error:
            if self._failed:
                raise self._failed from None
            raise _refused(error) from None
        finally:
            for name in streams:
                self._connection.unregister(name)

    def one(self, query: str) -> tuple[int, ...]:
        """The only row that a query gives."""
        import duckdb

        try:
            (found,) = self._connection.execute(query).fetchall()
        except duckdb.Error as error:
            raise _refused(error) from None
        return tuple(found)

    def stream(self, query: str) -> Iterator[pa.RecordBatch]:
        """What a query gives, a batch at a time; others may run meanwhile."""
        import duckdb

        cursor = self._connection.cursor()
        try:
            yield from cursor.sql(query).to_arrow_reader(arrow.BATCH)
        except duckdb.Error as error:
            raise _refused(error) from None
        finally:
            cursor.close()

    def _watched(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The same; DuckDB tells of an error in words only, so it is kept."""
        try:
            yield from batches
        except GeneratorExit:  # DuckDB has seen enough
            raise
        except BaseException as error:
            self._failed = error
            raise


def _refused(error: Exception) -> PipelineError:
    return PipelineError(f"cannot join clips by DuckDB: {error}; free some space, or set TMPDIR to a folder with more")
