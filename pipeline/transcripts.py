"""Transcripts that a model made, beside the manifest: they fill in where the corpus has no words, and are marked there.

transcripts.jsonl           clip_id, text, model, source: a JSON object a line; `source` stamps the sound (sources.py).
                            Lines are appended; of a clip that is there twice the last one counts
transcripts/failures.csv    the clips that have none: see failures.py
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, astuple, dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from extractors.clip import Clip
from pipeline import arrow
from pipeline.arrow import record_batches, strings
from pipeline.console import say
from pipeline.corpora.base import CorpusClip
from pipeline.duck import Engine
from pipeline.errors import PipelineError
from pipeline.failures import FailureLog
from pipeline.files import write_chunks
from pipeline.joins import KEYS
from pipeline.manifest import to_clip
from pipeline.sources import UNREADABLE, source_of

TRANSCRIPTS = "transcripts.jsonl"
AnyClip = TypeVar("AnyClip", Clip, CorpusClip)


@dataclass(frozen=True, slots=True)
class Made:
    """One transcript. `text` is "" where the model heard no words; `model` names it with its checksum."""

    clip_id: str
    text: str
    model: str
    source: str


_NAMES = tuple(field.name for field in fields(Made))
_LINES = pa.schema([("place", pa.int64()), *((name, pa.string()) for name in _NAMES)])


class Transcripts:
    """What was made for a workdir's clips so far, and by one model: a store that clips are accounted for against."""

    def __init__(self, work: Path, model: str) -> None:
        self.path = work / TRANSCRIPTS
        self.model = model
        self.failed = FailureLog(work / "transcripts")

    def iter_done(self) -> Iterator[pa.RecordBatch]:
        """place, clip_id, source of those by this model."""
        for batch in _batches(self.path):
            by_it = pa.array([name == self.model for name in batch["model"].to_pylist()], pa.bool_())
            yield batch.filter(by_it).select(KEYS.names)

    def append(self, made: Iterable[Made]) -> None:
        """Adds transcripts, on the disk when this returns; in ASCII as the manifest is.

        Raises:
            PipelineError: the file cannot be written; what a write that broke off left is cut off again.
        """
        text = b"".join(_line(one).encode() for one in made)
        if not text:
            return
        try:
            with self.path.open("ab", buffering=0) as file:  # nothing is left over to be written after all
                end = file.tell()
                try:
                    while text:
                        text = text[file.write(text) :]
                    os.fsync(file.fileno())
                except OSError:
                    os.ftruncate(file.fileno(), end)
                    raise
        except OSError as error:
            reason = error.strerror or str(error)
            raise PipelineError(f"cannot write {self.path}: {reason}; free some space, and run again") from None

    def mend(self) -> None:
        """Takes off what a write that was killed left: half a line, or a whole one without its end."""
        torn = _torn(self.path) if self.path.exists() else None
        if torn is None:
            return
        if torn:
            say(f"transcribe: {self.path} ended in the midst of a line, which is left out: {torn[:80]!r}")
            os.truncate(self.path, self.path.stat().st_size - len(torn))
        else:
            with self.path.open("ab") as file:
                file.write(b"\n")


class Newest:
    """Of each clip the last transcript, to be looked up in a table on disk. A context manager."""

    def __init__(self, path: Path) -> None:
        """Reads a file of transcripts; of one that is not there it has none.

        Raises:
            PipelineError: a line that is none; says which, and what to do.
        """
        self._path, self._engine = path, Engine()
        try:
            self._engine.run("CREATE TABLE lines AS SELECT * FROM given", given=(_LINES, _batches(path)))
            self._engine.run(
                """CREATE TABLE made AS SELECT * FROM lines
                QUALIFY row_number() OVER (PARTITION BY clip_id ORDER BY place DESC) = 1"""
            )
            lines, made = self._engine.one("SELECT (SELECT count(*) FROM lines), (SELECT count(*) FROM made)")
        except BaseException:
            self._engine.close()
            raise
        self._n_superseded = lines - made

    def __enter__(self) -> "Newest":
        return self

    def __exit__(self, *of_an_error: object) -> None:
        self._engine.close()

    def tidy(self) -> None:
        """Rewrites the file, a line a clip, where some have been made anew.

        Raises:
            PipelineError: the file cannot be written.
        """
        if self._n_superseded:
            write_chunks(self._path, map(_line, self._all()))

    def _all(self) -> Iterator[Made]:
        """In the order they were made."""
        columns = ", ".join(_NAMES)
        for batch in self._engine.stream(f"SELECT {columns} FROM made ORDER BY place"):  # noqa: S608 - our own names
            yield from _rows(batch)

    def of(self, clips: Iterable[AnyClip]) -> Iterator[tuple[AnyClip, Made | None]]:
        """The clips as they come, each with its transcript."""
        waiting, columns = iter(clips), ", ".join(_NAMES)
        while some := list(islice(waiting, arrow.BATCH)):
            ids = pa.RecordBatch.from_arrays([strings([clip.clip_id for clip in some])], names=["clip_id"])
            self._engine.run("CREATE OR REPLACE TABLE wanted AS SELECT * FROM given", given=(ids.schema, [ids]))
            found = self._engine.stream(f"SELECT {columns} FROM made SEMI JOIN wanted USING (clip_id)")  # noqa: S608
            made = {one.clip_id: one for batch in found for one in _rows(batch)}
            yield from ((clip, made.get(clip.clip_id)) for clip in some)


