"""A corpus before anything is embedded: what its files' headers, its words and its tables say of clips that will fail
or mislead. Nothing is decoded, and nothing is written but what reading the corpus unpacks.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from extractors.errors import ExtractionError
from pipeline.config import ExtractSettings, Settings
from pipeline.console import progress
from pipeline.corpora import read_corpus
from pipeline.corpora.base import CorpusClip
from pipeline.corpora.tables import format_table
from pipeline.doctor import OK, PROBLEM, WARNING, Check
from pipeline.errors import PipelineError
from pipeline.files import write_atomic
from pipeline.manifest import to_clip
from pipeline.readers import Readers

if TYPE_CHECKING:
    from extractors.media_header import MediaHeader

HEADER_TIME_LIMIT_S = 20.0  # a header takes a millisecond
SHORT_S = 0.3  # less holds no word
LONG_S, LONG_MEDIANS = 60.0, 10.0  # longer than both is no clip of this corpus
SPAN_SLACK_S = 0.5  # by which annotated ends commonly pass a file's
# The fastest talkers come to 6 or 7 words a second over a sentence; "no, no" may be cut to any length.
MAX_WORDS_PER_S, WORDS_AT_ANY_SPEED = 8.0, 2.0
MIN_WORDS_PER_S, SLOW_FROM_S = 0.1, 10.0
# Scripts without spaces, and the characters that a word of them takes, roughly: Chinese and Japanese; Thai, Lao,
# Tibetan, Burmese and Khmer.
_UNSPACED = {
    re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"): 2,
    re.compile("[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff]"): 5,
}
_BEGINNING_BYTES = 65536
_FINDING_COLUMNS = ("kind", "where", "media", "length_s", "bytes", "message")
_MEANS = {"visual": "picture", "text": "words", "audio": "sound"}

# Kind of finding -> what to do about it; the worst first. The names are those of failures.csv and problems.csv where
# they mean the same.
TODO = {
    "missing_file": "put the file there, or take it out of the corpus' table",
    "permission_denied": "chmod u+r",
    "empty_file": "copy it again",
    "undecodable": "play it: if it plays, re-encode it, else get it again",
    "timeout": "re-encode it, or replace it",
    "crashed": "re-encode it, or replace it",
    "out_of_memory": "re-encode it, or cut it shorter",
    "unexpected": "re-encode it, and report this",
    "no_video_stream": "nothing, if it is sound alone: it keeps sound and words",
    "no_audio_stream": "nothing, if it is silent: it keeps picture and words",
    "unreadable_row": "mend the row, or rename the file",
    "duplicate_id": "give each clip an id of its own",
    "duplicate_content": "keep one of them: twice the same clip weighs twice",
    "span_outside_file": "check start_s and end_s, and that it is the right file",
    "very_short": "check the cut; it hardly holds a word",
    "very_long": "cut it into utterances, by start_s and end_s",
    "no_duration": "nothing, if it plays: its end is found by decoding",
    "words_per_second": "listen: the words may be another clip's",
    "clip_without_transcript": "add its words, or leave it: it keeps picture and sound",
    "empty_transcript": "add its words, or leave it: it keeps picture and sound",
    "transcript_without_clip": "put the clip there, or leave it: the words are passed over",
    "label_without_clip": "put the clip there, or leave it: the label is passed over",
    "unreadable_label": "mend the label, or set corpus.label_rule",
    "not_utf8": "look at the words, and save the text as UTF-8",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that deserves a look.

    Attributes:
        kind: a key of TODO.
        where: a clip id; of the corpus' own problems also a file, or file:line.
        media: the clip's file, relative to the corpus root; "" where it is not about one clip.
        length_s: of the clip; None where it is not known.
        n_bytes: of the file; None likewise.
    """

    kind: str
    where: str
    message: str
    media: str = ""
    length_s: float | None = None
    n_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was found in a corpus.

    Attributes:
        layout: the kind of corpus it was read as.
        clips: how many there are.
        files, n_bytes: that they are in.
        seconds: length of all clips, as far as it is known.
        median_s: of the clips' lengths; None where none is known.
        having: modality that is switched on -> clips that nothing known speaks against.
        findings: in the order of TODO, then of the clips.
    """

    layout: str
    clips: int
    files: int
    n_bytes: int
    seconds: float
    median_s: float | None
    having: dict[str, int]
    findings: list[Finding]

    def by_kind(self) -> dict[str, list[Finding]]:
        """The findings of each kind there is."""
        kinds: dict[str, list[Finding]] = {}
        for finding in self.findings:
            kinds.setdefault(finding.kind, []).append(finding)
        return kinds

    def checks(self) -> Iterator[Check]:
        """As doctor tells things: the corpus, a modality that no clip has, and each kind of finding."""
        typical = "" if self.median_s is None else f", half of them shorter than {self.median_s:.1f} s"
        size = f"{self.n_bytes / 1e6:.1f} MB, {self.seconds / 60:.1f} min{typical}"
        yield Check("corpus", OK, f"{self.clips} clips in {self.files} files, {size} (layout {self.layout})")
        for modality, n_clips in self.having.items():
            if not n_clips:
                todo = f"--set extract.{modality}=null, or see to what stands below"
                yield Check(modality, PROBLEM, f"no clip has {_MEANS[modality]}, and `reduce` wants some", todo)
        for kind, findings in self.by_kind().items():
            yield Check(kind, WARNING, f"{len(findings)}, e.g. {findings[0].where}: {findings[0].message}", TODO[kind])

    def values(self) -> dict[str, Any]:
        """Ready for JSON, a number for each kind of finding."""
        values = asdict(self)
        return {**values, "findings": {kind: len(findings) for kind, findings in self.by_kind().items()}}


def header_readers(settings: ExtractSettings) -> Readers:
    """The processes to read headers in: a file that hangs is given up after HEADER_TIME_LIMIT_S."""
    limit_s = min(settings.clip_time_limit_s, HEADER_TIME_LIMIT_S)
    return Readers(settings.model_copy(update={"clip_time_limit_s": limit_s}))


def preflight(settings: Settings, readers: Readers) -> Preflight:
    """Reads the corpus as `prepare` would, and the header of each of its files.

    A synthetic corpus is the folder that it was drawn to, as is one given in its place; none is drawn here.

    Args:
        settings: what is switched off in `extract` is not missed.
        readers: of `header_readers`.
    Raises:
        PipelineError: no corpus root, or nothing in it that the layout knows.
    """
    kind, options = settings.corpus.kind, settings.corpus.options()
    if settings.corpus.root is None:
        raise PipelineError("corpus.root is not set: the folder with the raw clips (CLIPS=DIR, or --clips DIR)")
    if kind == "synthetic":
        kind, options = "folder", {}
    corpus = read_corpus(kind, settings.corpus.root, **options)
    clips = list(corpus.clips)
    paths = {clip.media: to_clip(clip, corpus.root).media_path for clip in clips}
    headers = _headers(paths, readers)
    lengths = {clip.clip_id: _length_s(clip, headers[clip.media]) for clip in clips}
    known_s = [length_s for length_s in lengths.values() if length_s is not None]
    sizes = {media: _size(path) for media, path in paths.items()}
    modalities = settings.extract.modalities()
    median_s = median(known_s) if known_s else None
    why_wordless = {p.where: p.message for p in corpus.problems if p.kind == "clip_without_transcript"}
    findings = [
        Finding(p.kind, p.where, p.message)
        for p in corpus.problems
        if p.kind != "clip_without_transcript" or ("text" in modalities and p.where not in lengths)  # else told below
    ]
    for clip in clips:
        length_s, n_bytes = lengths[clip.clip_id], sizes[clip.media]
        for what, message in _of_clip(clip, headers[clip.media], length_s, median_s, modalities):
            if what == "clip_without_transcript":
                message = why_wordless.get(clip.clip_id, message)
            message = message.removeprefix(f"{paths[clip.media]}: ")  # the file stands beside it
            findings.append(Finding(what, clip.clip_id, message, clip.media, length_s, n_bytes))
    opened = {media: path for media, path in paths.items() if not isinstance(headers[media], ExtractionError)}
    for clip, first in _repeated(clips, _contents(opened)):
        message = f"the same as {first.clip_id}" + (f" ({first.media})" if first.media != clip.media else "")
        row = (clip.media, lengths[clip.clip_id], sizes[clip.media])
        findings.append(Finding("duplicate_content", clip.clip_id, message, *row))
    order = list(TODO)
    findings.sort(key=lambda finding: order.index(finding.kind))
    return Preflight(
        layout=kind,
        clips=len(clips),
        files=len(paths),
        n_bytes=sum(size or 0 for size in sizes.values()),
        seconds=sum(known_s),
        median_s=median_s,
        having={m: sum(_has(m, clip, headers[clip.media]) for clip in clips) for m in modalities},
        findings=findings,
    )


def write_findings(path: Path, findings: Iterable[Finding]) -> bool:
    """Writes a CSV, a row a finding: kind, where, media, length_s, bytes, message.

    Returns:
        True if the file was written, False if it held this already.
    Raises:
        PipelineError: the file cannot be written.
    """

    def row(finding: Finding) -> tuple[str, ...]:
        length = "" if finding.length_s is None else f"{finding.length_s:.3f}"
        size = "" if finding.n_bytes is None else str(finding.n_bytes)
        return (finding.kind, finding.where, finding.media, length, size, finding.message)

    return write_atomic(path, format_table(_FINDING_COLUMNS, map(row, findings)))


def n_words(text: str) -> float:
    """How many words a transcript has; in scripts without spaces, as many as its characters make, roughly."""
    words = 0.0
    for script, characters_a_word in _UNSPACED.items():
        text, n_characters = script.subn(" ", text)
        words += n_characters / characters_a_word
    return words + sum(any(map(str.isalnum, word)) for word in text.split())


def _headers(paths: Mapping[str, str], readers: Readers) -> "dict[str, MediaHeader | ExtractionError]":
    from extractors.media_header import read_header  # PyAV, without which doctor has other things to tell

    headers: dict[str, MediaHeader | ExtractionError] = {}
    with progress(len(paths), "doctor: headers", "file", delay_s=1.0) as bar:
        for media, header in zip(paths, readers.map(read_header, paths.values()), strict=True):
            headers[media] = header
            bar.update()
    return headers


def _length_s(clip: CorpusClip, header: "MediaHeader | ExtractionError") -> float | None:
    """From the clip's start to its end or the file's, whichever comes first; never below 0."""
    duration_s = None if isinstance(header, ExtractionError) else header.duration_s
    ends_s = [end_s for end_s in (clip.end_s, duration_s) if end_s is not None]
    return max(0.0, min(ends_s) - clip.start_s) if ends_s else None


def _has(modality: str, clip: CorpusClip, header: "MediaHeader | ExtractionError") -> bool:
    if modality == "text":
        return n_words(clip.transcript or "") > 0
    if isinstance(header, ExtractionError):
        return False
    return (header.video if modality == "visual" else header.audio) is None


def _of_clip(
    clip: CorpusClip,
    header: "MediaHeader | ExtractionError",
    length_s: float | None,
    median_s: float | None,
    modalities: Sequence[str],
) -> Iterator[tuple[str, str]]:
    """(kind, message) of each finding.

    Args:
        length_s: of the clip.
        median_s: of all clips' lengths.
        modalities: those that are wanted.
    """
    if isinstance(header, ExtractionError):
        late = f"its header could not be read within {HEADER_TIME_LIMIT_S:g} s"
        yield header.cause, late if header.cause == "timeout" else header.message
    else:
        for modality, failure in (("visual", header.video), ("audio", header.audio)):
            if failure is not None and modality in modalities:
                yield failure.cause, failure.message
        yield from _at_length(clip, header.duration_s, length_s, median_s)
    if "text" in modalities:
        yield from _at_words(clip.transcript, length_s)


def _at_length(
    clip: CorpusClip, duration_s: float | None, length_s: float | None, median_s: float | None
) -> Iterator[tuple[str, str]]:
    latest_s = clip.start_s if clip.end_s is None else max(clip.start_s, clip.end_s - SPAN_SLACK_S)
    if duration_s is not None and latest_s >= duration_s:
        span = f"from {clip.start_s:g} s on" if clip.end_s is None else f"{clip.start_s:g} to {clip.end_s:g} s"
        yield "span_outside_file", f"{span}, and the file ends at {duration_s:.2f} s"
    elif length_s is None:
        yield "no_duration", "the header does not say how long it is"
    elif length_s < SHORT_S:
        yield "very_short", f"{length_s:.2f} s"
    elif median_s is not None and length_s > max(LONG_S, LONG_MEDIANS * median_s):
        yield "very_long", f"{length_s:.0f} s, where half of the clips are shorter than {median_s:.1f} s"


def _at_words(transcript: str | None, length_s: float | None) -> Iterator[tuple[str, str]]:
    if transcript is None:
        yield "clip_without_transcript", "the corpus gives no transcript for this clip"
        return
    words = n_words(transcript)
    if not words:
        yield "empty_transcript", "the transcript has no words"
    elif length_s:
        a_second = words / length_s
        too_fast = words > WORDS_AT_ANY_SPEED and a_second > MAX_WORDS_PER_S
        if too_fast or (length_s > SLOW_FROM_S and a_second < MIN_WORDS_PER_S):
            yield "words_per_second", f"{words:.0f} words in {length_s:.2f} s are {a_second:.2g} a second"


def _repeated(clips: Iterable[CorpusClip], contents: Mapping[str, object]) -> Iterator[tuple[CorpusClip, CorpusClip]]:
    """(clip, the first that is the same): of the same content, and the same span of it."""
    first: dict[object, CorpusClip] = {}
    for clip in clips:
        if clip.media in contents:
            known = first.setdefault((contents[clip.media], clip.start_s, clip.end_s), clip)
            if known is not clip:
                yield clip, known


def _contents(paths: Mapping[str, str]) -> dict[str, tuple[object, ...]]:
    """media -> what it is known by, the same of two files only where every byte is.

    By its size and beginning; of files that share these, by a hash of everything too.
    """
    known: dict[str, tuple[object, ...]] = {media: (_size(path), _beginning(path)) for media, path in paths.items()}
    sharing = Counter(known.values())
    alike = [media for media, content in known.items() if sharing[content] > 1]
    with progress(len(alike), "doctor: comparing", "file", delay_s=1.0) as bar:
        for media in alike:
            known[media] = (*known[media], _digest(paths[media]) or media)
            bar.update()
    return known


def _size(path: str) -> int | None:
    try:
        return Path(path).stat().st_size
    except OSError:
        return None


def _beginning(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read(_BEGINNING_BYTES)).digest()
    except OSError:  # gone since its header was read
        return None


def _digest(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None
