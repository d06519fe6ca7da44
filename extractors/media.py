"""Read a clip's media once: sampled frames and a mono waveform, in one pass over the file. PyAV and NumPy only."""

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from extractors.clip import Clip
from extractors.errors import ExtractionError
from extractors.frame_sampling import FrameCrop, FrameSampling


@dataclass(frozen=True, slots=True)
class MediaNeeds:
    """What an extractor wants read from a clip's file; nothing by default.

    Attributes:
        frames: which frames to keep, or None.
        sample_rate_hz: of the mono waveform, or None.
        crop: what becomes of each frame as soon as it is decoded, so that a long clip's frames do not pile up; None
            keeps them as they are.

    Raises:
        ValueError: a sample rate that is not positive.
    """

    frames: FrameSampling | None = None
    sample_rate_hz: int | None = None
    crop: FrameCrop | None = None

    def __post_init__(self) -> None:
        if self.sample_rate_hz is not None and self.sample_rate_hz < 1:
            raise ValueError(f"sample_rate_hz must be a positive number of Hz, got {self.sample_rate_hz}")

    @staticmethod
    def union(all_needs: "Iterable[MediaNeeds]") -> "MediaNeeds":
        """One reading that serves several extractors.

        Raises:
            ValueError: two ask for different frames, crops or sample rates.
        """
        needs = list(all_needs)
        samplings = list(dict.fromkeys((n.frames, n.crop) for n in needs if n.frames is not None))
        rates_hz = list(dict.fromkeys(n.sample_rate_hz for n in needs if n.sample_rate_hz is not None))
        if len(samplings) > 1:
            raise ValueError(f"extractors ask for different frames of one clip ({samplings}); give them one sampling")
        if len(rates_hz) > 1:
            raise ValueError(f"extractors ask for different sample rates ({rates_hz} Hz); give them one rate")
        frames, crop = next(iter(samplings), (None, None))
        return MediaNeeds(frames, next(iter(rates_hz), None), crop)


@dataclass(frozen=True, slots=True)
class FrameBatch:
    """The sampled frames of a clip.

    Attributes:
        frames: (T, 3, H, W) uint8 RGB, T >= 1, upright.
        pts_seconds: (T,) float64, ascending: when each is shown, seconds since the start of the file.
        n_whole: where they were cropped, how many had nothing to crop to and were taken whole; else None.

    Raises:
        ValueError: another shape, dtype or order.
    """

    frames: NDArray[np.uint8]
    pts_seconds: NDArray[np.float64]
    n_whole: int | None = None

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[1] != 3 or self.frames.dtype != np.uint8 or not self.frames.size:
            raise ValueError(
                f"frames are (T, 3, H, W) uint8 RGB, not empty; got {self.frames.shape} {self.frames.dtype}"
            )
        if self.pts_seconds.shape != self.frames.shape[:1] or self.pts_seconds.dtype != np.float64:
            raise ValueError(
                f"pts_seconds is one float64 a frame, ({len(self.frames)},); "
                f"got {self.pts_seconds.shape} {self.pts_seconds.dtype}"
            )
        if not (np.diff(self.pts_seconds) > 0).all():
            raise ValueError(f"pts_seconds must ascend, got {self.pts_seconds}")


@dataclass(frozen=True, slots=True)
class Waveform:
    """The sound of a clip.

    Attributes:
        samples: (L,) float32 mono, finite, full scale is [-1, 1]; sample 0 is at the clip's start_s.
        sample_rate_hz: samples a second.

    Raises:
        ValueError: another shape or dtype, no samples, NaN or Inf, a sample rate that is not positive.
    """

    samples: NDArray[np.float32]
    sample_rate_hz: int

    def __post_init__(self) -> None:
        if self.samples.ndim != 1 or self.samples.dtype != np.float32 or not self.samples.size:
            raise ValueError(f"samples are (L,) float32 mono, not empty; got {self.samples.shape} {self.samples.dtype}")
        if not np.isfinite(self.samples).all():
            raise ValueError("samples hold NaN or Inf; expected finite values")
        if self.sample_rate_hz < 1:
            raise ValueError(f"sample_rate_hz must be a positive number of Hz, got {self.sample_rate_hz}")


@dataclass(frozen=True, slots=True)
class Media:
    """What was read of a clip.

    Attributes:
        frames, waveform: None where it was not asked for; the error where this modality failed, whatever became of
            the other.
    """

    frames: FrameBatch | ExtractionError | None = None
    waveform: Waveform | ExtractionError | None = None

    def require_frames(self) -> FrameBatch:
        """The frames.

        Raises:
            ExtractionError: why this clip has none.
            ValueError: they were not asked for.
        """
        return _required(self.frames, "frames")

    def require_waveform(self) -> Waveform:
        """The waveform.

        Raises:
            ExtractionError: why this clip has none.
            ValueError: it was not asked for.
        """
        return _required(self.waveform, "sample_rate_hz")


Part = TypeVar("Part", FrameBatch, Waveform)


def _required(part: Part | ExtractionError | None, need: str) -> Part:
    if isinstance(part, ExtractionError):
        raise part
    if part is None:
        raise ValueError(f"the clip was read without it; set MediaNeeds.{need}")
    return part


def read_media(clip: Clip, needs: MediaNeeds) -> Media:
    """Reads what is needed of one clip, the file opened and demuxed once. Thread-safe.

    Video is decoded in order and only the kept frames are converted. A file is read again only where the first reading
    shows that a seek landed too late, or that the header's duration is missing or wrong.

    Args:
        clip: the file and the span of it.
        needs: frames, a waveform, both or neither.
    Returns:
        what was asked for; a file or stream that cannot be read is an ExtractionError in its place, never raised.
    """
    if needs == MediaNeeds():
        return Media()
    from extractors.media_reader import read_streams  # imports PyAV, which a run with nothing to do goes without

    try:
        check_file(clip.media_path)
        video, audio = read_streams(clip, needs.frames, needs.sample_rate_hz, needs.crop)
    except ExtractionError as error:
        return Media(error if needs.frames else None, error if needs.sample_rate_hz else None)
    frames: FrameBatch | ExtractionError | None = None
    waveform: Waveform | ExtractionError | None = None
    if video is not None:
        frames = video.failure or FrameBatch(video.frames, np.array(video.times_s), video.n_whole)
    if audio is not None:
        waveform = audio.failure or Waveform(audio.samples, audio.sample_rate_hz)
    return Media(frames, waveform)


def check_file(path: str) -> None:
    """Refuses what is no file to decode.

    Raises:
        ExtractionError: it is missing, empty, not to be read, or no file at all.
    """

    def error(cause: str, message: str) -> ExtractionError:
        return ExtractionError("read", cause, f"{path}: {message}")

    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise error("undecodable", "not a file; expected a video or audio file")
        with open(path, "rb"):
            pass
    except (FileNotFoundError, NotADirectoryError, ValueError) as cause:  # ValueError: a NUL in the path
        raise error("missing_file", "no such file; check the corpus' root and the clip's path") from cause
    except PermissionError as cause:
        raise error("permission_denied", "may not be read by this user; change its permissions") from cause
    except OSError as cause:
        raise error("undecodable", f"cannot be opened ({cause.strerror}); check the path and the disk") from cause
    if status.st_size == 0:
        raise error("empty_file", "0 bytes; copy it again")
