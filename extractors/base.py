"""The contract of an extractor: a clip goes in, one embedding or one ExtractionError comes out.

An extractor works in two steps so that one place (pipeline/extract.py) can read each file once, in a process of its
own, and encode many clips in one batch:

    preparer.prepare(clip, media)  one clip, CPU: sampled frames, tokens or log-mel, ready for the network
    encode(prepared)               many clips, the network: one Embedding or ExtractionError each, in the order given
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from extractors.clip import Clip
from extractors.errors import ExtractionError
from extractors.media import Media, MediaNeeds

MODALITIES = ("visual", "text", "audio")


@dataclass(frozen=True, slots=True)
class Prepared:
    """One clip, ready for the network.

    Attributes:
        clip_id: whose.
        inputs: what the extractor's own encode() expects.
        n_units: frames, tokens or audio frames that went in.
        note: what a person should know though nothing failed ("cut from 11204 to 512 tokens"), or None.
        counts: what befell how many of the n_units, to be summed over clips: "frames without a face, taken whole": 3.
    """

    clip_id: str
    inputs: Any
    n_units: int
    note: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Embedding:
    """An extractor's output for one clip.

    Attributes:
        clip_id: whose.
        vector: (D,) float32, finite.
        n_units: frames, tokens or audio frames it was pooled from, >= 1.
        sequence: the (T, D) float32 rows behind the vector, T >= 1: one a frame, a token or an output step of the
            audio network; None where nobody asked for them.

    Raises:
        ValueError: another shape or dtype, NaN or Inf, n_units < 1.
    """

    clip_id: str
    vector: NDArray[np.float32]
    n_units: int
    sequence: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.vector.ndim != 1 or self.vector.dtype != np.float32:
            raise ValueError(
                f"clip {self.clip_id!r}: an embedding is a (D,) float32 vector, "
                f"got {self.vector.shape} {self.vector.dtype}"
            )
        if not np.isfinite(self.vector).all():
            raise ValueError(f"clip {self.clip_id!r}: the embedding holds NaN or Inf")
        if self.n_units < 1:
            raise ValueError(f"clip {self.clip_id!r}: n_units must be >= 1, got {self.n_units}")
        if self.sequence is not None:
            self._check_sequence(self.sequence)

    def _check_sequence(self, sequence: NDArray[np.float32]) -> None:
        dim = len(self.vector)
        if sequence.ndim != 2 or sequence.shape[1] != dim or not len(sequence) or sequence.dtype != np.float32:
            raise ValueError(
                f"clip {self.clip_id!r}: the sequence of a {dim}-d embedding is a (T, {dim}) float32 array, "
                f"got {sequence.shape} {sequence.dtype}"
            )
        if not np.isfinite(sequence).all():
            raise ValueError(f"clip {self.clip_id!r}: the sequence holds NaN or Inf")


class Preparer(Protocol):
    """An extractor's first step, without its network: small, so that it can be sent to the process that reads."""

    @property
    def needs(self) -> MediaNeeds:
        """What to read from the clip's file."""

    def prepare(self, clip: Clip, media: Media) -> Prepared:
        """One clip to network input; thread-safe. Raises ExtractionError with the cause."""


class Extractor(Protocol):
    """One backbone. Attributes are fixed at construction; nothing is read from the environment."""

    name: str  # "visual/vgg16"
    dim: int  # D
    weights_record: dict[str, Any]  # source, sha256, licence; goes into the recipe
    precision: str  # of its arithmetic: "fp32", "bf16"

    @property
    def preparer(self) -> Preparer:
        """Its first step."""

    def plan(self) -> str:
        """How it works here, in a few words: "bf16 on cpu, 16 frames a pass"."""

    def encode(
        self,
        prepared: Sequence[Prepared],
        *,
        keep_sequence: bool = False,
        on_clips: Callable[[int], None] = lambda n: None,
    ) -> list[Embedding | ExtractionError]:
        """Any number of clips, same order: an Embedding each, or why that clip has none.

        `on_clips` is told, after each pass, how many clips it completed.

        A clip's vector does not depend on its batch, nor on whether its sequence is kept; one bad clip never spoils
        the others.
        """


class PlainExtractor(ABC):
    """An extractor without a network: each clip's embedding by itself, on the CPU."""

    precision = "fp64"

    @abstractmethod
    def embed(self, item: Prepared, *, keep_sequence: bool) -> Embedding:
        """The embedding of one clip."""

    def plan(self) -> str:
        """There are no passes."""
        return "on cpu, without a network"

    def encode(
        self,
        prepared: Sequence[Prepared],
        *,
        keep_sequence: bool = False,
        on_clips: Callable[[int], None] = lambda n: None,
    ) -> list[Embedding | ExtractionError]:
        """Each clip's embedding, in the order given."""
        embeddings: list[Embedding | ExtractionError] = []
        for item in prepared:
            embeddings.append(self.embed(item, keep_sequence=keep_sequence))
            on_clips(1)
        return embeddings
