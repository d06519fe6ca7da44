"""Hands that go with a face: both to the head, thumbs up, both to the cheeks. Drawn over the finished head.

Places are in the head's own pixels (face.CANVAS), from the middle of the face; the shot scales them.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.corpora.synthetic.people import Colour, Person

_SUBPIXEL_BITS = 4
_BELOW = 330.0  # how far under its place a hand waits, out of the frame

Vector = NDArray[np.float64]  # (2,) x, y


class Hands:
    """A pen over one frame.

    Args:
        frame: (H, W, 3) uint8 RGB, drawn on.
        person: skin and sleeves.
        origin: frame pixels of the middle of the face.
        scale: frame pixels a canvas pixel.
    """

    def __init__(self, frame: NDArray[np.uint8], person: Person, origin: Vector, scale: float) -> None:
        self._frame = frame
        self._skin = person.skin
        self._shade = _scaled(person.skin, 0.66)
        self._sleeve = person.shirt
        self._origin = origin
        self._scale = scale

    def draw(self, gesture: str, raised: float) -> None:
        """Draw a gesture.

        Args:
            gesture: a key of GESTURES.
            raised: 0 (out of sight below) .. 1 (in place).
        """
        if raised > 0.02:
            for side in (-1, 1):
                GESTURES[gesture](self, np.array([0.0, (1 - raised) * _BELOW]), side)

    def hand_to_head(self, drop: Vector, side: int) -> None:
        wrist = np.array([side * 112.0, -22]) + drop
        self._arm(wrist, np.array([side * 172.0, 330]) + drop)
        palm = np.array([side * 88.0, -66]) + drop
        tips = [(62, -130), (42, -120), (26, -102), (22, -82)]
        self._fingers(palm, [np.array([side * x, y]) + drop for x, y in tips], width=20)
        self._blob(palm, 32, 34)
        self._fingers(palm + [0, 12], [np.array([side * 80.0, -14]) + drop], width=20)

    def thumb_up(self, drop: Vector, side: int) -> None:
        fist = np.array([side * 84.0, 108]) + drop
        self._arm(fist + [side * 8, 28], np.array([side * 150.0, 340]) + drop)
        self._fingers(fist + [side * 4, -12], [fist + [side * 4, -82]], width=26)
        self._blob(fist, 40, 37)
        for row in (-20, -3, 14):
            self._line(fist + [-side * 32, row], fist + [side * 6, row + 2], 2.0)

    def hand_to_cheek(self, drop: Vector, side: int) -> None:
        palm = np.array([side * 92.0, 76]) + drop
        self._arm(palm + [side * 10, 36], np.array([side * 150.0, 350]) + drop)
        tips = [(64, -2), (80, -14), (97, -12), (112, 4)]
        self._fingers(palm, [np.array([side * x, y]) + drop for x, y in tips])
        self._fingers(palm + [-side * 6, 14], [palm + [-side * 40, 2]], width=19)
        self._blob(palm, 32, 36)

    def _arm(self, wrist: Vector, elbow: Vector) -> None:
        along = (elbow - wrist) / np.linalg.norm(elbow - wrist)
        across = np.array([-along[1], along[0]])
        cuff = wrist + 34 * along
        self._polygon([wrist - 21 * across, wrist + 21 * across, cuff + 23 * across, cuff - 23 * across], self._skin)
        corners = [cuff - 29 * across, cuff + 29 * across, elbow + 46 * across, elbow - 46 * across]
        self._polygon(corners, self._sleeve)
        self._line(cuff - 28 * across, cuff + 28 * across, 2.5, _scaled(self._sleeve, 0.6))

    def _fingers(self, palm: Vector, tips: list[Vector], width: float = 18) -> None:
        for tip in tips:
            root = palm + 0.25 * (tip - palm)
            self._line(root, tip, width + 3, self._shade)
            self._line(root, tip, width, self._skin)

    def _blob(self, centre: Vector, half_width: float, half_height: float) -> None:
        angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        around = np.stack([np.cos(angle) * half_width, np.sin(angle) * half_height], 1)
        self._polygon(centre + around * 0.98, self._skin)

    def _polygon(self, points: list[Vector] | NDArray[np.float64], colour: Colour) -> None:
        cv2.fillPoly(self._frame, [self._fixed(np.asarray(points))], colour, cv2.LINE_AA, _SUBPIXEL_BITS)

    def _line(self, start: Vector, end: Vector, width: float, colour: Colour | None = None) -> None:
        a, b = (tuple(int(v) for v in self._fixed(point)) for point in (start, end))
        thickness = max(1, round(width * self._scale))
        cv2.line(self._frame, a, b, colour or self._shade, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)

    def _fixed(self, points: NDArray[np.float64]) -> NDArray[np.int32]:
        return np.round((points * self._scale + self._origin) * (1 << _SUBPIXEL_BITS)).astype(np.int32)


GESTURES: dict[str, Callable[[Hands, Vector, int], None]] = {
    "hands_to_head": Hands.hand_to_head,
    "thumbs_up": Hands.thumb_up,
    "hands_to_cheeks": Hands.hand_to_cheek,
}


def _scaled(colour: Colour, factor: float) -> Colour:
    red, green, blue = (round(channel * factor) for channel in colour)
    return red, green, blue
