"""A clip's log-mel as an extractor gives it, so that it is read, stored and accounted for like an embedding."""

import numpy as np

from extractors.base import Embedding, PlainExtractor, Prepared
from extractors.log_mel_preparer import PREPROCESSING, LogMelPreparer
from extractors.logmel import N_MELS


class LogMels(PlainExtractor):
    """The log-mel that the audio networks take, (T, 40), as a clip's sequence; its vector is the mean over time."""

    name = "audio/logmel"
    dim = N_MELS
    preparer = LogMelPreparer()

    def __init__(self) -> None:
        self.weights_record = {"source": "none", "preprocessing": PREPROCESSING}

    def embed(self, item: Prepared, *, keep_sequence: bool) -> Embedding:
        """Nothing but another form of what was prepared."""
        (log_mel,) = item.inputs  # (40, T)
        vector = log_mel.mean(axis=1, dtype=np.float64).astype(np.float32)
        return Embedding(item.clip_id, vector, item.n_units, np.ascontiguousarray(log_mel.T) if keep_sequence else None)
