"""npy: the published demo's layout, which `--views DIR` reads. npz: the same arrays in one file."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import write_column
from pipeline.corpora.tables import format_table
from pipeline.export.content import Content
from pipeline.files import whole_file, write_atomic
from pipeline.view_files import CLIP_IDS, PUBLISHED_NAMES
from pipeline.views import blocks

_PUBLISHED = {ours: published for published, ours in PUBLISHED_NAMES.items()}


def write_npy(content: Content, folder: Path) -> dict[str, Any]:
    """An array a modality, a row a clip, NaN where a clip lacks it; beside them what is known of the clips.

    text.npy video.npy audio.npy   (N, D) float32
    labels.npy                     (N,) integers where every clip has one, else text, "" for none
    clip_ids.json                  the N ids, in order
    transcripts.csv splits.csv     where the corpus has them
    assignments.csv                clip_id, cluster, confidence, where the results folder holds a run
    """
    for name, array in _arrays(content).items():
        with whole_file(folder / f"{name}.npy") as file:
            header = np.lib.format.header_data_from_array_1_0(array) | {"fortran_order": False}
            np.lib.format.write_array_header_1_0(file, header)
            for block in blocks(array):  # NumPy's own `write_array` keeps all of a mapped file in memory
                file.write(block.tobytes())
    write_atomic(folder / CLIP_IDS, json.dumps(content.clip_ids, ensure_ascii=False))
    _write_beside(content, folder)
    if content.assignments:
        rows = [(i, str(k), f"{confidence:.6f}") for i, (k, confidence) in content.assignments.items()]
        write_atomic(folder / "assignments.csv", format_table(("clip_id", "cluster", "confidence"), rows))
    return {}


def write_npz(content: Content, folder: Path) -> dict[str, Any]:
    """features.npz: the arrays of `write_npy`, clip_ids, and cluster (-1 for none) and confidence of a run.

    transcripts.csv and splits.csv lie beside it: an array of text is as wide as its longest entry.
    """
    clip_ids = content.clip_ids
    arrays = _arrays(content) | {"clip_ids": np.array(clip_ids, dtype=np.str_)}
    if content.assignments:
        said = [content.assignments.get(clip_id, (-1, np.nan)) for clip_id in clip_ids]
        arrays["cluster"] = np.array([k for k, _ in said], dtype=np.int64)
        arrays["confidence"] = np.array([confidence for _, confidence in said], dtype=np.float32)
    with whole_file(folder / "features.npz") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    _write_beside(content, folder)
    return {}


def _arrays(content: Content) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {
        _PUBLISHED.get(modality, modality): array for modality, array in content.views.arrays.items()
    }
    if content.labels:
        labels = [content.labels.get(clip_id, "") for clip_id in content.clip_ids]
        whole = all(re.fullmatch("0|-?[1-9][0-9]{0,17}", label) for label in labels)
        arrays["labels"] = np.array([int(label) for label in labels] if whole else labels)
    return arrays


def _write_beside(content: Content, folder: Path) -> None:
    write_column(folder, "transcript", content.transcripts)
    write_column(folder, "split", content.splits)
