"""What is read of other people's features, made fit for `--views DIR`: one finite vector a clip and modality."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import split_name
from pipeline.corpora.label_rules import apply_label_rule
from pipeline.errors import PipelineError
from pipeline.view_files import LABEL_LIKE

Floats = NDArray[np.float32]

# What the files call things; the first name is the project's own.
ID_NAMES = ("clip_id", "clip_ids", "id", "ids", "utterance_id", "file", "filename")
LABEL_NAMES = ("labels", "emotion", "sentiment", *sorted(LABEL_LIKE))
TRANSCRIPT_NAMES = ("transcript", "transcripts", "raw_text", "text", "sentence")
SPLIT_NAMES = ("split", "splits", "mode")
NOT_FEATURES = ("cluster", "confidence", "agreement", "__index_level_0__")

# By the feature extractors' names that the field's data sets carry; the first that is found counts.
_MODALITY_WORDS = {
    "text": r"glove|bert|word|text|language|transcript",
    "visual": r"facet|openface|visual|vision|video|face|frame|image|vgg|resnet|efficientnet",
    "audio": r"covarep|opensmile|audio|acoustic|speech|voice|mfcc|davenet|wav2vec|librosa|egemaps",
}


@dataclass(slots=True)
class Features:
    """Clips as somebody's files have them.

    Attributes:
        clip_ids: N ids.
        arrays: view -> (N, D); a row of NaN is a clip without it, other values may be NaN or Inf still.
        labels, transcripts, splits: by clip_id, where there is one.
        notes: what was guessed, changed or left out, a sentence each.
    """

    clip_ids: list[str]
    arrays: dict[str, Floats]
    labels: dict[str, str] = field(default_factory=dict)
    transcripts: dict[str, str] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def modality_of(name: str) -> str | None:
    """text, visual or audio, where the name says so."""
    found = (modality for modality, words in _MODALITY_WORDS.items() if re.search(words, name.lower()))
    return next(found, None)


def view_name(name: str) -> str:
    """A view's name: the modality where the whole name is one's, else the name, fit to be a file's."""
    plain = {"text": "text", "visual": "visual", "video": "visual", "vision": "visual", "audio": "audio"}
    safe = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-") or "view"
    return plain.get(name.lower(), safe)


def first_of(names: Iterable[str], wanted: Sequence[str]) -> str | None:
    """The name that is wanted most, whatever its case."""
    known = {name.lower(): name for name in names}
    return next((known[name] for name in wanted if name in known), None)


