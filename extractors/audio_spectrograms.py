"""What the networks on log-mels share: 40 bands -> one vector every 16 frames -> the mean of those the sound covers."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from extractors.batching import Encoded, NetworkExtractor
from extractors.errors import WeightsError
from extractors.log_mel_preparer import MAX_FRAMES, LogMelPreparer
from extractors.logmel import N_MELS
from extractors.weights import PretrainedWeights, load_into, load_state_dict, locate_file, seeded_init

STRIDE = 16  # input frames per output step
LENGTH_STEP = 64  # padded lengths are multiples: oneDNN compiles kernels for each length it meets, tens of ms a pass
# Mean and spread of a log-mel in dB. The first batch norm starts from them, so that an untrained network sees numbers
# of about unit size; a checkpoint replaces them.
DB_MEAN, DB_VARIANCE = -40.0, 20.0**2

# Names that only this network's state dict holds.
_MARKS = {
    "audio/davenet": {"batchnorm1.weight", "conv5.weight"},
    "audio/resdavenet": {"batchnorm1.weight", "layer4.0.conv1.weight"},
}


def pooled_steps(n_frames: int) -> int:
    """How many output steps a clip of n_frames is averaged over."""
    return max(1, n_frames // STRIDE)


def padded_frames(n_frames: int, right_context: int) -> int:
    """The length to pad n_frames <= 2048 to, so that its pooled steps come out as if padded to 2048.

    Args:
        n_frames: of a log-mel.
        right_context: of the network: its output step j sees the input up to frame 16 j + right_context. 0 pads
            nothing.
    """
    if not right_context:
        return n_frames
    wanted = STRIDE * (pooled_steps(n_frames) - 1) + right_context + 1
    return max(n_frames, min(MAX_FRAMES, LENGTH_STEP * math.ceil(wanted / LENGTH_STEP)))


def pad(log_mels: Sequence[NDArray[np.float32]], right_context: int = 0) -> Tensor:
    """B log-mels, (40, T_b) each -> (B, 40, T), zeros after each: 0 dB, as the networks were trained.

    Args:
        log_mels: T_b <= 2048.
        right_context: see padded_frames; 0 pads to the longest, and the last steps of that one see its end.
    """
    n_frames = [piece.shape[1] for piece in log_mels]
    padded = torch.zeros(len(log_mels), N_MELS, max(padded_frames(n, right_context) for n in n_frames))
    for row, piece, n in zip(padded, log_mels, n_frames, strict=True):
        row[:, :n] = torch.from_numpy(piece)
    return padded


class SpectrogramExtractor(NetworkExtractor):
    """A clip's vector is the mean over the output steps that its sound covers.

    Training takes `build` and `right_context` from a subclass without making one.

    Attributes:
        published: what is known of the network's weights.
        right_context: see padded_frames.
        left_out: prefixes of what a state dict holds for training alone.

    Args:
        weights: "random" | "package:<import name>" | a state dict's path. "hub" says that there is none.
        seed: of "random".
        batch_size, device, precision: see NetworkExtractor.
    Raises:
        ValueError: a setting out of range.
        WeightsError: the weights cannot be had.
    """

    name: str
    dim = 1024
    preparer = LogMelPreparer()
    published: PretrainedWeights
    right_context: int
    unit = "log-mel frames"
    default_batch: ClassVar = {"cpu": 4096, "cuda": 131072}
    left_out: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        weights: str = "hub",
        seed: int = 0,
        batch_size: int | None = None,
        device: str = "auto",
        precision: str = "fp32",
    ) -> None:
        path = locate_file(weights, self.published)
        if path is None:
            with seeded_init(seed):
                network = self.build()
            self.weights_record = self.published.random_record(seed)
        else:
            self.weights_record = self.published.file_record(weights, path)
            network = self.load(path)
        super().__init__(network, batch_size=batch_size, device=device, precision=precision)

    @classmethod
    @abstractmethod
    def build(cls, state: Mapping[str, Tensor] | None = None) -> nn.Module:
        """The untrained network, (B, 40, T) or (B, 1, 40, T) log-mel in dB -> (B, 1024, ceil(T / 16)).

        Args:
            state: a state dict that it shall fit, where the published ones differ in size; nothing is loaded.
        """

    @classmethod
    def load(cls, path: Path) -> nn.Module:
        """The network with the weights of a state dict in the published layout, in eval mode.

        Args:
            path: names with or without a `module.` prefix.
        Raises:
            WeightsError: no such file, an unsafe or damaged one, names or shapes that do not fit.
        """
        state = load_state_dict(path)
        for other, marks in _MARKS.items():
            if other != cls.name and marks <= state.keys():
                raise WeightsError(f"{path} looks like {other}, not {cls.name}; set extract.audio.backbone={other}")
        with torch.device("meta"):  # no memory, and no initial values that the file would replace
            network = cls.build(state)
        load_into(network, state, path, ignore=cls.left_out)
        return network.eval()

    def length(self, piece: NDArray[Any]) -> int:
        return padded_frames(piece.shape[1], self.right_context)

    def collate(self, pieces: Sequence[NDArray[Any]]) -> tuple[Tensor, ...]:
        """B log-mels -> (B, 40, T), and (B,) how many output steps the sound of each covers."""
        return pad(pieces, self.right_context), torch.tensor([pooled_steps(piece.shape[1]) for piece in pieces])

    def forward(self, *inputs: Tensor) -> Encoded:
        log_mels, n_covered = inputs
        steps = self.network(log_mels).float()  # (B, 1024, S): averaged in float32
        covered = [row[:, :n] for row, n in zip(steps, n_covered.tolist(), strict=True)]  # (1024, S_b) each
        return Encoded(torch.stack([row.mean(dim=1) for row in covered]), [row.T for row in covered])
