"""What every network-backed extractor shares: device, precision, and batches cut in one place.

A clip gives one or more pieces (its sampled frames; its one token sequence; its one log-mel), the network turns each
piece into a vector, and the clip's embedding is the mean of its pieces' vectors.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from extractors.base import Embedding, Prepared
from extractors.errors import ExtractionError

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("fp32", "bf16")


def resolve_device(device: str) -> torch.device:
    """ "auto" is CUDA where there is one.

    Raises:
        ValueError: another word, or CUDA where PyTorch sees none.
    """
    if device not in DEVICES:
        raise ValueError(f"unknown device {device!r}; known: {', '.join(DEVICES)}")
    has_cuda = torch.cuda.is_available()
    if device == "cuda" and not has_cuda:
        raise ValueError("device 'cuda' was asked for and PyTorch sees no CUDA device; use 'auto' or 'cpu'")
    return torch.device("cuda" if has_cuda and device != "cpu" else "cpu")


class NetworkExtractor(ABC):
    """encode() for subclasses that say how a batch of pieces goes through their network.

    Args:
        network: put on the device, in eval mode.
        batch_size: pieces (frames, transcripts, log-mels) in one forward pass.
        device: "auto" | "cpu" | "cuda".
        precision: "fp32" | "bf16" (autocast).
    Raises:
        ValueError: one of them is out of range.
    """

    def __init__(self, network: nn.Module, *, batch_size: int, device: str, precision: str) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        if precision not in PRECISIONS:
            raise ValueError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
        self.device = resolve_device(device)
        self.precision = precision
        self.batch_size = batch_size
        self.network = network.to(self.device).eval()

    @abstractmethod
    def forward(self, pieces: Sequence[NDArray[Any]]) -> Tensor:
        """(B, D) for B pieces, on self.device; a piece's row does not depend on the other pieces."""

    def encode(self, prepared: Sequence[Prepared]) -> list[Embedding | ExtractionError]:
        """Each clip's embedding, or why it has none, in the order given.

        Pieces are batched by length, so that little is spent on padding. A batch that does not fit the device's memory
        is halved; a clip that yields NaN or Inf, or does not fit alone, fails by itself.
        """
        by_length = sorted(range(len(prepared)), key=lambda i: prepared[i].n_units)
        pieces = [(owner, piece) for owner in by_length for piece in prepared[owner].inputs]
        vectors: list[list[NDArray[np.float32] | None]] = [[] for _ in prepared]
        for start in range(0, len(pieces), self.batch_size):
            batch = pieces[start : start + self.batch_size]
            rows = self._run([piece for _, piece in batch])
            for (owner, _), row in zip(batch, rows, strict=True):
                vectors[owner].append(row)
        return [_pool(item, rows) for item, rows in zip(prepared, vectors, strict=True)]

    def _run(self, pieces: Sequence[NDArray[Any]]) -> list[NDArray[np.float32] | None]:
        """A (D,) vector a piece; None where a piece alone does not fit the device's memory."""
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")
        try:
            with torch.inference_mode(), autocast:
                return list(self.forward(pieces).float().cpu().numpy())  # rows of (B, D)
        except torch.OutOfMemoryError:
            if len(pieces) == 1:
                return [None]
        # Out of the except block, whose traceback keeps the failed batch's tensors alive.
        middle = len(pieces) // 2
        return self._run(pieces[:middle]) + self._run(pieces[middle:])


def _pool(item: Prepared, rows: Sequence[NDArray[np.float32] | None]) -> Embedding | ExtractionError:
    """The mean of a clip's rows, or why there is none."""
    kept = [row for row in rows if row is not None]
    if len(kept) < len(rows):
        return ExtractionError(
            "encode", "out_of_memory", "does not fit the device's memory even alone; use device cpu or shorter clips"
        )
    stacked = np.stack(kept)  # (pieces, D)
    if not np.isfinite(stacked).all():
        return ExtractionError(
            "encode", "not_finite", "the network returned NaN or Inf; with precision bf16, try fp32; else check weights"
        )
    return Embedding(item.clip_id, stacked.mean(axis=0, dtype=np.float64).astype(np.float32), item.n_units)
