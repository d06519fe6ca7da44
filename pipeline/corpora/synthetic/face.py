"""A drawn head with a face that moves: hair, eyes, brows, nose and mouth, from a few muscle actions.

The head is drawn on a square canvas of its own (RGB and a coverage mask); scene.py turns, scales and lights it.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.corpora.synthetic.people import Colour, Person

CANVAS = 384  # pixels; the head is about 190 x 250 of them
CENTRE = (CANVAS / 2, CANVAS / 2 - 4)
_HALF_WIDTH, _HALF_HEIGHT = 92.0, 120.0
_SUBPIXEL_BITS = 4
_ANGLE = np.linspace(0, 2 * np.pi, 40, endpoint=False)
_UNIT_CIRCLE = np.stack([np.cos(_ANGLE), np.sin(_ANGLE)], 1)
_T = np.linspace(0, 1, 24)
# (24, 3): what each of three points adds to each point of the parabola through them.
_PARABOLA = np.stack([(1 - _T) * (1 - 2 * _T), 4 * _T * (1 - _T), _T * (2 * _T - 1)], 1)

Image = NDArray[np.uint8]
Points = NDArray[np.float64]  # (n, 2) x, y


class Expression(NamedTuple):
    """Muscle actions, 0 (at rest) .. 1 (full), after the Facial Action Coding System; gaze and turns are -1..1."""

    inner_brow_up: float = 0.0  # AU1
    outer_brow_up: float = 0.0  # AU2
    brow_down: float = 0.0  # AU4
    lid_up: float = 0.0  # AU5
    cheek_up: float = 0.0  # AU6
    nose_wrinkle: float = 0.0  # AU9
    smile: float = 0.0  # AU12
    mouth_down: float = 0.0  # AU15
    lips_pressed: float = 0.0  # AU24
    jaw_open: float = 0.0  # AU26
    blink: float = 0.0  # AU45
    gaze_x: float = 0.0
    gaze_y: float = 0.0
    turn: float = 0.0  # to the side: + is the viewer's right
    nod: float = 0.0  # + is down


def draw_head(person: Person, expression: Expression) -> tuple[Image, Image]:
    """One head.

    Returns:
        (CANVAS, CANVAS, 3) uint8 RGB and (CANVAS, CANVAS) uint8 coverage: 255 inside the head.
    """
    rgb = np.empty((CANVAS, CANVAS, 3), np.uint8)
    rgb[:] = person.hair
    mask = np.zeros((CANVAS, CANVAS), np.uint8)
    # The features slide over the skull as the head turns: a cheap and convincing depth.
    slide = np.array([expression.turn * 13.0, expression.nod * 11.0])
    contour = head_contour(person, expression.jaw_open)
    _draw_back_hair(rgb, mask, person, -0.5 * slide)
    _draw_ears(rgb, mask, person, -0.4 * slide)
    _fill(rgb, contour, person.skin)
    _fill(mask, contour, (255,))
    _shade_skin(rgb, contour, person, expression, slide)
    if person.beard:
        _draw_beard(rgb, person, expression, slide)
    for side in (-1, 1):
        _draw_eye(rgb, person, expression, side, slide)
    _draw_nose(rgb, person, slide)
    _draw_mouth(rgb, person, expression, slide)
    _draw_front_hair(rgb, mask, person, slide)
    for side in (-1, 1):
        _draw_brow(rgb, person, expression, side, slide)
    if person.glasses:
        _draw_glasses(rgb, person, slide)
    return rgb, mask


def head_contour(person: Person, jaw_open: float = 0.0) -> Points:
    """The outline of the face, (96, 2) canvas pixels, clockwise from the viewer's right."""
    angle = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    x, y = np.cos(angle), np.sin(angle)
    below = np.clip(y, 0, 1)
    x = np.sign(x) * np.abs(x) ** 0.9 * (1 - person.taper * below**2.2)
    y = y + 0.07 * jaw_open * below
    return _on_canvas(np.stack([x * _HALF_WIDTH * person.face_width, y * _HALF_HEIGHT * person.face_height], 1))


