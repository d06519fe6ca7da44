"""Frames of a clip: those on display at the target times, upright RGB, decoded in order. PyAV and NumPy."""

from bisect import bisect_left, bisect_right, insort
from collections import deque
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from extractors.clip import Clip
from extractors.frame_sampling import FrameCrop, FramePicker, FrameSampling, target_times
from extractors.stream_reader import StreamReader

MAX_FRAME_PIXELS = 64_000_000
MAX_KEPT_BYTES = 2**31  # RGB frames of one clip
MAX_VIDEO_S = 24 * 3600.0  # one clip; a header that claims more is not believed
# Codecs that may pass over a frame that no other refers to, half of them in common H.264, and lose nothing by it.
SKIPPING = ("h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4")
# Packets held back, so that the frame displayed next is known: codecs reorder by 16 frames at most.
AHEAD = 32


class FrameReader(StreamReader):
    """Keeps the frames on display at the target times; the others are never converted, and decoded where they must be.

    Args:
        clip, sought: see StreamReader.
        sampling: how many frames to keep.
        end_s: where the video ends, if known better than from the file's header.
        crop: see MediaNeeds.

    Attributes:
        frames: (T, 3, H, W) uint8 RGB, upright, all of the first one's size or cropped; once finished.
        n_whole: see FrameBatch.
        times_s: (T,) when each is shown.
    """

    kind = "video"

    def __init__(
        self,
        clip: Clip,
        sought: bool,
        sampling: FrameSampling,
        end_s: float | None = None,
        crop: FrameCrop | None = None,
    ) -> None:
        super().__init__(clip, sought)
        self.frames: NDArray[np.uint8] = np.empty((0, 3, 0, 0), dtype=np.uint8)
        self.times_s: list[float] = []
        self.n_whole = None if crop is None else 0
        self._crop = crop
        self._kept: list[NDArray[np.uint8]] = []  # (3, H, W) each
        self._sampling = sampling
        self._end_s = end_s
        self._targets_s: list[float] = []
        self._picker = FramePicker([])
        self._ahead: deque[av.Packet] = deque()
        self._stamps: list[int] = []  # of all packets so far, ascending
        self._last_dts: int | None = None
        self._may_skip = False
        self._skips = False
        self._held: tuple[av.VideoFrame, float] | None = None  # on display until the next frame comes
        self._reformatter = VideoReformatter()
        self._size = (0, 0)
        self._quarter_turns = 0

    def corrected_end_s(self) -> float | None:
        """Where the video really ends, if the end that the targets were spread to is half a step or more off."""
        if self.failure is not None and self.failure.cause != "too_short":
            return None
        start_s = self.clip.start_s
        until_s = self._until_s if self.clip.end_s is None else min(self._until_s, self.clip.end_s)
        end_s = start_s if self._end_s is None else self._end_s
        half_step_s = 0.5 * (end_s - start_s) / max(1, len(self._targets_s))
        return until_s if until_s > start_s and abs(until_s - end_s) > half_step_s else None

    def add(self, packet: av.Packet | None) -> None:
        """As StreamReader.add, some packets later."""
        if packet is not None:
            self._ahead.append(packet)
            if packet.pts is not None:
                insort(self._stamps, packet.pts)
            if packet.dts is not None:
                # Where the file's clock starts anew, frames are told by those before them: none may be missing.
                self._may_skip &= self._last_dts is None or packet.dts > self._last_dts
                self._last_dts = packet.dts
        while self._ahead and not self.done and (packet is None or len(self._ahead) > AHEAD):
            self._use(self._ahead.popleft())
        if packet is None and not self.done:
            self._use(None)

    def _use(self, packet: av.Packet | None) -> None:
        """Decodes; once every target has its frame, packets only tell how far the video goes."""
        if not self._picker.done:
            self._skip_if(self._may_skip and packet is not None and not self._may_be_kept(packet))
            super().add(packet)
        elif packet is not None:
            if packet.pts is None:
                self._until_s += self._frame_s
            else:
                self._until_s = max(self._until_s, self._seconds(packet.pts + (packet.duration or 0)))
            self.done = self.clip.end_s is not None and self._until_s >= self.clip.end_s

    def _skip_if(self, skips: bool) -> None:
        if skips != self._skips:
            self._skips = skips
            self.stream.codec_context.skip_frame = "NONREF" if skips else "DEFAULT"

    def _may_be_kept(self, packet: av.Packet) -> bool:
        """Whether a target may fall on a packet's frame: one does, give or take a frame, or its time is not known."""
        if packet.pts is None:
            return True
        following = bisect_right(self._stamps, packet.pts)
        if following == len(self._stamps):
            return True
        from_s, to_s = self._seconds(packet.pts) - self._frame_s, self._seconds(self._stamps[following]) + self._frame_s
        first = bisect_left(self._targets_s, from_s)
        return first < len(self._targets_s) and self._targets_s[first] <= to_s

    def _prepare(self, container: InputContainer) -> None:
        if container.format.name.endswith("_pipe") or container.format.name == "image2":
            raise self._error(
                "undecodable", f"a picture ({self.stream.codec_context.name}), not a video; put the video there"
            )
        self._check_size(self.stream.codec_context.width, self.stream.codec_context.height)
        self._frame_s = float(1 / (self.stream.average_rate or self.stream.guessed_rate or 25))
        if self._end_s is None:
            self._end_s = self._claimed_end_s(container)
        elif self._end_s - self.clip.start_s > MAX_VIDEO_S:
            raise self._error("out_of_memory", f"longer than {MAX_VIDEO_S / 3600:g} h; cut it with start_s and end_s")
        # With the end unknown there are no targets yet: this reading finds the end, a second one keeps the frames.
        if self._end_s is not None:
            self._targets_s = target_times(self._sampling, self.clip.start_s, self._end_s)
        self._picker = FramePicker(self._targets_s)
        self._may_skip = self.stream.codec_context.name in SKIPPING

    def _claimed_end_s(self, container: InputContainer) -> float | None:
        """Where the clip ends by its end_s and the file's header; None where they do not say, or nothing credible."""
        ends_s = [] if self.clip.end_s is None else [self.clip.end_s]
        if self.stream.duration:
            ends_s.append(self._seconds((self.stream.start_time or 0) + self.stream.duration))
        elif container.duration:
            ends_s.append(container.duration / av.time_base)
        credible = [end_s for end_s in ends_s if 0 < end_s - self.clip.start_s <= MAX_VIDEO_S]
        return min(credible, default=None)

    def _is_sound(self, frame: Any) -> bool:
        return bool(frame.key_frame)  # the others refer to frames that were skipped

    def _take(self, frame: Any, time_s: float) -> None:
        if self._held is not None:
            if time_s <= self._held[1]:  # the file's clock stands still or starts anew
                time_s = self._until_s
            if self._picker.keeps_frame_until(time_s):
                self._keep(*self._held)
        if self.clip.end_s is not None and time_s >= self.clip.end_s:
            self._until_s = time_s
            self.done = True
        elif not self.done:
            self._held = (frame, time_s)
            self._until_s = time_s + (float(frame.duration * self._tick) or self._frame_s)

    def _finish(self) -> None:
        if self._held is not None and self._until_s > self.clip.start_s:
            keeps = self._picker.keeps_frame_until(self._until_s)
            if keeps or not self._kept:
                self._keep(*self._held)
        if not self._kept:
            raise self._nothing_kept()
        self.frames = np.stack(self._kept)
        self._kept.clear()

    def _keep(self, frame: av.VideoFrame, time_s: float) -> None:
        self._check_size(frame.width, frame.height)
        if not self._kept:
            self._size = (frame.width, frame.height)
            self._quarter_turns = round(frame.rotation / 90)  # counter-clockwise, as in np.rot90
        rgb = self._reformatter.reformat(frame, *self._size, format="rgb24", threads=1).to_ndarray()  # (H, W, 3)
        upright = np.rot90(np.asarray(rgb, dtype=np.uint8), self._quarter_turns)
        self._kept.append(self._cropped(upright.transpose(2, 0, 1)))
        self.times_s.append(time_s)
        if len(self._kept) * self._kept[0].nbytes > MAX_KEPT_BYTES:
            raise self._error(
                "out_of_memory",
                f"its sampled frames exceed {MAX_KEPT_BYTES / 2**30:g} GiB; sample fewer or cut it with start_s, end_s",
            )

    def _cropped(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self._crop is None or self.n_whole is None:
            return np.ascontiguousarray(frame)
        crop, found = self._crop(frame)
        self.n_whole += not found
        return crop

    def _check_size(self, width: int, height: int) -> None:
        if width * height > MAX_FRAME_PIXELS:
            raise self._error(
                "undecodable",
                f"frames of {width} x {height} pixels; scale it to at most {MAX_FRAME_PIXELS // 10**6} megapixels",
            )
