"""Pitch and loudness of sounds whose pitch and loudness are known, and against torchaudio's own pitch."""

import math

import numpy as np
import pytest
import torch
from torchaudio.functional import detect_pitch_frequency, loudness

from pipeline.report.voice import k_weighting, loudness_lufs, pitch_hz

RATE_HZ = 16000


def voice(pitch, seconds=1.0, rate_hz=RATE_HZ):
    """A buzz of ten harmonics falling by 1/k, as vocal cords make it: (L,) float32."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.2 * sum(np.sin(2 * np.pi * k * pitch * t) / k for k in range(1, 11))).astype(np.float32)


def noise(seconds=1.0, level=0.1):
    return (level * np.random.default_rng(0).normal(size=round(seconds * RATE_HZ))).astype(np.float32)


@pytest.mark.parametrize("pitch", [80, 117.3, 180, 246, 333, 480])
@pytest.mark.parametrize("rate_hz", [16000, 44100])
def test_the_pitch_of_a_buzz_is_found(pitch, rate_hz):
    assert pitch_hz(voice(pitch, rate_hz=rate_hz), rate_hz) == pytest.approx(pitch, rel=0.01)


def test_a_missing_fundamental_is_heard():
    t = np.arange(RATE_HZ) / RATE_HZ
    harmonics = sum(np.sin(2 * np.pi * k * 150 * t) for k in (3, 4, 5, 6))
    assert pitch_hz((0.1 * harmonics).astype(np.float32), RATE_HZ) == pytest.approx(150, rel=0.01)


def test_it_agrees_with_torchaudio():
    glide = np.concatenate([voice(pitch, 0.5) for pitch in (120, 140, 170)])
    theirs = detect_pitch_frequency(torch.from_numpy(glide)[None], RATE_HZ).median()
    assert pitch_hz(glide, RATE_HZ) == pytest.approx(float(theirs), rel=0.02)


def test_silence_noise_and_hum_between_words_do_not_count():
    quiet_hum = 0.02 * voice(100, 3.0)  # below the silence threshold of the loud part
    mixed = np.concatenate([quiet_hum, noise(1.0), voice(210), np.zeros(RATE_HZ, np.float32)])
    assert pitch_hz(mixed, RATE_HZ) == pytest.approx(210, rel=0.01)


@pytest.mark.parametrize(
    "samples",
    [noise(2.0), np.zeros(RATE_HZ, np.float32), np.full(RATE_HZ, 0.5, np.float32), voice(200, 0.05), voice(200, 0.001)],
    ids=["noise", "silence", "offset", "too little", "shorter than a frame"],
)
def test_what_is_no_voice_has_no_pitch(samples):
    assert pitch_hz(samples, RATE_HZ) is None


def test_a_long_sound_is_measured_in_pieces():
    assert pitch_hz(np.tile(voice(200), 60), RATE_HZ) == pytest.approx(200, rel=0.01)


def sine(frequency, decibels, seconds=2.0, rate_hz=48000):
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return (10 ** (decibels / 20) * np.sin(2 * np.pi * frequency * t)).astype(np.float32)


def test_loudness_is_the_standards_reference():
    # BS.1770: a 997 Hz sine of full scale in one channel reads -3.01 LKFS; decibels add.
    assert loudness_lufs(sine(997, 0), 48000) == pytest.approx(-3.01, abs=0.05)
    assert loudness_lufs(sine(997, -20), 48000) == pytest.approx(-23.01, abs=0.05)


def test_the_weighting_has_the_standards_coefficients():
    # BS.1770-4, tables 1 and 2: for 48 kHz.
    (shelf_b, shelf_a), (high_b, high_a) = k_weighting(48000)
    assert shelf_b == pytest.approx([1.53512485958697, -2.69169618940638, 1.19839281085285], abs=1e-12)
    assert shelf_a == pytest.approx([1.0, -1.69065929318241, 0.73248077421585], abs=1e-12)
    assert high_b == [1.0, -2.0, 1.0]
    assert high_a == pytest.approx([1.0, -1.99004745483398, 0.99007225036621], abs=1e-12)


@pytest.mark.parametrize("rate_hz", [16000, 44100])
def test_loudness_agrees_with_torchaudio(rate_hz):
    # Whose shelf is a little lower: its reading of the reference sine is -3.28.
    samples = np.concatenate([voice(150, 1.0, rate_hz), 0.02 * voice(150, 1.0, rate_hz), voice(300, 1.3, rate_hz)])
    theirs = float(loudness(torch.from_numpy(samples)[None], rate_hz))
    assert loudness_lufs(samples, rate_hz) == pytest.approx(theirs, abs=0.4)


def test_bass_counts_less_and_pauses_do_not_count():
    assert loudness_lufs(sine(40, -20), 48000) < loudness_lufs(sine(997, -20), 48000) - 3
    with_pause = np.concatenate([sine(997, -20), np.zeros(3 * 48000, np.float32)])
    # Without the gate the mean over 5 s would be 4 dB lower; one block straddles the end of the tone.
    assert loudness_lufs(with_pause, 48000) == pytest.approx(loudness_lufs(sine(997, -20), 48000), abs=0.6)


def test_a_clip_shorter_than_a_block_and_silence_have_no_loudness():
    assert loudness_lufs(sine(997, -20, 0.399, RATE_HZ), RATE_HZ) is None
    assert math.isfinite(loudness_lufs(sine(997, -20, 0.4, RATE_HZ), RATE_HZ))
    assert loudness_lufs(np.zeros(RATE_HZ, np.float32), RATE_HZ) is None
