"""Clips of an import's tests, and what is read of its folder by other libraries."""

import csv
import json
from pathlib import Path

import numpy as np

from pipeline.corpora.tables import unmark_cell

RNG = np.random.default_rng(0)
N = 9
IDS = [f"video{i // 3}_{i % 3}" for i in range(N)]
VIEWS = {name: RNG.normal(size=(N, dim)).astype(np.float32) for name, dim in (("text", 5), ("visual", 4), ("audio", 3))}
TEXTS = [
    'She said "no", twice',
    "two\nlines\r\n\rthree",
    "</script>",
    "=1+1; née",
    "\u2028",
    "007",
    " padded ",
    "a,b",
    "x",
]
PLANTED = [str(i % 3) for i in range(N)]


def write_views(folder: Path, *, missing=True) -> Path:
    """The clips above as the project's own cached features."""
    folder.mkdir()
    for name, array in VIEWS.items():
        rows = array.copy()
        if missing and name == "audio":
            rows[2] = np.nan
        np.save(folder / f"{name}.npy", rows)
    (folder / "clip_ids.json").write_text(json.dumps(IDS))
    for column, values in (("label", PLANTED), ("transcript", TEXTS), ("split", ["train", "valid", "test"] * 3)):
        with (folder / f"{column}s.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("clip_id", column), *zip(IDS, values, strict=True)])
    return folder


def rows_by_id(folder: Path) -> dict[str, dict[str, list[float]]]:
    """clip_id -> view -> row, read by NumPy and json alone."""
    ids = json.loads((folder / "clip_ids.json").read_text())
    arrays = {path.stem: np.load(path) for path in folder.glob("*.npy")}
    return {clip_id: {name: arrays[name][row] for name in arrays} for row, clip_id in enumerate(ids)}


def column(path: Path) -> dict[str, str]:
    """clip_id -> value of a CSV of the project's, which marks what a spreadsheet would compute."""
    with path.open(newline="", encoding="utf-8") as file:
        return {clip_id: unmark_cell(value) for clip_id, value in list(csv.reader(file))[1:]}
