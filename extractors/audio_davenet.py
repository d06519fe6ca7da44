"""DAVEnet's audio branch (Harwath et al. 2018), 1024-d: log-mel -> five convolutions, 16x shorter -> mean over time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from extractors.base import Prepared
from extractors.batching import Encoded, NetworkExtractor
from extractors.clip import Clip
from extractors.logmel import N_MELS, SAMPLE_RATE_HZ, log_mel
from extractors.media import Media, MediaNeeds
from extractors.weights import PretrainedWeights, load_into, load_network, load_state_dict

MAX_FRAMES = 2048  # 20.5 s; what the network was trained on
STRIDE = 16  # input frames per output step
# Output step j sees the input up to frame 16 j + 132: backwards from j, each pool doubles the position and adds 1, conv
# 5, 4 and 3 add 8, conv 2 adds 5.
_RIGHT_CONTEXT = 132
# Mean and spread of a log-mel in dB. Batch norm starts from them, so that an untrained network sees numbers of about
# unit size; a checkpoint replaces them.
_DB_MEAN, _DB_VARIANCE = -40.0, 20.0**2

WEIGHTS = PretrainedWeights(
    extractor="audio/davenet",
    name="DAVEnet audio branch",
    file_name="audio_model.pth",
    where="training (github.com/dharwath/DAVEnet-pytorch); none were ever published at a known address",
    licence="not published",
    preprocessing="16 kHz mono, 40 log-mel bands (see extractors/logmel.py), cut to 2048 frames",
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
        self.batchnorm1.running_mean = torch.tensor([_DB_MEAN])
        self.batchnorm1.running_var = torch.tensor([_DB_VARIANCE])

    def forward(self, log_mels: Tensor) -> Tensor:
        x = log_mels.unsqueeze(1) if log_mels.ndim == 3 else log_mels  # (B, 1, 40, T)
        x = functional.relu(self.conv1(self.batchnorm1(x)))  # (B, 128, 1, T)
        for conv in (self.conv2, self.conv3, self.conv4, self.conv5):
            x = self.pool(functional.relu(conv(x)))  # half as long
        return x.squeeze(2)


def load_davenet(path: str | Path) -> DAVEnet:
    """The network with the weights of a state dict in the published layout, in eval mode.

    Args:
        path: keys batchnorm1.* and conv1..conv5.{weight,bias}, with or without a `module.` prefix.
    Raises:
        WeightsError: no such file, an unsafe or damaged one, names or shapes that do not fit.
    """
    network = DAVEnet()
    load_into(network, load_state_dict(Path(path)), Path(path))
    return network.eval()


def pooled_steps(n_frames: int) -> int:
    """How many output steps a clip of n_frames is averaged over."""
    return max(1, n_frames // STRIDE)


def padded_frames(n_frames: int) -> int:
    """The length to pad to, so that the pooled steps come out as if padded to 2048 frames."""
    return min(MAX_FRAMES, STRIDE * (pooled_steps(n_frames) - 1) + _RIGHT_CONTEXT + 1)


class DAVEnetExtractor(NetworkExtractor):
    """A clip's vector is the mean over the output steps that its sound covers.

    Args:
        weights: "random" | "package:<import name>" | a state dict's path. "hub" says that there is none.
        seed: of "random".
        batch_size: clips in one forward pass.
        device, precision: see NetworkExtractor.
    Raises:
        ValueError: a setting out of range.
        WeightsError: the weights cannot be had.
    """

    name = "audio/davenet"
    dim = 1024
    needs = MediaNeeds(frames=None, sample_rate_hz=SAMPLE_RATE_HZ)

    def __init__(
        self,
        *,
        weights: str = "hub",
        seed: int = 0,
        batch_size: int = 16,
        device: str = "auto",
        precision: str = "fp32",
    ) -> None:
        network, self.weights_record = load_network(DAVEnet, weights, WEIGHTS, seed=seed)
        super().__init__(network, batch_size=batch_size, device=device, precision=precision)

    def prepare(self, clip: Clip, media: Media) -> Prepared:
        """The clip's log-mel, (40, T) with T <= 2048; levels are relative to the whole clip's maximum, also when cut.

        Raises:
            ExtractionError: why the clip has no audio.
        """
        waveform = media.require_waveform()
        spectrogram = log_mel(waveform.samples, waveform.sample_rate_hz)
        n_frames = spectrogram.shape[1]
        note = f"cut from {n_frames} to {MAX_FRAMES} frames" if n_frames > MAX_FRAMES else None
        kept = np.ascontiguousarray(spectrogram[:, :MAX_FRAMES])
        return Prepared(clip.clip_id, [kept], n_units=kept.shape[1], note=note)

    def forward(self, pieces: Sequence[NDArray[Any]]) -> Encoded:
        n_frames = [piece.shape[1] for piece in pieces]
        padded = torch.zeros(len(pieces), N_MELS, max(max(padded_frames(n), n) for n in n_frames))
        for row, piece in zip(padded, pieces, strict=True):
            row[:, : piece.shape[1]] = torch.from_numpy(piece)
        steps = self.network(padded.to(self.device))  # (B, 1024, S)
        covered = [step[:, : pooled_steps(n)] for step, n in zip(steps, n_frames, strict=True)]  # (1024, S_b) each
        return Encoded(torch.stack([step.mean(dim=1) for step in covered]), [step.T for step in covered])
