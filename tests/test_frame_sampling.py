"""Target times against hand-computed ones; the picked frames against a double loop."""

import math
import random

import pytest

from extractors.frame_sampling import TIMESTAMP_ROUNDING_S, FramePicker, FrameSampling, target_times


@pytest.mark.parametrize(
    ("sampling", "start_s", "end_s", "expected"),
    [
        (FrameSampling(count=1), 0.0, 3.0, [1.5]),
        (FrameSampling(count=4), 0.0, 2.0, [0.25, 0.75, 1.25, 1.75]),
        (FrameSampling(count=2), 10.0, 12.0, [10.5, 11.5]),
        (FrameSampling(count=3), 0.0, 0.003, [0.0005, 0.0015, 0.0025]),
        (FrameSampling(fps=1), 0.0, 3.0, [0.0, 1.0, 2.0]),
        (FrameSampling(fps=1), 0.0, 3.1, [0.0, 1.0, 2.0, 3.0]),
        (FrameSampling(fps=2), 0.5, 1.6, [0.5, 1.0, 1.5]),
        (FrameSampling(fps=0.5), 0.0, 5.0, [0.0, 2.0, 4.0]),
        (FrameSampling(fps=1), 7.0, 7.1, [7.0]),
        # 1.3 - 1.0 is a little more than 0.3 in floating point; 1.3 itself is outside the span.
        (FrameSampling(fps=10), 1.0, 1.3, [1.0, 1.1, 1.2]),
    ],
)
def test_target_times(sampling: FrameSampling, start_s: float, end_s: float, expected: list[float]) -> None:
    times = target_times(sampling, start_s, end_s)
    assert times == pytest.approx(expected)
    assert all(start_s <= t < end_s for t in times)


@pytest.mark.parametrize("span", [(1.0, 1.0), (2.0, 1.0), (0.0, math.inf), (0.0, math.nan)])
def test_target_times_need_a_span(span: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"sampled from a span of time, got .* give end_s > start_s"):
        target_times(FrameSampling(count=1), *span)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "either fps or count, got fps=None and count=None"),
        ({"fps": 1.0, "count": 8}, "either fps or count, got fps=1.0 and count=8"),
        ({"fps": 0.0}, "fps must be a positive number of frames a second, got 0.0"),
        ({"fps": -2.0}, "fps must be a positive .* got -2.0"),
        ({"fps": math.nan}, "fps must be a positive .* got nan"),
        ({"fps": math.inf}, "fps must be a positive .* got inf"),
        ({"count": 0}, "count must be at least 1 frame, got 0"),
    ],
)
def test_sampling_refuses(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FrameSampling(**settings)  # type: ignore[arg-type]


def pick(times_s: list[float], targets_s: list[float]) -> list[int]:
    """The indices a FramePicker keeps of frames that come at times_s."""
    picker = FramePicker(targets_s)
    kept = [i for i, next_s in enumerate([*times_s[1:], math.inf]) if picker.keeps_frame_until(next_s)]
    assert picker.done
    return kept


@pytest.mark.parametrize(
    ("times_s", "targets_s", "expected"),
    [
        ([0.0, 0.1, 0.2, 0.3], [0.0, 0.15, 0.3], [0, 1, 3]),
        ([0.0, 0.1, 0.2], [0.1], [1]),  # a frame is on display from its own time on
        ([0.0, 0.0333, 0.0667], [1 / 30, 2 / 30], [1, 2]),  # as rounded to 0.1 ms
        ([0.0, 0.033, 0.067], [1 / 30, 2 / 30], [1, 2]),  # as Matroska rounds: 0.067 is later than 2 / 30
        ([0.5, 0.6], [0.0, 0.1], [0]),  # nothing is shown before the first frame
        ([0.0, 0.1], [5.0, 6.0], [1]),
        ([0.0, 1.0], [0.1, 0.2, 0.3, 1.1], [0, 1]),  # denser than the frames: each once
        ([0.0, 0.01, 2.0, 2.01], [1.0, 3.0], [1, 3]),  # a variable rate: the frame last shown
        ([0.0], [0.0], [0]),
        ([0.0, 0.1], [], []),
    ],
)
def test_frames_on_display(times_s: list[float], targets_s: list[float], expected: list[int]) -> None:
    assert pick(times_s, targets_s) == expected


def test_picks_equal_a_double_loop() -> None:
    rng = random.Random(0)
    for _ in range(200):
        times_s = sorted(rng.uniform(0, 3) for _ in range(rng.randint(1, 40)))
        targets_s = sorted(rng.uniform(0, 3) for _ in range(rng.randint(1, 20)))
        expected = set()
        for target_s in targets_s:
            shown = [i for i, time_s in enumerate(times_s) if time_s <= target_s + TIMESTAMP_ROUNDING_S]
            expected.add(shown[-1] if shown else 0)
        assert pick(times_s, targets_s) == sorted(expected)
