"""mmsa: the pickles that thuiar/MMSA and its neighbours train from, read without running anything in them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import split_name
from pipeline.errors import PipelineError
from pipeline.export.mmsa import MMSA_NAMES, SENTIMENTS
from pipeline.ingest.content import Features, Floats, clip_vectors, labels_by_id, texts
from pipeline.unpickle import load_pickle

_LABELS = ("regression_labels", "labels", "classification_labels")


@dataclass(frozen=True, slots=True)
class _Part:
    """train, valid or test: what is read of it, N clips each."""

    split: str
    clip_ids: list[str]
    arrays: dict[str, Floats]
    steps: dict[str, int]
    labels: NDArray[Any] | None
    transcripts: dict[str, str]


def read_mmsa(source: Path) -> Features:
    """train, valid and test as one, each clip's sequence by its mean; a clip of nothing but zeros lacks the modality.

    Raises:
        PipelineError: another thing than MMSA's dict of dicts, or one whose parts do not fit together.
    """
    found = _parts(source)
    named = any(_says_more_than_a_sign(part.get("annotations")) for part in found.values())
    parts = [_read_part(part, split, f"{source}: {split or 'its arrays'}", named) for split, part in found.items()]
    features = Features([clip_id for part in parts for clip_id in part.clip_ids], {})
    for modality, name in MMSA_NAMES.items():
        arrays = [part.arrays[modality] for part in parts if modality in part.arrays]
        if len(arrays) not in (0, len(parts)) or len({array.shape[1] for array in arrays}) > 1:
            told = ", ".join(f"{part.split} {_shape(part.arrays.get(modality))}" for part in parts)
            raise PipelineError(f"{source}: {name} is not alike in all parts ({told})")
        if arrays:
            features.arrays[modality] = np.concatenate(arrays)
        longest = max((part.steps[modality] for part in parts if modality in part.steps), default=1)
        if longest > 1:
            features.notes.append(f"{name}: sequences of up to {longest} steps, by their mean")
    labels = [part.labels for part in parts if part.labels is not None]
    if labels and len(labels) == len(parts):
        values = np.concatenate(labels)
        features.labels = labels_by_id(features.clip_ids, values, f"{source}: its labels", features.notes)
    for part in parts:
        features.transcripts |= part.transcripts
        features.splits |= dict.fromkeys(part.clip_ids, part.split) if part.split else {}
    return features


def _shape(array: NDArray[Any] | None) -> str:
    return "none" if array is None else f"{array.shape[1]}-d"


def _parts(source: Path) -> dict[str, Mapping[Any, Any]]:
    """split -> its dict; "" where the arrays stand alone, in no split."""
    content = load_pickle(source)
    if not isinstance(content, dict):
        raise PipelineError(f"{source}: expected a dict of train, valid and test, got {type(content).__name__}")
    named = {split_name(str(key)): part for key, part in content.items() if isinstance(part, dict)}
    parts: dict[str, Mapping[Any, Any]] = {split: part for split, part in named.items() if split}
    if not parts and any(name in content for name in MMSA_NAMES.values()):
        parts = {"": content}
    if not parts:
        known = ", ".join(str(key)[:30] for key in list(content)[:10]) or "nothing"
        raise PipelineError(
            f"{source}: expected train, valid and test, each with text, audio and vision; it holds {known}"
        )
    return parts


def _read_part(part: Mapping[Any, Any], split: str, where: str, named: bool) -> _Part:
    """One part, its lengths compared; `named` takes the classes' names in `annotations` for labels, not numbers."""
    arrays, steps = {}, {}
    for modality, name in MMSA_NAMES.items():
        if name in part:
            arrays[modality] = clip_vectors(part[name], _lengths(part, name), f"{where}: {name}")
            steps[modality] = _n_steps(part[name])
    if not arrays:
        raise PipelineError(f"{where}: expected text, audio or vision, got {', '.join(map(str, part))[:200]}")
    n_clips = len(next(iter(arrays.values())))
    clip_ids = _ids(part, where) if "id" in part else [f"{split or 'clip'}_{row}" for row in range(n_clips)]
    lengths = {"id": len(clip_ids), **{name: len(array) for name, array in arrays.items()}}
    labels = np.array(texts(part.get("annotations"), f"{where}: annotations")) if named else _numbers(part)
    if labels is not None:
        lengths["labels"] = len(labels)
    spoken = texts(part["raw_text"], f"{where}: raw_text") if "raw_text" in part else [""] * len(clip_ids)
    lengths["raw_text"] = len(spoken)
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise PipelineError(f"{where}: lengths differ ({told}); every entry needs one row a clip")
    transcripts = {clip_id: text for clip_id, text in zip(clip_ids, spoken, strict=True) if text.strip()}
    return _Part(split, clip_ids, arrays, steps, labels, transcripts)


def _lengths(part: Mapping[Any, Any], name: str) -> Any:
    """How many steps are each clip's own: as told, or for text as BERT's mask says; None leaves it to the zeros."""
    told = part.get(f"{name}_lengths")
    if told is not None:
        return np.asarray(told).reshape(-1)
    tokens = np.asarray(part.get("text_bert", ()))  # (N, 3, L): ids, mask, segments
    if name == "text" and tokens.ndim == 3 and tokens.dtype.kind in "fiu" and tokens.shape[2] == _n_steps(part[name]):
        return tokens[:, 1].sum(axis=1).astype(np.int64)
    return None


def _n_steps(value: Any) -> int:
    """T of (N, T, D); 1 of anything else."""
    return int(value.shape[1]) if isinstance(value, np.ndarray) and value.ndim == 3 else 1


def _ids(part: Mapping[Any, Any], where: str) -> list[str]:
    """The ids; where each is several parts (a video, a start, an end), these joined."""
    ids = part["id"]
    if isinstance(ids, Sequence | np.ndarray) and len(ids) and isinstance(ids[0], list | tuple | np.ndarray):
        return ["_".join(texts(parts, f"{where}: id")) for parts in ids]
    return texts(ids, f"{where}: id")


def _numbers(part: Mapping[Any, Any]) -> NDArray[Any] | None:
    """The labels as numbers; None where there is not one a clip."""
    values = next((part[name] for name in _LABELS if name in part), None)
    if values is None:
        return None
    array = np.asarray(values)
    return array.reshape(-1) if array.ndim and array.size == len(array) else None


def _says_more_than_a_sign(names: Any) -> bool:
    if not isinstance(names, Iterable):
        return False
    found = {str(name) for name in np.ravel(np.asarray(names, dtype=object))}
    return bool(found - {*SENTIMENTS, ""})
