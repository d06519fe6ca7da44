"""Writes small real media files for tests: any container, codec, size, rate, length, GOP and rotation flag.

Every frame carries its own index as eight black or white stripes, which survive lossy codecs, pixel formats and odd
sizes; the sound is one sine a channel. Nothing is stored in the repository: a test writes what it needs.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

# (video codec, audio codec) for each container; either may be overridden, or None to leave the stream out.
CODECS = {
    ".mp4": ("libx264", "aac"),
    ".mov": ("libx264", "pcm_s16le"),
    ".avi": ("mpeg4", "libmp3lame"),
    ".mkv": ("ffv1", "flac"),
    ".webm": ("libvpx", "libopus"),
    ".mpg": ("mpeg1video", "mp2"),
    ".flv": ("flv", "libmp3lame"),
    ".wav": (None, "pcm_s16le"),
}
PIXEL_FORMATS = {"ffv1": "bgr0", "mjpeg": "yuvj420p"}
# Fast, and without libx265's and SVT-AV1's banners; B-frames stay on, as in files from the wild.
ENCODER_OPTIONS = {
    "libx264": {"preset": "veryfast", "crf": "16"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "crf": "10", "b": "2M"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "2M"},
    "mpeg4": {"qscale": "2"},
    "flv": {"qscale": "2"},
    "mpeg1video": {"qscale": "2"},
}
N_STRIPES = 8
DEFAULT = "default"


def indexed_frame(index: int, width: int, height: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: vertical stripes, left to right the bits of index, lowest first; 32 is 0, 224 is 1."""
    stripe = np.arange(width) * N_STRIPES // width
    bits = (index >> stripe) & 1
    return np.broadcast_to((32 + 192 * bits).astype(np.uint8)[None, :, None], (height, width, 3)).copy()


def frame_index(frame: NDArray[np.uint8]) -> int:
    """The index that a decoded (3, H, W) frame carries."""
    grey = frame.mean(axis=(0, 1))  # (W,)
    width = len(grey)
    centres = [int((stripe + 0.5) * width / N_STRIPES) for stripe in range(N_STRIPES)]
    return sum(1 << stripe for stripe, centre in enumerate(centres) if grey[centre] > 128)


def sine(n_samples: int, sample_rate_hz: int, tones_hz: Sequence[float], amplitude: float) -> NDArray[np.float32]:
    """(C, n) float32, one tone a channel, all starting at phase 0."""
    t = np.arange(n_samples) / sample_rate_hz
    return np.stack([amplitude * np.sin(2 * np.pi * tone * t) for tone in tones_hz]).astype(np.float32)


def write_clip(
    path: Path,
    *,
    video_codec: str | None = DEFAULT,
    audio_codec: str | None = DEFAULT,
    size: tuple[int, int] = (64, 48),
    fps: float | Fraction = 25,
    duration_s: float = 1.0,
    gop: int = 12,
    rotation: int = 0,
    pixel_format: str | None = None,
    frames: Sequence[NDArray[np.uint8]] | None = None,
    frame_times_s: Sequence[float] | None = None,
    sample_rate_hz: int | None = None,
    tones_hz: Sequence[float] = (440.0, 440.0),
    amplitude: float = 0.5,
    audio: NDArray[np.float32] | None = None,
    muxer_options: dict[str, str] | None = None,
) -> Path:
    """Writes one media file and returns its path.

    Args:
        path: the suffix chooses the container, and the codecs where these are left at their default.
        video_codec, audio_codec: FFmpeg encoder names; None leaves the stream out.
        size: (width, height) as stored, before rotation.
        gop: frames from keyframe to keyframe.
        rotation: display rotation, degrees counter-clockwise.
        pixel_format: of the encoder; chosen by codec where None.
        frames: (H, W, 3) uint8 each; indexed_frame(0), (1), ... for duration_s where None.
        frame_times_s: when each frame is shown, for a variable frame rate; i / fps where None.
        sample_rate_hz: of the sound; 44100, or Opus' own 48000, where None.
        tones_hz: one sine a channel, so its length is the number of channels.
        audio: (C, n) float32 in [-1, 1] in place of the sines.
        muxer_options: of the container's muxer.
    """
    default_video, default_audio = CODECS.get(path.suffix, (None, None))
    video_codec = default_video if video_codec == DEFAULT else video_codec
    audio_codec = default_audio if audio_codec == DEFAULT else audio_codec
    rate_hz = sample_rate_hz or (48000 if audio_codec == "libopus" else 44100)
    rate = Fraction(fps).limit_denominator(1001)
    width, height = size
    if frames is None:
        frames = [indexed_frame(i, width, height) for i in range(max(1, round(duration_s * rate)))]
    if audio is None:
        audio = sine(round(duration_s * rate_hz), rate_hz, tones_hz, amplitude)
    with av.open(str(path), "w", options=muxer_options or {}) as container:
        video: Any = container.add_stream(video_codec, rate=rate) if video_codec else None
        sound: Any = None
        if video is not None:
            video.width, video.height, video.gop_size = width, height, gop
            video.pix_fmt = pixel_format or PIXEL_FORMATS.get(video_codec or "", "yuv420p")
            video.options = ENCODER_OPTIONS.get(video_codec or "", {})
            video.codec_context.thread_count = 1
            if frame_times_s is not None:
                video.codec_context.time_base = Fraction(1, 1000)
            if rotation:
                video.set_display_rotation(rotation)
        if audio_codec:
            sound = container.add_stream(audio_codec, rate=rate_hz, layout=_layout(len(audio)))
        _encode(container, video, sound, frames, frame_times_s, audio, rate)
    return path


def _encode(
    container: Any,
    video: Any,
    sound: Any,
    frames: Sequence[NDArray[np.uint8]],
    frame_times_s: Sequence[float] | None,
    audio: NDArray[np.float32],
    rate: Fraction,
) -> None:
    """Video and sound interleaved by time, as a camera writes them."""
    n_written = 0
    rate_hz = sound.rate if sound else 1
    for i, image in enumerate(frames if video else []):
        time_s = i / rate if frame_times_s is None else frame_times_s[i]
        picture = av.VideoFrame.from_ndarray(image, format="rgb24")
        picture.pts = i if frame_times_s is None else round(time_s * 1000)
        picture.time_base = 1 / rate if frame_times_s is None else Fraction(1, 1000)
        container.mux(video.encode(picture))
        if sound:
            n_due = min(audio.shape[1], math.ceil((time_s + 1 / rate) * rate_hz))
            _encode_sound(container, sound, audio[:, n_written:n_due], n_written)
            n_written = max(n_written, n_due)
    if sound:
        _encode_sound(container, sound, audio[:, n_written:], n_written)
    for stream in (video, sound):
        if stream:
            container.mux(stream.encode(None))


def _encode_sound(container: Any, sound: Any, samples: NDArray[np.float32], first: int) -> None:
    if not samples.shape[1]:
        return
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=_layout(len(samples)))
    frame.sample_rate = sound.rate
    frame.pts, frame.time_base = first, Fraction(1, sound.rate)
    container.mux(sound.encode(frame))


def _layout(n_channels: int) -> str:
    return {1: "mono", 2: "stereo", 6: "5.1"}[n_channels]
