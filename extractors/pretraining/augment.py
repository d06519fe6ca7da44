"""Another microphone, another room: what a recording adds to a voice, drawn anew each time a clip is trained on.

The recording tells clips apart as well as the voice does, and better than a mood: one video has one microphone. A
network that never hears the same recording twice cannot go by it.
"""

import numpy as np
from numpy.typing import NDArray

from extractors.logmel import DYNAMIC_RANGE_DB, N_MELS

KNOTS = 7  # of the response over the bands, between which it is straight
RESPONSE_SD_DB = 6.0
NOISE_BELOW_DB = (5.0, 35.0)  # the noise's mean power below the clip's: loud traffic to a quiet room
NOISE_TILT_SD_DB = 4.0
NOISE_FLUTTER_SD_DB = 2.0


def another_recording(log_mel: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """The same sound by another microphone and with another background noise.

    A smooth response over the bands is added in dB; a steady noise of its own colour is added in power; and the result
    is brought to what the front end gives: 0 dB at its maximum, cut 80 dB below.

    Args:
        log_mel: (40, T) dB, as `extractors.logmel.log_mel` gives it.
        random: what is drawn comes from it.
    Returns:
        (40, T) float32, dB, within -80..0.
    """
    heard = log_mel + _curve(random, RESPONSE_SD_DB)
    loudness = _to_db(_to_power(heard).mean())
    noise = loudness - random.uniform(*NOISE_BELOW_DB) + _curve(random, NOISE_TILT_SD_DB)
    noise = noise + random.normal(0, NOISE_FLUTTER_SD_DB, size=log_mel.shape)
    mixed = _to_db(_to_power(heard) + _to_power(noise))
    return np.maximum(mixed - mixed.max(), -DYNAMIC_RANGE_DB).astype(np.float32)


def _curve(random: np.random.Generator, sd_db: float) -> NDArray[np.float64]:
    """(40, 1): a smooth curve over the bands."""
    knots = np.linspace(0, N_MELS - 1, KNOTS)
    return np.interp(np.arange(N_MELS), knots, random.normal(0, sd_db, size=KNOTS))[:, None]


def _to_power(decibels: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.power(10.0, decibels / 10)


def _to_db(power: NDArray[np.float64]) -> NDArray[np.float64]:
    return 10 * np.log10(power)