def floats(values: Any, where: str) -> Floats:
    """Numbers as float32; what float32 cannot hold becomes Inf.

    Raises:
        PipelineError: no numbers.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise PipelineError(f"{where}: expected numbers, got {_kind(array)}; leave it out, or save it as numbers")
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)


def _kind(array: NDArray[Any]) -> str:
    return {"U": "text", "S": "text", "O": "objects"}.get(array.dtype.kind, f"dtype {array.dtype}")


def texts(values: Any, where: str) -> list[str]:
    """A list or array of text, bytes decoded; whole numbers as they are written.

    Raises:
        PipelineError: anything else among them.
    """
    is_one = isinstance(values, str | bytes | Mapping) or (isinstance(values, np.ndarray) and not values.ndim)
    if is_one or not isinstance(values, Sequence | np.ndarray):
        raise PipelineError(f"{where}: expected a list of text, got {type(values).__name__}")
    found = []
    for value in values:
        if isinstance(value, bytes):
            found.append(value.decode("utf-8", "replace"))
        elif isinstance(value, str | int | np.integer) and not isinstance(value, bool):
            found.append(str(value))
        else:
            raise PipelineError(f"{where}: expected text, got {str(value)[:60]!r} ({type(value).__name__}); mend it")
    return found


def clip_vectors(array: Any, lengths: Any, where: str) -> Floats:
    """(N, D) as it is; (N, T, D) by the mean of each clip's own steps, NaN where these are all zero.

    Args:
        array: numbers; also N of (T, D) with a T each.
        lengths: N steps a clip from the first on; None where padding is to be told by its zeros.
    Raises:
        PipelineError: another number of axes, or lengths that are none.
    """
    if isinstance(array, list) or (isinstance(array, np.ndarray) and array.dtype.hasobject):
        return _ragged_vectors(array, where)
    values = floats(array, where)
    if values.ndim == 2:
        return values
    if values.ndim != 3:
        raise PipelineError(f"{where}: expected (clips, features) or (clips, steps, features), got {values.shape}")
    if lengths is None:
        steps = [rows[(rows != 0).any(axis=1)] for rows in values]
    else:
        ends = np.asarray(lengths)
        if ends.shape != (len(values),) or ends.dtype.kind not in "iu" or (ends < 0).any():
            raise PipelineError(f"{where}: expected {len(values)} lengths, whole numbers, got {str(lengths)[:60]}")
        steps = [rows[:end] for rows, end in zip(values, ends, strict=True)]
    vectors = [mean_of(rows) if rows.any() else np.full(values.shape[2], np.nan, np.float32) for rows in steps]
    return np.stack(vectors) if vectors else np.empty((0, values.shape[2]), np.float32)


def _ragged_vectors(sequences: Any, where: str) -> Floats:
    steps = [floats(sequence, where) for sequence in sequences]
    if not steps or any(rows.ndim != 2 or rows.shape[1] != steps[0].shape[1] for rows in steps):
        shapes = ", ".join(str(rows.shape) for rows in steps[:3]) or "none"
        raise PipelineError(f"{where}: expected arrays of (steps, features), alike in features, got {shapes}")
    return np.stack([mean_of(rows) for rows in steps])


def mean_of(steps: Floats) -> Floats:
    """(T, D) -> (D,): the mean over the finite values of each feature, NaN where it has none."""
    there = np.isfinite(steps)
    sums = np.where(there, steps, 0).sum(axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / there.sum(axis=0), dtype=np.float32)


def classes_of(values: Mapping[str, float], notes: list[str]) -> dict[str, str]:
    """Labels that are numbers as classes: whole ones as they are, real ones by a rule that their range chooses."""
    # By way of float32, which is what most files hold: 2.4000000953674316 was 2.4.
    known = {clip_id: float(str(np.float32(value))) for clip_id, value in values.items() if np.isfinite(value)}
    if all(value.is_integer() for value in known.values()):
        return {clip_id: str(int(value)) for clip_id, value in known.items()}
    rule = "round7" if max(abs(value) for value in known.values()) > 1 else "sign3"
    notes.append(f"labels: real numbers, made classes by the rule {rule}; for another give --labels FILE")
    return {clip_id: apply_label_rule(repr(value), rule) for clip_id, value in known.items()}


def labels_by_id(clip_ids: Sequence[str], values: Any, where: str, notes: list[str]) -> dict[str, str]:
    """clip_id -> class from N labels, text or numbers; (N, 1) and the like is taken as N."""
    array = np.asarray(values)
    array = array.reshape(-1) if array.size == len(clip_ids) else array
    if array.shape != (len(clip_ids),):
        raise PipelineError(f"{where}: expected {len(clip_ids)} labels, one a clip, got shape {array.shape}")
    if array.dtype.kind in "fiub":
        return classes_of(dict(zip(clip_ids, array.astype(np.float64), strict=True)), notes)
    found = {i: text for i, text in zip(clip_ids, texts(array, where), strict=True) if text.strip()}
    try:
        numbers = {clip_id: float(text) for clip_id, text in found.items()}
    except ValueError:
        return found
    whole = all(number.is_integer() for number in numbers.values() if np.isfinite(number))
    return found if whole else classes_of(numbers, notes)


def known_splits(told: Mapping[str, str]) -> dict[str, str]:
    """clip_id -> train, valid or test, of those that say so."""
    named = {clip_id: split_name(split) for clip_id, split in told.items()}
    return {clip_id: split for clip_id, split in named.items() if split}


def merge(parts: Sequence[Features], where: str) -> Features:
    """Files of different modalities as one: clips matched by id, in the order in which they first come.

    Raises:
        PipelineError: two files with one view, an id twice in a file, or files of different lengths without ids.
    """
    for part in parts:
        check_ids(part.clip_ids, where)
    lengths = sorted({len(part.clip_ids) for part in parts})
    if len(lengths) > 1 and any(part.clip_ids == [str(row) for row in range(len(part.clip_ids))] for part in parts):
        raise PipelineError(f"{where}: {lengths[0]} to {lengths[-1]} rows and no ids to match them by; add clip_id")
    clip_ids = list(dict.fromkeys(clip_id for part in parts for clip_id in part.clip_ids))
    row_of = {clip_id: row for row, clip_id in enumerate(clip_ids)}
    merged = Features(clip_ids, {})
    for part in parts:
        rows = [row_of[clip_id] for clip_id in part.clip_ids]
        for name, array in part.arrays.items():
            if name in merged.arrays:
                raise PipelineError(f"{where}: two files hold {name}; keep one of them there")
            merged.arrays[name] = np.full((len(clip_ids), array.shape[1]), np.nan, dtype=np.float32)
            merged.arrays[name][rows] = array
        merged.labels |= part.labels
        merged.transcripts |= part.transcripts
        merged.splits |= part.splits
        merged.notes += part.notes
    return merged


def check_ids(clip_ids: Sequence[str], where: str) -> None:
    """Refuses an id that is empty or there twice.

    Raises:
        PipelineError: names the first.
    """
    seen: set[str] = set()
    for clip_id in clip_ids:
        if clip_id in seen or not clip_id:
            trouble = "there twice" if clip_id else "empty"
            raise PipelineError(f"{where}: clip id {clip_id!r} is {trouble}; every clip needs an id of its own")
        seen.add(clip_id)


def tidied(features: Features, where: str) -> Features:
    """What can be written: ids of their own, one row each, views with something in them, finite or missing.

    A value that is no finite number in a row that has others becomes the mean of its feature.

    Raises:
        PipelineError: an id twice or empty, lengths that differ, no features at all.
    """
    check_ids(features.clip_ids, where)
    lengths = {name: len(array) for name, array in features.arrays.items()} | {"ids": len(features.clip_ids)}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise PipelineError(f"{where}: lengths differ ({told}); every view needs one row a clip")
    arrays = {}
    for name, array in features.arrays.items():
        if array.shape[1] and np.isfinite(array).any():
            arrays[name] = filled(array, name, features.notes)
        else:
            features.notes.append(f"{name}: no clip has it; left out")
    if not arrays:
        raise PipelineError(f"{where}: no features in it; expected arrays of numbers, one row a clip")
    has = np.any([~np.isnan(array).all(axis=1) for array in arrays.values()], axis=0)
    if not has.all():
        features.notes.append(f"{int((~has).sum())} clips have no features at all and are left out")
    ids = [clip_id for clip_id, keep in zip(features.clip_ids, has, strict=True) if keep]
    keep = _keeping(set(ids))
    return Features(
        ids,
        {name: array[has] for name, array in arrays.items()},
        keep(features.labels),
        keep(features.transcripts),
        keep(features.splits),
        features.notes,
    )


def _keeping(ids: set[str]) -> Callable[[Mapping[str, str]], dict[str, str]]:
    return lambda values: {clip_id: value for clip_id, value in values.items() if clip_id in ids and value}


def filled(array: Floats, name: str, notes: list[str]) -> Floats:
    """The array with a finite number, or a row of NaN, everywhere."""
    finite = np.isfinite(array)
    n_bad = int((~finite[finite.any(axis=1)]).sum())
    array = np.where(finite, array, np.nan)
    if n_bad:
        sums, counts = np.nansum(array, axis=0, dtype=np.float64), finite.sum(axis=0)
        means = (sums / np.maximum(counts, 1)).astype(np.float32)  # 0 for a feature that no clip has
        rows = finite.any(axis=1)
        array[rows] = np.where(finite[rows], array[rows], means)
        notes.append(f"{name}: {n_bad} values were NaN or Inf and are the mean of their feature now")
    return array