def _on_canvas(points: Points) -> Points:
    return points + np.array(CENTRE)


def _fixed(points: Points) -> NDArray[np.int32]:
    return np.round(points * (1 << _SUBPIXEL_BITS)).astype(np.int32)


def _fill(image: Image, points: Points, colour: tuple[int, ...]) -> None:
    cv2.fillPoly(image, [_fixed(points)], colour, cv2.LINE_AA, _SUBPIXEL_BITS)


def _stroke(image: Image, points: Points, colour: tuple[int, ...], width: float) -> None:
    thickness = max(1, round(width))
    cv2.polylines(image, [_fixed(points)], False, colour, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)


def _ellipse(centre: Points | tuple[float, float], half_width: float, half_height: float) -> Points:
    return _UNIT_CIRCLE * (half_width, half_height) + centre


def _curve(*control: tuple[float, float] | Points) -> Points:
    """A smooth curve through 3 points (a parabola in its parameter)."""
    return _PARABOLA @ np.array(control)


def _mix(a: Colour, b: Colour, share_of_b: float) -> Colour:
    r, g, b_ = (round((1 - share_of_b) * x + share_of_b * y) for x, y in zip(a, b, strict=True))
    return r, g, b_


def _darker(colour: Colour, share: float) -> Colour:
    return _mix(colour, (30, 12, 10), share)


# --- skin -----------------------------------------------------------------------------------------------------


