"""The players and pictures of a page: where each clip's media is, or a small copy of it; thumbnails that fit.

<results>/media/<hash>.mp4 or .m4a    copies of clips that browsers cannot play, or only as a part of a file
"""

import base64
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np

from extractors.clip import Clip
from pipeline.console import progress
from pipeline.files import write_atomic
from pipeline.provenance import stable_hash
from pipeline.readers import Readers
from pipeline.report.clip_facts import ClipFacts, encode_thumbnail
from pipeline.report.playback import PREVIEW_RECIPE, Preview, preview

FEW_CLIPS = 200  # of no more, every clip gets a copy where it needs one; of more, those in cards
THUMBNAIL_BYTES = 5_200_000  # of all together: 7 MB as base64
THUMBNAIL_SIZES = ((128, 60), (96, 50), (72, 45), (56, 40))  # height and WebP quality, where the kept ones do not fit
EMBEDDED_BYTES = 24_000_000  # of all copies within the page: 32 MB as base64
_PROBES = 40  # thumbnails that a size is tried on
_SUFFIXES = {"video": ".mp4", "audio": ".m4a"}
_COPY = re.compile(r"[0-9a-f]{16}\.(mp4|m4a)")


@dataclass(frozen=True, slots=True)
class Players:
    """A URL and a kind a clip, as `Clips` has them, and what the reader should know."""

    urls: list[str]
    kinds: list[str]
    warnings: list[str]


def players(
    clips: Sequence[Clip | None],
    facts: Sequence[ClipFacts | None],
    shown: Sequence[int],
    page_folder: Path,
    *,
    embed: bool,
    readers: Readers,
) -> Players:
    """Where each clip can be played: its file, where browsers play that; else a copy, or a plain link.

    Copies are made of the clips in cards, and of all where there are no more than FEW_CLIPS; those of clips whose
    file is gone since are kept.

    Args:
        facts: of each clip, None where its media were not read.
        shown: rows of the clips in cards.
        embed: put copies into the page itself, of files that browsers play too, as far as EMBEDDED_BYTES go.
        readers: what makes copies.
    """
    there = {row: clip for row, clip in enumerate(clips) if clip and os.path.isfile(clip.media_path)}
    urls, kinds = [""] * len(clips), [""] * len(clips)
    read = {row: (clip, of) for row, clip in enumerate(clips) if clip and (of := facts[row]) and of.plays_as}
    by_suffix = {_suffix(clip): of.plays_as for clip, of in read.values()}
    for row, clip in there.items():
        # One that was not read, as there are too many, is taken for one like the others.
        known = facts[row]
        kind = known.plays_as if known else by_suffix.get(_suffix(clip), "")
        urls[row], kinds[row] = url_of(clip, page_folder), kind if kind in _SUFFIXES else "file"
    of_interest = [*shown, *(sorted(read.keys() - set(shown)) if len(clips) <= FEW_CLIPS else [])]
    folder = page_folder / "media"
    wanted = [
        row
        for row in of_interest
        if row in read and (embed or kinds[row] not in _SUFFIXES) and (row in there or _kept(*read[row], folder))
    ]
    made = _copies({row: read[row] for row in wanted}, folder, readers, keep=not embed)
    n_left = EMBEDDED_BYTES
    for row, copy in made.items():
        if not embed:
            urls[row], kinds[row] = quote(f"media/{_copy_name(*read[row], copy.kind)}"), copy.kind
        elif len(copy.data) <= n_left:
            n_left -= len(copy.data)
            urls[row], kinds[row] = _data_uri(f"{copy.kind}/mp4", copy.data), copy.kind
    if not embed:
        _prune(folder, {_copy_name(*read[row], copy.kind) for row, copy in made.items()})
    return Players(urls, kinds, _warnings(clips, there, urls, embed=embed))


def _suffix(clip: Clip) -> str:
    return os.path.splitext(clip.media_path)[1].lower()


