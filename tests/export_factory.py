"""What an export's tests share: names, what must be in its rows, and a folder of cached features."""

import json
from pathlib import Path

import numpy as np

WORDS = ['She said "no", twice', "two\nlines", "</script><b>bold</b>", "=1+1; née", "plain words here", "so it goes"]
N_CLIPS = 12
SILENT, UNLABELLED = "clip_03", "clip_05"
DIMS = {"text": 384, "visual": 1280, "audio": 1024}


def check_rows(ids, arrays, vectors):
    """Each row is the store's vector to the bit; NaN where the store has none."""
    for modality, array in arrays.items():
        assert array.dtype == np.float32
        assert array.shape == (N_CLIPS, DIMS[modality])
        for clip_id, row in zip(ids, array, strict=True):
            np.testing.assert_array_equal(row, vectors[modality].get(clip_id, np.full(len(row), np.nan)))


def label_of(clip_id: str) -> str:
    return "" if clip_id == UNLABELLED else str(int(clip_id[-2:]) % 4 - 1)


def cached(folder: Path, *, labels=(), transcripts=(), splits=()) -> Path:
    """Three clips of cached features."""
    folder.mkdir()
    for modality in DIMS:
        np.save(folder / f"{modality}.npy", np.random.default_rng(len(modality)).normal(size=(3, 4)))
    (folder / "clip_ids.json").write_text(json.dumps(["v_0", "v_1", "v_2"]))
    for name, column, values in (
        ("labels", "label", labels),
        ("transcripts", "transcript", transcripts),
        ("splits", "split", splits),
    ):
        if values:
            lines = [f"v_{i},{value}" for i, value in enumerate(values)]
            (folder / f"{name}.csv").write_text("\n".join([f"clip_id,{column}", *lines]) + "\n")
    return folder
