"""csv, parquet and hf: tables with a row a clip."""

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from pipeline.columns import COLUMN_FILES, split_name
from pipeline.config import MODALITIES
from pipeline.corpora.tables import unmark_cell
from pipeline.errors import PipelineError
from pipeline.ingest.content import (
    ID_NAMES,
    LABEL_NAMES,
    NOT_FEATURES,
    SPLIT_NAMES,
    TRANSCRIPT_NAMES,
    Features,
    Floats,
    first_of,
    floats,
    known_splits,
    labels_by_id,
    merge,
    modality_of,
    texts,
    view_name,
)

_NUMBERED = re.compile(r"(.*?)[_.-]?([0-9]{1,9})")  # text_17
_BESIDE = {*COLUMN_FILES.values(), "labels.csv", "assignments.csv"}
_TEXT_NAMES = {*ID_NAMES, *LABEL_NAMES, *TRANSCRIPT_NAMES, *SPLIT_NAMES}


def read_csv(source: Path) -> Features:
    """A CSV with a column a feature (text_0, text_1, ..., audio_0, ...), or a folder with such a file a modality."""
    paths = [p for p in sorted(source.glob("*.csv")) if p.name not in _BESIDE] if source.is_dir() else [source]
    return merge([features_of(_csv_table(path), str(path), path.stem) for path in paths], str(source))


def read_parquet(source: Path) -> Features:
    """A Parquet file with a column of lists a modality, or a column a feature; or a folder of such files."""
    paths = sorted(source.glob("*.parquet")) if source.is_dir() else [source]
    return merge([features_of(_parquet_table(path), str(path), path.stem) for path in paths], str(source))


def read_hf(source: Path) -> Features:
    """A Hugging Face dataset on disk: a folder with Parquet files a split, or what `save_to_disk` left."""
    paths = sorted(source.rglob("*.parquet"))
    tables = [_parquet_table(path) for path in paths]
    if not paths:
        paths = [path for path in sorted(source.rglob("*.arrow")) if not path.name.startswith("cache-")]
        tables = [_arrow_table(path) for path in paths]
    splits = [_split_of(path.relative_to(source)) for path in paths]
    if len(set(splits)) > 1:  # the only split is called train there, and tells nothing
        tables = [
            table if "split" in table.column_names else table.append_column("split", pa.array([split] * len(table)))
            for table, split in zip(tables, splits, strict=True)
        ]
    try:
        whole = pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise PipelineError(f"{source}: its files have different columns ({_line(error)}); mend them") from None
    return features_of(whole, str(source), "dataset")


def _split_of(path: Path) -> str:
    words = re.split(r"[^A-Za-z]+", path.as_posix().rsplit(".", 1)[0])
    return next((split for word in words if (split := split_name(word))), "")


def _csv_table(path: Path) -> pa.Table:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
        repeated = sorted({name for name in header if header.count(name) > 1}) if len(set(header)) < len(header) else []
        if not header or repeated:
            raise ValueError(f"the header repeats {', '.join(repeated)}" if repeated else "it is empty")
        types = {name: pa.string() for name in header if name.lower() in _TEXT_NAMES}
        types |= {name: pa.float32() for name in header if name not in types and _NUMBERED.fullmatch(name)}
        options = pcsv.ConvertOptions(column_types=types, null_values=["", "NaN", "nan", "NA", "NULL", "null"])
        table = pcsv.read_csv(path, parse_options=pcsv.ParseOptions(newlines_in_values=True), convert_options=options)
        return _unmarked(table, [name for name in header if types.get(name) == pa.string()])
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        raise PipelineError(
            f"cannot read {path} as a table ({_line(error)}); expected a header, then a row a clip, UTF-8"
        ) from None


