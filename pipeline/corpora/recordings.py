"""Recordings that a corpus holds in several files: with picture and sound, as sound alone, as copies."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.corpora.base import Corpus, CorpusClip
from pipeline.corpora.scan import Tree, is_audio, is_media


@dataclass(frozen=True, slots=True)
class Recording:
    """A file of a recording, as a clip.

    Attributes:
        key: what the files of one recording have in common.
        rank: which of them is taken, the lowest.
        clip: the clip that the file would be.
        label: what it would be scored against; None where there is nothing.
    """

    key: str
    rank: int
    clip: CorpusClip
    label: str | None = None


def media_paths(tree: Tree) -> list[str]:
    """Every video and every sound of the walk, those that were refused included."""
    return [path for path in (*tree.files, *tree.refused) if is_media(path) or is_audio(path)]


def add_recordings(corpus: Corpus, tree: Tree, recordings: Iterable[Recording]) -> None:
    """Adds a clip for each recording: the file of the lowest rank that was not refused, and with it the label.

    Its other files are passed over. Told is only what a person would miss: a better file that was refused, and a second
    file of the same name that is no copy, as its size is another.

    Args:
        recordings: of `media_paths(tree)`.
    """
    files_of: dict[str, list[Recording]] = {}
    for recording in recordings:
        files_of.setdefault(recording.key, []).append(recording)
    for files in files_of.values():
        files.sort(key=lambda recording: (recording.rank, recording.clip.media))
        there = [recording for recording in files if recording.clip.media not in tree.refused]
        if files[0].clip.media in tree.refused and not (there and there[0].rank == files[0].rank):
            corpus.problems.append(tree.refused[files[0].clip.media])
        if there:
            _add(corpus, there[0], there[1:])


def _add(corpus: Corpus, best: Recording, others: list[Recording]) -> None:
    clip = best.clip
    if corpus.add(clip, clip.media) and best.label is not None:
        corpus.labels[clip.clip_id] = best.label
    for other in others:
        if _are_two(corpus.root, clip.media, other.clip.media):
            corpus.report("duplicate_id", other.clip.media, f"another file of {clip.media}'s name; that one is kept")


def _are_two(root: Path, media: str, other: str) -> bool:
    """Whether two files have one name and are not copies of each other."""
    if PurePosixPath(media).name != PurePosixPath(other).name:
        return False
    return (root / media).stat().st_size != (root / other).stat().st_size