def without_words(clip: CorpusClip) -> bool:
    """Whether the corpus itself has no words for a clip."""
    return clip.transcribed_by is not None or not (clip.transcript or "").strip()


def fill(clips: Iterable[CorpusClip], work: Path, root: Path) -> Iterator[CorpusClip]:
    """The clips one by one, with a transcript that was made where the corpus has none; says how many at the end.

    One that was made of other sound than the clip has now is passed over; so is one without words.

    Args:
        root: folder that media paths are relative to.
    """
    own = (replace(c, transcript=None, transcribed_by=None) if c.transcribed_by is not None else c for c in clips)
    if not (work / TRANSCRIPTS).exists():
        yield from own
        return
    filled, n_stale = Counter[str](), 0
    with Newest(work / TRANSCRIPTS) as newest:
        for clip, made in newest.of(own):
            if made is None or not without_words(clip):
                yield clip
            elif not _is_of(made, source_of(to_clip(clip, root), "audio")):
                n_stale += 1
                yield clip
            elif made.text:
                filled[made.model] += 1
                yield replace(clip, transcript=made.text, transcribed_by=made.model)
            else:
                yield clip
    for model, count in filled.items():
        say(f"prepare: {count} clips without words have a transcript made by {model}")
    if n_stale:
        say(f"prepare: {n_stale} transcripts are of sound that has changed since, and are left out; run `transcribe`")


def _is_of(made: Made, stamp: str) -> bool:
    """Whether a transcript is of the sound that a clip has now; where its file is gone, of that which it had."""
    return made.source == stamp or stamp.startswith(UNREADABLE)


def made_by(clips: Iterable[CorpusClip]) -> Mapping[str, int]:
    """Model -> how many clips have its transcript."""
    return Counter(clip.transcribed_by for clip in clips if clip.transcribed_by is not None)


def made_among(clips: Iterable[CorpusClip], clip_ids: Iterable[str]) -> dict[str, int]:
    """The same of those clips whose id is among others', in whatever order."""
    id_, model = pa.field("clip_id", pa.string()), pa.field("model", pa.string())
    made = ((clip.clip_id, clip.transcribed_by) for clip in clips if clip.transcribed_by is not None)
    tables = {
        "made": (pa.schema([id_, model]), made),
        "wanted": (pa.schema([id_]), ((clip_id,) for clip_id in clip_ids)),
    }
    with Engine() as engine:
        for name, (schema, rows) in tables.items():
            engine.run(f"CREATE TABLE {name} AS SELECT * FROM given", given=(schema, record_batches(rows, schema)))  # noqa: S608
        query = "SELECT model, count(*) FROM made SEMI JOIN wanted USING (clip_id) GROUP BY model ORDER BY 2 DESC, 1"
        return dict(row for batch in engine.stream(query) for row in _tuples(batch))


def read_transcripts(path: Path) -> Iterator[Made]:
    """The lines of a file one by one, the last of a clip last; none where there is no file.

    A last line without its end is what a killed write leaves, and passed over unless it is whole.

    Raises:
        PipelineError: a line that is none; says which, and what to do.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield _parse(line)
            except (ValueError, RecursionError) as error:
                if not line.endswith(b"\n"):
                    return
                raise PipelineError(
                    f"{path}:{number}: not a transcript: {error}; correct the line, or delete it and run `transcribe` "
                    "again"
                ) from None


def _parse(line: bytes) -> Made:
    row = json.loads(line)
    if not isinstance(row, dict) or set(row) != set(_NAMES) or not all(type(value) is str for value in row.values()):
        raise ValueError(f"expected an object of text under {', '.join(sorted(_NAMES))}")
    return Made(**row)


def _line(one: Made) -> str:
    return json.dumps(asdict(one)) + "\n"


def _torn(path: Path) -> bytes | None:
    """What stands after the last line's end: None for nothing, and b"" where it is a whole line but for that end."""
    last = b""
    with path.open("rb") as file:
        for line in file:
            last = line
    if not last.strip() or last.endswith(b"\n"):
        return None
    try:
        _parse(last)
    except (ValueError, RecursionError):
        return last
    return b""


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    return record_batches(((place, *astuple(one)) for place, one in enumerate(read_transcripts(path))), _LINES)


def _tuples(batch: pa.RecordBatch) -> Iterator[tuple[Any, ...]]:
    """Its rows."""
    return zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _rows(batch: pa.RecordBatch) -> Iterator[Made]:
    return (Made(*row) for row in _tuples(batch))
