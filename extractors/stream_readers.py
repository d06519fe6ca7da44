"""Decode one stream of a clip, packet by packet: RGB frames at the target times, or a mono waveform. PyAV and NumPy.

A reader is opened on a container, given its stream's packets in order, and finished; then it has its result or its
`failure`, which concerns its own modality alone. Times are seconds since the file's first timestamp.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from extractors.clip import Clip
from extractors.errors import ExtractionError
from extractors.frame_sampling import FramePicker, FrameSampling, target_times

MAX_FRAME_PIXELS = 64_000_000
MAX_KEPT_BYTES = 2**31  # RGB frames of one clip
MAX_VIDEO_S = 24 * 3600.0  # one clip; a header that claims more is not believed
MAX_AUDIO_S = 4 * 3600.0  # one clip
# Timestamps of neighbouring audio frames wander by a few ms; more than this is a hole in the stream.
AUDIO_HOLE_S = 0.1
# Decoded beyond end_s, so that the resampler's filter does not meet silence at the cut.
AUDIO_MARGIN_S = 0.05
PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image


class StreamReader(ABC):
    """What both modalities share: finding the stream, decoding it, keeping trouble to itself.

    Args:
        clip: the span to read.
        sought: whether packets start at a seek's landing place rather than at the start of the file.

    Attributes:
        failure: why this modality of the clip cannot be read, or None.
        done: no further packet is of use.
        missed_start: the seek landed after the clip's start; read again from further back.
    """

    kind: ClassVar[str]

    def __init__(self, clip: Clip, sought: bool) -> None:
        self.clip = clip
        self.failure: ExtractionError | None = None
        self.done = False
        self.missed_start = False
        self.stream: Any = None  # av.VideoStream or av.AudioStream, once open
        self._sought = sought
        self._origin_s = 0.0
        self._n_decoded = 0
        self._until_s = 0.0  # where the stream ends, as far as it was seen
        self._decode_error: Exception | None = None

    def open(self, container: InputContainer) -> None:
        """Finds the stream and gets ready for its packets."""
        with self._trouble_kept():
            stream: Any = container.streams.best(self.kind)  # type: ignore[arg-type]
            if stream is None or stream.disposition & PICTURES:
                held = ", ".join(f"{s.type} ({s.name or 'unknown codec'})" for s in container.streams)
                raise self._error(
                    f"no_{self.kind}_stream", f"expected a {self.kind} stream, the file holds {held or 'none'}"
                )
            if stream.codec_context is None:
                raise self._error("undecodable", f"its {self.kind} codec has no decoder here; re-encode it")
            # The pipeline reads clips side by side; threads within a clip gained nothing.
            stream.codec_context.thread_count = 1
            self.stream = stream
            self._origin_s = max(0.0, (container.start_time or 0) / av.time_base)
            self._prepare(container)

    def add(self, packet: av.Packet | None) -> None:
        """Decodes one packet of the stream; None is the end, and brings out what the decoder still holds."""
        with self._trouble_kept():
            for frame in self.stream.decode(packet):
                time_s = self._until_s if frame.pts is None else self._seconds(frame.pts)
                if self._sought and self._n_decoded == 0:
                    self.missed_start = frame.pts is None or time_s > self.clip.start_s
                self._n_decoded += 1
                self._take(frame, time_s)

    def finish(self) -> None:
        """No packet is left: the decoder's last frames, then the result or the reason why there is none."""
        if not self.done:
            self.add(None)
        if self.failure is None:
            self.missed_start |= self._sought and self._n_decoded == 0
            with self._trouble_kept():
                self._finish()

    def _seconds(self, stamp: int) -> float:
        return float(stamp * self.stream.time_base) - self._origin_s

    @contextmanager
    def _trouble_kept(self) -> Iterator[None]:
        """A broken packet is skipped, for what follows may decode; other trouble ends this stream, and it alone."""
        try:
            yield
        except ExtractionError as error:
            self.failure = error
        except MemoryError:
            self.failure = self._error("out_of_memory", f"its {self.kind} does not fit in memory; cut it shorter")
        except (av.FFmpegError, ValueError) as error:  # ValueError: what PyAV cannot convert
            self._decode_error = error
        self.done |= self.failure is not None

    def _error(self, cause: str, message: str) -> ExtractionError:
        return ExtractionError("read", cause, f"{self.clip.media_path}: {message}")

    def _nothing_kept(self) -> ExtractionError:
        start_s, end_s = self.clip.start_s, self.clip.end_s
        if self._decode_error is not None and (self._n_decoded == 0 or self._until_s > start_s):
            return self._error(
                "undecodable",
                f"none of its {self.kind} could be decoded ({self._decode_error}); copy the file again or re-encode it",
            )
        end = "its end" if end_s is None else f"{end_s:g} s"
        return self._error(
            "too_short",
            f"no {self.kind} from {start_s:g} s to {end}: the stream ends at {self._until_s:g} s; "
            "check the clip's start_s and end_s",
        )

    @abstractmethod
    def _prepare(self, container: InputContainer) -> None: ...

    @abstractmethod
    def _take(self, frame: Any, time_s: float) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...


class FrameReader(StreamReader):
    """Keeps the frames on display at the target times; the others are decoded, never converted.

    Args:
        clip, sought: see StreamReader.
        sampling: how many frames to keep.
        end_s: where the video ends, if known better than the file's header says.

    Attributes:
        frames: kept ones, each (3, H, W) uint8 RGB, upright, all of the first one's size.
        times_s: when each is shown.
    """

    kind = "video"

    def __init__(self, clip: Clip, sought: bool, sampling: FrameSampling, end_s: float | None = None) -> None:
        super().__init__(clip, sought)
        self.frames: list[NDArray[np.uint8]] = []
        self.times_s: list[float] = []
        self._sampling = sampling
        self._end_s = end_s
        self._held: tuple[av.VideoFrame, float] | None = None  # on display until the next frame comes
        self._reformatter = VideoReformatter()
        self._size = (0, 0)
        self._quarter_turns = 0

    def add(self, packet: av.Packet | None) -> None:
        """As StreamReader's, but once every target has its frame, packets only tell how far the video goes."""
        if not self._picker.done:
            super().add(packet)
        elif packet is not None and packet.pts is not None:
            self._until_s = max(self._until_s, self._seconds(packet.pts + (packet.duration or 0)))
            self.done = self.clip.end_s is not None and self._until_s >= self.clip.end_s

    def corrected_end_s(self) -> float | None:
        """Where the video really ends, if the header's end spread the targets wrongly by half a step or more."""
        until_s = min(self._until_s, math.inf if self.clip.end_s is None else self.clip.end_s)
        if self.failure is not None and self.failure.cause != "too_short" or until_s <= self.clip.start_s:
            return None
        end_s = self._end_s if self._end_s is not None else self.clip.start_s
        half_step_s = 0.5 * (end_s - self.clip.start_s) / max(1, len(self._targets_s))
        return until_s if abs(until_s - end_s) > half_step_s else None
