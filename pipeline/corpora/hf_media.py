"""The media in the Parquet files of Hugging Face `datasets`: which column holds them, and the way out into files."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.console import progress
from pipeline.corpora.scan import is_audio, is_media
from pipeline.errors import PipelineError
from pipeline.files import write_atomic

MEDIA_FOLDER = ".media"  # hidden, so that no walk takes it for a part of the corpus
_RECORD = "unpacked.json"  # written last: the files are whole, and of this Parquet file
PARQUET_ERRORS = (pa.ArrowException, OSError)
_READ_BYTES = 1 << 20


def open_parquet(path: Path) -> pq.ParquetFile:
    """A Parquet file that is read page by page: without a buffer a whole row group of media would be in memory."""
    return pq.ParquetFile(path, buffer_size=_READ_BYTES, pre_buffer=False)


def features_of(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """What `datasets` notes of each column in a schema; {} where it notes nothing."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def media_column(schema: pa.Schema, given: str | None = None) -> str | None:
    """The column of videos, else of sounds: by what `datasets` notes, else by its type, bytes and path together.

    Args:
        given: the only column to take.
    """
    features = features_of(schema)
    found = []
    for field in schema:
        if given is not None and field.name != given:
            continue
        noted = features.get(field.name, {}).get("_type")
        if noted in ("Audio", "Video") or (noted is None and _may_hold_media(field)):
            found.append((noted != "Video" and "video" not in field.name.lower(), field.name))
    return min(found)[1] if found else None


def _may_hold_media(field: pa.Field) -> bool:
    if not pa.types.is_struct(field.type) or "image" in field.name.lower():
        return False
    return {"bytes", "path"} >= {inner.name for inner in field.type}


def media_files(root: Path, path: str, file: pq.ParquetFile, column: str) -> list[str]:
    """The media file of each row, relative to root; "" for a row that has none.

    Media that lie in the Parquet file become files `<root>/.media/<path>/<row>.<suffix>`: once, as long as it keeps its
    size and time. A page is in memory at a time, which is a row or so as `datasets` writes it. Otherwise a row's path
    is its file, as it stands.

    Args:
        path: the Parquet file, relative to root.
        column: of bytes and path together, or of paths.
    Raises:
        PipelineError: root may not be written, the disk is full, or a link stands where files should go.
        OSError, pa.ArrowException: the file is damaged.
    """
    stat = (root / path).stat()
    of = [stat.st_size, stat.st_mtime_ns, column]
    record = root / MEDIA_FOLDER / path / _RECORD
    _refuse_links(root, path)
    files = _read_record(record, of)
    if files is not None and len(files) == file.metadata.num_rows:
        return files
    files, n_unpacked = [], 0
    with progress(file.metadata.num_rows, f"unpacking {path}", "clip", delay_s=1.0) as bar:
        for row, (content, name) in enumerate(_values(file, column)):
            if content:
                suffix = os.path.splitext(name)[1].lower() if is_media(name) or is_audio(name) else ""
                name = f"{MEDIA_FOLDER}/{path}/{row}{suffix}"
                _write(root, path, root / name, content)
                n_unpacked += 1
            files.append(name)
            bar.update()
    if n_unpacked:
        _write(root, path, record, json.dumps({"of": of, "files": files}).encode())
    return files


def _values(file: pq.ParquetFile, column: str) -> Iterator[tuple[bytes | None, str]]:
    """(content, path) of each row."""
    for batch in file.iter_batches(batch_size=1, columns=[column]):
        value = batch.column(0)[0].as_py()
        if isinstance(value, dict):
            yield value.get("bytes"), value.get("path") or ""
        else:
            yield None, value or ""


def _refuse_links(root: Path, path: str) -> None:
    """A stranger's folder must not have files written, or read, elsewhere on this machine."""
    inside = os.path.join(os.path.realpath(root), MEDIA_FOLDER, path)
    if os.path.realpath(root / MEDIA_FOLDER / path) != inside:
        raise PipelineError(f"{root / MEDIA_FOLDER} is a link or holds one, and clips are unpacked there; delete it")


def _read_record(record: Path, of: list[Any]) -> list[str] | None:
    try:
        found = json.loads(record.read_bytes())
        return [str(name) for name in found["files"]] if found["of"] == of else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(root: Path, path: str, target: Path, content: bytes) -> None:
    try:
        write_atomic(target, content)
    except PipelineError as error:
        raise PipelineError(
            f"{path} holds the clips itself, and they are unpacked into {root / MEDIA_FOLDER}: {error}"
        ) from error
