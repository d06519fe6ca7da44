"""A shot: the person in front of a room, somewhere in the frame, in some light, through a noisy camera."""

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.corpora.synthetic.acting import Pose
from pipeline.corpora.synthetic.face import CENTRE, Expression, Image, draw_head
from pipeline.corpora.synthetic.hands import Hands
from pipeline.corpora.synthetic.people import Person

WIDTH, HEIGHT = 320, 240
_HEAD_SCALE = 0.8  # canvas to frame: the head is about 195 of the 240 lines high


class Shot:
    """Everything that stays the same through a clip: place, size, room, light, noise."""

    def __init__(self, person: Person, pose: Pose, rng: np.random.Generator) -> None:
        self._person = person
        self._pose = pose
        self._scale = _HEAD_SCALE * pose.lean * rng.uniform(0.95, 1.05)
        at = np.array([rng.uniform(-14, 14), rng.uniform(-7, 7)])
        self._head_at = np.array([WIDTH / 2, 122.0]) + at + [0, pose.sink * self._scale]
        self._tilt_deg = rng.normal(0, 2.5)
        self._background = _draw_room(rng)
        _draw_body(self._background, person, self._head_at, self._scale)
        self._light = _draw_light(rng)
        sigma = rng.uniform(2.0, 4.0)
        self._noise = rng.normal(0, sigma, (HEIGHT + 32, WIDTH + 32, 1)).astype(np.float32)

    def frame(self, expression: Expression, raised: float, rng: np.random.Generator) -> Image:
        """One frame, (HEIGHT, WIDTH, 3) uint8 RGB."""
        head, mask = draw_head(self._person, expression)
        turn_deg = self._tilt_deg + 5 * expression.turn
        matrix = cv2.getRotationMatrix2D(CENTRE, turn_deg, self._scale)
        sway = np.array([5 * expression.turn, 8 * expression.nod])
        matrix[:, 2] += self._head_at + sway - np.array(CENTRE)
        warped = cv2.warpAffine(cv2.merge([head, mask]), matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
        cover = warped[..., 3:].astype(np.float32) / 255
        image = self._background + cover * (warped[..., :3] - self._background)
        image = self._with_hands(image.astype(np.uint8), sway, raised)
        image *= self._light
        y, x = rng.integers(0, 32, 2)
        image += self._noise[y : y + HEIGHT, x : x + WIDTH]
        return np.clip(image, 0, 255).astype(np.uint8)

    def _with_hands(self, image: Image, sway: NDArray[np.float64], raised: float) -> NDArray[np.float32]:
        if self._pose.gesture is not None:
            hands = Hands(image, self._person, self._head_at + sway, self._scale)
            hands.draw(self._pose.gesture, raised)
        return image.astype(np.float32)


def _draw_room(rng: np.random.Generator) -> NDArray[np.float32]:
    """(HEIGHT, WIDTH, 3): a wall with a few things on it, out of focus."""
    wall = rng.uniform(135, 180) + rng.normal(0, 5, 3)
    room = np.empty((HEIGHT, WIDTH, 3), np.float32)
    room[:] = wall + np.linspace(12, -18, HEIGHT)[:, None, None]
    for _ in range(rng.integers(2, 5)):
        x, y = int(rng.uniform(0, WIDTH)), int(rng.uniform(0, HEIGHT * 0.8))
        w, h = (int(v) for v in rng.uniform(18, 70, 2))
        colour = tuple(float(v) for v in np.clip(wall + rng.uniform(-45, 30) + rng.normal(0, 10, 3), 20, 240))
        if rng.random() < 0.6:
            cv2.rectangle(room, (x, y), (x + w, y + h), colour, -1)
        else:
            cv2.ellipse(room, (x, y), (w // 2, h // 2), float(rng.uniform(0, 180)), 0, 360, colour, -1)
    return cv2.GaussianBlur(room, (0, 0), rng.uniform(4, 8)).astype(np.float32, copy=False)


def _draw_body(image: NDArray[np.float32], person: Person, head_at: NDArray[np.float64], scale: float) -> None:
    """Shoulders and neck, where the head will sit on them."""

    def fill(points: list[tuple[float, float]], colour: tuple[float, ...]) -> None:
        corners = np.round((np.array(points) * scale + head_at) * 16).astype(np.int32)
        cv2.fillPoly(image, [corners], colour, cv2.LINE_AA, 4)

    across = np.linspace(-1, 1, 40)
    shoulders = [(float(x * 205), float(150 + 62 * abs(x) ** 2.4)) for x in across]
    fill([*shoulders, (230.0, 400.0), (-230.0, 400.0)], person.shirt)
    shade = tuple(0.72 * channel for channel in person.skin)
    fill([(-44, 70), (44, 70), (50, 158), (0, 196), (-50, 158)], shade)
    fold = tuple(0.7 * channel for channel in person.shirt)
    for side in (-1, 1):
        fill([(side * 46, 146), (side * 62, 152), (side * 6, 206), (0, 194)], fold)


def _draw_light(rng: np.random.Generator) -> NDArray[np.float32]:
    """(HEIGHT, WIDTH, 3): a gain; brighter towards one side, warmer or cooler."""
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0.0, 0.18)
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    gain = rng.uniform(0.92, 1.08) * (1 + slope * (np.cos(angle) * x + np.sin(angle) * y))
    warmth = rng.normal(0, 0.02)
    return (gain[..., None] * np.array([1 + warmth, 1.0, 1 - warmth])).astype(np.float32)
