"""A corpus listed in Parquet files: clips by the million, of which none is held.

    <root>/*.parquet       the list, in natural order of the names; or what `corpus.table` names
        file               the media file, relative to root
        clip_id            optional: the file's path without its extension
        start_s, end_s     optional: seconds into the file
        transcript, video  optional: words; the recording or speaker that clips share
    <root>/...             the media, none of which is opened before it is extracted

The list is read anew each time the clips are gone through. Labels have no place in it: `train` and `evaluate` take a
table of them.
"""

import glob
import math
import os
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.corpora.base import MAX_TRANSCRIPT, Corpus, CorpusClip, natural_key
from pipeline.corpora.folder import path_id
from pipeline.corpora.scan import check_inside, check_root
from pipeline.errors import PipelineError
from pipeline.joins import later_twins

COLUMNS = ("file", "clip_id", "start_s", "end_s", "transcript", "video")
NUMBERS = ("start_s", "end_s")
BATCH_ROWS = 16_384


def read_parquet(root: Path, *, table: str | None = None) -> Corpus:
    """Reads the list of a corpus once, for what is wrong with it.

    Args:
        root: the folder; no clip may lie outside it.
        table: a Parquet file or a pattern (`lists/*.parquet`), relative to root; None takes those that lie in root.
    Returns:
        A clip for each row, in the order of the rows; of two with one id the first stays. Its clips are no list: they
        are read from the files again each time.
    Raises:
        PipelineError: root cannot be read, no such list, one that cannot be read or lacks the column `file`, or no
            clip in it.
    """
    check_root(root)
    corpus = Corpus(root)
    listed = Listed(root, _lists(root, table))
    listed.look(corpus)
    if listed.is_empty():
        first = f"; first problem: {corpus.problems[0].where}: {corpus.problems[0].message}" if corpus.problems else ""
        raise PipelineError(f"no clips in {root}: no row of {table or '*.parquet'} is one{first}")
    corpus.clips = listed
    return corpus


def _lists(root: Path, table: str | None) -> list[Path]:
    pattern = table or "*.parquet"
    found = sorted(glob.glob(pattern, root_dir=root), key=natural_key)
    if not found:
        raise PipelineError(f"{root}: no {pattern} that lists the clips; set corpus.table to a Parquet file in it")
    return [check_inside(root, root / name) for name in found]


class Listed:
    """The clips of some lists, in no list themselves."""

    def __init__(self, root: Path, paths: list[Path]) -> None:
        """Looks at the files' columns.

        Raises:
            PipelineError: a file that cannot be read or lacks the column `file`.
        """
        self._root, self._paths = root, paths
        self._ends = list(accumulate(_n_rows(path) for path in paths))
        self._left_out: set[int] = set()  # rows, counted over all files

    def __iter__(self) -> Iterator[CorpusClip]:
        """Clip by clip.

        Raises:
            PipelineError: a file that was read before and cannot be now.
        """
        return (_clip(cells) for row, cells in self._rows() if row not in self._left_out)

    def is_empty(self) -> bool:
        return len(self._left_out) == self._ends[-1]

    def look(self, corpus: Corpus) -> None:
        """Goes through the rows, and leaves out and reports those that are no clips, and all but the first of an id."""
        for row, first in later_twins(self._ids(corpus)):
            self._left_out.add(row)
            corpus.report(
                "duplicate_id", self._where(row), f"its clip id is taken by {self._where(first)}, which is kept"
            )

    def _ids(self, corpus: Corpus) -> Iterator[tuple[int, str]]:
        checked = ""  # the folder of the row before, which many rows share
        for row, cells in self._rows():
            try:
                clip = _clip(cells)
                folder = os.path.dirname(clip.media)
                if folder != checked:
                    check_inside(self._root, self._root / folder)
                    checked = folder
                if os.path.islink(self._root / clip.media):
                    check_inside(self._root, self._root / clip.media)
            except (ValueError, PipelineError) as error:
                self._left_out.add(row)
                corpus.report("unreadable_row", self._where(row), str(error))
            else:
                yield row, clip.clip_id

    def _rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        row = 0
        for path in self._paths:
            for batch in _batches(path):
                for cells in _cells(batch, path):
                    yield row, cells
                    row += 1

    def _where(self, row: int) -> str:
        """File and row, counted from 1."""
        index = bisect_right(self._ends, row)
        begin = self._ends[index - 1] if index else 0
        return f"{os.path.relpath(self._paths[index], self._root)}:{row - begin + 1}"


def _clip(cells: dict[str, Any]) -> CorpusClip:
    """The clip of a row.

    Raises:
        ValueError: a cell that is empty, infinite, or no path inside the root.
    """
    for name in NUMBERS:
        if not math.isfinite(cells.get(name) or 0.0):
            raise ValueError(f"{name}: expected a number, got {cells[name]}")
    if not cells["file"]:
        raise ValueError("no file named")
    if len(cells.get("transcript") or "") > MAX_TRANSCRIPT:
        raise ValueError(f"more than {MAX_TRANSCRIPT:,} characters are no transcript; mend it")
    clip_id = cells.get("clip_id")
    return CorpusClip(
        clip_id=path_id(cells["file"]) if clip_id is None else clip_id,
        media=cells["file"],
        start_s=cells.get("start_s") or 0.0,
        end_s=cells.get("end_s"),
        transcript=cells.get("transcript"),
        video=cells.get("video") or None,
    )


def _n_rows(path: Path) -> int:
    with _opened(path) as file:
        schema = file.schema_arrow
        if "file" not in schema.names:
            held = ", ".join(map(repr, schema.names))
            raise PipelineError(f"{path}: expected a column 'file', got {held}; rename one")
        for name in (name for name in COLUMNS if name in schema.names):
            kind, is_number = schema.field(name).type, name in NUMBERS
            if not (_is_number(kind) if is_number else _is_text(kind)):
                wanted = "numbers" if is_number else "text"
                raise PipelineError(f"{path}: column {name!r}: expected {wanted}, got {kind}; write it so")
        n_rows: int = file.metadata.num_rows
        return n_rows


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind))


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind))


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    with _opened(path) as file:
        columns = [name for name in COLUMNS if name in file.schema_arrow.names]
        try:
            yield from file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise _unreadable(path, error) from None


def _cells(batch: pa.RecordBatch, path: Path) -> list[dict[str, Any]]:
    try:
        cells: list[dict[str, Any]] = batch.to_pylist()
    except ValueError as error:  # text that is no UTF-8
        raise _unreadable(path, error) from None
    return cells


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> PipelineError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return PipelineError(f"cannot read {path} ({reason}); it must be a Parquet file that lists the clips")
