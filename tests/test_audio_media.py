"""Sounds at the edge of what a camera writes, as real files through the real path of every audio backbone."""

import tracemalloc
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from audio_factory import voice
from media_factory import write_clip

from extractors import registry
from extractors.base import Embedding, Extractor
from extractors.clip import Clip
from extractors.log_mel_preparer import MAX_FRAMES
from extractors.media import read_media

AUDIO = pytest.mark.parametrize("name", registry.known("audio"))
MB = 2**20


@cache
def extractor(name: str) -> Extractor:
    return registry.create(name, weights="random", seed=1, device="cpu", batch_size=4)


def square(n_samples: int) -> np.ndarray:
    """200 Hz from full scale to full scale, as a microphone far too loud."""
    return np.where(np.arange(n_samples) % 80 < 40, 1.0, -1.0)


def resampled(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    n_samples = len(samples) * rate_hz // 16_000
    return np.interp(np.arange(n_samples) / rate_hz, np.arange(len(samples)) / 16_000, samples)


def room(n_samples: int) -> np.ndarray:
    return 1e-4 * np.random.default_rng(0).standard_normal(n_samples)


# name -> (suffix, sample rate, (channels, samples))
SOUNDS = {
    "silence": (".mp4", 44_100, lambda: room(88_200)[None]),
    "digital zero": (".wav", 16_000, lambda: np.zeros((1, 32_000))),
    "clipping": (".wav", 16_000, lambda: square(32_000)[None]),
    "8 kHz": (".wav", 8000, lambda: resampled(voice("lively"), 8000)[None]),
    "44.1 kHz stereo": (".mp4", 44_100, lambda: np.stack([resampled(voice("level"), 44_100)] * 2) * [[1.0], [0.3]]),
    "50 ms": (".wav", 16_000, lambda: voice("charged")[None, 8000:8800]),
}


def written(tmp_path: Path, suffix: str, rate_hz: int, audio: np.ndarray) -> tuple[Clip, float]:
    """A clip with this sound, and how long it is in seconds."""
    duration_s = audio.shape[1] / rate_hz
    path = write_clip(
        tmp_path / f"clip{suffix}", audio=audio.astype(np.float32), sample_rate_hz=rate_hz, duration_s=duration_s
    )
    return Clip("a", str(path)), duration_s


@AUDIO
@pytest.mark.parametrize("case", SOUNDS)
def test_any_sound_has_finite_features_of_the_right_length(tmp_path, name, case):
    suffix, rate_hz, samples = SOUNDS[case]
    clip, duration_s = written(tmp_path, suffix, rate_hz, samples())
    made = extractor(name)
    item = made.preparer.prepare(clip, read_media(clip, made.preparer.needs))
    [embedding] = made.encode([item], keep_sequence=True)
    assert isinstance(embedding, Embedding)
    assert embedding.vector.shape == (made.dim,)
    assert np.isfinite(embedding.vector).all()
    assert np.isfinite(embedding.sequence).all()
    slack = 5 if suffix == ".mp4" else 1  # frames that AAC adds, and the resampler's tail
    assert abs(embedding.n_units - (1 + duration_s * 100)) <= slack


@AUDIO
def test_44_khz_stereo_is_nearly_the_same_voice(tmp_path, name):
    """Resampled and mixed down, a vector moves far less than with another way of speaking."""
    made = extractor(name)

    def vector(samples: np.ndarray, rate_hz: int = 16_000) -> np.ndarray:
        clip, _ = written(tmp_path, ".wav", rate_hz, samples)
        [embedding] = made.encode([made.preparer.prepare(clip, read_media(clip, made.preparer.needs))])
        return embedding.vector

    plain, other = vector(voice("lively")[None]), vector(voice("subdued")[None])
    stereo = vector(np.stack([resampled(voice("lively"), 44_100)] * 2), 44_100)
    assert np.linalg.norm(stereo - plain) < 0.3 * np.linalg.norm(other - plain)


@AUDIO
@pytest.mark.slow
def test_ten_minutes_stay_within_memory(tmp_path, name):
    once = voice("lively")
    clip, _ = written(tmp_path, ".wav", 16_000, np.resize(once, 16_000 * 600)[None])
    made = extractor(name)
    media = read_media(clip, made.preparer.needs)
    assert media.require_waveform().samples.shape == (16_000 * 600,)
    tracemalloc.start()
    try:
        item = made.preparer.prepare(clip, media)
        kept, peak = tracemalloc.get_traced_memory()
        [embedding] = made.encode([item])
    finally:
        tracemalloc.stop()
    assert peak < 80 * MB  # the waveform itself is 37 MB
    assert kept < 20 * MB  # while it waits for its batch
    assert np.isfinite(embedding.vector).all()
    assert embedding.n_units == (60_001 if name == "audio/logmel_stats" else MAX_FRAMES)
