"""The cut to a face: where it is taken, what is counted, and how the setting gets there."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from extractors.clip import Clip
from extractors.faces import FaceCutter, square_around
from extractors.frame_preparer import WITHOUT_FACE
from extractors.frame_sampling import FrameSampling
from extractors.media import FrameBatch, Media, MediaNeeds, read_media
from extractors.visual_efficientnet_lite import PREPROCESSING, EfficientNetLite0
from extractors.visual_frames import FrameMaps
from pipeline.config import Settings, VisualSettings, load_settings
from pipeline.corpora.synthetic.acting import EXPRESSIONS, POSES
from pipeline.corpora.synthetic.plan import plan_clips
from pipeline.corpora.synthetic.scene import Shot
from pipeline.encoders import build, recipe_of, request_of

GRID = Path(__file__).resolve().parents[2] / "shared" / "data" / "grid"
CLIP = Clip("a", "a.mp4")


def drawn(cue: str, seed: int = 0) -> np.ndarray:
    """(3, 240, 320): one of the demo's frames, the head about 195 lines high and near the middle."""
    rng = np.random.default_rng(seed)
    person = plan_clips(7, seed=0)[seed].person
    return Shot(person, POSES[cue], rng).frame(EXPRESSIONS[cue], 0.0, rng).transpose(2, 0, 1)


def photograph() -> np.ndarray:
    """(3, 240, 320) of a temple; nobody is in it."""
    return cv2.resize(load_sample_image("china.jpg"), (320, 240), interpolation=cv2.INTER_AREA).transpose(2, 0, 1)


def media(frames: np.ndarray) -> Media:
    return Media(FrameBatch(frames, np.arange(len(frames), dtype=np.float64)))


def lite0(crop: str = "face") -> EfficientNetLite0:
    return EfficientNetLite0(weights="random", device="cpu", crop=crop)


# --- where ---


@pytest.mark.parametrize(
    ("x", "y", "side", "square"),
    [
        (50, 40, 20, (30, 40, 20)),  # as asked
        (5, 40, 20, (30, 0, 20)),  # moved in from the left
        (95, 75, 20, (60, 80, 20)),  # from the right and the bottom
        (50, 2, 21, (0, 40, 21)),  # from the top; the half pixel is rounded
        (90, 40, 200, (0, 20, 80)),  # larger than the frame: its short side, as far over as that goes
        (50, 40, 0.2, (40, 50, 1)),
    ],
)
def test_the_square_stays_in_the_frame_and_square(x, y, side, square):
    assert square_around(x, y, side, height=80, width=100) == square


def test_a_face_is_found_where_it_is_and_cut_with_a_margin():
    top, left = 90, 260
    scene = np.full((3, 360, 640), 128, dtype=np.uint8)
    scene[:, top : top + 240, left : left + 320] = drawn("composed")
    square = FaceCutter().find(scene)
    # The head's middle is within 14 pixels of its frame's, and it is 150 wide; a detector's box is about its width.
    assert abs(square.left + square.side / 2 - (left + 160)) < 30
    assert abs(square.top + square.side / 2 - (top + 122)) < 30
    assert 1.25 * 150 < square.side < 1.6 * 150
    rows, columns = (slice(first, first + square.side) for first in (square.top, square.left))
    np.testing.assert_array_equal(FaceCutter().cut(scene), scene[:, rows, columns])


def test_of_several_the_largest_is_taken():
    scene = np.full((3, 240, 640), 128, dtype=np.uint8)
    scene[:, 60:180, 30:190] = drawn("composed")[:, ::2, ::2]
    scene[:, :, 320:] = drawn("pleased", seed=3)
    assert FaceCutter().find(scene[:, :, :320]).side < 130, "the small one alone is found"
    square = FaceCutter().find(scene)
    assert 320 <= square.left + square.side / 2 < 640


def test_size_is_of_the_frame_not_of_its_pixels():
    frame = drawn("composed")
    large = cv2.resize(np.ascontiguousarray(frame.transpose(1, 2, 0)), (1280, 960)).transpose(2, 0, 1)
    once, four_times = np.array(FaceCutter().find(frame)), np.array(FaceCutter().find(large))
    np.testing.assert_allclose(four_times / 4, once, atol=6)


