"""npy and npz: arrays by name, each a modality or something known of the clips."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import read_column
from pipeline.errors import PipelineError
from pipeline.hardware import memory_gb
from pipeline.ingest.content import (
    ID_NAMES,
    LABEL_NAMES,
    NOT_FEATURES,
    SPLIT_NAMES,
    TRANSCRIPT_NAMES,
    Features,
    clip_vectors,
    first_of,
    known_splits,
    labels_by_id,
    texts,
    view_name,
)
from pipeline.manifest import read_labels
from pipeline.records import read_json
from pipeline.view_files import CLIP_IDS, load_npy

# What NumPy lets through of an archive that is damaged.
_BROKEN = (
    *(OSError, ValueError, KeyError, EOFError, AttributeError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)


def read_npy(source: Path) -> Features:
    """A folder of <modality>.npy with clip_ids.json, labels.npy and the like where they are there; or one .npy."""
    folder = source if source.is_dir() else source.parent
    paths = sorted(source.glob("*.npy")) if source.is_dir() else [source]
    arrays = {}
    for path in paths:
        try:
            arrays[path.stem] = load_npy(path)
        except (OSError, ValueError) as error:
            raise PipelineError(
                f"cannot read {path} ({error}); save it again with numpy.save, numbers or text"
            ) from None
    if source.is_dir() and (folder / CLIP_IDS).exists():
        arrays["clip_ids"] = np.array(_clip_ids(folder / CLIP_IDS), dtype=np.str_)
    return _with_what_lies_beside(features_of(arrays, str(source)), folder if source.is_dir() else None)


def _clip_ids(path: Path) -> list[str]:
    try:
        ids = read_json(path)
    except (OSError, ValueError) as error:
        raise PipelineError(f"cannot read {path} ({error}); it should be a JSON list of the clips' ids") from None
    return texts(ids, str(path))


def read_npz(source: Path) -> Features:
    """A .npz of such arrays, any of them compressed, none pickled."""
    arrays = {}
    try:
        with np.load(source, allow_pickle=False) as file:
            _check_size(file.zip)
            for name in file.files:
                arrays[name] = file[name]
                if not isinstance(arrays[name], np.ndarray):  # NumPy gives what is no array as its bytes
                    raise ValueError(f"{name} is no array")
    except _BROKEN as error:
        reason = " ".join(str(error).split())[:200]
        raise PipelineError(
            f"cannot read {source} ({reason}); save it with numpy.savez, numbers and text alone"
        ) from None
    return _with_what_lies_beside(features_of(arrays, str(source)), source.parent)


def _check_size(archive: zipfile.ZipFile) -> None:
    """A few kB of an archive may stand for any number of GB, and reading them would end the process."""
    claimed_gb, memory = sum(info.file_size for info in archive.infolist()) / 1e9, memory_gb()
    if memory and claimed_gb > memory[1]:
        raise ValueError(f"its arrays take {claimed_gb:.1f} GB, and {memory[1]:.1f} GB of memory are free")


def features_of(arrays: Mapping[str, NDArray[Any]], where: str) -> Features:
    """Views and what is known of the clips, told apart by their names.

    Raises:
        PipelineError: an array that its name does not fit.
    """
    names = set(arrays) - {name for name in arrays if name.endswith("_lengths")} - set(NOT_FEATURES)
    known = {
        what: first_of((n for n in names if what != "transcript" or _is_text(arrays[n])), wanted)
        for what, wanted in (
            ("id", ID_NAMES),
            ("label", LABEL_NAMES),
            ("transcript", TRANSCRIPT_NAMES),
            ("split", SPLIT_NAMES),
        )
    }
    notes: list[str] = []
    views = {}
    for name in sorted(names - set(known.values())):
        if arrays[name].ndim not in (2, 3) or name.lower() in LABEL_NAMES:
            notes.append(f"{name}: shape {arrays[name].shape}, no (clips, features); left out")
            continue
        views[view_name(name)] = clip_vectors(arrays[name], arrays.get(f"{name}_lengths"), f"{where}: {name}")
        if arrays[name].ndim == 3:
            notes.append(f"{name}: sequences of up to {arrays[name].shape[1]} steps, by their mean")
    if not views:
        raise PipelineError(f"{where}: no features in it; expected arrays of numbers, one row a clip")
    n_clips = max(len(view) for view in views.values())
    listed = {what: arrays[name] for what, name in known.items() if name}
    ids = texts(listed["id"], f"{where}: {known['id']}") if "id" in listed else [str(row) for row in range(n_clips)]
    if "id" not in listed:
        notes.append("no ids of the clips, so they are their row numbers")
    features = Features(ids, views, notes=notes)
    for what in ("label", "transcript", "split"):
        if what in listed:
            _add(features, what, listed[what], f"{where}: {known[what]}")
    return features


def _is_text(array: NDArray[Any]) -> bool:
    return array.ndim == 1 and array.dtype.kind in "US"


def _add(features: Features, what: str, values: NDArray[Any], where: str) -> None:
    if what == "label":
        features.labels = labels_by_id(features.clip_ids, values, where, features.notes)
        return
    found = texts(values, where)
    if len(found) != len(features.clip_ids):
        raise PipelineError(f"{where}: expected {len(features.clip_ids)} entries, one a clip, got {len(found)}")
    by_id = dict(zip(features.clip_ids, found, strict=True))
    if what == "split":
        features.splits = known_splits(by_id)
    else:
        features.transcripts = by_id


def _with_what_lies_beside(features: Features, folder: Path | None) -> Features:
    """labels.csv, transcripts.csv and splits.csv of the same folder, where the arrays told none."""
    if folder is None:
        return features
    labels = folder / "labels.csv"
    features.labels = features.labels or (read_labels(labels) if labels.exists() else {})
    features.transcripts = features.transcripts or read_column(folder, "transcript")
    features.splits = features.splits or known_splits(read_column(folder, "split"))
    return features
