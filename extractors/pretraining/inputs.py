"""A clip's log-mel as an extractor gives it, so that it is read, stored and accounted for like an embedding."""

import numpy as np

from extractors.audio_spectrograms import PREPROCESSING, clip_log_mel
from extractors.base import Embedding, PlainExtractor, Prepared
from extractors.clip import Clip
from extractors.logmel import N_MELS, SAMPLE_RATE_HZ
from extractors.media import Media, MediaNeeds


class LogMels(PlainExtractor):
    """The log-mel that the audio networks take, (T, 40), as a clip's sequence; its vector is the mean over time."""

    name = "audio/logmel"
    dim = N_MELS
    needs = MediaNeeds(frames=None, sample_rate_hz=SAMPLE_RATE_HZ)

    def __init__(self) -> None:
        self.weights_record = {"source": "none", "preprocessing": PREPROCESSING}

    def prepare(self, clip: Clip, media: Media) -> Prepared:
        """The clip's log-mel, cut to 2048 frames.

        Raises:
            ExtractionError: why the clip has no audio.
        """
        spectrogram, note = clip_log_mel(media)
        return Prepared(clip.clip_id, spectrogram, n_units=spectrogram.shape[1], note=note)

    def embed(self, item: Prepared, *, keep_sequence: bool) -> Embedding:
        """Nothing but another form of what was prepared."""
        vector = item.inputs.mean(axis=1, dtype=np.float64).astype(np.float32)
        return Embedding(
            item.clip_id, vector, item.n_units, np.ascontiguousarray(item.inputs.T) if keep_sequence else None
        )