def _unmarked(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """The columns' cells without the marks that our own export puts before a spreadsheet's formulas."""
    for name in names:
        cells = [None if cell is None else unmark_cell(cell) for cell in table[name].to_pylist()]
        table = table.set_column(table.column_names.index(name), name, pa.array(cells, pa.string()))
    return table


def _parquet_table(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, partitioning=None)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise PipelineError(f"cannot read {path} as Parquet ({_line(error)}); get it again") from None


def _arrow_table(path: Path) -> pa.Table:
    try:
        with pa.memory_map(str(path)) as file:
            return pa.ipc.open_stream(file).read_all()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise PipelineError(f"cannot read {path} as Arrow ({_line(error)}); get it again") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def features_of(table: pa.Table, where: str, name: str) -> Features:
    """Views and what is known of the clips, told apart by the columns' names and types.

    Args:
        name: the file's; where it is a modality's, every number in it is.
    Raises:
        PipelineError: no features, or a column that does not hold what its name says.
    """
    columns = table.column_names
    textual = [c for c in columns if pa.types.is_string(table[c].type) or pa.types.is_large_string(table[c].type)]
    scalar = [c for c in columns if not _is_list(table[c].type)]
    notes: list[str] = []
    id_column, split_column = first_of(scalar, ID_NAMES), first_of(textual, SPLIT_NAMES)
    transcript_column, label_column = first_of(textual, TRANSCRIPT_NAMES), first_of(scalar, LABEL_NAMES)
    ids = [str(row) for row in range(len(table))]
    if id_column:
        ids = texts(table[id_column].to_pylist(), f"{where}: {id_column}")
    else:
        notes.append(f"{name}: no column clip_id, so the clips' ids are their row numbers")
    features = Features(ids, {}, notes=notes)
    known = {id_column, split_column, transcript_column, label_column, *NOT_FEATURES}
    features.arrays = _views(table, [c for c in columns if c not in known], where, name, notes)
    if label_column:
        features.labels = labels_by_id(ids, _labels(table, label_column), f"{where}: {label_column}", notes)
    if transcript_column:
        features.transcripts = {i: t for i, t in zip(ids, table[transcript_column].to_pylist(), strict=True) if t}
    if split_column:
        features.splits = known_splits({i: s or "" for i, s in zip(ids, table[split_column].to_pylist(), strict=True)})
    return features


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind))


def _views(table: pa.Table, columns: Sequence[str], where: str, name: str, notes: list[str]) -> dict[str, Floats]:
    views: dict[str, Floats] = {}
    features: dict[str, list[tuple[int, str]]] = {}
    left_out = []
    for number, column in enumerate(columns):
        kind = table[column].type
        if _is_list(kind) and _is_number(kind.value_type) and column.lower() not in LABEL_NAMES:
            views[view_name(column)] = _list_column(table[column], f"{where}: {column}")
        elif _is_number(kind) and (place := _place(column, number, name)):
            features.setdefault(place[0], []).append((place[1], column))
        else:
            left_out.append(column)
    for view, members in features.items():
        ordered = [column for _, column in sorted(members)]
        views[view] = np.stack([floats(_numbers(table[column]), f"{where}: {column}") for column in ordered], axis=1)
    if left_out:
        shown = ", ".join(left_out[:5]) + (", ..." if len(left_out) > 5 else "")
        notes.append(f"{name}: no features, left out: {shown}")
    return views


def _place(column: str, number: int, name: str) -> tuple[str, int] | None:
    """The view that a column of single numbers belongs to, and its place there; None for none."""
    found = _NUMBERED.fullmatch(column)
    prefix = view_name(found[1]) if found and found[1] else ""
    of_file = modality_of(name)
    if of_file and prefix not in MODALITIES:
        return of_file, number
    if not found or prefix.lower() in LABEL_NAMES:
        return None
    return prefix or view_name(name), int(found[2])


def _numbers(column: pa.ChunkedArray) -> Any:
    return column.cast(pa.float64() if not pa.types.is_float32(column.type) else pa.float32()).to_numpy()


def _list_column(column: pa.ChunkedArray, where: str) -> Floats:
    """N lists of D numbers as (N, D); a null is a row of NaN."""
    there = pc.is_valid(column)
    lists = column.filter(there)
    lengths = set(pc.unique(pc.list_value_length(lists)).to_pylist())
    if len(lengths) > 1:
        raise PipelineError(
            f"{where}: lists of {min(lengths)} to {max(lengths)} numbers; expected the same in every row"
        )
    dim = lengths.pop() if lengths else 0
    array = np.full((len(column), dim), np.nan, dtype=np.float32)
    array[there.to_numpy()] = floats(_numbers(pc.list_flatten(lists)), where).reshape(-1, dim) if dim else 0
    return array


def _labels(table: pa.Table, column: str) -> list[Any]:
    """The labels; numbers that stand for named classes (datasets' ClassLabel) by their names."""
    values = table[column].to_pylist()
    try:
        names = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"][column]["names"]
        return [names[value] if value is not None and value >= 0 else "" for value in values]
    except (KeyError, TypeError, ValueError, IndexError):
        is_text = any(isinstance(value, str) for value in values)
        return [("" if is_text else np.nan) if value is None else value for value in values]
