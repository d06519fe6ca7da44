"""Folders of views: arrays as files, and the workdirs that views can be read of.

Arrays are mapped into memory, not read: what is used of them is in memory, and goes where it is needed for something
else.
"""

import codecs
import json
import mmap
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.align import read_newest
from pipeline.config import MODALITIES
from pipeline.errors import PipelineError
from pipeline.records import read_json
from pipeline.store import EmbeddingStore
from pipeline.views import ClipIds, Views, blocks

PUBLISHED_NAMES = {"video": "visual"}  # the published demo's file names -> ours
LABEL_LIKE = {"label", "y", "y_true", "labels_true", "target", "targets", "gt", "ground_truth"}
CLIP_IDS = "clip_ids.json"
_READ_BYTES = 2**20
_JSON_ITEM = re.compile(r'\s*([\[,])\s*("(?:[^"\\]|\\.)*")')  # of a list of strings, with what stands before it


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
    return read_newest(only)


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
    return _mapped_ids(path, n_clips) or _odd_ids(path, n_clips)


def _mapped_ids(path: Path, n_clips: int) -> ClipIds | None:
    """The ids of a file as `reduce` writes it; of this very file, though another take its place. None of any other.

    Raises:
        PipelineError: an id that is there twice.
    """
    try:
        text = _mapped(path)
        hashes = np.fromiter(map(hash, _strings_in(text)), np.int64)
    except (OSError, ValueError):
        return None
    if len(hashes) != n_clips:
        return None
    hashes.sort()
    suspects = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    if suspects:  # 8 bytes an id tell which to look at
        _refuse_twins((clip_id for clip_id in _strings_in(text) if hash(clip_id) in suspects), path)
    return ClipIds(n_clips, lambda: _strings_in(text))


def _odd_ids(path: Path, n_clips: int) -> list[str]:
    """The ids of a list that has numbers in it; tells what a file is otherwise."""
    try:
        clip_ids = read_json(path)
    except (OSError, ValueError) as error:
        raise PipelineError(f"cannot read {path}: {error}") from None
    if not isinstance(clip_ids, list) or len(clip_ids) != n_clips:
        raise PipelineError(f"{path}: expected a list of {n_clips} ids, one a row")
    for clip_id in clip_ids:
        if type(clip_id) not in (str, int, float):
            raise PipelineError(f"{path}: expected text or a number for an id, got {clip_id!r}")
    found = [str(clip_id) for clip_id in clip_ids]
    _refuse_twins(found, path)
    return found


def _refuse_twins(clip_ids: Iterable[str], path: Path) -> None:
    seen = set[str]()
    for clip_id in clip_ids:
        if clip_id in seen:
            raise PipelineError(f"{path}: clip id {clip_id!r} is there twice; ids must be unique")
        seen.add(clip_id)


def iter_clip_ids(folder: Path) -> Iterator[str]:
    """The ids of clip_ids.json one by one, for those that need no list of them.

    Raises:
        PipelineError: it cannot be read.
    """
    path = folder / CLIP_IDS
    try:
        yield from _strings_in(_mapped(path))
    except (OSError, ValueError) as error:
        raise PipelineError(f"cannot read {path}: {error}") from None


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise ValueError("expected a list of strings, got nothing")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _strings_in(text: mmap.mmap) -> Iterator[str]:
    """The strings of a file that is a list of them in JSON, some of it at a time in memory.

    Raises:
        ValueError: it is anything else.
    """
    decoder, unread, before = codecs.getincrementaldecoder("utf-8")(), "", "["
    for start in range(0, len(text), _READ_BYTES):
        unread, end = unread + decoder.decode(text[start : start + _READ_BYTES]), 0
        while (found := _JSON_ITEM.match(unread, end)) and found[1] == before:
            yield json.loads(found[2]) if "\\" in found[2] else found[2][1:-1]
            end, before = found.end(), ","
        unread = unread[end:]
        text.madvise(mmap.MADV_DONTNEED)
    if "".join((unread + decoder.decode(b"", final=True)).split()) != ("]" if before == "," else "[]"):
        raise ValueError("expected a list of strings")


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
    start = 0
    for block in blocks(values):
        infinite = np.isinf(block)
        if infinite.any():
            row = start + int(np.argwhere(infinite)[0][0])
            raise PipelineError(f"{path}: row {row} holds Inf; only NaN may stand for a missing modality")
        start += len(block)
    return values
