"""What every network-backed extractor shares: device, precision, and batches cut in one place.

A clip gives one or more pieces (its sampled frames; its one token sequence; its one log-mel), the network turns each
piece into a vector, and the clip's embedding is the mean of its pieces' vectors. What a piece's vector was pooled from
(a frame; its tokens; its time steps) one after the other is the clip's sequence, kept where it is asked for.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

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


class Encoded(NamedTuple):
    """What a network makes of B pieces.

    Attributes:
        vectors: (B, D).
        steps: for each piece the (T, D) that its vector was pooled from, padding left out.
    """

    vectors: Tensor
    steps: Sequence[Tensor]


class _Row(NamedTuple):
    """One piece off the device: (D,), and (T, D) where sequences are kept."""

    vector: NDArray[np.float32]
    steps: NDArray[np.float32] | None


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
    def forward(self, pieces: Sequence[NDArray[Any]]) -> Encoded:
        """B pieces through the network, on self.device; a piece's rows do not depend on the other pieces."""

    def encode(self, prepared: Sequence[Prepared], *, keep_sequence: bool = False) -> list[Embedding | ExtractionError]:
        """Each clip's embedding, or why it has none, in the order given.

        Pieces are batched by length, so that little is spent on padding. A batch that does not fit the device's memory
        is halved; a clip that yields NaN or Inf, or does not fit alone, fails by itself.
        """
        by_length = sorted(range(len(prepared)), key=lambda i: prepared[i].n_units)
        pieces = [(owner, piece) for owner in by_length for piece in prepared[owner].inputs]
        rows: list[list[_Row | None]] = [[] for _ in prepared]
        for start in range(0, len(pieces), self.batch_size):
            batch = pieces[start : start + self.batch_size]
            for (owner, _), row in zip(batch, self._run([piece for _, piece in batch], keep_sequence), strict=True):
                rows[owner].append(row)
        return [_pool(item, found) for item, found in zip(prepared, rows, strict=True)]

    def _run(self, pieces: Sequence[NDArray[Any]], keep_sequence: bool) -> list[_Row | None]:
        """A row a piece; None where a piece alone does not fit the device's memory."""
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")
        try:
            with torch.inference_mode(), autocast:
                encoded = self.forward(pieces)
                vectors = encoded.vectors.float().cpu().numpy()  # (B, D)
                steps = [s.float().cpu().numpy() if keep_sequence else None for s in encoded.steps]
                return [_Row(*row) for row in zip(vectors, steps, strict=True)]
        except torch.OutOfMemoryError:
            if len(pieces) == 1:
                return [None]
        # Out of the except block, whose traceback keeps the failed batch's tensors alive.
        middle = len(pieces) // 2
        return self._run(pieces[:middle], keep_sequence) + self._run(pieces[middle:], keep_sequence)


def _pool(item: Prepared, rows: Sequence[_Row | None]) -> Embedding | ExtractionError:
    """The mean of a clip's rows, with what they were pooled from; or why there is none."""
    kept = [row for row in rows if row is not None]
    if len(kept) < len(rows):
        return ExtractionError(
            "encode", "out_of_memory", "does not fit the device's memory even alone; use device cpu or shorter clips"
        )
    stacked = np.stack([row.vector for row in kept])  # (pieces, D)
    steps = [row.steps for row in kept if row.steps is not None]
    sequence = np.concatenate(steps) if steps else None  # (T, D), a copy: the padded batch is let go
    if not all(np.isfinite(values).all() for values in (stacked, sequence) if values is not None):
        return ExtractionError(
            "encode", "not_finite", "the network returned NaN or Inf; with precision bf16, try fp32; else check weights"
        )
    vector = stacked.mean(axis=0, dtype=np.float64).astype(np.float32)
    return Embedding(item.clip_id, vector, item.n_units, sequence)
