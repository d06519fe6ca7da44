"""Which frames of a clip to keep: evenly spaced target times, and the frame on display at each. Pure, no I/O."""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Matroska and FLV round timestamps to whole milliseconds, so a frame may carry a time up to 0.5 ms after its own.
TIMESTAMP_ROUNDING_S = 0.0006

# What a kept frame becomes as it is decoded: (3, H, W) uint8 RGB -> (3, S, S), S the same for all of a clip; and
# whether what it crops to was found, or the whole frame was taken.
FrameCrop = Callable[[NDArray[np.uint8]], tuple[NDArray[np.uint8], bool]]


@dataclass(frozen=True, slots=True)
class FrameSampling:
    """How many frames of a clip to keep: so many a second, or so many in all.

    Attributes:
        fps: frames a second, > 0; the first is the clip's first frame.
        count: frames in all, >= 1, each in the middle of an equal share of the clip.

    Raises:
        ValueError: both or neither are given, or the one given is not positive and finite.
    """

    fps: float | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        if (self.fps is None) == (self.count is None):
            raise ValueError(
                f"frame sampling takes either fps or count, got fps={self.fps} and count={self.count}; "
                "set one of the two"
            )
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps must be a positive number of frames a second, got {self.fps}")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count must be at least 1 frame, got {self.count}")


def target_times(sampling: FrameSampling, start_s: float, end_s: float) -> list[float]:
    """The evenly spaced moments whose frames are kept.

    With fps the moments are start_s, start_s + 1/fps, ...; with count they are the middles of `count` equal parts.

    Args:
        sampling: fps or count.
        start_s, end_s: the span, seconds; finite, end_s > start_s.
    Returns:
        At least one time, ascending, all within [start_s, end_s).
    Raises:
        ValueError: an empty or endless span.
    """
    span_s = end_s - start_s
    if not (math.isfinite(span_s) and span_s > 0):
        raise ValueError(f"frames are sampled from a span of time, got [{start_s}, {end_s}) s; give end_s > start_s")
    if sampling.fps is not None:
        # The millionth of a step keeps rounding (1.3 - 1.0 > 0.3) from adding a time at end_s itself.
        n_times = max(1, math.ceil(span_s * sampling.fps - 1e-6))
        return [start_s + i / sampling.fps for i in range(n_times)]
    n_times = sampling.count or 1
    return [start_s + (i + 0.5) * span_s / n_times for i in range(n_times)]


class FramePicker:
    """Says, frame by frame in presentation order, which frames are on display at the target times.

    A frame is on display from its own time until the next frame's, the first also before its time. No frame is picked
    twice, so targets denser than the frames give every frame once.

    Args:
        targets_s: (n,) ascending, seconds.
    """

    def __init__(self, targets_s: Sequence[float]) -> None:
        self._targets_s = targets_s
        self._n_served = 0

    @property
    def done(self) -> bool:
        """Whether every target has had its frame."""
        return self._n_served == len(self._targets_s)

    def keeps_frame_until(self, next_frame_s: float) -> bool:
        """Whether the frame that leaves the display at next_frame_s is to be kept.

        Call it once a frame, with the time of the frame after it; for the last frame, with its own end.
        """
        n_before = bisect_left(self._targets_s, next_frame_s - TIMESTAMP_ROUNDING_S)
        keeps = n_before > self._n_served
        self._n_served = max(self._n_served, n_before)
        return keeps
