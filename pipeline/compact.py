"""Many small parts of a store into few large ones, and of a clip that is there twice the newest row alone.

A run over millions of clips leaves a part for every few dozen of them: each costs a request or an open file to every
later stage. Parts are joined in the order of their age, some at a time, in these steps, of which a crash may come
between any two (`store.read_compaction` says what counts then):

    1. compaction.json names the new part: it does not count yet
    2. the new part is written
    3. compaction.json says that it is committed: from now on the new part counts, and those it was made of do not
    4. those are deleted, then compaction.json

Whoever writes in the store next, this command or `extract`, ends what was begun.
"""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.arrow import PARQUET
from pipeline.failures import FAILED_PARTS, FAILED_SCHEMA
from pipeline.files import whole_file
from pipeline.joins import Rows, newest_failures, superseded
from pipeline.storage import listed
from pipeline.store import Compaction, EmbeddingStore, end_compaction, write_compaction

PART_BYTES = 256 << 20  # of a large part: a few seconds to read, and what a machine of any size can hold
_GROUP_BYTES = 16 << 20  # of a row group, before compression: what a reader holds at a time


@dataclass(frozen=True, slots=True)
class Compacted:
    """What `compact` did to a store."""

    parts_before: int
    parts_after: int
    n_rows: int
    n_dropped: int  # rows of clips that have a newer one


@dataclass(frozen=True, slots=True)
class _Part:
    path: Path
    schema: pa.Schema
    n_bytes: int
    dropped: Rows  # of the part, ascending


def compact(store: EmbeddingStore, part_bytes: int = PART_BYTES) -> Compacted:
    """Joins parts up to `part_bytes` each; leaves alone those that are large enough and hold no row to drop.

    Of a clip the newest row stays, with its source stamp; added failures become one part. The caller holds the
    folder's lock (`pipeline.lock.only_writer`).

    Args:
        store: of any place; needs room for one large part there, and on this machine where it is an object store.
    Raises:
        PipelineError: a part cannot be read, or something not be written; the store is as whole as before.
    """
    end_compaction(store.folder)
    parts, n_rows = _parts(store)
    for group in _groups(parts, part_bytes):
        _join(store, group)
    _join_failures(store)
    n_dropped = sum(len(part.dropped) for part in parts)
    return Compacted(len(parts), len(store.parts()), n_rows - n_dropped, n_dropped)


def _parts(store: EmbeddingStore) -> tuple[list[_Part], int]:
    """The parts with the rows to drop in each, and how many rows there are in all."""
    parts, start = [], 0
    old, places = superseded(store), np.empty(0, np.int64)
    for path in store.parts():
        with path.open("rb") as opened:
            metadata = pq.read_metadata(opened)
        stop = start + metadata.num_rows
        while (not len(places) or places[-1] < stop) and (more := next(old, None)) is not None:
            places = np.concatenate([places, more])
        n = int(np.searchsorted(places, stop))
        schema = metadata.schema.to_arrow_schema()
        parts.append(_Part(path, schema, path.stat().st_size, places[:n] - start))
        places, start = places[n:], stop
    return parts, start


def _groups(parts: Sequence[_Part], part_bytes: int) -> Iterator[list[_Part]]:
    """Parts to join: neighbours in age and of one schema that together fit `part_bytes`; or one with rows to drop."""
    group: list[_Part] = []
    for part in parts:
        n_bytes = sum(one.n_bytes for one in group) + part.n_bytes
        # Sequences of one part may be float16 and of the next float32.
        if group and (n_bytes > part_bytes or not part.schema.equals(group[0].schema)):
            yield from _worth_it(group)
            group = []
        group.append(part)
    yield from _worth_it(group)


def _worth_it(group: list[_Part]) -> list[list[_Part]]:
    return [group] if len(group) > 1 or any(len(part.dropped) for part in group) else []


def _join(store: EmbeddingStore, group: Sequence[_Part]) -> None:
    names = [part.path.name for part in group]
    # By chance, not by what it holds: a part of that name must not be there already.
    name = f"part-{uuid.uuid4().hex}.parquet"
    write_compaction(store.folder, Compaction(parts=[name], replaces=names, committed=False))
    _write_joined(store, group, store.folder / name)
    write_compaction(store.folder, Compaction(parts=[name], replaces=names, committed=True))
    end_compaction(store.folder)


def _write_joined(store: EmbeddingStore, group: Sequence[_Part], path: Path) -> None:
    columns = ["embedding", "n_units", *(["sequence"] if store.keeps_sequences else [])]
    with whole_file(path) as file, pq.ParquetWriter(file, group[0].schema, **PARQUET) as writer:
        for table in _row_groups(_kept(store, part, columns) for part in group):
            writer.write_table(table.select(group[0].schema.names), row_group_size=max(1, len(table)))


def _kept(store: EmbeddingStore, part: _Part, columns: Sequence[str]) -> Iterator[pa.Table]:
    for start, table in store.batches(columns, [part.path]):
        keep = np.ones(len(table), dtype=bool)
        keep[part.dropped[(part.dropped >= start) & (part.dropped < start + len(table))] - start] = False
        yield table if keep.all() else table.filter(pa.array(keep))


def _row_groups(tables: Iterable[Iterator[pa.Table]]) -> Iterator[pa.Table]:
    """The same rows in tables of about _GROUP_BYTES."""
    waiting: list[pa.Table] = []
    for table in chain.from_iterable(tables):
        waiting.append(table)
        if sum(one.nbytes for one in waiting) >= _GROUP_BYTES:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _join_failures(store: EmbeddingStore) -> None:
    """One part of those that were added; what a crash leaves beside it says the same once more, and is read as one."""
    parts = listed(store.folder, FAILED_PARTS)
    if len(parts) < 2:
        return
    path = store.folder / f"failed-{uuid.uuid4().hex}.parquet"
    with whole_file(path) as file, pq.ParquetWriter(file, FAILED_SCHEMA, **PARQUET) as writer:
        for batch in newest_failures(store.failed.stream(parts)):
            writer.write_batch(batch)
    for part in parts:
        part.unlink(missing_ok=True)
