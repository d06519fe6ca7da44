"""Standardisation and PCA from sums that are added up in one pass: no (N, D) matrix is ever held."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 22  # numbers that are taken to float64 at a time: 32 MB


@dataclass(frozen=True, slots=True)
class Reduction:
    """One modality's fitted map: (x - mean) / scale, then onto the components if there are any.

    Attributes:
        mean, scale: (D,) float32.
        components: (dim, D) float32, or None where no PCA was asked for.
        explained: share of the variance kept, 0..1.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    components: NDArray[np.float32] | None
    explained: float

    @property
    def dim(self) -> int:
        """Dims that it gives."""
        return len(self.mean if self.components is None else self.components)

    def apply(self, view: NDArray[np.float32]) -> NDArray[np.float32]:
        """Projects clips.

        Args:
            view: (N, D); rows of NaN stay NaN.
        Returns:
            (N, dim) float32.
        Raises:
            ValueError: another D than it was fitted on.
        """
        if view.shape[1] != len(self.mean):
            raise ValueError(f"expected {len(self.mean)}-d embeddings, as it was fitted on, got {view.shape[1]}-d")
        centred = (view - self.mean) / self.scale
        projected = centred if self.components is None else centred @ self.components.T
        return projected.astype(np.float32, copy=False)


class Moments:
    """Count, mean and scatter matrix of vectors that come in blocks.

    Each block is centred on its own mean before it is squared and added, so that a mean far from zero costs no digits.
    Source: Chan, Golub & LeVeque 1979, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances.

    Attributes:
        n: vectors so far.
        mean: (D,) float64.
        scatter: (D, D) float64, the sum of (x - mean)(x - mean)^T.
    """

    def __init__(self, n_features: int) -> None:
        self.n = 0
        self.mean = np.zeros(n_features)
        self.scatter = np.zeros((n_features, n_features))

    @classmethod
    def of(cls, blocks: Iterable[NDArray[np.float32]], n_features: int) -> "Moments":
        """Of all vectors of all blocks, each (n, D)."""
        moments = cls(n_features)
        for block in blocks:
            moments.add(block)
        return moments

    def add(self, block: NDArray[np.float32]) -> None:
        """Adds (n, D) vectors."""
        n_rows = max(1, _BLOCK // len(self.mean))
        for start in range(0, len(block), n_rows):
            self._add(block[start : start + n_rows].astype(np.float64))

    def _add(self, block: NDArray[np.float64]) -> None:
        mean = block.mean(axis=0)
        block -= mean
        shift, total = mean - self.mean, self.n + len(block)
        self.scatter += block.T @ block
        self.scatter += np.outer(shift, shift) * (self.n * len(block) / total)
        self.mean += shift * (len(block) / total)
        self.n = total

    def variance(self) -> NDArray[np.float64]:
        """(D,) population variance; 0 where nothing but rounding tells it from 0, as scikit-learn's scaler judges."""
        variance = np.diag(self.scatter) / self.n
        eps = np.finfo(np.float64).eps
        rounding = self.n * eps * variance + (self.n * self.mean * eps) ** 2
        return np.where(variance <= rounding, 0.0, variance)

    def fit(self, dim: int | None, *, standardize: bool) -> Reduction:
        """The reduction of these vectors; exact, with the signs that scikit-learn's PCA gives.

        Args:
            dim: dims to keep, at most min(N - 1, D); None keeps all, without a PCA.
            standardize: whether to divide each feature by its standard deviation, where it has any.
        """
        variance = self.variance()
        scale = np.sqrt(np.where(variance > 0, variance, 1.0)) if standardize else np.ones(len(variance))
        components, explained = None, 1.0
        if dim is not None:
            components, explained = _principal_components(self.scatter / np.outer(scale, scale), dim)
        return Reduction(self.mean.astype(np.float32), scale.astype(np.float32), components, explained)


def fit_reduction(view: NDArray[np.float32], dim: int | None, *, standardize: bool) -> Reduction:
    """Fits standardisation and PCA on the clips of one view that have the modality.

    Args:
        view: (N, D), rows of NaN are left out.
        dim, standardize: as for `Moments.fit`.
    """
    return Moments.of([view[~np.isnan(view).any(axis=1)]], view.shape[1]).fit(dim, standardize=standardize)


def _principal_components(scatter: NDArray[np.float64], dim: int) -> tuple[NDArray[np.float32], float]:
    """(dim, D) eigenvectors of a scatter matrix, the largest first, and their share of the variance.

    Each points to where its largest coefficient is positive, as scikit-learn's `svd_flip` has it.
    """
    from scipy.linalg import eigh  # only now: `status` reads what is here already

    n_features = len(scatter)
    values, vectors = eigh(scatter, subset_by_index=[n_features - dim, n_features - 1])
    components = vectors.T[::-1]  # (dim, D)
    largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    total = np.trace(scatter)
    explained = float(values.clip(min=0).sum() / total) if total > 0 else 0.0
    return (components * np.where(largest < 0, -1, 1)).astype(np.float32), explained
