"""What prepare leaves on disk: the clips, the labels in a file of their own, and what did not match."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from extractors.clip import Clip
from pipeline.corpora.base import CorpusClip, Problem, natural_key
from pipeline.corpora.tables import format_table, iter_rows
from pipeline.errors import PipelineError
from pipeline.files import write_atomic, write_chunks
from pipeline.records import read_record

_TYPES: dict[str, tuple[type, ...]] = {
    "clip_id": (str,),
    "media": (str,),
    "start_s": (float, int),
    "end_s": (float, int, type(None)),
    "transcript": (str, type(None)),
    "video": (str, type(None)),
    "transcribed_by": (str, type(None)),
}
_ONLY_WHERE_SET = ("transcribed_by",)
_LABEL_COLUMNS = ("clip_id", "label")
_PROBLEM_COLUMNS = ("kind", "where", "message")
_AGAIN = "run prepare again"


def write_manifest(path: Path, clips: Iterable[CorpusClip]) -> bool:
    """Writes manifest.jsonl: a JSON object a line, a line a clip, in the order given, none of them held.

    The text is ASCII, other letters as JSON escapes: no line break hides in a transcript (U+2028), and every tool
    restores the same words.

    Args:
        clips: whose ids are unique; `read_manifest` refuses others.
    Returns:
        True if the file was written, False if it held this already.
    Raises:
        PipelineError: the file cannot be written.
    """
    return write_chunks(path, map(_line, clips))


def _line(clip: CorpusClip) -> str:
    values = {name: getattr(clip, name) for name in _TYPES}
    told = {name: value for name, value in values.items() if value is not None or name not in _ONLY_WHERE_SET}
    return json.dumps(told, allow_nan=False) + "\n"


def read_manifest(path: Path) -> list[CorpusClip]:
    """Reads manifest.jsonl, in its order.

    Raises:
        PipelineError: no such file, a line that is not a clip (with its number), an unknown key, an id twice.
    """
    seen: dict[str, int] = {}
    clips = []
    for number, clip in _numbered(path):
        if clip.clip_id in seen:
            raise PipelineError(
                f"{path}:{number}: clip id {clip.clip_id!r} is on line {seen[clip.clip_id]} already; {_AGAIN}"
            )
        seen[clip.clip_id] = number
        clips.append(clip)
    return clips


class Manifest:
    """The clips of manifest.jsonl, in its order, read anew each time they are gone through: none of them is held.

    Whether an id comes twice is for who sees them all (`joins.ClipTable`).
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[CorpusClip]:
        """Clip by clip.

        Raises:
            PipelineError: as `read_manifest`, when it comes to it.
        """
        return (clip for _, clip in _numbered(self._path))


def _numbered(path: Path) -> Iterator[tuple[int, CorpusClip]]:
    """(line number from 1, its clip)."""
    for number, line in enumerate(_read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            clip = _parse_clip(json.loads(line))
        except (ValueError, RecursionError) as error:  # JSON's and Unicode's errors are ValueErrors too
            raise PipelineError(f"{path}:{number}: not a clip: {error}; {_AGAIN}") from error
        yield number, clip


def _parse_clip(row: Any) -> CorpusClip:
    if not isinstance(row, dict):
        raise ValueError(f"expected an object, got {type(row).__name__}")
    unknown = sorted(set(row) - set(_TYPES))
    if unknown:
        raise ValueError(f"unknown keys {', '.join(unknown)}; known: {', '.join(_TYPES)}")
    for key in ("clip_id", "media"):
        if key not in row:
            raise ValueError(f"no {key}")
    for key, value in row.items():
        if type(value) not in _TYPES[key]:  # not isinstance: JSON's true is no number
            names = " or ".join(kind.__name__ for kind in _TYPES[key])
            raise ValueError(f"{key}: expected {names}, got {value!r}")
    for key in ("clip_id", "media"):
        row[key].encode()  # half a surrogate pair, which JSON may hold and no file takes, is a ValueError
    if "\0" in row["media"]:
        raise ValueError("media holds a NUL character")
    return CorpusClip(**row)


def _read_lines(path: Path) -> Iterator[bytes]:
    with _told_in_words(path), path.open("rb") as file:
        yield from file


@contextmanager
def _told_in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise PipelineError(f"no {path}; run prepare first") from None
    except OSError as error:
        raise PipelineError(f"cannot read {path}: {error.strerror or error}; give read permission") from error


def corpus_root(work: Path) -> Path:
    """The folder that the manifest's media paths are relative to, as prepare wrote it down.

    Raises:
        PipelineError: prepare has not run here, or what it wrote is broken.
    """
    path = work / "corpus.json"
    if not path.exists():
        raise PipelineError(f"no manifest in {work}; run `prepare` or `extract` first, with the same config")
    try:
        root = Path(read_record(path)["root"])
        root.exists()  # raises where the system takes it for no path at all
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PipelineError(f"cannot read {path} ({error}); run `prepare` again") from None
    return root


def manifest_in(work: Path) -> tuple[Manifest, Path]:
    """The clips of a workdir, in no list, and the folder that their media paths are relative to.

    Raises:
        PipelineError: as `corpus_root`.
    """
    root = corpus_root(work)
    return Manifest(work / "manifest.jsonl"), root


def write_labels(path: Path, labels: Mapping[str, str]) -> bool:
    """Writes labels.csv (clip_id,label), in natural order of the ids.

    Returns:
        True if the file was written, False if it held this already.
    Raises:
        PipelineError: the file cannot be written.
    """
    rows = sorted(labels.items(), key=lambda row: natural_key(row[0]))
    return write_atomic(path, format_table(_LABEL_COLUMNS, rows))


def read_labels(path: Path) -> dict[str, str]:
    """Reads labels.csv: clip_id -> label, every cell as it is.

    Raises:
        PipelineError: no such file, another header, a row that is not two cells (with its line), an id twice.
    """
    labels: dict[str, str] = {}
    try:
        with _told_in_words(path), path.open(encoding="utf-8-sig", newline="") as file:
            rows = iter_rows(file)
            line, header = next(rows, (1, []))
            if tuple(header) != _LABEL_COLUMNS:
                raise ValueError(f"line {line}: expected the header clip_id,label, got {','.join(header)!r}")
            for line, row in rows:
                if len(row) != len(_LABEL_COLUMNS):
                    raise ValueError(f"line {line}: expected clip_id and label, got {len(row)} cells")
                if row[0] in labels:
                    raise ValueError(f"line {line}: clip id {row[0]!r} has a label already")
                labels[row[0]] = sys.intern(row[1])  # of many clips there are few
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path}: expected UTF-8 ({error}); save it so, or {_AGAIN}") from error
    except ValueError as error:
        raise PipelineError(f"{path}: {error}; correct it, or {_AGAIN}") from error
    return labels


def write_problems(path: Path, problems: Iterable[Problem]) -> bool:
    """Writes what did not match (kind,where,message), in the order found.

    Returns:
        True if the file was written, False if it held this already.
    Raises:
        PipelineError: the file cannot be written.
    """
    rows = [(problem.kind, problem.where, problem.message) for problem in problems]
    return write_atomic(path, format_table(_PROBLEM_COLUMNS, rows))


def to_clip(corpus_clip: CorpusClip, root: Path) -> Clip:
    """The clip as an extractor takes it: with the absolute path of its media file."""
    return Clip(
        clip_id=corpus_clip.clip_id,
        media_path=os.path.abspath(os.path.join(root, corpus_clip.media)),
        start_s=corpus_clip.start_s,
        end_s=corpus_clip.end_s,
        transcript=corpus_clip.transcript,
    )
