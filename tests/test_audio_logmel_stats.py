"""The statistics by hand, on sounds whose pitch and loudness are known, and against librosa's pYIN on a voice."""

from pathlib import Path

import librosa
import numpy as np
import pytest
from audio_factory import CLIP, fading_tone, sound, voice

from extractors.audio_logmel_stats import LogMelStats, loudness, pitch, rows_behind
from extractors.clip import Clip
from extractors.logmel import log_mel
from extractors.media import MediaNeeds, read_media
from extractors.weights import WeightsError

GRID = Path(__file__).parents[2] / "shared" / "data" / "grid"
PITCH, LOUDNESS, SD_OF = 40, 41, 42


def embed(samples: np.ndarray):
    extractor = LogMelStats()
    [embedding] = extractor.encode([extractor.preparer.prepare(CLIP, sound(samples))], keep_sequence=True)
    return embedding


def semitones(hz: float | np.ndarray) -> float | np.ndarray:
    return 12 * np.log2(hz / 27.5)


def harmonics(pitch_hz: np.ndarray | float, seconds: float = 1.0, amplitude: float = 0.1) -> np.ndarray:
    """A buzz like a voice's: every harmonic up to 7.5 kHz, falling by 6 dB an octave; one pitch, or each sample's."""
    track = np.broadcast_to(pitch_hz, round(seconds * 16_000))
    phase = 2 * np.pi * np.cumsum(track) / 16_000
    count = int(7500 / track.max())
    return amplitude * sum(np.sin(k * phase) / k for k in range(1, count + 1))


def test_means_then_standard_deviations_of_what_numpy_finds():
    samples = voice("lively")
    bands, pitches, levels = log_mel(samples, 16_000), pitch(samples, loudness(samples)), loudness(samples)
    voiced = pitches[~np.isnan(pitches)]
    assert 20 < len(voiced) < len(pitches) - 20
    expected = [*bands.mean(axis=1), voiced.mean(), levels.mean(), *bands.std(axis=1), voiced.std(), levels.std()]
    np.testing.assert_allclose(embed(samples).vector, expected, rtol=1e-4, atol=1e-4)


def test_the_rows_by_hand():
    tracks = np.zeros((4, 42), dtype=np.float32)
    tracks[:, 0] = [1, 1, 3, 3]  # mean 2, sd 1
    tracks[:, PITCH] = [10, np.nan, np.nan, 20]  # over the voiced: mean 15, sd 5
    tracks[:, LOUDNESS] = -20  # never moves
    rows = rows_behind(tracks)
    np.testing.assert_allclose(rows[:, 0], [1, 1, 3, 3])
    np.testing.assert_allclose(rows[:, SD_OF], 1)
    np.testing.assert_allclose(rows[:, PITCH], [10, 15, 15, 20])
    np.testing.assert_allclose(rows[:, SD_OF + PITCH], [10, 0, 0, 10])  # 25 * 4 / 2 voiced / 5
    np.testing.assert_allclose(rows[:, LOUDNESS], -20)
    np.testing.assert_allclose(rows.mean(axis=0)[[0, PITCH, LOUDNESS]], [2, 15, -20])
    np.testing.assert_allclose(rows.mean(axis=0)[[SD_OF, SD_OF + PITCH, SD_OF + LOUDNESS]], [1, 5, 0])


@pytest.mark.parametrize("pitch_hz", [80, 97.3, 131.1, 175.8, 220, 317, 405, 450, 492])
def test_the_pitch_of_a_buzz_and_of_a_sine(pitch_hz):
    sine = np.sin(2 * np.pi * pitch_hz * np.arange(16_000) / 16_000)
    for samples in (harmonics(pitch_hz), harmonics(pitch_hz)[::-1], sine):
        found = pitch(samples, loudness(samples))
        assert len(found) == 101
        np.testing.assert_allclose(found[3:-3], semitones(pitch_hz), atol=0.06)  # the ends are reflected


def test_the_spread_of_a_vibrato():
    t = np.arange(32_000) / 16_000
    samples = harmonics(200 * 2 ** (2 * np.sin(2 * np.pi * t) / 12), seconds=2)  # two semitones up and down
    vector = embed(samples).vector
    assert vector[PITCH] == pytest.approx(semitones(200), abs=0.05)
    assert vector[SD_OF + PITCH] == pytest.approx(2 / np.sqrt(2), abs=0.05)


