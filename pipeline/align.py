"""Views: one matrix a modality, rows aligned by clip_id; from the store, the workdir or a folder of arrays.

Arrays of a folder are mapped into memory, not read: what is used of them is in memory, and goes where it is needed for
something else. `Aligned` is the same before it is an array: rows as they come out of the stores.
"""

import hashlib
import json
import mmap
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.config import MODALITIES
from pipeline.errors import PipelineError
from pipeline.files import whole_file
from pipeline.joins import ANY_STAMP, ClipTable, Located, Rows, all_clip_ids
from pipeline.records import read_json
from pipeline.store import EmbeddingStore

PUBLISHED_NAMES = {"video": "visual"}  # the published demo's file names -> ours
LABEL_LIKE = {"label", "y", "y_true", "labels_true", "target", "targets", "gt", "ground_truth"}
CLIP_IDS = "clip_ids.json"
ROWS, NUMBERS = 65_536, 2**24  # of an array that are looked at together, at most
_JSON_ITEM = re.compile(r'\s*([\[,])\s*("(?:[^"\\]|\\.)*")')  # of a list of strings, with what stands before it


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
            *_json_list(_in_batches(self.clip_ids), ascii_only=True),
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


def _rows_of(array: NDArray[np.float32], rows: NDArray[np.bool_]) -> NDArray[np.float32]:
    kept, start = [], 0
    for block in blocks(array):
        kept.append(block[rows[start : start + len(block)]])
        start += len(block)
    return np.concatenate(kept)


