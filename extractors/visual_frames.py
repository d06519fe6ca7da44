"""What the frame backbones share: sampled frames -> resized crops -> one vector a frame -> their mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as image

from extractors.base import Prepared
from extractors.batching import Encoded, NetworkExtractor
from extractors.clip import Clip
from extractors.frame_sampling import FrameSampling
from extractors.media import Media, MediaNeeds

DEFAULT_FRAME_COUNT = 8


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

    def crop_frames(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(T, 3, H, W) uint8 RGB -> (T, 3, crop, crop) uint8.

        With torchvision's first transforms, as its own presets: the second ones resize uint8 by another route, whose
        pixels differ by one level here and there.
        """
        return np.stack([self._crop(torch.tensor(frame)) for frame in frames])  # one by one: resized in float32

    def _crop(self, frame: Tensor) -> NDArray[np.uint8]:
        resized = image.resize(frame, [self.resize], InterpolationMode(self.interpolation), antialias=True)
        crop: NDArray[np.uint8] = image.center_crop(resized, [self.crop, self.crop]).numpy()
        return crop

    def normalise(self, crops: Tensor) -> Tensor:
        """(T, 3, crop, crop) uint8 -> float32, about zero mean and unit spread."""
        return image.normalize(image.convert_image_dtype(crops, torch.float32), list(self.mean), list(self.std))

    def __str__(self) -> str:
        return (
            f"short side to {self.resize} ({self.interpolation}, antialiased), centre crop {self.crop}, "
            f"RGB / 255, mean {self.mean}, std {self.std}"
        )


class FrameExtractor(NetworkExtractor):
    """A clip's vector is the mean over its sampled frames of the network's output.

    Args:
        network: (B, 3, crop, crop) float32 -> (B, D).
        preprocessing: what its weights were trained with.
        fps, count: sample so many frames a second, or so many a clip; neither is DEFAULT_FRAME_COUNT a clip.
        batch_size: frames in one forward pass.
        device, precision: see NetworkExtractor.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: FramePreprocessing,
        *,
        fps: float | None,
        count: int | None,
        batch_size: int,
        device: str,
        precision: str,
    ) -> None:
        # Channels last: a third less CPU time for depthwise networks, a fifth for VGG16, the same numbers to 1e-5.
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(network, batch_size=batch_size, device=device, precision=precision)
        if fps is None and count is None:
            count = DEFAULT_FRAME_COUNT
        self.needs = MediaNeeds(frames=FrameSampling(fps=fps, count=count), sample_rate_hz=None)
        self._preprocessing = preprocessing

    def prepare(self, clip: Clip, media: Media) -> Prepared:
        """The clip's sampled frames, cropped, still uint8: a quarter of the memory of float32 while they wait."""
        frames = media.require_frames().frames  # (T, 3, H, W)
        return Prepared(clip.clip_id, self._preprocessing.crop_frames(frames), n_units=len(frames))

    def forward(self, pieces: Sequence[NDArray[Any]]) -> Encoded:
        crops = torch.from_numpy(np.stack(pieces)).to(self.device)  # (B, 3, crop, crop) uint8
        images = self._preprocessing.normalise(crops).contiguous(memory_format=torch.channels_last)
        features: Tensor = self.network(images)  # (B, D)
        return Encoded(features, list(features.unsqueeze(1)))
