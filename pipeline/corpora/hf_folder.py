"""A folder for Hugging Face `datasets`: media files with metadata beside them, or Parquet files that hold the media."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.columns import split_name
from pipeline.corpora.base import Corpus, CorpusClip, Problem
from pipeline.corpora.folder import Columns, add_rows, path_id
from pipeline.corpora.hf_media import MEDIA_FOLDER, PARQUET_ERRORS, features_of, media_column, media_files, open_parquet
from pipeline.corpora.label_rules import add_label, check_label_rule
from pipeline.corpora.scan import Tree, check_root, is_audio, is_media, refuse_empty, walk
from pipeline.corpora.tables import Row, Table, decode_text, read_table, split_lines
from pipeline.errors import PipelineError

_METADATA = ("metadata.csv", "metadata.jsonl")  # a metadata.parquet is told by its columns, under any name
_PARQUET = ".parquet"
_FILE = "file_name"  # or video_file_name and the like
# The first that a table has. `id` is no name for a clip: many datasets number speakers or sentences with it.
_TRANSCRIPTS = ("transcript", "transcription", "text", "sentence")
_LABELS = ("label", "emotion")
_VIDEOS = ("video", "speaker", "speaker_id")
_KEPT = ("clip_id", "start_s", "end_s")
_LAYOUT = "media files with a metadata.csv, .jsonl or .parquet, or Parquet files with a column of audio or video"


@dataclass(frozen=True, slots=True)
class _Asked:
    """The settings, as `read_hf` takes them."""

    file_column: str | None
    transcript_column: str | None
    label_column: str | None
    video_column: str | None


def read_hf(
    root: Path,
    *,
    file_column: str | None = None,
    transcript_column: str | None = None,
    label_column: str | None = None,
    video_column: str | None = None,
    label_rule: str = "as_is",
) -> Corpus:
    """Reads a folder as Hugging Face `datasets` lays it out, without that library; every split is read.

    Media files (`audiofolder`, `videofolder`): a row of a metadata.csv, .jsonl or .parquet is a clip, its `file_name`
    (or `video_file_name` and the like) relative to the metadata. Without any metadata the folder that a file lies in is
    its label, where there are several such and they are no splits. The clip id is the path without its extension.

    Parquet files with a column of audio or video: a row is a clip, its id `<file without .parquet>/<row, from 0>`.
    Media that lie in the file itself are unpacked into `<root>/.media`, once; see `hf_media.media_files`.

    Either has its id from a column `clip_id`, and its span from `start_s` and `end_s`, where there are such.

    Args:
        root: the folder; no clip may lie outside it.
        file_column: column with the media, or the path of it; None finds it, video before audio.
        transcript_column: column with the words; None takes the first of transcript, transcription, text and sentence;
            "" where the corpus has none.
        label_column: column with the label, a class of `ClassLabel` by its name; None takes label or emotion, if any.
        video_column: column with the recording or the speaker that clips share; None takes video, speaker or
            speaker_id, if any.
        label_rule: how a label becomes a class; see `label_rules.apply_label_rule`.
    Returns:
        A clip for each row whose media are there, then for each media file that no row lists.
    Raises:
        PipelineError: root cannot be read or holds no clips, a column that a table lacks, an unknown rule, media that
            cannot be unpacked.
    """
    check_label_rule(label_rule)
    check_root(root)
    tree = walk(root)
    tables = [path for path in tree.files if _is_table(path)]
    unlisted = [path for path in tree.files if _is_clip(path)]  # before any media are unpacked
    corpus = Corpus(root)
    asked = _Asked(file_column, transcript_column, label_column, video_column)
    listed: set[str] = set()
    n_sources = 0
    for path in tables:
        source = _read_source(corpus, tree, path, asked)
        if source is not None:
            n_sources += 1
            listed |= _add_source(corpus, tree, source, asked, label_rule)
    corpus.problems.extend(tree.lost(lambda path: _is_clip(path) or _is_table(path)))
    unlisted = [path for path in unlisted if path not in listed]
    if n_sources:
        _add_unlisted(corpus, unlisted, with_text=transcript_column != "")
    else:
        _add_by_folder(corpus, unlisted, label_rule)
    refuse_empty(corpus, _LAYOUT)
    corpus.sort()
    return corpus


def _is_clip(path: str) -> bool:
    return is_media(path) or is_audio(path)


def _is_table(path: str) -> bool:
    return path.endswith(_PARQUET) or PurePosixPath(path).name in _METADATA


# --- rows, of any format ---


@dataclass(frozen=True, slots=True)
class _Source:
    """A table and, of each row, the files it names, relative to root."""

    table: Table
    files: list[list[str]]


def _read_source(corpus: Corpus, tree: Tree, path: str, asked: _Asked) -> _Source | None:
    """None for a Parquet file that holds no clips or cannot be read."""
    if path.endswith(_PARQUET):
        return _read_parquet(corpus, tree, path, asked)
    table = (read_table if path.endswith(".csv") else _read_jsonl)(corpus.root / path, path)
    corpus.problems.extend(table.problems)
    return _with_files(table, path, asked)


def _with_files(table: Table, path: str, asked: _Asked) -> _Source:
    columns = _file_columns(table, asked)
    if not columns:
        table.require(asked.file_column or _FILE, "corpus.file_column")
    folder = PurePosixPath(path).parent
    named = ([row.cells[column] for column in columns if row.cells[column]] for row in table.rows)
    return _Source(table, [[(folder / name).as_posix() for name in names] for names in named])


def _file_columns(table: Table, asked: _Asked) -> list[str]:
    if asked.file_column is not None:
        return [asked.file_column] if asked.file_column in table.columns else []
    return [column for column in table.columns if column == _FILE or column.endswith(f"_{_FILE}")]


def _add_source(corpus: Corpus, tree: Tree, source: _Source, asked: _Asked, label_rule: str) -> set[str]:
    """A clip for each row; returns the files that rows list, whether they became clips or not."""
    table = source.table
    label = _column(table, asked.label_column, "label_column", _LABELS)
    # A label never gets into the manifest.
    transcript = _column(table, asked.transcript_column, "transcript_column", _TRANSCRIPTS, but=label)
    video = _column(table, asked.video_column, "video_column", _VIDEOS, but=label)
    if transcript is None and asked.transcript_column is None:
        raise PipelineError(
            f"{table.name}: no column {', '.join(_TRANSCRIPTS[:-1])} or {_TRANSCRIPTS[-1]} among "
            f"{', '.join(map(repr, table.columns))}; set corpus.transcript_column to the column with the words, or to "
            '"" where there are none'
        )
    taken = {"transcript": transcript, "label": label, "video": video}
    taken |= {name: name for name in _KEPT if name in table.columns}
    rows = []
    for row, files in zip(table.rows, source.files, strict=True):
        cells = {name: row.cells[column] for name, column in taken.items() if column}
        rows.append(Row(row.line, {"file": _best(files), **cells}))
    columns = Columns("file", transcript and "transcript", label and "label", video and "video")
    listed = add_rows(corpus, tree, Table(table.name, list(taken), rows), columns, label_rule)
    return listed.union(*source.files)


def _column(table: Table, given: str | None, setting: str, names: Sequence[str], but: str | None = None) -> str | None:
    """The column given, which must be there, else the first of the names; None for none."""
    if given:
        table.require(given, f"corpus.{setting}")
        return given
    if given == "":
        return None
    found = {column.lower(): column for column in reversed(table.columns) if column != but}
    return next((found[name] for name in names if name in found), None)


def _best(files: Sequence[str]) -> str:
    """Of the files of one clip the video, else the sound."""
    return next(filter(is_media, files), next(filter(is_audio, files), files[0] if files else ""))


# --- the formats ---


def _read_jsonl(path: Path, name: str) -> Table:
    try:
        text, note = decode_text(path.read_bytes())
    except OSError as error:
        raise PipelineError(f"cannot read {name}: {error.strerror or error}") from error
    table = Table(name, [])
    if note:
        table.problems.append(Problem("not_utf8", name, f"not UTF-8: {note}"))
    for number, line in enumerate(split_lines(text), start=1):
        if not line.strip():
            continue
        try:
            cells = {key: _as_text(value) for key, value in json.loads(line).items()}
        except (ValueError, AttributeError, RecursionError):
            message = f"expected a JSON object on one line, got {line.strip()[:60]!r}"
            table.problems.append(Problem("unreadable_row", f"{name}:{number}", message))
        else:
            table.rows.append(Row(number, cells))
    table.columns = list(dict.fromkeys(key for row in table.rows for key in row.cells))
    for row in table.rows:
        row.cells.update({column: "" for column in table.columns if column not in row.cells})
    return table


def _as_text(value: Any) -> str:
    """A value as a CSV would hold it; lists and the like have no place in a cell."""
    if value is None or isinstance(value, list | dict) or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value).strip()


def _read_parquet(corpus: Corpus, tree: Tree, path: str, asked: _Asked) -> _Source | None:
    try:
        with open_parquet(corpus.root / path) as file:
            held = media_column(file.schema_arrow, asked.file_column)
            table = Table(path, _cell_columns(file.schema_arrow))
            if not held and not _file_columns(table, asked):
                if media_column(file.schema_arrow):
                    table.require(str(asked.file_column), "corpus.file_column")
                return None
            table.rows = [Row(number, cells) for number, cells in enumerate(_cells(file, table.columns))]
            media = media_files(corpus.root, path, file, held) if held else []
    except PARQUET_ERRORS as error:
        corpus.report("unreadable_row", path, f"cannot be read as Parquet ({_first_line(error)}); get it again")
        return None
    if not held:
        return _with_files(table, path, asked)
    if "clip_id" not in table.columns:
        table.columns.append("clip_id")
        for row in table.rows:
            row.cells["clip_id"] = f"{path.removesuffix(_PARQUET)}/{row.line}"
    if any(name.startswith(MEDIA_FOLDER) for name in media):
        unpacked = walk(corpus.root, f"{MEDIA_FOLDER}/{path}")
        tree.files.extend(unpacked.files)
        tree.refused.update(unpacked.refused)
    there = set(tree.files)
    beside = [(PurePosixPath(path).parent / name).as_posix() for name in media]
    return _Source(table, [[near if near in there else name] for near, name in zip(beside, media, strict=True)])


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _cell_columns(schema: pa.Schema) -> list[str]:
    types = pa.types
    scalar = (types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean)
    return [field.name for field in schema if any(is_kind(field.type) for is_kind in scalar)]


def _cells(file: pq.ParquetFile, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """The cells of each row, classes by their names."""
    features = features_of(file.schema_arrow)
    classes = {column: features.get(column, {}).get("names") for column in columns}
    for batch in file.iter_batches(columns=list(columns)):
        for values in batch.to_pylist() if columns else [{}] * len(batch):
            yield {column: _class_name(classes[column], value) for column, value in values.items()}


def _class_name(names: Any, value: Any) -> str:
    """A value of ClassLabel by its name; -1 is no label."""
    if not isinstance(names, list) or not isinstance(value, int) or value >= len(names):
        return _as_text(value)
    return str(names[value]) if value >= 0 else ""


# --- media that no row lists ---


def _add_unlisted(corpus: Corpus, media: Sequence[str], *, with_text: bool) -> None:
    for path in media:
        if corpus.add(CorpusClip(path_id(path), path), path) and with_text:
            corpus.report("clip_without_transcript", path_id(path), "no row of the metadata lists it")


def _add_by_folder(corpus: Corpus, media: Sequence[str], label_rule: str) -> None:
    """Clips without any metadata: their folders are their classes, where there are several of one depth."""
    folders = {path: PurePosixPath(path).parent.name for path in media}
    classes = {folder for folder in folders.values() if folder and not split_name(folder)}
    are_classes = len(classes) > 1 and len({path.count("/") for path in media}) == 1
    for path, folder in folders.items():
        if corpus.add(CorpusClip(path_id(path), path), path) and are_classes and folder in classes:
            add_label(corpus, path_id(path), folder, label_rule, path)
