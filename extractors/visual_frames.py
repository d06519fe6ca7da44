"""What the frame backbones share: sampled frames -> resized crops -> one vector a frame -> their mean.

A backbone that can also tell what is where, by its last feature map, is a MappedFrameExtractor: FrameMaps stores those.
"""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as image

from extractors import openvino_network
from extractors.batching import Encoded, NetworkExtractor
from extractors.frame_preparer import CROPS, FramePreparer, FramePreprocessing
from extractors.frame_sampling import FrameSampling

DEFAULT_FRAME_COUNT = 8


class FrameExtractor(NetworkExtractor):
    """A clip's vector is the mean over its sampled frames of the network's output.

    Args:
        network: (B, 3, crop, crop) float32 -> (B, D).
        preprocessing: what its weights were trained with.
        fps, count: sample so many frames a second, or so many a clip; neither is DEFAULT_FRAME_COUNT a clip.
        batch_size, device, precision: see NetworkExtractor.
        crop: "centre" takes the frame as the weights' preprocessing does; "face" first cuts it to its largest face (see
            FaceCutter). A frame without a face is taken whole and counted.
    Raises:
        ValueError: an unknown crop, or a setting out of range.
    """

    name: str
    weights_record: dict[str, Any]
    unit = "frames"
    default_batch: ClassVar = {"cpu": 8, "cuda": 128}

    def __init__(
        self,
        network: nn.Module,
        preprocessing: FramePreprocessing,
        *,
        fps: float | None,
        count: int | None,
        batch_size: int | None,
        device: str,
        precision: str,
        crop: str = "centre",
    ) -> None:
        if crop not in CROPS:
            raise ValueError(f"unknown crop {crop!r}; known: {', '.join(CROPS)}")
        super().__init__(network, batch_size=batch_size, device=device, precision=precision)
        if fps is None and count is None:
            count = DEFAULT_FRAME_COUNT
        self.preparer = FramePreparer(preprocessing, FrameSampling(fps=fps, count=count), crop)

    def compile_with_openvino(self, precision: str, quantised: Path | None = None) -> None:
        """Puts OpenVINO in PyTorch's place, on the CPU; the weights must be in float32 till then.

        Args:
            precision: one of openvino_network.PRECISIONS: "fp32" | "bf16" | "int8".
            quantised: of int8, the network that `openvino_network.save_quantised` kept.
        Raises:
            ValueError: OpenVINO is not installed, another precision, or no int8 network made from these weights.
        """
        if precision not in openvino_network.PRECISIONS:
            known = ", ".join(openvino_network.PRECISIONS)
            raise ValueError(f"unknown precision {precision!r}; known to OpenVINO: {known}")
        if precision == "int8":
            model, record = openvino_network.load_quantised(quantised, self.weights_record)
            self.weights_record = {**self.weights_record, "quantised": record}
        else:
            model = openvino_network.convert(self.network, self.preparer.preprocessing.crop)
        self.network = openvino_network.OpenVINONetwork(model, precision)
        self.precision = precision
        self.max_streams = 1  # its own threads share a pass

    def plan(self) -> str:
        by = ", by OpenVINO" if isinstance(self.network, openvino_network.OpenVINONetwork) else ""
        return super().plan() + by

    def collate(self, pieces: Sequence[NDArray[Any]]) -> tuple[Tensor, ...]:
        """B crops -> (B, 3, crop, crop) uint8."""
        return (torch.from_numpy(np.stack(pieces)),)

    def images(self, crops: Tensor) -> Tensor:
        """(B, 3, crop, crop) uint8 -> float32, about zero mean and unit spread."""
        how = self.preparer.preprocessing
        floats = image.to_dtype(crops.contiguous(memory_format=torch.channels_last), torch.float32, scale=True)
        return image.normalize(floats, list(how.mean), list(how.std))

    def forward(self, *inputs: Tensor) -> Encoded:
        (crops,) = inputs
        features: Tensor = self.network(self.images(crops))  # (B, D)
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
        backbone: whose network, preprocessing, sampling, crop and device are used.
    """

    def __init__(self, backbone: MappedFrameExtractor) -> None:
        preparer = backbone.preparer
        super().__init__(
            backbone.map_network(),
            preparer.preprocessing,
            fps=preparer.sampling.fps,
            count=preparer.sampling.count,
            batch_size=backbone.batch_size,
            device=backbone.device.type,
            precision=backbone.precision,
            crop=preparer.crop,
        )
        self.name = f"{backbone.name}/map"
        self.dim = backbone.map_shape[0]
        self.weights_record = backbone.weights_record

    def forward(self, *inputs: Tensor) -> Encoded:
        (crops,) = inputs
        maps: Tensor = self.network(self.images(crops)).float()  # (B, C, H, W): averaged in float32
        places = maps.flatten(2).transpose(1, 2)  # (B, P, C)
        return Encoded(places.mean(1), list(places))
