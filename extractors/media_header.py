"""What a media file's header says, with nothing decoded: how long it is, and what a clip of it will lack. PyAV."""

from dataclasses import dataclass

import av
from av.container import InputContainer

from extractors.clip import Clip
from extractors.errors import ExtractionError, as_extraction_error
from extractors.frame_reader import FrameReader
from extractors.frame_sampling import FrameSampling
from extractors.media import check_file
from extractors.media_reader import open_container
from extractors.waveform_reader import WaveformReader


@dataclass(frozen=True, slots=True)
class MediaHeader:
    """A file that can be opened.

    Attributes:
        duration_s: of its longest stream; None where the header does not say.
        video, audio: why a clip of it has no frames or no sound, as `read_media` would say; None where nothing in the
            header speaks against it.
    """

    duration_s: float | None
    video: ExtractionError | None
    audio: ExtractionError | None


def read_header(path: str) -> MediaHeader | ExtractionError:
    """Opens a file as `read_media` does, and goes no further than its streams.

    Returns:
        its header; a file that cannot be opened is an ExtractionError in its place, never raised.
    """
    try:
        check_file(path)
        clip = Clip(path, path)
        video, audio = FrameReader(clip, False, FrameSampling(count=1)), WaveformReader(clip, False, 16000)
        with open_container(path) as container:
            for reader in (video, audio):
                reader.open(container)
            return MediaHeader(_duration_s(container), video.failure, audio.failure)
    except Exception as error:  # a demuxer's surprise belongs to the file
        return as_extraction_error("read", error)


def _duration_s(container: InputContainer) -> float | None:
    told_s = [float(s.duration * s.time_base) for s in container.streams if s.duration and s.time_base]
    duration_s = container.duration / av.time_base if container.duration else max(told_s, default=0.0)
    return duration_s if duration_s > 0 else None
