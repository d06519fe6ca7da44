"""VGG16 (Simonyan and Zisserman 2015), 4096-d: the second fully connected layer after ReLU, mean over frames."""

from typing import cast

from torch import nn
from torchvision.models import vgg16

from extractors.frame_preparer import FramePreprocessing
from extractors.fused_convolutions import ConvolutionsImageByImage
from extractors.visual_frames import MappedFrameExtractor
from extractors.weights import PretrainedWeights, load_network

PREPROCESSING = FramePreprocessing(256, 224, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
WEIGHTS = PretrainedWeights(
    extractor="visual/vgg16",
    name="VGG16_Weights.IMAGENET1K_V1",
    file_name="vgg16-397923af.pth",
    where="https://download.pytorch.org/models/vgg16-397923af.pth (528 MB)",
    licence="BSD-3-Clause (torchvision); trained on ImageNet-1k",
    preprocessing=str(PREPROCESSING),
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
    sha256_prefix="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
)


def penultimate_vgg16() -> nn.Module:
    """torchvision's VGG16 without what follows the second 4096-unit layer's ReLU: (B, 3, 224, 224) -> (B, 4096)."""
    network = vgg16(weights=None)
    network.classifier = network.classifier[:5]  # linear, ReLU, dropout (idle in eval mode), linear, ReLU
    network.features = ConvolutionsImageByImage(*network.features)
    return network


class VGG16(MappedFrameExtractor):
    """VGG16 trained on ImageNet, 4096-d.

    Args:
        weights: "hub" | "random" | "package:<import name>" | a state dict's path.
        seed: of "random".
        fps, count, batch_size, device, precision, crop: see FrameExtractor.
    Raises:
        ValueError: a setting out of range.
        WeightsError: the weights cannot be had.
    """

    name = "visual/vgg16"
    dim = 4096
    map_shape = (512, 14, 14)

    def __init__(
        self,
        *,
        weights: str = "hub",
        seed: int = 0,
        fps: float | None = None,
        count: int | None = None,
        batch_size: int | None = None,
        device: str = "auto",
        precision: str = "fp32",
        crop: str = "centre",
    ) -> None:
        network, self.weights_record = load_network(
            penultimate_vgg16, weights, WEIGHTS, seed=seed, ignore=("classifier.6.",)
        )
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
        """Up to the last convolution's ReLU, without the pool after it, as DAVEnet uses it: (B, 512, 14, 14)."""
        return cast(nn.Sequential, self.network.features)[:-1]