def test_most_of_the_demos_faces_are_found():
    frames = np.stack([drawn(cue, seed) for cue in EXPRESSIONS for seed in range(6)])
    assert sum(FaceCutter().cut(frame) is None for frame in frames) <= len(frames) // 4, "hands cover some"


@pytest.mark.shared_data
@pytest.mark.skipif(not GRID.is_dir(), reason="the GRID clips are not beside the checkout (../shared/data/grid)")
def test_real_faces_are_found_in_every_frame_and_hold_still():
    for name in ("bbaf4p", "lrak8p", "swaizn"):
        clip = Clip(name, str(GRID / f"{name}.mpg"))
        frames = read_media(clip, MediaNeeds(frames=FrameSampling(count=6))).require_frames().frames
        squares = np.array([FaceCutter().find(frame) for frame in frames])  # raises where one is None
        assert squares.shape == (6, 3)
        assert (np.ptp(squares, axis=0) < 0.12 * 288).all(), "one who talks to the camera moves little"


def test_threads_find_what_one_finds():
    frames = np.stack([drawn(cue) for cue in EXPRESSIONS])
    cutter = FaceCutter()
    alone = [cutter.find(frame) for frame in frames]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(cutter.find, [*frames] * 4)) == alone * 4


# --- what becomes of the frames ---


def test_a_frame_without_a_face_is_whole_and_counted():
    frames = np.stack([drawn("composed"), photograph(), photograph()])
    face, centre = (lite0(crop).preparer.prepare(CLIP, media(frames)) for crop in ("face", "centre"))
    assert (face.n_units, face.counts) == (3, {"frames without a face, taken whole": 2})
    assert (centre.n_units, centre.counts) == (3, {})
    np.testing.assert_array_equal(face.inputs[1:], centre.inputs[1:])
    np.testing.assert_array_equal(face.inputs[0], PREPROCESSING.cropped(FaceCutter().cut(frames[0])))


def test_none_without_is_a_count_too():
    assert lite0().preparer.prepare(CLIP, media(drawn("composed")[np.newaxis])).counts == {WITHOUT_FACE: 0}


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (333, 31), (240, 240)])
def test_frames_of_any_size_become_one_crop(size):
    frames = np.zeros((2, 3, *size), dtype=np.uint8)
    frames.setflags(write=False)
    item = lite0().preparer.prepare(CLIP, media(frames))
    assert (item.inputs.shape, item.counts) == ((2, 3, 224, 224), {WITHOUT_FACE: 2})


def test_maps_are_cut_as_the_vectors_are():
    batch = media(drawn("composed")[np.newaxis])
    backbone = lite0()
    np.testing.assert_array_equal(
        FrameMaps(backbone).preparer.prepare(CLIP, batch).inputs, backbone.preparer.prepare(CLIP, batch).inputs
    )
    assert FrameMaps(lite0("centre")).preparer.prepare(CLIP, batch).counts == {}


def test_an_unknown_crop_is_refused():
    with pytest.raises(ValueError, match="unknown crop 'middle'; known: centre, face"):
        lite0("middle")


# --- from the settings to the extractor ---


def settings(*overrides: str) -> Settings:
    small = ("extract.visual.backbone=efficientnet_lite0", "extract.visual.weights=random")
    return load_settings(None, [*small, *overrides])


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "vgg16"])
def test_the_setting_reaches_the_backbone(backbone):
    section = VisualSettings(backbone=backbone, weights="random", crop="face", device="cpu")
    extractor = build("visual", section)
    assert extractor.preparer.crop == "face"
    assert recipe_of("visual", section, extractor)["settings"]["crop"] == "face"


def test_what_was_made_before_there_was_a_choice_still_holds():
    plain, face = settings(), settings("extract.visual.crop=face")
    section = plain.extract.visual
    assert section.crop == "centre"
    assert "crop" not in recipe_of("visual", section, build("visual", section))["settings"]
    assert request_of("visual", section) != request_of("visual", face.extract.visual)
    assert plain.own_audio != face.own_audio, "the sound is trained on other pictures"
    assert Settings.model_validate(face.model_dump(mode="json")) == face
