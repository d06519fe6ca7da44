"""What an embedding is made from, as a short stamp: it changes when the clip's file, span or words do."""

import hashlib
import os
from collections.abc import Iterable, Sequence

from extractors.clip import Clip

UNREADABLE = "unreadable:"


def source_of(clip: Clip, modality: str) -> str:
    """Stamp of what a modality's embedding of this clip is made from.

    For text the hash of the transcript; for visual and audio the file's size and modification time and the clip's
    span, as `make` and `rsync` judge a file: reading every byte again would cost more than a second run may take.
    """
    if modality == "text":
        if clip.transcript is None:
            return "none"
        return hashlib.sha256(clip.transcript.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    try:
        stat = os.stat(clip.media_path)
    except OSError as error:
        return f"{UNREADABLE}{error.errno}"
    return f"{stat.st_size}:{stat.st_mtime_ns}:{clip.start_s}:{clip.end_s}"


def stamps_of(clip: Clip, modalities: Sequence[str]) -> list[str]:
    """The same of several modalities: picture and sound have one stamp, and their file is looked at once."""
    kinds = ["text" if modality == "text" else "visual" for modality in modalities]
    found = {kind: source_of(clip, kind) for kind in set(kinds)}
    return [found[kind] for kind in kinds]


def sources_of(clips: Iterable[Clip], modality: str, done: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The stamp of every clip; where a file is gone but its embedding is in the store, the stamp it was made from.

    Args:
        done: (clip_id, stamp) of what the store holds.
    """
    held = dict(done)
    stamps = {clip.clip_id: source_of(clip, modality) for clip in clips}
    return {
        clip_id: held.get(clip_id, stamp) if stamp.startswith(UNREADABLE) else stamp
        for clip_id, stamp in stamps.items()
    }