def test_loudness_is_that_of_a_meter():
    quiet, loud = harmonics(110, amplitude=0.01), harmonics(110, amplitude=0.1)
    level = 10 * np.log10(np.mean(loud**2))
    assert embed(loud).vector[LOUDNESS] == pytest.approx(level, abs=0.1)
    assert embed(loud + 0.2).vector[LOUDNESS] == pytest.approx(level, abs=0.1)  # an offset is not heard
    both = embed(np.concatenate([quiet, loud])).vector  # 20 dB apart, half the time each
    assert both[LOUDNESS] == pytest.approx(level - 10, abs=0.3)
    assert both[SD_OF + LOUDNESS] == pytest.approx(10, abs=0.3)
    np.testing.assert_allclose(
        np.delete(embed(quiet).vector, LOUDNESS), np.delete(embed(loud).vector, LOUDNESS), atol=0.01
    )


def test_only_the_voiced_frames_have_a_pitch():
    rng = np.random.default_rng(0)
    hiss = 0.03 * rng.standard_normal(16_000)
    embedding = embed(np.concatenate([harmonics(150), hiss]))
    assert embedding.vector[PITCH] == pytest.approx(semitones(150), abs=0.05)
    assert embedding.vector[SD_OF + PITCH] < 0.3
    np.testing.assert_allclose(embedding.sequence[105:, PITCH], embedding.vector[PITCH], atol=1e-4)
    np.testing.assert_allclose(embedding.sequence[105:, SD_OF + PITCH], 0, atol=1e-9)


def test_a_frame_an_octave_and_more_away_is_not_the_voice():
    samples = np.concatenate([harmonics(100), harmonics(390, seconds=0.3)])
    found = pitch(samples, loudness(samples))
    assert np.isnan(found[105:]).all()
    assert np.nanmax(found) < semitones(101)
    nearer = np.concatenate([harmonics(100), harmonics(180, seconds=0.3)])
    np.testing.assert_allclose(pitch(nearer, loudness(nearer))[105:125], semitones(180), atol=0.05)


@pytest.mark.parametrize(
    "samples", [np.zeros(1), np.zeros(9000), np.full(800, 0.3), 0.1 * np.random.default_rng(1).standard_normal(32_000)]
)
def test_without_a_voice_the_pitch_is_0(samples):
    vector = embed(samples).vector
    assert vector[PITCH] == vector[SD_OF + PITCH] == 0


def test_digital_silence_has_a_vector():
    vector = embed(np.zeros(16_000)).vector
    assert vector.tolist() == [0.0] * 41 + [-100.0] + [0.0] * 42


def test_a_long_clip_counts_whole_and_is_worked_through_in_blocks(monkeypatch):
    samples = np.concatenate([fading_tone(16_000 * 21), voice("charged")])
    whole = embed(samples)
    assert whole.n_units == len(whole.sequence) == 1 + len(samples) // 160 > 2048
    monkeypatch.setattr("extractors.logmel._FRAMES_AT_ONCE", 101)
    np.testing.assert_allclose(embed(samples).vector, whole.vector, rtol=1e-5, atol=1e-5)


# --- pYIN ---


def agreement(samples: np.ndarray) -> tuple[float, float]:
    """Share of the frames voiced by both that agree within a semitone; how far apart the medians over them lie."""
    theirs_hz, voiced, _ = librosa.pyin(samples, fmin=75, fmax=500, sr=16_000, frame_length=1024, hop_length=160)
    ours = pitch(samples, loudness(samples))
    both = voiced & ~np.isnan(ours)
    assert both.sum() > 30
    gaps = semitones(theirs_hz[both]) - ours[both]
    return float((np.abs(gaps) < 1).mean()), abs(float(np.median(gaps)))


@pytest.mark.parametrize("style", ["charged", "level"])
def test_a_voice_has_the_pitch_that_pyin_finds(style):
    share, gap = agreement(voice(style))
    assert share > 0.9
    assert gap < 0.3


@pytest.mark.shared_data
@pytest.mark.skipif(not GRID.is_dir(), reason="the GRID clips are not beside the checkout (../shared/data/grid)")
def test_real_speech_has_the_pitch_that_pyin_finds():
    paths = sorted(GRID.glob("*.mpg"))[::6]
    media = [read_media(Clip(path.stem, str(path)), MediaNeeds(sample_rate_hz=16_000)) for path in paths]
    shares, gaps = zip(*(agreement(one.require_waveform().samples) for one in media), strict=True)
    assert np.mean(shares) > 0.85
    assert max(gaps) < 0.5


# --- weights ---


def test_it_has_no_weights_and_says_so():
    for weights in ("hub", "random", "self"):
        record = LogMelStats(weights=weights, seed=7).weights_record
        assert record["source"] == "none"
        assert not {"trained", "sha256", "seed"} & record.keys()


@pytest.mark.parametrize("weights", ["davenet.pth", "package:some_wheel"])
def test_weights_that_would_not_be_used_are_refused(weights):
    with pytest.raises(
        WeightsError, match=f"has no weights, so extract.audio.weights={weights} would not be used; set it"
    ):
        LogMelStats(weights=weights)
