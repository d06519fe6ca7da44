"""Rows as they come out of the stores, in the order of a corpus: written as a view, or made an array of."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.files import whole_file
from pipeline.joins import ANY_STAMP, ClipTable, Located, Rows, all_clip_ids
from pipeline.store import EmbeddingStore
from pipeline.views import Views, blocks, json_list, let_go


class Aligned:
    """The rows of several stores in the order of a corpus; clips that no store has are left out.

    Holds 5 bytes a clip, and one a modality.

    Attributes:
        n_clips: N, of the clips that are kept.
    """

    def __init__(self, table: ClipTable, located: Mapping[str, Located]) -> None:
        """Finds out who has what.

        Args:
            located: modality -> its store's rows, of this table's clips.
        Raises:
            PipelineError: a modality without any embedding.
        """
        self._table = table
        self._located = located
        self._has = {modality: np.zeros(table.n_clips, dtype=bool) for modality in located}
        for modality, found in located.items():
            for rows in found.rows():
                self._has[modality][rows] = True
            if not self._has[modality].any():
                raise PipelineError(f"no clip has any {modality} embedding; extract it, or set extract.{modality}=null")
        self._kept = np.any(list(self._has.values()), axis=0)
        self._row = np.cumsum(self._kept, dtype=np.uint32) - 1  # of the views
        self.n_clips = int(self._kept.sum())

    def n_with(self, modality: str, among: NDArray[np.bool_] | bool = True) -> int:
        """How many clips have the modality; `among`: of the (N,) that are True."""
        return int((self._has[modality][self._kept] & among).sum())

    def clip_ids(self) -> Iterator[list[str]]:
        """The ids in order, a batch at a time."""
        for rows, clip_ids in self._table.clip_ids():
            yield [clip_id for clip_id, kept in zip(clip_ids, self._kept[rows], strict=True) if kept]

    def vectors(self, modality: str) -> Iterator[tuple[Rows, NDArray[np.float32]]]:
        """(rows of the view, their (n, D) embeddings), as they lie in the store; no row for a clip that lacks it."""
        for rows, block in self._located[modality].vectors():
            yield self._row[rows].astype(np.int64), block

    def lacking(self, modality: str) -> Iterator[Rows]:
        """Rows of the view whose clips lack the modality, a batch at a time."""
        rows = self._row[self._kept & ~self._has[modality]].astype(np.int64)
        return iter(blocks(rows))

    def array(self, modality: str) -> NDArray[np.float32]:
        """The view, (N, D_m), in a mapped file where it is much (tib/scratch.py).

        Raises:
            PipelineError: there is no room for it.
        """
        from tib import scratch  # only now: it loads PyTorch

        try:
            view = scratch.empty((self.n_clips, int(self._located[modality].store.recipe["dim"])), np.float32)
        except OSError as error:
            raise PipelineError(f"{modality}: {error.strerror}") from None
        for rows, block in self.vectors(modality):
            view[rows] = block
            let_go(view)
        for rows in self.lacking(modality):
            view[rows] = np.nan
        return view

    def write(
        self, modality: str, path: Path, dim: int, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    ) -> None:
        """Writes the view as an .npy, whole or not at all, a block of rows at a time in memory.

        Args:
            dim: columns that `change` gives.
            change: of (n, D) embeddings into the (n, dim) that are written.
        Raises:
            PipelineError: it cannot be written.
        """
        with whole_file(path) as file:
            rows_of = _NpyRows(file, (self.n_clips, dim))
            for rows, block in self.vectors(modality):
                rows_of.put(rows, change(block))
            for rows in self.lacking(modality):
                rows_of.put(rows, np.full((len(rows), dim), np.nan, dtype=np.float32))

    def write_clip_ids(self, path: Path) -> None:
        """Writes the ids as a list in JSON.

        Raises:
            PipelineError: it cannot be written.
        """
        with whole_file(path) as file:
            for text in json_list(self.clip_ids(), ascii_only=False):
                file.write(text.encode("utf-8", "replace"))


class _NpyRows:
    """An .npy of float32 that is written in any order of rows.

    By seeking, as a file that is mapped into memory kills the process where the disk is full.
    """

    def __init__(self, file: BinaryIO, shape: tuple[int, int]) -> None:
        dtype = np.dtype(np.float32)
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        self._file, self._start, self._width = file, file.tell(), shape[1] * dtype.itemsize

    def put(self, rows: Rows, values: NDArray[np.float32]) -> None:
        """Writes (n, D) values to n rows; neighbours go together."""
        order = np.argsort(rows)
        rows, values = rows[order], np.ascontiguousarray(values[order], dtype=np.float32)
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        for start, stop in zip([0, *breaks], [*breaks, len(rows)], strict=True):
            self._file.seek(self._start + int(rows[start]) * self._width)
            self._file.write(values[start:stop].data)


def read_stores(stores: Mapping[str, EmbeddingStore], clips: Iterable[tuple[str, Sequence[str]]]) -> Views:
    """What stores hold of clips, stacked in their order, in mapped files where it is much; those of nothing left out.

    Args:
        clips: clip_id, and the stamp that its row in each store must have.
    Raises:
        PipelineError: a modality without any embedding, or no room for so many.
    """
    with ClipTable(clips, tuple(stores)) as table:
        aligned = Aligned(table, {modality: table.locate(modality, store) for modality, store in stores.items()})
        clip_ids = [clip_id for batch in aligned.clip_ids() for clip_id in batch]
        return Views(clip_ids, {modality: aligned.array(modality) for modality in stores})


def read_newest(stores: Mapping[str, EmbeddingStore]) -> Views:
    """The same of every clip that a store has: its newest rows, whatever they were made of, in the order of the ids."""
    clips = ((clip_id, [ANY_STAMP] * len(stores)) for clip_id in all_clip_ids(stores.values()))
    return read_stores(stores, clips)
