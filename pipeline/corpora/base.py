"""What a corpus reader gives: clips, labels, and what did not match. One file a corpus layout beside this one."""

from dataclasses import dataclass, field
from pathlib import Path

PROBLEM_KINDS = (
    "clip_without_transcript",
    "transcript_without_clip",
    "duplicate_id",
    "unreadable_row",
    "missing_file",
    "not_utf8",
)
# A clip that is lost to the manifest, as against one that is kept with less.
LOSING_KINDS = ("duplicate_id", "unreadable_row", "missing_file")


@dataclass(frozen=True, slots=True)
class CorpusClip:
    """A row of manifest.jsonl. `media` is relative to the corpus root, with forward slashes."""

    clip_id: str
    media: str
    start_s: float = 0.0
    end_s: float | None = None
    transcript: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the corpus that does not match: `kind` is one of PROBLEM_KINDS, `where` a clip id or file:line."""

    kind: str
    where: str
    message: str


@dataclass(slots=True)
class Corpus:
    """A corpus as it was found on disk.

    Attributes:
        root: the folder that every clip's `media` is relative to.
        clips: sorted by clip_id (natural order: clip 2 before clip 10), ids unique.
        labels: clip_id -> label as text, only where the corpus has one; kept apart from the clips on purpose.
        problems: what did not match, in the order found.
    """

    root: Path
    clips: list[CorpusClip] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
