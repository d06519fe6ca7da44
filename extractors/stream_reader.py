"""Decode one stream of a clip, packet by packet: what frames and sound have in common. PyAV.

A reader is opened on a container, given its stream's packets in order, and finished; then it has its result or its
`failure`, which concerns its own modality alone. Times are seconds since the file's first timestamp.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, ClassVar

import av
from av.container import InputContainer
from av.stream import Disposition

from extractors.clip import Clip
from extractors.errors import ExtractionError

# Streams that hold a cover, a thumbnail or a photograph.
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
        self._tick = Fraction(1)  # the stream's unit of time, seconds
        self._origin_s = 0.0
        self._n_decoded = 0
        self._until_s = 0.0  # where the stream ends, as far as it was seen
        self._decode_error: Exception | None = None

    def open(self, container: InputContainer) -> None:
        """Finds the stream and gets ready for its packets."""
        with self._trouble_kept():
            stream: Any = container.streams.best(self.kind)  # type: ignore[arg-type]
            if stream is None or stream.disposition & PICTURES:
                held = ", ".join(s.type for s in container.streams) or "nothing"
                raise self._error(
                    f"no_{self.kind}_stream", f"expected {self.kind}, the file holds {held}; replace the file"
                )
            if stream.codec_context is None:
                raise self._error("undecodable", f"its {self.kind} codec has no decoder here; re-encode it")
            # The pipeline reads clips side by side; threads within a clip gained nothing.
            stream.codec_context.thread_count = 1
            self.stream = stream
            self._tick = stream.time_base
            self._origin_s = max(0.0, (container.start_time or 0) / av.time_base)
            self._prepare(container)

    def add(self, packet: av.Packet | None) -> None:
        """Decodes one packet of the stream; None is the end, and brings out what the decoder still holds."""
        with self._trouble_kept():
            for frame in self.stream.decode(packet):
                if self._sought and self._n_decoded == 0:
                    if not self._is_sound(frame):
                        continue
                    self.missed_start = frame.pts is None or self._seconds(frame.pts) > self.clip.start_s
                self._n_decoded += 1
                self._take(frame, self._until_s if frame.pts is None else self._seconds(frame.pts))

    def reaches(self, packet: av.Packet, time_s: float) -> bool:
        """Whether a packet of the stream is shown or heard at time_s or later."""
        return packet.pts is not None and self._seconds(packet.pts) >= time_s

    def finish(self) -> None:
        """No packet is left: the decoder's last frames, then the result or the reason why there is none."""
        if not self.done:
            self.add(None)
        if self.failure is None:
            self.missed_start |= self._sought and self._n_decoded == 0
            with self._trouble_kept():
                self._finish()

    def _seconds(self, stamp: int) -> float:
        return stamp * self._tick.numerator / self._tick.denominator - self._origin_s

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
        if self._until_s <= 0 or (self._decode_error is not None and self._until_s > start_s):
            reason = getattr(self._decode_error, "strerror", None) or self._decode_error or "it has no data"
            return self._error(
                "undecodable", f"none of its {self.kind} can be decoded ({reason}); copy the file again or re-encode it"
            )
        span = f"from {start_s:g} s on" if end_s is None else f"from {start_s:g} s to {end_s:g} s"
        return self._error(
            "too_short", f"no {self.kind} {span}: it ends at {self._until_s:g} s; check the clip's start_s and end_s"
        )

    @abstractmethod
    def _prepare(self, container: InputContainer) -> None: ...

    @abstractmethod
    def _is_sound(self, frame: Any) -> bool:
        """Whether a frame decoded after a seek is the first that can be relied on."""

    @abstractmethod
    def _take(self, frame: Any, time_s: float) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...
