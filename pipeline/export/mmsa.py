"""mmsa: the pickle that thuiar/MMSA trains from (`run.py --feature_path features.pkl`, need_data_aligned off).

features.pkl: {"train": part, "valid": part, "test": part}, each part a dict of
    id, raw_text             lists of text
    text, vision, audio      (N, T, D) float32 (sequences are kept as float16 and widened), zeros after a clip's end;
                             T = 1 where there are vectors alone
    text_lengths, vision_lengths, audio_lengths    how much of T is the clip's own
    text_bert                (N, 3, L) int32: token ids, mask, segments; where there are words and a tokenizer
    regression_labels        (N,) float32: the label if all are numbers, else the class; NaN for none
    classification_labels    (N,) int64 and annotations, a list: 0, 1, 2 Negative, Neutral, Positive where numbers go
                             below zero, as MMSA has it; else the classes in order. -1 and "" for none
MMSA knows no missing modality, so a clip that lacks one has a step of zeros there.
"""

import io
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import SPLITS
from pipeline.console import say
from pipeline.corpora.base import natural_key
from pipeline.corpora.tables import parse_number
from pipeline.errors import PipelineError
from pipeline.export.content import Content
from pipeline.export.splits import split_clips
from pipeline.files import write_atomic
from pipeline.store import Steps

MMSA_NAMES = {"text": "text", "visual": "vision", "audio": "audio"}
SENTIMENTS = ("Negative", "Neutral", "Positive")
_PROTOCOL = 4  # Python 3.4 and newer


def write_mmsa(content: Content, folder: Path) -> dict[str, Any]:
    """Writes features.pkl. It is made in memory: twice its size is needed, 2 GB for MOSI with sequences.

    Raises:
        PipelineError: a view that is neither text, visual nor audio.
    """
    ids, views = content.clip_ids, content.views.arrays
    for name in views:
        if name not in MMSA_NAMES:
            raise PipelineError(
                f"mmsa holds text, audio and vision alone, and there is a view {name!r}; give another format"
            )
    columns: dict[str, Any] = {"id": ids, "raw_text": [content.transcripts.get(clip_id, "") for clip_id in ids]}
    longest = {}
    for modality, name in MMSA_NAMES.items():
        columns[name], columns[f"{name}_lengths"] = padded(ids, _steps(content, modality))
        longest[name] = columns[name].shape[1]
    tokens = _tokens(content)
    if tokens is not None:
        columns["text_bert"] = tokens
    columns |= _targets(ids, content.labels)
    splits, how = split_clips(ids, content.videos, content.splits)
    rows = {split: [i for i, clip_id in enumerate(ids) if splits[clip_id] == split] for split in SPLITS}
    parts = {split: {name: _take(column, rows[split]) for name, column in columns.items()} for split in SPLITS}
    write_atomic(folder / "features.pkl", portable_pickle(parts))
    _tell(content, rows, how)
    return {"splits": {split: len(found) for split, found in rows.items()}, "split_rule": how, "steps": longest}


def _steps(content: Content, modality: str) -> Mapping[str, Steps]:
    """Each clip's sequence where the store keeps them, else its vector as a sequence of one."""
    view = content.views.arrays.get(modality)
    if view is None:
        return {}
    if modality in content.stores:
        store, stamps = content.stores[modality]
        if store.keeps_sequences:
            return store.read_sequences(stamps)
        say(f"export: {modality}: vectors, no sequences; for those extract with extract.keep_sequence=true")
    rows = np.flatnonzero(~np.isnan(view).any(axis=1))
    return {content.clip_ids[row]: view[row : row + 1] for row in rows}