def _shade_skin(rgb: Image, contour: Points, person: Person, expression: Expression, slide: Points) -> None:
    """Multiply in the soft light (jaw, eye sockets, nose, cheeks; at a quarter of the size) and the creases."""
    layers = [np.zeros((CANVAS // 4, CANVAS // 4), np.uint8) for _ in range(3)]
    shadow, light, blush = layers

    def blob(layer: Image, depth: float, x: float, y: float, half_width: float, half_height: float) -> None:
        shape = _on_canvas(_ellipse((x, y), half_width, half_height)) + slide
        _fill(layer, shape / 4, (round(depth),))

    cv2.polylines(shadow, [_fixed(contour / 4)], True, (130,), 6, cv2.LINE_AA, _SUBPIXEL_BITS)
    raised = expression.cheek_up
    for side in (-1, 1):
        blob(shadow, 75, side * 38 * person.eye_spacing, -18, 28, 17)
        blob(shadow, 50, side * 9 * person.nose_width, 20, 6, 22)
        blob(light, 50 + 90 * raised, side * 50, 32 - 8 * raised, 16, 12)
        blob(blush, 90 + 130 * raised, side * 50, 34 - 8 * raised, 24, 17)
    blob(shadow, 60, 0, 90, 22, 5)
    blob(light, 90, 0, -72, 46, 20)
    blob(light, 150, 0, 12, 5, 26)
    soft = cv2.GaussianBlur(cv2.merge(layers), (0, 0), 2.4).astype(np.float32) / 255
    gain = 1 - soft[..., :1] * np.array([0.45, 0.56, 0.6], np.float32)
    gain += soft[..., 1:2] * 0.3 + soft[..., 2:] * np.array([0.1, -0.1, -0.08], np.float32)
    full_size = cv2.resize(np.clip(gain * 128, 0, 255).astype(np.uint8), (CANVAS, CANVAS))
    cv2.multiply(rgb, full_size, dst=rgb, scale=1 / 128)
    fold = np.zeros((CANVAS, CANVAS), np.uint8)
    _draw_creases(fold, person, expression, slide)
    shade = 255 - cv2.GaussianBlur(fold, (7, 7), 1.6) // 2
    cv2.multiply(rgb, cv2.merge([shade, shade, shade]), dst=rgb, scale=1 / 255)


def _draw_creases(mask: Image, person: Person, e: Expression, slide: Points) -> None:
    """The lines that a moving face folds into; the mask's value is the depth of the fold."""
    mouth = 38 * person.mouth_width + 10 * e.smile
    spread = 38 * person.eye_spacing

    def line(depth: float, *control: tuple[float, float], width: float = 4) -> None:
        if depth > 0.04:
            _stroke(mask, _on_canvas(_curve(*control)) + slide, (round(min(depth, 1.0) * 255),), width)

    for side in (-1, 1):
        fold = 0.12 + 0.5 * max(e.smile, 0.9 * e.nose_wrinkle)
        reach = mouth + 8
        line(fold, (side * 20, 30), (side * (reach - 6), 44 - 4 * e.smile), (side * reach, 70 - 10 * e.smile))
        line(0.55 * e.mouth_down, (side * (mouth + 3), 84), (side * (mouth + 7), 92), (side * (mouth + 5), 101))
        line(0.7 * e.brow_down, (side * 8, -52), (side * 6, -44), (side * 8, -34))
        line(0.6 * e.nose_wrinkle, (side * 3, -20), (side * 9, -14), (side * 14, -4))
        under = 0.2 + 0.4 * e.cheek_up
        line(under, (side * (spread - 20), 4), (side * spread, 11 - 3 * e.cheek_up), (side * (spread + 20), 2))
        corner = side * (spread + 28)
        for lift in (-6, 1, 8):
            line(
                0.4 * e.cheek_up,
                (corner, -14 + lift),
                (corner + side * 7, -14 + 1.6 * lift),
                (corner + side * 13, -14 + 2.2 * lift),
                width=3,
            )
    raised = min(e.inner_brow_up, 1) * 0.6 + min(e.outer_brow_up, 1) * 0.4
    for height in (-74, -84):
        line(0.7 * raised, (-38, height + 2), (0, height - 3), (38, height + 2), width=3)


def _draw_ears(rgb: Image, mask: Image, person: Person, slide: Points) -> None:
    for side in (-1, 1):
        at = (side * (_HALF_WIDTH * person.face_width + 3), 0)
        for image, colour in ((rgb, _darker(person.skin, 0.1)), (mask, (255,))):
            _fill(image, _on_canvas(_ellipse(at, 14, 25)) + slide, colour)
        inner = (at[0] + side * 2, 0)
        _fill(rgb, _on_canvas(_ellipse(inner, 7, 15)) + slide, _darker(person.skin, 0.28))


def _draw_beard(rgb: Image, person: Person, e: Expression, slide: Points) -> None:
    contour = head_contour(person, e.jaw_open)
    lower = contour[(contour[:, 1] > CENTRE[1] + 34)]
    inner_width = 56 * person.mouth_width
    top = _on_canvas(_curve((-inner_width - 18, 36), (0, 52), (inner_width + 18, 36))) + slide
    layer = rgb.copy()
    _fill(layer, np.concatenate([lower, top]), _mix(person.hair, person.skin, 0.25))
    cv2.addWeighted(layer, 0.62, rgb, 0.38, 0, dst=rgb)


# --- eyes -----------------------------------------------------------------------------------------------------


def _draw_eye(rgb: Image, person: Person, e: Expression, side: int, slide: Points) -> None:
    centre = _on_canvas(np.array([[side * 38 * person.eye_spacing, -13.0]]))[0] + slide
    half = 23 * person.eye_size
    openness = float(np.clip(1 - e.blink, 0, 1))
    upper = (12 + 6 * e.lid_up - 4.5 * e.brow_down - 3 * e.cheek_up) * openness
    lower = (8 + 2 * e.lid_up - 2 * e.brow_down - 5.5 * e.cheek_up) * openness
    inner, outer = centre + [-side * half, 2], centre + [side * half, -2]
    top = _curve(inner, centre + [side * 1.0, -upper], outer)
    bottom = _curve(outer, centre + [side * 2.0, lower], inner)
    if openness > 0.2:
        white = np.zeros(rgb.shape[:2], np.uint8)
        _fill(white, np.concatenate([top, bottom]), (255,))
        x0, y0 = (centre - 34).astype(int)
        ball, hole = rgb[y0 : y0 + 68, x0 : x0 + 68], white[y0 : y0 + 68, x0 : x0 + 68]
        alpha = (hole / 255.0)[..., None]
        eyeball = _eyeball(person, e, 34.0 + (centre % 1), half)
        ball[:] = (alpha * eyeball + (1 - alpha) * ball).astype(np.uint8)
    _stroke(rgb, top, (36, 24, 22), 3 if person.lip_fullness < 1 else 4)
    _stroke(rgb, bottom, _darker(person.skin, 0.45), 1.4)
    crease = top + [0, -5.0 - 2 * e.lid_up]
    _stroke(rgb, crease[3:-2], _darker(person.skin, 0.35), 1.4)
    if person.lip_fullness >= 1:
        _stroke(rgb, np.stack([outer, outer + [side * 6.0, -5.0]]), (36, 24, 22), 2)


def _eyeball(person: Person, e: Expression, centre: Points, half: float) -> Image:
    ball = np.full((68, 68, 3), (240, 236, 232), np.uint8)
    at = centre + [e.gaze_x * half * 0.35, e.gaze_y * 5.0 - 1.0]
    radius = 11.5 * person.eye_size
    _fill(ball, _ellipse(at, radius, radius), _darker(person.iris, 0.35))
    _fill(ball, _ellipse(at, radius - 2, radius - 2), person.iris)
    _fill(ball, _ellipse(at, radius * 0.45, radius * 0.45), (16, 14, 16))
    _fill(ball, _ellipse(at + [3.5, -4.0], 2.6, 2.6), (250, 250, 250))
    ball[: int(centre[1] - 6)] = (ball[: int(centre[1] - 6)] * 0.82).astype(np.uint8)  # the lid's shadow
    return ball


def _draw_brow(rgb: Image, person: Person, e: Expression, side: int, slide: Points) -> None:
    spread = 38 * person.eye_spacing
    inner = np.array([side * (spread - 24 - 5 * e.brow_down), -40 - 15 * e.inner_brow_up + 13 * e.brow_down])
    middle = np.array([side * (spread + 2), -49 - 9 * e.outer_brow_up - 5 * e.inner_brow_up + 6 * e.brow_down])
    outer = np.array([side * (spread + 29), -40 - 9 * e.outer_brow_up + 1 * e.brow_down])
    line = _curve(inner, middle, outer)
    thick = 5.0 * person.brow_thickness * np.linspace(1.0, 0.35, len(line))[:, None] * np.array([0.0, 1.0])
    brow = np.concatenate([line - thick, (line + thick)[::-1]])
    colour = _darker(_mix(person.hair, (60, 44, 36), 0.35), 0.35)
    _fill(rgb, _on_canvas(brow) + slide * 1.05, colour)


def _draw_glasses(rgb: Image, person: Person, slide: Points) -> None:
    colour = (40, 36, 40)
    spread = 39 * person.eye_spacing
    for side in (-1, 1):
        rim = _ellipse((side * spread, -10), 33, 27)
        rim = np.concatenate([rim, rim[:1]])
        _stroke(rgb, _on_canvas(rim) + slide * 1.1, colour, 3)
        arm = np.array([[side * (spread + 32), -14], [side * _HALF_WIDTH * person.face_width, -10]], float)
        _stroke(rgb, _on_canvas(arm) + slide * np.array([[1.1], [0.2]]), colour, 3)
        glint = np.array([[side * spread - 18, -20.0], [side * spread - 10, -28.0]])
        _stroke(rgb, _on_canvas(glint) + slide * 1.1, (235, 238, 242), 2)
    _stroke(rgb, _on_canvas(_curve((-spread + 32, -14), (0, -18), (spread - 32, -14))) + slide * 1.1, colour, 3)


# --- nose and mouth -------------------------------------------------------------------------------------------


def _draw_nose(rgb: Image, person: Person, slide: Points) -> None:
    shade = _darker(person.skin, 0.38)
    wide = 13 * person.nose_width
    slide = slide * 1.25
    for side in (-1, 1):
        wing = _curve((side * wide, 24), (side * (wide + 4), 32), (side * (wide - 3), 37))
        _stroke(rgb, _on_canvas(wing) + slide, shade, 2)
        _fill(rgb, _on_canvas(_ellipse((side * wide * 0.5, 37), 4.2, 2.4)) + slide, _darker(person.skin, 0.62))
    _stroke(rgb, _on_canvas(_curve((-6, 40), (0, 42), (6, 40))) + slide, shade, 2)


def _draw_mouth(rgb: Image, person: Person, e: Expression, slide: Points) -> None:
    """Outer lips, then the dark of the mouth with teeth and tongue inside the inner lips."""
    half = 36 * person.mouth_width * (1 + 0.26 * e.smile - 0.06 * e.jaw_open - 0.05 * e.mouth_down)
    corner = 69 - 15 * e.smile + 13 * e.mouth_down
    gap_up = 2 * e.smile * (e.jaw_open > 0) * e.jaw_open + 3 * e.jaw_open
    gap_down = 25 * e.jaw_open
    middle = 69 + 2 * e.smile - 3 * e.mouth_down
    lip = 8.5 * person.lip_fullness * (1 - 0.6 * e.lips_pressed) * (1 - 0.25 * e.smile)
    left, right = (-half, corner), (half, corner)
    inner_top = _curve(left, (0, middle - gap_up), right)
    inner_bottom = _curve(right, (0, middle + gap_down), left)
    outer_top = _curve(left, (0, middle - gap_up - lip), right)
    bow = np.exp(-((np.linspace(-1, 1, len(outer_top)) / 0.16) ** 2)) * 2.2 * person.lip_fullness
    outer_top[:, 1] += bow
    outer_bottom = _curve(right, (0, middle + gap_down + lip * 1.25), left)
    lip_colour = _mix(person.skin, (168, 60, 66), 0.5 if person.lip_fullness >= 1 else 0.3)
    at = slide * 1.1
    _fill(rgb, _on_canvas(np.concatenate([outer_top, outer_bottom])) + at, lip_colour)
    upper_lip = np.concatenate([outer_top, inner_top[::-1]])
    _fill(rgb, _on_canvas(upper_lip) + at, _darker(lip_colour, 0.14))
    if e.jaw_open > 0.05:
        _draw_inside_of_mouth(rgb, _on_canvas(np.concatenate([inner_top, inner_bottom])) + at, e)
    _stroke(rgb, _on_canvas(inner_top) + at, _darker(person.skin, 0.72), 2.4)
    for x, y in (left, right):
        _fill(rgb, _on_canvas(_ellipse((x, y), 2.6, 2.2)) + at, _darker(person.skin, 0.6))


def _draw_inside_of_mouth(rgb: Image, opening: Points, e: Expression) -> None:
    hole = np.zeros(rgb.shape[:2], np.uint8)
    _fill(hole, opening, (255,))
    (x0, y0), (x1, y1) = np.floor(opening.min(0)).astype(int) - 1, np.ceil(opening.max(0)).astype(int) + 2
    inside = np.full((y1 - y0, x1 - x0, 3), (66, 18, 24), np.uint8)
    middle_x = (x1 - x0) / 2
    top = opening[len(opening) // 4] - [x0, y0]  # the middle of the upper inner lip
    tongue = _ellipse((middle_x, y1 - y0 + 1), (x1 - x0) * 0.3, (y1 - y0) * 0.34)
    _fill(inside, tongue, (188, 84, 88))
    teeth_height = 5.0 + 8.0 * e.smile
    band = opening[: len(opening) // 2] - [x0, y0]
    _fill(inside, np.concatenate([band, (band + [0, teeth_height])[::-1]]), (242, 238, 230))
    if e.smile > 0.5:
        for k in (-2, -1, 0, 1, 2):
            gap = np.array([[middle_x + k * 10.0, top[1] - 8], [middle_x + k * 10.0, top[1] + teeth_height]])
            _stroke(inside, gap, (214, 208, 200), 1)
    alpha = (hole[y0:y1, x0:x1] / 255.0)[..., None]
    patch = rgb[y0:y1, x0:x1]
    patch[:] = (alpha * inside + (1 - alpha) * patch).astype(np.uint8)


# --- hair -----------------------------------------------------------------------------------------------------


def _draw_back_hair(rgb: Image, mask: Image, person: Person, slide: Points) -> None:
    w, h = _HALF_WIDTH * person.face_width, _HALF_HEIGHT * person.face_height
    shapes: dict[str, list[Points]] = {
        "long": [_ellipse((0, -18), w + 22, h + 2), _rounded_block(w + 20, -20, h + 36)],
        "bob": [_ellipse((0, -18), w + 24, h + 2), _rounded_block(w + 24, -20, h * 0.72)],
        "fringe": [_ellipse((0, -18), w + 18, h + 2), _rounded_block(w + 16, -20, h * 0.9)],
        "bun": [_ellipse((0, -h - 22), 36, 32), _ellipse((0, -22), w + 9, h - 6)],
        "curly": [
            _ellipse(((w + 4) * np.cos(a), -34 + (h - 26) * np.sin(a)), 27, 27)
            for a in np.linspace(np.pi * 0.93, np.pi * 2.07, 11)
        ],
        "short": [_ellipse((0, -30), w + 8, h - 14)],
        "parted": [_ellipse((0, -32), w + 10, h - 12)],
        "bald": [],
    }
    back = _darker(person.hair, 0.3)
    for shape in shapes[person.hair_style]:
        _fill(rgb, _on_canvas(shape) + slide, back)
        _fill(mask, _on_canvas(shape) + slide, (255,))


def _rounded_block(half_width: float, top: float, bottom: float) -> Points:
    corner = np.linspace(0, np.pi / 2, 8)
    radius = 26.0
    right = np.stack([half_width - radius + radius * np.cos(corner), bottom - radius + radius * np.sin(corner)], 1)
    left = right[::-1] * [-1, 1]
    return np.concatenate([[[half_width, top]], right, left, [[-half_width, top]]])


def _draw_front_hair(rgb: Image, mask: Image, person: Person, slide: Points) -> None:
    """The hair over the forehead: from the crown down to a hairline that depends on the style."""
    if person.hair_style == "bald":
        return
    w, h = _HALF_WIDTH * person.face_width, _HALF_HEIGHT * person.face_height
    angle = np.linspace(np.pi * 1.02, np.pi * 1.98, 48)
    rise = {"short": 9, "parted": 13, "curly": 14, "bun": 5}.get(person.hair_style, 10)
    crown = np.stack([(w + 5) * np.cos(angle), -8 + (h - 8 + rise) * np.sin(angle)], 1)
    across = np.linspace(1, -1, 48)
    hairline = {
        "short": -h * (0.66 - 0.34 * np.abs(across) ** 3),
        "parted": -h * (0.62 + 0.16 * across - 0.42 * np.abs(across) ** 4),
        "curly": -h * (0.62 - 0.40 * np.abs(across) ** 3 + 0.03 * np.cos(across * 26)),
        "bun": -h * (0.70 - 0.50 * np.abs(across) ** 3),
        "fringe": -h * (0.47 - 0.40 * np.abs(across) ** 6 + 0.015 * np.cos(across * 40)),
        "bob": -h * (0.60 - 0.10 * across - 0.50 * np.abs(across) ** 5),
        "long": -h * (0.70 - 0.28 * np.abs(across) - 0.34 * np.abs(across) ** 5),
    }[person.hair_style]
    line = np.stack([across * (w + 4), hairline], 1)
    front = np.concatenate([crown, line + 0.5 * slide])
    _fill(rgb, _on_canvas(front), person.hair)
    _fill(mask, _on_canvas(front), (255,))
    bright, dark = _mix(person.hair, (255, 240, 220), 0.16), _darker(person.hair, 0.28)
    for i in range(2, 46, 3):  # strands
        root, tip = crown[i], (line + 0.5 * slide)[47 - i]
        strand = _curve(root * 0.97, 0.5 * (root + tip) * [1.03, 1.02], root + 0.93 * (tip - root))
        _stroke(rgb, _on_canvas(strand), bright if i % 2 else dark, 1.6)
