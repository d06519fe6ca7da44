"""A voice in two numbers: how high it is and how loud. Pure functions of a mono waveform."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

PITCH_HZ = (75.0, 500.0)  # Praat's floor; a ceiling that holds children's voices and most cries
FRAME_S = 3 / PITCH_HZ[0]  # three periods of the lowest voice
HOP_S = 0.01
VOICED = 0.45  # least autocorrelation at the period, of 1: Praat's voicing threshold
SILENT = 0.03  # of the clip's loudest sample, below which a frame is silence: Praat's
OCTAVE_COST = 0.01  # taken off for each octave that a candidate lies below the ceiling: Praat's
LEAST_VOICED_S = 0.1
LOUDNESS_BLOCK_S = 0.4  # what BS.1770 averages over; of a shorter clip it says nothing
ABSOLUTE_GATE_LUFS, RELATIVE_GATE_LU = -70.0, -10.0  # below which a block is silence; a pause
LUFS_OFFSET = -0.691  # so that the weighting leaves a 997 Hz sine at its power
_FRAMES_AT_ONCE = 4096


def pitch_hz(samples: NDArray[np.float32], sample_rate_hz: int) -> float | None:
    """Median fundamental frequency over the voiced frames.

    A frame is voiced where it is no silence and repeats itself: its autocorrelation, divided by that of its window,
    has a peak of VOICED or more at a period within PITCH_HZ. The period is the peak's, by a parabola through three
    points.

    Args:
        samples: (L,) mono.
    Returns:
        Hz; None where less than LEAST_VOICED_S is voiced.
    Source: Boersma 1993, "Accurate short-term analysis of the fundamental frequency", without its path search.
    """
    frame, hop = round(FRAME_S * sample_rate_hz), round(HOP_S * sample_rate_hz)
    if len(samples) < frame:
        return None
    silent = SILENT * float(np.abs(samples - samples.mean()).max())
    frames = np.lib.stride_tricks.sliding_window_view(samples, frame)[::hop]  # (T, frame)
    blocks = range(0, len(frames), _FRAMES_AT_ONCE)
    pitches = np.concatenate([_pitches(frames[i : i + _FRAMES_AT_ONCE], sample_rate_hz, silent) for i in blocks])
    voiced = pitches[np.isfinite(pitches)]
    return float(np.median(voiced)) if len(voiced) * HOP_S >= LEAST_VOICED_S else None


def _pitches(frames: NDArray[np.float32], sample_rate_hz: int, silent: float) -> NDArray[np.float64]:
    """(T,) Hz, NaN where unvoiced.

    Args:
        frames: (T, frame) of the waveform.
        silent: the amplitude that no silence reaches.
    """
    centred = frames - frames.mean(axis=1, keepdims=True, dtype=np.float64)
    window = np.hanning(frames.shape[1])
    shortest, longest = math.floor(sample_rate_hz / PITCH_HZ[1]), math.ceil(sample_rate_hz / PITCH_HZ[0])
    # One lag more at either end, so that every candidate has two neighbours.
    r = _autocorrelation(centred * window)[:, : longest + 2] / _autocorrelation(window[None])[:, : longest + 2]
    before, here, after = r[:, shortest - 1 : -2], r[:, shortest:-1], r[:, shortest + 1 :]  # (T, candidates)
    is_peak = (here >= before) & (here > after)
    bend = np.minimum(before - 2 * here + after, -1e-12)
    shift = np.where(is_peak, 0.5 * (before - after) / bend, 0.0)
    height = here - 0.25 * (before - after) * shift
    periods_s = (np.arange(shortest, longest + 1) + shift) / sample_rate_hz
    score = np.where(is_peak, height - OCTAVE_COST * np.log2(PITCH_HZ[1] * periods_s), -np.inf)
    best = score.argmax(axis=1)[:, None]
    loud = np.abs(centred).max(axis=1) > silent
    voiced = loud & np.take_along_axis(is_peak & (height >= VOICED), best, axis=1)[:, 0]
    return np.where(voiced, 1 / np.take_along_axis(periods_s, best, axis=1)[:, 0], np.nan)


def _autocorrelation(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T, n) -> (T, n) by lag, 1 at lag 0; a frame of zeros gives zeros."""
    spectrum = np.fft.rfft(x, 2 * x.shape[1])
    r = np.fft.irfft(np.abs(spectrum) ** 2)[:, : x.shape[1]]
    return np.asarray(r / np.maximum(r[:, :1], 1e-30))


def loudness_lufs(samples: NDArray[np.float32], sample_rate_hz: int) -> float | None:
    """Programme loudness: the power of what the ear weighs most, over blocks that are no pauses.

    Args:
        samples: (L,) mono, full scale is [-1, 1].
    Returns:
        LUFS, decibels below full scale; None of silence, and of a clip shorter than a block.
    Source: ITU-R BS.1770-4, annex 1, with its filters for any sample rate as in libebur128 (De Man's derivation).
    """
    block = round(LOUDNESS_BLOCK_S * sample_rate_hz)
    if len(samples) < block:
        return None
    weighted = samples.astype(np.float64)
    for b, a in k_weighting(sample_rate_hz):
        weighted = lfilter(b, a, weighted)
    # Blocks overlap by three quarters.
    power = np.lib.stride_tricks.sliding_window_view(weighted**2, block)[:: max(1, block // 4)].mean(axis=1)
    loud = power[power > _power(ABSOLUTE_GATE_LUFS)]
    if not len(loud):
        return None
    loud = loud[loud > loud.mean() * 10 ** (RELATIVE_GATE_LU / 10)]
    return float(LUFS_OFFSET + 10 * math.log10(loud.mean()))


def _power(lufs: float) -> float:
    return float(10 ** ((lufs - LUFS_OFFSET) / 10))


def k_weighting(sample_rate_hz: int) -> list[tuple[list[float], list[float]]]:
    """(b, a) of the two filters: a shelf for the head's effect on treble, then a high-pass."""
    filters = []
    for frequency_hz, q, gain_db in ((1681.974450955533, 0.7071752369554196, 3.999843853973347),
                                     (38.13547087602444, 0.5003270373238773, None)):  # fmt: skip
        k = math.tan(math.pi * frequency_hz / sample_rate_hz)
        scale = 1 + k / q + k * k
        b = [1.0, -2.0, 1.0]
        if gain_db is not None:
            high = 10 ** (gain_db / 20)
            band = high**0.4996667741545416
            b = [x / scale for x in (high + band * k / q + k * k, 2 * (k * k - high), high - band * k / q + k * k)]
        filters.append((b, [1.0, 2 * (k * k - 1) / scale, (1 - k / q + k * k) / scale]))
    return filters
