"""One pass over a media file by PyAV, each packet given to the reader of its stream; again where that fell short."""

import contextlib
import math
from collections.abc import Iterator

import av
from av.container import InputContainer

from extractors.clip import Clip
from extractors.errors import ExtractionError
from extractors.frame_reader import FrameReader
from extractors.frame_sampling import FrameCrop, FrameSampling
from extractors.waveform_reader import WaveformReader

# How far before a clip's start reading begins. An index finds the keyframe before the first; without one the next is
# tried where no keyframe came before the clip's start. The last is the start of the file, which always works.
SEEK_LEADS_S = (1.0, 10.0, math.inf)
# FFmpeg's names of formats where a seek lands amid a packet; MPEG times then shift by a frame.
WITHOUT_INDEX = ("mpeg", "mpegts", "ogg")
PLAYLISTS = ("concat", "dash", "hls")


def read_streams(
    clip: Clip,
    frames: FrameSampling | None,
    sample_rate_hz: int | None,
    crop: FrameCrop | None = None,
) -> tuple[FrameReader | None, WaveformReader | None]:
    """A clip's frames and sound, each None where it is not asked for; what failed is in the reader's `failure`.

    Args:
        clip: of a file that is there.
        frames: which frames to keep.
        sample_rate_hz: of the mono waveform.
        crop: see MediaNeeds.
    Raises:
        ExtractionError: the file cannot be opened as video or audio.
    """
    video: FrameReader | None = None
    audio: WaveformReader | None = None
    for lead_s in SEEK_LEADS_S if clip.start_s > 0 else (math.inf,):
        sought = lead_s < clip.start_s
        video = FrameReader(clip, sought, frames, crop=crop) if frames else None
        audio = WaveformReader(clip, sought, sample_rate_hz) if sample_rate_hz else None
        readers = [reader for reader in (video, audio) if reader is not None]
        _read_once(clip, readers, lead_s)
        if not any(reader.missed_start for reader in readers):
            break
    # Once for a wrong duration; once more where the packets, too, promised more than could be decoded.
    for _ in range(2):
        end_s = video.corrected_end_s() if video is not None else None
        if frames is None or end_s is None:
            break
        video = FrameReader(clip, sought, frames, end_s, crop)
        _read_once(clip, [video], lead_s)
    return video, audio


def _read_once(clip: Clip, readers: list[FrameReader | WaveformReader], lead_s: float) -> None:
    """One pass over the file from lead_s before the clip, each packet given to the reader of its stream."""
    with open_container(clip.media_path) as container:
        for reader in readers:
            reader.open(container)
        by_index = {reader.stream.index: reader for reader in readers if reader.failure is None}
        if not by_index:
            return
        for packet in _packets(container, by_index, clip.start_s - lead_s):
            reader = by_index[packet.stream_index]
            if not reader.done:
                reader.add(packet)
            elif all(reader.done for reader in by_index.values()):
                break
        for reader in by_index.values():
            reader.finish()


def _packets(
    container: InputContainer, readers: dict[int, FrameReader | WaveformReader], resume_s: float
) -> Iterator[av.Packet]:
    """The readers' packets from resume_s or the keyframe before, to the end of the file or where it breaks off."""
    waiting: set[int] = set()
    if resume_s > 0 and container.format.name in WITHOUT_INDEX:
        # Passing over packets undecoded is exact, and costs only the reading of the file.
        waiting.update(readers)
    elif resume_s > 0:
        # Where seeking fails, reading goes on from where the file stands; a reader notices if that is too late.
        with contextlib.suppress(av.FFmpegError):
            container.seek(round(resume_s * av.time_base) + max(0, container.start_time or 0))
    packets = container.demux([reader.stream for reader in readers.values()])
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError, IndexError):
            return  # IndexError: PyAV's flush, after the last packet, of a stream that came up late
        index = packet.stream_index
        if index in waiting and readers[index].reaches(packet, resume_s):
            waiting.discard(index)
        if index not in waiting and packet.size:  # an empty packet is PyAV's own flush
            yield packet


def open_container(path: str) -> InputContainer:
    """Opens a local file, and never what a playlist in it points to.

    Raises:
        ExtractionError: it is no video or audio, or a playlist.
    """
    try:
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file"}, metadata_errors="replace")
    except av.FFmpegError as cause:
        message = f"{path}: not readable as video or audio ({cause.strerror}); play it to see whether it is whole"
        raise ExtractionError("read", "undecodable", message) from cause
    if container.format.name in PLAYLISTS:
        container.close()
        raise ExtractionError("read", "undecodable", f"{path}: a playlist, not a video; put the video itself there")
    return container
