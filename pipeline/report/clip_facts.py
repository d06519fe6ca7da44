"""What the page tells of each clip's media: a picture, the voice, the length; read once and kept.

<workdir>/report/facts-<version>/part-<hash>.parquet    a row a clip; a killed run goes on from the last part
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from extractors.clip import Clip
from extractors.frame_sampling import FrameSampling
from extractors.media import FrameBatch, MediaNeeds, Waveform, read_media
from pipeline.console import progress
from pipeline.files import write_atomic
from pipeline.provenance import stable_hash
from pipeline.readers import Readers
from pipeline.report.playback import probe
from pipeline.report.voice import loudness_lufs, pitch_hz
from pipeline.sources import source_of, sources_of

VERSION = 1  # of what is measured and how; another starts a new folder
NEEDS = MediaNeeds(frames=FrameSampling(count=1), sample_rate_hz=16000)
CHUNK = 64  # clips a write
THUMBNAIL = (180, 75)  # height in pixels at most, WebP quality: as kept, and the best that a page shows
_WIDEST = 2.4  # a picture's width by its height, so that a panorama costs no more than others


@dataclass(frozen=True, slots=True)
class ClipFacts:
    """A clip's media in a few values; what could not be read is None, or empty.

    Attributes:
        thumbnail: WebP of the middle frame.
        plays_as: "video" or "audio" where browsers play the file, "other" where they do not, "" of no media.
        duration_s, pitch_hz, loudness_db: the clip's own span.
        source: stamp of the file as it was read.
    """

    thumbnail: bytes = b""
    plays_as: str = ""
    duration_s: float | None = None
    pitch_hz: float | None = None
    loudness_db: float | None = None
    source: str = ""


Held = dict[tuple[str, str], ClipFacts]  # by clip_id and the stamp of what was read
_SCHEMA = pa.schema(
    {
        "clip_id": pa.string(),
        "source": pa.string(),
        "thumbnail": pa.binary(),
        "plays_as": pa.string(),
        "duration_s": pa.float64(),
        "pitch_hz": pa.float64(),
        "loudness_db": pa.float64(),
    }
)


def clip_facts(clips: Sequence[Clip], cache: Path, readers: Readers) -> dict[str, ClipFacts]:
    """Each clip's facts; only those whose file has changed since the last time are read.

    Args:
        cache: folder of what was read before.
        readers: what reads and decodes.
    Returns:
        clip_id -> facts; a clip whose file is gone keeps those that were read while it was there.
    """
    folder = cache / f"facts-{VERSION}"
    held = _read(folder)
    sources = sources_of(clips, "visual", list(held))
    pending = [clip for clip in clips if (clip.clip_id, sources[clip.clip_id]) not in held]
    if pending:
        with progress(len(pending), "report: media", "clip") as bar:
            for chunk in _read_chunks(pending, readers):
                rows = {(clip.clip_id, sources[clip.clip_id]): facts for clip, facts in chunk}
                _write(folder, rows)
                held |= rows
                bar.update(len(chunk))
    return {clip.clip_id: held[clip.clip_id, sources[clip.clip_id]] for clip in clips}


def _read_chunks(clips: Sequence[Clip], readers: Readers) -> Iterator[list[tuple[Clip, ClipFacts]]]:
    for start in range(0, len(clips), CHUNK):
        chunk = clips[start : start + CHUNK]
        found = readers.map(read_facts, chunk)
        yield [
            (clip, facts if isinstance(facts, ClipFacts) else ClipFacts())
            for clip, facts in zip(chunk, found, strict=True)
        ]


def read_facts(clip: Clip) -> ClipFacts:
    """Opens the file and measures; whatever is wrong with it, the clip has fewer facts and nothing is raised."""
    source = source_of(clip, "visual")
    try:
        media = read_media(clip, NEEDS)
        frames = media.frames if isinstance(media.frames, FrameBatch) else None
        waveform = media.waveform if isinstance(media.waveform, Waveform) else None
        if frames is None and waveform is None:
            return ClipFacts()
        plays_as, file_s = probe(clip.media_path)
        sound_s = len(waveform.samples) / waveform.sample_rate_hz if waveform else None
        sound = (waveform.samples, waveform.sample_rate_hz) if waveform else None
        return ClipFacts(
            thumbnail=encode_thumbnail(frames.frames[0].transpose(1, 2, 0)[:, :, ::-1]) if frames else b"",
            plays_as=plays_as,
            duration_s=_duration_s(clip, file_s, sound_s),
            pitch_hz=pitch_hz(*sound) if sound else None,
            loudness_db=loudness_lufs(*sound) if sound else None,
            source=source,
        )
    except Exception:  # a decoder's surprise costs this clip's facts, never the page
        return ClipFacts()


def _duration_s(clip: Clip, file_s: float | None, sound_s: float | None) -> float | None:
    """Length of the clip's span, where the file's header or the sound tell."""
    ends_s = [end_s for end_s in (clip.end_s, file_s) if end_s is not None and end_s > clip.start_s]
    return min(ends_s) - clip.start_s if ends_s else sound_s


def encode_thumbnail(picture: NDArray[np.uint8], height: int = THUMBNAIL[0], quality: int = THUMBNAIL[1]) -> bytes:
    """WebP of an (H, W, 3) BGR picture, no higher than `height` and never enlarged."""
    scale = min(1.0, height / picture.shape[0], height * _WIDEST / picture.shape[1])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    smaller = cv2.resize(picture, size, interpolation=cv2.INTER_AREA) if scale < 1 else np.ascontiguousarray(picture)
    return bytes(cv2.imencode(".webp", smaller, [cv2.IMWRITE_WEBP_QUALITY, quality])[1])


def _write(folder: Path, rows: Held) -> None:
    table = pa.Table.from_pylist(
        [{"clip_id": clip_id, **asdict(facts), "source": source} for (clip_id, source), facts in rows.items()], _SCHEMA
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="none")  # WebP does not shrink
    write_atomic(folder / f"part-{stable_hash(sorted(rows), 20)}.parquet", buffer.getvalue())


def _read(folder: Path) -> Held:
    """What was read before, the newest last; a part that is damaged is given up, and its clips are read again."""
    held: Held = {}
    names = [field.name for field in fields(ClipFacts)]
    for path in sorted(folder.glob("part-*.parquet"), key=lambda path: path.stat().st_mtime_ns):
        try:
            rows: list[dict[str, Any]] = pq.read_table(path, schema=_SCHEMA).to_pylist()
        except (OSError, pa.ArrowException):
            path.unlink(missing_ok=True)
            continue
        held |= {(row["clip_id"], row["source"]): ClipFacts(**{name: row[name] for name in names}) for row in rows}
    return held
