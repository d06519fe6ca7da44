"""Sounds for tests: a tone with the dynamic range of speech, and a voice."""

import numpy as np
from numpy.typing import NDArray

from extractors.clip import Clip
from extractors.media import Media, Waveform
from pipeline.corpora.synthetic.people import draw_cast
from pipeline.corpora.synthetic.script import syllables
from pipeline.corpora.synthetic.voice import STYLES, speak

CLIP = Clip("a", "a.wav")


def fading_tone(n_samples: int) -> NDArray[np.float32]:
    """(n,) at 16 kHz: a loud tone that fades, over faint noise, past the 80 dB floor of the log-mel."""
    rng = np.random.default_rng(n_samples)
    t = np.arange(n_samples) / 16_000
    return (np.sin(2 * np.pi * 440 * t) * np.exp(-3 * t) + 1e-4 * rng.standard_normal(n_samples)).astype(np.float32)


def voice(style: str, seed: int = 0) -> NDArray[np.float32]:
    """(L,) at 16 kHz, two to three seconds: the demo corpus' synthesised voice."""
    rng = np.random.default_rng(seed)
    said = syllables("this was a lovely film, and I would see it again tomorrow.")
    return speak(said, STYLES[style], draw_cast(1, rng)[0], rng).samples


def sound(samples: NDArray[np.float32]) -> Media:
    """What would be read of a clip with this sound at 16 kHz."""
    return Media(waveform=Waveform(samples.astype(np.float32), 16_000))
