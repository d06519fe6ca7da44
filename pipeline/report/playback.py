"""What browsers can play: which files as they are, and a small copy of a clip that any of them plays."""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from extractors.clip import Clip
from extractors.frame_sampling import FrameSampling
from extractors.media import FrameBatch, MediaNeeds, Waveform, read_media
from extractors.media_reader import open_container

# FFmpeg's name of a container -> the video and audio codecs in it that Chromium, Firefox and Safari all play.
PLAYABLE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "mov,mp4,m4a,3gp,3g2,mj2": (("h264", "vp9", "av1"), ("aac", "mp3", "opus", "flac")),
    "matroska,webm": (("vp8", "vp9", "av1"), ("opus", "vorbis")),
    "ogg": ((), ("opus", "vorbis", "flac")),
    "wav": ((), ("pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_f32le")),
    "mp3": ((), ("mp3",)),
    "flac": ((), ("flac",)),
    "aac": ((), ("aac",)),
}
PLAYABLE_PIXELS = ("yuv420p", "yuvj420p")  # 8 bits, 4:2:0: hardware decoders know no other

PREVIEW_HEIGHT = 360  # pixels, at most
PREVIEW_FPS = 25
PREVIEW_S = 60.0  # of a longer clip the beginning
_CRF, _SOUND_BITS, _SOUND_HZ = "28", 64_000, 44_100
_PIECE_BYTES = 2**27  # of decoded frames held at once
_MS = Fraction(1, 1000)
PREVIEW_RECIPE = (PREVIEW_HEIGHT, PREVIEW_FPS, PREVIEW_S, _CRF, _SOUND_BITS, _SOUND_HZ)


def probe(path: str) -> tuple[str, float | None]:
    """How a browser plays a media file, and how long it is by its header.

    Returns:
        "video" or "audio" where it plays as it is, else "other"; seconds, None where the header does not say.
    Raises:
        ExtractionError: not a media file.
    """
    with open_container(path) as container:
        duration_s = container.duration / av.time_base if container.duration else None
        video, audio = PLAYABLE.get(container.format.name, ((), ()))
        if container.format.name == "matroska,webm" and not path.lower().endswith(".webm"):
            video, audio = (), ()  # the same container, but as .mkv not everywhere
        pictures = [stream for stream in container.streams.video if not _is_cover(stream)]
        sounds = list(container.streams.audio)
        plays = all(
            stream.codec.canonical_name in video and stream.codec_context.pix_fmt in PLAYABLE_PIXELS
            for stream in pictures[:1]
        ) and all(stream.codec.canonical_name in audio for stream in sounds[:1])
        if not plays or not pictures + sounds:
            return "other", duration_s
        return "video" if pictures else "audio", duration_s


def _is_cover(stream: Any) -> bool:
    """Whether a video stream is a picture that comes with a sound file."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


@dataclass(frozen=True, slots=True)
class Preview:
    """A small copy of a clip: an MP4 file's bytes, and whether it is a "video" or "audio" alone."""

    data: bytes
    kind: str


def preview(clip: Clip) -> Preview | None:
    """The clip's span as H.264 and AAC in MP4, PREVIEW_HEIGHT high and PREVIEW_S long at most.

    It is read as the extractors read, odd files included, a piece of video at a time.

    Returns:
        None where neither picture nor sound can be read.
    """
    _, file_s = probe(clip.media_path)
    ends_s = [end_s for end_s in (clip.end_s, file_s) if end_s is not None and end_s > clip.start_s]
    span = Clip(clip.clip_id, clip.media_path, clip.start_s, min([*ends_s, clip.start_s + PREVIEW_S]))
    sound = read_media(span, MediaNeeds(sample_rate_hz=_SOUND_HZ)).waveform
    frames = _frames(span)
    first = next(frames, None)
    if first is None and not isinstance(sound, Waveform):
        return None
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        # Both are encoded before either is written: the packets then lie in the order of time.
        packets = _encode_video(container, first, frames) if first else []
        packets += _encode_sound(container, sound) if isinstance(sound, Waveform) else []
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return Preview(buffer.getvalue(), "video" if first else "audio")


Frame = tuple[int, NDArray[np.uint8]]  # ms from the start of the clip, (H, W, 3) RGB


def _frames(span: Clip) -> Iterator[Frame]:
    """The span's frames in order, at PREVIEW_FPS or as many as there are; ends where no more can be read."""
    start_s, end_s, last_ms = span.start_s, span.end_s or 0.0, -1
    piece_s = 0.5
    while start_s < end_s:
        piece = Clip(span.clip_id, span.media_path, start_s, min(end_s, start_s + piece_s))
        batch = read_media(piece, MediaNeeds(frames=FrameSampling(fps=PREVIEW_FPS))).frames
        if not isinstance(batch, FrameBatch):
            return
        for pts_s, frame in zip(batch.pts_seconds, batch.frames, strict=True):
            time_ms = max(0, round((pts_s - span.start_s) * 1000))
            if time_ms > last_ms:  # the first of a piece is on display since the one before
                yield time_ms, np.ascontiguousarray(frame.transpose(1, 2, 0))
                last_ms = time_ms
        start_s += piece_s
        piece_s = max(0.5, _PIECE_BYTES / (batch.frames[0].nbytes * PREVIEW_FPS))


def _encode_video(container: Any, first: Frame, others: Iterator[Frame]) -> list[Any]:
    height, width = first[1].shape[:2]
    scale = min(1.0, PREVIEW_HEIGHT / height)
    stream = container.add_stream("libx264", rate=PREVIEW_FPS)
    stream.width, stream.height = (max(2, 2 * math.floor(side * scale / 2)) for side in (width, height))
    stream.pix_fmt = "yuv420p"
    # No B-frames: the first picture is then at 0 also where an edit list is not read.
    stream.options = {"crf": _CRF, "preset": "veryfast", "bf": "0"}
    stream.codec_context.thread_count = 1
    stream.codec_context.time_base = _MS
    packets = []
    for time_ms, image in (first, *others):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
            stream.width, stream.height, "yuv420p", interpolation="AREA"
        )
        frame.pts, frame.time_base = time_ms, _MS
        packets += stream.encode(frame)
    return [*packets, *stream.encode(None)]


def _encode_sound(container: Any, sound: Waveform) -> list[Any]:
    stream = container.add_stream("aac", rate=sound.sample_rate_hz, layout="mono")
    stream.bit_rate = _SOUND_BITS
    frame = av.AudioFrame.from_ndarray(sound.samples[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts = sound.sample_rate_hz, 0
    return [*stream.encode(frame), *stream.encode(None)]
