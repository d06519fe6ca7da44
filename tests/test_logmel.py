"""DAVEnet's front end against a slow one in plain NumPy, and against librosa, which its authors used."""

from pathlib import Path

import librosa
import numpy as np
import pytest
from audio_factory import fading_tone, voice

from extractors.clip import Clip
from extractors.logmel import frame_blocks, log_mel
from extractors.media import MediaNeeds, read_media

GRID = Path(__file__).parents[2] / "shared" / "data" / "grid"


def slow_mel_filters() -> np.ndarray:
    """(40, 201): Slaney's scale (linear below 1 kHz, 27 logarithmic steps an octave-and-more above), triangles of
    equal area, each written out."""

    def to_hz(mel: float) -> float:
        return 200.0 / 3.0 * mel if mel < 15.0 else 1000.0 * np.exp(np.log(6.4) / 27.0 * (mel - 15.0))

    def to_mel(hz: float) -> float:
        return hz * 3.0 / 200.0 if hz < 1000.0 else 15.0 + 27.0 * np.log(hz / 1000.0) / np.log(6.4)

    low, high = to_mel(20.0), to_mel(8000.0)
    edges_hz = [to_hz(low + i * (high - low) / 41) for i in range(42)]
    filters = np.zeros((40, 201))
    for band in range(40):
        left, centre, right = edges_hz[band : band + 3]
        for k in range(201):
            hz = 8000.0 * k / 200
            rise, fall = (hz - left) / (centre - left), (right - hz) / (right - centre)
            filters[band, k] = max(0.0, min(rise, fall)) * 2.0 / (right - left)
    return filters


def reflected(i: int, n: int) -> int:
    """The index that position i falls on when [0, n) is mirrored at its ends, again and again."""
    while not 0 <= i < n:
        i = 0 if n == 1 else (-i if i < 0 else 2 * (n - 1) - i)
    return i


def slow_log_mel(samples: np.ndarray) -> np.ndarray:
    y = samples.astype(float) - samples.astype(float).mean()
    y = np.array([y[0]] + [y[i] - 0.97 * y[i - 1] for i in range(1, len(y))])
    hamming = np.array([0.54 - 0.46 * np.cos(2 * np.pi * i / 400) for i in range(400)])
    dft = np.exp(-2j * np.pi * np.outer(np.arange(201), np.arange(400)) / 400)
    columns = []
    for t in range(1 + len(y) // 160):
        frame = np.array([y[reflected(160 * t - 200 + i, len(y))] for i in range(400)])
        columns.append(slow_mel_filters() @ np.abs(dft @ (hamming * frame)) ** 2)
    power = np.stack(columns, axis=1)  # (40, T)
    decibels = 10 * np.log10(np.maximum(1e-10, power)) - 10 * np.log10(max(1e-10, power.max()))
    return np.maximum(decibels, decibels.max() - 80)


@pytest.mark.parametrize("n_samples", [2, 160, 200, 201, 399, 800, 4000])
def test_the_front_end_equals_a_slow_one(n_samples):
    ours = log_mel(fading_tone(n_samples), 16_000)
    assert (ours.shape, ours.dtype) == ((40, 1 + n_samples // 160), np.float32)
    np.testing.assert_allclose(ours, slow_log_mel(fading_tone(n_samples)), atol=2e-3)
    assert ours.max() == 0.0
    assert ours.min() >= -80.0


def test_a_tone_lies_in_its_band():
    tone = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32)
    edges_mel = np.linspace(20 * 3 / 200, 15 + 27 * np.log(8) / np.log(6.4), 42)
    nearest = int(np.abs(edges_mel[1:-1] - 15).argmin())  # 1 kHz is 15 mel
    assert (log_mel(tone, 16_000)[:, 10:-10].argmax(axis=0) == nearest).all()


def test_loudness_and_offset_do_not_matter():
    samples = fading_tone(4000).astype(np.float64)
    quiet = (0.25 * samples + 0.1).astype(np.float32)
    np.testing.assert_allclose(log_mel(quiet, 16_000), log_mel(fading_tone(4000), 16_000), atol=0.02)


@pytest.mark.parametrize("n_samples", [1, 7, 160, 5000])
def test_digital_silence_is_0_db_everywhere(n_samples):
    for level in (0.0, 0.3):  # 0.3: a constant offset is silence, too
        np.testing.assert_array_equal(log_mel(np.full(n_samples, level, dtype=np.float32), 16_000), 0.0)


def test_a_long_clip_is_worked_through_in_blocks(monkeypatch):
    whole = log_mel(fading_tone(8000), 16_000)
    monkeypatch.setattr("extractors.logmel._FRAMES_AT_ONCE", 7)
    np.testing.assert_allclose(log_mel(fading_tone(8000), 16_000), whole, atol=1e-5)


def test_another_sample_rate_is_refused():
    with pytest.raises(ValueError, match="expected a waveform at 16000 Hz, got 44100 Hz; resample it first"):
        log_mel(fading_tone(100), 44_100)


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.zeros((2, 100), np.float32)])
def test_no_samples_or_two_channels_are_refused(samples):
    with pytest.raises(ValueError, match="expected a mono waveform of at least one sample, got shape"):
        log_mel(samples, 16_000)


@pytest.mark.parametrize("n_samples", [1, 2, 250, 5000])
def test_frames_are_cut_as_from_a_padded_waveform(monkeypatch, n_samples):
    samples = fading_tone(n_samples)
    padded = np.pad(samples - samples.mean(dtype=np.float64), 320, mode="reflect")
    expected = np.stack([padded[160 * t : 160 * t + 640] for t in range(1 + n_samples // 160)])
    for at_once in (1024, 3):
        monkeypatch.setattr("extractors.logmel._FRAMES_AT_ONCE", at_once)
        np.testing.assert_allclose(np.concatenate(list(frame_blocks(samples, 640))), expected, atol=1e-12)


# --- librosa ---


def librosa_log_mel(samples: np.ndarray) -> np.ndarray:
    """The published recipe (dataloaders/utils.py of ResDAVEnet-VQ), with the padding of its time's librosa."""
    centred = samples.astype(np.float64) - samples.mean(dtype=np.float64)
    emphasised = np.append(centred[0], centred[1:] - 0.97 * centred[:-1])
    spectrum = librosa.stft(
        emphasised, n_fft=400, hop_length=160, win_length=400, window="hamming", center=True, pad_mode="reflect"
    )
    filters = librosa.filters.mel(sr=16_000, n_fft=400, n_mels=40, fmin=20)
    return librosa.power_to_db(filters @ np.abs(spectrum) ** 2, ref=np.max)


@pytest.mark.parametrize("style", ["charged", "subdued"])
def test_a_voice_as_librosa_sees_it(style):
    samples = voice(style)
    ours, theirs = log_mel(samples, 16_000), librosa_log_mel(samples)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < 1e-3  # dB
    assert ours.std() > 5  # there is something to agree on


@pytest.mark.shared_data
@pytest.mark.skipif(not GRID.is_dir(), reason="the GRID clips are not beside the checkout (../shared/data/grid)")
def test_real_speech_as_librosa_sees_it():
    clips = sorted(GRID.glob("*.mpg"))
    assert clips
    for path in clips:
        samples = read_media(Clip(path.stem, str(path)), MediaNeeds(sample_rate_hz=16_000)).require_waveform().samples
        assert np.abs(log_mel(samples, 16_000) - librosa_log_mel(samples)).max() < 1e-3, path.name  # dB
