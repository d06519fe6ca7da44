"""Which row of a store belongs to which clip: joins over clip ids, for corpora that no list and no dict should hold.

DuckDB does them (duck.py). What it reads are Arrow batches, so that any place that `pipeline/storage.py` knows will do.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.arrow import integers, record_batches
from pipeline.duck import Engine
from pipeline.errors import PipelineError
from pipeline.failures import FAILED_SCHEMA, FAILURE_COLUMNS, FailureLog
from pipeline.sources import UNREADABLE
from pipeline.store import EmbeddingStore

NUMBERS_A_BLOCK = 1 << 22  # of vectors: 16 MB
KEYS = pa.schema([("place", pa.int64()), ("clip_id", pa.string()), ("source", pa.string())])
_NUMBERED_FAILURES = pa.schema([("place", pa.int64()), *FAILED_SCHEMA])
ANY_STAMP = UNREADABLE  # of a clip whose newest row will do, whatever it was made from
# A file that is gone keeps what was made from it, as `sources_of` says.
_SAME = (
    f"clips.clip_id = keys.clip_id AND (clips.{{stamp}} = keys.source OR starts_with(clips.{{stamp}}, '{UNREADABLE}'))"
)

Rows = NDArray[np.int64]


class ClipStore(Protocol):
    """What clips are accounted for against: where something is kept of each, or why there is nothing."""

    @property
    def failed(self) -> FailureLog: ...

    def iter_done(self) -> Iterable[pa.RecordBatch]:
        """place, clip_id, source of what is kept, as EmbeddingStore's."""


