"""Transcripts that a model made, beside the manifest: they fill in where the corpus has no words, and are marked there.

transcripts.jsonl     clip_id, text, model, source: a JSON object a line; `source` stamps the sound (sources.py)
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from pipeline.console import say
from pipeline.corpora.base import CorpusClip
from pipeline.errors import PipelineError
from pipeline.files import write_atomic
from pipeline.manifest import to_clip
from pipeline.sources import source_of

TRANSCRIPTS = "transcripts.jsonl"


@dataclass(frozen=True, slots=True)
class Made:
    """One transcript. `text` is "" where the model heard no words; `model` names it with its checksum."""

    clip_id: str
    text: str
    model: str
    source: str


def read_transcripts(work: Path) -> dict[str, Made]:
    """What was made for a workdir's clips so far: clip_id -> transcript; {} where nothing was.

    Raises:
        PipelineError: a line that is none; says which, and what to do.
    """
    path = work / TRANSCRIPTS
    made: dict[str, Made] = {}
    if not path.exists():
        return made
    names = {field.name for field in fields(Made)}
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or set(row) != names or not all(type(value) is str for value in row.values()):
                raise ValueError(f"expected an object of text under {', '.join(sorted(names))}")
        except (ValueError, RecursionError) as error:
            raise PipelineError(
                f"{path}:{number}: not a transcript: {error}; correct the line, or delete it and run `transcribe` again"
            ) from None
        made[row["clip_id"]] = Made(**row)
    return made


def write_transcripts(work: Path, made: Iterable[Made]) -> None:
    """Replaces what is there, in ASCII as the manifest is.

    Raises:
        PipelineError: the file cannot be written.
    """
    write_atomic(work / TRANSCRIPTS, "".join(json.dumps(asdict(one)) + "\n" for one in made))


def without_words(clip: CorpusClip) -> bool:
    """Whether the corpus itself has no words for a clip."""
    return clip.transcribed_by is not None or not (clip.transcript or "").strip()


def fill(clips: Iterable[CorpusClip], work: Path, root: Path) -> Iterator[CorpusClip]:
    """The clips one by one, with a transcript that was made where the corpus has none; says how many at the end.

    One that was made of other sound than the clip has now is passed over; so is one without words.

    Args:
        root: folder that media paths are relative to.
    """
    made = read_transcripts(work)
    filled, stale = Counter[str](), 0
    for clip in clips:
        own = clip if clip.transcribed_by is None else replace(clip, transcript=None, transcribed_by=None)
        one = made.get(clip.clip_id) if without_words(own) else None
        if one is not None and one.source != source_of(to_clip(own, root), "audio"):
            one, stale = None, stale + 1
        if one and one.text:
            filled[one.model] += 1
            own = replace(own, transcript=one.text, transcribed_by=one.model)
        yield own
    for model, count in filled.items():
        say(f"prepare: {count} clips without words have a transcript made by {model}")
    if stale:
        say(f"prepare: {stale} transcripts are of sound that has changed since, and are left out; run `transcribe`")


def made_by(clips: Iterable[CorpusClip]) -> Mapping[str, int]:
    """Model -> how many clips have its transcript."""
    return Counter(clip.transcribed_by for clip in clips if clip.transcribed_by is not None)
