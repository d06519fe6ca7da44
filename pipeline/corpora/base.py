"""What a corpus reader gives: clips, labels, and what did not match. One file a corpus layout beside this one."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import cast

from extractors.clip import Clip

MAX_TRANSCRIPT = 1_000_000  # characters; a day of talking has fewer
# Something that is in the corpus and not in the manifest, as against a clip that is kept with less.
LOSING_KINDS = ("duplicate_id", "unreadable_row", "missing_file")
PROBLEM_KINDS = (
    *LOSING_KINDS,
    "clip_without_transcript",
    "transcript_without_clip",
    "label_without_clip",
    "unreadable_label",
    "not_utf8",
)


@dataclass(frozen=True, slots=True)
class CorpusClip:
    """A row of manifest.jsonl: what `extractors.clip.Clip` is, with a path that holds wherever the corpus lies.

    Attributes:
        clip_id: unique in its corpus.
        media: the media file relative to the corpus root, with forward slashes.
        start_s: where the clip begins in the file, seconds.
        end_s: where it ends, seconds; None is the end of the file.
        transcript: "" where the corpus gives no words for this clip, None where it gives no transcript at all.
        video: name of the recording, or the speaker, that it shares with other clips; None where only `media` tells.
        transcribed_by: the model that made the transcript, where the corpus has none (pipeline/transcripts.py).

    Raises:
        ValueError: what `Clip` refuses: an empty clip_id, a span that is empty or negative; a path that no file inside
            the corpus root can have.
    """

    clip_id: str
    media: str
    start_s: float = 0.0
    end_s: float | None = None
    transcript: str | None = None
    video: str | None = None
    transcribed_by: str | None = None

    def __post_init__(self) -> None:
        Clip(self.clip_id, self.media, self.start_s, self.end_s)
        path = PurePosixPath(self.media)
        if path.is_absolute() or ".." in path.parts or "\0" in self.media:
            raise ValueError(f"clip {self.clip_id!r}: media must be a path inside the corpus root, got {self.media!r}")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the corpus that does not match.

    Attributes:
        kind: one of PROBLEM_KINDS.
        where: a clip id, a file relative to the corpus root, or file:line.
        message: what is wrong and, where that helps, what to do.

    Raises:
        ValueError: a kind that is not in PROBLEM_KINDS.
    """

    kind: str
    where: str
    message: str

    def __post_init__(self) -> None:
        if self.kind not in PROBLEM_KINDS:
            raise ValueError(unknown_name("kind of problem", self.kind, PROBLEM_KINDS))


@dataclass(slots=True)
class Corpus:
    """A corpus as it was found on disk.

    Attributes:
        root: the folder that every clip's `media` is relative to.
        clips: ids unique; a list sorted by clip_id (natural order: clip 2 before clip 10), but where a corpus is too
            large to be held (corpora/parquet.py): then what reads them anew each time it is gone through.
        labels: clip_id -> label as text, only where the corpus has one; kept apart from the clips on purpose.
        problems: what did not match, in the order found.
    """

    root: Path
    clips: Iterable[CorpusClip] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    _first_seen: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def report(self, kind: str, where: str, message: str) -> None:
        """Notes a problem."""
        self.problems.append(Problem(kind, where, message))

    def add(self, clip: CorpusClip, where: str) -> bool:
        """Keeps the clip, unless its id is taken: then reports duplicate_id and returns False.

        A transcript of more than MAX_TRANSCRIPT characters is none; it is reported, and the clip kept without.

        Args:
            where: the file or file:line that the clip comes from.
        """
        first = self._first_seen.get(clip.clip_id)
        if first is not None:
            self.report("duplicate_id", where, f"clip id {clip.clip_id!r} is taken by {first}, which is kept")
            return False
        self._first_seen[clip.clip_id] = where
        if len(clip.transcript or "") > MAX_TRANSCRIPT:
            told = f"more than {MAX_TRANSCRIPT:,} characters are no transcript; mend it"
            self.report("clip_without_transcript", where, told)
            clip = replace(clip, transcript=None)
        cast("list[CorpusClip]", self.clips).append(clip)
        return True

    def sort(self) -> None:
        """Puts the clips in natural order of their ids."""
        self.clips = sorted(self.clips, key=lambda clip: natural_key(clip.clip_id))


def natural_key(text: str) -> tuple[list[str | tuple[int, str]], str]:
    """Sort key under which runs of digits compare as numbers: "a2" < "a10". Total: "a01" and "a1" differ."""
    parts: list[str | tuple[int, str]] = list(re.split(r"([0-9]+)", text))
    for i in range(1, len(parts), 2):  # text and digits alternate, text first, so like compares with like
        digits = str(parts[i]).lstrip("0")
        parts[i] = (len(digits), digits)
    return parts, text


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not among the known: names the nearest, if one is near, and all of them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown {what} {name!r}; {hint}known: {', '.join(known) or 'none'}"