def padded(clip_ids: Sequence[str], steps: Mapping[str, Steps]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(N, T, D) float32, zeros after each clip's end, and (N,) its length; a clip without steps is one step of zeros.

    A modality that no clip has is D = 1.
    """
    longest = max((len(sequence) for sequence in steps.values()), default=1)
    dim = next((sequence.shape[1] for sequence in steps.values()), 1)
    array = np.zeros((len(clip_ids), longest, dim), dtype=np.float32)
    lengths = np.ones(len(clip_ids), dtype=np.int64)
    for row, clip_id in enumerate(clip_ids):
        if clip_id in steps:
            lengths[row] = len(steps[clip_id])
            array[row, : lengths[row]] = steps[clip_id]
    return array, lengths


def _tokens(content: Content) -> NDArray[np.int32] | None:
    """text_bert, by the tokenizer of the text encoder; None, saying so, without words or tokenizer."""
    section = content.settings.extract.text
    if section is None or not content.transcripts:
        return None
    from extractors.errors import WeightsError
    from extractors.text_bert import local_tokenizer, token_ids

    try:
        tokenizer, _ = local_tokenizer(section.weights, section.model, section.tokenizer)
    except WeightsError as error:
        say(f"export: no text_bert, so MMSA must run with use_bert off: {error}")
        return None
    found = [
        token_ids(tokenizer, content.transcripts.get(clip_id, ""), section.max_tokens)[0]
        for clip_id in content.clip_ids
    ]
    array = np.zeros((len(found), 3, max(len(ids) for ids in found)), dtype=np.int32)
    for row, ids in zip(array, found, strict=True):
        row[0, : len(ids)], row[1, : len(ids)] = ids, 1
    return array


def _targets(clip_ids: Sequence[str], labels: Mapping[str, str]) -> dict[str, Any]:
    numbers = _numbers(labels)
    classes = sorted(set(labels.values()), key=natural_key)
    if numbers and min(numbers.values()) < 0:
        index = {clip_id: int(np.sign(number)) + 1 for clip_id, number in numbers.items()}
        names = {clip_id: SENTIMENTS[k] for clip_id, k in index.items()}
    else:
        index = {clip_id: classes.index(label) for clip_id, label in labels.items()}
        names = dict(labels)
    values: Mapping[str, float] = numbers or index
    return {
        "regression_labels": np.array([values.get(i, np.nan) for i in clip_ids], dtype=np.float32),
        "classification_labels": np.array([index.get(i, -1) for i in clip_ids], dtype=np.int64),
        "annotations": [names.get(i, "") for i in clip_ids],
    }


def _numbers(labels: Mapping[str, str]) -> dict[str, float]:
    """The labels as numbers; {} if one is none."""
    try:
        return {clip_id: parse_number(label) for clip_id, label in labels.items()}
    except ValueError:
        return {}


def _take(column: Any, rows: Sequence[int]) -> Any:
    return column[rows] if isinstance(column, np.ndarray) else [column[row] for row in rows]


def _tell(content: Content, rows: Mapping[str, Sequence[int]], how: str) -> None:
    say(f"export: {', '.join(f'{split} {len(found)}' for split, found in rows.items())} clips, {how}")
    for split, found in rows.items():
        if not found:
            say(f"export: {split} is empty, and MMSA needs all three")
    n_without = len(content.clip_ids) - len(content.labels)
    if n_without:
        say(f"export: {n_without} clips have no label (NaN), and MMSA cannot train from those")
    for modality, name in MMSA_NAMES.items():
        view = content.views.arrays.get(modality)
        n_missing = len(content.clip_ids) if view is None else int(np.isnan(view).any(axis=1).sum())
        if n_missing:
            say(f"export: {n_missing} clips have no {name}; zeros stand for it, as MMSA knows none missing")


class _PortablePickler(pickle.Pickler):
    """Arrays by `numpy.ndarray` and `numpy.dtype` alone: the other names in NumPy's own pickles moved with NumPy 2."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is np.ndarray:
            return np.ndarray, ((0,), obj.dtype), obj.__reduce__()[2]
        return NotImplemented


def portable_pickle(value: Any) -> bytes:
    """A pickle of containers and arrays that NumPy 1 and 2 alike can load."""
    buffer = io.BytesIO()
    _PortablePickler(buffer, protocol=_PROTOCOL).dump(value)
    return buffer.getvalue()
