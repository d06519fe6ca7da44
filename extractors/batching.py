"""What every network-backed extractor shares: device, precision, and batches cut in one place.

A clip gives one or more pieces (its sampled frames; its one token sequence; its one log-mel), the network turns each
piece into a vector, and the clip's embedding is the mean of its pieces' vectors. What a piece's vector was pooled from
(a frame; its tokens; its time steps) one after the other is the clip's sequence, kept where it is asked for.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import local
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from extractors.base import Embedding, Prepared
from extractors.errors import ExtractionError, is_out_of_memory

DEVICES = ("auto", "cpu", "cuda")
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = ("fp32", *_HALF)
# Passes side by side. On a CPU each has its share of PyTorch's threads: one thread waits for no other, where two that
# share every operation wait for each other at its end. On a GPU one pass is copied while the other is computed.
MAX_STREAMS = {"cpu": 4, "cuda": 2}
_thread = local()
_MULTIPLIED = (nn.Conv1d, nn.Conv2d, nn.Linear)  # what autocast multiplies in bf16


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


class _Piece(NamedTuple):
    """One input of the network: the place of its clip among those to encode, and how long it is."""

    owner: int
    content: NDArray[Any]
    length: int


class _Row(NamedTuple):
    """One piece off the device: (D,), and (T, D) where sequences are kept."""

    vector: NDArray[np.float32]
    steps: NDArray[np.float32] | None


class NetworkExtractor(ABC):
    """encode() for subclasses that say how a batch of pieces goes through their network.

    Attributes:
        unit: what a piece's length is counted in, in the plural.
        default_batch: units in a forward pass by device, padding counted; large enough to keep it busy.
        half_is_close: in half precision a vector keeps a cosine of .9999 with fp32's: the rule, where it is fast.
        max_streams: passes side by side, at most.

    Args:
        network: put on the device, in eval mode.
        batch_size: units in one forward pass, padding counted; None is the default for the device.
        device: "auto" | "cpu" | "cuda".
        precision: "fp32" | "bf16" | "fp16": of convolutions and products, by autocast, their weights kept in it.
    Raises:
        ValueError: one of them is out of range.
    """

    unit: ClassVar[str]
    default_batch: ClassVar[Mapping[str, int]]
    half_is_close: ClassVar[bool] = True

    def __init__(self, network: nn.Module, *, batch_size: int | None, device: str, precision: str) -> None:
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        if precision not in PRECISIONS:
            raise ValueError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
        self.device = resolve_device(device)
        self.precision = precision
        self.batch_size = batch_size or self.default_batch[self.device.type]
        self.max_streams = MAX_STREAMS[self.device.type]
        # Channels last: a fifth to a half less time for the convolutions, the same numbers to 1e-5.
        self.network = network.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        if precision in _HALF:  # once: autocast would cast them anew in every pass
            for module in self.network.modules():
                if isinstance(module, _MULTIPLIED):
                    module.to(_HALF[precision])

    @abstractmethod
    def collate(self, pieces: Sequence[NDArray[Any]]) -> tuple[Tensor, ...]:
        """B pieces -> the tensors that forward() takes, on the CPU, padded to the longest."""

    @abstractmethod
    def forward(self, *inputs: Tensor) -> Encoded:
        """What collate() made, on self.device, through the network; a piece's rows do not depend on the others."""

    def length(self, piece: NDArray[Any]) -> int:
        """Of a piece, in units; 1 where all are alike."""
        return 1

    def plan(self) -> str:
        return f"{self.precision} on {self.device.type}, {self.batch_size} {self.unit} a pass"

    def encode(
        self,
        prepared: Sequence[Prepared],
        *,
        keep_sequence: bool = False,
        on_clips: Callable[[int], None] = lambda n: None,
    ) -> list[Embedding | ExtractionError]:
        """Each clip's embedding, or why it has none, in the order given.

        Pieces are batched by length, so that little is spent on padding. A batch that does not fit the device's memory
        is halved, and so are those after it; a clip that yields NaN or Inf, or does not fit alone, fails by itself.
        """
        pieces = [
            _Piece(owner, piece, self.length(piece)) for owner, item in enumerate(prepared) for piece in item.inputs
        ]
        pieces.sort(key=lambda piece: -piece.length)  # the longest first: what does not fit shows at once
        rows: list[list[_Row | None]] = [[] for _ in prepared]
        missing = [len(item.inputs) for item in prepared]
        for batch, found in self._runs(self._batches(pieces), keep_sequence):
            for piece, row in zip(batch, found, strict=True):
                rows[piece.owner].append(row)
                missing[piece.owner] -= 1
            on_clips(sum(missing[owner] == 0 for owner in {piece.owner for piece in batch}))
        return [_pool(item, found) for item, found in zip(prepared, rows, strict=True)]

    def _runs(
        self, batches: Iterator[Sequence[_Piece]], keep_sequence: bool
    ) -> Iterator[tuple[Sequence[_Piece], list[_Row | None]]]:
        """Each batch with its rows, in order."""
        waiting = list(batches)
        n_threads = torch.get_num_threads()
        most = self.max_streams
        n_streams = min(len(waiting), most if self.device.type == "cuda" else min(n_threads, most))
        if n_streams <= 1:  # nothing to stand beside it
            yield from ((batch, self._run(batch, keep_sequence)) for batch in waiting)
            return

        def run(batch: Sequence[_Piece]) -> list[_Row | None]:
            if self.device.type == "cuda":
                with torch.cuda.stream(_own_stream()):
                    return self._run(batch, keep_sequence)
            torch.set_num_threads(max(1, n_threads // n_streams))  # this thread's
            return self._run(batch, keep_sequence)

        try:
            yield from zip(waiting, _streams(n_streams).map(run, waiting), strict=True)
        finally:
            torch.set_num_threads(n_threads)  # a part of the setting is the whole process'

    def _batches(self, pieces: Sequence[_Piece]) -> Iterator[Sequence[_Piece]]:
        """Cuts pieces, the longest first, into batches of batch_size units, each piece padded to the first one."""
        start = 0
        while start < len(pieces):
            end = start + max(1, self.batch_size // pieces[start].length)
            yield pieces[start:end]
            start = end

    def _run(self, pieces: Sequence[_Piece], keep_sequence: bool) -> list[_Row | None]:
        """A row a piece; None where a piece alone does not fit the device's memory."""
        autocast = torch.autocast(self.device.type, _HALF.get(self.precision), enabled=self.precision in _HALF)
        try:
            with torch.inference_mode(), autocast:
                inputs = self.collate([piece.content for piece in pieces])
                encoded = self.forward(*(self._moved(tensor) for tensor in inputs))
                vectors = encoded.vectors.float().cpu().numpy()  # (B, D)
                steps = [s.float().cpu().numpy() if keep_sequence else None for s in encoded.steps]
                return [_Row(*row) for row in zip(vectors, steps, strict=True)]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(pieces) == 1:
                return [None]
        # Out of the except block, whose traceback keeps the failed batch's tensors alive.
        middle = len(pieces) // 2
        self.batch_size = min(self.batch_size, middle * pieces[0].length)
        return self._run(pieces[:middle], keep_sequence) + self._run(pieces[middle:], keep_sequence)

    def _moved(self, tensor: Tensor) -> Tensor:
        return tensor if self.device.type == "cpu" else tensor.pin_memory().to(self.device, non_blocking=True)


@cache
def _streams(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, thread_name_prefix="stream")


def _own_stream() -> torch.cuda.Stream:
    """This thread's queue on the GPU."""
    if not hasattr(_thread, "stream"):
        _thread.stream = torch.cuda.Stream()
        _thread.stream.wait_stream(torch.cuda.default_stream())  # where the weights were put
    return cast(torch.cuda.Stream, _thread.stream)


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