class ClipTable:
    """The clips of a corpus with their stamps, to be joined with stores. A context manager; holds a folder on disk."""

    def __init__(self, clips: Iterable[tuple[str, Sequence[str]]], modalities: Sequence[str]) -> None:
        """Takes the clips in.

        Args:
            clips: clip_id, and the stamp of what there is to embed now for each modality; in the corpus' order.
        Raises:
            PipelineError: two clips with one id.
        """
        self.modalities = tuple(modalities)
        self._engine = Engine()
        try:
            texts = ["clip_id", *(f"stamp_{index}" for index in range(len(self.modalities)))]
            schema = pa.schema([("row", pa.int64()), *((name, pa.string()) for name in texts)])
            rows = ((row, clip_id, *stamps) for row, (clip_id, stamps) in enumerate(clips))
            self._engine.run(
                "CREATE TABLE clips AS SELECT * FROM given",
                given=(schema, record_batches(rows, schema)),
            )
            self._refuse_twins()
        except BaseException:
            self._engine.close()
            raise
        (self.n_clips,) = self._engine.one("SELECT count(*) FROM clips")

    def __enter__(self) -> "ClipTable":
        return self

    def __exit__(self, *of_an_error: object) -> None:
        self.close()

    def close(self) -> None:
        self._engine.close()

    def _refuse_twins(self) -> None:
        for batch in self._engine.stream("SELECT clip_id FROM clips GROUP BY clip_id HAVING count(*) > 1 LIMIT 1"):
            for clip_id in batch["clip_id"].to_pylist():
                raise PipelineError(
                    f"manifest.jsonl: two clips with the id {clip_id!r}; ids must be unique: run prepare again"
                )

    def account(
        self, modality: str, store: ClipStore | None, *, retry_failed: bool = False, trust_old: bool = False
    ) -> tuple[int, int]:
        """Finds the clips that a store lacks, for `pending`, and of those the ones that failed, for `failures`.

        Args:
            store: None where nothing was begun.
            retry_failed: what failed before and has not changed since is pending.
            trust_old: what failed before counts as failed where the file cannot be looked at now.
        Returns:
            how many are pending, and how many have failed as they are now.
        """
        index = self.modalities.index(modality)
        stamp = f"stamp_{index}"
        self._engine.run(
            f"""CREATE OR REPLACE TABLE pending_{index} AS SELECT row, clip_id, {stamp} AS stamp FROM clips
            ANTI JOIN keys ON {_SAME.format(stamp=stamp)}""",  # noqa: S608 - names of our own
            keys=(KEYS, store.iter_done() if store else ()),
        )
        columns = ", ".join(f"failed.{name}" for name in FAILURE_COLUMNS)
        self._engine.run(
            f"""CREATE OR REPLACE TABLE failed_{index} AS SELECT place, {columns} FROM failed
            JOIN pending_{index} AS undone ON undone.clip_id = failed.clip_id
            AND (undone.stamp = failed.source{f" OR starts_with(undone.stamp, '{UNREADABLE}')" if trust_old else ""})
            QUALIFY row_number() OVER (PARTITION BY failed.clip_id ORDER BY place DESC) = 1""",  # noqa: S608
            failed=(_NUMBERED_FAILURES, _numbered(store.failed.stream() if store and not retry_failed else ())),
        )
        self._engine.run(
            f"DELETE FROM pending_{index} WHERE clip_id IN (SELECT clip_id FROM failed_{index})"  # noqa: S608
        )
        n_pending, n_failed = self._engine.one(
            f"SELECT (SELECT count(*) FROM pending_{index}), (SELECT count(*) FROM failed_{index})"  # noqa: S608
        )
        return n_pending, n_failed

    def pending(self, modalities: Sequence[str]) -> Iterator[tuple[int, str, dict[str, str]]]:
        """What `account` found to be embedded in any of these modalities.

        Yields:
            (row of the clip, its id, modality -> stamp of what to embed), in the corpus' order.
        """
        indices = [self.modalities.index(modality) for modality in modalities]
        selects = [f"SELECT row, clip_id, {index} AS modality, stamp FROM pending_{index}" for index in indices]  # noqa: S608
        last, wanted = (-1, ""), dict[str, str]()
        for batch in self._engine.stream(f"{' UNION ALL '.join(selects)} ORDER BY row, modality"):
            for row, clip_id, index, stamp in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                if row != last[0] and wanted:
                    yield *last, wanted
                    wanted = {}
                last, wanted[self.modalities[index]] = (row, clip_id), stamp
        if wanted:
            yield *last, wanted

    def failures(self, modality: str) -> Iterator[pa.RecordBatch]:
        """The newest failure of each clip that `account` found to have failed, in the order they came."""
        columns, index = ", ".join(FAILURE_COLUMNS), self.modalities.index(modality)
        for batch in self._engine.stream(f"SELECT {columns} FROM failed_{index} ORDER BY place"):  # noqa: S608
            yield batch.cast(FAILED_SCHEMA)

    def locate(self, modality: str, store: EmbeddingStore) -> "Located":
        """Finds the newest row with the present stamp for each clip that the store has."""
        index = self.modalities.index(modality)
        self._engine.run(
            f"""CREATE OR REPLACE TABLE located_{index} AS
            SELECT row, max(place) AS place, arg_max(source, place) AS source FROM clips
            JOIN keys ON {_SAME.format(stamp=f"stamp_{index}")} GROUP BY row""",  # noqa: S608
            keys=(KEYS, store.iter_done()),
        )
        return Located(self._engine, f"located_{index}", store)

    def clip_ids(self) -> Iterator[tuple[Rows, list[str]]]:
        """(rows, clip ids), in the corpus' order, a batch at a time."""
        for batch in self._engine.stream("SELECT row, clip_id FROM clips ORDER BY row"):
            yield batch["row"].to_numpy(), batch["clip_id"].to_pylist()

    def digest(self) -> str:
        """Of the ids and their order."""
        (found,) = self._engine.one("SELECT bit_xor(md5_number(row || ':' || clip_id)) FROM clips")
        return f"{self.n_clips}:{found}"