def _warnings(
    clips: Sequence[Clip | None], there: Mapping[int, Clip], urls: Sequence[str], *, embed: bool
) -> list[str]:
    n_known, found = sum(clip is not None for clip in clips), []
    n_gone = sum(clip is not None and row not in there and not urls[row] for row, clip in enumerate(clips))
    if n_gone:
        found.append(
            f"The media of {n_gone:,} of {n_known:,} clips are not where they were when they were prepared, so these "
            "have no player; run `prepare` with the folder where they are now."
        )
    n_linked = sum(bool(url) and not url.startswith("data:") for url in urls)
    if embed and n_linked:
        found.append(
            f"The media of {n_linked:,} clips are linked, not embedded: copies of the clips in cards and of no more "
            f"than {FEW_CLIPS} others are, up to {EMBEDDED_BYTES / 1e6:.0f} MB; keep the page where it is."
        )
    return found


def url_of(clip: Clip, page_folder: Path) -> str:
    """The clip's file relative to the page, with the span of it that is the clip; any name is a safe URL."""
    relative = os.path.relpath(clip.media_path, page_folder).replace(os.sep, "/")
    span = f"{clip.start_s:.10g}" + (f",{clip.end_s:.10g}" if clip.end_s is not None else "")
    return quote(os.fsencode(relative)) + (f"#t={span}" if span != "0" else "")


def _copies(
    clips: Mapping[int, tuple[Clip, ClipFacts]], folder: Path, readers: Readers, *, keep: bool
) -> dict[int, Preview]:
    """Row -> copy, as far as they can be made, in the order of `clips`."""
    found: dict[int, Preview] = {}
    if not clips:
        return found
    with progress(len(clips), "report: players", "clip") as bar:
        made = readers.map(
            _copy, *zip(*clips.values(), strict=True), repeat(folder, len(clips)), repeat(keep, len(clips))
        )
        for row, copy in zip(clips, made, strict=True):
            if isinstance(copy, Preview):
                found[row] = copy
            bar.update(1)
    return found


def _kept(clip: Clip, facts: ClipFacts, folder: Path) -> tuple[Path, str] | None:
    """The clip's copy as made before, and its kind."""
    paths = ((folder / _copy_name(clip, facts, kind), kind) for kind in _SUFFIXES)
    return next((found for found in paths if found[0].exists()), None)


def _copy(clip: Clip, facts: ClipFacts, folder: Path, keep: bool) -> Preview | None:
    """The clip's copy: as made before, or made now and kept."""
    kept = _kept(clip, facts, folder)
    if kept:
        return Preview(kept[0].read_bytes(), kept[1])
    try:
        copy = preview(clip)
    except Exception:  # a codec's surprise costs this clip its player, never the page
        return None
    if copy and keep:
        write_atomic(folder / _copy_name(clip, facts, copy.kind), copy.data)
    return copy


def _copy_name(clip: Clip, facts: ClipFacts, kind: str) -> str:
    return stable_hash([clip.clip_id, facts.source, PREVIEW_RECIPE], 16) + _SUFFIXES[kind]


def _prune(folder: Path, names: Collection[str]) -> None:
    """Deletes copies of clips that are in no card any more, and nothing else that lies there."""
    for path in folder.glob("*"):
        if _COPY.fullmatch(path.name) and path.name not in names:
            path.unlink(missing_ok=True)


def thumbnails(kept: Sequence[bytes], shown: Collection[int]) -> list[str]:
    """Data URIs of the clips' pictures, as large as THUMBNAIL_BYTES allow; where even small ones do not fit, in cards.

    Args:
        kept: WebP a clip, b"" where there is none.
        shown: rows of the clips in cards.
    """
    if sum(map(len, kept)) <= THUMBNAIL_BYTES:
        return [_picture(webp) for webp in kept]
    some = [webp for webp in kept if webp]
    some = some[:: max(1, len(some) // _PROBES)]
    for height, quality in THUMBNAIL_SIZES:
        mean = np.mean([len(_smaller(webp, height, quality)) for webp in some])
        if 1.1 * mean * len(kept) <= THUMBNAIL_BYTES:  # the probes may be a little smaller than the others
            return [_picture(_smaller(webp, height, quality)) for webp in kept]
    return [_picture(webp) if row in shown else "" for row, webp in enumerate(kept)]


def _smaller(webp: bytes, height: int, quality: int) -> bytes:
    picture = cv2.imdecode(np.frombuffer(webp, np.uint8), cv2.IMREAD_COLOR) if webp else None
    return b"" if picture is None else encode_thumbnail(np.asarray(picture, dtype=np.uint8), height, quality)


def _picture(webp: bytes) -> str:
    return _data_uri("image/webp", webp) if webp else ""


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
