"""DAVEnet's front end: a 16 kHz waveform -> 40 log-mel bands in dB, by its authors' recipe (librosa's)."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import get_window
from torchaudio.functional import melscale_fbanks

SAMPLE_RATE_HZ = 16_000
N_MELS = 40
PRE_EMPHASIS = 0.97
WINDOW_SAMPLES = 400  # 25 ms, and the FFT's length
HOP_SAMPLES = 160  # 10 ms
MEL_MIN_HZ, MEL_MAX_HZ = 20.0, 8000.0
POWER_FLOOR = 1e-10  # librosa's amin: the logarithm of silence stays finite
DYNAMIC_RANGE_DB = 80.0
_FRAMES_AT_ONCE = 4096  # bounds the memory of an hour-long clip


def log_mel(samples: NDArray[np.float32], sample_rate_hz: int) -> NDArray[np.float32]:
    """Log-mel spectrogram relative to the clip's own loudest band.

    Mean removed, pre-emphasis 0.97, frames of 400 samples every 160 centred with reflect padding, Hamming window,
    power, 40 mel bands (Slaney's scale and area norm, 20-8000 Hz), 10 log10, cut 80 dB below the maximum. Digital
    silence gives 0 dB in every band, as librosa's power_to_db does with ref=max.

    Args:
        samples: (L,) mono, L >= 1. A clip shorter than half a window is reflected as often as it takes.
        sample_rate_hz: 16000.
    Returns:
        (40, 1 + L // 160) float32, dB, within -80..0.
    Raises:
        ValueError: another sample rate, or no samples.
    Source: DAVEnet (Harwath et al. 2018), sec. 3; librosa's feature.melspectrogram and power_to_db.
    """
    if sample_rate_hz != SAMPLE_RATE_HZ:
        raise ValueError(f"expected a waveform at {SAMPLE_RATE_HZ} Hz, got {sample_rate_hz} Hz; resample it first")
    if samples.ndim != 1 or len(samples) == 0:
        raise ValueError(f"expected a mono waveform of at least one sample, got shape {samples.shape}")
    centred = samples.astype(np.float64) - samples.mean(dtype=np.float64)
    emphasised = np.append(centred[0], centred[1:] - PRE_EMPHASIS * centred[:-1])
    padded = np.pad(emphasised, WINDOW_SAMPLES // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[::HOP_SAMPLES]  # (T, 400), a view
    power = np.concatenate(
        [_mel_power(frames[start : start + _FRAMES_AT_ONCE]) for start in range(0, len(frames), _FRAMES_AT_ONCE)]
    ).T  # (40, T)
    decibels = 10.0 * (np.log10(np.maximum(power, POWER_FLOOR)) - np.log10(max(power.max(), POWER_FLOOR)))
    return np.maximum(decibels, decibels.max() - DYNAMIC_RANGE_DB).astype(np.float32)


def _mel_power(frames: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T, 400) samples -> (T, 40) power."""
    window, filters = _window_and_filters()
    spectrum = np.fft.rfft(frames * window, axis=1)  # (T, 201)
    return (spectrum.real**2 + spectrum.imag**2) @ filters


@cache
def _window_and_filters() -> tuple[NDArray[Any], NDArray[Any]]:
    """(400,) periodic Hamming window, (201, 40) mel filters."""
    filters = melscale_fbanks(
        n_freqs=WINDOW_SAMPLES // 2 + 1,
        f_min=MEL_MIN_HZ,
        f_max=MEL_MAX_HZ,
        n_mels=N_MELS,
        sample_rate=SAMPLE_RATE_HZ,
        norm="slaney",
        mel_scale="slaney",
    )
    return get_window("hamming", WINDOW_SAMPLES, fftbins=True), filters.numpy().astype(np.float64)
