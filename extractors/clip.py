"""What an extractor is given: one clip, a time span of a media file with its transcript."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clip:
    """One sample of a corpus.

    Attributes:
        clip_id: unique in its corpus.
        media_path: the media file, absolute or relative to the current folder.
        start_s: where the clip begins in the file, seconds.
        end_s: where it ends, seconds; None is the end of the file.
        transcript: the words of the clip; None where the corpus has none.

    Raises:
        ValueError: an empty clip_id or a span that is empty or negative.
    """

    clip_id: str
    media_path: str
    start_s: float = 0.0
    end_s: float | None = None
    transcript: str | None = None

    def __post_init__(self) -> None:
        if not self.clip_id:
            raise ValueError("clip_id is empty; every clip needs an id of its own")
        if not self.start_s >= 0.0:
            raise ValueError(f"clip {self.clip_id!r}: start_s must be >= 0, got {self.start_s}")
        if self.end_s is not None and not self.end_s > self.start_s:
            raise ValueError(f"clip {self.clip_id!r}: end_s ({self.end_s}) must be after start_s ({self.start_s})")
