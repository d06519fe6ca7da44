"""Views as the whole method takes them in: standardised, rotated to at most 64 dims, with their gaps filled.

Shapes: N clips, D features of a view, E <= 64 dims kept.
"""

from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor, nn

from tib.standardise import standardisation

MAX_DIM = 64
FURTHEST = 1e4  # sds: a value beyond, from a clip unlike any that was learned from, must not overflow the network


class Projection(nn.Module):
    """(x - mean) / sd of each feature, then the leading principal directions, not whitened: (N, D) to (N, E).

    Distances survive it (exactly, where D <= 64), units do not. A feature that is the same for every clip becomes 0.

    Args:
        dim, kept: D and E.
    """

    mean: Tensor
    scale: Tensor
    directions: Tensor

    def __init__(self, dim: int, kept: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim, dtype=dtype))
        self.register_buffer("scale", torch.ones(dim, dtype=dtype))  # 1 / sd, 0 for a constant feature
        self.register_buffer("directions", torch.zeros(dim, kept, dtype=dtype))

    @classmethod
    def fitted(cls, view: NDArray[np.floating], dtype: torch.dtype, seed: int) -> Self:
        """Learn it from (N, D) rows without gaps, N >= 1."""
        mean, scale = standardisation(view)
        standardised = (view - mean) * scale
        kept = min(MAX_DIM, *view.shape)
        with np.errstate(invalid="ignore"):  # shares of a variance that is 0, where a view says nothing
            directions = PCA(kept, random_state=seed % 2**32).fit(standardised).components_.T
        projection = cls(view.shape[1], kept, dtype)
        for name, value in (("mean", mean), ("scale", scale), ("directions", directions)):
            getattr(projection, name).copy_(torch.from_numpy(np.ascontiguousarray(value)))
        return projection

    def forward(self, view: Tensor) -> Tensor:
        """(N, D) to (N, E); a row of NaN stays one."""
        return ((view - self.mean) * self.scale).clamp(-FURTHEST, FURTHEST) @ self.directions


def present_rows(view: Tensor) -> Tensor:
    """(N,) True where a clip has the view."""
    return ~view.isnan().any(-1)


def fill_gaps(view: Tensor, present: Tensor, neighbours: Tensor) -> Tensor:
    """The view with every missing row taken from the clip's nearest neighbour that has it; 0, the mean, where none has.

    Filled rows only keep batch normalisation's moments typical; no term of the loss counts them.

    Args:
        view: (N, E); missing rows NaN.
        present: (N,) bool.
        neighbours: (N, k) row numbers, nearest first.
    Source: hot-deck imputation (Andridge & Little 2010).
    """
    if bool(present.all()):
        return view
    gaps = (~present).nonzero().squeeze(1)
    candidates = neighbours[gaps]
    have = present[candidates]  # (gaps, k)
    donors = candidates.gather(1, have.int().argmax(1, keepdim=True)).squeeze(1)
    filled = view.clone()
    filled[gaps] = torch.where(have.any(1, keepdim=True), view[donors], 0.0)
    return filled.nan_to_num(nan=0.0)
