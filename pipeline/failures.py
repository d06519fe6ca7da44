"""The clips that failed, beside what the others gave: a folder's failures.csv, and parts that are not yet in it.

failures.csv             clip_id, stage, cause, message, source
failed-<hash>.parquet    the same columns: failures that were added and not yet folded into failures.csv
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import chain
from pathlib import Path

import pyarrow as pa

from pipeline.arrow import are_strings, as_parquet, record_batches, row_groups
from pipeline.corpora.tables import iter_records, table_chunks
from pipeline.errors import PipelineError
from pipeline.files import write_atomic, write_chunks
from pipeline.provenance import stable_hash
from pipeline.storage import listed

FAILURES, FAILED_PARTS = "failures.csv", "failed-*.parquet"
FAILURE_COLUMNS = ("clip_id", "stage", "cause", "message", "source")
FAILED_SCHEMA = pa.schema([(name, pa.string()) for name in FAILURE_COLUMNS])


@dataclass(frozen=True, slots=True)
class Failure:
    """A clip of which nothing came, and why. `source` stamps what was tried (sources.py)."""

    clip_id: str
    stage: str
    cause: str
    message: str
    source: str


class FailureLog:
    """The failures of a folder, which may lie in an object store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> dict[str, Failure]:
        """The clips that failed, by clip_id; all of them in memory."""
        found = (zip(*(batch[name].to_pylist() for name in FAILURE_COLUMNS), strict=True) for batch in self.stream())
        return {row[0]: Failure(*row) for rows in found for row in rows}

    def stream(self, files: Sequence[Path] | None = None) -> Iterator[pa.RecordBatch]:
        """The failures as a stream of FAILURE_COLUMNS, the newest of a clip last.

        Args:
            files: these alone; None takes all.
        Raises:
            PipelineError: a file that cannot be read; says which, and what to do.
        """
        for path in listed(self.folder, "fail*") if files is None else files:
            if path.name == FAILURES:
                yield from _read_failures(path)
            elif path.suffix == ".parquet":
                for table in row_groups(path, FAILURE_COLUMNS, are_strings):
                    yield from table.combine_chunks().to_batches()

    def add(self, failures: Iterable[Failure]) -> None:
        """Appends failures as a part of their own, so that the millionth costs what the first did.

        `write` and `compact` fold such parts together. The same failures added again replace themselves.
        """
        rows = [astuple(failure) for failure in failures]
        if rows:
            path = self.folder / f"failed-{stable_hash(rows, 20)}.parquet"
            write_atomic(path, as_parquet(pa.Table.from_batches(record_batches(rows, FAILED_SCHEMA), FAILED_SCHEMA)))

    def write(self, failures: Iterable[Failure]) -> None:
        """Replaces failures.csv, and whatever was added, by these rows; none leaves no file.

        Args:
            failures: may be a stream, as long as it is not of what is replaced.
        """
        rows = (astuple(failure) for failure in failures)
        path = self.folder / FAILURES
        first = next(rows, None)
        if first is None:
            path.unlink(missing_ok=True)
        else:
            write_chunks(path, table_chunks(FAILURE_COLUMNS, chain([first], rows)))
        for part in listed(self.folder, FAILED_PARTS):
            part.unlink(missing_ok=True)


def _read_failures(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        yield from record_batches((astuple(Failure(**record)) for record in iter_records(path)), FAILED_SCHEMA)
    except (OSError, ValueError, TypeError) as error:  # of Failure: other columns
        told = str(error) if isinstance(error, (OSError, ValueError)) else f"expected {', '.join(FAILURE_COLUMNS)}"
        raise PipelineError(f"cannot read {path} ({told}); delete it to try again") from None
