"""Sampled frames -> resized crops, as a network takes them. Without PyTorch, as it runs where clips are read."""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from extractors.base import Prepared
from extractors.clip import Clip
from extractors.frame_sampling import FrameSampling
from extractors.media import Media, MediaNeeds

if TYPE_CHECKING:
    from extractors.faces import FaceCutter

CROPS = ("centre", "face")
WITHOUT_FACE = "frames without a face, taken whole"
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True, slots=True)
class FramePreprocessing:
    """What a published backbone was trained on.

    Attributes:
        resize: the short side becomes this, pixels, antialiased.
        crop: side of the central square, pixels.
        interpolation: "bilinear" or "bicubic".
        mean, std: of each RGB channel, for values in 0..1.
    """

    resize: int
    crop: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def cropped(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(3, H, W) uint8 RGB -> (3, crop, crop) uint8.

        By Pillow, whose pixels the published weights were trained and their accuracies measured on.
        """
        height, width = frame.shape[1:]
        short = min(height, width)
        size = (self.resize * width // short, self.resize * height // short)
        whole = Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0))).resize(
            size, _RESAMPLING[self.interpolation]
        )
        left, top = (round((side - self.crop) / 2) for side in size)
        crop = np.asarray(whole)[top : top + self.crop, left : left + self.crop]
        return np.ascontiguousarray(crop.transpose(2, 0, 1))  # lets go of what lies around it

    def __str__(self) -> str:
        return (
            f"short side to {self.resize} ({self.interpolation}, antialiased), centre crop {self.crop}, "
            f"RGB / 255, mean {self.mean}, std {self.std}"
        )


@dataclass(frozen=True, slots=True)
class FramePreparer:
    """A clip's sampled frames, each cropped as soon as it is decoded.

    Attributes:
        preprocessing: what the network's weights were trained with.
        sampling: which frames.
        crop: one of CROPS, see FrameExtractor.
    """

    preprocessing: FramePreprocessing
    sampling: FrameSampling
    crop: str

    @property
    def needs(self) -> MediaNeeds:
        return MediaNeeds(frames=self.sampling, crop=self.cropped)

    def prepare(self, clip: Clip, media: Media) -> Prepared:
        """The clip's sampled frames, cropped, still uint8: a quarter of the memory of float32 while they wait."""
        batch = media.require_frames()
        crops, n_whole = batch.frames, batch.n_whole
        if n_whole is None:  # read otherwise than by self.needs
            each = [self.cropped(frame) for frame in batch.frames]
            crops, n_whole = np.stack([crop for crop, _ in each]), sum(not found for _, found in each)
        counts = {WITHOUT_FACE: n_whole} if self.crop == "face" else {}
        return Prepared(clip.clip_id, crops, n_units=len(crops), counts=counts)

    def cropped(self, frame: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], bool]:
        """A frame as the network takes it, and whether it has the face that was asked for.

        Args:
            frame: (3, H, W) uint8 RGB.
        Returns:
            (3, crop, crop) uint8, about the whole frame's centre where there is no face.
        """
        face = face_cutter().cut(frame) if self.crop == "face" else frame
        return self.preprocessing.cropped(frame if face is None else face), face is not None


@cache
def face_cutter() -> "FaceCutter":
    """This process' own."""
    from extractors.faces import FaceCutter  # OpenCV, which only faces need

    return FaceCutter()
