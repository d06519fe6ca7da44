"""csv, parquet and hf: a row a clip."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from pipeline.columns import SPLITS
from pipeline.corpora.tables import mark_cell
from pipeline.export.content import Content
from pipeline.files import whole_file, write_atomic
from pipeline.reduce import untrained
from pipeline.views import let_go, row_slices

ROWS = 8192  # clips whose features are written together
_HF_SPLITS = {"train": "train", "valid": "validation", "test": "test"}  # as Hugging Face names them


def write_csv(content: Content, folder: Path) -> dict[str, Any]:
    """features.csv: clip_id, label, cluster, confidence, split, transcript, then text_0 ... visual_0 ... audio_0 ...

    A column that nothing fills is left out. An empty cell is a value that is not there. Numbers have as many digits as
    give back the same float32; text is marked as in every CSV that is written here (`mark_cell`).
    """
    known = {name: _marked(column) for name, column in _known(content).items()}

    def columns_of(rows: slice) -> pa.Table:
        columns = {name: column[rows] for name, column in known.items()}
        for modality, view in content.views.arrays.items():
            values = np.array(view[rows])
            missing = np.isnan(values)
            let_go(view)
            for index in range(view.shape[1]):
                column = pa.array(values[:, index], pa.float32(), mask=missing[:, index])
                columns[mark_cell(f"{modality}_{index}")] = column
        return pa.table(columns)

    with whole_file(folder / "features.csv") as file:
        tables = map(columns_of, row_slices(len(content.clip_ids), ROWS))
        first = next(tables, None) or columns_of(slice(0))
        with pcsv.CSVWriter(file, first.schema) as writer:
            for table in chain([first], tables):
                writer.write_table(table)
    return {}


def write_parquet(content: Content, folder: Path) -> dict[str, Any]:
    """features.parquet: the columns of `write_csv`, but a modality is one column of fixed-size lists, null for none."""
    _write_tables(_tables(content), folder / "features.parquet")
    return {}


def write_hf(content: Content, folder: Path) -> dict[str, Any]:
    """What `datasets.load_dataset(folder)` reads: the table of `write_parquet` in data/ and a card, README.md.

    Splits are the corpus' own, for all clips or none; without them everything is "train", as the libraries there call
    the only split.
    """
    ids = content.clip_ids
    own = all(clip_id in content.splits for clip_id in ids)
    counts = {}
    for split in SPLITS if own else ("train",):
        rows = np.array([i for i, clip_id in enumerate(ids) if not own or content.splits[clip_id] == split], np.int64)
        if len(rows):
            name = _HF_SPLITS[split]
            _write_tables(_tables(content, rows), folder / "data" / f"{name}-00000-of-00001.parquet")
            counts[name] = len(rows)
    write_atomic(folder / "README.md", _card(content, counts))
    return {"splits": counts}


def _known(content: Content) -> dict[str, pa.Array]:
    """What is known of the clips beside their features."""
    ids = content.clip_ids
    cluster = {clip_id: k for clip_id, (k, _) in content.assignments.items()}
    confidence = {clip_id: share for clip_id, (_, share) in content.assignments.items()}
    columns = {"clip_id": pa.array(ids, pa.string())}
    known: Sequence[tuple[str, dict[str, Any], pa.DataType]] = (
        ("label", content.labels, pa.string()),
        ("cluster", cluster, pa.int64()),
        ("confidence", confidence, pa.float64()),
        ("split", content.splits, pa.string()),
        ("transcript", content.transcripts, pa.string()),
    )
    return columns | {name: pa.array([found.get(i) for i in ids], kind) for name, found, kind in known if found}


def _marked(column: pa.Array) -> pa.Array:
    if not pa.types.is_string(column.type):
        return column
    return pa.array([None if cell is None else mark_cell(cell) for cell in column.to_pylist()], pa.string())


def _tables(content: Content, rows: NDArray[np.int64] | None = None) -> Iterator[pa.Table]:
    """Of all clips or of some rows, so many at a time; an empty one where there are none."""
    known = _known(content)
    rows = np.arange(len(content.clip_ids)) if rows is None else rows
    for some in row_slices(max(len(rows), 1), ROWS):
        at = rows[some]
        columns = {name: column.take(pa.array(at)) for name, column in known.items()}
        columns |= {name: _list_column(view[at]) for name, view in content.views.arrays.items()}
        for view in content.views.arrays.values():
            let_go(view)
        yield pa.table(columns)


def _list_column(view: NDArray[np.float32]) -> pa.Array:
    """(N, D) as N fixed-size lists; a row of NaN is null."""
    missing = pa.array(np.isnan(view).all(axis=1))
    values = pa.array(np.ascontiguousarray(view).ravel(), pa.float32())
    return pa.FixedSizeListArray.from_arrays(values, view.shape[1], mask=missing)


def _write_tables(tables: Iterator[pa.Table], path: Path) -> None:
    first = next(tables)
    with whole_file(path) as file, pq.ParquetWriter(file, first.schema, compression="zstd") as writer:
        for table in chain([first], tables):
            writer.write_table(table)


def _card(content: Content, counts: dict[str, int]) -> str:
    """The dataset card: how to load, in YAML; what is in it, in words."""
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in counts]
    front = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": files}]}, sort_keys=False)
    lines = [f"`{name}`: {array.shape[1]}-d{_made_by(content, name)}" for name, array in content.views.arrays.items()]
    lines += [
        f"`{name}`: {what}"
        for name, found, what in (
            ("label", content.labels, "ground truth"),
            ("cluster", content.assignments, "found without labels, with its `confidence`"),
            ("transcript", content.transcripts, "the words"),
        )
        if found
    ]
    warning = "".join(
        f"\nThe encoder of `{name}` has RANDOM weights: it was never trained.\n" for name in untrained(content.encoders)
    )
    listed = "\n".join(f"- {line}" for line in ["`clip_id`: of the clip", *lines])
    return (
        f"---\n{front}---\n\n# Features of video clips\n\n{len(content.clip_ids)} clips, a row each; a feature "
        f"that a clip lacks is null.\n\n{listed}\n{warning}\nHow they were made: `export.json`.\n"
    )


def _made_by(content: Content, modality: str) -> str:
    recipe = content.encoders.get(modality)
    return f" by `{recipe['extractor']}`{', then reduced' if content.reduced else ''}" if recipe else ""
