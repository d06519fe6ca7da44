"""What the frame backbones share: sampled frames -> resized crops -> one vector a frame -> their mean.

A backbone that can also tell what is where, by its last feature map, is a MappedFrameExtractor: FrameMaps stores those.
"""

from abc import abstractmethod
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

    name: str
    weights_record: dict[str, Any]

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
        self.preprocessing = preprocessing

    def prepare(self, clip: Clip, media: Media) -> Prepared:
        """The clip's sampled frames, cropped, still uint8: a quarter of the memory of float32 while they wait."""
        frames = media.require_frames().frames  # (T, 3, H, W)
        return Prepared(clip.clip_id, self.preprocessing.crop_frames(frames), n_units=len(frames))

    def images(self, pieces: Sequence[NDArray[Any]]) -> Tensor:
        """B crops -> (B, 3, crop, crop) float32 on the device, as the network wants them."""
        crops = torch.from_numpy(np.stack(pieces)).to(self.device)  # uint8
        return self.preprocessing.normalise(crops).contiguous(memory_format=torch.channels_last)

    def forward(self, pieces: Sequence[NDArray[Any]]) -> Encoded:
        features: Tensor = self.network(self.images(pieces))  # (B, D)
        return Encoded(features, list(features.unsqueeze(1)))


class MappedFrameExtractor(FrameExtractor):
    """A frame backbone whose network makes a feature map on its way.

    Attributes:
        map_shape: (C, H, W) of the last one.
    """

    map_shape: tuple[int, int, int]

    @abstractmethod
    def map_network(self) -> nn.Module:
        """The part of the network up to its last feature map: (B, 3, crop, crop) -> (B, C, H, W)."""


class FrameMaps(FrameExtractor):
    """A frame backbone's last feature map in place of its vectors.

    A clip's vector (C,) is the mean over frames and places; its sequence (T H W, C) holds the places of the first
    frame, row by row, then those of the next.

    Args:
        backbone: whose network, preprocessing, sampling and device are used.
    """

    def __init__(self, backbone: MappedFrameExtractor) -> None:
        sampling = backbone.needs.frames
        super().__init__(
            backbone.map_network(),
            backbone.preprocessing,
            fps=sampling.fps if sampling else None,
            count=sampling.count if sampling else None,
            batch_size=backbone.batch_size,
            device=backbone.device.type,
            precision=backbone.precision,
        )
        self.name = f"{backbone.name}/map"
        self.dim = backbone.map_shape[0]
        self.weights_record = backbone.weights_record

    def forward(self, pieces: Sequence[NDArray[Any]]) -> Encoded:
        maps: Tensor = self.network(self.images(pieces))  # (B, C, H, W)
        places = maps.flatten(2).transpose(1, 2)  # (B, P, C)
        return Encoded(places.mean(1), list(places))
