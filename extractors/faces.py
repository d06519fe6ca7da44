"""The square around the largest face of a frame, found by a detector that comes with OpenCV."""

import threading
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from cv2.data import haarcascades
from numpy.typing import NDArray

CASCADE = "haarcascade_frontalface_alt2.xml"  # Viola and Jones' detector, trained by R. Lienhart; in OpenCV's wheel
# Side of the square, in sides of the detected box, which goes from amid the forehead to the chin. Of it the backbones'
# centre crop (224 of 256) leaves 1.14: hair to chin, and the chin of an open mouth too.
MARGIN = 1.3
SEARCH_SIDE = 240  # pixels: a larger frame is searched with its short side made this
# A face's smallest side, in short sides of the frame. Below it a face is too coarse for a network that sees 224 pixels
# (45 in a frame of 360 lines), and smaller boxes are more often no face.
SMALLEST_FACE = 1 / 8
SCALE_STEP = 1.1  # from one searched size of face to the next; 1.2 takes half the time and misses more
N_NEIGHBOURS = 3  # boxes that must agree on a face, OpenCV's default


class Square(NamedTuple):
    """A part of a frame, pixels."""

    top: int
    left: int
    side: int


def square_around(x: float, y: float, side: float, height: int, width: int) -> Square:
    """The square about a point, moved into the frame where it sticks out, made smaller where the frame is.

    Args:
        x, y: its centre, pixels from the left and the top.
        side: what it should be, pixels.
        height, width: of the frame, pixels.
    """
    fitting = max(1, min(round(side), height, width))
    top = min(max(round(y - fitting / 2), 0), height - fitting)
    left = min(max(round(x - fitting / 2), 0), width - fitting)
    return Square(top, left, fitting)


class FaceCutter(threading.local):
    """Cuts frames to their largest face. Thread-safe.

    Each frame is looked at by itself: boxes are not smoothed over time, a face that is missed in one frame is not taken
    from its neighbours, and of several people the nearest is taken, whoever speaks. Faces are neither turned upright
    nor aligned. The detector knows faces seen from the front; one in profile, tilted by much or half covered is missed.

    A cascade keeps what it is searching in itself, so threads cannot share one. As a threading.local this class makes
    one anew in each thread that uses it, 7 ms. OpenCV's own threads are left as they are: a search that begins while
    another is running gets none, and their number is the whole process'.
    """

    def __init__(self) -> None:
        self._cascade = cv2.CascadeClassifier(str(Path(haarcascades) / CASCADE))

    def find(self, frame: NDArray[np.uint8]) -> Square | None:
        """The square around the largest face of a (3, H, W) uint8 RGB frame; None where there is no face."""
        height, width = frame.shape[1:]
        grey = cv2.cvtColor(cv2.merge(tuple(frame)), cv2.COLOR_RGB2GRAY)  # (H, W)
        scale = min(1.0, SEARCH_SIDE / min(height, width))
        if scale < 1:
            grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        smallest = round(SMALLEST_FACE * min(grey.shape))
        boxes = self._cascade.detectMultiScale(grey, SCALE_STEP, N_NEIGHBOURS, minSize=(smallest, smallest))
        if not len(boxes):
            return None
        # OpenCV's threads find them in any order: of two of one size always the same is taken.
        x, y, side, _ = max(boxes, key=lambda box: (box[2], *box))
        return square_around((x + side / 2) / scale, (y + side / 2) / scale, MARGIN * side / scale, height, width)

    def cut(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """The square around the largest face of a (3, H, W) uint8 RGB frame, (3, S, S); None where there is none."""
        square = self.find(frame)
        if square is None:
            return None
        top, left, side = square
        return frame[:, top : top + side, left : left + side]
