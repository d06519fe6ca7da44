"""Writes a clip as people hold them: an mp4 with H.264 video and AAC sound."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

_AAC_BIT_RATE = 64_000
# x264's adaptive quantisation and macroblock tree give other bits from run to run where several encoders work at once
# (measured: 5 different files of 12); without them the same frames always give the same file.
_H264_OPTIONS = {"preset": "veryfast", "crf": "24", "x264-params": "aq-mode=0:mbtree=0"}


def write_mp4(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    *,
    fps: int,
    samples: NDArray[np.float32],
    sample_rate_hz: int,
) -> None:
    """Encode one clip, on one thread so that the same frames always give the same file.

    Args:
        path: the file to write; its name need not end in .mp4.
        frames: (H, W, 3) uint8 RGB each, H and W even.
        fps: frames per second.
        samples: (L,) float32 mono in -1..1.
        sample_rate_hz: of `samples`.
    """
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=fps, options=_H264_OPTIONS)
        video.codec_context.thread_count = 1
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=sample_rate_hz, layout="mono")
        audio.bit_rate = _AAC_BIT_RATE
        for index, frame in enumerate(frames):
            if index == 0:
                video.height, video.width = frame.shape[:2]
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, fps)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = sample_rate_hz, 0, Fraction(1, sample_rate_hz)
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
