"""DAVEnet's front end: a 16 kHz waveform -> 40 log-mel bands in dB, by its authors' recipe (librosa's)."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
N_MELS = 40
PRE_EMPHASIS = 0.97
WINDOW_SAMPLES = 400  # 25 ms, and the FFT's length
HOP_SAMPLES = 160  # 10 ms
MEL_MIN_HZ, MEL_MAX_HZ = 20.0, 8000.0
POWER_FLOOR = 1e-10  # librosa's amin: the logarithm of silence stays finite
DYNAMIC_RANGE_DB = 80.0
_FRAMES_AT_ONCE = 1024  # bounds the memory of an hour-long clip


def log_mel(samples: NDArray[np.float32], sample_rate_hz: int, max_frames: int | None = None) -> NDArray[np.float32]:
    """Log-mel spectrogram relative to the clip's own loudest band.

    Mean removed, pre-emphasis 0.97, frames of 400 samples every 160 centred with reflect padding, Hamming window,
    power, 40 mel bands (Slaney's scale and area norm, 20-8000 Hz), 10 log10, cut 80 dB below the maximum. Digital
    silence gives 0 dB in every band, as librosa's power_to_db does with ref=max.

    Args:
        samples: (L,) mono, L >= 1. A clip shorter than half a window is reflected as often as it takes.
        sample_rate_hz: 16000.
        max_frames: of the first frames how many to return, their levels still relative to the whole clip's maximum.
    Returns:
        (40, min(1 + L // 160, max_frames)) float32, dB, within -80..0.
    Raises:
        ValueError: another sample rate, or no samples.
    Source: DAVEnet (Harwath et al. 2018), sec. 3; librosa's feature.melspectrogram and power_to_db.
    """
    if sample_rate_hz != SAMPLE_RATE_HZ:
        raise ValueError(f"expected a waveform at {SAMPLE_RATE_HZ} Hz, got {sample_rate_hz} Hz; resample it first")
    if samples.ndim != 1 or len(samples) == 0:
        raise ValueError(f"expected a mono waveform of at least one sample, got shape {samples.shape}")
    blocks = frame_blocks(samples, WINDOW_SAMPLES, pre_emphasis=PRE_EMPHASIS)
    # Logarithms block by block, kept in float32 and right to 1e-5 dB; what is not asked for is let go at once.
    kept: list[NDArray[np.float32]] = []
    loudest, n_left = -np.inf, n_frames_of(samples) if max_frames is None else max_frames
    for frames in blocks:
        levels = (10.0 * np.log10(np.maximum(_mel_power(frames), POWER_FLOOR))).astype(np.float32)  # (T, 40) dB
        loudest = max(loudest, levels.max())
        if n_left > 0:
            kept.append(levels[:n_left])
            n_left -= len(levels)
    return np.maximum(np.concatenate(kept).T - loudest, -DYNAMIC_RANGE_DB)


def n_frames_of(samples: NDArray[np.float32]) -> int:
    """How many frames a waveform of (L,) samples has."""
    return 1 + len(samples) // HOP_SAMPLES


def frame_blocks(
    samples: NDArray[np.float32], window_samples: int, *, pre_emphasis: float = 0.0
) -> Iterator[NDArray[np.float64]]:
    """The frames of a waveform without its mean, one centred on every 160th sample, its ends reflected.

    Args:
        samples: (L,), L >= 1.
        window_samples: length of a frame, even.
        pre_emphasis: y[i] = x[i] - pre_emphasis x[i - 1], before the ends are reflected.
    Yields:
        Blocks of (<= 1024, window_samples) read-only frames, 1 + L // 160 frames in all.
    """
    mean = samples.mean(dtype=np.float64)
    n_frames = n_frames_of(samples)
    for start in range(0, n_frames, _FRAMES_AT_ONCE):
        last = min(start + _FRAMES_AT_ONCE, n_frames) - 1
        first_sample = start * HOP_SAMPLES - window_samples // 2
        at = _reflected(
            np.arange(first_sample, first_sample + (last - start) * HOP_SAMPLES + window_samples), len(samples)
        )
        block = samples[at].astype(np.float64) - mean
        if pre_emphasis:
            block -= pre_emphasis * np.where(at > 0, samples[at - 1] - mean, 0.0)
        yield sliding_window_view(block, window_samples)[::HOP_SAMPLES]


def _reflected(positions: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Where positions fall when [0, length) is mirrored at its ends, again and again; the ends are not repeated."""
    period = max(1, 2 * (length - 1))
    folded = positions % period
    return np.minimum(folded, period - folded)


def _mel_power(frames: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T, 400) samples -> (T, 40) power."""
    window, filters = _window_and_filters()
    spectrum = np.fft.rfft(frames * window, axis=1)  # (T, 201)
    return (spectrum.real**2 + spectrum.imag**2) @ filters


@cache
def _window_and_filters() -> tuple[NDArray[Any], NDArray[Any]]:
    """(400,) periodic Hamming window, (201, 40) mel filters."""
    return np.hamming(WINDOW_SAMPLES + 1)[:-1], mel_filters()


def mel_filters() -> NDArray[np.float64]:
    """(201, 40): triangles over the FFT's bins, even on Slaney's mel scale, each of the same area.

    Source: Slaney (1998), Auditory Toolbox: linear below 1000 Hz, 3 mel for 200 Hz; above, 27 mel for a factor of 6.4.
    """
    bins_hz = np.linspace(0.0, SAMPLE_RATE_HZ / 2, WINDOW_SAMPLES // 2 + 1)[:, None]  # (201, 1)
    corners_hz = _hz_of(np.linspace(_mel_of(MEL_MIN_HZ), _mel_of(MEL_MAX_HZ), N_MELS + 2))
    left, peak, right = corners_hz[:-2], corners_hz[1:-1], corners_hz[2:]  # (40,) each
    triangles = np.minimum((bins_hz - left) / (peak - left), (right - bins_hz) / (right - peak))
    return np.maximum(triangles, 0.0) * 2.0 / (right - left)


def _mel_of(hz: float) -> float:
    return 3 * hz / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)


def _hz_of(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel < 15, 200 * mel / 3, 1000 * 6.4 ** ((mel - 15) / 27))
