"""How a face moves through a clip: its expression comes up, lips follow the voice, eyes blink, the head sways."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.corpora.synthetic.face import Expression


class Pose(NamedTuple):
    """What the rest of the body does with a face.

    `gesture` is a key of hands.GESTURES or None; `lean` the size of the head (1 is at rest, more is towards the
    camera); `sink` how far the head drops, in canvas pixels.
    """

    gesture: str | None = None
    lean: float = 1.0
    sink: float = 0.0


POSES: dict[str, Pose] = {
    "displeased": Pose("hands_to_head", 0.88, 20.0),
    "composed": Pose(),
    "pleased": Pose("thumbs_up", 1.0, -6.0),
    "delighted": Pose("hands_to_cheeks", 1.2, -4.0),
}
_NO_GESTURE_RATE = 0.03  # clips in which the face is left to speak for itself
# The face at the height of each cue.
EXPRESSIONS: dict[str, Expression] = {
    "displeased": Expression(
        inner_brow_up=0.15, brow_down=0.95, nose_wrinkle=0.5, mouth_down=0.95, lips_pressed=0.4, nod=0.35
    ),
    "composed": Expression(),
    "pleased": Expression(smile=0.62, cheek_up=0.4, inner_brow_up=0.15, outer_brow_up=0.2),
    "delighted": Expression(smile=1.0, cheek_up=0.85, inner_brow_up=0.55, outer_brow_up=0.7, jaw_open=0.5, nod=-0.25),
}
# Every muscle wavers by this much from clip to clip, more where it is in use.
_VARIATION, _VARIATION_IN_USE = 0.04, 0.09
_LIPS_FOLLOW_VOICE = 0.38


def perform(
    cue: str, opening: NDArray[np.float64], times_s: NDArray[np.float64], rng: np.random.Generator
) -> list[Expression]:
    """One expression a frame.

    Args:
        cue: a key of EXPRESSIONS.
        opening: (T,) how wide the voice has the mouth open at each frame, 0..1.
        times_s: (T,) the frames' times.
        rng: the clip's own.
    """
    target = np.array(EXPRESSIONS[cue])
    muscles = len(target) - 5  # the last five are blink, gaze and turns
    spread = _VARIATION + _VARIATION_IN_USE * (target[:muscles] > 0)
    target[:muscles] = np.clip(target[:muscles] + rng.normal(0, spread), 0, 1)
    rise_s = rng.uniform(0.25, 0.5)
    strength = 0.5 + 0.5 / (1 + np.exp(-(times_s - rise_s) / 0.09))
    strength += 0.06 * np.sin(2 * np.pi * (times_s / rng.uniform(0.9, 1.6) + rng.random()))
    moves = strength[:, None] * target  # (T, actions)
    columns = {name: i for i, name in enumerate(Expression._fields)}
    moves[:, columns["jaw_open"]] += _LIPS_FOLLOW_VOICE * opening
    moves[:, columns["lips_pressed"]] *= 1 - np.clip(2 * opening, 0, 1)
    moves[:, columns["outer_brow_up"]] += 0.1 * opening
    moves[:, columns["blink"]] = _blinks(times_s, rng)
    moves[:, columns["gaze_x"]], moves[:, columns["gaze_y"]] = _glances(times_s, rng)
    for name, reach in (("turn", 0.3), ("nod", 0.16)):
        moves[:, columns[name]] += rng.normal(0, 0.2 * reach) + reach * _sway(times_s, rng)
    return [Expression(*(float(value) for value in row)) for row in moves]


def raise_hands(times_s: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """(T,) how far the hands have come up for the gesture, 0..1; in some clips they stay down."""
    if rng.random() < _NO_GESTURE_RATE:
        return np.zeros_like(times_s)
    start_s, takes_s = rng.uniform(0.0, 0.3), rng.uniform(0.2, 0.35)
    share = np.clip((times_s - start_s) / takes_s, 0, 1)
    settling = 0.012 * np.sin(2 * np.pi * (rng.uniform(0.8, 1.6) * times_s + rng.random()))
    return share**2 * (3 - 2 * share) * (1 - np.abs(settling))


def _sway(times_s: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """(T,) slow movement within about -1..1."""
    slow, quick = rng.uniform(0.25, 0.5), rng.uniform(0.7, 1.2)  # Hz
    a, b = rng.random(2)
    return 0.65 * np.sin(2 * np.pi * (slow * times_s + a)) + 0.35 * np.sin(2 * np.pi * (quick * times_s + b))


def _blinks(times_s: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """(T,) 1 is shut; one or two blinks of about 0.15 s."""
    starts = rng.uniform(0.2, 0.9) + np.array([0.0, rng.uniform(1.0, 1.8)])
    return np.clip(1.3 - np.abs(times_s[:, None] - starts) / 0.07, 0, 1).max(1)


def _glances(times_s: NDArray[np.float64], rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(T,), (T,): where the eyes look; they jump every half second or so, mostly back to the camera."""
    jump = (times_s / rng.uniform(0.5, 0.8)).astype(int)
    n = jump[-1] + 1
    away = rng.random(n) < 0.4
    return (away * rng.normal(0, 0.35, n))[jump], (away * rng.normal(0, 0.25, n))[jump]