def has_no_nan(array: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(N,) of (N, D): whether a row is whole."""
    return np.concatenate([~np.isnan(rows).any(axis=1) for rows in blocks(array)] or [np.empty(0, bool)])


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
            for text in _json_list(self.clip_ids(), ascii_only=False):
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


def _json_list(batches: Iterable[Sequence[str]], *, ascii_only: bool) -> Iterator[str]:
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


def read_views(folder: Path) -> Views:
    """Views from a folder: `<modality>.npy` files, or a workdir with `reduced/` or `features/`.

    Files are mapped into memory, to be read only; features are copied out of the stores.
    `video.npy` is read as `visual`; `labels.npy` is never a view. Clip ids come from clip_ids.json where it is there,
    else they are the row numbers.

    Raises:
        PipelineError: no such folder, no views in it, an array that is not 2-D numeric, different lengths.
    """
    if not folder.is_dir():
        raise PipelineError(f"--views {folder}: no such folder")
    for inner in (folder, folder / "reduced"):
        if any(inner.glob("*.npy")):
            return _read_arrays(inner)
    features = folder / "features" if (folder / "features").is_dir() else folder
    stores = {m: EmbeddingStore.all(features, m) for m in MODALITIES if (features / m).is_dir()}
    if not stores:
        raise PipelineError(
            f"--views {folder}: expected text.npy, video.npy (or visual.npy) and audio.npy, or a workdir"
        )
    only = {}
    for modality, found in stores.items():
        if len(found) != 1:
            names = ", ".join(store.fingerprint for store, _ in found) or "none"
            raise PipelineError(f"{features / modality}: expected one set of embeddings, found: {names}; use --config")
        only[modality] = found[0][0]
    return _read_stores(only)


def _read_stores(stores: Mapping[str, EmbeddingStore]) -> Views:
    """Of each clip the newest rows, whatever they were made from, in the order of the ids."""
    clips = ((clip_id, [ANY_STAMP] * len(stores)) for clip_id in all_clip_ids(stores.values()))
    return read_stores(stores, clips)


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


def _read_arrays(folder: Path) -> Views:
    arrays: dict[str, NDArray[np.float32]] = {}
    for path in sorted(folder.glob("*.npy")):
        name = PUBLISHED_NAMES.get(path.stem, path.stem)
        if name == "labels":
            continue
        if name.lower() in LABEL_LIKE:
            raise PipelineError(f"{path} looks like labels, which no view may hold; call it labels.npy, or move it")
        if name in arrays:
            raise PipelineError(f"{folder} holds two files for {name!r} ({path.name} is one); keep one of them")
        arrays[name] = read_array(path)
        if arrays[name].ndim != 2:
            raise PipelineError(f"{path}: expected a 2-D array (clips, features), got shape {arrays[name].shape}")
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise PipelineError(f"{folder}: views of different lengths ({told}); every view needs one row a clip")
    if not lengths:
        raise PipelineError(f"{folder}: no views here; expected text.npy, video.npy (or visual.npy), audio.npy")
    n_clips = next(iter(lengths.values()))
    return Views(_read_clip_ids(folder, n_clips), _in_order(arrays))


def _in_order(arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """text, visual, audio first, as the method is written; then any others by name."""
    first = [name for name in ("text", "visual", "audio") if name in arrays]
    return {name: arrays[name] for name in [*first, *(n for n in sorted(arrays) if n not in first)]}


def _read_clip_ids(folder: Path, n_clips: int) -> Collection[str]:
    path = folder / CLIP_IDS
    if not path.exists():
        return ClipIds(n_clips, lambda: map(str, range(n_clips)))
    with suppress(PipelineError):
        if sum(1 for _ in iter_clip_ids(folder)) == n_clips:
            return ClipIds(n_clips, lambda: iter_clip_ids(folder))
    try:  # not as `reduce` writes it: a list with numbers in it, or none of use
        clip_ids = read_json(path)
    except (OSError, ValueError) as error:
        raise PipelineError(f"cannot read {path}: {error}") from None
    if not isinstance(clip_ids, list) or len(clip_ids) != n_clips:
        raise PipelineError(f"{path}: expected a list of {n_clips} ids, one a row")
    return [str(clip_id) for clip_id in clip_ids]


def iter_clip_ids(folder: Path) -> Iterator[str]:
    """The ids of clip_ids.json one by one, for those that need no list of them.

    Raises:
        PipelineError: it cannot be read.
    """
    path, unread, before = folder / CLIP_IDS, "", "["
    try:
        with path.open(encoding="utf-8") as file:
            while text := file.read(1 << 20):
                unread, end = unread + text, 0
                while (found := _JSON_ITEM.match(unread, end)) and found[1] == before:
                    yield json.loads(found[2]) if "\\" in found[2] else found[2][1:-1]
                    end, before = found.end(), ","
                unread = unread[end:]
        if "".join(unread.split()) != ("]" if before == "," else "[]"):
            raise ValueError("expected a list of strings")
    except (OSError, ValueError) as error:
        raise PipelineError(f"cannot read {path}: {error}") from None


def row_slices(n_rows: int, most: int) -> Iterator[slice]:
    """All rows, in order, `most` at a time."""
    return (slice(start, min(start + most, n_rows)) for start in range(0, n_rows, most))


def load_npy(path: Path, *, mapped: bool = False) -> NDArray[Any]:
    """An .npy file's array, of any dtype but objects.

    Args:
        mapped: into memory, to be read only, where it has any number in it.
    Raises:
        OSError, ValueError: it cannot be read, or is no .npy file.
    """
    with path.open("rb") as file:
        try:
            if mapped:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
                if array.size:
                    return array
            return np.lib.format.read_array(file, allow_pickle=False)
        except OSError:
            raise
        except Exception as error:  # a garbled header breaks NumPy's parser in many ways
            raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def read_array(path: Path) -> NDArray[np.float32]:
    """A numeric .npy as float32: mapped into memory where it is that already. Pickled objects are refused.

    Raises:
        PipelineError: not an .npy of numbers, or an infinite value.
    """
    try:
        array = load_npy(path, mapped=True)
        if array.dtype.kind not in "fiub":
            raise ValueError(f"its dtype is {array.dtype}")
    except (OSError, ValueError) as error:
        raise PipelineError(f"cannot read {path} as an array of numbers ({error})") from None
    values = array if array.dtype == np.float32 else np.asarray(array, dtype=np.float32)
    for number, rows in enumerate(blocks(values)):
        infinite = np.isinf(rows)
        if infinite.any():
            row = number * ROWS + int(np.argwhere(infinite)[0][0])
            raise PipelineError(f"{path}: row {row} holds Inf; only NaN may stand for a missing modality")
    return values
