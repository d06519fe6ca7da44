"""Views: one matrix a modality, rows aligned by clip_id; from the store, the workdir or a folder of arrays."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import MODALITIES
from pipeline.errors import PipelineError
from pipeline.records import read_json
from pipeline.store import EmbeddingStore

PUBLISHED_NAMES = {"video": "visual"}  # the published demo's file names -> ours
LABEL_LIKE = {"label", "y", "y_true", "labels_true", "target", "targets", "gt", "ground_truth"}
CLIP_IDS = "clip_ids.json"


@dataclass(frozen=True, slots=True)
class Views:
    """Modalities of one corpus, aligned.

    Attributes:
        clip_ids: N ids, in the order of the rows.
        arrays: modality -> (N, D_m) float32; a row of NaN is a clip without that modality.
    """

    clip_ids: list[str]
    arrays: dict[str, NDArray[np.float32]]

    def complete(self) -> NDArray[np.bool_]:
        """(N,) True where a clip has every modality."""
        return np.all([~np.isnan(array).any(axis=1) for array in self.arrays.values()], axis=0)

    def digest(self) -> str:
        """SHA-256 of the ids, the modalities' names and every value."""
        digest = hashlib.sha256(json.dumps([self.clip_ids, list(self.arrays)]).encode())
        for array in self.arrays.values():
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def take(self, rows: NDArray[np.bool_]) -> "Views":
        """The clips where `rows` is True."""
        ids = [clip_id for clip_id, keep in zip(self.clip_ids, rows, strict=True) if keep]
        return Views(ids, {name: array[rows] for name, array in self.arrays.items()})


def align(clip_ids: Sequence[str], embeddings: Mapping[str, Mapping[str, NDArray[np.float32]]]) -> Views:
    """Stacks embeddings into views, in the order of `clip_ids`; clips that no modality has are left out.

    Args:
        clip_ids: the corpus, in order.
        embeddings: modality -> clip_id -> (D,) vector.
    Raises:
        PipelineError: a modality without any embedding.
    """
    for modality, vectors in embeddings.items():
        if not any(clip_id in vectors for clip_id in clip_ids):
            raise PipelineError(f"no clip has any {modality} embedding; extract it, or set extract.{modality}=null")
    kept = [clip_id for clip_id in clip_ids if any(clip_id in vectors for vectors in embeddings.values())]
    arrays = {}
    for modality, vectors in embeddings.items():
        dim = len(next(iter(vectors.values())))
        array = np.full((len(kept), dim), np.nan, dtype=np.float32)
        for row, clip_id in enumerate(kept):
            if clip_id in vectors:
                array[row] = vectors[clip_id]
        arrays[modality] = array
    return Views(kept, arrays)


def read_views(folder: Path) -> Views:
    """Views from a folder: `<modality>.npy` files, or a workdir with `reduced/` or `features/`.

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
    embeddings = {}
    for modality, found in stores.items():
        if len(found) != 1:
            names = ", ".join(store.fingerprint for store, _ in found) or "none"
            raise PipelineError(f"{features / modality}: expected one set of embeddings, found: {names}; use --config")
        embeddings[modality] = found[0][0].read()
    clip_ids = sorted({clip_id for vectors in embeddings.values() for clip_id in vectors})
    return align(clip_ids, embeddings)


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


def _read_clip_ids(folder: Path, n_clips: int) -> list[str]:
    path = folder / CLIP_IDS
    if not path.exists():
        return [str(row) for row in range(n_clips)]
    try:
        clip_ids = read_json(path)
    except (OSError, ValueError) as error:
        raise PipelineError(f"cannot read {path}: {error}") from None
    if not isinstance(clip_ids, list) or len(clip_ids) != n_clips:
        raise PipelineError(f"{path}: expected a list of {n_clips} ids, one a row")
    return [str(clip_id) for clip_id in clip_ids]


def load_npy(path: Path) -> NDArray[Any]:
    """An .npy file's array, of any dtype but objects.

    Raises:
        OSError, ValueError: it cannot be read, or is no .npy file.
    """
    with path.open("rb") as file:
        try:
            return np.lib.format.read_array(file, allow_pickle=False)
        except OSError:
            raise
        except Exception as error:  # a garbled header breaks NumPy's parser in many ways
            raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def read_array(path: Path) -> NDArray[np.float32]:
    """A numeric .npy as float32; pickled objects are refused.

    Raises:
        PipelineError: not an .npy of numbers, or an infinite value.
    """
    try:
        array = load_npy(path)
        if array.dtype.kind not in "fiub":
            raise ValueError(f"its dtype is {array.dtype}")
    except (OSError, ValueError) as error:
        raise PipelineError(f"cannot read {path} as an array of numbers ({error})") from None
    values = np.asarray(array, dtype=np.float32)
    if np.isinf(values).any():
        row = int(np.argwhere(np.isinf(values))[0][0])
        raise PipelineError(f"{path}: row {row} holds Inf; only NaN may stand for a missing modality")
    return values
