"""Mean and spread of log-mel, pitch and loudness, 84-d: no network, no weights. What a learned encoder must beat."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extractors.base import Embedding, PlainExtractor, Prepared
from extractors.clip import Clip
from extractors.errors import WeightsError
from extractors.logmel import N_MELS, POWER_FLOOR, SAMPLE_RATE_HZ, WINDOW_SAMPLES, frame_blocks, log_mel
from extractors.media import Media, MediaNeeds

PITCH_MIN_HZ, PITCH_MAX_HZ = 75.0, 500.0
PITCH_BAND_HZ = 2000.0  # above it peaks are too narrow to be seen between samples
PITCH_WINDOW_SAMPLES = 640  # 40 ms: three periods of the lowest pitch
SEMITONES_ABOVE_HZ = 27.5
MIN_STRENGTH = 0.6  # of the autocorrelation's peak in a voiced frame
OCTAVE_COST = 0.01  # a peak at half the lag wins where it is about as strong; Praat's
VOICED_RANGE_DB = 30.0  # a voiced frame is no quieter than this below the loudest
OCTAVE_ST = 12.0
_N_FFT = 1024  # holds the window and the longest lag without wrapping
_LONGEST_LAG = int(SAMPLE_RATE_HZ / PITCH_MIN_HZ)  # samples
N_TRACKS = N_MELS + 2
_PITCH = N_MELS  # its column


class TracksPreparer:
    """A clip -> (T, 42): its 40 log-mel bands, pitch and loudness every 10 ms."""

    needs = MediaNeeds(sample_rate_hz=SAMPLE_RATE_HZ)

    def prepare(self, clip: Clip, media: Media) -> Prepared:
        """The clip's (T, 42) tracks; the pitch of an unvoiced frame is NaN.

        Raises:
            ExtractionError: why the clip has no audio.
        """
        waveform = media.require_waveform()
        bands = log_mel(waveform.samples, waveform.sample_rate_hz).T  # (T, 40)
        loudness_db = loudness(waveform.samples)
        tracks = np.column_stack([bands, pitch(waveform.samples, loudness_db), loudness_db])
        return Prepared(clip.clip_id, tracks.astype(np.float32), n_units=len(tracks))


class LogMelStats(PlainExtractor):
    """A clip's vector is 42 means over time, then 42 standard deviations: 40 log-mel bands, pitch, loudness.

    Log-mel in dB below the clip's own maximum, as DAVEnet's front end gives it; pitch in semitones above 27.5 Hz, over
    the voiced frames, 0 where none is; loudness in dB below full scale. The whole clip counts, however long.

    Its sequence has a row every 10 ms: the 42 values, an unvoiced frame's pitch being the clip's mean, then each
    value's squared distance from its mean in units of the standard deviation. The mean of the rows is the vector.

    Args:
        weights: "hub", "random" or "self", which change nothing, as there are none to load.
        seed, batch_size, device, precision: as every extractor's; they change nothing.
    Raises:
        WeightsError: a package or path, which would not be used.
    """

    name = "audio/logmel_stats"
    dim = 2 * N_TRACKS
    preparer = TracksPreparer()

    def __init__(
        self,
        *,
        weights: str = "hub",
        seed: int = 0,
        batch_size: int | None = None,
        device: str = "auto",
        precision: str = "fp32",
    ) -> None:
        if weights not in ("hub", "random", "self"):
            raise WeightsError(
                f"{self.name} has no weights, so extract.audio.weights={weights} would not be used; set it to self, or "
                "choose another backbone"
            )
        self.weights_record: dict[str, Any] = {"source": "none", "preprocessing": "16 kHz mono, 40 log-mel bands"}

    def embed(self, item: Prepared, *, keep_sequence: bool) -> Embedding:
        """From the tracks that prepare() made."""
        rows = rows_behind(item.inputs)
        vector = rows.mean(axis=0).astype(np.float32)
        return Embedding(item.clip_id, vector, item.n_units, rows.astype(np.float32) if keep_sequence else None)


def rows_behind(tracks: NDArray[np.float32]) -> NDArray[np.float64]:
    """(T, 42) tracks, pitch NaN where unvoiced -> (T, 84) rows whose mean is the tracks' means and sds.

    The squared distances from a mean are sd^2 on average; in units of sd, they are sd.
    """
    values = tracks.astype(np.float64)
    voiced = ~np.isnan(values[:, _PITCH])
    values[~voiced, _PITCH] = values[voiced, _PITCH].mean() if voiced.any() else 0.0
    squares = (values - values.mean(axis=0)) ** 2
    squares[:, _PITCH] *= len(values) / max(1, voiced.sum())  # the unvoiced are at the mean: over the voiced alone
    sds = np.sqrt(squares.mean(axis=0))
    return np.hstack([values, np.divide(squares, sds, out=np.zeros_like(squares), where=sds > 0)])


def loudness(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """(L,) at 16 kHz -> (1 + L // 160,) mean power of 25 ms in dB below full scale, -100 in silence."""
    power = np.concatenate([(frames**2).mean(axis=1) for frames in frame_blocks(samples, WINDOW_SAMPLES)])
    return 10.0 * np.log10(np.maximum(power, POWER_FLOOR))


def pitch(samples: NDArray[np.float32], loudness_db: NDArray[np.float64]) -> NDArray[np.float64]:
    """The pitch of each frame, by the highest peak of its autocorrelation; no path is sought through the frames.

    Args:
        samples: (L,) at 16 kHz.
        loudness_db: (1 + L // 160,), from `loudness`: a frame far below the loudest is not voiced.
    Returns:
        (1 + L // 160,) semitones above 27.5 Hz, NaN where unvoiced.
    Source: Boersma (1993), "Accurate short-term analysis of the fundamental frequency".
    """
    found = [_autocorrelation_peak(frames) for frames in frame_blocks(samples, PITCH_WINDOW_SAMPLES)]
    pitch_hz, strength = (np.concatenate(parts) for parts in zip(*found, strict=True))
    voiced = (strength > MIN_STRENGTH) & (loudness_db > loudness_db.max() - VOICED_RANGE_DB)
    pitch_st = np.where(voiced, 12.0 * np.log2(pitch_hz / SEMITONES_ABOVE_HZ), np.nan)
    middle = np.median(pitch_st[voiced]) if voiced.any() else 0.0
    # A voice keeps within an octave of its middle; what lies beyond rang with a formant, or was noise.
    return np.where(np.abs(pitch_st - middle) < OCTAVE_ST, pitch_st, np.nan)


def _autocorrelation_peak(frames: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(T, 640) frames -> (T,) pitch in Hz and (T,) its strength: 1 for a periodic sound, 0 without a peak."""
    window, of_window = _window_and_autocorrelation()
    raw = _autocorrelation((frames - frames.mean(axis=1, keepdims=True)) * window)
    normalised = raw / np.maximum(raw[:, :1], np.finfo(float).tiny) / of_window  # the window's own decay undone
    lags = np.arange(int(SAMPLE_RATE_HZ / PITCH_MAX_HZ), _LONGEST_LAG + 1)
    before, at, after = (normalised[:, lags + step] for step in (-1, 0, 1))  # (T, lags) each
    is_peak = (at > before) & (at >= after)
    bend = np.where(is_peak, 2 * at - before - after, 1.0)  # > 0 at a peak
    heights = np.where(is_peak, at + (after - before) ** 2 / (8 * bend), 0.0)  # the top of the parabola, and where
    places = lags + np.where(is_peak, (after - before) / (2 * bend), 0.0)
    best = (heights - OCTAVE_COST * np.log2(lags / lags[0])).argmax(axis=1)[:, None]
    lag, strength = (np.take_along_axis(values, best, axis=1)[:, 0] for values in (places, heights))
    return SAMPLE_RATE_HZ / lag, strength


def _autocorrelation(windowed: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 640) -> its autocorrelation, without what is above 2 kHz, at lags 0, 1, ... as far as it is looked at."""
    spectrum = np.fft.rfft(windowed, _N_FFT)[..., : int(PITCH_BAND_HZ / SAMPLE_RATE_HZ * _N_FFT)]
    return np.fft.irfft(spectrum.real**2 + spectrum.imag**2, _N_FFT)[..., : _LONGEST_LAG + 2]


@cache
def _window_and_autocorrelation() -> tuple[NDArray[Any], NDArray[Any]]:
    """(640,) Hann window, and its autocorrelation relative to lag 0."""
    window = np.hanning(PITCH_WINDOW_SAMPLES + 1)[:-1]
    of_window = _autocorrelation(window)
    return window, of_window / of_window[0]
