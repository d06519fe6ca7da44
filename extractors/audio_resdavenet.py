"""ResDAVEnet's audio branch (Harwath, Hsu and Glass 2020), 1024-d: log-mel -> eight residual blocks -> mean over time.

Some of the published networks are quantised: after some blocks each step is replaced by the nearest row of a codebook.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from extractors.audio_spectrograms import DB_MEAN, DB_VARIANCE, SpectrogramExtractor
from extractors.log_mel_preparer import PREPROCESSING
from extractors.logmel import N_MELS
from extractors.weights import PretrainedWeights

# Of conv1 and layer1 to layer4 in the published checkpoints; layer1 of the published class' own default has 128.
WIDTHS = (128, 256, 256, 512, 1024)
KERNEL = 9

WEIGHTS = PretrainedWeights(
    extractor="audio/resdavenet",
    name="ResDAVEnet audio branch",
    file_name="best_audio_model.pth",
    where="the pre-trained models of github.com/wnhsu/ResDAVEnet-VQ (models/best_audio_model.pth in each archive)",
    licence="BSD-3-Clause (the code's; none is stated for the weights)",
    preprocessing=PREPROCESSING,
)


class ResidualBlock(nn.Module):
    """Two convolutions over time, and what went in added to what comes out.

    Args:
        n_in, n_out: channels.
        stride: of the first convolution; with 2, what went in is shortened and widened by a 1 x 1 convolution.
    """

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _convolution(n_in, n_out, KERNEL, stride)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = _convolution(n_out, n_out, KERNEL, 1)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1:
            self.downsample = nn.Sequential(_convolution(n_in, n_out, 1, stride), nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(inner)) + self.downsample(x))


def _convolution(n_in: int, n_out: int, kernel: int, stride: int) -> nn.Conv2d:
    """Over time; as long as its input, or half."""
    return nn.Conv2d(n_in, n_out, (1, kernel), stride=(1, stride), padding=(0, kernel // 2), bias=False)


class Codebook(nn.Module):
    """(B, C, 1, T) -> each step's nearest of K rows, by Euclidean distance. For use, not for training: no gradient."""

    def __init__(self, n_rows: int, width: int) -> None:
        super().__init__()
        self._embedding = nn.Embedding(n_rows, width)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.movedim(1, -1)  # (B, 1, T, C)
        nearest = torch.cdist(steps.flatten(0, 2), self._embedding.weight).argmin(dim=1)  # (B T,)
        quantised: Tensor = self._embedding(nearest).view(steps.shape).movedim(-1, 1)
        return quantised


class ResDAVEnet(nn.Module):
    """The audio network, layers named as in the published code.

    forward: (B, 40, T) or (B, 1, 40, T) log-mel in dB -> (B, 1024, ceil(T / 16)).

    Args:
        widths: channels after conv1 and after each of the four layers.
        codebooks: stage (1: after conv1, 2 to 5: after layer1 to layer4) -> rows of its codebook; others have none.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS, codebooks: Mapping[int, int] | None = None) -> None:
        super().__init__()
        self.batchnorm1 = nn.BatchNorm2d(1)  # stands in every state dict; the published forward does without it
        self.conv1 = nn.Conv2d(1, widths[0], kernel_size=(N_MELS, 1), bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(ResidualBlock(n_in, n_out, stride=2), ResidualBlock(n_out, n_out, stride=1))
            for n_in, n_out in pairwise(widths)
        )
        for stage, n_rows in (codebooks or {}).items():
            self.add_module(f"quant{stage}", Codebook(n_rows, widths[stage - 1]))
        self._initialise()

    def _initialise(self) -> None:
        """He's normal weights over the fan out, as published; bn1 starts from what they make of a usual log-mel."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        bands = self.conv1.weight.detach().flatten(1)  # (C, 40)
        self.bn1.running_mean = DB_MEAN * bands.sum(dim=1)
        self.bn1.running_var = DB_VARIANCE * bands.square().sum(dim=1)

    def forward(self, log_mels: Tensor) -> Tensor:
        x = log_mels.unsqueeze(1) if log_mels.ndim == 3 else log_mels  # (B, 1, 40, T)
        x = self._quantised(1, functional.relu(self.bn1(self.conv1(x))))  # (B, 128, 1, T)
        for stage, layer in enumerate((self.layer1, self.layer2, self.layer3, self.layer4), start=2):
            x = self._quantised(stage, layer(x))  # half as long
        return x.squeeze(2)

    def _quantised(self, stage: int, x: Tensor) -> Tensor:
        codebook = getattr(self, f"quant{stage}", None)
        return x if codebook is None else codebook(x)


class ResDAVEnetExtractor(SpectrogramExtractor):
    """ResDAVEnet, 1024-d, quantised where its state dict is; settings as SpectrogramExtractor's."""

    name = "audio/resdavenet"
    published = WEIGHTS
    # Backwards from output step j, each layer takes position p to 2 p + 28: three convolutions add 4 each, then the one
    # of stride 2 doubles it and adds 4.
    right_context = 420
    left_out = tuple(f"quant{stage}._ema_" for stage in range(1, 6))  # how training moved the codebooks

    @classmethod
    def build(cls, state: Mapping[str, Tensor] | None = None) -> nn.Module:
        """The untrained network; the width of each layer and the codebooks as in `state`, where one is given."""
        rows = {name: len(tensor) for name, tensor in (state or {}).items() if tensor.ndim}
        first = ["conv1.weight", *(f"layer{i}.0.conv1.weight" for i in range(1, 4))]
        widths = [rows.get(name, width) for name, width in zip(first, WIDTHS, strict=False)]
        codebooks = {i: rows[name] for i in range(1, 6) if (name := f"quant{i}._embedding.weight") in rows}
        return ResDAVEnet([*widths, cls.dim], codebooks)
