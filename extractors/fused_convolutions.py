"""Convolutions with the ReLU after them as one operation, image by image: what a CPU's caches are made for.

After a convolution alone, its output goes to memory and comes back to be cut at 0; of eight images at once it does not
fit the cache when the next layer reads it (docs/performance.md has what each costs).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_DTYPES = (torch.float32, torch.bfloat16)  # what oneDNN convolves on every CPU that it knows


class ConvolutionsImageByImage(nn.Sequential):
    """The same layers, names and numbers as the nn.Sequential that it is made of.

    On a CPU in inference it gives oneDNN each nn.Conv2d with the nn.ReLU after it, by the operation that torch.compile
    puts in place of the two. Elsewhere, in training and while it is traced it is an nn.Sequential. Weights must not
    change after the first images.

    Args:
        layers: as nn.Sequential takes them.
    """

    def __init__(self, *layers: Any) -> None:
        super().__init__(*layers)
        self._packed: dict[Any, Tensor] = {}  # weights in the order that oneDNN multiplies them in, made once

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> what the last layer makes of it."""
        if not self._can_fuse(x):
            plain: Tensor = super().forward(x)
            return plain
        return torch.cat([self._image(image) for image in x.split(1)])

    def _can_fuse(self, x: Tensor) -> bool:
        weight = next(self.parameters())
        inference = torch.is_inference_mode_enabled() and not self.training and not torch.jit.is_tracing()
        on_cpu = x.device.type == weight.device.type == "cpu" and weight.dtype in _DTYPES
        return inference and on_cpu and torch.backends.mkldnn.is_available()

    def _image(self, x: Tensor) -> Tensor:
        for place, step in enumerate(_steps(self)):
            x = step[0](x) if len(step) == 1 else self._convolve_and_cut(place, step[0], x)
        return x

    def _convolve_and_cut(self, place: int, layer: nn.Module, x: Tensor) -> Tensor:
        assert isinstance(layer, nn.Conv2d)  # noqa: S101
        how = (list(map(int, layer.padding)), list(layer.stride), list(layer.dilation), layer.groups)
        x = x.to(layer.weight.dtype)
        key = (place, x.shape, x.dtype)
        if key not in self._packed:
            self._packed[key] = torch.ops.mkldnn._reorder_convolution_weight(layer.weight, *how, list(x.shape))
        fused: Tensor = torch.ops.mkldnn._convolution_pointwise(x, self._packed[key], layer.bias, *how, "relu", [], "")
        return fused


def _steps(layers: Iterable[nn.Module]) -> list[list[nn.Module]]:
    """Each layer by itself, a convolution together with the ReLU that follows it."""
    steps: list[list[nn.Module]] = []
    for layer in layers:
        if isinstance(layer, nn.ReLU) and steps and isinstance(steps[-1][-1], nn.Conv2d):
            steps[-1].append(layer)
        else:
            steps.append([layer])
    return steps
