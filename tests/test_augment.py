"""Another recording of the same sound: within the front end's range, other each time, the same for the same seed."""

import numpy as np
import pytest

from extractors.pretraining.augment import another_recording


@pytest.fixture
def log_mel():
    speech = np.full((40, 90), -70.0, np.float32)
    speech[5:15, 20:60] = 0.0
    return speech


def test_what_comes_out_is_a_log_mel(log_mel):
    for seed in range(20):
        heard = another_recording(log_mel, np.random.default_rng(seed))
        assert heard.shape == log_mel.shape
        assert heard.dtype == np.float32
        assert heard.max() == 0.0
        assert heard.min() >= -80.0


def test_it_is_another_each_time_and_the_same_for_the_same_seed(log_mel):
    one, again, other = (another_recording(log_mel, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert np.abs(one - other).mean() > 1


def test_the_sound_is_still_the_same(log_mel):
    """Where it was loud it is louder than where it was not, whatever the microphone; the noise fills the gaps."""
    for seed in range(20):
        heard = another_recording(log_mel, np.random.default_rng(seed))
        loud, quiet = heard[5:15, 20:60].mean(), heard[5:15, 70:].mean()
        assert loud > quiet + 3
        assert quiet > -75


def test_silence_stays_finite():
    for level in (0.0, -80.0):
        assert np.isfinite(another_recording(np.full((40, 1), level, np.float32), np.random.default_rng(0))).all()
