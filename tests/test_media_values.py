"""What the values of extractors.media refuse, and how several extractors' needs become one reading."""

from typing import Any

import numpy as np
import pytest

from extractors.errors import ExtractionError
from extractors.frame_sampling import FrameSampling
from extractors.media import FrameBatch, Media, MediaNeeds, Waveform

FRAMES = np.zeros((2, 3, 4, 5), dtype=np.uint8)
TIMES_S = np.array([0.0, 0.5])


@pytest.mark.parametrize(
    ("frames", "times_s", "message"),
    [
        (FRAMES[0], TIMES_S, r"\(T, 3, H, W\) uint8 RGB, not empty; got \(3, 4, 5\) uint8"),
        (FRAMES.transpose(0, 2, 3, 1), TIMES_S, r"got \(2, 4, 5, 3\) uint8"),
        (FRAMES.astype(np.float32), TIMES_S, r"got \(2, 3, 4, 5\) float32"),
        (FRAMES[:0], TIMES_S[:0], r"not empty; got \(0, 3, 4, 5\)"),
        (FRAMES, TIMES_S[:1], r"one float64 a frame, \(2,\); got \(1,\) float64"),
        (FRAMES, TIMES_S.astype(np.float32), r"one float64 a frame, \(2,\); got \(2,\) float32"),
        (FRAMES, TIMES_S[::-1], "pts_seconds must ascend"),
    ],
)
def test_frame_batch_refuses(frames: Any, times_s: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FrameBatch(frames, times_s)


@pytest.mark.parametrize(
    ("samples", "rate_hz", "message"),
    [
        (np.zeros((1, 5), np.float32), 16000, r"\(L,\) float32 mono, not empty; got \(1, 5\) float32"),
        (np.zeros(5), 16000, r"got \(5,\) float64"),
        (np.zeros(0, np.float32), 16000, r"not empty; got \(0,\)"),
        (np.array([0, np.nan], np.float32), 16000, "samples hold NaN or Inf"),
        (np.zeros(5, np.float32), 0, "sample_rate_hz must be a positive number of Hz, got 0"),
    ],
)
def test_waveform_refuses(samples: Any, rate_hz: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Waveform(samples, rate_hz)


def test_needs_of_several_extractors() -> None:
    frames, sound = MediaNeeds(frames=FrameSampling(count=8)), MediaNeeds(sample_rate_hz=16000)
    assert MediaNeeds.union([frames, sound, MediaNeeds(), frames]) == MediaNeeds(FrameSampling(count=8), 16000)
    assert MediaNeeds.union([]) == MediaNeeds()
    with pytest.raises(ValueError, match=r"different frames of one clip .* give them one sampling"):
        MediaNeeds.union([frames, MediaNeeds(frames=FrameSampling(fps=1))])
    with pytest.raises(ValueError, match=r"different sample rates \(\[16000, 8000\] Hz\); give them one rate"):
        MediaNeeds.union([sound, MediaNeeds(sample_rate_hz=8000)])
    with pytest.raises(ValueError, match="sample_rate_hz must be a positive number of Hz, got 0"):
        MediaNeeds(sample_rate_hz=0)


def test_media_gives_what_was_read_or_says_why_not() -> None:
    error = ExtractionError("read", "no_audio_stream", "no sound")
    batch = FrameBatch(FRAMES, TIMES_S)
    assert Media(frames=batch).require_frames() is batch
    with pytest.raises(ExtractionError, match="no sound"):
        Media(waveform=error).require_waveform()
    with pytest.raises(ValueError, match=r"read without it; set MediaNeeds\.frames"):
        Media().require_frames()
    with pytest.raises(ValueError, match=r"read without it; set MediaNeeds\.sample_rate_hz"):
        Media().require_waveform()
