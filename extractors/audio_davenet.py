"""DAVEnet's audio branch (Harwath et al. 2018), 1024-d: log-mel -> five convolutions, 16x shorter -> mean over time."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from extractors.audio_spectrograms import DB_MEAN, DB_VARIANCE, SpectrogramExtractor
from extractors.log_mel_preparer import PREPROCESSING
from extractors.logmel import N_MELS
from extractors.weights import PretrainedWeights

WEIGHTS = PretrainedWeights(
    extractor="audio/davenet",
    name="DAVEnet audio branch",
    file_name="audio_model.pth",
    where="training (github.com/dharwath/DAVEnet-pytorch); none were ever published at a known address",
    licence="not published",
    preprocessing=PREPROCESSING,
)


class DAVEnet(nn.Module):
    """The audio network, layers named as in the published code.

    forward: (B, 40, T) or (B, 1, 40, T) log-mel in dB -> (B, 1024, ceil(T / 16)).
    """

    def __init__(self) -> None:
        super().__init__()
        self.batchnorm1 = nn.BatchNorm2d(1)
        self.conv1 = nn.Conv2d(1, 128, kernel_size=(N_MELS, 1))
        self.conv2 = nn.Conv2d(128, 256, kernel_size=(1, 11), padding=(0, 5))
        self.conv3 = nn.Conv2d(256, 512, kernel_size=(1, 17), padding=(0, 8))
        self.conv4 = nn.Conv2d(512, 512, kernel_size=(1, 17), padding=(0, 8))
        self.conv5 = nn.Conv2d(512, 1024, kernel_size=(1, 17), padding=(0, 8))
        self.pool = nn.MaxPool2d(kernel_size=(1, 3), stride=(1, 2), padding=(0, 1))
        self.batchnorm1.running_mean = torch.tensor([DB_MEAN])
        self.batchnorm1.running_var = torch.tensor([DB_VARIANCE])

    def forward(self, log_mels: Tensor) -> Tensor:
        x = log_mels.unsqueeze(1) if log_mels.ndim == 3 else log_mels  # (B, 1, 40, T)
        x = functional.relu(self.conv1(self.batchnorm1(x)))  # (B, 128, 1, T)
        for conv in (self.conv2, self.conv3, self.conv4, self.conv5):
            x = self.pool(functional.relu(conv(x)))  # half as long
        return x.squeeze(2)


class DAVEnetExtractor(SpectrogramExtractor):
    """DAVEnet, 1024-d; settings as SpectrogramExtractor's."""

    name = "audio/davenet"
    published = WEIGHTS
    # Backwards from output step j, each pool doubles the position and adds 1, conv 5, 4 and 3 add 8, conv 2 adds 5.
    right_context = 132

    @classmethod
    def build(cls, state: Mapping[str, Tensor] | None = None) -> nn.Module:
        """DAVEnet has one size."""
        return DAVEnet()


def load_davenet(path: str | Path) -> DAVEnet:
    """The network with the weights of a state dict in the published layout, in eval mode.

    Args:
        path: keys batchnorm1.* and conv1..conv5.{weight,bias}, with or without a `module.` prefix.
    Raises:
        WeightsError: no such file, an unsafe or damaged one, names or shapes that do not fit.
    """
    return cast(DAVEnet, DAVEnetExtractor.load(Path(path)))
