"""Views: one matrix a modality, rows aligned by clip_id; and what goes through very many rows without holding them."""

import hashlib
import json
import mmap
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS, NUMBERS = 65_536, 2**24  # of an array that are looked at together, at most


@dataclass(frozen=True, slots=True)
class ClipIds(Collection[str]):
    """Ids that lie somewhere in order, and are read anew each time they are gone through: no list of them is held.

    Attributes:
        n_clips: how many.
        read: gives them one by one.
    """

    n_clips: int
    read: Callable[[], Iterator[str]]

    def __len__(self) -> int:
        return self.n_clips

    def __iter__(self) -> Iterator[str]:
        return self.read()

    def __contains__(self, clip_id: object) -> bool:
        return any(clip_id == one for one in self)


@dataclass(frozen=True, slots=True)
class Views:
    """Modalities of one corpus, aligned.

    Attributes:
        clip_ids: N ids, in the order of the rows.
        arrays: modality -> (N, D_m) float32; a row of NaN is a clip without that modality.
    """

    clip_ids: Collection[str]
    arrays: dict[str, NDArray[np.float32]]

    def complete(self) -> NDArray[np.bool_]:
        """(N,) True where a clip has every modality."""
        return np.all([has_no_nan(array) for array in self.arrays.values()], axis=0)

    def digest(self) -> str:
        """SHA-256 of the ids, the modalities' names and every value."""
        digest = hashlib.sha256()
        for text in (
            "[",
            *json_list(_in_batches(self.clip_ids), ascii_only=True),
            f", {json.dumps(list(self.arrays))}]",
        ):
            digest.update(text.encode())
        for array in self.arrays.values():
            for rows in blocks(array):
                digest.update(np.ascontiguousarray(rows).tobytes())
        return digest.hexdigest()

    def take(self, rows: NDArray[np.bool_]) -> "Views":
        """The clips where `rows` is True: a copy of them, in memory, unless that is all."""
        if rows.all():
            return self
        ids = [clip_id for clip_id, keep in zip(self.clip_ids, rows, strict=True) if keep]
        return Views(ids, {name: _rows_of(array, rows) for name, array in self.arrays.items()})


def row_slices(n_rows: int, most: int) -> Iterator[slice]:
    """All rows, in order, `most` at a time."""
    return (slice(start, min(start + most, n_rows)) for start in range(0, n_rows, most))


def blocks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The rows, some at a time; what was mapped into memory for them is let go of."""
    width = array.shape[1] if array.ndim > 1 else 1
    for rows in row_slices(len(array), max(1, min(ROWS, NUMBERS // max(width, 1)))):
        yield array[rows]
        let_go(array)


def let_go(array: NDArray[Any]) -> None:
    """Of an array that is a mapped file: its pages leave memory until they are asked for again. As tib.scratch has it,
    which loads PyTorch."""
    if isinstance(array.base, mmap.mmap):
        array.base.madvise(mmap.MADV_DONTNEED)


def has_no_nan(array: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(N,) of (N, D): whether a row is whole."""
    return np.concatenate([~np.isnan(rows).any(axis=1) for rows in blocks(array)] or [np.empty(0, bool)])


def _rows_of(array: NDArray[np.float32], rows: NDArray[np.bool_]) -> NDArray[np.float32]:
    kept, start = [], 0
    for block in blocks(array):
        kept.append(block[rows[start : start + len(block)]])
        start += len(block)
    return np.concatenate(kept)


def json_list(batches: Iterable[Sequence[str]], *, ascii_only: bool) -> Iterator[str]:
    """The text that `json.dumps` gives for all of them in one list, a batch at a time."""
    between = "["
    for batch in batches:
        if batch:
            yield between + json.dumps(batch, ensure_ascii=ascii_only)[1:-1]
            between = ", "
    yield "[]" if between == "[" else "]"


def _in_batches(items: Iterable[str]) -> Iterator[list[str]]:
    waiting = iter(items)
    while batch := list(islice(waiting, ROWS)):
        yield batch
