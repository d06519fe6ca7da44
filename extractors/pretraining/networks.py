"""The two sides that are trained together: feature maps -> embeddings of places, log-mels -> embeddings of steps."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class ImageHead(nn.Module):
    """A 3x3 convolution over a frozen backbone's last feature map (Harwath et al. 2018, sec. 3.2).

    Each channel is brought to mean 0 and sd 1 over the training pictures first: what the maps of all faces share would
    else drown what tells them apart, and a small corpus never trains it away.

    forward: (B, C, H, W) -> (B, D, H W).

    Args:
        channels: C of the feature map.
        dim: D, that of the audio network's steps.
    """

    mean: Tensor  # (C, 1, 1)
    sd: Tensor  # (C, 1, 1)

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("sd", torch.ones(channels, 1, 1))
        self.conv = nn.Conv2d(channels, dim, kernel_size=3, padding=1)

    def standardise_by(self, batches: Iterable[Tensor]) -> None:
        """Takes each channel's mean and sd from (B, C, H, W) maps; a channel that never changes is left as it is."""
        count = 0
        total = squares = torch.zeros(len(self.mean), dtype=torch.float64)
        for maps in batches:
            values = maps.double()
            count += values[:, 0].numel()
            total = total + values.sum((0, 2, 3)).cpu()
            squares = squares + values.square().sum((0, 2, 3)).cpu()
        mean = total / count
        sd = (squares / count - mean.square()).clamp(min=0).sqrt()
        self.mean.copy_(mean[:, None, None])
        self.sd.copy_(torch.where(sd > 1e-4 * sd.max(), sd, 1.0)[:, None, None])

    def forward(self, maps: Tensor) -> Tensor:
        places: Tensor = self.conv((maps - self.mean) / self.sd)
        return places.flatten(2)


class DualEncoder(nn.Module):
    """Both sides in one module, so that one optimiser and one state dict hold them.

    What is compared is standardised on both sides, dimension by dimension, over the batch while training and by running
    means after it: what all sounds share, and all places, would else be most of every similarity, which only a large
    corpus trains away. Similarities are of unit size then, whatever the backbone. Neither standardisation is part of
    the audio network that is kept.

    Args:
        audio: (B, 40, T) -> (B, D, T').
        image: (B, C, H, W) -> (B, D, H W).
        dim: D.
    """

    def __init__(self, audio: nn.Module, image: ImageHead, dim: int) -> None:
        super().__init__()
        self.audio = audio
        self.image = image
        self.place_norm = nn.BatchNorm1d(dim, affine=False)
        self.step_norm = nn.BatchNorm1d(dim, affine=False)
        self._scale = dim**-0.25  # of each side: the product of two unit vectors of D dimensions comes to sqrt(D)
        _initialise(self)

    def places(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, P)."""
        standard: Tensor = self.place_norm(self.image(maps).float())
        return standard * self._scale

    def steps(self, log_mels: Tensor, n_steps: Tensor) -> Tensor:
        """(B, 40, T), n_steps (B,) real ones of each -> (B, D, T'); padding has no part in the mean and sd."""
        found: Tensor = self.audio(log_mels).float()
        if not self.training:
            standard: Tensor = self.step_norm(found)
            return standard * self._scale
        real = torch.arange(found.shape[2], device=found.device) < n_steps[:, None]  # (B, T')
        rows = self.step_norm(found.transpose(1, 2)[real])  # (sum of n_steps, D)
        return (
            torch.zeros_like(found).transpose(1, 2).masked_scatter(real[..., None], rows).transpose(1, 2) * self._scale
        )


def _initialise(networks: nn.Module) -> None:
    """He's initial weights: under PyTorch's own a layer keeps a sixth of the variance, and biases drown the sound."""
    for layer in networks.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
