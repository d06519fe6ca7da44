"""Who appears in the demo corpus: a small cast with a look and a voice each."""

from dataclasses import dataclass

import numpy as np

Colour = tuple[int, int, int]  # RGB, 0..255

HAIR_STYLES = ("short", "parted", "curly", "bald", "long", "bob", "bun", "fringe")
_SKINS: tuple[Colour, ...] = (
    (240, 206, 180),
    (230, 188, 154),
    (216, 168, 132),
    (196, 146, 110),
    (172, 122, 88),
    (156, 108, 78),
)
_HAIRS: tuple[Colour, ...] = (
    (44, 34, 30),
    (60, 44, 36),
    (84, 60, 44),
    (112, 80, 54),
    (134, 100, 66),
    (122, 72, 48),
    (128, 122, 118),
)
_IRISES: tuple[Colour, ...] = ((78, 52, 34), (96, 70, 40), (70, 104, 80), (74, 112, 150), (94, 106, 116))
_SHIRTS: tuple[Colour, ...] = (
    (70, 82, 104),
    (112, 74, 74),
    (80, 98, 84),
    (132, 128, 120),
    (74, 74, 78),
    (122, 108, 88),
    (98, 88, 110),
    (76, 108, 114),
)


@dataclass(frozen=True, slots=True)
class Person:
    """One member of the cast; lengths are factors of the average head's.

    Attributes:
        skin, hair, iris, shirt: RGB.
        hair_style: one of HAIR_STYLES.
        face_width, face_height: about 0.92..1.08.
        taper: how far the jaw narrows to the chin, 0.18 (square) .. 0.37 (pointed).
        eye_size, eye_spacing, mouth_width, nose_width: about 0.9..1.1.
        lip_fullness, brow_thickness: about 0.7..1.3.
        glasses, beard: whether worn.
        pitch_hz: the resting pitch of the voice.
        formant_scale: 1 for a long vocal tract, about 1.1 for a short one.
    """

    skin: Colour
    hair: Colour
    iris: Colour
    shirt: Colour
    hair_style: str
    face_width: float
    face_height: float
    taper: float
    eye_size: float
    eye_spacing: float
    mouth_width: float
    nose_width: float
    lip_fullness: float
    brow_thickness: float
    glasses: bool
    beard: bool
    pitch_hz: float
    formant_scale: float


def draw_cast(n_people: int, rng: np.random.Generator) -> list[Person]:
    """`n_people` different people; hair styles, skins and shirts go round so that no two look alike."""
    skins = rng.permutation(len(_SKINS))
    styles = rng.permutation(len(HAIR_STYLES))
    shirts = rng.permutation(len(_SHIRTS))
    return [
        _draw_person(
            rng,
            skin=_SKINS[skins[i % len(skins)]],
            hair_style=HAIR_STYLES[styles[i % len(styles)]],
            shirt=_SHIRTS[shirts[i % len(shirts)]],
        )
        for i in range(n_people)
    ]


def _draw_person(rng: np.random.Generator, skin: Colour, hair_style: str, shirt: Colour) -> Person:
    high_voice = hair_style in ("long", "bob", "bun", "fringe")
    dark = sum(skin) < 480
    return Person(
        skin=skin,
        hair=_HAIRS[rng.integers(0, 3 if dark else len(_HAIRS))],
        iris=_IRISES[rng.integers(0, 2 if dark else len(_IRISES))],
        shirt=shirt,
        hair_style=hair_style,
        face_width=float(rng.uniform(0.92, 0.99) if high_voice else rng.uniform(0.97, 1.07)),
        face_height=float(rng.uniform(0.95, 1.06)),
        taper=float(rng.uniform(0.28, 0.37) if high_voice else rng.uniform(0.18, 0.32)),
        eye_size=float(rng.uniform(1.0, 1.12) if high_voice else rng.uniform(0.92, 1.04)),
        eye_spacing=float(rng.uniform(0.94, 1.06)),
        mouth_width=float(rng.uniform(0.92, 1.1)),
        nose_width=float(rng.uniform(0.85, 1.2)),
        lip_fullness=float(rng.uniform(0.95, 1.35) if high_voice else rng.uniform(0.7, 1.0)),
        brow_thickness=float(rng.uniform(0.75, 1.0) if high_voice else rng.uniform(1.05, 1.4)),
        glasses=bool(rng.random() < 0.2),
        beard=bool(not high_voice and rng.random() < 0.3),
        pitch_hz=float(rng.uniform(170, 205) if high_voice else rng.uniform(110, 140)),
        formant_scale=float(rng.uniform(1.06, 1.11) if high_voice else rng.uniform(0.98, 1.03)),
    )