class Located:
    """Which row of a store is whose, of the clips that have one."""

    def __init__(self, engine: Engine, table: str, store: EmbeddingStore) -> None:
        self._engine = engine
        self._table = table
        self.store = store

    def rows(self) -> Iterator[Rows]:
        """Rows of the corpus that the store has, in no order, a batch at a time."""
        for batch in self._engine.stream(f"SELECT row FROM {self._table}"):  # noqa: S608
            yield batch["row"].to_numpy()

    def vectors(self) -> Iterator[tuple[Rows, NDArray[np.float32]]]:
        """(rows of the corpus, their (n, D) embeddings), in the order of the store.

        So many at a time, however they lie in parts: the last digits of what is computed of them hang on it, and
        compaction must change none.
        """
        n_rows = max(1, NUMBERS_A_BLOCK // int(self.store.recipe["dim"]))
        rows, block = np.empty(0, np.int64), np.empty((0, int(self.store.recipe["dim"])), np.float32)
        waiting, n_waiting = [(rows, block)], 0
        for more in self._as_they_lie():
            waiting.append(more)
            n_waiting += len(more[0])
            if n_waiting < n_rows:
                continue
            rows, block = _joined(waiting)
            while len(rows) >= n_rows:
                yield rows[:n_rows], block[:n_rows]
                rows, block = rows[n_rows:], block[n_rows:]
            waiting, n_waiting = [(rows, block)], len(rows)
        rows, block = _joined(waiting)
        if len(rows):
            yield rows, block

    def _as_they_lie(self) -> Iterator[tuple[Rows, NDArray[np.float32]]]:
        """The same, a row group at a time."""
        query = f"SELECT place, row FROM {self._table} ORDER BY place"  # noqa: S608
        found = ((batch["place"].to_numpy(), batch["row"].to_numpy()) for batch in self._engine.stream(query))
        places, rows = np.empty(0, np.int64), np.empty(0, np.int64)
        for start, block in self.store.vectors():
            stop = start + len(block)
            while (not len(places) or places[-1] < stop) and (more := next(found, None)):
                places, rows = np.concatenate([places, more[0]]), np.concatenate([rows, more[1]])
            n = int(np.searchsorted(places, stop))
            if n:
                yield rows[:n], block[places[:n] - start]
            places, rows = places[n:], rows[n:]

    def digest(self) -> str:
        """Of the rows and stamps: what compaction leaves as it is, and a new embedding changes."""
        count, found = self._engine.one(
            f"SELECT count(*), bit_xor(md5_number(row || ':' || source)) FROM {self._table}"  # noqa: S608
        )
        return f"{count}:{found}"


def _joined(blocks: Sequence[tuple[Rows, NDArray[np.float32]]]) -> tuple[Rows, NDArray[np.float32]]:
    return np.concatenate([rows for rows, _ in blocks]), np.concatenate([block for _, block in blocks])


def all_clip_ids(stores: Iterable[EmbeddingStore]) -> Iterator[str]:
    """Every clip that a store has, once, in the order of the ids."""
    with Engine() as engine:
        engine.run("CREATE TABLE found (clip_id VARCHAR)")
        for store in stores:
            engine.run("INSERT INTO found SELECT clip_id FROM keys", keys=(KEYS, store.iter_done()))
        for batch in engine.stream("SELECT DISTINCT clip_id FROM found ORDER BY clip_id"):
            yield from batch["clip_id"].to_pylist()


def later_twins(ids: Iterable[tuple[int, str]]) -> Iterator[tuple[int, int]]:
    """(row, the first row of the same id) of every row that is not the first, by row.

    Args:
        ids: (row, id), the rows ascending.
    """
    schema = pa.schema([("row", pa.int64()), ("id", pa.string())])
    with Engine() as engine:
        engine.run(
            """CREATE TABLE later AS SELECT row, min(row) OVER (PARTITION BY id) AS first FROM ids
            QUALIFY row > first""",
            ids=(schema, record_batches(ids, schema)),
        )
        for batch in engine.stream("SELECT row, first FROM later ORDER BY row"):
            yield from zip(batch["row"].to_pylist(), batch["first"].to_pylist(), strict=True)


def superseded(store: EmbeddingStore) -> Iterator[Rows]:
    """Places of the rows that have a newer one of the same clip, ascending, a batch at a time."""
    with Engine() as engine:
        engine.run(
            """CREATE TABLE old AS SELECT place FROM keys
            QUALIFY row_number() OVER (PARTITION BY clip_id ORDER BY place DESC) > 1""",
            keys=(KEYS, store.iter_done()),
        )
        for batch in engine.stream("SELECT place FROM old ORDER BY place"):
            yield batch["place"].to_numpy()


def newest_failures(failed: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Of each clip the failure that came last."""
    columns = ", ".join(FAILURE_COLUMNS)
    with Engine() as engine:
        engine.run(
            """CREATE TABLE newest AS SELECT * FROM failed
            QUALIFY row_number() OVER (PARTITION BY clip_id ORDER BY place DESC) = 1""",
            failed=(_NUMBERED_FAILURES, _numbered(failed)),
        )
        for batch in engine.stream(f"SELECT {columns} FROM newest ORDER BY place"):  # noqa: S608
            yield batch.cast(FAILED_SCHEMA)


def _numbered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    place = 0
    for batch in batches:
        yield batch.add_column(0, "place", integers(np.arange(place, place + len(batch))))
        place += len(batch)
