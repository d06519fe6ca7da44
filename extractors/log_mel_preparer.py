"""A clip's sound -> its log-mel, as the audio networks take it. Without PyTorch, as it runs where clips are read."""

import numpy as np
from numpy.typing import NDArray

from extractors.base import Prepared
from extractors.clip import Clip
from extractors.logmel import SAMPLE_RATE_HZ, log_mel, n_frames_of
from extractors.media import Media, MediaNeeds

MAX_FRAMES = 2048  # 20.5 s; what the published networks were trained on
PREPROCESSING = f"16 kHz mono, 40 log-mel bands (see extractors/logmel.py), cut to {MAX_FRAMES} frames"


def clip_log_mel(media: Media) -> tuple[NDArray[np.float32], str | None]:
    """A clip's log-mel as the networks take it, and a note where it was cut.

    Returns:
        (40, T) dB with T <= 2048; levels are relative to the whole clip's maximum, also when cut.
    Raises:
        ExtractionError: why the clip has no audio.
    """
    waveform = media.require_waveform()
    n_frames = n_frames_of(waveform.samples)
    note = f"cut from {n_frames} to {MAX_FRAMES} frames" if n_frames > MAX_FRAMES else None
    return log_mel(waveform.samples, waveform.sample_rate_hz, MAX_FRAMES), note


class LogMelPreparer:
    """A clip -> its log-mel, (40, T) dB with T <= 2048."""

    needs = MediaNeeds(sample_rate_hz=SAMPLE_RATE_HZ)

    def prepare(self, clip: Clip, media: Media) -> Prepared:
        """The clip's log-mel.

        Raises:
            ExtractionError: why the clip has no audio.
        """
        spectrogram, note = clip_log_mel(media)
        return Prepared(clip.clip_id, [spectrogram], n_units=spectrogram.shape[1], note=note)
